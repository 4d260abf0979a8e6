/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * meta: a metadata store, written to a file and read from one.  The file has a JSON object a
 * line: the first says what it is and of which version, the last how many records there are,
 * so that one that was cut off is none; between them the path rules, if there are any, and the
 * records (batonfs(1)).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/obj.h"
#include "cli/cli.h"

#define META_FORMAT "batonfs-metadata"
#define META_FORMAT_VERSION 1u
#define PUT_MOST 100u

static const struct json_limits line_limits = {16, 1000};

/* --- Export */

/* Directories whose records are still to be read. */
struct dirs {
	char **path;
	size_t n, cap;
};

static int dirs_push(struct dirs *d, char *path)
{
	if (d->n == d->cap) {
		size_t cap = d->cap == 0 ? 64 : 2 * d->cap;
		char **p = reallocarray(d->path, cap, sizeof(*p));

		if (p == NULL) {
			free(path);
			return -ENOMEM;
		}
		d->path = p;
		d->cap = cap;
	}
	d->path[d->n++] = path;
	return path != NULL ? 0 : -ENOMEM;
}

static void dirs_free(struct dirs *d)
{
	while (d->n > 0)
		free(d->path[--d->n]);
	free(d->path);
}

struct export {
	FILE *to;
	char *temp;
	struct dirs dirs;
	uint64_t records;
};

/* The line of it, which is freed. */
static enum cli_exit write_line(struct cli *c, struct export *ex, struct json_out **o)
{
	const char *text;
	size_t len;
	int err = *o == NULL ? -ENOMEM : json_out_take(*o, &text, &len);

	if (err == 0 && (fwrite(text, 1, len, ex->to) != len || putc('\n', ex->to) == EOF))
		err = -errno;
	if (*o != NULL)
		json_out_free(o);
	return err != 0 ? cli_error(c, "%s: %s", ex->temp, strerror(-err)) : CLI_OK;
}

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", name) < 0 ? NULL : path;
}

static enum cli_exit write_record(
    struct cli *c, struct export *ex, const char *path, const struct json *entry)
{
	struct json_out *o = json_out_new();

	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "path", path);
		for (const struct json *m = entry->first; m != NULL; m = m->next) {
			if (strcmp(m->key, "name") == 0)
				continue;
			json_key(o, m->key);
			json_put_value(o, m);
		}
		json_close_object(o);
	}
	ex->records++;
	return write_line(c, ex, &o);
}

/* A record, and if there may be others below it, that. */
static enum cli_exit take_entry(
    struct cli *c, struct export *ex, const char *dir, const struct json *entry)
{
	const char *kind = json_get_text(entry, "kind", "");
	char *path = join(dir, json_get_text(entry, "name", ""));
	enum cli_exit rc = CLI_OK;

	if (path == NULL)
		return cli_error(c, "%s", strerror(ENOMEM));
	if (strcmp(kind, "path") != 0)
		rc = write_record(c, ex, path, entry);
	if (rc != CLI_OK || strcmp(kind, "file") == 0)
		free(path);
	else if (dirs_push(&ex->dirs, path) != 0)
		rc = cli_error(c, "%s", strerror(ENOMEM));
	return rc;
}

static enum cli_exit ask_page(
    struct cli *c, const char *dir, const char *after, struct json **page)
{
	struct cli_call call;
	enum cli_exit rc = cli_call_new(c, &call, "meta scan");

	if (rc != CLI_OK)
		return rc;
	call.repeatable = true;
	json_add_text(call.args, "path", dir);
	if (after != NULL)
		json_add_text(call.args, "after", after);
	return cli_call_run(c, &call, page);
}

static enum cli_exit export_dir(struct cli *c, struct export *ex, const char *dir)
{
	struct json *page = NULL, *old = NULL;
	const char *after = NULL;
	enum cli_exit rc;
	bool more;

