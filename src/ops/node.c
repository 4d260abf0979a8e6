/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/node_priv.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"

#define NODE_FORMAT 1u
#define NODE_MAX_DEPTH 1024 /* a path of UFS_PATH_MAX has no more components */

/* The row, in host order (it never leaves the machine); version and name follow. */
struct node_row {
	uint8_t format, kind, flags, version_len;
	uint8_t name_len, storage, pad[2];
	uint32_t slot, opens;
	uint64_t parent, st_ino, size, fetched_ns;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t mode, uid, gid;
};
_Static_assert(sizeof(struct node_row) == 72, "rows outlive the program that wrote them");

#define NODE_ROW_MAX (sizeof(struct node_row) + UFS_VERSION_MAX + UFS_NAME_MAX)

int node_key(struct node_key *k, uint64_t parent, const char *name, size_t len)
{
	uint64_t be = htobe64(parent);

	if (len == 0)
		return -EINVAL;
	if (len > UFS_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(k->b, &be, 8);
	memcpy(k->b + 8, name, len);
	k->len = 8 + len;
	return 0;
}

static int node_decode(uint64_t id, const struct statedb_val *v, struct node *n)
{
	const char *tail = (const char *)v->data + sizeof(struct node_row);
	struct node_row r;

	if (v->len < sizeof(r))
		return -EPROTO;
	memcpy(&r, v->data, sizeof(r));
	if (r.format != NODE_FORMAT || r.version_len >= UFS_VERSION_MAX ||
	    v->len != sizeof(r) + r.version_len + r.name_len)
		return -EPROTO;
	n->id = id;
	n->parent = r.parent;
	n->st_ino = r.st_ino;
	n->slot = r.slot;
	n->opens = r.opens;
	n->size = r.size;
	n->fetched_ns = r.fetched_ns;
	n->mtime.tv_sec = r.mtime_sec;
	n->mtime.tv_nsec = r.mtime_nsec;
	n->mode = r.mode;
	n->uid = r.uid;
	n->gid = r.gid;
	n->kind = r.kind;
	n->flags = r.flags;
	n->name_len = r.name_len;
	memcpy(n->version, tail, r.version_len);
	n->version[r.version_len] = '\0';
	memcpy(n->name, tail + r.version_len, r.name_len);
	n->name[r.name_len] = '\0';
	return 0;
}

int node_load(struct fs *fs, uint64_t id, struct node *n)
{
	uint64_t be = htobe64(id);
	struct statedb_val v;
	int err = statedb_get(fs->db, STATEDB_NODES, &be, sizeof(be), &v);

	return err != 0 ? err : node_decode(id, &v, n);
}

int node_store(struct fs *fs, const struct node *n)
{
	size_t vlen = strlen(n->version);
	unsigned char buf[NODE_ROW_MAX];
	uint64_t be = htobe64(n->id);
	struct node_row r = {
	    .format = NODE_FORMAT,
	    .kind = n->kind,
	    .flags = n->flags,
	    .version_len = (uint8_t)vlen,
	    .name_len = n->name_len,
	    .slot = n->slot,
	    .opens = n->opens,
	    .parent = n->parent,
	    .st_ino = n->st_ino,
	    .size = n->size,
	    .fetched_ns = n->fetched_ns,
	    .mtime_sec = n->mtime.tv_sec,
	    .mtime_nsec = (uint32_t)n->mtime.tv_nsec,
	    .mode = n->mode,
	    .uid = n->uid,
	    .gid = n->gid,
	};

	memcpy(buf, &r, sizeof(r));
	memcpy(buf + sizeof(r), n->version, vlen);
	memcpy(buf + sizeof(r) + vlen, n->name, n->name_len);
	return statedb_put(
	    fs->db, STATEDB_NODES, &be, sizeof(be), buf, sizeof(r) + vlen + n->name_len);
}

int node_bound_id(struct fs *fs, const struct node_key *k, uint64_t *id)
{
	struct statedb_val v;
	uint64_t be;
	int err = statedb_get(fs->db, STATEDB_NAMES, k->b, k->len, &v);

	if (err != 0)
		return err;
	if (v.len != sizeof(be))
		return -EPROTO;
	memcpy(&be, v.data, sizeof(be));
	*id = be64toh(be);
	return 0;
}

int node_bind_key(struct fs *fs, const struct node_key *k, uint64_t id)
{
	uint64_t be = htobe64(id);

	return statedb_put(fs->db, STATEDB_NAMES, k->b, k->len, &be, sizeof(be));
}

static int find_by_key(struct fs *fs, const struct node_key *k, struct node *n)
{
	uint64_t id;
	int err = node_bound_id(fs, k, &id);

	return err != 0 ? err : node_load(fs, id, n);
}

int node_find(struct fs *fs, uint64_t parent, const char *name, struct node *n)
{
	struct node_key k;
	int err = node_key(&k, parent, name, strlen(name));

	return err != 0 ? err : find_by_key(fs, &k, n);
}

static bool same_version(const struct node *n, const struct ufs_attr *attr)
{
	return n->kind == (uint8_t)attr->kind && strcmp(n->version, attr->version) == 0;
}

/* Where directories are but names, a change made here is the last that is known of one. */
static bool changed_later(struct fs *fs, const struct node *n, const struct ufs_attr *attr)
{
	const struct timespec *a = &n->mtime, *b = &attr->mtime;

	return n->kind == UFS_DIR && attr->kind == UFS_DIR && n->st_ino != 0 &&
	       (ufs_can(fs->ufs) & UFS_CAN_SETATTR) == 0 &&
	       (a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec));
}

