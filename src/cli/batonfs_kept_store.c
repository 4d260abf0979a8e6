/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * async-persist retry --kept: through the mount point, as any program writes a file, so that
 * the path's policy holds and close(2) says whether it is safe.  Where nothing has the name
 * it is made there; over the version that it was to replace it comes by a rename of a whole
 * file, so that a copy that breaks off changes nothing.  Over another version it does not
 * come.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/obj.h"
#include "cli/kept.h"

#define PIECE (1024u * 1024u)

struct storing {
	struct cli *c;
	const struct kept *k;
	char *path, *temp;  /* where the mount shows it; temp: beside it */
	int from, base, to; /* the kept file, the version in the storage or -1, the new one */
	struct stat st;     /* of the version in the storage */
	bool over;          /* there is one */
};

static enum cli_exit fail(const struct storing *s, const char *what, int err)
{
	return cli_error(
	    s->c, "%s: %s: %s; it stays as %s", s->k->path, what, strerror(-err), s->k->name);
}

/* Is what the storage has what it was to replace? */
static enum cli_exit check_version(const struct storing *s)
{
	const char *then = s->k->version != NULL ? s->k->version : "none";
	struct cli_call call;
	struct json *v = NULL;
	enum cli_exit ex = cli_call_new(s->c, &call, "fs stat");
	bool same;

	if (ex != CLI_OK)
		return ex;
	call.repeatable = true;
	json_add_text(call.args, "path", s->k->path);
	ex = cli_call_run(s->c, &call, &v);
	if (ex != CLI_OK)
		return ex;
	same = strcmp(json_get_text(v, "version", ""), then) == 0;
	json_free(&v);
	return same ? CLI_OK
		    : cli_error(s->c,
			  "%s: the storage has another version than this was to replace, which is "
			  "not overwritten; both are kept: move or remove that one and retry, or "
			  "`batonfs async-persist drop --kept %s` to keep that one",
			  s->k->path, s->k->name);
}

/* --- The bytes */

/* From where they come at `off`, and up to where. */
static bool is_here(const struct kept *k, size_t *at, uint64_t off, uint64_t *end)
{
	while (*at < k->n && k->here[*at].end <= off)
		++*at;
	*end = *at < k->n ? MIN(k->here[*at].off, k->size) : k->size;
	if (*at == k->n || k->here[*at].off > off)
		return false;
	*end = MIN(k->here[*at].end, k->size);
	return true;
}

/* A staged file ends with its last byte that is not a hole; the object must be whole. */
static int read_piece(int fd, bool zeros, char *buf, size_t len, uint64_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 && !zeros)
			return -ESTALE;
		if (n == 0)
			memset(buf + done, 0, len - done);
		done = n == 0 ? len : done + (size_t)n;
	}
	return 0;
}

