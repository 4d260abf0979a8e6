/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What writing needs beside the cache: the metadata store, the directory of staged
 * files and the uploads.  A mount that is read-only has none of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/paths.h"
#include "base/units.h"
#include "cache/staged.h"
#include "cache/upload.h"
#include "daemon.h"
#include "meta/meta.h"
#include "ops/policy.h"
#include "peer/peer.h"
#include "reactor/fdb.h"
#include "reactor/statedb.h"

#define LOCK_PAUSE_NS (5 * NS_PER_MS)
/* By the clock: pauses are longer on a busy machine. */
#define LOCK_TRY_NS (2 * NS_PER_S)
/* For these and for the disk: less than a successor has until it is given up. */
#define LOCK_WAIT_S 3
#define LOCK_AGAIN_NS (2 * NS_PER_S)

/* A directory for `leaf`: as configured, else in the page store's directory, else
 * where a machine keeps what outlives a reboot. */
static int writing_dir(const struct daemon *d, const char *configured, const char *property,
    const char *leaf, char buf[PATHS_DATA_MAX], struct errtext *et)
{
	char data[PATHS_DATA_MAX];
	int err = 0, n;

	if (configured[0] != '\0') {
		n = snprintf(buf, PATHS_DATA_MAX, "%s", configured);
	} else if (d->cfg->page_store_dir[0] != '\0') {
		n = snprintf(buf, PATHS_DATA_MAX, "%s/%s", d->cfg->page_store_dir, leaf);
	} else {
		err = paths_data_dir(d->args.mountpoint, data, sizeof(data));
		n = err == 0 ? snprintf(buf, PATHS_DATA_MAX, "%s/%s", data, leaf) : 0;
	}
	if (n < 0 || n >= PATHS_DATA_MAX)
		err = -ENAMETOOLONG;
	if (err == 0 && buf[0] != '/')
		err = -EINVAL;
	if (err == 0)
		return 0;
	if (err == -ENOENT)
		return errtext_set(et, err,
		    "%s: neither it nor worker.page.store.dir is set, and $HOME is not known: "
		    "what is written has no place (-o ro mounts without)",
		    property);
	return errtext_set(et, err, "%s %s: %s", property, buf,
	    err == -EINVAL ? "must be an absolute path" : strerror(-err));
}

/* Does FoundationDB have the metadata store? */
static bool in_cluster(const struct daemon *d)
{
	return strcmp(d->cfg->meta_backend, "fdb") == 0;
}

/* A directory that is not there yet is 0:0 for both. */
static void dir_identity(const char *dir, char *buf, size_t len)
{
	struct stat st = {.st_ino = 0};

	if (stat(dir, &st) != 0)
		memset(&st, 0, sizeof(st));
	snprintf(buf, len, "%llx:%llx", (unsigned long long)st.st_dev,
	    (unsigned long long)st.st_ino);
}

void daemon_write_dirs(const struct daemon *d, char *buf, size_t len)
{
	char staged[DAEMON_WRITE_DIRS_MAX / 2], meta[DAEMON_WRITE_DIRS_MAX / 2];

	buf[0] = '\0';
	if (d->mo.ro || d->staging_dir == NULL)
		return;
	dir_identity(d->staging_dir, staged, sizeof(staged));
	if (in_cluster(d))
		snprintf(meta, sizeof(meta), "fdb-%u:%llx", META_FDB_FORMAT,
		    (unsigned long long)hash64(d->meta_dir, strlen(d->meta_dir), 0));
	else
		dir_identity(d->meta_dir, meta, sizeof(meta));
	snprintf(buf, len, "%s %s", staged, meta);
}

/* Where the store is, for people. */
static int cluster_name(const struct daemon *d, char buf[PATHS_DATA_MAX], struct errtext *et)
{
	const char *prefix = d->cfg->meta_fdb_prefix;

	if (prefix[0] == '\0' || strlen(prefix) > META_FDB_PREFIX_MAX ||
	    (unsigned char)prefix[0] == 0xff)
		return errtext_set(et, -EINVAL, "meta.fdb.prefix '%s': must have 1 to %d bytes",
		    prefix, META_FDB_PREFIX_MAX);
	snprintf(buf, PATHS_DATA_MAX, "fdb:%s", prefix);
	return 0;
}

