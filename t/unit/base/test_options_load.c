/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration file, and the rules over all values. */
#include "base/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/cgroup.h"
#include "base/obj.h"
#include "base/units.h"
#include "../../lib/nth_fault.h"

static struct config *cfg;
static struct errtext et;
static char path[] = "/tmp/test_options.XXXXXX";

static void setup(void)
{
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
	cfg = config_new();
	cr_assert_not_null(cfg);
}

static void teardown(void)
{
	unlink(path);
	config_free(&cfg);
}

TestSuite(options_load, .init = setup, .fini = teardown);

static int load_bytes(const char *text, size_t len)
{
	FILE *f = fopen(path, "w");

	cr_assert_not_null(f);
	cr_assert_eq(fwrite(text, 1, len, f), len);
	fclose(f);
	et.s[0] = '\0';
	return config_load(cfg, path, &et);
}

static int load(const char *text)
{
	return load_bytes(text, strlen(text));
}

Test(options_load, a_file_with_everything)
{
	cr_assert_eq(load("# a comment\n"
			  "\n"
			  "  \t \n"
			  "ufs.timeout = 7s\n"
			  "  memory.limit=64MiB   # after a blank\n"
			  "\t# indented\n"
			  "#ufs.timeout = 9s\n"
			  "s3.endpoint = http://h:1/#part=x\t# note\r\n"
			  "s3.profile =\n"
			  "worker.page.store.dir = /a b/c=d\n"
			  "alluxio.fuse.migration.slow.read.action = abort\n"
			  "pool.threads = 2\n"
			  "pool.threads = 3"),
	    0, "%s", et.s);
	cr_assert_eq(cfg->ufs_timeout, 7 * NS_PER_S);
	cr_assert_eq(cfg->memory_limit, 64 * MIB);
	cr_assert_str_eq(cfg->s3_endpoint, "http://h:1/#part=x");
	cr_assert_str_eq(cfg->s3_profile, "");
	cr_assert_str_eq(cfg->page_store_dir, "/a b/c=d");
	cr_assert_str_eq(cfg->migration_slow_read_action, "abort");
	cr_assert_eq(cfg->pool_threads, 3, "the last one wins");
}

Test(options_load, an_empty_file_is_fine)
{
	cr_assert_eq(load(""), 0);
	cr_assert_eq(load("\n\n"), 0);
	cr_assert_eq(load("#"), 0);
}

Test(options_load, errors_name_file_and_line)
{
	static const struct {
		const char *text;
		int err;
		unsigned line;
		const char *words;
	} rows[] = {
	    {"ufs.timeout = 1s\n\n# c\nufs.timeuot = 1s\n", -EINVAL, 4,
		"unknown property \"ufs.timeuot\"; did you mean \"ufs.timeout\"?"},
	    {"ufs.timeout = 99h\n", -ERANGE, 1,
		"ufs.timeout: bad value \"99h\": must be a duration, 100ms to 1h"},
	    {"\nufs.timeout = soon", -EINVAL, 2, "must be a duration"},
	    {"ufs.timeout 1s\n", -EINVAL, 1, "\"ufs.timeout 1s\" is not of the form name=value"},
	    {"= 1s\n", -EINVAL, 1, "is not of the form"},
	    {"[section]\n", -EINVAL, 1, "is not of the form"},
	    {"s3.region = a\rb\n", -EINVAL, 1, "control characters"},
	    {"ufs.timeout = # nothing\n", -EINVAL, 1, "bad value \"\""},
	};
	char want[256];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		cr_assert_eq(load(rows[i].text), rows[i].err, "%s", rows[i].text);
		snprintf(want, sizeof(want), "%s:%u: ", path, rows[i].line);
		cr_assert_eq(strncmp(et.s, want, strlen(want)), 0, "%s", et.s);
		cr_assert_not_null(strstr(et.s, rows[i].words), "%s", et.s);
	}
}

Test(options_load, nul_bytes_are_refused)
{
	static const char text[] = "ufs.timeout = 1s\ns3.region = eu\0west\n";

	cr_assert_eq(load_bytes(text, sizeof(text) - 1), -EINVAL);
	cr_assert_not_null(strstr(et.s, ":2: there is a NUL byte"), "%s", et.s);
	cr_assert_str_eq(cfg->s3_region, "us-east-1");
}

