/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "../../lib/http_script.h"
#include "base/checksum.h"
#include "base/clock.h"
#include "base/units.h"
#include "peer/peer_priv.h"

#define LIMIT_S 60
#define CONTENT 0x8000000000000007u
#define NODE 0x1234u
#define SIZE 3000000u

/* How the other node answers. */
enum how { RIGHT, NO_PROOF, OTHER_KEY, OTHER_ASK, BAD_CRC, OTHER_BYTE, SHORT, LONG, WHOLE };

static struct loop *lp;
static struct pool *pl;
static struct config *cfg;
static struct http *h;
static struct http_script *hs;
static struct peers p;
static struct peer_fetch f;
static char address[64];
static unsigned char content[SIZE];
static _Atomic enum how how; /* its threads look at it */
static unsigned dones;
static int result;

static const struct peer_key key = {.len = 20, .bytes = "a key of this cluster"};
static const struct peer_key other = {.len = 20, .bytes = "another key, as long."};

static bool handle(void *arg, const struct http_script_req *rq, struct http_script_answer *out)
{
	char range[64] = "", node[32], nonce[64], proof[128], asked[PEER_PROOF], head[256];
	struct peer_ask ask = {
	    .method = rq->method, .path = rq->target, .range = range, .node = node, .nonce = nonce};
	struct peer_told told = {.asked = asked, .status = 200, .size = SIZE};
	char mac[PEER_PROOF];
	uint64_t off = 0, len = 0;
	char *body;

	(void)arg;
	(void)http_script_header(rq, "range", range, sizeof(range));
	if (http_script_header(rq, "batonfs-node", node, sizeof(node)) == NULL ||
	    http_script_header(rq, "batonfs-nonce", nonce, sizeof(nonce)) == NULL ||
	    http_script_header(rq, "batonfs-proof", proof, sizeof(proof)) == NULL ||
	    peer_ask_proof(&key, &ask, asked) != 0 || !peer_proof_same(asked, proof)) {
		out->raw = http_script_format(401, NULL, "", 0, &out->raw_len, &out->head_len);
		return true;
	}
	if (peer_range_parse(range, &off, &len))
		told.status = 206;
	if (how == OTHER_ASK)
		asked[0] = asked[0] == '0' ? '1' : '0';
	if (how == SHORT)
		len--;
	body = malloc(len + 1);
	memcpy(body, content + off, len);
	body[len] = 'x';
	told.body = body;
	told.len = len;
	told.crc = checksum_crc32c(body, len) ^ (how == BAD_CRC);
	if (peer_told_proof(how == OTHER_KEY ? &other : &key, &told, mac) != 0)
		abort();
	snprintf(head, sizeof(head),
	    "Batonfs-Size: %" PRIu64 "\r\nBatonfs-Crc32c: %08" PRIx32 "\r\n%s%s\r\n", told.size,
	    told.crc, how == NO_PROOF ? "X-Other: " : "Batonfs-Proof: ", mac);
	if (how == OTHER_BYTE)
		body[len / 2] ^= 1;
	out->raw = http_script_format(how == WHOLE ? 200 : (int)told.status, head, body,
	    len + (how == LONG), &out->raw_len, &out->head_len);
	free(body);
	return true;
}

static void up(void)
{
	signal(SIGPIPE, SIG_IGN);
	alarm(LIMIT_S);
	cr_assert_eq(loop_new(&lp, &clock_system), 0);
	cr_assert_eq(pool_new(&pl, lp, 2), 0);
	cr_assert_not_null(cfg = config_new());
	cfg->node_timeout = 20 * NS_PER_S;
	cr_assert_eq(http_new(&h, lp, cfg, NULL), 0);
	for (size_t i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i % 251);
	hs = http_script_new();
	http_script_set_handler(hs, handle, NULL);
	memset(&p, 0, sizeof(p));
	p.magic = PEERS_MAGIC;
	p.env = (struct peers_env){.loop = lp, .pool = pl, .http = h, .cfg = cfg};
	p.key = key;
	snprintf(address, sizeof(address), "127.0.0.1:%u", http_script_port(hs));
	how = RIGHT;
}

static void down(void)
{
	peer_fetch_end(&f);
	while (pool_outstanding(pl) > 0)
		loop_turn(lp, true);
	http_free(&h);
	http_script_free(&hs);
	pool_free(&pl);
	config_free(&cfg);
	loop_free(&lp);
}

TestSuite(peer_client, .init = up, .fini = down);

static void done(struct peer_fetch *pf, int err)
{
	cr_assert_eq(pf, &f);
	dones++;
	result = err;
}

static void begin(uint64_t off, size_t len)
{
	peer_fetch_end(&f);
	f = (struct peer_fetch){.p = &p,
	    .address = address,
	    .node = NODE,
	    .content = CONTENT,
	    .off = off,
	    .len = len,
	    .done = done};
	dones = 0;
	peer_fetch_start(&f);
	cr_assert_eq(dones, 0, "inline");
}

