/* SPDX-License-Identifier: BSD-2-Clause */
/* One call on the tested directory and on the reference, and what they answer. */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "model.h"

static const struct {
	const char *what, *why;
} left_out[] = {
	{ "open for writing of a file that is open for writing",
	    "a second writer gets EBUSY; such steps are left out (two descriptors of one "
	    "open are not)" },
	{ "O_TRUNC with O_RDONLY", "POSIX leaves it open what that does" },
	{ "st_dev, st_ino", "are another tree's; that st_ino stays the same while a file is open "
			    "is checked" },
	{ "st_blocks, st_blksize", "tell of the disk below, which is another" },
	{ "st_size, st_nlink, st_mtime of directories", "are the file system's own affair" },
	{ "st_atime, st_ctime", "reading does not change the atime (noatime); the ctime is a clock's" },
	{ "st_mtime after a write", "is a clock's; one that was set and still holds is compared" },
	{ "where holes begin and end", "blocks and pages differ; that SEEK_HOLE and SEEK_DATA "
				       "tell nothing untrue is checked" },
	{ "fallocate() that is EOPNOTSUPP", "is not there for every mode; the reference is left "
					    "alone then" },
	{ "mmap(MAP_SHARED, PROT_WRITE) that is ENODEV", "the kernel allows it or not; the "
							 "reference is left alone then" },
	{ "fchmod(), futimens() of a directory that is open and removed, if ESTALE",
	    "there is nothing left that would keep it; the reference is left alone then" },
	{ "EEXIST or ENOTEMPTY", "are both right for a directory that is not empty" },
	{ "the order of readdir()", "names and kinds are compared, sorted" },
	{ "O_DIRECT, locks, links, special files, extended attributes, set-id bits", "have tests "
										     "of their own" },
};

void model_print_left_out(void)
{
	(void)printf("\nLeft out of the comparison:\n");
	for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
		(void)printf("  %s\n      %s\n", left_out[i].what, left_out[i].why);
}

struct tree {
	const char *name;
	int root;
	int fd[MODEL_SLOTS];
	ino_t ino[MODEL_SLOTS];
};

struct got {
	long ret;
	int err;
	bool have_st;
	struct stat st;
	char *buf; /* bytes read, or names */
	size_t len;
};

static struct tree trees[2]; /* the tested one first */
static bool is_dir[MODEL_SLOTS];
static char *buffers[3]; /* what each tree gave, and bytes to write */

/* --- bytes */

static const char *bytes_of(uint64_t seed, size_t len)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

	for (size_t i = 0; i < len; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		buffers[2][i] = (char)((x >> 56) | 1); /* never what a hole has */
	}
	return buffers[2];
}

static ssize_t read_all(int fd, char *buf, size_t len, off_t off)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = off < 0 ? read(fd, buf + got, len - got)
				    : pread(fd, buf + got, len - got, off + (off_t)got);

		if (n < 0)
			return got > 0 ? (ssize_t)got : -1;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

/* --- calls that need more than a line */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static long do_readdir(const struct tree *t, const char *path, struct got *g)
{
	int fd = openat(t->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *names[256], *end = g->buf;
	struct dirent *de;
	size_t n = 0;
	DIR *d;

	if (fd < 0)
		return -1;
	d = fdopendir(fd);
	errno = 0;
	while ((de = readdir(d)) != NULL && n < 256)
		if (de->d_name[0] != '.' && asprintf(&names[n++], "%s %c", de->d_name,
						de->d_type == DT_DIR   ? 'd'
						: de->d_type == DT_REG ? 'f'
								       : '?') < 0)
			err(2, "memory");
	if (de == NULL && errno != 0) {
		(void)closedir(d);
		return -1;
	}
	(void)closedir(d);
	qsort(names, n, sizeof(names[0]), by_name);
	for (size_t i = 0; i < n; i++) {
		end = stpcpy(stpcpy(end, names[i]), "\n");
		free(names[i]);
	}
	g->len = (size_t)(end - g->buf);
	return (long)n;
}

/* Does what SEEK_HOLE or SEEK_DATA says agree with the bytes? */
static long do_seek(int fd, off_t off, int whence, struct got *g)
{
	off_t at, size = lseek(fd, 0, SEEK_END), zeros;
	char *buf = buffers[2];
	ssize_t n;

	at = lseek(fd, off, whence);
	if (at < 0 && errno == ENXIO && off < size && whence == SEEK_DATA)
		at = size; /* a hole up to the end */
	if (at < 0)
		return -1;
	if (at < off || at > size)
		return 1000000 + at; /* a lie, which the reference does not tell */
	zeros = whence == SEEK_DATA && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_WRONLY ? at : off;
	for (off_t o = off; o < zeros; o += n) {
		off_t len = zeros - o < 65536 ? zeros - o : 65536;

		n = read_all(fd, buf, (size_t)len, o);
		if (n <= 0)
			return -1;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != 0)
				return 2000000 + o + i;
	}
	(void)lseek(fd, off, SEEK_SET); /* it has left them at different places */
	g->ret = 0;
	return off < size ? 0 : 1;
}

