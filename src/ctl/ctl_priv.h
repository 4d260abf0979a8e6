/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Inside of the control socket: connections, running commands and the table.
 *
 * A connection carries one command at a time; further request lines wait in its
 * input buffer.  A command is made from a request line, belongs to the server and
 * ends by exactly one of ctl_result_send() and ctl_fail(), after which its struct
 * is gone.  When the connection dies first, `cancel` is called (if set) and the
 * command still has to end; what it says then goes nowhere.
 */
#ifndef CTL_CTL_PRIV_H
#define CTL_CTL_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/json.h"
#include "base/queue.h"
#include "reactor/loop.h"
#include "reactor/timer.h"

/* Longest request line, newline included: 1 MiB of path rules, each byte written as
 * \udcXX. */
#define CTL_REQUEST_MAX (8u * 1024u * 1024u)
/* A command that streams stops above the first figure until the client has taken
 * enough to come below the second. */
#define CTL_OUT_HIGH (256u * 1024u)
#define CTL_OUT_LOW (64u * 1024u)
/* Far more than any command needs; the parser's memory is bounded by them. */
#define CTL_JSON_DEPTH 8
#define CTL_JSON_VALUES 4096

struct ctl;
struct ctl_cmd;
struct ctl_conn;
struct daemon;

struct ctl_arg {
	const char *name;
	enum json_type type;
	bool required;
};

struct ctl_command {
	const char *name;
	void (*fn)(struct ctl_cmd *cmd);
	const struct ctl_arg *args; /* ends with a NULL name */
	const char *help;
};

/* Ends with a NULL name. */
extern const struct ctl_command ctl_commands[];
const struct ctl_command *ctl_command_find(const struct ctl_command *table, const char *name);
/* Required arguments there, none unknown, all of their type: 0 or -EINVAL. */
int ctl_command_check(const struct ctl_command *desc, const struct json *args, struct errtext *et);

struct ctl_request {
	struct json *tree;
	const struct ctl_command *desc;
	const struct json *args; /* in tree; NULL: none were given */
};
/* From one line without its newline.  -EINVAL, -ENOMEM, or -ENOSYS for an unknown
 * command, with words. */
int ctl_request_parse(struct ctl_request *rq, const struct ctl_command *table, const char *line,
    size_t len, struct errtext *et);

struct ctl_cmd {
	uint32_t magic;
#define CTL_CMD_MAGIC 0xc71c0001u
	struct ctl *ctl;
	struct daemon *d;
	struct ctl_conn *conn; /* NULL once the connection is gone */
	struct ctl_request rq;
	/* --- for the command's use */
	void *priv;
	/* Both only mark and defer: they neither send nor end the command. */
	void (*cancel)(struct ctl_cmd *cmd);  /* the client went away, or we exit */
	void (*drained)(struct ctl_cmd *cmd); /* ctl_blocked() has become false */
	TAILQ_ENTRY(ctl_cmd) link;
};

/* A writer that expects one value; give it to the matching _send, which frees it.
 * Never NULL: without memory it is a writer that fails, and the send ends the
 * connection. */
struct json_out *ctl_progress_begin(struct ctl_cmd *cmd);
void ctl_progress_send(struct ctl_cmd *cmd, struct json_out **o);
struct json_out *ctl_result_begin(struct ctl_cmd *cmd);
void ctl_result_send(struct ctl_cmd *cmd, struct json_out **o);
/* Ends the command with an error; err is a negative errno. */
void ctl_fail(struct ctl_cmd *cmd, int err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* So much waits for the client that a stream should stop until `drained`. */
bool ctl_blocked(const struct ctl_cmd *cmd);

struct ctl_conn {
	uint32_t magic;
#define CTL_CONN_MAGIC 0xc71c0002u
	struct ctl *ctl;
	int fd;
	struct loop_fd watch;
	bool watched;
	char *in; /* bytes read and not yet used, from the start of a line */
	size_t in_len, in_cap, in_seen; /* in_seen: no newline before here */
	char *out; /* bytes to send: [out_off, out_len) */
	size_t out_off, out_len, out_cap;
	struct ctl_cmd *cmd;
	bool eof;   /* the client sends no more */
	bool last;  /* close when everything was sent */
	bool dead;  /* the reaper is on its way */
	struct deferred work; /* next line, or the reaper */
	TAILQ_ENTRY(ctl_conn) link;
};

/* Takes fd over, also on failure.  0 or negative errno. */
int ctl_conn_new(struct ctl *c, int fd);
/* Frees it at once; a running command is cancelled and goes on without it. */
void ctl_conn_free(struct ctl_conn **conn);
/* No request is read any more: closes when the command that runs, if one does,
 * has ended and everything was sent. */
void ctl_conn_finish(struct ctl_conn *conn);

struct ctl {
	uint32_t magic;
#define CTL_MAGIC 0xc71c0003u
	struct daemon *d;
	struct loop *loop;
	const struct ctl_command *commands;
	int listen_fd;
	struct loop_fd watch;
	bool watched, paused;
	struct timer retry; /* accepting again after descriptors ran out */
	TAILQ_HEAD(, ctl_conn) conns;
	TAILQ_HEAD(, ctl_cmd) cmds;
	struct ctl_cmd *upgrade; /* the upgrade that runs, or NULL */
};

void ctl_status(struct ctl_cmd *cmd);
void ctl_conf_get(struct ctl_cmd *cmd);
void ctl_conf_list(struct ctl_cmd *cmd);
void ctl_conf_set(struct ctl_cmd *cmd);
void ctl_fs_ls(struct ctl_cmd *cmd);
void ctl_fs_stat(struct ctl_cmd *cmd);
void ctl_fs_explain(struct ctl_cmd *cmd);
void ctl_fs_load(struct ctl_cmd *cmd);
void ctl_fs_free(struct ctl_cmd *cmd);
void ctl_pathconfig_show(struct ctl_cmd *cmd);
void ctl_pathconfig_set(struct ctl_cmd *cmd);
void ctl_pathconfig_test(struct ctl_cmd *cmd);
void ctl_persist_list(struct ctl_cmd *cmd);
void ctl_persist_stat(struct ctl_cmd *cmd);
void ctl_persist_retry(struct ctl_cmd *cmd);
void ctl_persist_drop(struct ctl_cmd *cmd);
void ctl_persist_drain(struct ctl_cmd *cmd);
void ctl_persist_kept(struct ctl_cmd *cmd);
void ctl_meta_state(struct ctl_cmd *cmd);
void ctl_meta_scan(struct ctl_cmd *cmd);
void ctl_meta_begin(struct ctl_cmd *cmd);
void ctl_meta_put_records(struct ctl_cmd *cmd);
void ctl_meta_end(struct ctl_cmd *cmd);
void ctl_upgrade(struct ctl_cmd *cmd);
/* We exit before it ended: nobody waits for its outcome any more. */
void ctl_upgrade_forget(struct ctl *c);
void ctl_umount(struct ctl_cmd *cmd);

#endif
