/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon: one struct that holds the parts, in the order they are made, and
 * the three ways to begin (a fresh mount, recovery from the keeper's descriptors,
 * takeover from a live daemon).  main() fills it, takeover/ and ctl/ reach the
 * parts through it; nobody else includes this header.
 *
 * Who makes what:
 *	daemon_prepare()	loop, pool, http, storage, fs: everything that
 *				touches neither mount nor databases
 *	one of
 *	  daemon_begin_fresh()	 epoch, counts, cache lock, mount, all new
 *	  recover_begin()	 the same from the keeper's descriptors (takeover/recover.h)
 *	  takeover_begin()	 the same from the old daemon's STATE (takeover/client.h)
 *	daemon_take_right()	epoch raised, databases opened, the fd armed
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/epoch.h"
#include "base/errtext.h"
#include "base/options.h"
#include "ops/fs.h"
#include "reactor/fuse_chan.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/timer.h"
#include "takeover/tally.h"

struct cache;
struct counts;
struct ctl;
struct http;
struct statedb;
struct fdb;
struct meta;
struct peers;
struct staging;
struct takeover_link;
struct takeover_server;
struct ufs;
struct uploads;

/* Exit codes of batonfsd(8). */
enum daemon_exit {
	DAEMON_EXIT_OK = 0,
	DAEMON_EXIT_FAILURE = 1,
	DAEMON_EXIT_USAGE = 2,
	DAEMON_EXIT_STORAGE = 3,
	DAEMON_EXIT_META = 4,
	DAEMON_EXIT_TAKEOVER = 5,
};

/* CHECK (--takeover=check, internal to `upgrade --check`): say HELLO, be told whether
 * it would work, and exit 0 or 5 without taking anything. */
enum daemon_takeover_mode { TAKEOVER_AUTO, TAKEOVER_REQUIRE, TAKEOVER_NEVER, TAKEOVER_CHECK };

#define DAEMON_MAX_UFS 16
#define DAEMON_MAX_WAITERS 8

struct daemon_args {
	char *mountpoint; /* absolute, symlinks resolved */
	char **argv;	  /* as started, for upgrade and keeper; NULL-terminated */
	int argc;
	const char *ufs_specs[DAEMON_MAX_UFS]; /* "/=s3://bucket" */
	unsigned nufs;
	const char *subtree; /* --subtree, or NULL: all of the namespace */
	enum daemon_takeover_mode takeover;
	bool foreground, check;
	bool detach; /* close stdin, stdout and stderr once the mount serves */
	int fuse_fd; /* --fuse-fd, or -1 */
};

/* What the last change of the serving process was, for `status` and the log. */
struct takeover_report {
	enum { REPORT_NONE, REPORT_TAKEOVER, REPORT_RECOVERY } kind;
	uint64_t wall_ns;      /* when */
	uint64_t pause_ns;     /* requests stood still for so long */
	int from_pid;
	char from_version[32];
	uint32_t handles, held, resumed; /* open handles known, requests handed over before and after COMMIT */
	uint64_t refused, aborted; /* requests that failed with EAGAIN and with EIO */
	char failure[256];     /* the last failed attempt on this daemon, "" if none */
	uint64_t failure_wall_ns;
};

struct daemon {
	uint32_t magic;
#define DAEMON_MAGIC 0xba70f5d0u
	struct daemon_args args;
	struct config *cfg;
	struct fs_mount_opts mo;
	/* paths derived from the mount point */
	char *run_dir;	       /* /run/batonfs/<escaped> or the dir of control.socket */
	char *control_path, *takeover_path;
	char *state_dir;

	/* daemon_prepare */
	struct loop *loop;
	struct pool *pool;
	struct http *http;
	struct ufs *ufs[DAEMON_MAX_UFS];
	unsigned nufs;
	struct cache *cache;
	struct fs *fs;
	struct fuse_chan *chan;
	/* what writing needs; NULL in a read-only mount */
	struct fdb *fdb; /* the cluster with the metadata store; NULL: it is in meta_dir */
	struct meta *meta;
	struct peers *peers; /* other nodes; NULL: there is no cluster */
	struct staging *staging;
	struct uploads *uploads;
	char *meta_dir, *staging_dir;
	int staging_fd; /* staging_dir, locked while we have the right to write; else -1 */
	struct staging_lock *locking; /* its disk takes its time to be asked */
	struct timer lock_again;

