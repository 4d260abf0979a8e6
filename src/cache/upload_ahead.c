/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is written, and sending while a file is written.
 *
 * Worth sending early is only what will not be written again.  A writer who goes
 * forward, more or less, leaves complete parts behind; they are sent when he is a part
 * ahead of them.  Jumping elsewhere begins a new stretch.  Who comes back to parts that
 * were sent is not helped by this, and it ends until the next upload that went well.
 */
#include "cache/upload_priv.h"

#define WASTED_MAX 8

/* The parts of [off, end) are not what the storage has any more. */
static void touch(struct upload *up, uint64_t off, uint64_t end)
{
	unsigned last = MIN(plan_part_at(up->unit, end - 1), up->nparts);

	for (unsigned n = plan_part_at(up->unit, off); n <= last; n++) {
		struct up_part *p = &up->part[n - 1];

		if (up->run == NULL && (p->send != NULL || p->len != 0))
			up->ahead_off |= ++up->wasted >= WASTED_MAX;
		if (p->send != NULL && up->run != NULL)
			p->send->touched = true;
		else if (p->send != NULL)
			send_abort(p->send);
		if (p->len == 0)
			continue;
		if (!p->stale)
			rows_del_part(up, n);
		p->stale = up->run != NULL;
		if (p->stale)
			continue;
		up->sent -= p->len;
		p->len = 0;
	}
}

static void begin_stretch(struct upload *up, uint64_t from, uint64_t to)
{
	up->seq_from = from;
	up->seq_to = to;
	up->ahead_next = 0;
}

static void note(struct upload *up, uint64_t off, uint64_t end)
{
	uint64_t unit = up->unit != 0 ? up->unit : plan_unit(up->us);
	/* The kernel writes its pages back in about this order. */
	uint64_t slack = MIN(unit / 2, 4 * MIB);

	if (end + slack >= up->seq_to && off <= up->seq_to + slack) {
		up->seq_from = MIN(up->seq_from, off);
		up->seq_to = MAX(up->seq_to, end);
		return;
	}
	begin_stretch(up, off, end);
}

void ahead_reset(struct upload *up)
{
	begin_stretch(up, up->seq_to, up->seq_to);
	up->wasted = 0;
	up->ahead_off = false;
}

void ahead_failed(struct upload *up)
{
	sends_abort(up);
	up->ahead_off = true;
}

void upload_wrote(struct upload *up, uint64_t off, uint64_t len, bool ahead)
{
	bool cut = len == UINT64_MAX;
	uint64_t end = len > UINT64_MAX - off ? UINT64_MAX : off + len;

	CHECK_OBJ(up, UPLOAD_MAGIC);
	if (len == 0)
		return;
	(void)rows_mend(up);
	if (up->unit != 0)
		touch(up, off, end);
	if (cut && up->run != NULL)
		run_cut(up, off);
	if (!cut)
		note(up, off, end);
	else if (off < up->seq_to)
		begin_stretch(up, off, off);
	up->ahead = ahead && up->us->env.cfg->write_ahead_enabled;
	if (up->ahead && !up->ahead_off)
		upload_kick(up);
}

void upload_pause(struct upload *up)
{
	CHECK_OBJ(up, UPLOAD_MAGIC);
	up->ahead = false;
	if (up->run == NULL)
		sends_abort(up);
}

/* All of it written, some of it not in the storage? */
static bool complete(const struct upload *up, uint64_t off, uint64_t len)
{
	uint64_t pos = off, size = staged_size(up->sf);
	bool dirty = false;

	if (off > size || len > size - off)
		return false;
	while (pos < off + len) {
		enum staged_kind kind = staged_map(up->sf, pos, &pos);

		if (kind == STAGED_BASE || kind == STAGED_HOLE)
			return false;
		dirty |= kind != STAGED_CLEAN;
	}
	return dirty;
}

bool ahead_next(struct upload *up, struct up_pick *pk)
{
	uint64_t unit = up->unit != 0 ? up->unit : plan_unit(up->us);
	uint64_t off, len;

	if (!up->ahead || up->ahead_off || up->ufs == NULL || up->us->db == NULL)
		return false;
	if (up->ahead_next == 0)
		up->ahead_next = plan_part_at(unit, up->seq_from);
	for (; up->ahead_next < UFS_PARTS_MAX; up->ahead_next++) {
		const struct up_part *p =
		    up->ahead_next <= up->nparts ? &up->part[up->ahead_next - 1] : NULL;

		upload_part_range(unit, up->ahead_next + 1, &off, &len);
		if (off + len > up->seq_to)
			return false;
		upload_part_range(unit, up->ahead_next, &off, &len);
		if (p != NULL && (p->send != NULL || p->len == len))
			continue;
		if (!complete(up, off, len))
			continue;
		if (up->id != NULL) {
			*pk = (struct up_pick){ .number = up->ahead_next, .off = off, .len = len };
			return true;
		}
		if (up->begin == NULL && multi_begin(up) != 0)
			ahead_failed(up);
		return false;
	}
	return false;
}
