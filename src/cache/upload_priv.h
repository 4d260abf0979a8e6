/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the uploads share.
 *
 *	upload.c	life and place		upload_plan.c	which bytes are which part,
 *	upload_run.c	runs				and how one goes
 *	upload_ahead.c	while it is written	upload_send.c	one part or PUT; turns
 *	upload_rows.c	rows			upload_body.c	memory of bodies
 *	upload_multi.c	beginning and ending at the storage, also when nobody waits
 *	upload_sweep.c	beginnings whose answer nobody got
 *	upload_copy.c	copies within the storage, which may be uploads too
 *
 * Sends do not belong to a run: those that went ahead are simply there when a run
 * begins.  A part that is written while a run goes on is `stale`: the run may use what
 * was sent (the file is dirty again, and will be uploaded again), a later one not.
 */
#ifndef CACHE_UPLOAD_PRIV_H
#define CACHE_UPLOAD_PRIV_H

#include "base/obj.h"
#include "base/options.h"
#include "base/queue.h"
#include "base/units.h"
#include "cache/upload.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"
#include "reactor/timer.h"

TAILQ_HEAD(upload_list, upload);
TAILQ_HEAD(up_send_list, up_send);
TAILQ_HEAD(up_multi_list, up_multi);
SLIST_HEAD(up_body_list, up_body);

struct uploads {
	uint32_t magic;
#define UPLOADS_MAGIC 0x0b10ad01u
	struct uploads_env env;
	struct statedb *db;
	uint64_t part_min;	  /* UFS_PART_MIN */
	uint64_t read_most;	  /* at one time: a write to the file waits as long */
	struct upload_list all;
	struct upload_list queue; /* that may have something to send, in turns */
	struct deferred pump;
	unsigned flying;	  /* parts on the wire, or on their way to it */
	struct up_send_list orphans; /* their read in the pool goes on */
	struct up_multi_list multis;
	uint64_t look_again; /* after so long; 0: no second look */
	bool told; /* that a storage does not list uploads */
	struct ufs **ufs; /* all storages, for uploads that were never placed */
	unsigned nufs;

	/* memory of bodies */
	uint64_t budget, charged;
	unsigned nbig;		  /* bodies larger than the budget */
	struct up_body_list idle;
	uint64_t idle_bytes;
	struct timer idle_end;
};

struct up_part {
	uint64_t len;	      /* that the storage has; 0: it has not got it */
	struct up_send *send; /* on its way */
	bool stale, row_due;  /* row_due: its row is to be deleted, which failed */
	uint32_t crc;	      /* of an upload with sums */
	char etag[UFS_VERSION_MAX];
};

enum run_state { RUN_NONE, RUN_PUT, RUN_PARTS, RUN_END, RUN_FAILED };

struct upload {
	uint32_t magic;
#define UPLOAD_MAGIC 0x0b10ad02u
	struct uploads *us;
	struct staged *sf;
	uint64_t key; /* of the rows */
	TAILQ_ENTRY(upload) all_link, link;
	bool queued;

	struct ufs *ufs;  /* NULL: upload_place() was not called yet */
	char *uri, *path; /* uri: of a place that a row told */
	char *base;	  /* version, or NULL */

	/* The multipart upload.  unit: 0 if there is none, nor one that begins. */
	char *id;
	uint64_t unit;
	struct up_part *part; /* by number - 1 */
	unsigned nparts;      /* of the array */
	bool sums;	      /* each part is sent with its checksum, and none is copied */
	uint64_t sent;
	bool rows_due;
	struct up_multi *begin;
	struct up_send_list sends;

	struct upload_run *run;
	enum run_state state;
	int err;	/* of RUN_FAILED */
	unsigned anew;	/* times it was begun anew */
	bool no_copy;	/* the storage cannot */
	unsigned next;	/* parts below are there or on their way */
	struct ufs_multi_end *end;
	struct deferred fail;

