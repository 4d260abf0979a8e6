/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory of what is on its way to the storage: a share of memory.limit.
 *
 * A body that is larger than the share (parts beyond some 170 GiB of a file) counts as
 * half of it, one such at a time, so that other files go on beside it.
 */
#include <string.h>
#include <sys/mman.h>

#include "cache/upload_priv.h"

/* Smaller ones come from malloc() and are not kept. */
#define BODY_KEEP (256 * KIB)
#define BODY_ROUND (64 * KIB)
#define IDLE_NS (5 * NS_PER_S)

static uint64_t charge_of(const struct uploads *us, uint64_t len)
{
	return len <= us->budget ? len : us->budget / 2;
}

bool body_fits(const struct uploads *us, uint64_t len)
{
	if (len > us->budget && us->nbig > 0)
		return false;
	return charge_of(us, len) <= us->budget - us->charged;
}

void body_charge(struct up_send *s)
{
	struct uploads *us = s->us;

	s->charge = charge_of(us, s->len);
	s->big = s->len > us->budget;
	us->charged += s->charge;
	us->nbig += s->big;
}

void body_uncharge(struct up_send *s)
{
	if (s->us == NULL)
		return;
	s->us->charged -= s->charge;
	s->us->nbig -= s->big;
	s->charge = 0;
	s->big = false;
}

static void unmap(struct pool_job *job)
{
	struct up_body *b = container_of(job, struct up_body, job);

	(void)munmap(b->mem, b->room);
}

static void unmapped(struct pool_job *job)
{
	free(container_of(job, struct up_body, job));
}

/* Many pages take a while. */
static void body_free(struct uploads *us, struct up_body *b, bool at_once)
{
	if (b->room >= BODY_KEEP && !at_once) {
		pool_submit(us->env.pool, NULL, &b->job, unmap, unmapped);
		return;
	}
	if (b->room < BODY_KEEP)
		free(b->mem);
	else
		(void)munmap(b->mem, b->room);
	free(b);
}

void body_idle_free(struct uploads *us, bool at_once)
{
	struct up_body *b;

	while ((b = SLIST_FIRST(&us->idle)) != NULL) {
		SLIST_REMOVE_HEAD(&us->idle, link);
		us->idle_bytes -= b->room;
		body_free(us, b, at_once);
	}
	timer_cancel(&us->idle_end);
}

void body_idle_end(struct timer *t)
{
	body_idle_free(container_of(t, struct uploads, idle_end), false);
}

/* One of about this size. */
static struct up_body *idle_take(struct uploads *us, size_t room)
{
	struct up_body *b;

	SLIST_FOREACH(b, &us->idle, link)
	{
		if (b->room < room || b->room > room + room / 4)
			continue;
		SLIST_REMOVE(&us->idle, b, up_body, link);
		us->idle_bytes -= b->room;
		return b;
	}
	return NULL;
}

struct up_body *body_new(struct uploads *us, size_t len)
{
	size_t room = len < BODY_KEEP ? MAX(len, 1) : (len + BODY_ROUND - 1) & ~(BODY_ROUND - 1);
	struct up_body *b = idle_take(us, room);

	if (b != NULL)
		return b;
	/* What is charged counts this one already. */
	if (us->idle_bytes + us->charged > us->budget)
		body_idle_free(us, false);
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return NULL;
	b->room = room;
	if (room < BODY_KEEP) {
		b->mem = malloc(room);
	} else {
		b->mem = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (b->mem == MAP_FAILED)
			b->mem = NULL;
		else
			(void)madvise(b->mem, room, MADV_HUGEPAGE);
	}
	if (b->mem == NULL) {
		free(b);
		return NULL;
	}
	return b;
}

void body_put(struct uploads *us, struct up_body **bp)
{
	struct up_body *b = *bp;

	*bp = NULL;
	if (b == NULL)
		return;
	if (us == NULL || b->room < BODY_KEEP ||
	    us->idle_bytes + us->charged + b->room > us->budget) {
		body_free(us, b, us == NULL);
		return;
	}
	SLIST_INSERT_HEAD(&us->idle, b, link);
	us->idle_bytes += b->room;
	timer_arm(&us->idle_end, IDLE_NS);
}
