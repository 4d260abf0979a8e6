/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <string.h>

#include "base/words.h"

TestSuite(words);

Test(words, distance)
{
	char longer[600];

	cr_assert_eq(words_distance("", ""), 0);
	cr_assert_eq(words_distance("", "abc"), 3);
	cr_assert_eq(words_distance("kitten", "sitting"), 3);
	cr_assert_eq(words_distance("ab", "ba"), 2);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	cr_assert_eq(words_distance(longer, ""), WORDS_MAX);
	cr_assert_eq(words_distance(longer, longer), 0);
}

Test(words, nearest)
{
	static const char *const known[] = {"policyMode", "path", "alluxioPath", NULL};
	static const char *const none[] = {NULL};

	cr_assert_str_eq(words_nearest("POLICYMODE", known), "policyMode");
	cr_assert_str_eq(words_nearest("paths", known), "path");
	cr_assert_str_eq(words_nearest("alluxiopth", known), "alluxioPath");
	cr_assert_null(words_nearest("writeReplicas", known));
	cr_assert_null(words_nearest("", known));
	cr_assert_null(words_nearest("path", none));
}
