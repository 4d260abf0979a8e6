/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of the queue reach the storage, on a clock on which hours pass in no time. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "base/units.h"
#include "meta_rig.h"
#include "ops/persist_priv.h"
#include "ops/session.h"
#include "persist_rig.h"

#define HOUR (3600 * NS_PER_S)
#define SIZE 1000u

TestSuite(persist, .init = pr_begin, .fini = pr_finish);

Test(persist, one_file)
{
	struct meta_record rec;

	fake_add(&pr.ufs, "a/b", UFS_DIR, 0, "");
	pr_put("a/b/file", 1, SIZE);
	cr_assert_eq(pr_puts_done(), 0, "before it was told to begin");
	persist_resume(pr.fs);
	pr_until_persisted(1);
	cr_assert(pr_same_bytes("a/b/file", SIZE));
	rec = pr_get("a/b/file");
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&pr.ufs, "a/b/file")->version);
	cr_assert_eq(rec.mode, 0640);
	pr_nothing_left();
	cr_assert_eq(pr_puts_done(), 1);
}

/* Whatever their number, neither rows nor memory stay; each is stored once. */
Test(persist, many_files)
{
	char path[64];

	fake_add(&pr.ufs, "d0", UFS_DIR, 0, "");
	fake_add(&pr.ufs, "d1", UFS_DIR, 0, "");
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "d%u/f%u", i % 2, i);
		pr_put(path, i, i * 7);
	}
	persist_resume(pr.fs);
	pr_until_persisted(300);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "d%u/f%u", i % 2, i);
		cr_assert(pr_same_bytes(path, i * 7), "%s", path);
	}
	cr_assert_eq(pr_puts_done(), 300);
	pr_nothing_left();
	cr_assert_eq(pr_tally().files[META_STATE_NOT_PERSISTED], 0);
}

/* A directory that the storage has only for what lies in it. */
Test(persist, a_directory_that_is_not_there)
{
	pr_put("gone/file", 1, SIZE);
	persist_resume(pr.fs);
	pr_until_persisted(1);
	cr_assert(pr_same_bytes("gone/file", SIZE));
	pr_nothing_left();
}

/* Storage that refuses for a day: tries become rare, and are not at the same moment. */
Test(persist, backs_off_and_recovers_by_itself)
{
	struct config *cfg = pr.cfg;
	struct meta_record rec;
	struct persist_info pi;
	uint64_t now;
	unsigned tries;

	cfg->persist_retry_max = HOUR;
	fake_add(&pr.ufs, "d", UFS_DIR, 0, "");
	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1000000, -EACCES, false);
	pr_put("d/file", 1, SIZE);
	persist_resume(pr.fs);
	for (unsigned i = 0; i < 10; i++) {
		uint64_t full = MIN(NS_PER_S << i, (uint64_t)HOUR);

		pr_until_waiting_for_the_clock();
		rec = pr_get("d/file");
		now = loop_wall(pr.loop);
		cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
		cr_assert_eq(rec.content.tries, i + 1);
		cr_assert_eq(rec.content.error, -EACCES);
		cr_assert_leq(rec.content.next_ns, now + full);
		cr_assert_geq(rec.content.next_ns + 10 * NS_PER_S, now + full / 2);
		test_clock_advance(&pr.clock, full);
	}
	persist_info(pr.fs, &pi);
	cr_assert_eq(pi.waiting, 1);
	cr_assert_eq(pi.waiting_bytes, SIZE);
	cr_assert_not_null(strstr(pi.error, "/d/file: permission denied"), "%s", pi.error);
	cr_assert_eq(pi.oldest_ns, rec.content.since_ns);
	/* Rare from then on. */
	tries = pr_puts_done();
	for (unsigned i = 0; i < 24 * 6; i++) {
		pr_until_waiting_for_the_clock();
		test_clock_advance(&pr.clock, HOUR / 6);
	}
	cr_assert_leq(pr_puts_done() - tries, 60);
	cr_assert_geq(pr_puts_done() - tries, 24);
	/* Nobody says that it works again. */
	memset(pr.ufs.store.fault, 0, sizeof(pr.ufs.store.fault));
	pr_until_waiting_for_the_clock();
	test_clock_advance(&pr.clock, HOUR);
	pr_until_persisted(1);
	cr_assert(pr_same_bytes("d/file", SIZE));
	pr_nothing_left();
	persist_info(pr.fs, &pi);
	cr_assert_eq(pi.waiting, 0);
	cr_assert_eq(pi.persisted, 1);
	cr_assert_eq(pi.oldest_ns, 0);
}

