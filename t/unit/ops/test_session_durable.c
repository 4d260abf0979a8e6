/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions under a policy of the write cache, by themselves: made safe, parked, made again
 * from their records, persisted. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "meta_rig.h"
#include "ops/session.h"
#include "ops_rig.h"

#define LARGE (100u * 1024 + 17)

static struct rig r;
static unsigned char content[LARGE + 1];

static void begin(void)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0)
		cr_skip_test("needs root and /dev/fuse");
	rig_mount_writing(&r, "attr_timeout=0,entry_timeout=0");
	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (unsigned char)(i * 7 + i / 4096);
}

static void finish(void)
{
	if (r.loop != NULL)
		rig_free(&r);
}

TestSuite(session_durable, .fini = finish);

/* --- Steps */

struct step {
	bool over;
	int err;
};

static void io_over(struct staged_io *io, int err)
{
	struct step *st = io->user;

	st->over = true;
	st->err = err;
}

static void wait_over(struct session_wait *w, int err)
{
	struct step *st = w->user;

	st->over = true;
	st->err = err;
}

static void meta_over(struct meta_req *rq, int err)
{
	struct step *st = rq->user;

	st->over = true;
	st->err = err;
}

/* A new file that somebody has open for writing, and that the kernel knows. */
static struct session *make(const char *name, enum meta_policy policy)
{
	struct ufs_attr attr = {.kind = UFS_FILE};
	struct session *s;
	struct node n;

	cr_assert_eq(node_make(r.fs, NODE_ROOT, name, name, &attr, true, &n), 0);
	node_count(r.fs, &n);
	cr_assert_eq(session_new_durable(r.fs, &n, name, policy, 0, &s), 0);
	cr_assert_eq(session_add_writer(s, 1), 0);
	return s;
}

static void put(struct session *s, uint64_t off, const void *data, size_t len)
{
	struct step st = {.over = false};
	struct staged_io io = {.sf = s->sf,
	    .off = off,
	    .len = len,
	    .data = data,
	    .done = io_over,
	    .user = &st};

	cr_assert(!session_must_note(s, off));
	session_use(s);
	session_rewriter(s, 1);
	staged_write(&io);
	meta_rig_until(&r, &st.over);
	cr_assert_eq(st.err, 0);
	session_rewriter(s, -1);
	cr_assert_eq(session_wrote(s, off, len), 0);
	session_unuse(s);
}

static void fill(struct session *s, size_t len)
{
	for (size_t off = 0; off < len; off += STAGED_IO_MAX)
		put(s, off, content + off, MIN(len - off, STAGED_IO_MAX));
}

typedef void wait_fn(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err));

static void upload_forced(struct session *s, struct session_wait *w,
    void (*done)(struct session_wait *w, int err))
{
	session_upload(s, w, true, done);
}

static int wait_for(struct session *s, wait_fn *fn)
{
	struct step st = {.over = false};
	struct session_wait w = {.user = &st};

	session_use(s);
	fn(s, &w, wait_over);
	meta_rig_until(&r, &st.over);
	session_unuse(s);
	return st.err;
}

static int secure(struct session *s)
{
	return wait_for(s, session_secure);
}

static bool is_gone(struct rig *rig, void *arg)
{
	(void)arg;
	return rig->fs->sessions == NULL && rig->fs->ended == NULL && rig->fs->nwork == 0;
}

static void until_gone(void)
{
	while (!is_gone(&r, NULL))
		(void)loop_turn(r.loop, false);
}

/* Safe, closed and out of memory: its record. */
static struct meta_record parked(const char *name, enum meta_policy policy, size_t len)
{
	struct session *s = make(name, policy);
	struct meta_record rec;

	fill(s, len);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
	cr_assert_eq(statedb_count(r.db, STATEDB_STAGED), 0);
	while (statedb_count(r.db, STATEDB_EXTENTS) > 0)
		(void)loop_turn(r.loop, true);
	cr_assert_eq(meta_rig_get(&r, name, &rec), 0);
	return rec;
}

static struct meta_content_get *stored(uint64_t id)
{
	static struct meta_content_get g;
	struct step st = {.over = false};

	meta_content_free(&g);
	memset(&g, 0, sizeof(g));
	g.id = id;
	g.req.user = &st;
	meta_content_get(r.fs->meta, &g, meta_over);
	meta_rig_until(&r, &st.over);
	cr_assert_eq(st.err, 0);
	return &g;
}

