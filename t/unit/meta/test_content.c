/* SPDX-License-Identifier: BSD-2-Clause */
/* What the store accounts for: content, its bytes, the queue, the tally; settings. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/obj.h"
#include "meta_rig.h"

static struct meta_rig g;

static void init(void)
{
	meta_rig_init(&g);
	meta_rig_open(&g);
}

static void fini(void)
{
	meta_rig_settle(&g);
	meta_rig_check(&g);
	meta_rig_fini(&g);
	meta_rig_last();
}

TestSuite(meta_content, .init = init, .fini = fini);

static int one(struct meta_change ch)
{
	return meta_rig_txn(&g, &ch, 1);
}

/* Twice: the effect of once. */
static int twice(struct meta_change ch)
{
	int err = one(ch);

	cr_assert_eq(one(ch), err, "the repetition differs from %d", err);
	return err;
}

static struct meta_change at(const char *path, uint64_t no, uint64_t next_ns)
{
	struct meta_change ch = meta_rig_content(path, no, META_STATE_NOT_PERSISTED, 100);

	ch.rec.content.next_ns = next_ns;
	return ch;
}

static struct meta_change with_bytes(struct meta_change ch, const char *bytes)
{
	ch.blob = bytes;
	ch.blob_len = strlen(bytes);
	ch.rec.content.size = ch.blob_len;
	return ch;
}

static struct meta_change only_if(struct meta_change ch, uint64_t no)
{
	ch.if_content = META_RIG_ID(no);
	return ch;
}

/* The queue's paths as "path path …". */
static const char *queue_from(uint64_t ns, uint64_t id, uint64_t until, size_t max)
{
	static char text[4096];
	struct meta_queue q = { .after_ns = ns, .after_id = id, .until_ns = until, .max = max };
	size_t n = 0;

	cr_assert_eq(meta_rig_queue(&g, &q), 0);
	text[0] = '\0';
	for (size_t i = 0; i < q.count; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", i > 0 ? " " : "",
		    q.entries[i].name);
	if (q.more)
		(void)snprintf(text + n, sizeof(text) - n, " ...");
	meta_queue_free(&q);
	return text;
}

static const char *queue(void)
{
	return queue_from(0, 0, UINT64_MAX, 0);
}

/* "path:bytes", "path" if the store has none, "!ERRNO". */
static const char *content(uint64_t no)
{
	static char text[400];
	struct meta_content_get rq = { .id = META_RIG_ID(no) };
	int err = meta_rig_content_get(&g, &rq);

	if (err != 0)
		(void)snprintf(text, sizeof(text), "!%d", -err);
	else
		(void)snprintf(text, sizeof(text), "%s%s%.*s", rq.path, rq.blob != NULL ? ":" : "",
		    (int)rq.len, rq.blob != NULL ? (const char *)rq.blob : "");
	cr_assert(err != 0 || rq.rec.content.id == META_RIG_ID(no));
	meta_content_free(&rq);
	return text;
}

static void tally(enum meta_state state, uint64_t files, uint64_t bytes)
{
	struct meta_status st;

	if (g.fdb != NULL) /* it is swept a little later there */
		meta_rig_settle(&g);
	st = meta_rig_status(&g);
	cr_assert_eq(st.tally.files[state], files, "%u files", (unsigned)st.tally.files[state]);
	cr_assert_eq(st.tally.bytes[state], bytes, "%u bytes", (unsigned)st.tally.bytes[state]);
}

static void reopen(void)
{
	meta_rig_free(&g);
	meta_rig_open(&g);
}

/* --- Records */

