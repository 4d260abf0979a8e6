/* SPDX-License-Identifier: BSD-2-Clause */
/* file:// on a temporary tree. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ufs/posix_priv.h"
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
	ufs_fix_limit();
	char text[128];

	strcpy(dir, "/tmp/ufs-posix-XXXXXX");
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

TestSuite(posix, .init = up, .fini = down);

static void attributes(void)
{
	struct ufs_attr a;
	int err;

	cr_assert_eq(ufs_fix_stat(&f, "", &a), 0);
	cr_assert_eq(a.kind, UFS_DIR);
	cr_assert_eq(ufs_fix_stat(&f, "d/f", &a), 0);
	cr_assert(a.kind == UFS_FILE && a.size == 6 && a.have_mode && a.mode == 0640);
	cr_assert_neq(a.version[0], '\0');
	cr_assert_eq(ufs_fix_stat(&f, "none", &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, "d/f/x", &a), -ENOTDIR);
	cr_assert_eq(ufs_fix_stat(&f, "link", &a), -ENOENT);
	err = ufs_fix_stat(&f, "link/passwd", &a); /* a walk sees only "no directory" */
	cr_assert(err == -ENOENT || err == -ENOTDIR, "%d", err);
	cr_assert_eq(ufs_fix_stat(&f, "inside", &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, "fifo", &a), -ENOENT);
	cr_assert_eq(ufs_fix_stat(&f, "../etc", &a), -EINVAL);
}

Test(posix, stat)
{
	sh("mkdir d && printf 'abcdef' > d/f && chmod 640 d/f && ln -s /etc link && ln -s d inside "
	   "&& mkfifo fifo",
	    "");
	attributes();
}

Test(posix, stat_without_openat2)
{
	struct posix *px = container_of(f.ufs, struct posix, ufs);

	sh("mkdir d && printf 'abcdef' > d/f && chmod 640 d/f && ln -s /etc link && ln -s d inside "
	   "&& mkfifo fifo",
	    "");
	px->no_openat2 = true;
	attributes();
}

Test(posix, read_pins_the_version)
{
	struct ufs_attr a, b;
	size_t len = 3 * POSIX_CHUNK + 17;

	sh("head -c 3145745 /dev/urandom > big && cp big copy", "");
	cr_assert_eq(ufs_fix_stat(&f, "big", &a), 0);
	cr_assert_eq(a.size, len);
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, 0, len), 0);
	cr_assert_eq(f.data_len, len);
	sh("test -s big", "");
	{
		char path[128];
		FILE *o;

		(void)snprintf(path, sizeof(path), "%s/got", dir);
		o = fopen(path, "w");
		cr_assert_eq(fwrite(f.data, 1, f.data_len, o), len);
		fclose(o);
	}
	sh("cmp got copy", "");
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, len - 5, 6), -EIO);
	f.abort_at = 1;
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, 0, len), -ECANCELED);
	f.abort_at = 0;
	sh("printf x | dd of=big conv=notrunc bs=1 status=none", "");
	cr_assert_eq(ufs_fix_read(&f, "big", a.version, 0, 5), -ESTALE);
	cr_assert_eq(ufs_fix_stat(&f, "big", &b), 0);
	cr_assert_str_neq(a.version, b.version);
	cr_assert_eq(ufs_fix_read(&f, "big", b.version, 0, 5), 0);
	sh("mv copy big", "");
	cr_assert_eq(ufs_fix_read(&f, "big", b.version, 0, 5), -ESTALE);
	sh("rm big && mkfifo big", "");
	cr_assert_eq(ufs_fix_read(&f, "big", b.version, 0, 5), -ESTALE, "and it must not block");
	sh("rm big", "");
	cr_assert_eq(ufs_fix_read(&f, "big", b.version, 0, 5), -ESTALE);
}

Test(posix, list_in_key_order_over_pages)
{
	struct ufs_list rq = { .path = "" };
	size_t got = 0, pages = 0;
	char last[256] = "";
	enum ufs_kind last_kind = UFS_FILE;

	/* A directory `a` sorts behind `a-b`; more names than a page holds. */
	sh("seq -f 'f%.0f' 1 9000 | xargs touch && mkdir a f1 2>/dev/null; mkdir a-d 'f5d' && "
	   "touch "
	   "a-b a.txt a0 && ln -s a0 sym && mkfifo ff",
	    "");
	do {
		cr_assert_eq(ufs_fix_list(&f, &rq), 0);
		cr_assert(rq.exists);
		for (size_t i = 0; i < rq.count; i++, got++) {
			const struct ufs_entry *e = &rq.entries[i];

			cr_assert(*last == '\0' || ufs_key_cmp(last, strlen(last), last_kind,
						       e->name, e->name_len, e->attr.kind) < 0);
			strcpy(last, e->name);
			last_kind = e->attr.kind;
		}
		rq.after = last;
		rq.after_kind = last_kind;
		pages++;
	} while (rq.more);
	cr_assert_eq(got, 9000 + 6);
	cr_assert_eq(pages, 3);
	cr_assert_eq(ufs_fix_counter(&f, CTR_UFS_HIDDEN), 2);
	ufs_list_free(&rq);
	rq.path = "none";
	rq.after = NULL;
	cr_assert_eq(ufs_fix_list(&f, &rq), -ENOENT);
}

