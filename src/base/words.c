/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/words.h"

#include <ctype.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "base/obj.h"

unsigned words_distance(const char *a, const char *b)
{
	size_t na = strnlen(a, WORDS_MAX), nb = strnlen(b, WORDS_MAX);
	unsigned row[WORDS_MAX + 1];

	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned change = diagonal + (a[i - 1] != b[j - 1]);
			unsigned insert = row[j - 1] + 1, drop = row[j] + 1;

			diagonal = row[j];
			row[j] = MIN(change, MIN(insert, drop));
		}
	}
	return row[nb];
}

static void lower(const char *s, char buf[WORDS_MAX + 1])
{
	size_t n = strnlen(s, WORDS_MAX);

	for (size_t i = 0; i < n; i++)
		buf[i] = (char)tolower((unsigned char)s[i]);
	buf[n] = '\0';
}

const char *words_nearest(const char *word, const char *const *known)
{
	char a[WORDS_MAX + 1] = "", b[WORDS_MAX + 1] = "";
	unsigned least = UINT_MAX;
	const char *best = NULL;

	lower(word, a);
	for (; *known != NULL; known++) {
		unsigned d;

		lower(*known, b);
		d = words_distance(a, b);
		if (d < least) {
			least = d;
			best = *known;
		}
	}
	/* What differs in more than half of its letters is another word. */
	return best != NULL && least <= MAX(strlen(best) / 2, (size_t)1) ? best : NULL;
}
