/* SPDX-License-Identifier: BSD-2-Clause */
/* Listings of directories whose names come and go, and of what only this mount has. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"
#include "meta_rig.h"
#include "ops/dir_page.h"
#include "ops/node.h"
#include "ops/session.h"

static struct rig r;

#define EACH_TIME "attr_timeout=0,entry_timeout=0"

static void begin(const char *opts)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, opts);
	fake_add(&r.ufs, "d", UFS_DIR, 0, "");
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(dir_merge, .fini = finish);

/* Lists "d" with small replies; what it does after so many names is the test's. */
struct listing {
	unsigned after;			       /* names */
	void (*between)(const char *dir); /* in the client; may be NULL */
	const char *want;		       /* names in any order, each followed by a blank */
};

static int check(char names[][32], unsigned n, const char *want)
{
	char word[40];
	unsigned i, k;
	const char *p;
	size_t len;

	for (i = 0; i < n; i++)
		for (k = 0; k < i; k++)
			if (strcmp(names[i], names[k]) == 0)
				return WRONG + 1; /* twice */
	for (p = want; *p != '\0'; p += len + 1) {
		len = strcspn(p, " ");
		snprintf(word, sizeof(word), "%.*s", (int)len, p);
		for (i = 0; i < n && strcmp(names[i], word) != 0; i++)
			;
		if (i == n)
			return WRONG + 2; /* missing */
		names[i][0] = '!';
	}
	for (i = 0; i < n; i++)
		if (names[i][0] != '!')
			return WRONG + 3; /* one too many */
	return 0;
}

struct linux_dirent64 {
	uint64_t ino, off;
	unsigned short len;
	unsigned char type;
	char name[];
};

static int c_list(const struct tmp_mount *tm, void *arg)
{
	const struct listing *l = arg;
	_Alignas(8) char buf[160];
	char names[64][32], dir[256];
	unsigned n = 0;
	bool did = false;
	long got;
	int fd;

	snprintf(dir, sizeof(dir), "%s", rig_at(tm, "d"));
	fd = open(dir, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return errno;
	while ((got = syscall(SYS_getdents64, fd, buf, sizeof(buf))) > 0) {
		for (long at = 0; at < got;) {
			struct linux_dirent64 *d = (void *)(buf + at);

			at += d->len;
			if (strcmp(d->name, ".") != 0 && strcmp(d->name, "..") != 0)
				snprintf(names[n++], sizeof(names[0]), "%s", d->name);
			if (n >= 64)
				return WRONG + 5;
		}
		if (!did && n >= l->after && l->between != NULL) {
			l->between(dir);
			did = true;
		}
	}
	if (got < 0)
		return errno;
	return check(names, n, l->want);
}

static void put_files(const char *const *names)
{
	char path[64];

	for (; *names != NULL; names++) {
		snprintf(path, sizeof(path), "d/%s", *names);
		fake_add(&r.ufs, path, UFS_FILE, 3, "v1");
	}
}

static const char *const six[] = {"a", "b", "c", "e", "f", "g", NULL};

/* Nodes as their operations leave them. */
static struct node bind(const char *path, const char *name, uint64_t parent, enum ufs_kind kind)
{
	struct ufs_attr a = {.kind = kind, .size = 3, .version = "v1"};
	struct node n;

	if (kind == UFS_DIR)
		a.version[0] = '\0';
	cr_assert_eq(node_bind(r.fs, parent, name, path, &a, &n), 0);
	node_count(r.fs, &n);
	return n;
}

Test(dir_merge, plain)
{
	struct listing l = {.want = "a b c e f g "};

	begin(EACH_TIME);
	put_files(six);
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
	r.ufs.page = 2;
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
}

static void unlink_f_g(const char *dir)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/f", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/g", dir);
	unlink(path);
}

/* The page with their names is in memory already. */
Test(dir_merge, unlinked_while_listed)
{
	struct listing l = {.after = 1, .between = unlink_f_g, .want = "a b c e "};

	begin(EACH_TIME);
	put_files(six);
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
}

/* All that is left of a page is gone, and there are more pages. */
static void unlink_rest_of_page(const char *dir)
{
	char path[300];
	const char *const *n;

	for (n = six + 1; n < six + 5; n++) {
		snprintf(path, sizeof(path), "%s/%s", dir, *n);
		unlink(path);
	}
}