	/* begin */
	struct epoch epoch;
	uint64_t mount_id;   /* random, made with the mount; in state DB and init record */
	int init_fd;	     /* memfd with struct daemon_init_record, kept by the keeper */
	int state_fd;	     /* state_dir, also kept: its path may mean nothing elsewhere */
	int adopt_ctl_fd;    /* listening sockets that came from the old daemon, or are new, */
	int adopt_takeover_fd; /* else -1: daemon_serve() adopts them */
	bool bound_control, bound_takeover; /* daemon_fini() removes their names */
	struct counts *counts;
	uint64_t started_wall_ns;
	struct takeover_report report;
	struct takeover_tally tally;
	bool tallied; /* it has what the daemons before us noted */

	/* take_right */
	struct statedb *db;
	bool serving; /* armed: we are the mount's daemon */

	/* serving */
	struct takeover_server *takeover;
	struct takeover_link *link; /* to the old daemon, until its last read ends */
	struct ctl *ctl;
	struct loop_signal sig_term, sig_int, sig_hup;
	struct timer watchdog;
	bool ready;	   /* INIT has been answered */
	bool mounted;	   /* we made the mount: it goes if start-up fails */
	int exit_code;
	bool ending;	   /* daemon_exit() was called */
	bool leaves_mount; /* the keeper's next daemon goes on with the mount */
	bool index_closed, meta_closed;
	void (*stores_closed)(void *arg);
	void *stores_closed_arg;
	uint64_t watchdog_ns;
	struct pool_job unmount_job;
	struct timer unmount_tell; /* meanwhile, to who waits for our end */
	bool kept;	   /* a keeper (or systemd) holds the descriptors */
	bool handed_over;  /* a successor serves: exit without unmounting */
	bool end_asked, end_unmount; /* by a signal, while a hand-over runs: after it */
	/* the end of a mount: never closed, for the end of the process does that */
	int gate_fd; /* a listening socket, so that who starts waits; or -1 */
	int waiters[DAEMON_MAX_WAITERS]; /* clients that wait for our end */
	unsigned nwaiters;
	char warnings[1024]; /* start-up warnings for `status`, one a line */
};

/* What the "init" memfd holds: all a recovering daemon must know of the mount. */
struct daemon_init_record {
	uint32_t magic;
#define DAEMON_INIT_MAGIC 0x62617431u
	uint32_t version; /* 1 */
	uint64_t mount_id;
	struct fuse_chan_init init; /* req_len 0: INIT has not been answered yet */
	char mountpoint[4096];
};

/* Everything that needs neither mount nor databases.  On failure et says what
 * and the return value is the exit code to end with. */
enum daemon_exit daemon_prepare(struct daemon *d, struct errtext *et);
/* Makes epoch, counts and cache lock anew and mounts. */
enum daemon_exit daemon_begin_fresh(struct daemon *d, struct errtext *et);
/* The FUSE channel object with our operations and mount options, not yet mounted
 * or adopted: 0 or negative errno.  Sets d->chan and gives it to the fs. */
int daemon_new_chan(struct daemon *d, struct errtext *et);
/* Cache object over the (possibly handed over) lock descriptor; -1: lock afresh. */
enum daemon_exit daemon_open_cache(struct daemon *d, int lock_fd, struct errtext *et);
/* --- daemon_node.c */
/* The id of this node, if an earlier daemon of the mount knew it; else 0. */
uint64_t daemon_node_known(const struct daemon *d);
/* In the pool.  id: in: what is known, or 0; out: what the directory (locked; path: its name)
 * says, which is made to say it if it says nothing yet.  What is known counts, since who
 * follows a daemon must not fail: then et may have words and the result is 0. */
int daemon_node_read(const char *path, int dir, uint64_t *id, struct errtext *et);
/* Tells the metadata store, and later daemons; id: 0: not known, which is an error in a
 * cluster. */
int daemon_set_node(struct daemon *d, uint64_t id, struct errtext *et);

/* --- daemon_writing.c */
/* Where they are: before a takeover is asked for. */
int daemon_find_write_dirs(struct daemon *d, struct errtext *et);
/* With meta.backend=fdb: its client.  Before them. */
int daemon_open_cluster(struct daemon *d, struct errtext *et);
/* Metadata store, staging and uploads, unless the mount is read-only; after the cache. */
int daemon_open_writing(struct daemon *d, struct errtext *et);
/* Gives them their databases: before fs_state_open(). */
int daemon_begin_writing(struct daemon *d, struct errtext *et);
/* The state database is closed; nobody touches it any more. */
void daemon_detach_state(struct daemon *d);
/* Closes cache index and metadata store; done on the loop, never inline. */
void daemon_close_stores(struct daemon *d, bool sync, void (*done)(void *arg), void *arg);
bool daemon_stores_closed(const struct daemon *d);
/* After all they are to be open: what is not closed yet is opened again once it is, and
 * until then requests do without the page store, and wait for the metadata store. */
