/* SPDX-License-Identifier: BSD-2-Clause */
#include "meta_rig.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/log.h"
#include "reactor/fdb.h"

void meta_rig_set(struct meta_rig *g, const char *name, const char *value)
{
	struct errtext et;

	cr_assert_eq(config_set(g->cfg, name, value, &et), 0, "%s", et.s);
}

static void use_cluster(struct meta_rig *g)
{
	const char *file = getenv("BATONFS_TEST_FDB_CLUSTER_FILE");
	const char *library = getenv("BATONFS_TEST_FDB_LIBRARY");
	struct errtext et;

	if (file == NULL)
		return;
	if (library != NULL)
		meta_rig_set(g, "meta.fdb.library", library);
	cr_assert_eq(fdb_new(&g->fdb, g->loop, g->cfg->meta_fdb_library, file, &et), 0, "%s", et.s);
}

void meta_rig_last(void)
{
	fdb_end();
}

static void begin(struct meta_rig *g)
{
	memset(g, 0, sizeof(*g));
	log_open("test", LOG_TO_STDERR);
	log_set_level(LOG_LVL_ERROR);
	test_clock_init(&g->clock);
	g->cfg = config_new();
	cr_assert_not_null(g->cfg);
	cr_assert_eq(loop_new(&g->loop, &g->clock.clk), 0);
	cr_assert_eq(pool_new(&g->pool, g->loop, 5), 0);
	use_cluster(g);
}

void meta_rig_init(struct meta_rig *g)
{
	meta_rig_init_in(g, "/tmp");
}

void meta_rig_init_in(struct meta_rig *g, const char *where)
{
	begin(g);
	snprintf(g->top, sizeof(g->top), "%s/batonfs-meta-XXXXXX", where);
	cr_assert_not_null(mkdtemp(g->top));
	snprintf(g->dir, sizeof(g->dir), "%s/meta", g->top);
}

void meta_rig_join(struct meta_rig *g, const struct meta_rig *other)
{
	begin(g);
	snprintf(g->dir, sizeof(g->dir), "%s", other->dir);
}

void meta_rig_new(struct meta_rig *g)
{
	struct meta_env env = {.loop = g->loop,
	    .pool = g->pool,
	    .cfg = g->cfg,
	    .epoch = &g->epoch,
	    .fdb = g->fdb};

	if (g->fdb != NULL)
		meta_rig_set(g, "meta.fdb.prefix", g->dir + 1);
	cr_assert_eq(meta_new(&g->meta, &env, g->dir), 0);
	if (g->is.id == 0)
		g->is = (struct meta_identity){ .id = 1, .name = "one" };
	meta_set_identity(g->meta, &g->is);
}

void meta_rig_open(struct meta_rig *g)
{
	struct meta_status st;

	if (g->meta == NULL)
		meta_rig_new(g);
	meta_open(g->meta);
	meta_rig_settle(g);
	st = meta_rig_status(g);
	cr_assert(st.open, "not open: %s", st.error);
}

static bool step(struct meta_rig *g)
{
	bool ran = loop_turn(g->loop, false);

	bool waits = pool_outstanding(g->pool) > 0 ||
		     (g->fdb != NULL && fdb_outstanding(g->fdb) > 0);

	if (!ran && !waits)
		return loop_turn(g->loop, false);
	if (!ran)
		sched_yield();
	return true;
}

void meta_rig_until(struct meta_rig *g, const bool *flag)
{
	while (!*flag && step(g))
		;
}

void meta_rig_settle(struct meta_rig *g)
{
	const bool never = false;

	meta_rig_until(g, &never);
}

static void closed(void *arg)
{
	*(bool *)arg = true;
}

void meta_rig_close(struct meta_rig *g)
{
	bool done = false;

	meta_close(g->meta, closed, &done);
	cr_assert(!done, "done came inline");
	meta_rig_until(g, &done);
	cr_assert(done, "never closed");
}