Test(dir_merge, a_page_of_nothing)
{
	struct listing l = {.after = 1, .between = unlink_rest_of_page, .want = "a g "};

	begin(EACH_TIME);
	put_files(six);
	for (r.ufs.page = 1; r.ufs.page < 7; r.ufs.page++) {
		if (r.ufs.page > 1)
			put_files((const char *const[]){"b", "c", "e", "f", NULL});
		/* Replies of several names: the last one that was told stays told. */
		(void)rig_run(&r, c_list, &l);
	}
	r.ufs.page = 100;
	put_files((const char *const[]){"b", "c", "e", "f", NULL});
	l = (struct listing){.want = "a b c e f g "};
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
}

static void rename_f_z(const char *dir)
{
	char from[300], to[300];

	snprintf(from, sizeof(from), "%s/f", dir);
	snprintf(to, sizeof(to), "%s/0", dir);
	if (rename(from, to) != 0)
		_exit(WRONG + 8);
}

Test(dir_merge, renamed_while_listed)
{
	struct listing l = {.after = 1, .between = rename_f_z, .want = "a b c e g "};

	begin(EACH_TIME);
	put_files(six);
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
}

/* --- What only a session has */

static int c_hold(const struct tmp_mount *tm, void *arg)
{
	static const char *const names[] = {"d/a0", "d/c-", "d/z"};
	char c;
	int i, fd;

	for (i = 0; i < 3; i++) {
		fd = open(rig_at(tm, names[i]), O_CREAT | O_WRONLY, 0644);
		if (fd < 0 || write(fd, "12345", 5) != 5)
			return errno;
	}
	(void)!write(((int *)arg)[1], "x", 1);
	(void)!read(((int *)arg)[2], &c, 1);
	return 0;
}

static bool three_sessions(struct rig *rig, void *arg)
{
	(void)arg;
	return HASH_COUNT(rig->fs->sessions) == 3;
}

static int c_list_long(const struct tmp_mount *tm, void *arg)
{
	struct dirent *de;
	struct stat st;
	DIR *d = opendir(rig_at(tm, "d"));
	unsigned local = 0;

	(void)arg;
	if (d == NULL)
		return errno;
	while ((de = readdir(d)) != NULL) {
		if (de->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(d), de->d_name, &st, 0) != 0)
			return errno;
		if (st.st_ino != de->d_ino)
			return WRONG;
		if (st.st_size == 5)
			local++;
	}
	closedir(d);
	return local == 3 ? 0 : WRONG + 1;
}

Test(dir_merge, files_that_only_sessions_have)
{
	struct listing l = {.want = "a a0 b c c- e f g z "};
	int up[2], down[2], fds[3];
	pid_t pid;

	begin(EACH_TIME);
	cr_assert(pipe(up) == 0 && pipe(down) == 0);
	fds[1] = up[1];
	fds[2] = down[0];
	put_files(six);
	pid = rig_start(&r, c_hold, fds);
	rig_until(&r, three_sessions, NULL);
	for (r.ufs.page = 1; r.ufs.page < 8; r.ufs.page++)
		cr_assert_eq(rig_run(&r, c_list, &l), 0, "pages of %u", r.ufs.page);
	r.ufs.page = 100;
	cr_assert_eq(rig_run(&r, c_list_long, NULL), 0);
	cr_assert_eq(write(down[1], "x", 1), 1);
	cr_assert_eq(rig_wait(&r, pid), 0);
	while (r.fs->sessions != NULL || r.fs->nwork > 0)
		loop_turn(r.loop, true);
	/* From the storage now, and each once. */
	for (r.ufs.page = 1; r.ufs.page < 8; r.ufs.page++)
		cr_assert_eq(rig_run(&r, c_list, &l), 0, "pages of %u", r.ufs.page);
}

/* --- A change while the page is on its way */

struct way {
	pid_t pid;
	struct node d;
};

/* The storage has answered before the change, the answer comes after it. */
static struct way page_on_its_way(struct listing *l)
{
	struct way w;

	cr_assert_eq(rig_run(&r, rig_stat, (void *)"d/a"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "d", &w.d), 0);
	r.ufs.stall = true;
	w.pid = rig_start(&r, c_list, l);
	while (r.ufs.lists == 0) {
		rig_until_waiting(&r, 1);
		if (r.ufs.lists == 0)
			fake_release_one(&r.ufs);
	}
	return w;
}

