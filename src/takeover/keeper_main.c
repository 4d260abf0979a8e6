/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's main process: started, watched, restarted, ended. */
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

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "takeover/keeper_priv.h"

extern char **environ;

/* How long an unmount may take when the keeper is told to end. */
#define QUIT_LIMIT (30 * NS_PER_S)
#define FIRST_FD 3

/* --- start */

/* Ours without what a service manager told us ourselves; then what we tell. */
static char **start_env(char *const own[], size_t nown)
{
	static const char *const drop[] = {"NOTIFY_SOCKET=", "LISTEN_FDS=", "LISTEN_PID=",
	    "LISTEN_FDNAMES=", "WATCHDOG_USEC=", "WATCHDOG_PID=", "INVOCATION_ID="};
	size_t n = 0, out = 0, i, k;
	char **env;

	while (environ[n] != NULL)
		n++;
	env = calloc(n + nown + 1, sizeof(*env));
	if (env == NULL)
		return NULL;
	for (i = 0; i < n; i++) {
		for (k = 0; k < ARRAY_LEN(drop); k++)
			if (strncmp(environ[i], drop[k], strlen(drop[k])) == 0)
				break;
		if (k == ARRAY_LEN(drop))
			env[out++] = environ[i];
	}
	memcpy(env + out, own, nown * sizeof(*own));
	return env;
}

static int start_attrs(posix_spawnattr_t *attr)
{
	sigset_t none, all;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(attr, &none);
	posix_spawnattr_setsigdefault(attr, &all);
	return posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

static int start_spawn(struct keeper *k, char **env, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	unsigned i;
	int err;

	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	err = start_attrs(&attr);
	for (i = 0; err == 0 && i < k->store.n; i++)
		err = posix_spawn_file_actions_adddup2(&fa, k->store.item[i].fd, FIRST_FD + (int)i);
	if (err == 0)
		err = posix_spawnp(pid, k->argv[0], &fa, &attr, k->argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	return -err;
}

int keeper_start(struct keeper *k)
{
	char sock[sizeof("NOTIFY_SOCKET=") + KEEPER_PATH_MAX], usec[64], nfds[32];
	char names[STORE_MAX * (STORE_NAME_MAX + 1) + 32];
	char list[STORE_MAX * (STORE_NAME_MAX + 1)];
	char *own[4], **env;
	size_t n = 0;
	pid_t pid = 0;
	int err;

	snprintf(sock, sizeof(sock), "NOTIFY_SOCKET=%s", k->path);
	own[n++] = sock;
	if (k->watchdog_ns != 0) {
		snprintf(usec, sizeof(usec), "WATCHDOG_USEC=%llu",
		    (unsigned long long)(k->watchdog_ns / NS_PER_US));
		own[n++] = usec;
	}
	/* No LISTEN_PID: it is not known before the child is; unset means "you". */
	if (k->store.n > 0) {
		snprintf(nfds, sizeof(nfds), "LISTEN_FDS=%u", k->store.n);
		snprintf(names, sizeof(names), "LISTEN_FDNAMES=%s",
		    store_names(&k->store, list, sizeof(list)));
		own[n++] = nfds;
		own[n++] = names;
	}
	env = start_env(own, n);
	if (env == NULL)
		return -ENOMEM;
	err = start_spawn(k, env, &pid);
	free(env);
	if (err != 0)
		return err;
	k->stopping = false;
	return keeper_watch(k, pid);
}

/* --- watch */

static void keeper_pid_event(struct loop_fd *lf, unsigned what)
{
	(void)what;
	keeper_reap(container_of(lf, struct keeper, pid_lf));
}

int keeper_watch(struct keeper *k, pid_t pid)
{
	int err;

	keeper_unwatch(k);
	k->pid = pid;
	k->status_known = false;
	k->up = false;
	k->handed_over = false;
	/* Coming up takes no time where a mount exists already; a first one may have to
	 * wait for its storage. */
	if (k->ready && k->watchdog_ns != 0)
		timer_arm(&k->watchdog, k->watchdog_ns);
	/* A process whose parent is not us (an old daemon that still finishes its
	 * reads started it) ends without SIGCHLD to us: hence its pidfd. */
	k->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (k->pidfd < 0)
		return -errno;
	fcntl(k->pidfd, F_SETFD, FD_CLOEXEC);
	err = loop_fd_init(&k->pid_lf, k->loop, k->pidfd, keeper_pid_event);
	if (err == 0)
		err = loop_fd_want(&k->pid_lf, LOOP_READ);
	return err;
}

void keeper_unwatch(struct keeper *k)
{
	timer_cancel(&k->watchdog);
	if (k->pid_lf.loop != NULL)
		loop_fd_fini(&k->pid_lf);
	k->pid_lf.loop = NULL;
	if (k->pidfd >= 0)
		close(k->pidfd);
	k->pidfd = -1;
	k->pid = 0;
}

void keeper_frozen(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, watchdog);

	log_error("pid %d has given no sign of life for %llu ms: killed", (int)k->pid,
	    (unsigned long long)(k->watchdog_ns / NS_PER_MS));
	kill(k->pid, SIGKILL);
}

/* --- its end */

static bool pid_gone(int pidfd)
{
	return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) != 0 && errno == ESRCH;
}

