/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Under-storage: what a mount reads from and writes to.  The only
 * header of this folder that others include; s3_*.c and posix.c implement it.
 *
 * Paths are relative to the attached URI, without leading or trailing slash; ""
 * is the root.  Components are 1..255 bytes, never "." or "..".  Keys that no
 * path can name are left out of listings and counted (ufs.hidden).
 *
 * All requests follow the leaf contract of reactor/task.h: never complete
 * inline; `done` exactly once on the loop, or never after ufs_abort(); the struct
 * is the user's and must stay until then.  Every request ends within ufs.timeout
 * of its start, retries included; one that writes, of the last byte that moved.
 *
 * Errors: -ENOENT (the thing is not there), -EACCES (refused: 401, 403),
 * -ESTALE (the version asked for is not there any more), -EIO (gave up),
 * -ETIMEDOUT (unreachable or silent for ufs.timeout), -ENAMETOOLONG, -EINVAL
 * (no key can have this path), -ENOMEM, -ENOTDIR, -ENOSPC, -EROFS, -EDQUOT, -EFBIG.  A
 * storage error never becomes -ENOENT.  Details with the storage's request id go to the log.
 */
#ifndef UFS_UFS_H
#define UFS_UFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/errtext.h"

struct loop;
struct pool;
struct http;
struct config;
struct ufs;
struct ufs_ops;

#define UFS_VERSION_MAX 96 /* with the final NUL */
#define UFS_NAME_MAX 255
#define UFS_PATH_MAX 1024

enum ufs_kind { UFS_FILE, UFS_DIR };

struct ufs_attr {
	enum ufs_kind kind;
	uint64_t size;
	struct timespec mtime;
	/* What tells one content from another: the unquoted ETag, or for file://
	 * "inode-size-mtime-ctime".  Empty for directories. */
	char version[UFS_VERSION_MAX];
	/* What storage knows of owner and mode (file://); have_mode false: it
	 * knows nothing, and the mount's defaults apply. */
	bool have_mode;
	uint32_t mode, uid, gid;
	/* In a listing: only the kind is known, the rest has to be asked for. */
	bool kind_only;
};

struct ufs_env {
	struct loop *loop;
	struct pool *pool;
	struct http *http;
	const struct config *cfg;
};

/* Parses the URI ("s3://bucket/prefix", "file:///dir") and loads credentials;
 * sends nothing yet.  -EINVAL (URI, property), -EACCES (no credentials found; et
 * says where it looked), -ENOMEM. */
int ufs_new(struct ufs **out, const struct ufs_env *env, const char *uri, struct errtext *et);
/* No request may be running. */
void ufs_free(struct ufs **u);
/* Canonical "s3://bucket/prefix" or "file:///dir", with the endpoint's host where
 * it is not the default: a stable part of cache keys, and for people. */
const char *ufs_uri(const struct ufs *u);

/* A number that no other mount has, the same for all its daemons: under temporary names
 * that come of it a successor finds what was left.  0, at first: nobody does. */
void ufs_set_mount_id(struct ufs *u, uint64_t id);

struct ufs_health {
	bool ok;		/* the last request was answered */
	uint64_t since_ns;	/* monotonic: since when ok has its value; 0: no request yet */
	char last_error[256];	/* the last failure's words, "" if none */
};
void ufs_health(const struct ufs *u, struct ufs_health *out);

struct ufs_req {
	uint32_t magic;
	struct ufs *ufs;
	void (*done)(struct ufs_req *r, int err);
	void *user;
	void *priv; /* the implementation's state while it runs */
};

/* --- Attributes of one path.  S3: HEAD key and LIST key/ side by side; the
 * directory wins. */
struct ufs_stat {
	struct ufs_req req;
	const char *path;     /* in: must stay */
	struct ufs_attr attr; /* out */
	/* in: 0, or as ufs_put; then out: a request of that number has made what is there, as
	 * far as the storage can tell.  Not through a tree. */
	uint64_t file;
	bool mine;
};
void ufs_stat(struct ufs *u, struct ufs_stat *rq, void (*done)(struct ufs_req *r, int err));

/* --- One page of a directory, in key order (a directory `a` sorts as "a/", so
 * after "a-b").  The entries that come after (after, after_kind) in that order;
 * after == NULL: from the start.  No entry at or before it is returned, also if
 * the storage sends some.  struct ufs_list is zeroed before its first ufs_list() and
 * ends with ufs_list_free(); a directory that is not there: exists false, or (file://)
 * -ENOENT. */
