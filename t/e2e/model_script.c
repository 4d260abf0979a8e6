/* SPDX-License-Identifier: BSD-2-Clause */
#include "model.h"

#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

const struct model_row model_rows[OPS] = {
#define OP(name, weight, fields, bits) { #name, weight, fields, bits },
	MODEL_OPS
#undef OP
};

static const struct {
	const char *name;
	int flag, mask;
} open_flags[] = {
	{ "rdonly", O_RDONLY, O_ACCMODE }, { "wronly", O_WRONLY, O_ACCMODE },
	{ "rdwr", O_RDWR, O_ACCMODE }, { "creat", O_CREAT, O_CREAT }, { "excl", O_EXCL, O_EXCL },
	{ "trunc", O_TRUNC, O_TRUNC }, { "append", O_APPEND, O_APPEND },
	{ "directory", O_DIRECTORY, O_DIRECTORY },
};
#define N_FLAGS (sizeof(open_flags) / sizeof(open_flags[0]))

/* --- making */

static uint64_t rng;

static uint64_t rnd(uint64_t below)
{
	uint64_t x;

	rng += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
	x = rng;
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return (x ^ (x >> 31)) % below;
}

/* Few names, so that calls meet; files and directories seldom want the same one. */
static void make_path(char *path, bool dir)
{
	unsigned depth = (unsigned)rnd(8);
	char *p = path;

	if (rnd(20) == 0)
		dir = !dir;
	for (depth = depth < 3 ? 0 : depth < 6 ? 1 : 2; depth > 0; depth--)
		p += sprintf(p, "d%u/", (unsigned)rnd(3));
	(void)sprintf(p, "%c%u", dir ? 'd' : 'f', (unsigned)rnd(dir ? 3 : 5));
}

bool model_large;

/* Mostly small; now and then what takes several pages, blocks or parts. */
static uint64_t make_size(void)
{
	if (model_large && rnd(4) == 0)
		return rnd(14 << 20);
	switch (rnd(20)) {
	case 0:
		return rnd(9) * 4096;
	case 1:
		return rnd(2 << 20);
	case 2:
		return rnd(8) == 0 ? rnd(12 << 20) : rnd(1 << 20);
	case 3:
	case 4:
	case 5:
		return rnd(200000);
	default:
		return rnd(20000);
	}
}

