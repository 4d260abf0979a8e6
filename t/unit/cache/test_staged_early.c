/* SPDX-License-Identifier: BSD-2-Clause */
/* Large durable files, whose bytes begin their way to the disk before a sync. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../lib/nth_fault.h"
#include "base/fault.h"
#include "base/units.h"
#include "staged_rig.h"

#define ID (STAGED_DURABLE_BIT | 0x2345)

static struct staged_rig s;
static struct staged *sf;
static unsigned char data[MIB];
static char gate[96];

static void setup(void)
{
	srig_init(&s);
	memset(data, 7, sizeof(data));
	sf = srig_create(&s, ID, NULL);
	snprintf(gate, sizeof(gate), "%s/gate", s.state);
}

static void faults(const char *spec)
{
	cr_assert_eq(fault_init(spec, &(struct errtext){0}), 0);
}

static void teardown(void)
{
	faults("");
	if (sf != NULL)
		staged_close(&sf);
	srig_fini(&s);
}

TestSuite(staged_early, .init = setup, .fini = teardown);

static uint64_t early(void)
{
	rig_settle(&s.g);
	return loop_counters(s.g.loop)->v[CTR_STAGED_EARLY_BYTES];
}

static void write_mib(struct staged *f, uint64_t from, uint64_t to)
{
	for (; from < to; from++)
		cr_assert_eq(srig_do(&s, f, staged_write, from * MIB, MIB, data), 0);
}

static int sync_it(void)
{
	return srig_do(&s, sf, staged_sync, 0, 0, NULL);
}

/* The next one waits in the pool until the gate opens. */
static void close_gate(void)
{
	char spec[128];

	snprintf(spec, sizeof(spec), "staged.early=until:%s@1", gate);
	faults(spec);
}

static void open_gate(void)
{
	FILE *f = fopen(gate, "w");

	cr_assert_not_null(f);
	fclose(f);
}

Test(staged_early, begins_when_there_is_enough)
{
	write_mib(sf, 0, 7);
	cr_assert_eq(early(), 0);
	write_mib(sf, 7, 9);
	cr_assert_eq(early(), 8 * MIB);
	cr_assert_eq(sync_it(), 0);
	write_mib(sf, 9, 16);
	cr_assert_eq(early(), 16 * MIB);
}

Test(staged_early, each_byte_once_but_for_what_was_cut_off)
{
	write_mib(sf, 0, 8);
	write_mib(sf, 0, 8);
	cr_assert_eq(early(), 8 * MIB);
	cr_assert_eq(srig_do(&s, sf, staged_truncate, MIB, 0, NULL), 0);
	write_mib(sf, 1, 9);
	cr_assert_eq(early(), 16 * MIB);
}

Test(staged_early, what_was_there_counts_as_written)
{
	write_mib(sf, 0, 4);
	staged_close(&sf);
	srig_restart(&s);
	sf = srig_open(&s, ID, NULL);
	write_mib(sf, 4, 11);
	cr_assert_eq(early(), 0);
	write_mib(sf, 11, 12);
	cr_assert_eq(early(), 8 * MIB);
}

Test(staged_early, of_files_without_a_sync_nothing)
{
	struct staged *other = srig_create(&s, 2, NULL);

	write_mib(other, 0, 12);
	cr_assert_eq(early(), 0);
	staged_close(&other);
}

Test(staged_early, an_error_is_left_to_the_sync)
{
	faults("staged.early=errno:5");
	write_mib(sf, 0, 8);
	cr_assert_eq(early(), 0);
	cr_assert_eq(sync_it(), 0);
}

Test(staged_early, what_came_meanwhile_goes_in_one_piece)
{
	close_gate();
	write_mib(sf, 0, 8);
	write_mib(sf, 8, 17);
	open_gate();
	cr_assert_eq(early(), 17 * MIB);
	cr_assert_eq(srig_check(&s, sf, 16 * MIB, data, 4096), 0);
}

Test(staged_early, files_may_go_while_it_runs_or_waits)
{
	struct staged *other = srig_create(&s, ID + 1, NULL);

	close_gate();
	write_mib(sf, 0, 8);
	write_mib(other, 0, 8);
	cr_assert_eq(staged_delete(&sf), 0);
	cr_assert_eq(staged_delete(&other), 0);
	open_gate();
	cr_assert_eq(early(), 8 * MIB);
}

Test(staged_early, all_may_go_while_it_runs)
{
	close_gate();
	write_mib(sf, 0, 8);
	staged_close(&sf);
	srig_restart(&s);
	open_gate();
	cr_assert_eq(early(), 8 * MIB);
}

Test(staged_early, without_memory_it_is_left_to_the_sync)
{
	bool fired = true;

	for (unsigned n = 1; fired; n++) {
		write_mib(sf, 0, 7);
		nth_arm(n);
		(void)srig_do(&s, sf, staged_write, 7 * MIB, MIB, data);
		nth_disarm();
		fired = nth_fired();
		if (statedb_lost(s.db))
			statedb_recover(s.db);
		write_mib(sf, 7, 9);
		cr_assert_eq(sync_it(), 0);
		cr_assert_eq(srig_do(&s, sf, staged_truncate, 0, 0, NULL), 0);
	}
}
