/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control client, batonfs(1): inside of src/cli.  Blocking code: connect, send
 * one request, print what comes back.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"

enum cli_exit { CLI_OK = 0, CLI_FAILURE = 1, CLI_USAGE = 2, CLI_TAKEOVER = 5 };

/* Options that only some commands know, as bits. */
enum {
	CLI_RECURSIVE = 1,
	CLI_FORCE = 2,
	CLI_CHECK = 4,
	CLI_BINARY = 8,
	CLI_PATH = 16,
	CLI_DRAIN = 32,
	CLI_WAIT = 64, /* --timeout is the command's own */
	CLI_WORKER = 128,
	CLI_KEPT = 256, /* of earlier mounts */
};

struct cli {
	/* --- as given */
	const char *mountpoint, *socket; /* NULL: look for it */
	bool json;
	uint64_t timeout_ns; /* longest silence of the daemon; 0: for ever */
	unsigned seen;	     /* CLI_RECURSIVE, … */
	const char *binary, *path_given;
	const char *worker;
	const char *drain_timeout; /* as given; NULL: none */
	char **operands; /* behind the command's words */
	int noperands;
	char **flags; /* behind "--" */
	int nflags;
	/* --- made of it */
	const char *words; /* the command, "fs ls" */
	char path[4200];   /* of the socket */
	unsigned breaks;   /* calls that the daemon's end cut short, of those that go on */
};

struct cli_command {
	const char *words;
	const char *operands; /* for the usage line */
	int min, max;	      /* how many */
	unsigned options;     /* CLI_RECURSIVE, … that it takes */
	bool takes_flags;     /* what is behind "--" */
	enum cli_exit (*fn)(struct cli *c);
	const char *help; /* first line: what it does; then more */
};

/* --- batonfs.c */
/* "batonfs: fs ls: " and the words to stderr; returns CLI_FAILURE. */
enum cli_exit cli_error(const struct cli *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* --- batonfs_find.c: c->path from -S, -m or what runs here. */
enum cli_exit cli_find(struct cli *c);
#define CLI_FOUND_MAX 64
struct cli_found {
	char *path[CLI_FOUND_MAX];
	size_t n;
	bool more; /* than fit */
};
/* The sockets below root (PATHS_RUN_ROOT) that a daemon listens on. */
int cli_find_all(const char *root, struct cli_found *out);
void cli_found_free(struct cli_found *f);

/* --- batonfs_call.c */
struct cli_call {
	const char *command;
	struct json_out *args; /* an open object for the arguments; owned */
	/* The daemon's answer does not depend on how often it is asked: if it goes
	 * away (a takeover) before it said anything, its successor is asked. */
	bool repeatable;
	bool waits; /* ... and also if it has: what it said was only how far it is */
	/* The caller goes on with what is left: if the daemon ends or is replaced on the way,
	 * that is counted in cli.breaks, and nothing is said of it. */
	bool goes_on;
	/* After the result: until the daemon, and whoever keeps it, has ended. */
	bool until_end;
	uint64_t wait_ns; /* for a daemon to be there, if none is */
	/* Where not NULL: set, and nothing said, if the daemon goes away between its first
	 * word and its answer. */
	bool *lost;
	enum cli_exit refused; /* the exit code if the daemon says no; 0: CLI_FAILURE */
	/* Each row of progress; may be NULL.  Non-zero: stop with that exit code. */
	int (*progress)(struct cli *c, void *arg, const struct json *row);
	void *arg;
};
/* Begins a call: args is ready for json_add_*(). */
enum cli_exit cli_call_new(struct cli *c, struct cli_call *call, const char *command);
/* Ends it: CLI_OK and the result (to be freed), else what went wrong was said. */
enum cli_exit cli_call_run(struct cli *c, struct cli_call *call, struct json **result);
/* Both, for a command without arguments. */
enum cli_exit cli_ask(struct cli *c, const char *command, struct json **result);
/* The same, of the daemon that serves when the one before has died. */
enum cli_exit cli_ask_next(struct cli *c, const char *command, struct json **result);

/* --- batonfs_text.c */
enum cli_exit cli_print_json(const struct cli *c, const struct json *v);
/* "1.2GiB", "17B" */
char *cli_size(uint64_t bytes, char *buf, size_t len);
/* "2d 3h", "5min 2s" */
char *cli_span(uint64_t seconds, char *buf, size_t len);
/* "2026-01-31 12:00:00", local time */
char *cli_time(uint64_t seconds, char *buf, size_t len);
/* Bytes that would upset a terminal become "?", as ls(1) does it. */
char *cli_printable(const char *s, char *buf, size_t len);
/* How many letters apart two words are (insert, remove, replace). */
unsigned cli_distance(const char *a, const char *b);
/* Was everything written?  Else says why and returns CLI_FAILURE. */
enum cli_exit cli_flush(const struct cli *c);

/* --- one a family */
enum cli_exit cli_status(struct cli *c);
enum cli_exit cli_conf_get(struct cli *c);
enum cli_exit cli_conf_list(struct cli *c);
enum cli_exit cli_conf_set(struct cli *c);
enum cli_exit cli_fs_ls(struct cli *c);
enum cli_exit cli_fs_stat(struct cli *c);
enum cli_exit cli_fs_explain(struct cli *c);
enum cli_exit cli_fs_load(struct cli *c);
enum cli_exit cli_fs_free(struct cli *c);
enum cli_exit cli_fs_rm(struct cli *c);
/* Where the mount shows a namespace path, to be freed; NULL: said why not. */
char *cli_mounted_path(struct cli *c, const char *nspath);
enum cli_exit cli_pathconfig_show(struct cli *c);
enum cli_exit cli_pathconfig_edit(struct cli *c);
enum cli_exit cli_pathconfig_set(struct cli *c);
enum cli_exit cli_pathconfig_test(struct cli *c);
enum cli_exit cli_persist_list(struct cli *c);
enum cli_exit cli_persist_stat(struct cli *c);
enum cli_exit cli_persist_retry(struct cli *c);
enum cli_exit cli_persist_drop(struct cli *c);
enum cli_exit cli_persist_drain(struct cli *c);
enum cli_exit cli_kept_list(struct cli *c);
enum cli_exit cli_kept_retry(struct cli *c);
enum cli_exit cli_kept_drop(struct cli *c);
/* Waits until everything is in the storage, at most so long (NULL: for ever). */
enum cli_exit cli_drain(struct cli *c, const char *timeout);
enum cli_exit cli_meta_export(struct cli *c);
enum cli_exit cli_meta_import(struct cli *c);
enum cli_exit cli_upgrade(struct cli *c);
enum cli_exit cli_umount(struct cli *c);

#endif
