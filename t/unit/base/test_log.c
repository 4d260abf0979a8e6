/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/obj.h"

/* Criterion reports on stderr: it is given back before anything is asserted. */
static int saved_stderr = -1;

static void redirect(int fd)
{
	fflush(stderr);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
}

static void restore(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
}

static void setup(void)
{
	unsetenv("JOURNAL_STREAM");
	alarm(20); /* a log that blocks must not hang the run */
}

TestSuite(log, .init = setup);

static char captured[65536];

static int capture_begin(void)
{
	char name[] = "/tmp/test_log.XXXXXX";
	int fd = mkstemp(name);

	cr_assert_geq(fd, 0);
	unlink(name);
	redirect(fd);
	return fd;
}

static void capture_end(int fd)
{
	ssize_t n;

	restore();
	n = pread(fd, captured, sizeof(captured) - 1, 0);
	cr_assert_geq(n, 0);
	captured[n] = '\0';
	close(fd);
}

Test(log, foreground_lines_have_time_ident_pid_and_level)
{
	int fd = capture_begin(), pid = 0, used = 0;
	char word[32] = "", z = 0;

	log_open("testd", LOG_TO_STDERR);
	log_error("one %d", 1);
	log_warn("two");
	log_info("three");
	capture_end(fd);
	cr_assert_eq(
	    sscanf(captured, "%*4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3d%c testd[%d] %31[a-z]: one 1\n%n",
		&z, &pid, word, &used),
	    3, "%s", captured);
	cr_assert_eq(z, 'Z');
	cr_assert_eq(pid, getpid());
	cr_assert_str_eq(word, "error");
	cr_assert_not_null(strstr(captured, "warning: two\n"));
	cr_assert_not_null(strstr(captured, "info: three\n"));
}

Test(log, level_decides)
{
	static const struct {
		enum log_level level;
		const char *seen;
	} rows[] = {
	    {LOG_LVL_ERROR, "e"},
	    {LOG_LVL_WARN, "ew"},
	    {LOG_LVL_INFO, "ewi"},
	    {LOG_LVL_DEBUG, "ewid"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int fd = capture_begin();
		char seen[8] = "", *p = seen;

		log_open("testd", LOG_TO_STDERR);
		log_set_level(rows[i].level);
		log_error("e@");
		log_warn("w@");
		log_info("i@");
		log_debug("d@");
		capture_end(fd);
		for (char *at = captured; (at = strchr(at, '@')) != NULL; at++)
			*p++ = at[-1];
		*p = '\0';
		cr_assert_str_eq(seen, rows[i].seen);
		cr_assert(log_wants(rows[i].level));
		cr_assert_eq(log_wants(LOG_LVL_DEBUG), rows[i].level == LOG_LVL_DEBUG);
	}
}

static void name_as_journal(int fd, long add)
{
	char env[64];
	struct stat st;

	fstat(fd, &st);
	snprintf(
	    env, sizeof(env), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)((long)st.st_ino + add));
	setenv("JOURNAL_STREAM", env, 1);
}

Test(log, journal_gets_priorities)
{
	int fd = capture_begin();

	name_as_journal(fd, 0);
	log_open("testd", LOG_TO_STDERR);
	log_set_level(LOG_LVL_DEBUG);
	log_error("e");
	log_warn("w");
	log_info("i");
	log_debug("d");
	capture_end(fd);
	cr_assert_str_eq(captured, "<3>e\n<4>w\n<6>i\n<7>d\n");
}

Test(log, an_inherited_variable_is_not_the_journal)
{
	int fd = capture_begin();

	name_as_journal(fd, 1);
	log_open("testd", LOG_TO_STDERR);
	log_error("e");
	setenv("JOURNAL_STREAM", "nonsense", 1);
	log_open("testd", LOG_TO_STDERR);
	log_error("f");
	capture_end(fd);
	cr_assert_not_null(strstr(captured, "] error: e\n"), "%s", captured);
	cr_assert_not_null(strstr(captured, "] error: f\n"), "%s", captured);
}

Test(log, one_message_is_one_line)
{
	int fd = capture_begin();

	log_open("testd", LOG_TO_STDERR);
	log_error("%s", "a\nb\rc\033[2Jd\177e\xc3\xa4");
	capture_end(fd);
	cr_assert_not_null(strstr(captured, "error: a?b?c?[2Jd?e\xc3\xa4\n"), "%s", captured);
}

Test(log, long_messages_are_whole)
{
	static char text[20000];
	int fd = capture_begin();

	memset(text, 'x', sizeof(text) - 1);
	log_open("testd", LOG_TO_STDERR);
	log_error("%s.", text);
	capture_end(fd);
	cr_assert_not_null(strstr(captured, text));
	cr_assert_str_eq(captured + strlen(captured) - 3, "x.\n");
}

Test(log, keeps_errno)
{
	int fd = capture_begin(), after;

	log_open("testd", LOG_TO_STDERR);
	close(STDERR_FILENO);
	errno = ENOTTY;
	log_error("into the void");
	after = errno;
	capture_end(fd);
	cr_assert_eq(after, ENOTTY);
}

