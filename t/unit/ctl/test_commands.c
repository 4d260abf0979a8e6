/* SPDX-License-Identifier: BSD-2-Clause */
/* The commands of the table, against a daemon made of nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/cache.h"
#include "fake.h"
#include "reactor/task.h"

TestSuite(ctl_commands, .init = fake_init, .fini = fake_fini);

static const struct json_limits big = {64, 100000};

/* The n-th line, parsed. */
static struct json *parsed(unsigned n)
{
	struct json *v = NULL;
	char *p;

	fake_read(n);
	p = fake.got;
	for (unsigned i = 1; i < n; i++)
		p = strchr(p, '\n') + 1;
	cr_assert_eq(json_parse(&v, p, strcspn(p, "\n"), &big, NULL), 0, "%s", p);
	return v;
}

Test(ctl_commands, every_row_is_whole)
{
	for (const struct ctl_command *c = ctl_commands; c->name != NULL; c++) {
		cr_assert_not_null(c->fn);
		cr_assert_not_null(c->args);
		cr_assert_gt(strlen(c->help), 0);
		cr_assert_eq(ctl_command_find(ctl_commands, c->name), c, "%s is there twice",
		    c->name);
	}
	cr_assert_null(ctl_command_find(ctl_commands, "nope"));
}

Test(ctl_commands, help)
{
	struct json *v;

	fake_connect(NULL);
	fake_say("{\"command\":\"help\"}\n");
	v = parsed(1);
	cr_assert_gt(json_get(json_get(v, "result"), "commands")->count, 8);
	json_free(&v);
}

Test(ctl_commands, status)
{
	const struct json *r, *s;
	struct json *v;

	snprintf(fake.d.warnings, sizeof(fake.d.warnings), "first\nsecond");
	fake.d.report.kind = REPORT_TAKEOVER;
	fake.d.report.pause_ns = 1234567;
	fake.d.report.wall_ns = UINT64_C(1000000000123456789);
	fake_connect(NULL);
	fake_say("{\"command\":\"status\",\"args\":{}}\n");
	v = parsed(1);
	r = json_get(v, "result");
	cr_assert_eq(json_get_u64(r, "pid", 0), (uint64_t)getpid());
	cr_assert_str_eq(json_get_text(r, "mountpoint", ""), "/mnt/test");
	s = json_get(r, "storage")->first;
	cr_assert_str_eq(json_get_text(s, "uri", ""), "s3://bucket/prefix");
	cr_assert_str_eq(json_get_text(s, "health", ""), "failing");
	cr_assert_str_eq(json_get_text(s, "last_error", ""), "503 SlowDown");
	cr_assert_eq(json_get_u64(json_get(r, "cache"), "used_bytes", 0), 500);
	cr_assert_eq(json_get_u64(json_get(r, "cache"), "pinned_bytes", 0), 7);
	cr_assert_eq(json_get_u64(r, "files_open", 0), 3);
	cr_assert_eq(json_get_u64(r, "requests_running", 0), 2);
	cr_assert_eq(json_get_u64(r, "persist_queue", 99), 0);
	cr_assert_str_eq(json_get_text(json_get(r, "metadata"), "backend", ""), "none");
	s = json_get(r, "last_takeover");
	cr_assert_str_eq(json_get_text(s, "kind", ""), "takeover");
	cr_assert_str_eq(json_get(s, "pause_ms")->text, "1.235");
	cr_assert_eq(json_get_u64(s, "time", 0), 1000000000);
	cr_assert_eq(json_get(s, "failure_time")->type, JSON_NULL);
	cr_assert_eq(json_get(r, "warnings")->count, 2);
	cr_assert_str_eq(json_get(r, "warnings")->last->text, "second");
	cr_assert_eq(json_get(r, "counters")->count, CTR_MAX);
	cr_assert_not_null(json_get(json_get(r, "counters"), "fuse.requests"));
	json_free(&v);
}

