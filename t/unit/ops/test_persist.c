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
#include "meta/meta.h"
#include "meta_rig.h"
#include "ops/persist_priv.h"
#include "ops/session.h"
#include "ops_rig.h"

#define HOUR (3600 * NS_PER_S)
#define SIZE 1000u

static struct rig r;
static unsigned char bytes[STAGED_INLINE_MAX];

static void begin(void)
{
	rig_new_writing(&r);
	r.cfg->persist_parallel = 4;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 7 + i / 251);
}

static void finish(void)
{
	rig_free(&r);
}

TestSuite(persist, .init = begin, .fini = finish);

static bool some_try_is_on_its_way(void)
{
	for (const struct persist_file *f = r.fs->persist->files; f != NULL; f = f->hh.next)
		if (f->running && !timer_armed(&f->rest))
			return true;
	return false;
}

/* The disk takes real time, and a slow one much of it: the next try is not to become due
 * meanwhile. */
static void serve(void)
{
	static unsigned idle;

	if (loop_turn(r.loop, false))
		return;
	usleep(50);
	if (!some_try_is_on_its_way() || ++idle % 50 == 0)
		test_clock_advance(&r.clock, NS_PER_MS);
}

static struct meta_tally tally(void)
{
	struct meta_status ms;

	meta_status(r.meta, &ms);
	return ms.tally;
}

static uint64_t id_of(unsigned n)
{
	return META_CONTENT_BIT | (UINT64_C(0x9e3779b97f4a7c15) * (n + 1)) >> 1;
}

static struct meta_record record(unsigned n, uint64_t size)
{
	struct meta_record rec = {.kind = META_FILE,
	    .has = META_HAS_CONTENT | META_HAS_MODE | META_HAS_MTIME,
	    .mode = 0640,
	    .mtime = {.tv_sec = 900000000}};

	rec.content = (struct meta_content){.policy = META_POLICY_WRITE_BACK,
	    .state = META_STATE_NOT_PERSISTED,
	    .id = id_of(n),
	    .size = size,
	    .since_ns = loop_wall(r.loop) - n};
	return rec;
}

static void txn_over(struct meta_req *rq, int err)
{
	cr_assert_eq(err, 0, "%s", strerror(-err));
	*(bool *)rq->user = true;
}

/* turn: of the loop, while the metadata store is at it. */
static void commit_record(const char *path, const struct meta_record *rec, void (*turn)(void))
{
	struct meta_change c = {
	    .verb = META_PUT, .path = path, .rec = *rec, .blob = bytes, .blob_len = rec->content.size};
	struct meta_txn txn = {.changes = &c, .n = 1};
	bool over = false;

	txn.req.user = &over;
	meta_txn(r.meta, &txn, txn_over);
	while (!over)
		turn();
}

static void put_record(const char *path, const struct meta_record *rec)
{
	commit_record(path, rec, serve);
	persist_kick(r.fs);
}

static void put(const char *path, unsigned n, uint64_t size)
{
	struct meta_record rec = record(n, size);

	put_record(path, &rec);
}

static struct meta_record get(const char *path)
{
	struct meta_record rec;

	cr_assert_eq(meta_rig_get(&r, path, &rec), 0, "%s has no record", path);
	return rec;
}

static bool quiet(void)
{
	return r.fs->nwork == 0 && r.fs->sessions == NULL && r.fs->ended == NULL &&
	       !r.fs->persist->asking;
}

static void until_quiet(void)
{
	do
		serve();
	while (!quiet());
}

static void until_persisted(uint64_t files)
{
	while (tally().files[META_STATE_PERSISTED] < files || !quiet())
		serve();
}

static bool same_bytes(const char *path, uint64_t size)
{
	static unsigned char got[sizeof(bytes)];
	struct fake_file *ff = fake_find(&r.ufs, path);

	return ff != NULL && ff->size == size &&
	       fake_store_bytes(&r.ufs.store, path, ff->version, 0, got, size) == 0 &&
	       memcmp(got, bytes, size) == 0;
}

static unsigned puts_done(void)
{
	return r.ufs.store.count[FAKE_PUT];
}

