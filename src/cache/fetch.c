/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <string.h>

#include "cache/cache_priv.h"

static void fetch_free(struct fetch *f)
{
	struct cache *c = f->cache;
	struct blob *b = f->blob;

	if (f->stream != NULL)
		f->stream->fetches--;
	TAILQ_REMOVE(&c->fetches, f, link);
	c->nfetches--;
	FREE_OBJ(f);
	blob_unhold(&b);
	read_memory_freed(c);
}

/* The pages that are not filled yet will not be. */
static void fetch_fail(struct fetch *f, int err)
{
	for (; f->cur < f->n; f->cur++)
		page_fail(f->page[f->cur], err);
	fetch_free(f);
}

static void fetch_abort(struct fetch *f)
{
	ufs_abort(&f->rq.req);
	fetch_fail(f, -ECANCELED);
}

static void fetch_data(struct ufs_read *rq, const void *data, size_t len)
{
	struct fetch *f = container_of(rq, struct fetch, rq);
	const unsigned char *from = data;

	CHECK_OBJ(f, FETCH_MAGIC);
	COUNT(f->cache->env.loop, CACHE_FETCH_BYTES, len);
	while (len > 0) {
		struct cache_page *pg;
		size_t n;

		if (f->cur == f->n) {
			log_error("storage sent more than was asked for: %s", f->blob->path);
			return;
		}
		pg = f->page[f->cur];
		n = MIN(len, (size_t)(pg->len - pg->fill));
		memcpy(pg->buf->mem + pg->fill, from, n);
		pg->fill += (uint32_t)n;
		from += n;
		len -= n;
		page_wake(pg);
		if (pg->fill == pg->len) {
			f->cur++;
			pg->fetch = NULL;
			disk_write(pg);
			page_settle(pg);
		}
	}
}

static void fetch_done(struct ufs_req *req, int err)
{
	struct fetch *f = container_of(req, struct fetch, rq.req);

	CHECK_OBJ(f, FETCH_MAGIC);
	if (err == 0 && f->cur < f->n)
		err = -EIO;
	/* It was there when it was opened: this version is gone. */
	if (err == -ENOENT)
		err = -ESTALE;
	fetch_fail(f, err);
}

static void start_one(struct blob *b, struct cache_page **pages, unsigned n, struct stream *s,
    bool ahead)
{
	struct cache *c = b->cache;
	struct fetch *f = calloc(1, sizeof(*f) + n * sizeof(f->page[0]));

	if (f == NULL) {
		for (unsigned i = 0; i < n; i++)
			page_fail(pages[i], -ENOMEM);
		return;
	}
	f->magic = FETCH_MAGIC;
	f->cache = c;
	f->blob = b;
	f->n = n;
	f->ahead = ahead;
	f->rq.path = b->path;
	f->rq.version = b->version;
	f->rq.off = pages[0]->no * c->page_size;
	for (unsigned i = 0; i < n; i++) {
		f->page[i] = pages[i];
		f->rq.len += pages[i]->len;
		pages[i]->fetch = f;
	}
	f->rq.on_data = fetch_data;
	f->stream = s;
	if (s != NULL)
		s->fetches++;
	blob_hold(b);
	TAILQ_INSERT_TAIL(&c->fetches, f, link);
	c->nfetches++;
	ufs_read(b->ufs, &f->rq, fetch_done);
}

void fetch_start(struct blob *b, struct cache_page **pages, unsigned n, struct stream *s,
    bool ahead)
{
	struct cache *c = b->cache;
	uint64_t part = MAX(c->env.cfg->fetch_part_size / c->page_size, 1);
	unsigned from = 0;

	for (unsigned i = 1; i <= n; i++) {
		if (i < n && pages[i]->no == pages[i - 1]->no + 1 && i - from < part)
			continue;
		start_one(b, pages + from, i - from, s, ahead);
		from = i;
	}
}

static bool wanted(const struct fetch *f)
{
	for (unsigned i = f->cur; i < f->n; i++) {
		if (f->page[i]->pins > 0)
			return true;
	}
	return false;
}

void fetch_left(struct fetch *f)
{
	CHECK_OBJ(f, FETCH_MAGIC);
	if (f->served || wanted(f))
		return;
	if (f->stream != NULL)
		f->ahead = true;
	else
		fetch_abort(f);
}

void fetch_stream_end(struct cache *c, struct stream *s)
{
	struct fetch *f, *next;

	if (s->fetches == 0)
		return;
	TAILQ_FOREACH_SAFE(f, &c->fetches, link, next) {
		if (f->stream != s)
			continue;
		f->stream = NULL;
		s->fetches--;
		if (f->ahead && !wanted(f))
			fetch_abort(f);
	}
}

void fetch_abort_all(struct cache *c)
{
	while (!TAILQ_EMPTY(&c->fetches))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		fetch_abort(TAILQ_FIRST(&c->fetches));
}