Test(ctl_commands, conf_get)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"conf get\",\"args\":{\"name\":\"ufs.timeout\"}}\n"
		 "{\"command\":\"conf get\",\"args\":{\"name\":\"alluxio.ufs.timeout\"}}\n"
		 "{\"command\":\"conf get\",\"args\":{\"name\":\"ufs.timeut\"}}\n"
		 "{\"command\":\"conf get\"}\n");
	fake_line(1, "{\"result\":{\"name\":\"ufs.timeout\",\"value\":\"30s\"}}");
	fake_line(2, "{\"result\":{\"name\":\"ufs.timeout\",\"value\":\"30s\"}}");
	fake_line_has(3, "ENOENT");
	fake_line_has(3, "nearest is ufs.timeout");
	fake_line_has(4, "missing");
}

Test(ctl_commands, conf_list)
{
	struct json *v;

	fake_connect(NULL);
	fake_say("{\"command\":\"conf list\"}\n");
	v = parsed(1);
	cr_assert_eq(json_get(json_get(v, "result"), "properties")->count, option_count);
	json_free(&v);
}

Test(ctl_commands, conf_set)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"conf set\",\"args\":{\"name\":\"alluxio.ufs.timeout\","
		 "\"value\":\"60s\"}}\n");
	fake_line(1, "{\"result\":{\"name\":\"ufs.timeout\",\"value\":\"1min\","
		     "\"previous\":\"30s\",\"kept\":true}}");
	cr_assert_eq(fake.d.cfg->ufs_timeout, UINT64_C(60000000000));
	cr_assert_str_eq(fake.kept, "ufs.timeout=1min");
}

Test(ctl_commands, conf_set_refused_changes_nothing)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"conf set\",\"args\":{\"name\":\"pool.threads\","
		 "\"value\":\"9\"}}\n"
		 "{\"command\":\"conf set\",\"args\":{\"name\":\"ufs.timeout\",\"value\":\"x\"}}\n"
		 "{\"command\":\"conf set\",\"args\":{\"name\":\"ufs.timeout\","
		 "\"value\":\"99h\"}}\n"
		 "{\"command\":\"conf set\",\"args\":{\"name\":\"nope\",\"value\":\"1\"}}\n"
		 "{\"command\":\"conf set\",\"args\":{\"name\":\"ufs.timeout\",\"value\":3}}\n");
	fake_line_has(1, "EPERM");
	fake_line_has(2, "EINVAL");
	fake_line_has(3, "ERANGE");
	fake_line_has(4, "ENOENT");
	fake_line_has(5, "a string");
	cr_assert_eq(fake.d.cfg->ufs_timeout, UINT64_C(30000000000));
	cr_assert_str_eq(fake.kept, "");
}

Test(ctl_commands, conf_set_that_is_not_kept_says_so)
{
	fake.keep_err = -ENOMEM;
	fake_connect(NULL);
	fake_say("{\"command\":\"conf set\",\"args\":{\"name\":\"log.level\","
		 "\"value\":\"debug\"}}\n");
	fake_line_has(1, "\"kept\":false");
}

/* Reads progress up to the answer: its line's number. */
static unsigned answer_at(void)
{
	for (unsigned n = 1;; n++) {
		struct json *v = parsed(n);
		bool more = json_get(v, "progress") != NULL;

		json_free(&v);
		if (!more)
			return n;
	}
}

/* Lists; the number of rows, which the answer must agree with. */
static unsigned list(const char *path, bool recursive)
{
	char rq[256];
	struct json *v;
	unsigned n;

	fake_connect(NULL);
	snprintf(rq, sizeof(rq),
	    "{\"command\":\"fs ls\",\"args\":{\"path\":\"%s\",\"recursive\":%s}}\n", path,
	    recursive ? "true" : "false");
	fake_say(rq);
	n = answer_at();
	v = parsed(n);
	cr_assert_eq(json_get_u64(json_get(v, "result"), "count", 12345), n - 1, "%s", fake.got);
	json_free(&v);
	return n - 1;
}

Test(ctl_commands, ls)
{
	fake.nfiles = 20;
	cr_assert_eq(list("/", false), 22);
	cr_assert_eq(fake.lists, 4, "pages of %d", FAKE_PAGE);
	fake_line_has(1, "{\"progress\":{\"path\":\"/sub\",\"kind\":\"directory\"");
	fake_line(3, "{\"progress\":{\"path\":\"/file-000000\",\"kind\":\"file\",\"size\":100,"
		     "\"mtime\":0,\"persistence\":\"PERSISTED\",\"cached_bytes\":50,"
		     "\"cached_percent\":50,\"stored_bytes\":40}}");
}

