/* SPDX-License-Identifier: BSD-2-Clause */
/* The command line of batonfsd(8) and the configuration it names. */
#ifndef ARGS_H
#define ARGS_H

#include "base/log.h"
#include "base/options.h"
#include "daemon.h"

#define ARGS_MAX_LIST 256

struct args {
	struct daemon_args d;
	const char *config_file; /* NULL: the default one, which may be absent */
	const char *settings[ARGS_MAX_LIST]; /* "name=value", in order */
	unsigned nsettings;
	const char *mount_opts[ARGS_MAX_LIST]; /* "a,b=c", in order */
	unsigned nmount_opts;
	enum log_target log;
	/* NULL, or the flag as it goes into d.argv */
	const char *takeover_flag, *log_flag;
};

/* Parses; -1: go on, else the code to exit with (help and errors are printed).
 * argv is permuted: operands go to its end.  d.argv is the command line in its plain
 * form: one flag and one value a word, relative paths made absolute, the mount point
 * last; so it means the same in a restart and can be added to. */
int args_parse(struct args *a, int argc, char **argv);

/* --takeover was for this once; restarts and upgrades begin from argv. */
void args_forget_takeover(struct daemon_args *a);

/* File, then settings: a fresh configuration or NULL with words. */
struct config *args_load_config(const struct args *a, struct errtext *et);

#endif
