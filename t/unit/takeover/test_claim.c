/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "takeover/claim.h"

/* A process that takes the claim, says so, and then only waits. */
static pid_t claimer(struct epoch *ep)
{
	int p[2];
	char c = 'x';
	pid_t pid;

	cr_assert_eq(pipe(p), 0);
	pid = fork();
	if (pid == 0) {
		c = claim_take(ep) == 0 ? 'y' : 'n';
		if (write(p[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	cr_assert_eq(read(p[0], &c, 1), 1);
	cr_assert_eq(c, 'y');
	close(p[0]);
	close(p[1]);
	return pid;
}

Test(claim, a_living_holder_is_seen_and_its_death_too)
{
	struct epoch ep;
	pid_t pid;
	int status;

	cr_assert_eq(epoch_create(&ep), 0);
	pid = claimer(&ep);
	cr_assert_eq(claim_take(&ep), -EBUSY);
	kill(pid, SIGSTOP);
	cr_assert_eq(claim_take(&ep), -EBUSY, "a frozen holder is alive");
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(claim_take(&ep), 0);
	cr_assert_eq(claim_take(&ep), 0, "ours already");
	claim_drop(&ep);
	pid = claimer(&ep);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	epoch_close(&ep);
}
