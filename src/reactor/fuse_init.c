/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <linux/fuse.h>
#include <string.h>

#include "base/fault.h"
#include "base/obj.h"
#include "reactor/fuse_init.h"

#define DEFAULT_BACKGROUND 64u

/* The bits of an INIT reply that this build can honour, and libfuse's names for
 * those it knows under another one (0: nothing to tell the library). */
static const struct {
	uint32_t bit, cap;
} known_bits[] = {
    {FUSE_ASYNC_READ, FUSE_CAP_ASYNC_READ},
    {FUSE_ATOMIC_O_TRUNC, FUSE_CAP_ATOMIC_O_TRUNC},
    {FUSE_BIG_WRITES, 0},
    {FUSE_AUTO_INVAL_DATA, FUSE_CAP_AUTO_INVAL_DATA},
    {FUSE_DO_READDIRPLUS, FUSE_CAP_READDIRPLUS},
    {FUSE_READDIRPLUS_AUTO, FUSE_CAP_READDIRPLUS_AUTO},
    {FUSE_ASYNC_DIO, FUSE_CAP_ASYNC_DIO},
    {FUSE_PARALLEL_DIROPS, FUSE_CAP_PARALLEL_DIROPS},
    {FUSE_MAX_PAGES, 0},
    {FUSE_INIT_EXT, 0},
};

static void want(struct fuse_conn_info *conn, uint32_t cap)
{
	conn->want |= conn->capable & cap;
}

void fuse_init_propose(struct fuse_conn_info *conn)
{
	/* Replaces the library's defaults, so that a newer library proposes the
	 * same.  Listings of storage carry every attribute, hence READDIRPLUS
	 * always.  No AUTO_INVAL_DATA: a node id has one content. */
	conn->want = 0;
	want(conn, FUSE_CAP_ASYNC_READ);
	want(conn, FUSE_CAP_ATOMIC_O_TRUNC);
	want(conn, FUSE_CAP_READDIRPLUS);
	want(conn, FUSE_CAP_PARALLEL_DIROPS);
	want(conn, FUSE_CAP_ASYNC_DIO);
	conn->max_write = FUSE_INIT_IO_MAX;
	conn->max_read = FUSE_INIT_IO_MAX;
	conn->max_background = DEFAULT_BACKGROUND;
}

static struct fuse_init_out reply_of(const struct fuse_chan_init *rec)
{
	struct fuse_init_out out;

	memcpy(&out, rec->reply + sizeof(struct fuse_out_header), sizeof(out));
	return out;
}

void fuse_init_restore(struct fuse_conn_info *conn, const struct fuse_chan_init *rec)
{
	const struct fuse_init_out out = reply_of(rec);
	size_t i;

	conn->want = 0;
	for (i = 0; i < ARRAY_LEN(known_bits); i++)
		if ((out.flags & known_bits[i].bit) != 0)
			want(conn, known_bits[i].cap);
	conn->max_write = out.max_write;
	conn->max_read = FUSE_INIT_IO_MAX;
	conn->max_background = out.max_background;
	conn->congestion_threshold = out.congestion_threshold;
}

int fuse_init_check(const struct fuse_chan_init *rec, struct errtext *et)
{
	struct fuse_in_header in;
	struct fuse_out_header head;
	struct fuse_init_out out;
	uint64_t left;
	size_t i;

	memcpy(&in, rec->req, sizeof(in));
	memcpy(&head, rec->reply, sizeof(head));
	if (rec->req_len < sizeof(in) || rec->req_len > FUSE_CHAN_INIT_MAX ||
	    in.len != rec->req_len || in.opcode != FUSE_INIT)
		return errtext_set(et, -EPROTO, "recorded FUSE INIT request is damaged");
	if (rec->reply_len < sizeof(head) + sizeof(out) || rec->reply_len > FUSE_CHAN_INIT_MAX ||
	    head.len != rec->reply_len || head.error != 0)
		return errtext_set(et, -EPROTO, "recorded FUSE INIT reply is damaged");
	out = reply_of(rec);
	left = out.flags | (uint64_t)out.flags2 << 32;
	/* As if it came from a build that knows more than this one. */
	if (FAULT("fuse.init.bit") != 0)
		left |= UINT64_C(1) << 63;
	for (i = 0; i < ARRAY_LEN(known_bits); i++)
		left &= ~(uint64_t)known_bits[i].bit;
	if (left != 0)
		return errtext_set(et, -EPROTO,
		    "the mount was set up with FUSE feature bit %d (flags 0x%x, flags2 0x%x), "
		    "which "
		    "this version does not know; use a version at least as new as the one that "
		    "mounted",
		    __builtin_ctzll(left), out.flags, out.flags2);
	if (out.max_write > FUSE_INIT_IO_MAX)
		return errtext_set(et, -EPROTO,
		    "the mount was set up with writes of %u bytes, this version takes at most %u",
		    out.max_write, FUSE_INIT_IO_MAX);
	return 0;
}
