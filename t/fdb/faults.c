/* SPDX-License-Identifier: BSD-2-Clause */
#include "faults.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"

#define NODE_MAX 64

struct line {
	unsigned kinds; /* bits of enum wire_kind */
	struct fault fault;
	bool maybe;	/* whether done is up to chance */
	long count;	/* how often more; -1: always */
	long skip;	/* how many pass before */
	unsigned parts;	/* of 10,000 */
	pid_t pid;	/* 0: any */
	char node[NODE_MAX]; /* "": any */
	char text[64];
	struct line *next;
};

struct faults {
	int dir;
	struct stat seen;
	struct line *lines;
};

static const struct {
	const char *name;
	unsigned kinds;
} names[] = {
	{ "grv", 1u << WIRE_GRV },
	{ "get", 1u << WIRE_GET },
	{ "key", 1u << WIRE_KEY },
	{ "range", 1u << WIRE_RANGE },
	{ "read", 1u << WIRE_GET | 1u << WIRE_KEY | 1u << WIRE_RANGE },
	{ "commit", 1u << WIRE_COMMIT },
	{ "watch", 1u << WIRE_WATCH },
	{ "any", ~(1u << WIRE_HELLO | 1u << WIRE_FORGET) },
};

static void lines_free(struct faults *f)
{
	while (f->lines != NULL) {
		struct line *l = f->lines;

		f->lines = l->next;
		free(l);
	}
}

static bool parse_act(struct line *l, const char *word)
{
	if (strcmp(word, "hold") == 0) {
		l->fault.act = FAULT_HOLD;
	} else if (strcmp(word, "drop") == 0) {
		l->fault.act = FAULT_DROP;
	} else if (strncmp(word, "slow:", 5) == 0) {
		l->fault.act = FAULT_SLOW;
		l->fault.ms = (unsigned)strtoul(word + 5, NULL, 10);
	} else {
		l->fault.act = FAULT_ERROR;
		l->fault.error = atoi(word);
	}
	return l->fault.act != FAULT_ERROR || l->fault.error > 0;
}

static bool parse_option(struct line *l, const char *word)
{
	if (strcmp(word, "done") == 0)
		l->fault.done = true;
	else if (strcmp(word, "undone") == 0)
		l->fault.done = false;
	else if (strcmp(word, "maybe") == 0)
		l->maybe = true;
	else if (strncmp(word, "count=", 6) == 0)
		l->count = strtol(word + 6, NULL, 10);
	else if (strncmp(word, "skip=", 5) == 0)
		l->skip = strtol(word + 5, NULL, 10);
	else if (strncmp(word, "percent=", 8) == 0)
		l->parts = (unsigned)(strtod(word + 8, NULL) * 100 + 0.5);
	else if (strncmp(word, "pid=", 4) == 0)
		l->pid = (pid_t)strtol(word + 4, NULL, 10);
	else if (strncmp(word, "node=", 5) == 0)
		snprintf(l->node, sizeof(l->node), "%s", word + 5);
	else
		return false;
	return true;
}

static struct line *parse(char *text)
{
	struct line *l = mem_get(sizeof(*l));
	char *save = NULL, *name = strtok_r(text, " \t\n", &save);
	char *act = strtok_r(NULL, " \t\n", &save), *word;
	bool good = name != NULL && act != NULL && parse_act(l, act);

	l->count = -1;
	l->parts = 10000;
	for (size_t i = 0; good && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(name, names[i].name) == 0)
			l->kinds = names[i].kinds;
	}
	while (good && (word = strtok_r(NULL, " \t\n", &save)) != NULL)
		good = parse_option(l, word);
	if (good && l->kinds != 0) {
		snprintf(l->text, sizeof(l->text), "%s %s", name, act);
		return l;
	}
	if (name != NULL && name[0] != '#')
		fprintf(stderr, "standin_server: faults: no such line: %s %s ...\n", name,
		    act == NULL ? "" : act);
	free(l);
	return NULL;
}

struct faults *faults_new(int dir)
{
	struct faults *f = mem_get(sizeof(*f));

	f->dir = dir;
	srandom((unsigned)getpid());
	return f;
}

void faults_free(struct faults **fp)
{
	lines_free(*fp);
	free(*fp);
	*fp = NULL;
}

bool faults_changed(struct faults *f)
{
	struct stat st = { 0 };
	struct line **end = &f->lines;
	char text[512];
	FILE *in;
	int fd;

	if (fstatat(f->dir, "faults", &st, 0) != 0)
		st = (struct stat){ 0 };
	if (st.st_ino == f->seen.st_ino && st.st_size == f->seen.st_size &&
	    st.st_mtim.tv_sec == f->seen.st_mtim.tv_sec &&
	    st.st_mtim.tv_nsec == f->seen.st_mtim.tv_nsec)
		return false;
	f->seen = st;
	lines_free(f);
	fd = openat(f->dir, "faults", O_RDONLY | O_CLOEXEC);
	in = fd < 0 ? NULL : fdopen(fd, "r");
	if (in == NULL) {
		if (fd >= 0)
			close(fd);
		return true;
	}
	while (fgets(text, sizeof(text), in) != NULL) {
		*end = parse(text);
		if (*end != NULL)
			end = &(*end)->next;
	}
	fclose(in);
	return true;
}

static void note(const struct faults *f, const struct line *l, pid_t pid)
{
	char text[128];
	int n = snprintf(text, sizeof(text), "%s %d\n", l->text, (int)pid);
	int fd = openat(f->dir, "fired", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

	if (fd < 0)
		return;
	if (write(fd, text, (size_t)n) != n)
		perror("standin_server: fired");
	close(fd);
}

struct fault faults_meet(
    struct faults *f, enum wire_kind kind, pid_t pid, const char *node, bool again)
{
	struct fault met = { 0 };

	for (struct line *l = f->lines; l != NULL; l = l->next) {
		if ((l->kinds & 1u << kind) == 0 || l->count == 0 ||
		    (l->pid != 0 && l->pid != pid) ||
		    (l->node[0] != '\0' && strcmp(l->node, node) != 0))
			continue;
		if (l->fault.act == FAULT_SLOW && again)
			continue;
		if (l->skip > 0) {
			l->skip--;
			continue;
		}
		if ((unsigned)(random() % 10000) >= l->parts)
			continue;
		if (l->count > 0)
			l->count--;
		met = l->fault;
		if (l->maybe)
			met.done = random() % 2 == 0;
		if (met.act == FAULT_SLOW)
			met.ms = (unsigned)(random() % (met.ms + 1));
		if (!again)
			note(f, l, pid);
		return met;
	}
	return met;
}
