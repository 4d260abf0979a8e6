/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig_nth.h"

#include <criterion/criterion.h>
#include <errno.h>

unsigned rig_every(struct rig *r, rig_client *fn, void *arg)
{
	bool fired = true;
	unsigned n;
	int got;

	for (n = 1; fired; n++) {
		got = rig_wait_nth(r, rig_start(r, fn, arg), n, &fired);
		cr_assert(got == 0 || (fired && (got == ENOMEM || got == EIO)),
		    "allocation %u: %d", n, got);
		while (fs_running(r->fs) > 0)
			loop_turn(r->loop, true);
		got = rig_run(r, fn, arg);
		cr_assert_eq(got, 0, "after allocation %u failed: %d", n, got);
	}
	return n;
}
