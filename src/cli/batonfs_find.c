/* SPDX-License-Identifier: BSD-2-Clause */
/* Which daemon is meant. */
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/paths.h"
#include "cli/cli.h"
#include "reactor/sock.h"

void cli_found_free(struct cli_found *f)
{
	while (f->n > 0)
		free(f->path[--f->n]);
}

/* Somebody answers, or we may not ask: then the error shall say that. */
static bool is_alive(const char *path)
{
	int fd = sock_connect(path, SOCK_STREAM);

	if (fd >= 0)
		close(fd);
	return fd >= 0 || fd == -EAGAIN || fd == -EACCES || fd == -EPERM;
}

int cli_find_all(const char *root, struct cli_found *out)
{
	char pattern[512];
	glob_t g;
	int rc;

	memset(out, 0, sizeof(*out));
	snprintf(pattern, sizeof(pattern), "%s/*/%s", root, PATHS_CONTROL_NAME);
	rc = glob(pattern, 0, NULL, &g);
	if (rc != 0)
		return rc == GLOB_NOMATCH ? 0 : -ENOMEM;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		if (!is_alive(g.gl_pathv[i]))
			continue;
		if (out->n == CLI_FOUND_MAX) {
			out->more = true;
			break;
		}
		out->path[out->n] = strdup(g.gl_pathv[i]);
		if (out->path[out->n] == NULL) {
			globfree(&g);
			cli_found_free(out);
			return -ENOMEM;
		}
		out->n++;
	}
	globfree(&g);
	return 0;
}

/* The option that names this one: "-m /mnt/data", or "-S …" for a shortened name. */
static void print_choice(const char *path)
{
	char name[PATHS_NAME_MAX + 1], mnt[4096];
	const char *from = path + sizeof(PATHS_RUN_ROOT);
	size_t n = strcspn(from, "/");

	snprintf(name, sizeof(name), "%.*s", (int)n, from);
	if (n < sizeof(name) && paths_unescape(name, mnt, sizeof(mnt)) == 0)
		fprintf(stderr, "  -m %s\n", mnt);
	else
		fprintf(stderr, "  -S %s\n", path);
}

static enum cli_exit find_only(struct cli *c)
{
	struct cli_found f;
	enum cli_exit ex = CLI_OK;
	int rc;

	rc = cli_find_all(PATHS_RUN_ROOT, &f);
	if (rc != 0)
		return cli_error(c, "%s: %s", PATHS_RUN_ROOT, strerror(-rc));
	if (f.n == 0)
		return cli_error(c, "no batonfs mount is served on this machine "
				    "(looked for %s/*/%s)", PATHS_RUN_ROOT, PATHS_CONTROL_NAME);
	if (f.n == 1) {
		snprintf(c->path, sizeof(c->path), "%s", f.path[0]);
	} else {
		cli_error(c, "there are several mounts; say which:");
		for (size_t i = 0; i < f.n; i++)
			print_choice(f.path[i]);
		if (f.more)
			fprintf(stderr, "  and more\n");
		ex = CLI_USAGE;
	}
	cli_found_free(&f);
	return ex;
}

/*
 * The name is resolved as the daemon resolved it.  realpath(3) only asks each
 * component whether it is a link, which the kernel answers for a mount's root by
 * itself, so this works while no daemon answers.
 */
static enum cli_exit find_mountpoint(struct cli *c)
{
	char plain[4096], *real;
	size_t n;
	int rc;

	n = (size_t)snprintf(plain, sizeof(plain), "%s", c->mountpoint);
	if (n >= sizeof(plain))
		return cli_error(c, "%s: %s", c->mountpoint, strerror(ENAMETOOLONG));
	while (n > 1 && plain[n - 1] == '/')
		plain[--n] = '\0';
	real = realpath(plain, NULL);
	if (real == NULL)
		return cli_error(c, "%s: %s", c->mountpoint, strerror(errno));
	rc = paths_control_socket(real, c->path, sizeof(c->path));
	free(real);
	return rc != 0 ? cli_error(c, "%s: %s", c->mountpoint, strerror(-rc)) : CLI_OK;
}

enum cli_exit cli_find(struct cli *c)
{
	if (c->breaks > 0)
		return CLI_OK; /* there, and nowhere else, another one will answer */
	if (c->mountpoint != NULL)
		return find_mountpoint(c);
	if (c->socket == NULL)
		return find_only(c);
	if (strlen(c->socket) >= sizeof(c->path))
		return cli_error(c, "%s: %s", c->socket, strerror(ENAMETOOLONG));
	snprintf(c->path, sizeof(c->path), "%s", c->socket);
	return CLI_OK;
}