static struct session *adopt(const char *name)
{
	struct meta_record rec;
	struct meta_content_get *g;
	struct session *s;
	struct node n;

	cr_assert_eq(meta_rig_get(&r, name, &rec), 0);
	g = stored(rec.content.id);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, name, &n), 0);
	cr_assert_eq(session_version_content(n.version), rec.content.id);
	cr_assert_eq(n.size, rec.content.size);
	cr_assert_eq(n.flags & NODE_LOCAL, 0);
	cr_assert_eq(session_adopt(r.fs, &n, &g->rec, g->blob, g->len, &s), 0);
	cr_assert_eq(s->state, SESSION_KEPT);
	meta_content_free(g);
	return s;
}

static void compare(struct session *s, size_t len)
{
	static unsigned char mem[sizeof(content)];
	struct step st = {.over = false};
	struct staged_io io = {.sf = s->sf, .len = sizeof(mem), .done = io_over, .user = &st};

	session_use(s);
	staged_pread(&io, mem);
	meta_rig_until(&r, &st.over);
	session_unuse(s);
	cr_assert_eq(st.err, 0, "%s", strerror(-st.err));
	cr_assert_eq(io.got, len);
	cr_assert_eq(memcmp(mem, content, len), 0);
}

static unsigned staged_files(void)
{
	char dir[128];
	struct dirent *de;
	unsigned n = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/staged", r.tm.src);
	d = opendir(dir);
	while (d != NULL && (de = readdir(d)) != NULL)
		n += de->d_name[0] != '.';
	if (d != NULL)
		closedir(d);
	return n;
}

static void until_no_files(void)
{
	while (staged_files() > 0)
		(void)loop_turn(r.loop, false);
}

static void check_object(const char *name, size_t len)
{
	struct fake_file *ff = fake_find(&r.ufs, name);

	cr_assert_not_null(ff);
	cr_assert_eq(ff->size, len);
	cr_assert_not_null(ff->data);
	cr_assert_eq(memcmp(ff->data, content, len), 0);
}

/* --- Versions */

Test(session_durable, versions_name_the_content)
{
	char v[UFS_VERSION_MAX];
	uint64_t id = META_CONTENT_BIT | 0x1234;

	session_content_version(id, v);
	cr_assert_eq(session_version_content(v), id);
	cr_assert_eq(session_version_content(""), 0);
	cr_assert_eq(session_version_content("~"), 0);
	cr_assert_eq(session_version_content("~0000000000001234"), 0);
	cr_assert_eq(session_version_content("~800000000000123g"), 0);
	cr_assert_eq(session_version_content("d41d8cd98f00b204e9800998ecf8427e"), 0);
}

/* --- Safe, parked, made again */

static void kept_and_made_again(size_t len, bool inlined)
{
	struct meta_record rec;
	struct session *s;

	begin();
	rec = parked("a", META_POLICY_WRITE_BACK, len);
	cr_assert_eq(rec.has & META_HAS_CONTENT, META_HAS_CONTENT);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.policy, META_POLICY_WRITE_BACK);
	cr_assert_eq(rec.content.size, len);
	cr_assert_neq(rec.content.since_ns, 0);
	cr_assert(!rec.content.rewriting && !rec.content.doubt);
	cr_assert_str_empty(rec.version);
	cr_assert_eq(stored(rec.content.id)->len, inlined ? len : 0);
	s = adopt("a");
	compare(s, len);
	session_pump(s);
	until_gone();
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 0);
}

Test(session_durable, a_small_file_is_in_its_record)
{
	kept_and_made_again(10000, true);
}

Test(session_durable, a_larger_one_is_synced)
{
	kept_and_made_again(LARGE, false);
}

Test(session_durable, an_empty_one_is_there_too)
{
	kept_and_made_again(0, false);
}

/* As after a power loss: rows and files are gone, the record has the bytes. */
Test(session_durable, a_small_file_needs_no_staged_file)
{
	struct session *s;
	char cmd[160];

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, 10000);
	snprintf(cmd, sizeof(cmd), "rm -f %s/staged/*", r.tm.src);
	cr_assert_eq(system(cmd), 0);
	s = adopt("a");
	compare(s, 10000);
	session_pump(s);
	until_gone();
}

