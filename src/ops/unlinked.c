/* SPDX-License-Identifier: BSD-2-Clause */
/* The names that wait for their deletion: rows, what they hide and whom they stop. */
#include "ops/unlinked.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/units.h"
#include "ops/attr.h"
#include "ops/change.h"
#include "ops/node.h"

#define UNLINKED_FORMAT 1
#define UNLINKED_MAX 16384 /* that may wait; the callers wait for more */
#define PROVED_NS (60 * NS_PER_S)

/* A row: this in host order (it never leaves the machine), version, path. */
struct row {
	uint8_t format, dir, version_len, pad[5];
	uint64_t noted_ns;
};
_Static_assert(sizeof(struct row) == 16, "rows outlive the program that wrote them");

#define ROW_MAX (sizeof(struct row) + UFS_VERSION_MAX + UFS_PATH_MAX)

/* --- Rows */

static int row_put(struct fs *fs, const struct unlinked *u)
{
	struct row row = {.format = UNLINKED_FORMAT,
	    .dir = u->dir,
	    .version_len = (uint8_t)strlen(u->version),
	    .noted_ns = u->noted_ns};
	uint64_t be = htobe64(u->seq);
	unsigned char buf[ROW_MAX];
	size_t len = sizeof(row), n = strlen(u->path);

	memcpy(buf, &row, len);
	memcpy(buf + len, u->version, row.version_len);
	len += row.version_len;
	memcpy(buf + len, u->path, n);
	return statedb_put(fs->db, STATEDB_UNLINKED, &be, sizeof(be), buf, len + n);
}

static void row_del(struct fs *fs, uint64_t seq)
{
	uint64_t be = htobe64(seq);

	(void)statedb_del(fs->db, STATEDB_UNLINKED, &be, sizeof(be));
}

/* --- Those in memory */

static struct unlinked *find(const struct unlinkeds *ul, const char *path)
{
	struct unlinked *u;

	HASH_FIND_STR(ul->by_path, path, u);
	return u;
}

/* The directory that the name is in, if it is to be deleted too. */
static struct unlinked *find_dir(const struct unlinkeds *ul, const char *path)
{
	const char *slash = strrchr(path, '/');
	struct unlinked *u = NULL;

	if (slash != NULL)
		HASH_FIND(hh, ul->by_path, path, (unsigned)(slash - path), u);
	return u != NULL && u->dir ? u : NULL;
}

static void forget(struct unlinkeds *ul, struct unlinked *u)
{
	struct unlinked *dir = find_dir(ul, u->path);

	if (dir != NULL && dir->below > 0)
		dir->below--;
	assert(ul->by_path != NULL);
	HASH_DEL(ul->by_path, u);
	TAILQ_REMOVE(&ul->list, u, link);
	ul->n--;
	free(u);
	GAUGE_SET(ul->fs->env.loop, DELETE_PENDING, ul->n);
}

/* Is b an entry of a? */
static bool right_below(const char *a, const char *b)
{
	size_t n = strlen(a);

	return strncmp(a, b, n) == 0 && b[n] == '/' && strchr(b + n + 1, '/') == NULL;
}

/* Of one that has all members but the list's. */
static int take(struct unlinkeds *ul, struct unlinked *u)
{
	struct unlinked *o;

	HASH_ADD_STR(ul->by_path, path, u);
	if (u->hh.tbl == NULL)
		return -ENOMEM;
	if (u->dir)
		TAILQ_FOREACH(o, &ul->list, link)
		u->below += right_below(u->path, o->path);
	TAILQ_INSERT_TAIL(&ul->list, u, link);
	ul->n++;
	GAUGE_SET(ul->fs->env.loop, DELETE_PENDING, ul->n);
	return 0;
}

static struct unlinked *new_one(const char *path, size_t len, bool dir)
{
	struct unlinked *u = calloc(1, sizeof(*u) + len + 1);

	if (u == NULL)
		return NULL;
	memcpy(u->path, path, len);
	u->dir = dir;
	return u;
}