void node_take_attr(struct fs *fs, struct node *n, const struct ufs_attr *attr)
{
	if (!changed_later(fs, n, attr))
		n->mtime = attr->mtime;
	n->kind = (uint8_t)attr->kind;
	n->flags &= (uint8_t)~(NODE_HAVE_MODE | NODE_LOCAL | NODE_REPLACED);
	if (attr->have_mode)
		n->flags |= NODE_HAVE_MODE;
	n->size = attr->size;
	n->mode = attr->mode;
	n->uid = attr->uid;
	n->gid = attr->gid;
	memcpy(n->version, attr->version, sizeof(n->version));
	n->version[sizeof(n->version) - 1] = '\0';
	n->fetched_ns = loop_now(fs->env.loop);
}

/* Deletes the row, and the name's binding if it is still this node's. */
static int node_delete(struct fs *fs, const struct node *n)
{
	uint64_t be = htobe64(n->id), id;
	struct node_key k;
	int err;

	err = node_key(&k, n->parent, n->name, n->name_len);
	if (err == 0 && node_bound_id(fs, &k, &id) == 0 && id == n->id) {
		err = statedb_del(fs->db, STATEDB_NAMES, k.b, k.len);
		fs_dir_forget(fs, n->parent);
	}
	if (err == 0)
		err = node_ino_release(fs, n);
	if (err != 0)
		return err;
	err = statedb_del(fs->db, STATEDB_NODES, &be, sizeof(be));
	if (err == 0)
		fs_free_slot_later(fs, n->slot);
	return err;
}

static bool node_unused(const struct fs *fs, const struct node *n)
{
	return n->id != NODE_ROOT && n->opens == 0 && counts_get(fs->counts, n->slot) == 0 &&
	       !node_held(fs, n->id);
}

int node_replace(struct fs *fs, struct node *n)
{
	if (node_unused(fs, n))
		return node_delete(fs, n);
	n->flags |= NODE_REPLACED;
	return node_store(fs, n);
}

int node_tidy(struct fs *fs, uint64_t id)
{
	struct node n;
	int err = node_load(fs, id, &n);

	return err == 0 && node_unused(fs, &n) ? node_delete(fs, &n) : err;
}

int node_create(struct fs *fs, const struct node_key *k, uint64_t parent, struct node *n)
{
	uint64_t be = htobe64(n->id);
	int err;

	err = counts_alloc(fs->counts, &n->slot);
	if (err != 0)
		return err;
	n->parent = parent;
	n->name_len = (uint8_t)(k->len - 8);
	memcpy(n->name, k->b + 8, n->name_len);
	n->name[n->name_len] = '\0';
	err = node_store(fs, n);
	if (err == 0) {
		err = node_bind_key(fs, k, n->id);
		/* There is room for deleting where there is none for more rows. */
		if (err != 0)
			(void)statedb_del(fs->db, STATEDB_NODES, &be, sizeof(be));
	}
	if (err != 0)
		fs_free_slot_later(fs, n->slot);
	return err;
}

