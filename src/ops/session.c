/* SPDX-License-Identifier: BSD-2-Clause */
/* Write sessions: their life and their rows. */
#include "ops/session.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"

#define REAP_LOOK_NS NS_PER_MS
#define REAP_AGAIN_NS (100 * NS_PER_MS)

/* --- In memory */

static void reap_fired(struct timer *t);

int session_alloc(struct fs *fs, uint64_t node, struct session **out)
{
	struct session *s;

	ALLOC_OBJ(s, SESSION_MAGIC);
	*out = s;
	if (s == NULL)
		return -ENOMEM;
	s->fs = fs;
	s->node = node;
	TAILQ_INIT(&s->waits);
	timer_init(&s->reap, fs->env.loop, reap_fired);
	HASH_ADD(hh, fs->sessions, node, sizeof(s->node), s);
	if (s->hh.tbl == NULL) {
		FREE_OBJ(s);
		*out = NULL;
		return -ENOMEM;
	}
	return 0;
}

static void session_unlink(struct session *s)
{
	if (s->hh.tbl != NULL) {
		HASH_DEL(s->fs->sessions, s);
		s->hh.tbl = NULL;
	}
}

void session_free(struct session **sp)
{
	struct session *s, **at;

	TAKE_OBJ(s, sp, SESSION_MAGIC);
	assert(s->users == 0 && s->uploading == NULL && s->securing == NULL);
	assert(TAILQ_EMPTY(&s->waits));
	loop_undefer(s->fs->env.loop, &s->pump);
	timer_cancel(&s->reap);
	session_unlink(s);
	for (at = &s->fs->ended; *at != NULL; at = &(*at)->next_ended)
		if (*at == s) {
			*at = s->next_ended;
			break;
		}
	if (s->up != NULL)
		upload_free(&s->up);
	if (s->sf != NULL)
		staged_close(&s->sf);
	if (s->clean != NULL)
		cache_blob_put(&s->clean);
	FREE_OBJ(s);
}

/* The blob of the node's version, if the session has it beneath. */
static int session_base(struct session *s, const struct node *n, const char *path,
    struct blob **base)
{
	struct blob_id bid = {.version = n->version, .size = n->size};

	*base = NULL;
	if (!s->base)
		return 0;
	fs_place(s->fs, path, &bid.ufs, &bid.path);
	*base = cache_blob_get(s->fs->env.cache, &bid);
	return *base != NULL ? 0 : -ENOMEM;
}

/* Where it will be uploaded to. */
static int session_place(struct session *s, const struct node *n, const char *path)
{
	const char *sub;
	struct ufs *ufs;

	if (s->state == SESSION_ORPHAN)
		return 0;
	fs_place(s->fs, path, &ufs, &sub);
	return upload_place(s->up, ufs, sub, s->base ? n->version : NULL);
}

int session_rebase(struct session *s)
{
	char path[UFS_PATH_MAX + 1];
	struct blob *base = NULL;
	struct node n;
	int err;

	if (s->seen == s->fs->rebinds)
		return 0;
	err = node_load(s->fs, s->node, &n);
	if (err == 0)
		err = node_path(s->fs, s->node, path);
	if (err == 0)
		err = session_base(s, &n, path, &base);
	if (err == 0)
		err = session_place(s, &n, path);
	if (err == 0) {
		if (base != NULL)
			staged_set_base(s->sf, base);
		s->seen = s->fs->rebinds;
	}
	if (base != NULL)
		cache_blob_put(&base);
	return err;
}

int session_load(struct fs *fs, uint64_t node, struct session **out)
{
	char path[UFS_PATH_MAX + 1];
	struct blob *base = NULL;
	struct session *s;
	struct node n;
	int err = session_alloc(fs, node, &s);

	if (err != 0)
		return err;
	err = session_row_load(s);
	if (err == 0)
		err = node_load(fs, node, &n);
	if (err == 0)
		err = node_path(fs, node, path);
	if (err == 0)
		err = session_base(s, &n, path, &base);
	if (err == 0)
		err = staged_open(fs->staging, s->staged, base, &s->sf);
	if (base != NULL)
		cache_blob_put(&base);
	if (err == 0)
		err = upload_new(fs->uploads, s->sf, &s->up);
	if (err == 0)
		err = session_place(s, &n, path);
	s->seen = fs->rebinds;
	if (err != 0) {
		session_free(&s);
		return err;
	}
	*out = s;
	return 0;
}

struct session *session_of(struct fs *fs, uint64_t node)
{
	struct session *s;