	do {
		const struct json *all;

		rc = ask_page(c, dir, after, &page);
		json_free(&old);
		if (rc != CLI_OK)
			return rc;
		more = json_get_bool(page, "more", false);
		all = json_get(page, "entries");
		for (const struct json *e = all != NULL ? all->first : NULL;
		     e != NULL && rc == CLI_OK; e = e->next) {
			rc = take_entry(c, ex, dir, e);
			after = json_get_text(e, "name", "");
		}
		old = page; /* has what `after` says */
		page = NULL;
	} while (rc == CLI_OK && more);
	json_free(&old);
	return rc;
}

static enum cli_exit export_head(struct cli *c, struct export *ex, const struct json *state)
{
	struct json_out *o = json_out_new();

	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "format", META_FORMAT);
		json_add_u64(o, "version", META_FORMAT_VERSION);
		json_add_text(o, "backend", json_get_text(state, "backend", "?"));
		json_add_text(o, "store", json_get_text(state, "store", "?"));
		json_close_object(o);
	}
	return write_line(c, ex, &o);
}

static enum cli_exit export_rules(struct cli *c, struct export *ex)
{
	struct json_out *o;
	struct json *v = NULL;
	enum cli_exit rc = cli_ask(c, "pathconfig show", &v);

	if (rc != CLI_OK || json_get_u64(v, "version", 0) == 0) {
		json_free(&v);
		return rc;
	}
	o = json_out_new();
	if (o != NULL) {
		json_open_object(o);
		json_add_text(o, "rules", json_get_text(v, "text", ""));
		json_close_object(o);
	}
	json_free(&v);
	return write_line(c, ex, &o);
}

static enum cli_exit export_end(struct cli *c, struct export *ex)
{
	struct json_out *o = json_out_new();

	if (o != NULL) {
		json_open_object(o);
		json_add_u64(o, "records", ex->records);
		json_close_object(o);
	}
	return write_line(c, ex, &o);
}

/* Nobody has changed anything since. */
static enum cli_exit unchanged(struct cli *c, const struct json *was)
{
	struct json *now = NULL;
	enum cli_exit rc = cli_ask(c, "meta state", &now);

	if (rc == CLI_OK && (json_get_u64(was, "changes", 0) != json_get_u64(now, "changes", 1) ||
				json_get_u64(was, "pid", 0) != json_get_u64(now, "pid", 1)))
		rc = cli_error(c, "the store was changed meanwhile, and nothing was written: let "
				  "nobody use the mount, and try again");
	json_free(&now);
	return rc;
}

static enum cli_exit export_all(struct cli *c, struct export *ex)
{
	struct json *state = NULL;
	enum cli_exit rc = cli_ask(c, "meta state", &state);

	if (rc == CLI_OK && json_get_bool(state, "importing", false))
		rc = cli_error(c, "an import into this store was broken off: import the file to its "
				  "end first");
	if (rc == CLI_OK)
		rc = export_head(c, ex, state);
	if (rc == CLI_OK)
		rc = export_rules(c, ex);
	if (rc == CLI_OK && dirs_push(&ex->dirs, strdup("")) != 0)
		rc = cli_error(c, "%s", strerror(ENOMEM));
	while (rc == CLI_OK && ex->dirs.n > 0) {
		char *dir = ex->dirs.path[--ex->dirs.n];

		rc = export_dir(c, ex, dir);
		free(dir);
	}
	if (rc == CLI_OK)
		rc = unchanged(c, state);
	if (rc == CLI_OK)
		rc = export_end(c, ex);
	json_free(&state);
	return rc;
}

static enum cli_exit say_records(const struct cli *c, const char *did, uint64_t records)
{
	if (c->json)
		printf("{\"records\":%" PRIu64 "}\n", records);
	else
		printf("%s %" PRIu64 " records\n", did, records);
	return cli_flush(c);
}