Test(session_durable, adopting_needs_its_version)
{
	struct ufs_attr attr = {.kind = UFS_FILE, .size = 1, .version = "other"};
	struct meta_record rec;
	struct session *s;
	struct node n;

	begin();
	rec = parked("a", META_POLICY_WRITE_BACK, 10000);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_eq(node_set_version(r.fs, n.id, &attr), 0);
	cr_assert_eq(node_load(r.fs, n.id, &n), 0);
	cr_assert_eq(session_adopt(r.fs, &n, &rec, NULL, 0, &s), -ESTALE);
	rec.content.state = META_STATE_PERSISTED;
	session_content_version(rec.content.id, n.version);
	cr_assert_eq(session_adopt(r.fs, &n, &rec, NULL, 0, &s), -ESTALE);
	cr_assert_null(s);
}

Test(session_durable, what_nobody_made_safe_is_made_so_at_the_last_close)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_TRANSIENT);
	fill(s, LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_TRANSIENT);
	cr_assert_eq(rec.content.size, LARGE);
	s = adopt("a");
	compare(s, LARGE);
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 0, "never uploaded");
}

/* --- It cannot be made safe */

static void fault(const char *spec)
{
	struct errtext et;

	cr_assert_eq(fault_init(spec, &et), 0, "%s", et.s);
}

Test(session_durable, what_cannot_be_made_safe_is_tried_again)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	fault("secure.synced=errno:28");
	cr_assert_eq(secure(s), -ENOSPC);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(meta_rig_get(&r, "a", &rec), -ENOENT);
	cr_assert_eq(session_add_writer(s, -1), 0);
	while (s->state != SESSION_FAILED)
		(void)loop_turn(r.loop, true);
	cr_assert_eq(s->error, -ENOSPC);
	fault("");
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.size, LARGE);
	compare(adopt("a"), LARGE);
}

/* Nobody who waits for a note, or an upload, waits for ever. */
Test(session_durable, what_may_be_recorded_is_recorded_before_anything_else)
{
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE - 1);
	cr_assert_eq(secure(s), 0);
	put(s, LARGE - 1, content + LARGE - 1, 1);
	s->unsure = true;
	fault("secure.synced=errno:5");
	cr_assert_eq(wait_for(s, session_note), -EIO);
	cr_assert_eq(wait_for(s, upload_forced), -EIO);
	cr_assert_eq(s->content.size, LARGE - 1);
	fault("");
	cr_assert_eq(wait_for(s, session_note), 0);
	cr_assert(session_is_safe(s) && !s->unsure);
	cr_assert(s->noted);
	cr_assert_eq(s->content.size, LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	compare(adopt("a"), LARGE);
}

Test(session_durable, never_recorded_and_never_uploaded_it_says_why)
{
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_THROUGH);
	fill(s, LARGE);
	fault("secure.synced=errno:5");
	cr_assert_eq(wait_for(s, upload_forced), -EIO);
	fault("");
	cr_assert_eq(wait_for(s, upload_forced), 0);
	check_object("a", LARGE);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
}

Test(session_durable, of_a_mount_that_ends_it_is_tried_at_once)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	fault("secure.synced=errno:5@1");
	cr_assert_eq(session_add_writer(s, -1), 0);
	while (s->state != SESSION_FAILED)
		(void)loop_turn(r.loop, true);
	s->unsafe = 100;
	fs_close_writers(r.fs);
	cr_assert_eq(fs_unsent(r.fs), 1);
	until_gone();
	cr_assert_eq(fs_unsent(r.fs), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(r.ufs.store.count[FAKE_PUT], 0);
	fault("");
}

/* --- A daemon ends */

Test(session_durable, a_successor_makes_safe_what_was_written)
{
	struct meta_record rec;
	struct session *s;
	uint64_t node;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	fill(s, LARGE);
	rig_restart(&r);
	s = session_of(r.fs, node);
	cr_assert_not_null(s);
	cr_assert_eq(s->state, SESSION_OPEN);
	cr_assert_eq(s->policy, META_POLICY_WRITE_BACK);
	cr_assert(!session_is_safe(s) && !s->recorded);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.size, LARGE);
	s = adopt("a");
	compare(s, LARGE);
	session_pump(s);
	until_gone();
}

Test(session_durable, a_successor_knows_what_is_safe)
{
	struct session *s;
	uint64_t node, id;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	id = s->content.id;
	fill(s, LARGE);
	cr_assert_eq(secure(s), 0);
	rig_restart(&r);
	s = session_of(r.fs, node);
	cr_assert_not_null(s);
	cr_assert(session_is_safe(s));
	cr_assert_eq(s->content.id, id);
	cr_assert_eq(s->content.size, LARGE);
	cr_assert(session_must_note(s, 0));
	put(s, LARGE, content + LARGE, 1);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	compare(adopt("a"), LARGE + 1);
}

