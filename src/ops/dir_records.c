/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/dir_records.h"

#include <errno.h>
#include <string.h>

#include "ops/attr.h"
#include "ops/dir_page.h"

#define PREFIX_NAMES 16 /* name_before() may leave a few between */

static void rc_free(struct dir_records *rc)
{
	meta_scan_free(&rc->scan);
	ufs_page_clear(&rc->found);
	ufs_page_clear(&rc->dirs);
	ufs_page_clear(&rc->doubted);
	ufs_list_free(&rc->again);
}

static void rc_end(struct dir_records *rc, int err)
{
	rc_free(rc);
	rc->done(rc, err);
}

/* --- Names around */

/* A name that comes before, with hardly any between: "y" and bytes of 255, before "z". */
static void name_before(char before[UFS_NAME_MAX + 1], const char *name, size_t len)
{
	unsigned char last = (unsigned char)name[len - 1];
	size_t more = MIN(8, UFS_NAME_MAX - len);

	memcpy(before, name, len);
	before[len] = '\0';
	if (last == 1) {
		before[len - 1] = '\0';
		return;
	}
	before[len - 1] = (char)(last - 1);
	memset(before + len, 255, more);
	before[len + more] = '\0';
}

/* No name behind this one has a key before that of `name`: of a directory "z" the keys "z-"
 * and "z." come before. */
static void name_upto(char upto[UFS_NAME_MAX + 1], const char *name, enum ufs_kind kind)
{
	size_t len = strlen(name), more = MIN(8, UFS_NAME_MAX - len);

	memcpy(upto, name, len + 1);
	if (kind != UFS_DIR || more == 0)
		return;
	upto[len] = '/' - 1;
	memset(upto + len + 1, 255, more - 1);
	upto[len + more] = '\0';
}

/* --- The result */

static bool behind_cut(const struct dir_records *rc, const struct ufs_entry *en)
{
	return rc->cut && ufs_key_cmp(en->name, en->name_len, en->attr.kind, rc->cut_name,
			      strlen(rc->cut_name), UFS_FILE) > 0;
}

/* A file that is not persisted takes the place of a directory too. */
static bool hidden_dir(const struct dir_records *rc, const struct ufs_entry *en)
{
	return en->attr.kind == UFS_DIR && rc->found.count > 0 &&
	       ufs_page_find(&rc->found, en->name, en->name_len, UFS_FILE) != NULL;
}

static int join(struct dir_records *rc)
{
	struct ufs_list *l = &rc->pg->list;
	struct ufs_page all = {0};
	bool more = l->more || rc->cut, exists = l->exists || rc->found.count > 0;
	size_t i;
	int err = 0;

	if (rc->found.count == 0 && !rc->cut)
		return 0;
	ufs_page_sort(&rc->found);
	for (i = 0; i < l->count && err == 0; i++)
		if (!behind_cut(rc, &l->entries[i]) && !hidden_dir(rc, &l->entries[i]))
			err = ufs_page_add(&all, l->entries[i].name, l->entries[i].name_len,
			    &l->entries[i].attr);
	for (i = 0; i < rc->found.count && err == 0; i++)
		if (!behind_cut(rc, &rc->found.entries[i]))
			err = ufs_page_add(&all, rc->found.entries[i].name,
			    rc->found.entries[i].name_len, &rc->found.entries[i].attr);
	if (err != 0) {
		ufs_page_clear(&all);
		return err;
	}
	ufs_page_sort(&all);
	ufs_page_free(l);
	ufs_page_give(&all, l);
	l->more = more;
	l->exists = exists;
	return 0;
}

/* --- What the storage has, and did not list: it came between the two answers */

static void ask_again(struct dir_records *rc);

static int take_listed(struct dir_records *rc)
{
	const struct ufs_page all = {.entries = rc->again.entries, .count = rc->again.count};
	const struct ufs_entry *en;
	size_t i;
	int err = 0;

	for (i = 0; i < rc->doubted.count && err == 0; i++) {
		en = &rc->doubted.entries[i];
		if (ufs_page_find(&all, en->name, en->name_len, en->attr.kind) != NULL)
			err = ufs_page_add(&rc->found, en->name, en->name_len, &en->attr);
	}
	return err;
}

/* Is the last of them behind what was listed so far? */
static bool has_further(const struct dir_records *rc)
{
	const struct ufs_list *l = &rc->again;
	const struct ufs_entry *end = &rc->doubted.entries[rc->doubted.count - 1], *last;

	if (!l->more || l->count == 0)
		return l->more;
	last = &l->entries[l->count - 1];
	return ufs_key_cmp(last->name, last->name_len, last->attr.kind, end->name, end->name_len,
		   end->attr.kind) < 0;
}

static void listed_again(struct ufs_req *r, int err)
{
	struct dir_records *rc = r->user;
	const struct ufs_entry *last;

	if (err == 0)
		err = take_listed(rc);
	if (err != 0 && err != -ENOENT) {
		rc_end(rc, err);
		return;
	}
	if (err == -ENOENT || !has_further(rc)) {
		rc_end(rc, join(rc));
		return;
	}
	/* An empty page in the middle: the next one, from the same place. */
	if (rc->again.count > 0) {
		last = &rc->again.entries[rc->again.count - 1];
		memcpy(rc->again_after, last->name, last->name_len + 1);
		rc->again.after = rc->again_after;
		rc->again.after_kind = last->attr.kind;
	}
	ask_again(rc);
}

