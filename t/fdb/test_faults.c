/* SPDX-License-Identifier: BSD-2-Clause */
/* What can be made to go wrong, and several processes: of the stand-in alone. */
#include "rig.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void start(void)
{
	if (standin_real())
		cr_skip_test("a real cluster does not fail on demand");
	rig_start();
}

TestSuite(standin_faults, .init = start, .fini = rig_stop);

Test(standin_faults, errors_on_demand)
{
	FDBTransaction *tr = begin();

	standin_write("faults", "grv 1037 count=1\nget 1007 count=1\nrange 1009 count=1\n"
			    "commit 1020 count=1\ncommit 1038 count=1\n");
	cr_assert_eq(ended(ask(tr, "a", false)), 1037);
	cr_assert_eq(commit(tr), 1037, "a read that failed fails the commit");
	cr_assert_eq(on_error(tr, 1037), 0);
	cr_assert_eq(ended(ask(tr, "a", false)), 1007);
	cr_assert_eq(on_error(tr, 1007), 0);
	cr_assert_eq(ended(fdb.fdb_transaction_get_range(
			 tr, K("a"), 0, 1, K("b"), 0, 1, 0, 0, FDB_MODE_WANT_ALL, 0, 0, 0)),
	    1009);
	cr_assert_eq(on_error(tr, 1009), 0);
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 1020);
	cr_assert_eq(on_error(tr, 1020), 0);
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 1038);
	cr_assert_eq(on_error(tr, 1038), 0);
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 0);
	cr_assert_eq(standin_fired("commit 1020"), 1);
	end(&tr);
}

Test(standin_faults, an_unknown_result_is_either)
{
	FDBTransaction *tr = begin();

	standin_write("faults", "commit 1021 done count=1\ncommit 1021 undone count=1\n");
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 1021);
	cr_assert_eq(on_error(tr, 1021), 0);
	set(tr, "b", "1");
	cr_assert_eq(commit(tr), 1021);
	standin_write("faults", "");
	cr_assert_str_eq(now("a"), "1");
	cr_assert_null(now("b"));
	end(&tr);
}

Test(standin_faults, an_unreachable_cluster_leaves_futures_open)
{
	FDBTransaction *tr = begin(), *other = begin();
	FDBFuture *f, *g;
	int error;

	put("a", "1");
	standin_write("faults", "any hold\n");
	f = ask(tr, "a", false);
	standin_wait_fired("any hold", 1);
	cr_assert_not(fdb.fdb_future_is_ready(f));
	option(other, FDB_TR_TIMEOUT, 20);
	g = ask(other, "a", false);
	cr_assert_eq(ended(g), 1031);
	standin_write("faults", "");
	cr_assert_str_eq(got(f, &error), "1");
	end(&tr);
	end(&other);
}

Test(standin_faults, five_seconds)
{
	FDBTransaction *tr = begin(), *writer = begin();

	put("a", "1");
	get(tr, "a", false);
	get(writer, "b", false);
	standin_write("clock", "stopped 4900");
	cr_assert_str_eq(get(tr, "a", false), "1");
	standin_write("clock", "stopped 5100");
	cr_assert_eq(ended(ask(tr, "c", false)), 1007);
	set(writer, "a", "2");
	cr_assert_eq(commit(writer), 1007);
	cr_assert_eq(on_error(tr, 1007), 0);
	cr_assert_str_eq(get(tr, "a", false), "1");
	end(&tr);
	end(&writer);
}

Test(standin_faults, a_version_of_the_future)
{
	FDBTransaction *tr = begin();

	fdb.fdb_transaction_set_read_version(tr, INT64_MAX / 2);
	cr_assert_eq(ended(ask(tr, "a", false)), 1009);
	end(&tr);
}

Test(standin_faults, a_new_server_has_the_old_data)
{
	FDBTransaction *old = begin(), *tr = begin();
	FDBFuture *watch, *f;
	int error;

	put("a", "1");
	watch = fdb.fdb_transaction_watch(tr, K("a"));
	cr_assert_eq(commit(tr), 0);
	get(old, "a", false);
	standin_kill();
	f = ask(old, "b", false);
	end(&tr);
	tr = begin();
	standin_serve();
	cr_assert_str_eq(got(ask(tr, "a", false), &error), "1");
	cr_assert_eq(ended(f), 1007, "the old read versions are over");
	put("a", "2");
	cr_assert_eq(ended(watch), 0, "it was set again");
	end(&tr);
	end(&old);
}

