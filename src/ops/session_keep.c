/* SPDX-License-Identifier: BSD-2-Clause */
/* Reads and fills of staged files that can be left at any time, and the keeping of what
 * is open and about to lose its object. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ops/session.h"

/* --- I/O that may be left */

static void sio_free(struct session_io *sio)
{
	struct session *s = sio->s;
	struct fs *fs = s->fs;

	free(sio);
	session_unuse(s);
	fs->nwork--;
	fs_op_ended(fs);
}

static void sio_done(struct staged_io *io, int err)
{
	struct session_io *sio = io->user;

	sio->running = false;
	sio->holds = err == 0 && !sio->fill;
	if (sio->done != NULL)
		sio->done(sio, err);
	else
		session_io_end(&sio);
}

struct session_io *session_io_new(struct session *s, uint64_t off, uint64_t len)
{
	struct session_io *sio = calloc(1, sizeof(*sio));

	if (sio == NULL)
		return NULL;
	sio->s = s;
	sio->io.sf = s->sf;
	sio->io.off = off;
	sio->io.len = len;
	sio->io.done = sio_done;
	sio->io.user = sio;
	session_use(s);
	s->fs->nwork++;
	return sio;
}

bool session_io_try(struct session_io *sio)
{
	sio->holds = staged_read_try(&sio->io);
	return sio->holds;
}

void session_io_start(struct session_io *sio, void (*done)(struct session_io *sio, int err))
{
	sio->done = done;
	sio->running = true;
	if (sio->fill)
		staged_fill(&sio->io);
	else
		staged_read(&sio->io);
}

void session_io_end(struct session_io **sp)
{
	struct session_io *sio = *sp;

	*sp = NULL;
	if (sio == NULL)
		return;
	if (sio->running && !staged_io_abort(&sio->io)) {
		sio->done = NULL; /* the pool has it: it ends itself */
		return;
	}
	if (sio->holds)
		staged_read_release(&sio->io);
	sio_free(sio);
}

/* --- Keeping */

static void keep_answer(struct deferred *d)
{
	struct session_keep *k = container_of(d, struct session_keep, run);

	k->done(k, k->err);
}

static void keep_soon(struct session_keep *k, int err)
{
	k->err = err;
	loop_defer(k->fs->env.loop, &k->run, keep_answer);
}

/* All of it is here: nothing of the base is needed any more. */
static int keep_all_here(struct session *s)
{
	staged_set_base(s->sf, NULL);
	s->base = false;
	return session_store(s);
}

static void keep_filled(struct session_io *sio, int err)
{
	struct session_keep *k = sio->user;

	if (err == 0)
		err = keep_all_here(sio->s);
	session_io_end(&k->io);
	k->done(k, err);
}

/* The session that keeps the node's content, made if need be; NULL and 0: nobody has it
 * open. */
static int keep_session(struct fs *fs, uint64_t node, struct session **out)
{
	char path[UFS_PATH_MAX + 1];
	struct session *s = session_of(fs, node);
	struct node n;
	int err;

	*out = NULL;
	err = node_load(fs, node, &n);
	if (err != 0)
		return err == -ENOENT ? 0 : err;
	if (n.kind == UFS_DIR || n.opens == (s != NULL ? 1u : 0u))
		return 0;
	if (s != NULL) {
		*out = s;
		return 0;
	}
	err = node_path(fs, node, path);
	if (err == 0)
		err = session_new(fs, &n, path, true, 0, &s);
	if (err != 0)
		return err;
	s->state = SESSION_ORPHAN;
	err = session_store(s);
	if (err != 0)
		session_end(s);
	else
		*out = s;
	return err;
}

void session_keep(struct fs *fs, uint64_t node, struct session_keep *k,
    void (*done)(struct session_keep *k, int err))
{
	struct session *s;
	int err;

	k->fs = fs;
	k->io = NULL;
	k->done = done;
	memset(&k->run, 0, sizeof(k->run));
	err = keep_session(fs, node, &s);
	if (err == 0 && s != NULL && s->base) {
		k->io = session_io_new(s, 0, staged_size(s->sf));
		if (k->io == NULL)
			err = -ENOMEM;
	}
	if (k->io == NULL) {
		keep_soon(k, err);
		return;
	}
	k->io->fill = true;
	k->io->user = k;
	session_io_start(k->io, keep_filled);
}

/* --- For whoever looks when the mount is gone */

/* A name may have a newline in it: what follows it would be read as lines of ours. */
static const char *one_line(const char *path, char *to)
{
	char *out = to;

	for (; *path != '\0'; path++) {
		if (*path == '\n' || *path == '\\')
			*out++ = '\\';
		*out++ = *path == '\n' ? 'n' : *path;
	}
	*out = '\0';
	return to;
}

/* What the upload would have carried, or nothing. */
static void say_owner(const struct session *s, const struct node *n, char *to, size_t len)
{
	bool have = (n->flags & NODE_HAVE_MODE) != 0;
	const struct fs *fs = s->fs;

	if (!have && (s->set & (UFS_SET_MODE | UFS_SET_UID | UFS_SET_GID)) == 0)
		return;
	(void)snprintf(to, len, "mode: %04o, owner: %u:%u\n",
	    ((s->set & UFS_SET_MODE) != 0 ? s->mode : have ? n->mode : fs->file_mode) & 07777,
	    (s->set & UFS_SET_UID) != 0 ? s->uid : have ? n->uid : fs->uid,
	    (s->set & UFS_SET_GID) != 0 ? s->gid : have ? n->gid : fs->gid);
}

void session_leave(const struct session *s)
{
	char head[2 * UFS_PATH_MAX + UFS_VERSION_MAX + 320], path[UFS_PATH_MAX + 1], when[40] = "";
	char line[2 * UFS_PATH_MAX + 1], owner[80] = "";
	struct node n;
	struct tm tm;

	if (node_load(s->fs, s->node, &n) != 0 || node_path(s->fs, s->node, path) != 0)
		return;
	if (localtime_r(&s->mtime.tv_sec, &tm) != NULL)
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
	say_owner(s, &n, owner, sizeof(owner));
	(void)snprintf(head, sizeof(head),
	    "path: /%s\nwritten: %s\nnot stored: %s\nversion in the storage then: %s\n%s",
	    one_line(path, line), when,
	    s->error != 0 ? strerror(-s->error) : "no time was left for it",
	    s->created || n.version[0] == '\0' ? "none" : n.version, owner);
	staged_keep(s->sf, head);
}

void session_keep_abort(struct session_keep *k)
{
	if (k->fs == NULL)
		return;
	session_io_end(&k->io);
	loop_undefer(k->fs->env.loop, &k->run);
}
