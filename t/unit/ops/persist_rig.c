/* SPDX-License-Identifier: BSD-2-Clause */
#include "persist_rig.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "base/units.h"
#include "meta_rig.h"
#include "ops/persist_priv.h"
#include "ops/session.h"

struct rig pr;
unsigned char pr_bytes[STAGED_INLINE_MAX];

void pr_begin(void)
{
	rig_new_writing(&pr);
	pr.cfg->persist_parallel = 4;
	for (unsigned i = 0; i < sizeof(pr_bytes); i++)
		pr_bytes[i] = (unsigned char)(i * 7 + i / 251);
}

void pr_finish(void)
{
	rig_free(&pr);
}

/* Is there anything but files whose try has failed, and which rest? */
static bool real_work_is_on_its_way(void)
{
	unsigned resting = 0;

	for (const struct persist_file *f = pr.fs->persist->files; f != NULL; f = f->hh.next)
		resting += timer_armed(&f->rest);
	return pr.fs->persist->asking || pr.fs->nwork > resting;
}

/* The disk, and the threads of a busy machine, take real time, and may take much of it: the
 * next try is not to become due meanwhile. */
void pr_serve(void)
{
	static unsigned idle;

	if (loop_turn(pr.loop, false))
		return;
	usleep(50);
	if (!real_work_is_on_its_way() || ++idle % 50 == 0)
		test_clock_advance(&pr.clock, NS_PER_MS);
}

struct meta_tally pr_tally(void)
{
	struct meta_status ms;

	meta_status(pr.meta, &ms);
	return ms.tally;
}

uint64_t pr_id_of(unsigned n)
{
	return META_CONTENT_BIT | (UINT64_C(0x9e3779b97f4a7c15) * (n + 1)) >> 1;
}

struct meta_record pr_record(unsigned n, uint64_t size)
{
	struct meta_record rec = {.kind = META_FILE,
	    .has = META_HAS_CONTENT | META_HAS_MODE | META_HAS_MTIME,
	    .mode = 0640,
	    .mtime = {.tv_sec = 900000000}};

	rec.content = (struct meta_content){.policy = META_POLICY_WRITE_BACK,
	    .state = META_STATE_NOT_PERSISTED,
	    .id = pr_id_of(n),
	    .size = size,
	    .since_ns = loop_wall(pr.loop) - n};
	return rec;
}

static void txn_over(struct meta_req *rq, int err)
{
	cr_assert_eq(err, 0, "%s", strerror(-err));
	*(bool *)rq->user = true;
}

/* turn: of the loop, while the metadata store is at it. */
void pr_commit_record(const char *path, const struct meta_record *rec, void (*turn)(void))
{
	struct meta_change c = {.verb = META_PUT,
	    .path = path,
	    .rec = *rec,
	    .blob = pr_bytes,
	    .blob_len = rec->content.size};
	struct meta_txn txn = {.changes = &c, .n = 1};
	bool over = false;

	txn.req.user = &over;
	meta_txn(pr.meta, &txn, txn_over);
	while (!over)
		turn();
}

void pr_put_record(const char *path, const struct meta_record *rec)
{
	pr_commit_record(path, rec, pr_serve);
	persist_kick(pr.fs);
}

void pr_put(const char *path, unsigned n, uint64_t size)
{
	struct meta_record rec = pr_record(n, size);

	pr_put_record(path, &rec);
}

struct meta_record pr_get(const char *path)
{
	struct meta_record rec;

	cr_assert_eq(meta_rig_get(&pr, path, &rec), 0, "%s has no record", path);
	return rec;
}

bool pr_quiet(void)
{
	return pr.fs->nwork == 0 && pr.fs->sessions == NULL && pr.fs->ended == NULL &&
	       !pr.fs->persist->asking;
}

void pr_until_quiet(void)
{
	do
		pr_serve();
	while (!pr_quiet());
}

void pr_until_persisted(uint64_t files)
{
	while (pr_tally().files[META_STATE_PERSISTED] < files || !pr_quiet())
		pr_serve();
}

static bool no_due_try(void)
{
	return pr_quiet() && pr.fs->persist->end && pr.fs->persist->next_known;
}

void pr_until_waiting_for_the_clock(void)
{
	do
		pr_serve();
	while (!no_due_try());
}

bool pr_same_bytes(const char *path, uint64_t size)
{
	static unsigned char got[sizeof(pr_bytes)];
	struct fake_file *ff = fake_find(&pr.ufs, path);

	return ff != NULL && ff->size == size &&
	       fake_store_bytes(&pr.ufs.store, path, ff->version, 0, got, size) == 0 &&
	       memcmp(got, pr_bytes, size) == 0;
}

unsigned pr_puts_done(void)
{
	return pr.ufs.store.count[FAKE_PUT];
}

void pr_nothing_left(void)
{
	pr_until_quiet();
	cr_assert_eq(statedb_count(pr.db, STATEDB_NODES), 1, "%llu nodes",
	    (unsigned long long)statedb_count(pr.db, STATEDB_NODES));
	cr_assert_eq(statedb_count(pr.db, STATEDB_NAMES), 0);
	cr_assert_eq(statedb_count(pr.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(pr.db, STATEDB_STAGED), 0);
	cr_assert_null(pr.fs->held_nodes);
	cr_assert_null(pr.fs->persist->files);
}
