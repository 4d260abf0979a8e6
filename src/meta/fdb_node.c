/* SPDX-License-Identifier: BSD-2-Clause */
/* Who has the store open (fdb_priv.h): this node's session and row, and what is seen of
 * the others'. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/options.h"
#include "base/units.h"
#include "meta/fdb_priv.h"

#define NODES_MAGIC 0x3e7afdb2u
#define NODE_VERSION 1
/* Of a row. */
enum {
	AT_SESSION = 1,
	AT_BEAT = 9,
	AT_LEFT = 17,
	AT_CAPACITY = 18,
	AT_NAME_LEN = 26,
	AT_ADDRESS_LEN = 27,
	AT_TEXT = 28
};
#define NODE_ROW_MAX (AT_TEXT + META_NODE_NAME_MAX + META_NODE_ADDRESS_MAX)

/* A row as it was read. */
struct row {
	struct meta_identity is;
	uint64_t session, beat;
	bool left;
	struct meta_tally tally;
};

struct seen {
	struct row row;
	bool beats; /* it was seen to change */
	bool dead;
	uint64_t silent_ns;
};

struct fdb_nodes {
	uint32_t magic;
	struct fdb_store *st;
	struct meta_identity self;
	uint64_t session, beat;
	bool fenced; /* the session is another's now */
	bool open;
	struct timer timer;
	struct seen *seen;
	size_t nseen;
	uint64_t looked; /* monotonic: when they were seen; 0: not since it was opened */
	/* of the look that runs */
	struct row *rows;
	size_t nrows;
	uint64_t fresh_rules;
	uint64_t rules; /* their version when they were last looked at; UINT64_MAX: never */
};

static struct fdb_nodes *nodes_of(const struct fdb_run *t)
{
	struct fdb_nodes *n = fstore_nodes(t->st);

	CHECK_OBJ(n, NODES_MAGIC);
	return n;
}

uint64_t fnode_self(const struct fdb_nodes *n)
{
	return n->self.id;
}

/* --- The session */

static struct fkey session_key(const struct fdb_nodes *n)
{
	return fkey_id('O', n->self.id);
}

static bool is_ours(const struct fdb_nodes *n, const struct fval *v)
{
	return v->len >= 8 && meta_get_be64(v->data) == n->session;
}

int fnode_fenced(struct fdb_run *t)
{
	struct fdb_nodes *n = nodes_of(t);
	const struct fkey k = session_key(n);
	struct fval v;
	int err;

	if (!fstore_is_open(t->st))
		return 0; /* it is the one that takes it */
	err = fkv_get(t, &k, &v);
	if (err != 0 && err != -ENOENT)
		return err;
	if (err == 0 && is_ours(n, &v))
		return 0;
	n->fenced = true;
	return errtext_set(&t->et, -ESTALE,
	    "metadata store %s: another daemon has opened it as this node, %s (%.*s): each mount "
	    "needs a write.staging.dir of its own, and none may be a copy of another",
	    fstore_name(t->st), n->self.name, err == 0 && v.len > 8 ? (int)(v.len - 8) : 4,
	    err == 0 && v.len > 8 ? (const char *)v.data + 8 : "none");
}

/* Whose it is: for the words of whoever finds it taken. */
static int put_session(struct fdb_run *t, const struct fdb_nodes *n)
{
	const struct fkey k = session_key(n);
	unsigned char buf[8 + 128];
	char host[64] = "";
	int len;

	if (gethostname(host, sizeof(host) - 1) != 0)
		host[0] = '\0';
	meta_put_be64(buf, n->session);
	len = snprintf((char *)buf + 8, sizeof(buf) - 8, "%s, pid %d", host, (int)getpid());
	return fkv_force(t, &k, buf, 8 + (size_t)len);
}

/* --- Rows */