void daemon_unclose_stores(struct daemon *d);
void daemon_free_writing(struct daemon *d);
/* Before a fresh mount serves: the cluster with the metadata store is there, and with the
 * write cache the path rules are known.  0, or a negative errno with words: the metadata
 * store cannot be reached. */
int daemon_load_rules(struct daemon *d, struct errtext *et);
/* Names the directories that are written to by device and inode, as those of another
 * mount namespace can be compared; "" in a read-only mount. */
#define DAEMON_WRITE_DIRS_MAX 96
void daemon_write_dirs(const struct daemon *d, char *buf, size_t len);

/* Raises the epoch from `from`, opens the state database (create: a fresh one) and
 * the cache index, gives them to the fs.  The caller arms the channel.
 * 0 or negative errno. */
int daemon_take_right(struct daemon *d, uint64_t from, bool create, struct errtext *et);
/* --- daemon_sockets.c */
/* Before a fresh mount, in this order: 0, -EADDRINUSE (a daemon has it) or another
 * negative errno. */
int daemon_bind_takeover(struct daemon *d, struct errtext *et);
int daemon_bind_control(struct daemon *d, struct errtext *et);
void daemon_unbind(struct daemon *d);
/* Those that were bound or taken over, else new ones: d->ctl and d->takeover. */
int daemon_serve_sockets(struct daemon *d, struct errtext *et);
/* A daemon whose mount is gone ends within this. */
uint64_t daemon_end_limit(const struct config *cfg);
bool daemon_mount_gone(const struct daemon *d);
/* Whoever has the other end of fd (which stays the caller's) sees its end when this
 * process and its keeper have ended. */
void daemon_keep_waiter(struct daemon *d, int fd);
/* Tells all of these that we still live, and wait for `what` (no quotes in it). */
void daemon_tell_waiters(struct daemon *d, const char *what);
/* While umount(2) runs. */
#define DAEMON_WAITS_FOR_KERNEL "the kernel, which forgets the names that it knows"
/* The mount is gone: the sockets stay until daemon_fini() has freed everything else. */
void daemon_keep_gate(struct daemon *d);
/* The end of daemon_fini(). */
void daemon_close_sockets(struct daemon *d);

/* Sockets, signals, watchdog; runs the loop until the end, telling the service
 * manager READY as soon as the mount serves.  Returns the exit code; et has words if
 * the service could not begin. */
enum daemon_exit daemon_serve(struct daemon *d, struct errtext *et);
/* A fresh mount that cannot begin, after daemon_take_right(): unmounts and closes the
 * databases.  Does not return if disk work hangs: then it ends the process. */
void daemon_abandon(struct daemon *d, int code);
/* The mount serves: readahead window, READY=1 with our pid and command line. */
void daemon_announce(struct daemon *d);
/* stdin, stdout and stderr become /dev/null: whoever started us in the background
 * and waits for their end may go on. */
void daemon_detach_stdio(void);
/* The mount's state is where fd (taken over, also on failure) says, whatever state.dir
 * says here. */
int daemon_adopt_state_dir(struct daemon *d, int fd, struct errtext *et);
/* A hand-over that was under way has ended without one: do what a signal asked
 * meanwhile. */
void daemon_end_if_asked(struct daemon *d);
/* Ends daemon_serve(); unmount: detach the mount point first (in the pool). */
void daemon_exit(struct daemon *d, bool unmount, int code);
/* log.level as it is now. */
void daemon_apply_log_level(const struct config *cfg);
/* Adds a line to what `status` shows as warnings, and to the log. */
void daemon_warn(struct daemon *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Stores our descriptors with the keeper or systemd ("fuse", "lock", "epoch",
 * "counts", "init", "state"); 0, or -ENOTCONN without one. */
int daemon_store_fds(struct daemon *d);
/* The same for the listening sockets ("control", "takeover"). */
int daemon_store_sockets(struct daemon *d);
/* Takes all of them out of the store: the mount is gone. */
void daemon_unstore_fds(void);
/* Writes the init record into d->init_fd (made if it is -1). */
int daemon_write_init(struct daemon *d);
/* Remembers "-s name=value" in args.argv for restarts and upgrades, replacing an
 * earlier one of the same name, and tells the keeper. */
int daemon_keep_setting(struct daemon *d, const char *name, const char *value);
/* Tells the keeper our command line, to start us with again: 0 (also without one), or
 * negative errno. */
int daemon_tell_argv(struct daemon *d);
/* Waits, for a while, until nothing of us is in the pool: false, and nothing can be freed. */
bool daemon_rest(struct daemon *d);
/* Frees what there is, in reverse; accepts half-built daemons. */
void daemon_fini(struct daemon *d);

#endif
