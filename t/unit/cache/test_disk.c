/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "rig.h"

static struct rig g;

static void disk_rig(void)
{
	rig_init(&g, true);
	rig_start(&g);
}

static void fini(void)
{
	rig_fini(&g);
}

TestSuite(cache_disk, .init = disk_rig, .fini = fini);

static void read_all(struct blob *b)
{
	for (uint64_t off = 0; off < cache_blob_size(b); off += MIB)
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
	rig_settle(&g);
}

Test(cache_disk, pages_go_to_disk_and_leave_memory)
{
	struct blob *b = rig_blob(&g, "f", "v1", 3 * MIB + 5);
	unsigned started;

	read_all(b);
	cr_assert_eq(cache_blob_cached(b), 3 * MIB + 5);
	cr_assert_eq(arena_used(g.cache->arena), 0);
	cr_assert_geq(rig_disk_bytes(&g), 3 * MIB);
	started = g.ufs->started;
	read_all(b);
	for (uint64_t off = 1; off < 3 * MIB; off += 77777)
		cr_assert_eq(rig_read(&g, b, NULL, off, 5000), 0);
	cr_assert_eq(g.ufs->started, started);
	cache_blob_put(&b);
}

Test(cache_disk, cached_pages_answer_at_once)
{
	struct blob *b = rig_blob(&g, "f", "v1", MIB);
	struct rig_read rr;

	read_all(b);
	rig_read_start(&rr, b, NULL, 12345, 4096);
	cr_assert(rr.at_once);
	cr_assert(rig_read_right(&rr));
	rig_read_end(&rr);
	cache_blob_put(&b);
}

Test(cache_disk, a_restart_finds_the_pages)
{
	struct blob *b = rig_blob(&g, "f", "v1", 6 * MIB + 1);
	uint64_t used;

	read_all(b);
	cache_blob_put(&b);
	used = g.cache->used;
	rig_stop(&g);
	rig_start(&g);
	g.ufs->started = 0;
	b = rig_blob(&g, "f", "v1", 6 * MIB + 1);
	read_all(b);
	cr_assert_eq(g.ufs->started, 0);
	cr_assert_eq(g.cache->used, used);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_CHECKSUM_ERRORS), 0);
	cache_blob_put(&b);
	b = rig_blob(&g, "f", "v2", 6 * MIB + 1);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 10), 0, "another version is another blob");
	cr_assert_eq(g.ufs->started, 1);
	cache_blob_put(&b);
}

Test(cache_disk, a_handover_without_sync_forgets_nothing)
{
	struct blob *b = rig_blob(&g, "f", "v1", 2 * MIB);

	read_all(b);
	cr_assert(!STAILQ_EMPTY(&g.cache->ops), "the batch was not due");
	rig_close(&g, false);
	cache_blob_put(&b);
	cache_free(&g.cache);
	rig_start(&g);
	g.ufs->started = 0;
	b = rig_blob(&g, "f", "v1", 2 * MIB);
	read_all(b);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

static void note_settled(void *arg)
{
	++*(int *)arg;
}

/* Between the offer of a hand-over and its end nothing may begin that the close would
 * have to wait for, and nothing may be lost. */
Test(cache_disk, a_settled_index_begins_no_batch)
{
	struct blob *b = rig_blob(&g, "f", "v1", 2 * MIB);
	int settled = 0;

	read_all(b);
	store_flush(g.cache);
	cr_assert(g.cache->flushing);
	cache_index_settle(g.cache, note_settled, &settled);
	cr_assert_eq(settled, 0, "a batch is being written");
	rig_settle(&g);
	cr_assert_eq(settled, 1);
	cr_assert(!g.cache->flushing);

	cache_blob_put(&b);
	b = rig_blob(&g, "h", "v1", 2 * MIB);
	read_all(b);
	cr_assert(!STAILQ_EMPTY(&g.cache->ops));
	test_clock_advance(&g.clock, 10 * g.cfg->page_store_sync_period);
	store_flush(g.cache);
	cr_assert(!g.cache->flushing);
	rig_settle(&g);
	cr_assert(!STAILQ_EMPTY(&g.cache->ops), "kept for the close");

	cache_index_unsettle(g.cache);
	cr_assert(g.cache->flushing);
	rig_settle(&g);
	cr_assert(STAILQ_EMPTY(&g.cache->ops));
	cr_assert_eq(settled, 1);

	cache_index_settle(g.cache, note_settled, &settled);
	cache_index_unsettle(g.cache);
	rig_settle(&g);
	cr_assert_eq(settled, 1, "taken back before it was called");
	cache_blob_put(&b);
}

Test(cache_disk, close_then_cancelled_then_reopened)
{
	struct blob *b = rig_blob(&g, "f", "v1", 2 * MIB), *n;

	read_all(b);
	rig_close(&g, true);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 4096), -ECANCELED);
	n = rig_blob(&g, "other", "v1", MIB);
	cr_assert_eq(rig_read(&g, n, NULL, 0, 4096), 0, "memory and storage still serve");
	cache_index_open(g.cache);
	g.ufs->started = 0;
	cr_assert_eq(rig_read(&g, b, NULL, 0, 4096), 0);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
	cache_blob_put(&n);
}

