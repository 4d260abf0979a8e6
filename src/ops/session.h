/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Write sessions: one a file that is open for writing, from the open to the end of the
 * last upload.
 *
 *	OPEN	a handle for writing is open
 *	CLOSING	the last one was released; what is left is uploaded, then the session
 *		ends and the node has the version that the storage has
 *	FAILED	the last upload failed and nobody has it open: the data is kept until the
 *		user retries or drops it, or opens the file for writing and closes it well.
 *		A durable file: it could not be made safe, which is tried again
 *	KEPT	of a durable file: closed, and its record says all; see below
 *	ORPHAN	the name is gone (unlink, replaced by a rename): never uploaded; lives as
 *		long as a handle of any kind is open on the node
 *
 * A file under a policy of the write cache (base/rules.h) is always a new one: it has no
 * base, its staged file is durable (cache/staged.h), and a record of the metadata store
 * (META_HAS_CONTENT) says what is safe:
 *
 *	close(2), fsync(2)	the staged file is synced and the record is committed
 *				(session_secure.c); WRITE_THROUGH's close(2) then uploads
 *				too, and a failure of that leaves the record NOT_PERSISTED
 *	the last close		the session becomes KEPT: nothing is left to be done here.
 *				It ends (staged_park) when nobody has the file open and no
 *				upload runs; content and record stay
 *	open for reading	session_adopt() makes it again from the record
 *	persisting		ops/persist.h adopts it and uploads (session_upload); the
 *				record says PERSISTED before the staged file goes, to be
 *				clean cache if that can be
 *
 * The node's version of such a file is session_content_version() until the storage has
 * it, and then the storage's; the id stays.
 *
 * A session is found by its node.  While there is one the node's size and times are
 * the session's, whoever asks, and reads of the node go through its staged file.  Its
 * row in the state database (STATEDB_SESSIONS) and those of the staged file and the
 * upload say all that a successor needs.  The path to upload to is the node's at that
 * moment: a rename needs no word to the session.
 *
 * An upload under way is a task of the session, not of the request that wants it; the
 * requests wait for it (session_upload).  Loop thread.
 */
#ifndef OPS_SESSION_H
#define OPS_SESSION_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "cache/staged.h"
#include "cache/upload.h"
#include "ops/handle.h"
#include "ops/node.h"
#include "ops/pathlock.h"
#include "reactor/task.h"

enum session_state {
	SESSION_OPEN,
	SESSION_CLOSING,
	SESSION_FAILED,
	SESSION_ORPHAN,
	SESSION_KEPT
};

struct session_wait;

struct session {
	uint32_t magic;
#define SESSION_MAGIC 0x5e551001u
	struct fs *fs;
	UT_hash_handle hh; /* fs->sessions, by node */
	uint64_t node;
	enum session_state state;
	struct staged *sf;
	struct upload *up;
	unsigned writers; /* handles for writing */
	unsigned users;	  /* running operations; it stays while there are any */
	pid_t opener;	  /* process (not thread) that opened it for writing; 0: not known */
	bool created;	  /* the storage has never had it: an empty file is to be made too */
	bool fresh;	  /* written or truncated since the last upload that ended well */
	struct timespec mtime, ctime, atime;
	unsigned set;	  /* UFS_SET_*: attributes that the upload or its record must carry */
	uint32_t mode, uid, gid; /* valid as `set` says */
	/* of the last upload that failed */
	int error;
	uint64_t error_wall_ns;
	unsigned tries;
	TAILQ_HEAD(, session_wait) waits;
	struct op_upload *uploading; /* the task that runs, or NULL */
	/* under a policy */
	enum meta_policy policy;     /* META_POLICY_NO_CACHE: none of this holds */
	struct meta_content content; /* as the record says, or will say */
	bool recorded;		     /* there is a record of it */
	struct op_secure *securing;  /* the task that runs, or NULL */
	/* private: under a policy */
	char stored[UFS_VERSION_MAX]; /* what the storage has of it, "": nothing */
	uint64_t changes, safe;	      /* of this many changes the record knows so many */
	unsigned rewriters;	      /* running writes below the size that the record has */
	bool unsure;		      /* what was put together last may be in the store or not */
	bool noted;		      /* the record says `rewriting`, and is safe */
	bool inlined;		      /* the metadata store has its bytes */
	bool through;		      /* an upload follows at once: the record says `doubt` */
	bool last;		      /* the mount is gone */
	bool adopted;		      /* by a daemon that died: its upload is to be looked at */
	unsigned unsafe;	      /* tries to make it safe that failed since it was closed; */
	uint64_t next_try_ns;	      /* monotonic: the next of them */
	struct blob *clean;	      /* all of it as the storage has it, or NULL */
	/* private */
	uint64_t staged; /* number of the staged file */
	bool base;	 /* beneath it lies the node's version in the storage */
	bool flushed;	 /* a close(2) was seen since the last write: its RELEASE is near */
	bool doubt;	 /* an upload was begun whose outcome is not known */
	bool ended;	 /* not in the table any more; goes with its last user */
	uint64_t seen;	 /* fs->rebinds when the place in the storage was looked up */
	struct deferred pump;
	struct timer reap; /* its end, or that of its file, is to be tried again */
	struct session *next_ended;
};

