/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Notes beside staged files that the storage did not take.  Without its rows (the mount has
 * ended, the machine has lost its power) such a file is nobody's, but nobody has thrown away
 * what is in it: where there is a note the sweep sets the file aside instead of removing
 * it, with the note, which tells a person whose bytes these are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/staged_priv.h"

#define NOTE ".kept"
#define NOTE_TEXT ".txt" /* once it is set aside */
#define NOTE_RANGES 10000u
#define NAME_LEN 32 /* of a staged file, with its suffix */

struct keep {
	struct pool_job job;
	const struct epoch *epoch;
	char *path, *note;
	char *text;
	size_t len;
};

static void keep_free(struct keep *k)
{
	free(k->path);
	free(k->note);
	free(k->text);
	free(k);
}

/* --- The note */

static void say_range(FILE *f, uint64_t off, uint64_t end, const char *what)
{
	(void)fprintf(f, "bytes %" PRIu64 " to %" PRIu64 ": %s\n", off, end - 1, what);
}

/* What of it is in the file. */
static void say_ranges(FILE *f, const struct staged *sf)
{
	uint64_t off = 0, from = 0, end, size = staged_size(sf);
	bool here = true, all = true;
	unsigned n = 0;

	while (off < size && n < NOTE_RANGES) {
		bool is = staged_map(sf, off, &end) != STAGED_BASE;

		if (is != here && off > from) {
			say_range(f, from, off, here ? "here" : "as in the storage");
			n++;
		}
		if (is != here)
			from = off;
		here = is;
		all &= is;
		off = end;
	}
	if (off > from)
		say_range(f, from, off, here ? "here" : "as in the storage");
	if (off < size)
		(void)fprintf(f, "and more\n");
	(void)fprintf(f, "complete: %s\n",
	    all ? "yes" : "no: the rest is in the storage, under the name above");
}

static bool note_text(struct keep *k, const struct staged *sf, const char *head)
{
	FILE *f = open_memstream(&k->text, &k->len);
	bool ok;

	if (f == NULL)
		return false;
	(void)fprintf(f, "%ssize: %" PRIu64 "\n", head, staged_size(sf));
	say_ranges(f, sf);
	ok = ferror(f) == 0;
	return fclose(f) == 0 && ok;
}

static int sync_path(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = fsync(fd) == 0 ? 0 : -errno;
	close(fd);
	return err;
}

static int note_write(const struct keep *k)
{
	int fd = open(k->note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), err;

	if (fd < 0)
		return -errno;
	err = file_write(fd, k->text, k->len, 0);
	if (err == 0 && fsync(fd) != 0)
		err = -errno;
	close(fd);
	return err;
}

static void keep_work(struct pool_job *job)
{
	struct keep *k = container_of(job, struct keep, job);
	char *slash = strrchr(k->path, '/');
	int err;

	if (!epoch_mine(k->epoch))
		return;
	err = sync_path(k->path, O_RDONLY);
	if (err == -ENOENT)
		return; /* nothing was written to it, or it is gone */
	if (err == 0)
		err = note_write(k);
	/* It went meanwhile: who removed it may have looked for the note before. */
	if (err == 0 && access(k->path, F_OK) != 0)
		(void)unlink(k->note);
	*slash = '\0';
	if (err == 0)
		err = sync_path(k->path, O_RDONLY | O_DIRECTORY);
	if (err != 0)
		log_warn("staged file %s/%s: it might not outlive this mount: %s", k->path,
		    slash + 1, strerror(-err));
}

static void keep_done(struct pool_job *job)
{
	keep_free(container_of(job, struct keep, job));
}

void staged_keep(struct staged *sf, const char *head)
{
	struct keep *k;

	CHECK_OBJ(sf, STAGED_MAGIC);
	k = calloc(1, sizeof(*k));
	if (k == NULL)
		return;
	k->epoch = sf->epoch;
	k->path = strdup(sf->path);
	if (k->path == NULL || asprintf(&k->note, "%s" NOTE, sf->path) < 0) {
		k->note = NULL;
		keep_free(k);
		return;
	}
	if (!note_text(k, sf, head)) {
		keep_free(k);
		return;
	}
	pool_submit(sf->pool, NULL, &k->job, keep_work, keep_done);
}

void keep_forget(const char *path)
{
	char *note;

	if (asprintf(&note, "%s" NOTE, path) < 0)
		return;
	if (unlink(note) != 0 && errno != ENOENT && errno != EROFS)
		log_warn("%s: remove: %s", note, strerror(errno));
	free(note);
}

/* --- Set aside */

bool keep_is_note(const char *name, char *of, size_t len)
{
	size_t n = strlen(name), tail = strlen(NOTE);

	if (n <= tail || n - tail >= len || strcmp(name + n - tail, NOTE) != 0)
		return false;
	memcpy(of, name, n - tail);
	of[n - tail] = '\0';
	return true;
}

static int move(int dir, const char *name, const char *to)
{
	return renameat2(dir, name, dir, to, RENAME_NOREPLACE) == 0 ||
		       (errno == EINVAL && renameat(dir, name, dir, to) == 0)
		   ? 0
		   : -errno;
}

/* The number of a staged file is a later one's in another mount: so with the time. */
bool keep_aside(int dir, const char *name)
{
	char note[NAME_LEN + sizeof(NOTE)], to[2 * NAME_LEN + 64];
	struct stat st;
	int err = 0, n;

	(void)snprintf(note, sizeof(note), "%s" NOTE, name);
	if (fstatat(dir, note, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return false;
	if (mkdirat(dir, STAGED_ASIDE, 0700) != 0 && errno != EEXIST)
		err = -errno;
	n = snprintf(to, sizeof(to), STAGED_ASIDE "/%lld.%09ld-%s", (long long)st.st_mtim.tv_sec,
	    st.st_mtim.tv_nsec, name);
	if (err == 0)
		err = move(dir, name, to);
	(void)snprintf(to + n, sizeof(to) - (size_t)n, NOTE_TEXT);
	if (err == 0)
		err = move(dir, note, to);
	if (err != 0)
		log_warn("staged file %s: set aside: %s", name, strerror(-err));
	return true;
}

unsigned staging_count_aside(const char *dir)
{
	int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = at < 0 ? -1
			: openat(at, STAGED_ASIDE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *de;
	unsigned n = 0;

	if (at >= 0)
		close(at);
	if (d == NULL) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((de = readdir(d)) != NULL) {
		size_t len = strlen(de->d_name), tail = strlen(NOTE_TEXT);

		n += len > tail && strcmp(de->d_name + len - tail, NOTE_TEXT) == 0;
	}
	closedir(d);
	return n;
}

void staging_set_aside(struct staging *st, unsigned n)
{
	CHECK_OBJ(st, STAGING_MAGIC);
	st->aside = n;
}
