/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions under a policy of the write cache: how they begin, what is next, how they park. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/attr.h"
#include "ops/persist.h"
#include "ops/session.h"

#define LOOK_NS NS_PER_MS
#define SECURE_AGAIN_NS NS_PER_S
#define SECURE_AGAIN_MAX 6 /* doublings */

_Static_assert(META_CONTENT_BIT == STAGED_DURABLE_BIT, "content and its file have one number");

/* --- Versions */

void session_content_version(uint64_t content, char version[UFS_VERSION_MAX])
{
	snprintf(version, UFS_VERSION_MAX, "~%016" PRIx64, content);
}

uint64_t session_version_content(const char *version)
{
	char again[UFS_VERSION_MAX];
	uint64_t id;

	if (version[0] != '~')
		return 0;
	id = strtoull(version + 1, NULL, 16);
	session_content_version(id, again);
	return strcmp(again, version) == 0 && (id & META_CONTENT_BIT) != 0 ? id : 0;
}

/* --- Beginning */

int session_new_durable(struct fs *fs, const struct node *n, const char *path,
    enum meta_policy policy, pid_t pid, struct session **out)
{
	struct session *s;
	int err;

	*out = NULL;
	assert(policy != META_POLICY_NO_CACHE);
	if (fs->staging == NULL || fs->uploads == NULL || fs->meta == NULL)
		return -EROFS;
	if (session_of(fs, n->id) != NULL)
		return -EBUSY;
	err = session_alloc(fs, n->id, &s);
	if (err != 0)
		return err;
	s->policy = policy;
	s->staged = meta_intent_id() | META_CONTENT_BIT;
	s->content = (struct meta_content){.policy = (uint8_t)policy, .id = s->staged};
	s->opener = pid;
	s->mtime = s->ctime = s->atime = session_now(fs);
	s->state = SESSION_OPEN;
	s->created = true;
	s->changes = 1; /* that it exists */
	err = staged_create(fs->staging, s->staged, NULL, &s->sf);
	if (err == 0)
		staged_hold(s->sf);
	if (err == 0)
		err = session_begin(s, n, path);
	if (err != 0)
		session_undo(s);
	else
		*out = s;
	return err;
}

/* Attributes of a record into its session. */
static void take_record(struct session *s, const struct node *n, const struct meta_record *rec)
{
	s->content = rec->content;
	s->policy = (enum meta_policy)rec->content.policy;
	s->doubt = rec->content.doubt;
	s->error = rec->content.error;
	s->tries = rec->content.tries;
	s->created = rec->version[0] == '\0';
	s->fresh = rec->content.state == META_STATE_NOT_PERSISTED ||
		   rec->content.state == META_STATE_FAILED;
	memcpy(s->stored, rec->version, sizeof(s->stored));
	s->mtime = s->ctime = s->atime = n->mtime;
	if ((rec->has & META_HAS_MTIME) != 0)
		s->mtime = s->ctime = s->atime = rec->mtime;
	if ((rec->has & META_HAS_ATIME) != 0)
		s->atime = rec->atime;
	s->mode = rec->mode;
	s->uid = rec->uid;
	s->gid = rec->gid;
	s->set = ((rec->has & META_HAS_MODE) != 0 ? UFS_SET_MODE : 0) |
		 ((rec->has & META_HAS_UID) != 0 ? UFS_SET_UID : 0) |
		 ((rec->has & META_HAS_GID) != 0 ? UFS_SET_GID : 0) |
		 ((rec->has & META_HAS_MTIME) != 0 ? UFS_SET_MTIME : 0) |
		 ((rec->has & META_HAS_ATIME) != 0 ? UFS_SET_ATIME : 0);
}

/* There is one: the record may have been changed since it was made (tried again, chmod). */
static int adopt_known(struct session *s, const struct node *n, const struct meta_record *rec)
{
	if (s->state == SESSION_ORPHAN || s->content.id != rec->content.id)
		return -ESTALE;
	if (s->state != SESSION_KEPT || s->uploading != NULL || s->securing != NULL ||
	    !session_is_safe(s))
		return 0;
	take_record(s, n, rec);
	return session_store(s);
}

