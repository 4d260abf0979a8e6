/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/attr.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/obj.h"
#include "meta/meta.h"
#include "ops/node.h"
#include "ops/session.h"
#include "ops/unlinked.h"

#define RECORD_OWN (META_HAS_MODE | META_HAS_UID | META_HAS_GID)
#define RECORD_TIMES (META_HAS_MTIME | META_HAS_ATIME)

bool attr_native(const struct fs *fs, const char *path)
{
	const char *sub;
	struct ufs *ufs;

	fs_place(fs, path, &ufs, &sub);
	return (ufs_can(ufs) & UFS_CAN_SETATTR) != 0;
}

/* How many there are; UINT64_MAX: not known. */
static uint64_t contents(const struct fs *fs, bool persisted)
{
	const uint64_t *n;
	struct meta_status st;

	if (fs->meta == NULL)
		return 0;
	meta_status(fs->meta, &st);
	n = st.tally.files;
	if (st.open && st.shared)
		return UINT64_MAX;
	/* Being opened, it is waited for; one that cannot be opened fails what asks it, which
	 * is not for those who never needed it. */
	if (!st.open)
		return fs->env.cfg->write_cache_enabled || st.error[0] == '\0' ? UINT64_MAX : 0;
	return n[META_STATE_NOT_PERSISTED] + n[META_STATE_TRANSIENT] + n[META_STATE_FAILED] +
	       (persisted ? n[META_STATE_PERSISTED] : 0);
}

bool attr_any_unpersisted(const struct fs *fs)
{
	return contents(fs, false) > 0;
}

bool attr_any_content(const struct fs *fs)
{
	return contents(fs, true) > 0;
}

int attr_elsewhere(const struct fs *fs, const char *path, const struct meta_content *c,
    const char *what, int err)
{
	char name[META_NODE_TEXT];

	log_error("/%s: %s: its %llu bytes are on node %s (%016llx), which has not persisted them yet",
	    path, what, (unsigned long long)c->size, meta_node_text(fs->meta, c->node, name),
	    (unsigned long long)c->node);
	return err;
}

/* --- Records */

static bool same_kind(const struct ufs_attr *attr, const struct meta_record *rec)
{
	return rec->kind == (attr->kind == UFS_DIR ? META_DIR : META_FILE);
}

/* The file as it is here. */
static void unpersisted_attr(struct ufs_attr *attr, const struct meta_record *rec)
{
	*attr = (struct ufs_attr){.kind = UFS_FILE, .size = rec->content.size};
	if ((rec->has & META_HAS_MTIME) != 0)
		attr->mtime = rec->mtime;
	session_content_version(rec->content.id, attr->version);
}

void attr_merge(const struct fs *fs, struct ufs_attr *attr, const struct meta_record *rec)
{
	bool local = attr_unpersisted(rec);

	if (local)
		unpersisted_attr(attr, rec);
	if (!same_kind(attr, rec))
		return;
	if ((rec->has & RECORD_OWN) != 0 && !attr->have_mode) {
		attr->have_mode = true;
		attr->mode = attr->kind == UFS_DIR ? fs->dir_mode : fs->file_mode;
		attr->uid = fs->uid;
		attr->gid = fs->gid;
	}
	if ((rec->has & META_HAS_MODE) != 0)
		attr->mode = rec->mode;
	if ((rec->has & META_HAS_UID) != 0)
		attr->uid = rec->uid;
	if ((rec->has & META_HAS_GID) != 0)
		attr->gid = rec->gid;
	if (!local && (rec->has & META_HAS_MTIME) != 0 &&
	    strcmp(rec->version, attr->version) == 0)
		attr->mtime = rec->mtime;
}

/* Times, and an account, of content that is gone. */
static void drop_gone(struct meta_record *rec)
{
	rec->has &= ~(RECORD_TIMES | META_HAS_CONTENT);
	memset(&rec->content, 0, sizeof(rec->content));
}

void attr_record(struct meta_record *out, const struct meta_record *old,
    const struct ufs_attr *attr, const struct ufs_set *set)
{
	struct meta_record rec = {.kind = attr->kind == UFS_DIR ? META_DIR : META_FILE};
	bool local = old != NULL && attr_unpersisted(old);

	if (local || (old != NULL && same_kind(attr, old)))
		rec = *old;
	if (!local && strcmp(rec.version, attr->version) != 0)
		drop_gone(&rec);
	/* Of one that is not persisted it is what the storage has instead, mostly nothing. */
	if (!local)
		memcpy(rec.version, attr->version, sizeof(rec.version));
	rec.version[sizeof(rec.version) - 1] = '\0';
	if ((set->what & UFS_SET_MODE) != 0)
		rec.mode = set->mode;
	if ((set->what & UFS_SET_UID) != 0)
		rec.uid = set->uid;
	if ((set->what & UFS_SET_GID) != 0)
		rec.gid = set->gid;
	if ((set->what & UFS_SET_MTIME) != 0)
		rec.mtime = set->mtime;
	if ((set->what & UFS_SET_ATIME) != 0)
		rec.atime = set->atime;
	rec.has |= ((set->what & UFS_SET_MODE) != 0 ? META_HAS_MODE : 0) |
		   ((set->what & UFS_SET_UID) != 0 ? META_HAS_UID : 0) |
		   ((set->what & UFS_SET_GID) != 0 ? META_HAS_GID : 0) |
		   ((set->what & UFS_SET_MTIME) != 0 ? META_HAS_MTIME : 0) |
		   ((set->what & UFS_SET_ATIME) != 0 ? META_HAS_ATIME : 0);
	*out = rec;
}

/* --- Asking both, or first for what needs no storage */

