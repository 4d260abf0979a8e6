/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which names were changed here lately: so that an answer of the storage that was asked
 * for before such a change is not believed.  A number for each of so many hashes of
 * names; two names with one hash cost a question more.
 */
#include <string.h>

#include "base/hash.h"
#include "ops/fs_priv.h"

static uint64_t *stamp(struct fs *fs, uint64_t parent, const char *name)
{
	return &fs->touched[hash64(name, strlen(name), parent) % FS_TOUCHED];
}

void fs_touch(struct fs *fs, uint64_t parent, const char *name)
{
	*stamp(fs, parent, name) = ++fs->changes;
}

void fs_touch_all(struct fs *fs)
{
	fs->all_touched = ++fs->changes;
}

bool fs_touched_since(struct fs *fs, uint64_t parent, const char *name, uint64_t when)
{
	return fs->all_touched > when || *stamp(fs, parent, name) > when;
}