	/* Written in order, more or less: [seq_from, seq_to). */
	uint64_t seq_from, seq_to;
	unsigned ahead_next;
	unsigned wasted; /* parts sent ahead in vain */
	bool ahead, ahead_off;
};

enum send_state { SEND_FILL, SEND_READ, SEND_REQUEST };

struct up_send {
	uint32_t magic;
#define UP_SEND_MAGIC 0x0b10ad03u
	struct uploads *us; /* NULL: it is gone */
	struct upload *up;  /* NULL: orphan */
	TAILQ_ENTRY(up_send) link;
	unsigned number; /* 0: all of it, by PUT */
	uint64_t off, len, got; /* got: in the body */
	bool copy, touched;
	uint32_t crc; /* of a durable file's bytes, as they were written */
	enum send_state state;
	struct up_body *body;
	uint64_t charge;
	bool big;
	struct staged_io io;
	union {
		struct ufs_part part;
		struct ufs_put put;
	} rq;
};

/* What is noted before a beginning is sent. */
struct up_mark {
	uint64_t key, token, since_ns;
	const char *uri, *path;
};

struct up_ids {
	char **id;
	unsigned n;
};

/* A multipart upload that is begun, or ended without an object; or a look for what a
 * beginning may have left. */
struct up_multi {
	uint32_t magic;
#define UP_MULTI_MAGIC 0x0b10ad04u
	struct uploads *us;
	struct upload *up; /* that waits for the beginning, or NULL */
	struct upload_copy *copy; /* that it belongs to, or NULL */
	TAILQ_ENTRY(up_multi) link;
	struct ufs *ufs;
	uint64_t key;
	unsigned row; /* number of its row, or 0 */
	char *path;
	char *moved; /* where its directory may have been moved to meanwhile, or NULL */
	char id[UFS_UPLOAD_MAX];
	/* WAIT: begins when a look at the same place has ended.  COPY: its parts are being
	 * copied.  PAUSE: looks later. */
	enum { MULTI_WAIT, MULTI_BEGIN, MULTI_COPY, MULTI_END, MULTI_PAUSE, MULTI_SWEEP } state;
	bool sums;
	uint64_t token, since_ns;
	unsigned looks; /* still to be done */
	uint64_t delay; /* before the next after a failure */
	struct timer pause;
	struct up_ids known;
	union {
		struct ufs_multi_begin begin;
		struct ufs_multi_abort abort;
		struct ufs_multi_sweep sweep;
	} rq;
};

/* --- upload.c */
/* Are there sums of the file? */
static inline bool upload_durable(const struct upload *up)
{
	return (up->key & STAGED_DURABLE_BIT) != 0;
}
/* No multipart upload any more: rows and memory of it. */
void upload_forget(struct upload *up);
/* As if there were none. */
void upload_unknown(struct upload *up);
int upload_part_room(struct upload *up, unsigned number); /* -ENOMEM */

/* --- upload_plan.c */
struct up_pick {
	unsigned number;
	uint64_t off, len;
	bool copy, fill;
};
uint64_t plan_unit(const struct uploads *us);
/* The part that has the byte; above UFS_PARTS_MAX if none has. */
unsigned plan_part_at(uint64_t unit, uint64_t off);
/* Bytes of the part in a file of that size; 0: it is beyond. */
uint64_t plan_part_len(uint64_t unit, unsigned number, uint64_t size, uint64_t *off);
/* Does it have something to send?  May move its cursors on. */
bool plan_next(struct upload *up, struct up_pick *pk);

/* --- upload_send.c */
void upload_kick(struct upload *up);
void uploads_kick(struct uploads *us);
void uploads_pump(struct deferred *d);
void upload_unqueue(struct upload *up);
/* Gives it up; a job in the pool ends alone. */
void send_abort(struct up_send *s);
void sends_abort(struct upload *up);
void send_orphan_end(struct up_send *s);

