/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The FUSE session descriptor on the loop.
 *
 * Owns the fuse_session and the fd.  Reads requests within a budget a wake
 * (fuse.batch.*), only while the epoch is ours and the channel is armed; replies
 * go through custom io.  While the state database has uncommitted writes, replies
 * are copied and leave in the turn-end hook after the commit; data replies
 * (fuse_chan_reply_data) never wait.  Buffers that reply are prefaulted.
 *
 * The INIT exchange is recorded; a successor replays it into a fresh session,
 * whose own reply is swallowed: the kernel keeps what the first daemon agreed.
 * Never clones the descriptor (a clone's requests die with its reader) and never
 * unmounts by itself.
 */
#ifndef REACTOR_FUSE_CHAN_H
#define REACTOR_FUSE_CHAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "base/epoch.h"
#include "base/errtext.h"

struct loop;
struct config;
struct statedb;
struct fuse_chan;

#define FUSE_CHAN_INIT_MAX 256

/* The raw INIT request and the reply the kernel took. */
struct fuse_chan_init {
	uint32_t req_len, reply_len; /* 0: no INIT has happened yet */
	unsigned char req[FUSE_CHAN_INIT_MAX];
	unsigned char reply[FUSE_CHAN_INIT_MAX];
};

struct fuse_chan_env {
	struct loop *loop;
	const struct config *cfg;
	const struct epoch *epoch;
	/* ops->init may adjust what the channel proposes (it is not called when an
	 * INIT is replayed: what was agreed stays); ops->destroy is not used. */
	const struct fuse_lowlevel_ops *ops;
	void *userdata; /* fuse_chan_userdata() in ops, first argument of ops->init */
	void *owner;	    /* what gone and ready get (not the userdata) */
	/* The connection ended: err 0 unmounted (ENODEV, or ECONNABORTED where requests
	 * still waited), else negative errno. */
	void (*gone)(void *owner, int err);
	/* INIT's reply is about to leave: fuse_chan_init_record() is what a successor
	 * needs should this process die with the reply on its way.  May be NULL. */
	void (*agreed)(void *owner);
	/* INIT has been answered: the mount serves. */
	void (*ready)(void *owner);
};

/* The session's own userdata is the channel; this is the env's. */
void *fuse_chan_userdata(fuse_req_t req);

/* mount_opts: NULL-terminated list of "-o" words for libfuse ("allow_other",
 * "ro", "fsname=…"); unknown ones are an -EINVAL with words. */
int fuse_chan_new(struct fuse_chan **out, const struct fuse_chan_env *env,
    const char *const *mount_opts, struct errtext *et);
/* Closes our fd; does not unmount.  Every request must be answered or dropped. */
void fuse_chan_free(struct fuse_chan **ch);

/* Mounts afresh (mount(2) or fusermount3). */
int fuse_chan_mount(struct fuse_chan *ch, const char *mountpoint, struct errtext *et);
/* Takes over a descriptor (owned from now on, also on failure) that somebody else
 * mounted.  init->req_len > 0: replays it and checks that every bit of the
 * recorded reply is one this build can honour (-EPROTO naming the bit). */
int fuse_chan_adopt(struct fuse_chan *ch, int fd, const struct fuse_chan_init *init,
    struct errtext *et);

void fuse_chan_set_statedb(struct fuse_chan *ch, struct statedb *db); /* NULL: none */
int fuse_chan_fd(const struct fuse_chan *ch);
/* Has the kernel agreed to talk to us, and is it still for us to do? */
bool fuse_chan_mine(const struct fuse_chan *ch);
const struct fuse_chan_init *fuse_chan_init_record(const struct fuse_chan *ch);
/* Raises the kernel's readahead window of the mount (INIT caps it at 128 KiB).
 * Finds the device in /proc/self/mountinfo: a stat would wait for ourselves.
 * 0, -ENOENT (no such mount seen) or negative errno (/sys not writable). */
int fuse_chan_set_readahead_kb(struct fuse_chan *ch, const char *mountpoint, unsigned kb);

void fuse_chan_arm(struct fuse_chan *ch);    /* begin or go on reading */
void fuse_chan_disarm(struct fuse_chan *ch); /* stop; requests wait in the kernel */
/* Reads no requests until every hold has been taken back, armed or not: for whoever has
 * more of them than fits in memory. */
void fuse_chan_hold(struct fuse_chan *ch);
void fuse_chan_unhold(struct fuse_chan *ch);
/* Sends held replies now (the database was committed). */
void fuse_chan_flush(struct fuse_chan *ch);

/* The kernel asks again for the attributes of a node that it knows, whatever it was told of
 * how long they hold.  Waits for nothing; what it keeps of the content stays. */
void fuse_chan_expire(struct fuse_chan *ch, uint64_t node);

/* FUSE_NOTIFY_RESEND: the kernel sends unanswered requests again.  -EOPNOTSUPP on
 * kernels before 6.9. */
int fuse_chan_resend(struct fuse_chan *ch);
/* How often that was asked for here. */
unsigned fuse_chan_resends(const struct fuse_chan *ch);

/* The request being dispatched now, raw, as the kernel sent it: valid inside the
 * fuse_lowlevel_ops call only. */
const void *fuse_chan_current(const struct fuse_chan *ch, size_t *len);
/* Dispatches a raw request that somebody else read (held or handed over). */
void fuse_chan_feed(struct fuse_chan *ch, const void *raw, size_t len);
/* Is the request being dispatched now one of those? */
bool fuse_chan_feeding(const struct fuse_chan *ch);

/* Replies with data at once, from memory that cannot fault: 0 or negative errno
 * (-ENOENT: the kernel no longer wants it).  Ends the request either way. */
int fuse_chan_reply_data(struct fuse_chan *ch, fuse_req_t req, struct iovec *iov, int niov);

/* umount2(2), or fusermount3 -u for users; lazy: detach although busy.
 * 0, -EBUSY, or negative errno. */
int fuse_chan_unmount(const char *mountpoint, bool lazy);
/* The file system of this descriptor has been unmounted everywhere, or aborted. */
bool fuse_chan_fd_gone(int fd);

#endif
