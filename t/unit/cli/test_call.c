/* SPDX-License-Identifier: BSD-2-Clause */
/* The client against a daemon that says what the test wants, one string a connection. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/obj.h"
#include "base/units.h"
#include "cli/cli.h"

/* The one of batonfs.c prints. */
static char said[2048];

enum cli_exit cli_error(const struct cli *c, const char *fmt, ...)
{
	va_list ap;

	(void)c;
	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
	return CLI_FAILURE;
}

static char dir[64], path[108];
static int listener;
static struct cli cli;
static pthread_t server;
static const char *const *script; /* NULL ends; "~": silence until the client leaves */
static char asked[4][512];
static unsigned connections;

static void serve_one(int fd, const char *answer)
{
	char *rq = asked[connections++];
	size_t n = 0;
	char rest;

	while (strchr(rq, '\n') == NULL) {
		ssize_t got = recv(fd, rq + n, sizeof(asked[0]) - n - 1, 0);

		if (got <= 0)
			break;
		n += (size_t)got;
		rq[n] = '\0';
	}
	if (strcmp(answer, "~") == 0)
		while (recv(fd, &rest, 1, 0) > 0)
			;
	else
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	close(fd);
}

static void *serve(void *arg)
{
	(void)arg;
	for (; *script != NULL; script++) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			break;
		serve_one(fd, *script);
	}
	return NULL;
}

static void setup(void)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	strcpy(dir, "/tmp/batonfs-cli.XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a", dir);
	cr_assert_eq(mkdir(path, 0700), 0);
	snprintf(path, sizeof(path), "%s/a/control", dir);
	strcpy(sa.sun_path, path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&sa, sizeof(sa)), 0);
	cr_assert_eq(listen(listener, 4), 0);
	cli = (struct cli){.socket = path, .timeout_ns = 30 * NS_PER_S};
}

static void teardown(void)
{
	char cmd[128];

	close(listener);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	cr_assert_eq(system(cmd), 0);
}

TestSuite(cli_call, .init = setup, .fini = teardown);

static enum cli_exit ask(const char *const *answers, bool repeatable, struct json **v,
    int (*progress)(struct cli *c, void *arg, const struct json *row), void *arg)
{
	struct cli_call call;
	enum cli_exit ex;

	script = answers;
	cr_assert_eq(pthread_create(&server, NULL, serve, NULL), 0);
	cr_assert_eq(cli_call_new(&cli, &call, "fs stat"), CLI_OK);
	json_add_text(call.args, "path", "/x");
	call.repeatable = repeatable;
	call.progress = progress;
	call.arg = arg;
	ex = cli_call_run(&cli, &call, v);
	/* A server that waits for a client that does not come. */
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	return ex;
}

Test(cli_call, a_result)
{
	const char *const answers[] = {"{\"result\":{\"a\":1}}\n", NULL};
	struct json *v;

	cr_assert_eq(ask(answers, true, &v, NULL, NULL), CLI_OK);
	cr_assert_str_eq(asked[0], "{\"command\":\"fs stat\",\"args\":{\"path\":\"/x\"}}\n");
	cr_assert_eq(json_get_u64(v, "a", 0), 1);
	json_free(&v);
}

static int count(struct cli *c, void *arg, const struct json *row)
{
	(void)c;
	cr_assert_eq(json_get_u64(row, "n", 99), *(unsigned *)arg);
	++*(unsigned *)arg;
	return CLI_OK;
}

Test(cli_call, progress)
{
	const char *const answers[] = {"{\"progress\":{\"n\":0}}\n{\"progress\":{\"n\":1}}\n"
				       "{\"result\":{}}\n", NULL};
	unsigned n = 0;
	struct json *v;

	cr_assert_eq(ask(answers, true, &v, count, &n), CLI_OK);
	cr_assert_eq(n, 2);
	json_free(&v);
}

static void fails(const char *answer, const char *words)
{
	const char *const answers[] = {answer, NULL};
	struct json *v;

	cr_assert_eq(ask(answers, false, &v, NULL, NULL), CLI_FAILURE);
	cr_assert_null(v);
	cr_assert_not_null(strstr(said, words), "\"%s\" is not in \"%s\"", words, said);
}

Test(cli_call, an_error)
{
	fails("{\"error\":{\"code\":\"ENOENT\",\"message\":\"/x: No such file or directory\"}}\n",
	    "/x: No such file or directory");
}

Test(cli_call, nonsense)
{
	fails("hello\n", "line 1");
}

Test(cli_call, neither_result_nor_error)
{
	fails("{\"else\":1}\n", "neither");
}

Test(cli_call, gone_in_the_middle)
{
	fails("{\"progress\":{}}\n{\"prog", "before it was done");
}

Test(cli_call, gone_without_a_word)
{
	fails("", "without an answer");
}

Test(cli_call, silence)
{
	cli.timeout_ns = 50 * NS_PER_MS;
	fails("~", "does not answer");
}

