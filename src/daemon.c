/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's parts, made and unmade in order.  See daemon.h. */
#include "config.h"

#include "daemon.h"
#include "meta/meta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/argv.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/paths.h"
#include "cache/cache.h"
#include "ctl/ctl.h"
#include "ops/counts.h"
#include "ops/persist.h"
#include "ops/policy.h"
#include "peer/peer.h"
#include "reactor/http.h"
#include "reactor/notify.h"
#include "reactor/statedb.h"
#include "reactor/task.h"
#include "takeover/link.h"
#include "takeover/server.h"
#include "ufs/ufs.h"

static char *daemon_path(int (*make)(const char *mountpoint, char *buf, size_t len),
    const char *mountpoint)
{
	char buf[4096];

	return make(mountpoint, buf, sizeof(buf)) == 0 ? strdup(buf) : NULL;
}

/* The sockets lie beside each other, also if control.socket moves one of them. */
static int daemon_paths(struct daemon *d, struct errtext *et)
{
	const char *mp = d->args.mountpoint;
	char *slash;

	if (mp == NULL)
		return 0; /* --check without one */
	if (d->cfg->control_socket[0] != '\0') {
		d->control_path = strdup(d->cfg->control_socket);
		slash = d->control_path != NULL ? strrchr(d->control_path, '/') : NULL;
		if (slash == NULL || slash == d->control_path)
			return errtext_set(et, -EINVAL,
			    "control.socket = %s: not an absolute path in a directory of its own",
			    d->cfg->control_socket);
		d->run_dir = strndup(d->control_path, (size_t)(slash - d->control_path));
		if (d->run_dir != NULL && asprintf(&d->takeover_path, "%s/takeover", d->run_dir) < 0)
			d->takeover_path = NULL;
	} else {
		d->run_dir = daemon_path(paths_run_dir, mp);
		d->control_path = daemon_path(paths_control_socket, mp);
		d->takeover_path = daemon_path(paths_takeover_socket, mp);
	}
	if (d->cfg->state_dir[0] != '\0')
		d->state_dir = strdup(d->cfg->state_dir);
	else
		d->state_dir = daemon_path(paths_state_dir, mp);
	if (d->run_dir == NULL || d->control_path == NULL || d->takeover_path == NULL ||
	    d->state_dir == NULL)
		return errtext_set(et, -ENOMEM, "%s: derive socket and state paths: %s", mp,
		    strerror(ENOMEM));
	return 0;
}

/* "/=s3://bucket": what is before the first '=' is a namespace path. */
static enum daemon_exit daemon_attach(struct daemon *d, const char *spec, struct errtext *et)
{
	struct ufs_env env = {
	    .loop = d->loop, .pool = d->pool, .http = d->http, .cfg = d->cfg};
	const char *eq = strchr(spec, '=');
	char *nspath;
	int err;

	if (spec[0] != '/' || eq == NULL)
		return errtext_set(et, DAEMON_EXIT_USAGE,
		    "--ufs %s: must be PATH=URI, such as /=s3://bucket/prefix or /=file:///srv/data",
		    spec);
	nspath = strndup(spec, (size_t)(eq - spec));
	if (nspath == NULL)
		return errtext_set(et, DAEMON_EXIT_FAILURE, "--ufs %s: %s", spec, strerror(ENOMEM));
	err = ufs_new(&d->ufs[d->nufs], &env, eq + 1, et);
	if (err == 0) {
		d->nufs++;
		err = fs_attach(d->fs, nspath, d->ufs[d->nufs - 1], et);
	}
	free(nspath);
	if (err == 0)
		return DAEMON_EXIT_OK;
	errtext_prefix(et, err, "--ufs %s", spec);
	return err == -EACCES ? DAEMON_EXIT_STORAGE : DAEMON_EXIT_USAGE;
}

/* The page store may have pool.threads of them: the others are left for what does not
 * need the cache disk when that hangs. */
static unsigned daemon_threads(const struct config *cfg)
{
	return (unsigned)(cfg->pool_threads + cfg->pool_threads / 2 + 1);
}

enum daemon_exit daemon_prepare(struct daemon *d, struct errtext *et)
{
	struct fs_env env;
	enum daemon_exit ex;
	unsigned i;
	int err;

