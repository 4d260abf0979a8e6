/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changes that are answered before they are on the disk (struct meta_txn's `later`).
 *
 * They wait as rows of the state database, which outlives the process, and go to the
 * store together after meta.sync.period, or in front of the next transaction that does
 * not wait; so the order of changes stays what it was.  Until the store has them they
 * lie over what it says: a get of such a path does not ask it, a scan is merged.  At
 * most one change a path waits; a newer one takes its place.  A transaction that does
 * not wait is given to the store when all that came before it is there.
 *
 * In a store of many nodes nothing waits so.
 *
 * Doing one twice has the effect of doing it once, so a flush whose outcome is not known
 * is repeated, by a successor too.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/records.h"
#include "meta/store.h"
#include "reactor/statedb.h"

#define LATER_FORMAT 1
#define LATER_BATCH 512	 /* changes a flush */
#define LATER_MAX 16384	 /* that may wait; more are answered when they are on the disk */
#define LATER_ROOM 512	 /* bytes in the store that one is taken to need */
#define RETRY_NS (3 * NS_PER_S)

/* A row: format, verb, length of the record's row (1 byte each), that row, the path. */
#define ROW_HEAD 3
static_assert(META_ROW_MAX <= UINT8_MAX, "its length is one byte");
#define ROW_MAX (ROW_HEAD + META_ROW_MAX + META_PATH_MAX)

static struct later *find(struct meta *m, const char *path)
{
	struct later *l;

	HASH_FIND_STR(m->later, path, l);
	return l;
}

static void forget(struct meta *m, struct later *l)
{
	HASH_DEL(m->later, l);
	TAILQ_REMOVE(&m->laters, l, link);
	m->nlater--;
	free(l);
}

static int row_del(struct meta *m, uint64_t seq)
{
	unsigned char key[8];
	int err;

	meta_put_be64(key, seq);
	err = statedb_del(m->db, STATEDB_META_LATER, key, sizeof(key));
	return err == -ENOENT ? 0 : err;
}

static int row_put(struct meta *m, uint64_t seq, const struct meta_change *ch)
{
	struct meta_row row = {.rec = ch->rec};
	unsigned char key[8], buf[ROW_MAX];
	size_t rec = 0, path = strlen(ch->path);

	if (ch->verb == META_PUT)
		rec = meta_row_encode(&row, buf + ROW_HEAD);
	buf[0] = LATER_FORMAT;
	buf[1] = (unsigned char)ch->verb;
	buf[2] = (unsigned char)rec;
	memcpy(buf + ROW_HEAD + rec, ch->path, path);
	meta_put_be64(key, seq);
	return statedb_put(
	    m->db, STATEDB_META_LATER, key, sizeof(key), buf, ROW_HEAD + rec + path);
}

/* In memory, as the newest. */
static int take(struct meta *m, uint64_t seq, const struct meta_change *ch)
{
	struct later *l = find(m, ch->path);
	size_t n = strlen(ch->path) + 1;

	if (l == NULL) {
		l = calloc(1, sizeof(*l) + n);
		if (l == NULL)
			return -ENOMEM;
		memcpy(l->path, ch->path, n);
		HASH_ADD_STR(m->later, path, l);
		if (l->hh.tbl == NULL) {
			free(l);
			return -ENOMEM;
		}
		m->nlater++;
	} else {
		TAILQ_REMOVE(&m->laters, l, link);
	}
	l->seq = seq;
	l->verb = ch->verb;
	l->rec = ch->rec;
	if (meta_content_of(&l->rec) == NULL)
		memset(&l->rec.content, 0, sizeof(l->rec.content));
	TAILQ_INSERT_TAIL(&m->laters, l, link);
	return 0;
}

/* --- To the store */

/* A change that the store will never take (below a name that it has as a file's, say)
 * must not stop the others: each by itself shows which it is. */
static bool refused(struct meta *m, int err)
{
	struct later *l = TAILQ_FIRST(&m->laters);

	if (err != -ENOTDIR && err != -EINVAL && err != -ENAMETOOLONG && err != -ENOTEMPTY &&
	    err != -EEXIST && err != -ENOENT)
		return false;
	if (m->later_txn.n > 1)
		m->later_single = m->later_txn.n;
	else if (l != NULL && l->seq == m->later_sent)
		log_error("metadata store %s: mode, owner or times of /%s are lost: %s", m->dir,
		    l->path, strerror(-err));
	return true;
}

static void flush_done(struct meta_req *r, int err)
{
	struct meta *m = container_of(r, struct meta, later_txn.req);
	struct later *l;

	m->later_running = false;
	if (err != 0) {
		if (!refused(m, err)) {
			timer_arm(&m->later_timer, RETRY_NS);
			return;
		}
		if (m->later_txn.n > 1) {
			timer_arm(&m->later_timer, 0);
			return;
		}
	}
	if (m->later_single > 0)
		m->later_single--;
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
	while ((l = TAILQ_FIRST(&m->laters)) != NULL && l->seq <= m->later_sent) {
		/* The row that stays is done again, which changes nothing. */
		(void)row_del(m, l->seq);
		forget(m, l);
	}
	if (m->state == STORE_OPEN)
		request_begin_waiting(m);
	if (l != NULL)
		timer_arm(&m->later_timer, l->seq <= m->later_until || m->later_single > 0
					       ? 0
					       : m->env.cfg->meta_sync_period);
}

static void flush(struct meta *m)
{
	struct meta_change *ch = m->later_changes;
	struct later *l;
	unsigned n = 0;

	if (m->later_running || TAILQ_EMPTY(&m->laters))
		return;
	timer_cancel(&m->later_timer);
	TAILQ_FOREACH (l, &m->laters, link) {
		if (n == (m->later_single > 0 ? 1 : LATER_BATCH))
			break;
		ch[n++] = (struct meta_change){.verb = l->verb, .path = l->path, .rec = l->rec};
		m->later_sent = l->seq;
	}
	m->later_running = true;
	m->later_txn.changes = ch;
	m->later_txn.n = n;
	m->later_txn.later = false;
	request_txn(m, &m->later_txn, 0, flush_done);
}

static void flush_fired(struct timer *t)
{
	flush(container_of(t, struct meta, later_timer));
}

void meta_flush(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	m->later_until = m->later_seq;
	flush(m);
}

unsigned meta_waiting(const struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	return m->nlater;
}

/* --- From the requests */

/* Is there room for these?  If not, the store says so before they are answered. */
static bool room_for(struct meta *m, unsigned n)
{
	struct meta_status st = {.open = false};

	m->be->ops->status(m->be, &st);
	return st.used_bytes + (m->nlater + n) * (uint64_t)LATER_ROOM < m->env.cfg->meta_size;
}

bool later_takes(struct meta *m, const struct meta_change *changes, unsigned n)
{
	/* Other nodes would not see them, and what those have put there meanwhile would be
	 * hidden here, and overwritten then. */
	if (meta_self(m) != 0)
		return false;
	if (m->db == NULL || m->later_changes == NULL || m->env.cfg->meta_sync_period == 0 ||
	    m->nlater + n > LATER_MAX || !room_for(m, n))
		return false;
	for (unsigned i = 0; i < n; i++) {
		if (changes[i].verb != META_PUT && changes[i].verb != META_DEL)
			return false;
		/* A row has no room for bytes, and only the store knows if a guard holds. */
		if (changes[i].blob != NULL || changes[i].if_content != 0)
			return false;
	}
	return true;
}

static int add(struct meta *m, const struct meta_change *ch)
{
	struct later *old = find(m, ch->path);
	uint64_t was = old != NULL ? old->seq : 0, seq = m->later_seq;
	int err = row_put(m, seq, ch);

	if (err == 0)
		err = take(m, seq, ch);
	if (err != 0) {
		(void)row_del(m, seq);
		return err;
	}
	m->later_seq++;
	return was != 0 ? row_del(m, was) : 0;
}

int later_add(struct meta *m, const struct meta_change *changes, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < n; i++)
		err = add(m, &changes[i]);
	if (m->nlater > 0 && !m->later_running && !timer_armed(&m->later_timer))
		timer_arm(&m->later_timer, m->env.cfg->meta_sync_period);
	return err;
}