static int write_piece(int fd, const char *buf, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			buf += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

static enum cli_exit copy(struct storing *s)
{
	const struct kept *k = s->k;
	enum cli_exit ex = CLI_OK;
	char *buf = malloc(PIECE);
	uint64_t end;
	size_t at = 0;
	int err;

	if (buf == NULL)
		return fail(s, "copy", -ENOMEM);
	for (uint64_t off = 0; off < k->size && ex == CLI_OK; off = end) {
		bool here = is_here(k, &at, off, &end);

		end = MIN(end, off + PIECE);
		err = read_piece(here ? s->from : s->base, here, buf, end - off, off);
		if (err != 0) {
			ex = fail(s, here ? "read what was kept" : "read the rest", err);
			break;
		}
		err = write_piece(s->to, buf, end - off);
		if (err != 0)
			ex = fail(s, "write", err);
	}
	free(buf);
	return ex;
}

static enum cli_exit set_attributes(const struct storing *s)
{
	unsigned mode = s->over ? s->st.st_mode & 07777 : s->k->mode;
	uid_t uid = s->over ? s->st.st_uid : s->k->uid;
	gid_t gid = s->over ? s->st.st_gid : s->k->gid;

	if (!s->over && !s->k->have_mode)
		return CLI_OK;
	if (fchown(s->to, uid, gid) != 0)
		return fail(s, "set the owner", -errno);
	return fchmod(s->to, mode) == 0 ? CLI_OK : fail(s, "set the mode", -errno);
}

/* close(2) is where the storage's answer is told. */
static enum cli_exit fill(struct storing *s)
{
	enum cli_exit ex = copy(s);
	struct timespec ts[2];
	struct stat st;
	int err = 0;

	if (ex == CLI_OK)
		ex = set_attributes(s);
	if (ex == CLI_OK && fstat(s->from, &st) == 0) {
		ts[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
		ts[1] = st.st_mtim;
		if (futimens(s->to, ts) != 0)
			err = -errno;
	}
	/* Before it closes, so that a part of it is never uploaded. */
	if (ex != CLI_OK)
		(void)unlink(s->temp);
	if (close(s->to) != 0 && err == 0)
		err = -errno;
	s->to = -1;
	if (ex == CLI_OK && err != 0) {
		(void)unlink(s->temp);
		ex = fail(s, "store", err);
	}
	return ex;
}

/* --- The way */

static enum cli_exit open_from(struct storing *s, const struct kept_dir *kd)
{
	s->from = openat(kd->fd, s->k->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (s->from < 0)
		return cli_error(s->c, "%s/%s: %s", kd->dir, s->k->name, strerror(errno));
	if (flock(s->from, LOCK_EX | LOCK_NB) != 0)
		return cli_error(s->c, "%s: another command is at it", s->k->name);
	return CLI_OK;
}

static enum cli_exit look(struct storing *s)
{
	const struct kept *k = s->k;
	enum cli_exit ex;

	if (k->more) {
		cli_error(s->c,
		    "%s: lies in more pieces than the text beside it tells; what is in the file "
		    "can be copied by hand",
		    k->name);
		return CLI_FAILURE;
	}
	s->over = lstat(s->path, &s->st) == 0;
	if (!s->over && errno != ENOENT)
		return fail(s, "look", -errno);
	if (!s->over)
		return k->complete
			   ? CLI_OK
			   : cli_error(s->c,
				 "%s: what was changed of it is there, and the rest has gone "
				 "from the storage; it stays as %s",
				 k->path, k->name);
	if (!S_ISREG(s->st.st_mode))
		return fail(s, "is a directory", -EISDIR);
	ex = check_version(s);
	if (ex != CLI_OK || k->complete)
		return ex;
	s->base = open(s->path, O_RDONLY | O_CLOEXEC);
	return s->base >= 0 ? CLI_OK : fail(s, "open", -errno);
}

static enum cli_exit store(struct storing *s)
{
	enum cli_exit ex = look(s);

	if (ex != CLI_OK)
		return ex;
	if (!s->over) {
		free(s->temp);
		s->temp = strdup(s->path);
		if (s->temp == NULL)
			return fail(s, "store", -ENOMEM);
	}
	/* Of a command that was killed; locked out by the lock, no other has it. */
	if (s->over && unlink(s->temp) != 0 && errno != ENOENT)
		return fail(s, "remove what an earlier try left", -errno);
	s->to = open(s->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (s->to < 0)
		return fail(s, "create", -errno);
	ex = fill(s);
	if (ex != CLI_OK || !s->over)
		return ex;
	ex = check_version(s);
	if (ex == CLI_OK && rename(s->temp, s->path) != 0)
		ex = fail(s, "replace", -errno);
	if (ex != CLI_OK)
		(void)unlink(s->temp);
	return ex;
}

enum cli_exit kept_store(struct cli *c, const struct kept_dir *kd, const struct kept *k)
{
	struct storing s = {.c = c, .k = k, .from = -1, .base = -1, .to = -1};
	enum cli_exit ex = open_from(&s, kd);

	if (ex == CLI_OK) {
		s.path = cli_mounted_path(c, k->path);
		ex = s.path != NULL ? CLI_OK : CLI_FAILURE;
	}
	if (ex == CLI_OK && asprintf(&s.temp, "%.*s/.kept-%s",
				(int)(strrchr(s.path, '/') - s.path), s.path, k->name) < 0) {
		s.temp = NULL;
		ex = fail(&s, "store", -ENOMEM);
	}
	if (ex == CLI_OK)
		ex = store(&s);
	if (s.from >= 0)
		close(s.from);
	if (s.base >= 0)
		close(s.base);
	free(s.path);
	free(s.temp);
	return ex;
}
