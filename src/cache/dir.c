/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The page store's directory: DIR/identity says that it is ours and of which
 * format, DIR/lock that a daemon uses it.  The lock is a flock(2): it belongs to
 * the open file, so it passes with the descriptor to a successor and to the
 * keeper, and nobody else gets it while one of them lives.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"
#include "cache/cache_priv.h"

static const char identity[] = "batonfs page store 1\n";

/* What may be in a directory that is not ours yet: also what must outlive a cache that
 * somebody has emptied. */
static bool harmless(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lock") == 0 ||
	       strcmp(name, "lost+found") == 0 || strcmp(name, "meta") == 0 ||
	       strcmp(name, "staged") == 0;
}

static int check_empty(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;
	struct dirent *de;
	DIR *dir;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (dir == NULL) {
		err = -errno;
		close(fd);
		return err;
	}
	while ((de = readdir(dir)) != NULL) {
		if (!harmless(de->d_name))
			err = -ENOTEMPTY;
	}
	closedir(dir);
	return err;
}

static int write_identity(struct cache *c)
{
	int fd = openat(c->dir_fd, "identity.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, identity, sizeof(identity) - 1) != sizeof(identity) - 1)
		err = errno != 0 ? -errno : -ENOSPC;
	if (close(fd) != 0 && err == 0)
		err = -errno;
	if (err == 0 && renameat(c->dir_fd, "identity.new", c->dir_fd, "identity") != 0)
		err = -errno;
	if (err != 0)
		unlinkat(c->dir_fd, "identity.new", 0);
	return err;
}

static int check_identity(struct cache *c, struct errtext *et)
{
	char text[64] = "";
	int fd, err;
	ssize_t n;

	fd = openat(c->dir_fd, "identity", O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		err = check_empty(c->dir_fd);
		if (err == -ENOTEMPTY)
			return errtext_set(et, -EINVAL,
			    "page store %s: the directory is not empty and not a page store; "
			    "name an empty one in worker.page.store.dir",
			    c->dir);
		if (err == 0)
			err = write_identity(c);
		return err == 0 ? 0
				: errtext_set(et, err, "page store %s: write identity: %s",
				      c->dir, strerror(-err));
	}
	if (fd < 0)
		return errtext_set(et, -errno, "page store %s: read identity: %s", c->dir,
		    strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n < 0 || strcmp(text, identity) != 0)
		return errtext_set(et, -EINVAL,
		    "page store %s: of a format that this build does not know; "
		    "delete all but meta and staged in it, or name another one",
		    c->dir);
	return 0;
}

void dir_write_pid(int lock_fd)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());

	/* Only for the message of whoever finds the directory taken. */
	if (ftruncate(lock_fd, 0) == 0 && pwrite(lock_fd, text, (size_t)n, 0) != n)
		log_debug("lock file: %s", strerror(errno));
}

static int take_lock(struct cache *c, struct errtext *et)
{
	char text[16] = "";

	c->lock_fd = openat(c->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (c->lock_fd < 0)
		return errtext_set(et, -errno, "page store %s: open lock: %s", c->dir,
		    strerror(errno));
	if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno != EWOULDBLOCK)
			return errtext_set(et, -errno, "page store %s: lock: %s", c->dir,
			    strerror(errno));
		if (pread(c->lock_fd, text, sizeof(text) - 1, 0) <= 0)
			text[0] = '\0';
		text[strcspn(text, "\n")] = '\0';
		return errtext_set(et, -EBUSY,
		    "page store %s: in use by another daemon (pid %s); "
		    "each mount needs a directory of its own",
		    c->dir, text[0] != '\0' ? text : "unknown");
	}
	dir_write_pid(c->lock_fd);
	return 0;
}