struct ufs_entry {
	const char *name; /* NUL-terminated, in the request's own memory */
	size_t name_len;
	struct ufs_attr attr;
};

struct ufs_list {
	struct ufs_req req;
	const char *path;  /* in */
	const char *after; /* in: name, or NULL */
	enum ufs_kind after_kind;
	struct ufs_entry *entries; /* out: until ufs_list_free() or the next ufs_list() */
	size_t count;
	bool more;    /* out: there may be further pages (count may be 0) */
	bool exists;  /* out: S3 has a marker or something below (the root always exists) */
	bool hidden;  /* out: S3 left keys out that no path can name */
	void *arena;  /* private: memory of the entries */
	void *cursor; /* private: continuation of the page before; used if it fits `after` */
};
void ufs_list(struct ufs *u, struct ufs_list *rq, void (*done)(struct ufs_req *r, int err));
void ufs_list_free(struct ufs_list *rq);

/* --- Bytes [off, off+len) of one version.  on_data brings them in order and
 * without gaps, never a byte of an error document; done(0) only after exactly len
 * bytes.  A retry in mid-body goes on where the last byte was.  -ESTALE if the
 * object is another version by now or is gone. */
struct ufs_read {
	struct ufs_req req;
	const char *path;    /* in */
	const char *version; /* in: as ufs_attr.version */
	uint64_t off;
	size_t len;
	void (*on_data)(struct ufs_read *rq, const void *data, size_t len);
};
void ufs_read(struct ufs *u, struct ufs_read *rq, void (*done)(struct ufs_req *r, int err));

/* --- Writing.
 *
 * A request is repeated after failures that may pass, as reads are; repeating one has
 * the effect of doing it once.  When one fails with -EIO or -ETIMEDOUT, or is aborted,
 * it may still take effect: the user looks, or does it again.  Never on a tree: ask
 * ufs_tree_find() for the storage.  Nothing half-written is ever visible under `path`. */

/* What the storage does by itself. */
#define UFS_CAN_RENAME 1u  /* ufs_rename() */
#define UFS_CAN_SETATTR 2u /* mode, owner and times are kept with the file */
#define UFS_CAN_ABSENT 4u  /* `absent` of ufs_put() holds between clients */
unsigned ufs_can(const struct ufs *u);

/* Attributes to give to a file; without UFS_CAN_SETATTR they are ignored. */
#define UFS_SET_MODE 1u
#define UFS_SET_UID 2u
#define UFS_SET_GID 4u
#define UFS_SET_ATIME 8u
#define UFS_SET_MTIME 16u
struct ufs_set {
	unsigned what; /* UFS_SET_* */
	uint32_t mode, uid, gid;
	struct timespec atime, mtime;
};

/* CRC32C of the bytes that a request sends, as they were when they were written.  A
 * storage that knows such sums compares it with what arrives, and what it answers is
 * compared too: -EBADMSG (of a PUT the object may be there all the same). */
struct ufs_sum {
	bool have;
	uint32_t crc32c;
};

/* A whole small object from memory.  Without `set`, a file that is replaced keeps
 * its mode and owner where the storage has those. */
struct ufs_put {
	struct ufs_req req;
	const char *path; /* in */
	const void *body; /* in: must stay, and not change */
	size_t len;
	bool absent;		   /* in: -EEXIST if something is there */
	const char *if_version;	   /* in: -ESTALE unless this version is there; or NULL */
	const struct ufs_set *set; /* in, or NULL; must stay */
	struct ufs_sum sum;	   /* in */
	/* in: 0, or the number that this mount has for what it writes there.  `again`: an
	 * earlier put or upload of that number may have been made although it failed, and
	 * then what it made may be replaced whatever the conditions say.  file:// can tell
	 * where files have extended attributes, and if `set` has a time. */
	uint64_t file;
	bool again;
	/* out: version and size always; mtime, mode and owner only with UFS_CAN_SETATTR
	 * (have_mode tells). */
	struct ufs_attr attr;
};
void ufs_put(struct ufs *u, struct ufs_put *rq, void (*done)(struct ufs_req *r, int err));

/* A large object in parts.  The id outlives the process: whoever has it may go on with
 * the upload, or end it.  Parts of 5 MiB or more but for the last, by numbers from 1,
 * in any order and side by side; a part sent again replaces the one before. */