Test(ctl_commands, ls_of_a_file_and_odd_slashes)
{
	cr_assert_eq(list("/file", false), 1);
	fake_line_has(1, "\"path\":\"/file\"");
	fake_line_has(1, "\"cached_percent\":25");
	fake.nfiles = 3;
	cr_assert_eq(list("//sub///deep//", false), 3);
	fake_line_has(1, "\"path\":\"/sub/deep/file-000000\"");
}

/* A directory that vanished meanwhile is skipped; the order is that of the keys. */
Test(ctl_commands, ls_recursive)
{
	fake.nfiles = 20;
	cr_assert_eq(list("/", true), 22 + 21 + 20);
	fake_line_has(1, "\"path\":\"/sub\"");
	fake_line_has(2, "\"path\":\"/sub/deep\"");
	fake_line_has(3, "\"path\":\"/sub/deep/file-000000\"");
	fake_line_has(23, "\"path\":\"/sub/file-000000\"");
	fake_line_has(43, "\"path\":\"/gone\"");
	fake_line_has(44, "\"path\":\"/file-000000\"");
}

Test(ctl_commands, ls_errors)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/nope\"}}\n"
		 "{\"command\":\"fs ls\",\"args\":{\"path\":\"nope\"}}\n"
		 "{\"command\":\"fs ls\",\"args\":{\"path\":\"/a/../b\"}}\n"
		 "{\"command\":\"fs ls\",\"args\":{\"path\":\"/gone\"}}\n");
	fake_line(1, "{\"error\":{\"code\":\"ENOENT\","
		     "\"message\":\"/nope: No such file or directory\"}}");
	fake_line_has(2, "EINVAL");
	fake_line_has(3, "EINVAL");
	fake_line_has(4, "ENOENT");
}

/* The n-th listing fails, for every n until none does. */
Test(ctl_commands, ls_every_listing_fails_once)
{
	unsigned failed = 0;

	fake.nfiles = 20;
	for (int n = 1;; n++) {
		fake.fail_list = n;
		fake_connect(NULL);
		fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/\",\"recursive\":true}}\n");
		answer_at();
		if (fake.fail_list > 0)
			break;
		failed += strstr(fake.got, "EIO") != NULL;
		cr_assert_eq(fake.running, 0);
	}
	cr_assert_gt(failed, 8);
}

/* The client leaves after each number of turns: nothing is left behind. */
Test(ctl_commands, ls_the_client_leaves_at_any_time)
{
	for (int turns = 0; turns < 40; turns++) {
		fake.nfiles = 100;
		fake_connect(NULL);
		fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/\",\"recursive\":true}}\n");
		for (int i = 0; i < turns; i++)
			loop_turn(fake.d.loop, false);
		close(fake.client);
		fake.client = -1;
		while (!TAILQ_EMPTY(&fake.d.ctl->conns) || !TAILQ_EMPTY(&fake.d.ctl->cmds))
			loop_turn(fake.d.loop, false);
		cr_assert_eq(fake.running, 0);
	}
}

Test(ctl_commands, ls_to_a_client_that_does_not_read)
{
	fake.nfiles = 20000;
	fake_connect(NULL);
	fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/sub/deep\"}}\n");
	fake_settle();
	cr_assert_lt(fake.lists, 20000 / FAKE_PAGE);
	fake_read(20001);
	fake_line(20001, "{\"result\":{\"count\":20000}}");
	/* One that never reads is no obstacle to our end. */
	fake_connect(NULL);
	fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/sub/deep\"}}\n");
	fake_settle();
	ctl_free(&fake.d.ctl);
	cr_assert_eq(fake.running, 0);
}