static int adopt_lock(struct cache *c, int lock_fd, struct errtext *et)
{
	struct stat ours, theirs;

	c->lock_fd = lock_fd;
	if (fstat(lock_fd, &theirs) == 0 && fstat(c->dir_fd, &ours) == 0) {
		bool elsewhere = ours.st_dev != theirs.st_dev;

		if (elsewhere && faccessat(c->dir_fd, "identity", F_OK, 0) != 0)
			return errtext_set(et, -ENODEV,
			    "page store %s: its file system is not mounted", c->dir);
		/* Its directory was removed, or is one of a file system that was mounted
		 * since: what has the name by now needs a lock of its own. */
		if (elsewhere || theirs.st_nlink == 0) {
			close(lock_fd);
			c->lock_fd = -1;
			return take_lock(c, et);
		}
	}
	if (fstat(lock_fd, &theirs) != 0 || fstatat(c->dir_fd, "lock", &ours, 0) != 0 ||
	    ours.st_dev != theirs.st_dev || ours.st_ino != theirs.st_ino)
		return errtext_set(et, -EINVAL,
		    "page store %s: the lock handed over is of another directory", c->dir);
	/* Ours already, unless the description is not the one that holds it. */
	if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0)
		return errtext_set(et, errno == EWOULDBLOCK ? -EBUSY : -errno,
		    "page store %s: lock handed over: %s", c->dir, strerror(errno));
	return 0;
}

int dir_open(struct cache *c, const char *path, int lock_fd, struct errtext *et)
{
	int err;

	c->lock_fd = lock_fd; /* closed with the cache, whatever happens */
	err = paths_make_private(path);
	if (err != 0)
		return errtext_set(et, err, "page store %s: create directory: %s", path,
		    strerror(-err));
	c->dir = realpath(path, NULL);
	if (c->dir == NULL)
		return errtext_set(et, -errno, "page store %s: %s", path, strerror(errno));
	c->dir_fd = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir_fd < 0)
		return errtext_set(et, -errno, "page store %s: open: %s", c->dir,
		    strerror(errno));
	err = lock_fd >= 0 ? adopt_lock(c, lock_fd, et) : take_lock(c, et);
	if (err == 0)
		err = check_identity(c, et);
	if (err == 0 && mkdirat(c->dir_fd, "blobs", 0700) != 0 && errno != EEXIST)
		err = errtext_set(et, -errno, "page store %s: create blobs: %s", c->dir,
		    strerror(errno));
	return err;
}

/* --- The start, with a disk that may not answer */

struct dir_start {
	struct pool_job job;
	struct cache *cache;
	struct cache made; /* what dir_open() opens is in here */
	struct errtext *et; /* the starter's, while it waits */
	struct errtext words;
	int lock_fd;
	char path[];
};

static void start_work(struct pool_job *job)
{
	struct dir_start *ds = container_of(job, struct dir_start, job);

	(void)slow_point();
	job->result = dir_open(&ds->made, ds->path, ds->lock_fd, &ds->words);
}

static void start_done(struct pool_job *job)
{
	struct dir_start *ds = container_of(job, struct dir_start, job);
	struct cache *c = ds->cache;

	c->starting = NULL;
	c->start_err = job->result;
	slow_end(c, &c->open_op);
	c->dir_fd = ds->made.dir_fd;
	c->lock_fd = ds->made.lock_fd;
	if (ds->made.dir != NULL) {
		free(c->dir);
		c->dir = ds->made.dir;
	}
	if (c->began)
		store_dir_started(c, job->result, ds->words.s);
	else if (ds->words.s[0] != '\0')
		*ds->et = ds->words;
	free(ds);
	cache_job_done(c);
}

int dir_start(struct cache *c, const char *path, int lock_fd, struct errtext *et)
{
	size_t len = strlen(path) + 1;
	struct dir_start *ds = calloc(1, sizeof(*ds) + len);

	c->lock_fd = lock_fd; /* closed with the cache, whatever happens */
	c->dir = strdup(path);
	if (ds == NULL || c->dir == NULL) {
		free(ds);
		return errtext_set(et, -ENOMEM, "page store %s: out of memory", path);
	}
	ds->cache = c;
	ds->made = (struct cache){.env = c->env, .dir_fd = -1, .lock_fd = -1};
	ds->et = et;
	ds->lock_fd = lock_fd;
	memcpy(ds->path, path, len);
	c->lock_fd = -1; /* the job's */
	c->starting = ds;
	slow_begin(c, &c->open_op);
	cache_job(c, NULL, &ds->job, start_work, start_done);
	while (c->starting != NULL && !c->slow)
		loop_turn(c->env.loop, true);
	return c->starting != NULL ? 0 : c->start_err;
}