/* A takeover under the client: the successor is asked, once. */
Test(cli_call, a_successor_answers)
{
	const char *const answers[] = {"", "{\"result\":{\"a\":2}}\n", NULL};
	struct json *v;

	cr_assert_eq(ask(answers, true, &v, NULL, NULL), CLI_OK);
	cr_assert_eq(json_get_u64(v, "a", 0), 2);
	cr_assert_eq(connections, 2);
	cr_assert_str_eq(asked[0], asked[1]);
	json_free(&v);
}

Test(cli_call, two_that_leave_are_enough)
{
	const char *const answers[] = {"", "", "{\"result\":{}}\n", NULL};
	struct json *v;

	cr_assert_eq(ask(answers, true, &v, NULL, NULL), CLI_FAILURE);
	cr_assert_eq(connections, 2);
	cr_assert_null(v);
}

Test(cli_call, what_is_not_repeatable_is_asked_once)
{
	const char *const answers[] = {"", "{\"result\":{}}\n", NULL};
	struct json *v;

	cr_assert_eq(ask(answers, false, &v, NULL, NULL), CLI_FAILURE);
	cr_assert_eq(connections, 1);
}

/* The daemon that was asked dies before it can say how the upgrade ended: who serves tells. */
static enum cli_exit upgrade(const char *const *answers)
{
	enum cli_exit ex;

	script = answers;
	cr_assert_eq(pthread_create(&server, NULL, serve, NULL), 0);
	ex = cli_upgrade(&cli);
	shutdown(listener, SHUT_RDWR);
	pthread_join(server, NULL);
	return ex;
}

#define STARTED_7 "{\"progress\":{\"message\":\"starting\",\"pid\":7}}\n"

Test(cli_call, an_upgrade_whose_daemon_dies_when_it_has_handed_over)
{
	const char *const answers[] = {
	    STARTED_7, "{\"result\":{\"pid\":7,\"version\":\"2\"}}\n", NULL};

	cr_assert_eq(upgrade(answers), CLI_OK);
	cr_assert_eq(connections, 2);
	cr_assert_not_null(strstr(asked[1], "\"status\""), "%s", asked[1]);
	cr_assert_str_eq(said, "");
}

Test(cli_call, an_upgrade_whose_daemon_dies_and_is_restarted)
{
	const char *const answers[] = {
	    STARTED_7, "{\"result\":{\"pid\":8,\"version\":\"1\"}}\n", NULL};

	cr_assert_eq(upgrade(answers), CLI_TAKEOVER);
	cr_assert_not_null(strstr(said, "pid 8 (version 1) serves"), "%s", said);
}

Test(cli_call, an_upgrade_whose_daemon_dies_for_good)
{
	const char *const answers[] = {STARTED_7, "", "", NULL};

	cr_assert_eq(upgrade(answers), CLI_FAILURE);
	cr_assert_not_null(strstr(said, "without an answer"), "%s", said);
}

Test(cli_call, a_check_whose_daemon_dies)
{
	const char *const answers[] = {STARTED_7, NULL};

	cli.seen = CLI_CHECK;
	cr_assert_eq(upgrade(answers), CLI_FAILURE);
	cr_assert_not_null(strstr(said, "before it could answer"), "%s", said);
	cr_assert_eq(connections, 1);
}

Test(cli_call, nobody_there)
{
	struct json *v;

	cli.socket = "/tmp/batonfs-no-such-socket";
	cr_assert_eq(cli_ask(&cli, "status", &v), CLI_FAILURE);
	cr_assert_not_null(strstr(said, "no batonfs daemon answers on /tmp/batonfs-no-such"));
	cli.socket = NULL;
	cli.mountpoint = "/tmp/batonfs-no-such-directory";
	cr_assert_eq(cli_ask(&cli, "status", &v), CLI_FAILURE);
	cr_assert_not_null(strstr(said, "No such file or directory"));
}

Test(cli_call, finds_those_that_listen)
{
	struct cli_found f;
	char stale[108];
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd;

	snprintf(stale, sizeof(stale), "%s/b", dir);
	cr_assert_eq(mkdir(stale, 0700), 0);
	strcat(stale, "/control");
	strcpy(sa.sun_path, stale);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	cr_assert_eq(cli_find_all(dir, &f), 0);
	cr_assert_eq(f.n, 1);
	cr_assert_str_eq(f.path[0], path);
	cli_found_free(&f);
	cr_assert_eq(cli_find_all("/tmp/batonfs-no-such-directory", &f), 0);
	cr_assert_eq(f.n, 0);
}

Test(cli_call, a_mount_point_becomes_its_socket)
{
	struct cli c = {.mountpoint = "/tmp//"};

	cr_assert_eq(cli_find(&c), CLI_OK);
	cr_assert_str_eq(c.path, "/run/batonfs/tmp/control");
}
