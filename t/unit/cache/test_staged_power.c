/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine may lose power at any instant.  What was synced is kept aside, byte by byte;
 * of what was not, each sector of a copy is what it was at the last sync or what it is
 * now, by chance, and so are lengths and names.  A file made again of such a copy and of
 * what its record says is what it was when it was told safe; where it was being rewritten
 * since, the bytes that were not are.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/paths.h"
#include "staged_rig.h"

TestSuite(staged_power);

#define MOST (160 * 1024)
#define ID (STAGED_DURABLE_BIT | 7)
#define SECTOR 512

/* --- What is on the disk */

struct disk_file {
	bool there; /* its name */
	size_t len;
	unsigned char data[2 * MOST];
};

static struct {
	pthread_mutex_t lock;
	bool on;
	char dir[128];
	struct disk_file file[2]; /* bytes, sums */
} disk = {.lock = PTHREAD_MUTEX_INITIALIZER};

static const char *name_of(unsigned i)
{
	return i == 0 ? "8000000000000007" : "8000000000000007" STAGED_SUMS;
}

static size_t read_file(int fd, unsigned char *data)
{
	ssize_t n = pread(fd, data, sizeof(disk.file[0].data), 0);

	cr_assert(n >= 0 && (size_t)n < sizeof(disk.file[0].data));
	memset(data + n, 0, sizeof(disk.file[0].data) - (size_t)n);
	return (size_t)n;
}

static void note_sync(int fd)
{
	char link[64], path[256], want[256];
	ssize_t n;

	if (!disk.on)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return;
	path[n] = '\0';
	pthread_mutex_lock(&disk.lock);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(want, sizeof(want), "%s/%s", disk.dir, name_of(i));
		if (strcmp(path, want) == 0)
			disk.file[i].len = read_file(fd, disk.file[i].data);
		if (strcmp(path, disk.dir) == 0)
			disk.file[i].there |= access(want, F_OK) == 0;
	}
	pthread_mutex_unlock(&disk.lock);
}

/* In the place of libc's. */
int fdatasync(int fd);
int fdatasync(int fd)
{
	note_sync(fd);
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd);
int fsync(int fd)
{
	note_sync(fd);
	return (int)syscall(SYS_fsync, fd);
}

/* --- The file, and what is known of it */

struct state {
	uint64_t size;
	unsigned char data[MOST]; /* zeros from size on */
};

static struct power {
	struct staged_rig s, heir;
	struct staged *sf;
	unsigned seed, losses, rewritings, restored;
	struct state now, next;
	/* the record */
	bool recorded, rewriting;
	struct staged_durable dur;
	struct state safe;
	bool touched[MOST]; /* since then */
} p;

static unsigned rnd(unsigned n)
{
	return (unsigned)rand_r(&p.seed) % n;
}

static void after_loss(unsigned i)
{
	static unsigned char now[2 * MOST], out[2 * MOST];
	struct disk_file *df = &disk.file[i];
	unsigned how = rnd(3); /* all lost, all there, by chance */
	size_t len = 0, most, size;
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", p.s.dir, name_of(i));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	memset(now, 0, sizeof(now));
	if (fd >= 0) {
		len = read_file(fd, now);
		close(fd);
	}
	snprintf(path, sizeof(path), "%s/%s", p.heir.dir, name_of(i));
	unlink(path);
	pthread_mutex_lock(&disk.lock);
	most = MAX(len, df->len);
	for (size_t at = 0; at < most; at += SECTOR)
		memcpy(out + at, how == 0 || (how == 2 && rnd(2)) ? df->data + at : now + at,
		    SECTOR);
	if (how == 0)
		size = df->len;
	else if (how == 1)
		size = len;
	else if (len > df->len)
		size = df->len + rnd((unsigned)(len - df->len) + 1);
	else
		size = rnd(2) ? len : df->len;
	if (df->there || (fd >= 0 && rnd(2))) {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		cr_assert_geq(fd, 0);
		cr_assert_eq(pwrite(fd, out, size, 0), (ssize_t)size);
		close(fd);
	}
	pthread_mutex_unlock(&disk.lock);
}

static void look(struct staged *sf)
{
	static unsigned char mem[MOST];
	struct staged_io io;
	int err;

	cr_assert_eq(staged_size(sf), p.safe.size);
	err = srig_pread(&p.heir, sf, mem, MOST, &io);
	cr_assert_eq(err, 0, "error %d, %s", err, p.rewriting ? "rewriting" : "safe");
	cr_assert_eq(io.got, p.safe.size);
	for (uint64_t i = 0; i < p.safe.size; i++)
		cr_assert(mem[i] == p.safe.data[i] || (p.rewriting && p.touched[i]),
		    "byte %llu is %u, not %u", (unsigned long long)i, mem[i], p.safe.data[i]);
}

