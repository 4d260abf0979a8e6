/* SPDX-License-Identifier: BSD-2-Clause */
/* The configuration file, and the rules that concern more than one value's range. */
#include "base/options.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "base/obj.h"
#include "base/units.h"

#define MEMORY_LIMIT_MIN (16 * MIB)
#define MEMORY_LIMIT_AUTO (256 * MIB)
/* With fewer the store would evict what it is just filling. */
#define PAGE_STORE_MIN_PAGES 16

/* --- the file -------------------------------------------------------------- */

/* Cuts the comment off: a # at the line's start or after a blank. */
static void cut_comment(char *line)
{
	for (char *p = line; (p = strchr(p, '#')) != NULL; p++) {
		if (p == line || p[-1] == ' ' || p[-1] == '\t') {
			*p = '\0';
			return;
		}
	}
}

static int load_line(struct config *cfg, char *line, size_t len, struct errtext *et)
{
	if (strlen(line) != len)
		return errtext_set(et, -EINVAL, "there is a NUL byte in the line");
	cut_comment(line);
	if (line[strspn(line, " \t\r\n\v\f")] == '\0')
		return 0;
	for (len = strlen(line); strchr(" \t\r\n\v\f", line[len - 1]) != NULL; len--)
		line[len - 1] = '\0';
	return config_set_pair(cfg, line, et);
}

int config_load(struct config *cfg, const char *path, struct errtext *et)
{
	char *line = NULL;
	size_t cap = 0;
	unsigned lineno = 0;
	int err = 0;
	ssize_t n;
	FILE *f = fopen(path, "re");

	if (f == NULL)
		return errtext_set(et, -errno, "%s: %s", path, strerror(errno));
	while (err == 0) {
		errno = 0;
		n = getline(&line, &cap, f);
		if (n < 0)
			break;
		lineno++;
		err = load_line(cfg, line, (size_t)n, et);
		if (err != 0)
			errtext_prefix(et, err, "%s:%u", path, lineno);
	}
	/* getline says -1 at the end, on a read error and when memory is short. */
	if (err == 0 && !feof(f)) {
		err = errno != 0 ? -errno : -EIO;
		errtext_set(et, err, "%s: %s", path, strerror(-err));
	}
	free(line);
	fclose(f);
	/* -ENOENT means that there is no file, never that a name in it is unknown. */
	return err == -ENOENT ? -EINVAL : err;
}

/* --- forms of single values ------------------------------------------------ */

int config_parse_restart_limit(const char *text, unsigned *n, uint64_t *ns)
{
	char number[24], period[24], rest;
	uint64_t count, within;
	int err;

	if (sscanf(text, "%23s in %23s %c", number, period, &rest) != 2)
		return -EINVAL;
	err = units_parse_u64(number, &count);
	if (err == 0)
		err = units_parse_duration(period, &within);
	if (err != 0)
		return err;
	if (count > CONFIG_RESTART_LIMIT_MAX || within == 0)
		return -ERANGE;
	*n = (unsigned)count;
	*ns = within;
	return 0;
}

int config_parse_mode(const char *text, mode_t *mode)
{
	mode_t v = 0;

	if (*text == '\0')
		return -EINVAL;
	for (const char *p = text; *p != '\0'; p++) {
		if (*p < '0' || *p > '7')
			return -EINVAL;
		v = v * 8 + (mode_t)(*p - '0');
		if (v > 07777)
			return -ERANGE;
	}
	*mode = v;
	return 0;
}

/* A number as an id; the largest is the system calls' "no change". */
static int parse_id(const char *text, uint32_t *id)
{
	uint64_t v;
	int err = units_parse_u64(text, &v);

	if (err == 0 && v >= UINT32_MAX)
		err = -ERANGE;
	if (err == 0)
		*id = (uint32_t)v;
	return err;
}

/* The user database's answer may be of any size (a group has its members in it). */
static int lookup_name(const char *name, bool group, uint32_t *id)
{
	size_t len = 4096;
	int err = ERANGE;

	while (err == ERANGE && len <= 16 * MIB) {
		struct passwd pw, *pwp = NULL;
		struct group gr, *grp = NULL;
		char *buf = malloc(len);

		if (buf == NULL)
			return -ENOMEM;
		err = group ? getgrnam_r(name, &gr, buf, len, &grp)
			    : getpwnam_r(name, &pw, buf, len, &pwp);
		if (err == 0 && (grp != NULL || pwp != NULL))
			*id = group ? gr.gr_gid : pw.pw_uid;
		else if (err == 0)
			err = ENOENT;
		free(buf);
		len *= 4;
	}
	return -err;
}

int config_parse_uid(const char *text, uid_t *uid)
{
	int err;

	if (*text == '\0') {
		*uid = geteuid();
		return 0;
	}
	err = parse_id(text, uid);
	return err == -EINVAL ? lookup_name(text, false, uid) : err;
}