Test(cache_disk, close_with_reads_running)
{
	struct blob *b = rig_blob(&g, "f", "v1", 8 * MIB);
	struct rig_read rr[8];
	unsigned ok = 0;

	read_all(b);
	cache_blob_put(&b);
	rig_stop(&g);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 8 * MIB);
	for (unsigned i = 0; i < 8; i++)
		rig_read_start(&rr[i], b, NULL, i * MIB, MIB);
	rig_close(&g, false);
	for (unsigned i = 0; i < 8; i++) {
		cr_assert(rig_until(&g, rig_read_done, &rr[i]), "read %u never ended", i);
		cr_assert(rr[i].err == -ECANCELED || (rr[i].err == 0 && rig_read_right(&rr[i])));
		ok += rr[i].err == 0;
		rig_read_end(&rr[i]);
	}
	cache_blob_put(&b);
}

Test(cache_disk, a_running_fetch_ends_after_the_close_without_inserting)
{
	struct blob *b = rig_blob(&g, "f", "v1", RIG_PAGE);
	struct rig_read rr;

	rig_settle(&g);
	g.hold = true;
	rig_read_start(&rr, b, NULL, 0, RIG_PAGE);
	fake_step_one(g.ufs, 100);
	rig_close(&g, true);
	g.hold = false;
	cr_assert(rig_until(&g, rig_read_done, &rr));
	cr_assert_eq(rr.err, 0);
	cr_assert(rig_read_right(&rr));
	rig_read_end(&rr);
	rig_settle(&g);
	cr_assert_eq(rig_disk_bytes(&g), 0);
	cache_blob_put(&b);
}

Test(cache_disk, no_page_is_inserted_once_the_epoch_has_passed)
{
	_Atomic uint64_t word = 7;
	struct blob *b;

	rig_settle(&g);
	g.epoch.word = &word;
	g.epoch.mine = 6;
	b = rig_blob(&g, "f", "v1", RIG_PAGE);
	cr_assert_eq(rig_read(&g, b, NULL, 0, RIG_PAGE), 0);
	rig_settle(&g);
	cr_assert_eq(rig_disk_bytes(&g), 0);
	cache_blob_put(&b);
	rig_stop(&g);
	g.epoch.word = NULL;
}

static void damage(off_t off)
{
	char path[256];

	cr_assert(rig_find_file(&g, path, sizeof(path)));
	rig_flip(path, off);
}

Test(cache_disk, a_damaged_byte_is_fetched_again)
{
	struct blob *b = rig_blob(&g, "f", "v1", 2 * MIB);

	read_all(b);
	damage(5 * RIG_PAGE + 4097);
	g.ufs->started = 0;
	cr_assert_eq(rig_read(&g, b, NULL, MIB, MIB), 0);
	cr_assert_eq(g.ufs->started, 0);
	cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
	cr_assert_eq(g.ufs->started, 1);
	cr_assert_eq(rig_counter(&g, CTR_CACHE_CHECKSUM_ERRORS), 1);
	rig_settle(&g);
	read_all(b);
	cr_assert_eq(g.ufs->started, 1, "the page was mended");
	cache_blob_put(&b);
}

