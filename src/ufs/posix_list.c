/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page of a directory in key order.  The kernel gives names in no order, so
 * the whole directory is scanned for each page, and the smallest names behind
 * `after` are kept in a bounded heap; only those are asked for their attributes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/errtext.h"
#include "ufs/posix_temp.h"

struct name {
	char *s;
	size_t len;
	enum ufs_kind kind;
};

/* The greatest of the names kept is on top: the first to go. */
struct heap {
	struct name *v;
	size_t n;
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

static int heap_offer(struct heap *h, const struct name *nm, bool *more)
{
	struct name own = *nm;

	if (h->n == POSIX_PAGE) {
		*more = true;
		if (name_cmp(nm, &h->v[0]) >= 0)
			return 0;
	}
	own.s = strdup(nm->s);
	if (own.s == NULL)
		return -ENOMEM;
	if (h->n == POSIX_PAGE) {
		free(h->v[0].s);
		h->v[0] = own;
		sift_down(h, 0);
	} else {
		h->v[h->n] = own;
		sift_up(h, h->n++);
	}
	return 0;
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

static int scan(struct posix_job *pj, DIR *d, struct heap *h)
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
			r = heap_offer(h, &nm, &pj->more);
		if (r < 0)
			return r;
	}
}

/* Entries that went or became something else since the scan are left out. */
static int fill(struct posix_job *pj, int dir, const struct heap *h)
{
	for (size_t i = 0; i < h->n; i++) {
		struct ufs_attr attr;
		struct stat st;
		int err;

		if (fstatat(dir, h->v[i].s, &st, AT_SYMLINK_NOFOLLOW) != 0) {
			if (errno == ENOENT)
				continue;
			return -errno;
		}
		if (!posix_attr(&st, &attr) || attr.kind != h->v[i].kind)
			continue;
		err = ufs_page_add(&pj->page, h->v[i].s, h->v[i].len, &attr);
		if (err != 0)
			return err;
	}
	ufs_page_sort(&pj->page);
	return 0;
}

int posix_list_work(struct posix_job *pj, int root)
{
	struct heap h = { .v = calloc(POSIX_PAGE, sizeof(*h.v)) };
	int fd, err;
	DIR *d = NULL;

	if (h.v == NULL)
		return -ENOMEM;
	fd = posix_open_at(pj, root, pj->path, O_RDONLY | O_DIRECTORY);
	err = fd < 0 ? fd : 0;
	if (err == 0) {
		d = fdopendir(fd);
		if (d == NULL) {
			err = errtext_errno();
			(void)close(fd);
		}
	}
	if (err == 0)
		err = scan(pj, d, &h);
	if (err == 0)
		err = fill(pj, dirfd(d), &h);
	if (d != NULL)
		(void)closedir(d);
	for (size_t i = 0; i < h.n; i++)
		free(h.v[i].s);
	free(h.v);
	return err;
}