static void nothing_left(void)
{
	until_quiet();
	cr_assert_eq(statedb_count(r.db, STATEDB_NODES), 1, "%llu nodes",
	    (unsigned long long)statedb_count(r.db, STATEDB_NODES));
	cr_assert_eq(statedb_count(r.db, STATEDB_NAMES), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
	cr_assert_null(r.fs->held_nodes);
	cr_assert_null(r.fs->persist->files);
}

Test(persist, one_file)
{
	struct meta_record rec;

	fake_add(&r.ufs, "a/b", UFS_DIR, 0, "");
	put("a/b/file", 1, SIZE);
	cr_assert_eq(puts_done(), 0, "before it was told to begin");
	persist_resume(r.fs);
	until_persisted(1);
	cr_assert(same_bytes("a/b/file", SIZE));
	rec = get("a/b/file");
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a/b/file")->version);
	cr_assert_eq(rec.mode, 0640);
	nothing_left();
	cr_assert_eq(puts_done(), 1);
}

/* Whatever their number, neither rows nor memory stay; each is stored once. */
Test(persist, many_files)
{
	char path[64];

	fake_add(&r.ufs, "d0", UFS_DIR, 0, "");
	fake_add(&r.ufs, "d1", UFS_DIR, 0, "");
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "d%u/f%u", i % 2, i);
		put(path, i, i * 7);
	}
	persist_resume(r.fs);
	until_persisted(300);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(path, sizeof(path), "d%u/f%u", i % 2, i);
		cr_assert(same_bytes(path, i * 7), "%s", path);
	}
	cr_assert_eq(puts_done(), 300);
	nothing_left();
	cr_assert_eq(tally().files[META_STATE_NOT_PERSISTED], 0);
}

/* --- Giving way */

/* No time passes. */
static void turn(void)
{
	if (!loop_turn(r.loop, false))
		usleep(50);
}

static void resume(void)
{
	persist_resume(r.fs);
	while (!r.fs->persist->next_known)
		turn();
}

static void written(const char *path, unsigned n)
{
	struct meta_record rec = record(n, SIZE);

	commit_record(path, &rec, turn);
	persist_written(r.fs);
}

/* Whether anything is, by this time. */
static bool begun(void)
{
	test_loop_settle(r.loop);
	return r.fs->persist->asking || r.fs->persist->running[PERSIST_SMALL] > 0 ||
	       tally().files[META_STATE_PERSISTED] > 0;
}

Test(persist, waits_for_a_pause_of_the_writing)
{
	char path[32];

	resume();
	for (unsigned n = 0; n < 50; n++) {
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
		test_clock_advance(&r.clock, 10 * NS_PER_MS);
		cr_assert(!begun(), "after %u", n);
	}
	test_clock_advance(&r.clock, 10 * NS_PER_MS);
	cr_assert(begun());
	until_persisted(50);
}

Test(persist, does_not_wait_for_a_pause_for_ever)
{
	char path[32];
	unsigned n;

	r.cfg->persist_give_way = 300 * NS_PER_MS;
	resume();
	for (n = 0; n < 30; n++) {
		cr_assert(!begun(), "after %u", n);
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
		test_clock_advance(&r.clock, 10 * NS_PER_MS);
	}
	cr_assert(begun());
	until_persisted(n);
	/* Nothing waits any more: from here on it does again. */
	written("again", n);
	test_loop_settle(r.loop);
	cr_assert(!r.fs->persist->asking && r.fs->persist->running[PERSIST_SMALL] == 0);
	until_persisted(n + 1);
}

Test(persist, does_not_wait_when_room_is_short)
{
	char path[32];

	r.cfg->page_store_size = 100 * SIZE;
	r.cfg->pinned_ratio = 0.1;
	resume();
	for (unsigned n = 0; n < 6; n++) {
		cr_assert(!begun(), "after %u", n);
		(void)snprintf(path, sizeof(path), "%u", n);
		written(path, n);
	}
	cr_assert(begun());
	until_persisted(6);
}

/* A directory that the storage has only for what lies in it. */
Test(persist, a_directory_that_is_not_there)
{
	put("gone/file", 1, SIZE);
	persist_resume(r.fs);
	until_persisted(1);
	cr_assert(same_bytes("gone/file", SIZE));
	nothing_left();
}

static bool no_due_try(void)
{
	return quiet() && r.fs->persist->end && r.fs->persist->next_known;
}

static void until_waiting_for_the_clock(void)
{
	do
		serve();
	while (!no_due_try());
}