static int fetch(uint64_t off, size_t len)
{
	begin(off, len);
	while (dones == 0)
		loop_turn(lp, true);
	return result;
}

Test(peer_client, brings_the_bytes)
{
	cr_assert_eq(fetch(0, PEER_PIECE), 0);
	cr_assert_eq(memcmp(f.data, content, PEER_PIECE), 0);
	cr_assert_eq(f.size, SIZE);
	cr_assert_eq(fetch(SIZE - 1, 1), 0);
	cr_assert_eq(f.data[0], content[SIZE - 1]);
	cr_assert_eq(fetch(4095, 2), 0);
	cr_assert_eq(memcmp(f.data, content + 4095, 2), 0);
	cr_assert_eq(fetch(0, 0), 0, "a HEAD");
	cr_assert_eq(f.size, SIZE);
	cr_assert_eq(http_script_conns(hs), 1);
	cr_assert_eq(loop_counters(lp)->v[CTR_PEER_BYTES], PEER_PIECE + 3);
}

Test(peer_client, takes_nothing_else)
{
	static const enum how all[] = {
	    NO_PROOF, OTHER_KEY, OTHER_ASK, BAD_CRC, OTHER_BYTE, SHORT, LONG, WHOLE};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		how = all[i];
		cr_assert_eq(fetch(10, 5000), -EIO, "%zu: %d", i, result);
		cr_assert_null(f.data, "%zu", i);
		cr_assert_str_neq(f.words, "", "%zu", i);
		if (how != SHORT && how != LONG && how != OTHER_BYTE && how != WHOLE)
			cr_assert_eq(how == BAD_CRC ? -EIO : fetch(0, 0), -EIO, "%zu", i);
	}
	cr_assert_eq(loop_counters(lp)->v[CTR_PEER_ERRORS], 8 + 3);
	how = RIGHT;
	cr_assert_eq(fetch(10, 5000), 0);
}

Test(peer_client, says_what_the_other_node_says)
{
	static const struct {
		int status, err;
		const char *words;
	} all[] = {{401, -EIO, "refuses the key"}, {404, -ENOENT, "not got them"},
	    {409, -EBUSY, "being written"}, {500, -EIO, "its log"}, {302, -EIO, "status 302"},
	    {416, -EIO, "status 416"}};

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		http_script_reply(hs, NULL, all[i].status, NULL, "page", 4, 1);
		cr_assert_eq(fetch(0, 100), all[i].err, "%d: %d", all[i].status, result);
		cr_assert_not_null(strstr(f.words, all[i].words), "%d: %s", all[i].status, f.words);
	}
	p.key = other;
	cr_assert_eq(fetch(0, 100), -EIO);
	cr_assert_not_null(strstr(f.words, "refuses the key"));
}

Test(peer_client, asks_again_for_what_may_pass)
{
	const struct http_script_answer reset = {.times = 1, .raw = "HTTP/1.1 206 OK\r\nContent-Le",
		.end = HTTP_SCRIPT_RESET};

	http_script_reply(hs, NULL, 503, NULL, NULL, 0, 2);
	http_script_reply(hs, NULL, 421, NULL, NULL, 0, 1);
	http_script_add(hs, &reset);
	cr_assert_eq(fetch(0, 100), 0);
	cr_assert_eq(memcmp(f.data, content, 100), 0);
	cr_assert_eq(http_script_count(hs), 5);
}

/* One wait, however it is silent. */
Test(peer_client, waits_once)
{
	const struct http_script_answer stall = {.times = 0, .raw = "HTTP/1.1 ",
		.end = HTTP_SCRIPT_STALL};
	uint64_t began = loop_now(lp);

	cfg->node_timeout = 300 * NS_PER_MS;
	http_script_add(hs, &stall);
	cr_assert_eq(fetch(0, 100), -EIO);
	cr_assert_geq(loop_now(lp) - began, 290 * NS_PER_MS);
	cr_assert_eq(http_script_count(hs), 1);
	http_script_clear(hs);
	http_script_reply(hs, NULL, 503, NULL, NULL, 0, 0);
	cr_assert_eq(fetch(0, 100), -EIO);
	cr_assert_not_null(strstr(f.words, "no time"));
	snprintf(address, sizeof(address), "127.0.0.1:1");
	cr_assert_eq(fetch(0, 100), -EIO);
	cr_assert_str_neq(f.words, "");
}

Test(peer_client, may_be_left_at_any_time)
{
	for (unsigned turns = 0; turns < 12; turns++) {
		begin(0, PEER_PIECE);
		for (unsigned i = 0; i < turns && dones == 0; i++)
			loop_turn(lp, true);
		peer_fetch_end(&f);
		dones = 0;
		while (pool_outstanding(pl) > 0)
			loop_turn(lp, true);
		cr_assert_eq(dones, 0);
	}
	cr_assert_eq(fetch(0, 100), 0);
}