uint64_t later_before(struct meta *m, const struct meta_change *changes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (changes[i].path != NULL)
			return later_all(m);
	}
	return 0;
}

uint64_t later_all(struct meta *m)
{
	if (TAILQ_EMPTY(&m->laters))
		return 0;
	meta_flush(m);
	return TAILQ_LAST(&m->laters, later_list)->seq;
}

bool later_passed(const struct meta *m, uint64_t mark)
{
	return mark == 0 || TAILQ_EMPTY(&m->laters) || TAILQ_FIRST(&m->laters)->seq > mark;
}

int later_get(struct meta *m, const char *path, struct meta_record *rec)
{
	struct later *l = m->later != NULL ? find(m, path) : NULL;

	if (l == NULL)
		return -EAGAIN;
	if (l->verb == META_DEL || l->rec.kind == META_PASS)
		return -ENOENT;
	*rec = l->rec;
	return 0;
}

/* The name if path is an entry of the directory, else NULL. */
static const char *entry_of(const char *path, const char *dir)
{
	size_t n = strlen(dir);
	const char *name = path;

	if (n > 0) {
		if (strncmp(path, dir, n) != 0 || path[n] != '/')
			return NULL;
		name = path + n + 1;
	}
	return *name != '\0' && strchr(name, '/') == NULL ? name : NULL;
}

