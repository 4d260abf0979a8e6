/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/sieve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "takeover/held.h"

/* The kernel fills what it is given with FORGETs. */
#define SIEVE_READ_MAX HELD_REQ_MAX
#define SIEVE_HELD_MAX (16u << 20)
#define SIEVE_BATCH 64u
#define UNIQUE_RESENT (UINT64_C(1) << 63)

static bool open_truncates(const unsigned char *body, size_t len)
{
	struct fuse_open_in in;

	if (len < sizeof(in))
		return false;
	memcpy(&in, body, sizeof(in));
	return (in.flags & O_TRUNC) != 0;
}

/* Nobody repeats what the kernel writes back from a mapping, so that it would be lost. */
static bool write_is_call(const unsigned char *body, size_t len)
{
	struct fuse_write_in in;

	if (len < sizeof(in))
		return true;
	memcpy(&in, body, sizeof(in));
	return (in.write_flags & FUSE_WRITE_CACHE) == 0;
}

bool sieve_refuses(const void *raw, size_t len)
{
	const unsigned char *body = (const unsigned char *)raw + sizeof(struct fuse_in_header);
	struct fuse_in_header in;

	memcpy(&in, raw, sizeof(in));
	if ((in.unique & UNIQUE_RESENT) != 0)
		return false;
	switch (in.opcode) {
	case FUSE_SETATTR:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
	case FUSE_OPENDIR:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		return true;
	case FUSE_OPEN:
		return open_truncates(body, len - sizeof(in));
	case FUSE_WRITE:
		return write_is_call(body, len - sizeof(in));
	default:
		return false;
	}
}

static void sieve_pause(struct sieve *sv)
{
	loop_fd_want(&sv->lf, 0);
}

/* The caller may be gone; then the kernel does not take it, and all is well. */
static void sieve_refuse(struct sieve *sv, uint64_t unique)
{
	struct fuse_out_header out = {.len = sizeof(out), .error = -EAGAIN, .unique = unique};
	ssize_t n = write(sv->fd, &out, sizeof(out));

	sv->refused++;
	COUNT(sv->loop, FUSE_REQUESTS, 1);
	COUNT(sv->loop, FUSE_REPLIES, 1);
	if (n < 0 && errno != ENOENT && errno != ENODEV)
		log_warn("FUSE: the kernel refused an answer: %s", strerror(errno));
}

static void sieve_keep(struct sieve *sv, const void *raw, size_t len)
{
	struct held_req *r = malloc(sizeof(*r) + len);

	if (r == NULL) {
		r = sv->spare;
		sv->spare = NULL;
	}
	r->len = (uint32_t)len;
	memcpy(r->raw, raw, len);
	STAILQ_INSERT_TAIL(&sv->held, r, link);
	sv->held_bytes += sizeof(*r) + len;
}

static void sieve_sort(struct sieve *sv, const void *raw, size_t len)
{
	struct fuse_in_header in;

	memcpy(&in, raw, sizeof(in));
	if (in.opcode == FUSE_INTERRUPT)
		sv->interrupt(sv->arg, raw, len);
	else if (sieve_refuses(raw, len))
		sieve_refuse(sv, in.unique);
	else
		sieve_keep(sv, raw, len);
	if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET)
		forgets_log_keep(&sv->log, len);
	else
		forgets_log_pass(&sv->log);
}

static bool sieve_full(const struct sieve *sv)
{
	return sv->spare == NULL || sv->held_bytes >= SIEVE_HELD_MAX;
}

/* Whether to go on in this wake. */
static bool sieve_read(struct sieve *sv)
{
	void *buf = forgets_log_next(&sv->log);
	ssize_t n;

	if (buf == NULL) {
		sieve_pause(sv);
		return false;
	}
	n = read(sv->fd, buf, SIEVE_READ_MAX);
	if (n < 0 && (errno == EINTR || errno == ENOENT))
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n < (ssize_t)sizeof(struct fuse_in_header)) {
		/* The mount is gone: the channel sees that, too. */
		sieve_pause(sv);
		return false;
	}
	sieve_sort(sv, buf, (size_t)n);
	return true;
}

static void sieve_readable(struct loop_fd *lf, unsigned what)
{
	struct sieve *sv = container_of(lf, struct sieve, lf);
	unsigned i;

	(void)what;
	for (i = 0; i < SIEVE_BATCH; i++) {
		if (sieve_full(sv) || !epoch_mine(sv->epoch)) {
			sieve_pause(sv);
			return;
		}
		if (!sieve_read(sv))
			return;
	}
}

static int sieve_alloc(struct sieve *sv)
{
	int err = forgets_log_begin(&sv->log, sv->state_fd, sv->epoch->mine);

	if (err != 0)
		return err;
	sv->spare = malloc(sizeof(*sv->spare) + SIEVE_READ_MAX);
	return sv->spare != NULL ? 0 : -ENOMEM;
}

static void sieve_begin(struct sieve *sv)
{
	int err = sieve_alloc(sv);

	if (err == 0)
		err = loop_fd_want(&sv->lf, LOOP_READ);
	if (err != 0)
		log_warn("takeover: changes wait for the new daemon: %s", strerror(-err));
}

static void sieve_due(struct timer *t)
{
	sieve_begin(container_of(t, struct sieve, timer));
}

void sieve_start(struct sieve *sv, struct loop *lp, int fd, int state_fd,
    const struct epoch *epoch, uint64_t hold_ns,
    void (*interrupt)(void *arg, const void *raw, size_t len), void *arg)
{
	int err = 0;

	sv->loop = lp;
	sv->state_fd = state_fd;
	sv->epoch = epoch;
	sv->interrupt = interrupt;
	sv->arg = arg;
	STAILQ_INIT(&sv->held);
	timer_init(&sv->timer, lp, sieve_due);
	sv->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (sv->fd < 0)
		err = -errno;
	else
		err = loop_fd_init(&sv->lf, lp, sv->fd, sieve_readable);
	if (err != 0)
		log_warn("takeover: changes wait for the new daemon: %s", strerror(-err));
	else if (hold_ns == 0)
		sieve_begin(sv);
	else
		timer_arm(&sv->timer, hold_ns);
}

uint64_t sieve_stop(struct sieve *sv, struct held_list *to)
{
	if (sv->loop == NULL)
		return 0;
	sv->loop = NULL;
	timer_cancel(&sv->timer);
	loop_fd_fini(&sv->lf);
	if (sv->fd >= 0)
		close(sv->fd);
	forgets_log_end(&sv->log);
	free(sv->spare);
	sv->spare = NULL;
	STAILQ_CONCAT(to, &sv->held);
	return sv->refused;
}
