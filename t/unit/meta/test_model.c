/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random transactions against a model: a flat list of paths with their records, and
 * the rules of meta.h.  SEED= repeats a run, STEPS= makes it longer.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/obj.h"
#include "disk_log.h"
#include "meta_rig.h"

/* No time limit: criterion loses memory for those of tests that run long side by side. */
TestSuite(meta_model, .fini = meta_rig_last);

#define ROWS_MAX 2000
#define CHANGES_MAX 4
#define TOGETHER_MAX 5
#define PATH_MAX_HERE 400
#define CONTENTS 12
#define BLOB_SIZE 40

struct row {
	char path[PATH_MAX_HERE];
	enum meta_kind kind;
	uint32_t mode;
	uint64_t move; /* the move that brought it here, also of what says nothing */
	struct meta_content ct; /* id 0: none */
	char blob; /* what its bytes are filled with; 0: the store has none */
};

struct model {
	struct row rows[ROWS_MAX];
	unsigned n;
};

static struct model now, before;
static struct meta_rig g;
static uint64_t rng;

static unsigned roll(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)((rng >> 20) % n);
}

/* Few names, so that they meet. */
static void roll_path(char *path)
{
	static const char *const names[] = { "a", "b", "c", "ab", "\xff", "\x01" };
	unsigned depth = 1 + roll(4);

	path[0] = '\0';
	for (unsigned i = 0; i < depth; i++) {
		strcat(path, i > 0 ? "/" : "");
		strcat(path, names[roll(ARRAY_LEN(names))]);
	}
}

/* --- The model: every directory on the way to a record is a META_PASS row. */

static struct row *find(struct model *m, const char *path)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (strcmp(m->rows[i].path, path) == 0)
			return &m->rows[i];
	}
	return NULL;
}

static bool below(const char *path, const char *top)
{
	size_t n = strlen(top);

	return strncmp(path, top, n) == 0 && path[n] == '/';
}

static bool has_below(const struct model *m, const char *top)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (below(m->rows[i].path, top))
			return true;
	}
	return false;
}

static void drop(struct model *m, const char *top)
{
	for (unsigned i = 0; i < m->n;) {
		if (strcmp(m->rows[i].path, top) == 0 || below(m->rows[i].path, top))
			m->rows[i] = m->rows[--m->n];
		else
			i++;
	}
}

static struct row *add(struct model *m, const char *path)
{
	struct row *r = &m->rows[m->n++];

	cr_assert_lt(m->n, ROWS_MAX);
	memset(r, 0, sizeof(*r));
	strcpy(r->path, path);
	return r;
}

/* Directories that say nothing and have nothing below go; others are made. */
static void tidy(struct model *m)
{
	char path[PATH_MAX_HERE];

	for (unsigned i = 0; i < m->n;) {
		if (m->rows[i].kind == META_PASS && !has_below(m, m->rows[i].path)) {
			m->rows[i] = m->rows[--m->n];
			i = 0;
		} else {
			i++;
		}
	}
	for (unsigned i = 0; i < m->n; i++) {
		strcpy(path, m->rows[i].path);
		for (char *s = strrchr(path, '/'); s != NULL; s = strrchr(path, '/')) {
			*s = '\0';
			if (find(m, path) == NULL)
				add(m, path);
		}
	}
}

static bool below_a_file(struct model *m, const char *path)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (m->rows[i].kind == META_FILE && below(path, m->rows[i].path))
			return true;
	}
	return false;
}

static struct row *find_content(struct model *m, uint64_t id)
{
	for (unsigned i = 0; i < m->n; i++) {
		if (m->rows[i].ct.id == id)
			return &m->rows[i];
	}
	return NULL;
}

/* 1: the change is made; 0: it has been; or an error. */
static int model_guard(const struct meta_change *ch, const struct row *r)
{
	bool says = r != NULL && r->kind != META_PASS;

	if (ch->if_content == 0 || (r != NULL && r->ct.id == ch->if_content))
		return 1;
	if (ch->verb == META_DEL)
		return says ? -EEXIST : 0;
	if (!says)
		return -EEXIST;
	if (ch->rec.content.id != 0)
		return r->ct.id == ch->rec.content.id ? 0 : -EEXIST;
	return r->ct.id == 0 && r->kind == ch->rec.kind && r->mode == ch->rec.mode ? 0 : -EEXIST;
}