Test(cache_disk, a_damaged_byte_with_many_readers)
{
	struct blob *b = rig_blob(&g, "f", "v1", MIB);
	struct rig_read rr[20];

	read_all(b);
	damage(4097);
	for (unsigned i = 0; i < 20; i++)
		rig_read_start(&rr[i], b, NULL, 4096, 4096);
	for (unsigned i = 0; i < 20; i++) {
		cr_assert(rig_until(&g, rig_read_done, &rr[i]));
		cr_assert_eq(rr[i].err, 0);
		cr_assert(rig_read_right(&rr[i]));
		rig_read_end(&rr[i]);
	}
	cache_blob_put(&b);
}

Test(cache_disk, a_lost_or_short_file_is_fetched_again)
{
	struct blob *b = rig_blob(&g, "f", "v1", 2 * MIB);
	char path[256];

	read_all(b);
	cr_assert(rig_find_file(&g, path, sizeof(path)));
	cr_assert_eq(truncate(path, 100000), 0);
	read_all(b);
	cache_blob_put(&b);
	rig_stop(&g);
	cr_assert_eq(unlink(path), 0);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 2 * MIB);
	read_all(b);
	read_all(b);
	cache_blob_put(&b);
}

Test(cache_disk, abort_while_the_disk_reads)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * MIB);
	struct rig_read rr[4];

	read_all(b);
	cache_blob_put(&b);
	rig_stop(&g);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 4 * MIB);
	for (unsigned i = 0; i < 4; i++)
		rig_read_start(&rr[i], b, NULL, i * MIB, MIB);
	cache_read_abort(&rr[0].r); /* loading */
	rig_settle(&g);
	for (unsigned i = 1; i < 4; i++)
		rig_read_end(&rr[i]);
	rig_forget_sums(&g);
	for (unsigned i = 0; i < 4; i++)
		rig_read_start(&rr[i], b, NULL, i * MIB, MIB);
	for (unsigned i = 0; i < 4; i++)
		cache_read_abort(&rr[i].r);
	cache_blob_put(&b);
	rig_settle(&g);
	cr_assert_eq(arena_used(g.cache->arena), 0);
}

Test(cache_disk, rows_beyond_memory_are_read_when_needed)
{
	struct blob *b = rig_blob(&g, "f", "v1", 8 * MIB);

	g.cache->sums_limit = 1000;
	read_all(b);
	test_loop_pass(g.loop, &g.clock, 5 * NS_PER_S);
	rig_settle(&g);
	g.ufs->started = 0;
	read_all(b);
	cr_assert_eq(g.ufs->started, 0);
	cr_assert_leq(g.cache->sums_bytes, 1000);
	cache_blob_put(&b);
}

Test(cache_disk, eviction_keeps_within_the_size)
{
	struct cache_status st;
	char name[16];

	rig_settle(&g);
	g.cache->capacity = 4 * MIB;
	for (unsigned i = 0; i < 20; i++) {
		struct blob *b;

		snprintf(name, sizeof(name), "f%u", i);
		b = rig_blob(&g, name, name, MIB);
		read_all(b);
		cache_blob_put(&b);
		test_loop_pass(g.loop, &g.clock, 3 * NS_PER_S);
		g.clock.wall_ns += NS_PER_S;
		rig_settle(&g);
		cache_status(g.cache, &st);
		cr_assert_leq(st.used, 4 * MIB);
		cr_assert_leq(rig_disk_bytes(&g), 4 * MIB + 64 * KIB);
	}
	cr_assert_gt(rig_counter(&g, CTR_CACHE_EVICTED_BYTES), 14 * MIB);
	g.ufs->started = 0;
	{
		struct blob *b = rig_blob(&g, "f19", "f19", MIB);

		read_all(b);
		cr_assert_eq(g.ufs->started, 0, "the newest is still there");
		cache_blob_put(&b);
	}
}

