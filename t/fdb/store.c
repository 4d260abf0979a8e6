/* SPDX-License-Identifier: BSD-2-Clause */
#include "store.h"

#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "wire.h"

#define WINDOW 5000000	    /* versions, that is microseconds: five seconds */
#define RECOVERY 100000000 /* versions left out by a new server */

/* A value of a key since a version; older ones behind it. */
struct ver {
	int64_t version;
	bool present;
	struct bytes value;
	struct ver *older;
};

/* What one commit wrote, for those that read before it. */
struct past {
	int64_t version;
	struct ranges writes;
	struct past *next;
};

/* A key that was absent from a version on: gone when nobody can see that far back. */
struct grave {
	int64_t version;
	struct bytes key;
	struct grave *next;
};

struct store {
	int dir, log;
	bool stopped; /* the clock, when it showed this: */
	struct timespec read;
	int64_t base, last; /* versions: added to the clock; of the last commit or reader */
	struct ordmap map;
	struct past *past, **past_end;
	struct grave *graves, **graves_end;
	struct ranges touched;
};

void rd_mutations(struct rd *r, struct mutations *ms)
{
	uint32_t n = rd_u32(r);

	*ms = (struct mutations){ 0 };
	if (n > r->len / 12) /* each takes that much at least */
		r->bad = true;
	if (r->bad || n == 0)
		return;
	ms->at = mem_get(n * sizeof(*ms->at));
	for (; ms->n < n && !r->bad; ms->n++) {
		struct mutation *m = &ms->at[ms->n];

		m->kind = rd_u32(r);
		m->key = rd_bytes(r);
		m->value = rd_bytes(r);
	}
}

/* The file "clock": milliseconds to add, or "stopped" and then such a number. */
static int64_t clock_now(struct store *s)
{
	char text[64] = "";
	char *at = text;
	bool stopped;
	int fd = openat(s->dir, "clock", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		ssize_t n = read(fd, text, sizeof(text) - 1);

		text[n < 0 ? 0 : n] = '\0';
		close(fd);
	}
	stopped = strncmp(text, "stopped", 7) == 0;
	if (stopped)
		at += 7;
	if (!stopped || !s->stopped)
		clock_gettime(CLOCK_MONOTONIC, &s->read);
	s->stopped = stopped;
	return (int64_t)s->read.tv_sec * 1000000 + s->read.tv_nsec / 1000 +
	    strtoll(at, NULL, 10) * 1000;
}

int64_t store_now(struct store *s)
{
	int64_t now = clock_now(s) + s->base;

	if (now > s->last)
		s->last = now;
	return s->last;
}

static void ver_free(struct ver *v)
{
	struct ver *older;

	for (; v != NULL; v = older) {
		older = v->older;
		bytes_free(&v->value);
		free(v);
	}
}

static void chain_free(void *data)
{
	ver_free(data);
}

static const struct ver *ver_at(const struct ordmap_node *n, int64_t version)
{
	const struct ver *v = n == NULL ? NULL : n->data;

	while (v != NULL && v->version > version)
		v = v->older;
	return v != NULL && v->present ? v : NULL;
}

/* A new value at the head of a key's chain; what nobody can see any more goes. */
static void chain_put(
    struct store *s, struct ordmap_node *n, int64_t version, bool present, struct bytes value)
{
	struct ver *v = n->data;

	if (v != NULL && v->version == version) {
		bytes_free(&v->value);
	} else {
		v = mem_get(sizeof(*v));
		v->older = n->data;
		n->data = v;
	}
	v->version = version;
	v->present = present;
	v->value = value;
	while (v != NULL && v->version > s->last - WINDOW)
		v = v->older;
	if (v != NULL) {
		ver_free(v->older);
		v->older = NULL;
	}
	if (!present) {
		struct grave *g = mem_get(sizeof(*g));

		g->version = version;
		g->key = bytes_dup(n->key);
		*s->graves_end = g;
		s->graves_end = &g->next;
	}
}

