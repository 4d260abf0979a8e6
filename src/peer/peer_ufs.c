/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Contents of other nodes as files of a storage (peer.h).  A request asks the metadata store
 * who has the content by now, and then that node, a piece at a time; or the storage, if it
 * has been persisted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ops/fs.h"
#include "ops/session.h"
#include "peer/peer_priv.h"

/* How often the store is asked again because the node has not got what it should have. */
#define LOOKS_MAX 3u

struct peer_ufs {
	struct ufs ufs;
	struct peers *p;
};

struct peer_read {
	struct ufs_call call; /* first */
	uint32_t magic;
	struct peers *p;
	TAILQ_ENTRY(peer_read) link;
	bool active; /* on p->reading */
	struct ufs_stat *stat; /* one of the two */
	struct ufs_read *read;
	uint64_t id;
	size_t got;
	unsigned looks;
	struct deferred begin;
	struct meta_content_get get;
	bool getting;
	struct meta_node node;
	struct peer_fetch fetch;
	struct ufs_read fwd;
	bool forwarded;
};

static void look(struct peer_read *r);
static void ask(struct peer_read *r);

/* --- The turn */

static void begin_next(struct peers *p)
{
	struct peer_read *r;

	while (!p->stopped && p->nreading < PEER_READS_MAX &&
	    (r = TAILQ_FIRST(&p->queued)) != NULL) {
		TAILQ_REMOVE(&p->queued, r, link);
		TAILQ_INSERT_TAIL(&p->reading, r, link);
		r->active = true;
		p->nreading++;
		look(r);
	}
}

static void begin_soon(struct deferred *d)
{
	begin_next(container_of(d, struct peer_read, begin)->p);
}

/* Nothing of it runs any more, and it has given up its place. */
static void leave(struct peer_read *r)
{
	struct peers *p = r->p;

	loop_undefer(p->env.loop, &r->begin);
	if (r->getting)
		meta_abort(&r->get.req);
	r->getting = false;
	meta_content_free(&r->get);
	memset(&r->get, 0, sizeof(r->get));
	peer_fetch_end(&r->fetch);
	if (r->forwarded)
		ufs_abort(&r->fwd.req);
	r->forwarded = false;
	if (r->active) {
		TAILQ_REMOVE(&p->reading, r, link);
		p->nreading--;
	} else {
		TAILQ_REMOVE(&p->queued, r, link);
	}
}

static void end(struct peer_read *r, int err)
{
	struct peers *p = r->p;

	leave(r);
	ufs_call_end(&r->call, err);
	begin_next(p);
}

static void read_abort(struct ufs_call *c)
{
	struct peer_read *r = container_of(c, struct peer_read, call);
	struct peers *p = r->p;

	if (p->giving == r)
		p->giving = NULL;
	leave(r);
	ufs_call_drop(c);
	begin_next(p);
}

/* False: it was aborted. */
static bool give(struct peer_read *r, const void *data, size_t len)
{
	struct peers *p = r->p;
	bool stays;

	p->giving = r;
	r->got += len;
	r->read->on_data(r->read, data, len);
	stays = p->giving != NULL;
	p->giving = NULL;
	return stays;
}

