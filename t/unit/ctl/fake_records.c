/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_records.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "ops/persist.h"
#include "peer/peer.h"

struct fake_record fake_record[FAKE_RECORDS];
int fake_queue_err, fake_act_err;
unsigned fake_acts, fake_pages;
static unsigned nrecords;

void fake_records(const char *dir, unsigned n)
{
	memset(fake_record, 0, sizeof(fake_record));
	fake_queue_err = fake_act_err = 0;
	fake_acts = fake_pages = 0;
	nrecords = n;
	fake.d.meta = n > 0 ? (struct meta *)(void *)&fake : NULL;
	for (unsigned i = 0; i < n; i++) {
		struct meta_record *rec = &fake_record[i].rec;

		snprintf(fake_record[i].path, sizeof(fake_record[i].path), "%sfile-%06u.new", dir,
		    i);
		rec->kind = META_FILE;
		rec->has = META_HAS_CONTENT | META_HAS_MTIME;
		rec->mtime.tv_sec = 1000000000;
		rec->content = (struct meta_content){.policy = META_POLICY_WRITE_BACK,
		    .state = META_STATE_NOT_PERSISTED,
		    .id = META_CONTENT_BIT | (i + 1),
		    .size = 300,
		    .tries = 2,
		    .error = -EIO,
		    .since_ns = loop_wall(fake.d.loop) - 5 * NS_PER_S};
	}
}

/* --- Answers */

struct reply {
	struct deferred df;
	struct meta_req *req;
	int err;
};

static void reply_now(struct deferred *df)
{
	struct reply *re = container_of(df, struct reply, df);
	struct meta_req *req = re->req;
	int err = re->err;

	req->priv = NULL;
	free(re);
	fake.running--;
	req->done(req, err);
}

static void reply_later(struct meta_req *req, int err, void (*done)(struct meta_req *r, int err))
{
	struct reply *re = calloc(1, sizeof(*re));

	re->req = req;
	re->err = err;
	req->done = done;
	req->priv = re;
	fake.running++;
	loop_defer(fake.d.loop, &re->df, reply_now);
}

void meta_abort(struct meta_req *req)
{
	struct reply *re = req->priv;

	if (re == NULL)
		return;
	loop_undefer(fake.d.loop, &re->df);
	free(re);
	req->priv = NULL;
	fake.running--;
}

void meta_status(const struct meta *m, struct meta_status *out)
{
	(void)m;
	*out = (struct meta_status){.open = true, .dir = "/nvme/meta", .records = 5};
	for (unsigned i = 0; i < nrecords; i++) {
		const struct meta_content *c = &fake_record[i].rec.content;

		out->tally.files[c->state]++;
		out->tally.bytes[c->state] += c->size;
	}
}

void meta_get(struct meta *m, struct meta_get *rq, void (*done)(struct meta_req *r, int err))
{
	int err = -ENOENT;

	(void)m;
	for (unsigned i = 0; i < nrecords; i++)
		if (strcmp(fake_record[i].path, rq->path) == 0) {
			rq->rec = fake_record[i].rec;
			err = 0;
		}
	reply_later(&rq->req, err, done);
}

static void page_free(struct meta_entry **entries, size_t *count)
{
	for (size_t i = 0; i < *count; i++)
		free((void *)(uintptr_t)(*entries)[i].name);
	free(*entries);
	*entries = NULL;
	*count = 0;
}

/* --- Nodes: this one alone */

bool meta_is_here(const struct meta *m, const struct meta_content *ct)
{
	(void)m;
	return ct->node == 0;
}

size_t meta_nodes(const struct meta *m, struct meta_node *out, size_t max)
{
	(void)m;
	if (max == 0)
		return 0;
	*out = (struct meta_node){.is = {.name = "here", .capacity = 1000},
	    .self = true,
	    .state = META_NODE_ALIVE};
	return 1;
}

bool meta_node_of(const struct meta *m, uint64_t id, struct meta_node *out)
{
	(void)m;
	(void)id;
	(void)out;
	return false;
}

void peers_status(const struct peers *p, struct peers_status *out)
{
	(void)p;
	memset(out, 0, sizeof(*out));
}

const char *meta_node_text(const struct meta *m, uint64_t id, char buf[META_NODE_TEXT])
{
	(void)m;
	snprintf(buf, META_NODE_TEXT, "%016llx", (unsigned long long)id);
	return buf;
}

const char *meta_node_state_text(enum meta_node_state state)
{
	return state == META_NODE_ALIVE ? "alive" : "unknown";
}

static void page_add(struct meta_entry *entries, size_t *count, const char *name,
    const struct meta_record *rec)
{
	entries[*count].name = strdup(name);
	entries[(*count)++].rec = *rec;
}

void meta_queue_free(struct meta_queue *rq)
{
	page_free(&rq->entries, &rq->count);
}

static bool queued(const struct fake_record *fr, const struct meta_queue *rq)
{
	const struct meta_content *c = &fr->rec.content;
	uint64_t ns = c->state == META_STATE_FAILED ? UINT64_MAX : c->next_ns;

	return (c->state == META_STATE_FAILED || c->state == META_STATE_NOT_PERSISTED) &&
	       (ns > rq->after_ns || (ns == rq->after_ns && c->id > rq->after_id)) &&
	       ns <= rq->until_ns;
}

