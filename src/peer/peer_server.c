/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What other nodes ask: is it one of them, is the content here and closed, and then its bytes,
 * compared with their sums, from the pool.  The metadata store is asked each time, so that
 * nothing is given away that the store says is somewhere else, or persisted.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "cache/staged.h"
#include "ops/session.h"
#include "peer/peer_priv.h"

#define REFUSED_EVERY (60 * NS_PER_S)

struct peer_serve {
	uint32_t magic;
	struct peers *p;
	TAILQ_ENTRY(peer_serve) link;
	struct httpd_req *rq;
	uint64_t id, off, len; /* len 0: a HEAD */
	char asked[PEER_PROOF];
	struct meta_content_get get;
	struct pool_job job;
	unsigned char *mem;
	size_t at;
	/* the answer */
	unsigned status;
	uint32_t crc;
	char told[PEER_PROOF];
};

static void serve_next(struct peers *p);

/* --- The answer */

static void serve_free(void *arg)
{
	struct peer_serve *s = arg;
	struct peers *p;

	CHECK_OBJ(s, PEER_SERVE_MAGIC);
	p = s->p;
	TAILQ_REMOVE(&p->serving, s, link);
	p->nserving--;
	meta_content_free(&s->get);
	free(s->mem);
	FREE_OBJ(s);
	serve_next(p);
}

static void answer_status(struct httpd_req *rq, unsigned status)
{
	const struct httpd_answer a = {.status = status};

	httpd_reply(rq, &a);
}

/* It ends with the answer's last byte. */
static void answer(struct peer_serve *s, unsigned status)
{
	struct httpd_answer a = {.status = status, .release = serve_free, .arg = s};
	char headers[HTTPD_ANSWER_HEADERS_MAX];

	if (status == 200 || status == 206) {
		snprintf(headers, sizeof(headers),
		    "Batonfs-Size: %" PRIu64 "\r\nBatonfs-Crc32c: %08" PRIx32
		    "\r\nBatonfs-Proof: %s\r\n",
		    s->get.rec.content.size, s->crc, s->told);
		a.headers = headers;
		a.body = s->len > 0 ? s->mem + s->at : NULL;
		a.len = s->len;
		COUNT(s->p->env.loop, PEER_SERVED, 1);
		COUNT(s->p->env.loop, PEER_SERVED_BYTES, s->len);
	}
	httpd_reply(s->rq, &a);
}

static int prove(struct peer_serve *s)
{
	const struct peer_told told = {.asked = s->asked,
	    .status = s->status,
	    .size = s->get.rec.content.size,
	    .crc = s->crc,
	    .body = s->len > 0 ? s->mem + s->at : NULL,
	    .len = s->len};

	return peer_told_proof(&s->p->key, &told, s->told);
}

/* --- Bytes, in the pool */

static int read_bytes(struct peer_serve *s)
{
	const struct meta_content_get *g = &s->get;
	int err = staging_read_closed(s->p->env.staging_dir, s->id, g->rec.content.size, s->off,
	    s->len, s->mem, &s->at);

	/* As when it is opened here: the store's are for what is not there as a file. */
	if ((err != -ENOENT && err != -ENODATA) || g->blob == NULL ||
	    g->len != g->rec.content.size)
		return err;
	memcpy(s->mem, (const char *)g->blob + s->off, s->len);
	s->at = 0;
	return 0;
}

static void read_work(struct pool_job *job)
{
	struct peer_serve *s = container_of(job, struct peer_serve, job);
	int err = read_bytes(s);

	if (err == 0) {
		s->crc = checksum_crc32c(s->mem + s->at, s->len);
		err = prove(s);
	}
	job->result = err;
}

static void read_done(struct pool_job *job)
{
	struct peer_serve *s = container_of(job, struct peer_serve, job);
	unsigned status = s->status;

	if (job->result == -ENOENT) {
		status = 404;
	} else if (job->result != 0) {
		status = 500;
		log_error("/%s: cannot be given to another node: %s", s->get.path,
		    job->result == -EBADMSG ? "checksum does not match" : strerror(-job->result));
	}
	answer(s, status);
}

/* --- The record */

/* The status, 0: it is to be read. */
static unsigned judge(struct peer_serve *s, int err)
{
	const struct meta_content *ct = &s->get.rec.content;

	if (err == -ENOENT)
		return 404;
	if (err != 0)
		return 503;
	if (ct->state == META_STATE_PERSISTED || !meta_is_here(s->p->env.meta, ct))
		return 404;
	err = session_content_closed(s->p->env.fs, s->id);
	if (err != 0)
		return err == -EBUSY ? 409 : 503;
	if (s->len > 0 && (s->off >= ct->size || s->len > ct->size - s->off))
		return 416;
	return 0;
}