/* The session of a node, or NULL; loads it from its row after a takeover. */
struct session *session_of(struct fs *fs, uint64_t node);
/* A new one over the node (rows written).  base: the node's version is the beginning
 * (false: empty, as after O_TRUNC or create).  -EBUSY if there is one. */
int session_new(struct fs *fs, const struct node *n, const char *path, bool base, pid_t pid,
    struct session **out);
/* The same for a file that is created under a policy. */
int session_new_durable(struct fs *fs, const struct node *n, const char *path,
    enum meta_policy policy, pid_t pid, struct session **out);
/* The session of a node whose content a record describes (not PERSISTED): the one there
 * is, or one in state KEPT (FAILED records too).  inl: the bytes that the record's content
 * has in the metadata store, or NULL.  -ESTALE: the node has another version by now. */
int session_adopt(struct fs *fs, const struct node *n, const struct meta_record *rec,
    const void *inl, size_t inl_len, struct session **out);
/* What the version of a node is while the metadata store has its content: "~" and the
 * content's id.  (No storage's version begins so.) */
void session_content_version(uint64_t content, char version[UFS_VERSION_MAX]);
/* The content's id of such a version; 0: it is none. */
uint64_t session_version_content(const char *version);
/* The row says what the struct says. */
int session_store(struct session *s);
/* That of a handle that is open for writing: 0, -EBADF or what else is wrong. */
int session_for_writing(struct fs *fs, uint64_t fh, struct session **s);
void session_use(struct session *s);
/* May free it. */
void session_unuse(struct session *s);
/* Puts what it knows over the node's attributes. */
void session_overlay(const struct session *s, struct node *n);
/* A handle for writing was opened or released. */
int session_add_writer(struct session *s, int by);
/* [off, off+len) was written, zeroed or (len UINT64_MAX) cut off: times, and what is to be
 * uploaded. */
int session_wrote(struct session *s, uint64_t off, uint64_t len);
/* The process that a thread belongs to; 0: not known (it has gone, or is in a pid namespace
 * that we do not see). */
pid_t session_process(pid_t tid);
/* Does the thread belong to the process that opened the file, as far as we can tell?  True
 * if that process has ended. */
bool session_same_process(const struct session *s, pid_t tid);

/* Waits until everything that was written before the call is in the storage, uploading
 * if need be (leaf contract).  0, or what the upload failed with.  force: also a new
 * file that is empty, and one that a failed upload waits to try again. */
