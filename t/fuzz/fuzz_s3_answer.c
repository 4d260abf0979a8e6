/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as the answer of a service that hands out credentials: JSON, XML of STS, and
 * its refusal.  What is accepted must be fit for request headers.
 *	clang -g -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc \
 *	    t/fuzz/fuzz_s3_answer.c src/ufs/s3_{answer,cred,enc}.c src/base/{json,json_out}.c \
 *	    src/base/{errtext,units}.c -lexpat -lyajl -lcurl -lm
 */
#include <stdlib.h>
#include <string.h>

#include "ufs/s3_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void visible(const char *s)
{
	if (s == NULL)
		return;
	for (; *s != '\0'; s++)
		if ((unsigned char)*s <= ' ' || (unsigned char)*s >= 0x7f)
			abort();
}

static void judge(struct s3_cred *c, int err, const struct errtext *et)
{
	if (err == 0) {
		if (c->access == NULL || c->secret == NULL || *c->access == '\0' ||
		    *c->secret == '\0' || strchr(c->access, ':') != NULL)
			abort();
		visible(c->access);
		visible(c->secret);
		visible(c->token);
	} else if (c->access != NULL || c->secret != NULL || c->token != NULL ||
	    et->s[0] == '\0') {
		abort();
	}
	s3_cred_fini(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct errtext et = { "" };
	struct s3_cred c;
	char words[330];

	if (size > S3_ANSWER_MAX)
		return 0;
	judge(&c, s3_answer_json(&c, text, size, &et), &et);
	et.s[0] = '\0';
	judge(&c, s3_answer_sts(&c, text, size, &et), &et);
	s3_answer_sts_error(text, size, words, sizeof(words));
	for (const char *s = words; *s != '\0'; s++)
		if ((unsigned char)*s < ' ')
			abort();
	return 0;
}