/* Rows of programs before there was a write cache are 88 bytes. */
Test(session_durable, rows_without_a_policy_are_as_they_were)
{
	struct fake_file *ff;
	struct statedb_val v;
	struct session *s;
	struct node n;
	uint64_t be;

	begin();
	ff = fake_add(&r.ufs, "old", UFS_FILE, 5, "o1");
	cr_assert_not_null(ff);
	cr_assert_eq(rig_run(&r, rig_stat, (void *)(uintptr_t) "old"), 0);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "old", &n), 0);
	cr_assert_eq(session_new(r.fs, &n, "old", true, 0, &s), 0);
	cr_assert_eq(session_add_writer(s, 1), 0);
	be = htobe64(n.id);
	cr_assert_eq(statedb_get(r.db, STATEDB_SESSIONS, &be, sizeof(be), &v), 0);
	cr_assert_eq(v.len, 88);
	cr_assert_eq(((const unsigned char *)v.data)[0], 1);
	rig_restart(&r);
	s = session_of(r.fs, n.id);
	cr_assert_not_null(s);
	cr_assert_eq(s->policy, META_POLICY_NO_CACHE);
	cr_assert_eq(staged_size(s->sf), 5);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
}

static void damage(uint64_t node, size_t at, unsigned char value, size_t len)
{
	unsigned char row[512];
	struct statedb_val v;
	uint64_t be = htobe64(node);

	cr_assert_eq(statedb_get(r.db, STATEDB_SESSIONS, &be, sizeof(be), &v), 0);
	cr_assert_leq(v.len, sizeof(row));
	memcpy(row, v.data, v.len);
	row[at] = value;
	cr_assert_eq(
	    statedb_put(r.db, STATEDB_SESSIONS, &be, sizeof(be), row, len != 0 ? len : v.len), 0);
}

/* What a row says is believed as a whole or not at all; the files stay. */
Test(session_durable, damaged_rows_are_refused)
{
	static const struct {
		size_t at;
		unsigned char value;
		size_t len;
	} cases[] = {{0, 3, 0}, {0, 1, 0}, {1, 5, 0}, {88, 9, 0}, {88, 0, 0}, {89, 7, 0},
	    {0, 2, 88}, {0, 2, 87}, {0, 2, 100}};
	struct session *s;
	uint64_t node;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	node = s->node;
	fill(s, LARGE);
	cr_assert_eq(secure(s), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct session probe = {.fs = r.fs, .node = node};

		damage(node, cases[i].at, cases[i].value, cases[i].len);
		cr_assert_eq(session_row_load(&probe), -EPROTO, "case %zu", i);
		cr_assert_eq(session_store(s), 0);
		cr_assert_eq(session_row_load(&probe), 0, "case %zu", i);
	}
	damage(node, 0, 9, 0);
	cr_assert_eq(statedb_commit(r.db), 0);
	rig_restart(&r);
	cr_assert_null(session_of(r.fs, node));
	cr_assert_eq(staged_files(), 2, "the file and its sums");
}

/* --- Persisting */

Test(session_durable, persisted_it_is_the_storages)
{
	struct meta_record rec;
	struct session *s;
	struct node n;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	check_object("a", LARGE);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert(!rec.content.doubt);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a")->version);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_str_eq(n.version, rec.version);
	cr_assert_eq(n.size, LARGE);
	until_no_files();
	cr_assert_eq(statedb_count(r.db, STATEDB_SESSIONS), 0);
}

Test(session_durable, write_through_says_so_at_once)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_THROUGH);
	fill(s, 10000);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(wait_for(s, upload_forced), 0);
	check_object("a", 10000);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	/* The same descriptor goes on: it is to be persisted again. */
	put(s, 10000, content + 10000, 5000);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.size, 15000);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a")->version);
	cr_assert_eq(wait_for(s, upload_forced), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	check_object("a", 15000);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a")->version);
	until_no_files();
}

Test(session_durable, a_failure_is_in_the_record)
{
	struct meta_record rec, again;
	struct session *s;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	r.ufs.err = -EACCES;
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), -EACCES);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.tries, 1);
	cr_assert_eq(rec.content.error, -EACCES);
	cr_assert_gt(rec.content.next_ns, loop_wall(r.loop) - 5 * UINT64_C(1000000000));
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), -EACCES);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &again), 0);
	cr_assert_eq(again.content.tries, 2);
	cr_assert_eq(again.content.since_ns, rec.content.since_ns);
	r.ufs.err = 0;
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	check_object("a", LARGE);
	cr_assert_eq(meta_rig_get(&r, "a", &again), 0);
	cr_assert_eq(again.content.state, META_STATE_PERSISTED);
	cr_assert_eq(again.content.tries, 0);
	cr_assert_eq(again.content.error, 0);
}

