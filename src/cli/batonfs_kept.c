/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * async-persist ... --kept: what earlier mounts could not store and the sweep of staged
 * files has set aside, each file beside a text (cache/staged_keep.c).  Which there are is
 * read from their directory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/kept.h"

#define TEXT ".txt"
#define LIST_FORMAT "%9s  %-8s  %-25s  %-28s  %s\n"

/* --- The text beside a file */

void kept_free(struct kept *k)
{
	free(k->name);
	free(k->path);
	free(k->written);
	free(k->why);
	free(k->version);
	free(k->here);
	memset(k, 0, sizeof(*k));
}

/* As notes have it: "\n" and "\\" are written so. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s != '\0'; s++) {
		if (s[0] == '\\' && s[1] == 'n')
			*to++ = '\n', s++;
		else if (s[0] == '\\' && s[1] == '\\')
			*to++ = '\\', s++;
		else
			*to++ = *s;
	}
	*to = '\0';
}

static bool take_text(const char *line, const char *key, char **out)
{
	size_t n = strlen(key);

	if (strncmp(line, key, n) != 0)
		return false;
	free(*out);
	*out = strdup(line + n);
	return true;
}

static int add_range(struct kept *k, uint64_t from, uint64_t to)
{
	struct kept_range *p;

	if (to < from || to == UINT64_MAX || (k->n > 0 && from < k->here[k->n - 1].end))
		return -EINVAL;
	p = reallocarray(k->here, k->n + 1, sizeof(*p));
	if (p == NULL)
		return -ENOMEM;
	k->here = p;
	p[k->n++] = (struct kept_range){from, to + 1};
	return 0;
}

static int take_line(struct kept *k, const char *line)
{
	uint64_t from, to;
	int at = 0;

	if (take_text(line, "path: ", &k->path) || take_text(line, "written: ", &k->written) ||
	    take_text(line, "not stored: ", &k->why) ||
	    take_text(line, "version in the storage then: ", &k->version))
		return 0;
	if (sscanf(line, "bytes %" SCNu64 " to %" SCNu64 ": %n", &from, &to, &at) == 2 && at > 0)
		return strcmp(line + at, "here") == 0 ? add_range(k, from, to) : 0;
	if (sscanf(line, "mode: %o, owner: %u:%u", &k->mode, &k->uid, &k->gid) == 3)
		k->have_mode = true;
	else if (sscanf(line, "size: %" SCNu64, &k->size) == 1)
		k->sized = true;
	else if (strcmp(line, "and more") == 0)
		k->more = true;
	else if (strcmp(line, "complete: yes") == 0)
		k->complete = true;
	return 0;
}

static int read_text(struct kept *k, FILE *f)
{
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int err = 0;

	while (err == 0 && (n = getline(&line, &cap, f)) > 0) {
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		err = take_line(k, line);
	}
	if (err == 0 && ferror(f) != 0)
		err = -EIO;
	free(line);
	if (err == 0 && (k->path == NULL || k->path[0] != '/' || !k->sized))
		err = -EINVAL;
	if (k->path != NULL)
		unescape(k->path);
	return err;
}

int kept_load(int dir, const char *name, struct kept *k)
{
	char text[NAME_MAX + 1];
	FILE *f;
	int fd, err;

	memset(k, 0, sizeof(*k));
	if (strchr(name, '/') != NULL || name[0] == '.' ||
	    snprintf(text, sizeof(text), "%s" TEXT, name) >= (int)sizeof(text))
		return -ENOENT;
	k->name = strdup(name);
	if (k->name == NULL)
		return -ENOMEM;
	fd = openat(dir, text, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	f = fd >= 0 ? fdopen(fd, "re") : NULL;
	err = f == NULL ? -errno : read_text(k, f);
	if (f != NULL)
		(void)fclose(f);
	else if (fd >= 0)
		close(fd);
	if (err != 0)
		kept_free(k);
	return err;
}

/* --- The directory */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_name(struct kept_dir *kd, const char *name, size_t len)
{
	char **p = reallocarray(kd->name, kd->n + 1, sizeof(*p));

	if (p == NULL)
		return -ENOMEM;
	kd->name = p;
	p[kd->n] = strndup(name, len);
	if (p[kd->n] == NULL)
		return -ENOMEM;
	kd->n++;
	return 0;
}

