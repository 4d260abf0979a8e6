/* SPDX-License-Identifier: BSD-2-Clause */
/* The requests that read: what they ask for, and what they get. */
#include <errno.h>
#include <string.h>

#include "base/options.h"
#include "meta/store.h"

#define PAGE_MAX 1000

void meta_get(struct meta *m, struct meta_get *rq, void (*done)(struct meta_req *r, int err))
{
	int err = meta_path_check(rq->path);
	struct meta_call *c =
	    request_new(m, &rq->req, done, META_OP_GET, err == 0 ? request_text_size(rq->path) : 0);
	int waits = -EAGAIN;
	char *at;

	if (c == NULL)
		return;
	at = (char *)(c + 1);
	if (err == 0) {
		c->path = request_text(&at, rq->path);
		waits = later_get(m, rq->path, &c->rec);
	}
	if (waits != -EAGAIN)
		meta_call_end(c, waits);
	else
		request_start(c, err);
}

void meta_scan_free(struct meta_scan *rq)
{
	free(rq->entries);
	free(rq->arena);
	rq->entries = NULL;
	rq->arena = NULL;
	rq->count = 0;
	rq->more = false;
}

void meta_scan(struct meta *m, struct meta_scan *rq, void (*done)(struct meta_req *r, int err))
{
	int err = meta_path_check(rq->path);
	struct meta_call *c;
	char *at;

	if (err == 0 && (request_text_size(rq->after) > META_NAME_MAX + 1 ||
			    request_text_size(rq->last) > META_NAME_MAX + 1))
		err = -ENAMETOOLONG;
	meta_scan_free(rq);
	c = request_new(m, &rq->req, done, META_OP_SCAN,
	    err == 0 ? request_text_size(rq->path) + request_text_size(rq->after) +
			   request_text_size(rq->last)
		     : 0);
	if (c == NULL)
		return;
	at = (char *)(c + 1);
	if (err == 0) {
		c->path = request_text(&at, rq->path);
		c->after = request_text(&at, rq->after);
		c->last = request_text(&at, rq->last);
		c->max = rq->max != 0 ? rq->max : PAGE_MAX;
		c->pass = rq->pass;
		err = later_note(m, c);
	}
	request_start(c, err);
}

void meta_intents_free(struct meta_intents *rq)
{
	free(rq->intents);
	free(rq->arena);
	rq->intents = NULL;
	rq->arena = NULL;
	rq->count = 0;
}

void meta_intents(
    struct meta *m, struct meta_intents *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c;

	meta_intents_free(rq);
	c = request_new(m, &rq->req, done, META_OP_INTENTS, 0);
	if (c != NULL)
		request_start(c, 0);
}

/* --- Content */

void meta_content_free(struct meta_content_get *rq)
{
	free(rq->path);
	free(rq->blob);
	rq->path = NULL;
	rq->blob = NULL;
	rq->len = 0;
}

/* These look at what lies beside the records: so what waits has to be there first. */
static void start_behind(struct meta *m, struct meta_call *c, int err)
{
	if (err == 0)
		c->mark = later_all(m);
	request_start(c, err);
}

void meta_content_get(
    struct meta *m, struct meta_content_get *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c;

	meta_content_free(rq);
	c = request_new(m, &rq->req, done, META_OP_CONTENT, 0);
	if (c == NULL)
		return;
	c->id = rq->id;
	start_behind(m, c, 0);
}

void meta_queue_free(struct meta_queue *rq)
{
	free(rq->entries);
	free(rq->arena);
	rq->entries = NULL;
	rq->arena = NULL;
	rq->count = 0;
	rq->more = false;
}

void meta_queue(struct meta *m, struct meta_queue *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c;

	meta_queue_free(rq);
	c = request_new(m, &rq->req, done, META_OP_QUEUE, 0);
	if (c == NULL)
		return;
	c->after_ns = rq->after_ns;
	c->after_id = rq->after_id;
	c->until_ns = rq->until_ns;
	c->node = rq->node != 0 ? rq->node : meta_self(m);
	c->max = rq->max != 0 ? rq->max : PAGE_MAX;
	start_behind(m, c, 0);
}

/* --- Settings */

void meta_setting_free(struct meta_setting_get *rq)
{
	free(rq->blob);
	rq->blob = NULL;
	rq->len = 0;
	rq->version = 0;
}

void meta_setting_get(
    struct meta *m, struct meta_setting_get *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c;

	meta_setting_free(rq);
	c = request_new(m, &rq->req, done, META_OP_SETTING, 0);
	if (c == NULL)
		return;
	c->id = rq->id;
	request_start(c, 0);
}

/* --- The answer.  What the call has in memory of its own becomes the request's. */

static void give_content(struct meta_call *c)
{
	struct meta_content_get *rq = container_of(c->rq, struct meta_content_get, req);

	rq->path = c->arena;
	rq->rec = c->rec;
	rq->blob = c->blob;
	rq->len = c->blob_len;
}

static void give_queue(struct meta_call *c)
{
	struct meta_queue *rq = container_of(c->rq, struct meta_queue, req);

	rq->entries = c->entries;
	rq->count = c->count;
	rq->more = c->more;
	rq->arena = c->arena;
}

static void give_scan(struct meta_call *c)
{
	struct meta_scan *rq = container_of(c->rq, struct meta_scan, req);

	rq->entries = c->entries;
	rq->count = c->count;
	rq->more = c->more;
	rq->arena = c->arena;
}

static void give_intents(struct meta_call *c)
{
	struct meta_intents *rq = container_of(c->rq, struct meta_intents, req);

	rq->intents = c->intents;
	rq->count = c->count;
	rq->arena = c->arena;
}

static void give_setting(struct meta_call *c)
{
	struct meta_setting_get *rq = container_of(c->rq, struct meta_setting_get, req);

	rq->version = c->version;
	rq->blob = c->blob;
	rq->len = c->blob_len;
}

void request_hand_out(struct meta_call *c)
{
	switch (c->op) {
	case META_OP_GET:
		container_of(c->rq, struct meta_get, req)->rec = c->rec;
		return;
	case META_OP_SCAN:
		give_scan(c);
		break;
	case META_OP_INTENTS:
		give_intents(c);
		break;
	case META_OP_CONTENT:
		give_content(c);
		break;
	case META_OP_QUEUE:
		give_queue(c);
		break;
	case META_OP_SETTING:
		give_setting(c);
		break;
	case META_OP_TXN:
		return;
	}
	c->entries = NULL;
	c->intents = NULL;
	c->arena = NULL;
	c->blob = NULL;
}
