/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages of the hand-over: a header and typed records (takeover/PROTOCOL).
 *
 * A record that the reader does not know is passed over, unless its writer
 * marked it as one that must be understood.  Truncated, overlong and repeated
 * records make the whole message invalid: a message is believed or not, never in
 * part.  Both ends run on one machine, so numbers are in its byte order.
 */
#ifndef TAKEOVER_RECORDS_H
#define TAKEOVER_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REC_MSG_MAX 16384u
#define REC_MAGIC 0x626f6674u
#define REC_VERSION 1u

enum rec_msg {
	MSG_HELLO = 1,
	MSG_REFUSE,
	MSG_STATE,
	MSG_READY,
	MSG_COMMIT,
	MSG_DONE,
	MSG_RESULT,
	MSG_END,
};

/* Tags below REC_TAGS are known to this build; each may occur once a message. */
enum rec_tag {
	REC_CAPS = 1,     /* u64: what the writer can do */
	REC_NEEDS,        /* u64: what the reader must be able to do */
	REC_BUILD,        /* text: version */
	REC_FLAGS,        /* u64: REC_FLAG_* */
	REC_NAMESPACE,    /* u64: digest of the attached storage */
	REC_KEEPER,       /* text: identity of the writer's keeper, "" none */
	REC_FDS,          /* u8 each: what the descriptors of the message are (REC_FD_*) */
	REC_PID,          /* u64 */
	REC_WORDS,        /* text for people */
	REC_ERRNO,        /* u64: positive errno */
	REC_INIT_REQUEST, /* raw */
	REC_INIT_REPLY,   /* raw */
	REC_MOUNT_ID,     /* u64 */
	REC_EPOCH,        /* u64: the writer's own value */
	REC_WINDOW,       /* u64: ns the reader should wait at most, for COMMIT or our end */
	REC_STOPPED_AT,   /* u64: CLOCK_MONOTONIC ns when the writer stopped reading */
	REC_COUNT,        /* u64: requests in the memfd */
	REC_WRITE_DIRS,   /* text: which directories it writes to; "" if it is read-only */
	REC_REFUSED,      /* u64: requests that failed with EAGAIN */
	REC_ABORTED,      /* u64: reads that failed with EIO */
	REC_TAGS
};

#define REC_FLAG_CHECK_ONLY 1u /* HELLO: nothing shall be handed over */
#define REC_FLAG_KEPT 2u       /* STATE: the writer's descriptors are stored with its keeper */

/* What both ends must know for requests to be handed over in memfds. */
#define REC_CAP_HELD UINT64_C(1)   /* COMMIT may carry requests */
#define REC_CAP_RESULT UINT64_C(2) /* RESULT may carry requests after DONE */
#define REC_CAP_WRITE UINT64_C(4)  /* knows write sessions and the ledger of changes */
#define REC_CAP_STORE UINT64_C(8)  /* opens a metadata store of format 2, with content */
#define REC_CAP_BYTES UINT64_C(16) /* knows bytes of small files in the state database */
#define REC_CAPS_OURS \
	(REC_CAP_HELD | REC_CAP_RESULT | REC_CAP_WRITE | REC_CAP_STORE | REC_CAP_BYTES)
/* What an older daemon must know of these to be replaced. */
#define REC_CAPS_OF_OLD (REC_CAP_HELD | REC_CAP_RESULT)

enum rec_fd {
	REC_FD_FUSE = 1,
	REC_FD_EPOCH,
	REC_FD_COUNTS,
	REC_FD_LOCK,
	REC_FD_STATE_DIR,
	REC_FD_CACHE_DIR,
	REC_FD_CONTROL,
	REC_FD_TAKEOVER,
	REC_FD_INIT,
	REC_FD_HELD,
	REC_FD_PROCESS, /* a pidfd of the writer. REFUSE: whose end is worth waiting for */
	REC_FD_KINDS
};

/* --- Writing.  An overflow is remembered; rec_len() then is 0. */
struct rec_out {
	size_t len;
	bool overflow;
	unsigned char buf[REC_MSG_MAX];
};

void rec_begin(struct rec_out *o, enum rec_msg type);
void rec_put(struct rec_out *o, enum rec_tag tag, const void *data, size_t len);
/* The reader must refuse the message if it does not know the tag. */
void rec_put_critical(struct rec_out *o, unsigned tag, const void *data, size_t len);
void rec_put_u64(struct rec_out *o, enum rec_tag tag, uint64_t v);
void rec_put_text(struct rec_out *o, enum rec_tag tag, const char *text);
size_t rec_len(struct rec_out *o);

/* --- Reading: pointers go into the buffer that was parsed. */
struct rec_in {
	enum rec_msg type;
	struct {
		const unsigned char *data; /* NULL: not there */
		uint32_t len;
	} rec[REC_TAGS];
};

/* 0, -EBADMSG (not a well-formed message) or -EPROTO (of a version, or with a
 * record, that this build must know and does not). */
int rec_parse(struct rec_in *in, const void *buf, size_t len);
bool rec_has(const struct rec_in *in, enum rec_tag tag);
/* 0, -ENOENT, or -EBADMSG if it is not a number. */
int rec_get_u64(const struct rec_in *in, enum rec_tag tag, uint64_t *v);
/* Into buf, cut off at its end; control characters become '?'.  -ENOENT: buf is "". */
int rec_get_text(const struct rec_in *in, enum rec_tag tag, char *buf, size_t len);
/* Exactly or at most max bytes; -EMSGSIZE if longer. */
int rec_get_raw(const struct rec_in *in, enum rec_tag tag, void *buf, size_t max, uint32_t *len);
/* Sorts the nfds received descriptors by what REC_FDS says they are: out[kind] is
 * one or -1.  Unknown and repeated kinds are closed; a wrong number: all are
 * closed and -EBADMSG. */
int rec_sort_fds(const struct rec_in *in, const int *fds, int nfds, int out[REC_FD_KINDS]);
void rec_close_fds(int fds[REC_FD_KINDS]);

#endif
