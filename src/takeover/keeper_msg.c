/* SPDX-License-Identifier: BSD-2-Clause */
#include "takeover/keeper_msg.h"

#include <limits.h>
#include <string.h>

#include "base/units.h"

static void msg_field(struct keeper_msg *m, const char *name, const char *value)
{
	uint64_t n;

	if (strcmp(name, "READY") == 0)
		m->ready = strcmp(value, "1") == 0;
	else if (strcmp(name, "STOPPING") == 0)
		m->stopping = strcmp(value, "1") == 0;
	else if (strcmp(name, "WATCHDOG") == 0)
		m->watchdog = strcmp(value, "1") == 0;
	else if (strcmp(name, "FDSTORE") == 0)
		m->fdstore = strcmp(value, "1") == 0;
	else if (strcmp(name, "FDSTOREREMOVE") == 0)
		m->fdremove = strcmp(value, "1") == 0;
	else if (strcmp(name, "FDNAME") == 0)
		m->fdname = value;
	else if (strcmp(name, "STATUS") == 0)
		m->status = value;
	else if (strcmp(name, "X_BATONFS_HANDED_OVER") == 0)
		m->handed_over = strcmp(value, "1") == 0;
	else if (strcmp(name, "X_BATONFS_WAITER") == 0)
		m->waiter = strcmp(value, "1") == 0;
	else if (strcmp(name, "X_BATONFS_ARGV") == 0)
		m->argv = value;
	else if (strcmp(name, "X_BATONFS_RESTART_LIMIT") == 0)
		m->limit = value;
	else if (strcmp(name, "MAINPID") == 0 && units_parse_u64(value, &n) == 0 && n > 1 &&
		 n <= INT_MAX)
		m->mainpid = (pid_t)n;
}

void keeper_msg_parse(struct keeper_msg *m, char *text)
{
	char *line, *eq, *rest = text;

	memset(m, 0, sizeof(*m));
	while ((line = strsep(&rest, "\n")) != NULL) {
		eq = strchr(line, '=');
		if (eq == NULL)
			continue;
		*eq = '\0';
		msg_field(m, line, eq + 1);
	}
}
