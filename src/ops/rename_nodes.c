/* SPDX-License-Identifier: BSD-2-Clause */
/* The nodes of a directory that is renamed by copying, and what has to be known of them
 * until they move. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "ops/rename.h"

/* --- Versions of nodes below: rows of the state database, so that they need no memory
 * and outlive the process as the nodes do.  Key: tag, intent, node (big-endian). */

struct version_key {
	char tag[8];
	uint64_t intent, node;
};

#define VERSION_TAG "moving:" /* eight bytes with its NUL */

static struct version_key version_key(uint64_t id, uint64_t node)
{
	struct version_key k = {.intent = htobe64(id), .node = htobe64(node)};

	memcpy(k.tag, VERSION_TAG, sizeof(k.tag));
	return k;
}

int move_note_version(struct dirmove *m, uint64_t node, const char *was, const char *now)
{
	struct version_key k = version_key(m->in.id, node);
	char val[2 * UFS_VERSION_MAX];
	size_t a = strlen(was) + 1, b = strlen(now) + 1;

	memcpy(val, was, a);
	memcpy(val + a, now, b);
	return statedb_put(m->fs->db, STATEDB_META, &k, sizeof(k), val, a + b);
}

/* The row of the least node from `node` on. */
static int next_version(
    struct fs *fs, uint64_t id, uint64_t *node, struct statedb_val *val)
{
	struct version_key k = version_key(id, *node), got;
	struct statedb_val key;
	int err = statedb_seek(fs->db, STATEDB_META, &k, sizeof(k), &key, val);

	if (err != 0)
		return err;
	if (key.len != sizeof(got))
		return -ENOENT;
	memcpy(&got, key.data, sizeof(got));
	if (memcmp(got.tag, k.tag, sizeof(k.tag)) != 0 || got.intent != k.intent)
		return -ENOENT;
	*node = be64toh(got.node);
	return 0;
}

static int take_version(struct dirmove *m, uint64_t node, const char *was, const char *now)
{
	struct ufs_attr a = {.kind = UFS_FILE};
	struct node n;
	int err = node_load(m->fs, node, &n);

	if (err != 0 || strcmp(n.version, was) != 0)
		return err == -ENOENT ? 0 : err;
	a.size = n.size;
	a.mtime = n.mtime;
	memcpy(a.version, now, strlen(now) + 1);
	return node_set_version(m->fs, node, &a);
}

static int take_versions(struct dirmove *m)
{
	char buf[2 * UFS_VERSION_MAX];
	struct statedb_val val;
	uint64_t node = 1;
	int err;

	while ((err = next_version(m->fs, m->in.id, &node, &val)) == 0) {
		if (val.len < 2 || val.len > sizeof(buf))
			return -EPROTO;
		memcpy(buf, val.data, val.len);
		buf[val.len - 1] = '\0';
		if (strlen(buf) + 1 >= val.len)
			return -EPROTO;
		err = take_version(m, node, buf, buf + strlen(buf) + 1);
		if (err != 0)
			return err;
		node++;
	}
	return err == -ENOENT ? 0 : err;
}

int move_drop_notes(struct fs *fs, uint64_t id)
{
	struct statedb_val val;
	struct version_key k;
	uint64_t node = 0;
	int err;

	while ((err = next_version(fs, id, &node, &val)) == 0) {
		k = version_key(id, node);
		err = statedb_del(fs->db, STATEDB_META, &k, sizeof(k));
		if (err != 0)
			return err;
	}
	return err == -ENOENT ? 0 : err;
}

int move_note_node(struct fs *fs, uint64_t id, uint64_t node)
{
	struct version_key k = version_key(id, 0);
	uint64_t be = htobe64(node);

	return statedb_put(fs->db, STATEDB_META, &k, sizeof(k), &be, sizeof(be));
}

static int noted_node(struct dirmove *m, uint64_t *node)
{
	struct version_key k = version_key(m->in.id, 0);
	struct statedb_val v;
	uint64_t be;
	int err = statedb_get(m->fs->db, STATEDB_META, &k, sizeof(k), &v);

	if (err != 0)
		return err;
	if (v.len != sizeof(be))
		return -EPROTO;
	memcpy(&be, v.data, sizeof(be));
	*node = be64toh(be);
	return 0;
}

/* --- The move */

int node_by_path(struct fs *fs, const char *path, struct node *n)
{
	char name[UFS_NAME_MAX + 1];
	size_t root = strlen(fs->root), len;
	uint64_t id = NODE_ROOT;
	int err;

	if (!path_within(path, fs->root))
		return -ENOENT;
	path += root;
	while (*path != '\0') {
		path += *path == '/';
		len = strcspn(path, "/");
		if (len > UFS_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path, len);
		name[len] = '\0';
		err = node_find(fs, id, name, n);
		if (err != 0)
			return err;
		id = n->id;
		path += len;
	}
	return id == NODE_ROOT ? node_load(fs, id, n) : 0;
}

int node_parent_by_path(struct fs *fs, const char *path, struct node *n)
{
	const char *slash = strrchr(path, '/');
	char up[UFS_PATH_MAX + 1];
	size_t len = slash != NULL ? (size_t)(slash - path) : 0;

	memcpy(up, path, len);
	up[len] = '\0';
	return node_by_path(fs, up, n);
}

static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* Another mount began it: nodes that this one has under the two names are what the
 * storage says they are. */
static int move_foreign(struct dirmove *m)
{
	struct node n;
	int err = node_by_path(m->fs, m->in.src, &n);

	if (err == 0)
		err = node_drop_name(m->fs, n.id);
	if (err == 0 || err == -ENOENT)
		err = node_by_path(m->fs, m->in.dst, &n);
	if (err == 0)
		err = node_expire(m->fs, n.id);
	return err == -ENOENT ? 0 : err;
}

int move_nodes(struct dirmove *m)
{
	char path[UFS_PATH_MAX + 1];
	struct node up;
	uint64_t node = 0;
	int err = noted_node(m, &node);

	if (err == -ENOENT)
		return move_foreign(m);
	if (err == 0)
		err = node_path(m->fs, node, path);
	if (err == -ESTALE)
		return 0; /* the kernel has forgotten it */
	if (err != 0 || strcmp(path, m->in.dst) == 0)
		return err;
	err = node_parent_by_path(m->fs, m->in.dst, &up);
	if (err == -ENOENT)
		err = node_drop_name(m->fs, node);
	else if (err == 0)
		err = node_move(m->fs, node, up.id, last_name(m->in.dst));
	if (err == -ESTALE || err == -ENOENT)
		err = 0; /* the name is not this node's any more */
	return err == 0 ? take_versions(m) : err;
}