static int model_put(struct model *m, const struct meta_change *ch)
{
	struct row *r = find(m, ch->path), *other;
	const struct meta_content *ct = &ch->rec.content;
	int go;

	if (below_a_file(m, ch->path))
		return -ENOTDIR;
	go = model_guard(ch, r);
	if (go <= 0)
		return go;
	if (ch->rec.kind == META_FILE && has_below(m, ch->path))
		return -ENOTEMPTY;
	other = ct->id != 0 ? find_content(m, ct->id) : NULL;
	if (other != NULL && other != r)
		return -EEXIST;
	if (r == NULL)
		r = add(m, ch->path);
	r->kind = ch->rec.kind;
	r->mode = ch->rec.mode;
	if (r->ct.id != ct->id || r->ct.size != ct->size || ct->state == META_STATE_PERSISTED)
		r->blob = 0;
	if (ch->blob != NULL && ct->state != META_STATE_PERSISTED)
		r->blob = *(const char *)ch->blob;
	r->ct = *ct;
	return 0;
}

static int model_del(struct model *m, const struct meta_change *ch)
{
	int go = model_guard(ch, find(m, ch->path));

	if (go > 0)
		drop(m, ch->path);
	return go < 0 ? go : 0;
}

static int model_move(struct model *m, const struct meta_change *ch)
{
	struct row *from = find(m, ch->path), *to = find(m, ch->to);
	size_t n = strlen(ch->path);

	if (strcmp(ch->path, ch->to) == 0)
		return 0;
	if (from != NULL && below_a_file(m, ch->to))
		return -ENOTDIR;
	if (to != NULL && to->move == ch->id)
		return 0;
	drop(m, ch->to);
	from = find(m, ch->path);
	if (from == NULL)
		return 0;
	from->move = ch->id;
	for (unsigned i = 0; i < m->n; i++) {
		char path[2 * PATH_MAX_HERE];

		if (strcmp(m->rows[i].path, ch->path) != 0 && !below(m->rows[i].path, ch->path))
			continue;
		(void)snprintf(path, sizeof(path), "%s%s", ch->to, m->rows[i].path + n);
		cr_assert_lt(strlen(path), PATH_MAX_HERE);
		strcpy(m->rows[i].path, path);
	}
	return 0;
}

static int model_txn(const struct meta_change *ch, unsigned n)
{
	int err = 0;

	before = now;
	for (unsigned i = 0; err == 0 && i < n; i++) {
		if (ch[i].verb == META_PUT)
			err = model_put(&now, &ch[i]);
		else if (ch[i].verb == META_DEL)
			err = model_del(&now, &ch[i]);
		else
			err = model_move(&now, &ch[i]);
		tidy(&now);
	}
	if (err != 0)
		now = before;
	return err;
}

/* --- The comparison */

static void compare_dir(const char *dir)
{
	struct meta_scan scan = { .path = dir };
	char path[2 * PATH_MAX_HERE];
	unsigned want = 0;

	cr_assert_eq(meta_rig_scan(&g, &scan), 0);
	for (unsigned i = 0; i < now.n; i++) {
		const char *slash = strrchr(now.rows[i].path, '/');
		size_t len = slash != NULL ? (size_t)(slash - now.rows[i].path) : 0;

		want += len == strlen(dir) && strncmp(now.rows[i].path, dir, len) == 0 &&
			now.rows[i].kind != META_PASS;
	}
	cr_assert_eq(scan.count, want, "'%s': %zu entries, not %u", dir, scan.count, want);
	for (size_t i = 0; i < scan.count; i++) {
		struct row *r;

		(void)snprintf(path, sizeof(path), "%s%s%s", dir, *dir != '\0' ? "/" : "",
		    scan.entries[i].name);
		r = find(&now, path);
		scan.entries[i].rec.content.node = 0;
		cr_assert(r != NULL && r->kind == scan.entries[i].rec.kind &&
			      r->mode == scan.entries[i].rec.mode &&
			      memcmp(&r->ct, &scan.entries[i].rec.content, sizeof(r->ct)) == 0,
		    "%s", path);
		cr_assert(i == 0 || strcmp(scan.entries[i - 1].name, scan.entries[i].name) < 0);
	}
	meta_scan_free(&scan);
}