/* The content is not to go with what could not be made of it. */
static void adopt_undo(struct session *s)
{
	(void)session_row_delete(s->fs, s->node);
	if (s->up != NULL)
		upload_free(&s->up);
	if (s->sf != NULL && staged_park(&s->sf) != 0)
		staged_close(&s->sf);
	session_free(&s);
}

int session_adopt(struct fs *fs, const struct node *n, const struct meta_record *rec,
    const void *inl, size_t inl_len, struct session **out)
{
	const struct meta_content *c = &rec->content;
	struct staged_durable dur = {.size = c->size, .tail_crc = c->tail_crc};
	char path[UFS_PATH_MAX + 1], version[UFS_VERSION_MAX];
	struct session *s = session_of(fs, n->id);
	int err;

	*out = NULL;
	if (fs->staging == NULL || fs->uploads == NULL)
		return -EROFS;
	if ((rec->has & META_HAS_CONTENT) == 0 || c->state == META_STATE_PERSISTED)
		return -ESTALE;
	if (s != NULL) {
		err = adopt_known(s, n, rec);
		*out = err == 0 ? s : NULL;
		return err;
	}
	session_content_version(c->id, version);
	if (strcmp(version, n->version) != 0 || (n->flags & NODE_REPLACED) != 0)
		return -ESTALE;
	err = node_path(fs, n->id, path);
	if (err == 0 && !meta_is_here(fs->meta, c))
		err = attr_elsewhere(fs, path, c, "cannot be read here", -EIO);
	if (err == 0)
		err = session_alloc(fs, n->id, &s);
	if (err != 0)
		return err;
	take_record(s, n, rec);
	s->staged = c->id;
	s->recorded = true;
	s->state = SESSION_KEPT;
	/* Bytes of another length are those of an earlier time. */
	err = staged_restore(fs->staging, c->id, &dur, inl_len == c->size ? inl : NULL, inl_len,
	    c->rewriting, &s->sf);
	if (err == 0)
		err = session_begin(s, n, path);
	if (err != 0)
		adopt_undo(s);
	else
		*out = s;
	return err;
}

/* --- Attributes */

int session_set_attr(struct session *s, const struct ufs_set *set)
{
	CHECK_OBJ(s, SESSION_MAGIC);
	s->set |= set->what;
	if ((set->what & UFS_SET_MODE) != 0)
		s->mode = set->mode;
	if ((set->what & UFS_SET_UID) != 0)
		s->uid = set->uid;
	if ((set->what & UFS_SET_GID) != 0)
		s->gid = set->gid;
	if ((set->what & UFS_SET_ATIME) != 0)
		s->atime = set->atime;
	if ((set->what & UFS_SET_MTIME) != 0)
		s->mtime = set->mtime;
	s->ctime = session_now(s->fs);
	s->changes++;
	return session_store(s);
}

int session_tell_node(struct session *s)
{
	struct ufs_attr attr = {
	    .kind = UFS_FILE, .size = staged_size(s->sf), .mtime = s->mtime};
	struct node n;
	int err = node_load(s->fs, s->node, &n);

	if (err != 0)
		return err;
	session_overlay(s, &n);
	if (s->content.state == META_STATE_PERSISTED)
		memcpy(attr.version, s->stored, sizeof(attr.version));
	else
		session_content_version(s->content.id, attr.version);
	attr.have_mode = (n.flags & NODE_HAVE_MODE) != 0;
	attr.mode = n.mode;
	attr.uid = n.uid;
	attr.gid = n.gid;
	return node_set_version(s->fs, s->node, &attr);
}

/* --- What is next */

bool session_parks(const struct session *s)
{
	return s->state == SESSION_KEPT && s->recorded &&
	       s->content.state != META_STATE_PERSISTED;
}