Test(session_durable, somebody_elses_object_is_not_overwritten)
{
	struct meta_record rec;
	struct session *s;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	fake_add(&r.ufs, "a", UFS_FILE, LARGE, "x1");
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), -EEXIST);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_FAILED);
	cr_assert_eq(rec.content.error, -EEXIST);
	cr_assert_str_eq(fake_find(&r.ufs, "a")->version, "x1");
	/* Both versions are kept, and the local one is shown. */
	s = adopt("a");
	compare(s, LARGE);
	session_pump(s);
	until_gone();
}

static bool put_waits(struct rig *rig, void *arg)
{
	(void)arg;
	return fake_waits(&rig->ufs, FAKE_PUT);
}

/* The object is made, but nobody hears of it: the next daemon finds that it is ours. */
Test(session_durable, an_upload_whose_end_nobody_saw_is_looked_at)
{
	struct meta_record rec;
	struct session_wait w = {.user = NULL};
	struct step st = {.over = false};
	struct session *s;
	unsigned puts;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	s = adopt("a");
	r.ufs.stall = true;
	r.ufs.late_effects = true;
	w.user = &st;
	session_upload(s, &w, true, wait_over);
	while (!put_waits(&r, NULL))
		(void)loop_turn(r.loop, false);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert(rec.content.doubt, "before the first byte");
	rig_restart(&r);
	fake_release(&r.ufs);
	until_gone();
	check_object("a", LARGE);
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	puts = r.ufs.store.count[FAKE_PUT];
	check_object("a", LARGE);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a")->version);
	cr_assert_leq(puts, 2);
}

Test(session_durable, written_during_its_upload_it_waits_for_the_next)
{
	struct session_wait w = {.user = NULL};
	struct step st = {.over = false};
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_THROUGH);
	fill(s, 10000);
	cr_assert_eq(secure(s), 0);
	r.ufs.stall = true;
	w.user = &st;
	session_upload(s, &w, true, wait_over);
	while (!put_waits(&r, NULL))
		(void)loop_turn(r.loop, false);
	put(s, 10000, content + 10000, 100);
	fake_release(&r.ufs);
	meta_rig_until(&r, &st.over);
	cr_assert_eq(st.err, 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(rec.content.size, 10000);
	cr_assert_str_eq(rec.version, fake_find(&r.ufs, "a")->version);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(wait_for(s, upload_forced), 0);
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	check_object("a", 10100);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
}

/* Killed while it uploads, or before it took note of the end: a successor does not wait for
 * the queue, in which it may be no more. */
Test(session_durable, an_upload_that_ran_is_begun_again)
{
	struct meta_record rec;
	struct session *s;
	uint64_t node;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	s = adopt("a");
	node = s->node;
	damage(node, 90, 1 | 16, 0);
	cr_assert_eq(statedb_commit(r.db), 0);
	rig_restart(&r);
	until_gone();
	check_object("a", LARGE);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
}

/* --- Written again after it was made safe */

Test(session_durable, what_is_safe_is_not_overwritten_without_a_note)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	cr_assert(!session_must_note(s, 0), "nothing is safe yet");
	cr_assert_eq(secure(s), 0);
	cr_assert(!session_must_note(s, LARGE), "an append");
	cr_assert(session_must_note(s, LARGE - 1));
	cr_assert_eq(wait_for(s, session_note), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert(rec.content.rewriting);
	cr_assert_eq(rec.content.size, LARGE);
	cr_assert(!session_must_note(s, 0));
	content[5000] ^= 1;
	put(s, 5000, content + 5000, 1);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert(!rec.content.rewriting);
	cr_assert(session_must_note(s, 0));
	cr_assert_eq(session_add_writer(s, -1), 0);
	until_gone();
	compare(adopt("a"), LARGE);
}

Test(session_durable, a_change_under_way_is_not_forgotten_by_the_record)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	session_rewriter(s, 1);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert(rec.content.rewriting);
	session_rewriter(s, -1);
	put(s, LARGE, content + LARGE, 1);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert(!rec.content.rewriting);
}