static int read_names(struct kept_dir *kd)
{
	int copy = dup(kd->fd), err = 0;
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	struct dirent *e;

	if (d == NULL) {
		err = -errno;
		if (copy >= 0)
			close(copy);
		return err;
	}
	while (err == 0 && (errno = 0, e = readdir(d)) != NULL) {
		size_t n = strlen(e->d_name), tail = strlen(TEXT);

		if (n > tail && strcmp(e->d_name + n - tail, TEXT) == 0)
			err = add_name(kd, e->d_name, n - tail);
	}
	if (err == 0)
		err = -errno;
	closedir(d);
	/* They begin with the time. */
	if (err == 0 && kd->n > 0)
		qsort(kd->name, kd->n, sizeof(*kd->name), by_name);
	return err;
}

void kept_dir_close(struct kept_dir *kd)
{
	while (kd->n > 0)
		free(kd->name[--kd->n]);
	free(kd->name);
	free(kd->dir);
	if (kd->fd >= 0)
		close(kd->fd);
	memset(kd, 0, sizeof(*kd));
	kd->fd = -1;
}

static enum cli_exit open_dir(struct cli *c, struct kept_dir *kd)
{
	int err;

	kd->fd = open(kd->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	err = kd->fd >= 0 ? read_names(kd) : errno == ENOENT ? 0 : -errno;
	return err == 0
		   ? CLI_OK
		   : cli_error(c,
			 "%s: %s (the directory must be in reach of this command: run it where "
			 "the daemon runs, as its user or root)",
			 kd->dir, strerror(-err));
}

enum cli_exit kept_dir_open(struct cli *c, struct kept_dir *kd)
{
	struct json *v = NULL;
	enum cli_exit ex;

	memset(kd, 0, sizeof(*kd));
	kd->fd = -1;
	ex = cli_ask(c, "async-persist kept", &v);
	if (ex != CLI_OK)
		return ex;
	kd->dir = strdup(json_get_text(v, "dir", ""));
	json_free(&v);
	ex = kd->dir == NULL ? cli_error(c, "%s", strerror(ENOMEM)) : open_dir(c, kd);
	if (ex != CLI_OK)
		kept_dir_close(kd);
	return ex;
}

/* --- list */

static void put_row(struct json_out *o, const struct kept *k)
{
	json_open_object(o);
	json_add_text(o, "name", k->name);
	json_add_text(o, "path", k->path);
	json_add_u64(o, "size", k->size);
	json_add_bool(o, "complete", k->complete);
	json_add_text(o, "written", k->written != NULL ? k->written : "");
	json_add_text(o, "last_error", k->why != NULL ? k->why : "");
	json_close_object(o);
}

static int print_json(const struct kept *k)
{
	struct json_out *o = json_out_new();
	const char *text;
	size_t len;
	int err;

	if (o == NULL)
		return -ENOMEM;
	put_row(o, k);
	err = json_out_take(o, &text, &len);
	if (err == 0)
		printf("%.*s", (int)len, text);
	json_out_free(&o);
	return err;
}

static void print_row(const struct kept *k, bool terminal)
{
	char size[32], path[8192];

	printf(LIST_FORMAT, cli_size(k->size, size, sizeof(size)), k->complete ? "all" : "in part",
	    k->written != NULL ? k->written : "?", k->name,
	    terminal ? cli_printable(k->path, path, sizeof(path)) : k->path);
	if (k->why != NULL)
		printf("%9s  last error: %s\n", "", k->why);
}

static enum cli_exit list_all(struct cli *c, const struct kept_dir *kd)
{
	bool terminal = isatty(STDOUT_FILENO);
	enum cli_exit ex = CLI_OK;
	struct kept k;
	uint64_t rows = 0;
	int err;

	if (c->json)
		printf("{\"entries\":[");
	for (size_t i = 0; i < kd->n; i++) {
		err = kept_load(kd->fd, kd->name[i], &k);
		if (err == -ENOENT)
			continue; /* dropped meanwhile */
		if (err == 0 && c->json) {
			printf("%s\n", rows > 0 ? "," : "");
			err = print_json(&k);
		} else if (err == 0) {
			if (rows == 0)
				printf(LIST_FORMAT, "SIZE", "THERE", "WRITTEN", "NAME", "PATH");
			print_row(&k, terminal);
		}
		rows += err == 0;
		kept_free(&k);
		if (err != 0)
			ex = cli_error(c, "%s/%s" TEXT ": %s", kd->dir, kd->name[i],
			    err == -EINVAL ? "is not a text that batonfs wrote" : strerror(-err));
	}
	if (c->json)
		printf("],\"count\":%" PRIu64 ",\"complete\":%s}\n", rows,
		    ex == CLI_OK ? "true" : "false");
	return ex == CLI_OK ? cli_flush(c) : ex;
}

enum cli_exit cli_kept_list(struct cli *c)
{
	struct kept_dir kd;
	enum cli_exit ex = kept_dir_open(c, &kd);

