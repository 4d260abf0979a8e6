/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The allocation functions defined here come before those of the C library or of
 * the sanitizers' runtime, and pass on to them.  They run before that runtime is
 * initialized, so they are not instrumented.
 */
#include "nth_fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define EARLY __attribute__((no_sanitize("address", "thread", "undefined")))

static __thread unsigned countdown; /* 0: not armed */
static __thread bool fired;

void nth_arm(unsigned n)
{
	fired = false;
	countdown = n;
}

void nth_disarm(void)
{
	countdown = 0;
}

bool nth_fired(void)
{
	countdown = 0;
	return fired;
}

EARLY static bool fail_now(void)
{
	if (countdown == 0 || --countdown > 0)
		return false;
	fired = true;
	errno = ENOMEM;
	return true;
}

EARLY static void *find_next(const char *name)
{
	void *sym;

	sym = dlsym(RTLD_NEXT, name);
	if (sym == NULL)
		abort();
	return sym;
}

/* Declares `next`, the following definition of `name`.  Threads that race look
 * it up twice and store the same. */
#define NEXT(name)                                                                                 \
	static __typeof__(&name) cached;                                                           \
	__typeof__(&name) next = __atomic_load_n(&cached, __ATOMIC_RELAXED);                       \
	if (next == NULL) {                                                                        \
		next = (__typeof__(&name))find_next(#name);                                        \
		__atomic_store_n(&cached, next, __ATOMIC_RELAXED);                                 \
	}

EARLY void *malloc(size_t size)
{
	NEXT(malloc);
	return fail_now() ? NULL : next(size);
}

EARLY void *calloc(size_t n, size_t size)
{
	NEXT(calloc);
	return fail_now() ? NULL : next(n, size);
}

EARLY void *realloc(void *p, size_t size)
{
	NEXT(realloc);
	return fail_now() ? NULL : next(p, size);
}

EARLY int posix_memalign(void **p, size_t align, size_t size)
{
	NEXT(posix_memalign);
	return fail_now() ? ENOMEM : next(p, align, size);
}

EARLY void *aligned_alloc(size_t align, size_t size)
{
	NEXT(aligned_alloc);
	return fail_now() ? NULL : next(align, size);
}