int later_note(struct meta *m, struct meta_call *c)
{
	size_t n = 0, i = 0;
	struct later *l;

	TAILQ_FOREACH (l, &m->laters, link)
		n += entry_of(l->path, c->path) != NULL;
	if (n == 0)
		return 0;
	c->over = calloc(n, sizeof(*c->over));
	if (c->over == NULL)
		return -ENOMEM;
	TAILQ_FOREACH (l, &m->laters, link) {
		const char *name = entry_of(l->path, c->path);

		if (name == NULL || (c->after != NULL && strcmp(name, c->after) <= 0) ||
		    (c->last != NULL && strcmp(name, c->last) > 0))
			continue;
		c->over[i].gone = l->verb == META_DEL || l->rec.kind == META_PASS;
		c->over[i].rec = l->rec;
		memcpy(c->over[i++].name, name, strlen(name) + 1);
	}
	c->nover = i;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct later_entry *)a)->name, ((const struct later_entry *)b)->name);
}

/* The names of what is put in are in the call's `over`, which goes with the arena. */
int later_merge(struct meta_call *c)
{
	size_t bytes = 0, old = 0, n = 0;
	struct meta_entry *out;
	char *at, *arena;

	if (c->nover == 0)
		return 0;
	qsort(c->over, c->nover, sizeof(*c->over), by_name);
	for (size_t i = 0; i < c->nover; i++)
		bytes += strlen(c->over[i].name) + 1;
	for (size_t i = 0; i < c->count; i++)
		bytes += strlen(c->entries[i].name) + 1;
	out = calloc(c->count + c->nover, sizeof(*out));
	at = arena = malloc(bytes);
	if (out == NULL || arena == NULL) {
		free(out);
		free(arena);
		return -ENOMEM;
	}
	for (size_t i = 0; i < c->nover || old < c->count;) {
		int order = i == c->nover	? -1
			    : old == c->count ? 1
					      : strcmp(c->entries[old].name, c->over[i].name);
		const char *name = order < 0 ? c->entries[old].name : c->over[i].name;

		/* Behind the last that the store had room for, others may come. */
		if (order > 0 && old == c->count && c->more)
			break;
		if (order < 0 || !c->over[i].gone) {
			out[n].rec = order < 0 ? c->entries[old].rec : c->over[i].rec;
			out[n++].name = at;
			at = stpcpy(at, name) + 1;
		}
		old += order <= 0;
		i += order >= 0;
	}
	free(c->entries);
	free(c->arena);
	c->entries = out;
	c->arena = arena;
	c->count = n;
	return 0;
}

/* --- Life */

int later_init(struct meta *m)
{
	TAILQ_INIT(&m->laters);
	timer_init(&m->later_timer, m->env.loop, flush_fired);
	m->later_seq = 1;
	m->later_changes = calloc(LATER_BATCH, sizeof(*m->later_changes));
	return m->later_changes != NULL ? 0 : -ENOMEM;
}

static void drop_all(struct meta *m)
{
	struct later *l;

	timer_cancel(&m->later_timer);
	if (m->later_running)
		meta_abort(&m->later_txn.req);
	m->later_running = false;
	while ((l = TAILQ_FIRST(&m->laters)) != NULL)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it left the list */
		forget(m, l);
}

void later_fini(struct meta *m)
{
	drop_all(m);
	free(m->later_changes);
}

static int load_row(struct meta *m, const struct statedb_val *k, const struct statedb_val *v,
    uint64_t *seq)
{
	const unsigned char *p = v->data;
	char path[META_PATH_MAX + 1];
	struct meta_change ch = {.path = path};
	struct meta_row row;
	size_t n;
	int err = 0;

	if (k->len != sizeof(*seq) || v->len < ROW_HEAD || p[0] != LATER_FORMAT ||
	    v->len < (size_t)ROW_HEAD + p[2] || v->len - ROW_HEAD - p[2] > META_PATH_MAX)
		return -EPROTO;
	*seq = meta_get_be64(k->data);
	ch.verb = (enum meta_verb)p[1];
	if (ch.verb == META_PUT)
		err = meta_row_decode(&row, p + ROW_HEAD, p[2]);
	else if (ch.verb != META_DEL)
		err = -EPROTO;
	if (err != 0)
		return err;
	if (ch.verb == META_PUT)
		ch.rec = row.rec;
	n = v->len - ROW_HEAD - p[2];
	memcpy(path, p + ROW_HEAD + p[2], n);
	path[n] = '\0';
	return take(m, *seq, &ch);
}

static int load(struct meta *m)
{
	struct statedb_val k, v;
	unsigned char key[8];
	uint64_t seq = 0;
	int err;

	for (;;) {
		meta_put_be64(key, seq);
		err = statedb_seek(m->db, STATEDB_META_LATER, key, sizeof(key), &k, &v);
		if (err != 0)
			break;
		err = load_row(m, &k, &v, &seq);
		if (err != 0)
			break;
		m->later_seq = ++seq;
	}
	return err == -ENOENT ? 0 : err;
}

int meta_set_db(struct meta *m, struct statedb *db)
{
	int err = 0;

	CHECK_OBJ(m, META_MAGIC);
	drop_all(m);
	m->db = db;
	if (db != NULL)
		err = load(m);
	if (m->nlater > 0)
		timer_arm(&m->later_timer, 0);
	return err;
}
