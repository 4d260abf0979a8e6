/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Checksums of what is sent: CRC32C, its four bytes (the highest first) in base64.
 *
 * A PUT has its sum in a header.  An upload in parts says at its beginning that there will
 * be sums; then each part must have one, and the end must repeat them all.  Storage
 * that does not know any of this ignores it, as radosgw 16 does; one that refuses it is
 * asked without, and if that works never again with.
 */
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

#include "base/checksum.h"
#include "base/log.h"
#include "ufs/s3_priv.h"

void s3_sum_text(uint32_t crc, char out[S3_SUM_TEXT])
{
	uint32_t be = htobe32(crc);

	(void)EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)&be, sizeof(be));
}

bool s3_sum_differs(const struct s3_req *r, const char *want)
{
	const char *got = http_req_header(&r->hr, S3_SUM_HEADER);

	if (got == NULL || strcmp(got, want) == 0)
		return false;
	log_error("s3: %s %s: the storage has got other bytes: its checksum is %.40s, not %s",
	    r->method, r->url, got, want);
	return true;
}

bool s3_bad_digest(const struct s3_error *e)
{
	return strcmp(e->code, "BadDigest") == 0 ||
	    strcmp(e->code, "XAmzContentChecksumMismatch") == 0;
}

bool s3_sum_refused(const struct s3_req *r, int err)
{
	if (r->passing || (err != -EIO && err != -EINVAL && err != -EOPNOTSUPP))
		return false;
	return r->status == 400 || r->status == 405 || r->status == 501;
}

void s3_sums_end(struct s3 *s3)
{
	if (!s3->no_sums)
		log_info("%s: the storage does not take checksums (CRC32C): uploads go without",
		    s3->ufs.uri);
	s3->no_sums = true;
}

/* The sum of the parts' sums, and how many: "AAAAAA==-3".  Another form (of a storage that
 * counts the whole) is not compared: the parts were. */
bool s3_sums_agree(const struct ufs_part_id *parts, unsigned n, const char *answer)
{
	char text[S3_SUM_TEXT], want[S3_SUM_TEXT + 12];
	uint32_t crc = 0, be;

	if (strchr(answer, '-') == NULL)
		return true;
	for (unsigned i = 0; i < n; i++) {
		be = htobe32(parts[i].sum.crc32c);
		crc = checksum_crc32c_more(crc, &be, sizeof(be));
	}
	s3_sum_text(crc, text);
	(void)snprintf(want, sizeof(want), "%s-%u", text, n);
	return strcmp(answer, want) == 0;
}
