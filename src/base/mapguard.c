/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/mapguard.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local sigjmp_buf *guard;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	sigjmp_buf *to = guard;
	sigset_t set;

	(void)context;
	if (to != NULL && info->si_code == BUS_ADRERR) {
		guard = NULL;
		/* ThreadSanitizer has it blocked here all the same. */
		sigemptyset(&set);
		sigaddset(&set, sig);
		(void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
		siglongjmp(*to, 1);
	}
	/* Not ours: it comes again, and ends the process. */
	(void)signal(sig, SIG_DFL);
	if (info->si_code <= 0)
		(void)raise(sig);
}

static void install(void)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = on_bus;
	/* NODEFER: leaving the handler by a jump leaves no signal blocked. */
	sa.sa_flags = SA_SIGINFO | SA_NODEFER;
	sigemptyset(&sa.sa_mask);
	(void)sigaction(SIGBUS, &sa, NULL); /* cannot fail */
}

bool mapguard_run(void (*fn)(void *arg), void *arg)
{
	sigjmp_buf here;

	(void)pthread_once(&once, install);
	assert(guard == NULL);
	if (sigsetjmp(here, 0) != 0)
		return false;
	guard = &here;
	fn(arg);
	guard = NULL;
	return true;
}

static pthread_mutex_t lost_lock = PTHREAD_MUTEX_INITIALIZER;
static struct lost {
	struct lost *next;
	void *what;
} *lost;

void mapguard_lose(void *what)
{
	struct lost *l = malloc(sizeof(*l));

	if (l == NULL)
		return;
	l->what = what;
	(void)pthread_mutex_lock(&lost_lock);
	l->next = lost;
	lost = l;
	(void)pthread_mutex_unlock(&lost_lock);
}