static void fail(struct peer_read *r, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void fail(struct peer_read *r, int err, const char *fmt, ...)
{
	const struct meta_content *ct = &r->get.rec.content;
	char words[300], name[META_NODE_TEXT];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(words, sizeof(words), fmt, ap);
	va_end(ap);
	log_error("/%s: cannot be read here: its %" PRIu64 " bytes are on node %s (%016" PRIx64
		  "), which has not persisted them yet: %s",
	    r->get.path, ct->size, meta_node_text(r->p->env.meta, ct->node, name), ct->node,
	    words);
	end(r, err);
}

/* --- From the node */

static void fetched(struct peer_fetch *f, int err)
{
	struct peer_read *r = container_of(f, struct peer_read, fetch);

	if (err == -ENOENT && ++r->looks < LOOKS_MAX) {
		peer_fetch_end(f);
		look(r);
		return;
	}
	if (err == -ENOMEM) {
		end(r, err);
	} else if (err != 0) {
		fail(r, r->stat != NULL && err == -EBUSY ? err : -EIO, "at %s: %s",
		    r->node.is.address, f->words);
	} else if (f->size != r->get.rec.content.size) {
		/* Written on, and closed, since the store was asked. */
		end(r, -ESTALE);
	} else if (r->stat != NULL) {
		r->stat->attr.kind = UFS_FILE;
		r->stat->attr.size = f->size;
		session_content_version(r->id, r->stat->attr.version);
		end(r, 0);
	} else {
		if (!give(r, f->data, f->len))
			return;
		peer_fetch_end(f);
		ask(r);
	}
}

static void ask(struct peer_read *r)
{
	struct peer_fetch *f = &r->fetch;

	if (r->read != NULL && r->got == r->read->len) {
		end(r, 0);
		return;
	}
	f->p = r->p;
	f->address = r->node.is.address;
	f->node = r->node.is.id;
	f->content = r->id;
	f->done = fetched;
	if (r->read != NULL) {
		f->off = r->read->off + r->got;
		f->len = MIN(r->read->len - r->got, (size_t)PEER_PIECE);
	}
	peer_fetch_start(f);
}

/* --- From the storage */

static void fwd_data(struct ufs_read *rq, const void *data, size_t len)
{
	struct peer_read *r = container_of(rq, struct peer_read, fwd);

	(void)give(r, data, len);
}

static void fwd_done(struct ufs_req *rq, int err)
{
	struct peer_read *r = container_of(rq, struct peer_read, fwd.req);

	r->forwarded = false;
	end(r, err);
}

/* It has been persisted: the storage's version is that content. */
static void forward(struct peer_read *r)
{
	const struct meta_content *ct = &r->get.rec.content;
	char nspath[UFS_PATH_MAX + 2];
	struct ufs *u;
	const char *sub;
	char *path = r->get.path;

	snprintf(nspath, sizeof(nspath), "/%s", path);
	if (r->stat != NULL || r->read->off + r->read->len > ct->size ||
	    fs_resolve(r->p->env.fs, nspath, &u, &sub) != 0 || sub[0] == '\0') {
		end(r, -ESTALE);
		return;
	}
	r->fwd = (struct ufs_read){.path = path + strlen(path) - strlen(sub),
	    .version = r->get.rec.version,
	    .off = r->read->off + r->got,
	    .len = r->read->len - r->got,
	    .on_data = fwd_data};
	r->forwarded = true;
	ufs_read(u, &r->fwd, fwd_done);
}

/* --- Who has it */

static void ask_node(struct peer_read *r)
{
	const struct meta_content *ct = &r->get.rec.content;
	const struct peers *p = r->p;

	if (meta_is_here(p->env.meta, ct) ||
	    (r->read != NULL && r->read->off + r->read->len > ct->size)) {
		end(r, -ESTALE);
		return;
	}
	if (p->key.len == 0) {
		fail(r, -EIO, "node.key.file is not set here");
		return;
	}
	if (!meta_node_of(p->env.meta, ct->node, &r->node)) {
		fail(r, -EIO, "that node is not known");
		return;
	}
	if (r->node.state == META_NODE_DEAD || r->node.state == META_NODE_LEFT)
		fail(r, -EIO, "it %s",
		    r->node.state == META_NODE_DEAD ? "is dead" : "was unmounted");
	else if (r->node.is.address[0] == '\0')
		fail(r, -EIO, "it has no node.listen");
	else
		ask(r);
}

static void looked(struct meta_req *rq, int err)
{
	struct peer_read *r = rq->user;

	r->getting = false;
	if (err == -ENOENT)
		end(r, r->stat != NULL ? -ENOENT : -ESTALE);
	else if (err != 0)
		end(r, err == -ECANCELED || err == -ENOMEM ? err : -EIO);
	else if (r->get.rec.content.state == META_STATE_PERSISTED)
		forward(r);
	else
		ask_node(r);
}

static void look(struct peer_read *r)
{
	meta_content_free(&r->get);
	memset(&r->get, 0, sizeof(r->get));
	r->get.id = r->id;
	r->get.req.user = r;
	r->getting = true;
	meta_content_get(r->p->env.meta, &r->get, looked);
}

/* --- The storage */

static void begin(struct ufs *u, struct ufs_req *rq, const char *path, struct ufs_stat *stat,
    struct ufs_read *read)
{
	struct peers *p = container_of(u, struct peer_ufs, ufs)->p;
	struct peer_read *r;
	uint64_t id;

	if (p->stopped || !peer_id_parse(path, &id)) {
		ufs_answer_later(rq, p->stopped ? -ECANCELED : -ENOENT);
		return;
	}
	r = ufs_call_new(rq, sizeof(*r), read_abort);
	if (r == NULL)
		return;
	r->magic = PEER_READ_MAGIC;
	r->p = p;
	r->id = id;
	r->stat = stat;
	r->read = read;
	TAILQ_INSERT_TAIL(&p->queued, r, link);
	loop_defer(p->env.loop, &r->begin, begin_soon);
}

static void peer_stat(struct ufs *u, struct ufs_stat *rq)
{
	begin(u, &rq->req, rq->path, rq, NULL);
}

static void peer_read(struct ufs *u, struct ufs_read *rq)
{
	begin(u, &rq->req, rq->path, NULL, rq);
}

static void peer_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	(void)u;
	(void)after;
	ufs_answer_later(&rq->req, -ENOENT);
}

static void peer_check(struct ufs *u, struct ufs_check *rq)
{
	(void)u;
	ufs_answer_later(&rq->req, 0);
}

static void peer_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	(void)u;
	ufs_answer_later(&rq->req, 0);
}

static void peer_free(struct ufs *u)
{
	struct peer_ufs *pu = container_of(u, struct peer_ufs, ufs);

	free(u->uri);
	u->magic = 0;
	free(pu);
}

static const struct ufs_ops peer_ops = {.free = peer_free,
    .stat = peer_stat,
    .list = peer_list,
    .read = peer_read,
    .check = peer_check,
    .statfs = peer_statfs};

int peer_ufs_new(struct ufs **out, struct peers *p)
{
	struct peer_ufs *pu = calloc(1, sizeof(*pu));

	*out = NULL;
	if (pu == NULL)
		return -ENOMEM;
	pu->p = p;
	pu->ufs.magic = UFS_MAGIC;
	pu->ufs.ops = &peer_ops;
	pu->ufs.env = (struct ufs_env){.loop = p->env.loop,
	    .pool = p->env.pool,
	    .http = p->env.http,
	    .cfg = p->env.cfg};
	/* Part of the keys of what is cached. */
	pu->ufs.uri = strdup("peer:");
	if (pu->ufs.uri == NULL) {
		free(pu);
		return -ENOMEM;
	}
	*out = &pu->ufs;
	return 0;
}

void peer_ufs_stop(struct peers *p)
{
	struct peer_read *r, *next;

	p->stopped = true;
	TAILQ_FOREACH(r, &p->queued, link)
	loop_undefer(p->env.loop, &r->begin);
	/* They stay, for whoever is to abort them. */
	TAILQ_FOREACH_SAFE(r, &p->reading, link, next)
	{
		leave(r);
		r->active = false;
		TAILQ_INSERT_TAIL(&p->queued, r, link);
	}
}