Test(meta_content, comes_back_as_it_was)
{
	struct meta_change ch = meta_rig_content("d/f", 7, META_STATE_FAILED, 12345);
	struct meta_content_get rq = { .id = META_RIG_ID(7) };
	struct meta_content *ct = &ch.rec.content;
	struct meta_record rec;

	ct->policy = META_POLICY_WRITE_THROUGH;
	ct->tail_crc = 0xdeadbeef;
	ct->rewriting = ct->doubt = true;
	ct->since_ns = 1;
	ct->next_ns = 2;
	ct->tries = 3;
	ct->error = -EACCES;
	strcpy(ch.rec.version, "old");
	cr_assert_eq(one(ch), 0);
	cr_assert_eq(meta_rig_get(&g, "d/f", &rec), 0);
	ct->node = meta_self(g.meta);
	cr_assert_eq(memcmp(&rec.content, ct, sizeof(*ct)), 0);
	cr_assert_str_eq(rec.version, "old");
	cr_assert_eq(meta_rig_content_get(&g, &rq), 0);
	cr_assert_str_eq(rq.path, "d/f");
	cr_assert_eq(memcmp(&rq.rec.content, ct, sizeof(*ct)), 0);
	cr_assert_null(rq.blob);
	meta_content_free(&rq);
	/* Without the flag it is not kept. */
	ch.rec.has &= ~META_HAS_CONTENT;
	cr_assert_eq(one(ch), 0);
	cr_assert_eq(meta_rig_get(&g, "d/f", &rec), 0);
	cr_assert_eq(rec.content.id, 0);
	cr_assert_str_eq(content(7), "!2");
	cr_assert_str_eq(queue(), "");
	tally(META_STATE_FAILED, 0, 0);
}

Test(meta_content, what_makes_no_sense)
{
	const struct meta_change good = meta_rig_content("f", 1, META_STATE_NOT_PERSISTED, 3);
	struct meta_change ch = good;

	ch.rec.kind = META_DIR;
	cr_assert_eq(one(ch), -EINVAL);
	ch = good;
	ch.rec.content.id = 1;
	cr_assert_eq(one(ch), -EINVAL);
	ch = good;
	ch.rec.content.state = META_STATE_NONE;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.content.state = META_STATES;
	cr_assert_eq(one(ch), -EINVAL);
	ch = good;
	ch.rec.content.policy = META_POLICY_NO_CACHE;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.content.policy = META_POLICY_TRANSIENT + 1;
	cr_assert_eq(one(ch), -EINVAL);
	ch = with_bytes(good, "four");
	ch.rec.content.size = 5;
	cr_assert_eq(one(ch), -EINVAL, "not all of it");
	ch = meta_rig_file("f", 1);
	ch.blob = "x";
	ch.blob_len = 1;
	cr_assert_eq(one(ch), -EINVAL, "of no content");
	ch = good;
	ch.blob = calloc(1, META_BLOB_MAX + 1);
	ch.rec.content.size = ch.blob_len = META_BLOB_MAX + 1;
	cr_assert_eq(one(ch), -EINVAL);
	ch.rec.content.size = ch.blob_len = META_BLOB_MAX;
	cr_assert_eq(one(ch), 0);
	free((void *)(uintptr_t)ch.blob);
}

Test(meta_content, of_one_record_only)
{
	cr_assert_eq(one(at("a/f", 1, 0)), 0);
	cr_assert_eq(one(at("b", 1, 0)), -EEXIST);
	cr_assert_eq(meta_rig_mode(&g, "b"), -ENOENT);
	cr_assert_str_eq(content(1), "a/f");
	cr_assert_eq(one(meta_rig_del("a")), 0);
	cr_assert_eq(one(at("b", 1, 0)), 0);
	cr_assert_str_eq(content(1), "b");
	tally(META_STATE_NOT_PERSISTED, 1, 100);
}

/* --- Bytes */

Test(meta_content, bytes_are_kept_as_long_as_they_are_needed)
{
	struct meta_change ch = with_bytes(at("f", 1, 0), "bytes");

	cr_assert_eq(twice(ch), 0);
	cr_assert_str_eq(content(1), "f:bytes");
	ch.blob = NULL;
	ch.rec.mode = 0644;
	cr_assert_eq(one(ch), 0);
	cr_assert_str_eq(content(1), "f:bytes");
	cr_assert_eq(one(with_bytes(ch, "BYTES")), 0);
	cr_assert_str_eq(content(1), "f:BYTES");
	cr_assert_eq(one(with_bytes(ch, "more bytes")), 0);
	cr_assert_str_eq(content(1), "f:more bytes");
	ch.rec.content.size = 5000;
	cr_assert_eq(one(ch), 0, "it has grown, and lies in a file now");
	cr_assert_str_eq(content(1), "f");
	cr_assert_eq(one(with_bytes(ch, "")), 0);
	cr_assert_str_eq(content(1), "f:");
	reopen();
	cr_assert_str_eq(content(1), "f:");
	/* Moved. */
	cr_assert_eq(one(with_bytes(ch, "x")), 0);
	cr_assert_eq(one(meta_rig_move("f", "d/e/f")), 0);
	cr_assert_str_eq(content(1), "d/e/f:x");
	cr_assert_eq(one(meta_rig_move("d/e", "e")), 0);
	cr_assert_str_eq(content(1), "e/f:x");
	/* Other content. */
	cr_assert_eq(one(with_bytes(at("e/f", 2, 0), "y")), 0);
	cr_assert_str_eq(content(1), "!2");
	cr_assert_str_eq(content(2), "e/f:y");
	/* Persisted: the record knows the content, the bytes are gone. */
	ch = with_bytes(meta_rig_content("e/f", 2, META_STATE_PERSISTED, 1), "y");
	cr_assert_eq(twice(ch), 0);
	cr_assert_str_eq(content(2), "e/f");
	/* Not uploaded ever: they stay. */
	cr_assert_eq(one(with_bytes(meta_rig_content("t", 3, META_STATE_TRANSIENT, 1), "z")), 0);
	cr_assert_str_eq(content(3), "t:z");
	cr_assert_eq(one(meta_rig_del("t")), 0);
	cr_assert_str_eq(content(3), "!2");
}

