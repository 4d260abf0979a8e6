/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "cache/cache_priv.h"

/* The second half of the 128-bit name. */
#define HASH_SEED2 UINT64_C(0x62617430)

/*
 * Uses of a page that come closer together are one: they are of one job, which looks at a
 * file, checks it, copies it, or of many processes that begin together.  A scan does that
 * too, so it says nothing of whether the page is wanted later (the "correlated reference
 * period" of LRU-K, and why 2Q does not move a page for a hit in its first queue).  Nor do
 * hits in memory count, where a page of the store stays only while it is fetched and written.
 */
#define REUSE_AFTER (10 * NS_PER_S)

/* --- Key */

static char *put(char *to, const char *s)
{
	size_t n = strlen(s) + 1;

	memcpy(to, s, n);
	return to + n;
}

/* "uri\0path\0version\0size" */
static char *make_key(const struct blob_id *id, struct index_key *key, size_t *path,
    size_t *version)
{
	const char *uri = ufs_uri(id->ufs);
	size_t len = strlen(uri) + strlen(id->path) + strlen(id->version) + 3 + sizeof(id->size);
	char *text = malloc(len), *p;
	uint64_t h[2];

	if (text == NULL)
		return NULL;
	p = put(text, uri);
	*path = (size_t)(p - text);
	p = put(p, id->path);
	*version = (size_t)(p - text);
	p = put(p, id->version);
	memcpy(p, &id->size, sizeof(id->size));
	h[0] = hash64(text, len, 0);
	h[1] = hash64(text, len, HASH_SEED2);
	memcpy(key->hash, h, INDEX_HASH);
	key->text = text;
	key->text_len = (uint32_t)len;
	key->size = id->size;
	return text;
}

struct blob *blob_find_hash(struct cache *c, const unsigned char *hash)
{
	struct blob *b;

	HASH_FIND(hh_hash, c->by_hash, hash, INDEX_HASH, b);
	return b;
}

/* --- Life */

static struct blob *blob_new(struct cache *c, const struct blob_id *id, struct index_key *key,
    char *text, size_t path, size_t version)
{
	struct blob *b;

	ALLOC_OBJ(b, BLOB_MAGIC);
	if (b == NULL)
		return NULL;
	b->cache = c;
	b->ufs = id->ufs;
	b->key = *key;
	b->path = text + path;
	b->version = text + version;
	b->size = id->size;
	b->npages = id->size / c->page_size + (id->size % c->page_size != 0);
	b->fd = -1;
	for (unsigned i = 0; i < BLOB_LANES; i++) {
		pool_lane_init(&b->lane[i].lane);
		TAILQ_INIT(&b->lane[i].pages);
		TAILQ_INIT(&b->lane[i].gather);
	}
	TAILQ_INIT(&b->loading);
	TAILQ_INIT(&b->reading);
	HASH_ADD_KEYPTR(hh, c->blobs, b->key.text, b->key.text_len, b);
	if (b->hh.tbl == NULL) {
		FREE_OBJ(b);
		return NULL;
	}
	HASH_ADD(hh_hash, c->by_hash, key.hash, INDEX_HASH, b);
	if (b->hh_hash.tbl == NULL) {
		HASH_DEL(c->blobs, b);
		FREE_OBJ(b);
		return NULL;
	}
	return b;
}

struct blob *cache_blob_get(struct cache *c, const struct blob_id *id)
{
	struct index_key key;
	size_t path, version;
	struct blob *b;
	char *text;

	CHECK_OBJ(c, CACHE_MAGIC);
	text = make_key(id, &key, &path, &version);
	if (text == NULL)
		return NULL;
	HASH_FIND(hh, c->blobs, text, key.text_len, b);
	if (b != NULL) {
		free(text);
	} else {
		b = blob_new(c, id, &key, text, path, version);
		if (b == NULL) {
			free(text);
			return NULL;
		}
	}
	b->users++;
	if (b->load == BLOB_UNLOADED && c->state == STORE_OPEN)
		store_load(b);
	return b;
}

struct blob *cache_blob_ref(struct blob *b)
{
	CHECK_OBJ(b, BLOB_MAGIC);
	b->users++;
	return b;
}

static void blob_free(struct blob *b)
{
	struct cache *c = b->cache;

	assert(b->pages == NULL && TAILQ_EMPTY(&b->loading) && TAILQ_EMPTY(&b->reading));
	blob_forget_disk(b);
	blob_set_fd(b, -1);
	HASH_DEL(c->blobs, b);
	HASH_DELETE(hh_hash, c->by_hash, b);
	free((void *)(uintptr_t)b->key.text);
	FREE_OBJ(b);
}