static void ask_again(struct dir_records *rc)
{
	rc->again.path = rc->path;
	rc->again.req.user = rc;
	ufs_list(rc->fs->ufs, &rc->again, listed_again);
}

static void end_or_ask_again(struct dir_records *rc)
{
	if (rc->doubted.count == 0) {
		rc_end(rc, join(rc));
		return;
	}
	ufs_page_sort(&rc->doubted);
	rc->again.after = rc->pg->list.after;
	rc->again.after_kind = rc->pg->list.after_kind;
	ask_again(rc);
}

/* --- Directories that the storage does not have */

static void next_dir(struct dir_records *rc);

static void below_looked(struct below *b, int err)
{
	struct dir_records *rc = b->user;
	const struct ufs_entry *en = &rc->dirs.entries[rc->next_dir++];

	if (err == 0)
		err = ufs_page_add(
		    b->found ? &rc->found : &rc->doubted, en->name, en->name_len, &en->attr);
	if (err != 0)
		rc_end(rc, err);
	else
		next_dir(rc);
}

static void next_dir(struct dir_records *rc)
{
	size_t len = strlen(rc->path);
	const struct ufs_entry *en;

	while (rc->next_dir < rc->dirs.count) {
		en = &rc->dirs.entries[rc->next_dir];
		if (behind_cut(rc, en) || len + (len > 0) + en->name_len > UFS_PATH_MAX) {
			rc->next_dir++;
			continue;
		}
		memcpy(rc->below_path, rc->path, len);
		if (len > 0)
			rc->below_path[len] = '/';
		memcpy(rc->below_path + len + (len > 0), en->name, en->name_len + 1);
		rc->below.path = rc->below_path;
		rc->below.user = rc;
		below_start(rc->fs, &rc->below, below_looked);
		return;
	}
	end_or_ask_again(rc);
}

/* --- One record */

static struct ufs_entry *listed(struct dir_page *pg, const char *name, enum ufs_kind kind)
{
	const struct ufs_entry *en = dir_page_find(pg, name, kind);

	return en != NULL ? &pg->list.entries[en - pg->list.entries] : NULL;
}

static int take_file(struct dir_records *rc, const struct meta_entry *me)
{
	struct ufs_entry *en = listed(rc->pg, me->name, UFS_FILE);
	size_t len = strlen(me->name);
	struct ufs_attr attr = {.kind = UFS_FILE};

	attr_merge(rc->fs, &attr, &me->rec);
	if (en != NULL) {
		en->attr = attr;
		return 0;
	}
	if (!dir_page_window(rc->pg, me->name, len, UFS_FILE))
		return 0;
	return ufs_page_add(&rc->found, me->name, len, &attr);
}

static int take_dir(struct dir_records *rc, const struct meta_entry *me)
{
	struct ufs_attr attr = {.kind = UFS_DIR, .kind_only = true};
	size_t len = strlen(me->name);

	if (dir_page_find(rc->pg, me->name, UFS_DIR) != NULL ||
	    dir_page_find(rc->pg, me->name, UFS_FILE) != NULL ||
	    !dir_page_window(rc->pg, me->name, len, UFS_DIR))
		return 0;
	return ufs_page_add(&rc->dirs, me->name, len, &attr);
}

static int doubt_file(struct dir_records *rc, const struct meta_entry *me)
{
	struct ufs_attr attr = {.kind = UFS_FILE, .kind_only = true};
	size_t len = strlen(me->name);

	if ((me->rec.has & META_HAS_CONTENT) == 0 ||
	    !dir_page_window(rc->pg, me->name, len, UFS_FILE))
		return 0;
	return ufs_page_add(&rc->doubted, me->name, len, &attr);
}

static int take(struct dir_records *rc, const struct meta_entry *me)
{
	bool dir = me->rec.kind != META_FILE;
	struct ufs_entry *en;

	if (attr_unpersisted(&me->rec))
		return take_file(rc, me);
	en = listed(rc->pg, me->name, dir ? UFS_DIR : UFS_FILE);
	if (en != NULL && !en->attr.kind_only && !rc->native)
		attr_merge(rc->fs, &en->attr, &me->rec);
	if (en != NULL || !rc->all)
		return 0;
	return dir ? take_dir(rc, me) : doubt_file(rc, me);
}

/* --- Asking */

static void scanned(struct meta_req *r, int err);

static void ask(struct dir_records *rc)
{
	rc->scan.path = rc->path;
	rc->scan.after = rc->first[0] != '\0' ? rc->first : NULL;
	rc->scan.last = rc->last[0] != '\0' ? rc->last : NULL;
	rc->scan.max = DIR_RECORDS_MAX;
	rc->scan.pass = rc->all;
	rc->scan.req.user = rc;
	meta_scan(rc->fs->meta, &rc->scan, scanned);
}