static int put_row(struct fdb_run *t, const struct fdb_nodes *n, bool left)
{
	const struct meta_identity *is = &n->self;
	size_t name = strlen(is->name), address = strlen(is->address);
	const struct fkey k = fkey_id('N', is->id);
	unsigned char buf[NODE_ROW_MAX];

	buf[0] = NODE_VERSION;
	meta_put_be64(buf + AT_SESSION, n->session);
	meta_put_be64(buf + AT_BEAT, n->beat);
	buf[AT_LEFT] = left;
	meta_put_be64(buf + AT_CAPACITY, is->capacity);
	buf[AT_NAME_LEN] = (unsigned char)name;
	buf[AT_ADDRESS_LEN] = (unsigned char)address;
	memcpy(buf + AT_TEXT, is->name, name);
	memcpy(buf + AT_TEXT + name, is->address, address);
	return fkv_force(t, &k, buf, AT_TEXT + name + address);
}

/* False: a newer build's, or damage: a node of which only the id is known. */
static bool get_row(const struct frow *at, struct row *row)
{
	const unsigned char *p = at->val.data;
	size_t name, address;

	memset(row, 0, sizeof(*row));
	if (at->key.len != 8)
		return false;
	row->is.id = meta_get_be64(at->key.data);
	if (at->val.len < AT_TEXT || p[0] != NODE_VERSION)
		return true;
	name = p[AT_NAME_LEN];
	address = p[AT_ADDRESS_LEN];
	if (name > META_NODE_NAME_MAX || address > META_NODE_ADDRESS_MAX ||
	    at->val.len != AT_TEXT + name + address)
		return true;
	row->session = meta_get_be64(p + AT_SESSION);
	row->beat = meta_get_be64(p + AT_BEAT);
	row->left = p[AT_LEFT] != 0;
	row->is.capacity = meta_get_be64(p + AT_CAPACITY);
	memcpy(row->is.name, p + AT_TEXT, name);
	memcpy(row->is.address, p + AT_TEXT + name, address);
	return true;
}

int fnode_take(struct fdb_run *t)
{
	struct fdb_nodes *n = nodes_of(t);
	const struct fkey k = session_key(n);
	struct fval v = {.len = 0};
	int err = fkv_get(t, &k, &v);

	if (err != 0 && err != -ENOENT)
		return err;
	/* Who lost it does not take it back. */
	if (n->fenced && err == 0 && !is_ours(n, &v))
		return errtext_set(&t->et, -EBUSY,
		    "metadata store %s: in use by another daemon as this node, %s (%.*s)",
		    fstore_name(t->st), n->self.name, v.len > 8 ? (int)(v.len - 8) : 0,
		    v.len > 8 ? (const char *)v.data + 8 : "");
	err = put_session(t, n);
	return err != 0 ? err : put_row(t, n, false);
}

int fnode_leave(struct fdb_run *t)
{
	return put_row(t, nodes_of(t), true);
}

/* --- The look at all */

static struct row *row_of(struct fdb_nodes *n, uint64_t id)
{
	for (size_t i = 0; i < n->nrows; i++) {
		if (n->rows[i].is.id == id)
			return &n->rows[i];
	}
	return NULL;
}

static int take_rows(struct fdb_nodes *n, const struct frange *r)
{
	free(n->rows);
	n->nrows = 0;
	n->rows = calloc(r->count + 1, sizeof(*n->rows));
	if (n->rows == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < r->count; i++)
		n->nrows += get_row(&r->rows[i], &n->rows[n->nrows]);
	return 0;
}

static void take_tallies(struct fdb_nodes *n, const struct frange *r)
{
	for (size_t i = 0; i < r->count; i++) {
		const struct fval *key = &r->rows[i].key;
		int64_t v = fstore_counter(&r->rows[i].val);
		struct row *row;
		unsigned no;

		if (key->len != 9 || key->data[8] >= COUNT_ROWS || v < 0)
			continue;
		row = row_of(n, meta_get_be64(key->data));
		no = key->data[8];
		if (row != NULL && no < COUNT_BYTES)
			row->tally.files[no] = (uint64_t)v;
		else if (row != NULL)
			row->tally.bytes[no - COUNT_BYTES] = (uint64_t)v;
	}
}