static long do_mmap(int fd, const struct model_step *st, bool write, struct got *g)
{
	size_t len = st->len, off = st->off;
	struct stat s;
	char *p;
	long r;

	if (fstat(fd, &s) != 0)
		return -1;
	if (s.st_size == 0 || off >= (size_t)s.st_size)
		return 0;
	if (len > (size_t)s.st_size - off)
		len = (size_t)s.st_size - off;
	p = mmap(NULL, (size_t)s.st_size, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
	    fd, 0);
	if (p == MAP_FAILED)
		return -1;
	if (write) {
		memcpy(p + off, bytes_of(st->seed, len), len);
		r = msync(p, (size_t)s.st_size, MS_SYNC);
	} else {
		memcpy(g->buf, p + off, len);
		g->len = len;
		r = (long)len;
	}
	(void)munmap(p, (size_t)s.st_size);
	return r;
}

/* What another process with the same descriptors does, and its end. */
static long do_fork(int fd, const struct model_step *st, const char *bytes)
{
	long *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid;
	long r;

	if (shared == MAP_FAILED)
		err(2, "mmap");
	pid = fork();
	if (pid < 0)
		err(2, "fork");
	if (pid == 0) {
		if (fd >= 0) {
			shared[0] = write(fd, bytes, st->len);
			shared[1] = errno;
		}
		/* Closed one by one, as by programs: each close is a flush. */
		for (unsigned i = 0; i < MODEL_SLOTS; i++)
			for (unsigned k = 0; k < 2; k++)
				if (trees[k].fd[i] >= 0 && close(trees[k].fd[i]) != 0)
					shared[2] = errno;
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0)
		errx(2, "a child ended with %d", status);
	r = shared[0];
	if (r < 0)
		errno = (int)shared[1];
	if (shared[2] != 0) {
		r = -1;
		errno = (int)shared[2];
	}
	(void)munmap(shared, 4096);
	return r;
}

