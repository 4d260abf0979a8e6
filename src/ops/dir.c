/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Directories.  A listing streams: one page of it is in memory, and a READDIR
 * that goes on where the last one ended is answered from it.  Cookies: 1 is ".",
 * 2 is "..", then each entry gets the next number of its handle, from 3; a row a
 * reply says which name a number stands for, so that any place can be taken up
 * again (telldir, or a new daemon).  A number never changes its name: what is
 * listed from an old place gets new ones.  Cookie 0 begins a new listing.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "ops/attr.h"
#include "ops/dir_page.h"
#include "ops/dir_records.h"
#include "ops/handle.h"
#include "ops/op.h"
#include "ops/requests.h"
#include "ops/session.h"
#include "base/units.h"

#define DOTS UINT64_C(2) /* the cookie of ".." */
#define REPLY_MAX (MIB)

struct op_readdir {
	struct op op;
	struct handle *h; /* used; its page is ours while busy */
	bool plus;
	size_t size;
	uint64_t off; /* the cookie of the last entry that the caller has */
	int result;
	bool missing; /* the storage says that the directory is not there */
	struct dir_records records;
	char path[UFS_PATH_MAX + 1];
};

enum { DIR_BEGIN, DIR_LISTED, DIR_RECORDS, DIR_REPLY };

/* A reply in the making. */
struct dir_fill {
	struct fs *fs;
	fuse_req_t req;
	struct handle *h;
	const char *path; /* of the directory */
	bool plus;
	char *buf;
	size_t size, used;
	struct cookie_row row;
};

void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct handle *h = NULL;
	struct node n;
	int err = node_load(fs, ino, &n);

	if (err == -ENOENT)
		err = -ESTALE;
	if (err == 0 && n.kind != UFS_DIR)
		err = -ENOTDIR;
	if (err == 0)
		err = handle_open(fs, &n, "", &h);
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	fi->fh = h->id;
	fuse_reply_open(req, fi);
}

void dir_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	int err = handle_release(fs_of(req), fi->fh, UFS_DIR);

	(void)ino;
	fuse_reply_err(req, op_errno(err));
}

/* --- One entry.  false: it does not fit. */

static bool put_entry(
    struct dir_fill *f, const char *name, const struct fuse_entry_param *e, uint64_t cookie)
{
	size_t left = f->size - f->used, n;

	if (f->plus)
		n = fuse_add_direntry_plus(f->req, f->buf + f->used, left, name, e, (off_t)cookie);
	else
		n = fuse_add_direntry(
		    f->req, f->buf + f->used, left, name, &e->attr, (off_t)cookie);
	if (n > left)
		return false;
	f->used += n;
	return true;
}

static bool put_dot(struct dir_fill *f, const char *name, uint64_t cookie)
{
	struct fuse_entry_param e = {.attr = {.st_mode = S_IFDIR}};
	struct node n;

	/* Node id 0: the kernel takes the name and number only. */
	e.attr.st_ino = NODE_ROOT;
	if (node_load(f->fs, f->h->node, &n) == 0) {
		if (cookie == 1)
			e.attr.st_ino = n.st_ino;
		else if (n.parent != 0 && node_load(f->fs, n.parent, &n) == 0)
			e.attr.st_ino = n.st_ino;
	}
	return put_entry(f, name, &e, cookie);
}

static size_t entry_size(const struct dir_fill *f, const char *name)
{
	if (f->plus)
		return fuse_add_direntry_plus(f->req, NULL, 0, name, NULL, 0);
	return fuse_add_direntry(f->req, NULL, 0, name, NULL, 0);
}

