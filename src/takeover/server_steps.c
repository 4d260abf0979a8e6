/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hand-over, old side: one successor, step by step.
 *
 *	hello -> state -> ready -> quiesced -> closed -> commit -> done -> reads -> end
 *
 * Every failure before COMMIT was sent leads to `rollback`, after which this
 * daemon serves as before.  A successor that dies between COMMIT and DONE leads to
 * `take back`: this daemon raises the epoch above the dead one's and goes on as
 * after a crash.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "cache/cache.h"
#include "ctl/ctl.h"
#include "daemon.h"
#include "ops/forgets.h"
#include "reactor/fuse_chan.h"
#include "reactor/notify.h"
#include "reactor/statedb.h"
#include "takeover/claim.h"
#include "takeover/forgets_log.h"
#include "takeover/held.h"
#include "takeover/link.h"
#include "takeover/server_priv.h"

/* A successor says HELLO at once, and READY when it has opened its cache. */
#define HELLO_LIMIT (10 * NS_PER_S)
#define READY_LIMIT (30 * NS_PER_S)
/* After the grace period everything is recalled, and the databases are closed. */
#define RECALL_LIMIT (2 * NS_PER_S)
/* What the disk had begun ends, while requests wait. */
#define CLOSE_LIMIT (5 * NS_PER_S)
#define CLAIM_LIMIT (5 * NS_PER_S)
#define CLAIM_RETRY (2 * NS_PER_MS)

enum handoff_step {
	S_HELLO,
	S_STATE,
	S_READY,
	S_QUIESCED,
	S_CLOSED,
	S_COMMIT,
	S_DONE,
	S_READS,
	S_ROLLBACK,
	S_TAKE_BACK,
	S_LOST,
	S_END,
};

static struct handoff *handoff_of(struct task *t)
{
	return container_of(t, struct handoff, task);
}

/* Every wait can be given up: the step that follows looks why it was woken. */
static void handoff_leave(struct task *t)
{
	(void)t;
}

static enum task_next handoff_wait(struct handoff *s, enum handoff_step step)
{
	return task_wait(&s->task, step, handoff_leave);
}

static void handoff_limit(struct handoff *s, uint64_t ns)
{
	s->expired = false;
	timer_arm(&s->timer, ns);
}

static uint64_t now_exact(struct handoff *s)
{
	const struct clock *clk = loop_clock(s->ts->d->loop);

	return clk->monotonic(clk);
}

/* Has the successor gone, or failed, or taken too long?  Then words say so. */
static bool handoff_broken(struct handoff *s, const char *waited_for)
{
	char theirs[400];

	if (s->ts->d->ending)
		handoff_say(s, "this daemon is ending");
	else if (task_err(&s->task) != 0)
		handoff_say(s, "given up: %s", strerror(-task_err(&s->task)));
	else if (s->have_msg && s->in.type == MSG_REFUSE) {
		rec_get_text(&s->in, REC_WORDS, theirs, sizeof(theirs));
		handoff_say(s, "the new daemon gave up: %s", theirs);
	} else if (s->eof)
		handoff_say(s, "the new daemon ended before %s", waited_for);
	else if (s->io_err == -EPROTO)
		handoff_say(s,
		    "the new daemon speaks another version of the protocol, or needs "
		    "something that this one (%s) does not know",
		    PACKAGE_VERSION);
	else if (s->io_err == -EBADMSG)
		handoff_say(s, "the new daemon sent a damaged message");
	else if (s->io_err != 0)
		handoff_say(s, "read the takeover socket: %s", strerror(-s->io_err));
	else if (s->expired)
		handoff_say(s, "the new daemon did not come to %s in time", waited_for);
	return s->words[0] != '\0';
}

/* 1: the message that we wait for is in s->in; 0: nothing yet; -1: broken. */
static int handoff_expect(struct handoff *s, enum rec_msg type, const char *name)
{
	if (handoff_broken(s, name))
		return -1;
	if (!s->have_msg)
		return 0;
	if (s->in.type == type)
		return 1;
	handoff_say(s, "the new daemon sent message %d instead of %s", (int)s->in.type, name);
	return -1;
}