/* Storage that refuses for a day: tries become rare, and are not at the same moment. */
Test(persist, backs_off_and_recovers_by_itself)
{
	struct config *cfg = r.cfg;
	struct meta_record rec;
	struct persist_info pi;
	uint64_t now;
	unsigned tries;

	cfg->persist_retry_max = HOUR;
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 1000000, -EACCES, false);
	put("d/file", 1, SIZE);
	persist_resume(r.fs);
	for (unsigned i = 0; i < 10; i++) {
		uint64_t full = MIN(NS_PER_S << i, (uint64_t)HOUR);

		until_waiting_for_the_clock();
		rec = get("d/file");
		now = loop_wall(r.loop);
		cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
		cr_assert_eq(rec.content.tries, i + 1);
		cr_assert_eq(rec.content.error, -EACCES);
		cr_assert_leq(rec.content.next_ns, now + full);
		cr_assert_geq(rec.content.next_ns + 10 * NS_PER_S, now + full / 2);
		test_clock_advance(&r.clock, full);
	}
	persist_info(r.fs, &pi);
	cr_assert_eq(pi.waiting, 1);
	cr_assert_eq(pi.waiting_bytes, SIZE);
	cr_assert_not_null(strstr(pi.error, "/d/file: permission denied"), "%s", pi.error);
	cr_assert_eq(pi.oldest_ns, rec.content.since_ns);
	/* Rare from then on. */
	tries = puts_done();
	for (unsigned i = 0; i < 24 * 6; i++) {
		until_waiting_for_the_clock();
		test_clock_advance(&r.clock, HOUR / 6);
	}
	cr_assert_leq(puts_done() - tries, 60);
	cr_assert_geq(puts_done() - tries, 24);
	/* Nobody says that it works again. */
	memset(r.ufs.store.fault, 0, sizeof(r.ufs.store.fault));
	until_waiting_for_the_clock();
	test_clock_advance(&r.clock, HOUR);
	until_persisted(1);
	cr_assert(same_bytes("d/file", SIZE));
	nothing_left();
	persist_info(r.fs, &pi);
	cr_assert_eq(pi.waiting, 0);
	cr_assert_eq(pi.persisted, 1);
	cr_assert_eq(pi.oldest_ns, 0);
}

/* The way to it cannot be looked up either. */
Test(persist, a_directory_that_cannot_be_looked_up_is_tried_later)
{
	struct meta_record rec;

	r.ufs.err = -EIO;
	put("d/file", 1, SIZE);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	rec = get("d/file");
	cr_assert_eq(rec.content.tries, 1);
	cr_assert_eq(rec.content.error, -EIO);
	cr_assert_gt(rec.content.next_ns, loop_wall(r.loop) - 2 * NS_PER_S);
	r.ufs.err = 0;
	test_clock_advance(&r.clock, 10 * NS_PER_S);
	until_persisted(1);
	nothing_left();
}

/* The storage has it and the answer was lost: it is found there, not stored again. */
Test(persist, what_the_storage_has_is_not_sent_again)
{
	char version[UFS_VERSION_MAX];

	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 1, -EIO, true);
	put("file", 1, SIZE);
	persist_resume(r.fs);
	while (fake_find(&r.ufs, "file") == NULL)
		serve();
	memcpy(version, fake_find(&r.ufs, "file")->version, sizeof(version));
	until_persisted(1);
	cr_assert_str_eq(fake_find(&r.ufs, "file")->version, version);
	cr_assert(same_bytes("file", SIZE));
	nothing_left();
}

static void act_done(struct persist_act *a, int err)
{
	*(int *)a->user = err;
}

static int act(const char *path, bool drop)
{
	int err = 1;
	struct persist_act a = {.user = &err};
	int rc = persist_act(r.fs, path, drop, &a, act_done);

	while (rc == 0 && err == 1)
		serve();
	until_quiet();
	return rc != 0 ? rc : err;
}

/* Somebody else's object is not overwritten, and ours is not lost. */
Test(persist, a_conflict_is_for_a_person)
{
	struct meta_record rec;

	fake_add(&r.ufs, "file", UFS_FILE, 5, "theirs");
	put("file", 1, SIZE);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	rec = get("file");
	cr_assert_eq(rec.content.state, META_STATE_FAILED);
	cr_assert_eq(rec.content.error, -EEXIST);
	cr_assert_str_eq(fake_find(&r.ufs, "file")->version, "theirs");
	test_clock_advance(&r.clock, 10 * HOUR);
	until_waiting_for_the_clock();
	cr_assert_eq(puts_done(), 1, "not tried again by itself");
	cr_assert_eq(act("file", false), -EEXIST, "it is still there");
	cr_assert_eq(get("file").content.state, META_STATE_FAILED);
	cr_assert_eq(act("other", false), -ENOENT);
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "file"));
	cr_assert_eq(act("file", false), 0);
	cr_assert(same_bytes("file", SIZE));
	cr_assert_eq(get("file").content.state, META_STATE_PERSISTED);
	nothing_left();
}

