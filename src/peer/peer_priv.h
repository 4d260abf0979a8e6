/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of peer/ share. */
#ifndef PEER_PEER_PRIV_H
#define PEER_PEER_PRIV_H

#include "base/errtext.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "base/queue.h"
#include "meta/meta.h"
#include "peer/peer.h"
#include "peer/peer_auth.h"
#include "reactor/http.h"
#include "reactor/httpd.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "reactor/timer.h"
#include "ufs/ufs_priv.h"

#define PEERS_MAGIC 0x9ee50001u
#define PEER_SERVE_MAGIC 0x9ee50002u
#define PEER_FETCH_MAGIC 0x9ee50003u
#define PEER_READ_MAGIC 0x9ee50004u

#define PEER_PATH "/batonfs/1/content/"
#define PEER_HOST_MAX META_NODE_ADDRESS_MAX

struct peer_serve;
struct peer_read;
TAILQ_HEAD(peer_serves, peer_serve);
TAILQ_HEAD(peer_reads, peer_read);

struct peers {
	uint32_t magic;
	struct peers_env env;
	struct peer_key key;
	char address[META_NODE_ADDRESS_MAX + 1];
	struct ufs *ufs;

	/* gives */
	struct httpd *httpd;
	bool begun;
	struct timer again; /* to listen */
	char error[256];
	struct peer_serves serving, waiting;
	unsigned nserving;
	uint64_t refused_at, refused; /* when that was logged, and how many there were */

	/* takes */
	struct peer_reads reading, queued; /* those that have, and want, one of PEER_READS_MAX */
	unsigned nreading;
	struct peer_read *giving; /* whose user has its data just now, and may abort it */
	bool stopped;
};

/* --- peer_server.c */
void peer_serve_request(struct httpd_req *rq, void *user);
/* Those that wait for their turn are sent away. */
void peer_serve_none(struct peers *p);

/* --- peer_client.c: one request, and its answer, tried again as peer.h says */
struct peer_job; /* what the pool looks at */
struct peer_fetch {
	uint32_t magic;
	struct peers *p;
	/* in */
	const char *address; /* stay */
	uint64_t node, content;
	uint64_t off;
	size_t len; /* 0: a HEAD */
	void (*done)(struct peer_fetch *f, int err);
	/* out: -EBUSY (being written), -ENOENT (not there), -EIO with words, -ENOMEM, or 0: all
	 * bytes, until peer_fetch_end() */
	uint64_t size;
	const unsigned char *data;
	char words[256];
	/* private */
	struct http_req http;
	bool running;
	uint64_t until;
	uint64_t pause;
	struct timer again;
	struct peer_job *job;
	size_t got;
	char url[PEER_HOST_MAX + 64], range[64], id[PEER_ID], nonce[PEER_NONCE];
	char proof[PEER_PROOF], path[sizeof(PEER_PATH) + PEER_ID];
	char told[PEER_PROOF];
	uint32_t crc;
};
void peer_fetch_start(struct peer_fetch *f);
/* Ended or not: nothing of it is left, and done is not called. */
void peer_fetch_end(struct peer_fetch *f);

/* --- peer_ufs.c */
int peer_ufs_new(struct ufs **out, struct peers *p);
void peer_ufs_stop(struct peers *p);

#endif