static void compare_content(uint64_t id)
{
	struct meta_content_get rq = { .id = id };
	struct row *r = find_content(&now, id);
	int err = meta_rig_content_get(&g, &rq);

	if (r == NULL) {
		cr_assert_eq(err, -ENOENT);
		return;
	}
	cr_assert_eq(err, 0);
	cr_assert_str_eq(rq.path, r->path);
	cr_assert_eq(rq.rec.content.node, meta_self(g.meta));
	rq.rec.content.node = 0;
	cr_assert_eq(memcmp(&rq.rec.content, &r->ct, sizeof(r->ct)), 0);
	cr_assert_eq(rq.blob != NULL, r->blob != 0, "%s", r->path);
	cr_assert(rq.blob == NULL || rq.len == r->ct.size);
	for (size_t i = 0; i < rq.len; i++)
		cr_assert_eq(((char *)rq.blob)[i], r->blob);
	meta_content_free(&rq);
}

/* In pages, so that it is put together right. */
static void compare_queue(void)
{
	struct meta_queue q = { .until_ns = UINT64_MAX, .max = 1 + roll(7) };
	struct meta_tally ta = { .files = { 0 } };
	struct meta_status st;
	uint64_t want = 0, got = 0;

	for (unsigned i = 0; i < now.n; i++) {
		const struct meta_content *ct = &now.rows[i].ct;

		if (ct->id == 0)
			continue;
		ta.files[ct->state]++;
		ta.bytes[ct->state] += ct->size;
		want += ct->state == META_STATE_NOT_PERSISTED || ct->state == META_STATE_FAILED;
	}
	do {
		cr_assert_eq(meta_rig_queue(&g, &q), 0);
		for (size_t i = 0; i < q.count; i++, got++) {
			const struct meta_content *ct = &q.entries[i].rec.content;
			struct row *r = find_content(&now, ct->id);
			uint64_t ns = ct->state == META_STATE_FAILED ? UINT64_MAX : ct->next_ns;

			cr_assert(r != NULL && strcmp(r->path, q.entries[i].name) == 0);
			cr_assert(ns > q.after_ns || (ns == q.after_ns && ct->id > q.after_id));
			q.after_ns = ns;
			q.after_id = ct->id;
		}
	} while (q.more);
	meta_queue_free(&q);
	cr_assert_eq(got, want, "%u are queued, not %u", (unsigned)got, (unsigned)want);
	meta_rig_settle(&g);
	st = meta_rig_status(&g);
	cr_assert_eq(memcmp(&st.tally, &ta, sizeof(ta)), 0, "the tally");
}

static void compare_all(void)
{
	for (uint64_t no = 1; no <= CONTENTS; no++)
		compare_content(META_RIG_ID(no));
	compare_queue();
	compare_dir("");
	for (unsigned i = 0; i < now.n; i++)
		compare_dir(now.rows[i].path);
	meta_rig_settle(&g); /* all that is deleted is swept */
	cr_assert_eq(meta_rig_status(&g).records, now.n, "%u rows, not %u",
	    (unsigned)meta_rig_status(&g).records, now.n);
	cr_assert_eq(meta_rig_check(&g).rows, now.n);
}

struct step {
	struct meta_txn rq;
	struct meta_rig_end end;
	struct meta_change ch[CHANGES_MAX];
	char path[CHANGES_MAX][PATH_MAX_HERE], to[CHANGES_MAX][PATH_MAX_HERE];
	char blob[CHANGES_MAX][BLOB_SIZE];
	unsigned n;
	int want;
};

/* Often the content that is there, and often in the same place. */
static struct meta_change roll_content(struct step *s, unsigned i, unsigned mode)
{
	struct row *r = &now.rows[now.n > 0 ? roll(now.n) : 0];
	struct meta_change ch = meta_rig_content(s->path[i], 1 + roll(CONTENTS),
	    META_STATE_NOT_PERSISTED + roll(META_STATES - 1), roll(3) == 0 ? 0 : roll(BLOB_SIZE));
	struct meta_content *ct = &ch.rec.content;