Test(cache_disk, eviction_within_one_open_file_punches_holes)
{
	struct blob *b;
	struct stat st;
	char path[256];

	rig_settle(&g);
	g.cache->capacity = 4 * MIB;
	b = rig_blob(&g, "f", "v1", 30 * MIB);
	for (uint64_t off = 0; off < 30 * MIB; off += MIB) {
		cr_assert_eq(rig_read(&g, b, NULL, off, MIB), 0);
		cr_assert_leq(g.cache->used, 4 * MIB);
		rig_settle(&g);
	}
	cr_assert(rig_find_file(&g, path, sizeof(path)));
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_leq((uint64_t)st.st_blocks * 512, 4 * MIB + 64 * KIB);
	cr_assert_gt((uint64_t)st.st_size, 20 * MIB);
	read_all(b);
	cache_blob_put(&b);
}

Test(cache_disk, eviction_takes_cold_pages_of_an_open_file_first)
{
	struct blob *b = rig_blob(&g, "f", "v1", 8 * MIB), *n;

	read_all(b);
	cache_blob_put(&b);
	rig_stop(&g);
	rig_start(&g);
	b = rig_blob(&g, "f", "v1", 8 * MIB);
	rig_settle(&g);
	rig_forget_sums(&g);
	cr_assert_eq(rig_read(&g, b, NULL, 0, 64), 0); /* warm: the first page's rows */
	for (uint64_t no = 1; no < b->npages; no++) {
		if (sums_find(b, no) != NULL)
			sums_remove(sums_find(b, no));
	}
	g.cache->capacity = 8 * MIB + 512 * KIB;
	n = rig_blob(&g, "n", "v1", 2 * MIB);
	read_all(n);
	read_all(n);
	cr_assert_leq(g.cache->used, g.cache->capacity);
	cr_assert(blob_has(b, 0), "the page in use went");
	cr_assert_gt(rig_counter(&g, CTR_CACHE_EVICTED_BYTES), 0);
	read_all(b);
	cache_blob_put(&b);
	cache_blob_put(&n);
}