void meta_queue(struct meta *m, struct meta_queue *rq, void (*done)(struct meta_req *r, int err))
{
	(void)m;
	meta_queue_free(rq);
	cr_assert_leq(rq->max, 1000);
	rq->entries = calloc(rq->max, sizeof(*rq->entries));
	rq->more = false;
	fake_pages++;
	for (unsigned i = 0; i < nrecords; i++) {
		if (!queued(&fake_record[i], rq))
			continue;
		if (rq->count == rq->max) {
			rq->more = true;
			break;
		}
		page_add(rq->entries, &rq->count, fake_record[i].path, &fake_record[i].rec);
	}
	if (fake_queue_err != 0)
		meta_queue_free(rq);
	reply_later(&rq->req, fake_queue_err, done);
}

void meta_scan_free(struct meta_scan *rq)
{
	page_free(&rq->entries, &rq->count);
}

#define SCAN_PAGE 3 /* so that there are many */

void meta_scan(struct meta *m, struct meta_scan *rq, void (*done)(struct meta_req *r, int err))
{
	size_t dir = strlen(rq->path);
	char after[META_NAME_MAX + 1] = "";

	(void)m;
	if (rq->after != NULL)
		snprintf(after, sizeof(after), "%s", rq->after);
	meta_scan_free(rq);
	rq->entries = calloc(SCAN_PAGE, sizeof(*rq->entries));
	rq->more = false;
	for (unsigned i = 0; i < nrecords; i++) {
		const char *name = fake_record[i].path;

		if (dir > 0 && (strncmp(name, rq->path, dir) != 0 || name[dir] != '/'))
			continue;
		name += dir > 0 ? dir + 1 : 0;
		if (strchr(name, '/') != NULL || strcmp(name, after) <= 0)
			continue;
		if (rq->count == SCAN_PAGE) {
			rq->more = true;
			break;
		}
		page_add(rq->entries, &rq->count, name, &fake_record[i].rec);
	}
	reply_later(&rq->req, 0, done);
}

/* --- The write cache */

bool persist_runs(struct fs *fs, uint64_t content)
{
	(void)fs;
	return content == (META_CONTENT_BIT | 1);
}

void persist_info(struct fs *fs, struct persist_info *out)
{
	(void)fs;
	*out = (struct persist_info){.running = 1,
	    .waiting = 7,
	    .waiting_bytes = 700,
	    .failed = 2,
	    .transient = 3,
	    .oldest_ns = loop_wall(fake.d.loop) - 60 * NS_PER_S - NS_PER_S / 2,
	    .pinned_bytes = 1000,
	    .pinned_limit = 3000,
	    .error = "/x: Input/output error"};
}

struct persist_watch *fake_watch;

void persist_watch(struct fs *fs, struct persist_watch *w)
{
	(void)fs;
	fake_watch = w;
}

void persist_unwatch(struct persist_watch *w)
{
	if (fake_watch == w)
		fake_watch = NULL;
}

static struct persist_act *acting;
static struct deferred act_run;

static void act_over(struct deferred *d)
{
	struct persist_act *a = acting;

	(void)d;
	acting = NULL;
	a->done(a, fake_act_err);
}

int persist_act(struct fs *fs, const char *path, bool drop, struct persist_act *a,
    void (*done)(struct persist_act *a, int err))
{
	(void)fs, (void)path, (void)drop;
	fake_acts++;
	a->done = done;
	acting = a;
	loop_defer(fake.d.loop, &act_run, act_over);
	return 0;
}

void persist_act_abort(struct persist_act *a)
{
	cr_assert_eq(a, acting);
	acting = NULL;
	loop_undefer(fake.d.loop, &act_run);
}
/* --- A store that is moved */

char fake_setting[32];
unsigned fake_puts, fake_intents;

void meta_flush(struct meta *m)
{
	(void)m;
}

unsigned meta_waiting(const struct meta *m)
{
	(void)m;
	return 0;
}

void meta_intents(
    struct meta *m, struct meta_intents *rq, void (*done)(struct meta_req *r, int err))
{
	(void)m;
	rq->count = fake_intents;
	reply_later(&rq->req, 0, done);
}

void meta_intents_free(struct meta_intents *rq)
{
	rq->count = 0;
}

void meta_setting_get(
    struct meta *m, struct meta_setting_get *rq, void (*done)(struct meta_req *r, int err))
{
	(void)m;
	cr_assert_eq(rq->id, META_SETTING_IMPORT);
	meta_setting_free(rq);
	rq->blob = strdup(fake_setting);
	rq->len = strlen(fake_setting);
	reply_later(&rq->req, rq->len > 0 ? 0 : -ENOENT, done);
}

void meta_setting_free(struct meta_setting_get *rq)
{
	free(rq->blob);
	rq->blob = NULL;
	rq->len = 0;
}

void meta_txn(struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err))
{
	(void)m;
	if (rq->changes[0].verb == META_SETTING_PUT)
		snprintf(fake_setting, sizeof(fake_setting), "%.*s", (int)rq->changes[0].blob_len,
		    (const char *)rq->changes[0].blob);
	else
		fake_puts += rq->n;
	reply_later(&rq->req, 0, done);
}
