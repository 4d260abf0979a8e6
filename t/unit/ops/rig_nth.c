/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig_nth.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../lib/nth_fault.h"

static void client_over(struct loop_fd *lf, unsigned what)
{
	(void)what;
	loop_fd_want(lf, 0);
	loop_stop(lf->loop, 0);
}

/* As rig_run(), with the n-th allocation failing. */
static int run_nth(struct rig *r, unsigned n, rig_client *fn, void *arg, bool *fired)
{
	pid_t pid = rig_start(r, fn, arg);
	int status, pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct loop_fd lf = {0};

	cr_assert_geq(pidfd, 0);
	cr_assert_eq(loop_fd_init(&lf, r->loop, pidfd, client_over), 0);
	cr_assert_eq(loop_fd_want(&lf, LOOP_READ), 0);
	nth_arm(n);
	loop_run(r->loop);
	*fired = nth_fired();
	loop_fd_fini(&lf);
	close(pidfd);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

unsigned rig_every(struct rig *r, rig_client *fn, void *arg)
{
	bool fired = true;
	unsigned n;
	int got;

	for (n = 1; fired; n++) {
		got = run_nth(r, n, fn, arg, &fired);
		cr_assert(got == 0 || (fired && (got == ENOMEM || got == EIO)),
		    "allocation %u: %d", n, got);
		while (fs_running(r->fs) > 0 || statedb_lost(r->db))
			loop_turn(r->loop, true);
		got = rig_run(r, fn, arg);
		cr_assert_eq(got, 0, "after allocation %u failed: %d", n, got);
	}
	return n;
}