static void got_record(struct meta_req *r, int err)
{
	struct peer_serve *s = r->user;
	unsigned status = judge(s, err);

	if (status != 0) {
		answer(s, status);
		return;
	}
	if (s->len == 0) {
		s->status = 200;
		answer(s, prove(s) == 0 ? 200 : 503);
		return;
	}
	s->status = 206;
	s->mem = malloc(STAGED_CLOSED_ROOM(s->len));
	if (s->mem == NULL)
		answer(s, 503);
	else
		pool_submit(s->p->env.pool, NULL, &s->job, read_work, read_done);
}

static void serve_next(struct peers *p)
{
	struct peer_serve *s;

	while (p->nserving < PEER_SERVES_MAX && (s = TAILQ_FIRST(&p->waiting)) != NULL) {
		TAILQ_REMOVE(&p->waiting, s, link);
		TAILQ_INSERT_TAIL(&p->serving, s, link);
		p->nserving++;
		s->get.id = s->id;
		s->get.req.user = s;
		meta_content_get(p->env.meta, &s->get, got_record);
	}
}

/* --- The request */

/* Now and then, and how many they were: whoever reaches the port can ask. */
static void note_refused(struct peers *p, const struct httpd_req *rq)
{
	uint64_t now = loop_now(p->env.loop);

	COUNT(p->env.loop, PEER_REFUSED, 1);
	p->refused++;
	if (p->refused_at != 0 && now - p->refused_at < REFUSED_EVERY)
		return;
	log_warn("node.listen %s: %s asked without the key of this cluster, or with another one: "
		 "refused, as %" PRIu64 " before",
	    p->env.cfg->node_listen, httpd_peer(rq), p->refused - 1);
	p->refused_at = MAX(now, 1);
}

static bool proven(const struct peers *p, const struct httpd_req *rq, char asked[PEER_PROOF])
{
	const char *range = httpd_header(rq, "Range"), *proof = httpd_header(rq, "Batonfs-Proof");
	const struct peer_ask ask = {.method = httpd_method(rq),
	    .path = httpd_target(rq),
	    .range = range != NULL ? range : "",
	    .node = httpd_header(rq, "Batonfs-Node"),
	    .nonce = httpd_header(rq, "Batonfs-Nonce")};

	return proof != NULL && ask.node != NULL && ask.nonce != NULL &&
	       strlen(ask.nonce) == PEER_NONCE - 1 && peer_ask_proof(&p->key, &ask, asked) == 0 &&
	       peer_proof_same(asked, proof);
}

/* 0: it is one to be served. */
static unsigned understand(const struct peers *p, const struct httpd_req *rq, struct peer_serve *s)
{
	const char *method = httpd_method(rq), *path = httpd_target(rq);
	bool get = strcmp(method, "GET") == 0;
	uint64_t node;

	if (!proven(p, rq, s->asked))
		return 401;
	if (!get && strcmp(method, "HEAD") != 0)
		return 405;
	if (strncmp(path, PEER_PATH, strlen(PEER_PATH)) != 0 ||
	    !peer_id_parse(path + strlen(PEER_PATH), &s->id))
		return 404;
	if (!peer_id_parse(httpd_header(rq, "Batonfs-Node"), &node) ||
	    node != meta_self(p->env.meta))
		return 421;
	if (get && !peer_range_parse(httpd_header(rq, "Range"), &s->off, &s->len))
		return 416;
	return 0;
}

void peer_serve_none(struct peers *p)
{
	struct peer_serve *s;

	while ((s = TAILQ_FIRST(&p->waiting)) != NULL) {
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		struct httpd_req *rq = s->rq;

		TAILQ_REMOVE(&p->waiting, s, link);
		FREE_OBJ(s);
		answer_status(rq, 503);
	}
}

void peer_serve_request(struct httpd_req *rq, void *user)
{
	struct peers *p = user;
	struct peer_serve *s;
	unsigned status = 503;

	CHECK_OBJ(p, PEERS_MAGIC);
	ALLOC_OBJ(s, PEER_SERVE_MAGIC);
	if (s != NULL) {
		s->p = p;
		s->rq = rq;
		status = understand(p, rq, s);
	}
	if (status == 401)
		note_refused(p, rq);
	if (status != 0) {
		if (s != NULL)
			FREE_OBJ(s);
		answer_status(rq, status);
		return;
	}
	TAILQ_INSERT_TAIL(&p->waiting, s, link);
	serve_next(p);
}