static void page_after(struct ufs_list *rq, char *last)
{
	cr_assert_gt(rq->count, 0);
	strcpy(last, rq->entries[rq->count - 1].name);
	rq->after = last;
	rq->after_kind = rq->entries[rq->count - 1].attr.kind;
	cr_assert_eq(ufs_fix_list(&f, rq), 0);
}

/* Names are scanned once for many pages; what went meanwhile is left out. */
Test(posix, list_goes_on_where_it_was)
{
	struct ufs_list rq = { .path = "d" };
	struct ufs_attr a;
	char last[256];

	sh("mkdir d e && cd d && seq -f '%05.0f' 0 69999 | xargs touch", "");
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert(rq.count == POSIX_PAGE && rq.cursor != NULL);
	sh("cd d && rm 04096 05000 && mkdir 05000", "");
	page_after(&rq, last);
	cr_assert_eq(rq.count, POSIX_PAGE - 2);
	cr_assert_str_eq(rq.entries[0].name, "04097");
	for (unsigned i = 2; i < 16; i++)
		page_after(&rq, last);
	cr_assert_str_eq(rq.entries[POSIX_PAGE - 1].name, "65535");
	/* Here the second scan begins, of what there is now. */
	cr_assert(rq.more && rq.cursor == NULL);
	sh("rm d/65537", "");
	page_after(&rq, last);
	cr_assert_str_eq(rq.entries[1].name, "65538");
	/* From elsewhere than where it was, or in another directory, it is looked at again. */
	strcpy(last, "04095");
	rq.after = last;
	rq.after_kind = UFS_FILE;
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert_str_eq(rq.entries[0].name, "04097");
	strcpy(last, rq.entries[rq.count - 1].name);
	rq.path = "e";
	cr_assert_eq(ufs_fix_list(&f, &rq), 0);
	cr_assert(rq.count == 0 && !rq.more);
	ufs_list_free(&rq);
	cr_assert_eq(ufs_fix_stat(&f, "d/05000", &a), 0);
}

Test(posix, check_and_space)
{
	struct ufs_statfs sf = { .req = { .user = &f } };
	char words[1024];
	struct ufs_attr a;

	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), 0);
	ufs_statfs(f.ufs, &sf, ufs_fix_done);
	ufs_fix_wait(&f);
	cr_assert_eq(f.err, 0);
	cr_assert_gt(sf.space.total, sf.space.free);
	/* Another directory in its place is not an empty storage. */
	sh("touch x; mv \"$PWD\" \"$PWD.old\" && mkdir \"$OLDPWD\" 2>/dev/null; mkdir -p ", dir);
	cr_assert_eq(ufs_fix_stat(&f, "x", &a), -EIO);
	sh("rm -rf ", "\"$PWD.old\"; rmdir \"$PWD\"");
	cr_assert_eq(ufs_fix_stat(&f, "x", &a), -EIO);
	cr_assert_eq(ufs_fix_check(&f, words, sizeof(words)), -ENOENT);
	cr_assert_not_null(strstr(words, dir), "%s", words);
}

/* --- a thread that hangs */

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

Test(posix, answers_in_time_when_threads_hang)
{
	struct posix *px = container_of(f.ufs, struct posix, ufs);
	struct ufs_attr a;
	int fds[2];

	sh("printf 1 > x", "");
	ufs_fix_set(&f, "ufs.timeout", "100ms");
	cr_assert_eq(pipe(fds), 0);
	for (unsigned i = 0; i < px->lanes->n; i++) {
		struct pool_job *job = calloc(1, sizeof(*job) + 2 * sizeof(int));

		memcpy(job + 1, fds, sizeof(fds));
		pool_submit(f.pool, &px->lanes->lane[i].lane, job, hang, hang_done);
	}
	cr_assert_eq(ufs_fix_stat(&f, "x", &a), -ETIMEDOUT);
	for (unsigned i = 0; i < px->lanes->n; i++)
		cr_assert_eq(write(fds[1], "x", 1), 1);
	while (pool_outstanding(f.pool) > 0)
		(void)loop_turn(f.loop, true);
	cr_assert_eq(ufs_fix_stat(&f, "x", &a), 0);
	close(fds[0]);
	close(fds[1]);
}