Test(options_load, no_file)
{
	unlink(path);
	cr_assert_eq(config_load(cfg, path, &et), -ENOENT);
	cr_assert_not_null(strstr(et.s, path), "%s", et.s);
	cr_assert_not_null(strstr(et.s, "No such file or directory"), "%s", et.s);
}

Test(options_load, a_directory_is_no_file)
{
	cr_assert_eq(config_load(cfg, "/tmp", &et), -EISDIR);
	cr_assert_str_eq(et.s, "/tmp: Is a directory");
}

Test(options_load, every_allocation_may_fail)
{
	bool fired = true;

	cr_assert_eq(load("s3.region = x\nufs.timeout = 1s\n"), 0);
	for (unsigned n = 1; fired; n++) {
		int err;

		nth_arm(n);
		err = config_load(cfg, path, &et);
		fired = nth_fired();
		cr_assert(err == 0 || err == -ENOMEM, "allocation %u: %d", n, err);
		cr_assert(fired || err == 0);
	}
}

Test(options_load, restart_limits)
{
	static const struct {
		const char *text;
		int err;
		unsigned n;
		uint64_t ns;
	} rows[] = {
	    {"5 in 1min", 0, 5, 60 * NS_PER_S},
	    {"0 in 10s", 0, 0, 10 * NS_PER_S},
	    {"1000 in 1d", 0, 1000, 86400 * NS_PER_S},
	    {"5  in\t1h", 0, 5, 3600 * NS_PER_S},
	    {"1001 in 1d", -ERANGE, 0, 0},
	    {"5 in 0s", -ERANGE, 0, 0},
	    {"99999999999999999999 in 1s", -ERANGE, 0, 0},
	    {"5 in 999999999999999999d", -ERANGE, 0, 0},
	    {"", -EINVAL, 0, 0},
	    {"5", -EINVAL, 0, 0},
	    {"5 in", -EINVAL, 0, 0},
	    {"5 in 1", -EINVAL, 0, 0},
	    {"5 per 1min", -EINVAL, 0, 0},
	    {"-5 in 1min", -EINVAL, 0, 0},
	    {"five in 1min", -EINVAL, 0, 0},
	    {"5 in 1min or so", -EINVAL, 0, 0},
	    {"5 in 1 min", -EINVAL, 0, 0},
	    {"5in1min", -EINVAL, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned n = 77;
		uint64_t ns = 78;

		cr_assert_eq(config_parse_restart_limit(rows[i].text, &n, &ns), rows[i].err,
		    "\"%s\"", rows[i].text);
		cr_assert_eq(n, rows[i].err == 0 ? rows[i].n : 77);
		cr_assert_eq(ns, rows[i].err == 0 ? rows[i].ns : 78);
	}
}

Test(options_load, modes)
{
	static const struct {
		const char *text;
		int err;
		mode_t mode;
	} rows[] = {
	    {"0755", 0, 0755},
	    {"755", 0, 0755},
	    {"0", 0, 0},
	    {"7777", 0, 07777},
	    {"00000644", 0, 0644},
	    {"10000", -ERANGE, 0},
	    {"77777777777777777777777777", -ERANGE, 0},
	    {"", -EINVAL, 0},
	    {"0758", -EINVAL, 0},
	    {"rwx", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"0x1ff", -EINVAL, 0},
	    {"0755 ", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		mode_t mode = 1;

		cr_assert_eq(
		    config_parse_mode(rows[i].text, &mode), rows[i].err, "\"%s\"", rows[i].text);
		cr_assert_eq(mode, rows[i].err == 0 ? rows[i].mode : 1);
	}
}

Test(options_load, owners)
{
	uid_t uid = 1;
	gid_t gid = 1;

	cr_assert_eq(config_parse_uid("", &uid), 0);
	cr_assert_eq(uid, geteuid());
	cr_assert_eq(config_parse_gid("", &gid), 0);
	cr_assert_eq(gid, getegid());
	cr_assert_eq(config_parse_uid("1000", &uid), 0);
	cr_assert_eq(uid, 1000);
	cr_assert_eq(config_parse_gid("4294967294", &gid), 0);
	cr_assert_eq(gid, 4294967294u);
	cr_assert_eq(config_parse_uid("root", &uid), 0);
	cr_assert_eq(uid, 0);
	cr_assert_eq(config_parse_gid("root", &gid), 0);
	cr_assert_eq(gid, 0);
	uid = 1;
	cr_assert_eq(config_parse_uid("4294967295", &uid), -ERANGE);
	cr_assert_eq(config_parse_uid("no-such-user-anywhere", &uid), -ENOENT);
	cr_assert_eq(config_parse_gid("no-such-group-anywhere", &gid), -ENOENT);
	cr_assert_eq(uid, 1);
	cr_assert_eq(gid, 0);
}

Test(options_load, rules_over_all_values)
{
	static const struct {
		const char *set;   /* pairs, separated by ';' */
		const char *words; /* NULL: fine */
	} rows[] = {
	    {"", NULL},
	    {"worker.page.store.page.size=8MiB;worker.page.store.size=128MiB", NULL},
	    {"worker.page.store.page.size=1000KiB",
		"worker.page.store.page.size: 1000KiB is not a power of two"},
	    {"worker.page.store.page.size=8MiB;worker.page.store.size=64MiB",
		"worker.page.store.size: 64MiB is less than 16 pages of 8MiB"},
	    {"memory.limit=16MiB", NULL},
	    {"memory.limit=16383KiB", "memory.limit: 16383KiB is less than 16MiB"},
	    {"memory.limit=1", "memory.limit: 1 is less than 16MiB"},
	    {"ufs.retry.base.interval=10s", "ufs.retry.base.interval: 10s is longer than"},
	    {"ufs.retry.base.interval=5s", NULL},
	    {"worker.page.store.dir=/a", NULL},
	    {"worker.page.store.dir=a", "worker.page.store.dir: \"a\" is not an absolute path"},
	    {"state.dir=./x", "state.dir: \"./x\" is not an absolute path"},
	    {"control.socket=c", "control.socket: \"c\" is not"},
	    {"s3.ca.file=c", "s3.ca.file: \"c\" is not"},
	    {"dir.mode=0700;file.mode=600", NULL},
	    {"dir.mode=0799", "dir.mode: \"0799\" is not an octal mode"},
	    {"file.mode=", "file.mode: \"\" is not an octal mode"},
	    {"uid=root;gid=0", NULL},
	    {"uid=nobody-at-all", "uid: \"nobody-at-all\" is not the number or name of a user"},
	    {"gid=-1", "gid: \"-1\" is not the number or name of a group"},
	    {"keeper.restart.limit=3 in 10s", NULL},
	    {"keeper.restart.limit=3", "keeper.restart.limit: \"3\" is not of the form"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct config *one = config_new();
		char *copy = strdup(rows[i].set);

		for (char *p = strtok(copy, ";"); p != NULL; p = strtok(NULL, ";"))
			cr_assert_eq(config_set_pair(one, p, &et), 0, "%s", et.s);
		et.s[0] = '\0';
		cr_assert_eq(config_validate(one, &et), rows[i].words == NULL ? 0 : -EINVAL,
		    "%s: %s", rows[i].set, et.s);
		if (rows[i].words != NULL)
			cr_assert_eq(
			    strncmp(et.s, rows[i].words, strlen(rows[i].words)), 0, "%s", et.s);
		free(copy);
		config_free(&one);
	}
}

Test(options_load, memory_limit_is_taken_or_derived)
{
	uint64_t limit = cgroup_memory_limit("");

	cr_assert_eq(config_set(cfg, "memory.limit", "64MiB", &et), 0);
	cr_assert_eq(config_memory_limit(cfg), 64 * MIB);
	cr_assert_eq(config_set(cfg, "memory.limit", "0", &et), 0);
	cr_assert_leq(config_memory_limit(cfg), 256 * MIB);
	cr_assert_geq(config_memory_limit(cfg), 16 * MIB);
	if (limit / 2 >= 256 * MIB)
		cr_assert_eq(config_memory_limit(cfg), 256 * MIB);
	else if (limit / 2 > 16 * MIB)
		cr_assert_eq(config_memory_limit(cfg), limit / 2);
}