/* The file appears whole, or not at all. */
enum cli_exit cli_meta_export(struct cli *c)
{
	const char *file = c->operands[0];
	struct export ex = {.to = NULL};
	enum cli_exit rc;
	int fd;

	if (asprintf(&ex.temp, "%s.XXXXXX", file) < 0)
		return cli_error(c, "%s", strerror(ENOMEM));
	fd = mkstemp(ex.temp);
	ex.to = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (ex.to == NULL) {
		rc = cli_error(c, "%s: %s", ex.temp, strerror(errno));
		if (fd >= 0)
			close(fd);
		free(ex.temp);
		return rc;
	}
	rc = export_all(c, &ex);
	if (rc == CLI_OK && (fflush(ex.to) != 0 || fsync(fd) != 0))
		rc = cli_error(c, "%s: %s", ex.temp, strerror(errno));
	if (fclose(ex.to) != 0 && rc == CLI_OK)
		rc = cli_error(c, "%s: %s", ex.temp, strerror(errno));
	if (rc == CLI_OK && rename(ex.temp, file) != 0)
		rc = cli_error(c, "%s: %s", file, strerror(errno));
	if (rc != CLI_OK)
		unlink(ex.temp);
	free(ex.temp);
	dirs_free(&ex.dirs);
	return rc == CLI_OK ? say_records(c, "exported", ex.records) : rc;
}

/* --- Import */

struct import {
	const char *file;
	FILE *from;
	char *line;
	size_t cap;
	uint64_t lines, records;
	uint64_t hash;
	char digest[24];
	char *rules;
	struct cli_call call; /* with records that are not sent yet */
	unsigned waiting;
};

/* The next line as a tree: NULL at the end. */
static enum cli_exit next_line(struct cli *c, struct import *im, struct json **v)
{
	struct errtext et = {""};
	ssize_t n = getline(&im->line, &im->cap, im->from);

	*v = NULL;
	if (n < 0)
		return ferror(im->from) ? cli_error(c, "%s: %s", im->file, strerror(errno)) : CLI_OK;
	im->lines++;
	im->hash = hash64(im->line, (size_t)n, im->hash);
	if (json_parse(v, im->line, (size_t)n, &line_limits, &et) != 0)
		return cli_error(c, "%s: line %" PRIu64 ": %s", im->file, im->lines, et.s);
	return CLI_OK;
}

static enum cli_exit check_head(struct cli *c, struct import *im)
{
	struct json *v = NULL;
	enum cli_exit rc = next_line(c, im, &v);
	uint64_t version = json_get_u64(v, "version", 0);

	if (rc == CLI_OK && strcmp(json_get_text(v, "format", ""), META_FORMAT) != 0)
		rc = cli_error(c, "%s: was not written by `batonfs meta export`", im->file);
	else if (rc == CLI_OK && version != META_FORMAT_VERSION)
		rc = cli_error(c, "%s: is of version %" PRIu64 ", this build knows version %u: use "
				  "the batonfs that wrote it",
		    im->file, version, META_FORMAT_VERSION);
	json_free(&v);
	return rc;
}

/* What is no record. */
static bool is_other(const struct json *v)
{
	return json_get(v, "path") == NULL;
}

/* All of it is looked at before anything is put. */
static enum cli_exit check_file(struct cli *c, struct import *im)
{
	enum cli_exit rc = check_head(c, im);
	bool end = false;

	while (rc == CLI_OK) {
		struct json *v = NULL;

		rc = next_line(c, im, &v);
		if (v == NULL)
			break;
		if (end)
			rc = cli_error(c, "%s: line %" PRIu64 ": behind the end", im->file, im->lines);
		else if (!is_other(v))
			im->records++;
		else if (json_get(v, "rules") != NULL && im->rules == NULL)
			im->rules = strdup(json_get_text(v, "rules", ""));
		else if (json_get(v, "records") == NULL)
			rc = cli_error(c, "%s: line %" PRIu64 ": is no record", im->file, im->lines);
		else if (json_get_u64(v, "records", UINT64_MAX) != im->records)
			rc = cli_error(c, "%s: records are missing", im->file);
		else
			end = true;
		json_free(&v);
	}
	if (rc == CLI_OK && !end)
		rc = cli_error(c, "%s: was cut off: its last line is missing", im->file);
	snprintf(im->digest, sizeof(im->digest), "%016" PRIx64, im->hash);
	return rc;
}