int unlinked_add(struct fs *fs, const char *path, bool dir, const char *version)
{
	struct unlinkeds *ul = fs->unlinked;
	struct unlinked *u = new_one(path, strlen(path), dir);
	int err;

	if (u == NULL)
		return -ENOMEM;
	assert(find(ul, path) == NULL);
	memcpy(u->version, version, strlen(version) + 1);
	u->noted_ns = loop_wall(fs->env.loop);
	u->seq = ul->next_seq;
	err = row_put(fs, u);
	if (err == 0)
		err = FAULT("unlinked.noted");
	if (err == 0)
		err = take(ul, u);
	if (err != 0) {
		row_del(fs, u->seq);
		free(u);
		return err;
	}
	ul->next_seq++;
	COUNT(fs->env.loop, DELETE_LATER, 1);
	unlinked_pump(ul);
	return 0;
}

bool unlinked_room(const struct fs *fs)
{
	return fs->unlinked->n < UNLINKED_MAX;
}

int unlinked_add_doubt(struct fs *fs, const char *path, uint64_t size, uint64_t intent)
{
	char version[UFS_VERSION_MAX];

	if (find(fs->unlinked, path) != NULL)
		return 0;
	unlinked_doubt_text(size, intent, version);
	return unlinked_add(fs, path, false, version);
}

void unlinked_undo(struct fs *fs, const char *path)
{
	struct unlinked *u = find(fs->unlinked, path);

	if (u == NULL)
		return;
	row_del(fs, u->seq);
	forget(fs->unlinked, u);
}

bool unlinked_hides(const struct fs *fs, const char *path)
{
	return fs->unlinked->n > 0 && find(fs->unlinked, path) != NULL;
}

unsigned unlinked_count(const struct fs *fs)
{
	return fs->unlinked->n;
}

void fs_deletions(const struct fs *fs, struct fs_deletions *out)
{
	*out = (struct fs_deletions){.pending = fs->unlinked->n,
	    .refused = fs->unlinked->refused,
	    .error = fs->unlinked->error};
}

bool fs_deleted(const struct fs *fs, const char *nspath)
{
	return unlinked_hides(fs, nspath + strspn(nspath, "/"));
}

/* --- May it be answered early? */

static uint64_t dir_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return hash64(path, slash != NULL ? (size_t)(slash - path) : 0, 1) | 1;
}

static bool proved(struct fs *fs, uint64_t dir)
{
	const struct unlinkeds *ul = fs->unlinked;
	uint64_t now = loop_now(fs->env.loop), when = ul->proved[dir % UNLINKED_PROVED].when_ns;

	return ul->proved[dir % UNLINKED_PROVED].dir == dir && when <= now &&
	       now - when < PROVED_NS;
}

void unlinked_proved(struct fs *fs, const char *path, bool deletes)
{
	struct unlinkeds *ul = fs->unlinked;
	uint64_t dir = dir_of(path);

	if (!deletes) {
		memset(ul->proved, 0, sizeof(ul->proved));
		return;
	}
	ul->proved[dir % UNLINKED_PROVED].dir = dir;
	ul->proved[dir % UNLINKED_PROVED].when_ns = loop_now(fs->env.loop);
}

bool unlinked_below(const struct fs *fs, const char *path)
{
	const struct unlinked *u;

	TAILQ_FOREACH(u, &fs->unlinked->list, link)
	if (path_within(u->path, path) && strcmp(u->path, path) != 0)
		return true;
	return false;
}

bool unlinked_may(struct fs *fs, const char *path, bool dir)
{
	const struct unlinkeds *ul = fs->unlinked;
	const char *sub;
	struct ufs *ufs;

	/* Another node may have made and stored something there before it is sent. */
	if (fs->meta != NULL && meta_self(fs->meta) != 0)
		return false;
	if (fs->env.cfg->delete_delay == 0 || ul->failures > 0 || ul->n >= UNLINKED_MAX ||
	    find(ul, path) != NULL)
		return false;
	fs_place(fs, path, &ufs, &sub);
	if ((ufs_can(ufs) & UFS_CAN_RENAME) != 0)
		return false; /* a directory of this machine, or of its kernel's */
	return proved(fs, dir_of(path)) ||
	       (dir && (proved(fs, hash64(path, strlen(path), 1) | 1) || unlinked_below(fs, path)));
}

/* --- Whom it stops */

static bool blocks(struct pathlocks *ls, const char *path, bool tree)
{
	struct unlinkeds *ul = container_of(ls, struct fs, locks)->unlinked;
	struct unlinked *u;
	bool found = false;

	if (ul->n == 0)
		return false;
	found = find(ul, path) != NULL;
	if (!found && tree)
		TAILQ_FOREACH(u, &ul->list, link)
		if (path_within(u->path, path)) {
			found = true;
			break;
		}
	if (found && !ul->wanted) {
		ul->wanted = true;
		unlinked_pump(ul);
	}
	return found;
}

