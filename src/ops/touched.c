/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What this daemon remembers of names for a moment, none of it needed.
 *
 * Which names were changed here lately: so that an answer of the storage that was asked
 * for before such a change is not believed.  A number for each of so many hashes of
 * names; two names with one hash cost a question more.
 */
#include <string.h>

#include "base/hash.h"
#include "ops/attr.h"
#include "ops/dir_page.h"
#include "ops/node.h"

static uint64_t *stamp(struct fs *fs, uint64_t parent, const char *name)
{
	return &fs->touched[hash64(name, strlen(name), parent) % FS_TOUCHED];
}

/* A storage that keeps attributes has given the directory new times by this. */
static void expire_dir(struct fs *fs, uint64_t dir)
{
	char path[UFS_PATH_MAX + 1];

	if (fs->db != NULL && node_path(fs, dir, path) == 0 && attr_native(fs, path))
		(void)node_expire(fs, dir);
}

void fs_touch(struct fs *fs, uint64_t parent, const char *name)
{
	*stamp(fs, parent, name) = ++fs->changes;
	dir_pages_touch(fs, parent, name);
	expire_dir(fs, parent);
}

void fs_touch_all(struct fs *fs)
{
	fs->all_touched = ++fs->changes;
}

bool fs_touched_since(struct fs *fs, uint64_t parent, const char *name, uint64_t when)
{
	return fs->all_touched > when || *stamp(fs, parent, name) > when;
}

/* --- Names that are not there */

void fs_absent_note(struct fs *fs, uint64_t parent, const char *name, uint64_t asked)
{
	uint64_t h = hash64(name, strlen(name), parent);

	fs->absent[h % FS_ABSENT].name = h;
	fs->absent[h % FS_ABSENT].when_ns = loop_now(fs->env.loop);
	fs->absent[h % FS_ABSENT].changes = asked;
}

bool fs_absent(struct fs *fs, uint64_t parent, const char *name)
{
	uint64_t h = hash64(name, strlen(name), parent), now = loop_now(fs->env.loop);
	uint64_t when = fs->absent[h % FS_ABSENT].when_ns;

	return fs->absent[h % FS_ABSENT].name == h && when <= now && now - when < fs->attr_ttl_ns &&
	       !fs_touched_since(fs, parent, name, fs->absent[h % FS_ABSENT].changes);
}

/* --- Directories that were made here: unpacking a tree asks for each name before it makes
 * it, and the answer is known. */

void fs_dir_is_new(struct fs *fs, uint64_t dir)
{
	fs->new_dirs[dir % FS_NEW_DIRS].dir = dir;
	fs->new_dirs[dir % FS_NEW_DIRS].when_ns = loop_now(fs->env.loop);
}

bool fs_dir_new(const struct fs *fs, uint64_t dir)
{
	uint64_t now = loop_now(fs->env.loop), when = fs->new_dirs[dir % FS_NEW_DIRS].when_ns;

	return fs->new_dirs[dir % FS_NEW_DIRS].dir == dir && when <= now &&
	       now - when < fs->attr_ttl_ns;
}

void fs_dir_forget(struct fs *fs, uint64_t dir)
{
	if (fs->new_dirs[dir % FS_NEW_DIRS].dir == dir)
		fs->new_dirs[dir % FS_NEW_DIRS].dir = 0;
}
