/* SPDX-License-Identifier: BSD-2-Clause */
#include "upload_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

static void make_uploads(struct up_rig *t)
{
	struct uploads_env env = { t->g.loop, t->g.pool, t->g.cfg };

	cr_assert_eq(uploads_new(&t->us, &env), 0);
	t->us->part_min = UP_MIN;
	t->us->read_most = UP_UNIT - 5000;
	t->us->look_again = 0;
	uploads_set_db(t->us, t->db);
}

void up_rig_init(struct up_rig *t)
{
	struct staging_env env;
	struct errtext et;
	char dir[128];

	memset(t, 0, sizeof(*t));
	rig_init(&t->g, true);
	t->g.cfg->write_part_size = UP_UNIT; /* below what the configuration allows */
	t->g.ufs->store.part_min = UP_MIN;
	t->g.ufs->store.strict = true;
	rig_start(&t->g);
	strcpy(t->state, "/dev/shm/batonfs-upload-XXXXXX");
	cr_assert_not_null(mkdtemp(t->state));
	cr_assert_eq(
	    statedb_open(&t->db, t->g.loop, t->state, 16 * MIB, true, &t->g.epoch, &et), 0, "%s",
	    et.s);
	env = (struct staging_env){ t->g.loop, t->g.pool, t->g.cfg, t->g.cache, &t->g.epoch };
	(void)snprintf(dir, sizeof(dir), "%s/staged", t->g.dir);
	cr_assert_eq(staging_new(&t->st, &env, dir), 0);
	staging_set_db(t->st, t->db);
	t->next_id = 1;
	make_uploads(t);
}

void up_rig_again(struct up_rig *t)
{
	uploads_free(&t->us);
	make_uploads(t);
}

void up_rig_fini(struct up_rig *t)
{
	char cmd[128];

	up_settle(t);
	uploads_free(&t->us);
	staging_set_db(t->st, NULL);
	staging_free(&t->st);
	statedb_close(&t->db);
	rig_fini(&t->g);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf %s", t->state);
	cr_assert_eq(system(cmd), 0);
}

void up_settle(struct up_rig *t)
{
	rig_settle(&t->g);
}

/* --- files */

void up_again(struct up_file *f)
{
	upload_free(&f->up);
	cr_assert_eq(upload_new(f->t->us, f->sf, &f->up), 0);
	cr_assert_eq(upload_place(f->up, f->t->g.ufs, f->path,
			 *f->version != '\0' ? f->version : NULL), 0);
}

void up_open(struct up_file *f, struct up_rig *t, const char *path, uint64_t base)
{
	struct blob *b = NULL;

	memset(f, 0, sizeof(*f));
	f->t = t;
	(void)snprintf(f->path, sizeof(f->path), "%s", path);
	f->want = calloc(1, UP_ROOM);
	if (base > 0) {
		strcpy(f->version, "base");
		fake_add(t->g.ufs, path, base, "base");
		b = rig_blob(&t->g, path, "base", base);
		for (uint64_t i = 0; i < base; i++)
			f->want[i] = fake_byte("base", i);
		f->size = f->version_size = base;
	}
	f->id = t->next_id++;
	cr_assert_eq(staged_create(t->st, f->id, b, &f->sf), 0);
	if (b != NULL)
		cache_blob_put(&b);
	up_again(f);
}

void up_close(struct up_file *f)
{
	upload_free(&f->up);
	up_settle(f->t);
	cr_assert(!staged_busy(f->sf));
	cr_assert_eq(staged_delete(&f->sf), 0);
	free(f->want);
}

void up_reopen(struct up_file *f)
{
	bool hold = f->t->g.hold;
	struct blob *b = NULL;

	f->t->g.hold = true;
	up_settle(f->t);
	f->t->g.hold = hold;
	staged_close(&f->sf);
	if (*f->version != '\0')
		b = rig_blob(&f->t->g, f->path, f->version, f->version_size);
	cr_assert_eq(staged_open(f->t->st, f->id, b, &f->sf), 0);
	if (b != NULL)
		cache_blob_put(&b);
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

struct io {
	struct staged_io io;
	bool done;
	int err;
};

static void io_done(struct staged_io *sio, int err)
{
	struct io *io = container_of(sio, struct io, io);

	io->done = true;
	io->err = err;
}

static void io_wait(struct up_rig *t, struct io *io)
{
	/* The storage does not move meanwhile. */
	while (!io->done)
		(void)loop_turn(t->g.loop, pool_outstanding(t->g.pool) > 0);
	cr_assert_eq(io->err, 0);
}

void up_write(struct up_file *f, uint64_t off, size_t len, bool ahead)
{
	struct io io = { .io = { .sf = f->sf, .off = off, .len = len, .done = io_done } };

	cr_assert(off + len <= UP_ROOM);
	for (size_t i = 0; i < len; i++)
		f->want[off + i] = (unsigned char)rand();
	io.io.data = f->want + off;
	staged_write(&io.io);
	io_wait(f->t, &io);
	f->size = MAX(f->size, off + len);
	upload_wrote(f->up, off, len, ahead);
}

void up_truncate(struct up_file *f, uint64_t size)
{
	struct io io = { .io = { .sf = f->sf, .off = size, .done = io_done } };

	staged_truncate(&io.io);
	io_wait(f->t, &io);
	if (size < f->size) {
		memset(f->want + size, 0, f->size - size);
		upload_wrote(f->up, size, UINT64_MAX, false);
	} else {
		upload_wrote(f->up, f->size, size - f->size, false);
	}
	f->size = size;
}

static void run_done(struct upload_run *r, int err)
{
	struct up_file *f = r->user;

	cr_assert(!f->done, "done twice");
	f->done = true;
	f->err = err;
}

void up_start(struct up_file *f)
{
	memset(&f->run, 0, sizeof(f->run));
	f->done = false;
	f->run.done = run_done;
	f->run.user = f;
	staged_sending(f->sf);
	upload_start(f->up, &f->run);
	cr_assert(!f->done, "done came inline");
}

void up_abort(struct up_file *f)
{
	upload_abort(&f->run);
	staged_not_uploaded(f->sf);
}

int up_wait(struct up_file *f)
{
	struct blob *b;

	cr_assert(rig_until(&f->t->g, is_true, &f->done), "the run never ended");
	if (f->err != 0) {
		staged_not_uploaded(f->sf);
		return f->err;
	}
	strcpy(f->version, f->run.attr.version);
	f->version_size = f->run.size;
	b = rig_blob(&f->t->g, f->path, f->version, f->run.size);
	cr_assert_eq(staged_uploaded(f->sf, b, f->run.size), 0);
	cache_blob_put(&b);
	cr_assert_eq(upload_place(f->up, f->t->g.ufs, f->path, f->version), 0);
	return 0;
}

int up_run(struct up_file *f)
{
	up_start(f);
	return up_wait(f);
}

bool up_right(struct up_file *f)
{
	struct fake_store *st = &f->t->g.ufs->store;
	struct fake_file *ff = fake_store_find(st, f->path);
	unsigned char *got;
	bool right;

	if (ff == NULL || ff->size != f->size || staged_size(f->sf) != f->size)
		return false;
	got = malloc(f->size + 1);
	right = fake_store_bytes(st, f->path, ff->version, 0, got, f->size) == 0 &&
		memcmp(got, f->want, f->size) == 0;
	free(got);
	return right;
}