static enum cli_exit say_import(struct cli *c, struct import *im, const char *command)
{
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit rc = cli_call_new(c, &call, command);

	if (rc != CLI_OK)
		return rc;
	call.repeatable = true;
	json_add_text(call.args, "digest", im->digest);
	rc = cli_call_run(c, &call, &v);
	json_free(&v);
	return rc;
}

static enum cli_exit send_records(struct cli *c, struct import *im)
{
	struct json *v = NULL;
	enum cli_exit rc;

	if (im->waiting == 0)
		return CLI_OK;
	json_close_array(im->call.args);
	im->waiting = 0;
	/* The same records again are the same store. */
	im->call.repeatable = true;
	rc = cli_call_run(c, &im->call, &v);
	json_free(&v);
	return rc;
}

static enum cli_exit add_record(struct cli *c, struct import *im, const struct json *v)
{
	enum cli_exit rc = CLI_OK;

	if (im->waiting == 0) {
		rc = cli_call_new(c, &im->call, "meta put");
		if (rc != CLI_OK)
			return rc;
		json_add_text(im->call.args, "digest", im->digest);
		json_key(im->call.args, "records");
		json_open_array(im->call.args);
	}
	json_put_value(im->call.args, v);
	return ++im->waiting == PUT_MOST ? send_records(c, im) : CLI_OK;
}

static enum cli_exit put_all(struct cli *c, struct import *im)
{
	enum cli_exit rc = CLI_OK;
	struct json *v;

	rewind(im->from);
	im->lines = 0;
	do {
		rc = next_line(c, im, &v);
		if (v == NULL)
			break;
		if (!is_other(v))
			rc = add_record(c, im, v);
		json_free(&v);
	} while (rc == CLI_OK);
	if (rc == CLI_OK)
		return send_records(c, im);
	if (im->waiting > 0)
		json_out_free(&im->call.args);
	return rc;
}

static enum cli_exit put_rules(struct cli *c, struct import *im)
{
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit rc;

	if (im->rules == NULL)
		return CLI_OK;
	rc = cli_call_new(c, &call, "pathconfig set");
	if (rc != CLI_OK)
		return rc;
	call.repeatable = true;
	json_add_text(call.args, "text", im->rules);
	rc = cli_call_run(c, &call, &v);
	json_free(&v);
	return rc;
}

enum cli_exit cli_meta_import(struct cli *c)
{
	struct import im = {.file = c->operands[0]};
	struct json *state = NULL;
	enum cli_exit rc;

	im.from = fopen(im.file, "re");
	if (im.from == NULL)
		return cli_error(c, "%s: %s", im.file, strerror(errno));
	rc = check_file(c, &im);
	if (rc == CLI_OK)
		rc = cli_ask(c, "meta state", &state);
	if (rc == CLI_OK)
		rc = say_import(c, &im, "meta begin");
	if (rc == CLI_OK) {
		rc = put_all(c, &im);
		if (rc == CLI_OK)
			rc = put_rules(c, &im);
		if (rc == CLI_OK)
			rc = say_import(c, &im, "meta end");
		if (rc != CLI_OK)
			cli_error(c, "not all of it is in the store: import the same file again, it "
				     "goes on");
	}
	json_free(&state);
	fclose(im.from);
	free(im.line);
	free(im.rules);
	return rc == CLI_OK ? say_records(c, "imported", im.records) : rc;
}
