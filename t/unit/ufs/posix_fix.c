/* SPDX-License-Identifier: BSD-2-Clause */
#include "posix_fix.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct ufs_fix pw;
char pw_root[64];

void pw_sh(const char *fmt, const char *arg)
{
	char cmd[512];
	int n = snprintf(cmd, sizeof(cmd), "cd '%s' && ", pw_root);

	(void)snprintf(cmd + n, sizeof(cmd) - (size_t)n, "%s%s", fmt, arg);
	cr_assert_eq(system(cmd), 0, "%s", cmd);
}

void pw_up(void)
{
	char text[128];

	ufs_fix_limit();
	strcpy(pw_root, "/tmp/ufs-posixw-XXXXXX");
	cr_assert_not_null(mkdtemp(pw_root));
	ufs_fix_init(&pw, NULL);
	(void)snprintf(text, sizeof(text), "file://%s", pw_root);
	ufs_fix_attach(&pw, text);
}

void pw_down(void)
{
	char cmd[128];

	ufs_fix_fini(&pw);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", pw_root);
	cr_assert_eq(system(cmd), 0);
}

/* --- requests that are waited for */

const char *pw_in_dir(const char *path)
{
	static char buf[4][512];
	static unsigned i;

	i = (i + 1) % 4;
	(void)snprintf(buf[i], sizeof(buf[i]), "%s/%s", pw_root, path);
	return buf[i];
}

int pw_put_as(const char *path, const void *body, size_t len, bool absent,
    const char *if_version, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_put rq = { .req = { .user = &pw },
		.path = path,
		.body = body,
		.len = len,
		.absent = absent,
		.if_version = if_version,
		.set = set };

	ufs_put(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	if (attr != NULL)
		*attr = rq.attr;
	return pw.err;
}

int pw_put(const char *path, const char *text, struct ufs_attr *attr)
{
	return pw_put_as(path, text, strlen(text), false, NULL, NULL, attr);
}

int pw_begin(const char *path, char *id)
{
	struct ufs_multi_begin rq = { .req = { .user = &pw }, .path = path };

	ufs_multi_begin(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	strcpy(id, rq.id);
	return pw.err;
}

int pw_part(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, const void *body, size_t len)
{
	struct ufs_part rq = { .req = { .user = &pw },
		.path = path,
		.id = id,
		.number = number,
		.off = off,
		.body = body,
		.len = len };

	ufs_part(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	out->number = number;
	out->len = len;
	strcpy(out->etag, rq.etag);
	return pw.err;
}

int pw_part_of(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, size_t len, const char *src, const char *version, uint64_t src_off)
{
	struct ufs_part rq = { .req = { .user = &pw },
		.path = path,
		.id = id,
		.number = number,
		.off = off,
		.len = len,
		.src_path = src,
		.src_version = version,
		.src_off = src_off };

	ufs_part(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	out->number = number;
	out->len = len;
	strcpy(out->etag, rq.etag);
	return pw.err;
}

int pw_end(const char *path, const char *id, const struct ufs_part_id *parts, unsigned n,
    bool absent, const char *if_version, struct ufs_attr *attr)
{
	struct ufs_multi_end rq = { .req = { .user = &pw },
		.path = path,
		.id = id,
		.parts = parts,
		.nparts = n,
		.absent = absent,
		.if_version = if_version };

	ufs_multi_end(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	if (attr != NULL)
		*attr = rq.attr;
	return pw.err;
}

int pw_drop(const char *path, const char *id)
{
	struct ufs_multi_abort rq = { .req = { .user = &pw }, .path = path, .id = id };

	ufs_multi_abort(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	return pw.err;
}

int pw_copy(const char *src, const struct ufs_attr *a, const char *dst, struct ufs_attr *attr)
{
	struct ufs_copy rq = { .req = { .user = &pw },
		.src = src,
		.src_version = a->version,
		.size = a->size,
		.dst = dst };

	ufs_copy(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	if (attr != NULL)
		*attr = rq.attr;
	return pw.err;
}

int pw_mkdir_as(const char *path, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_mkdir rq = { .req = { .user = &pw }, .path = path, .set = set };

	ufs_mkdir(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	*attr = rq.attr;
	return pw.err;
}

int pw_rmdir_of(const char *path)
{
	struct ufs_rmdir rq = { .req = { .user = &pw }, .path = path };

	ufs_rmdir(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	return pw.err;
}

int pw_rename_to(const char *src, const char *dst, bool noreplace, struct ufs_attr *attr)
{
	struct ufs_rename rq = {
		.req = { .user = &pw }, .src = src, .dst = dst, .noreplace = noreplace
	};

	ufs_rename(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	*attr = rq.attr;
	return pw.err;
}

int pw_setattr(const char *path, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_setattr rq = { .req = { .user = &pw }, .path = path, .set = set };

	ufs_setattr(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	*attr = rq.attr;
	return pw.err;
}

void pw_delete(const char *const *paths, unsigned n, int *errs)
{
	struct ufs_delete rq = { .req = { .user = &pw }, .paths = paths, .n = n, .errs = errs };

	ufs_delete(pw.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&pw);
	cr_assert_eq(pw.err, 0);
}

/* --- what is there, seen from outside */

bool pw_same_attr(const struct ufs_attr *a, const struct ufs_attr *b)
{
	return a->kind == b->kind && a->size == b->size && strcmp(a->version, b->version) == 0 &&
	       a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       a->have_mode && b->have_mode && a->mode == b->mode && a->uid == b->uid &&
	       a->gid == b->gid;
}

void pw_same_as_stat(const char *path, const struct ufs_attr *attr)
{
	struct ufs_attr a;

	cr_assert_eq(ufs_fix_stat(&pw, path, &a), 0);
	cr_assert(pw_same_attr(attr, &a), "%s: %s %s", path, attr->version, a.version);
}

void pw_holds(const char *path, const void *body, size_t len)
{
	char *got = malloc(len + 1);
	FILE *i = fopen(pw_in_dir(path), "r");

	cr_assert_not_null(i, "%s", path);
	cr_assert_not_null(got);
	cr_assert_eq(fread(got, 1, len + 1, i), len, "%s", path);
	cr_assert_eq(memcmp(got, body, len), 0, "%s", path);
	fclose(i);
	free(got);
}

/* Temporary files in a directory. */
unsigned pw_temps(const char *path)
{
	DIR *d = opendir(pw_in_dir(path));
	struct dirent *de;
	unsigned n = 0;

	cr_assert_not_null(d);
	while ((de = readdir(d)) != NULL)
		n += strncmp(de->d_name, ".batonfs-", 9) == 0;
	closedir(d);
	return n;
}

size_t pw_listed(const char *path)
{
	struct ufs_list rq = { .path = path };
	size_t n;

	cr_assert_eq(ufs_fix_list(&pw, &rq), 0);
	n = rq.count;
	ufs_list_free(&rq);
	return n;
}

char *pw_bytes(size_t len, unsigned seed)
{
	char *p = malloc(len);

	cr_assert_not_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(rand_r(&seed) >> 8);
	return p;
}
