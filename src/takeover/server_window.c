/* SPDX-License-Identifier: BSD-2-Clause */
/* Hand-over, old side: the window, in which requests wait or are sorted. */
#include "base/fault.h"
#include "base/obj.h"
#include "daemon.h"
#include "reactor/fuse_chan.h"
#include "takeover/server_priv.h"

/* For whom it is runs here, or was cancelled and is looked after by who does it again. */
static void window_interrupt(void *arg, const void *raw, size_t len)
{
	struct handoff *s = arg;

	fuse_chan_feed(s->ts->d->chan, raw, len);
}

void handoff_window_begin(struct handoff *s)
{
	struct daemon *d = s->ts->d;

	fuse_chan_disarm(d->chan);
	sieve_start(&s->sieve, d->loop, fuse_chan_fd(d->chan), d->state_fd, &d->epoch,
	    d->cfg->migration_mutation_hold, window_interrupt, s);
}

void handoff_window_end(struct handoff *s)
{
	s->refused += sieve_stop(&s->sieve, &s->held);
}

static void window_wait(struct pool_job *job)
{
	(void)job;
	(void)FAULT("takeover.old.window");
}

static void window_waited(struct pool_job *job)
{
	struct handoff *s = container_of(job, struct handoff, window);

	s->window_open = false;
	handoff_wake(s);
}

void handoff_window_hold(struct handoff *s)
{
	if (!fault_armed)
		return;
	s->window_open = true;
	pool_submit(s->ts->d->pool, NULL, &s->window, window_wait, window_waited);
}
