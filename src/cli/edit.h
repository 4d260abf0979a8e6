/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A text in the user's editor: $EDITOR, else $VISUAL, else vi, run by the shell as other
 * programs do, so that it may have arguments.
 *
 * The file lies in a directory of its own that nobody else can look into, below $TMPDIR,
 * /tmp or /var/tmp, whichever is the first where others cannot take it away.
 */
#ifndef CLI_EDIT_H
#define CLI_EDIT_H

#include <stdbool.h>
#include <stdio.h>

#include "cli/cli.h"

/* Longest text. */
#define EDIT_MAX (1024u * 1024u)

struct edit {
	FILE *out; /* for the text, from edit_new() until edit_run() */
	char dir[4200], file[4300];
	bool made, keep; /* keep: edit_end() leaves the file */
};

/* name: of the directory's beginning; leaf: of the file. */
enum cli_exit edit_new(struct cli *c, struct edit *e, const char *name, const char *leaf);
/* Until the editor has ended well. */
enum cli_exit edit_run(struct cli *c, struct edit *e);
enum cli_exit edit_read_back(struct cli *c, struct edit *e, char **text);
void edit_end(struct edit *e);

/* All of a file as a text: at most EDIT_MAX bytes, and no byte 0 in it. */
enum cli_exit edit_read(struct cli *c, FILE *f, const char *name, char **text);

#endif