Test(ctl_commands, stat)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs stat\",\"args\":{\"path\":\"/file\"}}\n"
		 "{\"command\":\"fs stat\",\"args\":{\"path\":\"/sub\"}}\n"
		 "{\"command\":\"fs stat\",\"args\":{\"path\":\"/nope\"}}\n");
	fake_line_has(1, "\"version\":\"etag\"");
	fake_line_has(1, "\"storage_path\":\"file\"");
	fake_line_has(2, "\"kind\":\"directory\"");
	fake_line_has(2, "\"cached_percent\":null");
	fake_line_has(3, "/nope: No such file or directory");
}

Test(ctl_commands, explain)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs explain\",\"args\":{\"path\":\"/file\"}}\n");
	fake_line_has(1, "\"policy\":\"NO_CACHE\"");
	fake_line_has(1, "\"pages_on_disk\":1");
	fake_line_has(1, "\"cache_file\":\"/cache/blobs/x\"");
}

static void turn_until_loading(unsigned n)
{
	while (fake.nloading < n)
		loop_turn(fake.d.loop, true);
}

static void end_load(int err)
{
	struct cache_load *l = fake.loading[--fake.nloading];

	l->done(l, err);
}

Test(ctl_commands, load)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs load\",\"args\":{\"paths\":[\"//file/\",\"/file\",\"/sub\","
		 "\"/nope\"]}}\n");
	fake_line_has(1, "Is a directory");
	fake_line_has(2, "{\"progress\":{\"path\":\"/nope\"");
	turn_until_loading(2);
	end_load(0);
	fake_line_has(3, "\"ok\":true");
	end_load(-ENOSPC);
	fake_line_has(4, "did not take all of it");
	fake_line(5, "{\"result\":{\"done\":1,\"failed\":3}}");
}

/* More files than go side by side, and then the client leaves. */
Test(ctl_commands, a_load_ends_with_its_client)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs load\",\"args\":{\"paths\":[\"/file\",\"/file\",\"/file\","
		 "\"/file\",\"/file\",\"/file\",\"/file\",\"/file\",\"/file\",\"/file\"]}}\n");
	turn_until_loading(8);
	end_load(0);
	turn_until_loading(8);
	close(fake.client);
	fake.client = -1;
	while (task_count(fake.d.loop) > 0)
		loop_turn(fake.d.loop, true);
	cr_assert_eq(fake.nloading, 0);
}

Test(ctl_commands, free)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"fs free\",\"args\":{\"paths\":[\"/file\"]}}\n"
		 "{\"command\":\"fs free\",\"args\":{\"paths\":[]}}\n"
		 "{\"command\":\"fs free\",\"args\":{\"paths\":[1]}}\n");
	fake_line_has(1, "\"ok\":true");
	fake_line(2, "{\"result\":{\"done\":1,\"failed\":0}}");
	fake_line(3, "{\"result\":{\"done\":0,\"failed\":0}}");
	fake_line_has(4, "begins with");
	cr_assert_eq(fake.dropped, 2);
}

Test(ctl_commands, upgrade)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"upgrade\",\"args\":{\"binary\":\"/new\","
		 "\"flags\":[\"-s\",\"a=b\"]}}\n");
	fake_line(1, "{\"progress\":{\"message\":\"starting a new daemon\",\"binary\":\"/new\","
		     "\"pid\":77}}");
	cr_assert_str_eq(fake.spawn_line, "/new -s a=b");
	cr_assert_not(fake.spawn_check);
	fake.spawn_done(fake.spawn_arg, 0, "pid 5 serves");
	/* Without another turn of the loop: we may be about to exit. */
	cr_assert_null(fake.d.ctl->upgrade);
	fake_line(2, "{\"result\":{\"check\":false,\"message\":\"pid 5 serves\"}}");
}

Test(ctl_commands, upgrade_check_and_failures)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"upgrade\",\"args\":{\"check\":true}}\n");
	fake_line_has(1, "\"progress\"");
	cr_assert(fake.spawn_check);
	cr_assert_str_eq(fake.spawn_line, "-");
	fake.spawn_done(fake.spawn_arg, -EPROTO, "the new daemon has other storage");
	fake_line(2, "{\"error\":{\"code\":\"EPROTO\","
		     "\"message\":\"the new daemon has other storage\"}}");
	fake.spawn_err = -ENOENT;
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_line_has(3, "cannot be executed");
	fake_say("{\"command\":\"upgrade\",\"args\":{\"flags\":[1]}}\n");
	fake_line_has(4, "strings");
	fake.d.takeover = NULL;
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_line_has(5, "EOPNOTSUPP");
}

