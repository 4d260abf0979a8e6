/* SPDX-License-Identifier: BSD-2-Clause */
#include "ufs/posix_temp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/errtext.h"
#include "base/fault.h"
#include "base/hash.h"

#define TMP_HEAD ".batonfs-"
#define TMP_TAIL ".tmp"
#define PLACE_TRIES 3
#define TMP_LEN (sizeof(TMP_HEAD TMP_TAIL) - 1 + 16)

_Static_assert(TMP_LEN < POSIX_TMP_MAX, "a temporary name has room");

/* --- names */

bool posix_temp_name(const char *name, size_t len)
{
	return len == TMP_LEN && memcmp(name, TMP_HEAD, strlen(TMP_HEAD)) == 0 &&
	       memcmp(name + len - strlen(TMP_TAIL), TMP_TAIL, strlen(TMP_TAIL)) == 0 &&
	       strspn(name + strlen(TMP_HEAD), "0123456789abcdef") == 16;
}

bool posix_temp_in(const char *path)
{
	for (;;) {
		size_t n = strcspn(path, "/");

		if (posix_temp_name(path, n))
			return true;
		if (path[n] == '\0')
			return false;
		path += n + 1;
	}
}

void posix_temp_text(char name[POSIX_TMP_MAX], uint64_t token)
{
	(void)snprintf(name, POSIX_TMP_MAX, TMP_HEAD "%016" PRIx64 TMP_TAIL, token);
}

static int name_new(char *name)
{
	uint64_t x;

	if (getrandom(&x, sizeof(x), 0) != (ssize_t)sizeof(x))
		return errtext_errno();
	posix_temp_text(name, x);
	return 0;
}

/* What one that is to replace `name` is linked as, by whichever mount. */
static void name_of(char tmp[POSIX_TMP_MAX], const char *name)
{
	posix_temp_text(tmp, hash64(name, strlen(name), 0));
}

/* What this mount makes one that is to be `name` as, or 0. */
static uint64_t token_of(const struct posix_job *pj, const char *name)
{
	return pj->mount_id != 0 ? hash64(name, strlen(name), pj->mount_id) : 0;
}

static void forget(int dir, const char *tmp)
{
	(void)unlinkat(dir, tmp, 0);
}

void posix_temp_forget(const struct posix_job *pj, int dir, const char *name)
{
	char tmp[POSIX_TMP_MAX];
	uint64_t token = token_of(pj, name);

	name_of(tmp, name);
	forget(dir, tmp);
	if (token == 0)
		return;
	posix_temp_text(tmp, token);
	forget(dir, tmp);
}

/* --- files */

/* token 0: any name. */
static int named_new(struct posix_job *pj, uint64_t token)
{
	const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
	char name[POSIX_TMP_MAX];
	int err = 0;

	if (token != 0)
		posix_temp_text(name, token);
	else
		err = name_new(name);
	if (err != 0)
		return err;
	/* A name that is there already is that of something which is done again, or one
	 * of 2^64. */
	pj->fd = openat(pj->dir, name, flags, 0600);
	if (pj->fd < 0 && errno == EEXIST && token != 0) {
		(void)unlinkat(pj->dir, name, 0);
		pj->fd = openat(pj->dir, name, flags, 0600);
	}
	if (pj->fd < 0)
		return errtext_errno();
	memcpy(pj->tmp, name, sizeof(name));
	return 0;
}

