/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/keeper_restart.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

#define BACKOFF_WITHIN (60 * NS_PER_S)
#define BACKOFF_FIRST (50 * NS_PER_MS)
/* A restart loop is ended by the limit; each crash should cost less than a second. */
#define BACKOFF_MAX (800 * NS_PER_MS)

void restart_init(struct restart *r)
{
	memset(r, 0, sizeof(*r));
	r->limit = 5;
	r->window_ns = 60 * NS_PER_S;
}

int restart_set_limit(struct restart *r, const char *text)
{
	static const char in[] = " in ";
	const char *at = strstr(text, in);
	char number[24];
	uint64_t n, window;

	if (at == NULL || at == text || (size_t)(at - text) >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, (size_t)(at - text));
	number[at - text] = '\0';
	if (units_parse_u64(number, &n) != 0 || n > RESTART_LIMIT_MAX ||
	    units_parse_duration(at + sizeof(in) - 1, &window) != 0 || window == 0)
		return -EINVAL;
	r->limit = (unsigned)n;
	r->window_ns = window;
	return 0;
}

/* How many of the remembered restarts are younger than that. */
static unsigned restart_count(const struct restart *r, uint64_t now, uint64_t within)
{
	unsigned i, n = 0;

	for (i = 0; i < r->n; i++)
		if (now - r->when[i] < within)
			n++;
	return n;
}

static void restart_remember(struct restart *r, uint64_t now)
{
	if (r->n == RESTART_LIMIT_MAX) {
		memmove(r->when, r->when + 1, sizeof(r->when) - sizeof(r->when[0]));
		r->n--;
	}
	r->when[r->n++] = now;
}

int64_t restart_next(struct restart *r, uint64_t now)
{
	uint64_t delay = BACKOFF_FIRST;
	unsigned recent;

	if (restart_count(r, now, r->window_ns) >= r->limit)
		return -1;
	recent = restart_count(r, now, BACKOFF_WITHIN);
	restart_remember(r, now);
	if (recent == 0)
		return 0;
	while (--recent > 0 && delay < BACKOFF_MAX)
		delay *= 2;
	return (int64_t)(delay < BACKOFF_MAX ? delay : BACKOFF_MAX);
}
