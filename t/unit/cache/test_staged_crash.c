/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A daemon may be killed at any instant.  Before and after each turn, while the pool
 * works, rows and file are copied and opened as a successor would: what was answered is
 * there, and of what was not each byte is the old or the new one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/paths.h"
#include "staged_rig.h"

TestSuite(staged_crash);

#define MOST (160 * 1024)

struct state {
	uint64_t size;
	unsigned char data[MOST]; /* zeros from size on */
};

struct crash {
	struct staged_rig s;
	struct staged_rig heir; /* with a loop and a pool of its own */
	unsigned seed, checks;
	uint64_t id;
	struct staged *sf;
	struct blob *base, *heir_base;
	struct state now, next; /* answered; once the request that runs is */
};

static struct crash c;
static unsigned char buf[MOST];

static unsigned rnd(unsigned n)
{
	return (unsigned)rand_r(&c.seed) % n;
}

/* Holes stay holes: the database's file is as long as its map. */
static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	off_t at = 0;
	ssize_t n;

	unlink(to);
	if (in < 0)
		return; /* not made yet */
	out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(out, 0);
	while ((at = lseek(in, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(in, at, SEEK_HOLE);

		while (at < hole &&
		       (n = pread(in, buf, MIN(sizeof(buf), (size_t)(hole - at)), at)) > 0) {
			cr_assert_eq(pwrite(out, buf, (size_t)n, at), n);
			at += n;
		}
		if (at < hole)
			break;
	}
	cr_assert_eq(ftruncate(out, lseek(in, 0, SEEK_END)), 0);
	close(in);
	close(out);
}

static void copy_head(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CLOEXEC);
	unsigned char head[64];

	if (in >= 0 && out >= 0 && pread(in, head, sizeof(head), 0) == sizeof(head))
		cr_assert_eq(pwrite(out, head, sizeof(head), 0), sizeof(head));
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
}

static void read_heir(struct staged *sf)
{
	uint64_t size = staged_size(sf);
	struct srig_io rd;

	memset(&rd, 0, sizeof(rd));
	cr_assert(size == c.now.size || size == c.next.size);
	cr_assert_eq(srig_do(&c.heir, sf, staged_fill, 0, MOST, NULL), 0);
	srig_start(&rd, sf, staged_read, 0, MOST, NULL);
	cr_assert(rig_until(&c.heir.g, srig_done, &rd));
	cr_assert_eq(rd.err, 0, "error %d", rd.err);
	cr_assert_eq(rd.io.got, size);
	for (uint64_t i = 0; i < size; i++) {
		unsigned char got = ((unsigned char *)rd.io.iov.iov_base)[i];

		cr_assert(got == c.now.data[i] || got == c.next.data[i],
		    "byte %llu is %u, not %u or %u", (unsigned long long)i, got, c.now.data[i],
		    c.next.data[i]);
	}
	staged_read_release(&rd.io);
}

/* Bytes and checksums agree, whatever happened between the two. */
static void read_upload(struct staged *sf, uint64_t zero_from)
{
	static unsigned char mem[MOST];
	struct staged_io io;
	int err = srig_pread(&c.heir, sf, mem, MOST, &io);

	cr_assert_eq(err, 0, "error %d", err);
	cr_assert_eq(io.got, staged_size(sf));
	for (uint64_t i = zero_from; i < io.got; i++)
		cr_assert_eq(mem[i], 0, "byte %llu", (unsigned long long)i);
}

/* What rows told to be holes is zero in the file itself, and what is beyond its end, should it
 * grow. */
static struct staged *without_rows(struct staged *sf)
{
	struct staged_durable dur;

	cr_assert_eq(srig_do(&c.heir, sf, staged_truncate, MOST, 0, NULL), 0);
	cr_assert_eq(srig_do(&c.heir, sf, staged_sync, 0, 0, NULL), 0);
	staged_durable(sf, &dur);
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(staged_restore(c.heir.st, c.id, &dur, NULL, 0, false, &sf), 0);
	return sf;
}

static void copy_files(void)
{
	char from[128], to[128];

	snprintf(from, sizeof(from), "%s/%llx", c.s.dir, (unsigned long long)c.id);
	snprintf(to, sizeof(to), "%s/%llx", c.heir.dir, (unsigned long long)c.id);
	copy_file(from, to);
	/* The sums are a moment ahead, never behind, and their head ahead of them. */
	strcat(from, STAGED_SUMS);
	strcat(to, STAGED_SUMS);
	copy_file(from, to);
	copy_head(from, to);
}

