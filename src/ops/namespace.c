/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The namespace: which storage is attached where, and which part of it is mounted.
 *
 * Paths inside are namespace paths without the leading slash, of the whole namespace
 * also where a part is mounted.  fs->ufs answers them: the storage itself if it is the
 * only one and attached at the top, else the tree of all that the mount can reach.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "ops/fs_priv.h"

static bool bad_component(const char *s, size_t len)
{
	return len == 0 || len > UFS_NAME_MAX || (len == 1 && s[0] == '.') ||
	       (len == 2 && s[0] == '.' && s[1] == '.');
}

/* A plain namespace path: 0, -EINVAL or -ENAMETOOLONG. */
static int check_path(const char *nspath)
{
	const char *p, *end;

	if (nspath[0] != '/')
		return -EINVAL;
	for (p = nspath + 1; *p != '\0'; p = *end == '/' ? end + 1 : end) {
		end = strchrnul(p, '/');
		if (bad_component(p, (size_t)(end - p)) || (end[0] == '/' && end[1] == '\0'))
			return -EINVAL;
	}
	return p - nspath > UFS_PATH_MAX ? -ENAMETOOLONG : 0;
}

static bool within(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return n == 0 || (strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0'));
}

int fs_attach(struct fs *fs, const char *nspath, struct ufs *ufs, struct errtext *et)
{
	const char *uri = ufs_uri(ufs);
	unsigned i;
	char *copy;
	int c;

	if (check_path(nspath) != 0)
		return errtext_set(et, -EINVAL,
		    "%s=%s: \"%s\" is not a namespace path, such as / or /data/s3", nspath, uri,
		    nspath);
	if (fs->nattached == FS_ATTACH_MAX)
		return errtext_set(et, -E2BIG, "%s=%s: more than %u storages", nspath, uri,
		    FS_ATTACH_MAX);
	/* In the order of their paths, whatever the order of the command line. */
	for (i = fs->nattached; i > 0; i--) {
		c = strcmp(fs->attached[i - 1].nspath, nspath);
		if (c == 0)
			return errtext_set(et, -EEXIST, "%s=%s: %s is attached there already",
			    nspath, uri, ufs_uri(fs->attached[i - 1].ufs));
		if (c < 0)
			break;
	}
	copy = strdup(nspath);
	if (copy == NULL)
		return errtext_set(et, -ENOMEM, "%s=%s: out of memory", nspath, uri);
	memmove(&fs->attached[i + 1], &fs->attached[i],
	    (fs->nattached - i) * sizeof(fs->attached[0]));
	fs->attached[i].nspath = copy;
	fs->attached[i].ufs = ufs;
	fs->nattached++;
	return 0;
}

/* Can the mount reach it: does it have the mounted part, or lie in it? */
static bool reached(const struct fs *fs, unsigned i)
{
	const char *path = fs->attached[i].nspath + 1;
	unsigned k;

	if (within(path, fs->root))
		return true;
	if (!within(fs->root, path))
		return false;
	/* Of those above the mounted part only the deepest has something in it. */
	for (k = 0; k < fs->nattached; k++)
		if (k != i && within(fs->root, fs->attached[k].nspath + 1) &&
		    strlen(fs->attached[k].nspath + 1) > strlen(path))
			return false;
	return true;
}

int fs_set_root(struct fs *fs, const char *subtree, struct errtext *et)
{
	struct ufs_env env = {.loop = fs->env.loop, .pool = fs->env.pool, .cfg = fs->env.cfg};
	struct ufs_mount mounts[FS_ATTACH_MAX];
	unsigned i, n = 0;
	int err;

	assert(fs->ufs == NULL);
	if (check_path(subtree) != 0)
		return errtext_set(et, -EINVAL,
		    "--subtree %s: not a namespace path, such as /data/s3", subtree);
	fs->root = strdup(subtree + 1);
	if (fs->root == NULL)
		return errtext_set(et, -ENOMEM, "--subtree %s: out of memory", subtree);
	for (i = 0; i < fs->nattached; i++) {
		if (!reached(fs, i))
			continue;
		mounts[n].path = fs->attached[i].nspath + 1;
		mounts[n++].ufs = fs->attached[i].ufs;
	}
	if (n == 0)
		return errtext_set(
		    et, -ENOENT, "--subtree %s: no storage is attached there", subtree);
	if (n == 1 && mounts[0].path[0] == '\0') {
		fs->ufs = mounts[0].ufs;
		return 0;
	}
	err = ufs_tree_new(&fs->tree, &env, mounts, n);
	fs->ufs = fs->tree;
	return err == 0 ? 0 : errtext_set(et, err, "namespace: %s", strerror(-err));
}

void fs_namespace_fini(struct fs *fs)
{
	if (fs->tree != NULL)
		ufs_free(&fs->tree);
	while (fs->nattached > 0)
		free(fs->attached[--fs->nattached].nspath);
	free(fs->root);
}

uint64_t fs_namespace_digest(const struct fs *fs)
{
	uint64_t d = 0;
	unsigned i;

	for (i = 0; i < fs->nattached; i++) {
		const char *uri = ufs_uri(fs->attached[i].ufs);

		if (!reached(fs, i))
			continue;
		d = hash64(fs->attached[i].nspath, strlen(fs->attached[i].nspath) + 1, d);
		d = hash64(uri, strlen(uri) + 1, d);
	}
	if (fs->root[0] != '\0')
		d = hash64(fs->root, strlen(fs->root), d);
	return d;
}

void fs_place(const struct fs *fs, const char *path, struct ufs **ufs, const char **sub)
{
	if (fs->tree != NULL) {
		ufs_tree_find(fs->tree, path, ufs, sub);
		return;
	}
	*ufs = fs->ufs;
	*sub = path;
}

uint64_t fs_ino_valid(uint64_t hash)
{
	return hash > 1 ? hash : hash + 2;
}

/* What is attached just there, or NULL. */
static struct ufs *attached_at(const struct fs *fs, const char *path, size_t len)
{
	const char *nspath;
	unsigned i;

	for (i = 0; i < fs->nattached; i++) {
		nspath = fs->attached[i].nspath + 1;
		if (strncmp(nspath, path, len) == 0 && nspath[len] == '\0')
			return fs->attached[i].ufs;
	}
	return NULL;
}

/* Two names of one storage's object are two files, so where it is attached counts. */
static uint64_t ino_step(
    const struct fs *fs, uint64_t parent, const char *path, size_t at, size_t len)
{
	struct ufs *ufs = attached_at(fs, path, len);
	const char *uri;

	if (ufs == NULL)
		return fs_ino_valid(hash64(path + at, len - at, parent));
	uri = ufs_uri(ufs);
	return fs_ino_valid(hash64(path, len, hash64(uri, strlen(uri), 0)));
}

uint64_t fs_ino_child(const struct fs *fs, uint64_t parent, const char *path)
{
	const char *slash = strrchr(path, '/');

	return ino_step(
	    fs, parent, path, slash == NULL ? 0 : (size_t)(slash + 1 - path), strlen(path));
}

uint64_t fs_ino(const struct fs *fs, const char *path)
{
	uint64_t ino = ino_step(fs, 0, path, 0, 0);
	size_t at = 0, len;

	while (path[at] != '\0') {
		len = at + strcspn(path + at, "/");
		ino = ino_step(fs, ino, path, at, len);
		at = len + (path[len] == '/');
	}
	return ino;
}

static int resolve(const struct fs *fs, const char *nspath)
{
	int err = check_path(nspath);

	if (err == 0 && !within(nspath + 1, fs->root))
		err = -ENOENT;
	return err;
}

int fs_resolve(const struct fs *fs, const char *nspath, struct ufs **ufs, const char **path)
{
	int err = resolve(fs, nspath);

	/* Where other storage is attached below, a directory may be there that the
	 * storage itself does not have. */
	if (err == 0 && fs->tree != NULL && ufs_tree_leads_on(fs->tree, nspath + 1)) {
		*ufs = fs->tree;
		*path = nspath + 1;
	} else if (err == 0) {
		fs_place(fs, nspath + 1, ufs, path);
	}
	return err;
}

struct ufs *fs_ufs(const struct fs *fs, unsigned i, const char **nspath)
{
	unsigned k;

	for (k = 0; k < fs->nattached; k++) {
		if (!reached(fs, k))
			continue;
		if (i-- > 0)
			continue;
		*nspath = fs->attached[k].nspath;
		return fs->attached[k].ufs;
	}
	return NULL;
}