/* The way to it cannot be looked up either. */
Test(persist, a_directory_that_cannot_be_looked_up_is_tried_later)
{
	struct meta_record rec;

	pr.ufs.err = -EIO;
	pr_put("d/file", 1, SIZE);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	rec = pr_get("d/file");
	cr_assert_eq(rec.content.tries, 1);
	cr_assert_eq(rec.content.error, -EIO);
	cr_assert_gt(rec.content.next_ns, loop_wall(pr.loop) - 2 * NS_PER_S);
	pr.ufs.err = 0;
	test_clock_advance(&pr.clock, 10 * NS_PER_S);
	pr_until_persisted(1);
	pr_nothing_left();
}

/* The storage has it and the answer was lost: it is found there, not stored again. */
Test(persist, what_the_storage_has_is_not_sent_again)
{
	char version[UFS_VERSION_MAX];

	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1, -EIO, true);
	pr_put("file", 1, SIZE);
	persist_resume(pr.fs);
	while (fake_find(&pr.ufs, "file") == NULL)
		pr_serve();
	memcpy(version, fake_find(&pr.ufs, "file")->version, sizeof(version));
	pr_until_persisted(1);
	cr_assert_str_eq(fake_find(&pr.ufs, "file")->version, version);
	cr_assert(pr_same_bytes("file", SIZE));
	pr_nothing_left();
}

static void act_done(struct persist_act *a, int err)
{
	*(int *)a->user = err;
}

static int act(const char *path, bool drop)
{
	int err = 1;
	struct persist_act a = {.user = &err};
	int rc = persist_act(pr.fs, path, drop, &a, act_done);

	while (rc == 0 && err == 1)
		pr_serve();
	pr_until_quiet();
	return rc != 0 ? rc : err;
}

/* Somebody else's object is not overwritten, and ours is not lost. */
Test(persist, a_conflict_is_for_a_person)
{
	struct meta_record rec;

	fake_add(&pr.ufs, "file", UFS_FILE, 5, "theirs");
	pr_put("file", 1, SIZE);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	rec = pr_get("file");
	cr_assert_eq(rec.content.state, META_STATE_FAILED);
	cr_assert_eq(rec.content.error, -EEXIST);
	cr_assert_str_eq(fake_find(&pr.ufs, "file")->version, "theirs");
	test_clock_advance(&pr.clock, 10 * HOUR);
	pr_until_waiting_for_the_clock();
	cr_assert_eq(pr_puts_done(), 1, "not tried again by itself");
	cr_assert_eq(act("file", false), -EEXIST, "it is still there");
	cr_assert_eq(pr_get("file").content.state, META_STATE_FAILED);
	cr_assert_eq(act("other", false), -ENOENT);
	fake_store_remove(&pr.ufs.store, fake_find(&pr.ufs, "file"));
	cr_assert_eq(act("file", false), 0);
	cr_assert(pr_same_bytes("file", SIZE));
	cr_assert_eq(pr_get("file").content.state, META_STATE_PERSISTED);
	pr_nothing_left();
}

/* The try that has said so is not quite over when a person mends it and asks for another. */
Test(persist, another_try_is_not_the_one_that_failed)
{
	fake_add(&pr.ufs, "file", UFS_FILE, 5, "theirs");
	pr_put("file", 1, SIZE);
	persist_resume(pr.fs);
	while (pr_get("file").content.state != META_STATE_FAILED)
		pr_serve();
	cr_assert_neq(pr.fs->persist->files, NULL, "it is still there");
	fake_store_remove(&pr.ufs.store, fake_find(&pr.ufs, "file"));
	cr_assert_eq(act("file", false), 0);
	cr_assert(pr_same_bytes("file", SIZE));
	cr_assert_eq(pr_get("file").content.state, META_STATE_PERSISTED);
	pr_nothing_left();
}

Test(persist, what_has_failed_can_be_dropped)
{
	struct meta_record rec;

	fake_add(&pr.ufs, "file", UFS_FILE, 5, "theirs");
	pr_put("file", 1, SIZE);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1000000, -EACCES, false);
	pr_put("waits", 2, SIZE);
	pr_until_waiting_for_the_clock();
	cr_assert_eq(act("waits", true), -EBUSY);
	memset(pr.ufs.store.fault, 0, sizeof(pr.ufs.store.fault));
	cr_assert_eq(act("file", true), 0);
	cr_assert_eq(meta_rig_get(&pr, "file", &rec), -ENOENT);
	cr_assert_str_eq(fake_find(&pr.ufs, "file")->version, "theirs");
	cr_assert_eq(act("waits", false), 0);
	pr_nothing_left();
}

static unsigned n_running(enum persist_size size)
{
	return pr.fs->persist->running[size];
}

