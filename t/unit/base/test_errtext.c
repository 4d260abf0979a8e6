/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/errtext.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

TestSuite(errtext);

Test(errtext, set_formats_and_returns_the_error)
{
	struct errtext et = {"old"};

	cr_assert_eq(errtext_set(&et, -EINVAL, "%s: %d", "x", 3), -EINVAL);
	cr_assert_str_eq(et.s, "x: 3");
	cr_assert_eq(errtext_set(&et, 0, "%s", ""), 0);
	cr_assert_str_eq(et.s, "");
}

Test(errtext, null_is_fine)
{
	cr_assert_eq(errtext_set(NULL, -EIO, "%s", "x"), -EIO);
	cr_assert_eq(errtext_prefix(NULL, -EIO, "%s", "x"), -EIO);
}

Test(errtext, prefix_goes_before)
{
	struct errtext et;

	errtext_set(&et, -EACCES, "open superblock: %s", strerror(EACCES));
	cr_assert_eq(errtext_prefix(&et, -EACCES, "page store %s", "/var/cache/b0"), -EACCES);
	cr_assert_str_eq(et.s, "page store /var/cache/b0: open superblock: Permission denied");
}

Test(errtext, may_use_its_own_text)
{
	struct errtext et;

	errtext_set(&et, -EIO, "cause");
	errtext_set(&et, -EIO, "(%s) and (%s)", et.s, et.s);
	cr_assert_str_eq(et.s, "(cause) and (cause)");
	errtext_prefix(&et, -EIO, "<%s>", et.s);
	cr_assert_str_eq(et.s, "<(cause) and (cause)>: (cause) and (cause)");
}

Test(errtext, says_that_it_was_cut)
{
	char longer[3 * ERRTEXT_MAX];
	struct errtext et;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	errtext_set(&et, -EIO, "%s", longer);
	cr_assert_eq(strlen(et.s), ERRTEXT_MAX - 1);
	cr_assert_str_eq(et.s + ERRTEXT_MAX - 5, "x...");
	errtext_prefix(&et, -EIO, "%s", "here");
	cr_assert_eq(strlen(et.s), ERRTEXT_MAX - 1);
	cr_assert_eq(strncmp(et.s, "here: xx", 8), 0);
	cr_assert_str_eq(et.s + ERRTEXT_MAX - 5, "x...");
	/* exactly full is not cut */
	longer[ERRTEXT_MAX - 1] = '\0';
	errtext_set(&et, -EIO, "%s", longer);
	cr_assert_str_eq(et.s, longer);
}
