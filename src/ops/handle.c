/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/handle.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define HANDLE_FORMAT 1u

/* The row, in host order; a file's version and path follow. */
struct handle_row {
	uint8_t format, kind, version_len, storage;
	uint16_t path_len;
	uint16_t pad;
	uint64_t node, size;
};
_Static_assert(sizeof(struct handle_row) == 24, "rows outlive the program that wrote them");

#define HANDLE_ROW_MAX (sizeof(struct handle_row) + UFS_VERSION_MAX + UFS_PATH_MAX)

static int row_put(struct fs *fs, const struct handle *h, const struct node *n, const char *path)
{
	unsigned char buf[HANDLE_ROW_MAX];
	size_t vlen = 0, plen = 0;
	uint64_t be = htobe64(h->id);
	struct handle_row r = {
	    .format = HANDLE_FORMAT,
	    .kind = (uint8_t)h->kind,
	    .node = h->node,
	    .size = n->size,
	};

	if (h->kind == UFS_FILE) {
		vlen = strlen(n->version);
		plen = strlen(path);
	}
	if (plen > UFS_PATH_MAX)
		return -ENAMETOOLONG;
	r.version_len = (uint8_t)vlen;
	r.path_len = (uint16_t)plen;
	memcpy(buf, &r, sizeof(r));
	memcpy(buf + sizeof(r), n->version, vlen);
	memcpy(buf + sizeof(r) + vlen, path, plen);
	return statedb_put(fs->db, STATEDB_HANDLES, &be, sizeof(be), buf, sizeof(r) + vlen + plen);
}

static int row_get(struct fs *fs, uint64_t id, struct handle_row *r, char *version, char *path)
{
	uint64_t be = htobe64(id);
	const char *tail;
	struct statedb_val v;
	int err;

	if (fs->db == NULL)
		return -EIO;
	err = statedb_get(fs->db, STATEDB_HANDLES, &be, sizeof(be), &v);
	if (err != 0)
		return err == -ENOENT ? -EBADF : err;
	if (v.len < sizeof(*r))
		return -EPROTO;
	memcpy(r, v.data, sizeof(*r));
	if (r->format != HANDLE_FORMAT || r->version_len >= UFS_VERSION_MAX ||
	    r->path_len > UFS_PATH_MAX || v.len != sizeof(*r) + r->version_len + r->path_len)
		return -EPROTO;
	tail = (const char *)v.data + sizeof(*r);
	memcpy(version, tail, r->version_len);
	version[r->version_len] = '\0';
	memcpy(path, tail + r->version_len, r->path_len);
	path[r->path_len] = '\0';
	return 0;
}

static void handle_free(struct fs *fs, struct handle *h)
{
	HASH_DEL(fs->handles, h);
	if (h->kind == UFS_FILE) {
		cache_stream_end(fs->env.cache, &h->stream);
		if (h->blob != NULL)
			cache_blob_put(&h->blob);
	} else {
		ufs_list_free(&h->page.list);
	}
	FREE_OBJ(h);
}

static int handle_make(struct fs *fs, uint64_t id, uint64_t node, enum ufs_kind kind,
    const struct blob_id *bid, struct handle **out)
{
	struct handle *h;

	ALLOC_OBJ(h, HANDLE_MAGIC);
	if (h == NULL)
		return -ENOMEM;
	h->id = id;
	h->node = node;
	h->kind = kind;
	if (kind == UFS_FILE) {
		h->blob = cache_blob_get(fs->env.cache, bid);
		if (h->blob == NULL) {
			FREE_OBJ(h);
			return -ENOMEM;
		}
	}
	HASH_ADD(hh, fs->handles, id, sizeof(h->id), h);
	if (h->hh.tbl == NULL) {
		if (h->blob != NULL)
			cache_blob_put(&h->blob);
		FREE_OBJ(h);
		return -ENOMEM;
	}
	*out = h;
	return 0;
}

