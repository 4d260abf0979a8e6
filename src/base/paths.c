/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/paths.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/hash.h"

/* "~" and 16 hexadecimal digits. */
#define HASH_SUFFIX 17

_Static_assert(sizeof(PATHS_RUN_ROOT "/") - 1 + PATHS_NAME_MAX +
		       sizeof("/" PATHS_TAKEOVER_NAME) <=
		   sizeof(((struct sockaddr_un *)0)->sun_path),
    "PATHS_NAME_MAX leaves no room for the socket's name");

static bool is_plain(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == ':' || c == '_' || c == '.';
}

/* The mount point without leading, trailing and repeated slashes. */
static int squeeze(const char *mountpoint, char *out, size_t len)
{
	size_t n = 0;

	if (mountpoint[0] != '/')
		return -EINVAL;
	for (const char *p = mountpoint; *p != '\0'; p++) {
		if (*p == '/' && (n == 0 || out[n - 1] == '/'))
			continue;
		if (n + 1 >= len)
			return -ENAMETOOLONG;
		out[n++] = *p;
	}
	if (n > 0 && out[n - 1] == '/')
		n--;
	out[n] = '\0';
	return 0;
}

int paths_escape(const char *mountpoint, char *buf, size_t len)
{
	char plain[PATH_MAX], esc[PATH_MAX * 4];
	size_t n = 0;
	int rc;

	rc = squeeze(mountpoint, plain, sizeof(plain));
	if (rc != 0)
		return rc;
	for (const char *p = plain; *p != '\0'; p++) {
		if (*p == '/')
			esc[n++] = '-';
		else if (is_plain((unsigned char)*p) && !(n == 0 && *p == '.'))
			esc[n++] = *p;
		else
			n += (size_t)sprintf(esc + n, "\\x%02x", (unsigned char)*p);
	}
	if (n == 0)
		esc[n++] = '-';
	esc[n] = '\0';
	if (n > PATHS_NAME_MAX) {
		uint64_t h = hash64(plain, strlen(plain), 0);

		n = PATHS_NAME_MAX;
		snprintf(esc + n - HASH_SUFFIX, HASH_SUFFIX + 1, "~%016" PRIx64, h);
	}
	if (n >= len)
		return -ENAMETOOLONG;
	memcpy(buf, esc, n + 1);
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int paths_unescape(const char *name, char *buf, size_t len)
{
	size_t n = 0;

	if (name[0] == '\0')
		return -EINVAL;
	if (len < 2)
		return -ENAMETOOLONG;
	buf[n++] = '/';
	if (strcmp(name, "-") == 0)
		name = "";
	for (const char *p = name; *p != '\0'; p++) {
		char c = *p;

		if (c == '-') {
			c = '/';
		} else if (c == '\\') {
			int hi, lo;

			if (p[1] != 'x' || (hi = hex_digit(p[2])) < 0 ||
			    (lo = hex_digit(p[3])) < 0 || (hi | lo) == 0)
				return -EINVAL;
			c = (char)(hi << 4 | lo);
			p += 3;
		} else if (!is_plain((unsigned char)c)) {
			return -EINVAL;
		}
		if (n + 1 >= len)
			return -ENAMETOOLONG;
		buf[n++] = c;
	}
	buf[n] = '\0';
	return 0;
}

static int below(const char *root, const char *mountpoint, const char *leaf, char *buf, size_t len)
{
	char name[PATHS_NAME_MAX + 1];
	int rc, n;

	rc = paths_escape(mountpoint, name, sizeof(name));
	if (rc != 0)
		return rc;
	n = snprintf(buf, len, "%s/%s%s%s", root, name, leaf[0] != '\0' ? "/" : "", leaf);
	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

int paths_run_dir(const char *mountpoint, char *buf, size_t len)
{
	return below(PATHS_RUN_ROOT, mountpoint, "", buf, len);
}

int paths_control_socket(const char *mountpoint, char *buf, size_t len)
{
	return below(PATHS_RUN_ROOT, mountpoint, PATHS_CONTROL_NAME, buf, len);
}

int paths_takeover_socket(const char *mountpoint, char *buf, size_t len)
{
	return below(PATHS_RUN_ROOT, mountpoint, PATHS_TAKEOVER_NAME, buf, len);
}

int paths_state_dir(const char *mountpoint, char *buf, size_t len)
{
	return below(PATHS_STATE_ROOT, mountpoint, "", buf, len);
}

int paths_data_dir(const char *mountpoint, char *buf, size_t len)
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	char root[PATHS_DATA_MAX];
	int n;

	if (geteuid() == 0)
		n = snprintf(root, sizeof(root), "%s", PATHS_DATA_ROOT);
	else if (state != NULL && state[0] == '/')
		n = snprintf(root, sizeof(root), "%s/batonfs", state);
	else if (home != NULL && home[0] == '/')
		n = snprintf(root, sizeof(root), "%s/.local/state/batonfs", home);
	else
		return -ENOENT;
	if (n < 0 || (size_t)n >= sizeof(root))
		return -ENAMETOOLONG;
	return below(root, mountpoint, "", buf, len);
}

/* mkdir(2) with exactly this mode.  0, -EEXIST or another negative errno. */
static int make_one(const char *dir, mode_t mode)
{
	if (mkdir(dir, mode & 0700) != 0)
		return -errno;
	return chmod(dir, mode) != 0 ? -errno : 0;
}

int paths_make_dir(const char *dir, mode_t mode)
{
	char part[PATH_MAX] = "/";
	struct stat st;
	size_t n;
	int rc;

	rc = squeeze(dir, part + 1, sizeof(part) - 1);
	if (rc != 0)
		return rc;
	n = strlen(part);
	for (size_t i = 1; i < n; i++) {
		if (part[i] != '/')
			continue;
		part[i] = '\0';
		rc = make_one(part, 0755);
		/* A directory above that exists may be read-only or not ours. */
		if (rc != 0 && rc != -EEXIST && access(part, F_OK) != 0)
			return rc;
		part[i] = '/';
	}
	rc = make_one(part, mode);
	if (rc != -EEXIST)
		return rc;
	if (lstat(part, &st) != 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	if ((st.st_uid != geteuid() && st.st_uid != 0) || (st.st_mode & 022) != 0)
		return -EPERM;
	return 0;
}

int paths_make_private(const char *dir)
{
	char *copy = strdup(dir), *p;
	int err = 0;

	if (copy == NULL)
		return -ENOMEM;
	for (p = copy + 1; err == 0; p++) {
		bool end = *p == '\0';

		if (!end && *p != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) != 0 && errno != EEXIST)
			err = -errno;
		if (end)
			break;
		*p = '/';
	}
	free(copy);
	return err;
}
