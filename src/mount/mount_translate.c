/* SPDX-License-Identifier: BSD-2-Clause */
#include "mount/mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argv.h"
#include "base/obj.h"
#include "ops/fs.h"

struct words {
	char **word; /* NULL-terminated */
	bool failed; /* out of memory */
	bool has_fsname, has_takeover;
};

static void words_take(struct words *w, char *word)
{
	if (argv_push(&w->word, word) != 0)
		w->failed = true;
}

static void words_add(struct words *w, const char *flag, const char *value)
{
	words_take(w, strdup(flag));
	words_take(w, strdup(value));
}

/* In a list of mount options a comma in a value is "\,", a backslash "\\". */
static char *list_escape(const char *s)
{
	char *out = malloc(2 * strlen(s) + 1), *o = out;

	if (out == NULL)
		return NULL;
	for (; *s != '\0'; s++) {
		if (*s == ',' || *s == '\\')
			*o++ = '\\';
		*o++ = *s;
	}
	*o = '\0';
	return out;
}

/* The next word of a list, into out, which is as long as the list.  mount(8) leaves
 * the quotes in: opt="a,b" is one word. */
static const char *list_next(const char *p, char *out)
{
	bool quoted = false;

	for (; *p != '\0' && (quoted || *p != ','); p++) {
		if (*p == '"') {
			quoted = !quoted;
			continue;
		}
		if (*p == '\\' && p[1] != '\0' && strchr(",\\\"", p[1]) != NULL)
			p++;
		*out++ = *p;
	}
	*out = '\0';
	return *p == ',' ? p + 1 : p;
}

static const char *after(const char *word, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(word, prefix, n) == 0 ? word + n : NULL;
}

/* What mount(8), fstab(5) and systemd.mount(5) have for themselves. */
static bool is_for_mount(const char *word)
{
	static const char *const names[] = {"_netdev", "auto", "defaults", "group", "noauto",
	    "nofail", "nogroup", "noowner", "nouser", "owner", "user", "users"};
	static const char *const prefixes[] = {"X-", "comment=", "helper=", "uhelper=", "user=",
	    "x-"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (strcmp(word, names[i]) == 0)
			return true;
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
		if (after(word, prefixes[i]) != NULL)
			return true;
	return false;
}

static bool is_property(const char *word)
{
	return memchr(word, '.', strcspn(word, "=")) != NULL;
}

/* A word for -o, unless it is unknown and that does not matter. */
static void add_mount_option(const struct mount_args *ma, struct words *w, const char *word)
{
	struct fs_mount_opts mo;
	struct errtext et;
	char *text = list_escape(word);
	const char *list[] = {text};

	if (text != NULL && ma->sloppy) {
		if (fs_mount_opts_parse(&mo, list, 1, &et) != 0) {
			if (ma->verbose)
				fprintf(stderr, "mount.batonfs: %s: dropped\n", et.s);
			free(text);
			return;
		}
		fs_mount_opts_fini(&mo);
	}
	if (after(word, "fsname=") != NULL)
		w->has_fsname = true;
	words_take(w, strdup("-o"));
	words_take(w, text);
}

static int add_option(const struct mount_args *ma, struct words *w, const char *word,
    struct errtext *et)
{
	const char *value;

	if (word[0] == '\0' || is_for_mount(word))
		return 0;
	if (strcmp(word, "remount") == 0)
		return errtext_set(et, -EINVAL,
		    "%s: a mount cannot be remounted with other options: `batonfs -m %s conf set` "
		    "changes live properties, `batonfs -m %s upgrade -- FLAGS` the others",
		    ma->target, ma->target, ma->target);
	value = after(word, "config=");
	if (value == NULL)
		value = after(word, "conf=");
	if (value != NULL) {
		words_add(w, "-c", value);
		return 0;
	}
	if (after(word, "takeover=") != NULL) {
		char *flag;

		w->has_takeover = true;
		words_take(w, asprintf(&flag, "--%s", word) < 0 ? NULL : flag);
		return 0;
	}
	if (is_property(word))
		words_add(w, "-s", word);
	else
		add_mount_option(ma, w, word);
	return 0;
}

static int add_list(const struct mount_args *ma, struct words *w, const char *list,
    struct errtext *et)
{
	char *word = malloc(strlen(list) + 1);
	int err = 0;

	if (word == NULL) {
		w->failed = true;
		return 0;
	}
	while (err == 0 && *list != '\0') {
		list = list_next(list, word);
		err = add_option(ma, w, word, et);
	}
	free(word);
	return err;
}

static int check_source(const struct mount_args *ma, struct errtext *et)
{
	if (ma->source[0] == '/')
		return errtext_set(et, -EINVAL, "%s: for a directory write file://%s", ma->source,
		    ma->source);
	if (strstr(ma->source, "://") == NULL)
		return errtext_set(et, -EINVAL,
		    "%s: is no storage: must be such as s3://bucket/prefix or file:///srv/data",
		    ma->source);
	return 0;
}

static void add_source(const struct mount_args *ma, struct words *w)
{
	char *source = list_escape(ma->source), *text = NULL;

	if (source != NULL && asprintf(&text, "fsname=%s", source) < 0)
		text = NULL;
	free(source);
	words_take(w, strdup("-o"));
	words_take(w, text);
}

char **mount_translate(const struct mount_args *ma, const char *batonfsd, int *err,
    struct errtext *et)
{
	struct words w = {NULL};
	char *text;

	words_take(&w, strdup(batonfsd));
	*err = check_source(ma, et);
	for (unsigned i = 0; i < ma->noptions && *err == 0; i++)
		*err = add_list(ma, &w, ma->options[i], et);
	/* mount(8) -a finds by it that this line of fstab is mounted already. */
	if (!w.has_fsname)
		add_source(ma, &w);
	/* Who asks for a mount does not mean to replace the daemon of one. */
	if (!w.has_takeover)
		words_take(&w, strdup("--takeover=never"));
	if (ma->fake)
		words_take(&w, strdup("--check"));
	words_take(&w, strdup("-u"));
	words_take(&w, asprintf(&text, "/=%s", ma->source) < 0 ? NULL : text);
	words_add(&w, "--", ma->target);
	if (*err == 0 && w.failed)
		*err = errtext_set(et, -ENOMEM, "%s", strerror(ENOMEM));
	if (*err != 0)
		argv_free(&w.word);
	return w.word;
}
