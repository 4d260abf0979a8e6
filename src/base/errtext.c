/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/errtext.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Says that there was more: a sentence that is cut must not look complete. */
static void mark_cut(struct errtext *et)
{
	memcpy(et->s + ERRTEXT_MAX - sizeof("..."), "...", sizeof("..."));
}

int errtext_set(struct errtext *et, int err, const char *fmt, ...)
{
	struct errtext made; /* the arguments may point into et */
	va_list ap;
	int n;

	if (et == NULL)
		return err;
	va_start(ap, fmt);
	n = vsnprintf(made.s, sizeof(made.s), fmt, ap);
	va_end(ap);
	if (n < 0)
		snprintf(made.s, sizeof(made.s), "%s", strerror(err < 0 ? -err : err));
	else if ((size_t)n >= sizeof(made.s))
		mark_cut(&made);
	memcpy(et->s, made.s, strlen(made.s) + 1);
	return err;
}

int errtext_prefix(struct errtext *et, int err, const char *fmt, ...)
{
	char prefix[ERRTEXT_MAX];
	va_list ap;
	int n;

	if (et == NULL)
		return err;
	va_start(ap, fmt);
	n = vsnprintf(prefix, sizeof(prefix), fmt, ap);
	va_end(ap);
	if (n < 0)
		return err;
	return errtext_set(et, err, "%s: %s", prefix, et->s);
}
