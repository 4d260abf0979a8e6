/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"

/* Version 1 has no word for "no limit", but a number just below 2^63. */
#define CGROUP_V1_UNLIMITED (UINT64_C(1) << 62)

static uint64_t read_limit(const char *path)
{
	char line[64];
	uint64_t v;
	FILE *f = fopen(path, "re");

	if (f == NULL)
		return CGROUP_UNLIMITED;
	if (fgets(line, sizeof(line), f) == NULL)
		line[0] = '\0';
	fclose(f);
	line[strcspn(line, "\n")] = '\0';
	/* "max" is version 2's word for none, and no number. */
	if (units_parse_u64(line, &v) != 0 || v >= CGROUP_V1_UNLIMITED)
		return CGROUP_UNLIMITED;
	return v;
}

/*
 * From the cgroup at path up to the mount's top.  In a container without a cgroup
 * namespace path is the host's, which is not there, and the container's own limit
 * lies at the top: what cannot be read is passed over.
 */
static uint64_t walk_up(const char *root, const char *mount, const char *cgroup, const char *file)
{
	uint64_t least = CGROUP_UNLIMITED;
	char dir[PATH_MAX], path[2 * PATH_MAX];
	char *slash;

	if (snprintf(dir, sizeof(dir), "%s", cgroup) >= (int)sizeof(dir))
		return CGROUP_UNLIMITED;
	for (;;) {
		uint64_t v;

		if (snprintf(path, sizeof(path), "%s/sys/fs/cgroup%s%s/%s", root, mount, dir,
			file) < (int)sizeof(path)) {
			v = read_limit(path);
			least = MIN(least, v);
		}
		slash = strrchr(dir, '/');
		if (slash == NULL)
			return least;
		*slash = '\0';
	}
}

/* Whether "memory" is one of the comma-separated words. */
static bool has_memory(const char *controllers)
{
	const char *p = controllers;

	for (;;) {
		size_t n = strcspn(p, ",");

		if (n == strlen("memory") && strncmp(p, "memory", n) == 0)
			return true;
		if (p[n] == '\0')
			return false;
		p += n + 1;
	}
}

uint64_t cgroup_memory_limit(const char *root)
{
	uint64_t least = CGROUP_UNLIMITED, v;
	char path[PATH_MAX];
	char *line = NULL;
	size_t cap = 0;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s/proc/self/cgroup", root) >= (int)sizeof(path))
		return CGROUP_UNLIMITED;
	f = fopen(path, "re");
	if (f == NULL)
		return CGROUP_UNLIMITED;
	while (getline(&line, &cap, f) > 0) {
		/* hierarchy:controllers:path; version 2 has no controllers */
		char *controllers = strchr(line, ':');
		char *cgroup = controllers != NULL ? strchr(controllers + 1, ':') : NULL;

		if (cgroup == NULL)
			continue;
		*controllers++ = '\0';
		*cgroup++ = '\0';
		cgroup[strcspn(cgroup, "\n")] = '\0';
		if (*controllers == '\0') {
			v = walk_up(root, "", cgroup, "memory.max");
			least = MIN(least, v);
			v = walk_up(root, "/unified", cgroup, "memory.max");
		} else if (has_memory(controllers)) {
			v = walk_up(root, "/memory", cgroup, "memory.limit_in_bytes");
		} else {
			continue;
		}
		least = MIN(least, v);
	}
	free(line);
	fclose(f);
	return least;
}