static bool main_gone(const struct keeper *k)
{
	return k->pid != 0 && !k->ended &&
	       (k->status_known || k->pidfd < 0 || pid_gone(k->pidfd));
}

static const char *end_text(const struct keeper *k, char *buf, size_t len)
{
	if (!k->status_known)
		snprintf(buf, len, "ended");
	else if (WIFSIGNALED(k->status))
		snprintf(buf, len, "was killed by signal %d (%s)", WTERMSIG(k->status),
		    strsignal(WTERMSIG(k->status)));
	else
		snprintf(buf, len, "ended with exit code %d", WEXITSTATUS(k->status));
	return buf;
}

static int end_code(const struct keeper *k)
{
	return k->status_known && WIFEXITED(k->status) ? WEXITSTATUS(k->status) : 1;
}

static void keeper_try_again(struct keeper *k, pid_t pid, const char *how)
{
	int64_t wait = restart_next(&k->restart, loop_now(k->loop));

	if (wait < 0) {
		log_error(
		    "pid %d %s, after more than %u restarts in %llu s: giving up; the mount's "
		    "users get errors (ENOTCONN) instead of waiting",
		    (int)pid, how, k->restart.limit,
		    (unsigned long long)(k->restart.window_ns / NS_PER_S));
		keeper_end(k, 1);
		return;
	}
	log_warn("pid %d %s: restarting%s", (int)pid, how, wait > 0 ? " after a pause" : "");
	if (wait > 0)
		timer_arm(&k->restart_timer, (uint64_t)wait);
	else
		keeper_restart_now(&k->restart_timer);
}

static void keeper_main_ended(struct keeper *k)
{
	pid_t pid = k->pid;
	char text[128];

	end_text(k, text, sizeof(text));
	keeper_unwatch(k);
	/* Told to end, too: who unmounts in order takes the descriptors out first. */
	if (k->store.n > 0 && !k->stopping) {
		keeper_try_again(k, pid, text);
		return;
	}
	/* Where whatever ends is started again, an end would take the mount back. */
	if (k->stay && k->handed_over && !k->quitting) {
		log_info("pid %d %s: another keeper has the mount; waiting to be told to end",
		    (int)pid, text);
		return;
	}
	/* To whoever still waits for the mount it has said itself why. */
	if (end_code(k) == 0)
		log_info("pid %d %s", (int)pid, text);
	else if (k->ready_fd < 0 || !WIFEXITED(k->status))
		log_error("pid %d %s", (int)pid, text);
	keeper_end(k, end_code(k));
}

void keeper_restart_now(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, restart_timer);
	int err = keeper_start(k);

	if (err == 0)
		return;
	log_error("start %s: %s", k->argv[0], strerror(-err));
	keeper_unwatch(k);
	keeper_try_again(k, 0, "could not be started");
}

/* Everything that has ended: a subreaper inherits the daemons that came before. */
void keeper_reap(struct keeper *k)
{
	int status;
	pid_t pid;

	/* Who the main process is may just have been said. */
	keeper_hear(k);
	(void)FAULT("keeper.reap");
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == k->pid) {
			k->status = status;
			k->status_known = true;
		}
	if (!main_gone(k))
		return;
	/* It may have ended since, and everything that it said, it said before: that the
	 * end is in order, or who is its successor. */
	keeper_hear(k);
	if (main_gone(k))
		keeper_main_ended(k);
}

/* --- told to end */

void keeper_too_slow(struct timer *t)
{
	struct keeper *k = container_of(t, struct keeper, quit_timer);

	log_error("pid %d did not unmount within %llu s: killed", (int)k->pid,
	    (unsigned long long)(QUIT_LIMIT / NS_PER_S));
	if (k->pid != 0)
		kill(k->pid, SIGKILL);
	keeper_end(k, 1);
}

void keeper_quit(struct keeper *k)
{
	if (!k->quitting)
		timer_arm(&k->quit_timer, QUIT_LIMIT);
	k->quitting = true;
	if (k->pid == 0 && k->handed_over) {
		keeper_end(k, 0);
		return;
	}
	/* Only a daemon can unmount in order: one that is due to come is waited for. */
	if (k->pid == 0) {
		timer_cancel(&k->restart_timer);
		if (keeper_start(k) != 0)
			keeper_end(k, 1);
	} else if (k->up || !k->ready)
		kill(k->pid, SIGINT);
}