#define UFS_UPLOAD_MAX 1024 /* with the final NUL */
#define UFS_PART_MIN (UINT64_C(5) << 20)
#define UFS_PART_MAX (UINT64_C(5) << 30)
#define UFS_PARTS_MAX 10000u

struct ufs_multi_begin {
	struct ufs_req req;
	const char *path;
	/* in: what a storage that gives names to uploads makes this one's of (file://; one
	 * that is there already under that name is replaced); 0: it finds one itself */
	uint64_t token;
	uint64_t file; /* in: as ufs_put */
	/* in: each part will come with its sum; out: it must, and copied ones cannot be */
	bool sums;
	bool repeated;		 /* out: sent more than once, so there may be others */
	char id[UFS_UPLOAD_MAX]; /* out */
};
void ufs_multi_begin(
    struct ufs *u, struct ufs_multi_begin *rq, void (*done)(struct ufs_req *r, int err));

struct ufs_part {
	struct ufs_req req;
	const char *path, *id; /* in */
	unsigned number;       /* in: 1.. */
	uint64_t off;	       /* in: of the part in the whole */
	size_t len;
	/* in: the bytes, or NULL: copied within the storage from an object's version, which
	 * may be `path` itself (-ESTALE if it is gone) */
	const void *body;
	const char *src_path, *src_version;
	uint64_t src_off;
	struct ufs_sum sum;	    /* in: of an upload with sums, else none */
	char etag[UFS_VERSION_MAX]; /* out: for ufs_multi_end() */
};
/* -ENOENT: no such upload (ended, or thrown away by the storage).  -EINVAL, -EOPNOTSUPP:
 * the storage does not copy such a range; its bytes can be sent. */
void ufs_part(struct ufs *u, struct ufs_part *rq, void (*done)(struct ufs_req *r, int err));

struct ufs_part_id {
	unsigned number;
	uint64_t len;
	char etag[UFS_VERSION_MAX];
	struct ufs_sum sum; /* as it was sent */
};

struct ufs_multi_end {
	struct ufs_req req;
	const char *path, *id;		 /* in */
	const struct ufs_part_id *parts; /* in: by rising number, without gaps in the file */
	unsigned nparts;
	const char *if_version; /* as ufs_put */
	bool absent;
	uint64_t file;
	bool again;
	const struct ufs_set *set;
	struct ufs_attr attr; /* out, as ufs_put */
};
/* The object appears.  -ENOENT: no such upload (and the object is not what it would
 * have made).  -EINVAL: the parts that the storage has are others. */
void ufs_multi_end(
    struct ufs *u, struct ufs_multi_end *rq, void (*done)(struct ufs_req *r, int err));

/* Throws an upload away; 0 also if there is none. */
struct ufs_multi_abort {
	struct ufs_req req;
	const char *path, *id;
};
void ufs_multi_abort(
    struct ufs *u, struct ufs_multi_abort *rq, void (*done)(struct ufs_req *r, int err));

/* Throws away what is left of beginnings whose answer nobody got.  file://: the upload
 * with that token.  S3, where uploads have no names of ours: all of exactly this key that
 * were begun since then, as far as clocks tell.  That may hit another client that uploads
 * the same key just now: to him the storage has lost his upload. */
struct ufs_multi_sweep {
	struct ufs_req req;
	const char *path;	 /* in */
	uint64_t token;		 /* in */
	uint64_t since_ns;	 /* in: wall clock before the beginning was sent */
	const char *const *keep; /* in: ids that are known; must stay */
	unsigned nkeep;
	unsigned found; /* out: how many were thrown away */
};
/* -EACCES, -EOPNOTSUPP: the storage does not list uploads, or not for us. */
void ufs_multi_sweep(
    struct ufs *u, struct ufs_multi_sweep *rq, void (*done)(struct ufs_req *r, int err));

/* A copy within the storage; what was at dst is replaced at once.  -ENOENT or -ESTALE:
 * the source is not there in this version.  Lasts as long as it goes on: ufs.timeout is
 * for each of its requests.
 *
 * -E2BIG: too large for one request.  With `begun` it is an upload, whose parts are
 * copied side by side.  What comes of that upload if the copy fails or is given up is
 * the user's care (cache/upload.h). */
