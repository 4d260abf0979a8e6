/* SPDX-License-Identifier: BSD-2-Clause */
/* Staged files by themselves: changes, bytes of the base, stages of an upload, memory. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "staged_rig.h"

#define PIECE (256 * 1024)

static struct staged_rig s;
static unsigned char data[4 * MIB], other[4 * MIB];
static const unsigned char zeros[MIB];

static void setup(void)
{
	srig_init(&s);
	memset(data, 'd', sizeof(data));
	memset(other, 'o', sizeof(other));
}

static void teardown(void)
{
	srig_fini(&s);
}

TestSuite(staged, .init = setup, .fini = teardown);

/* --- What it costs, what it is */

Test(staged, writing_in_order_changes_one_row)
{
	struct staged *sf = srig_create(&s, 0x1f, NULL);
	struct statedb_val v;
	uint64_t id = htobe64(0x1f);
	unsigned char head[64];

	cr_assert(!srig_file_there(&s, 0x1f), "made before the first write");
	cr_assert_eq(statedb_get(s.db, STATEDB_STAGED, &id, 8, &v), 0);
	memcpy(head, v.data, v.len);
	for (unsigned i = 0; i < 8; i++) {
		cr_assert_eq(srig_do(&s, sf, staged_write, i * (uint64_t)MIB, MIB, data), 0);
		cr_assert_eq(srig_rows(&s), 1);
	}
	cr_assert_eq(statedb_get(s.db, STATEDB_STAGED, &id, 8, &v), 0);
	cr_assert_eq(memcmp(head, v.data, v.len), 0, "the head was written too");
	cr_assert_eq(staged_size(sf), 8 * MIB);
	cr_assert(srig_file_there(&s, 0x1f));
	cr_assert_eq(staged_delete(&sf), 0);
	cr_assert(srig_file_there(&s, 0x1f), "gone before its rows");
	rig_settle(&s.g);
	cr_assert(!srig_file_there(&s, 0x1f));
}

Test(staged, files_are_private)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	struct stat st;
	char path[128];

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 10, data), 0);
	srig_file_path(&s, 1, path, sizeof(path));
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0600);
	cr_assert_eq(stat(s.dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* As an upload of a small file reads it.  (Not each file system can say that it need not
 * wait.) */
Test(staged, what_is_in_the_page_cache_can_be_had_at_once)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	struct staged_io io = {.sf = sf, .len = 1000};
	struct srig_io wr;
	bool can;

	cr_assert(!staged_pread_try(&io, other), "of an empty file");
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 600, data), 0);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, 1000, 0, NULL), 0);
	can = staged_read_try(&io);
	staged_read_release(&io);
	cr_assert_eq(staged_pread_try(&io, other), can);
	if (can) {
		cr_assert_eq(io.got, 1000);
		cr_assert_eq(memcmp(other, data, 600), 0);
		cr_assert_eq(memcmp(other + 600, zeros, 400), 0);
	}
	io.len = 1001;
	cr_assert(!staged_pread_try(&io, other), "of less than was asked for");
	io.len = 1000;
	srig_start(&wr, sf, staged_write, 0, 600, data);
	cr_assert(!staged_pread_try(&io, other), "while somebody writes");
	cr_assert(rig_until(&s.g, srig_done, &wr));
	cr_assert_eq(staged_delete(&sf), 0);
	sf = srig_over_base(&s, other, MIB);
	io = (struct staged_io){.sf = sf, .len = 1000};
	cr_assert(!staged_pread_try(&io, other), "what lies in the storage");
	cr_assert_eq(staged_delete(&sf), 0);
	sf = srig_create(&s, STAGED_DURABLE_BIT | 2, NULL);
	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 1000, data), 0);
	io.sf = sf;
	cr_assert(!staged_pread_try(&io, other), "without its sums");
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, what_was_cut_off_does_not_return)
{
	struct staged *sf = srig_over_base(&s, other, MIB);

	cr_assert_eq(srig_do(&s, sf, staged_truncate, 1000, 0, NULL), 0);
	cr_assert(staged_dirty(sf));
	cr_assert_eq(srig_do(&s, sf, staged_truncate, MIB, 0, NULL), 0);
	cr_assert_eq(srig_kind_at(sf, 999), STAGED_BASE);
	cr_assert_eq(srig_kind_at(sf, 1000), STAGED_HOLE);
	memset(other + 1000, 0, MIB - 1000);
	cr_assert_eq(srig_check(&s, sf, 0, other, MIB), 0);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, 1, NULL);
	cr_assert_eq(srig_check(&s, sf, 0, other, MIB), 0);
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, sizes_without_end_are_refused)
{
	struct staged *sf = srig_create(&s, 1, NULL);

	cr_assert_eq(srig_do(&s, sf, staged_write, UINT64_MAX - 5, 10, data), -EFBIG);
	cr_assert_eq(srig_do(&s, sf, staged_write, INT64_MAX, 10, data), -EFBIG);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, UINT64_MAX, 0, NULL), -EFBIG);
	cr_assert_eq(srig_zero(&s, sf, 5, UINT64_MAX, false), -EFBIG);
	cr_assert_eq(srig_do(&s, sf, staged_fill, 5, UINT64_MAX, NULL), 0);
	cr_assert_eq(staged_size(sf), 0);
	cr_assert_eq(srig_check(&s, sf, UINT64_MAX - 3, NULL, 0), 0);
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, space_is_reserved)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	struct stat st;
	char path[128];

	cr_assert_eq(srig_do(&s, sf, staged_allocate, 0, MIB, NULL), 0);
	srig_file_path(&s, 1, path, sizeof(path));
	cr_assert_eq(stat(path, &st), 0);
	cr_assert_geq((uint64_t)st.st_blocks * 512, MIB);
	cr_assert_eq(staged_size(sf), MIB);
	cr_assert(staged_dirty(sf));
	cr_assert_eq(srig_kind_at(sf, 5), STAGED_HOLE);
	cr_assert_eq(srig_check(&s, sf, 0, zeros, MIB), 0);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, 1, NULL);
	cr_assert_eq(staged_size(sf), MIB);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* --- The stages of an upload */