/* --- The queue */

Test(meta_content, the_queue_is_in_order)
{
	static const char *const all = "now/a now/b then later failed/1 failed/2";

	cr_assert_str_eq(queue(), "");
	cr_assert_eq(one(meta_rig_content("failed/2", 9, META_STATE_FAILED, 1)), 0);
	cr_assert_eq(one(at("later", 1, 3000)), 0);
	cr_assert_eq(one(meta_rig_content("failed/1", 8, META_STATE_FAILED, 1)), 0);
	cr_assert_eq(one(at("now/b", 6, 0)), 0);
	cr_assert_eq(one(meta_rig_content("done", 2, META_STATE_PERSISTED, 1)), 0);
	cr_assert_eq(one(meta_rig_content("kept", 3, META_STATE_TRANSIENT, 1)), 0);
	cr_assert_eq(one(at("now/a", 5, 0)), 0);
	cr_assert_eq(one(at("then", 4, 2000)), 0);
	cr_assert_eq(one(meta_rig_put(&g, "other", 1) == 0 ? at("then", 4, 2000) : at("", 0, 0)), 0);
	cr_assert_str_eq(queue(), all);
	reopen();
	cr_assert_str_eq(queue(), all);
	cr_assert_str_eq(queue_from(0, 0, 0, 0), "now/a now/b");
	cr_assert_str_eq(queue_from(0, 0, 1999, 0), "now/a now/b");
	cr_assert_str_eq(queue_from(0, 0, 2000, 0), "now/a now/b then");
	cr_assert_str_eq(queue_from(0, 0, UINT64_MAX - 1, 0), "now/a now/b then later");
	cr_assert_str_eq(queue_from(0, META_RIG_ID(5), UINT64_MAX, 2), "now/b then ...");
	cr_assert_str_eq(queue_from(2000, META_RIG_ID(4), UINT64_MAX, 3), "later failed/1 failed/2");
	cr_assert_str_eq(queue_from(UINT64_MAX, META_RIG_ID(8), UINT64_MAX, 3), "failed/2");
	cr_assert_str_eq(queue_from(UINT64_MAX, META_RIG_ID(9), UINT64_MAX, 3), "");
	/* Changed: elsewhere in it, or not in it. */
	cr_assert_eq(one(at("now/a", 5, 2500)), 0);
	cr_assert_eq(one(meta_rig_content("now/b", 6, META_STATE_PERSISTED, 1)), 0);
	cr_assert_eq(one(at("failed/1", 8, 0)), 0);
	cr_assert_eq(one(meta_rig_move("later", "moved")), 0);
	cr_assert_str_eq(queue(), "failed/1 then now/a moved failed/2");
	cr_assert_eq(one(meta_rig_del("failed/1")), 0);
	cr_assert_eq(one(meta_rig_put(&g, "failed/2", 1) == 0 ? meta_rig_del("moved")
							      : at("", 0, 0)), 0);
	cr_assert_str_eq(queue(), "then now/a");
}

/* --- The tally */