	CHECK_OBJ(d, DAEMON_MAGIC);
	err = daemon_paths(d, et);
	if (err == 0)
		err = daemon_find_write_dirs(d, et);
	if (err != 0)
		return err == -EINVAL ? DAEMON_EXIT_USAGE : DAEMON_EXIT_FAILURE;
	err = loop_new(&d->loop, &clock_system);
	if (err == 0)
		err = pool_new(&d->pool, d->loop, daemon_threads(d->cfg));
	if (err != 0)
		return errtext_set(et, DAEMON_EXIT_FAILURE, "start the event loop and %u threads: %s",
		    daemon_threads(d->cfg), strerror(-err));
	err = http_new(&d->http, d->loop, d->cfg, et);
	if (err != 0)
		return DAEMON_EXIT_FAILURE;
	env = (struct fs_env){
	    .loop = d->loop, .pool = d->pool, .cfg = d->cfg, .cache = NULL, .mo = &d->mo};
	err = fs_new(&d->fs, &env);
	if (err != 0)
		return errtext_set(et, DAEMON_EXIT_FAILURE, "prepare the file system: %s",
		    strerror(-err));
	for (i = 0; i < d->args.nufs; i++) {
		ex = daemon_attach(d, d->args.ufs_specs[i], et);
		if (ex != DAEMON_EXIT_OK)
			return ex;
	}
	/* --check needs no storage. */
	if (d->args.nufs > 0 &&
	    fs_set_root(d->fs, d->args.subtree != NULL ? d->args.subtree : "/", et) != 0)
		return DAEMON_EXIT_USAGE;
	return DAEMON_EXIT_OK;
}

enum daemon_exit daemon_open_cache(struct daemon *d, int lock_fd, struct errtext *et)
{
	struct cache_env env = {.loop = d->loop,
	    .pool = d->pool,
	    .cfg = d->cfg,
	    .epoch = &d->epoch,
	    .writes = !d->mo.ro};
	int err = cache_new(&d->cache, &env, lock_fd, et);

	if (err == 0) {
		fs_set_cache(d->fs, d->cache);
		if (daemon_open_cluster(d, et) != 0)
			return DAEMON_EXIT_META;
		err = daemon_open_writing(d, et);
	}
	if (err != 0)
		return err == -EINVAL ? DAEMON_EXIT_USAGE : DAEMON_EXIT_FAILURE;
	return DAEMON_EXIT_OK;
}

/* --- the FUSE channel */

static void daemon_chan_gone(void *owner, int err)
{
	struct daemon *d = owner;

	if (!d->serving)
		return;
	if (err == 0)
		log_info("%s: unmounted", d->args.mountpoint);
	else
		log_error("%s: the FUSE connection ended: %s", d->args.mountpoint, strerror(-err));
	d->serving = false;
	daemon_exit(d, false, err == 0 ? DAEMON_EXIT_OK : DAEMON_EXIT_FAILURE);
}

static void daemon_chan_agreed(void *owner)
{
	struct daemon *d = owner;
	int err = daemon_write_init(d);

	if (err == 0)
		err = FAULT("daemon.init");
	if (err != 0)
		log_error("%s: keep the INIT record: %s: the mount will not survive a crash",
		    d->args.mountpoint, strerror(-err));
}

static void daemon_chan_ready(void *owner)
{
	struct daemon *d = owner;

	d->ready = true;
	if (d->takeover != NULL)
		takeover_server_ready(d->takeover);
	if (d->ctl != NULL)
		daemon_announce(d);
}

int daemon_new_chan(struct daemon *d, struct errtext *et)
{
	struct fuse_chan_env env = {
	    .loop = d->loop,
	    .cfg = d->cfg,
	    .epoch = &d->epoch,
	    .ops = fs_fuse_ops(),
	    .userdata = d->fs,
	    .owner = d,
	    .gone = daemon_chan_gone,
	    .agreed = daemon_chan_agreed,
	    .ready = daemon_chan_ready,
	};
	int err = fuse_chan_new(&d->chan, &env, (const char *const *)d->mo.fuse_opts, et);

	if (err == 0)
		fs_set_chan(d->fs, d->chan);
	return err;
}

/* --- a fresh mount */

