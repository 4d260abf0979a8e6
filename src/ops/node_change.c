/* SPDX-License-Identifier: BSD-2-Clause */
/* Changes that this mount makes itself: the names and versions of nodes. */
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/node_priv.h"

int node_name_check(const char *name)
{
	static const char head[] = ".batonfs-", tail[] = ".tmp";
	size_t len = strlen(name);

	if (len > UFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return -EINVAL;
	if (len >= sizeof(head) + sizeof(tail) - 2 && strncmp(name, head, sizeof(head) - 1) == 0 &&
	    strcmp(name + len - (sizeof(tail) - 1), tail) == 0)
		return -EINVAL;
	return 0;
}

/* The node loses its name to a change made here.  Who has it open goes on to see its
 * number, which the next file of that name does not get. */
static int lose_name(struct fs *fs, struct node *n)
{
	int err = 0;

	if ((n->flags & NODE_GONE) != 0)
		return 0;
	if (n->opens > 0)
		err = node_ino_hold(fs, n);
	n->flags |= NODE_GONE;
	return err != 0 ? err : node_replace(fs, n);
}

/* A name came into a directory, or left it: its own times are others now.  Told until the
 * storage says it; a database that is full keeps what it has. */
static void dir_changed(struct fs *fs, uint64_t id)
{
	uint64_t ns = loop_wall(fs->env.loop);
	struct node n;

	if (node_load(fs, id, &n) != 0)
		return;
	n.mtime.tv_sec = (time_t)(ns / NS_PER_S);
	n.mtime.tv_nsec = (long)(ns % NS_PER_S);
	(void)node_store(fs, &n);
}

int node_make(struct fs *fs, uint64_t parent, const char *name, const char *path,
    const struct ufs_attr *attr, bool local, struct node *n)
{
	struct node_key k;
	struct node was;
	int err, had;

	err = node_key(&k, parent, name, strlen(name));
	if (err != 0)
		return err;
	had = node_find(fs, parent, name, &was);
	if (had != 0 && had != -ENOENT)
		return had;
	/* Before the new one's number is chosen. */
	if (had == 0)
		err = lose_name(fs, &was);
	if (err != 0)
		return err;
	memset(n, 0, sizeof(*n));
	err = fs_next_id(fs, &n->id);
	if (err != 0)
		return err;
	node_take_attr(fs, n, attr);
	n->flags |= n->kind == UFS_DIR ? NODE_MARKED : local ? NODE_LOCAL : 0;
	n->st_ino = node_ino_pick(fs, parent, path);
	err = node_create(fs, &k, parent, n);
	if (err == 0) {
		dir_changed(fs, parent);
		fs_touch(fs, parent, name);
	}
	return err;
}

int node_set_version(struct fs *fs, uint64_t id, const struct ufs_attr *attr)
{
	struct node n, was;
	int err = node_load(fs, id, &n);

	if (err != 0)
		return err;
	was = n;
	node_take_attr(fs, &n, attr);
	n.flags |= was.flags & NODE_REPLACED; /* as it was: nothing gives a name back */
	/* What the storage does not know stays as it is. */
	if (!attr->have_mode && (was.flags & NODE_HAVE_MODE) != 0) {
		n.flags |= NODE_HAVE_MODE;
		n.mode = was.mode;
		n.uid = was.uid;
		n.gid = was.gid;
	}
	n.mtime = attr->mtime.tv_sec != 0 || attr->mtime.tv_nsec != 0 ? attr->mtime : was.mtime;
	err = node_store(fs, &n);
	if (err == 0) {
		fs->rebinds++;
		fs_touch(fs, n.parent, n.name);
	}
	return err;
}

/* The node's row and its new name, or, after an error, as it was. */
static int move_rows(struct fs *fs, const struct node *was, struct node *n, struct node *target)
{
	struct node_key from, to;
	int err;

	err = node_key(&from, was->parent, was->name, was->name_len);
	if (err == 0)
		err = node_key(&to, n->parent, n->name, n->name_len);
	/* What was there may be the one that frees a number. */
	if (err == 0 && target != NULL)
		err = lose_name(fs, target);
	if (err != 0)
		return err;
	err = node_store(fs, n);
	if (err == 0)
		err = node_bind_key(fs, &to, n->id);
	if (err == 0)
		err = statedb_del(fs->db, STATEDB_NAMES, from.b, from.len);
	if (err == 0 || err == -ENOENT)
		return 0;
	/* There is room for what was there, and for deleting. */
	(void)node_store(fs, was);
	(void)statedb_del(fs->db, STATEDB_NAMES, to.b, to.len);
	return err;
}

/* A number that its new name would not give it is held from now on. */
static int move_ino(struct fs *fs, struct node *n)
{
	char path[UFS_PATH_MAX + 1];
	int err = node_child_path(fs, n->parent, n->name, path);

	if (err != 0)
		return err;
	if ((n->flags & NODE_INO) != 0) {
		/* Back where it was? */
		err = node_ino_release(fs, n);
		n->flags &= (uint8_t)~NODE_INO;
	}
	if (err == 0 && node_ino_pick(fs, n->parent, path) != n->st_ino)
		err = node_ino_hold(fs, n);
	return err;
}

int node_move(struct fs *fs, uint64_t id, uint64_t parent, const char *name)
{
	struct node n, was, target;
	int err, had;

	if (*name == '\0')
		return -EINVAL;
	if (strlen(name) > UFS_NAME_MAX)
		return -ENAMETOOLONG;
	err = node_load(fs, id, &n);
	if (err == 0 && (id == NODE_ROOT || (n.flags & NODE_REPLACED) != 0))
		err = -ESTALE;
	if (err != 0)
		return err;
	had = node_find(fs, parent, name, &target);
	if (had != 0 && had != -ENOENT)
		return had;
	if (had == 0 && target.id == id)
		return 0;
	was = n;
	n.parent = parent;
	n.name_len = (uint8_t)strlen(name);
	memcpy(n.name, name, (size_t)n.name_len + 1);
	err = move_ino(fs, &n);
	if (err == 0)
		err = move_rows(fs, &was, &n, had == 0 ? &target : NULL);
	if (err != 0) {
		if ((was.flags & NODE_INO) != 0)
			(void)node_ino_hold(fs, &was);
		else
			(void)node_ino_release(fs, &n);
		return err;
	}
	fs->rebinds++;
	dir_changed(fs, was.parent);
	if (parent != was.parent)
		dir_changed(fs, parent);
	fs_touch(fs, was.parent, was.name);
	fs_touch(fs, parent, name);
	if (n.kind == UFS_DIR)
		fs_touch_all(fs);
	return 0;
}

int node_drop_name(struct fs *fs, uint64_t id)
{
	struct node_key k;
	struct node n;
	uint64_t bound;
	int err = node_load(fs, id, &n);

	if (err != 0)
		return err;
	if (id == NODE_ROOT)
		return -EBUSY;
	err = node_key(&k, n.parent, n.name, n.name_len);
	if (err == 0 && node_bound_id(fs, &k, &bound) == 0 && bound == id)
		err = statedb_del(fs->db, STATEDB_NAMES, k.b, k.len);
	if (err == 0)
		err = lose_name(fs, &n);
	/* What was deleted in a full database is there after a commit.  And a node that is
	 * neither open nor bound needs no mark: the kernel forgets it next. */
	if (err == -ENOSPC && statedb_commit(fs->db) == 0)
		err = lose_name(fs, &n);
	if (err == -ENOSPC && n.opens == 0)
		err = 0;
	if (err == 0) {
		fs->rebinds++;
		dir_changed(fs, n.parent);
		fs_touch(fs, n.parent, n.name);
	}
	return err;
}