struct ufs_copy {
	struct ufs_req req;
	const char *src, *src_version; /* in */
	uint64_t size;		       /* in: the source's */
	const char *dst;
	/* in: NULL, or called once the storage has begun an upload and before it is sent a
	 * part; `id` and `repeated` are as of ufs_multi_begin().  Not 0: ends the copy. */
	int (*begun)(struct ufs_copy *rq);
	char id[UFS_UPLOAD_MAX];
	bool repeated;
	bool gone;	      /* out, with -EIO: the storage has lost the upload, or parts of it */
	struct ufs_attr attr; /* out, as ufs_put */
};
void ufs_copy(struct ufs *u, struct ufs_copy *rq, void (*done)(struct ufs_req *r, int err));

/* Files to delete, as many as UFS_DELETE_MAX.  One that is not there counts as
 * deleted.  done(0) also if some could not be: then errs[i] says why. */
#define UFS_DELETE_MAX 1000u
struct ufs_delete {
	struct ufs_req req;
	const char *const *paths; /* in: must stay */
	unsigned n;
	int *errs; /* out: n of them, the user's memory */
	/* in: NULL, or n of them; not for file://.  true: the empty object "path/", as
	 * ufs_rmdir() */
	const bool *dirs;
};
void ufs_delete(struct ufs *u, struct ufs_delete *rq, void (*done)(struct ufs_req *r, int err));

/* S3: the empty object "path/".  file://: -EEXIST if there is something; -ENOENT without
 * a parent. */
struct ufs_mkdir {
	struct ufs_req req;
	const char *path;
	const struct ufs_set *set; /* or NULL */
	struct ufs_attr attr;	   /* out, as ufs_put */
};
void ufs_mkdir(struct ufs *u, struct ufs_mkdir *rq, void (*done)(struct ufs_req *r, int err));

/* S3: deletes "path/" and does not look what is below; 0 also if there is none.
 * file://: -ENOTEMPTY, -ENOENT. */
struct ufs_rmdir {
	struct ufs_req req;
	const char *path;
};
void ufs_rmdir(struct ufs *u, struct ufs_rmdir *rq, void (*done)(struct ufs_req *r, int err));

/* With UFS_CAN_RENAME, as rename(2); elsewhere -EOPNOTSUPP. */
struct ufs_rename {
	struct ufs_req req;
	const char *src, *dst;
	bool noreplace;	      /* -EEXIST */
	struct ufs_attr attr; /* out: of the thing under its new name */
};
void ufs_rename(struct ufs *u, struct ufs_rename *rq, void (*done)(struct ufs_req *r, int err));

/* With UFS_CAN_SETATTR; elsewhere -EOPNOTSUPP. */
struct ufs_setattr {
	struct ufs_req req;
	const char *path;
	const struct ufs_set *set;
	struct ufs_attr attr; /* out: afterwards; a file's version may have changed by this */
};
void ufs_setattr(struct ufs *u, struct ufs_setattr *rq, void (*done)(struct ufs_req *r, int err));

/* --- Is it there, and may we read it?  At start and for --check. */
struct ufs_check {
	struct ufs_req req;
	struct errtext et; /* out: the storage's own words */
};
/* done: 0, -EACCES (credentials), -ENOENT (no such bucket or directory), … */
void ufs_check(struct ufs *u, struct ufs_check *rq, void (*done)(struct ufs_req *r, int err));

/* --- Space, for statfs.  S3 answers large fixed figures (it has no limit). */
struct ufs_space {
	uint64_t total, free; /* bytes */
};
struct ufs_statfs {
	struct ufs_req req;
	struct ufs_space space;
};
void ufs_statfs(struct ufs *u, struct ufs_statfs *rq, void (*done)(struct ufs_req *r, int err));

/* --- Several storages as one tree, which is a ufs itself.  Its paths are those of the
 * namespace, and belong to the storage attached deepest above them.  An attached path
 * hides what the storage above has under that name; directories that lead to it are
 * there, whether a storage has them or not.  Contents are not read through the tree:
 * ufs_tree_find() says where they are. */
struct ufs_mount {
	const char *path; /* "" is the top */
	struct ufs *ufs;  /* not owned */
};
int ufs_tree_new(struct ufs **out, const struct ufs_env *env, const struct ufs_mount *mounts,
    unsigned n);
/* The storage of a path, and the path in it, which points into `path`; the tree itself
 * where no storage is attached. */
void ufs_tree_find(struct ufs *tree, const char *path, struct ufs **u, const char **sub);
/* Is something attached below? */
bool ufs_tree_leads_on(struct ufs *tree, const char *path);

/* Gives the request up: its callbacks are not called any more.  No-op if it has
 * ended.  May be called from a callback of this module. */
void ufs_abort(struct ufs_req *rq);

#endif
