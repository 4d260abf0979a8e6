/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The row of a session in the state database, in host order: it never leaves the machine.
 * A session under a policy has a second part; older programs refuse such a row.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/session.h"

#define SESSION_FORMAT 1u
#define SESSION_FORMAT_DURABLE 2u

enum { ROW_CREATED = 1, ROW_FRESH = 2, ROW_BASE = 4, ROW_DOUBT = 8 };
enum { ROW_RECORDED = 1, ROW_REWRITING = 2, ROW_UNSAFE = 4, ROW_INLINED = 8, ROW_UPLOADS = 16 };

struct session_row {
	uint8_t format, state, flags, pad;
	uint32_t writers;
	uint64_t staged;
	int32_t opener;
	uint32_t set, mode, uid, gid;
	int32_t error;
	uint32_t tries;
	uint32_t mtime_nsec, ctime_nsec, atime_nsec;
	int64_t mtime, ctime, atime;
	uint64_t error_wall_ns;
};
_Static_assert(sizeof(struct session_row) == 88, "rows outlive the program that wrote them");

struct durable_row {
	struct session_row r;
	uint8_t policy, state, flags, pad[5];
	uint64_t size, since_ns, next_ns;
	uint32_t tail_crc, pad2;
	char stored[96];
};
_Static_assert(sizeof(struct durable_row) == 88 + 136 && UFS_VERSION_MAX == 96,
    "rows outlive the program that wrote them");

struct timespec session_now(struct fs *fs)
{
	uint64_t ns = loop_wall(fs->env.loop);

