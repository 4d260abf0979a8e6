/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which bytes are which part.
 *
 * The storage takes so many parts and no more, and an object of 5 TiB.  A size that
 * suits small files would not get far, one that suits the largest would make every
 * file wait for a part of a gigabyte.  So parts begin with the configured size and grow
 * with the number, late and as little as possible, because a part lies in memory while
 * it is sent.
 */
#include "cache/upload_priv.h"

#define SIZE_MAX_OBJECT (UINT64_C(5) << 40)

static const struct stage {
	unsigned parts, times; /* the unit; 0: so that all of the object is reached */
} stages[] = {
	{2000, 1},
	{1000, 4},
	{2000, 8},
	{5000, 0},
};

static uint64_t stage_len(const struct stage *sg, uint64_t unit)
{
	uint64_t most = (SIZE_MAX_OBJECT / sg->parts / MIB + 1) * MIB;
	uint64_t len = sg->times != 0 ? unit * sg->times : MAX(unit * 8, most);

	return MIN(len, UFS_PART_MAX);
}

void upload_part_range(uint64_t unit, unsigned number, uint64_t *off, uint64_t *len)
{
	uint64_t at = 0;
	unsigned n = number - 1;

	assert(number >= 1 && number <= UFS_PARTS_MAX);
	for (const struct stage *sg = stages;; sg++) {
		*len = stage_len(sg, unit);
		if (n < sg->parts)
			break;
		at += *len * sg->parts;
		n -= sg->parts;
	}
	*off = at + n * *len;
}

unsigned plan_part_at(uint64_t unit, uint64_t off)
{
	unsigned before = 1;

	for (unsigned i = 0; i < ARRAY_LEN(stages); i++) {
		uint64_t len = stage_len(&stages[i], unit), all = len * stages[i].parts;

		if (off < all)
			return before + (unsigned)(off / len);
		off -= all;
		before += stages[i].parts;
	}
	return before;
}

uint64_t plan_part_len(uint64_t unit, unsigned number, uint64_t size, uint64_t *off)
{
	uint64_t len;

	upload_part_range(unit, number, off, &len);
	return *off >= size ? 0 : MIN(len, size - *off);
}

/* Two at least shall fit into memory together, if the storage takes such small ones. */
uint64_t plan_unit(const struct uploads *us)
{
	uint64_t unit = MIN(us->env.cfg->write_part_size, us->budget / 2);

	return MAX(unit & ~UINT64_C(4095), us->part_min);
}

/* Is all of it as in the base, and has any of it to be fetched first? */
static void look(const struct upload *up, struct up_pick *pk)
{
	uint64_t pos = pk->off, to = pk->off + pk->len;
	uint64_t size = staged_size(up->sf); /* cut off maybe: upload_wrote() will tell */
	bool same = true;

	pk->fill = false;
	while (pos < MIN(to, size) && (same || !pk->fill)) {
		enum staged_kind kind = staged_map(up->sf, pos, &pos);

		pk->fill |= kind == STAGED_BASE;
		same &= kind == STAGED_BASE || kind == STAGED_CLEAN;
	}
	pk->copy = same && pos >= to && up->base != NULL && !up->no_copy &&
		   !up->sums;
}

static bool next_part(struct upload *up, struct up_pick *pk)
{
	uint64_t size = up->run->size;

	for (; up->next <= UFS_PARTS_MAX; up->next++) {
		const struct up_part *p = up->next <= up->nparts ? &up->part[up->next - 1] : NULL;

		pk->len = plan_part_len(up->unit, up->next, size, &pk->off);
		if (pk->len == 0)
			break;
		if (p != NULL && (p->send != NULL || p->len == pk->len))
			continue;
		pk->number = up->next;
		look(up, pk);
		if (pk->len < up->us->part_min && pk->off + pk->len < size)
			pk->copy = false;
		return true;
	}
	return false;
}

bool plan_next(struct upload *up, struct up_pick *pk)
{
	switch (up->state) {
	case RUN_NONE:
		return ahead_next(up, pk);
	case RUN_PUT:
		if (!TAILQ_EMPTY(&up->sends))
			return false;
		*pk = (struct up_pick){ .len = up->run->size };
		look(up, pk);
		pk->copy = false;
		return true;
	case RUN_PARTS:
		return up->id != NULL && next_part(up, pk);
	default:
		return false;
	}
}
