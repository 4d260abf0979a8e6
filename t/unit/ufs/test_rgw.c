/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The same code against a real S3 server.  Runs only if BATONFS_TEST_S3 is set:
 *
 *	t/lib/rgw.sh start /tmp/rgw && . /tmp/rgw/env
 *	BATONFS_TEST_S3=$RGW_ENDPOINT .../unit-ufs --filter 'rgw[/]*'
 *	t/lib/rgw.sh stop /tmp/rgw
 *
 * in the top of the source tree (or with srcdir set to it).
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ufs/ufs_page.h"
#include "rgw_fix.h"

static struct ufs_fix f;

static void up(void)
{
	rgw_fix_up(&f);
}

static void down(void)
{
	rgw_fix_down(&f);
}

TestSuite(rgw, .init = up, .fini = down);

static const char *const hostile[] = { " ", " lead", "trail ", "a b", "a?b", "a\\b", "a%20b", "a%",
	"a+b", "a&b", "a=b", "a#b", "a;b", "a'b", "a\"b", "<a>", "a\nb", "a\tb", "~a", "a*b", "[a]",
	"a:b", "a@b", "$a", "...", ".a", "\xc3\xa9", "\xe6\x97\xa5\xe6\x9c\xac",
	"\xf0\x9f\x90\xa7", "e\xcc\x81", "\x7f" };

