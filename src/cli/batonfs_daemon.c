/* SPDX-License-Identifier: BSD-2-Clause */
/* What ends the daemon that is asked: upgrade and umount.  Neither is repeated. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static int say_progress(struct cli *c, void *arg, const struct json *row)
{
	const char *binary = json_get_text(row, "binary", "");
	uint64_t *pid = arg;

	*pid = json_get_u64(row, "pid", *pid);
	if (!c->json) {
		printf("%s%s%s\n", json_get_text(row, "message", ""), binary[0] != '\0' ? ": " : "",
		    binary);
		fflush(stdout);
	}
	return CLI_OK;
}

/* The daemon may run in another directory. */
static char *absolute(const char *file)
{
	char *cwd, *out = NULL;

	if (file[0] == '/')
		return strdup(file);
	cwd = getcwd(NULL, 0);
	if (cwd != NULL && asprintf(&out, "%s/%s", cwd, file) < 0)
		out = NULL;
	free(cwd);
	return out;
}

static enum cli_exit upgrade_args(struct cli *c, struct json_out *o)
{
	char *binary;

	if (c->binary != NULL) {
		binary = absolute(c->binary);
		if (binary == NULL)
			return cli_error(c, "%s: %s", c->binary, strerror(errno));
		json_add_text(o, "binary", binary);
		free(binary);
	}
	json_add_bool(o, "check", (c->seen & CLI_CHECK) != 0);
	json_key(o, "flags");
	json_open_array(o);
	for (int i = 0; i < c->nflags; i++)
		json_put_text(o, c->flags[i]);
	json_close_array(o);
	return CLI_OK;
}

/* With what the new daemon says of itself. */
static void say_upgraded(struct cli *c, const struct json *v)
{
	const char *message = json_get_text(v, "message", "");
	bool check = (c->seen & CLI_CHECK) != 0;
	struct json *now;

	printf("%s%s%s\n", check ? "an upgrade would work" : "upgraded",
	    message[0] != '\0' ? ": " : "", message);
	if (check || cli_ask(c, "status", &now) != CLI_OK)
		return;
	printf("version %s, pid %" PRIu64 ", requests stood still for %.1f ms\n",
	    json_get_text(now, "version", "?"), json_get_u64(now, "pid", 0),
	    json_get_double(json_get(now, "last_takeover"), "pause_ms", 0));
	json_free(&now);
}

/* The daemon has died before it could say how it ended: that depends on who serves now.
 * The new one may have had the mount already, or have taken it when the old one died. */
static enum cli_exit upgrade_lost(struct cli *c, uint64_t pid)
{
	enum cli_exit ex;
	struct json *now;
	uint64_t serves;

	if ((c->seen & CLI_CHECK) != 0)
		return cli_error(c, "%s: the daemon died before it could answer", c->path);
	ex = cli_ask_next(c, "status", &now);
	if (ex != CLI_OK)
		return ex;
	serves = json_get_u64(now, "pid", 0);
	if (serves != pid) {
		cli_error(c,
		    "the old daemon died meanwhile, and pid %" PRIu64 " (version %s) serves, "
		    "which is not the new daemon: try again",
		    serves, json_get_text(now, "version", "?"));
		ex = CLI_TAKEOVER;
	} else if (c->json) {
		printf("{\"check\":false,\"message\":\"the old daemon died meanwhile\"}\n");
	} else {
		printf("upgraded: the old daemon died meanwhile, the new one serves\n"
		       "version %s, pid %" PRIu64 "\n",
		    json_get_text(now, "version", "?"), serves);
	}
	json_free(&now);
	return ex == CLI_OK ? cli_flush(c) : ex;
}

enum cli_exit cli_upgrade(struct cli *c)
{
	struct cli_call call;
	uint64_t pid = 0;
	bool lost = false;
	enum cli_exit ex;
	struct json *v;

	ex = cli_call_new(c, &call, "upgrade");
	if (ex != CLI_OK)
		return ex;
	call.progress = say_progress;
	call.arg = &pid;
	call.lost = &lost;
	call.refused = CLI_TAKEOVER;
	ex = upgrade_args(c, call.args);
	if (ex != CLI_OK) {
		json_out_free(&call.args);
		return ex;
	}
	ex = cli_call_run(c, &call, &v);
	if (lost)
		return upgrade_lost(c, pid);
	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		say_upgraded(c, v);
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}

/* umount(2) takes its time: said once. */
static int say_unmounting(struct cli *c, void *arg, const struct json *row)
{
	const char *what = json_get_text(row, "message", "");
	bool *said = arg;

	if (!*said && what[0] != '\0')
		cli_error(c, "unmounting: waiting for %s", what);
	*said = true;
	return CLI_OK;
}

enum cli_exit cli_umount(struct cli *c)
{
	struct cli_call call;
	bool said = false;
	enum cli_exit ex = CLI_OK;
	struct json *v;

	if ((c->seen & CLI_DRAIN) != 0)
		ex = cli_drain(c, c->drain_timeout);
	if (ex == CLI_OK)
		ex = cli_call_new(c, &call, "umount");
	if (ex != CLI_OK)
		return ex;
	json_add_bool(call.args, "force", (c->seen & CLI_FORCE) != 0);
	call.until_end = true;
	call.progress = say_unmounting;
	call.arg = &said;
	ex = cli_call_run(c, &call, &v);
	if (ex == CLI_OK && c->json)
		ex = cli_print_json(c, v);
	json_free(&v);
	return ex;
}
