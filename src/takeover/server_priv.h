/* SPDX-License-Identifier: BSD-2-Clause */
/* The old side's parts: server.c has the sockets, server_offer.c HELLO and STATE,
 * server_steps.c the steps of one hand-over, server_window.c its window, spawn.c the
 * successor that we start ourselves. */
#ifndef TAKEOVER_SERVER_PRIV_H
#define TAKEOVER_SERVER_PRIV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/units.h"
#include "ops/fs.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/sock.h"
#include "reactor/task.h"
#include "reactor/timer.h"
#include "takeover/identity.h"
#include "takeover/records.h"
#include "takeover/server.h"
#include "takeover/sieve.h"

#define SPAWN_OUTPUT_MAX 4096
/* After COMMIT a successor opens two databases; a loaded machine gets this much at
 * least. */
#define HANDOFF_DONE_LIMIT (5 * NS_PER_S)

/* The successor that we started; at most one at a time. */
struct spawn {
	pid_t pid; /* 0: none */
	int pidfd, pipe;
	bool watching, reading; /* pidfd_lf and pipe_lf are set up */
	struct loop_fd pidfd_lf, pipe_lf;
	struct timer limit;
	bool check_only, reported, timed_out;
	void (*done)(void *arg, int err, const char *words);
	void *arg;
	size_t len; /* of what it wrote to stdout and stderr */
	char out[SPAWN_OUTPUT_MAX];
	char words[512]; /* why the hand-over ended, as we saw it */
};

struct handoff {
	struct task task;
	struct takeover_server *ts;
	int sock;
	struct loop_fd lf;
	struct timer timer, slow;
	pid_t pid;
	bool expired, eof, have_msg;
	bool slow_due; /* reads have run for fuse.migration.slow.read.timeout */
	int io_err;
	struct rec_in in; /* into buf, while have_msg */
	unsigned char buf[REC_MSG_MAX];
	int fds[REC_FD_KINDS]; /* that came with the message */
	struct rec_out out;
	/* what HELLO said */
	bool check_only, same_keeper, has_keeper;
	bool keeper_left; /* our own keeper holds nothing any more */
	char build[32];
	/* how far it went */
	bool offered, settled, stopped, quiesced, closed, committed, ended_reads;
	uint64_t stopped_at;
	uint64_t claim_until;
	struct held_list held;
	struct sieve sieve;
	uint64_t refused; /* with EAGAIN, in the window */
	uint64_t aborted; /* with EIO, from READY on */
	struct pool_job window; /* a fault point that makes it longer */
	bool window_open;
	char words[512]; /* why it failed; "" while it has not */
};

struct takeover_server {
	uint32_t magic;
#define TAKEOVER_SERVER_MAGIC 0x7a4e0e01u
	struct daemon *d;
	int listen_fd;
	struct loop_fd lf;
	bool listening;
	struct handoff *handoff;
	struct spawn spawn;
};

/* --- server.c */
/* err -ESHUTDOWN: with what the other end needs to wait for our end. */
void server_refuse(const struct takeover_server *ts, int sock, int err, const char *words);
bool server_ending(const struct takeover_server *ts);
void handoff_wake(struct handoff *s);
/* The message was used: its descriptors are closed, the next may come. */
void handoff_next_msg(struct handoff *s);
/* Sends s->out; 0 or negative errno. */
int handoff_send(struct handoff *s, const int *fds, int nfds);
void handoff_free(struct handoff **sp);
/* Notes why it fails, for people; the first reason counts. */
void handoff_say(struct handoff *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A successor was refused or given up: for `status`, the counters and the log. */
void handoff_report_failure(struct handoff *s);

/* --- server_offer.c */
/* Looks at s->in as HELLO; if it will not do, handoff_say() has said why. */
bool handoff_hello_ok(struct handoff *s);
/* 0 or negative errno. */
int handoff_send_state(struct handoff *s);

/* --- server_window.c */
void handoff_window_begin(struct handoff *s);
/* Also if it never began. */
void handoff_window_end(struct handoff *s);
/* A fault point: window_open until it lets go. */
void handoff_window_hold(struct handoff *s);

/* --- server_steps.c */
void handoff_start(struct handoff *s);
/* From fs and cache, whatever handoff there is now. */
void server_settled(void *arg);
void server_quiesced(void *arg);
void server_stores_closed(void *arg);
void server_idle(void *arg);

/* --- spawn.c */
/* That process has the right: its time is the handoff's business from here on.  Whoever is
 * frozen for longer shall not kill who serves when it goes on. */
void spawn_handoff_committed(struct spawn *sp, pid_t pid);
/* How the handoff with that process ended; err 0: it serves. */
void spawn_handoff_ended(struct spawn *sp, pid_t pid, int err, const char *words);
void spawn_fini(struct spawn *sp);

#endif
