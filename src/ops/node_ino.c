/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Numbers of files.  A name's number is made from that of its directory and the name
 * (fs_ino), so it is the same whenever it is asked for.  A node that was renamed keeps
 * the number that its old name gave it; then that number is taken, and what comes
 * under the old name gets another one, and with it all that comes below.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "ops/node_priv.h"

/* Whose the number is; -ENOENT: nobody's in particular. */
static int holder(struct fs *fs, uint64_t ino, uint64_t *id)
{
	uint64_t be = htobe64(ino);
	struct statedb_val v;
	int err = statedb_get(fs->db, STATEDB_INOS, &be, sizeof(be), &v);

	if (err != 0)
		return err;
	if (v.len != sizeof(be))
		return -EPROTO;
	memcpy(&be, v.data, sizeof(be));
	*id = be64toh(be);
	return 0;
}

static int put_holder(struct fs *fs, uint64_t ino, uint64_t id)
{
	uint64_t be = htobe64(ino), val = htobe64(id);

	return statedb_put(fs->db, STATEDB_INOS, &be, sizeof(be), &val, sizeof(val));
}

uint64_t node_ino(const struct fs *fs, const char *path)
{
	return fs_ino(fs, path);
}

uint64_t node_ino_pick(struct fs *fs, uint64_t parent, const char *path)
{
	uint64_t ino, id, salt;
	struct node dir;

	/* A parent whose row is gone (its name is known no more) has the number of its
	 * path. */
	if (parent == NODE_ROOT)
		ino = fs_ino_child(fs, fs_ino(fs, fs->root), path);
	else if (node_load(fs, parent, &dir) == 0)
		ino = fs_ino_child(fs, dir.st_ino, path);
	else
		ino = fs_ino(fs, path);
	for (salt = 1; holder(fs, ino, &id) == 0; salt++)
		ino = fs_ino_valid(hash64(&ino, sizeof(ino), salt));
	return ino;
}

int node_ino_hold(struct fs *fs, struct node *n)
{
	uint64_t id;
	int err = holder(fs, n->st_ino, &id);

	if (err == -ENOENT)
		err = put_holder(fs, n->st_ino, n->id);
	else if (err == 0 && id != n->id)
		return 0; /* another's already: nobody else gets it either */
	if (err == 0)
		n->flags |= NODE_INO;
	return err;
}

int node_ino_pass(struct fs *fs, const struct node *from, struct node *to)
{
	int err = 0;

	to->st_ino = from->st_ino;
	if ((from->flags & NODE_INO) != 0)
		err = put_holder(fs, to->st_ino, to->id);
	if (err == 0)
		to->flags |= from->flags & NODE_INO;
	return err;
}

int node_ino_release(struct fs *fs, const struct node *n)
{
	uint64_t be = htobe64(n->st_ino), id;
	int err;

	if ((n->flags & NODE_INO) == 0)
		return 0;
	err = holder(fs, n->st_ino, &id);
	if (err == 0 && id == n->id)
		err = statedb_del(fs->db, STATEDB_INOS, &be, sizeof(be));
	return err == -ENOENT ? 0 : err;
}

uint64_t node_list_ino(struct fs *fs, uint64_t parent, const char *name, const char *path)
{
	struct node n;

	/* One that was replaced, and holds its number for itself, is another file. */
	if (node_find(fs, parent, name, &n) == 0 &&
	    (n.flags & (NODE_REPLACED | NODE_INO)) != (NODE_REPLACED | NODE_INO))
		return n.st_ino;
	return node_ino_pick(fs, parent, path);
}