/* --- HELLO and STATE */

static enum task_next s_hello(struct task *t)
{
	struct handoff *s = handoff_of(t);

	handoff_limit(s, HELLO_LIMIT);
	return handoff_wait(s, S_STATE);
}

static enum task_next s_state(struct task *t)
{
	struct handoff *s = handoff_of(t);
	int got = handoff_expect(s, MSG_HELLO, "HELLO"), err;

	if (got == 0)
		return handoff_wait(s, S_STATE);
	if (got < 0 || !handoff_hello_ok(s))
		return task_goto(t, S_ROLLBACK);
	handoff_next_msg(s);
	err = handoff_send_state(s);
	if (err != 0) {
		handoff_say(s,
		    err == -EPIPE ? "the new daemon ended before STATE" : "send STATE: %s",
		    strerror(-err));
		return task_goto(t, S_ROLLBACK);
	}
	if (s->check_only)
		return task_goto(t, S_END);
	s->offered = true;
	handoff_limit(s, READY_LIMIT);
	cache_index_settle(s->ts->d->cache, server_settled, s->ts);
	return handoff_wait(s, S_READY);
}

/* --- READY: stop, let what runs end, close the databases */

void server_settled(void *arg)
{
	struct takeover_server *ts = arg;

	if (ts->handoff != NULL) {
		ts->handoff->settled = true;
		handoff_wake(ts->handoff);
	}
}

void server_quiesced(void *arg)
{
	struct takeover_server *ts = arg;

	if (ts->handoff != NULL && ts->handoff->stopped) {
		ts->handoff->quiesced = true;
		handoff_wake(ts->handoff);
	}
}

void server_stores_closed(void *arg)
{
	struct takeover_server *ts = arg;

	if (ts->handoff != NULL)
		handoff_wake(ts->handoff);
}

void server_idle(void *arg)
{
	struct takeover_server *ts = arg;

	if (ts->handoff == NULL || !ts->handoff->stopped) {
		/* After a rollback: what could not be recalled in time has ended now,
		 * unanswered, and must be done again here. */
		if (ts->d->serving && fs_holds(ts->d->fs))
			fs_handover_undo(ts->d->fs);
	} else if (ts->handoff->committed)
		handoff_wake(ts->handoff);
}

/* Reads that have had their time end: with EIO, or on the held list, from where the
 * successor gets them with COMMIT or after it. */
static void reads_end(struct handoff *s, bool resume)
{
	struct daemon *d = s->ts->d;
	unsigned n = fs_handover_end_reads(d->fs, resume);

	s->ended_reads = true;
	s->aborted += resume ? 0 : n;
	if (n > 0)
		log_info("%s: takeover: %u slow reads %s", d->args.mountpoint, n,
		    resume ? "go to the new daemon" : "fail with EIO");
}

static void reads_look(struct handoff *s)
{
	const char *action = s->ts->d->cfg->migration_slow_read_action;

	if (s->slow_due && !s->ended_reads)
		reads_end(s, strcmp(action, "resume") == 0);
}

