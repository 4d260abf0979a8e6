/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes between the nodes of a cluster.
 *
 * A content that is not persisted (meta.h) is on the node that wrote it.  Other nodes read it
 * from there: as a storage of its own (peers_ufs()), whose files are contents, so that they
 * go through the read cache as everything does.  A content that is closed never changes, so
 * its id is its version.  One that is still being written is not given away: its bytes, or its
 * size, may be others a moment later.
 *
 *	peer.c		life, the key's file		peer_server.c	gives
 *	peer_auth.c	proofs				peer_client.c	takes: one request
 *							peer_ufs.c	the storage
 *
 * The wire is HTTP/1.1 at node.listen, which a node has in its row of the metadata store as
 * its address (meta_identity):
 *
 *	HEAD /batonfs/1/content/ID	is it here, closed, and how large?
 *	GET  /batonfs/1/content/ID	Range: bytes=FIRST-LAST, up to PEER_PIECE bytes
 *	Batonfs-Node: ID of the node that is meant
 *	Batonfs-Nonce: 32 hexadecimal digits, never the same
 *	Batonfs-Proof: HMAC-SHA256 of the key, see peer_auth.h
 *
 *	200, 206 with Batonfs-Size, Batonfs-Crc32c of the body, and Batonfs-Proof of all that
 *	401 another key, or none	404 not here (any more)	409 is being written
 *	416 beyond the end		421 another node	500 it cannot be read
 *	503 not now			others: not understood
 *
 * Another version of the protocol is another number in the path.  IDs are 16 hexadecimal
 * digits.  Both sides prove that they have the key, about this request and this answer; a
 * request that is seen and sent again brings what was seen already, so no clocks are
 * compared.  Nothing is secret on the way: the network of the nodes must be.  There is no TLS.
 *
 * A read asks the metadata store first, each time: has it been persisted meanwhile it goes to
 * the storage, and it goes to whatever address the node has now.  Answers are used when
 * length, proof and CRC32C are right: a byte more or less, or another, is an error.  What can
 * pass by itself (no connection, one that breaks, 503) is tried again; but a piece is waited
 * for no longer than node.timeout in all, and one of a node that is dead or was unmounted not
 * at all.  Then it is -EIO, and the log names file, node and reason.
 *
 * In a hand-over the old daemon stops listening with the right to write, and the new one
 * begins: what is asked in between is asked again.  Loop thread.
 */
#ifndef PEER_PEER_H
#define PEER_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/errtext.h"

struct config;
struct fs;
struct http;
struct loop;
struct meta;
struct peers;
struct pool;
struct ufs;

#define PEER_PIECE (UINT64_C(1) << 20)
/* Memory for pieces is beside memory.limit, so there are few of them. */
#define PEER_SERVES_MAX 8u /* at one time */
#define PEER_READS_MAX 8u
#define PEER_CONNS_MAX 128u

struct peers_env {
	struct loop *loop;
	struct pool *pool;
	struct http *http;
	const struct config *cfg;
	struct meta *meta;
	struct fs *fs;
	const char *staging_dir; /* stays */
};

/* Reads the key and looks at the properties; nobody is listened to yet.  -EINVAL, -EACCES and
 * what else the file of the key says, with words. */
int peers_new(struct peers **out, const struct peers_env *env, struct errtext *et);
/* Reads of others end now for good, and are never answered: before meta_free(), while the
 * cache may still have some to abort. */
void peers_stop(struct peers *p);
/* Ended, none of its reads in the cache any more, and nothing in the pool. */
void peers_free(struct peers **p);

/* What others are to be told; "": nobody is listened to. */
const char *peers_address(const struct peers *p);
/* Listens, if it is to; with the right to write.  An address that cannot be had is words and
 * a negative errno, and is tried again all the same. */
int peers_begin(struct peers *p, struct errtext *et);
void peers_end(struct peers *p);

struct ufs *peers_ufs(struct peers *p);

struct peers_status {
	bool key; /* there is one */
	bool listening;
	char error[256]; /* why not, or "" */
	unsigned conns;	 /* of others */
};
void peers_status(const struct peers *p, struct peers_status *out);

#endif