Test(staged, a_write_during_an_upload_stays_dirty)
{
	struct staged *sf = srig_create(&s, 1, NULL);
	struct blob *b = rig_blob(&s.g, "f", "v2", 3 * PIECE);
	struct staging_status st;

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 3 * PIECE, data), 0);
	staged_sending(sf);
	cr_assert_eq(srig_kind_at(sf, 0), STAGED_SENDING);
	cr_assert_eq(srig_do(&s, sf, staged_write, PIECE, PIECE, other), 0);
	cr_assert_eq(srig_kind_at(sf, PIECE), STAGED_DIRTY);
	staged_not_uploaded(sf);
	cr_assert_eq(srig_kind_at(sf, 0), STAGED_DIRTY);
	staged_sending(sf);
	cr_assert_eq(srig_do(&s, sf, staged_write, PIECE, PIECE, other), 0);
	cr_assert_eq(staged_uploaded(sf, b, 3 * PIECE), 0);
	cr_assert_eq(srig_kind_at(sf, 0), STAGED_CLEAN);
	cr_assert_eq(srig_kind_at(sf, PIECE), STAGED_DIRTY);
	cr_assert_eq(srig_kind_at(sf, 2 * PIECE), STAGED_CLEAN);
	staging_status(s.st, &st);
	cr_assert_eq(st.dirty, PIECE);
	cr_assert_eq(st.bytes, 3 * PIECE);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, 1, b);
	cr_assert_eq(srig_kind_at(sf, 0), STAGED_CLEAN);
	cr_assert_eq(srig_kind_at(sf, PIECE), STAGED_DIRTY);
	staged_sending(sf);
	cr_assert_eq(staged_uploaded(sf, b, 3 * PIECE), 0);
	cr_assert(!staged_dirty(sf));
	cr_assert_eq(staged_delete(&sf), 0);
	cache_blob_put(&b);
}

Test(staged, an_upload_that_ends_with_the_process_is_none)
{
	struct staged *sf = srig_create(&s, 1, NULL);

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 100, data), 0);
	staged_sending(sf);
	cr_assert_eq(srig_do(&s, sf, staged_write, 200, 100, data), 0);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, 1, NULL);
	cr_assert_eq(srig_kind_at(sf, 0), STAGED_DIRTY);
	cr_assert_eq(srig_kind_at(sf, 200), STAGED_DIRTY);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* --- Bytes of the base */