	if (fs->sessions == NULL && !fs->sessions_missing)
		return NULL;
	HASH_FIND(hh, fs->sessions, &node, sizeof(node), s);
	if (s == NULL && fs->sessions_missing && fs->db != NULL &&
	    session_load(fs, node, &s) != 0)
		return NULL;
	if (s != NULL && s->seen != fs->rebinds && fs->db != NULL && !upload_running(s->up))
		(void)session_rebase(s); /* tried again the next time, and before an upload */
	return s;
}

int session_for_writing(struct fs *fs, uint64_t fh, struct session **s)
{
	struct handle *h;
	int err = handle_get(fs, fh, UFS_FILE, &h);

	if (err != 0)
		return err;
	if (!h->writes)
		return -EBADF;
	*s = session_of(fs, h->node);
	return *s != NULL ? 0 : -EIO;
}

/* --- Beginning and end */

/* The staged file goes for good.  Parts that were sent ahead may still be read by the pool;
 * and what cannot be deleted now can be a little later. */
static void session_reap(struct session *s)
{
	struct fs *fs = s->fs;

	if (s->users > 0 || s->uploading != NULL || s->securing != NULL)
		return;
	if (s->up != NULL)
		upload_drop(s->up);
	if (s->sf != NULL && staged_busy(s->sf)) {
		timer_arm(&s->reap, REAP_LOOK_NS);
		return;
	}
	if (s->up != NULL)
		upload_free(&s->up);
	if (s->sf != NULL && fs->db != NULL && staged_give(&s->sf, s->clean) != 0) {
		timer_arm(&s->reap, REAP_AGAIN_NS);
		return;
	}
	session_free(&s);
	fs_op_ended(fs);
}

/* Nobody finds it any more. */
static void session_over(struct session *s)
{
	session_unlink(s);
	s->ended = true;
	s->next_ended = s->fs->ended;
	s->fs->ended = s;
	session_reap(s);
}

static void reap_fired(struct timer *t)
{
	struct session *s = container_of(t, struct session, reap);

	if (s->ended)
		session_reap(s);
	else if (s->policy != META_POLICY_NO_CACHE)
		session_pump(s);
	else
		session_end(s);
}

int session_begin(struct session *s, const struct node *n, const char *path)
{
	struct fs *fs = s->fs;
	int err = upload_new(fs->uploads, s->sf, &s->up);

	if (err == 0)
		err = session_place(s, n, path);
	s->seen = fs->rebinds;
	if (err == 0)
		err = session_store(s);
	/* The node is needed for as long as the session lives. */
	if (err == 0)
		err = node_add_open(fs, s->node, 1);
	if (err == 0)
		fs->changed = true;
	return err;
}

static int begin_staged(struct session *s, const struct node *n, const char *path)
{
	struct fs *fs = s->fs;
	struct blob *base = NULL;
	int err = fs_next_id(fs, &s->staged);

	if (err == 0)
		err = session_base(s, n, path, &base);
	if (err == 0)
		err = staged_create(fs->staging, s->staged, base, &s->sf);
	if (base != NULL)
		cache_blob_put(&base);
	return err == 0 ? session_begin(s, n, path) : err;
}

void session_undo(struct session *s)
{
	(void)session_row_delete(s->fs, s->node);
	session_over(s);
}

int session_new(struct fs *fs, const struct node *n, const char *path, bool base, pid_t pid,
    struct session **out)
{
	struct session *s;
	int err;

	*out = NULL;
	if (fs->staging == NULL || fs->uploads == NULL)
		return -EROFS;
	if (session_of(fs, n->id) != NULL)
		return -EBUSY;
	err = session_alloc(fs, n->id, &s);
	if (err != 0)
		return err;
	s->base = base && n->size > 0 && n->version[0] != '\0';
	s->opener = pid;
	s->mtime = s->ctime = s->atime = base ? n->mtime : session_now(fs);
	s->state = SESSION_OPEN;
	err = begin_staged(s, n, path);
	if (err != 0)
		session_undo(s);
	else
		*out = s;
	return err;
}

void session_end(struct session *s)
{
	struct fs *fs = s->fs;
	int err;

	if (s->ended)
		return;
	err = session_row_delete(fs, s->node);
	if (err == 0 && session_parks(s))
		err = session_park(s);
	if (err != 0) {
		timer_arm(&s->reap, REAP_AGAIN_NS);
		return;
	}
	(void)FAULT("session.end");
	/* Who read through it looks at the node again. */
	fs->rebinds++;
	fs->changed = true;
	s->state = SESSION_OPEN;
	s->ended = true;
	session_wake(s, 0);
	err = fs->db != NULL ? node_add_open(fs, s->node, -1) : 0;
	if (err != 0 && err != -ENOENT)
		log_error("state database: end of a write session: %s", strerror(-err));
	session_over(s);
}

void session_use(struct session *s)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	s->users++;
}

void session_unuse(struct session *s)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	assert(s->users > 0);
	if (--s->users > 0)
		return;
	if (s->ended)
		session_reap(s);
	else
		session_pump(s);
}

