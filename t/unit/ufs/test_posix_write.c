/* SPDX-License-Identifier: BSD-2-Clause */
/* Writing to file:// on a temporary tree. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "ufs/posix_temp.h"
#include "ufs_fix.h"

static char dir[64];
static struct ufs_fix f;

static void sh(const char *fmt, const char *arg)
{
	char cmd[512];
	int n = snprintf(cmd, sizeof(cmd), "cd '%s' && ", dir);

	(void)snprintf(cmd + n, sizeof(cmd) - (size_t)n, "%s%s", fmt, arg);
	cr_assert_eq(system(cmd), 0, "%s", cmd);
}

static void up(void)
{
	char text[128];

	ufs_fix_limit();
	strcpy(dir, "/tmp/ufs-posixw-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	ufs_fix_init(&f, NULL);
	(void)snprintf(text, sizeof(text), "file://%s", dir);
	ufs_fix_attach(&f, text);
}

static void down(void)
{
	char cmd[128];

	ufs_fix_fini(&f);
	(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", dir);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(posix_write, .init = up, .fini = down);

/* --- requests that are waited for */

static const char *in_dir(const char *path)
{
	static char buf[4][512];
	static unsigned i;

	i = (i + 1) % 4;
	(void)snprintf(buf[i], sizeof(buf[i]), "%s/%s", dir, path);
	return buf[i];
}

