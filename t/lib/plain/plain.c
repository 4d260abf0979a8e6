/* SPDX-License-Identifier: BSD-2-Clause */
/* Runs each registered test in a process of its own.  Arguments: suites to run. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "criterion/criterion.h"

#define TIMEOUT 900
#define EXIT_SKIP 77

static struct plain_test *tests;

void plain_register(struct plain_test *t)
{
	t->next = tests;
	tests = t;
}

void plain_fail(const char *file, int line, const char *what, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%d: %s", file, line, what);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_exit(1);
}

void plain_skip(void)
{
	_exit(EXIT_SKIP);
}

static const struct plain_test *suite_of(const struct plain_test *t)
{
	const struct plain_test *s;

	for (s = tests; s != NULL; s = s->next)
		if (s->name == NULL && strcmp(s->suite, t->suite) == 0)
			return s;
	return NULL;
}

static void run_here(const struct plain_test *t)
{
	const struct plain_test *s = suite_of(t);

	alarm(TIMEOUT);
	if (s != NULL && s->opts.init != NULL)
		s->opts.init();
	if (t->opts.init != NULL)
		t->opts.init();
	t->fn();
	if (t->opts.fini != NULL)
		t->opts.fini();
	if (s != NULL && s->opts.fini != NULL)
		s->opts.fini();
	exit(0);
}

static bool run(const struct plain_test *t)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		run_here(t);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (t->opts.signal != 0)
		return WIFSIGNALED(status) && WTERMSIG(status) == t->opts.signal;
	if (!WIFEXITED(status))
		return false;
	if (WEXITSTATUS(status) == EXIT_SKIP) {
		fprintf(stderr, "skipped %s::%s\n", t->suite, t->name);
		return true;
	}
	return WEXITSTATUS(status) == t->opts.exit_code;
}

static bool wanted(const struct plain_test *t, char **suites)
{
	if (t->name == NULL || t->opts.disabled)
		return false;
	if (*suites == NULL)
		return true;
	for (; *suites != NULL; suites++)
		if (strcmp(*suites, t->suite) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	const struct plain_test *t;
	unsigned ran = 0, failed = 0;

	(void)argc;
	for (t = tests; t != NULL; t = t->next) {
		if (!wanted(t, argv + 1))
			continue;
		ran++;
		if (!run(t)) {
			failed++;
			fprintf(stderr, "FAIL %s::%s\n", t->suite, t->name);
		}
	}
	printf("%u tests, %u failed\n", ran, failed);
	return failed > 0 || ran == 0;
}