/* --- upload_body.c */
struct up_body {
	struct pool_job job; /* unmaps it */
	SLIST_ENTRY(up_body) link;
	size_t room;
	unsigned char *mem;
};
bool body_fits(const struct uploads *us, uint64_t len);
void body_charge(struct up_send *s);
void body_uncharge(struct up_send *s);
struct up_body *body_new(struct uploads *us, size_t len);
void body_put(struct uploads *us, struct up_body **bp); /* us NULL: to the system, at once */
void body_idle_free(struct uploads *us, bool at_once);
void body_idle_end(struct timer *t);

/* --- upload_run.c */
/* A send has ended.  May free the upload. */
void run_sent(struct upload *up, const struct up_send *s, int err);
/* Everything is sent. */
void run_end(struct upload *up);
void run_fail(struct upload *up, int err);	 /* calls done: from a callback only */
void run_fail_later(struct upload *up, int err); /* from anywhere */
void run_failed(struct deferred *d);
/* It was cut off there. */
void run_cut(struct upload *up, uint64_t size);
/* Nothing of a run goes on; its user does not hear of it. */
void run_stop(struct upload *up);

/* --- upload_ahead.c */
bool ahead_next(struct upload *up, struct up_pick *pk);
void ahead_failed(struct upload *up);
void ahead_reset(struct upload *up);

/* --- upload_rows.c: -ESTALE if detached */
int rows_load(struct upload *up);
int rows_begin(struct upload *up); /* committed */
int rows_put_part(struct upload *up, unsigned number);
void rows_del_part(struct upload *up, unsigned number);
/* Deletes what could not be deleted before. */
int rows_mend(struct upload *up);
void rows_del_all(struct upload *up);
/* An upload that the storage is to be told to throw away; 0: there is no row. */
unsigned rows_drop_put(struct uploads *us, uint64_t key, const char *uri, const char *path,
    const char *id);
void rows_drop_del(struct uploads *us, uint64_t key, unsigned row);
/* The same of a beginning that is sent next; committed. */
int rows_mark_put(struct uploads *us, const struct up_mark *mk, unsigned *row);
struct up_drop_row {
	struct up_mark mark; /* texts are there until the next write */
	unsigned row;
	const char *id; /* NULL: of a beginning */
};
/* The first after (key, row) of *dr; false: there is none. */
bool rows_drop_next(struct uploads *us, struct up_drop_row *dr);
/* The ids of all uploads of a place that have a row, also of those that are to be thrown
 * away and those of copies; freed by the caller. */
int rows_known(struct uploads *us, const char *uri, const char *path, struct up_ids *ids);

/* --- upload_multi.c */
int multi_begin(struct upload *up);
/* Notes the beginning that is sent next. */
int multi_mark(struct up_multi *m);
void multi_end_start(struct up_multi *m);
/* Nobody waits for the beginning any more. */
void multi_abandon(struct upload *up);
/* Ends the upload's multipart upload at the storage, in the background, and forgets it. */
void multi_drop(struct upload *up);
/* The same, of one whose file has been moved to `path`. */
void multi_drop_moved(struct upload *up, const char *path);
struct up_multi *multi_new(struct uploads *us, struct ufs *ufs, uint64_t key, const char *path);
void multi_free(struct up_multi **mp);
void multi_begin_start(struct up_multi *m);
bool multi_may_pass(int err);

/* --- upload_copy.c */
#define COPY_KEY 0u /* of the rows of copies: no staged file has this number */
void copy_begin_start(struct up_multi *m);

/* --- upload_sweep.c */
/* A beginning has been answered: its mark goes, or what it may have left is looked for. */
void sweep_begun(struct up_multi *m, int err);
/* Looks now, and once more later: what a daemon sent that has died may be late. */
void sweep_resume(struct up_multi *m);
void sweep_due(struct timer *t);
/* A look at this place is on the wire: nothing may begin there. */
bool sweep_holds(const struct up_multi *m);

#endif