void meta_rig_free(struct meta_rig *g)
{
	if (g->meta == NULL)
		return;
	meta_rig_close(g);
	meta_free(&g->meta);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

/* All keys of the rig's prefix, and no wait: there is no loop in this. */
static void meta_rig_clear(struct meta_rig *g)
{
	const struct fdb_api *api = fdb_api(g->fdb);
	FDBTransaction *tr = fdb_transaction(g->fdb);
	uint8_t from[128], end[128];
	int n = snprintf((char *)from, sizeof(from), "%s", g->dir + 1) + 1;

	memcpy(end, from, (size_t)n);
	end[n - 1] = 1;
	cr_assert_not_null(tr);
	do
		api->transaction_clear_range(tr, from, n, end, n);
	while (meta_check_ended(api, tr, api->transaction_commit(tr)) != 0);
	api->transaction_destroy(tr);
}

void meta_rig_fini(struct meta_rig *g)
{
	meta_rig_free(g);
	if (g->fdb != NULL && g->top[0] != '\0')
		meta_rig_clear(g);
	fdb_free(&g->fdb);
	pool_free(&g->pool);
	loop_free(&g->loop);
	config_free(&g->cfg);
	if (g->top[0] != '\0')
		nftw(g->top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

uint64_t meta_rig_counter(const struct meta_rig *g, enum counter_id id)
{
	return loop_counters(g->loop)->v[id];
}

struct meta_status meta_rig_status(const struct meta_rig *g)
{
	struct meta_status st;

	meta_status(g->meta, &st);
	return st;
}

struct meta_check meta_rig_check(const struct meta_rig *g)
{
	return g->fdb != NULL ? meta_check_cluster(g->fdb, g->dir + 1) : meta_check(g->dir);
}

void meta_rig_done(struct meta_req *r, int err)
{
	struct meta_rig_end *end = r->user;

	cr_assert(!end->done, "done twice");
	end->done = true;
	end->err = err;
}

static int wait_end(struct meta_rig *g, const struct meta_rig_end *end)
{
	cr_assert(!end->done, "done came inline");
	meta_rig_until(g, &end->done);
	cr_assert(end->done, "never answered");
	return end->err;
}

int meta_rig_txn(struct meta_rig *g, const struct meta_change *changes, unsigned n)
{
	struct meta_rig_end end = { .done = false };
	struct meta_txn rq = { .req.user = &end, .changes = changes, .n = n };

	meta_txn(g->meta, &rq, meta_rig_done);
	return wait_end(g, &end);
}

int meta_rig_get(struct meta_rig *g, const char *path, struct meta_record *rec)
{
	struct meta_rig_end end = { .done = false };
	struct meta_get rq = { .req.user = &end, .path = path };
	int err;

	meta_get(g->meta, &rq, meta_rig_done);
	err = wait_end(g, &end);
	*rec = rq.rec;
	return err;
}

int meta_rig_scan(struct meta_rig *g, struct meta_scan *scan)
{
	struct meta_rig_end end = { .done = false };

	scan->req.user = &end;
	meta_scan(g->meta, scan, meta_rig_done);
	return wait_end(g, &end);
}

int meta_rig_intents(struct meta_rig *g, struct meta_intents *all)
{
	struct meta_rig_end end = { .done = false };

	all->req.user = &end;
	meta_intents(g->meta, all, meta_rig_done);
	return wait_end(g, &end);
}

int meta_rig_queue(struct meta_rig *g, struct meta_queue *rq)
{
	struct meta_rig_end end = { .done = false };

	rq->req.user = &end;
	meta_queue(g->meta, rq, meta_rig_done);
	return wait_end(g, &end);
}

int meta_rig_content_get(struct meta_rig *g, struct meta_content_get *rq)
{
	struct meta_rig_end end = { .done = false };

	rq->req.user = &end;
	meta_content_get(g->meta, rq, meta_rig_done);
	return wait_end(g, &end);
}

int meta_rig_setting_get(struct meta_rig *g, struct meta_setting_get *rq)
{
	struct meta_rig_end end = { .done = false };

	rq->req.user = &end;
	meta_setting_get(g->meta, rq, meta_rig_done);
	return wait_end(g, &end);
}

struct meta_change meta_rig_content(
    const char *path, uint64_t no, enum meta_state state, uint64_t size)
{
	struct meta_change ch = meta_rig_file(path, 0600);

	ch.rec.has |= META_HAS_CONTENT;
	ch.rec.content = (struct meta_content){ .policy = META_POLICY_WRITE_BACK,
		.state = (uint8_t)state,
		.id = META_RIG_ID(no),
		.size = size };
	if (state == META_STATE_PERSISTED)
		strcpy(ch.rec.version, "etag");
	return ch;
}

struct meta_change meta_rig_file(const char *path, uint32_t mode)
{
	struct meta_change ch = { .verb = META_PUT,
		.path = path,
		.rec = { .kind = META_FILE, .has = META_HAS_MODE, .mode = mode } };

	return ch;
}

struct meta_change meta_rig_dir(const char *path, uint32_t mode)
{
	struct meta_change ch = meta_rig_file(path, mode);

	ch.rec.kind = META_DIR;
	return ch;
}

struct meta_change meta_rig_del(const char *path)
{
	struct meta_change ch = { .verb = META_DEL, .path = path };

	return ch;
}

struct meta_change meta_rig_move(const char *path, const char *to)
{
	struct meta_change ch = { .verb = META_MOVE, .path = path, .to = to };

	return ch;
}

int meta_rig_put(struct meta_rig *g, const char *path, uint32_t mode)
{
	struct meta_change ch = meta_rig_file(path, mode);

	return meta_rig_txn(g, &ch, 1);
}

int meta_rig_mode(struct meta_rig *g, const char *path)
{
	struct meta_record rec;
	int err = meta_rig_get(g, path, &rec);

	return err != 0 ? err : (int)rec.mode;
}

const char *meta_rig_list(struct meta_rig *g, const char *path)
{
	static char text[4096];
	struct meta_scan scan = { .path = path };
	int err = meta_rig_scan(g, &scan);
	size_t n = 0;

	text[0] = '\0';
	if (err != 0)
		snprintf(text, sizeof(text), "!%d", -err);
	for (size_t i = 0; err == 0 && i < scan.count; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i > 0 ? " " : "",
		    scan.entries[i].name);
	meta_scan_free(&scan);
	return text;
}