static int daemon_make_state_dir(struct daemon *d, struct errtext *et)
{
	struct stat st;
	int err = paths_make_dir(d->state_dir, 0700);

	if (err != 0)
		return errtext_set(et, err, "state.dir %s: create: %s", d->state_dir, strerror(-err));
	if (stat(d->state_dir, &st) != 0)
		return errtext_set(et, -errno, "state.dir %s: %s", d->state_dir, strerror(errno));
	if (st.st_uid != geteuid() || (st.st_mode & 022) != 0)
		return errtext_set(et, -EPERM,
		    "state.dir %s: is not ours alone (owner %u, mode %04o): remove it or choose another",
		    d->state_dir, st.st_uid, st.st_mode & 07777);
	d->state_fd = open(d->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->state_fd < 0)
		return errtext_set(et, -errno, "state.dir %s: %s", d->state_dir, strerror(errno));
	return 0;
}

int daemon_adopt_state_dir(struct daemon *d, int fd, struct errtext *et)
{
	struct stat a, b;
	char *path;

	d->state_fd = fd;
	if (fstat(fd, &a) != 0 || !S_ISDIR(a.st_mode))
		return errtext_set(et, -ENOTDIR, "state.dir: what was handed over is no directory");
	if (stat(d->state_dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return 0;
	/* Another mount namespace, or another state.dir: the state stays where it
	 * is, and the descriptor is the way to it as long as it is kept. */
	if (asprintf(&path, "/proc/self/fd/%d", fd) < 0)
		return errtext_set(et, -ENOMEM, "state.dir: %s", strerror(ENOMEM));
	daemon_warn(d, "state.dir %s: the state of the mount stays in the first daemon's directory",
	    d->state_dir);
	free(d->state_dir);
	d->state_dir = path;
	return 0;
}

static int daemon_make_shared(struct daemon *d, struct errtext *et)
{
	int err = epoch_create(&d->epoch);

	if (err == 0)
		err = counts_create(&d->counts);
	if (err != 0)
		return errtext_set(et, err, "create shared memory (memfd): %s", strerror(-err));
	return 0;
}

enum daemon_exit daemon_begin_fresh(struct daemon *d, struct errtext *et)
{
	static const struct fuse_chan_init no_init;
	enum daemon_exit ex;
	int err;

	ex = daemon_open_cache(d, -1, et);
	if (ex != DAEMON_EXIT_OK)
		return ex;
	if (daemon_make_state_dir(d, et) != 0 || daemon_make_shared(d, et) != 0)
		return DAEMON_EXIT_FAILURE;
	err = daemon_new_chan(d, et);
	if (err != 0)
		return err == -EINVAL ? DAEMON_EXIT_USAGE : DAEMON_EXIT_FAILURE;
	if (d->args.fuse_fd >= 0)
		err = fuse_chan_adopt(d->chan, d->args.fuse_fd, &no_init, et);
	else
		err = fuse_chan_mount(d->chan, d->args.mountpoint, et);
	if (err != 0)
		return DAEMON_EXIT_FAILURE;
	d->mounted = d->args.fuse_fd < 0;
	err = daemon_take_right(d, 0, true, et);
	if (err != 0)
		return DAEMON_EXIT_FAILURE;
	if (daemon_load_rules(d, et) != 0) {
		daemon_abandon(d, DAEMON_EXIT_META);
		return DAEMON_EXIT_META;
	}
	err = daemon_write_init(d);
	if (err != 0) {
		errtext_set(et, err, "write the INIT record: %s", strerror(-err));
		return DAEMON_EXIT_FAILURE;
	}
	d->kept = d->cfg->migration_enabled && daemon_store_fds(d) == 0;
	fuse_chan_arm(d->chan);
	return DAEMON_EXIT_OK;
}

/* Who follows a daemon is of use without that, and tries again. */
static int daemon_listen(struct daemon *d, bool fresh, struct errtext *et)
{
	int err = d->peers != NULL ? peers_begin(d->peers, et) : 0;

	if (err == 0 || fresh)
		return err;
	daemon_warn(d, "%s", et->s);
	et->s[0] = '\0';
	return 0;
}

int daemon_take_right(struct daemon *d, uint64_t from, bool create, struct errtext *et)
{
	struct fs_info info;
	int err;

	err = epoch_raise(&d->epoch, from);
	if (err != 0)
		return errtext_set(et, err,
		    "%s: another daemon took the mount over at the same moment (epoch %llu)",
		    d->args.mountpoint, (unsigned long long)epoch_read(&d->epoch));
	err = statedb_open(&d->db, d->loop, d->state_dir, d->cfg->state_size, create, &d->epoch, et);
	if (err != 0)
		return err;
	err = daemon_begin_writing(d, et);
	if (err == 0)
		err = fs_state_open(d->fs, d->db, d->counts, et);
	if (err != 0)
		return err;
	/* Before the keeper is told of a mount, its state must outlive us. */
	err = statedb_commit(d->db);
	if (err != 0)
		return errtext_set(et, err, "state.dir %s: commit: %s", d->state_dir, strerror(-err));
	err = daemon_listen(d, create, et);
	if (err != 0)
		return err;
	fs_info(d->fs, &info);
	if (create)
		d->mount_id = info.mount_id;
	else if (d->mount_id != info.mount_id)
		return errtext_set(et, -EPROTO,
		    "state.dir %s: holds the state of another mount (%016llx, not %016llx)",
		    d->state_dir, (unsigned long long)info.mount_id,
		    (unsigned long long)d->mount_id);
	fuse_chan_set_statedb(d->chan, d->db);
	if (!d->tallied)
		tally_load(&d->tally, d->db);
	d->tallied = true;
	cache_index_open(d->cache);
	if (d->meta != NULL) {
		meta_open(d->meta);
		/* A fresh mount waits for them. */
		if (!create && d->cfg->write_cache_enabled)
			policy_refresh(d->fs);
		fs_recover_intents(d->fs);
		persist_resume(d->fs);
	}
	d->serving = true;
	return 0;
}

/* --- keeper */

int daemon_write_init(struct daemon *d)
{
	struct daemon_init_record rec;
	ssize_t n;

	memset(&rec, 0, sizeof(rec));
	rec.magic = DAEMON_INIT_MAGIC;
	rec.version = 1;
	rec.mount_id = d->mount_id;
	if (d->chan != NULL)
		rec.init = *fuse_chan_init_record(d->chan);
	if (strlen(d->args.mountpoint) >= sizeof(rec.mountpoint))
		return -ENAMETOOLONG;
	memcpy(rec.mountpoint, d->args.mountpoint, strlen(d->args.mountpoint));
	if (d->init_fd < 0) {
		d->init_fd = memfd_create("batonfs-init", MFD_CLOEXEC);
		if (d->init_fd < 0)
			return -errno;
	}
	n = pwrite(d->init_fd, &rec, sizeof(rec), 0);
	return n == (ssize_t)sizeof(rec) ? 0 : n < 0 ? -errno : -EIO;
}

struct keep {
	const char *name;
	int fd;
};

static int daemon_store(const struct keep *keep, size_t n)
{
	char msg[128];
	size_t i;
	int err;

	for (i = 0; i < n; i++) {
		if (keep[i].fd < 0)
			continue;
		snprintf(msg, sizeof(msg), "FDSTORE=1\nFDNAME=%s\n", keep[i].name);
		err = notify_send(msg, &keep[i].fd, 1);
		if (err != 0)
			return err;
	}
	return 0;
}

int daemon_store_fds(struct daemon *d)
{
	const struct keep keep[] = {
	    {"fuse", fuse_chan_fd(d->chan)},
	    {"epoch", d->epoch.fd},
	    {"counts", counts_fd(d->counts)},
	    {"init", d->init_fd},
	    {"lock", cache_lock_fd(d->cache)},
	    {"state", d->state_fd},
	};

	return daemon_store(keep, ARRAY_LEN(keep));
}

int daemon_store_sockets(struct daemon *d)
{
	const struct keep keep[] = {
	    {"control", d->ctl != NULL ? ctl_listen_fd(d->ctl) : -1},
	    {"takeover", d->takeover != NULL ? takeover_server_fd(d->takeover) : -1},
	};

	return daemon_store(keep, ARRAY_LEN(keep));
}

void daemon_unstore_fds(void)
{
	static const char *const names[] = {
	    "fuse", "epoch", "counts", "init", "lock", "state", "control", "takeover"};
	char msg[128];
	unsigned i;

	for (i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(msg, sizeof(msg), "FDSTOREREMOVE=1\nFDNAME=%s\n", names[i]);
		notify_send(msg, NULL, 0);
	}
}

/* The keeper restarts us with the last command line that it was told. */
int daemon_tell_argv(struct daemon *d)
{
	char *msg = argv_encode((const char *const *)d->args.argv, "X_BATONFS_ARGV=");
	int err;

	if (msg == NULL)
		return -ENOMEM;
	err = notify_send(msg, NULL, 0);
	free(msg);
	return err == -ENOTCONN ? 0 : err;
}

/* Takes every "-s name=…" out of argv. */
static void daemon_drop_setting(struct daemon *d, const char *name)
{
	size_t len = strlen(name);
	char **argv = d->args.argv;
	int i = 1;

	while (i + 2 < d->args.argc) {
		if (strcmp(argv[i], "-s") != 0 || strncmp(argv[i + 1], name, len) != 0 ||
		    argv[i + 1][len] != '=') {
			i++;
			continue;
		}
		free(argv[i]);
		free(argv[i + 1]);
		memmove(argv + i, argv + i + 2,
		    (size_t)(d->args.argc - i - 1) * sizeof(*argv));
		d->args.argc -= 2;
	}
}

int daemon_keep_setting(struct daemon *d, const char *name, const char *value)
{
	char *pair, *flag, **argv;

	if (asprintf(&pair, "%s=%s", name, value) < 0)
		return -ENOMEM;
	flag = strdup("-s");
	argv = reallocarray(d->args.argv, (size_t)d->args.argc + 3, sizeof(*argv));
	if (argv != NULL)
		d->args.argv = argv;
	if (flag == NULL || argv == NULL) {
		free(flag);
		free(pair);
		return -ENOMEM;
	}
	daemon_drop_setting(d, name);
	/* In front of the operand, so behind every other setting: the last one wins. */
	argv[d->args.argc + 2] = NULL;
	argv[d->args.argc + 1] = argv[d->args.argc - 1];
	argv[d->args.argc - 1] = flag;
	argv[d->args.argc] = pair;
	d->args.argc += 2;
	return daemon_tell_argv(d);
}

void daemon_warn(struct daemon *d, const char *fmt, ...)
{
	size_t used = strlen(d->warnings);
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_warn("%s", line);
	if (strstr(d->warnings, line) == NULL)
		snprintf(d->warnings + used, sizeof(d->warnings) - used, "%s%s",
		    used > 0 ? "\n" : "", line);
}

static void daemon_free_paths(struct daemon *d)
{
	free(d->run_dir);
	free(d->control_path);
	free(d->takeover_path);
	free(d->state_dir);
}

void daemon_fini(struct daemon *d)
{
	CHECK_OBJ(d, DAEMON_MAGIC);
	if (d->ctl != NULL)
		ctl_free(&d->ctl);
	if (d->takeover != NULL)
		takeover_server_free(&d->takeover);
	link_stop(d);
	if (d->db != NULL)
		daemon_detach_state(d);
	if (d->fs != NULL)
		fs_free(&d->fs);
	daemon_free_writing(d);
	if (d->chan != NULL)
		fuse_chan_free(&d->chan);
	if (d->cache != NULL) {
		/* The keeper lets its descriptor of the lock go when it comes to it; the
		 * lock belongs to both. */
		if (d->gate_fd >= 0 && cache_lock_fd(d->cache) >= 0)
			flock(cache_lock_fd(d->cache), LOCK_UN);
		cache_free(&d->cache);
	}
	peers_free(&d->peers);
	while (d->nufs > 0)
		ufs_free(&d->ufs[--d->nufs]);
	if (d->http != NULL)
		http_free(&d->http);
	if (d->pool != NULL)
		pool_free(&d->pool);
	if (d->loop != NULL)
		loop_free(&d->loop);
	if (d->counts != NULL)
		counts_close(&d->counts);
	epoch_close(&d->epoch);
	if (d->init_fd >= 0)
		close(d->init_fd);
	if (d->state_fd >= 0)
		close(d->state_fd);
	(void)FAULT("daemon.end.sockets");
	daemon_close_sockets(d);
	daemon_free_paths(d);
}