Test(cache_disk, files_without_rows_are_removed)
{
	char path[160];
	int fd;

	rig_settle(&g);
	rig_stop(&g);
	snprintf(path, sizeof(path), "%s/blobs/ab", g.dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/blobs/ab/abcdef00112233445566778899aabbcc", g.dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	rig_start(&g);
	rig_settle(&g);
	cr_assert_neq(access(path, F_OK), 0);
}

Test(cache_disk, space_without_rows_is_given_back)
{
	struct blob *b = rig_blob(&g, "f", "v1", 4 * MIB);
	char path[256], data[4096];
	uint64_t used;
	int fd;

	cr_assert_eq(rig_read(&g, b, NULL, MIB, MIB), 0);
	rig_settle(&g);
	cache_blob_put(&b);
	rig_stop(&g);
	used = rig_disk_bytes(&g);
	cr_assert(rig_find_file(&g, path, sizeof(path)));
	fd = open(path, O_WRONLY);
	memset(data, 1, sizeof(data));
	for (off_t off = 2 * (off_t)MIB; off < 4 * (off_t)MIB; off += 4096)
		cr_assert_eq(pwrite(fd, data, 4096, off), 4096);
	close(fd);
	rig_start(&g);
	rig_settle(&g);
	cr_assert_leq(rig_disk_bytes(&g), used);
	g.ufs->started = 0;
	b = rig_blob(&g, "f", "v1", 4 * MIB);
	cr_assert_eq(rig_read(&g, b, NULL, MIB, MIB), 0);
	cr_assert_eq(g.ufs->started, 0);
	cache_blob_put(&b);
}

/* What is mounted from now on, by this thread and those it makes, is gone with them however
 * the test ends. */
static void own_mounts(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
}

Test(cache_disk, a_full_disk_is_passed_by)
{
	struct rig f;
	struct cache_status st;
	struct blob *b;

	own_mounts();
	rig_init(&f, true);
	cr_assert_eq(mount("none", f.dir, "tmpfs", 0, "size=2m"), 0);
	rig_start(&f);
	b = rig_blob(&f, "f", "v1", 6 * MIB);
	for (int round = 0; round < 2; round++) {
		for (uint64_t off = 0; off < 6 * MIB; off += MIB)
			cr_assert_eq(rig_read(&f, b, NULL, off, MIB), 0);
		rig_settle(&f);
	}
	cr_assert_gt(rig_counter(&f, CTR_CACHE_WRITE_ERRORS), 0);
	cr_assert_gt(rig_counter(&f, CTR_CACHE_BYPASS), 0);
	cache_status(f.cache, &st);
	cr_assert_not_null(strstr(st.error, "No space left"), "%s", st.error);
	cache_blob_put(&b);
	rig_stop(&f);
	umount2(f.dir, MNT_DETACH);
	rig_fini(&f);
}

/* Takes all space that is left. */
static void fill_up(const char *path)
{
	static char data[64 * 1024];
	int fd = open(path, O_CREAT | O_WRONLY, 0600);

	cr_assert_geq(fd, 0);
	for (size_t n = sizeof(data); n >= 4096; n /= 2) {
		while (write(fd, data, n) == (ssize_t)n)
			;
	}
	close(fd);
}

Test(cache_disk, a_disk_that_has_room_again_is_used_again)
{
	char path[160];
	struct rig f;
	struct blob *b;

	own_mounts();
	rig_init(&f, true);
	cr_assert_eq(mount("none", f.dir, "tmpfs", 0, "size=16m"), 0);
	rig_start(&f);
	rig_settle(&f);
	snprintf(path, sizeof(path), "%s/blobs/filler", f.dir);
	fill_up(path);
	b = rig_blob(&f, "f", "v1", 6 * MIB);
	cr_assert_eq(rig_read(&f, b, NULL, 0, MIB), 0);
	rig_settle(&f);
	cr_assert_gt(rig_counter(&f, CTR_CACHE_WRITE_ERRORS), 0);
	cr_assert_eq(cache_blob_cached(b), MIB, "in memory for now");
	cr_assert_eq(unlink(path), 0);
	test_loop_pass(f.loop, &f.clock, 20 * NS_PER_S);
	rig_settle(&f); /* the trial is in the pool */
	cr_assert_eq(rig_read(&f, b, NULL, 2 * MIB, MIB), 0);
	rig_settle(&f);
	cr_assert_geq(rig_disk_bytes(&f), MIB);
	cr_assert_str_empty(f.cache->error);
	cache_blob_put(&b);
	rig_stop(&f);
	umount2(f.dir, MNT_DETACH);
	rig_fini(&f);
}

/* An index that cannot be read is passed by, and opened again. */
Test(cache_disk, an_index_whose_disk_fails_is_opened_again)
{
	struct blob *b = rig_blob(&g, "f", "v1", MIB), *n;
	struct cache_status st;
	char path[160];

	read_all(b);
	for (unsigned round = 0; round < 3; round++) {
		char name[16];

		store_flush(g.cache);
		rig_settle(&g);
		snprintf(path, sizeof(path), "%s/index.mdb", g.dir);
		cr_assert_eq(truncate(path, 8192), 0);
		snprintf(name, sizeof(name), "new%u", round);
		n = rig_blob(&g, name, "v1", MIB); /* has its rows read */
		cr_assert_eq(rig_read(&g, n, NULL, 0, MIB), 0);
		rig_settle(&g);
		cache_status(g.cache, &st);
		cr_assert_eq(st.health, CACHE_FAILED);
		cr_assert_not(st.index_open);
		cr_assert_eq(rig_read(&g, b, NULL, 0, MIB), 0);
		rig_settle(&g);
		test_loop_pass(g.loop, &g.clock, 65 * NS_PER_S);
		rig_settle(&g);
		cache_status(g.cache, &st);
		cr_assert(st.index_open);
		cr_assert_eq(st.health, CACHE_OK);
		page_drop_parked(g.cache);
		read_all(b);
		g.ufs->started = 0;
		read_all(b);
		cr_assert_eq(g.ufs->started, 0, "it is stored again");
		cache_blob_put(&n);
	}
	cache_blob_put(&b);
}
