/* SPDX-License-Identifier: BSD-2-Clause */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/obj.h"
#include "peer/peer.h"
#include "peer/peer_auth.h"

static char path[] = "/tmp/batonfs-peer-key.XXXXXX";

static void put_key(const char *text, size_t len, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, len), (ssize_t)len);
	cr_assert_eq(fchmod(fd, mode), 0);
	close(fd);
}

static void setup(void)
{
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(path);
}

TestSuite(peer_key, .init = setup, .fini = teardown);

Test(peer_key, load)
{
	char text[PEER_KEY_MAX + 8];
	struct peer_key key;
	struct errtext et;

	put_key("0123456789abcdef\n", 17, 0440);
	cr_assert_eq(peer_key_load(&key, path, &et), 0);
	cr_assert_eq(key.len, 16);
	cr_assert_eq(memcmp(key.bytes, "0123456789abcdef", 16), 0);
	peer_key_forget(&key);
	cr_assert_eq(key.len, 0);
	cr_assert_eq(key.bytes[3], 0);
	put_key("0123456789abcde\n", 16, 0600);
	cr_assert_eq(peer_key_load(&key, path, &et), -EINVAL);
	cr_assert_not_null(strstr(et.s, "16 to 1024 bytes"));
	memset(text, 'k', sizeof(text));
	put_key(text, PEER_KEY_MAX, 0600);
	cr_assert_eq(peer_key_load(&key, path, &et), 0);
	put_key(text, PEER_KEY_MAX + 1, 0600);
	cr_assert_eq(peer_key_load(&key, path, &et), -EINVAL);
	put_key(text, 32, 0604);
	cr_assert_eq(peer_key_load(&key, path, &et), -EACCES);
	cr_assert_eq(key.len, 0);
	cr_assert_eq(peer_key_load(&key, "/tmp", &et), -EINVAL);
	cr_assert_eq(peer_key_load(&key, "/tmp/batonfs-is-not-there", &et), -ENOENT);
}

static const struct peer_key key1 = {.len = 16, .bytes = "0123456789abcdef"};
static const struct peer_key key2 = {.len = 16, .bytes = "0123456789abcdeg"};

/* Each field counts, and nothing slips from one into the next. */
Test(peer_auth, proof_of_a_request)
{
	static const struct peer_ask all[] = {{"GET", "/p", "bytes=0-1", "n", "x"},
	    {"HEAD", "/p", "bytes=0-1", "n", "x"}, {"GET", "/q", "bytes=0-1", "n", "x"},
	    {"GET", "/p", "bytes=0-2", "n", "x"}, {"GET", "/p", "bytes=0-1", "m", "x"},
	    {"GET", "/p", "bytes=0-1", "n", "y"}, {"GET", "/p", "", "bytes=0-1n", "x"},
	    {"GET", "/pb", "ytes=0-1", "n", "x"}};
	char proof[ARRAY_LEN(all)][PEER_PROOF], other[PEER_PROOF];

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		cr_assert_eq(peer_ask_proof(&key1, &all[i], proof[i]), 0);
		cr_assert_eq(strlen(proof[i]), PEER_PROOF - 1);
		for (size_t j = 0; j < i; j++)
			cr_assert_not(peer_proof_same(proof[i], proof[j]), "%zu %zu", i, j);
	}
	cr_assert_eq(peer_ask_proof(&key1, &all[0], other), 0);
	cr_assert(peer_proof_same(other, proof[0]));
	cr_assert_eq(peer_ask_proof(&key2, &all[0], other), 0);
	cr_assert_not(peer_proof_same(other, proof[0]));
	cr_assert_not(peer_proof_same("", ""));
}

