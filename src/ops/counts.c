/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/errtext.h"
#include "base/obj.h"
#include "ops/counts.h"

#define COUNTS_MAGIC 0xc0047501u
#define COUNTS_FILE_MAGIC UINT64_C(0x62746e636f756e74)
#define COUNTS_FORMAT 1u
#define COUNTS_GROW 8192u /* slots at a time, at least */

/* A free slot has this bit and, below it, the number of the next free one (0:
 * none).  Slot 0 is never given out; it holds the note. */
#define COUNTS_FREE (UINT64_C(1) << 63)

struct counts_head {
	uint64_t magic;
	uint32_t format;
	uint32_t nslots; /* slots that the file has room for */
	uint32_t used;   /* slots from here on were never given out */
	uint32_t free;   /* first of the chain of given-back slots */
	uint64_t slot[];
};

struct counts {
	uint32_t magic;
	int fd;
	struct counts_head *head;
	size_t len;
};

static size_t counts_len(uint32_t nslots)
{
	return sizeof(struct counts_head) + (size_t)nslots * sizeof(uint64_t);
}

static int counts_map(struct counts *c, size_t len)
{
	void *p;

	if (c->head == NULL)
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	else
		p = mremap(c->head, c->len, len, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		return errtext_errno();
	c->head = p;
	c->len = len;
	return 0;
}

/* The memory is allocated here, so that a full machine is an error now and not a
 * SIGBUS at a later store. */
static int counts_grow(struct counts *c, uint32_t nslots)
{
	size_t len = counts_len(nslots);
	int err;

	if (fallocate(c->fd, 0, 0, (off_t)len) < 0)
		return errno == ENOSPC ? -ENOSPC : -ENOMEM;
	err = counts_map(c, len);
	if (err == 0)
		c->head->nslots = nslots;
	return err;
}

int counts_create(struct counts **out)
{
	struct counts *c;
	int err;

	*out = NULL;
	ALLOC_OBJ(c, COUNTS_MAGIC);
	if (c == NULL)
		return -ENOMEM;
	c->fd = memfd_create("batonfs-counts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (c->fd < 0) {
		err = -errno;
		goto fail;
	}
	err = counts_grow(c, COUNTS_GROW);
	if (err != 0)
		goto fail;
	if (fcntl(c->fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0) {
		err = -errno;
		goto fail;
	}
	c->head->magic = COUNTS_FILE_MAGIC;
	c->head->format = COUNTS_FORMAT;
	c->head->used = 1;
	*out = c;
	return 0;
fail:
	counts_close(&c);
	return err;
}

static bool counts_head_ok(const struct counts *c)
{
	const struct counts_head *h = c->head;

	return h->magic == COUNTS_FILE_MAGIC && h->format == COUNTS_FORMAT && h->used >= 1 &&
	       h->used <= h->nslots && h->free < h->used && c->len >= counts_len(h->nslots);
}

int counts_adopt(struct counts **out, int fd)
{
	struct counts *c;
	struct stat st;
	int err;

	*out = NULL;
	ALLOC_OBJ(c, COUNTS_MAGIC);
	if (c == NULL) {
		close(fd);
		return -ENOMEM;
	}
	c->fd = fd;
	if (fstat(fd, &st) < 0) {
		err = -errno;
		goto fail;
	}
	err = -EPROTO;
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size < sizeof(struct counts_head))
		goto fail;
	err = counts_map(c, (size_t)st.st_size);
	if (err != 0)
		goto fail;
	err = -EPROTO;
	if (!counts_head_ok(c))
		goto fail;
	*out = c;
	return 0;
fail:
	counts_close(&c);
	return err;
}

void counts_close(struct counts **cp)
{
	struct counts *c;

	if (*cp == NULL)
		return;
	TAKE_OBJ(c, cp, COUNTS_MAGIC);
	if (c->head != NULL)
		munmap(c->head, c->len);
	if (c->fd >= 0)
		close(c->fd);
	FREE_OBJ(c);
}

int counts_fd(const struct counts *c)
{
	return c->fd;
}

static bool counts_live(const struct counts *c, uint32_t slot)
{
	return slot != 0 && slot < c->head->used && (c->head->slot[slot] & COUNTS_FREE) == 0;
}

int counts_alloc(struct counts *c, uint32_t *slot)
{
	struct counts_head *h = c->head;
	uint32_t s = h->free, grown;
	int err;

	if (s != 0 && s < h->used && (h->slot[s] & COUNTS_FREE) != 0) {
		h->free = (uint32_t)h->slot[s] < h->used ? (uint32_t)h->slot[s] : 0;
		h->slot[s] = 0;
		*slot = s;
		return 0;
	}
	if (h->used == h->nslots) {
		if (h->nslots > UINT32_MAX / 2)
			return -ENOSPC;
		grown = h->nslots + MAX(h->nslots / 4, COUNTS_GROW);
		err = counts_grow(c, grown);
		if (err != 0)
			return err;
		h = c->head;
	}
	*slot = h->used++;
	h->slot[*slot] = 0;
	return 0;
}

void counts_free_slot(struct counts *c, uint32_t slot)
{
	if (!counts_live(c, slot))
		return;
	c->head->slot[slot] = COUNTS_FREE | c->head->free;
	c->head->free = slot;
}

uint64_t counts_get(const struct counts *c, uint32_t slot)
{
	return counts_live(c, slot) ? c->head->slot[slot] : 0;
}

void counts_add(struct counts *c, uint32_t slot, uint64_t n)
{
	if (counts_live(c, slot))
		c->head->slot[slot] += n;
}

uint64_t counts_sub(struct counts *c, uint32_t slot, uint64_t n)
{
	if (!counts_live(c, slot))
		return 0;
	c->head->slot[slot] -= MIN(n, c->head->slot[slot]);
	return c->head->slot[slot];
}

void counts_note(struct counts *c, uint64_t word)
{
	/* The order in memory is that in which a SIGKILL finds it. */
	__atomic_store_n(&c->head->slot[0], word, __ATOMIC_SEQ_CST);
}

uint64_t counts_noted(const struct counts *c)
{
	return __atomic_load_n(&c->head->slot[0], __ATOMIC_SEQ_CST);
}
