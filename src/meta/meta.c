/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store's life: opened, opened again after failures, closed.  The life of its
 * requests is in request.c.
 */
#include "meta/meta.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/units.h"
#include "meta/store.h"

/* Between two attempts to open a store that failed. */
#define RETRY_NS (3 * NS_PER_S)
/* Between two lines of the log about the same failure. */
#define TELL_NS (60 * NS_PER_S)

static void retry_fired(struct timer *t);

int meta_new(struct meta **out, const struct meta_env *env, const char *dir)
{
	struct meta *m;
	int err;

	*out = NULL;
	ALLOC_OBJ(m, META_MAGIC);
	if (m == NULL)
		return -ENOMEM;
	m->env = *env;
	TAILQ_INIT(&m->calls);
	timer_init(&m->retry, env->loop, retry_fired);
	m->dir = strdup(dir);
	err = later_init(m);
	if (err == 0)
		err = m->dir == NULL	    ? -ENOMEM
		      : m->env.fdb != NULL ? fdb_store_new(&m->be, m, &m->env)
					    : embedded_new(&m->be, m, &m->env, m->dir);
	if (err != 0) {
		meta_free(&m);
		return err;
	}
	*out = m;
	return 0;
}

void meta_free(struct meta **mp)
{
	struct meta *m;

	if (*mp == NULL)
		return;
	TAKE_OBJ(m, mp, META_MAGIC);
	assert(m->state == STORE_CLOSED && m->running == 0 && TAILQ_EMPTY(&m->calls));
	loop_undefer(m->env.loop, &m->nomem_answer);
	later_fini(m);
	if (m->be != NULL)
		m->be->ops->free(m->be);
	free(m->dir);
	FREE_OBJ(m);
}

/* --- Opening */

void meta_open(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->state == STORE_REOPENING)
		return;
	assert(m->state == STORE_CLOSED && m->closed == NULL);
	m->error[0] = '\0';
	m->state = STORE_OPENING;
	m->be->ops->open(m->be);
}

static void retry_fired(struct timer *t)
{
	struct meta *m = container_of(t, struct meta, retry);

	CHECK_OBJ(m, META_MAGIC);
	assert(m->state == STORE_FAILED && !m->trying);
	m->trying = true;
	m->be->ops->open(m->be);
}

void meta_note(struct meta *m, const char *words)
{
	uint64_t now;

	CHECK_OBJ(m, META_MAGIC);
	now = loop_now(m->env.loop);
	/* A failure that goes on is not told all the time. */
	if (m->told == 0 || now - m->told >= TELL_NS ||
	    strncmp(m->error, words, sizeof(m->error) - 1) != 0) {
		log_error("%s", words);
		m->told = now;
	}
	(void)snprintf(m->error, sizeof(m->error), "%s", words);
}

static void fail(struct meta *m, const char *words)
{
	meta_note(m, words);
	m->state = STORE_FAILED;
	m->trying = false;
	timer_arm(&m->retry, RETRY_NS);
	request_fail_waiting(m, -EIO);
}

void meta_opened(struct meta *m, int err, const char *words)
{
	CHECK_OBJ(m, META_MAGIC);
	assert(m->state == STORE_OPENING || (m->state == STORE_FAILED && m->trying));
	if (err != 0) {
		fail(m, words);
		return;
	}
	if (m->error[0] != '\0')
		log_info("metadata store %s: open again", m->dir);
	m->error[0] = '\0';
	m->trying = false;
	m->state = STORE_OPEN;
	request_begin_waiting(m);
}

void meta_lost(struct meta *m, const char *words)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->state != STORE_OPEN)
		return;
	meta_note(m, words);
	m->state = STORE_LOST;
	request_recall(m, -EIO);
	m->be->ops->close(m->be);
}

/* --- Closing */

static void tell_closed(struct deferred *d)
{
	struct meta *m = container_of(d, struct meta, tell);
	void (*done)(void *arg) = m->closed;
	bool again = m->state == STORE_REOPENING;

	m->state = STORE_CLOSED;
	m->closed = NULL;
	if (again)
		meta_open(m);
	else
		done(m->closed_arg);
}

void meta_closed(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->state == STORE_LOST) {
		char words[sizeof(m->error)];

		memcpy(words, m->error, sizeof(words));
		fail(m, words);
		return;
	}
	assert(m->state == STORE_CLOSING || m->state == STORE_REOPENING);
	/* Behind the answers that are on the way. */
	loop_defer(m->env.loop, &m->tell, tell_closed);
}

