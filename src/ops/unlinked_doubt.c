/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Deletions of files of which the storage may have an object, or get one yet.
 *
 * The blob of an intent: kind, format, size (big-endian, eight bytes), path.  The version
 * of a row: "?", size, ":", the intent's id in hex; no storage has such versions.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ops/unlinked.h"

#define DOUBT_FORMAT 1u
#define DOUBT_HEAD 10u

size_t unlinked_doubt_encode(
    const char *path, uint64_t size, unsigned char blob[UNLINKED_BLOB_MAX])
{
	uint64_t be = htobe64(size);
	size_t len = strnlen(path, UFS_PATH_MAX);

	blob[0] = INTENT_KIND_UNLINK;
	blob[1] = DOUBT_FORMAT;
	memcpy(blob + 2, &be, sizeof(be));
	memcpy(blob + DOUBT_HEAD, path, len);
	return DOUBT_HEAD + len;
}

int unlinked_doubt_take(struct fs *fs, uint64_t id, const void *blob, size_t len)
{
	const unsigned char *b = blob;
	char path[UFS_PATH_MAX + 1];
	uint64_t be;

	if (len <= DOUBT_HEAD || len - DOUBT_HEAD > UFS_PATH_MAX || b[0] != INTENT_KIND_UNLINK ||
	    b[1] != DOUBT_FORMAT || memchr(b + DOUBT_HEAD, '\0', len - DOUBT_HEAD) != NULL)
		return -EPROTO;
	memcpy(&be, b + 2, sizeof(be));
	memcpy(path, b + DOUBT_HEAD, len - DOUBT_HEAD);
	path[len - DOUBT_HEAD] = '\0';
	return unlinked_add_doubt(fs, path, be64toh(be), id);
}

void unlinked_doubt_text(uint64_t size, uint64_t intent, char version[UFS_VERSION_MAX])
{
	snprintf(version, UFS_VERSION_MAX, "?%" PRIu64 ":%" PRIx64, size, intent);
}

unsigned unlinked_unsafe(const struct fs *fs, const char **path)
{
	const struct unlinked *u;
	uint64_t size, intent;
	unsigned n = 0;

	*path = NULL;
	TAILQ_FOREACH(u, &fs->unlinked->list, link)
	{
		if (unlinked_doubt(u, &size, &intent))
			continue;
		if (n++ == 0)
			*path = u->path;
	}
	return n;
}

bool unlinked_doubt(const struct unlinked *u, uint64_t *size, uint64_t *intent)
{
	return !u->dir && sscanf(u->version, "?%" SCNu64 ":%" SCNx64, size, intent) == 2;
}