static int read_rules(struct fdb_run *t, struct fdb_nodes *n)
{
	const struct fkey k = fkey_id('s', META_SETTING_RULES);
	struct fval v;
	int err = fkv_get(t, &k, &v);

	n->fresh_rules = err == 0 && v.len >= META_SETTING_HEAD ? meta_get_be64(v.data + 1) : 0;
	return err == -ENOENT ? 0 : err;
}

/* A heartbeat: ours goes out, and those of the others are read.  What is read without a
 * conflict may be as old as the transaction, which is young. */
static int beat(struct fdb_run *t)
{
	const struct fkey from = fkey_of('N', NULL, 0), end = fkey_of('N' + 1, NULL, 0);
	const struct fkey sums = fkey_of('m', NULL, 0), sums_end = fkey_of('m' + 1, NULL, 0);
	struct fdb_nodes *n = nodes_of(t);
	const struct frange *r, *m;
	int err = fkv_range(t, &from, &end, META_NODES_MAX, true, &r);
	int tallies = fkv_range(t, &sums, &sums_end, META_NODES_MAX * COUNT_ROWS, true, &m);
	int rules = read_rules(t, n);

	if (err == 0)
		err = tallies != 0 ? tallies : rules;
	if (err == 0)
		err = take_rows(n, r);
	if (err != 0)
		return err;
	take_tallies(n, m);
	return put_row(t, n, false);
}

/* --- What it says of them */

static void tell(const struct seen *s, const char *what)
{
	log_info("node %s (%016llx): %s", s->row.is.name, (unsigned long long)s->row.is.id, what);
}

static void judge(struct fdb_nodes *n, struct seen *s, const struct seen *was, uint64_t passed)
{
	const struct config *cfg = fstore_env(n->st)->cfg;
	bool changed =
	    was != NULL && (was->row.session != s->row.session || was->row.beat != s->row.beat);

	if (was != NULL && !changed) {
		s->beats = was->beats;
		s->dead = was->dead;
		s->silent_ns = was->silent_ns + passed;
	}
	s->beats = s->beats || changed;
	if (s->row.is.id == n->self.id || s->row.left)
		s->dead = false;
	else if (!s->dead && s->silent_ns >= cfg->meta_node_expiry)
		s->dead = true;
	else
		return;
	if (s->dead && (was == NULL || !was->dead))
		log_warn("node %s (%016llx) is dead: it has said nothing for %llu s; what it has "
			 "not persisted waits for it",
		    s->row.is.name, (unsigned long long)s->row.is.id,
		    (unsigned long long)(s->silent_ns / NS_PER_S));
}

static void compare(struct fdb_nodes *n, struct seen *s, uint64_t passed)
{
	const struct seen *was = NULL;

	for (size_t i = 0; i < n->nseen && was == NULL; i++) {
		if (n->seen[i].row.is.id == s->row.is.id)
			was = &n->seen[i];
	}
	judge(n, s, was, passed);
	if (s->row.is.id == n->self.id)
		return;
	if (was == NULL && n->looked != 0)
		tell(s, "is here now");
	else if (was != NULL && was->row.left != s->row.left)
		tell(s, s->row.left ? "was unmounted" : "is back");
	else if (was != NULL && was->dead && !s->dead)
		tell(s, "lives again");
}

/* Between two looks; more than two heartbeats passed without one, and nothing was heard
 * because nobody listened. */
static uint64_t time_passed(const struct fdb_nodes *n, uint64_t now)
{
	uint64_t most = 2 * fstore_env(n->st)->cfg->meta_node_heartbeat;

	return n->looked == 0 ? 0 : MIN(now - n->looked, most);
}

static void take_look(struct fdb_nodes *n)
{
	uint64_t now = loop_now(fstore_env(n->st)->loop), passed = time_passed(n, now);
	struct seen *seen = calloc(n->nrows + 1, sizeof(*seen));

	if (seen == NULL)
		return; /* the next one will do */
	for (size_t i = 0; i < n->nrows; i++) {
		seen[i].row = n->rows[i];
		compare(n, &seen[i], passed);
	}
	free(n->seen);
	n->seen = seen;
	n->nseen = n->nrows;
	n->looked = MAX(now, 1);
}

