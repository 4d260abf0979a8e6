/* SPDX-License-Identifier: BSD-2-Clause */
#include "standin.h"

#include <dirent.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

char standin_dir[64];
pid_t standin_server;

static char cluster_file[96];

void standin_must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "stand-in: %s\n", what);
		abort();
	}
}

static void nap(void)
{
	struct timespec ms = { 0, 2000000 };

	nanosleep(&ms, NULL);
}

/* Beside this program, unless the environment knows better. */
static const char *built(const char *name)
{
	static char path[512];
	char self[400] = "";
	const char *dir = getenv("BATONFS_BUILD");

	if (dir == NULL && readlink("/proc/self/exe", self, sizeof(self) - 1) > 0)
		dir = dirname(self);
	snprintf(path, sizeof(path), "%s/%s", dir != NULL ? dir : ".", name);
	return path;
}

bool standin_real(void)
{
	return getenv("BATONFS_TEST_FDB_CLUSTER_FILE") != NULL;
}

const char *standin_library(void)
{
	const char *name = getenv("BATONFS_TEST_FDB_LIBRARY");

	if (name != NULL)
		return name;
	return standin_real() ? "libfdb_c.so" : built("libfdb_c.so");
}

const char *standin_cluster_file(void)
{
	return standin_real() ? getenv("BATONFS_TEST_FDB_CLUSTER_FILE") : cluster_file;
}

void standin_write(const char *name, const char *text)
{
	char path[160], temp[160];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", standin_dir, name);
	snprintf(temp, sizeof(temp), "%s/%s.new", standin_dir, name);
	out = fopen(temp, "w");
	standin_must(out != NULL && fputs(text, out) >= 0 && fclose(out) == 0 &&
			 rename(temp, path) == 0,
	    name);
}

unsigned standin_fired(const char *line)
{
	char path[160], text[256];
	unsigned n = 0;
	FILE *in;

	snprintf(path, sizeof(path), "%s/fired", standin_dir);
	in = fopen(path, "r");
	while (in != NULL && fgets(text, sizeof(text), in) != NULL)
		n += strncmp(text, line, strlen(line)) == 0;
	if (in != NULL)
		fclose(in);
	return n;
}

void standin_wait_fired(const char *line, unsigned n)
{
	while (standin_fired(line) < n)
		nap();
}

void standin_serve(void)
{
	char arg[] = "--with-parent", name[] = "standin_server";
	char *argv[] = { name, standin_dir, arg, NULL };

	standin_must(posix_spawn(&standin_server, built("standin_server"), NULL, NULL, argv,
			 environ) == 0,
	    "standin_server");
	/* The library waits for it as for any cluster; its file is needed before. */
	while (access(cluster_file, F_OK) != 0) {
		standin_must(waitpid(standin_server, NULL, WNOHANG) == 0, "standin_server ended");
		nap();
	}
}

void standin_kill(void)
{
	kill(standin_server, SIGKILL);
	standin_must(waitpid(standin_server, NULL, 0) == standin_server, "waitpid");
	standin_server = 0;
}

void standin_start(void)
{
	snprintf(standin_dir, sizeof(standin_dir), "/tmp/standin.XXXXXX");
	standin_must(mkdtemp(standin_dir) != NULL, "mkdtemp");
	snprintf(cluster_file, sizeof(cluster_file), "%s/fdb.cluster", standin_dir);
	/* On a machine that is slow enough any transaction would be too old. */
	standin_write("clock", "stopped");
	standin_serve();
}

static void remove_dir(void)
{
	DIR *d = opendir(standin_dir);
	struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d != NULL)
		closedir(d);
	rmdir(standin_dir);
}

void standin_stop(void)
{
	if (standin_server != 0)
		standin_kill();
	if (standin_dir[0] != '\0')
		remove_dir();
	standin_dir[0] = '\0';
}
