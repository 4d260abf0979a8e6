/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A command line as one line of text: words with everything but
 * A-Z a-z 0-9 - _ . / = : , + @ percent-encoded, separated by spaces, so that it
 * travels in a notification (X_BATONFS_ARGV=) whatever its bytes are.
 */
#ifndef BASE_ARGV_H
#define BASE_ARGV_H

/* prefix and the encoded words in a malloc'ed string, or NULL (out of memory). */
char *argv_encode(const char *const *argv, const char *prefix);
/* The words, NULL-terminated, for argv_free(); NULL if the text is not of the form
 * (or out of memory). */
char **argv_decode(const char *text);
/* A deep copy, or NULL. */
char **argv_copy(char *const *argv);
void argv_free(char ***argv);
/* Adds a word, which it takes over, at the end of *argv (NULL: an empty one): 0, or
 * -ENOMEM, also if word is NULL, so that strdup() may stand there. */
int argv_push(char ***argv, char *word);

#endif