/* --- Waits */

static void wait_answer(struct deferred *d)
{
	struct unlinked_wait *w = container_of(d, struct unlinked_wait, run);

	w->queued = false;
	w->done(w, w->err);
}

static void wait_end(struct unlinked_wait *w)
{
	if (w->path != NULL)
		TAILQ_REMOVE(&w->fs->unlinked->waits, w, link);
	free(w->path);
	w->path = NULL;
	w->queued = true;
	loop_defer(w->fs->env.loop, &w->run, wait_answer);
}

static bool waits_for_some(const struct unlinkeds *ul, const struct unlinked_wait *w)
{
	const struct unlinked *u;

	TAILQ_FOREACH(u, &ul->list, link)
	if (u->seq < w->upto && path_within(u->path, w->path))
		return true;
	return false;
}

void unlinked_wait(struct fs *fs, struct unlinked_wait *w, const char *path,
    void (*done)(struct unlinked_wait *w, int err))
{
	struct unlinkeds *ul = fs->unlinked;

	w->fs = fs;
	w->done = done;
	w->upto = ul->next_seq;
	w->err = 0;
	memset(&w->run, 0, sizeof(w->run));
	w->path = strdup(path);
	if (w->path == NULL) {
		w->err = -ENOMEM;
		wait_end(w);
		return;
	}
	TAILQ_INSERT_TAIL(&ul->waits, w, link);
	if (!waits_for_some(ul, w)) {
		wait_end(w);
		return;
	}
	ul->wanted = true;
	unlinked_pump(ul);
}

void unlinked_wait_abort(struct unlinked_wait *w)
{
	if (w->path != NULL)
		TAILQ_REMOVE(&w->fs->unlinked->waits, w, link);
	free(w->path);
	w->path = NULL;
	if (w->queued)
		loop_undefer(w->fs->env.loop, &w->run);
	w->queued = false;
}

void unlinked_wake(struct unlinkeds *ul, int err)
{
	struct unlinked_wait *w = TAILQ_FIRST(&ul->waits), *next;

	for (; w != NULL; w = next) {
		next = TAILQ_NEXT(w, link);
		if (w->err == 0)
			w->err = err;
		if (err != 0 || !waits_for_some(ul, w))
			wait_end(w);
		else
			ul->wanted = true;
	}
}

/* --- The end of one */

/* Whoever asks from now on believes the storage again. */
static void touch(struct fs *fs, const char *path, bool back)
{
	size_t root = strlen(fs->root), len;
	char name[UFS_NAME_MAX + 1];
	uint64_t dir = NODE_ROOT;
	struct node n;

	if (!path_within(path, fs->root))
		return;
	path += root + (root > 0);
	for (;; path += len + 1) {
		len = strcspn(path, "/");
		memcpy(name, path, MIN(len, UFS_NAME_MAX));
		name[MIN(len, UFS_NAME_MAX)] = '\0';
		if (path[len] == '\0')
			break;
		/* Nobody has a directory open that has no node. */
		if (node_find(fs, dir, name, &n) != 0)
			return;
		dir = n.id;
	}
	fs_touch(fs, dir, name);
	if (back)
		fs_dir_forget(fs, dir);
}

/* What was to go after something that came back stays as well. */
static void bring_back(struct unlinkeds *ul, struct unlinked *u, int err)
{
	struct unlinked *dir = find_dir(ul, u->path);

	log_error("/%s: was deleted here, but the storage does not delete it: %s; it is there "
		  "again",
	    u->path, strerror(-err));
	ul->refused++;
	COUNT(ul->fs->env.loop, DELETE_FAILED, 1);
	if (dir != NULL) {
		row_del(ul->fs, dir->seq);
		bring_back(ul, dir, -ENOTEMPTY);
		touch(ul->fs, dir->path, true);
		forget(ul, dir);
	}
}

static void fail_waits(struct unlinkeds *ul, const struct unlinked *u)
{
	struct unlinked_wait *w;

	TAILQ_FOREACH(w, &ul->waits, link)
	if (u->seq < w->upto && path_within(u->path, w->path))
		w->err = -EIO;
}

