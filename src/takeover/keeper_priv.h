/* SPDX-License-Identifier: BSD-2-Clause */
/* The keeper's parts: keeper.c begins and ends, keeper_main.c has the daemon's
 * process, keeper_notify.c what it says. */
#ifndef TAKEOVER_KEEPER_PRIV_H
#define TAKEOVER_KEEPER_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "base/errtext.h"
#include "reactor/loop.h"
#include "reactor/timer.h"
#include "takeover/keeper_restart.h"
#include "takeover/keeper_store.h"

#define KEEPER_MSG_MAX (128 * 1024)
#define KEEPER_WAITERS 16
#define KEEPER_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

struct keeper {
	struct loop *loop;
	char **argv; /* what to start; as the daemon last said */
	uint64_t watchdog_ns;
	int ready_fd; /* -1: none, or told already */
	bool detach;  /* from stdin, stdout and stderr, when the mount serves */
	/* the notification socket */
	char dir[KEEPER_PATH_MAX], path[KEEPER_PATH_MAX];
	int sock;
	struct loop_fd sock_lf;
	/* the daemon's process */
	pid_t pid; /* 0: none runs */
	int pidfd;
	struct loop_fd pid_lf;
	bool ready; /* the mount has served: its daemons come up at once */
	bool up;    /* and this daemon does: it heeds signals */
	bool stopping, quitting, ended;
	bool stay, handed_over; /* another keeper has the mount */
	bool status_known; /* reaped before its pidfd was looked at */
	int status;
	struct timer watchdog, restart_timer, quit_timer;
	struct restart restart;
	struct store store;
	/* whoever waits for our end, with that of the daemon, has the other ends: never
	 * closed, for the end of the process does that */
	int waiters[KEEPER_WAITERS];
	unsigned nwaiters;
	struct loop_signal term, intr, hup, chld;
	char msg[KEEPER_MSG_MAX];
};

/* --- keeper.c */
/* Ends the loop with that exit code; everything held is dropped. */
void keeper_end(struct keeper *k, int code);
/* To whoever waits for the mount (--ready-fd); with code 0 it serves, and --log holds.  Once. */
void keeper_tell_ready(struct keeper *k, int code);

/* --- keeper_main.c */
/* Starts the daemon with all stored descriptors: 0 or negative errno. */
int keeper_start(struct keeper *k);
/* pid is the daemon's main process from now on.  Negative errno: it cannot be watched, and
 * keeper_reap() takes it for ended. */
int keeper_watch(struct keeper *k, pid_t pid);
void keeper_unwatch(struct keeper *k);
/* Hears what was said, reaps who has ended, and acts if that is the main process. */
void keeper_reap(struct keeper *k);
void keeper_quit(struct keeper *k);
void keeper_restart_now(struct timer *t);
void keeper_frozen(struct timer *t);
void keeper_too_slow(struct timer *t);

/* --- keeper_notify.c */
int keeper_listen(struct keeper *k, struct errtext *et);
void keeper_unlisten(struct keeper *k);
/* Takes in everything that has been sent. */
void keeper_hear(struct keeper *k);

#endif