static void clear_range(struct store *s, int64_t version, struct bytes b, struct bytes e)
{
	struct ordmap_node *n = ordmap_from(&s->map, b, false);

	for (; n != NULL && bytes_cmp(n->key, e) < 0; n = n->next[0]) {
		if (ver_at(n, INT64_MAX) != NULL)
			chain_put(s, n, version, false, (struct bytes){ 0 });
	}
	ranges_add(&s->touched, b, e);
}

/* Of a stamped key or value what it becomes: own memory; false: it does not fit. */
static bool stamp(int64_t version, struct bytes with, struct bytes *to)
{
	uint64_t be = htobe64((uint64_t)version);
	uint8_t bytes[10] = { 0 };

	memcpy(bytes, &be, sizeof(be));
	return atomic_stamp(with, bytes, to);
}

static void apply(struct store *s, int64_t version, const struct mutation *m)
{
	struct bytes key = { 0 }, value = { 0 };
	struct ordmap_node *n;
	const struct ver *old;
	bool present;

	if (m->kind == MUT_CLEAR_RANGE) {
		clear_range(s, version, m->key, m->value);
		return;
	}
	if (m->kind != MUT_STAMPED_KEY)
		key = bytes_dup(m->key);
	else if (!stamp(version, m->key, &key))
		return;
	n = ordmap_put(&s->map, key);
	old = ver_at(n, INT64_MAX);
	if (m->kind == MUT_STAMPED_VALUE)
		present = stamp(version, m->value, &value);
	else
		present = atomic_apply(m->kind == MUT_STAMPED_KEY ? MUT_SET : m->kind, old != NULL,
		    old == NULL ? (struct bytes){ 0 } : old->value, m->value, &value);
	chain_put(s, n, version, present, value);
	ranges_add_key(&s->touched, key);
	bytes_free(&key);
}

static void forget(struct store *s)
{
	int64_t seen = s->last - WINDOW;

	while (s->past != NULL && s->past->version <= seen) {
		struct past *p = s->past;

		s->past = p->next;
		if (s->past == NULL)
			s->past_end = &s->past;
		ranges_free(&p->writes);
		free(p);
	}
	while (s->graves != NULL && s->graves->version <= seen) {
		struct grave *g = s->graves;
		struct ordmap_node *n = ordmap_find(&s->map, g->key);
		struct ver *v = n == NULL ? NULL : n->data;

		s->graves = g->next;
		if (s->graves == NULL)
			s->graves_end = &s->graves;
		if (v != NULL && !v->present && v->version <= seen) {
			ver_free(v);
			ordmap_remove(&s->map, g->key);
		}
		bytes_free(&g->key);
		free(g);
	}
}

static void log_write(struct store *s, int64_t version, const struct mutations *ms)
{
	struct buf b = { 0 };
	uint32_t len;
	size_t done = 0;

	buf_u32(&b, 0);
	buf_u64(&b, (uint64_t)version);
	buf_u32(&b, (uint32_t)ms->n);
	for (size_t i = 0; i < ms->n; i++) {
		buf_u32(&b, ms->at[i].kind);
		buf_bytes(&b, ms->at[i].key);
		buf_bytes(&b, ms->at[i].value);
	}
	len = htole32((uint32_t)b.len - 4);
	memcpy(b.at, &len, sizeof(len));
	while (done < b.len) {
		ssize_t n = write(s->log, b.at + done, b.len - done);

		if (n <= 0)
			err(1, "standin_server: log");
		done += (size_t)n;
	}
	buf_free(&b);
}

int store_commit(struct store *s, int64_t read_version, const struct ranges *reads,
    const struct ranges *writes, const struct mutations *ms, int64_t *version)
{
	struct past *p;

	store_now(s);
	forget(s);
	if (read_version < s->last - WINDOW)
		return ERR_TOO_OLD;
	for (p = s->past; p != NULL; p = p->next) {
		if (p->version > read_version && ranges_hit(&p->writes, reads))
			return ERR_NOT_COMMITTED;
	}
	*version = ++s->last;
	log_write(s, *version, ms);
	p = mem_get(sizeof(*p));
	p->version = *version;
	for (size_t i = 0; i < writes->n; i++)
		ranges_add(&p->writes, writes->at[i].b, writes->at[i].e);
	ranges_free(&s->touched);
	for (size_t i = 0; i < ms->n; i++)
		apply(s, *version, &ms->at[i]);
	/* Where a stamped key comes to lie only the server knows. */
	for (size_t i = 0; i < ms->n; i++) {
		struct bytes key;

		if (ms->at[i].kind == MUT_STAMPED_KEY && stamp(*version, ms->at[i].key, &key)) {
			ranges_add_key(&p->writes, key);
			bytes_free(&key);
		}
	}
	*s->past_end = p;
	s->past_end = &p->next;
	return 0;
}

