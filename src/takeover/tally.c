/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/tally.h"

#include <string.h>

#include "base/log.h"
#include "base/units.h"
#include "reactor/statedb.h"

static const char row_name[] = "takeovers";

const uint32_t tally_bounds_ms[TALLY_BOUNDS] = {
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 30000};

void tally_pause(struct takeover_tally *t, uint64_t ns)
{
	unsigned i = 0;

	while (i < TALLY_BOUNDS && ns > tally_bounds_ms[i] * (uint64_t)NS_PER_MS)
		i++;
	t->pause[i]++;
	t->pause_total_ns += ns;
	if (ns > t->pause_longest_ns)
		t->pause_longest_ns = ns;
}

void tally_load(struct takeover_tally *t, struct statedb *db)
{
	struct takeover_tally was = {.takeovers = 0};
	struct statedb_val v;
	unsigned i;

	if (db == NULL ||
	    statedb_get(db, STATEDB_META, row_name, sizeof(row_name) - 1, &v) != 0)
		return;
	memcpy(&was, v.data, v.len < sizeof(was) ? v.len : sizeof(was));
	t->takeovers += was.takeovers;
	t->recoveries += was.recoveries;
	t->failed += was.failed;
	t->held += was.held;
	t->resumed += was.resumed;
	t->refused += was.refused;
	t->aborted += was.aborted;
	t->replayed += was.replayed;
	t->pause_total_ns += was.pause_total_ns;
	if (was.pause_longest_ns > t->pause_longest_ns)
		t->pause_longest_ns = was.pause_longest_ns;
	for (i = 0; i < TALLY_BUCKETS; i++)
		t->pause[i] += was.pause[i];
}

void tally_save(const struct takeover_tally *t, struct statedb *db, uint64_t replayed)
{
	struct takeover_tally row = *t;
	int err;

	if (db == NULL)
		return;
	row.replayed += replayed;
	err = statedb_put(db, STATEDB_META, row_name, sizeof(row_name) - 1, &row, sizeof(row));
	if (err != 0)
		log_debug("note of the takeovers: %s", strerror(-err));
}
