/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The part of criterion that our units use, without its sandbox, whose fixed
 * mappings the thread sanitizer does not allow.  Compile with -I t/lib/plain
 * and link plain.c instead of libcriterion to run units with -fsanitize=thread.
 */
#ifndef T_LIB_PLAIN_CRITERION_H
#define T_LIB_PLAIN_CRITERION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plain_opts {
	void (*init)(void);
	void (*fini)(void);
	int signal;	/* the test must die of it */
	int exit_code;
	bool disabled;
	double timeout; /* of one outside; here each test has that of plain.c */
	const char *description;
};

struct plain_test {
	const char *suite, *name; /* name NULL: the suite itself */
	struct plain_opts opts;
	void (*fn)(void);
	struct plain_test *next;
};

void plain_register(struct plain_test *t);
/* Reports and ends the test's process. */
_Noreturn void plain_fail(const char *file, int line, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
_Noreturn void plain_skip(void);

#define PLAIN_REGISTER(id, suite_, name_, fn_, ...)                                                \
	__attribute__((constructor)) static void id##_register(void)                               \
	{                                                                                          \
		static struct plain_test this_test = {                                             \
			.suite = suite_, .name = name_, .fn = fn_, .opts = { __VA_ARGS__ }         \
		};                                                                                 \
		plain_register(&this_test);                                                        \
	}

#define TestSuite(suite, ...) PLAIN_REGISTER(suite##_suite, #suite, NULL, NULL, __VA_ARGS__)

#define Test(suite, name, ...)                                                                     \
	static void suite##_##name##_test(void);                                                   \
	PLAIN_REGISTER(suite##_##name, #suite, #name, suite##_##name##_test, __VA_ARGS__)          \
	static void suite##_##name##_test(void)

/* The message, if there is one, is a literal. */
#define PLAIN_CHECK(ok, what, ...)                                                                 \
	do {                                                                                       \
		if (!(ok))                                                                         \
			plain_fail(__FILE__, __LINE__, what, " " __VA_ARGS__);                     \
	} while (0)

#define cr_assert(c, ...) PLAIN_CHECK(c, #c, __VA_ARGS__)
#define cr_assert_not(c, ...) PLAIN_CHECK(!(c), "not " #c, __VA_ARGS__)
#define cr_assert_null(p, ...) PLAIN_CHECK((p) == NULL, #p " == NULL", __VA_ARGS__)
#define cr_assert_not_null(p, ...) PLAIN_CHECK((p) != NULL, #p " != NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) PLAIN_CHECK((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) PLAIN_CHECK((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) PLAIN_CHECK((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) PLAIN_CHECK((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) PLAIN_CHECK((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) PLAIN_CHECK((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) PLAIN_CHECK(strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) PLAIN_CHECK(strcmp(a, b) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_assert_str_empty(a, ...) PLAIN_CHECK(*(a) == '\0', #a " is empty", __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) \
	PLAIN_CHECK(memcmp(a, b, n) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_expect_eq cr_assert_eq
#define cr_skip_test(...) plain_skip()
#define cr_log_info(...) (void)(fprintf(stderr, __VA_ARGS__), fputc('\n', stderr))
#define cr_assert_fail(...) PLAIN_CHECK(false, "must not come here", __VA_ARGS__)

#endif
