/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/units.h"
#include "reactor/loop_priv.h"

/* How many deferred calls may run before the descriptors get their turn again. */
#define DEFERRED_PER_TURN 10000

#define WAKE_UNSET UINT64_MAX

static void libevent_log(int severity, const char *msg)
{
	if (severity >= EVENT_LOG_WARN)
		log_warn("libevent: %s", msg);
	else
		log_debug("libevent: %s", msg);
}

static void wake_fired(evutil_socket_t fd, short what, void *arg)
{
	struct loop *lp = arg;
	uint64_t n;

	(void)what;
	CHECK_OBJ(lp, LOOP_MAGIC);
	if (read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n))
		lp->wake_at = WAKE_UNSET;
}

/* Timers have a timerfd of their own: libevent's would cost a system call each
 * turn, or else be late by up to a jiffy. */
static int wake_init(struct loop *lp)
{
	lp->wake_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (lp->wake_fd < 0)
		return -errno;
	errno = 0;
	lp->wake = event_new(lp->base, lp->wake_fd, EV_READ | EV_PERSIST, wake_fired, lp);
	if (lp->wake == NULL || event_add(lp->wake, NULL) < 0)
		return errno != 0 ? -errno : -ENOMEM;
	return 0;
}

static struct event_base *base_new(void)
{
	struct event_config *cfg;
	struct event_base *base = NULL;

	cfg = event_config_new();
	if (cfg == NULL)
		return NULL;
	if (event_config_require_features(cfg, EV_FEATURE_O1) == 0 &&
	    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV) == 0)
		base = event_base_new_with_config(cfg);
	event_config_free(cfg);
	return base;
}

int loop_new(struct loop **out, const struct clock *clk)
{
	struct loop *lp;
	int err;

	*out = NULL;
	event_set_log_callback(libevent_log);
	ALLOC_OBJ(lp, LOOP_MAGIC);
	if (lp == NULL)
		return -ENOMEM;
	lp->clk = clk;
	lp->wake_at = WAKE_UNSET;
	lp->wake_fd = -1;
	TAILQ_INIT(&lp->deferred);
	TAILQ_INIT(&lp->hooks);
	TAILQ_INIT(&lp->tasks);

	errno = 0;
	lp->base = base_new();
	if (lp->base == NULL) {
		err = errno != 0 ? -errno : -ENOMEM;
		goto fail;
	}
	err = clk->manual ? 0 : wake_init(lp);
	if (err < 0)
		goto fail;
	*out = lp;
	return 0;
fail:
	loop_free(&lp);
	return err;
}

void loop_free(struct loop **lpp)
{
	struct loop *lp;

	TAKE_OBJ(lp, lpp, LOOP_MAGIC);
	assert(!lp->in_turn);
	assert(lp->ntasks == 0 && TAILQ_EMPTY(&lp->tasks));
	assert(TAILQ_EMPTY(&lp->deferred));
	assert(TAILQ_EMPTY(&lp->hooks));
	assert(lp->timers == NULL);
	assert(lp->nfds == 0);
	assert(lp->nsignals == 0);
	if (lp->wake != NULL)
		event_free(lp->wake);
	if (lp->wake_fd >= 0)
		close(lp->wake_fd);
	if (lp->base != NULL)
		event_base_free(lp->base);
	FREE_OBJ(lp);
}

/* --- The turn. */

/* Sets the timerfd for the earliest deadline.  When it is set for an earlier time
 * already it is left alone: that costs one empty turn, not a system call for each
 * timer that was armed and cancelled in time.  False: the loop must not sleep. */
static bool wake_set(struct loop *lp)
{
	struct itimerspec its = { .it_interval = { 0, 0 } };

	if (lp->clk->manual || lp->timers == NULL || lp->timers->when >= lp->wake_at)
		return true;
	its.it_value.tv_sec = (time_t)(lp->timers->when / NS_PER_S);
	its.it_value.tv_nsec = (long)(lp->timers->when % NS_PER_S);
	if (timerfd_settime(lp->wake_fd, TFD_TIMER_ABSTIME, &its, NULL) < 0)
		return false;
	lp->wake_at = lp->timers->when;
	return true;
}

static void wait_for_events(struct loop *lp, bool wait)
{
	int flags = EVLOOP_ONCE, rc;

	lp->now_valid = false;
	if (!wake_set(lp) || !wait || !TAILQ_EMPTY(&lp->deferred))
		flags |= EVLOOP_NONBLOCK;
	else if (lp->clk->manual && lp->timers != NULL)
		flags |= EVLOOP_NONBLOCK; /* only the test can make them due */
	rc = event_base_loop(lp->base, flags);
	assert(rc >= 0);
	(void)rc;
}

static void run_deferred(struct loop *lp)
{
	struct deferred *d;
	unsigned n;

	for (n = 0; n < DEFERRED_PER_TURN; n++) {
		d = TAILQ_FIRST(&lp->deferred);
		if (d == NULL)
			break;
		TAILQ_REMOVE(&lp->deferred, d, link);
		d->queued = false;
		lp->ran++;
		d->fn(d);
	}
}

static void run_hooks(struct loop *lp)
{
	struct turn_hook *h;

	for (h = TAILQ_FIRST(&lp->hooks); h != NULL; h = lp->hook_next) {
		lp->hook_next = TAILQ_NEXT(h, link);
		h->fn(h);
	}
}