static enum task_next s_ready(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	int got, err;

	if (s->have_msg && s->in.type == MSG_READY && s->expired && !s->settled)
		handoff_say(s, "the disk of the page store did not answer in time");
	got = handoff_expect(s, MSG_READY, "READY");
	if (got == 0)
		return handoff_wait(s, S_READY);
	if (got < 0)
		return task_goto(t, S_ROLLBACK);
	/* The daemon before us still finishes reads and will hand us the rest: with the
	 * databases closed we could not take them. */
	if (d->link != NULL) {
		handoff_limit(s, link_limit(d->cfg));
		return handoff_wait(s, S_READY);
	}
	/* What begins below stops requests and waits for the disk: let an index commit
	 * end before, while they are still served. */
	if (!s->settled)
		return handoff_wait(s, S_READY);
	handoff_next_msg(s);
	err = FAULT("takeover.old.ready");
	if (err != 0) {
		handoff_say(s, "fault point takeover.old.ready: %s", strerror(-err));
		return task_goto(t, S_ROLLBACK);
	}
	s->stopped_at = now_exact(s);
	s->stopped = true;
	log_debug("%s: takeover: the window begins", d->args.mountpoint);
	handoff_window_begin(s);
	if (d->ctl != NULL)
		ctl_pause(d->ctl);
	handoff_limit(s, d->cfg->migration_grace_period + RECALL_LIMIT);
	timer_arm(&s->slow, MAX(d->cfg->migration_slow_read_timeout, 1));
	fs_handover_begin(d->fs, server_quiesced, s->ts);
	return handoff_wait(s, S_QUIESCED);
}

static enum task_next s_quiesced(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	int err;

	if (!s->quiesced && s->expired)
		handoff_say(s, "requests that cannot be recalled did not end within "
			       "fuse.migration.ongoing.request.grace_period");
	if (handoff_broken(s, "COMMIT"))
		return task_goto(t, S_ROLLBACK);
	reads_look(s);
	if (!s->quiesced)
		return handoff_wait(s, S_QUIESCED);
	tally_save(&d->tally, d->db, loop_counters(d->loop)->v[CTR_FUSE_RESENT]);
	err = FAULT("takeover.old.state");
	if (err == 0)
		err = statedb_commit(d->db);
	if (err != 0) {
		handoff_say(s, "commit the state database: %s", strerror(-err));
		return task_goto(t, S_ROLLBACK);
	}
	fs_handover_take(d->fs, &s->held);
	fuse_chan_flush(d->chan);
	daemon_detach_state(d);
	s->closed = true;
	handoff_limit(s, CLOSE_LIMIT);
	daemon_close_stores(d, false, server_stores_closed, s->ts);
	handoff_window_hold(s);
	return handoff_wait(s, S_CLOSED);
}

static enum task_next s_closed(struct task *t)
{
	struct handoff *s = handoff_of(t);
	bool closed = daemon_stores_closed(s->ts->d), broken;

	if (s->expired && !closed)
		handoff_say(s, "the disk of the page store or of the metadata store did not "
			       "answer in time");
	s->expired = s->expired && !closed;
	broken = handoff_broken(s, "COMMIT");
	if (!broken)
		reads_look(s);
	if (s->window_open || (!closed && !s->expired))
		return handoff_wait(s, S_CLOSED);
	/* What the pool still has at work is opened again when that has ended. */
	if (!closed)
		daemon_unclose_stores(s->ts->d);
	return task_goto(t, broken ? S_ROLLBACK : S_COMMIT);
}

/* --- COMMIT: the right to write goes */

static int commit_send(struct handoff *s)
{
	uint32_t count = 0;
	int fd = -1, err;
	unsigned char kind = REC_FD_HELD;

	rec_begin(&s->out, MSG_COMMIT);
	rec_put_u64(&s->out, REC_STOPPED_AT, s->stopped_at);
	rec_put_u64(&s->out, REC_REFUSED, s->refused);
	if (!STAILQ_EMPTY(&s->held)) {
		fd = held_encode(&s->held, &count);
		if (fd < 0)
			return fd;
		rec_put_u64(&s->out, REC_COUNT, count);
		rec_put(&s->out, REC_FDS, &kind, 1);
	}
	claim_drop(&s->ts->d->epoch);
	err = handoff_send(s, &fd, fd >= 0 ? 1 : 0);
	if (fd >= 0)
		close(fd);
	return err;
}

