/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Encryption by the storage with a key that the customer gives with each request (SSE-C):
 * the storage keeps only a digest of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"
#include "ufs/s3_priv.h"

#define KEY_LEN 32u
#define KEY_TEXT 44u /* in base64 */
#define FILE_LEN 64u /* longer than any that is right */

/* The file's beginning; a device is not waited for. */
static int read_file(const char *path, unsigned char buf[FILE_LEN], size_t *len, struct errtext *et)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err = 0;
	ssize_t n = 0;

	if (fd < 0)
		return errtext_set(et, -EINVAL, "s3.sse.customer.key.file %s: %s", path,
		    strerror(errno));
	for (*len = 0; *len < FILE_LEN; *len += (size_t)n) {
		n = read(fd, buf + *len, FILE_LEN - *len);
		if (n <= 0)
			break;
	}
	if (n < 0)
		err = errtext_set(et, -EINVAL, "s3.sse.customer.key.file %s: %s", path,
		    strerror(errno));
	close(fd);
	return err;
}

/* 32 bytes as they are, or in base64 with or without the end of a line. */
static bool take_key(unsigned char *buf, size_t len, unsigned char key[KEY_LEN])
{
	unsigned char out[KEY_TEXT];

	if (len == KEY_LEN) {
		memcpy(key, buf, KEY_LEN);
		return true;
	}
	while (len > KEY_TEXT && len < FILE_LEN && (buf[len - 1] == '\n' || buf[len - 1] == '\r'))
		len--;
	/* The last of the 33 bytes that 44 letters stand for is filling. */
	if (len != KEY_TEXT || buf[KEY_TEXT - 1] != '=' || buf[KEY_TEXT - 2] == '=' ||
	    EVP_DecodeBlock(out, buf, (int)KEY_TEXT) != (int)KEY_LEN + 1)
		return false;
	memcpy(key, out, KEY_LEN);
	explicit_bzero(out, sizeof(out));
	return true;
}

int s3_sse_load(struct s3 *s3, const char *path, struct errtext *et)
{
	unsigned char buf[FILE_LEN], key[KEY_LEN];
	size_t len = 0;
	int err;

	if (*path == '\0')
		return 0;
	if (*path != '/')
		return errtext_set(et, -EINVAL,
		    "s3.sse.customer.key.file %s: must be an absolute path", path);
	err = read_file(path, buf, &len, et);
	if (err == 0 && !take_key(buf, len, key))
		err = errtext_set(et, -EINVAL,
		    "s3.sse.customer.key.file %s: must have a key of 32 bytes, as they are or in "
		    "base64",
		    path);
	if (err == 0 && !s3_md5_base64(key, KEY_LEN, s3->sse_md5))
		err = errtext_set(et, -EINVAL,
		    "s3.sse.customer.key.file %s: no MD5 of it can be made", path);
	if (err == 0)
		EVP_EncodeBlock((unsigned char *)s3->sse_key, key, (int)KEY_LEN);
	explicit_bzero(key, sizeof(key));
	explicit_bzero(buf, sizeof(buf));
	return err;
}

unsigned s3_sse_headers(const struct s3 *s3, bool copies, struct http_header out[S3_SSE_HEADERS])
{
	static const char algorithm[] = "AES256";
	unsigned n = 0;

	if (s3->sse_key[0] == '\0')
		return 0;
	out[n++] = (struct http_header){
		"x-amz-server-side-encryption-customer-algorithm", algorithm };
	out[n++] = (struct http_header){
		"x-amz-server-side-encryption-customer-key", s3->sse_key };
	out[n++] = (struct http_header){
		"x-amz-server-side-encryption-customer-key-MD5", s3->sse_md5 };
	if (!copies)
		return n;
	out[n++] = (struct http_header){
		"x-amz-copy-source-server-side-encryption-customer-algorithm", algorithm };
	out[n++] = (struct http_header){
		"x-amz-copy-source-server-side-encryption-customer-key", s3->sse_key };
	out[n++] = (struct http_header){
		"x-amz-copy-source-server-side-encryption-customer-key-MD5", s3->sse_md5 };
	return n;
}