/* From another implementation of HMAC: other builds must come to the same. */
Test(peer_auth, what_goes_over_the_wire_stays)
{
	const struct peer_ask ask = {"GET", "/batonfs/1/content/8000000000000001", "bytes=0-9",
	    "0000000000000002", "00112233445566778899aabbccddeeff"};
	const struct peer_told told = {
	    .asked = "q", .status = 206, .size = 10, .crc = 0xdeadbeef, .body = "body", .len = 4};
	char proof[PEER_PROOF];

	cr_assert_eq(peer_ask_proof(&key1, &ask, proof), 0);
	cr_assert_str_eq(proof, "7f24c32b7aff03c396e1a1f2cdf0b578924edbe5cd7c1b3056b7a30a14039b6f");
	cr_assert_eq(peer_told_proof(&key1, &told, proof), 0);
	cr_assert_str_eq(proof, "c42e9f8ea074559e7267aabfc326e74931330c61fd3206f2e28390cbe7664564");
}

Test(peer_auth, proof_of_an_answer)
{
	static const struct peer_told all[] = {{"q", 206, 10, 1, "body", 4},
	    {"r", 206, 10, 1, "body", 4}, {"q", 200, 10, 1, "body", 4},
	    {"q", 206, 11, 1, "body", 4}, {"q", 206, 10, 2, "body", 4},
	    {"q", 206, 10, 1, "bodz", 4}, {"q", 206, 10, 1, "body", 3}, {"q", 206, 10, 1, NULL, 0}};
	char proof[ARRAY_LEN(all)][PEER_PROOF];

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		cr_assert_eq(peer_told_proof(&key1, &all[i], proof[i]), 0);
		for (size_t j = 0; j < i; j++)
			cr_assert_not(peer_proof_same(proof[i], proof[j]), "%zu %zu", i, j);
	}
}

Test(peer_auth, nonces_differ)
{
	char a[PEER_NONCE], b[PEER_NONCE];

	cr_assert_eq(peer_nonce(a), 0);
	cr_assert_eq(peer_nonce(b), 0);
	cr_assert_eq(strlen(a), PEER_NONCE - 1);
	cr_assert_str_neq(a, b);
}

Test(peer_auth, numbers)
{
	uint64_t id, off, len;
	char text[PEER_ID];
	uint32_t crc;

	peer_id_text(0x80000000000000afu, text);
	cr_assert(peer_id_parse(text, &id));
	cr_assert_eq(id, 0x80000000000000afu);
	cr_assert_not(peer_id_parse("80000000000000AF", &id));
	cr_assert_not(peer_id_parse("80000000000000a", &id));
	cr_assert_not(peer_id_parse("80000000000000aff", &id));
	cr_assert_not(peer_id_parse(NULL, &id));
	cr_assert(peer_crc_parse("00ff00ee", &crc));
	cr_assert_eq(crc, 0xff00ee);
	cr_assert_not(peer_crc_parse("ff00ee", &crc));
	cr_assert(peer_u64_parse("18446744073709551615", &id));
	cr_assert_not(peer_u64_parse("18446744073709551616", &id));
	cr_assert_not(peer_u64_parse("", &id));
	cr_assert_not(peer_u64_parse("-1", &id));
	cr_assert_not(peer_u64_parse("1 ", &id));
	cr_assert(peer_range_parse("bytes=5-9", &off, &len));
	cr_assert_eq(off, 5);
	cr_assert_eq(len, 5);
	cr_assert(peer_range_parse("bytes=0-1048575", &off, &len));
	cr_assert_eq(len, PEER_PIECE);
	cr_assert_not(peer_range_parse("bytes=0-1048576", &off, &len));
	cr_assert_not(peer_range_parse("bytes=0-18446744073709551615", &off, &len));
	cr_assert_not(peer_range_parse("bytes=9-5", &off, &len));
	cr_assert_not(peer_range_parse("bytes=-5", &off, &len));
	cr_assert_not(peer_range_parse("bytes=5-", &off, &len));
	cr_assert_not(peer_range_parse("bytes=1-2,4-5", &off, &len));
	cr_assert_not(peer_range_parse("items=1-2", &off, &len));
	cr_assert_not(peer_range_parse(NULL, &off, &len));
}
