/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page of a directory in key order.  The kernel gives names in no order, so the
 * whole directory is scanned, and the smallest names behind `after` are kept in a
 * bounded heap.  Those are enough for many pages, and stay in the cursor of the listing;
 * names are asked for their attributes when their page comes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/errtext.h"
#include "ufs/posix_temp.h"

#define SCAN_NAMES 65536u /* that one scan keeps: some 4 MiB */

/* What a scan has found and no page has brought. */
struct names {
	struct ufs_cursor cur;
	struct name *v;
	size_t n, at;
	bool more; /* there are names behind these */
	char *mem; /* of all names */
	char *path; /* of the directory */
	/* The entry that the last page ended with. */
	char last[UFS_NAME_MAX + 1];
	enum ufs_kind last_kind;
};

struct name {
	char *s;
	size_t len;
	enum ufs_kind kind;
};

/* The greatest of the names kept is on top: the first to go. */
struct heap {
	struct name *v;
	size_t n, room;
};

static int name_cmp(const struct name *a, const struct name *b)
{
	return ufs_key_cmp(a->s, a->len, a->kind, b->s, b->len, b->kind);
}

static void sift_down(struct heap *h, size_t i)
{
	for (;;) {
		size_t big = i, l = 2 * i + 1;
		struct name tmp;

		for (size_t k = l; k < l + 2 && k < h->n; k++)
			if (name_cmp(&h->v[k], &h->v[big]) > 0)
				big = k;
		if (big == i)
			return;
		tmp = h->v[i];
		h->v[i] = h->v[big];
		h->v[big] = tmp;
		i = big;
	}
}

static void sift_up(struct heap *h, size_t i)
{
	while (i > 0 && name_cmp(&h->v[i], &h->v[(i - 1) / 2]) > 0) {
		struct name tmp = h->v[i];

		h->v[i] = h->v[(i - 1) / 2];
		h->v[(i - 1) / 2] = tmp;
		i = (i - 1) / 2;
	}
}

static int heap_room(struct heap *h)
{
	size_t room = MIN(MAX(h->room * 2, 256), SCAN_NAMES);
	struct name *v;

	if (h->n < h->room)
		return 0;
	v = reallocarray(h->v, room, sizeof(*v));
	if (v == NULL)
		return -ENOMEM;
	h->v = v;
	h->room = room;
	return 0;
}

static int heap_offer(struct heap *h, const struct name *nm, bool *more)
{
	struct name own = *nm;
	bool full = h->n == SCAN_NAMES;

	if (full) {
		*more = true;
		if (name_cmp(nm, &h->v[0]) >= 0)
			return 0;
	} else if (heap_room(h) != 0) {
		return -ENOMEM;
	}
	own.s = strdup(nm->s);
	if (own.s == NULL)
		return -ENOMEM;
	if (full) {
		free(h->v[0].s);
		h->v[0] = own;
		sift_down(h, 0);
	} else {
		h->v[h->n] = own;
		sift_up(h, h->n++);
	}
	return 0;
}

static void heap_clear(struct heap *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->v[i].s);
	free(h->v);
	memset(h, 0, sizeof(*h));
}