static enum task_next s_commit(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	int err = FAULT("takeover.old.commit");

	handoff_window_end(s);
	fs_handover_take(d->fs, &s->held);
	if (err == 0)
		err = commit_send(s);
	if (err != 0) {
		claim_take(&d->epoch);
		handoff_say(s, "send COMMIT: %s", strerror(-err));
		return task_goto(t, S_ROLLBACK);
	}
	s->committed = true;
	d->serving = false;
	d->handed_over = true;
	loop_fd_want(&s->ts->lf, 0);
	spawn_handoff_committed(&s->ts->spawn, s->pid);
	handoff_limit(s, MAX(d->cfg->migration_grace_period, HANDOFF_DONE_LIMIT));
	(void)FAULT("takeover.old.committed");
	return handoff_wait(s, S_DONE);
}

/* A successor that hangs with the right in its hand is ended: its end, which we see
 * as the end of the connection, is the proof that it writes no more. */
static bool handoff_kill_peer(struct handoff *s)
{
	int pidfd, err;

	if (s->pid <= 0)
		return false;
	pidfd = (int)syscall(SYS_pidfd_open, s->pid, 0);
	if (pidfd < 0)
		return false;
	err = (int)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	close(pidfd);
	return err == 0;
}

/* The successor's keeper has the descriptors: ours must neither restart us nor hold
 * the mount when it is gone.  With one keeper for both they are the successor's. */
static void handoff_leave_keeper(struct handoff *s)
{
	if (s->same_keeper || s->keeper_left || !s->ts->d->kept)
		return;
	s->keeper_left = true;
	daemon_unstore_fds();
	notify_send("STOPPING=1\nX_BATONFS_HANDED_OVER=1\n", NULL, 0);
}

static enum task_next s_done(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;

	if (task_err(t) != 0)
		return task_goto(t, S_END);
	reads_look(s);
	if (s->expired && !s->eof && !s->have_msg) {
		log_error("%s: pid %d took the right and then hangs: %s", d->args.mountpoint,
		    (int)s->pid,
		    handoff_kill_peer(s) ? "killed"
					 : "it cannot be killed from here; its keeper must do it");
		handoff_limit(s, HANDOFF_DONE_LIMIT);
		return handoff_wait(s, S_DONE);
	}
	if (s->have_msg && s->in.type == MSG_DONE) {
		handoff_next_msg(s);
		held_free(&s->held);
		spawn_handoff_ended(&s->ts->spawn, s->pid, 0, "");
		if (s->has_keeper)
			handoff_leave_keeper(s);
		log_info(
		    "%s: handed over to pid %d (%s)", d->args.mountpoint, (int)s->pid, s->build);
		timer_cancel(&s->timer);
		s->expired = false;
		(void)FAULT("takeover.old.done");
		return task_goto(t, S_READS);
	}
	if (s->eof || s->io_err != 0 || s->have_msg) {
		handoff_broken(s, "DONE");
		handoff_say(s, "the new daemon sent message %d instead of DONE", (int)s->in.type);
		return task_goto(t, S_TAKE_BACK);
	}
	return handoff_wait(s, S_DONE);
}

/* --- DONE: only data reads are left */

/* 0, or -EAGAIN: the socket is full, they stay in the list. */
static int reads_send(struct handoff *s)
{
	unsigned char kind = REC_FD_HELD;
	uint32_t count;
	int fd, err;

	fs_handover_take(s->ts->d->fs, &s->held);
	if (STAILQ_EMPTY(&s->held) || s->eof)
		return 0;
	fd = held_encode(&s->held, &count);
	if (fd < 0)
		return fd;
	rec_begin(&s->out, MSG_RESULT);
	rec_put_u64(&s->out, REC_COUNT, count);
	rec_put(&s->out, REC_FDS, &kind, 1);
	err = handoff_send(s, &fd, 1);
	close(fd);
	if (err == 0)
		held_free(&s->held);
	return err;
}

