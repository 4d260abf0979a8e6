/* SPDX-License-Identifier: BSD-2-Clause */
/* A loop, a pool, storage and a cache over a directory of its own. */
#ifndef T_CACHE_RIG_H
#define T_CACHE_RIG_H

#include <stdbool.h>

#include "base/options.h"
#include "cache/cache_priv.h"
#include "fake_ufs.h"
#include "../../lib/test_clock.h"

#define RIG_PAGE (64 * 1024)

struct rig {
	struct test_clock clock;
	struct loop *loop;
	struct pool *pool;
	struct config *cfg;
	struct epoch epoch;
	struct ufs *ufs;
	struct cache *cache;
	char dir[64];
	bool hold; /* storage answers only when the test steps it */
};

/* disk: with a page store in a fresh directory; else memory only. */
void rig_init(struct rig *g, bool disk);
void rig_set(struct rig *g, const char *name, const char *value);
void rig_make(struct rig *g); /* without its index */
void rig_start(struct rig *g); /* makes the cache and opens its index */
void rig_stop(struct rig *g);  /* closes and frees it; the directory stays */
void rig_fini(struct rig *g);
void rig_close(struct rig *g, bool sync);
/* Turns until *what is true.  Fails the test when nothing can happen any more. */
bool rig_until(struct rig *g, bool (*what)(void *arg), void *arg);
/* Turns until nothing happens: no request, no job. */
void rig_settle(struct rig *g);
struct blob *rig_blob(struct rig *g, const char *name, const char *version, uint64_t size);

/* A read and what came of it. */
struct rig_read {
	struct cache_read r;
	bool done, at_once;
	int err;
};
/* Starts; answered at once or later. */
void rig_read_start(struct rig_read *rr, struct blob *b, struct stream *s, uint64_t off,
    size_t len);
/* Are these the right bytes? */
bool rig_read_right(const struct rig_read *rr);
void rig_read_end(struct rig_read *rr);
/* Reads to the end; 0 with right bytes, -EBADMSG with wrong ones, or the error. */
int rig_read(struct rig *g, struct blob *b, struct stream *s, uint64_t off, size_t len);
bool rig_read_done(void *rr);
/* Space the files below DIR/blobs take. */
uint64_t rig_disk_bytes(const struct rig *g);
/* Checksums are in the index only. */
void rig_forget_sums(struct rig *g);
uint64_t rig_counter(const struct rig *g, enum counter_id id);
/* Changes a bit of the file at this place. */
void rig_flip(const char *path, off_t at);
/* The only file below DIR/blobs. */
bool rig_find_file(const struct rig *g, char *path, size_t len);

#endif