Test(staged, a_fill_never_overwrites)
{
	struct staged *sf = srig_over_base(&s, other, 2 * MIB);
	struct srig_io fill;

	s.g.hold = true;
	srig_start(&fill, sf, staged_fill, 0, 2 * MIB, NULL);
	cr_assert_eq(srig_do(&s, sf, staged_write, 5000, 100000, data), 0);
	cr_assert_eq(srig_zero(&s, sf, MIB + 10, 5000, false), 0);
	cr_assert(!fill.done);
	s.g.hold = false;
	cr_assert(rig_until(&s.g, srig_done, &fill));
	cr_assert_eq(fill.err, 0);
	memcpy(other + 5000, data, 100000);
	memset(other + MIB + 10, 0, 5000);
	cr_assert_eq(srig_check(&s, sf, 0, other, MIB), 0);
	cr_assert_eq(srig_check(&s, sf, MIB, other + MIB, MIB), 0);
	cr_assert_eq(sf->bytes, 2 * MIB);
	cr_assert_eq(sf->dirty_bytes, 105000);
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, a_long_fill_keeps_within_memory)
{
	uint64_t size = 64 * MIB;
	struct staged *sf = srig_over_base(&s, other, size);
	struct cache_status cs;
	struct srig_io fill;

	srig_start(&fill, sf, staged_fill, 0, UINT64_MAX, NULL);
	while (!fill.done) {
		if (!fake_step(s.g.ufs))
			loop_turn(s.g.loop, pool_outstanding(s.g.pool) > 0);
		else
			loop_turn(s.g.loop, false);
		cache_status(s.g.cache, &cs);
		cr_assert_leq(cs.memory_used, 16 * MIB);
		cr_assert_leq(sf->nchunks, 16);
	}
	cr_assert_eq(fill.err, 0);
	cr_assert_eq(sf->bytes, size);
	cr_assert_eq(srig_rows(&s), 1);
	for (uint64_t off = 0; off < size; off += MIB) {
		srig_base_bytes("v1", off, other, MIB);
		cr_assert_eq(srig_check(&s, sf, off, other, MIB), 0);
	}
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, a_small_read_fills_a_page)
{
	struct staged *sf = srig_over_base(&s, other, MIB);

	cr_assert_eq(srig_check(&s, sf, 100, other + 100, 10), 0);
	cr_assert_leq(sf->bytes, RIG_PAGE);
	cr_assert_eq(srig_kind_at(sf, 200), STAGED_CLEAN);
	cr_assert_eq(srig_kind_at(sf, RIG_PAGE), STAGED_BASE);
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, errors_of_the_base_are_passed_on)
{
	struct staged *sf = srig_over_base(&s, other, MIB);

	s.g.ufs->fail = -ESTALE;
	cr_assert_eq(srig_check(&s, sf, 0, other, 1000), -ESTALE);
	cr_assert_eq(srig_do(&s, sf, staged_fill, 0, MIB, NULL), -ESTALE);
	s.g.ufs->fail = -EACCES;
	cr_assert_eq(srig_check(&s, sf, 0, other, 1000), -EACCES);
	s.g.ufs->fail = 0;
	cr_assert_eq(srig_check(&s, sf, 0, other, 1000), 0);
	staged_set_base(sf, NULL);
	cr_assert_eq(srig_check(&s, sf, 200000, other, 1000), -ESTALE);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* Between the storage's "done" and staged_uploaded() the old version is gone. */
Test(staged, a_read_waits_for_the_upload_that_replaced_its_base)
{
	struct staged *sf = srig_over_base(&s, other, MIB);
	struct blob *b = rig_blob(&s.g, "f", "v2", MIB);
	struct srig_io rd;

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, 10, data), 0);
	staged_sending(sf);
	s.g.ufs->fail = -ESTALE;
	srig_start(&rd, sf, staged_read, 500000, 100, NULL);
	rig_settle(&s.g);
	cr_assert(!rd.done);
	cr_assert_eq(srig_do(&s, sf, staged_fill, 0, MIB, NULL), -ESTALE, "an upload would hang");
	s.g.ufs->fail = 0;
	cr_assert_eq(staged_uploaded(sf, b, MIB), 0);
	cr_assert(rig_until(&s.g, srig_done, &rd));
	cr_assert_eq(rd.err, 0);
	cr_assert(fake_check("v2", 500000, rd.io.iov.iov_base, rd.io.iov.iov_len));
	staged_read_release(&rd.io);
	staged_sending(sf);
	s.g.ufs->fail = -ESTALE;
	srig_start(&rd, sf, staged_read, 900000, 100, NULL);
	rig_settle(&s.g);
	cr_assert(!rd.done);
	staged_not_uploaded(sf);
	cr_assert(rig_until(&s.g, srig_done, &rd));
	cr_assert_eq(rd.err, -ESTALE);
	s.g.ufs->fail = 0;
	cr_assert_eq(staged_delete(&sf), 0);
	cache_blob_put(&b);
}

