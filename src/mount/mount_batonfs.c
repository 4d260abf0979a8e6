/* SPDX-License-Identifier: BSD-2-Clause */
/* mount.batonfs(8): what `mount -t batonfs` and /etc/fstab call. */
#include "config.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/argv.h"
#include "base/obj.h"
#include "mount/mount.h"

extern char **environ;

/* As mount(8) has them. */
enum mount_exit { MOUNT_OK = 0, MOUNT_USAGE = 1, MOUNT_SYSTEM = 2, MOUNT_FAILED = 32 };
/* Of batonfsd(8). */
#define BATONFSD_EXIT_USAGE 2

static void help(FILE *to)
{
	fprintf(to, "Usage: mount.batonfs SOURCE DIR [-fnsv] [-o OPT[,OPT]]\n"
		    "\n"
		    "Called by mount(8):\n"
		    "  mount -t batonfs s3://bucket/prefix /mnt -o ro,s3.region=eu-central-1\n"
		    "\n"
		    "SOURCE is s3://BUCKET[/PREFIX] or file:///DIRECTORY.  An option with a dot in\n"
		    "its name is a property (batonfs.conf(5)), config=FILE names a file of them,\n"
		    "the others are mount options (batonfsd(8)).\n"
		    "\n"
		    "  -f  only check configuration and storage\n"
		    "  -n  accepted, without effect\n"
		    "  -s  ignore unknown mount options\n"
		    "  -v  print what is started\n"
		    "  -V  the version\n"
		    "  -h  this text\n");
}

/* -1: go on, else the code to exit with. */
static int option(struct mount_args *ma, int opt)
{
	switch (opt) {
	case 'f':
		ma->fake = true;
		return -1;
	case 's':
		ma->sloppy = true;
		return -1;
	case 'v':
		ma->verbose = true;
		return -1;
	case 'n':
	case 't': /* mount(8) repeats the type */
		return -1;
	case 'o':
		if (ma->noptions == MOUNT_OPTIONS_MAX) {
			fprintf(stderr, "mount.batonfs: -o: more than %d of them\n",
			    (int)MOUNT_OPTIONS_MAX);
			return MOUNT_USAGE;
		}
		ma->options[ma->noptions++] = optarg;
		return -1;
	case 'V':
		printf("mount.batonfs %s\n", PACKAGE_VERSION);
		return MOUNT_OK;
	case 'h':
		help(stdout);
		return MOUNT_OK;
	default:
		fprintf(stderr, "Try 'mount.batonfs -h'.\n");
		return MOUNT_USAGE;
	}
}

static int arguments(struct mount_args *ma, int argc, char **argv)
{
	int opt, code;

	while ((opt = getopt(argc, argv, "fno:st:vVh")) != -1) {
		code = option(ma, opt);
		if (code >= 0)
			return code;
	}
	if (argc - optind != 2) {
		help(stderr);
		return MOUNT_USAGE;
	}
	ma->source = argv[optind];
	ma->target = argv[optind + 1];
	return -1;
}

/* The one beside this program (a build tree), else the installed one. */
static void find_daemon(char *buf, size_t len)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	snprintf(buf, len, "%.*s/batonfsd", slash != NULL ? (int)(slash - self) : 0, self);
	if (access(buf, X_OK) != 0)
		snprintf(buf, len, "%s", SBINDIR "/batonfsd");
}

/* A service that calls mount(8) is not the manager of the daemon: with its socket
 * batonfsd would stay in the foreground, and mount(8) would never end. */
static void forget_manager(void)
{
	static const char *const names[] = {"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID",
	    "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unsetenv(names[i]);
}

static int run(char **argv)
{
	int status, err;
	pid_t pid;

	err = posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
	if (err != 0) {
		fprintf(stderr, "mount.batonfs: start %s: %s\n", argv[0], strerror(err));
		return MOUNT_SYSTEM;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) {
			fprintf(stderr, "mount.batonfs: wait for %s: %s\n", argv[0],
			    strerror(errno));
			return MOUNT_SYSTEM;
		}
	if (!WIFEXITED(status)) {
		fprintf(stderr, "mount.batonfs: %s was killed by signal %d\n", argv[0],
		    WTERMSIG(status));
		return MOUNT_FAILED;
	}
	switch (WEXITSTATUS(status)) {
	case 0:
		return MOUNT_OK;
	case BATONFSD_EXIT_USAGE:
		return MOUNT_USAGE;
	default:
		return MOUNT_FAILED;
	}
}

/* Without values: some of them are secrets. */
static void show(char *const *argv)
{
	fprintf(stderr, "mount.batonfs: %s", argv[0]);
	for (size_t i = 1; argv[i] != NULL; i++) {
		if (strcmp(argv[i - 1], "-s") == 0)
			fprintf(stderr, " %.*s=...", (int)strcspn(argv[i], "="), argv[i]);
		else
			fprintf(stderr, " %s", argv[i]);
	}
	fputc('\n', stderr);
}

int main(int argc, char **argv)
{
	struct mount_args ma = {NULL};
	struct errtext et = {""};
	char daemon[PATH_MAX + 16], **words;
	int code, err;

	code = arguments(&ma, argc, argv);
	if (code >= 0)
		return code;
	find_daemon(daemon, sizeof(daemon));
	words = mount_translate(&ma, daemon, &err, &et);
	if (words == NULL) {
		fprintf(stderr, "mount.batonfs: %s\n", et.s);
		return err == -EINVAL ? MOUNT_USAGE : MOUNT_SYSTEM;
	}
	if (ma.verbose)
		show(words);
	forget_manager();
	code = run(words);
	argv_free(&words);
	return code;
}