Test(meta_content, the_tally)
{
	struct meta_change two[2] = { at("a", 1, 0), at("b", 2, 0) };

	cr_assert_eq(meta_rig_txn(&g, two, 2), 0);
	cr_assert_eq(meta_rig_txn(&g, two, 2), 0);
	tally(META_STATE_NOT_PERSISTED, 2, 200);
	two[0].rec.content.size = 50;
	two[1].rec.content.id = META_RIG_ID(1);
	cr_assert_eq(meta_rig_txn(&g, two, 2), -EEXIST);
	tally(META_STATE_NOT_PERSISTED, 2, 200);
	cr_assert_eq(meta_rig_txn(&g, two, 1), 0);
	tally(META_STATE_NOT_PERSISTED, 2, 150);
	cr_assert_eq(one(meta_rig_content("b", 2, META_STATE_FAILED, 70)), 0);
	cr_assert_eq(one(meta_rig_content("c/d", 3, META_STATE_TRANSIENT, 30)), 0);
	cr_assert_eq(one(meta_rig_content("c/e", 4, META_STATE_PERSISTED, 20)), 0);
	for (int i = 0; i < 2; i++) {
		tally(META_STATE_NOT_PERSISTED, 1, 50);
		tally(META_STATE_FAILED, 1, 70);
		tally(META_STATE_TRANSIENT, 1, 30);
		tally(META_STATE_PERSISTED, 1, 20);
		tally(META_STATE_NONE, 0, 0);
		reopen();
	}
	cr_assert_eq(one(meta_rig_move("a", "b")), 0, "what was there goes");
	tally(META_STATE_FAILED, 0, 0);
	tally(META_STATE_NOT_PERSISTED, 1, 50);
	cr_assert_eq(one(meta_rig_del("c")), 0);
	tally(META_STATE_TRANSIENT, 0, 0);
	tally(META_STATE_PERSISTED, 0, 0);
	cr_assert_eq(meta_rig_put(&g, "b", 1), 0);
	tally(META_STATE_NOT_PERSISTED, 0, 0);
}

/* --- Subtrees */

Test(meta_content, a_deleted_directory_takes_it_along)
{
	static struct meta_change ch[5000];
	static char path[5000][32];

	for (unsigned i = 0; i < ARRAY_LEN(ch); i++) {
		(void)snprintf(path[i], sizeof(path[i]), "big/%u/%u", i % 3, i);
		ch[i] = with_bytes(at(path[i], i + 1, i), "bytes");
	}
	cr_assert_eq(meta_rig_txn(&g, ch, ARRAY_LEN(ch)), 0);
	cr_assert_eq(one(at("other", 6000, 9999)), 0);
	tally(META_STATE_NOT_PERSISTED, 5001, 25100);
	cr_assert_str_eq(queue_from(0, 0, 1, 0), "big/0/0 big/1/1");
	cr_assert_eq(one(meta_rig_del("big")), 0);
	/* Most is still there, under no name. */
	cr_assert_gt(meta_rig_status(&g).tally.files[META_STATE_NOT_PERSISTED], 1000);
	cr_assert_str_eq(queue(), "other");
	cr_assert_str_eq(content(4999), "!2");
	cr_assert_eq(one(at("again", 4999, 1)), 0, "its content may come back");
	cr_assert_str_eq(content(4999), "again");
	reopen();
	meta_rig_settle(&g);
	tally(META_STATE_NOT_PERSISTED, 2, 200);
	cr_assert_str_eq(queue(), "again other");
}

/* --- Guards */

Test(meta_content, puts_of_what_it_was)
{
	struct meta_change ch = at("f", 1, 0);

	cr_assert_eq(twice(only_if(at("f", 1, 0), 1)), -EEXIST, "there is none");
	cr_assert_eq(twice(only_if(at("no/such/f", 1, 0), 1)), -EEXIST);
	cr_assert_eq(meta_rig_put(&g, "f", 1), 0);
	cr_assert_eq(twice(only_if(at("f", 1, 0), 1)), -EEXIST, "it has no content");
	cr_assert_eq(meta_rig_status(&g).records, 1);
	cr_assert_eq(one(ch), 0);
	ch.rec.content.tries = 3;
	cr_assert_eq(twice(only_if(at("f", 3, 0), 2)), -EEXIST);
	cr_assert_eq(twice(only_if(ch, 1)), 0);
	/* Other content in its place: done once, and once more, also when more has changed. */
	ch = only_if(with_bytes(at("f", 2, 0), "two"), 1);
	cr_assert_eq(twice(ch), 0);
	cr_assert_str_eq(content(1), "!2");
	cr_assert_str_eq(content(2), "f:two");
	cr_assert_eq(one(meta_rig_content("f", 2, META_STATE_PERSISTED, 3)), 0);
	cr_assert_eq(one(ch), 0, "has been done");
	cr_assert_str_eq(content(2), "f");
	tally(META_STATE_PERSISTED, 1, 3);
	/* None in its place. */
	cr_assert_eq(twice(only_if(meta_rig_file("f", 0640), 2)), 0);
	cr_assert_eq(meta_rig_mode(&g, "f"), 0640);
	cr_assert_eq(twice(only_if(meta_rig_file("f", 0644), 2)), -EEXIST);
	cr_assert_eq(meta_rig_mode(&g, "f"), 0640);
}

