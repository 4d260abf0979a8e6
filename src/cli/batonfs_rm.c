/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs rm: through the mount point, so that whoever has a file open goes on working and no
 * cache is left with what is gone.  The files of a directory are removed by several
 * threads; the names of one directory at most are in memory a level.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define THREADS 16
#define SAY_SECONDS 5

struct names {
	char **name;
	size_t n, cap;
};

struct removal {
	struct cli *c;
	bool terminal;
	uint64_t files, dirs, failed;
	time_t said;
	/* what the threads share */
	pthread_mutex_t lock;
	int dir;
	const char *path; /* of the directory, for people */
	const struct names *todo;
	size_t next;
};

static void names_free(struct names *ns)
{
	while (ns->n > 0)
		free(ns->name[--ns->n]);
	free(ns->name);
}

static int names_add(struct names *ns, const char *name)
{
	size_t cap = ns->cap == 0 ? 256 : ns->cap * 2;
	char **p;

	if (ns->n == ns->cap) {
		p = reallocarray(ns->name, cap, sizeof(*p));
		if (p == NULL)
			return -ENOMEM;
		ns->name = p;
		ns->cap = cap;
	}
	ns->name[ns->n] = strdup(name);
	if (ns->name[ns->n] == NULL)
		return -ENOMEM;
	ns->n++;
	return 0;
}

static void say(struct removal *rm)
{
	time_t now = time(NULL);

	if (rm->c->json || (!rm->terminal && now - rm->said < SAY_SECONDS))
		return;
	rm->said = now;
	printf("%s%" PRIu64 " files and %" PRIu64 " directories removed%s", rm->terminal ? "\r" : "",
	    rm->files, rm->dirs, rm->terminal ? " " : "\n");
	fflush(stdout);
}

static void complain(struct removal *rm, const char *path, const char *name, int err)
{
	char text[8192];

	rm->failed++;
	if (rm->terminal)
		printf("\n");
	cli_error(rm->c, "%s%s%s: %s", cli_printable(path, text, sizeof(text)),
	    name[0] != '\0' ? "/" : "", name, strerror(err));
}

static void *worker(void *arg)
{
	struct removal *rm = arg;
	const char *name;
	int err;

	pthread_mutex_lock(&rm->lock);
	while (rm->next < rm->todo->n) {
		name = rm->todo->name[rm->next++];
		pthread_mutex_unlock(&rm->lock);
		err = unlinkat(rm->dir, name, 0) == 0 || errno == ENOENT ? 0 : errno;
		pthread_mutex_lock(&rm->lock);
		if (err == 0)
			rm->files++;
		else
			complain(rm, rm->path, name, err);
		if (rm->files % 256 == 0)
			say(rm);
	}
	pthread_mutex_unlock(&rm->lock);
	return NULL;
}

/* One thread at least: this one. */
static void remove_files(struct removal *rm, int dir, const char *path, const struct names *todo)
{
	pthread_t thread[THREADS - 1];
	size_t n = 0;

	rm->dir = dir;
	rm->path = path;
	rm->todo = todo;
	rm->next = 0;
	while (n < THREADS - 1 && n + 1 < todo->n &&
	       pthread_create(&thread[n], NULL, worker, rm) == 0)
		n++;
	worker(rm);
	while (n > 0)
		pthread_join(thread[--n], NULL);
}

/* Sorts what is in the directory into files and directories. */
static int list_dir(int fd, struct names *files, struct names *dirs)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	int err = 0;

	if (d == NULL) {
		err = -errno;
		close(fd);
		return err;
	}
	while (err == 0 && (errno = 0, e = readdir(d)) != NULL) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		err = names_add(e->d_type == DT_DIR ? dirs : files, e->d_name);
	}
	if (err == 0)
		err = -errno;
	closedir(d);
	return err;
}

static void remove_tree(struct removal *rm, int up, const char *name, const char *path);