/* Fills the pipe's buffer; the writing end stays blocking. */
static void fill_pipe(int fd)
{
	static const char dots[4096];
	int flags = fcntl(fd, F_GETFL);

	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	while (write(fd, dots, sizeof(dots)) > 0)
		;
	fcntl(fd, F_SETFL, flags);
}

static ssize_t drain_pipe(int fd)
{
	ssize_t n, len = 0;

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while ((n = read(fd, captured + len, sizeof(captured) - 1 - (size_t)len)) > 0) {
		len += n;
		if (len == (ssize_t)sizeof(captured) - 1)
			len = 0;
	}
	captured[len] = '\0';
	return len;
}

Test(log, a_full_pipe_does_not_block_and_is_told_of_later)
{
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	fill_pipe(fds[1]);
	redirect(fds[1]);
	log_open("testd", LOG_TO_STDERR);
	log_error("lost");
	log_error("lost");
	log_error("lost");
	drain_pipe(fds[0]);
	log_error("back");
	restore();
	drain_pipe(fds[0]);
	cr_assert_not_null(strstr(captured, "warning: 3 log lines were lost"), "%s", captured);
	cr_assert_not_null(strstr(captured, "error: back\n"), "%s", captured);
	cr_assert_null(strstr(captured, "error: lost"));
	close(fds[0]);
	close(fds[1]);
}

Test(log, a_pipe_without_reader_does_not_kill)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int fds[2];

		if (pipe(fds) != 0)
			_exit(1);
		close(fds[0]);
		dup2(fds[1], STDERR_FILENO);
		log_open("testd", LOG_TO_STDERR);
		log_error("nobody reads this");
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

static void *log_much(void *arg)
{
	(void)arg;
	for (int i = 0; i < 100; i++)
		log_error("%s", "abcdefghijklmnopqrstuvwxyz");
	return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
	int fd = capture_begin(), lines = 0, wrong = 0;
	pthread_t threads[4];

	fcntl(fd, F_SETFL, O_APPEND);
	log_open("testd", LOG_TO_STDERR);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_create(&threads[i], NULL, log_much, NULL);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	capture_end(fd);
	for (char *line = strtok(captured, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		const char *text = strstr(line, "] error: ");

		lines++;
		wrong += text == NULL || strcmp(text, "] error: abcdefghijklmnopqrstuvwxyz") != 0;
	}
	cr_assert_eq(lines, 400);
	cr_assert_eq(wrong, 0);
}

/* --- syslog, with a /dev of our own */

static int fake_logger(void)
{
	const struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	unlink(sun.sun_path);
	cr_assert_eq(bind(fd, (const struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static void own_dev(void)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(unshare(CLONE_NEWNS), 0);
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	cr_assert_eq(mount("none", "/dev", "tmpfs", 0, NULL), 0);
}

/* The next datagram, or "" */
static const char *logged(int fd)
{
	ssize_t n = recv(fd, captured, sizeof(captured) - 1, 0);

	captured[n > 0 ? n : 0] = '\0';
	return captured;
}

Test(log, syslog_datagrams_are_as_syslog_has_them)
{
	char want[64], month[8];
	int fd, pri, day, used = 0;

	own_dev();
	log_open("testd", LOG_TO_SYSLOG);
	log_error("nobody is there");
	fd = fake_logger();
	log_info("one\ntwo %s", "three");
	cr_assert_not_null(strstr(logged(fd), ": 1 log lines were lost"), "%s", captured);
	cr_assert_eq(sscanf(logged(fd), "<%d>%3s %d %*d:%*d:%*d %n", &pri, month, &day, &used), 3,
	    "%s", captured);
	cr_assert_eq(pri, LOG_DAEMON | LOG_INFO);
	snprintf(want, sizeof(want), "testd[%d]: one?two three", (int)getpid());
	cr_assert_str_eq(captured + used, want);
	/* The logger is restarted. */
	close(fd);
	fd = fake_logger();
	log_warn("again");
	cr_assert_not_null(strstr(logged(fd), ": again"), "%s", captured);
	close(fd);
}

Test(log, a_logger_that_does_not_read_holds_nobody)
{
	unsigned lost = 0, got = 0;
	int fd;

	own_dev();
	fd = fake_logger();
	log_open("testd", LOG_TO_SYSLOG);
	for (int i = 0; i < 5000; i++)
		log_info("line");
	while (logged(fd)[0] != '\0')
		got++;
	cr_assert_gt(got, 0);
	log_info("last");
	cr_assert_eq(sscanf(strstr(logged(fd), "]: ") + 3, "%u log lines were lost: /dev/log", &lost),
	    1, "%s", captured);
	cr_assert_eq(got + lost, 5000);
	cr_assert_not_null(strstr(logged(fd), "]: last"), "%s", captured);
	close(fd);
}
