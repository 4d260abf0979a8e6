/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/errtext.h"
#include "base/units.h"

/* The kernel's largest errno; more would not be one. */
#define FAULT_ERRNO_MAX 4095
#define FAULT_LOOK_NS (5 * NS_PER_MS)
#define FAULT_GRAMMAR "point=kill|stop|exit|errno:N|sleep:DURATION|until:PATH[@COUNT]"

enum fault_action { FAULT_KILL, FAULT_STOP, FAULT_EXIT, FAULT_ERRNO, FAULT_SLEEP, FAULT_UNTIL };

struct fault_rule {
	struct fault_rule *next;
	enum fault_action action;
	uint64_t arg; /* errno, or nanoseconds */
	uint64_t at;  /* the visit that counts; 0: every one */
	_Atomic uint64_t visits;
	char *path; /* of FAULT_UNTIL, else NULL */
	char point[];
};

bool fault_armed;
static struct fault_rule *fault_rules;

static void free_rules(struct fault_rule *r)
{
	while (r != NULL) {
		struct fault_rule *next = r->next;

		free(r->path);
		free(r);
		r = next;
	}
}

static int parse_action(const char *text, struct fault_rule *r)
{
	if (strcmp(text, "kill") == 0) {
		r->action = FAULT_KILL;
	} else if (strcmp(text, "stop") == 0) {
		r->action = FAULT_STOP;
	} else if (strcmp(text, "exit") == 0) {
		r->action = FAULT_EXIT;
	} else if (strncmp(text, "errno:", 6) == 0) {
		r->action = FAULT_ERRNO;
		if (units_parse_u64(text + 6, &r->arg) != 0 || r->arg == 0 ||
		    r->arg > FAULT_ERRNO_MAX)
			return -EINVAL;
	} else if (strncmp(text, "sleep:", 6) == 0) {
		r->action = FAULT_SLEEP;
		return units_parse_duration(text + 6, &r->arg);
	} else if (strncmp(text, "until:/", 7) == 0) {
		r->action = FAULT_UNTIL;
		r->path = strdup(text + 6);
		return r->path != NULL ? 0 : -ENOMEM;
	} else {
		return -EINVAL;
	}
	return 0;
}

/* Splits text in place. */
static int parse_rule(char *text, struct fault_rule **out)
{
	char *eq = strchr(text, '='), *at;
	struct fault_rule *r;
	size_t len;
	int err;

	if (eq == NULL || eq == text)
		return -EINVAL;
	len = (size_t)(eq - text);
	r = calloc(1, sizeof(*r) + len + 1);
	if (r == NULL)
		return -ENOMEM;
	memcpy(r->point, text, len);
	at = strchr(eq, '@');
	if (at != NULL) {
		*at = '\0';
		if (units_parse_u64(at + 1, &r->at) != 0 || r->at == 0) {
			free(r);
			return -EINVAL;
		}
	}
	err = parse_action(eq + 1, r);
	if (err != 0) {
		free(r);
		return err;
	}
	*out = r;
	return 0;
}

int fault_init(const char *spec, struct errtext *et)
{
	struct fault_rule *rules = NULL, **tail = &rules;
	const char *p = spec != NULL ? spec : "", *end;
	char one[256];
	int err = 0;

	for (; *p != '\0' && err == 0; p = *end == ',' ? end + 1 : end) {
		int len;

		end = strchrnul(p, ',');
		len = (int)(end - p);
		if ((size_t)len < sizeof(one) && (*end == '\0' || end[1] != '\0')) {
			memcpy(one, p, (size_t)len);
			one[len] = '\0';
			err = parse_rule(one, tail);
		} else {
			err = -EINVAL;
		}
		if (err == -ENOMEM)
			errtext_set(et, err, "BATONFS_FAULT: %s", strerror(ENOMEM));
		else if (err != 0)
			errtext_set(et, err,
			    "BATONFS_FAULT: \"%.*s\" is not of the form " FAULT_GRAMMAR, len, p);
		else
			tail = &(*tail)->next;
	}
	if (err != 0) {
		free_rules(rules);
		return err;
	}
	free_rules(fault_rules);
	fault_rules = rules;
	fault_armed = rules != NULL;
	return 0;
}

static void wait_ns(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* PATH.here says that somebody waits. */
static void wait_for(const char *path)
{
	char here[PATH_MAX];
	int fd;

	snprintf(here, sizeof(here), "%s.here", path);
	fd = open(here, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	while (access(path, F_OK) != 0)
		wait_ns(FAULT_LOOK_NS);
}

static int act(const struct fault_rule *r)
{
	switch (r->action) {
	case FAULT_KILL:
		kill(getpid(), SIGKILL);
		/* The first process of a pid namespace cannot kill itself. */
		_exit(128 + SIGKILL);
	case FAULT_STOP:
		kill(getpid(), SIGSTOP);
		return 0;
	case FAULT_EXIT:
		_exit(1);
	case FAULT_ERRNO:
		return -(int)r->arg;
	case FAULT_SLEEP:
		wait_ns(r->arg);
		return 0;
	case FAULT_UNTIL:
		wait_for(r->path);
		return 0;
	}
	return 0;
}

/* Every rule of the point counts the visit; the first that is due acts. */
int fault_hit(const char *point)
{
	const struct fault_rule *due = NULL;

	for (struct fault_rule *r = fault_rules; r != NULL; r = r->next) {
		uint64_t visit;

		if (strcmp(r->point, point) != 0)
			continue;
		visit = atomic_fetch_add(&r->visits, 1) + 1;
		if (due == NULL && (r->at == 0 || r->at == visit))
			due = r;
	}
	return due != NULL ? act(due) : 0;
}