	if (now.n > 0 && r->ct.id != 0 && roll(4) > 0) {
		strcpy(s->path[i], r->path);
		if (roll(4) > 0)
			ct->id = r->ct.id;
		if (roll(2) == 0)
			ct->size = r->ct.size;
	}
	ch.rec.mode = mode;
	ct->next_ns = roll(4) > 0 ? roll(5) : UINT64_MAX;
	if (roll(2) == 0) {
		memset(s->blob[i], (int)(1 + roll(100)), BLOB_SIZE);
		ch.blob = s->blob[i];
		ch.blob_len = ct->size;
	}
	return ch;
}

static uint64_t roll_guard(const char *path)
{
	struct row *r = find(&now, path);

	if (roll(3) > 0)
		return 0;
	return r != NULL && r->ct.id != 0 && roll(3) > 0 ? r->ct.id : META_RIG_ID(1 + roll(CONTENTS));
}

static struct meta_change roll_change(struct step *s, unsigned i, unsigned mode)
{
	char *path = s->path[i], *to = s->to[i];
	struct meta_change mv;

	roll_path(path);
	switch (roll(12)) {
	case 0:
	case 1:
		mv = meta_rig_file(path, mode);
		mv.if_content = roll_guard(path);
		return mv;
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
		mv = roll_content(s, i, mode);
		mv.if_content = roll_guard(path);
		return mv;
	case 7:
		return meta_rig_dir(path, mode);
	case 8:
		mv = meta_rig_del(path);
		mv.if_content = roll_guard(path);
		return mv;
	default:
		break;
	}
	do
		roll_path(to);
	while (below(path, to) || below(to, path));
	mv = meta_rig_move(path, to);
	mv.id = meta_intent_id();
	return mv;
}

static bool concerns(const struct meta_change *ch, const char *name)
{
	return strcmp(ch->path, name) == 0 || below(ch->path, name) || below(name, ch->path);
}

/* Is doing it twice as good as once?  So says the contract of one move and of what does
 * not concern the name that it moves; two changes of one name may not be (a file, then
 * a directory). */
static bool repeatable(const struct step *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (i > 0 && s->ch[i].verb == META_MOVE)
			return false;
		for (unsigned j = 0; j < i; j++) {
			if (concerns(&s->ch[i], s->ch[j].path))
				return false;
		}
	}
	return true;
}

static void start(struct step *s)
{
	memset(&s->rq, 0, sizeof(s->rq));
	memset(&s->end, 0, sizeof(s->end));
	s->rq.req.user = &s->end;
	s->rq.changes = s->ch;
	s->rq.n = s->n;
	meta_txn(g.meta, &s->rq, meta_rig_done);
}

/* Is any of this content in the round already, or was with somebody when it began? */
static bool puts_known(struct model *begun, const struct step *s, const struct step *first)
{
	for (unsigned i = 0; i < s->n; i++) {
		uint64_t id = s->ch[i].verb == META_PUT ? s->ch[i].rec.content.id : 0;

		if (id != 0 && find_content(begun, id) != NULL)
			return true;
		for (const struct step *t = first; id != 0 && t < s; t++) {
			for (unsigned j = 0; j < t->n; j++) {
				if (t->ch[j].verb == META_PUT && t->ch[j].rec.content.id == id)
					return true;
			}
		}
	}
	return false;
}

/* Some at once: they take effect in their order.  (In a cluster those do that name the
 * same things; who frees content need not name it.) */
