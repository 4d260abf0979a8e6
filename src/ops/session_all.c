/* SPDX-License-Identifier: BSD-2-Clause */
/* All sessions: over the life of a daemon, and in a hand-over; and who opened them. */
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/units.h"
#include "ops/session.h"

/* --- Processes */

static const char *status_line(FILE *f, const char *key, char *line, int len)
{
	size_t n = strlen(key);

	while (fgets(line, len, f) != NULL)
		if (strncmp(line, key, n) == 0)
			return line + n;
	return NULL;
}

pid_t session_process(pid_t tid)
{
	const char *value;
	char text[128];
	long tgid = 0;
	FILE *f;

	if (tid <= 0)
		return 0;
	/* Mostly it is the process's first thread, which this tells without a file. */
	if (syscall(SYS_tgkill, tid, tid, 0) == 0 || errno == EPERM)
		return tid;
	snprintf(text, sizeof(text), "/proc/%d/status", (int)tid);
	f = fopen(text, "re");
	if (f == NULL)
		return 0;
	value = status_line(f, "Tgid:", text, sizeof(text));
	if (value != NULL)
		tgid = strtol(value, NULL, 10);
	fclose(f);
	return (pid_t)tgid;
}

bool session_same_process(const struct session *s, pid_t tid)
{
	pid_t tgid;

	if (s->opener == 0 || s->opener == tid || (kill(s->opener, 0) != 0 && errno == ESRCH))
		return true;
	tgid = session_process(tid);
	return tgid == 0 || tgid == s->opener;
}

/* --- All of them */

void session_foreach(struct fs *fs, void (*fn)(struct session *s, void *arg), void *arg)
{
	struct session *s, *next;

	HASH_ITER(hh, fs->sessions, s, next)
	fn(s, arg);
}

/* Calls fn with each key of a table that has 64-bit keys; the table may change. */
static int each_key(struct fs *fs, enum statedb_table table,
    int (*fn)(struct fs *fs, uint64_t key))
{
	struct statedb_val k, v;
	uint64_t next = 0, be;
	int err;

	for (;;) {
		be = htobe64(next);
		err = statedb_seek(fs->db, table, &be, sizeof(be), &k, &v);
		if (err != 0)
			return err == -ENOENT ? 0 : err;
		if (k.len != sizeof(be))
			return -EPROTO;
		memcpy(&be, k.data, sizeof(be));
		next = be64toh(be);
		err = fn(fs, next);
		if (err != 0)
			return err;
		if (++next == 0)
			return 0;
	}
}

static int open_one(struct fs *fs, uint64_t node)
{
	struct session *s;
	int err;

	HASH_FIND(hh, fs->sessions, &node, sizeof(node), s);
	if (s != NULL)
		return 0;
	err = session_load(fs, node, &s);
	if (err == 0) {
		session_pump(s);
		return 0;
	}
	if (err == -ENOMEM) {
		fs->sessions_missing = true;
		return 0;
	}
	log_error("write session of node %llu: %s; what was written there is kept, but cannot be "
		  "reached",
	    (unsigned long long)node, strerror(-err));
	return 0;
}

/* A staged file whose session ended when operations on it still ran: nobody's. */
static int drop_stray(struct fs *fs, uint64_t id)
{
	struct session *s, *next;
	struct upload *up;
	struct staged *sf;

	if (fs->sessions_missing)
		return 0;
	HASH_ITER(hh, fs->sessions, s, next)
	if (s->staged == id)
		return 0;
	if (staged_open(fs->staging, id, NULL, &sf) != 0)
		return 0;
	/* Whether somebody needs it, records say. */
	if ((id & STAGED_DURABLE_BIT) != 0) {
		if (staged_park(&sf) != 0)
			staged_close(&sf);
		return 0;
	}
	if (upload_new(fs->uploads, sf, &up) == 0) {
		upload_drop(up);
		upload_free(&up);
	}
	(void)staged_delete(&sf);
	if (sf != NULL)
		staged_close(&sf);
	return 0;
}

