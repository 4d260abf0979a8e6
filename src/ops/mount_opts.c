/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "ops/fs.h"

#define DEFAULT_TTL 1.0
#define MAX_TTL 1e9 /* seconds: beyond any use, within every conversion */

enum opt_what {
	OPT_PASS,   /* libfuse and the kernel know it */
	OPT_IGNORE, /* accepted, without effect */
	OPT_RO,
	OPT_RW,
	OPT_KERNEL_CACHE,
	OPT_AUTO_CACHE,
	OPT_ATTR_TTL,
	OPT_ENTRY_TTL,
	OPT_NEGATIVE_TTL,
	OPT_BACKGROUND,
};

static const struct mount_opt {
	const char *name; /* with '=' at the end: takes a value */
	enum opt_what what;
} mount_opts[] = {
    {"allow_other", OPT_PASS},
    {"allow_root", OPT_PASS},
    {"dev", OPT_PASS},
    {"nodev", OPT_PASS},
    {"suid", OPT_PASS},
    {"nosuid", OPT_PASS},
    {"exec", OPT_PASS},
    {"noexec", OPT_PASS},
    {"atime", OPT_PASS},
    {"noatime", OPT_PASS},
    {"sync", OPT_PASS},
    {"async", OPT_PASS},
    {"dirsync", OPT_PASS},
    {"fsname=", OPT_PASS},
    {"context=", OPT_PASS},
    {"fscontext=", OPT_PASS},
    {"defcontext=", OPT_PASS},
    {"rootcontext=", OPT_PASS},
    {"subtype=", OPT_PASS},
    {"ro", OPT_RO},
    {"rw", OPT_RW},
    {"kernel_cache", OPT_KERNEL_CACHE},
    {"auto_cache", OPT_AUTO_CACHE},
    {"attr_timeout=", OPT_ATTR_TTL},
    {"entry_timeout=", OPT_ENTRY_TTL},
    {"negative_timeout=", OPT_NEGATIVE_TTL},
    {"max_background=", OPT_BACKGROUND},
    /* One thread serves the mount; default_permissions is always on; the rest
     * concerns mount(8) and fstab. */
    {"max_idle_threads=", OPT_IGNORE},
    {"max_threads=", OPT_IGNORE},
    {"default_permissions", OPT_IGNORE},
    {"defaults", OPT_IGNORE},
    {"auto", OPT_IGNORE},
    {"noauto", OPT_IGNORE},
    {"user", OPT_IGNORE},
    {"nouser", OPT_IGNORE},
    {"users", OPT_IGNORE},
    {"nofail", OPT_IGNORE},
    {"relatime", OPT_IGNORE},
    {"norelatime", OPT_IGNORE},
    {"strictatime", OPT_IGNORE},
    {"lazytime", OPT_IGNORE},
    {"diratime", OPT_IGNORE},
    {"nodiratime", OPT_IGNORE},
    {"_netdev", OPT_IGNORE},
};

static const struct mount_opt *find_opt(const char *word, const char **value)
{
	size_t i, n;

	for (i = 0; i < ARRAY_LEN(mount_opts); i++) {
		n = strlen(mount_opts[i].name);
		*value = word + n;
		if (mount_opts[i].name[n - 1] == '=' ? strncmp(word, mount_opts[i].name, n) == 0
						     : strcmp(word, mount_opts[i].name) == 0)
			return &mount_opts[i];
	}
	if (strncmp(word, "x-", 2) == 0 || strncmp(word, "comment=", 8) == 0) {
		static const struct mount_opt userspace = {"x-", OPT_IGNORE};

		return &userspace;
	}
	return NULL;
}