Test(ctl_commands, one_upgrade_at_a_time)
{
	int first;

	fake_connect(NULL);
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_settle();
	first = fake.client;
	fake.client = -1;
	fake_connect(NULL);
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_line_has(1, "EBUSY");
	cr_assert_eq(fake.spawned, 1);
	close(first); /* its client leaves: it goes on */
	fake_settle();
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_line_has(2, "EBUSY");
	fake.spawn_done(fake.spawn_arg, -EIO, "");
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_line_has(3, "\"progress\"");
	cr_assert_eq(fake.spawned, 2);
}

Test(ctl_commands, we_end_before_the_upgrade)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"upgrade\"}\n");
	fake_settle();
	ctl_free(&fake.d.ctl);
	fake_line_has(2, "ESHUTDOWN");
	fake.spawn_done(fake.spawn_arg, -ECANCELED, "too late to tell anybody");
}

Test(ctl_commands, umount)
{
	fake_connect(NULL);
	fake.umount_err = -EBUSY;
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(1, "EBUSY");
	fake_line_has(1, "--force");
	fake.umount_err = 0;
	fake_say("{\"command\":\"umount\",\"args\":{\"force\":false}}\n");
	fake_line(2, "{\"result\":{\"mountpoint\":\"/mnt/test\"}}");
	cr_assert_eq(fake.umounts, 2);
	cr_assert_eq(fake.waiters, 1, "the client can wait for our end");
	cr_assert_eq(fake.exits, 0, "the kernel says when the mount is gone");
	fake.mounted_elsewhere = true;
	fake_say("{\"command\":\"umount\"}\n");
	fake_line(3, "{\"result\":{\"mountpoint\":\"/mnt/test\",\"mounted_elsewhere\":true}}");
	cr_assert_eq(fake.waiters, 2);
	fake_say("{\"command\":\"umount\",\"args\":{\"force\":true}}\n");
	fake_line_has(4, "result");
	cr_assert_eq(fake.waiters, 3);
	cr_assert_eq(fake.exits, 1);
	cr_assert(fake.exit_unmounts);
}

/* The kernel has many names to forget. */
Test(ctl_commands, an_umount_that_takes_long_says_so)
{
	fake_connect(NULL);
	atomic_store(&fake.umount_hangs, true);
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(1, "{\"progress\":{\"message\":\"the kernel");
	fake_line_has(2, "{\"progress\"");
	atomic_store(&fake.umount_hangs, false);
	fake_line(3, "{\"result\":{\"mountpoint\":\"/mnt/test\"}}");
}

/* And who asked does not wait for it. */
Test(ctl_commands, the_client_goes_in_a_long_umount)
{
	fake_connect(NULL);
	atomic_store(&fake.umount_hangs, true);
	fake_say("{\"command\":\"umount\"}\n");
	fake_line_has(1, "progress");
	close(fake.client);
	fake.client = -1;
	fake_settle();
	atomic_store(&fake.umount_hangs, false);
	while (pool_outstanding(fake.d.pool) > 0)
		loop_turn(fake.d.loop, true);
}

Test(ctl_commands, we_end_while_unmounting)
{
	fake_connect(NULL);
	fake_say("{\"command\":\"umount\"}\n");
	while (fake.umounts == 0)
		loop_turn(fake.d.loop, false);
	ctl_free(&fake.d.ctl);
	fake_line(1, "{\"result\":{\"mountpoint\":\"/mnt/test\"}}");
}

Test(ctl_commands, we_end_in_the_middle_of_a_listing)
{
	fake.nfiles = 100;
	fake_connect(NULL);
	fake_say("{\"command\":\"fs ls\",\"args\":{\"path\":\"/\",\"recursive\":true}}\n");
	while (fake.lists < 3)
		loop_turn(fake.d.loop, fake.loads_running > 0);
	ctl_free(&fake.d.ctl);
	fake_line_has(answer_at(), "the daemon ends or was replaced");
}
