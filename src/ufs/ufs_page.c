/* SPDX-License-Identifier: BSD-2-Clause */
#include "ufs/ufs_page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"

#define BLOCK_BYTES 32768u

/* Names are packed into blocks: a page is a handful of allocations, and the
 * entries' pointers stay good when the entry array grows. */
struct ufs_page_block {
	struct ufs_page_block *next;
	size_t used;
	char mem[BLOCK_BYTES];
};

int ufs_key_cmp(const char *a, size_t alen, enum ufs_kind akind, const char *b, size_t blen,
    enum ufs_kind bkind)
{
	size_t n = MIN(alen, blen);
	int c = memcmp(a, b, n);
	int ca, cb;

	if (c != 0)
		return c;
	ca = alen > n ? (unsigned char)a[n] : (akind == UFS_DIR ? '/' : -1);
	cb = blen > n ? (unsigned char)b[n] : (bkind == UFS_DIR ? '/' : -1);
	return (ca > cb) - (ca < cb);
}

static char *page_name(struct ufs_page *pg, const char *name, size_t len)
{
	struct ufs_page_block *b = pg->blocks;
	char *p;

	if (b == NULL || BLOCK_BYTES - b->used < len + 1) {
		if (len + 1 > BLOCK_BYTES)
			return NULL;
		b = malloc(sizeof(*b));
		if (b == NULL)
			return NULL;
		b->next = pg->blocks;
		b->used = 0;
		pg->blocks = b;
	}
	p = b->mem + b->used;
	memcpy(p, name, len);
	p[len] = '\0';
	b->used += len + 1;
	return p;
}

int ufs_page_add(struct ufs_page *pg, const char *name, size_t len, const struct ufs_attr *attr)
{
	struct ufs_entry *e;

	if (pg->count == pg->room) {
		size_t room = pg->room == 0 ? 64 : pg->room * 2;

		e = reallocarray(pg->entries, room, sizeof(*e));
		if (e == NULL)
			return -ENOMEM;
		pg->entries = e;
		pg->room = room;
	}
	e = &pg->entries[pg->count];
	memset(e, 0, sizeof(*e));
	e->name = page_name(pg, name, len);
	if (e->name == NULL)
		return -ENOMEM;
	e->name_len = len;
	if (attr != NULL)
		e->attr = *attr;
	pg->count++;
	return 0;
}

static int entry_cmp(const void *va, const void *vb)
{
	const struct ufs_entry *a = va, *b = vb;

	return ufs_key_cmp(a->name, a->name_len, a->attr.kind, b->name, b->name_len, b->attr.kind);
}

void ufs_page_sort(struct ufs_page *pg)
{
	size_t out = 0;

	if (pg->count < 2)
		return;
	qsort(pg->entries, pg->count, sizeof(*pg->entries), entry_cmp);
	for (size_t i = 1; i < pg->count; i++)
		if (entry_cmp(&pg->entries[out], &pg->entries[i]) != 0)
			pg->entries[++out] = pg->entries[i];
	pg->count = out + 1;
}

void ufs_page_remove(struct ufs_page *pg, size_t i)
{
	memmove(&pg->entries[i], &pg->entries[i + 1], (pg->count - i - 1) * sizeof(*pg->entries));
	pg->count--;
}

const struct ufs_entry *ufs_page_find(const struct ufs_page *pg, const char *name, size_t len,
    enum ufs_kind kind)
{
	struct ufs_entry want = { .name = name, .name_len = len, .attr = { .kind = kind } };

	if (pg->count == 0)
		return NULL;
	return bsearch(&want, pg->entries, pg->count, sizeof(want), entry_cmp);
}

static void blocks_free(struct ufs_page_block *b)
{
	while (b != NULL) {
		struct ufs_page_block *next = b->next;

		free(b);
		b = next;
	}
}

void ufs_page_clear(struct ufs_page *pg)
{
	free(pg->entries);
	blocks_free(pg->blocks);
	memset(pg, 0, sizeof(*pg));
}

void ufs_page_give(struct ufs_page *pg, struct ufs_list *rq)
{
	rq->entries = pg->entries;
	rq->count = pg->count;
	rq->arena = pg->blocks;
	memset(pg, 0, sizeof(*pg));
}

void ufs_page_free(struct ufs_list *rq)
{
	free(rq->entries);
	blocks_free(rq->arena);
	rq->entries = NULL;
	rq->count = 0;
	rq->arena = NULL;
	rq->more = false;
	rq->exists = false;
}
