/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Globs of paths.  Nothing here goes back more than to the last `**`, and inside a part to
 * the last `*`, because what a later star can match an earlier one needs not; so the time
 * is at most that of comparing each part of the glob with each part of the path.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rules_priv.h"

/* No name and no path is longer; the kernel and the storage see to that. */
#define NAME_LEN_MAX 255
#define PATH_LEN_MAX 1024

/* The end of the part of a path that begins at s. */
static const char *part_end(const char *s)
{
	return strchrnul(s, '/');
}

static const char *part_next(const char *s)
{
	const char *end = part_end(s);

	return *end == '/' ? end + 1 : end;
}

/* --- one part */

static bool is_any(const char *s, size_t len)
{
	return len == 2 && s[0] == '*' && s[1] == '*';
}

/* What is between stars is looked for in order: each at its first place. */
static bool part_match(const struct glob_part *p, const char *s, size_t len)
{
	const char *piece = p->s, *end = p->s + p->len;
	const char *star = memchr(piece, '*', p->len);
	size_t n = star != NULL ? (size_t)(star - piece) : p->len;

	if (len < n || memcmp(s, piece, n) != 0)
		return false;
	s += n;
	len -= n;
	if (star == NULL)
		return len == 0;
	for (;;) {
		const char *at;

		piece = star + 1;
		star = memchr(piece, '*', (size_t)(end - piece));
		n = (size_t)((star != NULL ? star : end) - piece);
		if (star == NULL)
			return len >= n && memcmp(s + len - n, piece, n) == 0;
		at = n > 0 ? memmem(s, len, piece, n) : s;
		if (at == NULL)
			return false;
		len -= (size_t)(at - s) + n;
		s = at + n;
	}
}

/* --- making one */

static const char *part_wrong(const struct glob_part *p, bool last)
{
	size_t letters = 0;

	if (p->len == 0 && last)
		return "ends with a slash: the directory itself is meant without it, what is in it "
		       "with /** behind it";
	if (p->len == 0)
		return "has two slashes one after the other, as no path has";
	if ((p->len == 1 && p->s[0] == '.') || (p->len == 2 && memcmp(p->s, "..", 2) == 0))
		return "has a \".\" or \"..\" part, as no path has";
	if (!p->any && memmem(p->s, p->len, "**", 2) != NULL)
		return "has ** beside other letters: it stands for whole parts of a path, between "
		       "slashes; * stands for a piece of one";
	for (size_t i = 0; i < p->len; i++)
		letters += p->s[i] != '*';
	return letters > NAME_LEN_MAX ? "has a part of more than 255 bytes, as no name has" : NULL;
}

static const char *text_wrong(const char *text)
{
	if (text[0] != '/')
		return "does not begin with a slash: paths are those of the namespace";
	if (text[1] == '\0')
		return "is the top of the namespace, which is no file: all files are /**";
	return strlen(text) - 1 > PATH_LEN_MAX ? "is longer than 1024 bytes, as no path is" : NULL;
}

int glob_make(struct glob *g, const char *text, const char **why)
{
	const char *s = text + 1;
	size_t slashes = 0;

	g->parts = NULL;
	g->n = 0;
	*why = text_wrong(text);
	if (*why != NULL)
		return -EINVAL;
	for (const char *c = s; *c != '\0'; c++)
		slashes += *c == '/';
	g->parts = calloc(slashes + 1, sizeof(*g->parts));
	if (g->parts == NULL)
		return -ENOMEM;
	for (size_t i = 0; i <= slashes && *why == NULL; i++) {
		struct glob_part *p = &g->parts[g->n];

		p->s = s;
		p->len = (size_t)(part_end(s) - s);
		p->any = is_any(p->s, p->len);
		*why = part_wrong(p, i == slashes);
		/* Two of them in a row say what one says. */
		if (!p->any || g->n == 0 || !p[-1].any)
			g->n++;
		s = part_next(s);
	}
	if (*why == NULL)
		return 0;
	glob_free(g);
	return -EINVAL;
}

void glob_free(struct glob *g)
{
	free(g->parts);
	g->parts = NULL;
	g->n = 0;
}

/* --- matching */

bool glob_match(const struct glob *g, const char *path)
{
	size_t i = 0, again = 0;      /* `again`: behind the last ** that was met */
	const char *s = path, *from = NULL; /* ... which has everything before `from` */

	for (;;) {
		if (i < g->n && g->parts[i].any) {
			again = ++i;
			from = s;
			if (i == g->n)
				return true;
		} else if (i < g->n && *s != '\0' &&
			   part_match(&g->parts[i], s, (size_t)(part_end(s) - s))) {
			i++;
			s = part_next(s);
		} else if (i == g->n && *s == '\0') {
			return true;
		} else if (from == NULL || *from == '\0') {
			return false;
		} else {
			i = again;
			s = from = part_next(from);
		}
	}
}

/* The same with the parts of another glob for those of a path.  Its single stars count as
 * letters that only a star takes, its double ones as parts that only a double one takes. */
bool glob_covers(const struct glob *a, const struct glob *b)
{
	size_t i = 0, again = 0, s = 0, from = 0;
	bool met = false;

	for (;;) {
		if (i < a->n && a->parts[i].any) {
			again = ++i;
			from = s;
			met = true;
			if (i == a->n)
				return true;
		} else if (i < a->n && s < b->n && !b->parts[s].any &&
			   part_match(&a->parts[i], b->parts[s].s, b->parts[s].len)) {
			i++;
			s++;
		} else if (i == a->n && s == b->n) {
			return true;
		} else if (!met || from == b->n) {
			return false;
		} else {
			i = again;
			s = ++from;
		}
	}
}

/* Is what is left of the glob from there for any path of at least one part? */
static bool for_all(const struct glob *g, size_t from)
{
	size_t any = 0, one = 0;

	for (size_t i = from; i < g->n; i++) {
		if (g->parts[i].any)
			any++;
		else if (g->parts[i].len == 1 && g->parts[i].s[0] == '*')
			one++;
		else
			return false;
	}
	return any > 0 && one <= 1;
}

/* The places in the glob that the directory's path can have led to: all that may follow
 * from them is below it. */
enum glob_below glob_below(const struct glob *g, const char *dir)
{
	bool now[PATH_LEN_MAX + 2] = {true};
	enum glob_below below = GLOB_BELOW_NONE;

	for (;;) {
		const char *s = dir;
		size_t len = (size_t)(part_end(s) - s);

		for (size_t i = 0; i < g->n; i++)
			if (now[i] && g->parts[i].any)
				now[i + 1] = true;
		if (len == 0)
			break;
		/* Backwards: what is set has been looked at. */
		for (size_t i = g->n + 1; i-- > 0;) {
			bool came = i > 0 && now[i - 1] && !g->parts[i - 1].any &&
				    part_match(&g->parts[i - 1], s, len);

			now[i] = came || (i < g->n && now[i] && g->parts[i].any);
		}
		dir = part_next(s);
	}
	for (size_t i = 0; i < g->n && below != GLOB_BELOW_ALL; i++)
		if (now[i])
			below = for_all(g, i) ? GLOB_BELOW_ALL : GLOB_BELOW_SOME;
	return below;
}