/* Large files take all seats but those that are kept; small ones do not wait for them. */
Test(persist, large_files_leave_room_for_small_ones)
{
	char path[32];

	pr.cfg->write_part_size = 50000;
	pr.ufs.stall = true;
	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "large%u", i);
		pr_put(path, i, 60000);
	}
	persist_resume(pr.fs);
	while (n_running(PERSIST_LARGE) < 3 || fake_waiting(&pr.ufs) < 3)
		pr_serve();
	/* They hang; what comes from now on does not. */
	pr.ufs.stall = false;
	for (unsigned i = 0; i < 30; i++) {
		snprintf(path, sizeof(path), "small%u", i);
		pr_put(path, 200 + i, SIZE);
	}
	while (pr_tally().files[META_STATE_PERSISTED] < 30)
		pr_serve();
	cr_assert_eq(n_running(PERSIST_LARGE), 3);
	cr_assert(pr_same_bytes("small29", SIZE));
	fake_release(&pr.ufs);
	pr_until_persisted(130);
	pr_nothing_left();
}

/* A hand-over in the middle: what was on its way is not sent twice. */
Test(persist, goes_on_in_the_next_daemon)
{
	char path[32];

	fake_add(&pr.ufs, "d", UFS_DIR, 0, "");
	for (unsigned i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		pr_put(path, i, SIZE);
	}
	pr.ufs.stall = true;
	persist_resume(pr.fs);
	while (!fake_waits(&pr.ufs, FAKE_STAT))
		pr_serve();
	while (fake_release_op(&pr.ufs, FAKE_STAT))
		pr_serve();
	while (!fake_waits(&pr.ufs, FAKE_PUT)) {
		(void)fake_release_op(&pr.ufs, FAKE_STAT);
		pr_serve();
	}
	rig_restart(&pr);
	cr_assert_eq(pr.fs->nwork, 0);
	fake_release(&pr.ufs);
	persist_resume(pr.fs);
	pr_until_persisted(20);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		cr_assert(pr_same_bytes(path, SIZE));
	}
	cr_assert_eq(pr_puts_done(), 20);
	pr_nothing_left();
}

/* Held and begun again without an end in between. */
Test(persist, can_be_held)
{
	pr_put("a", 1, SIZE);
	persist_resume(pr.fs);
	persist_hold(pr.fs);
	pr_until_quiet();
	cr_assert_eq(pr_puts_done(), 0);
	cr_assert_eq(act("a", false), -ECANCELED);
	pr_put("b", 2, SIZE);
	persist_resume(pr.fs);
	pr_until_persisted(2);
	pr_nothing_left();
}

/* A hand-over is not to wait until what could not be stored has rested. */
Test(persist, is_held_at_once_after_a_failure)
{
	const struct persist_file *f;

	fake_store_fail(&pr.ufs.store, FAKE_PUT, 1, 1000000, -EACCES, false);
	pr_put("a", 1, SIZE);
	persist_resume(pr.fs);
	while ((f = pr.fs->persist->files) == NULL || !timer_armed(&f->rest))
		pr_serve();
	persist_hold(pr.fs);
	/* No time passes on the loop's clock. */
	test_loop_settle(pr.loop);
	cr_assert_eq(pr.fs->nwork, 0);
}

/* --- What is looked for now and then */

static const char *staged_path(uint64_t id)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/staged/%llx", pr.tm.src, (unsigned long long)id);
	return path;
}

/* age: before the wall clock of the test. */
static void make_staged(uint64_t id, uint64_t age_ns)
{
	time_t at = (time_t)((loop_wall(pr.loop) - age_ns) / NS_PER_S);
	struct timespec ts[2] = {{.tv_sec = at}, {.tv_sec = at}};
	char dir[200];
	int fd;

	snprintf(dir, sizeof(dir), "%s/staged", pr.tm.src);
	(void)mkdir(dir, 0700);
	fd = open(staged_path(id), O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, pr_bytes, SIZE), SIZE);
	cr_assert_eq(futimens(fd, ts), 0);
	close(fd);
}

static bool there(uint64_t id)
{
	return access(staged_path(id), F_OK) == 0;
}