void meta_close(struct meta *m, void (*done)(void *arg), void *arg)
{
	enum store_state was;

	CHECK_OBJ(m, META_MAGIC);
	was = m->state;
	assert(was != STORE_CLOSING && done != NULL);
	m->closed = done;
	m->closed_arg = arg;
	m->state = STORE_CLOSING;
	timer_cancel(&m->retry);
	request_fail_waiting(m, -ECANCELED);
	request_recall(m, -ECANCELED);
	if (was == STORE_OPENING || was == STORE_OPEN || (was == STORE_FAILED && m->trying))
		m->be->ops->close(m->be);
	else if (was != STORE_LOST && was != STORE_REOPENING)
		meta_closed(m);
	m->trying = false;
}

void meta_unclose(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	assert(m->state == STORE_CLOSING);
	m->state = STORE_REOPENING;
	m->closed = NULL;
}

void meta_status(const struct meta *m, struct meta_status *out)
{
	CHECK_OBJ(m, META_MAGIC);
	memset(out, 0, sizeof(*out));
	out->open = m->state == STORE_OPEN;
	(void)snprintf(out->dir, sizeof(out->dir), "%s", m->dir);
	(void)snprintf(out->error, sizeof(out->error), "%s", m->error);
	m->be->ops->status(m->be, out);
	/* Who finds none there needs to ask for none. */
	out->records += m->nlater;
}

uint64_t meta_intent_id(void)
{
	static uint64_t turn;
	uint64_t id = 0;

	/* A kernel without randomness yet: what no other call has will do. */
	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != (ssize_t)sizeof(id)) {
		const uint64_t seed[2] = { clock_system.wall(&clock_system), ++turn };

		id = hash64(seed, sizeof(seed), 0);
	}
	return id != 0 ? id : 1;
}

/* --- Nodes */

void meta_leave(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->be->ops->leave != NULL)
		m->be->ops->leave(m->be);
}

void meta_set_identity(struct meta *m, const struct meta_identity *id)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->state != STORE_CLOSED)
		return;
	m->identity = *id;
	if (m->be->ops->identity != NULL)
		m->be->ops->identity(m->be, id);
}

uint64_t meta_self(const struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	return m->be->ops->self != NULL ? m->be->ops->self(m->be) : 0;
}

bool meta_is_here(const struct meta *m, const struct meta_content *ct)
{
	return ct->node == 0 || ct->node == meta_self(m);
}

const char *meta_node_state_text(enum meta_node_state state)
{
	switch (state) {
	case META_NODE_UNKNOWN:
		break;
	case META_NODE_ALIVE:
		return "alive";
	case META_NODE_DEAD:
		return "dead";
	case META_NODE_LEFT:
		return "left";
	}
	return "unknown";
}

size_t meta_nodes(const struct meta *m, struct meta_node *out, size_t max)
{
	struct meta_status st = {.open = false};

	CHECK_OBJ(m, META_MAGIC);
	if (m->be->ops->nodes != NULL)
		return m->be->ops->nodes(m->be, out, max);
	if (max == 0)
		return 0;
	m->be->ops->status(m->be, &st);
	*out = (struct meta_node){
	    .is = m->identity, .self = true, .state = META_NODE_ALIVE, .tally = st.tally};
	return 1;
}

bool meta_node_of(const struct meta *m, uint64_t id, struct meta_node *out)
{
	struct meta_node *all = calloc(META_NODES_MAX, sizeof(*all));
	size_t n = all != NULL ? meta_nodes(m, all, META_NODES_MAX) : 0, i = 0;

	while (i < n && all[i].is.id != id)
		i++;
	if (i < n)
		*out = all[i];
	free(all);
	return i < n;
}

const char *meta_node_text(const struct meta *m, uint64_t id, char buf[META_NODE_TEXT])
{
	struct meta_node n;

	if (meta_node_of(m, id, &n) && n.is.name[0] != '\0')
		memcpy(buf, n.is.name, sizeof(n.is.name));
	else
		(void)snprintf(buf, META_NODE_TEXT, "%016llx", (unsigned long long)id);
	return buf;
}

void meta_on_rules(struct meta *m, void (*changed)(void *arg), void *arg)
{
	CHECK_OBJ(m, META_MAGIC);
	m->rules_changed = changed;
	m->rules_arg = arg;
}

void meta_rules_changed(struct meta *m)
{
	CHECK_OBJ(m, META_MAGIC);
	if (m->rules_changed != NULL)
		m->rules_changed(m->rules_arg);
}
