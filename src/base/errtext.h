/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words for people.  Inside, functions return a negative errno; where a person
 * reads the result (start-up, control socket, takeover) they also fill an
 * errtext with the thing, the place, the cause and, where there is one, the way
 * out: "page store /var/cache/b0: open superblock: Permission denied".
 */
#ifndef BASE_ERRTEXT_H
#define BASE_ERRTEXT_H

#include <errno.h>

#define ERRTEXT_MAX 1024

struct errtext {
	char s[ERRTEXT_MAX];
};

/* What a call that just failed left in errno, negative; never 0. */
static inline int errtext_errno(void)
{
	int err = -errno;

	return err < 0 ? err : -EIO;
}

/* Formats into et (which may be NULL) and returns err, so that a failing
 * function can say `return errtext_set(et, -EINVAL, "...")`. */
int errtext_set(struct errtext *et, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before what is there; returns err. */
int errtext_prefix(struct errtext *et, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
