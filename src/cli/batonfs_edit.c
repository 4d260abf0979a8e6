/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/obj.h"
#include "cli/edit.h"

/* --- the file */

/* Can nobody but root and us take away, or put something else in the place of, what we
 * make in it? */
static bool is_safe(const char *dir)
{
	struct stat st;

	if (dir == NULL || dir[0] != '/' || stat(dir, &st) != 0 || !S_ISDIR(st.st_mode))
		return false;
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return false;
	return (st.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (st.st_mode & S_ISVTX) != 0;
}

static int make_dir(struct edit *e, const char *name)
{
	const char *const roots[] = {getenv("TMPDIR"), "/tmp", "/var/tmp"};

	for (size_t i = 0; i < ARRAY_LEN(roots); i++) {
		int n;

		if (!is_safe(roots[i]))
			continue;
		n = snprintf(e->dir, sizeof(e->dir), "%s/%s.XXXXXX", roots[i], name);
		if (n > 0 && (size_t)n < sizeof(e->dir) && mkdtemp(e->dir) != NULL)
			return 0;
	}
	return -EACCES;
}

enum cli_exit edit_new(struct cli *c, struct edit *e, const char *name, const char *leaf)
{
	int fd;

	memset(e, 0, sizeof(*e));
	if (make_dir(e, name) != 0)
		return cli_error(c, "no directory for a temporary file: neither $TMPDIR nor /tmp "
				    "nor /var/tmp is writable and safe from other users");
	e->made = true;
	(void)snprintf(e->file, sizeof(e->file), "%s/%s", e->dir, leaf);
	fd = open(e->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	e->out = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (e->out != NULL)
		return CLI_OK;
	if (fd >= 0)
		close(fd);
	return cli_error(c, "%s: %s", e->file, strerror(errno));
}

void edit_end(struct edit *e)
{
	if (e->out != NULL)
		fclose(e->out);
	if (e->made && !e->keep) {
		unlink(e->file);
		rmdir(e->dir);
	}
	memset(e, 0, sizeof(*e));
}

/* --- the editor */

static const char *editor(void)
{
	static const char *const names[] = {"EDITOR", "VISUAL"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		const char *s = getenv(names[i]);

		if (s != NULL && s[0] != '\0')
			return s;
	}
	return "vi";
}

static void child(const char *command, const struct edit *e, const struct sigaction *was_int,
    const struct sigaction *was_quit)
{
	char *line = NULL;

	sigaction(SIGINT, was_int, NULL);
	sigaction(SIGQUIT, was_quit, NULL);
	if (asprintf(&line, "%s \"$@\"", command) >= 0)
		execl("/bin/sh", "sh", "-c", line, command, e->file, (char *)NULL);
	_exit(127);
}

/* Keys that interrupt are the editor's. */
static int run(const char *command, const struct edit *e)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN}, was_int, was_quit;
	int status = 0;
	pid_t pid;

	fflush(stdout);
	sigaction(SIGINT, &ignore, &was_int);
	sigaction(SIGQUIT, &ignore, &was_quit);
	pid = fork();
	if (pid == 0)
		child(command, e, &was_int, &was_quit);
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			pid = -1;
	sigaction(SIGINT, &was_int, NULL);
	sigaction(SIGQUIT, &was_quit, NULL);
	return pid < 0 ? -1 : status;
}

enum cli_exit edit_run(struct cli *c, struct edit *e)
{
	const char *command = editor();
	int status, rc = fputc('\n', e->out) == EOF ? EOF : 0;

	if (fclose(e->out) != 0 || rc != 0) {
		e->out = NULL;
		return cli_error(c, "%s: %s", e->file, strerror(errno));
	}
	e->out = NULL;
	status = run(command, e);
	if (status < 0)
		return cli_error(c, "start the editor %s: %s", command, strerror(errno));
	if (WIFSIGNALED(status))
		return cli_error(c, "the editor %s was ended by signal %d: nothing was changed",
		    command, WTERMSIG(status));
	if (WEXITSTATUS(status) != 0)
		return cli_error(c, "the editor %s ended with status %d: nothing was changed",
		    command, WEXITSTATUS(status));
	return CLI_OK;
}

/* --- reading */

enum cli_exit edit_read(struct cli *c, FILE *f, const char *name, char **text)
{
	char *buf = malloc(EDIT_MAX + 2), *nul;
	unsigned line, column;
	size_t len;

	*text = NULL;
	if (buf == NULL)
		return cli_error(c, "%s", strerror(ENOMEM));
	len = fread(buf, 1, EDIT_MAX + 1, f);
	if (ferror(f)) {
		free(buf);
		return cli_error(c, "%s: %s", name, strerror(errno));
	}
	if (len > EDIT_MAX) {
		free(buf);
		return cli_error(c, "%s: is larger than 1 MiB", name);
	}
	nul = memchr(buf, '\0', len);
	if (nul != NULL) {
		json_where(buf, (size_t)(nul - buf), &line, &column);
		free(buf);
		return cli_error(c, "%s: line %u, column %u: a byte 0, which no JSON has", name,
		    line, column);
	}
	buf[len] = '\0';
	*text = buf;
	return CLI_OK;
}

/* Editors may have put another file in the place of the first. */
enum cli_exit edit_read_back(struct cli *c, struct edit *e, char **text)
{
	FILE *f = fopen(e->file, "re");
	enum cli_exit ex;

	*text = NULL;
	if (f == NULL)
		return cli_error(c, "%s: %s", e->file, strerror(errno));
	ex = edit_read(c, f, e->file, text);
	fclose(f);
	return ex;
}
