/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * batonfs-keeper(8): holds a mount's descriptors for its daemon and starts the
 * daemon again when it dies, with systemd's own notify and fd-store protocol.
 * Small on purpose: it touches neither the mount nor any data.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/argv.h"
#include "base/errtext.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "takeover/keeper_priv.h"

#define KEEPER_WATCHDOG (30 * NS_PER_S)
#define EXIT_USAGE 2

enum { ARG_READY_FD = 256, ARG_LOG, ARG_WATCHDOG, ARG_STAY };

static const struct option keeper_long[] = {
    {"ready-fd", required_argument, NULL, ARG_READY_FD},
    {"log", required_argument, NULL, ARG_LOG},
    {"watchdog", required_argument, NULL, ARG_WATCHDOG},
    {"stay", no_argument, NULL, ARG_STAY},
    {"version", no_argument, NULL, 'V'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static void keeper_help(void)
{
	printf(
	    "Usage: batonfs-keeper [options] -- COMMAND [ARGUMENT...]\n"
	    "\n"
	    "Start COMMAND (batonfsd -f ...), hold its mount's descriptors, and start it\n"
	    "again when it dies, so that the mount's users only wait a moment.\n"
	    "\n"
	    "      --ready-fd N          write \"0\\n\" to descriptor N when the mount serves, or\n"
	    "                            the daemon's exit code if it ends before that\n"
	    "      --log TARGET          stderr (default), or syslog: let go of stdin, stdout and\n"
	    "                            stderr when the mount serves, and log to syslog\n"
	    "      --watchdog DURATION   kill a daemon that gives no sign of life for so long\n"
	    "                            (default 30s; 0: never)\n"
	    "      --stay                when another keeper's daemon has taken the mount over,\n"
	    "                            wait for a signal instead of ending\n"
	    "  -V, --version             version\n"
	    "  -h, --help                this text\n"
	    "\n"
	    "SIGTERM and SIGINT unmount and end both. See batonfs-keeper(8).\n");
}

static int keeper_usage(const char *what, const char *value, const char *want)
{
	fprintf(
	    stderr, "batonfs-keeper: %s %s: %s\nTry 'batonfs-keeper --help'.\n", what, value, want);
	return EXIT_USAGE;
}

static int keeper_option(struct keeper *k, int opt, const char *value)
{
	uint64_t n;

	switch (opt) {
	case ARG_READY_FD:
		if (units_parse_u64(value, &n) != 0 || n > 1 << 20 || fcntl((int)n, F_GETFD) < 0)
			return keeper_usage(
			    "--ready-fd", value, "must be the number of an open descriptor");
		k->ready_fd = (int)n;
		fcntl(k->ready_fd, F_SETFD, FD_CLOEXEC);
		return -1;
	case ARG_LOG:
		k->detach = strcmp(value, "syslog") == 0;
		if (!k->detach && strcmp(value, "stderr") != 0)
			return keeper_usage("--log", value, "must be stderr or syslog");
		return -1;
	case ARG_WATCHDOG:
		if (units_parse_duration(value, &k->watchdog_ns) != 0 ||
		    (k->watchdog_ns != 0 && k->watchdog_ns < NS_PER_MS))
			return keeper_usage(
			    "--watchdog", value, "must be a duration such as 30s, or 0");
		return -1;
	case ARG_STAY:
		k->stay = true;
		return -1;
	case 'V':
		printf("batonfs-keeper %s\n", PACKAGE_VERSION);
		return 0;
	case 'h':
		keeper_help();
		return 0;
	default:
		fprintf(stderr, "Try 'batonfs-keeper --help'.\n");
		return EXIT_USAGE;
	}
}

/* -1: go on, else the code to exit with. */
static int keeper_args(struct keeper *k, int argc, char **argv)
{
	int opt, code;

	while ((opt = getopt_long(argc, argv, "+Vh", keeper_long, NULL)) != -1) {
		code = keeper_option(k, opt, optarg);
		if (code >= 0)
			return code;
	}
	if (optind == argc) {
		fprintf(stderr, "batonfs-keeper: nothing to start: add -- batonfsd -f ...\n"
				"Try 'batonfs-keeper --help'.\n");
		return EXIT_USAGE;
	}
	k->argv = argv_copy(argv + optind);
	return k->argv != NULL ? -1 : 1;
}

/* --- the end of the beginning, and the end */

/* Who waited for the mount may also wait for the end of our output.  The daemons that are
 * started from here on have none either. */
static void keeper_detach(struct keeper *k)
{
	int null = k->detach ? open("/dev/null", O_RDWR | O_CLOEXEC) : -1;

	if (null < 0)
		return;
	k->detach = false;
	log_open("batonfs-keeper", LOG_TO_SYSLOG);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

void keeper_tell_ready(struct keeper *k, int code)
{
	char text[16];

	if (k->ready_fd >= 0) {
		snprintf(text, sizeof(text), "%d\n", code);
		if (write(k->ready_fd, text, strlen(text)) < 0)
			log_warn("--ready-fd %d: %s", k->ready_fd, strerror(errno));
		close(k->ready_fd);
		k->ready_fd = -1;
	}
	if (code == 0)
		keeper_detach(k);
}

void keeper_end(struct keeper *k, int code)
{
	if (k->ended)
		return;
	k->ended = true;
	store_close(&k->store);
	keeper_tell_ready(k, code != 0 ? code : 1);
	loop_stop(k->loop, code);
}

/* --- signals */

static void keeper_on_term(struct loop_signal *ls)
{
	struct keeper *k = container_of(ls, struct keeper, term);

	log_info("SIGTERM: ending, with the mount");
	keeper_quit(k);
}

static void keeper_on_int(struct loop_signal *ls)
{
	struct keeper *k = container_of(ls, struct keeper, intr);

	log_info("SIGINT: ending, with the mount");
	keeper_quit(k);
}

static void keeper_on_hup(struct loop_signal *ls)
{
	struct keeper *k = container_of(ls, struct keeper, hup);

	if (k->pid != 0)
		kill(k->pid, SIGHUP);
}

static void keeper_on_chld(struct loop_signal *ls)
{
	keeper_reap(container_of(ls, struct keeper, chld));
}

static int keeper_signals(struct keeper *k)
{
	int err;

	signal(SIGPIPE, SIG_IGN);
	err = loop_signal_init(&k->term, k->loop, SIGTERM, keeper_on_term);
	if (err == 0)
		err = loop_signal_init(&k->intr, k->loop, SIGINT, keeper_on_int);
	if (err == 0)
		err = loop_signal_init(&k->hup, k->loop, SIGHUP, keeper_on_hup);
	if (err == 0)
		err = loop_signal_init(&k->chld, k->loop, SIGCHLD, keeper_on_chld);
	return err;
}

static void keeper_fini(struct keeper *k)
{
	struct loop_signal *signals[] = {&k->term, &k->intr, &k->hup, &k->chld};
	unsigned i;

	store_close(&k->store);
	if (k->loop != NULL) {
		keeper_unwatch(k);
		timer_cancel(&k->restart_timer);
		timer_cancel(&k->quit_timer);
		keeper_unlisten(k);
		for (i = 0; i < ARRAY_LEN(signals); i++)
			if (signals[i]->loop != NULL)
				loop_signal_fini(signals[i]);
		loop_free(&k->loop);
	}
	argv_free(&k->argv);
	free(k);
}

static int keeper_run(struct keeper *k)
{
	struct errtext et = {""};
	int err;

	/* Daemons whose parent has ended become our children, so that none is lost. */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
		log_warn("become the subreaper of the daemons: %s", strerror(errno));
	err = loop_new(&k->loop, &clock_system);
	if (err == 0) {
		timer_init(&k->watchdog, k->loop, keeper_frozen);
		timer_init(&k->restart_timer, k->loop, keeper_restart_now);
		timer_init(&k->quit_timer, k->loop, keeper_too_slow);
		err = keeper_signals(k);
	}
	if (err != 0)
		errtext_set(&et, err, "begin: %s", strerror(-err));
	else
		err = keeper_listen(k, &et);
	if (err != 0) {
		log_error("%s", et.s);
		return 1;
	}
	err = keeper_start(k);
	if (err != 0) {
		log_error("start %s: %s", k->argv[0], strerror(-err));
		return 1;
	}
	return loop_run(k->loop);
}

int main(int argc, char **argv)
{
	struct keeper *k = calloc(1, sizeof(*k));
	struct errtext et;
	int code;

	log_open("batonfs-keeper", LOG_TO_STDERR);
	if (k == NULL) {
		log_error("%s", strerror(ENOMEM));
		return 1;
	}
	if (getenv("BATONFS_FAULT") != NULL && fault_init(getenv("BATONFS_FAULT"), &et) != 0) {
		log_error("BATONFS_FAULT: %s", et.s);
		free(k);
		return EXIT_USAGE;
	}
	k->ready_fd = k->sock = k->pidfd = -1;
	k->watchdog_ns = KEEPER_WATCHDOG;
	restart_init(&k->restart);
	code = keeper_args(k, argc, argv);
	if (code < 0) {
		code = keeper_run(k);
		keeper_tell_ready(k, code != 0 ? code : 1);
	}
	keeper_fini(k);
	return code;
}
