/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/forgets_log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "ops/forgets.h"
#include "takeover/held.h"

#define LOG_NAME "window"
#define LOG_MAGIC UINT64_C(0x62746e77696e646f)
#define LOG_FORMAT 1u
#define LOG_STEP (256u << 10)
/* Requests begin at multiples of it. */
#define LOG_ALIGN 8u

/* The file begins with it.  Behind `used` bytes of FORGETs may come one more, which its
 * reader died with. */
struct log_head {
	uint64_t magic; /* set last */
	uint32_t format, pad;
	uint64_t epoch, used;
};

static struct log_head *head_of(const struct forgets_log *fl)
{
	return (struct log_head *)fl->map;
}

/* What follows is read there: no request, until the kernel has written one. */
static void clear_header(unsigned char *at)
{
	memset(at, 0, sizeof(struct fuse_in_header));
}

static size_t room_for(size_t used)
{
	return sizeof(struct log_head) + used + HELD_REQ_MAX + sizeof(struct fuse_in_header);
}

/* A fault on this memory while the process is being killed would lose the request. */
static int log_map(struct forgets_log *fl, size_t len)
{
	int flags = MAP_POPULATE | (fl->fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
	void *p;

	if (fl->fd >= 0 && fallocate(fl->fd, 0, 0, (off_t)len) != 0)
		return -ENOSPC;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, flags, fl->fd, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	if (fl->map != NULL)
		munmap(fl->map, fl->len);
	fl->map = p;
	fl->len = len;
	return 0;
}

int forgets_log_begin(struct forgets_log *fl, int dir_fd, uint64_t epoch)
{
	struct log_head *h;
	int err;

	fl->map = NULL;
	fl->fd = -1;
	if (dir_fd >= 0) {
		forgets_log_drop(dir_fd);
		fl->fd = openat(dir_fd, LOG_NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	}
	err = log_map(fl, room_for(LOG_STEP));
	if (err != 0 && fl->fd >= 0) {
		forgets_log_drop(dir_fd);
		close(fl->fd);
		fl->fd = -1;
		err = log_map(fl, room_for(0));
	}
	if (err != 0)
		return err;
	h = head_of(fl);
	h->format = LOG_FORMAT;
	h->epoch = epoch;
	h->used = 0;
	__atomic_store_n(&h->magic, LOG_MAGIC, __ATOMIC_SEQ_CST);
	return 0;
}

void *forgets_log_next(struct forgets_log *fl)
{
	size_t used = head_of(fl)->used;

	if (fl->len < room_for(used) && log_map(fl, room_for(used + LOG_STEP)) != 0)
		return NULL;
	return fl->map + sizeof(struct log_head) + used;
}

void forgets_log_keep(struct forgets_log *fl, size_t len)
{
	struct log_head *h = head_of(fl);
	uint64_t used = h->used + (len + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;

	/* Nobody would find them. */
	if (fl->fd < 0)
		return;
	/* Of a longer request that was there before something may be left. */
	clear_header(fl->map + sizeof(*h) + used);
	__atomic_store_n(&h->used, used, __ATOMIC_SEQ_CST);
}

void forgets_log_pass(struct forgets_log *fl)
{
	struct log_head *h = head_of(fl);

	clear_header(fl->map + sizeof(*h) + h->used);
}

void forgets_log_end(struct forgets_log *fl)
{
	if (fl->map == NULL)
		return;
	munmap(fl->map, fl->len);
	fl->map = NULL;
	if (fl->fd >= 0)
		close(fl->fd);
	fl->fd = -1;
}

/* --- Recovery */

/* The request at *at, if it is a FORGET: 0 and *at behind it; -ENOENT: it is none. */
static int log_request(int fd, uint64_t *at, struct held_list *list)
{
	struct fuse_in_header in;
	struct held_req *r;

	if (pread(fd, &in, sizeof(in), (off_t)*at) != (ssize_t)sizeof(in) ||
	    (in.opcode != FUSE_FORGET && in.opcode != FUSE_BATCH_FORGET) || in.len < sizeof(in) ||
	    in.len > HELD_REQ_MAX)
		return -ENOENT;
	r = calloc(1, sizeof(*r) + in.len);
	if (r == NULL)
		return -ENOMEM;
	r->len = in.len;
	if (pread(fd, r->raw, in.len, (off_t)*at) != (ssize_t)in.len) {
		free(r);
		return -ENOENT;
	}
	STAILQ_INSERT_TAIL(list, r, link);
	*at += (in.len + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;
	return 0;
}

/* Whose business are they?  UINT64_MAX: nobody's any more, as far as we know. */
static uint64_t log_counted(const struct log_head *h, uint64_t from, const struct counts *c)
{
	if (h->epoch == from)
		return 0;
	return h->epoch + 1 == from ? forgets_done(c, from) : UINT64_MAX;
}

void forgets_log_take(
    int dir_fd, uint64_t from, const struct counts *c, struct held_list *list, uint64_t *skip)
{
	struct log_head h;
	uint64_t at = sizeof(h), end;
	int fd, err = 0;

	*skip = 0;
	fd = openat(dir_fd, LOG_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (pread(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) && h.magic == LOG_MAGIC &&
	    h.format == LOG_FORMAT)
		*skip = log_counted(&h, from, c);
	else
		*skip = UINT64_MAX;
	end = at + (*skip != UINT64_MAX ? h.used : 0);
	while (*skip != UINT64_MAX && err == 0 && at <= end)
		err = log_request(fd, &at, list);
	if (err == -ENOMEM)
		log_warn(
		    "takeover: some of what the kernel has forgotten is not: %s", strerror(-err));
	close(fd);
}

void forgets_log_claim(
    int dir_fd, uint64_t from, struct counts *c, bool died, struct held_list *list, uint64_t *skip)
{
	*skip = 0;
	if (died)
		forgets_log_take(dir_fd, from, c, list, skip);
	forgets_begin(c, from + 1);
}

void forgets_log_apply(struct fs *fs, int dir_fd, struct counts *c, uint64_t epoch, uint64_t skip,
    struct held_list *list)
{
	forgets_apply(fs, c, epoch, skip, list);
	forgets_log_drop(dir_fd);
}

void forgets_log_drop(int dir_fd)
{
	(void)unlinkat(dir_fd, LOG_NAME, 0);
}
