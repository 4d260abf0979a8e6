/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/arena.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/obj.h"
#include "base/units.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

/* The system takes a millisecond to give a MiB: what a pause between two files
 * leaves idle stays for the next. */
#define TRIM_PERIOD (5 * NS_PER_S)

/* Free buffers that stay: one for the next small read. */
static const unsigned keep[ARENA_KINDS] = {[ARENA_SMALL] = 1};

struct arena {
	uint32_t magic;
#define ARENA_MAGIC 0xca0a3e00u
	struct loop *loop;
	uint64_t limit, resident, used;
	size_t size[ARENA_KINDS];
	SLIST_HEAD(, arena_buf) free[ARENA_KINDS]; /* last in, first out: warm in the CPU */
	unsigned nfree[ARENA_KINDS];
	unsigned spare[ARENA_KINDS]; /* never needed since the last trim */
	struct timer trim;
	void (*freed)(void *arg);
	void *arg;
};

static void unmap_one(struct arena *a, enum arena_kind k)
{
	struct arena_buf *buf = SLIST_FIRST(&a->free[k]);

	SLIST_REMOVE_HEAD(&a->free[k], link);
	a->nfree[k]--;
	a->spare[k] = MIN(a->spare[k], a->nfree[k]);
	a->resident -= a->size[k];
	munmap(buf->mem, a->size[k]);
	free(buf);
}

static void trim_arm(struct arena *a)
{
	if (timer_armed(&a->trim))
		return;
	for (unsigned k = 0; k < ARENA_KINDS; k++) {
		if (a->nfree[k] > keep[k]) {
			timer_arm(&a->trim, TRIM_PERIOD);
			return;
		}
	}
}

static void trim(struct timer *t)
{
	struct arena *a = container_of(t, struct arena, trim);

	CHECK_OBJ(a, ARENA_MAGIC);
	for (unsigned k = 0; k < ARENA_KINDS; k++) {
		for (unsigned n = a->spare[k]; n > 0 && a->nfree[k] > keep[k]; n--)
			unmap_one(a, k);
		a->spare[k] = a->nfree[k];
	}
	trim_arm(a);
}

int arena_new(struct arena **out, struct loop *lp, uint64_t limit, size_t page_size,
    size_t io_size, void (*freed)(void *arg), void *arg)
{
	struct arena *a;

	ALLOC_OBJ(a, ARENA_MAGIC);
	if (a == NULL)
		return -ENOMEM;
	a->loop = lp;
	a->limit = limit;
	a->size[ARENA_SMALL] = ARENA_SMALL_SIZE;
	a->size[ARENA_PAGE] = page_size;
	a->size[ARENA_IO] = io_size;
	a->freed = freed;
	a->arg = arg;
	for (unsigned k = 0; k < ARENA_KINDS; k++)
		SLIST_INIT(&a->free[k]);
	timer_init(&a->trim, lp, trim);
	*out = a;
	return 0;
}

void arena_free(struct arena **ap)
{
	struct arena *a;

	if (*ap == NULL)
		return;
	TAKE_OBJ(a, ap, ARENA_MAGIC);
	assert(a->used == 0);
	timer_cancel(&a->trim);
	for (unsigned k = 0; k < ARENA_KINDS; k++) {
		while (a->nfree[k] > 0)
			unmap_one(a, k);
	}
	FREE_OBJ(a);
}

/* Makes room for one buffer of kind k out of free ones of the other kind. */
static bool make_room(struct arena *a, enum arena_kind k, const unsigned need[ARENA_KINDS])
{
	while (a->resident + a->size[k] > a->limit) {
		unsigned other;

		for (other = 0; other < ARENA_KINDS; other++) {
			if (other != (unsigned)k && a->nfree[other] > need[other])
				break;
		}
		if (other == ARENA_KINDS)
			return false;
		unmap_one(a, other);
	}
	return true;
}

static bool grow(struct arena *a, enum arena_kind k, const unsigned need[ARENA_KINDS])
{
	struct arena_buf *buf;

	if (!make_room(a, k, need))
		return false;
	buf = malloc(sizeof(*buf));
	if (buf == NULL)
		return false;
	buf->kind = k;
	buf->mem = mmap(NULL, a->size[k], PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (buf->mem == MAP_FAILED) {
		free(buf);
		return false;
	}
	/* Refused beyond RLIMIT_MEMLOCK; then only swap could take it away. */
	(void)mlock(buf->mem, a->size[k]);
	a->resident += a->size[k];
	SLIST_INSERT_HEAD(&a->free[k], buf, link);
	a->nfree[k]++;
	return true;
}

bool arena_reserve(struct arena *a, const unsigned need[ARENA_KINDS])
{
	CHECK_OBJ(a, ARENA_MAGIC);
	for (unsigned k = 0; k < ARENA_KINDS; k++) {
		while (a->nfree[k] < need[k]) {
			if (!grow(a, k, need)) {
				trim_arm(a);
				return false;
			}
		}
	}
	return true;
}

struct arena_buf *arena_get(struct arena *a, enum arena_kind kind)
{
	unsigned need[ARENA_KINDS] = {0};
	struct arena_buf *buf;

	CHECK_OBJ(a, ARENA_MAGIC);
	need[kind] = 1;
	if (a->nfree[kind] == 0 && !arena_reserve(a, need))
		return NULL;
	buf = SLIST_FIRST(&a->free[kind]);
	SLIST_REMOVE_HEAD(&a->free[kind], link);
	a->nfree[kind]--;
	a->spare[kind] = MIN(a->spare[kind], a->nfree[kind]);
	a->used += a->size[kind];
	GAUGE_SET(a->loop, MEMORY_USED_BYTES, a->used);
	return buf;
}

void arena_put(struct arena *a, struct arena_buf **bufp)
{
	struct arena_buf *buf = *bufp;

	CHECK_OBJ(a, ARENA_MAGIC);
	*bufp = NULL;
	if (buf == NULL)
		return;
	a->used -= a->size[buf->kind];
	GAUGE_SET(a->loop, MEMORY_USED_BYTES, a->used);
	SLIST_INSERT_HEAD(&a->free[buf->kind], buf, link);
	a->nfree[buf->kind]++;
	trim_arm(a);
	a->freed(a->arg);
}

uint64_t arena_used(const struct arena *a)
{
	return a->used;
}

uint64_t arena_resident(const struct arena *a)
{
	return a->resident;
}

uint64_t arena_limit(const struct arena *a)
{
	return a->limit;
}
