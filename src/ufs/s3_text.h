/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Documents with characters that XML has no place for, given to a parser all the same.
 * Whoever takes text from the parser calls s3_text_plain() on all of a value, once.
 */
#ifndef UFS_S3_TEXT_H
#define UFS_S3_TEXT_H

#include <expat.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More than any reference to a character that counts. */
#define S3_TEXT_HELD 12u

/* Zeroed to begin. */
struct s3_text {
	unsigned char held[S3_TEXT_HELD]; /* the end of what came, in doubt */
	size_t nheld;
};

/* False: the parser failed, or was stopped (XML_GetErrorCode()). */
bool s3_text_parse(struct s3_text *t, XML_Parser xp, const void *data, size_t len);
bool s3_text_end(struct s3_text *t, XML_Parser xp);
/* Text as it was sent, in place, with a NUL behind it; its length. */
size_t s3_text_plain(char *s, size_t len);

#endif