int daemon_find_write_dirs(struct daemon *d, struct errtext *et)
{
	char staged[PATHS_DATA_MAX], meta[PATHS_DATA_MAX];
	int err;

	if (d->mo.ro || d->args.mountpoint == NULL) /* --check alone needs none */
		return 0;
	if (in_cluster(d))
		err = cluster_name(d, meta, et);
	else
		err = writing_dir(d, d->cfg->meta_dir, "meta.dir", "meta", meta, et);
	if (err == 0)
		err = writing_dir(
		    d, d->cfg->write_staging_dir, "write.staging.dir", "staged", staged, et);
	if (err != 0)
		return err;
	d->meta_dir = strdup(meta);
	d->staging_dir = strdup(staged);
	return d->meta_dir != NULL && d->staging_dir != NULL
		   ? 0
		   : errtext_set(et, -ENOMEM, "write.staging.dir: %s", strerror(ENOMEM));
}

int daemon_open_cluster(struct daemon *d, struct errtext *et)
{
	if (d->mo.ro || !in_cluster(d))
		return 0;
	return fdb_new(
	    &d->fdb, d->loop, d->cfg->meta_fdb_library, d->cfg->meta_fdb_cluster_file, et);
}

static int open_peers(struct daemon *d, struct errtext *et)
{
	const struct peers_env env = {.loop = d->loop,
	    .pool = d->pool,
	    .http = d->http,
	    .cfg = d->cfg,
	    .meta = d->meta,
	    .fs = d->fs,
	    .staging_dir = d->staging_dir};
	int err;

	if (d->fdb == NULL)
		return d->cfg->node_listen[0] == '\0'
			   ? 0
			   : errtext_set(et, -EINVAL,
				 "node.listen %s: other nodes there are with meta.backend=fdb only",
				 d->cfg->node_listen);
	err = peers_new(&d->peers, &env, et);
	if (err == 0)
		fs_set_peers(d->fs, peers_ufs(d->peers));
	return err;
}

int daemon_open_writing(struct daemon *d, struct errtext *et)
{
	const struct meta_env menv = {.loop = d->loop,
	    .pool = d->pool,
	    .cfg = d->cfg,
	    .epoch = &d->epoch,
	    .fdb = d->fdb};
	const struct staging_env senv = {.loop = d->loop,
	    .pool = d->pool,
	    .cfg = d->cfg,
	    .cache = d->cache,
	    .epoch = &d->epoch};
	const struct uploads_env uenv = {.loop = d->loop, .pool = d->pool, .cfg = d->cfg};
	int err;

	if (d->mo.ro)
		return 0;
	err = meta_new(&d->meta, &menv, d->meta_dir);
	if (err != 0)
		return errtext_set(et, err, "meta.dir %s: %s", d->meta_dir, strerror(-err));
	err = staging_new(&d->staging, &senv, d->staging_dir);
	if (err == 0)
		err = uploads_new(&d->uploads, &uenv);
	if (err != 0)
		return errtext_set(
		    et, err, "write.staging.dir %s: %s", d->staging_dir, strerror(-err));
	fs_set_writing(d->fs, d->meta, d->staging, d->uploads);
	return open_peers(d, et);
}

/* Who asks may not wait for the disk: it is done in the pool, and looked at when it ends. */
struct staging_lock {
	struct pool_job job;
	struct daemon *d; /* NULL: left */
	sem_t ended;
	bool seen; /* who asked has the result */
	int fd;
	bool cluster;
	uint64_t node; /* of a cluster: in: what is known of it */
	struct errtext et;
	char dir[];
};

static void lock_submit(struct daemon *d, struct staging_lock *l);

static void staging_unlock(struct daemon *d)
{
	if (d->locking != NULL)
		d->locking->d = NULL;
	d->locking = NULL;
	timer_cancel(&d->lock_again);
	if (d->staging_fd >= 0)
		close(d->staging_fd);
	d->staging_fd = -1;
}