int config_parse_gid(const char *text, gid_t *gid)
{
	int err;

	if (*text == '\0') {
		*gid = getegid();
		return 0;
	}
	err = parse_id(text, gid);
	return err == -EINVAL ? lookup_name(text, true, gid) : err;
}

uint64_t config_memory_limit(const struct config *cfg)
{
	uint64_t derived;

	if (cfg->memory_limit != 0)
		return cfg->memory_limit;
	derived = MIN(MEMORY_LIMIT_AUTO, cgroup_memory_limit("") / 2);
	return MAX(derived, MEMORY_LIMIT_MIN);
}

/* --- rules ----------------------------------------------------------------- */

static int check_sizes(const struct config *cfg, struct errtext *et)
{
	char a[32], b[32];

	if ((cfg->page_size & (cfg->page_size - 1)) != 0)
		return errtext_set(et, -EINVAL,
		    "worker.page.store.page.size: %s is not a power of two, such as 512KiB or 1MiB",
		    units_format_size(cfg->page_size, a, sizeof(a)));
	if (cfg->page_store_size / cfg->page_size < PAGE_STORE_MIN_PAGES)
		return errtext_set(et, -EINVAL,
		    "worker.page.store.size: %s is less than %d pages of %s "
		    "(worker.page.store.page.size)",
		    units_format_size(cfg->page_store_size, a, sizeof(a)), PAGE_STORE_MIN_PAGES,
		    units_format_size(cfg->page_size, b, sizeof(b)));
	if (cfg->memory_limit != 0 && cfg->memory_limit < MEMORY_LIMIT_MIN)
		return errtext_set(et, -EINVAL,
		    "memory.limit: %s is less than 16MiB; 0 derives it from the cgroup's limit",
		    units_format_size(cfg->memory_limit, a, sizeof(a)));
	if (cfg->ufs_retry_base > cfg->ufs_retry_max)
		return errtext_set(et, -EINVAL,
		    "ufs.retry.base.interval: %s is longer than ufs.retry.max.interval, %s",
		    units_format_duration(cfg->ufs_retry_base, a, sizeof(a)),
		    units_format_duration(cfg->ufs_retry_max, b, sizeof(b)));
	return 0;
}

/* In the background the daemon's working directory is not the caller's. */
static int check_paths(const struct config *cfg, struct errtext *et)
{
	const struct {
		const char *name, *path;
	} rows[] = {
	    {"worker.page.store.dir", cfg->page_store_dir},
	    {"state.dir", cfg->state_dir},
	    {"control.socket", cfg->control_socket},
	    {"s3.ca.file", cfg->s3_ca_file},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (rows[i].path[0] != '\0' && rows[i].path[0] != '/')
			return errtext_set(et, -EINVAL,
			    "%s: \"%s\" is not an absolute path (one that starts with /)",
			    rows[i].name, rows[i].path);
	}
	return 0;
}

static int check_modes(const struct config *cfg, struct errtext *et)
{
	const struct {
		const char *name, *text;
	} rows[] = {
	    {"dir.mode", cfg->dir_mode},
	    {"file.mode", cfg->file_mode},
	};
	mode_t mode;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (config_parse_mode(rows[i].text, &mode) != 0)
			return errtext_set(et, -EINVAL,
			    "%s: \"%s\" is not an octal mode between 0 and 7777, such as 0755",
			    rows[i].name, rows[i].text);
	}
	return 0;
}

static int check_owners(const struct config *cfg, struct errtext *et)
{
	uid_t uid;
	gid_t gid;
	int err = config_parse_uid(cfg->default_uid, &uid);

	if (err != 0)
		return errtext_set(et, -EINVAL,
		    "uid: \"%s\" is not the number or name of a user: %s", cfg->default_uid,
		    strerror(-err));
	err = config_parse_gid(cfg->default_gid, &gid);
	if (err != 0)
		return errtext_set(et, -EINVAL,
		    "gid: \"%s\" is not the number or name of a group: %s", cfg->default_gid,
		    strerror(-err));
	return 0;
}

int config_validate(const struct config *cfg, struct errtext *et)
{
	unsigned n;
	uint64_t ns;
	int err = check_sizes(cfg, et);

	if (err == 0)
		err = check_paths(cfg, et);
	if (err == 0)
		err = check_modes(cfg, et);
	if (err == 0)
		err = check_owners(cfg, et);
	if (err == 0 && config_parse_restart_limit(cfg->keeper_restart_limit, &n, &ns) != 0)
		err = errtext_set(et, -EINVAL,
		    "keeper.restart.limit: \"%s\" is not of the form \"N in DURATION\", such as "
		    "\"5 in 1min\", with N at most %u",
		    cfg->keeper_restart_limit, CONFIG_RESTART_LIMIT_MAX);
	return err;
}
