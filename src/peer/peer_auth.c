/* SPDX-License-Identifier: BSD-2-Clause */
#include "peer/peer_auth.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peer/peer.h"

#define MAC_LEN 32

static void hex(const unsigned char *in, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	out[2 * n] = '\0';
}

/* --- The key */

static int read_key(int fd, struct peer_key *key)
{
	ssize_t n;

	key->len = 0;
	while (key->len < sizeof(key->bytes)) {
		n = read(fd, key->bytes + key->len, sizeof(key->bytes) - key->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		key->len += (size_t)n;
	}
	if (key->len > 0 && key->bytes[key->len - 1] == '\n')
		key->len--;
	return 0;
}

int peer_key_load(struct peer_key *key, const char *path, struct errtext *et)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct stat st;

	memset(key, 0, sizeof(*key));
	if (fd < 0)
		return errtext_set(et, -errno, "node.key.file %s: %s", path, strerror(errno));
	err = fstat(fd, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (err == 0 && (st.st_mode & 007) != 0)
		err = -EACCES;
	if (err == 0)
		err = read_key(fd, key);
	close(fd);
	if (err == 0 && (key->len < PEER_KEY_MIN || key->len > PEER_KEY_MAX))
		err = -ERANGE;
	if (err == 0)
		return 0;
	peer_key_forget(key);
	if (err == -EACCES)
		return errtext_set(et, err,
		    "node.key.file %s: everybody may read or change it (mode %04o): chmod o= it",
		    path, (unsigned)st.st_mode & 07777);
	if (err == -ERANGE)
		return errtext_set(et, -EINVAL, "node.key.file %s: must have %u to %u bytes", path,
		    PEER_KEY_MIN, PEER_KEY_MAX);
	return errtext_set(et, err, "node.key.file %s: %s", path,
	    err == -EINVAL ? "is not a file" : strerror(-err));
}

void peer_key_forget(struct peer_key *key)
{
	explicit_bzero(key, sizeof(*key));
}

/* --- Proofs */

static int mac(const struct peer_key *key, const void *data, size_t len, char out[PEER_PROOF])
{
	unsigned char m[MAC_LEN];
	unsigned n = 0;

	if (HMAC(EVP_sha256(), key->bytes, (int)key->len, data != NULL ? data : "", len, m, &n) ==
	    NULL)
		return -ENOMEM;
	hex(m, sizeof(m), out);
	return 0;
}

static int mac_lines(const struct peer_key *key, char *text, int len, char out[PEER_PROOF])
{
	int err = len < 0 ? -ENOMEM : mac(key, text, (size_t)len, out);

	if (len >= 0)
		free(text);
	return err;
}

int peer_ask_proof(const struct peer_key *key, const struct peer_ask *a, char out[PEER_PROOF])
{
	char *text = NULL;
	int len = asprintf(&text, "batonfs-peer-1\n%s\n%s\n%s\n%s\n%s\n", a->method, a->path,
	    a->range, a->node, a->nonce);

	return mac_lines(key, text, len, out);
}

int peer_told_proof(const struct peer_key *key, const struct peer_told *t, char out[PEER_PROOF])
{
	char body[PEER_PROOF], *text = NULL;
	int err = mac(key, t->body, t->len, body), len;

	if (err != 0)
		return err;
	len = asprintf(&text, "batonfs-peer-1-answer\n%s\n%u\n%" PRIu64 "\n%08" PRIx32 "\n%s\n",
	    t->asked, t->status, t->size, t->crc, body);
	return mac_lines(key, text, len, out);
}

bool peer_proof_same(const char *a, const char *b)
{
	return strlen(a) == PEER_PROOF - 1 && strlen(b) == PEER_PROOF - 1 &&
	       CRYPTO_memcmp(a, b, PEER_PROOF - 1) == 0;
}

int peer_nonce(char out[PEER_NONCE])
{
	unsigned char r[(PEER_NONCE - 1) / 2];

	if (getrandom(r, sizeof(r), GRND_NONBLOCK) != (ssize_t)sizeof(r))
		return -EIO;
	hex(r, sizeof(r), out);
	return 0;
}

/* --- Numbers */

void peer_id_text(uint64_t id, char out[PEER_ID])
{
	snprintf(out, PEER_ID, "%016" PRIx64, id);
}

static bool hex_parse(const char *text, size_t digits, uint64_t *v)
{
	*v = 0;
	if (text == NULL || strlen(text) != digits)
		return false;
	for (; *text != '\0'; text++) {
		if (*text >= '0' && *text <= '9')
			*v = *v << 4 | (uint64_t)(*text - '0');
		else if (*text >= 'a' && *text <= 'f')
			*v = *v << 4 | (uint64_t)(*text - 'a' + 10);
		else
			return false;
	}
	return true;
}

bool peer_id_parse(const char *text, uint64_t *id)
{
	return hex_parse(text, PEER_ID - 1, id);
}

bool peer_crc_parse(const char *text, uint32_t *v)
{
	uint64_t wide;

	if (!hex_parse(text, 8, &wide))
		return false;
	*v = (uint32_t)wide;
	return true;
}

/* As many digits as there are; how many that was, 0: none, or too large a number. */
static size_t digits_parse(const char *text, uint64_t *v)
{
	size_t n = 0;

	for (*v = 0; text[n] >= '0' && text[n] <= '9'; n++) {
		if (__builtin_mul_overflow(*v, (uint64_t)10, v) ||
		    __builtin_add_overflow(*v, (uint64_t)(text[n] - '0'), v))
			return 0;
	}
	return n;
}

bool peer_u64_parse(const char *text, uint64_t *v)
{
	size_t n = text != NULL ? digits_parse(text, v) : 0;

	return n > 0 && text[n] == '\0';
}

bool peer_range_parse(const char *text, uint64_t *off, uint64_t *len)
{
	uint64_t last;
	size_t n;

	if (text == NULL || strncmp(text, "bytes=", 6) != 0)
		return false;
	text += 6;
	n = digits_parse(text, off);
	if (n == 0 || text[n] != '-' || !peer_u64_parse(text + n + 1, &last) || last < *off ||
	    last - *off >= PEER_PIECE)
		return false;
	*len = last - *off + 1;
	return true;
}