static void round_of(unsigned step, unsigned together)
{
	static struct step s[TOGETHER_MAX];
	static struct model begun;
	bool repeats = getenv("BATONFS_TEST_FDB_REPEATS") != NULL, known;

	begun = now;
	for (unsigned i = 0; i < together; i++) {
		do {
			s[i].n = 1 + roll(CHANGES_MAX);
			for (unsigned j = 0; j < s[i].n; j++)
				s[i].ch[j] = roll_change(&s[i], j, (step + i) * 10 + j);
		} while (repeats && !repeatable(&s[i]));
		/* Nor need who frees it come later. */
		known = g.fdb != NULL && puts_known(&begun, &s[i], s);
		if (known)
			meta_rig_settle(&g);
		s[i].want = model_txn(s[i].ch, s[i].n);
		start(&s[i]);
		if (known)
			meta_rig_settle(&g);
	}
	meta_rig_settle(&g);
	for (unsigned i = 0; i < together; i++)
		cr_assert(s[i].end.done && s[i].end.err == s[i].want, "step %u: %d, not %d", step,
		    s[i].end.err, s[i].want);
	if (together == 1 && s[0].want == 0 && repeatable(&s[0])) {
		start(&s[0]);
		meta_rig_settle(&g);
		cr_assert(s[0].end.done && s[0].end.err == 0, "step %u, again: %d", step,
		    s[0].end.err);
		compare_all();
	}
}

static void seed_it(void)
{
	const char *seed = getenv("SEED");

	rng = seed != NULL ? strtoull(seed, NULL, 0) : meta_intent_id();
	printf("SEED=%llu\n", (unsigned long long)rng);
	fflush(stdout);
}

Test(meta_model, random_transactions)
{
	const char *steps = getenv("STEPS");
	unsigned n;

	seed_it();
	meta_rig_init_in(&g, "/dev/shm"); /* nothing here is about power */
	n = steps != NULL ? (unsigned)atoi(steps) : g.fdb != NULL ? 400 : 4000;
	meta_rig_open(&g);
	for (unsigned i = 0; i < n; i++) {
		char path[PATH_MAX_HERE];
		struct row *r;

		round_of(i, roll(3) == 0 ? 1 + roll(TOGETHER_MAX) : 1);
		roll_path(path);
		r = find(&now, path);
		cr_assert_eq(meta_rig_mode(&g, path),
		    r != NULL && r->kind != META_PASS ? (int)r->mode : -ENOENT);
		if (i % 50 == 0)
			compare_all();
		if (i % 500 == 250) {
			meta_rig_free(&g);
			meta_rig_open(&g);
		}
	}
	compare_all();
	meta_rig_fini(&g);
}

/* --- Power fails */

#define IMAGES 50

static unsigned nimages, events;

static void image_dir(char *dir, size_t len, unsigned i)
{
	int n = snprintf(dir, len, "%s/image-%u", g.top, i);

	if (n < 0 || (size_t)n >= len)
		abort();
}

/* In the writing thread. */
static void power_fails(void *arg)
{
	char dir[80], path[160];

	(void)arg;
	if (events++ % 31 != 0 || nimages == IMAGES)
		return;
	image_dir(dir, sizeof(dir), nimages);
	if (mkdir(dir, 0700) != 0)
		abort();
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", dir);
	disk_log_image(path, nimages);
	nimages++;
}

/* Whatever a machine finds, what is beside the records agrees with them. */
Test(meta_model, power_fails_meanwhile)
{
	char path[128];

	seed_it();
	meta_rig_init_in(&g, "/dev/shm");
	if (g.fdb != NULL) { /* its power is not ours to cut */
		meta_rig_fini(&g);
		cr_skip_test();
	}
	meta_rig_open(&g);
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	disk_log_start(path);
	disk_log_hook(power_fails, NULL);
	for (unsigned i = 0; nimages < IMAGES && i < 20000; i++)
		round_of(i, roll(3) == 0 ? 1 + roll(TOGETHER_MAX) : 2);
	disk_log_hook(NULL, NULL);
	meta_rig_free(&g);
	disk_log_stop();
	cr_assert_eq(nimages, IMAGES);
	for (unsigned i = 0; i < nimages; i++) {
		struct meta_rig at;

		meta_rig_init_in(&at, "/dev/shm");
		image_dir(at.dir, sizeof(at.dir), i);
		meta_rig_open(&at);
		meta_check(at.dir);
		cr_assert_eq(meta_rig_put(&at, "goes on", 1), 0);
		meta_rig_settle(&at);
		cr_assert_eq(meta_check(at.dir).garbage, 0);
		meta_rig_fini(&at);
	}
	meta_rig_fini(&g);
}
