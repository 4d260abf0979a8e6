/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Uploads: a staged file becomes an object.
 *
 *	up to write.part.size			one PUT
 *	larger					multipart: parts that are all base are
 *						copied within the storage, the rest is sent,
 *						several side by side
 *	larger, and written in order		parts that are complete are sent while
 *						the file is still open
 *
 * Part n has its place by its number alone (upload_part_range()), so that a file of
 * any size the storage takes needs no more than UFS_PARTS_MAX parts.  A part that is
 * written again after it was sent is sent again.  The id of the multipart upload and
 * the parts that the storage has are rows of the state database, so a successor goes
 * on where this daemon stopped; parts on the wire are sent again.
 *
 * The bodies of parts count against a share of memory.limit, one part at least; who
 * waits for it waits his turn.  Loop thread; leaf contract of reactor/task.h.
 */
#ifndef CACHE_UPLOAD_H
#define CACHE_UPLOAD_H

#include "cache/staged.h"
#include "ufs/ufs.h"

struct statedb;
struct upload;
struct uploads;

struct uploads_env {
	struct loop *loop;
	struct pool *pool;
	const struct config *cfg;
};
int uploads_new(struct uploads **out, const struct uploads_env *env);
void uploads_free(struct uploads **us);
void uploads_set_db(struct uploads *us, struct statedb *db); /* NULL: detached */
/* Goes on telling these storages (all there are; they live longer) which uploads they
 * shall throw away, where upload_drop() of this daemon or the one before did not get an
 * answer or did not know the place. */
void uploads_resume(struct uploads *us, struct ufs *const *ufs, unsigned n);

/* The upload of one staged file (which lives longer), with the rows under its id if
 * there are any. */
int upload_new(struct uploads *us, struct staged *sf, struct upload **out);
/* Aborts what runs, without a word to the storage; rows stay. */
void upload_free(struct upload **up);
/* Where the object will be, and the version in the storage (NULL: none) that unchanged
 * parts are copied from; both copied.  Another place than before forgets the parts sent
 * so far (upload_drop() tells the storage). */
int upload_place(struct upload *up, struct ufs *ufs, const char *path, const char *base_version);
/* [off, off+len) was written, zeroed or (len UINT64_MAX) cut off.  May begin to send
 * parts ahead, if `ahead`; never reports an error: upload_start() will meet it. */
void upload_wrote(struct upload *up, uint64_t off, uint64_t len, bool ahead);

/* Makes the object of the file as it is now. */
struct upload_run {
	/* in */
	bool absent;		   /* as ufs_put */
	const char *if_version;	   /* or NULL; must stay */
	bool again;		   /* one before may have made an object although it failed */
	const struct ufs_set *set; /* or NULL; must stay */
	void (*done)(struct upload_run *r, int err);
	void *user;
	/* out */
	struct ufs_attr attr;
	uint64_t size; /* of what was sent */
	/* private */
	struct upload *up;
};
/* One at a time.  The caller has called staged_sending(). */
void upload_start(struct upload *up, struct upload_run *r);
/* Gives it up: done is not called.  Parts that the storage has stay known. */
void upload_abort(struct upload_run *r);
bool upload_running(const struct upload *up);
/* Is the request on the wire that makes the object?  Given up now, it may still do so. */
bool upload_making(const struct upload *up);
/* Stops sending ahead; what is on the wire is given up.  upload_wrote() or
 * upload_start() go on. */
void upload_pause(struct upload *up);
/* Ends the multipart upload at the storage, if there is one, and forgets the rows.
 * Nothing of it may be running; goes on by itself when the upload is freed. */
void upload_drop(struct upload *up);
/* The id of the multipart upload in progress, or "". */
const char *upload_id(const struct upload *up);
/* Bytes that the storage has of it, for people. */
uint64_t upload_sent(const struct upload *up);

/* --- A copy within a storage, as ufs_copy(), of any size: what is copied in parts is an
 * upload too, which is noted and thrown away as others are if nothing comes of it, and
 * begun anew a few times if the storage loses it. */
struct upload_copy {
	/* in; texts must stay */
	const char *src, *src_version, *dst;
	uint64_t size;
	void (*done)(struct upload_copy *c, int err);
	void *user;
	struct ufs_attr attr; /* out */
	/* private */
	struct uploads *us;
	struct ufs_copy rq;
	struct up_multi *multi;
	unsigned anew;
};
/* us NULL: -EIO for what has to be copied in parts. */
void upload_copy(struct uploads *us, struct ufs *ufs, struct upload_copy *c);
/* Gives it up: done is not called.  A zeroed struct will do, and one that has ended. */
void upload_copy_abort(struct upload_copy *c);

/* Place of part `number` (1..UFS_PARTS_MAX) for a first part of `unit` bytes; the last
 * part ends with the file. */
void upload_part_range(uint64_t unit, unsigned number, uint64_t *off, uint64_t *len);

#endif