/* Power loss after a cut that the record was told of, but not what came of it. */
Test(session_durable, cut_by_a_power_loss_it_can_still_be_read)
{
	struct meta_record rec;
	struct session *s;
	char path[160];

	begin();
	rec = parked("a", META_POLICY_WRITE_BACK, LARGE);
	snprintf(path, sizeof(path), "%s/staged/%llx", r.tm.src,
	    (unsigned long long)rec.content.id);
	cr_assert_eq(truncate(path, 5000), 0);
	rec.content.rewriting = true;
	meta_rig_put(&r, "a", &rec);
	memset(content + 5000, 0, LARGE - 5000);
	s = adopt("a");
	compare(s, LARGE);
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	check_object("a", LARGE);
}

/* The bytes in the store are those of the last secure, whatever the size was meanwhile. */
Test(session_durable, a_small_file_that_is_written_again_needs_no_note)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, 10000);
	cr_assert_eq(secure(s), 0);
	cr_assert(!session_must_note(s, 0));
	r.cfg->write_cache_inline = 0;
	content[1] ^= 1;
	put(s, 1, content + 1, 1);
	cr_assert_eq(secure(s), 0);
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(stored(rec.content.id)->len, 10000);
	cr_assert_eq(memcmp(stored(rec.content.id)->blob, content, 10000), 0);
	cr_assert(!rec.content.rewriting);
}

/* --- Attributes */

Test(session_durable, attributes_of_a_kept_file_go_into_the_record)
{
	struct ufs_set set = {
	    .what = UFS_SET_MODE | UFS_SET_MTIME, .mode = 0601, .mtime = {.tv_sec = 7}};
	struct meta_record rec;
	struct session *s;
	struct node n;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, 10000);
	s = adopt("a");
	cr_assert_eq(session_set_attr(s, &set), 0);
	cr_assert(!session_is_safe(s));
	cr_assert_eq(secure(s), 0);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.has & META_HAS_MODE, META_HAS_MODE);
	cr_assert_eq(rec.mode, 0601);
	cr_assert_eq(rec.mtime.tv_sec, 7);
	cr_assert_eq(rec.content.state, META_STATE_NOT_PERSISTED);
	cr_assert_eq(stored(rec.content.id)->len, 10000);
	cr_assert_eq(node_find(r.fs, NODE_ROOT, "a", &n), 0);
	cr_assert_eq(n.mode & 07777, 0601);
	cr_assert_eq(n.mtime.tv_sec, 7);
	/* Made again from the record it brings them along. */
	s = adopt("a");
	cr_assert_eq(wait_for(s, upload_forced), 0);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), 0);
	cr_assert_eq(rec.content.state, META_STATE_PERSISTED);
	cr_assert_eq(rec.mode, 0601);
	cr_assert_eq(rec.mtime.tv_sec, 7);
}

/* --- Unlinked */

static void unlinked(struct session *s)
{
	cr_assert_eq(node_drop_name(r.fs, s->node), 0);
	cr_assert_eq(session_orphan(s), 0);
}

Test(session_durable, an_orphan_is_never_recorded)
{
	struct meta_record rec;
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	unlinked(s);
	cr_assert_eq(r.fs->sessions, NULL);
	until_gone();
	cr_assert_eq(meta_rig_get(&r, "a", &rec), -ENOENT);
	until_no_files();
}

Test(session_durable, an_orphan_while_it_is_made_safe)
{
	struct session_wait w = {.user = NULL};
	struct step st = {.over = false};
	struct session *s;

	begin();
	s = make("a", META_POLICY_WRITE_BACK);
	fill(s, LARGE);
	w.user = &st;
	session_secure(s, &w, wait_over);
	while (s->securing == NULL)
		(void)loop_turn(r.loop, false);
	unlinked(s);
	meta_rig_until(&r, &st.over);
	cr_assert_eq(st.err, 0);
	until_gone();
	until_no_files();
}

Test(session_durable, an_orphan_while_it_is_uploaded)
{
	struct session_wait w = {.user = NULL};
	struct step st = {.over = false};
	struct session *s;

	begin();
	(void)parked("a", META_POLICY_WRITE_BACK, LARGE);
	s = adopt("a");
	r.ufs.stall = true;
	w.user = &st;
	session_upload(s, &w, true, wait_over);
	while (!put_waits(&r, NULL))
		(void)loop_turn(r.loop, false);
	unlinked(s);
	fake_release(&r.ufs);
	meta_rig_until(&r, &st.over);
	until_gone();
	cr_assert_null(fake_find(&r.ufs, "a"));
	until_no_files();
}