static int add_word(struct fs_mount_opts *mo, const char *word)
{
	size_t n = 0;
	char **more;

	while (mo->fuse_opts != NULL && mo->fuse_opts[n] != NULL)
		n++;
	more = realloc(mo->fuse_opts, (n + 2) * sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	mo->fuse_opts = more;
	more[n] = strdup(word);
	more[n + 1] = NULL;
	return more[n] != NULL ? 0 : -ENOMEM;
}

static int parse_seconds(const char *word, const char *value, double *out, struct errtext *et)
{
	char *end;
	double v = strtod(value, &end);

	if (end == value || *end != '\0' || !isfinite(v) || v < 0 || v > MAX_TTL)
		return errtext_set(
		    et, -EINVAL, "mount option \"%s\": not a number of seconds", word);
	*out = v;
	return 0;
}

static int parse_background(const char *word, const char *value, unsigned *out, struct errtext *et)
{
	char *end;
	unsigned long v = strtoul(value, &end, 10);

	if (end == value || *end != '\0' || *value == '-' || v < 1 || v > 65535)
		return errtext_set(
		    et, -EINVAL, "mount option \"%s\": not a number from 1 to 65535", word);
	*out = (unsigned)v;
	return 0;
}

static int apply(struct fs_mount_opts *mo, const char *word, struct errtext *et)
{
	const char *value;
	const struct mount_opt *o = find_opt(word, &value);

	if (o == NULL)
		return errtext_set(
		    et, -EINVAL, "unknown mount option \"%s\"; see batonfsd(8)", word);
	switch (o->what) {
	case OPT_PASS:
		return add_word(mo, word);
	case OPT_IGNORE:
		return 0;
	case OPT_RO:
	case OPT_RW:
		mo->ro = o->what == OPT_RO;
		return 0;
	case OPT_KERNEL_CACHE:
		mo->kernel_cache = true;
		return 0;
	case OPT_AUTO_CACHE:
		mo->auto_cache = true;
		return 0;
	case OPT_ATTR_TTL:
		return parse_seconds(word, value, &mo->attr_timeout, et);
	case OPT_ENTRY_TTL:
		return parse_seconds(word, value, &mo->entry_timeout, et);
	case OPT_NEGATIVE_TTL:
		return parse_seconds(word, value, &mo->negative_timeout, et);
	case OPT_BACKGROUND:
		return parse_background(word, value, &mo->max_background, et);
	}
	return -EINVAL;
}

/* Words are separated by commas; "\," is a comma in a value, for libfuse. */
static int apply_text(struct fs_mount_opts *mo, const char *text, struct errtext *et)
{
	char *copy = strdup(text), *p, *word;
	int err = copy != NULL ? 0 : -ENOMEM;

	for (p = word = copy; err == 0 && word != NULL; p++) {
		if (*p == '\\' && p[1] != '\0') {
			p++;
			continue;
		}
		if (*p == ',' || *p == '\0') {
			bool last = *p == '\0';

			*p = '\0';
			if (*word != '\0')
				err = apply(mo, word, et);
			word = last ? NULL : p + 1;
		}
	}
	free(copy);
	return err;
}

static bool has_prefix(const struct fs_mount_opts *mo, const char *prefix)
{
	char **w;

	for (w = mo->fuse_opts; w != NULL && *w != NULL; w++)
		if (strncmp(*w, prefix, strlen(prefix)) == 0)
			return true;
	return false;
}

int fs_mount_opts_parse(
    struct fs_mount_opts *mo, const char *const *texts, unsigned ntexts, struct errtext *et)
{
	unsigned i;
	int err = 0;

	memset(mo, 0, sizeof(*mo));
	mo->attr_timeout = mo->entry_timeout = DEFAULT_TTL;
	for (i = 0; i < ntexts && err == 0; i++)
		err = apply_text(mo, texts[i], et);
	if (err == 0 && mo->ro)
		err = add_word(mo, "ro");
	if (err == 0)
		err = add_word(mo, "default_permissions");
	if (err == 0 && !has_prefix(mo, "subtype="))
		err = add_word(mo, "subtype=batonfs");
	if (err == -ENOMEM)
		errtext_set(et, err, "mount options: out of memory");
	if (err != 0)
		fs_mount_opts_fini(mo);
	return err;
}

void fs_mount_opts_fini(struct fs_mount_opts *mo)
{
	char **w;

	for (w = mo->fuse_opts; w != NULL && *w != NULL; w++)
		free(*w);
	free(mo->fuse_opts);
	mo->fuse_opts = NULL;
}
