/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The yardstick: the least that a FUSE daemon can do, with libfuse's own loop and
 * one thread.  Shows the files of one directory.
 *
 *	bench_copyfs pread|splice|memory DIR MOUNTPOINT
 *
 * pread: read into a buffer, reply from it.  splice: libfuse moves the pages from the
 * file to the kernel if it can.  memory: every read is answered from one buffer, the
 * file is not touched (what libfuse's hello_ll does).  Ends when unmounted.
 */
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IO_MAX (1024u * 1024)
#define TTL 3600.0

static enum { PREAD, SPLICE, MEMORY } mode;
static int dir;
static char io[IO_MAX];

/* A node id is an open descriptor of the file, plus 2; they stay open. */
static int node_fd(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? dir : (int)ino - 2;
}

static void cf_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->max_read = IO_MAX;
	conn->max_background = 64;
	if (mode == SPLICE)
		conn->want |= conn->capable & (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	else
		conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_READ);
}

static int node_stat(fuse_ino_t ino, struct stat *st)
{
	if (fstat(node_fd(ino), st) != 0)
		return errno;
	st->st_ino = ino;
	return 0;
}

static void cf_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e = {.attr_timeout = TTL, .entry_timeout = TTL};
	int fd = openat(node_fd(parent), name, O_RDONLY | O_NOFOLLOW), err;

	if (fd < 0) {
		fuse_reply_err(req, errno);
		return;
	}
	e.ino = (fuse_ino_t)fd + 2;
	err = node_stat(e.ino, &e.attr);
	if (err != 0)
		fuse_reply_err(req, err);
	else
		fuse_reply_entry(req, &e);
}

static void cf_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;
	int err = node_stat(ino, &st);

	(void)fi;
	if (err != 0)
		fuse_reply_err(req, err);
	else
		fuse_reply_attr(req, &st, TTL);
}

static void cf_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void cf_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
    struct fuse_file_info *fi)
{
	struct fuse_bufvec buf = FUSE_BUFVEC_INIT(size);
	ssize_t n = (ssize_t)(size < IO_MAX ? size : IO_MAX);

	(void)fi;
	if (mode == SPLICE) {
		buf.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		buf.buf[0].fd = node_fd(ino);
		buf.buf[0].pos = off;
		fuse_reply_data(req, &buf, FUSE_BUF_SPLICE_MOVE);
		return;
	}
	if (mode == PREAD)
		n = pread(node_fd(ino), io, (size_t)n, off);
	if (n < 0)
		fuse_reply_err(req, errno);
	else
		fuse_reply_buf(req, io, (size_t)n);
}

static const struct fuse_lowlevel_ops ops = {
	.init = cf_init,
	.lookup = cf_lookup,
	.getattr = cf_getattr,
	.open = cf_open,
	.read = cf_read,
};

int main(int argc, char **argv)
{
	static const char *const modes[] = {"pread", "splice", "memory"};
	char *fuse_argv[] = {argv[0], (char *)"-o", (char *)"fsname=copyfs,max_read=1048576"};
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	struct fuse_session *se;
	int err = 1;

	for (mode = PREAD; argc == 4 && mode <= MEMORY; mode++)
		if (strcmp(argv[1], modes[mode]) == 0)
			break;
	if (argc != 4 || mode > MEMORY) {
		fprintf(stderr, "usage: bench_copyfs pread|splice|memory DIR MOUNTPOINT\n");
		return 2;
	}
	dir = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (dir < 0) {
		perror(argv[2]);
		return 1;
	}
	memset(io, 'x', sizeof(io));
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (se == NULL)
		return 1;
	if (fuse_session_mount(se, argv[3]) == 0) {
		err = fuse_session_loop(se) < 0;
		fuse_session_unmount(se);
	}
	fuse_session_destroy(se);
	fuse_opt_free_args(&args);
	return err;
}
