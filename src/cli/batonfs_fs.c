/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* --- fs ls: rows are printed as they come, so their widths are fixed */

#define LS_FORMAT "%9s  %-13s  %-19s  %-9s  %6s  %s\n"

struct listing {
	bool begun, terminal;
	uint64_t count;
};

static int print_row(struct cli *c, void *arg, const struct json *row)
{
	struct listing *ls = arg;
	char size[32], when[40], cached[16] = "-", path[8192];
	const char *name = json_get_text(row, "path", "?");
	bool dir = strcmp(json_get_text(row, "kind", ""), "directory") == 0;

	(void)c;
	if (ls->terminal)
		name = cli_printable(name, path, sizeof(path));
	if (!dir)
		snprintf(cached, sizeof(cached), "%" PRIu64 "%%",
		    json_get_u64(row, "cached_percent", 0));
	if (!ls->begun)
		printf(LS_FORMAT, "SIZE", "STATE", "TIME", "KIND", "CACHED", "PATH");
	ls->begun = true;
	printf(LS_FORMAT,
	    dir ? "-" : cli_size(json_get_u64(row, "size", 0), size, sizeof(size)),
	    json_get_text(row, "persistence", "?"),
	    cli_time(json_get_u64(row, "mtime", 0), when, sizeof(when)),
	    json_get_text(row, "kind", "?"), cached, name);
	return ferror(stdout) ? CLI_FAILURE : CLI_OK;
}

/* --json: one object, written as it grows, closed also if the listing breaks off. */
static int print_json_row(struct cli *c, void *arg, const struct json *row)
{
	struct listing *ls = arg;

	printf("%s", ls->begun ? "," : "{\"entries\":[\n");
	ls->begun = true;
	ls->count++;
	return cli_print_json(c, row);
}

enum cli_exit cli_fs_ls(struct cli *c)
{
	struct listing ls = {.terminal = isatty(STDOUT_FILENO)};
	struct cli_call call;
	enum cli_exit ex;
	struct json *v;

	ex = cli_call_new(c, &call, "fs ls");
	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	call.progress = c->json ? print_json_row : print_row;
	call.arg = &ls;
	json_add_text(call.args, "path", c->operands[0]);
	json_add_bool(call.args, "recursive", (c->seen & CLI_RECURSIVE) != 0);
	ex = cli_call_run(c, &call, &v);
	if (c->json && (ls.begun || ex == CLI_OK))
		printf("%s],\"count\":%" PRIu64 ",\"complete\":%s}\n",
		    ls.begun ? "" : "{\"entries\":[", ls.count, ex == CLI_OK ? "true" : "false");
	json_free(&v);
	return ex == CLI_OK ? cli_flush(c) : ex;
}

/* --- fs stat */

static void print_stat(const struct json *v)
{
	char size[32], when[40];
	uint64_t bytes = json_get_u64(v, "size", 0);
	bool dir = strcmp(json_get_text(v, "kind", ""), "directory") == 0;

	printf("%12s: %s\n", "Path", json_get_text(v, "path", "?"));
	printf("%12s: %s\n", "Kind", json_get_text(v, "kind", "?"));
	if (!dir)
		printf("%12s: %s (%" PRIu64 " bytes)\n", "Size",
		    cli_size(bytes, size, sizeof(size)), bytes);
	printf("%12s: %s\n", "Modified",
	    cli_time(json_get_u64(v, "mtime", 0), when, sizeof(when)));
	if (json_get(v, "mode") != NULL)
		printf("%12s: %04" PRIo64 ", owner %" PRIu64 ":%" PRIu64 "\n", "Mode",
		    json_get_u64(v, "mode", 0), json_get_u64(v, "uid", 0),
		    json_get_u64(v, "gid", 0));
	printf("%12s: %s\n", "State", json_get_text(v, "persistence", "?"));
	if (!dir)
		printf("%12s: %" PRIu64 "%% (%s)\n", "Cached", json_get_u64(v, "cached_percent", 0),
		    cli_size(json_get_u64(v, "cached_bytes", 0), size, sizeof(size)));
	printf("%12s: %s\n", "Storage", json_get_text(v, "storage", "?"));
	printf("%12s: %s\n", "Object", json_get_text(v, "storage_path", ""));
	if (json_get_text(v, "version", "")[0] != '\0')
		printf("%12s: %s\n", "Version", json_get_text(v, "version", ""));
}

/* --- fs explain */

static void print_policy(const struct json *v)
{
	const char *rule = json_get_text(v, "rule", NULL), *err = json_get_text(v, "last_error", "");
	const struct json *next = json_get(v, "next_try_seconds");
	char span[40];

	printf("%12s: %s", "Policy", json_get_text(v, "policy", "?"));
	if (!json_get_bool(v, "write_cache", false))
		printf(" (the write cache is off: no rule applies)\n");
	else if (rule != NULL)
		printf(" (files created here now: %s, by the rule %s)\n",
		    json_get_text(v, "rule_policy", "?"), rule);
	else
		printf(" (files created here now: %s, by default)\n",
		    json_get_text(v, "rule_policy", "?"));
	if (json_get(v, "tries") == NULL || strcmp(json_get_text(v, "state", ""), "TRANSIENT") == 0)
		return;
	if (json_get(v, "worker_state") != NULL)
		printf("%12s: node %s, which is %s%s\n", "Bytes on",
		    json_get_text(v, "worker", "?"), json_get_text(v, "worker_state", "?"),
		    json_get_bool(v, "readable", false) ? ": they are read from it" : "");
	printf("%12s: for %s, %" PRIu64 " tries failed", "Waits",
	    cli_span(json_get_u64(v, "age_seconds", 0), span, sizeof(span)),
	    json_get_u64(v, "tries", 0));
	if (next != NULL && next->type == JSON_NUMBER)
		printf(", next in %s",
		    cli_span(json_get_u64(v, "next_try_seconds", 0), span, sizeof(span)));
	printf("\n");
	if (err[0] != '\0')
		printf("%12s: %s\n", "Last error", err);
}

static void print_explanation(const struct json *v)
{
	const char *file = json_get_text(v, "cache_file", ""), *err;
	char size[32];

	print_stat(v);
	print_policy(v);
	printf("%12s: %" PRIu64 " of %" PRIu64 " on disk%s%s, %s in memory\n", "Pages",
	    json_get_u64(v, "pages_on_disk", 0), json_get_u64(v, "pages", 0),
	    file[0] != '\0' ? " in " : "", file,
	    cli_size(json_get_u64(v, "memory_bytes", 0), size, sizeof(size)));
	err = json_get_text(v, "cache_error", "");
	if (err[0] != '\0')
		printf("%12s: %s\n", "Cache error", err);
	err = json_get_text(v, "last_storage_error", "");
	printf("%12s: %s%s%s\n", "Storage is",
	    json_get_bool(v, "storage_ok", true) ? "ok" : "failing",
	    err[0] != '\0' ? "; last error: " : "", err);
}

static enum cli_exit one_path(struct cli *c, const char *command,
    void (*print)(const struct json *v))
{
	struct cli_call call;
	enum cli_exit ex;
	struct json *v;

	ex = cli_call_new(c, &call, command);
	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	json_add_text(call.args, "path", c->operands[0]);
	ex = cli_call_run(c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		print(v);
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}

enum cli_exit cli_fs_stat(struct cli *c)
{
	return one_path(c, "fs stat", print_stat);
}

enum cli_exit cli_fs_explain(struct cli *c)
{
	return one_path(c, "fs explain", print_explanation);
}