/* --- A directory that is gone */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

bool dir_is_gone(const struct cache *c)
{
	struct stat ours, there;

	if (c->dir_fd < 0 || fstat(c->dir_fd, &ours) != 0)
		return true;
	if (stat(c->dir, &there) != 0)
		return errno == ENOENT;
	if (!same_file(&ours, &there))
		return true;
	return faccessat(c->dir_fd, "blobs", F_OK, 0) != 0 && errno == ENOENT;
}

/* Where the file system is not mounted that had it, its name leads to a directory of
 * another one: which is not ours to fill unless it is a page store. */
static int check_place(const struct cache *c)
{
	struct stat ours, there;
	char path[4096];
	char *slash;

	if (c->lock_fd < 0)
		return 0; /* it never was anywhere */
	if (snprintf(path, sizeof(path), "%s/identity", c->dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	if (stat(path, &there) == 0)
		return 0;
	if (errno != ENOENT)
		return -errno;
	/* Without it the directory itself, or what it would be made in. */
	*strrchr(path, '/') = '\0';
	if (stat(path, &there) != 0) {
		slash = strrchr(path, '/');
		slash[slash == path] = '\0';
		if (stat(path, &there) != 0)
			return -errno;
	}
	if (fstat(c->lock_fd, &ours) != 0)
		return -errno;
	return ours.st_dev == there.st_dev ? 0 : -ENODEV;
}

int dir_again(struct cache *c, struct errtext *et)
{
	struct cache made = {.env = c->env, .dir_fd = -1, .lock_fd = -1};
	struct stat ours, there;
	char path[4096];
	int err = check_place(c), lock = -1;

	if (err != 0)
		return errtext_set(et, err, "page store %s: its directory is gone: %s", c->dir,
		    err == -ENODEV ? "its file system is not mounted" : strerror(-err));
	/* If the lock is still there, it is ours. */
	if (snprintf(path, sizeof(path), "%s/lock", c->dir) < (int)sizeof(path) &&
	    stat(path, &there) == 0 && fstat(c->lock_fd, &ours) == 0 &&
	    same_file(&ours, &there)) {
		lock = fcntl(c->lock_fd, F_DUPFD_CLOEXEC, 0);
		if (lock < 0)
			return -errno;
	}
	err = dir_open(&made, c->dir, lock, et);
	if (err == 0) {
		c->new_dir_fd = made.dir_fd;
		c->new_lock_fd = made.lock_fd;
		made.dir_fd = made.lock_fd = -1;
	}
	dir_close(&made);
	return err;
}

void dir_swap(struct cache *c)
{
	if (c->new_dir_fd < 0)
		return;
	if (c->dir_fd >= 0)
		close(c->dir_fd);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	c->dir_fd = c->new_dir_fd;
	c->lock_fd = c->new_lock_fd;
	c->new_dir_fd = c->new_lock_fd = -1;
	c->gone = false;
}

void dir_close(struct cache *c)
{
	if (c->dir_fd >= 0)
		close(c->dir_fd);
	if (c->lock_fd >= 0)
		close(c->lock_fd); /* the lock goes with its last descriptor */
	free(c->dir);
}

bool cache_same_dir(const struct cache *c, int fd)
{
	struct stat ours, theirs;

	if (c->dir == NULL || fstat(fd, &theirs) != 0)
		return false;
	if (c->gone || c->starting != NULL)
		return true; /* nothing to compare with: what has the name is looked at then */
	if (fstat(c->dir_fd, &ours) == 0 && ours.st_dev == theirs.st_dev &&
	    ours.st_ino == theirs.st_ino)
		return true;
	return fstat(c->lock_fd, &ours) == 0 && ours.st_dev == theirs.st_dev &&
	       ours.st_ino == theirs.st_ino;
}

int cache_lock_fd(const struct cache *c)
{
	return c->lock_fd;
}
