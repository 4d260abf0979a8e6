/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "background.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"

extern char **environ;

/* The keeper beside this binary (a build tree, a container), else the installed
 * one. */
static void background_find_keeper(const char *self, char *buf, size_t len)
{
	const char *slash = strrchr(self, '/');

	snprintf(buf, len, "%.*s/batonfs-keeper", slash != NULL ? (int)(slash - self) : 0, self);
	if (access(buf, X_OK) != 0)
		snprintf(buf, len, "%s", SBINDIR "/batonfs-keeper");
}

/* keeper --log=syslog --ready-fd N -- SELF -f --log=syslog ARGS… */
static char **background_argv(char *keeper, char *fd_text, char *self, char *const *argv)
{
	char *head[] = {
	    keeper, "--log=syslog", "--ready-fd", fd_text, "--", self, "-f", "--log=syslog"};
	size_t nhead = sizeof(head) / sizeof(head[0]), n = 0;
	char **out;

	while (argv[n] != NULL)
		n++;
	out = calloc(nhead + n + 1, sizeof(*out));
	if (out == NULL)
		return NULL;
	memcpy(out, head, sizeof(head));
	memcpy(out + nhead, argv + 1, (n - 1) * sizeof(*out));
	return out;
}

/* "0\n" when the mount serves, or the daemon's exit code; end of file: it died. */
static int background_wait(int fd, pid_t pid)
{
	char text[16];
	size_t got = 0;
	ssize_t n;
	int status;

	while (got < sizeof(text) - 1) {
		n = read(fd, text + got, sizeof(text) - 1 - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
		if (memchr(text, '\n', got) != NULL)
			break;
	}
	text[got] = '\0';
	if (got > 0)
		return atoi(text);
	if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return WEXITSTATUS(status);
	fprintf(stderr, "batonfsd: the keeper ended before the mount served\n");
	return DAEMON_EXIT_FAILURE;
}

int background_start(char *const *argv)
{
	char self[PATH_MAX], keeper[PATH_MAX], fd_text[16];
	posix_spawnattr_t attr;
	char **words;
	int fds[2], err, code;
	ssize_t n;
	pid_t pid;

	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n < 0 || pipe(fds) != 0) {
		fprintf(stderr, "batonfsd: go to the background: %s\n", strerror(errno));
		return DAEMON_EXIT_FAILURE;
	}
	self[n] = '\0';
	fcntl(fds[0], F_SETFD, FD_CLOEXEC);
	background_find_keeper(self, keeper, sizeof(keeper));
	snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
	words = background_argv(keeper, fd_text, self, argv);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID);
	err = words != NULL ? posix_spawn(&pid, keeper, NULL, &attr, words, environ) : ENOMEM;
	posix_spawnattr_destroy(&attr);
	free(words);
	close(fds[1]);
	if (err != 0) {
		fprintf(stderr, "batonfsd: start %s: %s (-f needs no keeper)\n", keeper,
		    strerror(err));
		code = DAEMON_EXIT_FAILURE;
	} else
		code = background_wait(fds[0], pid);
	close(fds[0]);
	return code;
}

void daemon_detach_stdio(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}