void blob_hold(struct blob *b)
{
	CHECK_OBJ(b, BLOB_MAGIC);
	b->holds++;
}

void blob_unhold(struct blob **bp)
{
	struct blob *b;

	TAKE_OBJ(b, bp, BLOB_MAGIC);
	assert(b->holds > 0);
	if (--b->holds == 0 && b->users == 0)
		blob_free(b);
}

void cache_blob_put(struct blob **bp)
{
	struct index_op *op;
	struct blob *b;

	TAKE_OBJ(b, bp, BLOB_MAGIC);
	assert(b->users > 0);
	b->holds++;
	if (--b->users == 0 && b->used && b->npresent > 0 && b->cache->state == STORE_OPEN &&
	    b->cache->nops < STORE_OPS_MAX) {
		op = store_op_new(b, b->reused ? INDEX_REUSE : INDEX_TOUCH);
		if (op != NULL)
			store_op_add(b->cache, op);
	}
	blob_unhold(&b);
}

uint64_t cache_blob_size(const struct blob *b)
{
	CHECK_OBJ(b, BLOB_MAGIC);
	return b->size;
}

uint64_t cache_blob_stored(const struct blob *b)
{
	uint64_t n;

	CHECK_OBJ(b, BLOB_MAGIC);
	n = b->npresent * b->cache->page_size;
	if (b->npages > 0 && blob_has(b, b->npages - 1))
		n -= b->cache->page_size - blob_page_len(b, b->npages - 1);
	return n;
}

uint64_t cache_blob_cached(const struct blob *b)
{
	uint64_t n = cache_blob_stored(b);
	const struct cache_page *pg;

	for (pg = b->pages; pg != NULL; pg = pg->hh.next) {
		if (!blob_has(b, pg->no))
			n += pg->fill;
	}
	return n;
}

uint32_t blob_page_len(const struct blob *b, uint64_t no)
{
	uint64_t left = b->size - no * b->cache->page_size;

	return (uint32_t)MIN(left, b->cache->page_size);
}

/* --- On disk */

int blob_can_set(struct blob *b)
{
	if (b->present == NULL)
		b->present = calloc(b->npages / 64 + 1, sizeof(*b->present));
	return b->present == NULL ? -ENOMEM : 0;
}

void blob_set(struct blob *b, uint64_t no)
{
	if (!blob_has(b, no))
		b->npresent++;
	b->present[no / 64] |= UINT64_C(1) << (no % 64);
}

void blob_clear(struct blob *b, uint64_t no)
{
	if (!blob_has(b, no))
		return;
	b->present[no / 64] &= ~(UINT64_C(1) << (no % 64));
	b->npresent--;
}

void blob_forget_disk(struct blob *b)
{
	while (b->sums != NULL)
		sums_remove(b->sums);
	free(b->present);
	b->present = NULL;
	b->npresent = 0;
	b->load = BLOB_UNLOADED;
	b->bypass = b->used = b->reused = false;
}

/* The number of open files is bounded: the longest unused one goes. */
static void files_trim(struct cache *c)
{
	struct blob *b, *next;

	TAILQ_FOREACH_SAFE(b, &c->files, file_link, next) {
		if (c->nfiles <= c->files_limit)
			return;
		if (b->fd_users == 0)
			blob_set_fd(b, -1);
	}
}

void blob_set_fd(struct blob *b, int fd)
{
	struct cache *c = b->cache;

	if (fd >= 0 && b->fd >= 0) {
		if (fd != b->fd)
			close(fd);
		return;
	}
	if (fd >= 0) {
		b->fd = fd;
		TAILQ_INSERT_TAIL(&c->files, b, file_link);
		c->nfiles++;
		files_trim(c);
	} else if (b->fd >= 0) {
		TAILQ_REMOVE(&c->files, b, file_link);
		c->nfiles--;
		close(b->fd);
		b->fd = -1;
	}
}

void blob_use_fd(struct blob *b)
{
	struct cache *c = b->cache;

	if (b->fd < 0 || TAILQ_NEXT(b, file_link) == NULL)
		return;
	TAILQ_REMOVE(&c->files, b, file_link);
	TAILQ_INSERT_TAIL(&c->files, b, file_link);
}

/* --- Sums */

struct sums *sums_new(struct cache *c, uint32_t n)
{
	struct sums *s = calloc(1, sizeof(*s) + n * sizeof(s->crc[0]));