void unlinked_end(struct unlinkeds *ul, struct unlinked *u, int err)
{
	struct fs *fs = ul->fs;

	if (err != 0) {
		fail_waits(ul, u);
		bring_back(ul, u, err);
	}
	unlinked_proved(fs, u->path, err == 0);
	touch(fs, u->path, err != 0);
	forget(ul, u);
}

/* --- Life */

static void fired(struct timer *t)
{
	struct unlinkeds *ul = container_of(t, struct unlinkeds, timer);

	ul->wanted = true;
	unlinked_pump(ul);
}

int unlinked_init(struct fs *fs)
{
	struct unlinkeds *ul = calloc(1, sizeof(*ul));

	if (ul == NULL)
		return -ENOMEM;
	ul->fs = fs;
	ul->next_seq = 1;
	TAILQ_INIT(&ul->list);
	TAILQ_INIT(&ul->waits);
	timer_init(&ul->timer, fs->env.loop, fired);
	fs->unlinked = ul;
	fs->locks.blocks = blocks;
	return 0;
}

void unlinked_fini(struct fs *fs)
{
	if (fs->unlinked == NULL)
		return;
	unlinked_close(fs);
	fs->locks.blocks = NULL;
	free(fs->unlinked);
	fs->unlinked = NULL;
}

static int load_row(struct unlinkeds *ul, const struct statedb_val *k, const struct statedb_val *v)
{
	const unsigned char *p = v->data;
	struct unlinked *u;
	struct row row;
	size_t head, len;
	int err;

	if (v->len < sizeof(row))
		return -EPROTO;
	memcpy(&row, p, sizeof(row));
	head = sizeof(row) + row.version_len;
	if (row.format != UNLINKED_FORMAT || row.version_len >= UFS_VERSION_MAX ||
	    v->len <= head || v->len - head > UFS_PATH_MAX)
		return -EPROTO;
	len = v->len - head;
	u = new_one((const char *)p + head, len, row.dir != 0);
	if (u == NULL)
		return -ENOMEM;
	memcpy(u->version, p + sizeof(row), row.version_len);
	u->noted_ns = row.noted_ns;
	memcpy(&u->seq, k->data, sizeof(u->seq));
	u->seq = be64toh(u->seq);
	/* One that is being sent is there. */
	err = find(ul, u->path) != NULL ? -EEXIST : take(ul, u);
	if (err != 0)
		free(u);
	return err == -EEXIST ? 0 : err;
}

static int load(struct fs *fs)
{
	struct unlinkeds *ul = fs->unlinked;
	struct statedb_val k, v;
	uint64_t seq = 0, be;
	int err;

	for (;;) {
		be = htobe64(seq);
		err = statedb_seek(fs->db, STATEDB_UNLINKED, &be, sizeof(be), &k, &v);
		if (err == 0 && k.len != sizeof(be))
			err = -EPROTO;
		if (err != 0)
			break;
		memcpy(&be, k.data, sizeof(be));
		seq = be64toh(be) + 1;
		err = load_row(ul, &k, &v);
		if (err != 0)
			break;
	}
	ul->next_seq = MAX(ul->next_seq, seq);
	return err == -ENOENT ? 0 : err;
}

int unlinked_open(struct fs *fs)
{
	struct unlinkeds *ul = fs->unlinked;
	int err = load(fs);

	ul->held = false;
	ul->wanted = ul->all = ul->n > 0;
	unlinked_pump(ul);
	return err;
}

int unlinked_check(struct fs *fs)
{
	struct unlinkeds *ul = fs->unlinked;
	struct unlinked *u, *next;

	for (u = TAILQ_FIRST(&ul->list); u != NULL; u = next) {
		next = TAILQ_NEXT(u, link);
		if (!u->sending)
			forget(ul, u);
	}
	return unlinked_open(fs);
}

void unlinked_close(struct fs *fs)
{
	struct unlinkeds *ul = fs->unlinked;
	struct unlinked *u;

	if (ul == NULL)
		return;
	assert(ul->batch == NULL);
	timer_cancel(&ul->timer);
	while ((u = TAILQ_FIRST(&ul->list)) != NULL)
		forget(ul, u);
	ul->wanted = ul->all = false;
}

void unlinked_flush(struct fs *fs)
{
	fs->unlinked->wanted = fs->unlinked->all = fs->unlinked->n > 0;
	unlinked_pump(fs->unlinked);
}
