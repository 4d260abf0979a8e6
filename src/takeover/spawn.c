/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The successor that the running daemon starts itself (`batonfs upgrade`).
 *
 * Its stdout and stderr go through a pipe, so that what it says when it fails can
 * be told to whoever asked; it gets our stderr beside them and goes over to that
 * when it serves (BATONFS_STDERR_FD, takeover/client.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "takeover/server_priv.h"

extern char **environ;

/* From its start to the end of the hand-over. */
#define SPAWN_LIMIT (60 * NS_PER_S)
/* Descriptors that we give are moved above what the child's get. */
#define SPAWN_FD_FLOOR 16
#define SPAWN_STDERR_FD 3 /* as BATONFS_STDERR_FD says */

static void spawn_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void spawn_unwatch(struct spawn *sp)
{
	timer_cancel(&sp->limit);
	if (sp->watching)
		loop_fd_fini(&sp->pidfd_lf);
	if (sp->reading)
		loop_fd_fini(&sp->pipe_lf);
	sp->watching = sp->reading = false;
	spawn_close(&sp->pidfd);
	spawn_close(&sp->pipe);
}

static void spawn_report(struct spawn *sp, int err, const char *words)
{
	if (sp->reported)
		return;
	sp->reported = true;
	if (sp->done != NULL)
		sp->done(sp->arg, err, words);
}

/* --- what it says */

static void spawn_read(struct spawn *sp)
{
	ssize_t n;

	for (;;) {
		if (sp->len == sizeof(sp->out) - 1) {
			/* The end of what a failing program says matters most. */
			memmove(sp->out, sp->out + sp->len / 2, sp->len - sp->len / 2);
			sp->len -= sp->len / 2;
		}
		n = read(sp->pipe, sp->out + sp->len, sizeof(sp->out) - 1 - sp->len);
		if (n <= 0)
			break;
		sp->len += (size_t)n;
		sp->out[sp->len] = '\0';
	}
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		loop_fd_want(&sp->pipe_lf, 0);
}

static void spawn_output(struct loop_fd *lf, unsigned what)
{
	(void)what;
	spawn_read(container_of(lf, struct spawn, pipe_lf));
}

/* The output as one text without a newline at its end. */
static char *spawn_words(struct spawn *sp)
{
	while (sp->len > 0 && (sp->out[sp->len - 1] == '\n' || sp->out[sp->len - 1] == ' '))
		sp->out[--sp->len] = '\0';
	return sp->out;
}

/* --- how it ends */

/* Its own last words say most, unless it had no time for any. */
static void spawn_end_words(struct spawn *sp, const siginfo_t *si, char *buf, size_t len)
{
	if (sp->timed_out)
		snprintf(buf, len, "the new daemon did not finish within %llu s%s%s",
		    (unsigned long long)(SPAWN_LIMIT / NS_PER_S), sp->len > 0 ? ": " : "",
		    spawn_words(sp));
	else if (si->si_code != CLD_EXITED)
		snprintf(buf, len, "the new daemon was killed by signal %d%s%s", si->si_status,
		    sp->words[0] != '\0' ? ": " : "", sp->words);
	else if (sp->len > 0)
		snprintf(buf, len, "%s", spawn_words(sp));
	else if (sp->words[0] != '\0')
		snprintf(buf, len, "%s", sp->words);
	else
		snprintf(buf, len, "the new daemon ended with exit code %d and said nothing",
		    si->si_status);
}

static void spawn_exited(struct loop_fd *lf, unsigned what)
{
	struct spawn *sp = container_of(lf, struct spawn, pidfd_lf);
	siginfo_t si;
	char words[SPAWN_OUTPUT_MAX + 128];

	(void)what;
	memset(&si, 0, sizeof(si));
	if (waitid(P_PID, (id_t)sp->pid, &si, WEXITED | WNOHANG) != 0 || si.si_pid == 0)
		return;
	spawn_read(sp);
	spawn_unwatch(sp);
	sp->pid = 0;
	if (sp->check_only && si.si_code == CLD_EXITED && si.si_status == 0) {
		spawn_report(sp, 0, "");
		return;
	}
	spawn_end_words(sp, &si, words, sizeof(words));
	spawn_report(sp, sp->timed_out ? -ETIMEDOUT : -ECANCELED, words);
}

static void spawn_expired(struct timer *t)
{
	struct spawn *sp = container_of(t, struct spawn, limit);

	/* Its end comes through the pidfd. */
	sp->timed_out = true;
	kill(sp->pid, SIGKILL);
}

void spawn_handoff_committed(struct spawn *sp, pid_t pid)
{
	if (sp->pid != 0 && pid == sp->pid)
		timer_cancel(&sp->limit);
}

void spawn_handoff_ended(struct spawn *sp, pid_t pid, int err, const char *words)
{
	if (sp->pid == 0 || pid != sp->pid || sp->reported)
		return;
	if (err != 0) {
		snprintf(sp->words, sizeof(sp->words), "%s", words);
		return; /* it says why in its own words, then ends */
	}
	timer_cancel(&sp->limit);
	spawn_read(sp);
	if (sp->len > 0)
		log_info("the new daemon said: %s", spawn_words(sp));
	spawn_report(sp, 0, "");
}

void spawn_fini(struct spawn *sp)
{
	if (sp->pid != 0) {
		spawn_unwatch(sp);
		spawn_report(sp, -ECANCELED, "this daemon is ending");
	}
	sp->pid = 0;
}

/* --- how it begins */

static bool is_takeover_flag(const char *word)
{
	static const char name[] = "--takeover";

	return strncmp(word, name, sizeof(name) - 1) == 0 &&
	       (word[sizeof(name) - 1] == '\0' || word[sizeof(name) - 1] == '=');
}

/* Ours without --takeover and --check, then extra, then what we want of it; the
 * mount point, which is our last word, stays the last.  A binary that was named is the
 * first word, for that is what a keeper will start after a crash.  Words are borrowed. */
static char **spawn_argv(
    struct daemon *d, const char *binary, const char *const *extra, bool check_only)
{
	size_t n = 0, nextra = 0;
	char **argv;
	int i;

	while (extra != NULL && extra[nextra] != NULL)
		nextra++;
	argv = calloc((size_t)d->args.argc + nextra + 2, sizeof(*argv));
	if (argv == NULL)
		return NULL;
	argv[n++] = binary != NULL ? (char *)(uintptr_t)binary : d->args.argv[0];
	for (i = 1; i + 1 < d->args.argc; i++)
		if (!is_takeover_flag(d->args.argv[i]) && strcmp(d->args.argv[i], "--check") != 0)
			argv[n++] = d->args.argv[i];
	for (i = 0; i < (int)nextra; i++)
		argv[n++] = (char *)(uintptr_t)extra[i];
	argv[n++] = (char *)(uintptr_t)(check_only ? "--takeover=check" : "--takeover=require");
	argv[n] = d->args.argv[d->args.argc - 1];
	return argv;
}

static bool env_is(const char *entry, const char *name)
{
	size_t len = strlen(name);

	return strncmp(entry, name, len) == 0 && entry[len] == '=';
}

/* Our environment, but WATCHDOG_PID names us and LISTEN_* are used up. */
static char **spawn_env(char *stderr_entry)
{
	static const char *const drop[] = {
	    "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "BATONFS_STDERR_FD"};
	size_t n = 0, out = 0, i, k;
	char **env;

	while (environ[n] != NULL)
		n++;
	env = calloc(n + 2, sizeof(*env));
	if (env == NULL)
		return NULL;
	for (i = 0; i < n; i++) {
		for (k = 0; k < ARRAY_LEN(drop) && !env_is(environ[i], drop[k]); k++)
			;
		if (k == ARRAY_LEN(drop))
			env[out++] = environ[i];
	}
	env[out] = stderr_entry;
	return env;
}

static int spawn_attrs(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

static int spawn_exec(struct spawn *sp, const char *binary, char **argv, int pipe_w, int err_fd)
{
	char entry[] = "BATONFS_STDERR_FD=3";
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	char **env = spawn_env(entry);
	int err;

	if (env == NULL)
		return -ENOMEM;
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	err = spawn_attrs(&attr);
	if (err == 0)
		err = posix_spawn_file_actions_adddup2(&fa, pipe_w, STDOUT_FILENO);
	if (err == 0)
		err = posix_spawn_file_actions_adddup2(&fa, pipe_w, STDERR_FILENO);
	if (err == 0)
		err = posix_spawn_file_actions_adddup2(&fa, err_fd, SPAWN_STDERR_FD);
	/* What it needs of us comes over the socket.  LMDB and curl have descriptors that would
	 * stay open here, four more with each upgrade. */
	if (err == 0)
		err = posix_spawn_file_actions_addclosefrom_np(&fa, SPAWN_STDERR_FD + 1);
	if (err == 0)
		err = strchr(binary, '/') != NULL
			  ? posix_spawn(&sp->pid, binary, &fa, &attr, argv, env)
			  : posix_spawnp(&sp->pid, binary, &fa, &attr, argv, env);
	if (err != 0)
		sp->pid = 0;
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	free(env);
	return -err;
}

static int spawn_watch(struct takeover_server *ts)
{
	struct spawn *sp = &ts->spawn;
	int err;

	sp->pidfd = (int)syscall(SYS_pidfd_open, sp->pid, 0);
	if (sp->pidfd < 0)
		return -errno;
	fcntl(sp->pidfd, F_SETFD, FD_CLOEXEC);
	err = loop_fd_init(&sp->pidfd_lf, ts->d->loop, sp->pidfd, spawn_exited);
	sp->watching = err == 0;
	if (err == 0)
		err = loop_fd_init(&sp->pipe_lf, ts->d->loop, sp->pipe, spawn_output);
	sp->reading = err == 0;
	if (err == 0)
		err = loop_fd_want(&sp->pidfd_lf, LOOP_READ);
	if (err == 0)
		err = loop_fd_want(&sp->pipe_lf, LOOP_READ);
	timer_init(&sp->limit, ts->d->loop, spawn_expired);
	timer_arm(&sp->limit, SPAWN_LIMIT);
	return err;
}

/* The file we were started from as it is on disk now: after an upgrade
 * /proc/self/exe names a deleted one. */
static int spawn_own_binary(char *buf, size_t len)
{
	static const char deleted[] = " (deleted)";
	ssize_t n = readlink("/proc/self/exe", buf, len - 1);
	size_t tail = sizeof(deleted) - 1;

	if (n < 0)
		return -errno;
	buf[n] = '\0';
	if ((size_t)n > tail && strcmp(buf + n - tail, deleted) == 0)
		buf[(size_t)n - tail] = '\0';
	return 0;
}

static int spawn_start(struct takeover_server *ts, const char *binary, char **argv)
{
	struct spawn *sp = &ts->spawn;
	int fds[2], pipe_w, err_fd, err;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
		return -errno;
	sp->pipe = fds[0];
	pipe_w = fcntl(fds[1], F_DUPFD_CLOEXEC, SPAWN_FD_FLOOR);
	close(fds[1]);
	err_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, SPAWN_FD_FLOOR);
	err = pipe_w < 0 || err_fd < 0 ? -errno : 0;
	/* Only our end is to be non-blocking. */
	if (err == 0 && fcntl(pipe_w, F_SETFL, 0) < 0)
		err = -errno;
	if (err == 0)
		err = spawn_exec(sp, binary, argv, pipe_w, err_fd);
	spawn_close(&pipe_w);
	spawn_close(&err_fd);
	if (err != 0)
		return err;
	err = spawn_watch(ts);
	if (err != 0) {
		kill(sp->pid, SIGKILL);
		waitpid(sp->pid, NULL, 0);
		sp->pid = 0;
	}
	return err;
}

int takeover_spawn(struct takeover_server *ts, const char *binary, const char *const *extra,
    bool check_only, void (*done)(void *arg, int err, const char *words), void *arg,
    struct errtext *et)
{
	struct spawn *sp = &ts->spawn;
	char own[4096], **argv;
	int err;

	if (sp->pid != 0 || ts->handoff != NULL)
		return errtext_set(
		    et, -EBUSY, "%s: a takeover is under way already", ts->d->args.mountpoint);
	argv = spawn_argv(ts->d, binary, extra, check_only);
	if (argv == NULL)
		return errtext_set(et, -ENOMEM, "start a new daemon: %s", strerror(ENOMEM));
	if (binary == NULL) {
		err = spawn_own_binary(own, sizeof(own));
		if (err != 0) {
			free(argv);
			return errtext_set(et, err, "find our own program: %s", strerror(-err));
		}
		binary = own;
	}
	memset(sp, 0, sizeof(*sp));
	sp->pidfd = sp->pipe = -1;
	sp->check_only = check_only;
	sp->done = done;
	sp->arg = arg;
	err = spawn_start(ts, binary, argv);
	free(argv);
	if (err != 0) {
		spawn_unwatch(sp);
		return errtext_set(et, err, "start %s: %s", binary, strerror(-err));
	}
	log_info("%s: started %s (pid %d) to %s", ts->d->args.mountpoint, binary, (int)sp->pid,
	    check_only ? "see whether it could take over" : "take over");
	return (int)sp->pid;
}
