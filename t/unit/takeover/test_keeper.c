/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper is a program of its own: its parts are compiled in here. */
#include "takeover/keeper_msg.c"
#include "takeover/keeper_restart.c"
#include "takeover/keeper_store.c"

#include <criterion/criterion.h>
#include <sys/mman.h>

#define SECOND ((uint64_t)1000000000)
#define T0 (1000 * SECOND)

static struct restart rs;

Test(keeper_restart, first_is_immediate_then_backoff)
{
	restart_init(&rs);
	cr_assert_eq(restart_next(&rs, T0), 0);
	cr_assert_eq(restart_next(&rs, T0 + SECOND), SECOND / 20);
	cr_assert_eq(restart_next(&rs, T0 + 2 * SECOND), SECOND / 10);
	cr_assert_eq(restart_next(&rs, T0 + 3 * SECOND), SECOND / 5);
	cr_assert_eq(restart_next(&rs, T0 + 4 * SECOND), SECOND * 2 / 5);
	cr_assert_eq(restart_next(&rs, T0 + 5 * SECOND), -1, "five in a minute are allowed");
}

Test(keeper_restart, quiet_time_forgives)
{
	restart_init(&rs);
	cr_assert_eq(restart_next(&rs, T0), 0);
	cr_assert_eq(restart_next(&rs, T0 + 59 * SECOND), SECOND / 20);
	cr_assert_eq(restart_next(&rs, T0 + 59 * SECOND + 60 * SECOND), 0);
}

/* The limit's window slides: what is older than it does not count. */
Test(keeper_restart, window_slides)
{
	int i;

	restart_init(&rs);
	cr_assert_eq(restart_set_limit(&rs, "2 in 10s"), 0);
	cr_assert_geq(restart_next(&rs, T0), 0);
	cr_assert_geq(restart_next(&rs, T0 + 6 * SECOND), 0);
	cr_assert_eq(restart_next(&rs, T0 + 9 * SECOND), -1);
	cr_assert_geq(restart_next(&rs, T0 + 10 * SECOND), 0);
	cr_assert_eq(restart_next(&rs, T0 + 15 * SECOND), -1);
	cr_assert_eq(restart_set_limit(&rs, "1000 in 1h"), 0);
	for (i = 0; i < 2000; i++)
		restart_next(&rs, T0 + 20 * SECOND);
	cr_assert_eq(restart_next(&rs, T0 + 20 * SECOND), -1);
	cr_assert_leq(rs.n, RESTART_LIMIT_MAX);
}

Test(keeper_restart, backoff_has_a_ceiling)
{
	int64_t last = 0;
	int i;

	restart_init(&rs);
	cr_assert_eq(restart_set_limit(&rs, "500 in 1min"), 0);
	for (i = 0; i < 100; i++)
		last = restart_next(&rs, T0);
	cr_assert_eq(last, (int64_t)(SECOND * 4 / 5));
}

Test(keeper_restart, limit_texts)
{
	static const char *const bad[] = {"", "5", "5 in", "5 in ", " in 1min", "x in 1min",
	    "5 in 1parsec", "-1 in 1min", "1001 in 1min", "5 in 0s",
	    "11111111111111111111111111 in 1min"};
	unsigned i;

	restart_init(&rs);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(restart_set_limit(&rs, bad[i]), -EINVAL, "%s", bad[i]);
		cr_assert_eq(rs.limit, 5);
		cr_assert_eq(rs.window_ns, 60 * SECOND);
	}
	cr_assert_eq(restart_set_limit(&rs, "0 in 1min"), 0);
	cr_assert_eq(restart_next(&rs, T0), -1, "0: never");
}

Test(keeper_msg, fields)
{
	struct keeper_msg m;
	char text[] = "READY=1\nMAINPID=123\nSTATUS=serving /mnt=x\nnonsense\nEXTRA=1\n"
		      "X_BATONFS_RESTART_LIMIT=9 in 1h\nX_BATONFS_ARGV=batonfsd -f %2fmnt\n";
	char store[] = "FDSTORE=1\nFDNAME=fuse";
	char ends[] = "STOPPING=1\nX_BATONFS_HANDED_OVER=1\nX_BATONFS_WAITER=1";
	char odd[] = "MAINPID=1\nREADY=0\nSTOPPING=yes\nMAINPID=99999999999\nFDSTOREREMOVE=1";

	keeper_msg_parse(&m, text);
	cr_assert(m.ready);
	cr_assert_eq(m.mainpid, 123);
	cr_assert_str_eq(m.status, "serving /mnt=x");
	cr_assert_str_eq(m.limit, "9 in 1h");
	cr_assert_str_eq(m.argv, "batonfsd -f %2fmnt");
	cr_assert_not(m.fdstore || m.stopping || m.watchdog || m.fdremove);
	keeper_msg_parse(&m, store);
	cr_assert(m.fdstore);
	cr_assert_str_eq(m.fdname, "fuse");
	cr_assert_null(m.argv);
	cr_assert_not(m.waiter || m.handed_over);
	keeper_msg_parse(&m, ends);
	cr_assert(m.stopping && m.handed_over && m.waiter);
	keeper_msg_parse(&m, odd);
	cr_assert_eq(m.mainpid, 0);
	cr_assert_not(m.ready || m.stopping);
	cr_assert(m.fdremove);
}

Test(keeper_store, names_and_removal)
{
	struct store st = {.n = 0};
	char names[256];
	int a = memfd_create("a", 0), b = memfd_create("b", 0), again = dup(a);

	cr_assert_eq(store_add(&st, "fuse", a), 0);
	cr_assert_eq(store_add(&st, "init", b), 0);
	cr_assert_eq(store_add(&st, "fuse", again), 0);
	cr_assert_eq(st.n, 2, "the same open file is not kept twice");
	cr_assert_str_eq(store_names(&st, names, sizeof(names)), "fuse:init");
	cr_assert_lt(fcntl(a, F_GETFD), 0, "taken over");
	cr_assert_geq(st.item[0].fd, STORE_FD_FLOOR);
	cr_assert_eq(store_remove(&st, "fuse"), 1);
	cr_assert_eq(store_remove(&st, "fuse"), 0);
	cr_assert_str_eq(store_names(&st, names, sizeof(names)), "init");
	store_close(&st);
	cr_assert_eq(st.n, 0);
}

Test(keeper_store, refuses_bad_names_and_too_many)
{
	static const char *const bad[] = {"", "a:b", "a\nb", "\x7f"};
	struct store st = {.n = 0};
	unsigned i;
	int fd;

	for (i = 0; i < 4; i++) {
		fd = memfd_create("x", 0);
		cr_assert_eq(store_add(&st, bad[i], fd), -EINVAL);
		cr_assert_lt(fcntl(fd, F_GETFD), 0, "closed although refused");
	}
	for (i = 0; i < STORE_MAX; i++)
		cr_assert_eq(store_add(&st, "x", memfd_create("x", 0)), 0);
	cr_assert_eq(store_add(&st, "x", memfd_create("x", 0)), -ENOSPC);
	cr_assert_eq(store_remove(&st, "x"), STORE_MAX);
}