unsigned session_handles(const struct session *s)
{
	struct node n;

	if (s->fs->db == NULL || node_load(s->fs, s->node, &n) != 0)
		return 1; /* not known: it stays */
	return n.opens > 0 ? n.opens - 1 : 0; /* one is the session's own */
}

/* --- What is next */

static void pump_fn(struct deferred *d)
{
	struct session *s = container_of(d, struct session, pump);
	bool wanted = false;
	struct session_wait *w;

	CHECK_OBJ(s, SESSION_MAGIC);
	if (s->ended || s->fs->db == NULL || s->fs->held_up)
		return;
	if (s->policy != META_POLICY_NO_CACHE && s->state != SESSION_ORPHAN) {
		session_pump_durable(s);
		return;
	}
	if (s->uploading != NULL || s->securing != NULL)
		return;
	if (s->state == SESSION_OPEN && s->writers == 0 && s->users == 0) {
		s->state = SESSION_CLOSING;
		(void)session_store(s);
	}
	if (s->state == SESSION_ORPHAN) {
		session_wake(s, 0);
		if (s->users == 0 && session_handles(s) == 0)
			session_end(s);
		return;
	}
	TAILQ_FOREACH(w, &s->waits, link)
	wanted = wanted || !w->ended_only;
	if (s->state == SESSION_CLOSING && !session_unsaved(s) && !wanted)
		session_end(s);
	else if (wanted || s->state == SESSION_CLOSING)
		session_upload_start(s);
}

void session_pump(struct session *s)
{
	if (!s->ended)
		loop_defer(s->fs->env.loop, &s->pump, pump_fn);
}

int session_add_writer(struct session *s, int by)
{
	int err;

	CHECK_OBJ(s, SESSION_MAGIC);
	if (by > 0) {
		s->writers++;
		s->state = SESSION_OPEN;
		s->flushed = false;
		return session_store(s);
	}
	if (s->writers > 0)
		s->writers--;
	if (s->writers == 0 && s->state == SESSION_OPEN)
		s->state = SESSION_CLOSING;
	err = session_store(s);
	session_pump(s);
	return err;
}

int session_wrote(struct session *s, uint64_t off, uint64_t len)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	s->mtime = s->ctime = session_now(s->fs);
	if (s->ended)
		return 0;
	if (s->state == SESSION_ORPHAN)
		return session_store(s);
	s->fresh = true;
	s->flushed = false;
	s->changes++;
	/* Once more of it than a part is written in order, it is sent while it grows. */
	upload_wrote(s->up, off, len,
	    s->policy == META_POLICY_NO_CACHE && s->state == SESSION_OPEN && !s->fs->held_up);
	return session_store(s);
}

void session_overlay(const struct session *s, struct node *n)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	n->size = staged_size(s->sf);
	n->mtime = s->mtime;
	if ((s->set & (UFS_SET_MODE | UFS_SET_UID | UFS_SET_GID)) != 0 &&
	    (n->flags & NODE_HAVE_MODE) == 0) {
		n->flags |= NODE_HAVE_MODE;
		n->mode = s->fs->file_mode;
		n->uid = s->fs->uid;
		n->gid = s->fs->gid;
	}
	if ((s->set & UFS_SET_MODE) != 0)
		n->mode = s->mode;
	if ((s->set & UFS_SET_UID) != 0)
		n->uid = s->uid;
	if ((s->set & UFS_SET_GID) != 0)
		n->gid = s->gid;
	n->fetched_ns = loop_now(s->fs->env.loop);
}

int session_orphan(struct session *s)
{
	int err;

	CHECK_OBJ(s, SESSION_MAGIC);
	s->state = SESSION_ORPHAN;
	s->fresh = s->created = s->doubt = false;
	s->error = 0;
	if (s->clean != NULL)
		cache_blob_put(&s->clean);
	session_upload_cancel(s);
	session_secure_cancel(s);
	err = session_store(s);
	session_wake(s, 0);
	if (s->uploading == NULL && s->securing == NULL && s->users == 0 && session_handles(s) == 0)
		session_end(s);
	return err;
}

/* The kernel has this node's pages, which the storage never had: the name gets another
 * node. */
int session_drop(struct session *s)
{
	struct fs *fs = s->fs;
	uint64_t node = s->node;
	int err = node_drop_name(fs, node);

	if (err == 0)
		err = session_orphan(s); /* and may be gone */
	node_tell_kernel(fs, node);
	return err;
}

void session_handle_gone(struct fs *fs, uint64_t node)
{
	struct session *s = session_of(fs, node);

	if (s != NULL && (s->state == SESSION_ORPHAN || s->state == SESSION_KEPT))
		session_pump(s);
}