static int put_as(const char *path, const void *body, size_t len, bool absent,
    const char *if_version, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_put rq = { .req = { .user = &f },
		.path = path,
		.body = body,
		.len = len,
		.absent = absent,
		.if_version = if_version,
		.set = set };

	ufs_put(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	if (attr != NULL)
		*attr = rq.attr;
	return f.err;
}

static int put(const char *path, const char *text, struct ufs_attr *attr)
{
	return put_as(path, text, strlen(text), false, NULL, NULL, attr);
}

static int begin(const char *path, char *id)
{
	struct ufs_multi_begin rq = { .req = { .user = &f }, .path = path };

	ufs_multi_begin(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	strcpy(id, rq.id);
	return f.err;
}

static int part(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, const void *body, size_t len)
{
	struct ufs_part rq = { .req = { .user = &f },
		.path = path,
		.id = id,
		.number = number,
		.off = off,
		.body = body,
		.len = len };

	ufs_part(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	out->number = number;
	out->len = len;
	strcpy(out->etag, rq.etag);
	return f.err;
}

static int part_of(const char *path, const char *id, struct ufs_part_id *out, unsigned number,
    uint64_t off, size_t len, const char *src, const char *version, uint64_t src_off)
{
	struct ufs_part rq = { .req = { .user = &f },
		.path = path,
		.id = id,
		.number = number,
		.off = off,
		.len = len,
		.src_path = src,
		.src_version = version,
		.src_off = src_off };

	ufs_part(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	out->number = number;
	out->len = len;
	strcpy(out->etag, rq.etag);
	return f.err;
}

static int end(const char *path, const char *id, const struct ufs_part_id *parts, unsigned n,
    bool absent, const char *if_version, struct ufs_attr *attr)
{
	struct ufs_multi_end rq = { .req = { .user = &f },
		.path = path,
		.id = id,
		.parts = parts,
		.nparts = n,
		.absent = absent,
		.if_version = if_version };

	ufs_multi_end(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	if (attr != NULL)
		*attr = rq.attr;
	return f.err;
}

static int drop(const char *path, const char *id)
{
	struct ufs_multi_abort rq = { .req = { .user = &f }, .path = path, .id = id };

	ufs_multi_abort(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	return f.err;
}

static int copy(const char *src, const struct ufs_attr *a, const char *dst, struct ufs_attr *attr)
{
	struct ufs_copy rq = { .req = { .user = &f },
		.src = src,
		.src_version = a->version,
		.size = a->size,
		.dst = dst };

	ufs_copy(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	if (attr != NULL)
		*attr = rq.attr;
	return f.err;
}

static int mkdir_as(const char *path, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_mkdir rq = { .req = { .user = &f }, .path = path, .set = set };

	ufs_mkdir(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	*attr = rq.attr;
	return f.err;
}

static int rmdir_of(const char *path)
{
	struct ufs_rmdir rq = { .req = { .user = &f }, .path = path };

	ufs_rmdir(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	return f.err;
}

static int rename_to(const char *src, const char *dst, bool noreplace, struct ufs_attr *attr)
{
	struct ufs_rename rq = {
		.req = { .user = &f }, .src = src, .dst = dst, .noreplace = noreplace
	};

	ufs_rename(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	*attr = rq.attr;
	return f.err;
}

static int setattr(const char *path, const struct ufs_set *set, struct ufs_attr *attr)
{
	struct ufs_setattr rq = { .req = { .user = &f }, .path = path, .set = set };

	ufs_setattr(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	*attr = rq.attr;
	return f.err;
}

static void delete(const char *const *paths, unsigned n, int *errs)
{
	struct ufs_delete rq = { .req = { .user = &f }, .paths = paths, .n = n, .errs = errs };

	ufs_delete(f.ufs, &rq, ufs_fix_done);
	ufs_fix_wait(&f);
	cr_assert_eq(f.err, 0);
}

/* --- what is there, seen from outside */

static bool same_attr(const struct ufs_attr *a, const struct ufs_attr *b)
{
	return a->kind == b->kind && a->size == b->size && strcmp(a->version, b->version) == 0 &&
	       a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       a->have_mode && b->have_mode && a->mode == b->mode && a->uid == b->uid &&
	       a->gid == b->gid;
}

static void same_as_stat(const char *path, const struct ufs_attr *attr)
{
	struct ufs_attr a;

	cr_assert_eq(ufs_fix_stat(&f, path, &a), 0);
	cr_assert(same_attr(attr, &a), "%s: %s %s", path, attr->version, a.version);
}

static void holds(const char *path, const void *body, size_t len)
{
	char *got = malloc(len + 1);
	FILE *i = fopen(in_dir(path), "r");

	cr_assert_not_null(i, "%s", path);
	cr_assert_not_null(got);
	cr_assert_eq(fread(got, 1, len + 1, i), len, "%s", path);
	cr_assert_eq(memcmp(got, body, len), 0, "%s", path);
	fclose(i);
	free(got);
}

/* Temporary files in a directory. */
static unsigned temps(const char *path)
{
	DIR *d = opendir(in_dir(path));
	struct dirent *de;
	unsigned n = 0;

	cr_assert_not_null(d);
	while ((de = readdir(d)) != NULL)
		n += strncmp(de->d_name, ".batonfs-", 9) == 0;
	closedir(d);
	return n;
}

static size_t listed(const char *path)
{
	struct ufs_list rq = { .path = path };
	size_t n;

	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	n = rq.count;
	ufs_list_free(&rq);
	return n;
}

static char *bytes(size_t len, unsigned seed)
{
	char *p = malloc(len);

	cr_assert_not_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (char)(rand_r(&seed) >> 8);
	return p;
}

/* --- put */

Test(posix_write, put_makes_and_replaces)
{
	struct ufs_attr a, b;
	struct stat st;

	(void)umask(077); /* of the daemon: of no importance */
	cr_assert_eq(put("a", "one", &a), 0);
	holds("a", "one", 3);
	same_as_stat("a", &a);
	cr_assert_eq(a.mode, 0644);
	cr_assert_eq(chmod(in_dir("a"), 04751), 0);
	if (geteuid() == 0)
		cr_assert_eq(chown(in_dir("a"), 7, 8), 0);
	cr_assert_eq(chmod(in_dir("a"), 04751), 0);
	cr_assert_eq(put("a", "three", &b), 0);
	holds("a", "three", 5);
	same_as_stat("a", &b);
	cr_assert_str_neq(a.version, b.version);
	cr_assert_eq(stat(in_dir("a"), &st), 0);
	cr_assert_eq(st.st_mode & 07777, 04751, "%o", st.st_mode);
	if (geteuid() == 0)
		cr_assert(st.st_uid == 7 && st.st_gid == 8);
	cr_assert_eq(put("a", "", &b), 0);
	holds("a", "", 0);
	cr_assert_eq(put("none/a", "x", NULL), -ENOENT);
	cr_assert_eq(put("a/b", "x", NULL), -ENOTDIR);
	sh("mkdir d && ln -s /etc out && ln -s a in && mkfifo p", "");
	cr_assert_eq(put("d", "x", NULL), -EISDIR);
	/* Hidden things are neither followed nor replaced. */
	cr_assert(put("out/x", "x", NULL) == -ENOENT || f.err == -ENOTDIR);
	cr_assert_eq(put("in", "x", NULL), -EEXIST);
	cr_assert_eq(put("p", "x", NULL), -EEXIST);
	sh("test -L in && test -p p && test ! -s a", "");
	cr_assert_eq(temps(""), 0);
}

Test(posix_write, put_of_many_steps)
{
	size_t len = 3 * POSIX_CHUNK + 17;
	char *body = bytes(len, 1);
	struct ufs_attr a;

	cr_assert_eq(put_as("big", body, len, false, NULL, NULL, &a), 0);
	holds("big", body, len);
	same_as_stat("big", &a);
	free(body);
}

Test(posix_write, put_sets_attributes)
{
	struct ufs_set set = { .what = UFS_SET_MODE | UFS_SET_MTIME | UFS_SET_ATIME,
		.mode = 0604,
		.atime = { 1000000, 7 },
		.mtime = { 2000000, 8 } };
	struct ufs_attr a;
	struct stat st;

	if (geteuid() == 0) {
		set.what |= UFS_SET_UID | UFS_SET_GID;
		set.uid = 11;
		set.gid = 12;
	}
	for (unsigned i = 0; i < 2; i++) { /* new, and replaced */
		cr_assert_eq(put_as("a", "abc", 3, false, NULL, &set, &a), 0);
		same_as_stat("a", &a);
		cr_assert_eq(stat(in_dir("a"), &st), 0);
		cr_assert_eq(st.st_mode & 07777, 0604);
		cr_assert(st.st_mtim.tv_sec == 2000000 && st.st_mtim.tv_nsec == 8);
		cr_assert(st.st_atim.tv_sec == 1000000 && st.st_atim.tv_nsec == 7);
		if (geteuid() == 0)
			cr_assert(st.st_uid == 11 && st.st_gid == 12);
	}
}

Test(posix_write, put_on_conditions)
{
	struct ufs_attr a, b;

	cr_assert_eq(ufs_can(f.ufs), UFS_CAN_RENAME | UFS_CAN_SETATTR | UFS_CAN_ABSENT);
	cr_assert_eq(put_as("a", "1", 1, true, NULL, NULL, &a), 0);
	cr_assert_eq(put_as("a", "2", 1, true, NULL, NULL, NULL), -EEXIST);
	holds("a", "1", 1);
	cr_assert_eq(put_as("a", "3", 1, false, a.version, NULL, &b), 0);
	holds("a", "3", 1);
	cr_assert_eq(put_as("a", "4", 1, false, a.version, NULL, NULL), -ESTALE);
	cr_assert_eq(put_as("b", "4", 1, false, a.version, NULL, NULL), -ESTALE);
	holds("a", "3", 1);
	sh("test ! -e b && mkdir d", "");
	cr_assert_eq(put_as("d", "4", 1, true, NULL, NULL, NULL), -EEXIST);
	cr_assert_eq(temps(""), 0);
}

/* Only one of many makers of a name wins, also among processes. */
Test(posix_write, absent_holds_between_clients)
{
	struct ufs_put rq[8] = { 0 };
	unsigned won = 0;

	for (unsigned i = 0; i < 8; i++) {
		rq[i] = (struct ufs_put){ .path = i < 4 ? "race" : "race2",
			.req = { .user = &f },
			.body = "x",
			.len = 1,
			.absent = true };
	}
	for (unsigned i = 0; i < 8; i++)
		ufs_put(f.ufs, &rq[i], ufs_fix_done);
	for (unsigned i = 0; i < 8; i++) {
		ufs_fix_wait(&f);
		cr_assert(f.err == 0 || f.err == -EEXIST);
		won += f.err == 0;
	}
	cr_assert_eq(won, 2);
}

Test(posix_write, temporary_names_do_not_exist)
{
	const char *name = ".batonfs-0123456789abcdef.tmp";
	struct ufs_attr a;
	char id[UFS_UPLOAD_MAX];
	int errs[1] = { 5 };

	cr_assert_eq(begin("f", id), 0);
	sh("touch .batonfs-0123456789abcdef.tmp .batonfs-x.tmp .batonfs-0123456789abcdeF.tmp", "");
	cr_assert_eq(listed(""), 2, "others may have names that are nearly so");
	cr_assert_eq(ufs_fix_counter(&f, CTR_UFS_HIDDEN), 2);
	cr_assert_eq(ufs_fix_stat(&f, name, &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, ".batonfs-x.tmp", &a), 0);
	cr_assert_eq(put(name, "x", &a), -EINVAL);
	cr_assert_eq(mkdir_as(name, NULL, &a), -EINVAL);
	cr_assert_eq(rename_to(".batonfs-x.tmp", name, false, &a), -EINVAL);
	cr_assert_eq(rename_to(name, "y", false, &a), -ENOENT);
	delete (&name, 1, errs);
	cr_assert_eq(errs[0], 0);
	sh("test -e .batonfs-0123456789abcdef.tmp", "");
}

/* --- uploads */

Test(posix_write, upload_in_any_order)
{
	size_t unit = 2 * POSIX_CHUNK + 5;
	char *one = bytes(unit, 1), *two = bytes(unit, 2), *tail = bytes(100, 3);
	char *all = malloc(2 * unit + 100);
	struct ufs_part_id ids[3], late;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a, b;

	sh("mkdir d && printf old > d/f && chmod 600 d/f", "");
	cr_assert_eq(begin("d/f", id), 0);
	cr_assert_eq(part("d/f", id, &ids[2], 3, 2 * unit, tail, 100), 0);
	cr_assert_eq(part("d/f", id, &ids[1], 2, unit, one, unit), 0);
	cr_assert_eq(part("d/f", id, &ids[0], 1, 0, one, unit), 0);
	cr_assert_eq(part("d/f", id, &ids[1], 2, unit, two, unit), 0, "sent again");
	cr_assert_neq(ids[1].etag[0], '\0');
	holds("d/f", "old", 3);
	cr_assert_eq(listed("d"), 1);
	cr_assert_eq(end("d/f", id, ids, 3, false, NULL, &a), 0);
	memcpy(all, one, unit);
	memcpy(all + unit, two, unit);
	memcpy(all + 2 * unit, tail, 100);
	holds("d/f", all, 2 * unit + 100);
	same_as_stat("d/f", &a);
	cr_assert_eq(a.mode, 0600);
	/* Asked for again, as after a crash: it has happened. */
	cr_assert_eq(end("d/f", id, ids, 3, false, NULL, &b), 0);
	cr_assert(same_attr(&a, &b));
	cr_assert_eq(part("d/f", id, &late, 1, 0, one, unit), -ENOENT);
	cr_assert_eq(drop("d/f", id), 0);
	holds("d/f", all, 2 * unit + 100);
	sh("rm d/f && printf other > d/f", "");
	cr_assert_eq(end("d/f", id, ids, 3, false, NULL, &b), -ENOENT);
	cr_assert_eq(temps("d"), 0);
	free(one);
	free(two);
	free(tail);
	free(all);
}

Test(posix_write, upload_ends_only_whole)
{
	struct ufs_part_id ids[2];
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	cr_assert_eq(begin("f", id), 0);
	cr_assert_eq(part("f", id, &ids[0], 1, 0, "abc", 3), 0);
	ids[1] = ids[0];
	ids[1].number = 2;
	cr_assert_eq(end("f", id, ids, 2, false, NULL, NULL), -EINVAL);
	cr_assert_eq(ufs_fix_stat(&f, "f", &a), -ENOENT);
	/* A part that is not wanted any more is left out. */
	cr_assert_eq(part("f", id, &ids[1], 2, 3, "def", 3), 0);
	cr_assert_eq(end("f", id, ids, 1, false, NULL, &a), 0);
	holds("f", "abc", 3);
	cr_assert_eq(begin("f", id), 0);
	cr_assert_eq(part("f", id, &ids[0], 1, 0, "xyz", 3), 0);
	cr_assert_eq(end("f", id, ids, 1, true, NULL, NULL), -EEXIST);
	cr_assert_eq(end("f", id, ids, 1, false, "another", NULL), -ESTALE);
	holds("f", "abc", 3);
	cr_assert_eq(temps(""), 1, "it can be ended otherwise");
	cr_assert_eq(end("f", id, ids, 1, false, a.version, NULL), 0);
	holds("f", "xyz", 3);
	cr_assert_eq(begin("f", id), 0);
	cr_assert_eq(part("f", id, &ids[0], 1, 0, NULL, 0), 0);
	cr_assert_eq(end("f", id, ids, 1, false, NULL, NULL), 0);
	holds("f", "", 0);
	cr_assert_eq(begin("f", id), 0);
	cr_assert_eq(drop("f", id), 0);
	cr_assert_eq(drop("f", id), 0);
	cr_assert_eq(temps(""), 0);
}

Test(posix_write, ids_of_others)
{
	static const char *const bad[] = { "x", "../f", ".batonfs-0123456789abcdef.tmp",
		".batonfs-0123456789abcdef.tmp:", ".batonfs-0123456789abcdef.tmp:1-2",
		".batonfs-0123456789abcdef.tmp:1-2-3x", "d/.batonfs-0123456789abcdef.tmp:1-2-3",
		".batonfs-../../../../../t.tmp:1-2-3", ".batonfs-0123456789abcdef.tmp:1-2-3-4",
		".batonfs-0123456789abcdef.tmp:1-2-3" };
	struct ufs_part_id pi = { .number = 1, .len = 3, .etag = "x" };
	char id[UFS_UPLOAD_MAX];

	sh("touch .batonfs-0123456789abcdef.tmp && mkdir d && ln -s ../f d/l && printf 123 > f", "");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(part("f", bad[i], &pi, 1, 0, "abc", 3), -ENOENT, "%s", bad[i]);
		strcpy(pi.etag, "x");
		cr_assert_eq(end("f", bad[i], &pi, 1, false, NULL, NULL), -ENOENT, "%s", bad[i]);
		cr_assert_eq(drop("f", bad[i]), 0, "%s", bad[i]);
	}
	/* A link in the place of the file is not followed. */
	cr_assert_eq(begin("f", id), 0);
	sh("rm .batonfs-0123456789abcdef.tmp; t=$(ls -A | grep batonfs); rm $t; ln -s f $t", "");
	cr_assert_eq(part("f", id, &pi, 1, 0, "abc", 3), -ENOENT);
	holds("f", "123", 3);
}

Test(posix_write, parts_copied_in_storage)
{
	size_t unit = 3 * POSIX_CHUNK + 7;
	char *one = bytes(2 * unit, 1);
	struct ufs_part_id ids[2];
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a, b;

	cr_assert_eq(put_as("f", one, 2 * unit, false, NULL, NULL, &a), 0);
	cr_assert_eq(begin("f", id), 0);
	cr_assert_eq(part_of("f", id, &ids[0], 1, 0, unit, "f", a.version, unit), 0);
	cr_assert_eq(part_of("f", id, &ids[1], 2, unit, unit, "f", "other", 0), -ESTALE);
	cr_assert_eq(part_of("f", id, &ids[1], 2, unit, unit, "none", a.version, 0), -ESTALE);
	cr_assert_eq(part_of("f", id, &ids[1], 2, unit, unit, "f", a.version, 2 * unit - 1), -ESTALE);
	cr_assert_eq(part_of("f", id, &ids[1], 2, unit, unit, "f", a.version, 0), 0);
	cr_assert_eq(end("f", id, ids, 2, false, a.version, &b), 0);
	cr_assert_eq(b.size, 2 * unit);
	cr_assert_eq(ufs_fix_read(&f, "f", b.version, 0, 2 * unit), 0);
	cr_assert_eq(memcmp(f.data, one + unit, unit), 0);
	cr_assert_eq(memcmp(f.data + unit, one, unit), 0);
	free(one);
}

/* --- copy */

Test(posix_write, copy_keeps_attributes)
{
	size_t len = 2 * POSIX_CHUNK + 9;
	char *body = bytes(len, 1);
	struct ufs_attr a, b, c;

	cr_assert_eq(put_as("a", body, len, false, NULL, NULL, &a), 0);
	sh("chmod 751 a && touch -d @12345 a && mkdir d && echo x > d/b", "");
	cr_assert_eq(copy("a", &a, "d/b", NULL), -ESTALE);
	cr_assert_eq(ufs_fix_stat(&f, "a", &a), 0);
	cr_assert_eq(copy("a", &a, "d/b", &b), 0);
	holds("d/b", body, len);
	same_as_stat("d/b", &b);
	cr_assert(b.mode == 0751 && b.mtime.tv_sec == 12345);
	cr_assert_eq(copy("none", &a, "d/b", NULL), -ESTALE);
	cr_assert_eq(copy("a", &a, "none/b", NULL), -ENOENT);
	cr_assert_eq(put("e", "", &c), 0);
	cr_assert_eq(copy("e", &c, "d/b", &b), 0);
	holds("d/b", "", 0);
	cr_assert_eq(temps("d"), 0);
	free(body);
}

Test(posix_write, copy_leaves_holes)
{
	struct ufs_attr a, b;
	struct stat st;

	sh("truncate -s 1G a && printf end >> a && printf mid | dd of=a bs=1 seek=500000000 "
	   "conv=notrunc status=none && truncate -s 1200000000 a",
	    "");
	cr_assert_eq(ufs_fix_stat(&f, "a", &a), 0);
	cr_assert_eq(copy("a", &a, "b", &b), 0);
	cr_assert_eq(b.size, 1200000000);
	sh("cmp a b", "");
	cr_assert_eq(stat(in_dir("b"), &st), 0);
	cr_assert_lt(st.st_blocks, 20000);
}

/* --- names */

Test(posix_write, delete_many)
{
	static char names[200][32];
	const char *paths[200];
	int errs[200];

	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "f%u", i);
		paths[i] = names[i];
		if (i % 3 != 0)
			cr_assert_eq(put(names[i], "x", NULL), 0);
	}
	sh("mkdir f0 && ln -s f1 f3 && printf y > x", "");
	strcpy(names[6], "f1/below");
	strcpy(names[9], "a//b");
	strcpy(names[12], "x");
	delete (paths, 200, errs);
	for (unsigned i = 0; i < 200; i++)
		cr_assert_eq(errs[i], i == 0 ? -EISDIR : i == 9 ? -EINVAL : 0, "%u", i);
	sh("test $(ls | wc -l) = 2 && test -d f0 && test -L f3", "");
}

Test(posix_write, directories)
{
	struct ufs_set set = { .what = UFS_SET_MODE, .mode = 0711 };
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	(void)umask(077);
	cr_assert_eq(mkdir_as("d", NULL, &a), 0);
	cr_assert(a.kind == UFS_DIR && a.mode == 0755);
	same_as_stat("d", &a);
	cr_assert_eq(mkdir_as("d", NULL, &a), -EEXIST);
	cr_assert_eq(mkdir_as("d/e", &set, &a), 0);
	cr_assert_eq(a.mode, 0711);
	cr_assert_eq(mkdir_as("x/e", NULL, &a), -ENOENT);
	cr_assert_eq(rmdir_of("d"), -ENOTEMPTY);
	cr_assert_eq(rmdir_of("x"), -ENOENT);
	sh("touch f && ln -s d l && chmod g+s d", "");
	cr_assert_eq(rmdir_of("f"), -ENOTDIR);
	cr_assert_eq(rmdir_of("l"), -ENOTDIR);
	cr_assert_eq(mkdir_as("f/e", NULL, &a), -ENOTDIR);
	cr_assert_eq(mkdir_as("d/g", NULL, &a), 0);
	cr_assert_eq(a.mode, 02755, "%o", a.mode);
	cr_assert_eq(rmdir_of("d/g"), 0);
	/* What nobody sees does not hold a directory, unless it is not ours. */
	cr_assert_eq(begin("d/e/f", id), 0);
	sh("ln -s x d/e/l", "");
	cr_assert_eq(rmdir_of("d/e"), -ENOTEMPTY);
	cr_assert_eq(temps("d/e"), 1);
	sh("rm d/e/l", "");
	cr_assert_eq(rmdir_of("d/e"), 0);
	cr_assert_eq(rmdir_of("d"), 0);
}

Test(posix_write, rename_as_rename)
{
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	sh("printf 1 > a && printf 2 > b && mkdir -p d/e full/x empty && ln -s a l", "");
	cr_assert_eq(rename_to("a", "b", true, &a), -EEXIST);
	cr_assert_eq(rename_to("a", "c", true, &a), 0);
	same_as_stat("c", &a);
	cr_assert_eq(rename_to("c", "b", false, &a), 0);
	holds("b", "1", 1);
	cr_assert_eq(rename_to("none", "b", false, &a), -ENOENT);
	cr_assert_eq(rename_to("b", "none/b", false, &a), -ENOENT);
	cr_assert_eq(rename_to("b", "d", false, &a), -EISDIR);
	cr_assert_eq(rename_to("d", "b", false, &a), -ENOTDIR);
	cr_assert_eq(rename_to("d", "full", false, &a), -ENOTEMPTY);
	cr_assert_eq(rename_to("d", "d/e/f", false, &a), -EINVAL);
	cr_assert_eq(rename_to("d", "d/e/f", true, &a), -EINVAL);
	cr_assert_eq(begin("empty/f", id), 0);
	cr_assert_eq(rename_to("d", "empty", false, &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	sh("test -d empty/e", "");
	cr_assert_eq(rename_to("l", "m", false, &a), -ENOENT);
	cr_assert_eq(rename_to("b", "l", false, &a), -EEXIST);
	sh("test -L l && test ! -e d", "");
}

Test(posix_write, attributes)
{
	struct ufs_set set = { .what = UFS_SET_MODE | UFS_SET_MTIME,
		.mode = 04711,
		.mtime = { 99, 100 } };
	struct ufs_attr a, b;
	struct stat st;

	sh("printf 1 > a && mkdir d && ln -s a l", "");
	cr_assert_eq(ufs_fix_stat(&f, "a", &b), 0);
	cr_assert_eq(setattr("a", &set, &a), 0);
	same_as_stat("a", &a);
	cr_assert(a.mode == 04711 && a.mtime.tv_sec == 99 && a.mtime.tv_nsec == 100);
	cr_assert_str_neq(a.version, b.version);
	cr_assert_eq(setattr("d", &set, &a), 0);
	cr_assert_eq(a.mode, 04711);
	cr_assert_eq(setattr("", &(struct ufs_set){ .what = UFS_SET_MODE, .mode = 0750 }, &a), 0);
	cr_assert_eq(stat(dir, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0750);
	cr_assert_eq(setattr("l", &set, &a), -ENOENT);
	cr_assert_eq(setattr("none", &set, &a), -ENOENT);
	if (geteuid() != 0)
		return;
	set = (struct ufs_set){ .what = UFS_SET_UID, .uid = 5 };
	cr_assert_eq(setattr("a", &set, &a), 0);
	cr_assert(a.uid == 5 && a.gid == 0 && a.mode == 0711, "as chown(2): set-id bits go");
	set = (struct ufs_set){
		.what = UFS_SET_GID | UFS_SET_MODE | UFS_SET_ATIME, .gid = 6, .mode = 06755
	};
	cr_assert_eq(setattr("a", &set, &a), 0);
	cr_assert(a.uid == 5 && a.gid == 6 && a.mode == 06755);
}

/* --- given up, and out of memory */

Test(posix_write, aborted_writes_leave_nothing)
{
	size_t len = 8 * POSIX_CHUNK;
	char *body = bytes(len, 1);
	struct ufs_attr a;

	cr_assert_eq(put_as("src", body, len, false, NULL, NULL, &a), 0);
	for (unsigned turns = 0; turns < 12; turns++) {
		struct ufs_put p = { .path = "f", .body = body, .len = len, .req = { .user = &f } };
		struct ufs_copy c = { .src = "src",
			.src_version = a.version,
			.size = len,
			.dst = "g",
			.req = { .user = &f } };
		struct ufs_multi_begin b = { .path = "h", .req = { .user = &f } };

		f.done = false;
		ufs_put(f.ufs, &p, ufs_fix_done);
		for (unsigned i = 0; i < turns && !f.done; i++)
			(void)loop_turn(f.loop, true);
		ufs_abort(&p.req);
		memset(body + len - 1, (int)turns, 1); /* ours again */
		f.done = false;
		ufs_copy(f.ufs, &c, ufs_fix_done);
		for (unsigned i = 0; i < turns % 3 && !f.done; i++)
			(void)loop_turn(f.loop, true);
		ufs_abort(&c.req);
		f.done = false;
		ufs_multi_begin(f.ufs, &b, ufs_fix_done);
		ufs_abort(&b.req);
	}
	while (pool_outstanding(f.pool) > 0)
		(void)loop_turn(f.loop, true);
	f.done = false;
	cr_assert_eq(temps(""), 0);
	free(body);
}

static int nomem_round(void)
{
	static const char *const paths[] = { "x", "y" };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;
	int errs[2], err, e;

	err = put("a", "abc", &a);
	if ((e = begin("b", id)) == 0) {
		e = part("b", id, &pi, 1, 0, "abc", 3);
		if (e == 0)
			e = part_of("b", id, &pi, 1, 0, 3, "a", a.version, 0);
		if (e == 0)
			e = end("b", id, &pi, 1, false, NULL, &a);
		if (e != 0)
			while (drop("b", id) != 0)
				;
	}
	err = err != 0 ? err : e;
	e = err == 0 ? copy("b", &a, "c", &a) : err;
	err = err != 0 ? err : e;
	{
		struct ufs_delete rq = {
			.req = { .user = &f }, .paths = paths, .n = 2, .errs = errs
		};

		ufs_delete(f.ufs, &rq, ufs_fix_done);
		ufs_fix_wait(&f);
		err = err != 0 ? err : f.err;
	}
	e = rename_to("a", "d", false, &a);
	return err != 0 ? err : e;
}

/* Allocations of the loop's thread; those of the pool's are few, and the same. */
Test(posix_write, out_of_memory)
{
	unsigned n;
	int err;

	for (n = 1;; n++) {
		nth_arm(n);
		err = nomem_round();
		if (!nth_fired())
			break;
		cr_assert(err == 0 || err == -ENOMEM || err == -ENOENT, "%u: %d", n, err);
		cr_assert_eq(temps(""), 0, "%u", n);
	}
	cr_assert_eq(err, 0);
	cr_assert_gt(n, 10);
}

/* --- other file systems, in a mount namespace of the test's own */

static bool mounts;

static void up_mounts(void)
{
	mounts = unshare(CLONE_NEWNS) == 0 &&
		 mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	up();
}

static void mount_at(const char *path, unsigned long flags, const char *options)
{
	cr_assert(mkdir(in_dir(path), 0755) == 0 || errno == EEXIST);
	cr_assert_eq(mount("none", in_dir(path), "tmpfs", flags, options), 0);
}

static void down_mounts(void)
{
	if (mounts) {
		(void)umount2(in_dir("m"), MNT_DETACH);
		(void)umount2(in_dir("n"), MNT_DETACH);
	}
	down();
}

TestSuite(posix_write_fs, .init = up_mounts, .fini = down_mounts);

Test(posix_write_fs, no_space)
{
	size_t len = 2 * POSIX_CHUNK;
	char *body = bytes(len, 1);
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "size=3m");
	cr_assert_eq(put_as("m/f", body, len, false, NULL, NULL, &a), 0);
	cr_assert_eq(put_as("m/f", body, len, false, NULL, NULL, NULL), -ENOSPC);
	same_as_stat("m/f", &a);
	holds("m/f", body, len);
	cr_assert_eq(copy("m/f", &a, "m/g", NULL), -ENOSPC);
	cr_assert_eq(temps("m"), 0);
	cr_assert_eq(begin("m/f", id), 0);
	cr_assert_eq(part("m/f", id, &pi, 1, 0, body, len), -ENOSPC);
	cr_assert_eq(drop("m/f", id), 0);
	cr_assert_eq(temps("m"), 0);
	/* Nothing of what failed is left to take the room. */
	cr_assert_eq(put_as("m/g", body, POSIX_CHUNK / 2, false, NULL, NULL, NULL), 0);
	free(body);
}

Test(posix_write_fs, read_only)
{
	static const char *const paths[] = { "m/f" };
	struct ufs_set set = { .what = UFS_SET_MODE, .mode = 0700 };
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;
	int errs[1];

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "");
	cr_assert_eq(put("m/f", "x", NULL), 0);
	cr_assert_eq(mount(NULL, in_dir("m"), NULL, MS_REMOUNT | MS_RDONLY | MS_BIND, NULL), 0);
	cr_assert_eq(put("m/f", "y", NULL), -EROFS);
	cr_assert_eq(begin("m/f", id), -EROFS);
	cr_assert_eq(mkdir_as("m/d", NULL, &a), -EROFS);
	cr_assert_eq(rename_to("m/f", "m/g", false, &a), -EROFS);
	cr_assert_eq(setattr("m/f", &set, &a), -EROFS);
	delete (paths, 1, errs);
	cr_assert_eq(errs[0], -EROFS);
	holds("m/f", "x", 1);
}

Test(posix_write_fs, across_file_systems)
{
	size_t len = 2 * POSIX_CHUNK + 3;
	char *body = bytes(len, 1);
	struct ufs_attr a, b;

	if (!mounts)
		cr_skip_test("mounting is not allowed here");
	mount_at("m", 0, "");
	mount_at("n", 0, "");
	cr_assert_eq(put_as("m/f", body, len, false, NULL, NULL, &a), 0);
	cr_assert_eq(copy("m/f", &a, "n/f", &b), 0);
	holds("n/f", body, len);
	cr_assert_eq(copy("m/f", &a, "f", &b), 0);
	holds("f", body, len);
	cr_assert_eq(rename_to("m/f", "n/g", false, &b), -EXDEV);
	cr_assert_eq(rmdir_of("m"), -EBUSY);
	free(body);
}

/* --- things that change below us */

Test(posix_write, directory_goes_while_written)
{
	size_t len = 4 * POSIX_CHUNK;
	char *body = bytes(len, 1);
	struct ufs_put p = { .path = "d/f", .body = body, .len = len, .req = { .user = &f } };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];

	sh("mkdir d", "");
	ufs_put(f.ufs, &p, ufs_fix_done);
	(void)loop_turn(f.loop, true);
	cr_assert(!f.done);
	sh("rm -rf d", "");
	ufs_fix_wait(&f);
	cr_assert_eq(f.err, -ENOENT);
	sh("mkdir d", "");
	cr_assert_eq(begin("d/f", id), 0);
	sh("rm -rf d", "");
	cr_assert_eq(part("d/f", id, &pi, 1, 0, "abc", 3), -ENOENT);
	strcpy(pi.etag, "x");
	cr_assert_eq(end("d/f", id, &pi, 1, false, NULL, NULL), -ENOENT);
	cr_assert_eq(drop("d/f", id), 0);
	free(body);
}

Test(posix_write, link_swapped_in)
{
	size_t len = 4 * POSIX_CHUNK;
	char *body = bytes(len, 1);
	struct ufs_put p = { .path = "d/f", .body = body, .len = len, .req = { .user = &f } };
	struct ufs_part_id pi;
	char id[UFS_UPLOAD_MAX];
	struct ufs_attr a;

	sh("mkdir d outside", "");
	cr_assert_eq(begin("d/g", id), 0);
	ufs_put(f.ufs, &p, ufs_fix_done);
	(void)loop_turn(f.loop, true);
	cr_assert(!f.done);
	/* It goes on in the directory that it began in. */
	sh("mv d e && ln -s outside d", "");
	ufs_fix_wait(&f);
	cr_assert_eq(f.err, 0);
	holds("e/f", body, len);
	cr_assert(part("d/g", id, &pi, 1, 0, "abc", 3) == -ENOENT);
	cr_assert(put("d/h", "x", NULL) == -ENOENT || f.err == -ENOTDIR);
	cr_assert(mkdir_as("d/h", NULL, &a) == -ENOENT || f.err == -ENOTDIR);
	cr_assert(rename_to("e/f", "d/h", false, &a) == -ENOENT || f.err == -ENOTDIR);
	sh("test -z \"$(ls -A outside)\"", "");
	free(body);
}

/* A put that hangs and was given up does not come back over a later one. */
static void hang(struct pool_job *job)
{
	int *pipe_fd = (int *)(void *)(job + 1);
	char c;

	job->result = (int)read(pipe_fd[0], &c, 1);
}

static void hang_done(struct pool_job *job)
{
	free(job);
}

Test(posix_write, late_writes_have_no_effect)
{
	struct posix *px = container_of(f.ufs, struct posix, ufs);
	int fds[2];

	cr_assert_eq(put("x", "before", NULL), 0);
	ufs_fix_set(&f, "ufs.timeout", "100ms");
	cr_assert_eq(pipe(fds), 0);
	for (unsigned i = 0; i < px->lanes->n; i++) {
		struct pool_job *job = calloc(1, sizeof(*job) + 2 * sizeof(int));

		memcpy(job + 1, fds, sizeof(fds));
		pool_submit(f.pool, &px->lanes->lane[i].lane, job, hang, hang_done);
	}
	cr_assert_eq(put("x", "late", NULL), -ETIMEDOUT);
	for (unsigned i = 0; i < px->lanes->n; i++)
		cr_assert_eq(write(fds[1], "x", 1), 1);
	while (pool_outstanding(f.pool) > 0)
		(void)loop_turn(f.loop, true);
	holds("x", "before", 6);
	cr_assert_eq(put("x", "after", NULL), 0);
	holds("x", "after", 5);
	close(fds[0]);
	close(fds[1]);
}

/* The same without openat2(), component by component. */
Test(posix_write, without_openat2)
{
	struct posix *px = container_of(f.ufs, struct posix, ufs);
	struct ufs_attr a;

	px->no_openat2 = true;
	sh("mkdir d && ln -s d l", "");
	cr_assert_eq(put("d/f", "x", &a), 0);
	same_as_stat("d/f", &a);
	cr_assert_eq(put("l/f", "x", NULL), -ENOTDIR);
	cr_assert_eq(mkdir_as("d/e", NULL, &a), 0);
	cr_assert_eq(rename_to("d/f", "d/e/f", true, &a), 0);
	holds("d/e/f", "x", 1);
}
