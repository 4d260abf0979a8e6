/* SPDX-License-Identifier: BSD-2-Clause */
#include "ops/below.h"

#include <errno.h>
#include <string.h>

#include "ops/attr.h"

#define BELOW_PAGE 100

static void below_answer(struct deferred *d)
{
	struct below *b = container_of(d, struct below, run);

	b->done(b, 0);
}

static void below_end(struct below *b, int err)
{
	meta_scan_free(&b->scan);
	b->done(b, err);
}

static void below_page(struct meta_req *r, int err);

static void below_ask(struct below *b)
{
	b->scan.path = b->at;
	b->scan.after = b->after[0] != '\0' ? b->after : NULL;
	b->scan.max = BELOW_PAGE;
	b->scan.pass = true;
	b->scan.req.user = b;
	meta_scan(b->fs->meta, &b->scan, below_page);
}

/* False: the name is too long to be anybody's path. */
static bool go_down(struct below *b, const char *name)
{
	size_t len = strlen(b->at), n = strlen(name), slash = len > 0;

	if (len + slash + n > UFS_PATH_MAX)
		return false;
	if (slash > 0)
		b->at[len] = '/';
	memcpy(b->at + len + slash, name, n + 1);
	b->after[0] = '\0';
	return true;
}

/* Behind the directory that it comes from; false: that was the top. */
static bool go_up(struct below *b)
{
	size_t len = strlen(b->at);
	char *name;

	if (len <= b->top)
		return false;
	name = strrchr(b->at + (b->top > 0 ? b->top : 0), '/');
	if (name == NULL) { /* right below the top of the namespace */
		memcpy(b->after, b->at, len + 1);
		b->at[0] = '\0';
		return true;
	}
	memcpy(b->after, name + 1, strlen(name + 1) + 1);
	*name = '\0';
	return true;
}

static void below_page(struct meta_req *r, int err)
{
	struct below *b = r->user;
	const struct meta_entry *me;
	size_t i;

	if (err != 0) {
		below_end(b, err == -ENOMEM ? -ENOMEM : -EIO);
		return;
	}
	for (i = 0; i < b->scan.count && !b->found; i++) {
		me = &b->scan.entries[i];
		b->found = attr_unpersisted(&me->rec);
		if (!b->found && me->rec.kind != META_FILE && go_down(b, me->name)) {
			below_ask(b);
			return;
		}
	}
	if (!b->found && b->scan.more) {
		me = &b->scan.entries[b->scan.count - 1];
		memcpy(b->after, me->name, strlen(me->name) + 1);
		below_ask(b);
		return;
	}
	if (b->found || !go_up(b))
		below_end(b, 0);
	else
		below_ask(b);
}

void below_start(struct fs *fs, struct below *b, void (*done)(struct below *b, int err))
{
	b->fs = fs;
	b->done = done;
	b->found = false;
	memset(&b->run, 0, sizeof(b->run));
	memset(&b->scan, 0, sizeof(b->scan));
	b->top = strlen(b->path);
	memcpy(b->at, b->path, b->top + 1);
	b->after[0] = '\0';
	if (attr_any_unpersisted(fs))
		below_ask(b);
	else
		loop_defer(fs->env.loop, &b->run, below_answer);
}

void below_abort(struct below *b)
{
	if (b->fs == NULL)
		return;
	loop_undefer(b->fs->env.loop, &b->run);
	if (b->fs->meta != NULL)
		meta_abort(&b->scan.req);
	meta_scan_free(&b->scan);
}
