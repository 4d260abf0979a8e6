/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fs load and fs free.  A tree is listed, and its files go to the daemon in
 * batches; what is in the wished state already is not sent, so a command that was
 * broken off goes on where it was.  It does so by itself with another daemon, when the
 * one that it asked was replaced or has died.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define BATCH 256
#define BATCH_BYTES (256 * 1024) /* of names; a request is at most 1 MiB */
#define ENDS_MAX 5 /* daemons that ended before one more file was as wished */

struct fill {
	const char *command; /* "fs load" */
	bool load, terminal, json;
	char *batch[BATCH];
	unsigned n;
	size_t batch_bytes;
	uint64_t files, bytes, failed;	/* done; of those, not as wished */
	uint64_t all_files, all_bytes;	/* known beforehand on a terminal only */
	uint64_t lost;			/* loaded, but not there at the end */
	uint64_t now_bytes;		/* of a file that is under way */
};

static void bar(const struct fill *f)
{
	uint64_t at = f->bytes + f->now_bytes, all = f->all_bytes;
	unsigned done = f->all_files == 0 ? 30 : (unsigned)(f->files * 30 / f->all_files);
	char have[32], want[32];

	if (!f->terminal)
		return;
	if (all > 0)
		done = at >= all ? 30 : (unsigned)(at / (all / 30 + 1));
	printf("\r[%.*s%*s] %" PRIu64 "/%" PRIu64 " files, %s of %s ", (int)done,
	    "##############################", (int)(30 - done), "", f->files, f->all_files,
	    cli_size(at, have, sizeof(have)), cli_size(all, want, sizeof(want)));
	fflush(stdout);
}

static int take_row(struct cli *c, void *arg, const struct json *row)
{
	const char *path = json_get_text(row, "path", "?"), *why = json_get_text(row, "error", "");
	uint64_t size = json_get_u64(row, "size", 0);
	struct fill *f = arg;
	char text[32], name[8192];

	if (json_get(row, "ok") == NULL) {
		f->now_bytes = f->load ? json_get_u64(row, "cached_bytes", 0) : 0;
		bar(f);
		return CLI_OK;
	}
	f->files++;
	f->bytes += size;
	f->now_bytes = 0;
	if (!json_get_bool(row, "ok", false)) {
		f->failed++;
		if (f->terminal)
			printf("\n");
		cli_error(c, "%s: %s", cli_printable(path, name, sizeof(name)), why);
	} else if (!f->terminal && !f->json) {
		printf("%s %s (%s)\n", f->load ? "loaded" : "freed", path,
		    cli_size(size, text, sizeof(text)));
	}
	bar(f);
	return ferror(stdout) ? CLI_FAILURE : CLI_OK;
}

static void drop_batch(struct fill *f)
{
	while (f->n > 0)
		free(f->batch[--f->n]);
	f->batch_bytes = 0;
}

static enum cli_exit send_batch(struct cli *c, struct fill *f)
{
	struct json *v = NULL;
	struct cli_call call;
	enum cli_exit ex;

	if (f->n == 0)
		return CLI_OK;
	ex = cli_call_new(c, &call, f->command);
	if (ex != CLI_OK) {
		drop_batch(f);
		return ex;
	}
	call.repeatable = true;
	call.goes_on = true;
	call.progress = take_row;
	call.arg = f;
	json_key(call.args, "paths");
	json_open_array(call.args);
	for (unsigned i = 0; i < f->n; i++)
		json_put_text(call.args, f->batch[i]);
	json_close_array(call.args);
	drop_batch(f);
	ex = cli_call_run(c, &call, &v);
	json_free(&v);
	return ex;
}

static enum cli_exit add(struct cli *c, struct fill *f, const char *path)
{
	f->batch[f->n] = strdup(path);
	if (f->batch[f->n] == NULL)
		return cli_error(c, "out of memory");
	f->n++;
	f->batch_bytes += strlen(path);
	return f->n == BATCH || f->batch_bytes >= BATCH_BYTES ? send_batch(c, f) : CLI_OK;
}

static bool is_dir(const struct json *row)
{
	return strcmp(json_get_text(row, "kind", ""), "directory") == 0;
}