/* 1: a file or directory; 0: hidden or gone; or negative errno. */
static int kind_of(int dir, const struct dirent *de, enum ufs_kind *kind, uint64_t *hidden)
{
	unsigned char type = de->d_type;

	if (type == DT_UNKNOWN) {
		struct stat st;

		if (fstatat(dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			return errno == ENOENT ? 0 : -errno;
		type = S_ISREG(st.st_mode) ? DT_REG : S_ISDIR(st.st_mode) ? DT_DIR : DT_LNK;
	}
	if (type != DT_REG && type != DT_DIR) {
		++*hidden;
		return 0;
	}
	*kind = type == DT_DIR ? UFS_DIR : UFS_FILE;
	return 1;
}

static int scan(struct posix_job *pj, DIR *d, struct heap *h, bool *more)
{
	size_t after_len = pj->after != NULL ? strlen(pj->after) : 0;
	size_t dir_len = strlen(pj->path);

	for (;;) {
		struct name nm = {.kind = UFS_FILE};
		struct dirent *de;
		int r;

		errno = 0;
		de = readdir(d);
		if (de == NULL)
			return -errno;
		nm.s = de->d_name;
		nm.len = strlen(de->d_name);
		if (!ufs_name_ok(nm.s, nm.len))
			continue;
		if (posix_temp_name(nm.s, nm.len)) {
			pj->hidden++;
			continue;
		}
		if (dir_len + (dir_len > 0) + nm.len > UFS_PATH_MAX) {
			pj->hidden++; /* nothing can be asked of it */
			continue;
		}
		r = kind_of(dirfd(d), de, &nm.kind, &pj->hidden);
		if (r > 0 &&
		    (pj->after == NULL || ufs_key_cmp(nm.s, nm.len, nm.kind, pj->after, after_len,
					      pj->after_kind) > 0))
			r = heap_offer(h, &nm, more);
		if (r < 0)
			return r;
	}
}

static void names_free(struct ufs_cursor *c)
{
	struct names *nm = container_of(c, struct names, cur);

	free(nm->v);
	free(nm->mem);
	free(nm->path);
	free(nm);
}

static int by_key(const void *a, const void *b)
{
	return name_cmp(a, b);
}

/* The names of the heap in order, packed: the loop frees them in no time. */
static int names_of(struct heap *h, const char *path, struct names **out)
{
	struct names *nm = calloc(1, sizeof(*nm));
	size_t bytes = 1;
	char *p;

	if (nm == NULL)
		return -ENOMEM;
	nm->cur.free = names_free;
	for (size_t i = 0; i < h->n; i++)
		bytes += h->v[i].len + 1;
	nm->mem = malloc(bytes);
	nm->path = strdup(path);
	if (nm->mem == NULL || nm->path == NULL) {
		names_free(&nm->cur);
		return -ENOMEM;
	}
	qsort(h->v, h->n, sizeof(*h->v), by_key);
	p = nm->mem;
	for (size_t i = 0; i < h->n; i++) {
		memcpy(p, h->v[i].s, h->v[i].len + 1);
		free(h->v[i].s);
		h->v[i].s = p;
		p += h->v[i].len + 1;
	}
	nm->v = h->v;
	nm->n = h->n;
	memset(h, 0, sizeof(*h));
	*out = nm;
	return 0;
}

static int names_scan(struct posix_job *pj, DIR *d, struct names **out)
{
	struct heap h = { 0 };
	bool more = false;
	int err = scan(pj, d, &h, &more);

	if (err == 0 && h.n > 0)
		err = names_of(&h, pj->path, out);
	if (err == 0 && *out != NULL)
		(*out)->more = more;
	heap_clear(&h);
	return err;
}

/* Entries that went or became something else since the scan are left out. */
static int fill(struct posix_job *pj, int dir, struct names *nm)
{
	size_t end = MIN(nm->n, nm->at + POSIX_PAGE);

	for (; nm->at < end; nm->at++) {
		const struct name *n = &nm->v[nm->at];
		struct ufs_attr attr;
		struct stat st;
		int err;

		if (fstatat(dir, n->s, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT)
				continue;
			return -errno;
		}
		if (!posix_attr(&st, &attr) || attr.kind != n->kind)
			continue;
		err = ufs_page_add(&pj->page, n->s, n->len, &attr);
		if (err != 0)
			return err;
		memcpy(nm->last, n->s, n->len + 1);
		nm->last_kind = n->kind;
	}
	pj->more = nm->at < nm->n || nm->more;
	return 0;
}

void posix_list_cursor(struct posix_job *pj, struct ufs_list *rq)
{
	struct ufs_cursor *cur = rq->cursor;
	const struct names *nm;

	rq->cursor = NULL;
	if (cur == NULL)
		return;
	nm = container_of(cur, struct names, cur);
	if (cur->free == names_free && pj->after != NULL && strcmp(nm->path, pj->path) == 0 &&
	    nm->last_kind == pj->after_kind && strcmp(nm->last, pj->after) == 0)
		pj->cursor = cur;
	else
		cur->free(cur);
}

static int page_make(struct posix_job *pj, DIR *d)
{
	struct names *nm = NULL;
	int err = 0;

	if (pj->cursor != NULL)
		nm = container_of(pj->cursor, struct names, cur);
	else
		err = names_scan(pj, d, &nm);
	pj->cursor = NULL;
	if (err != 0 || nm == NULL)
		return err;
	err = fill(pj, dirfd(d), nm);
	if (err == 0 && nm->at < nm->n)
		pj->cursor = &nm->cur;
	else
		names_free(&nm->cur);
	return err;
}

int posix_list_work(struct posix_job *pj, int root)
{
	int fd = posix_open_at(pj, root, pj->path, O_RDONLY | O_DIRECTORY), err;
	DIR *d;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (d == NULL) {
		err = errtext_errno();
		(void)close(fd);
		return err;
	}
	err = page_make(pj, d);
	(void)closedir(d);
	return err;
}