Test(staged, another_blob_may_hold_the_bytes_while_they_are_fetched)
{
	struct staged *sf = srig_over_base(&s, other, 2 * MIB);
	struct blob *b = rig_blob(&s.g, "g", "v1", 2 * MIB);
	struct srig_io fill, rd;

	s.g.hold = true;
	srig_start(&fill, sf, staged_fill, 0, 2 * MIB, NULL);
	srig_start(&rd, sf, staged_read, MIB + 5, 100, NULL);
	for (unsigned i = 0; i < 20; i++)
		loop_turn(s.g.loop, false);
	staged_set_base(sf, b);
	cache_blob_put(&b);
	s.g.hold = false;
	cr_assert(rig_until(&s.g, srig_done, &fill));
	cr_assert(rig_until(&s.g, srig_done, &rd));
	cr_assert_eq(fill.err, 0);
	cr_assert_eq(rd.err, 0);
	cr_assert(fake_check("v1", MIB + 5, rd.io.iov.iov_base, 100));
	staged_read_release(&rd.io);
	cr_assert_eq(staged_delete(&sf), 0);
}

/* --- Giving up */

Test(staged, reads_and_fills_can_be_given_up_at_any_moment)
{
	for (unsigned turns = 0; turns < 40; turns++) {
		struct staged *sf = srig_over_base(&s, other, 2 * MIB);
		struct srig_io rd, fill, wr, rd2;
		bool again;

		s.g.hold = turns % 2;
		srig_start(&fill, sf, staged_fill, 0, 2 * MIB, NULL);
		srig_start(&rd, sf, staged_read, 100, 500000, NULL);
		srig_start(&wr, sf, staged_write, 50, MIB, data);
		srig_start(&rd2, sf, staged_read, 50, 1000, NULL);
		for (unsigned i = 0; i < turns / 2; i++) {
			if (!s.g.hold)
				fake_step_one(s.g.ufs, 100000);
			loop_turn(s.g.loop, false);
		}
		cr_assert(wr.done || !staged_io_abort(&wr.io));
		again = !fill.done && !staged_io_abort(&fill.io);
		cr_assert(!again, "a fill is not in the pool itself");
		if (!rd.done && !staged_io_abort(&rd.io))
			cr_assert(rig_until(&s.g, srig_done, &rd));
		if (!rd2.done && !staged_io_abort(&rd2.io))
			cr_assert(rig_until(&s.g, srig_done, &rd2));
		cr_assert(rig_until(&s.g, srig_done, &wr));
		cr_assert_eq(wr.err, 0);
		if (rd.done)
			staged_read_release(&rd.io);
		if (rd2.done)
			staged_read_release(&rd2.io);
		rig_settle(&s.g);
		cr_assert(!staged_busy(sf));
		cr_assert_eq(srig_check(&s, sf, 50, data, MIB), 0);
		cr_assert_eq(staged_delete(&sf), 0);
		rig_settle(&s.g);
		page_drop_parked(s.g.cache);
		cr_assert_eq(arena_used(s.g.cache->arena), 0);
	}
}

static int gate[2];