/* Another version of what `old` was (NULL: nothing known) under the same name. */
static int bind_new(struct fs *fs, const struct node_key *k, uint64_t parent, const char *path,
    const struct ufs_attr *attr, struct node *old, struct node *n)
{
	int err;

	memset(n, 0, sizeof(*n));
	err = fs_next_id(fs, &n->id);
	if (err != 0)
		return err;
	node_take_attr(fs, n, attr);
	if (old == NULL)
		n->st_ino = node_ino_pick(fs, parent, path);
	else
		err = node_ino_pass(fs, old, n);
	if (err == 0)
		err = node_create(fs, k, parent, n);
	/* Last, as it frees what nobody knows; the number has been passed on. */
	if (err == 0 && old != NULL)
		err = node_replace(fs, old);
	return err;
}

/* What only a session has is not the storage's to deny; and sessions could not be read. */
static bool unknown_session(const struct fs *fs, const struct node *n)
{
	return (n->flags & NODE_LOCAL) != 0 && fs->sessions_missing;
}

int node_bind(struct fs *fs, uint64_t parent, const char *name, const char *path,
    const struct ufs_attr *attr, struct node *n)
{
	struct node_key k;
	struct node old;
	int err;

	err = node_key(&k, parent, name, strlen(name));
	if (err != 0)
		return err;
	err = find_by_key(fs, &k, &old);
	if (err == 0 && unknown_session(fs, &old))
		return -EIO;
	if (err == -ENOENT)
		return bind_new(fs, &k, parent, path, attr, NULL, n);
	if (err == 0 && !same_version(&old, attr))
		return bind_new(fs, &k, parent, path, attr, &old, n);
	if (err == 0) {
		*n = old;
		node_take_attr(fs, n, attr);
		err = node_store(fs, n);
	}
	return err;
}

int node_unbind(struct fs *fs, uint64_t parent, const char *name)
{
	struct node_key k;
	struct node n;
	int err;

	err = node_key(&k, parent, name, strlen(name));
	if (err == 0)
		err = find_by_key(fs, &k, &n);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (unknown_session(fs, &n))
		return -EIO;
	err = node_replace(fs, &n);
	if (err != 0)
		return err;
	err = statedb_del(fs->db, STATEDB_NAMES, k.b, k.len);
	return err == -ENOENT ? 0 : err;
}

int node_refresh(struct fs *fs, struct node *n, const struct ufs_attr *attr)
{
	int err;

	if (n->id == NODE_ROOT && attr != NULL && attr->kind != UFS_DIR)
		return -ENOTDIR; /* another one may come; the mount's root stays */
	if (attr == NULL || !same_version(n, attr)) {
		err = node_replace(fs, n);
		return err != 0 ? err : -ESTALE;
	}
	node_take_attr(fs, n, attr);
	return node_store(fs, n);
}

int node_expire(struct fs *fs, uint64_t id)
{
	struct node n;
	int err = node_load(fs, id, &n);

	if (err != 0)
		return err;
	n.fetched_ns = 0;
	err = node_store(fs, &n);
	node_tell_kernel(fs, id);
	return err;
}

void node_tell_kernel(struct fs *fs, uint64_t id)
{
	if (fs->chan != NULL)
		fuse_chan_expire(fs->chan, id);
}

int node_add_open(struct fs *fs, uint64_t id, int by)
{
	struct node n;
	int err = node_load(fs, id, &n);

	if (err != 0)
		return err;
	if (by > 0)
		n.opens++;
	else if (n.opens > 0)
		n.opens--;
	if (node_unused(fs, &n))
		return node_delete(fs, &n);
	return node_store(fs, &n);
}

void node_count(struct fs *fs, const struct node *n)
{
	counts_add(fs->counts, n->slot, 1);
}

int node_forget(struct fs *fs, uint64_t id, uint64_t count)
{
	struct node n;
	int err;

	if (id == NODE_ROOT)
		return 0;
	err = node_load(fs, id, &n);
	if (err != 0)
		return err;
	if (counts_sub(fs->counts, n.slot, count) > 0 || n.opens > 0 || node_held(fs, id))
		return 0;
	err = node_delete(fs, &n);
	/* FORGETs come by the thousand and are the way out of a full database: what
	 * the last ones freed is there after a commit. */
	if (err == -ENOSPC && statedb_commit(fs->db) == 0)
		err = node_delete(fs, &n);
	return err;
}