static void successor(void)
{
	char from[128], to[128];
	struct errtext et;
	struct staged *sf;

	staging_set_db(c.heir.st, NULL);
	statedb_close(&c.heir.db);
	/* The rows first: the file may be a moment ahead of them, never behind. */
	snprintf(from, sizeof(from), "%s/data.mdb", c.s.state);
	snprintf(to, sizeof(to), "%s/data.mdb", c.heir.state);
	copy_file(from, to);
	copy_files();
	cr_assert_eq(statedb_open(&c.heir.db, c.heir.g.loop, c.heir.state, 16 * MIB, false,
			 &c.heir.g.epoch, &et), 0, "%s", et.s);
	staging_set_db(c.heir.st, c.heir.db);
	sf = srig_open(&c.heir, c.id, c.heir_base);
	read_heir(sf);
	if (c.id != 7) {
		uint64_t size = staged_size(sf);

		read_upload(sf, size);
		sf = without_rows(sf);
		read_upload(sf, size);
	}
	staged_close(&sf);
	rig_settle(&c.heir.g);
	c.checks++;
}

static void run_to_end(srig_verb verb, uint64_t off, uint64_t len, bool keep, const void *data)
{
	struct srig_io si;

	memset(&si, 0, sizeof(si));
	si.io.keep_size = keep;
	successor();
	srig_start(&si, c.sf, verb, off, len, data);
	while (!si.done) {
		successor();
		if (!fake_step_one(c.s.g.ufs, 30000))
			loop_turn(c.s.g.loop, pool_outstanding(c.s.g.pool) > 0);
		else
			loop_turn(c.s.g.loop, false);
	}
	cr_assert_eq(si.err, 0);
	staged_read_release(&si.io);
	c.now = c.next;
	successor();
}

static void zero_keep(struct staged_io *io)
{
	io->keep_size = true;
	staged_zero(io);
}

static void cut_next(uint64_t size)
{
	if (size < c.next.size)
		memset(c.next.data + size, 0, c.next.size - size);
	c.next.size = size;
}

static void step(void)
{
	static unsigned char data[MOST];
	uint64_t off = rnd(40) * 4096, len = 1 + rnd(30000);

	len = MIN(len, MOST - off);
	switch (rnd(6)) {
	case 0:
	case 1:
		memset(data, (int)(1 + rnd(255)), len);
		memcpy(c.next.data + off, data, len);
		c.next.size = MAX(c.next.size, off + len);
		run_to_end(staged_write, off, len, false, data);
		break;
	case 2:
		cut_next(off);
		run_to_end(staged_truncate, off, 0, false, NULL);
		break;
	case 3:
		memset(c.next.data + off, 0, len);
		c.next.size = MAX(c.next.size, off + len);
		run_to_end(staged_zero, off, len, false, NULL);
		break;
	case 4:
		if (off < c.next.size)
			memset(c.next.data + off, 0, MIN(len, c.next.size - off));
		run_to_end(zero_keep, off, len, true, NULL);
		break;
	default:
		if (c.id != 7 && rnd(2))
			run_to_end(staged_sync, 0, 0, false, NULL);
		else
			run_to_end(staged_read, off, len, false, NULL);
		break;
	}
}

static void run(unsigned seed, uint64_t id)
{
	uint64_t size = id == 7 && seed % 2 ? 100000 : 0;

	memset(&c, 0, sizeof(c));
	c.seed = seed;
	c.id = id;
	srig_init(&c.s);
	srig_init(&c.heir);
	cr_assert_eq(paths_make_private(c.heir.dir), 0);
	c.now.size = size;
	srig_base_bytes("v0", 0, c.now.data, size);
	c.next = c.now;
	if (size > 0) {
		c.base = rig_blob(&c.s.g, "f", "v0", size);
		c.heir_base = rig_blob(&c.heir.g, "f", "v0", size);
	}
	c.sf = srig_create(&c.s, id, c.base);
	srig_commit(&c.s);
	for (unsigned n = 0; n < 25; n++)
		step();
	cr_assert_gt(c.checks, 60, "only %u moments were looked at", c.checks);
	staged_close(&c.sf);
	if (size > 0) {
		cache_blob_put(&c.base);
		cache_blob_put(&c.heir_base);
	}
	srig_fini(&c.s);
	srig_fini(&c.heir);
}

Test(staged_crash, a_successor_finds_what_was_answered)
{
	for (unsigned seed = 1; seed <= 6; seed++)
		run(seed, 7);
}

Test(staged_crash, of_a_durable_file_with_its_checksums)
{
	for (unsigned seed = 1; seed <= 6; seed++)
		run(seed, STAGED_DURABLE_BIT | 7);
}