static int make_flags(void)
{
	static const int access[] = { O_RDONLY, O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	int flags = access[rnd(5)];

	if (rnd(10) < 6)
		flags |= O_CREAT;
	if (rnd(12) == 0)
		flags |= O_EXCL | O_CREAT;
	if (flags != O_RDONLY && (flags & O_ACCMODE) != O_RDONLY && rnd(5) == 0)
		flags |= O_TRUNC;
	if ((flags & O_ACCMODE) != O_RDONLY && rnd(4) == 0)
		flags |= O_APPEND;
	if (rnd(40) == 0)
		flags = O_RDONLY | O_DIRECTORY;
	return flags;
}

static bool wants_dir(enum model_op op)
{
	return op == OP_mkdir || op == OP_rmdir || op == OP_readdir;
}

static enum model_op make_op(void)
{
	unsigned sum = 0, i;
	uint64_t at;

	for (i = 0; i < OPS; i++)
		sum += model_rows[i].weight;
	at = rnd(sum);
	for (i = 0; at >= model_rows[i].weight; i++)
		at -= model_rows[i].weight;
	return (enum model_op)i;
}

/* Which descriptors are likely open, so that few steps have nothing to work on. */
static bool likely[MODEL_PROCS][MODEL_SLOTS];

static unsigned make_slot(const struct model_step *st)
{
	unsigned slot = (unsigned)rnd(MODEL_SLOTS);

	for (unsigned tries = 0; tries < 4 && (model_rows[st->op].bits & B_FD) &&
				 !likely[st->proc][slot];
	     tries++)
		slot = (unsigned)rnd(MODEL_SLOTS);
	return slot;
}

static void guess(const struct model_step *st)
{
	if (st->op == OP_open && (st->flags & (O_CREAT | O_EXCL)) == O_CREAT)
		likely[st->proc][st->slot] = true;
	if (st->op == OP_dup && likely[st->proc][st->slot])
		likely[st->proc][st->slot2] = true;
	if (st->op == OP_close)
		likely[st->proc][st->slot] = false;
	if (st->op == OP_exit)
		memset(likely[st->proc], 0, sizeof(likely[st->proc]));
}

static void make_step(struct model_step *st, unsigned procs)
{
	static const unsigned modes[] = { 0644, 0600, 0755, 0666, 0400, 0777, 0640 };
	bool dir;

	memset(st, 0, sizeof(*st));
	st->op = make_op();
	st->proc = (unsigned)rnd(procs);
	st->slot = make_slot(st);
	st->slot2 = (unsigned)rnd(MODEL_SLOTS);
	dir = wants_dir(st->op) ||
	      (rnd(5) == 0 && (model_rows[st->op].fields & F_A) && st->op != OP_open);
	make_path(st->a, dir);
	make_path(st->b, dir);
	st->off = make_size();
	st->len = rnd(30) == 0 ? 0 : make_size();
	if (!model_large && (model_rows[st->op].bits & B_DATA) && st->len > (1 << 20) &&
	    rnd(4) != 0)
		st->len >>= 4;
	st->flags = make_flags();
	st->mode = modes[rnd(sizeof(modes) / sizeof(modes[0]))];
	st->seed = rnd(1000000000);
	guess(st);
}

void model_generate(struct model_script *sc, uint64_t seed, size_t n, unsigned procs, size_t hook)
{
	size_t most = n + n / 100 + (hook > 0 ? n / hook : 0) + 2;

	rng = seed;
	sc->v = calloc(most, sizeof(*sc->v));
	if (sc->v == NULL)
		err(2, "memory");
	sc->n = 0;
	for (size_t i = 1; i <= n; i++) {
		make_step(&sc->v[sc->n++], procs);
		if (hook > 0 && i % hook == 0)
			sc->v[sc->n++].op = OP_hook;
		if (i % 100 == 0 || i == n)
			sc->v[sc->n++].op = OP_check;
	}
}

/* --- as text */

static void print_flags(FILE *to, int flags)
{
	const char *bar = "";

	(void)fputs(" flags=", to);
	for (size_t i = 0; i < N_FLAGS; i++) {
		if ((flags & open_flags[i].mask) != open_flags[i].flag)
			continue;
		(void)fprintf(to, "%s%s", bar, open_flags[i].name);
		bar = "|";
	}
}

void model_print(FILE *to, const struct model_step *st)
{
	unsigned fields = model_rows[st->op].fields;

	(void)fputs(model_rows[st->op].name, to);
	if (fields & F_PROC)
		(void)fprintf(to, " proc=%u", st->proc);
	if (fields & F_SLOT)
		(void)fprintf(to, " fd=%u", st->slot);
	if (fields & F_SLOT2)
		(void)fprintf(to, " fd2=%u", st->slot2);
	if (fields & F_A)
		(void)fprintf(to, " a=%s", st->a);
	if (fields & F_B)
		(void)fprintf(to, " b=%s", st->b);
	if (fields & F_OFF)
		(void)fprintf(to, " off=%llu", (unsigned long long)st->off);
	if (fields & F_LEN)
		(void)fprintf(to, " len=%llu", (unsigned long long)st->len);
	if (fields & F_FLAGS)
		print_flags(to, st->flags);
	if (fields & F_MODE)
		(void)fprintf(to, " mode=%o", st->mode);
	if (fields & F_SEED)
		(void)fprintf(to, " seed=%llu", (unsigned long long)st->seed);
	(void)fputc('\n', to);
}

static int parse_flags(char *text)
{
	int flags = 0;

	for (char *save, *w = strtok_r(text, "|", &save); w != NULL; w = strtok_r(NULL, "|", &save)) {
		size_t i = 0;

		while (i < N_FLAGS && strcmp(open_flags[i].name, w) != 0)
			i++;
		if (i == N_FLAGS)
			errx(2, "no such flag: %s", w);
		flags |= open_flags[i].flag;
	}
	return flags;
}

static unsigned number(const char *text, unsigned below)
{
	unsigned long n = strtoul(text, NULL, 10);

	if (n >= below)
		errx(2, "%s is too much", text);
	return (unsigned)n;
}

static void path_copy(char *to, const char *text)
{
	if (strlen(text) >= MODEL_PATH || text[0] == '/' || strstr(text, "..") != NULL)
		errx(2, "no path of a script: %s", text);
	memcpy(to, text, strlen(text) + 1);
}

static void parse_word(struct model_step *st, char *word)
{
	char *val = strchr(word, '=');

	if (val == NULL)
		errx(2, "no NAME=VALUE: %s", word);
	*val++ = '\0';
	if (strcmp(word, "proc") == 0)
		st->proc = number(val, MODEL_PROCS);
	else if (strcmp(word, "fd") == 0)
		st->slot = number(val, MODEL_SLOTS);
	else if (strcmp(word, "fd2") == 0)
		st->slot2 = number(val, MODEL_SLOTS);
	else if (strcmp(word, "a") == 0)
		path_copy(st->a, val);
	else if (strcmp(word, "b") == 0)
		path_copy(st->b, val);
	else if (strcmp(word, "off") == 0)
		st->off = strtoull(val, NULL, 10);
	else if (strcmp(word, "len") == 0)
		st->len = strtoull(val, NULL, 10);
	else if (strcmp(word, "flags") == 0)
		st->flags = parse_flags(val);
	else if (strcmp(word, "mode") == 0)
		st->mode = (unsigned)strtoul(val, NULL, 8) & 0777;
	else if (strcmp(word, "seed") == 0)
		st->seed = strtoull(val, NULL, 10);
	else
		errx(2, "no such word: %s", word);
	if (st->len > MODEL_FILE_MAX || st->off > MODEL_FILE_MAX)
		errx(2, "%s is too much", val);
}

static void parse_line(struct model_step *st, char *line)
{
	char *save, *w = strtok_r(line, " \n", &save);
	unsigned op = 0;

	memset(st, 0, sizeof(*st));
	while (op < OPS && strcmp(model_rows[op].name, w) != 0)
		op++;
	if (op == OPS)
		errx(2, "no such call: %s", w);
	st->op = (enum model_op)op;
	while ((w = strtok_r(NULL, " \n", &save)) != NULL)
		parse_word(st, w);
}

void model_load(struct model_script *sc, const char *file)
{
	FILE *in = fopen(file, "r");
	size_t room = 0, len = 0;
	char *line = NULL;

	if (in == NULL)
		err(2, "%s", file);
	sc->v = NULL;
	sc->n = 0;
	while (getline(&line, &len, in) > 0) {
		if (line[0] == '#' || line[strspn(line, " \n")] == '\0')
			continue;
		if (sc->n == room) {
			room = room * 2 + 64;
			sc->v = reallocarray(sc->v, room, sizeof(*sc->v));
			if (sc->v == NULL)
				err(2, "memory");
		}
		parse_line(&sc->v[sc->n++], line);
	}
	free(line);
	(void)fclose(in);
}