bool loop_turn(struct loop *lp, bool wait)
{
	uint64_t ran;

	CHECK_OBJ(lp, LOOP_MAGIC);
	assert(!lp->in_turn);
	lp->in_turn = true;
	COUNT(lp, LOOP_TURNS, 1);
	ran = lp->ran;
	wait_for_events(lp, wait);
	timer_run_expired(lp);
	run_deferred(lp);
	run_hooks(lp);
	lp->in_turn = false;
	lp->now_valid = false;
	return lp->ran != ran;
}

int loop_run(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	while (!lp->stop)
		loop_turn(lp, true);
	lp->stop = false;
	return lp->result;
}

void loop_stop(struct loop *lp, int result)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	if (lp->stop)
		return;
	lp->stop = true;
	lp->result = result;
}

uint64_t loop_now(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	if (!lp->now_valid) {
		lp->now = lp->clk->monotonic(lp->clk);
		lp->now_valid = lp->in_turn;
	}
	return lp->now;
}

uint64_t loop_wall(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	return lp->clk->wall(lp->clk);
}

const struct clock *loop_clock(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	return lp->clk;
}

struct counters *loop_counters(struct loop *lp)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	return &lp->counters;
}

/* --- Deferred calls and hooks. */

void loop_defer(struct loop *lp, struct deferred *d, void (*fn)(struct deferred *d))
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	assert(fn != NULL);
	if (d->queued) {
		assert(d->fn == fn);
		return;
	}
	d->fn = fn;
	d->queued = true;
	TAILQ_INSERT_TAIL(&lp->deferred, d, link);
}

void loop_undefer(struct loop *lp, struct deferred *d)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	if (!d->queued)
		return;
	d->queued = false;
	TAILQ_REMOVE(&lp->deferred, d, link);
}

void loop_hook_add(struct loop *lp, struct turn_hook *h, void (*fn)(struct turn_hook *h))
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	assert(fn != NULL);
	h->fn = fn;
	TAILQ_INSERT_TAIL(&lp->hooks, h, link);
}

void loop_hook_remove(struct loop *lp, struct turn_hook *h)
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	if (lp->hook_next == h)
		lp->hook_next = TAILQ_NEXT(h, link);
	TAILQ_REMOVE(&lp->hooks, h, link);
	h->fn = NULL;
}

/* --- Descriptors. */

static void fd_fired(evutil_socket_t fd, short what, void *arg)
{
	struct loop_fd *lf = arg;
	unsigned bits = 0;

	(void)fd;
	if (what & EV_READ)
		bits |= LOOP_READ;
	if (what & EV_WRITE)
		bits |= LOOP_WRITE;
	lf->loop->ran++;
	lf->fn(lf, bits);
}

int loop_fd_init(struct loop_fd *lf, struct loop *lp, int fd,
    void (*fn)(struct loop_fd *lf, unsigned what))
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	*lf = (struct loop_fd){ .loop = lp, .fd = fd, .fn = fn };
	lf->ev = event_new(lp->base, fd, EV_PERSIST, fd_fired, lf);
	if (lf->ev == NULL) {
		lf->loop = NULL;
		return -ENOMEM;
	}
	lp->nfds++;
	return 0;
}

int loop_fd_want(struct loop_fd *lf, unsigned want)
{
	short what = EV_PERSIST;

	CHECK_OBJ(lf->loop, LOOP_MAGIC);
	assert((want & ~(LOOP_READ | LOOP_WRITE)) == 0);
	if (want == lf->want)
		return 0;
	lf->want = 0;
	if (event_del(lf->ev) < 0)
		return -EIO;
	if (want == 0)
		return 0;
	if (want & LOOP_READ)
		what |= EV_READ;
	if (want & LOOP_WRITE)
		what |= EV_WRITE;
	errno = 0;
	if (event_assign(lf->ev, lf->loop->base, lf->fd, what, fd_fired, lf) < 0)
		return -EINVAL;
	if (event_add(lf->ev, NULL) < 0)
		return errno != 0 ? -errno : -ENOMEM;
	lf->want = want;
	return 0;
}

void loop_fd_fini(struct loop_fd *lf)
{
	if (lf->ev == NULL)
		return;
	CHECK_OBJ(lf->loop, LOOP_MAGIC);
	event_free(lf->ev);
	lf->ev = NULL;
	lf->want = 0;
	assert(lf->loop->nfds > 0);
	lf->loop->nfds--;
	lf->loop = NULL;
}

/* --- Signals. */

static void signal_fired(evutil_socket_t signo, short what, void *arg)
{
	struct loop_signal *ls = arg;

	(void)signo;
	(void)what;
	ls->loop->ran++;
	ls->fn(ls);
}

int loop_signal_init(struct loop_signal *ls, struct loop *lp, int signo,
    void (*fn)(struct loop_signal *ls))
{
	CHECK_OBJ(lp, LOOP_MAGIC);
	*ls = (struct loop_signal){ .signo = signo, .fn = fn };
	ls->ev = evsignal_new(lp->base, signo, signal_fired, ls);
	if (ls->ev == NULL)
		return -ENOMEM;
	errno = 0;
	if (evsignal_add(ls->ev, NULL) < 0) {
		event_free(ls->ev);
		ls->ev = NULL;
		return errno != 0 ? -errno : -ENOMEM;
	}
	ls->loop = lp;
	lp->nsignals++;
	return 0;
}

void loop_signal_fini(struct loop_signal *ls)
{
	if (ls->ev == NULL)
		return;
	CHECK_OBJ(ls->loop, LOOP_MAGIC);
	event_free(ls->ev);
	ls->ev = NULL;
	assert(ls->loop->nsignals > 0);
	ls->loop->nsignals--;
	ls->loop = NULL;
}
