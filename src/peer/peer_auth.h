/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Proofs that both sides have the key (peer.h).  In hexadecimal, of HMAC-SHA256 with the key
 * over lines that each end with a line feed:
 *
 *	a request	"batonfs-peer-1", method, path, range ("" for none), node, nonce
 *	an answer	"batonfs-peer-1-answer", the request's proof, status, size, CRC32C of
 *			the body, the body's own HMAC-SHA256 in hexadecimal
 *
 * Any thread.
 */
#ifndef PEER_PEER_AUTH_H
#define PEER_PEER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/errtext.h"

#define PEER_KEY_MIN 16u
#define PEER_KEY_MAX 1024u
#define PEER_PROOF 65u /* with the final NUL */
#define PEER_NONCE 33u
#define PEER_ID 17u

struct peer_key {
	size_t len; /* 0: there is none */
	unsigned char bytes[PEER_KEY_MAX + 2];
};
/* The file's bytes but for a line break at the end.  -EACCES if others than owner and group
 * may read or change it; -EINVAL: too short or long; -ENOENT, ... */
int peer_key_load(struct peer_key *key, const char *path, struct errtext *et);
void peer_key_forget(struct peer_key *key);

struct peer_ask {
	const char *method, *path, *range, *node, *nonce;
};
/* 0 or -ENOMEM. */
int peer_ask_proof(const struct peer_key *key, const struct peer_ask *ask, char out[PEER_PROOF]);

struct peer_told {
	const char *asked; /* the request's proof */
	unsigned status;
	uint64_t size;
	uint32_t crc;
	const void *body;
	size_t len;
};
int peer_told_proof(const struct peer_key *key, const struct peer_told *told,
    char out[PEER_PROOF]);
/* In a time that does not depend on where they differ. */
bool peer_proof_same(const char *a, const char *b);

/* -EIO: there is no randomness. */
int peer_nonce(char out[PEER_NONCE]);
void peer_id_text(uint64_t id, char out[PEER_ID]);
/* Exactly 16 lower-case hexadecimal digits. */
bool peer_id_parse(const char *text, uint64_t *id);
/* "bytes=FIRST-LAST" of decimal numbers, FIRST <= LAST, of at most PEER_PIECE bytes. */
bool peer_range_parse(const char *text, uint64_t *off, uint64_t *len);
/* A whole decimal number; eight hexadecimal digits.  NULL is none. */
bool peer_u64_parse(const char *text, uint64_t *v);
bool peer_crc_parse(const char *text, uint32_t *v);

#endif