static void lose_power(void)
{
	const void *inl = p.safe.size <= 16384 && p.safe.size > 0 && !p.rewriting && rnd(2)
			      ? p.safe.data
			      : NULL;
	struct staged *sf;

	if (!p.recorded)
		return;
	after_loss(0);
	after_loss(1);
	if (inl != NULL && rnd(2)) {
		char path[256];

		snprintf(path, sizeof(path), "%s/%s", p.heir.dir, name_of(rnd(2)));
		unlink(path);
	}
	cr_assert_eq(staged_restore(p.heir.st, ID, &p.dur, inl, inl != NULL ? p.dur.size : 0,
			 p.rewriting, &sf), 0);
	look(sf);
	/* And the record makes it once more. */
	cr_assert_eq(staged_park(&sf), 0);
	cr_assert_eq(staged_restore(p.heir.st, ID, &p.dur, NULL, 0, p.rewriting, &sf), 0);
	look(sf);
	cr_assert_eq(staged_park(&sf), 0);
	rig_settle(&p.heir.g);
	p.losses++;
	p.rewritings += p.rewriting;
}

static int run(srig_verb verb, uint64_t off, uint64_t len, const void *data)
{
	struct srig_io si;

	memset(&si, 0, sizeof(si));
	srig_start(&si, p.sf, verb, off, len, data);
	while (!si.done) {
		if (rnd(3) == 0)
			lose_power();
		loop_turn(p.s.g.loop, pool_outstanding(p.s.g.pool) > 0);
	}
	if (rnd(2))
		lose_power();
	return si.err;
}

static void zero_keep(struct staged_io *io)
{
	io->keep_size = true;
	staged_zero(io);
}

/* As a session does: the record knows before the bytes change. */
static void change(srig_verb verb, uint64_t off, uint64_t len, uint64_t end, const void *data)
{
	if (p.recorded && off < p.safe.size) {
		cr_assert(staged_rewrites(p.sf, off) || staged_rewritten(p.sf));
		p.rewriting = true;
	}
	for (uint64_t i = off; i < MIN(end, MOST); i++)
		p.touched[i] = true;
	cr_assert_eq(run(verb, off, len, data), 0);
	p.now = p.next;
}

static void sync_it(void)
{
	cr_assert_eq(run(staged_sync, 0, 0, NULL), 0);
	staged_durable(p.sf, &p.dur);
	p.recorded = true;
	p.rewriting = false;
	p.safe = p.now;
	memset(p.touched, 0, sizeof(p.touched));
	cr_assert_eq(p.dur.size, p.now.size);
	lose_power();
}

static void step(void)
{
	static unsigned char data[MOST];
	uint64_t off = rnd(4) ? rnd(40) * 4096 : rnd(MOST), len = 1 + rnd(rnd(2) ? 30000 : 5000);
	uint64_t end;

	if (rnd(2)) /* mostly it grows */
		off = p.now.size;
	len = MIN(len, MOST - MIN(off, MOST));
	if (len == 0)
		off = rnd(1000), len = 100;
	end = off + len;
	switch (rnd(8)) {
	case 0:
		memset(p.next.data + off, 0, MOST - off);
		p.next.size = off;
		change(staged_truncate, off, 0, MOST, NULL);
		break;
	case 1:
		memset(p.next.data + off, 0, len);
		p.next.size = MAX(p.next.size, end);
		change(staged_zero, off, len, end, NULL);
		break;
	case 2:
		if (off < p.next.size)
			memset(p.next.data + off, 0, MIN(end, p.next.size) - off);
		change(zero_keep, off, len, end, NULL);
		break;
	case 3:
		p.next.size = MAX(p.next.size, end);
		cr_assert_eq(run(staged_allocate, off, len, NULL), 0);
		p.now = p.next;
		break;
	case 4:
	case 5:
		sync_it();
		break;
	default:
		for (uint64_t i = 0; i < len; i++)
			data[i] = (unsigned char)(1 + rnd(255));
		memcpy(p.next.data + off, data, len);
		p.next.size = MAX(p.next.size, end);
		change(staged_write, off, len, end, data);
		break;
	}
}

static void play(unsigned seed)
{
	memset(&p, 0, sizeof(p));
	memset(disk.file, 0, sizeof(disk.file));
	p.seed = seed;
	srig_init(&p.s);
	srig_init(&p.heir);
	cr_assert_eq(paths_make_private(p.heir.dir), 0);
	snprintf(disk.dir, sizeof(disk.dir), "%s", p.s.dir);
	disk.on = true;
	p.sf = srig_create(&p.s, ID, NULL);
	for (unsigned n = 0; n < 40; n++)
		step();
	disk.on = false;
	staged_close(&p.sf);
	srig_fini(&p.s);
	srig_fini(&p.heir);
}

Test(staged_power, what_was_told_safe_is_there)
{
	unsigned losses = 0, rewritings = 0;

	for (unsigned seed = 1; seed <= 12; seed++) {
		play(seed);
		losses += p.losses;
		rewritings += p.rewritings;
	}
	cr_assert_gt(losses, 200);
	cr_assert_gt(rewritings, 50);
	cr_assert_lt(rewritings, losses);
}