int posix_temp_new(struct posix_job *pj, int root, bool named)
{
	const char *name;
	int err;

	pj->dir = posix_open_parent(pj, root, pj->path, &name);
	if (pj->dir < 0)
		return pj->dir;
	if (named)
		return named_new(pj, pj->token);
	if (FAULT("posix.nameless") == 0)
		pj->fd = openat(pj->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (pj->fd >= 0)
		return 0;
	err = named_new(pj, token_of(pj, name));
	return err == 0 ? FAULT("posix.named") : err;
}

/* Does the temporary name still lead to the open file?  A job that was given up may be
 * cleaned away when another has taken the name. */
static bool tmp_is_ours(const struct posix_job *pj)
{
	struct stat a, b;

	return fstat(pj->fd, &a) == 0 &&
	       fstatat(pj->dir, pj->tmp, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

void posix_temp_drop(struct posix_job *pj)
{
	if (pj->tmp[0] != '\0' && (pj->fd < 0 || tmp_is_ours(pj)))
		(void)unlinkat(pj->dir, pj->tmp, 0);
	pj->tmp[0] = '\0';
	if (pj->fd >= 0)
		(void)close(pj->fd);
	pj->fd = -1;
}

int posix_pwrite_all(int fd, const char *buf, size_t len, uint64_t off)
{
	while (len > 0) {
		ssize_t n = pwrite(fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		buf += n;
		len -= (size_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

int posix_sync_range(int fd, uint64_t off, uint64_t len)
{
	const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
			     SYNC_FILE_RANGE_WAIT_AFTER;

	if (sync_file_range(fd, (off_t)off, (off_t)len, all) == 0)
		return 0;
	if (errno == EIO || errno == ENOSPC || errno == EDQUOT)
		return -errno;
	return fdatasync(fd) == 0 ? 0 : -errno; /* it does not have the call */
}

int posix_sync_dir(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	/* Who may write to a directory but not read it cannot sync it either. */
	if (fd < 0)
		return errno == EACCES ? 0 : -errno;
	if (fsync(fd) != 0 && errno != EINVAL)
		err = -errno;
	(void)close(fd);
	return err;
}

/* --- attributes */

/* Through /proc, for descriptors that are for paths only have no fchmod(). */
static void fd_path(char *buf, size_t len, int fd)
{
	(void)snprintf(buf, len, "/proc/self/fd/%d", fd);
}

/* A missing /proc is no missing file. */
static int proc_errno(void)
{
	return errno == ENOENT ? -EIO : -errno;
}

int posix_set_apply(int fd, const struct stat *now, const struct ufs_set *set)
{
	const uid_t uid = set->what & UFS_SET_UID ? set->uid : now->st_uid;
	const gid_t gid = set->what & UFS_SET_GID ? set->gid : now->st_gid;
	const struct timespec keep = { .tv_nsec = UTIME_OMIT };
	struct timespec ts[2] = { keep, keep };
	bool chowned = uid != now->st_uid || gid != now->st_gid;
	mode_t mode = set->what & UFS_SET_MODE ? set->mode & 07777 : now->st_mode & 07777;
	char path[64];

	fd_path(path, sizeof(path), fd);
	if (chowned && fchownat(fd, "", uid, gid, AT_EMPTY_PATH) != 0)
		return -errno;
	/* A new owner takes the set-id bits away. */
	if ((mode != (now->st_mode & 07777) || (chowned && (set->what & UFS_SET_MODE))) &&
	    chmod(path, mode) != 0)
		return proc_errno();
	if (set->what & UFS_SET_ATIME)
		ts[0] = set->atime;
	if (set->what & UFS_SET_MTIME)
		ts[1] = set->mtime;
	if ((set->what & (UFS_SET_ATIME | UFS_SET_MTIME)) &&
	    utimensat(AT_FDCWD, path, ts, 0) != 0)
		return proc_errno();
	return 0;
}

/* An owner that nobody asked for is kept as far as we may. */
static int owner_keep(int fd, const struct ufs_set *asked, const struct stat *like)
{
	struct stat now;

	if (fstat(fd, &now) != 0)
		return -errno;
	if (!(asked->what & UFS_SET_UID) && like->st_uid != now.st_uid &&
	    fchown(fd, like->st_uid, (gid_t)-1) != 0 && errno != EPERM)
		return -errno;
	if (!(asked->what & UFS_SET_GID) && like->st_gid != now.st_gid &&
	    fchown(fd, (uid_t)-1, like->st_gid) != 0 && errno != EPERM)
		return -errno;
	return 0;
}

/* A new file's: what was asked for, and what it lacks from `like`, or 0644. */
static int attrs_give(int fd, const struct ufs_set *asked, const struct stat *like)
{
	struct ufs_set set = *asked;
	struct stat now;
	int err = like != NULL ? owner_keep(fd, asked, like) : 0;

	if (err == 0 && fstat(fd, &now) != 0)
		err = -errno;
	if (err != 0)
		return err;
	if (!(set.what & UFS_SET_MODE)) {
		set.what |= UFS_SET_MODE;
		set.mode = like != NULL ? like->st_mode & 07777 : 0644;
		/* Set-id bits are not for another owner. */
		if (like != NULL &&
		    ((set.what & UFS_SET_UID ? set.uid : now.st_uid) != like->st_uid ||
			(set.what & UFS_SET_GID ? set.gid : now.st_gid) != like->st_gid))
			set.mode &= 01777;
	}
	return posix_set_apply(fd, &now, &set);
}

/* --- appearing */

struct target {
	const char *name;
	bool there;
	struct stat st;
};

/* An earlier request of ours has made it: that is what is replaced, then. */
static bool takes_earlier(struct posix_job *pj, const struct target *tg, const char *version)
{
	if (!pj->again || !posix_mark_at(pj, tg->name))
		return false;
	pj->absent = false;
	pj->if_version = true;
	memcpy(pj->version, version, strlen(version) + 1);
	return true;
}

/* What is at the name now, and whether that allows what the job wants. */
static int target_look(struct posix_job *pj, struct target *tg)
{
	struct ufs_attr attr;

	tg->there = fstatat(pj->dir, tg->name, &tg->st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!tg->there && errno != ENOENT)
		return -errno;
	if (!tg->there)
		return pj->if_version ? -ESTALE : 0;
	if (S_ISDIR(tg->st.st_mode))
		return pj->absent ? -EEXIST : -EISDIR;
	/* What no listing shows is not silently replaced. */
	if (!posix_attr(&tg->st, &attr))
		return -EEXIST;
	if (!pj->absent && (!pj->if_version || strcmp(attr.version, pj->version) == 0))
		return 0;
	if (takes_earlier(pj, tg, attr.version))
		return 0;
	return pj->absent ? -EEXIST : -ESTALE;
}

static int link_fd(int fd, int dir, const char *name)
{
	char path[64];

	if (linkat(fd, "", dir, name, AT_EMPTY_PATH) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	fd_path(path, sizeof(path), fd); /* without CAP_DAC_READ_SEARCH */
	return linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/* A file without a name gets one: its own if that is free.  Else one that is always the
 * same for this target: who is killed before the rename that follows is followed by
 * somebody who does it again, or deletes or renames the target, and takes what was left
 * away. */
static int name_give(struct posix_job *pj, const struct target *tg)
{
	char tmp[POSIX_TMP_MAX];
	int err;

	if (!tg->there) {
		err = link_fd(pj->fd, pj->dir, tg->name);
		if (err != -EEXIST || pj->absent)
			return err;
	}
	name_of(tmp, tg->name);
	err = link_fd(pj->fd, pj->dir, tmp);
	if (err == -EEXIST) {
		(void)unlinkat(pj->dir, tmp, 0);
		err = link_fd(pj->fd, pj->dir, tmp);
	}
	if (err == 0)
		memcpy(pj->tmp, tmp, sizeof(tmp));
	return err == 0 ? FAULT("posix.linked") : err;
}

static int rename_tmp(struct posix_job *pj, const char *name)
{
	unsigned flags = pj->absent ? RENAME_NOREPLACE : 0;
	int r;

	if (!tmp_is_ours(pj))
		return -ENOENT;
	r = renameat2(pj->dir, pj->tmp, pj->dir, name, flags);
	/* Not every file system has NOREPLACE. */
	if (r != 0 && pj->absent && (errno == EINVAL || errno == ENOSYS)) {
		r = linkat(pj->dir, pj->tmp, pj->dir, name, 0);
		if (r == 0)
			r = unlinkat(pj->dir, pj->tmp, 0);
	} else if (r != 0 && errno == ENOSYS) {
		r = renameat(pj->dir, pj->tmp, pj->dir, name);
	}
	if (r != 0)
		return -errno;
	pj->tmp[0] = '\0';
	return 0;
}

int posix_temp_place(struct posix_job *pj, const struct stat *like)
{
	const char *slash = strrchr(pj->path, '/');
	struct target tg = { .name = slash != NULL ? slash + 1 : pj->path };
	struct stat st;
	int err = target_look(pj, &tg);

	if (err == 0) {
		posix_mark(pj);
		err = attrs_give(pj->fd, &pj->set,
		    like != NULL ? like : tg.there ? &tg.st : NULL);
	}
	if (err == 0 && fsync(pj->fd) != 0)
		err = -errno;
	/* The sync may have taken long: who gave up, or changed the target, is heard. */
	if (err == 0)
		err = target_look(pj, &tg);
	if (err == 0 && atomic_load(&pj->left))
		err = -ECANCELED;
	if (err == 0 && pj->tmp[0] == '\0')
		err = name_give(pj, &tg);
	if (err == 0 && pj->tmp[0] != '\0')
		err = rename_tmp(pj, tg.name);
	/* Another mount that writes the same file has taken the name away just now. */
	for (int i = 0; i < PLACE_TRIES && err == -ENOENT && pj->tmp[0] != '\0'; i++) {
		err = name_new(pj->tmp);
		if (err == 0)
			err = link_fd(pj->fd, pj->dir, pj->tmp);
		if (err == 0)
			err = rename_tmp(pj, tg.name);
	}
	if (err == 0) {
		/* What an earlier put has left; its own name it has no more. */
		posix_temp_forget(pj, pj->dir, tg.name);
		err = posix_sync_dir(pj->dir);
	}
	if (err == 0 && fstat(pj->fd, &st) != 0)
		err = -errno;
	if (err == 0)
		(void)posix_attr(&st, &pj->attr);
	return err;
}

/* --- what others have left */

int posix_temp_sweep(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), found = 0;
	struct dirent *de;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (d == NULL) {
		int err = errtext_errno();

		(void)close(fd);
		return err;
	}
	/* All or none: as long as something else is there, the directory stays. */
	while ((de = readdir(d)) != NULL) {
		size_t n = strlen(de->d_name);

		if (posix_temp_name(de->d_name, n)) {
			found = 1;
		} else if (ufs_name_ok(de->d_name, n)) {
			found = 0;
			break;
		}
	}
	rewinddir(d);
	while (found > 0 && (de = readdir(d)) != NULL)
		if (posix_temp_name(de->d_name, strlen(de->d_name)))
			(void)unlinkat(dirfd(d), de->d_name, 0);
	(void)closedir(d);
	return found;
}