struct session_wait {
	struct session *s;
	void (*done)(struct session_wait *w, int err);
	void *user;
	/* private */
	TAILQ_ENTRY(session_wait) link;
	bool ended_only;
	bool secure, note; /* for that, not for an upload */
	uint64_t upto;	   /* secure: of session.changes */
	unsigned pass; /* the how many-th upload to end, from now on, answers it */
	struct loop *loop;
	struct deferred run;
	int err;
	bool queued;
};
void session_upload(struct session *s, struct session_wait *w, bool force,
    void (*done)(struct session_wait *w, int err));
/* Of a durable file: waits until everything that was written before the call is safe
 * through power loss, and its record says so (leaf contract). */
void session_secure(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
/* Is all of it safe, also what was set of its attributes? */
static inline bool session_is_safe(const struct session *s)
{
	return s->recorded && s->safe == s->changes;
}
/* Of a durable file: another node has made a file of that name, and was first.  The close(2)
 * has failed, and to try again later would be to hide that file. */
static inline bool session_refused(const struct session *s)
{
	return !s->recorded && s->error == -EEXIST;
}
/* Attributes as they were asked for.  In the record of a durable file they are after a
 * session_secure() (which does that for one that is KEPT, too). */
int session_set_attr(struct session *s, const struct ufs_set *set);
/* The record of a durable file, as its session knows it. */
void session_record(const struct session *s, struct meta_record *rec);
/* Bytes from `off` on are going to be changed that the record of a durable file has made
 * safe: the record has to say so first, or a power loss would leave a file that is
 * neither what it was nor what was written. */
bool session_must_note(const struct session *s, uint64_t off);
/* Waits for that (leaf contract). */
void session_note(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
/* Around the change itself, if it is below the size that the record has: begins (by = 1)
 * in the turn in which session_must_note() said no. */
void session_rewriter(struct session *s, int by);
/* Waits for the end of an upload that runs, and for that of a session that is CLOSING
 * (w->s is then no longer to be touched). */
void session_settle(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
/* Waits until the session ends, or an upload of it does, whatever its state. */
void session_await(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
void session_wait_abort(struct session_wait *w);

/* The name is gone, or another file's: no upload any more (one that runs is given up),
 * the content stays for those who have it open.  Nobody: the session ends here. */
int session_orphan(struct session *s);
/* Throws a FAILED session away: the name is what the storage says again. */
int session_drop(struct session *s);
/* For a node that is open for reading and is about to lose its object: makes an ORPHAN
 * session and brings all of the content here.  Leaf contract; after done(0) the object
 * may be deleted.  At once 0 if nobody has the node open. */
struct session_keep {
	void (*done)(struct session_keep *k, int err);
	void *user;
	/* private */
	struct fs *fs;
	struct session_io *io;
	struct deferred run;
	int err;
};
void session_keep(struct fs *fs, uint64_t node, struct session_keep *k,
    void (*done)(struct session_keep *k, int err));
void session_keep_abort(struct session_keep *k);
/* Without a policy: the storage has not taken what is here, and what is here stays when the
 * mount ends, too (staged_keep()). */
void session_leave(const struct session *s);
/* A handle (of any kind) on the node was released: ends an ORPHAN that nobody needs. */
void session_handle_gone(struct fs *fs, uint64_t node);

/* Calls fn for each session; fn may end the one it gets. */
void session_foreach(struct fs *fs, void (*fn)(struct session *s, void *arg), void *arg);
/* Sessions whose rows exist are known again (after a takeover or crash), closing ones go
 * on, failed ones are shown. */
int session_open_all(struct fs *fs);
/* A hand-over begins, or the end: no further upload does.  Those that run go on. */
void session_hold_all(struct fs *fs);
/* Nothing is uploaded any more: what is on the wire is given up, rows stay. */
void session_pause_all(struct fs *fs);
/* No hand-over after all. */
void session_resume_all(struct fs *fs);
/* The mount is gone, and with it all handles: what is left is uploaded. */
void session_release_all(struct fs *fs);
/* Sessions whose end is near: what is left of them is being uploaded, or will be. */
unsigned session_closing(const struct fs *fs);
/* Will the bytes of a content that the metadata store has as this node's stay as they are?
 * -EBUSY: it is being written, or not safe yet; -EAGAIN: not known just now. */
int session_content_closed(struct fs *fs, uint64_t content);
/* Does the pool work on a staged file? */
bool session_any_busy(const struct fs *fs);
/* Out of memory; rows stay.  Nothing of them may be running. */
void session_close_all(struct fs *fs);
/* Rows of a turn were lost: what is in memory is read again. */
int session_check_all(struct fs *fs);

/* --- A read of the staged file, or a fill of it, that its user may leave at any time, also
 * while the pool works on it. */
struct session_io {
	struct staged_io io;
	struct session *s; /* used */
	void (*done)(struct session_io *sio, int err); /* NULL once it was left */
	void *user;
	bool fill; /* not a read */
	/* private */
	bool running, holds; /* holds: what was read */
};
/* NULL: out of memory. */
struct session_io *session_io_new(struct session *s, uint64_t off, uint64_t len);
/* True: it has been read, at once. */
bool session_io_try(struct session_io *sio);
void session_io_start(struct session_io *sio, void (*done)(struct session_io *sio, int err));
/* After done(), or instead of waiting for it; gives back what was read. */
void session_io_end(struct session_io **sio);

/* --- Between the files of sessions */
/* Is there anything that the storage has not got?  A new file that is empty counts, and
 * so do attributes. */
static inline bool session_unsaved(const struct session *s)
{
	return s->fresh || s->created || s->set != 0;
}
/* From its row: 0, -ENOENT, -ENOMEM, … */
int session_load(struct fs *fs, uint64_t node, struct session **out);
int session_alloc(struct fs *fs, uint64_t node, struct session **out);
/* Row, node and upload of a session whose other fields are set. */
int session_begin(struct session *s, const struct node *n, const char *path);
/* One whose beginning failed: nothing is left. */
void session_undo(struct session *s);
/* The row: what it says into the struct; and it goes. */
int session_row_load(struct session *s);
int session_row_delete(struct fs *fs, uint64_t node);
struct timespec session_now(struct fs *fs);
/* Of a durable file: what is next; its node's row says what it knows; it is closed. */
void session_pump_durable(struct session *s);
int session_tell_node(struct session *s);
/* It could not be made safe: if it is closed, that is tried again later. */
void session_unsafe(struct session *s, int err);
/* Its end leaves content and record; and does so now. */
bool session_parks(const struct session *s);
int session_park(struct session *s);
/* session_secure.c */
void session_secure_start(struct session *s, bool note);
void session_secure_cancel(struct session *s);
/* Answers waits for it: those for what was changed up to `upto`, or for the note. */
void session_wake_secure(struct session *s, bool note, uint64_t upto, int err);
/* session_record.c.  What a failed upload leaves in the content: the next try, or FAILED. */
void session_note_failure(struct session *s, int err);
/* Out of memory; rows stay, and nothing of it is running. */
void session_free(struct session **sp);
/* Sees to what is to be done next, soon. */
void session_pump(struct session *s);
/* The session is over: its rows go now, the rest with its last user. */
void session_end(struct session *s);
/* Where the content comes from and goes to, as the node is now. */
int session_rebase(struct session *s);
void session_wait_add(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));
void session_wait_end(struct session *s, struct session_wait *w, int err);
/* Answers waits. */
void session_wake(struct session *s, int err);
/* Uploads if something waits for it. */
void session_upload_start(struct session *s);
/* Is there one that has taken along what was written before? */
bool session_sending(const struct session *s);
/* Gives the running upload up. */
void session_upload_cancel(struct session *s);
/* The same, unless the storage may be making the object already. */
void session_upload_recall(struct session *s);
/* Handles of any kind on the session's node. */
unsigned session_handles(const struct session *s);
/* The upload's last try has failed and nobody has the file open. */
void session_failed(struct session *s, int err);

#endif