static void times_of(uint64_t seed, struct timespec ts[2])
{
	ts[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	/* Long ago, so that it is told from a clock's. */
	ts[1] = (struct timespec){ .tv_sec = (time_t)(seed % 900000000), .tv_nsec = (long)seed % 1000 };
}

static long do_open(struct tree *t, const struct model_step *st, struct got *g)
{
	int fd = openat(t->root, st->a, st->flags | O_CLOEXEC | O_NONBLOCK, st->mode);
	struct stat s;

	if (fd < 0)
		return -1;
	if (t->fd[st->slot] >= 0)
		(void)close(t->fd[st->slot]);
	if (fstat(fd, &s) != 0)
		return -1;
	t->fd[st->slot] = fd;
	t->ino[st->slot] = s.st_ino;
	is_dir[st->slot] = S_ISDIR(s.st_mode);
	g->ret = 0;
	return 0;
}

static long do_dup(struct tree *t, const struct model_step *st)
{
	int fd = fcntl(t->fd[st->slot], F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (t->fd[st->slot2] >= 0)
		(void)close(t->fd[st->slot2]);
	t->fd[st->slot2] = fd;
	t->ino[st->slot2] = t->ino[st->slot];
	is_dir[st->slot2] = is_dir[st->slot];
	return 0;
}

static long do_close(struct tree *t, unsigned slot)
{
	int fd = t->fd[slot];

	t->fd[slot] = -1;
	return close(fd);
}

/* A tmpfs has no zero range, but what it consists of. */
static long do_zero_range(const struct tree *t, int fd, off_t off, off_t len)
{
	long r = fallocate(fd, FALLOC_FL_ZERO_RANGE, off, len);

	if (r == 0 || errno != EOPNOTSUPP || t == &trees[0])
		return r;
	r = fallocate(fd, 0, off, len);
	return r == 0 ? fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len) : r;
}

static long call(struct tree *t, const struct model_step *st, struct got *g)
{
	const int fd = model_rows[st->op].bits & B_FD ? t->fd[st->slot] : -1;
	const off_t off = (off_t)st->off, len = (off_t)st->len;
	struct timespec ts[2];
	off_t to;

	switch (st->op) {
	case OP_open:
		return do_open(t, st, g);
	case OP_close:
		return do_close(t, st->slot);
	case OP_dup:
		return do_dup(t, st);
	case OP_read:
	case OP_pread:
		g->ret = read_all(fd, g->buf, st->len, st->op == OP_read ? -1 : off);
		g->len = g->ret > 0 ? (size_t)g->ret : 0;
		return g->ret;
	case OP_write:
		return write(fd, bytes_of(st->seed, st->len), st->len);
	case OP_pwrite:
		return pwrite(fd, bytes_of(st->seed, st->len), st->len, off);
	case OP_seek_set:
		return lseek(fd, off, SEEK_SET);
	case OP_seek_end:
		return lseek(fd, 0, SEEK_END);
	case OP_seek_hole:
		return do_seek(fd, off, SEEK_HOLE, g);
	case OP_seek_data:
		return do_seek(fd, off, SEEK_DATA, g);
	case OP_ftruncate:
		return ftruncate(fd, off);
	case OP_truncate: {
		int at = openat(t->root, st->a, O_PATH | O_CLOEXEC);
		char path[64];
		long r;

		if (at < 0)
			return -1;
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", at);
		r = truncate(path, off);
		to = errno;
		(void)close(at);
		errno = (int)to;
		return r;
	}
	case OP_fallocate:
		return fallocate(fd, 0, off, len);
	case OP_fallocate_keep:
		return fallocate(fd, FALLOC_FL_KEEP_SIZE, off, len);
	case OP_punch:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
	case OP_zero_range:
		return do_zero_range(t, fd, off, len);
	case OP_copy_range:
		to = off / 2;
		g->ret = 0;
		{
			off_t from = off;

			return copy_file_range(fd, &from, t->fd[st->slot2], &to, st->len, 0);
		}
	case OP_mmap_read:
		return do_mmap(fd, st, false, g);
	case OP_mmap_write:
		return do_mmap(fd, st, true, g);
	case OP_fsync:
		return fsync(fd);
	case OP_fdatasync:
		return fdatasync(fd);
	case OP_fstat:
		g->have_st = fstat(fd, &g->st) == 0;
		if (g->have_st && g->st.st_ino != t->ino[st->slot])
			return 3000000; /* another than at open() */
		return g->have_st ? 0 : -1;
	case OP_fchmod:
		return fchmod(fd, st->mode);
	case OP_futimens:
		times_of(st->seed, ts);
		return futimens(fd, ts);
	case OP_fork_close:
		return do_fork(-1, st, NULL);
	case OP_fork_write:
		return do_fork(fd, st, bytes_of(st->seed, st->len));
	case OP_stat:
		g->have_st = fstatat(t->root, st->a, &g->st, AT_SYMLINK_NOFOLLOW) == 0;
		return g->have_st ? 0 : -1;
	case OP_access:
		return faccessat(t->root, st->a, F_OK, 0);
	case OP_chmod:
		return fchmodat(t->root, st->a, st->mode, 0);
	case OP_chown:
		return fchownat(t->root, st->a, (uid_t)(st->seed % 5), (gid_t)(st->seed % 3), 0);
	case OP_utimens:
		times_of(st->seed, ts);
		return utimensat(t->root, st->a, ts, 0);
	case OP_readdir:
		return do_readdir(t, st->a, g);
	case OP_mkdir:
		return mkdirat(t->root, st->a, st->mode | 0700);
	case OP_rmdir:
		return unlinkat(t->root, st->a, AT_REMOVEDIR);
	case OP_unlink:
		return unlinkat(t->root, st->a, 0);
	case OP_rename:
		return renameat(t->root, st->a, t->root, st->b);
	case OP_rename_new:
		return renameat2(t->root, st->a, t->root, st->b, RENAME_NOREPLACE);
	default:
		errx(2, "step %u is not a call", st->op);
	}
}

/* --- comparing */

static void differ(struct model_answer *an, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void differ(struct model_answer *an, const char *fmt, ...)
{
	va_list ap;

	if (an->diff[0] != '\0')
		return; /* the first is what counts */
	va_start(ap, fmt);
	(void)vsnprintf(an->diff, sizeof(an->diff), fmt, ap);
	va_end(ap);
}

static bool same_error(int a, int b)
{
	return a == b || ((a == EEXIST || a == ENOTEMPTY) && (b == EEXIST || b == ENOTEMPTY));
}

/* A time that somebody set: no test runs in 1970 to 1998. */
static bool was_set(const struct timespec *ts)
{
	return ts->tv_sec < 900000000;
}

static void compare_stat(
    struct model_answer *an, const char *what, const struct stat *t, const struct stat *r)
{
	if (t->st_mode != r->st_mode)
		differ(an, "%sst_mode is %o, not %o", what, t->st_mode, r->st_mode);
	if (t->st_uid != r->st_uid || t->st_gid != r->st_gid)
		differ(an, "%sowner is %u:%u, not %u:%u", what, t->st_uid, t->st_gid, r->st_uid,
		    r->st_gid);
	if (!S_ISREG(r->st_mode))
		return;
	if (t->st_size != r->st_size)
		differ(an, "%sst_size is %lld, not %lld", what, (long long)t->st_size,
		    (long long)r->st_size);
	if (t->st_nlink != r->st_nlink)
		differ(an, "%sst_nlink is %lu, not %lu", what, (unsigned long)t->st_nlink,
		    (unsigned long)r->st_nlink);
	if ((was_set(&t->st_mtim) || was_set(&r->st_mtim)) &&
	    (t->st_mtim.tv_sec != r->st_mtim.tv_sec || t->st_mtim.tv_nsec != r->st_mtim.tv_nsec))
		differ(an, "%sst_mtime is %lld.%09ld, not %lld.%09ld", what,
		    (long long)t->st_mtim.tv_sec, t->st_mtim.tv_nsec,
		    (long long)r->st_mtim.tv_sec, r->st_mtim.tv_nsec);
}

static void compare_bytes(struct model_answer *an, const char *what, const char *t, size_t tlen,
    const char *r, size_t rlen, uint64_t off)
{
	if (tlen != rlen)
		differ(an, "%s%zu bytes, not %zu", what, tlen, rlen);
	else if (memcmp(t, r, rlen) != 0) {
		size_t i = 0, n = 0;

		while (t[i] == r[i])
			i++;
		for (size_t k = i; k < rlen; k++)
			n += t[k] != r[k];
		differ(an, "%sthe byte at %llu is 0x%02x, not 0x%02x; %zu of %zu are wrong", what,
		    (unsigned long long)off + i, (unsigned char)t[i], (unsigned char)r[i], n,
		    rlen);
	}
}

/* What is the tested one's right to refuse: then the reference is not asked. */
static bool excused(const struct model_step *st, const struct got *g)
{
	struct stat s;

	if (g->ret >= 0)
		return false;
	switch (st->op) {
	case OP_fallocate:
	case OP_fallocate_keep:
	case OP_punch:
	case OP_zero_range:
		return g->err == EOPNOTSUPP;
	case OP_mmap_write:
		return g->err == ENODEV;
	case OP_fchmod:
	case OP_futimens:
		return g->err == ESTALE && is_dir[st->slot] &&
		       fstat(trees[1].fd[st->slot], &s) == 0 && s.st_nlink == 0;
	default:
		return false;
	}
}

static void run_on(struct tree *t, const struct model_step *st, struct got *g, char *buf)
{
	memset(g, 0, sizeof(*g));
	g->buf = buf;
	buf[0] = '\0';
	errno = 0;
	g->ret = call(t, st, g);
	g->err = g->ret < 0 ? errno : 0;
}

static const char *result(char *buf, size_t len, const struct got *g)
{
	if (g->ret < 0)
		(void)snprintf(buf, len, "%s", strerrorname_np(g->err));
	else
		(void)snprintf(buf, len, "%ld", g->ret);
	return buf;
}

static void run_step(const struct model_step *st, struct model_answer *an)
{
	struct got t, r;
	char a[64], b[64];

	run_on(&trees[0], st, &t, buffers[0]);
	if (excused(st, &t)) {
		an->skipped = true;
		return;
	}
	run_on(&trees[1], st, &r, buffers[1]);
	an->done = t.ret >= 0 && r.ret >= 0;
	an->writable = st->op == OP_open && (st->flags & O_ACCMODE) != O_RDONLY;
	if (t.ret != r.ret || !same_error(t.err, r.err))
		differ(an, "%s, not %s", result(a, sizeof(a), &t), result(b, sizeof(b), &r));
	else if (t.have_st && r.have_st)
		compare_stat(an, "", &t.st, &r.st);
	else if (st->op == OP_readdir && (t.len != r.len || memcmp(t.buf, r.buf, r.len) != 0))
		differ(an, "names and kinds differ:\n%.*s, not\n%.*s", t.len > 200 ? 200 : (int)t.len,
		    t.buf, r.len > 200 ? 200 : (int)r.len, r.buf);
	else
		compare_bytes(an, "", t.buf, t.len, r.buf, r.len, st->op == OP_read ? 0 : st->off);
}

/* --- all of both trees */

static void check_content(struct model_answer *an, const char *path)
{
	int fd[2];
	off_t off = 0;

	for (unsigned i = 0; i < 2; i++) {
		fd[i] = openat(trees[i].root, path, O_RDONLY | O_CLOEXEC);
		if (fd[i] < 0)
			differ(an, "%s: open of %s: %s", path, trees[i].name, strerror(errno));
	}
	while (an->diff[0] == '\0') {
		ssize_t n[2];
		char what[MODEL_PATH * 2 + 4];

		for (unsigned i = 0; i < 2; i++) {
			n[i] = read_all(fd[i], buffers[i], 1 << 20, off);
			if (n[i] < 0)
				differ(an, "%s: read of %s: %s", path, trees[i].name,
				    strerror(errno));
		}
		(void)snprintf(what, sizeof(what), "%s: ", path);
		if (an->diff[0] == '\0')
			compare_bytes(an, what, buffers[0], (size_t)n[0], buffers[1], (size_t)n[1],
			    (uint64_t)off);
		if (n[0] <= 0)
			break;
		off += n[0];
	}
	for (unsigned i = 0; i < 2; i++)
		if (fd[i] >= 0)
			(void)close(fd[i]);
}

static void check_dir(struct model_answer *an, const char *dir)
{
	struct model_step st = { .op = OP_readdir };
	char *names, *save, *w;

	(void)snprintf(st.a, sizeof(st.a), "%s", *dir != '\0' ? dir : ".");
	run_step(&st, an);
	if (an->diff[0] != '\0') {
		char text[sizeof(an->diff)];

		memcpy(text, an->diff, sizeof(text));
		(void)snprintf(an->diff, sizeof(an->diff), "/%s: %.400s", dir, text);
		return;
	}
	names = strdup(buffers[1]);
	if (names == NULL)
		err(2, "memory");
	for (w = strtok_r(names, "\n", &save); w != NULL && an->diff[0] == '\0';
	     w = strtok_r(NULL, "\n", &save)) {
		char path[MODEL_PATH * 2], what[MODEL_PATH * 2 + 4];
		struct stat s[2];

		w[strlen(w) - 2] = '\0'; /* its kind */
		(void)snprintf(path, sizeof(path), "%s%s%s", dir, *dir != '\0' ? "/" : "", w);
		(void)snprintf(what, sizeof(what), "%s: ", path);
		for (unsigned i = 0; i < 2; i++)
			if (fstatat(trees[i].root, path, &s[i], AT_SYMLINK_NOFOLLOW) != 0)
				differ(an, "%s: stat of %s: %s", path, trees[i].name, strerror(errno));
		if (an->diff[0] == '\0')
			compare_stat(an, what, &s[0], &s[1]);
		if (an->diff[0] != '\0')
			break;
		if (S_ISDIR(s[1].st_mode) && strlen(path) < MODEL_PATH)
			check_dir(an, path);
		else if (S_ISREG(s[1].st_mode))
			check_content(an, path);
	}
	free(names);
}

/* --- the process */

static void answer(const struct model_step *st, struct model_answer *an)
{
	unsigned bits = model_rows[st->op].bits;

	memset(an, 0, sizeof(*an));
	if (st->op == OP_check) {
		check_dir(an, "");
		return;
	}
	if (((bits & B_FD) && trees[0].fd[st->slot] < 0) ||
	    ((bits & B_FD2) && trees[0].fd[st->slot2] < 0) ||
	    ((bits & B_DATA) && is_dir[st->slot]) || ((bits & B_FD2) && is_dir[st->slot2])) {
		an->skipped = true;
		return;
	}
	run_step(st, an);
}

static int root_open(const char *path)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		err(2, "%s", path);
	return fd;
}

_Noreturn void model_worker(int fd, const char *tested, const char *reference)
{
	struct model_step st;
	struct model_answer an;

	(void)umask(0);
	trees[0] = (struct tree){ .name = "the tested one", .root = root_open(tested) };
	trees[1] = (struct tree){ .name = "the reference", .root = root_open(reference) };
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		trees[0].fd[i] = trees[1].fd[i] = -1;
	for (unsigned i = 0; i < 3; i++) {
		buffers[i] = calloc(1, MODEL_FILE_MAX + 1);
		if (buffers[i] == NULL)
			err(2, "memory");
	}
	while (read(fd, &st, sizeof(st)) == (ssize_t)sizeof(st)) {
		answer(&st, &an);
		if (write(fd, &an, sizeof(an)) != (ssize_t)sizeof(an))
			break;
	}
	_exit(0);
}
