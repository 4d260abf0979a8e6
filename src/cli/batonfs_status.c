/* SPDX-License-Identifier: BSD-2-Clause */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

static void row(const char *label, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void row(const char *label, const char *fmt, ...)
{
	va_list ap;

	/* Without a label it goes on with the row above. */
	printf("%10s%s ", label, label[0] != '\0' ? ":" : " ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static char *count(uint64_t n, const char *one, const char *many, char *buf, size_t len)
{
	snprintf(buf, len, "%" PRIu64 " %s", n, n == 1 ? one : many);
	return buf;
}

static void print_storage(const struct json *v)
{
	const struct json *list = json_get(v, "storage");

	for (const struct json *s = list != NULL ? list->first : NULL; s != NULL; s = s->next) {
		const char *error = json_get_text(s, "last_error", "");
		char span[40] = "", ago[64] = "";

		if (json_get(s, "since_seconds") != NULL &&
		    json_get(s, "since_seconds")->type == JSON_NUMBER)
			snprintf(ago, sizeof(ago), " for %s",
			    cli_span(json_get_u64(s, "since_seconds", 0), span, sizeof(span)));
		row("Storage", "%s = %s: %s%s", json_get_text(s, "path", "?"),
		    json_get_text(s, "uri", "?"), json_get_text(s, "health", "?"), ago);
		if (error[0] != '\0')
			row("", "last error: %s", error);
	}
}

static void print_cache(const struct json *v)
{
	const struct json *cache = json_get(v, "cache");
	const char *dir = json_get_text(cache, "dir", ""), *error, *last;
	char used[32], all[32], pinned[32], span[40];

	if (dir[0] != '\0')
		row("Cache", "%s of %s used, %s pinned, in %s%s",
		    cli_size(json_get_u64(cache, "used_bytes", 0), used, sizeof(used)),
		    cli_size(json_get_u64(cache, "capacity_bytes", 0), all, sizeof(all)),
		    cli_size(json_get_u64(cache, "pinned_bytes", 0), pinned, sizeof(pinned)), dir,
		    json_get_bool(cache, "index_open", true) ? "" : " (its index is not open yet)");
	else
		row("Cache", "in memory only");
	error = json_get_text(cache, "error", "");
	last = json_get_text(cache, "last_error", "");
	if (error[0] != '\0')
		row("", "%s for %s, passed by: %s", json_get_text(cache, "state", "failed"),
		    cli_span(json_get_u64(cache, "since_seconds", 0), span, sizeof(span)), error);
	else if (last[0] != '\0')
		row("", "last error: %s", last);
	row("Memory", "%s of %s",
	    cli_size(json_get_u64(cache, "memory_used_bytes", 0), used, sizeof(used)),
	    cli_size(json_get_u64(cache, "memory_limit_bytes", 0), all, sizeof(all)));
}

static void print_deletions(const struct json *w)
{
	uint64_t pending = json_get_u64(w, "deletions_pending", 0);
	uint64_t refused = json_get_u64(w, "deletions_refused", 0);
	const char *error = json_get_text(w, "deletions_error", "");
	char names[40];

	if (pending > 0)
		row("Deletions", "%s not deleted in the storage yet",
		    count(pending, "name", "names", names, sizeof(names)));
	if (error[0] != '\0')
		row("", "last error: %s", error);
	if (refused > 0)
		row("Warning", "%s deleted here came back: the storage did not delete it",
		    count(refused, "name", "names", names, sizeof(names)));
}

static void print_writing(const struct json *v)
{
	const struct json *w = json_get(v, "writing"), *meta = json_get(v, "metadata");
	const char *error, *example, *backend = json_get_text(meta, "backend", "none");
	uint64_t queue = json_get_u64(v, "persist_queue", 0), failed;
	uint64_t aside = json_get_u64(w, "set_aside", 0);
	char bytes[32], dirty[32], files[40];

	if (strcmp(backend, "none") != 0) {
		row("Metadata", "%s, in %s", backend, json_get_text(meta, "dir", "?"));
		error = json_get_text(meta, "error", "");
		if (error[0] != '\0')
			row("", "%s: %s", json_get_text(meta, "health", "?"), error);
	}
	if (w == NULL) {
		row("Writing", "no: the mount is read-only");
		return;
	}
	failed = json_get_u64(w, "files_failed", 0);
	example = json_get_text(w, "failed_example", "");
	row("Writing", "%s open for it; %s staged (%s not in the storage) in %s",
	    count(json_get_u64(w, "files_open", 0), "file", "files", files, sizeof(files)),
	    cli_size(json_get_u64(w, "staged_bytes", 0), bytes, sizeof(bytes)),
	    cli_size(json_get_u64(w, "dirty_bytes", 0), dirty, sizeof(dirty)),
	    json_get_text(w, "dir", "?"));
	error = json_get_text(w, "error", "");
	if (error[0] != '\0')
		row("", "last error: %s", error);
	print_deletions(w);
	if (queue > 0)
		row("Unsaved", "%s not in the storage yet",
		    count(queue, "file", "files", files, sizeof(files)));
	if (failed > 0)
		row("Warning", "%s could not be uploaded%s%s: batonfs async-persist list",
		    count(failed, "file", "files", files, sizeof(files)),
		    example[0] != '\0' ? ", such as " : "", example);
	if (aside > 0)
		row("Warning", "%s of earlier mounts that could not be uploaded in %s/kept: "
			       "batonfs async-persist list --kept",
		    count(aside, "file", "files", files, sizeof(files)),
		    json_get_text(w, "dir", "?"));
}

/* Of a cluster; one that is alone says nothing of interest. */
static void print_cluster(const struct json *v)
{
	const struct json *list = json_get(v, "cluster");
	const char *label = "Nodes";

	if (strcmp(json_get_text(json_get(v, "metadata"), "backend", "none"), "fdb") != 0)
		return;
	for (const struct json *n = list != NULL ? list->first : NULL; n != NULL; n = n->next) {
		const char *state = json_get_text(n, "state", "?");
		uint64_t waiting = json_get_u64(n, "waiting", 0) + json_get_u64(n, "failed", 0);
		char span[40] = "", size[32], files[40];
		bool quiet = strcmp(state, "dead") == 0 || strcmp(state, "unknown") == 0;

		if (quiet)
			cli_span(json_get_u64(n, "silent_seconds", 0), span, sizeof(span));
		row(label, "%s (%s) %s%s%s%s; cache of %s; %s not in the storage yet",
		    json_get_text(n, "name", "?"), json_get_text(n, "id", "?"), state,
		    quiet ? " for " : "", span, json_get_bool(n, "self", false) ? ", this one" : "",
		    cli_size(json_get_u64(n, "capacity_bytes", 0), size, sizeof(size)),
		    count(waiting, "file", "files", files, sizeof(files)));
		label = "";
	}
}

static void print_persist(const struct json *v)
{
	const struct json *p = json_get(v, "persist"), *oldest;
	const char *error = json_get_text(p, "last_error", "");
	uint64_t waiting, running, failed, transient, limit;
	char files[40], bytes[32], span[40] = "", pinned[32], all[32], tfiles[40];

	if (p == NULL)
		return;
	waiting = json_get_u64(p, "waiting", 0);
	running = json_get_u64(p, "running", 0);
	failed = json_get_u64(p, "failed", 0);
	transient = json_get_u64(p, "transient", 0);
	limit = json_get_u64(p, "pinned_limit_bytes", 0);
	oldest = json_get(p, "oldest_seconds");
	if (oldest != NULL && oldest->type == JSON_NUMBER)
		cli_span(json_get_u64(p, "oldest_seconds", 0), span, sizeof(span));
	if (waiting > 0)
		row("Persist", "%s, %s wait; %" PRIu64 " being uploaded%s%s",
		    count(waiting, "file", "files", files, sizeof(files)),
		    cli_size(json_get_u64(p, "waiting_bytes", 0), bytes, sizeof(bytes)), running,
		    span[0] != '\0' ? "; the oldest for " : "", span);
	if (json_get_u64(p, "outside", 0) > 0)
		row("", "of them outside of what is mounted, for a mount that has them: %s",
		    count(json_get_u64(p, "outside", 0), "file", "files", files, sizeof(files)));
	if (waiting > 0 && error[0] != '\0')
		row("", "last error: %s", error);
	if (waiting + failed + transient > 0)
		row("Pinned", "%s of %s%s%s",
		    cli_size(json_get_u64(p, "pinned_bytes", 0), pinned, sizeof(pinned)),
		    cli_size(limit, all, sizeof(all)), transient > 0 ? ", with TRANSIENT " : "",
		    transient > 0 ? count(transient, "file", "files", tfiles, sizeof(tfiles)) : "");
}

/* What applications or the kernel had to do with it; nothing, as a rule. */
static void print_refused(const struct json *t)
{
	uint64_t refused = json_get_u64(t, "requests_refused", 0);
	uint64_t aborted = json_get_u64(t, "requests_aborted", 0);
	uint64_t replayed = json_get_u64(t, "requests_replayed", 0);
	char eagain[40], eio[40], again[40];

	if (refused + aborted + replayed == 0)
		return;
	row("", "%s failed with EAGAIN, %s with EIO, %s sent again by the kernel",
	    count(refused, "request", "requests", eagain, sizeof(eagain)),
	    count(aborted, "read", "reads", eio, sizeof(eio)),
	    count(replayed, "request", "requests", again, sizeof(again)));
}

static void print_pauses(const struct json *pause)
{
	const struct json *h = json_get(pause, "histogram");
	uint64_t bound = 0, n;
	char text[512] = "";
	size_t used = 0;

	for (const struct json *b = h != NULL ? h->first : NULL; b != NULL; b = b->next) {
		const struct json *up = json_get(b, "up_to_ms");
		bool open_end = up == NULL || up->type != JSON_NUMBER;

		if (!open_end)
			bound = json_get_u64(b, "up_to_ms", 0);
		n = json_get_u64(b, "count", 0);
		if (n > 0 && used < sizeof(text))
			used += (size_t)snprintf(text + used, sizeof(text) - used,
			    "%s%" PRIu64 " %s %" PRIu64 " ms", used > 0 ? ", " : "", n,
			    open_end ? "over" : "up to", bound);
	}
	if (used > 0)
		row("", "pauses: %s; longest %.1f ms", text,
		    json_get_double(pause, "longest_ms", 0));
}

/* All of this mount. */
static void print_takeovers(const struct json *v)
{
	const struct json *t = json_get(v, "takeovers");
	uint64_t done = json_get_u64(t, "takeovers", 0);
	uint64_t recovered = json_get_u64(t, "recoveries", 0);
	uint64_t failed = json_get_u64(t, "failed", 0);
	char takeovers[40], recoveries[40];

	if (done + recovered + failed == 0)
		return;
	row("Until now", "%s, %s, %" PRIu64 " failed",
	    count(done, "takeover", "takeovers", takeovers, sizeof(takeovers)),
	    count(recovered, "recovery", "recoveries", recoveries, sizeof(recoveries)), failed);
	print_refused(t);
	print_pauses(json_get(t, "pause"));
}

static void print_takeover(const struct json *v)
{
	const struct json *t = json_get(v, "last_takeover"), *moved = json_get(t, "moved");
	const char *kind = json_get_text(t, "kind", "none");
	const char *failure = json_get_text(t, "failure", "");
	uint64_t pid = json_get_u64(t, "from_pid", 0);
	char when[40], from[128] = "", handles[40], held[40];

	/* After a crash there was nobody left to give a name. */
	if (pid != 0)
		snprintf(from, sizeof(from), " from pid %" PRIu64 " (%s)", pid,
		    json_get_text(t, "from_version", "?"));
	if (strcmp(kind, "none") == 0)
		row("Takeover", "none since it was mounted");
	else
		row("Takeover", "%s at %s%s, pause %.1f ms",
		    strcmp(kind, "recovery") == 0 ? "recovered" : "took over",
		    cli_time(json_get_u64(t, "time", 0), when, sizeof(when)), from,
		    json_get_double(t, "pause_ms", 0));
	if (strcmp(kind, "none") != 0)
		row("", "moved: %s, %s held, %" PRIu64 " resumed",
		    count(json_get_u64(moved, "handles", 0), "open handle", "open handles", handles,
			sizeof(handles)),
		    count(json_get_u64(moved, "requests_held", 0), "request", "requests", held,
			sizeof(held)),
		    json_get_u64(moved, "requests_resumed", 0));
	print_refused(t);
	if (failure[0] != '\0')
		row("", "last failure at %s: %s",
		    cli_time(json_get_u64(t, "failure_time", 0), when, sizeof(when)), failure);
}

static void print_capabilities(const struct json *list)
{
	char text[1024] = "no capability";
	size_t used = 0;

	for (const struct json *c = list != NULL ? list->first : NULL; c != NULL; c = c->next)
		if (used < sizeof(text))
			used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s",
			    used > 0 ? " " : "", json_text(c) != NULL ? json_text(c) : "?");
	row("Rights", "%s", text);
}

static void print_status(const struct json *v)
{
	uint64_t up = json_get_u64(v, "uptime_seconds", 0);
	const struct json *warnings = json_get(v, "warnings");
	char span[40], since[40], files[40], dirs[40], nodes[40];

	printf("batonfs %s on %s\n", json_get_text(v, "version", "?"),
	    json_get_text(v, "mountpoint", "?"));
	row("Daemon", "pid %" PRIu64 ", since %s (%s), %s", json_get_u64(v, "pid", 0),
	    cli_time((uint64_t)time(NULL) - up, since, sizeof(since)),
	    cli_span(up, span, sizeof(span)),
	    json_get_bool(v, "keeper", false) ? "watched by a keeper" : "without a keeper");
	print_capabilities(json_get(v, "capabilities"));
	print_storage(v);
	print_cache(v);
	print_writing(v);
	print_cluster(v);
	print_persist(v);
	row("Open", "%s, %s; %s known",
	    count(json_get_u64(v, "files_open", 0), "file", "files", files, sizeof(files)),
	    count(json_get_u64(v, "directories_open", 0), "directory", "directories", dirs,
		sizeof(dirs)),
	    count(json_get_u64(v, "nodes", 0), "name", "names", nodes, sizeof(nodes)));
	row("Requests", "%" PRIu64 " running", json_get_u64(v, "requests_running", 0));
	print_takeover(v);
	print_takeovers(v);
	for (const struct json *w = warnings != NULL ? warnings->first : NULL; w != NULL;
	     w = w->next)
		row("Warning", "%s", json_text(w) != NULL ? json_text(w) : "?");
}

enum cli_exit cli_status(struct cli *c)
{
	struct json *v;
	enum cli_exit ex = cli_ask(c, "status", &v);

	if (ex != CLI_OK)
		return ex;
	if (c->json) {
		ex = cli_print_json(c, v);
	} else {
		print_status(v);
		ex = cli_flush(c);
	}
	json_free(&v);
	return ex;
}