int node_make_root(struct fs *fs)
{
	struct node n = {.id = NODE_ROOT, .st_ino = NODE_ROOT, .kind = UFS_DIR};

	n.mtime.tv_sec = (time_t)(loop_wall(fs->env.loop) / NS_PER_S);
	return node_store(fs, &n);
}

/* --- Attributes */

bool node_fresh(const struct fs *fs, const struct node *n)
{
	uint64_t now = loop_now(fs->env.loop);

	/* A time ahead of ours was written under another clock. */
	return n->fetched_ns != 0 && n->fetched_ns <= now && now - n->fetched_ns < fs->attr_ttl_ns;
}

double node_ttl(const struct fs *fs, const struct node *n)
{
	uint64_t age;

	if (!node_fresh(fs, n) || (n->flags & NODE_REPLACED) != 0)
		return 0;
	age = loop_now(fs->env.loop) - n->fetched_ns;
	return (double)(fs->attr_ttl_ns - age) / (double)NS_PER_S;
}

void node_stat(const struct fs *fs, const struct node *n, struct stat *st)
{
	bool dir = n->kind == UFS_DIR, own = (n->flags & NODE_HAVE_MODE) != 0;
	uint32_t perm = own ? n->mode : dir ? fs->dir_mode : fs->file_mode;

	memset(st, 0, sizeof(*st));
	st->st_ino = n->st_ino;
	st->st_mode = (dir ? S_IFDIR : S_IFREG) | (perm & 07777);
	st->st_nlink = (n->flags & NODE_GONE) != 0 ? 0 : dir ? 2 : 1;
	st->st_uid = own ? n->uid : fs->uid;
	st->st_gid = own ? n->gid : fs->gid;
	st->st_size = dir ? 4096 : (off_t)n->size;
	st->st_blocks = (st->st_size + 511) / 512;
	st->st_blksize = (blksize_t)MIB;
	st->st_mtim = st->st_ctim = st->st_atim = n->mtime;
}

void node_entry(const struct fs *fs, const struct node *n, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = n->id;
	e->attr_timeout = node_ttl(fs, n);
	e->entry_timeout = fs->env.mo->entry_timeout;
	node_stat(fs, n, &e->attr);
}

/* --- Paths */

/* What lies at path + at, below the mounted part of the namespace. */
static int join_root(const struct fs *fs, char *path, size_t at)
{
	size_t root = strlen(fs->root), len = UFS_PATH_MAX - at;
	size_t slash = root > 0 && len > 0;

	if (root + slash + len > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	memmove(path + root + slash, path + at, len + 1);
	memcpy(path, fs->root, root);
	if (slash > 0)
		path[root] = '/';
	return 0;
}

int node_path(struct fs *fs, uint64_t id, char path[UFS_PATH_MAX + 1])
{
	size_t at = UFS_PATH_MAX; /* the path grows towards the front */
	struct node n;
	int err, depth;

	path[at] = '\0';
	for (depth = 0; id != NODE_ROOT; depth++) {
		err = node_load(fs, id, &n);
		if (err != 0)
			return err == -ENOENT ? -ESTALE : err;
		if (depth > NODE_MAX_DEPTH)
			return -ELOOP;
		if (at < (size_t)n.name_len + (depth > 0))
			return -ENAMETOOLONG;
		if (depth > 0)
			path[--at] = '/';
		at -= n.name_len;
		memcpy(path + at, n.name, n.name_len);
		id = n.parent;
	}
	return join_root(fs, path, at);
}

int node_child_path(struct fs *fs, uint64_t parent, const char *name, char path[UFS_PATH_MAX + 1])
{
	size_t len, nlen = strlen(name);
	int err = node_path(fs, parent, path);

	if (err != 0)
		return err;
	len = strlen(path);
	if (nlen > UFS_NAME_MAX || len + (len > 0) + nlen > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	if (len > 0)
		path[len++] = '/';
	memcpy(path + len, name, nlen + 1);
	return 0;
}