static int name_cmp(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

Test(rgw, hostile_names)
{
	const char *names[sizeof(hostile) / sizeof(hostile[0]) + 1];
	size_t n = sizeof(hostile) / sizeof(hostile[0]);
	struct ufs_list rq = { .path = "h" };
	char longname[256], key[300];
	struct ufs_attr a;

	if (!rgw_fix_wanted())
		return;
	memset(longname, 'n', 255);
	longname[255] = '\0';
	memcpy(names, hostile, sizeof(hostile));
	names[n++] = longname;
	for (size_t i = 0; i < n; i++) {
		(void)snprintf(key, sizeof(key), "top/h/%s", names[i]);
		rgw_fix_s3put("put", rgw_fix.bucket, key, rgw_fix_file("x", names[i], strlen(names[i])));
	}
	qsort(names, n, sizeof(*names), name_cmp);
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert_eq(rq.count, n);
	for (size_t i = 0; i < n; i++) {
		const struct ufs_entry *e = &rq.entries[i];

		cr_assert_str_eq(e->name, names[i]);
		(void)snprintf(key, sizeof(key), "h/%s", names[i]);
		cr_assert_eq(ufs_fix_stat(&f, key, &a), 0, "%s", names[i]);
		cr_assert_eq(a.size, strlen(names[i]));
		cr_assert_str_eq(a.version, e->attr.version);
		cr_assert_eq(a.mtime.tv_sec, e->attr.mtime.tv_sec);
		cr_assert_eq(ufs_fix_read(&f, key, a.version, 0, a.size), 0, "%s", names[i]);
		cr_assert(memcmp(f.data, names[i], a.size) == 0);
	}
	ufs_list_free(&rq);
}

static size_t count_all(const char *path, bool forget)
{
	struct ufs_list rq = { .path = path };
	char last[256] = "";
	enum ufs_kind kind = UFS_FILE;
	size_t n = 0;

	do {
		cr_assert_eq(ufs_fix_list(&f, &rq), 0);
		for (size_t i = 0; i < rq.count; i++, n++) {
			const struct ufs_entry *e = &rq.entries[i];

			cr_assert(*last == '\0' || ufs_key_cmp(last, strlen(last), kind, e->name,
						       e->name_len, e->attr.kind) < 0,
			    "%s after %s", e->name, last);
			strcpy(last, e->name);
			kind = e->attr.kind;
		}
		rq.after = last;
		rq.after_kind = kind;
		if (forget)
			ufs_list_free(&rq);
		else
			cr_assert(!rq.more || rq.cursor != NULL);
		if (forget && n == 0)
			break;
		if (forget) {
			struct ufs_list again = { .path = path, .after = last, .after_kind = kind };

			cr_assert_eq(ufs_fix_list(&f, &again), 0);
			rq.more = again.count > 0 || again.more;
			ufs_list_free(&again);
		}
	} while (rq.more);
	ufs_list_free(&rq);
	return n;
}

Test(rgw, many_names_directories_and_shadows)
{
	struct ufs_attr a;
	char cmd[512];

	if (!rgw_fix_wanted())
		return;
	/* 2500 files f-…, 300 directories; `f-1` is hidden by f-1/ pages later. */
	(void)snprintf(cmd, sizeof(cmd),
	    "cd %s && mkdir -p up/top/m && cd up/top/m && seq -f 'f-%%.0f' 2 2501 | xargs touch && "
	    "for i in $(seq 300); do mkdir d$i && : > d$i/x; done",
	    rgw_fix.dir);
	cr_assert_eq(system(cmd), 0);
	(void)snprintf(cmd, sizeof(cmd), "%s/up", rgw_fix.dir);
	rgw_fix_s3put("many", rgw_fix.bucket, cmd, NULL);
	rgw_fix_s3put("put", rgw_fix.bucket, "top/m/f-", rgw_fix_file("x", "", 0));
	rgw_fix_s3put("put", rgw_fix.bucket, "top/m/f-/below", rgw_fix_file("x", "", 0));
	rgw_fix_s3put("put", rgw_fix.bucket, "top/m/", rgw_fix_file("x", "", 0));
	size_t n = count_all("m", false);
	cr_assert_eq(n, 2500 + 300 + 1, "%zu", n);
	cr_assert_eq(count_all("m", true), 2500 + 300 + 1);
	cr_assert_geq(ufs_fix_counter(&f, CTR_UFS_HIDDEN), 1);
	cr_assert_eq(ufs_fix_stat(&f, "m/f-", &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(ufs_fix_stat(&f, "m/d7", &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(ufs_fix_stat(&f, "m/d", &a), -ENOENT);
	struct ufs_list none = { .path = "nowhere" };
	cr_assert_eq(ufs_fix_list(&f, &none), 0);
	cr_assert(!none.exists && none.count == 0 && !none.more);
	ufs_list_free(&none);
}

Test(rgw, contents)
{
	size_t len = 100u << 20, part = 8u << 20;
	struct ufs_attr a;
	char cmd[512], path[128];
	char *want;
	int fd;

	if (!rgw_fix_wanted())
		return;
	(void)snprintf(path, sizeof(path), "%s/big", rgw_fix.dir);
	(void)snprintf(cmd, sizeof(cmd), "head -c %zu /dev/urandom > %s", len, path);
	cr_assert_eq(system(cmd), 0);
	rgw_fix_s3put("put", rgw_fix.bucket, "top/big", path);
	fd = open(path, O_RDONLY);
	want = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(want, MAP_FAILED);
	cr_assert_eq(ufs_fix_stat(&f, "big", &a), 0);
	cr_assert_eq(a.size, len);
	for (size_t off = 0; off < len; off += part) {
		size_t n = len - off < part ? len - off : part;

		cr_assert_eq(ufs_fix_read(&f, "big", a.version, off, n), 0);
		cr_assert(f.data_len == n && memcmp(f.data, want + off, n) == 0, "at %zu", off);
	}
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, len - 1, 1), 0);
	cr_assert_eq(f.data[0], want[len - 1]);
	munmap(want, len);
	close(fd);

	rgw_fix_s3put("put", rgw_fix.bucket, "top/big", rgw_fix_file("x", "other", 5));
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, 0, 5), -ESTALE);
	rgw_fix_s3put("delete", rgw_fix.bucket, "top/big", NULL);
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, 0, 5), -ESTALE);
	cr_assert_eq(ufs_fix_stat(&f, "big", &a), -ENOENT);

	rgw_fix_s3put("put", rgw_fix.bucket, "top/empty", rgw_fix_file("x", "", 0));
	cr_assert_eq(ufs_fix_stat(&f, "empty", &a), 0);
	cr_assert_eq(a.size, 0);
	cr_assert_eq(ufs_fix_read(&f, "empty", a.version, 0, 0), 0);
}

Test(rgw, refusals)
{
	char words[1024];

	if (!rgw_fix_wanted())
		return;
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), 0, "%s", words);
	ufs_free(&f.ufs);
	ufs_fix_attach(&f, "s3://no-such-bucket-here");
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -ENOENT);
	cr_assert_not_null(strstr(words, "NoSuchBucket"), "%s", words);
	ufs_free(&f.ufs);
	setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
	ufs_fix_attach(&f, rgw_fix.uri);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -EACCES);
	cr_assert_not_null(strstr(words, "SignatureDoesNotMatch"), "%s", words);
}