Test(persist, orphans_go_and_nothing_else)
{
	struct meta_record rec;

	pr.cfg->persist_check_period = HOUR;
	pr.cfg->persist_orphan_timeout = HOUR / 2;
	make_staged(pr_id_of(1), 2 * HOUR); /* nobody's */
	make_staged(pr_id_of(2), 0);	 /* nobody's yet */
	make_staged(pr_id_of(3), 2 * HOUR); /* waits */
	make_staged(pr_id_of(4), 2 * HOUR); /* never stored */
	make_staged(pr_id_of(5), 2 * HOUR); /* has failed */
	make_staged(pr_id_of(6), 2 * HOUR); /* was stored when a daemon died */
	rec = pr_record(3, SIZE);
	rec.content.next_ns = loop_wall(pr.loop) + 100 * HOUR;
	pr.cfg->persist_retry_max = 100 * HOUR;
	pr_put_record("waits", &rec);
	rec = pr_record(4, SIZE);
	rec.content.state = META_STATE_TRANSIENT;
	pr_put_record("transient", &rec);
	rec = pr_record(5, SIZE);
	rec.content.state = META_STATE_FAILED;
	pr_put_record("failed", &rec);
	rec = pr_record(6, SIZE);
	rec.content.state = META_STATE_PERSISTED;
	strcpy(rec.version, "v");
	pr_put_record("stored", &rec);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	cr_assert(there(pr_id_of(1)), "not before its time");
	test_clock_advance(&pr.clock, HOUR + NS_PER_S);
	make_staged(pr_id_of(2), 0);
	while (there(pr_id_of(1)) || there(pr_id_of(6)))
		pr_serve();
	pr_until_quiet();
	for (unsigned i = 2; i <= 5; i++)
		cr_assert(there(pr_id_of(i)), "%u", i);
	cr_assert_eq(pr_puts_done(), 0);
}

Test(persist, a_shorter_period_counts_at_once)
{
	pr.cfg->persist_check_period = 24 * HOUR;
	pr.cfg->persist_orphan_timeout = HOUR;
	make_staged(pr_id_of(1), 2 * HOUR);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	pr.cfg->persist_check_period = HOUR / 60;
	test_clock_advance(&pr.clock, HOUR / 60);
	while (there(pr_id_of(1)))
		pr_serve();
	pr_until_quiet();
}

/* More than one job of the scan reads. */
Test(persist, many_orphans_go)
{
	enum { MANY = 2500 };

	pr.cfg->persist_check_period = HOUR;
	pr.cfg->persist_orphan_timeout = HOUR;
	for (unsigned i = 0; i < MANY; i++)
		make_staged(pr_id_of(i), 2 * HOUR);
	persist_resume(pr.fs);
	test_clock_advance(&pr.clock, HOUR + NS_PER_S);
	for (unsigned i = 0; i < MANY; i++)
		while (there(pr_id_of(i)))
			pr_serve();
	pr_until_quiet();
}

/* The wall clock was ahead by years when the last try failed. */
Test(persist, a_try_lost_in_the_future_is_found)
{
	struct meta_record rec = pr_record(1, SIZE);

	pr.cfg->persist_check_period = HOUR;
	pr.cfg->persist_retry_max = HOUR;
	rec.content.next_ns = loop_wall(pr.loop) + 100000 * HOUR;
	pr_put_record("file", &rec);
	rec = pr_record(2, SIZE);
	rec.content.next_ns = loop_wall(pr.loop) + HOUR * 5 / 2;
	pr_put_record("later", &rec);
	persist_resume(pr.fs);
	pr_until_waiting_for_the_clock();
	cr_assert_eq(pr_puts_done(), 0);
	test_clock_advance(&pr.clock, HOUR + NS_PER_S);
	pr_until_persisted(1);
	cr_assert(pr_same_bytes("file", SIZE));
	cr_assert_eq(pr_get("later").content.state, META_STATE_NOT_PERSISTED);
	test_clock_advance(&pr.clock, 2 * HOUR);
	pr_until_persisted(2);
	pr_nothing_left();
}

/* --- Without memory */

Test(persist, without_memory_it_is_only_later)
{
	fake_add(&pr.ufs, "d", UFS_DIR, 0, "");
	for (unsigned n = 1; n < 60; n++) {
		char path[32];
		uint64_t files = pr_tally().files[META_STATE_PERSISTED];

		snprintf(path, sizeof(path), "d/f%u", n);
		pr_put(path, n, SIZE);
		nth_arm(n);
		persist_resume(pr.fs);
		pr_until_quiet();
		nth_disarm();
		while (pr_tally().files[META_STATE_PERSISTED] == files) {
			test_clock_advance(&pr.clock, NS_PER_MS);
			pr_serve();
		}
		pr_until_quiet();
		persist_hold(pr.fs);
		pr_until_quiet();
		cr_assert(pr_same_bytes(path, SIZE));
	}
	/* A turn that was lost may have been the one that forgot a name. */
	cr_assert_leq(statedb_count(pr.db, STATEDB_NODES), 4);
	cr_assert_eq(statedb_count(pr.db, STATEDB_SESSIONS), 0);
	cr_assert_null(pr.fs->held_nodes);
	cr_assert_null(pr.fs->persist->files);
}