static int count_row(struct cli *c, void *arg, const struct json *row)
{
	struct fill *f = arg;

	(void)c;
	if (!is_dir(row)) {
		f->all_files++;
		f->all_bytes += json_get_u64(row, "size", 0);
	}
	return CLI_OK;
}

static int fill_row(struct cli *c, void *arg, const struct json *row)
{
	uint64_t size = json_get_u64(row, "size", 0), cached = json_get_u64(row, "cached_bytes", 0);
	struct fill *f = arg;

	if (is_dir(row))
		return CLI_OK;
	if (f->load ? json_get_u64(row, "stored_bytes", 0) == size : cached == 0) {
		f->files++;
		f->bytes += size;
		bar(f);
		return CLI_OK;
	}
	return add(c, f, json_get_text(row, "path", ""));
}

static enum cli_exit list(struct cli *c, struct fill *f,
    int (*row)(struct cli *c, void *arg, const struct json *row))
{
	struct json *v = NULL;
	struct cli_call call;
	enum cli_exit ex = cli_call_new(c, &call, "fs ls");

	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	call.goes_on = true;
	call.progress = row;
	call.arg = f;
	json_add_text(call.args, "path", c->operands[0]);
	json_add_bool(call.args, "recursive", true);
	ex = cli_call_run(c, &call, &v);
	json_free(&v);
	return ex;
}

static int verify_row(struct cli *c, void *arg, const struct json *row)
{
	struct fill *f = arg;

	(void)c;
	if (!is_dir(row) && json_get_u64(row, "stored_bytes", 0) < json_get_u64(row, "size", 0))
		f->lost++;
	return CLI_OK;
}

/* What came last may have taken the place of what came first. */
static enum cli_exit verify(struct cli *c, struct fill *f)
{
	enum cli_exit ex = list(c, f, verify_row);

	if (ex != CLI_OK || f->lost == 0)
		return ex;
	if (f->terminal)
		printf("\n");
	return cli_error(c,
	    "%" PRIu64 " files were loaded and then made room for others: "
	    "the tree is larger than the cache has room for (worker.page.store.size)",
	    f->lost);
}

static void report(struct cli *c, const struct fill *f, enum cli_exit ex)
{
	char size[32];

	if (c->json)
		printf("{\"files\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"failed\":%" PRIu64
		       ",\"complete\":%s}\n",
		    f->files, f->bytes, f->failed, ex == CLI_OK ? "true" : "false");
	else
		printf("%s%" PRIu64 " files, %s%s\n", f->terminal ? "\n" : "", f->files,
		    cli_size(f->bytes, size, sizeof(size)),
		    ex == CLI_OK ? "" : "; not all of it worked: run the command again to go on");
}

/* With one daemon, from the beginning. */
static enum cli_exit go_through(struct cli *c, struct fill *f)
{
	enum cli_exit ex = CLI_OK;

	f->files = f->bytes = f->failed = f->lost = f->now_bytes = 0;
	f->all_files = f->all_bytes = 0;
	if (f->terminal)
		ex = list(c, f, count_row);
	if (ex == CLI_OK)
		ex = list(c, f, fill_row);
	if (ex == CLI_OK)
		ex = send_batch(c, f);
	drop_batch(f);
	if (f->failed > 0)
		ex = CLI_FAILURE;
	return ex == CLI_OK && f->load ? verify(c, f) : ex;
}

static enum cli_exit fill(struct cli *c, const char *command, bool load)
{
	struct fill f = {
	    .command = command,
	    .load = load,
	    .json = c->json,
	    .terminal = isatty(STDOUT_FILENO) && !c->json,
	};
	unsigned breaks, ends = 0;
	enum cli_exit ex;
	uint64_t most = 0;

	do {
		breaks = c->breaks;
		ex = go_through(c, &f);
		if (f.files > most) {
			most = f.files;
			ends = 0;
		}
		ends++;
	} while (c->breaks > breaks && ends < ENDS_MAX);
	if (c->breaks > breaks)
		cli_error(c, "%s: the daemon went away again and again before it was done",
		    c->path);
	if (ex == CLI_OK || f.files > 0)
		report(c, &f, ex);
	return ex == CLI_OK ? cli_flush(c) : ex;
}

enum cli_exit cli_fs_load(struct cli *c)
{
	return fill(c, "fs load", true);
}

enum cli_exit cli_fs_free(struct cli *c)
{
	return fill(c, "fs free", false);
}
