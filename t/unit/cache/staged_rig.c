/* SPDX-License-Identifier: BSD-2-Clause */
#include "staged_rig.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void open_db(struct staged_rig *s, bool create)
{
	struct errtext et;

	cr_assert_eq(statedb_open(&s->db, s->g.loop, s->state, 64 * MIB, create, &s->g.epoch, &et),
	    0, "%s", et.s);
}

static void open_staging(struct staged_rig *s)
{
	struct staging_env env = {s->g.loop, s->g.pool, s->g.cfg, s->g.cache, &s->g.epoch};

	cr_assert_eq(staging_new(&s->st, &env, s->dir), 0);
	staging_set_db(s->st, s->db);
}

static void init(struct staged_rig *s, bool disk, const char *dir)
{
	memset(s, 0, sizeof(*s));
	rig_init(&s->g, disk);
	rig_start(&s->g);
	snprintf(s->state, sizeof(s->state), "/dev/shm/batonfs-staged-XXXXXX");
	cr_assert_not_null(mkdtemp(s->state));
	if (dir != NULL)
		snprintf(s->dir, sizeof(s->dir), "%s", dir);
	else if (disk)
		snprintf(s->dir, sizeof(s->dir), "%s/staged", s->g.dir);
	else
		snprintf(s->dir, sizeof(s->dir), "%s/a/staged", s->state);
	open_db(s, true);
	open_staging(s);
}

void srig_init_in(struct staged_rig *s, const char *dir)
{
	init(s, false, dir);
}

void srig_init_disk(struct staged_rig *s, const char *dir)
{
	init(s, true, dir);
	rig_settle(&s->g);
}

void srig_init(struct staged_rig *s)
{
	srig_init_in(s, NULL);
}

void srig_fini(struct staged_rig *s)
{
	rig_settle(&s->g);
	staging_free(&s->st);
	statedb_close(&s->db);
	rig_fini(&s->g);
	nftw(s->state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void srig_small_disk(struct staged_rig *s, const char *options)
{
	static char dir[] = "/tmp/batonfs-small-XXXXXX";

	cr_assert_not_null(mkdtemp(dir));
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", dir, "tmpfs", 0, options) != 0) {
		rmdir(dir);
		cr_skip_test("needs root and a mount namespace of its own");
	}
	/* The pool's threads stay in the mount namespace that they began in. */
	srig_fini(s);
	srig_init_in(s, dir);
}

void srig_small_disk_end(struct staged_rig *s)
{
	rig_settle(&s->g);
	umount2(s->dir, MNT_DETACH);
	rmdir(s->dir);
}

void srig_commit(struct staged_rig *s)
{
	cr_assert_eq(statedb_commit(s->db), 0);
}

void srig_restart(struct staged_rig *s)
{
	srig_commit(s);
	staging_free(&s->st);
	statedb_close(&s->db);
	open_db(s, false);
	open_staging(s);
}

struct staged *srig_create(struct staged_rig *s, uint64_t id, struct blob *base)
{
	struct staged *sf;

	cr_assert_eq(staged_create(s->st, id, base, &sf), 0);
	return sf;
}

struct staged *srig_open(struct staged_rig *s, uint64_t id, struct blob *base)
{
	struct staged *sf;

	cr_assert_eq(staged_open(s->st, id, base, &sf), 0);
	return sf;
}

static void io_done(struct staged_io *io, int err)
{
	struct srig_io *si = container_of(io, struct srig_io, io);

	cr_assert(!si->done, "done twice");
	si->done = true;
	si->err = err;
}

void srig_start(struct srig_io *si, struct staged *sf, srig_verb verb, uint64_t off,
    uint64_t len, const void *data)
{
	memset(si, 0, sizeof(*si));
	si->io.sf = sf;
	si->io.off = off;
	si->io.len = len;
	si->io.data = data;
	si->io.done = io_done;
	verb(&si->io);
	cr_assert(!si->done, "a leaf completed inline");
}

bool srig_done(void *si)
{
	return ((struct srig_io *)si)->done;
}

int srig_do(struct staged_rig *s, struct staged *sf, srig_verb verb, uint64_t off, uint64_t len,
    const void *data)
{
	struct srig_io si;

	srig_start(&si, sf, verb, off, len, data);
	cr_assert(rig_until(&s->g, srig_done, &si), "it never ended");
	return si.err;
}

static void zero_keep(struct staged_io *io)
{
	io->keep_size = true;
	staged_zero(io);
}

int srig_zero(struct staged_rig *s, struct staged *sf, uint64_t off, uint64_t len, bool keep)
{
	return srig_do(s, sf, keep ? zero_keep : staged_zero, off, len, NULL);
}

int srig_check(struct staged_rig *s, struct staged *sf, uint64_t off, const void *data, size_t len)
{
	struct srig_io si;
	int err;

	memset(&si, 0, sizeof(si));
	si.io.sf = sf;
	si.io.off = off;
	si.io.len = len;
	si.io.done = io_done;
	if (!staged_read_try(&si.io)) {
		srig_start(&si, sf, staged_read, off, len, NULL);
		cr_assert(rig_until(&s->g, srig_done, &si), "the read never ended");
	}
	err = si.err;
	if (err == 0 && (si.io.got != len || si.io.iov.iov_len != len ||
			    (len > 0 && memcmp(si.io.iov.iov_base, data, len) != 0)))
		err = -EBADMSG;
	staged_read_release(&si.io);
	return err;
}

int srig_pread(struct staged_rig *s, struct staged *sf, void *mem, uint64_t len,
    struct staged_io *io)
{
	struct srig_io si = {.io = {.sf = sf, .len = len, .done = io_done}};

	staged_pread(&si.io, mem);
	cr_assert(!si.done, "a leaf completed inline");
	cr_assert(rig_until(&s->g, srig_done, &si), "it never ended");
	*io = si.io;
	return si.err;
}

uint64_t srig_rows(struct staged_rig *s)
{
	return statedb_count(s->db, STATEDB_EXTENTS);
}

void srig_base_bytes(const char *version, uint64_t off, unsigned char *buf, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = fake_byte(version, off + i);
}

struct staged *srig_over_base(struct staged_rig *s, unsigned char *bytes, uint64_t size)
{
	struct blob *b = rig_blob(&s->g, "f", "v1", size);
	struct staged *sf = srig_create(s, 1, b);

	cache_blob_put(&b);
	srig_base_bytes("v1", 0, bytes, MIN(size, 4 * MIB));
	return sf;
}

enum staged_kind srig_kind_at(struct staged *sf, uint64_t off)
{
	uint64_t end;

	return staged_map(sf, off, &end);
}

void srig_file_path(const struct staged_rig *s, uint64_t id, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%llx", s->dir, (unsigned long long)id);
}

void srig_sums_path(const struct staged_rig *s, uint64_t id, char *buf, size_t len)
{
	snprintf(buf, len, "%s/%llx" STAGED_SUMS, s->dir, (unsigned long long)id);
}

bool srig_file_there(const struct staged_rig *s, uint64_t id)
{
	char path[128];

	srig_file_path(s, id, path, sizeof(path));
	return access(path, F_OK) == 0;
}

bool srig_sums_there(const struct staged_rig *s, uint64_t id)
{
	char path[128];

	srig_sums_path(s, id, path, sizeof(path));
	return access(path, F_OK) == 0;
}