static bool is_down(int err)
{
	return err == -EIO || err == -ETIMEDOUT || err == -ENOTCONN;
}

/* A cluster that is known not to answer, or was asked long enough. */
static bool is_silent(const struct fs *fs, int err)
{
	struct meta_status st;

	meta_status(fs->meta, &st);
	return st.shared && (st.silent || err == -ETIMEDOUT);
}

static bool has_failed(int meta_err)
{
	return meta_err != 0 && meta_err != -ENOENT;
}

/* By its record, if that was read. */
static bool is_dir_here(const struct attr_get *g)
{
	return g->fs->env.cfg->write_cache_enabled && g->meta_err == 0 &&
	       g->meta.rec.kind == META_DIR;
}

static void answered(struct attr_get *g)
{
	int err = g->err;

	if (--g->waits > 0)
		return;
	/* Does not the storage answer, then what is here of a directory does. */
	if (is_down(err) && is_dir_here(g)) {
		err = 0;
		g->stat.attr = (struct ufs_attr){.kind = UFS_DIR};
	}
	g->alone = err == 0 && g->first && has_failed(g->meta_err);
	/* Without the record nobody can say that there is nothing. */
	if ((err == 0 || (err == -ENOENT && g->first)) && has_failed(g->meta_err))
		err = g->meta_err == -ENOMEM ? -ENOMEM : -EIO;
	if (err == 0) {
		g->attr = g->stat.attr;
		g->have_record = g->meta_err == 0 && !attr_native(g->fs, g->path);
		if (g->have_record)
			attr_merge(g->fs, &g->attr, &g->meta.rec);
	}
	g->done(g, err);
}

/* A directory that only files make which are not persisted. */
static void below_looked(struct below *b, int err)
{
	struct attr_get *g = b->user;

	g->err = err != 0 ? err : b->found ? 0 : g->err;
	g->stat.attr = (struct ufs_attr){.kind = UFS_DIR};
	answered(g);
}

static bool is_well(struct fs *fs, const char *path)
{
	struct ufs_health h;
	const char *sub;
	struct ufs *ufs;

	fs_place(fs, path, &ufs, &sub);
	ufs_health(ufs, &h);
	return h.ok || h.since_ns == 0;
}

static void stat_done(struct ufs_req *r, int err)
{
	struct attr_get *g = r->user;

	g->err = err;
	if ((err == -ENOENT || (is_down(err) && !is_dir_here(g))) && g->first &&
	    !has_failed(g->meta_err)) {
		g->below.path = g->path;
		g->below.user = g;
		below_start(g->fs, &g->below, below_looked);
		return;
	}
	answered(g);
}

static void record_done(struct meta_req *r, int err)
{
	struct attr_get *g = r->user;

	g->meta_err = err;
	answered(g);
}

/* The record alone, if it is all there is. */
static void first_done(struct meta_req *r, int err)
{
	struct attr_get *g = r->user;

	g->meta_err = err;
	if (err == 0 && attr_unpersisted(&g->meta.rec)) {
		g->have_record = true;
		attr_merge(g->fs, &g->attr, &g->meta.rec);
		g->stat.attr = g->attr;
		g->done(g, 0);
		return;
	}
	if (has_failed(err) && (!g->known || !is_silent(g->fs, err))) {
		g->done(g, err == -ENOMEM ? -ENOMEM : -EIO);
		return;
	}
	/* Nobody waits for a storage that is known not to answer to be told what is here. */
	if (is_dir_here(g) && !is_well(g->fs, g->path)) {
		g->stat.attr = (struct ufs_attr){.kind = UFS_DIR};
		answered(g);
		return;
	}
	ufs_stat(g->fs->ufs, &g->stat, stat_done);
}

static void absent(struct deferred *d)
{
	struct attr_get *g = container_of(d, struct attr_get, run);

	g->done(g, g->err);
}

void attr_get_start(struct fs *fs, struct attr_get *g, void (*done)(struct attr_get *g, int err))
{
	g->fs = fs;
	g->done = done;
	g->waits = 1;
	g->err = 0;
	g->meta_err = -ENOENT;
	g->have_record = false;
	g->alone = false;
	memset(&g->run, 0, sizeof(g->run));
	if (unlinked_hides(fs, g->path)) {
		g->err = -ENOENT;
		loop_defer(fs->env.loop, &g->run, absent);
		return;
	}
	g->stat.path = g->path;
	g->stat.req.user = g;
	g->meta.path = g->path;
	g->meta.req.user = g;
	g->first = attr_any_unpersisted(fs);
	if (g->first && g->known && is_silent(fs, 0)) {
		g->meta_err = -ETIMEDOUT;
	} else if (g->first) {
		meta_get(fs->meta, &g->meta, first_done);
		return;
	}
	if (!g->first && fs->meta != NULL && !attr_native(fs, g->path)) {
		g->waits++;
		meta_get(fs->meta, &g->meta, record_done);
	}
	ufs_stat(fs->ufs, &g->stat, stat_done);
}

bool attr_stands(const struct attr_get *g, const struct node *n)
{
	const struct ufs_attr *at = &g->stat.attr;

	if (!g->alone || (n->flags & (NODE_REPLACED | NODE_LOCAL)) != 0 || n->kind != at->kind)
		return false;
	return n->kind == UFS_DIR || (n->version[0] != '\0' && n->size == at->size &&
					 strcmp(n->version, at->version) == 0);
}

void attr_get_abort(struct attr_get *g)
{
	loop_undefer(g->fs->env.loop, &g->run);
	ufs_abort(&g->stat.req);
	if (g->fs->meta != NULL)
		meta_abort(&g->meta.req);
	below_abort(&g->below);
}