static void remove_below(struct removal *rm, int fd, const char *path)
{
	struct names files = {.n = 0}, dirs = {.n = 0};
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = copy < 0 ? -errno : list_dir(copy, &files, &dirs);
	char *below;

	if (err != 0 && err != -ENOENT)
		complain(rm, path, "", -err);
	remove_files(rm, fd, path, &files);
	names_free(&files);
	for (size_t i = 0; i < dirs.n; i++) {
		if (asprintf(&below, "%s/%s", path, dirs.name[i]) < 0) {
			complain(rm, path, dirs.name[i], ENOMEM);
			continue;
		}
		remove_tree(rm, fd, dirs.name[i], below);
		free(below);
	}
	names_free(&dirs);
}

static void remove_tree(struct removal *rm, int up, const char *name, const char *path)
{
	int fd = openat(up, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	uint64_t failed = rm->failed;

	if (fd < 0) {
		if (errno != ENOENT)
			complain(rm, path, "", errno);
		return;
	}
	remove_below(rm, fd, path);
	close(fd);
	/* With something left in it, it cannot go, and why was said. */
	if (rm->failed > failed)
		return;
	if (unlinkat(up, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
		rm->dirs++;
	else
		complain(rm, path, "", errno);
	say(rm);
}

char *cli_mounted_path(struct cli *c, const char *nspath)
{
	const char *subtree, *mountpoint, *rest = nspath;
	struct json *v;
	char *out = NULL;
	size_t n;

	if (cli_ask(c, "status", &v) != CLI_OK)
		return NULL;
	subtree = json_get_text(v, "subtree", "/");
	mountpoint = json_get_text(v, "mountpoint", "");
	n = strcmp(subtree, "/") == 0 ? 0 : strlen(subtree);
	if (nspath[0] != '/')
		cli_error(c, "%s: a namespace path begins with \"/\"", nspath);
	else if (strncmp(nspath, subtree, n) != 0 || (nspath[n] != '/' && nspath[n] != '\0'))
		cli_error(c, "%s: No such file or directory", nspath);
	else if (strspn(nspath + n, "/") == strlen(nspath + n))
		cli_error(c, "%s: is what is mounted, and stays", nspath);
	else if (asprintf(&out, "%s/%s", mountpoint, rest + n) < 0)
		out = NULL;
	json_free(&v);
	return out;
}

static enum cli_exit report(struct removal *rm)
{
	if (rm->c->json)
		printf("{\"files\":%" PRIu64 ",\"directories\":%" PRIu64 ",\"failed\":%" PRIu64
		       ",\"complete\":%s}\n",
		    rm->files, rm->dirs, rm->failed, rm->failed == 0 ? "true" : "false");
	else
		printf("%s%" PRIu64 " files and %" PRIu64 " directories removed%s\n",
		    rm->terminal ? "\r" : "", rm->files, rm->dirs,
		    rm->failed == 0 ? "" : "; not all of it worked: run the command again to go on");
	return rm->failed == 0 ? cli_flush(rm->c) : CLI_FAILURE;
}

enum cli_exit cli_fs_rm(struct cli *c)
{
	struct removal rm = {.c = c,
	    .terminal = isatty(STDOUT_FILENO) && !c->json,
	    .lock = PTHREAD_MUTEX_INITIALIZER};
	char *path = cli_mounted_path(c, c->operands[0]);
	struct stat st;

	if (path == NULL)
		return CLI_FAILURE;
	rm.said = time(NULL);
	if (lstat(path, &st) != 0) {
		complain(&rm, c->operands[0], "", errno);
		free(path);
		return CLI_FAILURE;
	}
	if (S_ISDIR(st.st_mode) && (c->seen & CLI_RECURSIVE) == 0)
		complain(&rm, c->operands[0], "", EISDIR);
	else if (S_ISDIR(st.st_mode))
		remove_tree(&rm, AT_FDCWD, path, c->operands[0]);
	else if (unlink(path) == 0 || errno == ENOENT)
		rm.files++;
	else
		complain(&rm, c->operands[0], "", errno);
	free(path);
	return report(&rm);
}
