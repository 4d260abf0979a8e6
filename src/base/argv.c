/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/argv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int argv_plain(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	    (c != '\0' && strchr("-_./=:,+@", c) != NULL);
}

char *argv_encode(const char *const *argv, const char *prefix)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	const unsigned char *p;
	size_t i;

	if (f == NULL)
		return NULL;
	fputs(prefix, f);
	for (i = 0; argv[i] != NULL; i++) {
		if (i > 0)
			fputc(' ', f);
		for (p = (const unsigned char *)argv[i]; *p != '\0'; p++)
			if (argv_plain(*p))
				fputc(*p, f);
			else
				fprintf(f, "%%%02X", *p);
	}
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int argv_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One word of len bytes into a new string; NULL if it is malformed. */
static char *argv_decode_word(const char *word, size_t len)
{
	char *out = malloc(len + 1), *o = out;
	size_t i;

	for (i = 0; out != NULL && i < len; i++) {
		int hi, lo;

		if (word[i] != '%') {
			if (!argv_plain((unsigned char)word[i]))
				break;
			*o++ = word[i];
			continue;
		}
		if (len - i < 3)
			break;
		hi = argv_hex(word[i + 1]);
		lo = argv_hex(word[i + 2]);
		if (hi < 0 || lo < 0 || (hi == 0 && lo == 0))
			break;
		*o++ = (char)(hi * 16 + lo);
		i += 2;
	}
	if (out == NULL || i < len) {
		free(out);
		return NULL;
	}
	*o = '\0';
	return out;
}

char **argv_decode(const char *text)
{
	size_t words = 1, n = 0;
	const char *p;
	char **argv;

	for (p = text; *p != '\0'; p++)
		words += *p == ' ';
	argv = calloc(words + 1, sizeof(*argv));
	if (argv == NULL)
		return NULL;
	for (p = text; n < words; n++) {
		size_t len = strcspn(p, " ");

		argv[n] = argv_decode_word(p, len);
		if (argv[n] == NULL) {
			argv_free(&argv);
			return NULL;
		}
		p += len + (p[len] == ' ');
	}
	return argv;
}

char **argv_copy(char *const *argv)
{
	size_t n = 0;
	char **copy;

	while (argv[n] != NULL)
		n++;
	copy = calloc(n + 1, sizeof(*copy));
	for (n = 0; copy != NULL && argv[n] != NULL; n++) {
		copy[n] = strdup(argv[n]);
		if (copy[n] == NULL)
			argv_free(&copy);
	}
	return copy;
}

int argv_push(char ***argvp, char *word)
{
	size_t n = 0;
	char **more;

	while (*argvp != NULL && (*argvp)[n] != NULL)
		n++;
	more = word != NULL ? reallocarray(*argvp, n + 2, sizeof(*more)) : NULL;
	if (more == NULL) {
		free(word);
		return -ENOMEM;
	}
	more[n] = word;
	more[n + 1] = NULL;
	*argvp = more;
	return 0;
}

void argv_free(char ***argvp)
{
	char **argv = *argvp;
	size_t i;

	*argvp = NULL;
	for (i = 0; argv != NULL && argv[i] != NULL; i++)
		free(argv[i]);
	free(argv);
}