Test(dir_merge, dropped_while_the_page_comes)
{
	struct listing l = {.want = "a b c e g "};
	struct way w;
	struct node f;

	begin("attr_timeout=60,entry_timeout=60");
	put_files(six);
	w = page_on_its_way(&l);
	f = bind("d/f", "f", w.d.id, UFS_FILE);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

Test(dir_merge, made_while_the_page_comes)
{
	struct ufs_attr a = {.kind = UFS_FILE, .size = 3, .version = "v1"};
	struct listing l = {.want = "a b c e f g h sub "};
	struct way w;
	struct node n;

	begin("attr_timeout=60,entry_timeout=60");
	put_files(six);
	w = page_on_its_way(&l);
	cr_assert_eq(node_make(r.fs, w.d.id, "h", "d/h", &a, false, &n), 0);
	a = (struct ufs_attr){.kind = UFS_DIR};
	cr_assert_eq(node_make(r.fs, w.d.id, "sub", "d/sub", &a, false, &n), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

Test(dir_merge, dropped_and_made_again_while_the_page_comes)
{
	struct ufs_attr a = {.kind = UFS_FILE, .size = 3, .version = "v1"};
	struct listing l = {.want = "a b c e f g "};
	struct way w;
	struct node f, n;

	begin("attr_timeout=60,entry_timeout=60");
	put_files(six);
	w = page_on_its_way(&l);
	f = bind("d/f", "f", w.d.id, UFS_FILE);
	cr_assert_eq(node_drop_name(r.fs, f.id), 0);
	cr_assert_eq(node_make(r.fs, w.d.id, "f", "d/f", &a, false, &n), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

Test(dir_merge, directory_renamed_while_the_page_comes)
{
	struct listing l = {.want = "x y "};
	struct way w;

	begin("attr_timeout=60,entry_timeout=60");
	put_files(six);
	fake_add(&r.ufs, "d2/x", UFS_FILE, 1, "v");
	fake_add(&r.ufs, "d2/y", UFS_FILE, 1, "v");
	w = page_on_its_way(&l);
	cr_assert_eq(node_move(r.fs, w.d.id, NODE_ROOT, "d2"), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

/* Made, and forgotten by the kernel again, before the page comes. */
Test(dir_merge, made_and_forgotten_while_the_page_comes)
{
	struct ufs_attr a = {.kind = UFS_FILE, .size = 3, .version = "v1"};
	struct listing l = {.want = "a b c e f g h "};
	struct way w;
	struct node n;

	begin("attr_timeout=60,entry_timeout=60");
	put_files(six);
	w = page_on_its_way(&l);
	cr_assert_eq(node_make(r.fs, w.d.id, "h", "d/h", &a, false, &n), 0);
	node_count(r.fs, &n);
	cr_assert_eq(node_forget(r.fs, n.id, 1), 0);
	cr_assert_eq(node_make(r.fs, w.d.id, "b", "d/b", &a, false, &n), 0);
	node_count(r.fs, &n);
	cr_assert_eq(node_forget(r.fs, n.id, 1), 0);
	fake_release(&r.ufs);
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

/* --- Attributes and existence */

static int c_modes(const struct tmp_mount *tm, void *arg)
{
	struct dirent *de;
	struct stat st;
	DIR *d = opendir(rig_at(tm, "d"));

	(void)arg;
	if (d == NULL)
		return errno;
	while ((de = readdir(d)) != NULL) {
		if (de->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(d), de->d_name, &st, 0) != 0)
			return errno;
		if ((st.st_mode & 0777) != (strchr("bf", de->d_name[0]) != NULL ? 0604 : 0644))
			return WRONG;
	}
	closedir(d);
	return 0;
}

Test(dir_merge, records_are_in_the_entries)
{
	struct meta_record rec = {.kind = META_FILE, .has = META_HAS_MODE, .mode = 0604};
	unsigned stats;

	begin("attr_timeout=60,entry_timeout=60");
	r.fs->file_mode = 0644;
	put_files(six);
	meta_rig_put(&r, "d/b", &rec);
	meta_rig_put(&r, "d/f", &rec);
	meta_rig_put(&r, "d/not there", &rec);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)"d"), 0);
	stats = r.ufs.stats;
	cr_assert_eq(rig_run(&r, c_modes, NULL), 0);
	cr_assert_eq(r.ufs.stats, stats, "the listing said it all");
	for (r.ufs.page = 1; r.ufs.page < 4; r.ufs.page++)
		cr_assert_eq(rig_run(&r, c_modes, NULL), 0);
}

Test(dir_merge, marked_directory_is_empty)
{
	struct listing l = {.want = ""};
	struct ufs_attr a = {.kind = UFS_DIR};
	struct node n;

	begin("attr_timeout=60,entry_timeout=60");
	fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "d"));
	cr_assert_eq(node_make(r.fs, NODE_ROOT, "d", "d", &a, false, &n), 0);
	node_count(r.fs, &n);
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
}

/* --- Persisted while the page is on its way */

static void record_of(const char *path, unsigned n, enum meta_state state)
{
	struct meta_record rec = {.kind = META_FILE,
	    .has = META_HAS_CONTENT,
	    .content = {.policy = META_POLICY_TRANSIENT,
		.state = (uint8_t)state,
		.id = META_CONTENT_BIT | n,
		.size = 3}};

	if (state == META_STATE_PERSISTED)
		memcpy(rec.version, "v1", 3);
	meta_rig_put(&r, path, &rec);
}

struct object {
	struct deferred run;
	const char *path;
};

static void object_made(struct deferred *d)
{
	fake_add(&r.ufs, container_of(d, struct object, run)->path, UFS_FILE, 3, "v1");
}

/* The storage answers, then it gets the object; the record is read after both, be it here
 * that it was persisted or elsewhere. */
static void persist_behind_the_listing(struct object *o, const char *path)
{
	record_of(path, 1, META_STATE_PERSISTED);
	fake_release(&r.ufs);
	o->path = path;
	loop_defer(r.loop, &o->run, object_made);
}

Test(dir_merge, persisted_while_the_page_comes)
{
	struct listing l = {.want = "a b c d e f g z "};
	struct object o = {0};
	struct way w;

	begin(EACH_TIME);
	put_files(six);
	record_of("d/d", 1, META_STATE_TRANSIENT);
	record_of("d/z", 2, META_STATE_TRANSIENT);
	for (r.ufs.page = 1; r.ufs.page < 8; r.ufs.page++) {
		r.ufs.lists = 0;
		w = page_on_its_way(&l);
		persist_behind_the_listing(&o, "d/d");
		cr_assert_eq(rig_wait(&r, w.pid), 0, "pages of %u", r.ufs.page);
		fake_store_remove(&r.ufs.store, fake_find(&r.ufs, "d/d"));
		record_of("d/d", 1, META_STATE_TRANSIENT);
	}
}

/* All that made a directory one. */
Test(dir_merge, directory_persisted_while_the_page_comes)
{
	struct listing l = {.want = "a b bb c e f g "};
	struct object o = {0};
	struct way w;

	begin(EACH_TIME);
	put_files(six);
	record_of("d/bb/x", 1, META_STATE_TRANSIENT);
	w = page_on_its_way(&l);
	persist_behind_the_listing(&o, "d/bb/x");
	cr_assert_eq(rig_wait(&r, w.pid), 0);
}

/* Deleted there by somebody else: it is asked for once more a page, and is not told. */
Test(dir_merge, persisted_and_deleted_behind_our_back)
{
	struct listing l = {.want = "a b c e f g z "};
	unsigned lists;

	begin(EACH_TIME);
	put_files(six);
	record_of("d/d", 1, META_STATE_PERSISTED);
	record_of("d/h", 2, META_STATE_PERSISTED);
	record_of("d/y/x", 3, META_STATE_PERSISTED);
	record_of("d/z", 4, META_STATE_TRANSIENT);
	for (r.ufs.page = 1; r.ufs.page < 9; r.ufs.page++)
		cr_assert_eq(rig_run(&r, c_list, &l), 0, "pages of %u", r.ufs.page);
	lists = r.ufs.lists;
	cr_assert_eq(rig_run(&r, c_list, &l), 0);
	cr_assert_eq(r.ufs.lists, lists + 2);
}