/* Unfinished uploads that the storage has not been told of. */
static void resume_drops(struct fs *fs)
{
	struct ufs *ufs[FS_ATTACH_MAX];

	for (unsigned i = 0; i < fs->nattached; i++)
		ufs[i] = fs->attached[i].ufs;
	uploads_resume(fs->uploads, ufs, fs->nattached);
}

int session_open_all(struct fs *fs)
{
	int err;

	fs->held_up = false;
	fs->sessions_missing = false;
	if (fs->staging == NULL)
		return 0;
	err = each_key(fs, STATEDB_SESSIONS, open_one);
	/* As many staged files as sessions: none is nobody's. */
	if (err == 0 &&
	    statedb_count(fs->db, STATEDB_STAGED) > (uint64_t)HASH_COUNT(fs->sessions))
		err = each_key(fs, STATEDB_STAGED, drop_stray);
	/* Files whose rows went when a daemon died, or with a mount. */
	if (err == 0)
		staging_sweep(fs->staging);
	resume_drops(fs);
	return err;
}

void session_hold_all(struct fs *fs)
{
	struct session *s, *next;

	fs->held_up = true;
	HASH_ITER(hh, fs->sessions, s, next)
	if (s->uploading == NULL)
		upload_pause(s->up);
	else
		session_upload_recall(s);
}

void session_release_all(struct fs *fs)
{
	struct session *s, *next;

	if (fs->db == NULL)
		return;
	fs->held_up = false;
	HASH_ITER(hh, fs->sessions, s, next)
	{
		s->writers = 0;
		session_pump(s);
	}
}

int session_content_closed(struct fs *fs, uint64_t content)
{
	struct session *s, *next;

	if (fs->db == NULL || fs->sessions_missing)
		return -EAGAIN;
	HASH_ITER(hh, fs->sessions, s, next)
	{
		if (s->policy == META_POLICY_NO_CACHE || s->content.id != content)
			continue;
		/* What it is being given now are attributes, once it is closed. */
		return s->state == SESSION_KEPT ||
			       (s->state == SESSION_CLOSING && session_is_safe(s))
			   ? 0
			   : -EBUSY;
	}
	return 0;
}

unsigned session_closing(const struct fs *fs)
{
	struct session *s, *next;
	unsigned n = 0;

	if (fs->held_up || fs->db == NULL)
		return 0;
	for (s = fs->ended; s != NULL; s = s->next_ended)
		n++;
	HASH_ITER(hh, fs->sessions, s, next)
	n += s->state == SESSION_CLOSING || (s->state == SESSION_OPEN && s->writers == 0);
	return n;
}

bool session_any_busy(const struct fs *fs)
{
	struct session *s, *next;

	HASH_ITER(hh, fs->sessions, s, next)
	if (staged_busy(s->sf))
		return true;
	for (s = fs->ended; s != NULL; s = s->next_ended)
		if (s->sf != NULL && staged_busy(s->sf))
			return true;
	return false;
}

void session_pause_all(struct fs *fs)
{
	struct session *s, *next;

	fs->held_up = true;
	HASH_ITER(hh, fs->sessions, s, next)
	{
		session_upload_cancel(s);
		session_secure_cancel(s);
		upload_pause(s->up);
		session_wake(s, -ECANCELED);
	}
}

void session_resume_all(struct fs *fs)
{
	struct session *s, *next;

	fs->held_up = false;
	HASH_ITER(hh, fs->sessions, s, next)
	session_pump(s);
}

void session_close_all(struct fs *fs)
{
	struct session *s, *next;

	HASH_ITER(hh, fs->sessions, s, next)
	{
		session_wake(s, -ECANCELED);
		session_free(&s);
	}
	while ((s = fs->ended) != NULL)
		session_free(&s);
}

/* Those at work are ahead of the rows, and say again what they know. */
int session_check_all(struct fs *fs)
{
	struct session *s, *next;

	HASH_ITER(hh, fs->sessions, s, next)
	{
		if (s->users > 0 || s->uploading != NULL || s->securing != NULL ||
		    !TAILQ_EMPTY(&s->waits))
			(void)session_store(s);
		else
			session_free(&s);
	}
	return fs->staging == NULL ? 0 : session_open_all(fs);
}