	return (struct timespec){
	    .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
}

static void row_encode(const struct session *s, struct session_row *r)
{
	*r = (struct session_row){
	    .format = SESSION_FORMAT,
	    .state = (uint8_t)s->state,
	    .writers = s->writers,
	    .staged = s->staged,
	    .opener = s->opener,
	    .set = s->set,
	    .mode = s->mode,
	    .uid = s->uid,
	    .gid = s->gid,
	    .error = s->error,
	    .tries = s->tries,
	    .mtime_nsec = (uint32_t)s->mtime.tv_nsec,
	    .ctime_nsec = (uint32_t)s->ctime.tv_nsec,
	    .atime_nsec = (uint32_t)s->atime.tv_nsec,
	    .mtime = s->mtime.tv_sec,
	    .ctime = s->ctime.tv_sec,
	    .atime = s->atime.tv_sec,
	    .error_wall_ns = s->error_wall_ns,
	};
	/* What an upload that runs takes along is in the storage when it has ended. */
	r->flags = (uint8_t)((s->created ? ROW_CREATED : 0) |
			     (s->fresh || s->uploading != NULL ? ROW_FRESH : 0) |
			     (s->base ? ROW_BASE : 0) | (s->doubt ? ROW_DOUBT : 0));
}

static void durable_encode(const struct session *s, struct durable_row *d)
{
	memset(d, 0, sizeof(*d));
	row_encode(s, &d->r);
	d->r.format = SESSION_FORMAT_DURABLE;
	d->policy = (uint8_t)s->policy;
	d->state = s->content.state;
	d->flags = (uint8_t)((s->recorded ? ROW_RECORDED : 0) |
			     (s->content.rewriting ? ROW_REWRITING : 0) |
			     (s->safe != s->changes ? ROW_UNSAFE : 0) |
			     (s->inlined ? ROW_INLINED : 0) |
			     (s->uploading != NULL ? ROW_UPLOADS : 0));
	d->size = s->content.size;
	d->since_ns = s->content.since_ns;
	d->next_ns = s->content.next_ns;
	d->tail_crc = s->content.tail_crc;
	memcpy(d->stored, s->stored, sizeof(d->stored));
}

int session_store(struct session *s)
{
	uint64_t be = htobe64(s->node);
	struct durable_row d;
	size_t len = sizeof(d);

	if (s->ended)
		return 0;
	if (s->fs->db == NULL)
		return -ESTALE;
	if (s->policy != META_POLICY_NO_CACHE) {
		durable_encode(s, &d);
	} else {
		row_encode(s, &d.r);
		len = sizeof(d.r);
	}
	return statedb_put(s->fs->db, STATEDB_SESSIONS, &be, sizeof(be), &d, len);
}

static void row_decode(const struct session_row *r, struct session *s)
{
	s->state = r->state;
	s->writers = r->writers;
	s->staged = r->staged;
	s->opener = r->opener;
	s->set = r->set;
	s->mode = r->mode;
	s->uid = r->uid;
	s->gid = r->gid;
	s->error = r->error;
	s->tries = r->tries;
	s->mtime = (struct timespec){.tv_sec = r->mtime, .tv_nsec = r->mtime_nsec};
	s->ctime = (struct timespec){.tv_sec = r->ctime, .tv_nsec = r->ctime_nsec};
	s->atime = (struct timespec){.tv_sec = r->atime, .tv_nsec = r->atime_nsec};
	s->error_wall_ns = r->error_wall_ns;
	s->created = (r->flags & ROW_CREATED) != 0;
	s->fresh = (r->flags & ROW_FRESH) != 0;
	s->base = (r->flags & ROW_BASE) != 0;
	s->doubt = (r->flags & ROW_DOUBT) != 0;
}

static int durable_decode(const struct durable_row *d, struct session *s)
{
	if (d->policy == META_POLICY_NO_CACHE || d->policy > META_POLICY_TRANSIENT ||
	    d->state >= META_STATES || (d->r.staged & META_CONTENT_BIT) == 0 ||
	    memchr(d->stored, '\0', sizeof(d->stored)) == NULL)
		return -EPROTO;
	s->policy = d->policy;
	s->recorded = (d->flags & ROW_RECORDED) != 0;
	s->inlined = (d->flags & ROW_INLINED) != 0;
	s->adopted = (d->flags & ROW_UPLOADS) != 0;
	s->content = (struct meta_content){.policy = d->policy,
	    .state = d->state,
	    .id = s->staged,
	    .size = d->size,
	    .tail_crc = d->tail_crc,
	    .rewriting = (d->flags & ROW_REWRITING) != 0,
	    .doubt = s->doubt,
	    .since_ns = d->since_ns,
	    .next_ns = d->next_ns,
	    .tries = s->tries,
	    .error = s->error};
	/* What was being rewritten may not be safe, although nobody was told that it is. */
	if ((d->flags & (ROW_UNSAFE | ROW_REWRITING)) != 0 || !s->recorded)
		s->changes = 1;
	s->unsure = (d->flags & ROW_UNSAFE) != 0;
	memcpy(s->stored, d->stored, sizeof(s->stored));
	return 0;
}

int session_row_load(struct session *s)
{
	uint64_t be = htobe64(s->node);
	struct durable_row d;
	struct statedb_val v;
	int err = statedb_get(s->fs->db, STATEDB_SESSIONS, &be, sizeof(be), &v);

	if (err != 0)
		return err;
	if (v.len < sizeof(d.r) || v.len > sizeof(d))
		return -EPROTO;
	memcpy(&d, v.data, v.len);
	if (d.r.state > SESSION_KEPT)
		return -EPROTO;
	row_decode(&d.r, s);
	if (d.r.format == SESSION_FORMAT && v.len == sizeof(d.r) && d.r.state != SESSION_KEPT)
		return 0;
	return d.r.format == SESSION_FORMAT_DURABLE && v.len == sizeof(d) ? durable_decode(&d, s)
									  : -EPROTO;
}

int session_row_delete(struct fs *fs, uint64_t node)
{
	uint64_t be = htobe64(node);
	int err;

	if (fs->db == NULL)
		return 0;
	err = statedb_del(fs->db, STATEDB_SESSIONS, &be, sizeof(be));
	return err == -ENOENT ? 0 : err;
}
