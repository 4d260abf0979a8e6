/* SPDX-License-Identifier: BSD-2-Clause */
/* How near a mistyped word is to one that is known.  Any thread. */
#ifndef BASE_WORDS_H
#define BASE_WORDS_H

/* Longer than any word that is known; what is longer still is compared by its beginning. */
#define WORDS_MAX 127u

/* How many letters are to be inserted, removed or replaced to make one of the other. */
unsigned words_distance(const char *a, const char *b);
/* The nearest of a list that ends with NULL, whatever the case of its letters; NULL if
 * none is like it. */
const char *words_nearest(const char *word, const char *const *known);

#endif