static int child_path(
    const struct dir_fill *f, const struct ufs_entry *en, char path[UFS_PATH_MAX + 1])
{
	size_t len = strlen(f->path);

	if (len + (len > 0) + en->name_len > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(path, f->path, len);
	if (len > 0)
		path[len++] = '/';
	memcpy(path + len, en->name, en->name_len + 1);
	return 0;
}

/* What a name's node says of it: a session's attributes, or the row's. */
static void told_entry(struct dir_fill *f, struct node *n, struct fuse_entry_param *e)
{
	struct session *s = session_of(f->fs, n->id);

	if (s != NULL)
		session_overlay(s, n);
	if (f->plus && (s != NULL || node_fresh(f->fs, n))) {
		node_count(f->fs, n);
		node_entry(f->fs, n, e);
		return;
	}
	e->attr.st_ino = n->st_ino;
	e->attr.st_mode = n->kind == UFS_DIR ? S_IFDIR : S_IFREG;
}

/* What the storage says of it: 0 or negative errno. */
static int listed_entry(struct dir_fill *f, const struct ufs_entry *en, const char *path,
    bool name_only, struct fuse_entry_param *e)
{
	bool bound = false;
	struct node n;
	int err = 0;

	if (f->plus && !name_only && !en->attr.kind_only) {
		/* With a full state database names can still be listed. */
		err = node_bind(f->fs, f->h->node, en->name, path, &en->attr, &n);
		bound = err == 0;
		err = err == -ENOSPC ? 0 : err;
	}
	if (bound) {
		node_count(f->fs, &n);
		node_entry(f->fs, &n, e);
	} else {
		e->attr.st_ino = node_list_ino(f->fs, f->h->node, en->name, path);
		e->attr.st_mode = en->attr.kind == UFS_DIR ? S_IFDIR : S_IFREG;
	}
	return err;
}

/* A file that is open for writing is what its session says. */
static bool in_session(struct dir_fill *f, const struct ufs_entry *en, struct node *n)
{
	return f->fs->sessions != NULL && node_find(f->fs, f->h->node, en->name, n) == 0 &&
	       (n->flags & NODE_REPLACED) == 0 && session_of(f->fs, n->id) != NULL;
}

/* 1: put, or passed over, 0: the reply is full, or negative errno. */
static int put_listed(struct dir_fill *f, size_t i, uint64_t cookie)
{
	const struct dir_page *pg = &f->h->page;
	const struct ufs_entry *en = &pg->list.entries[i];
	char path[UFS_PATH_MAX + 1];
	struct fuse_entry_param e = {.ino = 0};
	struct node n;
	enum dir_told told = dir_page_told(f->fs, pg, i, &n);
	int err;

	if (told != DIR_TOLD_NOT && entry_size(f, en->name) > f->size - f->used)
		return 0;
	err = child_path(f, en, path);
	/* Of one that is gone too: the numbers in a row have no gaps. */
	if (err == 0)
		err = cookie_row_add(&f->row, en->name, en->name_len, en->attr.kind);
	if (err != 0 || told == DIR_TOLD_NOT)
		return err != 0 ? err : 1;
	if (told == DIR_TOLD_NODE || in_session(f, en, &n))
		told_entry(f, &n, &e);
	else
		err = listed_entry(f, en, path, told == DIR_TOLD_NAME, &e);
	if (err != 0)
		return err;
	put_entry(f, en->name, &e, cookie);
	return 1;
}

/* --- One reply, from the page in memory */

/* Where in the page the entry after `off` is (its count: after the last), or -1. */
static long page_index(const struct dir_page *pg, uint64_t off)
{
	if (!pg->valid)
		return -1;
	if (MAX(off, DOTS) == pg->from)
		return 0;
	if (off < pg->first || off >= pg->first + pg->list.count)
		return -1;
	return (long)(off - pg->first) + 1;
}

/* May the entry after `off` (or the end) be told from the page?  An answer without an
 * entry would be taken for the end. */
static bool page_covers(struct fs *fs, const struct dir_page *pg, uint64_t off)
{
	long i = page_index(pg, off);

	return i >= 0 && (!pg->list.more || !dir_page_all_gone(fs, pg, (size_t)i));
}

static int fill_entries(struct dir_fill *f, uint64_t off)
{
	struct dir_page *pg = &f->h->page;
	size_t i = (size_t)page_index(pg, off);
	int n;

	f->row.first = pg->first + i;
	for (; i < pg->list.count; i++) {
		n = put_listed(f, i, pg->first + i);
		if (n <= 0)
			return n;
	}
	return 0;
}

static int fill_reply(struct dir_fill *f, uint64_t off)
{
	int err;

	if (off == 0 && !put_dot(f, ".", 1))
		return 0;
	if (off <= 1 && !put_dot(f, "..", DOTS))
		return 0;
	err = fill_entries(f, off);
	if (err == 0)
		err = cookie_row_store(f->fs, f->h->id, &f->row);
	/* With a full state database the listing goes on from the page in memory; only
	 * a new daemon, or seekdir(3), does not find this place. */
	return err == -ENOSPC ? 0 : err;
}

/* The kernel does not get, or did not take, what the reply says: the references
 * on its nodes are not its own. */
static void uncount(struct dir_fill *f)
{
	size_t off = 0;

	while (f->plus && off < f->used) {
		struct fuse_direntplus d;

		memcpy(&d, f->buf + off, sizeof(d));
		if (d.entry_out.nodeid != 0)
			(void)node_forget(f->fs, d.entry_out.nodeid, 1);
		off += FUSE_DIRENTPLUS_SIZE(&d);
	}
}

/* Answers req, or returns what to answer. */
static int reply_from_page(struct dir_fill *f, uint64_t off)
{
	int err;

	f->size = MIN(f->size, REPLY_MAX);
	f->buf = malloc(f->size > 0 ? f->size : 1);
	if (f->buf == NULL)
		return -ENOMEM;
	err = fill_reply(f, off);
	if (err != 0 || fuse_reply_buf(f->req, f->buf, f->used) != 0)
		uncount(f);
	cookie_row_fini(&f->row);
	free(f->buf);
	return err;
}

/* --- The operation */

static void dir_list_done(struct ufs_req *r, int err)
{
	struct op_readdir *rd = r->user;

	rd->result = err;
	task_resume(&rd->op.task);
}

static void dir_leave(struct task *t)
{
	ufs_abort(&OP_OF(t, op_readdir)->h->page.list.req);
}

/* The name that the listing goes on after. */
static int find_place(struct op_readdir *rd, enum ufs_kind *kind)
{
	struct dir_page *pg = &rd->h->page;
	const struct ufs_entry *last;
	int err;

	if (page_index(pg, rd->off) == (long)pg->list.count && pg->list.count > 0) {
		last = &pg->list.entries[pg->list.count - 1];
		memcpy(pg->after, last->name, last->name_len + 1);
		*kind = last->attr.kind;
		return 0;
	}
	err = cookie_find(rd->op.fs, rd->h->id, rd->off, pg->after, kind);
	return err == -ENOENT ? -EINVAL : err;
}

/* Asks for the page that follows the caller's place. */
static int begin_list(struct op_readdir *rd)
{
	struct fs *fs = rd->op.fs;
	struct dir_page *pg = &rd->h->page;
	enum ufs_kind kind = UFS_FILE;
	int err = 0;

	if (pg->next == 0)
		err = cookie_next(fs, rd->h->id, DOTS + 1, &pg->next);
	if (err == 0 && rd->off == 0)
		err = cookie_drop(fs, rd->h->id);
	if (err == 0 && rd->off > DOTS)
		err = find_place(rd, &kind);
	if (err != 0)
		return err;
	dir_page_asked(fs, pg, rd->h->node);
	pg->from = MAX(rd->off, DOTS);
	pg->list.after = rd->off > DOTS ? pg->after : NULL;
	pg->list.after_kind = kind;
	pg->list.path = rd->path;
	pg->list.req.user = rd;
	ufs_list(fs->ufs, &pg->list, dir_list_done);
	return 0;
}

static enum task_next dir_begin(struct task *t)
{
	struct op_readdir *rd = OP_OF(t, op_readdir);
	int err = task_err(t);

	if (err == 0)
		err = node_path(rd->op.fs, rd->h->node, rd->path);
	if (err == 0)
		err = begin_list(rd);
	if (err != 0)
		return op_fail(&rd->op, err);
	return task_wait(t, DIR_LISTED, dir_leave);
}

/* Goes on after the last entry of a page that had none to tell. */
static enum task_next list_on(struct op_readdir *rd)
{
	struct dir_page *pg = &rd->h->page;
	const struct ufs_entry *last;

	if (pg->list.count > 0) {
		last = &pg->list.entries[pg->list.count - 1];
		memcpy(pg->after, last->name, last->name_len + 1);
		pg->list.after = pg->after;
		pg->list.after_kind = last->attr.kind;
	}
	dir_page_asked(rd->op.fs, pg, rd->h->node);
	ufs_list(rd->op.fs->ufs, &pg->list, dir_list_done);
	return task_wait(&rd->op.task, DIR_LISTED, dir_leave);
}

static void dir_records_done(struct dir_records *rc, int err)
{
	struct op_readdir *rd = rc->user;

	rd->result = err;
	task_resume(&rd->op.task);
}

static void dir_leave_records(struct task *t)
{
	dir_records_abort(&OP_OF(t, op_readdir)->records);
}

/* Files that are not persisted may make it a directory all the same. */
static bool take_missing(struct op_readdir *rd)
{
	rd->missing = task_err(&rd->op.task) == 0 && rd->result == -ENOENT &&
		      (rd->h->page.unpersisted || attr_any_unpersisted(rd->op.fs));
	if (!rd->missing)
		return false;
	ufs_list_free(&rd->h->page.list);
	rd->h->page.list.count = 0;
	rd->h->page.list.more = rd->h->page.list.exists = false;
	return true;
}

static enum task_next dir_listed(struct task *t)
{
	struct op_readdir *rd = OP_OF(t, op_readdir);
	struct dir_page *pg = &rd->h->page;

	if (!take_missing(rd) && task_fail(t, task_err(t) != 0 ? 0 : rd->result) != 0)
		return op_fail(&rd->op, task_err(t));
	if (pg->list.count == 0 && pg->list.more) {
		/* An empty page in the middle: the next one, from the same place. */
		ufs_list(rd->op.fs->ufs, &pg->list, dir_list_done);
		return task_wait(t, DIR_LISTED, dir_leave);
	}
	rd->records.user = rd;
	if (!dir_records_start(rd->op.fs, &rd->records, pg, rd->path, dir_records_done))
		return task_goto(t, DIR_REPLY);
	return task_wait(t, DIR_RECORDS, dir_leave_records);
}

static enum task_next dir_records(struct task *t)
{
	struct op_readdir *rd = OP_OF(t, op_readdir);

	if (task_fail(t, task_err(t) != 0 ? 0 : rd->result) != 0)
		return op_fail(&rd->op, task_err(t));
	return task_goto(t, DIR_REPLY);
}

/* An empty directory on storage that only knows names: is it there? */
static bool dir_exists(struct op_readdir *rd)
{
	const struct ufs_list *l = &rd->h->page.list;
	struct node n;

	if (l->after != NULL || l->count > 0 || l->more || l->exists || rd->h->node == NODE_ROOT)
		return true;
	if (rd->missing)
		return false;
	return node_load(rd->op.fs, rd->h->node, &n) == 0 && (n.flags & NODE_MARKED) != 0 &&
	       (n.flags & NODE_REPLACED) == 0;
}

static enum task_next dir_reply(struct task *t)
{
	struct op_readdir *rd = OP_OF(t, op_readdir);
	struct fs *fs = rd->op.fs;
	struct dir_page *pg = &rd->h->page;
	struct dir_fill f = {
	    .fs = fs,
	    .h = rd->h,
	    .path = rd->path,
	    .plus = rd->plus,
	    .size = rd->size,
	};
	int err;

	/* The directory has another path by now, or too much changed meanwhile. */
	if (pg->again || fs->all_touched > pg->asked)
		return task_goto(t, DIR_BEGIN);
	err = dir_page_settle(fs, pg);
	if (err == 0 && !dir_exists(rd))
		err = -ENOENT;
	if (err != 0)
		return op_fail(&rd->op, err);
	if (pg->list.more && dir_page_all_gone(fs, pg, 0))
		return list_on(rd);
	pg->valid = true;
	pg->first = pg->next;
	pg->next += pg->list.count;
	f.req = op_take(&rd->op);
	err = reply_from_page(&f, rd->off);
	if (err != 0)
		fuse_reply_err(f.req, op_errno(err));
	return task_end(t);
}

static void dir_fini(struct task *t)
{
	struct op_readdir *rd = OP_OF(t, op_readdir);

	/* The page outlives the operation, its path does not. */
	rd->h->page.list.path = NULL;
	rd->h->page.busy = NULL;
	handle_unuse(rd->op.fs, rd->h);
	op_free(&rd->op);
}

static const struct task_step dir_steps[] = {
    [DIR_BEGIN] = {"begin", dir_begin, TO(DIR_LISTED)},
    [DIR_LISTED] = {"listed", dir_listed, TO(DIR_LISTED) | TO(DIR_RECORDS) | TO(DIR_REPLY)},
    [DIR_RECORDS] = {"records", dir_records, TO(DIR_REPLY)},
    [DIR_REPLY] = {"reply", dir_reply, TO(DIR_BEGIN) | TO(DIR_LISTED)},
};
static const struct task_kind dir_kind = {"readdir", dir_steps, ARRAY_LEN(dir_steps), dir_fini};

/* A place in the page that is in memory is answered at once; cookie 0 always asks
 * the storage, as rewinddir(3) shall show what is new. */
static bool answered_from_page(
    struct fs *fs, fuse_req_t req, struct handle *h, size_t size, off_t off, bool plus)
{
	char path[UFS_PATH_MAX + 1];
	struct dir_fill f = {
	    .fs = fs, .req = req, .h = h, .path = path, .plus = plus, .size = size};
	int err;

	if (off == 0 || !page_covers(fs, &h->page, (uint64_t)off))
		return false;
	err = node_path(fs, h->node, path);
	if (err == 0)
		err = reply_from_page(&f, (uint64_t)off);
	if (err != 0)
		fuse_reply_err(req, op_errno(err));
	return true;
}

static void readdir_common(
    fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct fs *fs = fs_of(req);
	struct op_readdir *rd;
	struct handle *h;
	int err = handle_get(fs, fi->fh, UFS_DIR, &h);

	if (err == 0 && off < 0)
		err = -EINVAL;
	/* The kernel lets one READDIR a handle run, so this is the same one, which it was
	 * asked to send again while it ran here. */
	if (err == 0 && h->page.busy != NULL) {
		op_replace(h->page.busy, req);
		return;
	}
	if (err != 0) {
		fuse_reply_err(req, op_errno(err));
		return;
	}
	if (answered_from_page(fs, req, h, size, off, plus))
		return;
	rd = op_new(fs, req, sizeof(*rd));
	if (rd == NULL)
		return;
	rd->h = h;
	rd->plus = plus;
	rd->size = size;
	rd->off = (uint64_t)off;
	h->page.busy = &rd->op;
	handle_use(h);
	op_run(&rd->op, &dir_kind);
}

void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	readdir_common(req, size, off, fi, false);
}

void dir_readdirplus(
    fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)ino;
	readdir_common(req, size, off, fi, true);
}
