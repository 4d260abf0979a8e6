/* SPDX-License-Identifier: BSD-2-Clause */
/* Uploads of durable files: what is sent has the checksums that it was written with. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "upload_rig.h"

static struct up_rig t;
static struct up_file f;

static void setup(void)
{
	up_rig_init(&t);
	t.next_id = STAGED_DURABLE_BIT | 7;
	srand(1);
}

static void teardown(void)
{
	up_rig_fini(&t);
}

TestSuite(upload_sums, .init = setup, .fini = teardown);

static struct fake_store *store(void)
{
	return &t.g.ufs->store;
}

static void flip(off_t at)
{
	char path[160];

	(void)snprintf(path, sizeof(path), "%s/staged/%llx", t.g.dir, (unsigned long long)f.id);
	rig_flip(path, at);
}

Test(upload_sums, every_body_has_its_sum)
{
	static const size_t sizes[] = {0, 1, 4096, UP_UNIT, UP_UNIT + 1, 5 * UP_UNIT + 4097};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		unsigned parts = store()->count[FAKE_PART] + store()->count[FAKE_PUT];

		up_open(&f, &t, "f", 0);
		if (sizes[i] > 0)
			up_write(&f, 0, sizes[i], false);
		cr_assert_eq(up_run(&f), 0);
		cr_assert(up_right(&f));
		parts = store()->count[FAKE_PART] + store()->count[FAKE_PUT] - parts;
		cr_assert_eq(store()->sums, parts);
		store()->sums = 0;
		up_close(&f);
		fake_store_remove(store(), fake_store_find(store(), "f"));
	}
}

Test(upload_sums, other_files_have_none)
{
	t.next_id = 7;
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 3 * UP_UNIT, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert_eq(store()->sums, 0);
	up_close(&f);
}

Test(upload_sums, a_storage_without_them_is_served_too)
{
	store()->no_sums = true;
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 3 * UP_UNIT, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload_sums, a_changed_bit_is_not_sent)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 1000, false);
	flip(999);
	cr_assert_eq(up_run(&f), -EBADMSG);
	cr_assert_eq(store()->count[FAKE_PUT], 0);
	flip(999);
	cr_assert_eq(up_run(&f), 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	flip(4 * UP_UNIT + 77);
	cr_assert_eq(up_run(&f), -EBADMSG);
	cr_assert_eq(store()->count[FAKE_MULTI_END], 0);
	cr_assert_str_neq(upload_id(f.up), "", "what was sent is kept");
	flip(4 * UP_UNIT + 77);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	up_close(&f);
}

Test(upload_sums, what_the_storage_got_otherwise_stops_it)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 6 * UP_UNIT, false);
	fake_store_fail(store(), FAKE_PART, 3, 1, -EBADMSG, true);
	cr_assert_eq(up_run(&f), -EBADMSG);
	cr_assert_eq(store()->count[FAKE_MULTI_END], 0);
	cr_assert_null(fake_store_find(store(), "f"));
	up_close(&f);
}

Test(upload_sums, another_daemon_knows_the_sums_of_what_was_sent)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 8 * UP_UNIT + 100, false);
	t.g.cfg->write_upload_parallel = 1;
	fake_store_fail(store(), FAKE_PART, 6, 1, -EIO, false);
	cr_assert_eq(up_run(&f), -EIO);
	upload_free(&f.up);
	up_rig_again(&t);
	up_again(&f);
	cr_assert_eq(upload_sent(f.up), 5 * UP_UNIT);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->part_bytes, f.size);
	up_close(&f);
}

Test(upload_sums, nothing_is_copied_from_what_it_was)
{
	up_open(&f, &t, "f", 0);
	up_write(&f, 0, 4 * UP_UNIT, false);
	cr_assert_eq(up_run(&f), 0);
	up_write(&f, 4 * UP_UNIT, 100, false);
	cr_assert_eq(up_run(&f), 0);
	cr_assert(up_right(&f));
	cr_assert_eq(store()->copied_bytes, 0);
	up_close(&f);
}
