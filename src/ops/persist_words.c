/* SPDX-License-Identifier: BSD-2-Clause */
/* What is said of files that wait: why one could not be stored, in words that say where to
 * look, and whether it is of this mount. */
#include <errno.h>
#include <string.h>

#include "base/obj.h"
#include "ops/fs_priv.h"
#include "ops/persist.h"

static const struct {
	int err;
	const char *words;
} known[] = {
    {-EACCES, "permission denied: the storage refuses it; look at the credentials and at what "
	      "they are allowed"},
    {-EPERM, "the storage does not permit it; look at the permissions there"},
    {-ENOSPC, "the storage is full"},
    {-EDQUOT, "the quota in the storage is used up"},
    {-EROFS, "the storage is read-only"},
    {-ETIMEDOUT, "the storage did not answer in time"},
    {-EIO, "the storage cannot be reached, or answers with an error, or what was written "
	   "cannot be read here: the log says more"},
    {-ENOTCONN, "the storage cannot be reached"},
    {-ENOENT, "the place in the storage does not exist"},
    {-ENOTDIR, "in the storage a file is where a directory of its path should be"},
    {-EFBIG, "it is larger than the storage takes"},
    {-ENAMETOOLONG, "its path is longer than the storage takes"},
    {-ENOMEM, "the daemon is short of memory"},
    {-EEXIST, "another client has made an object of that name: both are kept"},
    {-ESTALE, "another client has made an object of that name: both are kept"},
    {-EBADMSG, "a checksum does not match: not uploaded"},
};

const char *persist_words(int err)
{
	if (err == 0)
		return "";
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (known[i].err == err)
			return known[i].words;
	return strerror(-err);
}

bool persist_inside(const struct fs *fs, const char *path)
{
	size_t n = strlen(fs->root);

	return n == 0 || (strncmp(path, fs->root, n) == 0 && path[n] == '/');
}