/* Names can be listed; what they are is asked for one by one, and fails there. */
static void names_only(struct dir_records *rc)
{
	for (size_t i = 0; i < rc->pg->list.count; i++)
		rc->pg->list.entries[i].attr.kind_only = true;
}

static void scanned(struct meta_req *r, int err)
{
	struct dir_records *rc = r->user;
	const char *name;

	if (err != 0 && !rc->all) {
		names_only(rc);
		rc_end(rc, 0);
		return;
	}
	if (err != 0)
		err = err == -ENOMEM ? -ENOMEM : -EIO;
	for (size_t i = 0; i < rc->scan.count && err == 0; i++)
		err = take(rc, &rc->scan.entries[i]);
	if (err != 0) {
		rc_end(rc, err);
		return;
	}
	if (!rc->scan.more || rc->scan.count == 0) {
		next_dir(rc);
		return;
	}
	name = rc->scan.entries[rc->scan.count - 1].name;
	if (rc->found.count >= DIR_RECORDS_MAX) {
		rc->cut = true;
		memcpy(rc->cut_name, name, strlen(name) + 1);
		next_dir(rc);
		return;
	}
	memcpy(rc->first, name, strlen(name) + 1);
	ask(rc);
}

/* The names whose keys are in the page, and with them a few that are not.  Records come in
 * the order of names, entries in that of keys. */
static void set_range(struct dir_records *rc)
{
	const struct ufs_list *l = &rc->pg->list;
	const struct ufs_entry *first = l->count > 0 ? &l->entries[0] : NULL;
	const struct ufs_entry *last = l->count > 0 ? &l->entries[l->count - 1] : NULL;
	char before[UFS_NAME_MAX + 1] = "";

	rc->first[0] = rc->last[0] = '\0';
	for (size_t i = 1; i < l->count; i++)
		if (strcmp(l->entries[i].name, first->name) < 0)
			first = &l->entries[i];
	if (first != NULL)
		name_before(before, first->name, first->name_len);
	if (!rc->all)
		memcpy(rc->first, before, sizeof(before));
	else if (l->after != NULL)
		name_upto(rc->first, l->after, l->after_kind);
	if (rc->all && first != NULL && strcmp(before, rc->first) < 0)
		memcpy(rc->first, before, sizeof(before));
	if (last != NULL && (l->more || !rc->all))
		name_upto(rc->last, last->name, last->attr.kind);
}

/* --- Before the range: a directory "a" comes behind "a-b" */

static void next_prefix(struct dir_records *rc);

static void prefix_scanned(struct meta_req *r, int err)
{
	struct dir_records *rc = r->user;
	const struct meta_entry *me;

	if (err != 0)
		err = err == -ENOMEM ? -ENOMEM : -EIO;
	for (size_t i = 0; i < rc->scan.count && err == 0; i++) {
		me = &rc->scan.entries[i];
		if (me->rec.kind != META_FILE && strcmp(me->name, rc->last) == 0)
			err = take_dir(rc, me);
	}
	if (err != 0)
		rc_end(rc, err);
	else
		next_prefix(rc);
}

static void next_prefix(struct dir_records *rc)
{
	const char *after = rc->all ? rc->pg->list.after : NULL;
	size_t len = after != NULL ? strlen(after) : 0;

	while (++rc->prefix < len)
		if ((unsigned char)after[rc->prefix] < '/')
			break;
	if (rc->prefix >= len) {
		set_range(rc);
		ask(rc);
		return;
	}
	memcpy(rc->last, after, rc->prefix);
	rc->last[rc->prefix] = '\0';
	name_before(rc->first, after, rc->prefix);
	rc->scan.path = rc->path;
	rc->scan.after = rc->first[0] != '\0' ? rc->first : NULL;
	rc->scan.last = rc->last;
	rc->scan.max = PREFIX_NAMES;
	rc->scan.pass = true;
	rc->scan.req.user = rc;
	meta_scan(rc->fs->meta, &rc->scan, prefix_scanned);
}

bool dir_records_start(struct fs *fs, struct dir_records *rc, struct dir_page *pg,
    const char *path, void (*done)(struct dir_records *rc, int err))
{
	void *user = rc->user;
	struct meta_status st;

	memset(rc, 0, sizeof(*rc));
	rc->user = user;
	rc->fs = fs;
	rc->pg = pg;
	rc->path = path;
	rc->done = done;
	rc->all = pg->unpersisted || attr_any_unpersisted(fs);
	rc->native = attr_native(fs, path);
	if (!rc->all) {
		if (fs->meta == NULL || pg->list.count == 0 || rc->native)
			return false;
		meta_status(fs->meta, &st);
		if (st.open && st.records == 0 && !st.shared)
			return false;
	}
	next_prefix(rc);
	return true;
}

void dir_records_abort(struct dir_records *rc)
{
	if (rc->fs == NULL)
		return;
	if (rc->fs->meta != NULL)
		meta_abort(&rc->scan.req);
	ufs_abort(&rc->again.req);
	below_abort(&rc->below);
	rc_free(rc);
}