/* The try that has said so is not quite over when a person mends it and asks for another. */
Test(persist, another_try_is_not_the_one_that_failed)
{
	fake_add(&r.ufs, "file", UFS_FILE, 5, "theirs");
	put("file", 1, SIZE);
	persist_resume(r.fs);
	while (get("file").content.state != META_STATE_FAILED)
		serve();
	cr_assert_neq(r.fs->persist->files, NULL, "it is still there");
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "file"));
	cr_assert_eq(act("file", false), 0);
	cr_assert(same_bytes("file", SIZE));
	cr_assert_eq(get("file").content.state, META_STATE_PERSISTED);
	nothing_left();
}

Test(persist, what_has_failed_can_be_dropped)
{
	struct meta_record rec;

	fake_add(&r.ufs, "file", UFS_FILE, 5, "theirs");
	put("file", 1, SIZE);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	fake_store_fail(&r.ufs.store, FAKE_PUT, 1, 1000000, -EACCES, false);
	put("waits", 2, SIZE);
	until_waiting_for_the_clock();
	cr_assert_eq(act("waits", true), -EBUSY);
	memset(r.ufs.store.fault, 0, sizeof(r.ufs.store.fault));
	cr_assert_eq(act("file", true), 0);
	cr_assert_eq(meta_rig_get(&r, "file", &rec), -ENOENT);
	cr_assert_str_eq(fake_find(&r.ufs, "file")->version, "theirs");
	cr_assert_eq(act("waits", false), 0);
	nothing_left();
}

static unsigned n_running(enum persist_size size)
{
	return r.fs->persist->running[size];
}

/* Large files take all seats but those that are kept; small ones do not wait for them. */
Test(persist, large_files_leave_room_for_small_ones)
{
	char path[32];

	r.cfg->write_part_size = 50000;
	r.ufs.stall = true;
	for (unsigned i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "large%u", i);
		put(path, i, 60000);
	}
	persist_resume(r.fs);
	while (n_running(PERSIST_LARGE) < 3 || fake_waiting(&r.ufs) < 3)
		serve();
	/* They hang; what comes from now on does not. */
	r.ufs.stall = false;
	for (unsigned i = 0; i < 30; i++) {
		snprintf(path, sizeof(path), "small%u", i);
		put(path, 200 + i, SIZE);
	}
	while (tally().files[META_STATE_PERSISTED] < 30)
		serve();
	cr_assert_eq(n_running(PERSIST_LARGE), 3);
	cr_assert(same_bytes("small29", SIZE));
	fake_release(&r.ufs);
	until_persisted(130);
	nothing_left();
}

/* A hand-over in the middle: what was on its way is not sent twice. */
Test(persist, goes_on_in_the_next_daemon)
{
	char path[32];

	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	for (unsigned i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		put(path, i, SIZE);
	}
	r.ufs.stall = true;
	persist_resume(r.fs);
	while (!fake_waits(&r.ufs, FAKE_STAT))
		serve();
	while (fake_release_op(&r.ufs, FAKE_STAT))
		serve();
	while (!fake_waits(&r.ufs, FAKE_PUT)) {
		(void)fake_release_op(&r.ufs, FAKE_STAT);
		serve();
	}
	rig_restart(&r);
	cr_assert_eq(r.fs->nwork, 0);
	fake_release(&r.ufs);
	persist_resume(r.fs);
	until_persisted(20);
	for (unsigned i = 0; i < 20; i++) {
		snprintf(path, sizeof(path), "d/f%u", i);
		cr_assert(same_bytes(path, SIZE));
	}
	cr_assert_eq(puts_done(), 20);
	nothing_left();
}

/* Held and begun again without an end in between. */
Test(persist, can_be_held)
{
	put("a", 1, SIZE);
	persist_resume(r.fs);
	persist_hold(r.fs);
	until_quiet();
	cr_assert_eq(puts_done(), 0);
	cr_assert_eq(act("a", false), -ECANCELED);
	put("b", 2, SIZE);
	persist_resume(r.fs);
	until_persisted(2);
	nothing_left();
}

/* --- What is looked for now and then */

static const char *staged_path(uint64_t id)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/staged/%llx", r.tm.src, (unsigned long long)id);
	return path;
}

