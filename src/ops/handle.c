/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/handle.h"
#include "ops/dir_page.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "ops/session.h"

#define HANDLE_FORMAT 1u

/* The row, in host order; a file's version and path follow. */
struct handle_row {
	uint8_t format, kind, version_len, storage;
	uint16_t path_len;
	uint8_t flags, pad;
	uint64_t node, size;
};
_Static_assert(sizeof(struct handle_row) == 24, "rows outlive the program that wrote them");

enum {
	HANDLE_WRITES = 1,
	HANDLE_NO_BLOB = 2, /* the node's session had the content: the row's version and path
			     * say nothing */
};

#define HANDLE_ROW_MAX (sizeof(struct handle_row) + UFS_VERSION_MAX + UFS_PATH_MAX)

static int row_put(struct fs *fs, const struct handle *h, const struct node *n, const char *path)
{
	unsigned char buf[HANDLE_ROW_MAX];
	size_t vlen = 0, plen = 0;
	uint64_t be = htobe64(h->id);
	struct handle_row r = {
	    .format = HANDLE_FORMAT,
	    .kind = (uint8_t)h->kind,
	    .flags = (h->writes ? HANDLE_WRITES : 0) | (h->blob == NULL ? HANDLE_NO_BLOB : 0),
	    .node = h->node,
	    .size = n->size,
	};

	if (h->kind == UFS_FILE && h->blob != NULL) {
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
	if (r->format != HANDLE_FORMAT || r->kind > UFS_DIR || r->version_len >= UFS_VERSION_MAX ||
	    r->path_len > UFS_PATH_MAX || v.len != sizeof(*r) + r->version_len + r->path_len)
		return -EPROTO;
	tail = (const char *)v.data + sizeof(*r);
	memcpy(version, tail, r->version_len);
	version[r->version_len] = '\0';
	memcpy(path, tail + r->version_len, r->path_len);
	path[r->path_len] = '\0';
	return 0;
}

static void handle_end_old(struct fs *fs, struct handle *h)
{
	if (h->old == NULL)
		return;
	cache_stream_end(fs->env.cache, &h->stream);
	memset(&h->stream, 0, sizeof(h->stream));
	cache_blob_put(&h->old);
}

static void handle_free(struct fs *fs, struct handle *h)
{
	HASH_DEL(fs->handles, h);
	if (h->kind == UFS_FILE) {
		handle_end_old(fs, h);
		cache_stream_end(fs->env.cache, &h->stream);
		if (h->blob != NULL)
			cache_blob_put(&h->blob);
	} else {
		dir_page_free(fs, &h->page);
	}
	FREE_OBJ(h);
}

/* bid: NULL if there is no blob. */
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
	if (kind == UFS_FILE && bid != NULL) {
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

/* Where the bytes of that version are: storage, or another node. */
static void blob_place(const struct fs *fs, const char *path, struct blob_id *bid)
{
	if (fs->peers == NULL || session_version_content(bid->version) == 0) {
		fs_place(fs, path, &bid->ufs, &bid->path);
		return;
	}
	bid->ufs = fs->peers;
	bid->path = bid->version + 1; /* the content's id, whatever its name is by now */
}

static int open_row(struct fs *fs, const struct node *n, const char *path, struct handle *h)
{
	bool dir = n->kind == UFS_DIR;
	uint64_t be = htobe64(h->id);
	int err = row_put(fs, h, n, path);

	if (err != 0)
		return err;
	err = fs_handle_opened(fs, dir);
	if (err == 0)
		err = node_add_open(fs, n->id, 1);
	/* There is room for deleting where there is none for more rows. */
	if (err != 0) {
		(void)statedb_del(fs->db, STATEDB_HANDLES, &be, sizeof(be));
		(void)fs_handle_closed(fs, dir);
	}
	return err;
}

static int open_handle(struct fs *fs, const struct node *n, const char *path, bool writes,
    struct handle **out)
{
	struct blob_id bid = {.version = n->version, .size = n->size};
	/* What a session has, the storage may not have, or have otherwise. */
	bool no_blob = n->kind == UFS_FILE && session_of(fs, n->id) != NULL;
	struct handle *h;
	uint64_t id;
	int err;

	blob_place(fs, path, &bid);
	err = fs_next_id(fs, &id);
	if (err == 0)
		err = handle_make(
		    fs, id, n->id, (enum ufs_kind)n->kind, no_blob ? NULL : &bid, &h);
	if (err != 0)
		return err;
	h->writes = writes;
	h->seen = fs->rebinds;
	err = open_row(fs, n, path, h);
	if (err != 0) {
		handle_free(fs, h);
		return err;
	}
	*out = h;
	return 0;
}

int handle_open(struct fs *fs, const struct node *n, const char *path, struct handle **out)
{
	return open_handle(fs, n, path, false, out);
}

int handle_open_writing(
    struct fs *fs, const struct node *n, const char *path, struct handle **out)
{
	return open_handle(fs, n, path, true, out);
}

int handle_refresh(struct fs *fs, struct handle *h)
{
	char path[UFS_PATH_MAX + 1];
	struct blob_id bid;
	struct blob *blob;
	struct node n;
	int err;

	if (h->blob != NULL && h->seen == fs->rebinds)
		return 0;
	if (fs->db == NULL)
		return h->blob != NULL ? 0 : -ECANCELED;
	err = node_load(fs, h->node, &n);
	if (err == 0)
		err = node_path(fs, h->node, path);
	if (err == 0 && (n.flags & NODE_LOCAL) != 0)
		err = -ESTALE;
	/* A name above it may be gone; the version that it has is still the right one. */
	if (err != 0)
		return h->blob != NULL ? 0 : err == -ENOENT ? -ESTALE : err;
	bid = (struct blob_id){.version = n.version, .size = n.size};
	blob_place(fs, path, &bid);
	blob = cache_blob_get(fs->env.cache, &bid);
	if (blob == NULL)
		return -ENOMEM;
	h->seen = fs->rebinds;
	if (blob == h->blob) {
		cache_blob_put(&blob);
		return 0;
	}
	if (h->old == NULL)
		h->old = h->blob;
	else if (h->blob != NULL)
		cache_blob_put(&h->blob);
	h->blob = blob;
	if (h->users == 0)
		handle_end_old(fs, h);
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
		blob_place(fs, path, &bid);
		err = handle_make(fs, id, r.node, (enum ufs_kind)r.kind,
		    (r.flags & HANDLE_NO_BLOB) != 0 ? NULL : &bid, &h);
		if (err != 0)
			return err;
		h->writes = (r.flags & HANDLE_WRITES) != 0;
		/* A change made since it was opened is in the node's row only. */
		h->seen = fs->rebinds - 1;
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
	if (--h->users > 0)
		return;
	if (h->closed)
		handle_free(fs, h);
	else
		handle_end_old(fs, h);
}

int handle_info(struct fs *fs, uint64_t id, struct handle_info *out)
{
	char version[UFS_VERSION_MAX], path[UFS_PATH_MAX + 1];
	struct handle_row r;
	int err = row_get(fs, id, &r, version, path);

	if (err != 0)
		return err;
	out->node = r.node;
	out->kind = (enum ufs_kind)r.kind;
	out->writes = (r.flags & HANDLE_WRITES) != 0;
	return 0;
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