static void beaten(struct fdb_run *t, int err)
{
	struct fdb_nodes *n = nodes_of(t);
	bool rules = n->rules != n->fresh_rules;

	if (!n->open)
		return;
	timer_arm(&n->timer, fstore_env(n->st)->cfg->meta_node_heartbeat);
	if (err != 0)
		return; /* there are words of it, and the next one comes */
	take_look(n);
	n->rules = n->fresh_rules;
	fstore_count_again(n->st);
	if (rules)
		meta_rules_changed(fstore_meta(n->st));
}

static void due(struct timer *t)
{
	struct fdb_nodes *n = container_of(t, struct fdb_nodes, timer);

	CHECK_OBJ(n, NODES_MAGIC);
	n->beat++;
	if (!fstore_own(n->st, beat, beaten))
		timer_arm(&n->timer, fstore_env(n->st)->cfg->meta_node_heartbeat);
}

/* --- Life */

void fnodes_opening(struct fdb_nodes *n)
{
	CHECK_OBJ(n, NODES_MAGIC);
	if (!n->fenced)
		n->session = meta_intent_id();
	n->beat++;
}

void fnodes_opened(struct fdb_nodes *n)
{
	CHECK_OBJ(n, NODES_MAGIC);
	n->fenced = false;
	n->open = true;
	n->looked = 0;
	n->rules = UINT64_MAX;
	timer_arm(&n->timer, 0);
}

void fnodes_closing(struct fdb_nodes *n)
{
	CHECK_OBJ(n, NODES_MAGIC);
	n->open = false;
	timer_cancel(&n->timer);
}

void fnodes_identity(struct fdb_nodes *n, const struct meta_identity *id)
{
	CHECK_OBJ(n, NODES_MAGIC);
	assert(id->id != 0 && id->id != UINT64_MAX && !n->open);
	n->self = *id;
}

static enum meta_node_state state_of(const struct fdb_nodes *n, const struct seen *s)
{
	if (s->row.is.id == n->self.id)
		return META_NODE_ALIVE;
	if (s->row.left)
		return META_NODE_LEFT;
	if (s->dead)
		return META_NODE_DEAD;
	return s->beats ? META_NODE_ALIVE : META_NODE_UNKNOWN;
}

static void put_node(const struct fdb_nodes *n, const struct seen *s, struct meta_node *out)
{
	*out = (struct meta_node){.is = s->row.is,
	    .self = s->row.is.id == n->self.id,
	    .state = state_of(n, s),
	    .silent_ns = s->silent_ns,
	    .tally = s->row.tally};
	if (out->self)
		out->silent_ns = 0;
}

size_t fnodes_list(const struct fdb_nodes *n, struct meta_node *out, size_t max)
{
	size_t count = 1;

	if (max == 0)
		return 0;
	/* Before the first look it is alone. */
	out[0] = (struct meta_node){.is = n->self, .self = true, .state = META_NODE_ALIVE};
	for (size_t i = 0; i < n->nseen; i++) {
		if (n->seen[i].row.is.id == n->self.id)
			put_node(n, &n->seen[i], &out[0]);
		else if (count < max)
			put_node(n, &n->seen[i], &out[count++]);
	}
	return count;
}

int fnodes_new(struct fdb_nodes **out, struct fdb_store *st)
{
	struct fdb_nodes *n;

	ALLOC_OBJ(n, NODES_MAGIC);
	*out = n;
	if (n == NULL)
		return -ENOMEM;
	n->st = st;
	do
		n->self.id = meta_intent_id();
	while (n->self.id == UINT64_MAX);
	timer_init(&n->timer, fstore_env(st)->loop, due);
	return 0;
}

void fnodes_free(struct fdb_nodes **np)
{
	struct fdb_nodes *n;

	if (*np == NULL)
		return;
	TAKE_OBJ(n, np, NODES_MAGIC);
	timer_cancel(&n->timer);
	free(n->seen);
	free(n->rows);
	FREE_OBJ(n);
}