static uint64_t lock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int lock_dir(struct staging_lock *l)
{
	const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
	int err = FAULT("staging.lock");
	uint64_t end;

	if (err == 0)
		err = paths_make_dir(l->dir, 0700);
	if (err != 0)
		return errtext_set(&l->et, err, "write.staging.dir %s: create: %s", l->dir,
		    strerror(-err));
	l->fd = open(l->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->fd < 0)
		return errtext_set(
		    &l->et, -errno, "write.staging.dir %s: open: %s", l->dir, strerror(errno));
	end = lock_now() + LOCK_TRY_NS;
	while (flock(l->fd, LOCK_EX | LOCK_NB) != 0) {
		err = -errno;
		if (err == -EINTR || (err == -EWOULDBLOCK && lock_now() < end)) {
			nanosleep(&pause, NULL);
			continue;
		}
		return err == -EWOULDBLOCK
			   ? errtext_set(&l->et, -EBUSY,
				 "write.staging.dir %s: another mount writes there: each needs a "
				 "directory of its own",
				 l->dir)
			   : errtext_set(&l->et, err, "write.staging.dir %s: lock: %s", l->dir,
				 strerror(-err));
	}
	return 0;
}

static void lock_work(struct pool_job *job)
{
	struct staging_lock *l = container_of(job, struct staging_lock, job);

	job->result = lock_dir(l);
	if (job->result == 0 && l->cluster)
		job->result = daemon_node_read(l->dir, l->fd, &l->node, &l->et);
	if (job->result != 0 && l->fd >= 0) {
		close(l->fd);
		l->fd = -1;
	}
	sem_post(&l->ended);
}

static void lock_free(struct staging_lock *l)
{
	if (l->fd >= 0)
		close(l->fd);
	sem_destroy(&l->ended);
	free(l);
}

static struct staging_lock *lock_new(struct daemon *d)
{
	size_t len = strlen(d->staging_dir) + 1;
	struct staging_lock *l = calloc(1, sizeof(*l) + len);

	if (l == NULL)
		return NULL;
	l->d = d;
	l->fd = -1;
	l->cluster = d->fdb != NULL;
	l->node = daemon_node_known(d);
	memcpy(l->dir, d->staging_dir, len);
	sem_init(&l->ended, 0, 0);
	return l;
}

/* What it hands to whoever waited for it, in time or later. */
static int lock_take(struct daemon *d, struct staging_lock *l)
{
	if (l->job.result == 0) {
		if (l->et.s[0] != '\0')
			log_error("%s", l->et.s);
		l->et.s[0] = '\0';
		d->staging_fd = l->fd;
		l->fd = -1;
	}
	return l->job.result;
}

static void lock_again(struct timer *t)
{
	struct daemon *d = container_of(t, struct daemon, lock_again);
	struct staging_lock *l = lock_new(d);

	if (l == NULL)
		timer_arm(t, LOCK_AGAIN_NS);
	else
		lock_submit(d, l);
}

static void lock_done(struct pool_job *job)
{
	struct staging_lock *l = container_of(job, struct staging_lock, job);
	struct daemon *d = l->d;

	if (d != NULL && !l->seen) {
		d->locking = NULL;
		if (lock_take(d, l) == 0) {
			log_info("write.staging.dir %s: its disk answers", d->staging_dir);
			staging_hold(d->staging, false);
		} else {
			log_error("%s", l->et.s);
			timer_arm(&d->lock_again, LOCK_AGAIN_NS);
		}
	}
	lock_free(l);
}

static void lock_submit(struct daemon *d, struct staging_lock *l)
{
	d->locking = l;
	pool_submit(d->pool, NULL, &l->job, lock_work, lock_done);
}

/* What has no row here is swept away: that must not be another mount's.  The lock goes
 * with the right to write; who had it before, and is dying, may hold it a moment longer.
 * A disk that does not answer is not waited for: until it does, writes are. */
static int staging_lock(struct daemon *d, uint64_t *node, struct errtext *et)
{
	struct staging_lock *l = lock_new(d);
	struct timespec until;
	int rc;

	*node = daemon_node_known(d);
	timer_init(&d->lock_again, d->loop, lock_again);
	if (l == NULL)
		return errtext_set(
		    et, -ENOMEM, "write.staging.dir %s: %s", d->staging_dir, strerror(ENOMEM));
	lock_submit(d, l);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += LOCK_WAIT_S;
	do
		rc = sem_clockwait(&l->ended, CLOCK_MONOTONIC, &until);
	while (rc != 0 && errno == EINTR);
	if (rc != 0) {
		log_warn("write.staging.dir %s: its disk does not answer: writes wait until it does",
		    d->staging_dir);
		staging_hold(d->staging, true);
		return 0;
	}
	l->seen = true;
	d->locking = NULL;
	staging_hold(d->staging, false);
	*node = l->node;
	rc = lock_take(d, l);
	*et = l->et;
	return rc;
}