	if (s != NULL) {
		s->refs = 1;
		s->cache = c;
		s->n = n;
	}
	return s;
}

void sums_put(struct sums **sp)
{
	struct sums *s = *sp;

	*sp = NULL;
	if (s != NULL && --s->refs == 0)
		free(s);
}

static uint64_t sums_size(const struct sums *s)
{
	return sizeof(*s) + s->n * sizeof(s->crc[0]);
}

static struct sums_list *sums_home(const struct sums *s)
{
	return s->hot ? &s->cache->hot : &s->cache->sums;
}

static void sums_unlink(struct sums *s)
{
	TAILQ_REMOVE(sums_home(s), s, lru);
	if (s->hot)
		s->cache->hot_bytes -= sums_size(s);
}

static void sums_link(struct sums *s, bool hot)
{
	s->hot = hot;
	TAILQ_INSERT_TAIL(sums_home(s), s, lru);
	if (hot)
		s->cache->hot_bytes += sums_size(s);
}

void sums_remove(struct sums *s)
{
	struct blob *b = s->blob;

	assert(b != NULL);
	HASH_DEL(b->sums, s);
	b->nsums--;
	sums_unlink(s);
	s->cache->sums_bytes -= sums_size(s);
	s->blob = NULL;
	sums_put(&s);
}

struct sums *sums_peek(struct blob *b, uint64_t no)
{
	struct sums *s;

	HASH_FIND(hh, b->sums, &no, sizeof(no), s);
	return s;
}

struct sums *sums_find(struct blob *b, uint64_t no)
{
	struct sums *s = sums_peek(b, no), *old;
	struct cache *c = b->cache;
	uint64_t now = loop_now(c->env.loop);

	if (s == NULL)
		return NULL;
	b->used = true;
	if (s->ahead)
		COUNT(c->env.loop, CACHE_AHEAD_USED_BYTES, blob_page_len(b, no));
	s->ahead = false;
	/* A reader comes to a page several times on its way through: that is one use. */
	if (s->when == 0 || now - s->when > REUSE_AFTER) {
		s->when = MAX(now, 1);
		b->reused = true;
		sums_unlink(s);
		sums_link(s, true);
		while (c->hot_bytes > c->sums_limit / 2 && (old = TAILQ_FIRST(&c->hot)) != s) {
			sums_unlink(old);
			sums_link(old, false);
		}
	} else if (TAILQ_NEXT(s, lru) != NULL) {
		TAILQ_REMOVE(sums_home(s), s, lru);
		TAILQ_INSERT_TAIL(sums_home(s), s, lru);
	}
	return s;
}

static void sums_trim(struct cache *c, const struct sums *but)
{
	while (c->sums_bytes > c->sums_limit) {
		struct sums *s = TAILQ_FIRST(&c->sums);

		if (s == NULL || s == but)
			s = TAILQ_FIRST(&c->hot);
		if (s == NULL || s == but)
			return;
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		sums_remove(s);
	}
}

void sums_insert(struct blob *b, uint64_t no, struct sums *s)
{
	struct cache *c = b->cache;
	struct sums *old = sums_peek(b, no);

	if (old != NULL)
		sums_remove(old);
	s->no = no;
	HASH_ADD(hh, b->sums, no, sizeof(s->no), s);
	if (s->hh.tbl == NULL)
		return; /* no memory: read from the index when needed */
	s->refs++;
	s->blob = b;
	b->nsums++;
	sums_link(s, false);
	c->sums_bytes += sums_size(s);
	sums_trim(c, s);
}

int sums_rows_add(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc)
{
	struct sums_rows *rows = arg;
	struct sums *s;

	if (page >= rows->npages || rows->n == SUMS_ROWS)
		return 0;
	s = sums_new(rows->cache, ncrc);
	if (s == NULL)
		return -ENOMEM;
	s->no = page;
	memcpy(s->crc, crc, ncrc * sizeof(*crc));
	rows->row[rows->n++] = s;
	return 0;
}

void sums_rows_take(struct sums_rows **rowsp, struct blob *b)
{
	struct sums_rows *rows = *rowsp;

	*rowsp = NULL;
	if (rows == NULL)
		return;
	for (unsigned i = 0; i < rows->n; i++) {
		if (blob_has(b, rows->row[i]->no) && sums_peek(b, rows->row[i]->no) == NULL)
			sums_insert(b, rows->row[i]->no, rows->row[i]);
		sums_put(&rows->row[i]);
	}
	free(rows);
}