int handle_open(struct fs *fs, const struct node *n, const char *path, struct handle **out)
{
	struct blob_id bid = {.version = n->version, .size = n->size};
	bool dir = n->kind == UFS_DIR;
	struct handle *h;
	uint64_t id, be;
	int err;

	fs_place(fs, path, &bid.ufs, &bid.path);
	err = fs_next_id(fs, &id);
	if (err == 0)
		err = handle_make(fs, id, n->id, (enum ufs_kind)n->kind, &bid, &h);
	if (err != 0)
		return err;
	be = htobe64(id);
	err = row_put(fs, h, n, path);
	if (err == 0) {
		err = fs_handle_opened(fs, dir);
		if (err == 0)
			err = node_add_open(fs, n->id, 1);
		/* There is room for deleting where there is none for more rows. */
		if (err != 0) {
			(void)statedb_del(fs->db, STATEDB_HANDLES, &be, sizeof(be));
			(void)fs_handle_closed(fs, dir);
		}
	}
	if (err != 0) {
		handle_free(fs, h);
		return err;
	}
	*out = h;
	return 0;
}

int handle_get(struct fs *fs, uint64_t id, enum ufs_kind kind, struct handle **out)
{
	char version[UFS_VERSION_MAX], path[UFS_PATH_MAX + 1];
	struct blob_id bid = {.version = version};
	struct handle_row r;
	struct handle *h;
	int err;

	HASH_FIND(hh, fs->handles, &id, sizeof(id), h);
	if (h == NULL) {
		err = row_get(fs, id, &r, version, path);
		if (err != 0)
			return err;
		bid.size = r.size;
		fs_place(fs, path, &bid.ufs, &bid.path);
		err = handle_make(fs, id, r.node, (enum ufs_kind)r.kind, &bid, &h);
		if (err != 0)
			return err;
	}
	if (h->kind != kind || h->closed)
		return -EBADF;
	*out = h;
	return 0;
}

void handle_use(struct handle *h)
{
	CHECK_OBJ(h, HANDLE_MAGIC);
	h->users++;
}

void handle_unuse(struct fs *fs, struct handle *h)
{
	CHECK_OBJ(h, HANDLE_MAGIC);
	assert(h->users > 0);
	if (--h->users == 0 && h->closed)
		handle_free(fs, h);
}

int handle_release(struct fs *fs, uint64_t id, enum ufs_kind kind)
{
	char version[UFS_VERSION_MAX], path[UFS_PATH_MAX + 1];
	uint64_t be = htobe64(id);
	struct handle_row r;
	struct handle *h;
	int err;

	err = row_get(fs, id, &r, version, path);
	if (err != 0)
		return err;
	if (r.kind != kind)
		return -EBADF;
	HASH_FIND(hh, fs->handles, &id, sizeof(id), h);
	if (h != NULL) {
		h->closed = true;
		if (h->users == 0)
			handle_free(fs, h);
	}
	err = statedb_del(fs->db, STATEDB_HANDLES, &be, sizeof(be));
	if (err == 0)
		err = fs_handle_closed(fs, kind == UFS_DIR);
	if (err == 0 && kind == UFS_DIR)
		err = cookie_drop(fs, id);
	if (err == 0)
		err = node_add_open(fs, r.node, -1);
	return err == -ENOENT ? 0 : err;
}

int handle_check_all(struct fs *fs)
{
	char version[UFS_VERSION_MAX], path[UFS_PATH_MAX + 1];
	struct handle *h, *next;
	struct handle_row r;
	int err;

	HASH_ITER(hh, fs->handles, h, next)
	{
		err = row_get(fs, h->id, &r, version, path);
		if (err != 0 && err != -EBADF)
			return err;
		if (err == 0)
			continue;
		h->closed = true;
		if (h->users == 0)
			handle_free(fs, h);
	}
	return 0;
}

void handle_forget_all(struct fs *fs)
{
	while (fs->handles != NULL) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the table */
		assert(fs->handles->users == 0);
		handle_free(fs, fs->handles);
	}
}