const struct ranges *store_touched(const struct store *s)
{
	return &s->touched;
}

bool store_latest(const struct store *s, struct bytes key, struct bytes *value)
{
	const struct ver *v = ver_at(ordmap_find(&s->map, key), INT64_MAX);

	if (v != NULL)
		*value = v->value;
	return v != NULL;
}

/* Takes what the log has; a torn end, left by a kill, is cut off. */
static void log_read(struct store *s)
{
	struct stat st;
	struct buf b = { 0 };
	struct rd r;
	off_t whole = 0;

	if (fstat(s->log, &st) != 0)
		err(1, "standin_server: log");
	b.at = mem_get((size_t)st.st_size);
	b.len = b.cap = (size_t)st.st_size;
	for (size_t done = 0; done < b.len;) {
		ssize_t n = pread(s->log, b.at + done, b.len - done, (off_t)done);

		if (n <= 0)
			err(1, "standin_server: log");
		done += (size_t)n;
	}
	r = (struct rd){ b.at, b.len, false };
	while (r.len > 0) {
		struct bytes record = rd_bytes(&r);
		struct rd in = { record.at, record.len, r.bad };
		int64_t version = (int64_t)rd_u64(&in);
		struct mutations ms;

		rd_mutations(&in, &ms);
		if (!in.bad) {
			s->last = version;
			for (size_t i = 0; i < ms.n; i++)
				apply(s, version, &ms.at[i]);
			whole = (off_t)(b.len - r.len);
		}
		free(ms.at);
		if (in.bad)
			break;
	}
	buf_free(&b);
	if (ftruncate(s->log, whole) != 0)
		err(1, "standin_server: log");
}

struct store *store_open(int dir)
{
	struct store *s = mem_get(sizeof(*s));