int session_park(struct session *s)
{
	(void)FAULT("park");
	/* The parts that the storage has of a larger one are of use for the next try, but not
	 * to the next mount. */
	if (s->last)
		upload_drop(s->up);
	upload_free(&s->up);
	/* Rows that stay are as good as those of a daemon that died here. */
	if (staged_park(&s->sf) != 0)
		staged_close(&s->sf);
	persist_recount(s->fs);
	return 0;
}

/* Closed, and safe: the record is all that is needed. */
static void session_kept(struct session *s)
{
	s->state = SESSION_KEPT;
	s->unsafe = 0;
	(void)session_store(s);
	session_wake(s, 0);
	if (s->content.state == META_STATE_NOT_PERSISTED)
		persist_written(s->fs);
}

static void try_end(struct session *s)
{
	if (s->users > 0 || s->uploading != NULL || timer_armed(&s->reap))
		return;
	if (s->content.state != META_STATE_PERSISTED && session_handles(s) > 0)
		return;
	/* What the pool still reads of it cannot be made anew beside it. */
	if (staged_busy(s->sf))
		timer_arm(&s->reap, LOOK_NS);
	else
		session_end(s);
}

struct wanted {
	bool note, secure, upload;
};

static struct wanted what_is_wanted(const struct session *s)
{
	struct wanted w = {.note = false};
	const struct session_wait *wait;

	TAILQ_FOREACH(wait, &s->waits, link)
	{
		w.note = w.note || wait->note;
		w.secure = w.secure || (wait->secure && !wait->note);
		w.upload = w.upload || !(wait->secure || wait->ended_only);
	}
	return w;
}

/* Nobody will ask for it; of one that is KEPT it is what was set of its attributes, which an
 * upload that runs brings along. */
static bool closed_unsafe(const struct session *s)
{
	if (session_is_safe(s))
		return false;
	return s->state == SESSION_CLOSING || s->state == SESSION_FAILED ||
	       (s->state == SESSION_KEPT && s->uploading == NULL);
}

void session_pump_durable(struct session *s)
{
	struct wanted w = what_is_wanted(s);

	if (s->state == SESSION_OPEN && s->writers == 0 && s->users == 0) {
		s->state = SESSION_CLOSING;
		(void)session_store(s);
	}
	if (s->securing != NULL)
		return;
	if (w.note && !s->unsure) {
		session_secure_start(s, true);
	} else if (w.note || w.secure || (w.upload && (s->unsure || !s->recorded))) {
		session_secure_start(s, false);
	} else if (closed_unsafe(s)) {
		if (!timer_armed(&s->reap) && !session_refused(s))
			session_secure_start(s, false);
	} else if (s->uploading == NULL && (w.upload || s->adopted)) {
		s->adopted = false;
		session_upload_start(s);
	} else {
		if ((s->state == SESSION_CLOSING || s->state == SESSION_FAILED) &&
		    s->uploading == NULL)
			session_kept(s);
		if (s->state == SESSION_KEPT && !w.upload)
			try_end(s);
	}
}

void session_unsafe(struct session *s, int err)
{
	char path[UFS_PATH_MAX + 1];
	uint64_t again;

	if (s->state == SESSION_OPEN || s->state == SESSION_ORPHAN || err == -ECANCELED)
		return;
	if (node_path(s->fs, s->node, path) != 0)
		path[0] = '\0';
	if (s->unsafe == 0)
		log_error("/%s: what was written (%llu bytes) could not be made safe: %s; it is %s",
		    path, (unsigned long long)staged_size(s->sf), strerror(-err),
		    err == -EEXIST ? "kept" : "tried again");
	s->error = err;
	if (!session_refused(s)) {
		again = SECURE_AGAIN_NS << MIN(s->unsafe, SECURE_AGAIN_MAX);
		timer_arm(&s->reap, again);
		s->next_try_ns = loop_now(s->fs->env.loop) + again;
	}
	s->unsafe++;
	s->error_wall_ns = loop_wall(s->fs->env.loop);
	/* Nobody need wait for it any longer. */
	if (s->state == SESSION_CLOSING)
		s->state = SESSION_FAILED;
	(void)session_store(s);
	session_wake(s, err);
}