static void wait_for_gate(struct pool_job *job)
{
	char c;

	(void)job;
	while (read(gate[0], &c, 1) < 0)
		;
}

static void nothing(struct pool_job *job)
{
	(void)job;
}

/* The pool stands still, so that it has the write of the first chunk when the file is
 * closed, after any number of turns more. */
Test(staged, a_file_may_be_closed_while_bytes_of_the_base_are_written)
{
	struct pool_job blocker[3]; /* the rig's pool has so many threads */

	for (unsigned more = 0; more < 8; more++) {
		struct staged *sf = srig_over_base(&s, other, 2 * MIB);
		unsigned turns = 0;
		struct srig_io fill;

		cr_assert_eq(pipe(gate), 0);
		memset(blocker, 0, sizeof(blocker));
		for (unsigned i = 0; i < 3; i++)
			pool_submit(s.g.pool, NULL, &blocker[i], wait_for_gate, nothing);
		srig_start(&fill, sf, staged_fill, 0, 2 * MIB, NULL);
		for (unsigned left = more; sf->running == 0 || left > 0; turns++) {
			left -= sf->running != 0;
			cr_assert_lt(turns, 10000);
			fake_step_one(s.g.ufs, 0);
			loop_turn(s.g.loop, false);
		}
		cr_assert(!fill.done);
		cr_assert(staged_io_abort(&fill.io));
		cr_assert_eq(staged_busy(sf), sf->running);
		cr_assert_eq(staged_delete(&sf), 0);
		close(gate[1]);
		rig_settle(&s.g);
		close(gate[0]);
		cr_assert(!srig_file_there(&s, 1), "after %u turns", turns);
		page_drop_parked(s.g.cache);
		cr_assert_eq(arena_used(s.g.cache->arena), 0);
	}
}

/* --- Memory */

Test(staged, who_finds_no_memory_waits_in_line)
{
	unsigned need[ARENA_KINDS] = {[ARENA_IO] = 1};
	struct staged *sf = srig_create(&s, 1, NULL);
	struct arena *a = s.g.cache->arena;
	struct arena_buf *bufs[64];
	struct srig_io rd[3];
	unsigned n = 0;

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, MIB, data), 0);
	while (n < 64 && arena_reserve(a, need))
		bufs[n++] = arena_get(a, ARENA_IO);
	cr_assert_gt(n, 3);
	memset(&rd[0], 0, sizeof(rd[0]));
	rd[0].io = (struct staged_io){.sf = sf, .len = MIB};
	cr_assert(!staged_read_try(&rd[0].io));
	srig_start(&rd[0], sf, staged_read, 0, MIB, NULL);
	srig_start(&rd[1], sf, staged_read, 0, MIB, NULL);
	srig_start(&rd[2], sf, staged_read, 0, MIB, NULL);
	rig_settle(&s.g);
	cr_assert(!rd[0].done && !rd[1].done && !rd[2].done);
	cr_assert(staged_io_abort(&rd[1].io));
	arena_put(a, &bufs[--n]);
	cr_assert(rig_until(&s.g, srig_done, &rd[0]));
	cr_assert(!rd[2].done);
	cr_assert_eq(memcmp(rd[0].io.iov.iov_base, data, MIB), 0);
	staged_read_release(&rd[0].io);
	cr_assert(rig_until(&s.g, srig_done, &rd[2]));
	staged_read_release(&rd[2].io);
	while (n > 0)
		arena_put(a, &bufs[--n]);
	cr_assert_eq(staged_delete(&sf), 0);
}

Test(staged, uploads_have_a_share_of_memory)
{
	struct cache_env env = {s.g.loop, s.g.pool, s.g.cfg, &s.g.epoch, true};
	struct cache_status all, rest;
	struct errtext et;
	struct cache *c;

	cache_status(s.g.cache, &all);
	cr_assert_eq(cache_new(&c, &env, -1, &et), 0, "%s", et.s);
	cache_status(c, &rest);
	cr_assert_eq(all.memory_limit, 16 * MIB);
	cr_assert_eq(rest.memory_limit + cache_write_memory(s.g.cfg), 16 * MIB);
	cr_assert_eq(cache_write_memory(s.g.cfg), 4 * MIB);
	cache_free(&c);
}