static enum task_next s_reads(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	int err;

	/* Our successor died: its keeper's next daemon has these reads sent again.
	 * Where it has no keeper, nobody but us is left. */
	if (s->eof && !s->has_keeper && !d->ending) {
		handoff_say(s, "the new daemon ended after DONE");
		return task_goto(t, S_TAKE_BACK);
	}
	if (s->have_msg)
		handoff_next_msg(s);
	if (s->eof && !s->ended_reads)
		reads_end(s, true);
	reads_look(s);
	if (s->ended_reads && !timer_armed(&s->timer) && !s->expired)
		handoff_limit(s, MAX(d->cfg->migration_grace_period, NS_PER_MS));
	err = reads_send(s);
	if (err == -EAGAIN) {
		loop_fd_want(&s->lf, LOOP_READ | LOOP_WRITE);
		return handoff_wait(s, S_READS);
	}
	if (err != 0 && err != -EPIPE)
		log_error("%s: hand over running reads: %s", d->args.mountpoint, strerror(-err));
	if (fs_running(d->fs) == 0 || err != 0 || task_err(t) != 0 || s->expired)
		return task_goto(t, S_END);
	return handoff_wait(s, S_READS);
}

/* --- ways back */

static void handoff_feed(struct handoff *s)
{
	struct held_req *r;

	while ((r = STAILQ_FIRST(&s->held)) != NULL) {
		STAILQ_REMOVE_HEAD(&s->held, link);
		fuse_chan_feed(s->ts->d->chan, r->raw, r->len);
		free(r);
	}
}

static void handoff_resume_service(struct handoff *s)
{
	struct daemon *d = s->ts->d;

	fs_handover_undo(d->fs);
	fuse_chan_arm(d->chan);
	handoff_feed(s);
	if (d->ctl != NULL)
		ctl_resume(d->ctl);
	loop_fd_want(&s->ts->lf, LOOP_READ);
}

static enum task_next s_rollback(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	struct errtext et;
	int err = 0;

	handoff_window_end(s);
	/* Before one of them is worked off here. */
	forgets_log_drop(d->state_fd);
	if (!s->eof)
		server_refuse(s->ts, s->sock, server_ending(s->ts) ? -ESHUTDOWN : -ECANCELED,
		    s->words);
	/* Raising the epoch again makes sure that nothing begun can be finished by
	 * the successor that failed. */
	if (s->closed)
		err = daemon_take_right(d, d->epoch.mine, false, &et);
	if (err != 0) {
		log_error("%s: go on serving: %s", d->args.mountpoint, et.s);
		return task_goto(t, S_LOST);
	}
	cache_index_unsettle(d->cache);
	if (s->stopped)
		handoff_resume_service(s);
	if (!s->check_only && !server_ending(s->ts))
		handoff_report_failure(s);
	return task_goto(t, S_END);
}

static void claim_again(struct timer *t)
{
	struct handoff *s = container_of(t, struct handoff, timer);

	handoff_wake(s);
}

/* How many of the FORGETs that it was handed has the dead one worked off? */
static uint64_t forgets_gone(const struct handoff *s)
{
	const struct daemon *d = s->ts->d;
	uint64_t theirs = epoch_read(&d->epoch);

	return theirs == d->epoch.mine ? 0 : forgets_done(d->counts, theirs);
}

