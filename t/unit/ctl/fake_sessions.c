/* SPDX-License-Identifier: BSD-2-Clause */
/* Write sessions made of nothing, for the commands about them. */
#include "fake_sessions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"

struct session fake_session[FAKE_SESSIONS];
unsigned fake_nsessions;
int fake_upload_err;
static struct fs fake_fs = {.root = (char *)(uintptr_t) ""};

void fake_sessions(struct loop *lp, unsigned n)
{
	fake.d.fs = &fake_fs;
	fake_fs.db = (struct statedb *)(void *)&fake_fs;
	fake_fs.env.loop = lp;
	fake_fs.sessions = &fake_session[0];
	fake_upload_err = 0;
	fake_nsessions = n;
	memset(fake_session, 0, sizeof(fake_session));
	for (unsigned i = 0; i < n; i++) {
		fake_session[i].fs = &fake_fs;
		fake_session[i].node = i + 2;
		fake_session[i].state = SESSION_FAILED;
		fake_session[i].error = -EIO;
		fake_session[i].tries = 3;
	}
}

void session_foreach(struct fs *fs, void (*fn)(struct session *s, void *arg), void *arg)
{
	(void)fs;
	for (unsigned i = 0; i < fake_nsessions; i++)
		if (fake_session[i].node != 0)
			fn(&fake_session[i], arg);
}

struct session *session_of(struct fs *fs, uint64_t node)
{
	(void)fs;
	return node >= 2 && node - 2 < fake_nsessions && fake_session[node - 2].node != 0
		   ? &fake_session[node - 2]
		   : NULL;
}

int node_path(struct fs *fs, uint64_t id, char path[UFS_PATH_MAX + 1])
{
	(void)fs;
	snprintf(path, UFS_PATH_MAX + 1, "unsaved/%llu", (unsigned long long)id);
	return 0;
}

int node_find(struct fs *fs, uint64_t parent, const char *name, struct node *n)
{
	(void)fs, (void)parent;
	if (strcmp(name, "unsaved") == 0)
		n->id = 1000;
	else if (parent != 1000 || sscanf(name, "%llu", (unsigned long long *)&n->id) != 1)
		return -ENOENT;
	return 0;
}

uint64_t staged_size(const struct staged *sf)
{
	(void)sf;
	return 1000;
}

uint64_t upload_sent(const struct upload *up)
{
	(void)up;
	return 10;
}

static void upload_ended(struct deferred *d)
{
	struct session_wait *w = container_of(d, struct session_wait, run);

	w->done(w, fake_upload_err);
}

void session_upload(struct session *s, struct session_wait *w, bool force,
    void (*done)(struct session_wait *w, int err))
{
	(void)force;
	w->s = s;
	w->done = done;
	loop_defer(fake.d.loop, &w->run, upload_ended);
}

void session_wait_abort(struct session_wait *w)
{
	loop_undefer(fake.d.loop, &w->run);
}

int session_drop(struct session *s)
{
	s->node = 0;
	return 0;
}

unsigned fake_aside;

void staging_status(const struct staging *st, struct staging_status *out)
{
	(void)st;
	*out = (struct staging_status){.dir = "/nvme/staged", .files = 2, .bytes = 2000, .dirty = 1500,
	    .aside = fake_aside};
}

unsigned staging_count_aside(const char *dir)
{
	return (unsigned)strlen(dir);
}

void staging_set_aside(struct staging *st, unsigned n)
{
	(void)st;
	fake_aside = n;
}