/* age: before the wall clock of the test. */
static void make_staged(uint64_t id, uint64_t age_ns)
{
	time_t at = (time_t)((loop_wall(r.loop) - age_ns) / NS_PER_S);
	struct timespec ts[2] = {{.tv_sec = at}, {.tv_sec = at}};
	char dir[200];
	int fd;

	snprintf(dir, sizeof(dir), "%s/staged", r.tm.src);
	(void)mkdir(dir, 0700);
	fd = open(staged_path(id), O_CREAT | O_WRONLY, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, SIZE), SIZE);
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

	r.cfg->persist_check_period = HOUR;
	r.cfg->persist_orphan_timeout = HOUR / 2;
	make_staged(id_of(1), 2 * HOUR); /* nobody's */
	make_staged(id_of(2), 0);	 /* nobody's yet */
	make_staged(id_of(3), 2 * HOUR); /* waits */
	make_staged(id_of(4), 2 * HOUR); /* never stored */
	make_staged(id_of(5), 2 * HOUR); /* has failed */
	make_staged(id_of(6), 2 * HOUR); /* was stored when a daemon died */
	rec = record(3, SIZE);
	rec.content.next_ns = loop_wall(r.loop) + 100 * HOUR;
	r.cfg->persist_retry_max = 100 * HOUR;
	put_record("waits", &rec);
	rec = record(4, SIZE);
	rec.content.state = META_STATE_TRANSIENT;
	put_record("transient", &rec);
	rec = record(5, SIZE);
	rec.content.state = META_STATE_FAILED;
	put_record("failed", &rec);
	rec = record(6, SIZE);
	rec.content.state = META_STATE_PERSISTED;
	strcpy(rec.version, "v");
	put_record("stored", &rec);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	cr_assert(there(id_of(1)), "not before its time");
	test_clock_advance(&r.clock, HOUR + NS_PER_S);
	make_staged(id_of(2), 0);
	while (there(id_of(1)) || there(id_of(6)))
		serve();
	until_quiet();
	for (unsigned i = 2; i <= 5; i++)
		cr_assert(there(id_of(i)), "%u", i);
	cr_assert_eq(puts_done(), 0);
}

Test(persist, a_shorter_period_counts_at_once)
{
	r.cfg->persist_check_period = 24 * HOUR;
	r.cfg->persist_orphan_timeout = HOUR;
	make_staged(id_of(1), 2 * HOUR);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	r.cfg->persist_check_period = HOUR / 60;
	test_clock_advance(&r.clock, HOUR / 60);
	while (there(id_of(1)))
		serve();
	until_quiet();
}

/* More than one job of the scan reads. */
Test(persist, many_orphans_go)
{
	enum { MANY = 2500 };

	r.cfg->persist_check_period = HOUR;
	r.cfg->persist_orphan_timeout = HOUR;
	for (unsigned i = 0; i < MANY; i++)
		make_staged(id_of(i), 2 * HOUR);
	persist_resume(r.fs);
	test_clock_advance(&r.clock, HOUR + NS_PER_S);
	for (unsigned i = 0; i < MANY; i++)
		while (there(id_of(i)))
			serve();
	until_quiet();
}

/* The wall clock was ahead by years when the last try failed. */
Test(persist, a_try_lost_in_the_future_is_found)
{
	struct meta_record rec = record(1, SIZE);

	r.cfg->persist_check_period = HOUR;
	r.cfg->persist_retry_max = HOUR;
	rec.content.next_ns = loop_wall(r.loop) + 100000 * HOUR;
	put_record("file", &rec);
	rec = record(2, SIZE);
	rec.content.next_ns = loop_wall(r.loop) + HOUR * 5 / 2;
	put_record("later", &rec);
	persist_resume(r.fs);
	until_waiting_for_the_clock();
	cr_assert_eq(puts_done(), 0);
	test_clock_advance(&r.clock, HOUR + NS_PER_S);
	until_persisted(1);
	cr_assert(same_bytes("file", SIZE));
	cr_assert_eq(get("later").content.state, META_STATE_NOT_PERSISTED);
	test_clock_advance(&r.clock, 2 * HOUR);
	until_persisted(2);
	nothing_left();
}

/* --- Without memory */

Test(persist, without_memory_it_is_only_later)
{
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
	for (unsigned n = 1; n < 60; n++) {
		char path[32];
		uint64_t files = tally().files[META_STATE_PERSISTED];

		snprintf(path, sizeof(path), "d/f%u", n);
		put(path, n, SIZE);
		nth_arm(n);
		persist_resume(r.fs);
		until_quiet();
		nth_disarm();
		while (tally().files[META_STATE_PERSISTED] == files) {
			test_clock_advance(&r.clock, NS_PER_MS);
			serve();
		}
		until_quiet();
		persist_hold(r.fs);
		until_quiet();
		cr_assert(same_bytes(path, SIZE));
	}
	/* A turn that was lost may have been the one that forgot a name. */
	cr_assert_leq(statedb_count(r.db, STATEDB_NODES), 4);
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_null(r.fs->held_nodes);
	cr_assert_null(r.fs->persist->files);
}