	if (ex != CLI_OK)
		return ex;
	ex = list_all(c, &kd);
	kept_dir_close(&kd);
	return ex;
}

/* --- retry and drop */

/* By its path if the word is one.  -EEXIST: there are several. */
static int find_one(const struct kept_dir *kd, const char *word, struct kept *out)
{
	struct kept k;
	int err;

	if (word[0] != '/')
		return kept_load(kd->fd, word, out);
	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < kd->n; i++) {
		err = kept_load(kd->fd, kd->name[i], &k);
		if (err == -ENOMEM)
			return err;
		if (err != 0 || k.path == NULL || strcmp(k.path, word) != 0) {
			kept_free(&k);
			continue;
		}
		if (out->name != NULL) {
			kept_free(&k);
			return -EEXIST;
		}
		*out = k;
	}
	return out->name != NULL ? 0 : -ENOENT;
}

static enum cli_exit find(
    struct cli *c, const struct kept_dir *kd, const char *word, struct kept *out)
{
	int err = kd->fd < 0 ? -ENOENT : find_one(kd, word, out);

	if (err == 0)
		return CLI_OK;
	if (kd->fd >= 0)
		kept_free(out);
	if (err == -EEXIST)
		cli_error(c,
		    "%s: there are several of that path: give the name of the one that is meant "
		    "(`batonfs async-persist list --kept` shows them)",
		    word);
	else if (err == -ENOENT)
		cli_error(c,
		    "%s: not among the files that earlier mounts could not store "
		    "(`batonfs async-persist list --kept` shows them)",
		    word);
	else
		cli_error(c, "%s: %s", word, strerror(-err));
	return CLI_FAILURE;
}

/* The file first: a text alone says what there was. */
static int drop(const struct kept_dir *kd, const struct kept *k)
{
	char text[NAME_MAX + 1];

	(void)snprintf(text, sizeof(text), "%s" TEXT, k->name);
	if (unlinkat(kd->fd, k->name, 0) != 0 && errno != ENOENT)
		return -errno;
	if (unlinkat(kd->fd, text, 0) != 0 && errno != ENOENT)
		return -errno;
	return 0;
}

static enum cli_exit say_did(struct cli *c, const struct kept *k, const char *did)
{
	char path[8192];
	int err;

	if (!c->json) {
		printf("%s %s\n", did, cli_printable(k->path, path, sizeof(path)));
		return cli_flush(c);
	}
	err = print_json(k);
	printf("\n");
	return err == 0 ? cli_flush(c) : cli_error(c, "%s", strerror(-err));
}

static enum cli_exit act(struct cli *c, bool retry)
{
	struct json *v = NULL;
	struct kept_dir kd;
	struct kept k;
	enum cli_exit ex = kept_dir_open(c, &kd);
	int err;

	if (ex != CLI_OK)
		return ex;
	ex = find(c, &kd, c->operands[0], &k);
	if (ex != CLI_OK) {
		kept_dir_close(&kd);
		return ex;
	}
	if (retry)
		ex = kept_store(c, &kd, &k);
	err = ex == CLI_OK ? drop(&kd, &k) : 0;
	if (err != 0)
		ex = cli_error(c, "%s/%s: remove: %s", kd.dir, k.name, strerror(-err));
	if (ex == CLI_OK)
		ex = say_did(c, &k, retry ? "uploaded" : "dropped");
	/* So that `status` has the number. */
	if (ex == CLI_OK)
		ex = cli_ask(c, "async-persist kept", &v);
	json_free(&v);
	kept_free(&k);
	kept_dir_close(&kd);
	return ex;
}

enum cli_exit cli_kept_retry(struct cli *c)
{
	return act(c, true);
}

enum cli_exit cli_kept_drop(struct cli *c)
{
	return act(c, false);
}
