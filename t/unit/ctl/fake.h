/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A daemon made of nothing: what the control socket calls in other parts is
 * answered here, so its own code is tested alone.
 *
 * The storage has "/", "/sub" and "/sub/deep" with fake.nfiles files each, listed
 * in pages of FAKE_PAGE, and "/gone", which vanishes between row and listing.
 */
#ifndef T_UNIT_CTL_FAKE_H
#define T_UNIT_CTL_FAKE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "ctl/ctl.h"
#include "ctl/ctl_priv.h"
#include "daemon.h"

#define FAKE_PAGE 7

struct fake {
	struct daemon d;
	struct ctl *ctl;
	int client; /* our end of a connection */
	char *got;  /* what the client has read */
	size_t got_len;

	unsigned nfiles;
	int fail_list; /* the n-th listing fails with EIO; 0: none */
	unsigned lists, running;
	unsigned blobs, loads_running;
	struct cache_load *loading[16]; /* the test ends them */
	unsigned nloading, dropped;

	char kept[256]; /* "name=value" of daemon_keep_setting() */
	int keep_err;
	int exits; /* calls of daemon_exit() */
	bool exit_unmounts;
	int umount_err, umounts;
	atomic_bool umount_hangs; /* until it is false */
	bool mounted_elsewhere;
	unsigned waiters; /* calls of daemon_keep_waiter() */

	int spawn_err; /* takeover_spawn() fails at once */
	unsigned spawned;
	bool spawn_check;
	char spawn_line[256]; /* binary and flags */
	void (*spawn_done)(void *arg, int err, const char *words);
	void *spawn_arg;
};
extern struct fake fake;

void fake_init(void);
void fake_fini(void);
/* Connects the client; `commands` replaces the table if not NULL. */
void fake_connect(const struct ctl_command *commands);
/* Writes all of it, turning the loop while the socket is full. */
void fake_say(const char *text);
/* Turns the loop until n complete lines have come (or the end of the file). */
void fake_read(unsigned n);
/* fake_read(n), then: is this the n-th line (from 1)? */
void fake_line(unsigned n, const char *line);
/* The n-th line contains this. */
void fake_line_has(unsigned n, const char *words);
/* Turns until the server has closed the connection. */
void fake_closed(void);
/* Turns until nothing happens any more without waiting. */
void fake_settle(void);

#endif