	s->dir = dir;
	s->past_end = &s->past;
	s->graves_end = &s->graves;
	s->log = openat(dir, "log", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	/* One server a directory: another waits here until the first has ended. */
	if (s->log < 0 || flock(s->log, LOCK_EX) != 0)
		err(1, "standin_server: log");
	log_read(s);
	s->last += RECOVERY;
	s->base = s->last - clock_now(s);
	return s;
}

void store_free(struct store **sp)
{
	struct store *s = *sp;

	*sp = NULL;
	s->last = INT64_MAX;
	forget(s);
	ordmap_free(&s->map, chain_free);
	ranges_free(&s->touched);
	close(s->log);
	free(s);
}

/* --- views */

static void cell_free(void *data)
{
	ver_free(data);
}

/* What the view's owner made of a key, or NULL: it did not touch it. */
static const struct ver *own(const struct view *v, struct bytes key)
{
	struct ordmap_node *n = ordmap_find(&v->own, key);

	return n == NULL ? NULL : n->data;
}

static void own_put(struct view *v, const struct mutation *m)
{
	struct bytes old = { 0 };
	bool has = view_get(v, m->key, &old);
	struct ver *c = mem_get(sizeof(*c));
	struct ordmap_node *n;

	c->present = atomic_apply(m->kind, has, old, m->value, &c->value);
	n = ordmap_put(&v->own, m->key);
	ver_free(n->data);
	n->data = c;
}

static void own_clear(struct view *v, struct bytes b, struct bytes e)
{
	struct ordmap_node *n = ordmap_from(&v->own, b, false), *next;

	for (; n != NULL && bytes_cmp(n->key, e) < 0; n = next) {
		next = n->next[0];
		ver_free(n->data);
		ordmap_remove(&v->own, n->key);
	}
	ranges_add(&v->cleared, b, e);
}

int view_start(struct view *v, struct store *s, int64_t version, const struct mutations *ms)
{
	*v = (struct view){ .store = s, .version = version, .top = bytes_text("\xff\xff") };
	store_now(s);
	if (version < s->last - WINDOW)
		return ERR_TOO_OLD;
	if (version > s->last)
		return ERR_FUTURE_VERSION;
	for (size_t i = 0; i < ms->n; i++) {
		const struct mutation *m = &ms->at[i];

		if (m->kind == MUT_CLEAR_RANGE)
			own_clear(v, m->key, m->value);
		else if (m->kind != MUT_STAMPED_KEY && m->kind != MUT_STAMPED_VALUE)
			own_put(v, m);
	}
	return 0;
}

void view_end(struct view *v)
{
	ordmap_free(&v->own, cell_free);
	ranges_free(&v->cleared);
}

/* The value a node of the store shows through the owner's changes. */
static const struct ver *shown(const struct view *v, const struct ordmap_node *n)
{
	const struct ver *at = ver_at(n, v->version);

	if (at == NULL || own(v, n->key) != NULL || ranges_has(&v->cleared, n->key))
		return NULL;
	return at;
}

bool view_get(const struct view *v, struct bytes key, struct bytes *value)
{
	const struct ver *c = own(v, key);
	struct ordmap_node *n;

	if (c == NULL) {
		n = ordmap_find(&v->store->map, key);
		c = n == NULL ? NULL : shown(v, n);
	}
	if (c == NULL || !c->present)
		return false;
	*value = c->value;
	return true;
}

/* Gives the nearer one of the two nodes, or neither if it is out of reach. */
static bool nearer(const struct view *v, const struct ordmap_node *n, const struct ordmap_node *o,
    bool forward, struct bytes *key, struct bytes *value)
{
	const struct ver *c;

	if (n == NULL || (o != NULL && (bytes_cmp(o->key, n->key) < 0) == forward)) {
		n = o;
		c = o == NULL ? NULL : o->data;
	} else {
		c = ver_at(n, v->version);
	}
	if (c == NULL || bytes_cmp(n->key, v->top) >= 0)
		return false;
	*key = n->key;
	*value = c->value;
	return true;
}

bool view_from(
    const struct view *v, struct bytes from, bool after, struct bytes *key, struct bytes *value)
{
	struct ordmap_node *n = ordmap_from(&v->store->map, from, after);
	struct ordmap_node *o = ordmap_from(&v->own, from, after);

	while (n != NULL && shown(v, n) == NULL)
		n = n->next[0];
	while (o != NULL && !((struct ver *)o->data)->present)
		o = o->next[0];
	return nearer(v, n, o, true, key, value);
}

bool view_before(
    const struct view *v, struct bytes from, bool with, struct bytes *key, struct bytes *value)
{
	struct ordmap_node *n, *o;

	if (bytes_cmp(from, v->top) >= 0) {
		from = v->top;
		with = false;
	}
	n = ordmap_before(&v->store->map, from, with);
	o = ordmap_before(&v->own, from, with);
	while (n != NULL && shown(v, n) == NULL)
		n = n->prev;
	while (o != NULL && !((struct ver *)o->data)->present)
		o = o->prev;
	return nearer(v, n, o, false, key, value);
}

struct bytes view_select(const struct view *v, const struct selector *sel, uint32_t *ends)
{
	struct bytes key = sel->key, value;
	bool with = sel->or_equal;

	*ends = 0;
	if (sel->offset >= 1) {
		for (int32_t i = sel->offset; i >= 1; i--, with = true) {
			if (!view_from(v, key, with, &key, &value)) {
				*ends = END_END;
				return v->top;
			}
		}
		return key;
	}
	for (int32_t i = sel->offset; i <= 0; i++, with = false) {
		if (!view_before(v, key, with, &key, &value)) {
			*ends = END_BEGIN;
			return bytes_text("");
		}
	}
	return key;
}