int daemon_begin_writing(struct daemon *d, struct errtext *et)
{
	uint64_t node;
	int err;

	if (d->staging == NULL)
		return 0;
	err = staging_lock(d, &node, et);
	if (err == 0)
		err = daemon_set_node(d, node, et);
	if (err != 0)
		return err;
	staging_set_db(d->staging, d->db);
	uploads_set_db(d->uploads, d->db);
	err = meta_set_db(d->meta, d->db);
	return err == 0 ? 0
			: errtext_set(et, err, "state database: changes of attributes that wait: %s",
			      strerror(-err));
}

struct rules_wait {
	struct policy_load load;
	bool ended;
	int err;
};

static void rules_loaded(struct policy_load *l, int err)
{
	struct rules_wait *rw = l->user;

	rw->ended = true;
	rw->err = err;
}

/* Without the cluster nothing of this mount would work: that is better said at once. */
static int await_cluster(struct daemon *d, struct errtext *et)
{
	struct meta_status st;

	if (d->fdb == NULL)
		return 0;
	for (;;) {
		meta_status(d->meta, &st);
		if (st.open)
			return 0;
		if (st.error[0] != '\0')
			return errtext_set(et, -EIO, "%s", st.error);
		loop_turn(d->loop, true);
	}
}

int daemon_load_rules(struct daemon *d, struct errtext *et)
{
	struct rules_wait rw = {.ended = false};
	int err = await_cluster(d, et);

	if (err != 0 || d->meta == NULL || !d->cfg->write_cache_enabled)
		return err;
	rw.load.user = &rw;
	policy_load(d->fs, &rw.load, rules_loaded);
	while (!rw.ended)
		loop_turn(d->loop, true);
	if (rw.err != 0)
		*et = rw.load.et;
	return rw.err;
}

void daemon_detach_state(struct daemon *d)
{
	fuse_chan_set_statedb(d->chan, NULL);
	fs_state_detach(d->fs);
	if (d->staging != NULL) {
		staging_set_db(d->staging, NULL);
		uploads_set_db(d->uploads, NULL);
		(void)meta_set_db(d->meta, NULL);
		staging_unlock(d);
	}
	statedb_close(&d->db);
}

static void index_closed(void *arg)
{
	struct daemon *d = arg;

	d->index_closed = true;
	if (d->stores_closed != NULL && daemon_stores_closed(d))
		d->stores_closed(d->stores_closed_arg);
}

static void meta_closed(void *arg)
{
	struct daemon *d = arg;

	d->meta_closed = true;
	if (d->stores_closed != NULL && daemon_stores_closed(d))
		d->stores_closed(d->stores_closed_arg);
}

bool daemon_stores_closed(const struct daemon *d)
{
	return d->index_closed && d->meta_closed;
}

void daemon_close_stores(struct daemon *d, bool sync, void (*done)(void *arg), void *arg)
{
	d->stores_closed = done;
	d->stores_closed_arg = arg;
	d->index_closed = false;
	d->meta_closed = d->meta == NULL;
	if (d->peers != NULL)
		peers_end(d->peers);
	if (d->meta != NULL)
		meta_close(d->meta, meta_closed, d);
	cache_index_close(d->cache, sync, index_closed, d);
}

void daemon_unclose_stores(struct daemon *d)
{
	d->stores_closed = NULL;
	if (!d->index_closed)
		cache_index_unclose(d->cache);
	if (!d->meta_closed)
		meta_unclose(d->meta);
	d->index_closed = d->meta_closed = true;
}

void daemon_free_writing(struct daemon *d)
{
	staging_unlock(d);
	if (d->peers != NULL)
		peers_stop(d->peers);
	if (d->uploads != NULL)
		uploads_free(&d->uploads);
	if (d->staging != NULL)
		staging_free(&d->staging);
	if (d->meta != NULL)
		meta_free(&d->meta);
	fdb_free(&d->fdb);
	fdb_end();
	free(d->meta_dir);
	free(d->staging_dir);
}