Test(meta_content, deletes_of_what_it_was)
{
	cr_assert_eq(one(at("d/f", 1, 0)), 0);
	cr_assert_eq(twice(only_if(meta_rig_del("d/f"), 2)), -EEXIST);
	cr_assert_eq(twice(only_if(meta_rig_del("d"), 1)), 0, "says nothing");
	cr_assert_str_eq(content(1), "d/f");
	cr_assert_eq(twice(only_if(meta_rig_del("d/f"), 1)), 0);
	cr_assert_str_eq(content(1), "!2");
	cr_assert_eq(one(at("d/f", 2, 0)), 0);
	cr_assert_eq(one(only_if(meta_rig_del("d/f"), 1)), -EEXIST, "somebody else's by now");
	cr_assert_str_eq(content(2), "d/f");
	cr_assert_eq(one(meta_rig_dir("e", 0700)), 0);
	cr_assert_eq(one(only_if(meta_rig_del("e"), 1)), -EEXIST);
}

Test(meta_content, a_guard_that_fails_undoes_the_transaction)
{
	struct meta_change ch[3] = { at("a", 1, 0), meta_rig_file("x/y", 1), at("b", 2, 0) };

	cr_assert_eq(one(at("b", 3, 0)), 0);
	ch[2].if_content = META_RIG_ID(4);
	cr_assert_eq(meta_rig_txn(&g, ch, 3), -EEXIST);
	cr_assert_str_eq(queue(), "b");
	cr_assert_eq(meta_rig_mode(&g, "x/y"), -ENOENT);
	tally(META_STATE_NOT_PERSISTED, 1, 100);
	/* What one change puts, the next may ask for. */
	ch[2].if_content = META_RIG_ID(3);
	cr_assert_eq(meta_rig_txn(&g, ch, 3), 0);
	cr_assert_eq(meta_rig_txn(&g, ch, 3), 0);
	cr_assert_str_eq(queue(), "a b");
}

/* --- Settings */

static int set(const char *text, uint64_t version)
{
	struct meta_change ch = { .verb = META_SETTING_PUT,
		.id = META_SETTING_RULES,
		.blob = text,
		.blob_len = strlen(text),
		.if_version = version };

	return one(ch);
}

static void is_set(const char *text, uint64_t version)
{
	struct meta_setting_get rq = { .id = META_SETTING_RULES };

	cr_assert_eq(meta_rig_setting_get(&g, &rq), 0);
	cr_assert_eq(rq.len, strlen(text));
	cr_assert_str_eq(rq.blob, text);
	cr_assert_eq(rq.version, version);
	meta_setting_free(&rq);
	cr_assert_null(rq.blob);
}

Test(meta_content, settings)
{
	struct meta_setting_get rq = { .id = META_SETTING_RULES };
	char *large = malloc(META_SETTING_MAX + 2);

	cr_assert_eq(meta_rig_setting_get(&g, &rq), -ENOENT);
	cr_assert_eq(set("one", 1), -EEXIST);
	cr_assert_eq(set("one", 0), 0);
	is_set("one", 1);
	cr_assert_eq(set("one", 0), 0, "has been done");
	is_set("one", 1);
	cr_assert_eq(set("two", 0), -EEXIST, "somebody else was here");
	is_set("one", 1);
	cr_assert_eq(set("two", 1), 0);
	cr_assert_eq(set("one", 0), -EEXIST);
	reopen();
	is_set("two", 2);
	cr_assert_eq(set("", 2), 0);
	is_set("", 3);
	memset(large, 'x', META_SETTING_MAX + 1);
	large[META_SETTING_MAX + 1] = '\0';
	cr_assert_eq(set(large, 3), -EINVAL);
	large[META_SETTING_MAX] = '\0';
	cr_assert_eq(set(large, 3), 0);
	is_set(large, 4);
	cr_assert_eq(set("x", UINT64_MAX), -EINVAL);
	free(large);
}