Test(standin_faults, a_commit_on_a_broken_connection_is_unknown)
{
	FDBTransaction *tr = begin();

	standin_write("faults", "commit drop done count=1\ncommit drop count=1\n");
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 1021);
	cr_assert_eq(on_error(tr, 1021), 0);
	set(tr, "b", "1");
	cr_assert_eq(commit(tr), 1021);
	cr_assert_str_eq(now("a"), "1");
	cr_assert_null(now("b"));
	end(&tr);
}

Test(standin_faults, a_commit_held_up_may_happen_after_its_end)
{
	FDBTransaction *tr = begin();
	FDBFuture *f;

	standin_write("faults", "commit hold\n");
	set(tr, "a", "1");
	f = fdb.fdb_transaction_commit(tr);
	standin_wait_fired("commit hold", 1);
	fdb.fdb_transaction_cancel(tr);
	cr_assert_eq(ended(f), 1025);
	end(&tr);
	standin_write("faults", "");
	while (now("a") == NULL)
		;
}

static void start_place(void)
{
	if (standin_real())
		cr_skip_test("so many clients of a real cluster are its own tests' matter");
	rig_place();
}

TestSuite(standin_processes, .init = start_place, .fini = rig_stop);

/* A process of a node that counts "n" up, without end. */
static pid_t start_counter(const char *node)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("BATONFS_FDB_STANDIN_NODE", node, 1);
	rig_client();
	for (;;) {
		FDBTransaction *tr = begin();
		char text[32];
		int error;

		do {
			const char *n = got(ask(tr, "n", false), &error);

			snprintf(text, sizeof(text), "%ld", n == NULL ? 1 : atol(n) + 1);
			set(tr, "n", text);
			if (error == 0)
				error = commit(tr);
		} while (error != 0 && on_error(tr, error) == 0);
		if (error != 0)
			_exit(1);
		end(&tr);
	}
}

static void wait_count(long more)
{
	const char *n = now("n");
	long from = n == NULL ? 0 : atol(n), at = from;

	while (at < from + more) {
		n = now("n");
		cr_assert(n == NULL || atol(n) >= at, "it goes up");
		at = n == NULL ? 0 : atol(n);
	}
}

Test(standin_processes, killed_ones_leave_the_others_alone)
{
	pid_t pids[3];

	for (int i = 0; i < 3; i++)
		pids[i] = start_counter("a");
	rig_client();
	for (int i = 0; i < 3; i++) {
		wait_count(30);
		cr_assert_eq(kill(pids[i], SIGKILL), 0);
		cr_assert_eq(waitpid(pids[i], NULL, 0), pids[i]);
	}
	put("n", "100000");
	cr_assert_str_eq(now("n"), "100000");
}

Test(standin_processes, one_of_them_cut_off)
{
	pid_t pid, free_one;
	char text[64];

	pid = start_counter("a");
	free_one = start_counter("b");
	rig_client();
	wait_count(10);
	snprintf(text, sizeof(text), "any hold pid=%d\n", (int)pid);
	standin_write("faults", text);
	standin_wait_fired("any hold", 1);
	wait_count(20);
	snprintf(text, sizeof(text), "any hold %d", (int)free_one);
	standin_write("faults", "any hold node=b\n");
	standin_wait_fired(text, 1);
	wait_count(20);
	standin_write("faults", "");
	wait_count(20);
	kill(pid, SIGKILL);
	kill(free_one, SIGKILL);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
	cr_assert_eq(waitpid(free_one, NULL, 0), free_one);
}

Test(standin_processes, a_library_that_is_too_old)
{
	setenv("BATONFS_FDB_STANDIN_MAX_API", "620", 1);
	rig_library();
	cr_assert_eq(fdb.fdb_get_max_api_version(), 620);
	cr_assert_eq(fdb.fdb_select_api_version_impl(630, 630), 2203);
	unsetenv("BATONFS_FDB_STANDIN_MAX_API");
	rig_client();
}