static enum task_next s_take_back(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;
	uint64_t gone = 0;
	struct errtext et;
	char msg[64];
	int err;

	if (s->claim_until == 0) {
		s->claim_until = loop_now(d->loop) + CLAIM_LIMIT;
		timer_cancel(&s->timer);
		timer_init(&s->timer, d->loop, claim_again);
	}
	/* A dying process closes its socket before its claim falls. */
	err = task_err(t);
	if (err == 0)
		err = claim_take(&d->epoch);
	if (err == -EBUSY && loop_now(d->loop) < s->claim_until) {
		timer_arm(&s->timer, CLAIM_RETRY);
		return handoff_wait(s, S_TAKE_BACK);
	}
	gone = forgets_gone(s);
	if (err == 0)
		err = daemon_take_right(d, epoch_read(&d->epoch), false, &et);
	else
		errtext_set(&et, err,
		    err == -EBUSY ? "another daemon serves the mount already"
				  : "this daemon is ending");
	if (err != 0) {
		log_error("%s: take the mount back: %s", d->args.mountpoint, et.s);
		return task_goto(t, S_LOST);
	}
	d->handed_over = false;
	if (s->same_keeper) {
		snprintf(msg, sizeof(msg), "MAINPID=%d", (int)getpid());
		notify_send(msg, NULL, 0);
	}
	forgets_log_apply(d->fs, d->state_fd, d->counts, d->epoch.mine, gone, &s->held);
	/* What the dead one had read comes again, and so does what it was handed. */
	if (fuse_chan_resend(d->chan) == 0)
		held_free(&s->held);
	handoff_resume_service(s);
	handoff_report_failure(s);
	return task_goto(t, S_END);
}

static enum task_next s_lost(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;

	/* Somebody else has the epoch: the mount is theirs to keep or to give up. */
	held_free(&s->held);
	s->committed = false;
	d->handed_over = true;
	d->serving = false;
	daemon_exit(d, false, DAEMON_EXIT_TAKEOVER);
	return task_goto(t, S_END);
}

static enum task_next s_end(struct task *t)
{
	struct handoff *s = handoff_of(t);
	struct daemon *d = s->ts->d;

	held_free(&s->held);
	if (s->committed && d->handed_over) {
		(void)FAULT("takeover.old.end");
		rec_begin(&s->out, MSG_END);
		rec_put_u64(&s->out, REC_ABORTED, s->aborted);
		handoff_send(s, NULL, 0);
		handoff_leave_keeper(s);
		daemon_exit(d, false, DAEMON_EXIT_OK);
		return task_end(t);
	}
	if (s->words[0] != '\0')
		spawn_handoff_ended(&s->ts->spawn, s->pid, -ECANCELED, s->words);
	daemon_end_if_asked(d);
	return task_end(t);
}

static const struct task_step handoff_steps[] = {
    [S_HELLO] = {"hello", s_hello, TO(S_STATE)},
    [S_STATE] = {"state", s_state, TO(S_STATE) | TO(S_READY) | TO(S_ROLLBACK) | TO(S_END)},
    [S_READY] = {"ready", s_ready, TO(S_READY) | TO(S_QUIESCED) | TO(S_ROLLBACK)},
    [S_QUIESCED] = {"quiesced", s_quiesced, TO(S_QUIESCED) | TO(S_CLOSED) | TO(S_ROLLBACK)},
    [S_CLOSED] = {"closed", s_closed, TO(S_CLOSED) | TO(S_COMMIT) | TO(S_ROLLBACK)},
    [S_COMMIT] = {"commit", s_commit, TO(S_DONE) | TO(S_ROLLBACK)},
    [S_DONE] = {"done", s_done, TO(S_DONE) | TO(S_READS) | TO(S_TAKE_BACK) | TO(S_END)},
    [S_READS] = {"reads", s_reads, TO(S_READS) | TO(S_TAKE_BACK) | TO(S_END)},
    [S_ROLLBACK] = {"rollback", s_rollback, TO(S_END) | TO(S_LOST)},
    [S_TAKE_BACK] = {"take back", s_take_back, TO(S_TAKE_BACK) | TO(S_END) | TO(S_LOST)},
    [S_LOST] = {"lost", s_lost, TO(S_END)},
    [S_END] = {"end", s_end, 0},
};

static void handoff_fini(struct task *t)
{
	struct handoff *s = handoff_of(t);

	handoff_free(&s);
}

static const struct task_kind handoff_kind = {
    .name = "takeover",
    .steps = handoff_steps,
    .nsteps = ARRAY_LEN(handoff_steps),
    .fini = handoff_fini,
};

void handoff_start(struct handoff *s)
{
	task_start(&s->task, s->ts->d->loop, &handoff_kind);
}
