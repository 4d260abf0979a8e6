/* SPDX-License-Identifier: BSD-2-Clause */
/* async-persist: what was written and is not in the storage yet. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "cli/cli.h"

#define LIST_FORMAT "%9s  %-13s  %-8s  %-9s  %5s  %-9s  %s\n"

struct waiting {
	bool begun, terminal, json;
	uint64_t count;
};

static void print_row(const struct json *row, bool terminal)
{
	const char *name = json_get_text(row, "path", "?");
	const char *error = json_get_text(row, "last_error", "");
	const char *worker_state = json_get_text(row, "worker_state", "alive");
	const struct json *next = json_get(row, "next_try_seconds");
	char size[32], age[40], when[40] = "-", tries[24], path[8192];

	if (terminal)
		name = cli_printable(name, path, sizeof(path));
	if (next != NULL && next->type == JSON_NUMBER)
		cli_span(json_get_u64(row, "next_try_seconds", 0), when, sizeof(when));
	snprintf(tries, sizeof(tries), "%" PRIu64, json_get_u64(row, "tries", 0));
	printf(LIST_FORMAT, cli_size(json_get_u64(row, "size", 0), size, sizeof(size)),
	    json_get_text(row, "state", "?"), json_get_text(row, "worker", "?"),
	    cli_span(json_get_u64(row, "age_seconds", 0), age, sizeof(age)), tries, when, name);
	if (error[0] != '\0')
		printf("%9s  last error: %s\n", "", error);
	if (strcmp(worker_state, "alive") != 0)
		printf("%9s  its node %s is %s\n", "", json_get_text(row, "worker", "?"),
		    worker_state);
}

static int take_row(struct cli *c, void *arg, const struct json *row)
{
	struct waiting *w = arg;

	w->count++;
	if (w->json) {
		printf("%s", w->begun ? "," : "{\"entries\":[\n");
		w->begun = true;
		return cli_print_json(c, row);
	}
	if (!w->begun)
		printf(LIST_FORMAT, "SIZE", "STATE", "WORKER", "AGE", "TRIES", "NEXT", "PATH");
	w->begun = true;
	print_row(row, w->terminal);
	return ferror(stdout) ? CLI_FAILURE : CLI_OK;
}

enum cli_exit cli_persist_list(struct cli *c)
{
	struct waiting w = {.terminal = isatty(STDOUT_FILENO), .json = c->json};
	struct cli_call call;
	enum cli_exit ex;
	struct json *v;

	if ((c->seen & CLI_KEPT) != 0)
		return cli_kept_list(c);
	ex = cli_call_new(c, &call, "async-persist list");
	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	call.progress = take_row;
	call.arg = &w;
	if (c->worker != NULL)
		json_add_text(call.args, "worker", c->worker);
	ex = cli_call_run(c, &call, &v);
	if (c->json && (w.begun || ex == CLI_OK))
		printf("%s],\"count\":%" PRIu64 ",\"complete\":%s}\n",
		    w.begun ? "" : "{\"entries\":[", w.count, ex == CLI_OK ? "true" : "false");
	json_free(&v);
	return ex == CLI_OK ? cli_flush(c) : ex;
}

/* A command about one path. */
static enum cli_exit ask_path(struct cli *c, const char *command, const char *path,
    struct json **v)
{
	struct cli_call call;
	enum cli_exit ex = cli_call_new(c, &call, command);

	if (ex != CLI_OK)
		return ex;
	json_add_text(call.args, "path", path);
	return cli_call_run(c, &call, v);
}

enum cli_exit cli_persist_stat(struct cli *c)
{
	const char *path = c->path_given != NULL ? c->path_given
			   : c->noperands > 0	 ? c->operands[0]
						 : NULL;
	struct json *v = NULL;
	enum cli_exit ex;

	if (path == NULL) {
		cli_error(c, "which file? --path PATH says it");
		return CLI_USAGE;
	}
	ex = ask_path(c, "async-persist stat", path, &v);
	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		printf(LIST_FORMAT, "SIZE", "STATE", "WORKER", "AGE", "TRIES", "NEXT", "PATH");
		print_row(v, isatty(STDOUT_FILENO));
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}

static enum cli_exit act(struct cli *c, const char *command, const char *did)
{
	struct json *v = NULL;
	enum cli_exit ex = ask_path(c, command, c->operands[0], &v);

	if (ex != CLI_OK)
		return ex;
	if (c->json)
		ex = cli_print_json(c, v);
	else
		printf("%s %s\n", did, json_get_text(v, "path", "?"));
	json_free(&v);
	return ex == CLI_OK ? cli_flush(c) : ex;
}

enum cli_exit cli_persist_retry(struct cli *c)
{
	return (c->seen & CLI_KEPT) != 0 ? cli_kept_retry(c)
					 : act(c, "async-persist retry", "uploaded");
}

enum cli_exit cli_persist_drop(struct cli *c)
{
	return (c->seen & CLI_KEPT) != 0 ? cli_kept_drop(c)
					 : act(c, "async-persist drop", "dropped");
}

static int say_left(struct cli *c, void *arg, const struct json *row)
{
	char size[32];

	(void)arg;
	if (c->json || !isatty(STDOUT_FILENO))
		return CLI_OK;
	printf("\r%" PRIu64 " files, %s are not in the storage yet ",
	    json_get_u64(row, "files", 0),
	    cli_size(json_get_u64(row, "bytes", 0), size, sizeof(size)));
	fflush(stdout);
	return CLI_OK;
}

enum cli_exit cli_drain(struct cli *c, const char *timeout)
{
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit ex = cli_call_new(c, &call, "async-persist drain");

	if (ex != CLI_OK)
		return ex;
	call.repeatable = call.waits = true;
	call.progress = say_left;
	if (timeout != NULL)
		json_add_text(call.args, "timeout", timeout);
	ex = cli_call_run(c, &call, &v);
	if (!c->json && isatty(STDOUT_FILENO))
		printf("\n");
	if (ex == CLI_OK && !c->json && json_get_u64(v, "outside", 0) > 0)
		printf("files outside of what is mounted, for a mount that has them: %" PRIu64 "\n",
		    json_get_u64(v, "outside", 0));
	json_free(&v);
	return ex;
}

enum cli_exit cli_persist_drain(struct cli *c)
{
	enum cli_exit ex = cli_drain(c, c->drain_timeout);

	if (ex == CLI_OK && c->json)
		printf("{\"files\":0}\n");
	else if (ex == CLI_OK)
		printf("everything is in the storage\n");
	return ex == CLI_OK ? cli_flush(c) : ex;
}
