/* SPDX-License-Identifier: BSD-2-Clause */
#include "ufs_fix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/obj.h"

void ufs_fix_limit(void)
{
	(void)alarm(300);
}

void ufs_fix_set(struct ufs_fix *f, const char *name, const char *value)
{
	struct errtext et = { "" };

	cr_assert_eq(config_set(f->cfg, name, value, &et), 0, "%s: %s", name, et.s);
}

void ufs_fix_init(struct ufs_fix *f, const char *endpoint)
{
	struct errtext et = { "" };

	memset(f, 0, sizeof(*f));
	f->keep_data = true;
	f->cfg = config_new();
	cr_assert_not_null(f->cfg);
	ufs_fix_set(f, "ufs.retry.base.interval", "1ms");
	ufs_fix_set(f, "ufs.retry.max.interval", "5ms");
	ufs_fix_set(f, "ufs.timeout", "10s");
	if (endpoint != NULL)
		ufs_fix_set(f, "s3.endpoint", endpoint);
	cr_assert_eq(loop_new(&f->loop, &clock_system), 0);
	cr_assert_eq(pool_new(&f->pool, f->loop, 4), 0);
	cr_assert_eq(http_new(&f->http, f->loop, f->cfg, &et), 0, "%s", et.s);
	f->env.loop = f->loop;
	f->env.pool = f->pool;
	f->env.http = f->http;
	f->env.cfg = f->cfg;
}

void ufs_fix_attach(struct ufs_fix *f, const char *uri)
{
	struct errtext et = { "" };

	cr_assert_eq(ufs_new(&f->ufs, &f->env, uri, &et), 0, "%s", et.s);
}

void ufs_fix_fini(struct ufs_fix *f)
{
	ufs_free(&f->ufs);
	while (pool_outstanding(f->pool) > 0)
		(void)loop_turn(f->loop, true);
	http_free(&f->http);
	pool_free(&f->pool);
	while (loop_turn(f->loop, false))
		;
	loop_free(&f->loop);
	config_free(&f->cfg);
	free(f->data);
}

uint64_t ufs_fix_counter(struct ufs_fix *f, enum counter_id id)
{
	return loop_counters(f->loop)->v[id];
}

void ufs_fix_done(struct ufs_req *r, int err)
{
	struct ufs_fix *f = r->user;

	cr_assert(!f->done, "done was called twice");
	f->done = true;
	f->err = err;
}

void ufs_fix_wait(struct ufs_fix *f)
{
	cr_assert(!f->done, "a request completed inline");
	while (!f->done)
		(void)loop_turn(f->loop, true);
	f->done = false;
}

int ufs_fix_stat(struct ufs_fix *f, const char *path, struct ufs_attr *attr)
{
	struct ufs_stat rq = { .req = { .user = f }, .path = path };

	ufs_stat(f->ufs, &rq, ufs_fix_done);
	ufs_fix_wait(f);
	*attr = rq.attr;
	return f->err;
}

int ufs_fix_list(struct ufs_fix *f, struct ufs_list *rq)
{
	rq->req.user = f;
	ufs_list(f->ufs, rq, ufs_fix_done);
	ufs_fix_wait(f);
	return f->err;
}

static void on_data(struct ufs_read *rq, const void *data, size_t len)
{
	struct ufs_fix *f = rq->req.user;

	if (f->keep_data) {
		if (f->data_len + len > f->data_room) {
			f->data_room = (f->data_len + len) * 2;
			f->data = realloc(f->data, f->data_room);
			cr_assert_not_null(f->data);
		}
		memcpy(f->data + f->data_len, data, len);
	}
	f->data_len += len;
	if (f->abort_at > 0 && f->data_len >= f->abort_at) {
		ufs_abort(&rq->req);
		f->done = true;
		f->err = -ECANCELED;
	}
}

int ufs_fix_read(struct ufs_fix *f, const char *path, const char *version, uint64_t off, size_t len)
{
	struct ufs_read rq = { .req = { .user = f },
		.path = path,
		.version = version,
		.off = off,
		.len = len,
		.on_data = on_data };

	f->data_len = 0;
	ufs_read(f->ufs, &rq, ufs_fix_done);
	ufs_fix_wait(f);
	return f->err;
}

int ufs_fix_check(struct ufs_fix *f, char *words, size_t len)
{
	struct ufs_check rq = { .req = { .user = f } };

	ufs_check(f->ufs, &rq, ufs_fix_done);
	ufs_fix_wait(f);
	(void)snprintf(words, len, "%s", rq.et.s);
	return f->err;
}
