/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configuration: typed values of the properties in options.def.
 *
 * struct config has one member a row (cfg->ufs_timeout is a uint64_t of
 * nanoseconds, cfg->page_store_dir a string that is never NULL).  Modules take
 * a `const struct config *` and read LIVE members where they use them, never a
 * copy.  One thread (the loop's); pool jobs get values, not the struct.
 */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/errtext.h"

enum option_type { OPT_SIZE, OPT_DURATION, OPT_U64, OPT_RATIO, OPT_BOOL, OPT_STRING, OPT_CHOICE };
enum option_when { OPT_START, OPT_LIVE };

typedef uint64_t opt_ctype_SIZE;
typedef uint64_t opt_ctype_DURATION; /* nanoseconds */
typedef uint64_t opt_ctype_U64;
typedef double opt_ctype_RATIO;
typedef bool opt_ctype_BOOL;
typedef char *opt_ctype_STRING; /* owned by the config; never NULL */
typedef char *opt_ctype_CHOICE; /* likewise */

struct config {
	uint32_t magic;
#define OPT(id, name, type, def, min, max, when, doc) opt_ctype_##type id;
#include "base/options.def"
#undef OPT
};

struct option_desc {
	const char *name;
	enum option_type type;
	const char *def, *min, *max;
	enum option_when when;
	const char *doc;
	size_t offset; /* of the member in struct config */
};

/* A buffer of this size holds any value as text; longer values are refused. */
#define OPTION_TEXT_MAX 4096

extern const struct option_desc option_table[];
extern const size_t option_count;

/* All defaults, or NULL (out of memory). */
struct config *config_new(void);
void config_free(struct config **cfg);

/* The row of a property, also by its alluxio.-prefixed alias; NULL if unknown. */
const struct option_desc *option_find(const char *name);
/* The known name nearest to a mistyped one; NULL if none is like it. */
const char *option_nearest(const char *name);

/* Sets one property from text: 0, -ENOENT (unknown; et names the nearest),
 * -EINVAL or -ERANGE (et gives the range), -ENOMEM.  Changes nothing on error. */
int config_set(struct config *cfg, const char *name, const char *value, struct errtext *et);
/* The same for "name=value". */
int config_set_pair(struct config *cfg, const char *pair, struct errtext *et);
/* As config_set, but -EPERM with words for a row that is not LIVE. */
int config_set_live(struct config *cfg, const char *name, const char *value, struct errtext *et);
/* Reads "name = value" lines; a # at the start of a line or after a blank begins a
 * comment.  Errors name file and line; what stood before the bad line is then set
 * already, so load into a fresh config.  -ENOENT if the file is not there. */
int config_load(struct config *cfg, const char *path, struct errtext *et);
/* The value as text in the configuration's syntax: returns buf, or NULL if unknown. */
char *config_get(const struct config *cfg, const char *name, char *buf, size_t len);
/* Rules that concern more than one row (page size a power of two, …). */
int config_validate(const struct config *cfg, struct errtext *et);
/* "N in DURATION", keeper.restart.limit's form, N at most CONFIG_RESTART_LIMIT_MAX:
 * 0, -EINVAL or -ERANGE. */
#define CONFIG_RESTART_LIMIT_MAX 1000u
int config_parse_restart_limit(const char *text, unsigned *n, uint64_t *ns);
/* An octal mode of permission bits, such as 0755: 0, -EINVAL or -ERANGE. */
int config_parse_mode(const char *text, mode_t *mode);
/* A number or a name; "" is the caller's own.  0, -ENOENT (no such name), -EINVAL or
 * -ERANGE.  Asks the user database, which can block: for start-up. */
int config_parse_uid(const char *text, uid_t *uid);
int config_parse_gid(const char *text, gid_t *gid);
/* memory.limit, or if that is 0 what follows from the cgroup's limit. */
uint64_t config_memory_limit(const struct config *cfg);
/* "<type>, <range>" of a row, for messages and documents; returns buf. */
char *option_range_text(const struct option_desc *od, char *buf, size_t len);

#endif
