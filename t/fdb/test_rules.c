/* SPDX-License-Identifier: BSD-2-Clause */
/* The rules of FoundationDB that clients build on; true of the real one as well. */
#include "rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(standin_rules, .init = rig_start, .fini = rig_stop);

Test(standin_rules, a_commit_shows_to_later_transactions_only)
{
	FDBTransaction *early = begin(), *late;

	put("a", "1");
	cr_assert_str_eq(get(early, "a", false), "1");
	put("a", "2");
	late = begin();
	cr_assert_str_eq(get(early, "a", false), "1", "a snapshot");
	cr_assert_str_eq(get(late, "a", false), "2");
	end(&early);
	end(&late);
}

Test(standin_rules, own_writes_are_read)
{
	FDBTransaction *tr = begin();

	put("a", "1");
	set(tr, "b", "2");
	clear(tr, "a");
	cr_assert_null(get(tr, "a", false));
	cr_assert_str_eq(get(tr, "b", false), "2");
	cr_assert_str_eq(get(tr, "b", true), "2", "snapshot reads see them, too");
	cr_assert_str_eq(rows(tr, "", "z", 0, false), "b=2");
	set(tr, "a", "3");
	cr_assert_str_eq(rows(tr, "", "z", 0, true), "b=2,a=3");
	cr_assert_str_eq(now("a"), "1", "nobody else does");
	cr_assert_eq(commit(tr), 0);
	cr_assert_str_eq(now("a"), "3");
	end(&tr);
}

Test(standin_rules, own_writes_are_not_read_if_that_is_off)
{
	FDBTransaction *tr = begin();

	cr_assert_eq(fdb.fdb_transaction_set_option(tr, FDB_TR_READ_YOUR_WRITES_DISABLE, NULL, 0), 0);
	set(tr, "a", "1");
	cr_assert_null(get(tr, "a", false));
	end(&tr);
	tr = begin();
	cr_assert_eq(fdb.fdb_transaction_set_option(tr, FDB_TR_SNAPSHOT_RYW_DISABLE, NULL, 0), 0);
	set(tr, "a", "1");
	cr_assert_null(get(tr, "a", true));
	cr_assert_str_eq(get(tr, "a", false), "1");
	end(&tr);
}

/* Reads "r" (snapshot or not), others write "w", then it writes: what the commit says. */
static int race(const char *r, const char *w, bool snapshot)
{
	FDBTransaction *tr = begin();
	int error;

	get(tr, r, snapshot);
	put(w, "other");
	set(tr, "own", "1");
	error = commit(tr);
	end(&tr);
	return error;
}

Test(standin_rules, what_was_read_must_not_have_changed)
{
	cr_assert_eq(race("a", "a", false), 1020);
	cr_assert_eq(race("a", "b", false), 0);
	cr_assert_eq(race("a", "a", true), 0, "a snapshot read");
}

Test(standin_rules, blind_writes_do_not_conflict)
{
	FDBTransaction *x = begin(), *y = begin();

	cr_assert_eq(ended(fdb.fdb_transaction_get_read_version(x)), 0);
	cr_assert_eq(ended(fdb.fdb_transaction_get_read_version(y)), 0);
	set(x, "a", "x");
	set(y, "a", "y");
	cr_assert_eq(commit(x), 0);
	cr_assert_eq(commit(y), 0);
	cr_assert_str_eq(now("a"), "y");
	end(&x);
	end(&y);
}

Test(standin_rules, what_the_transaction_set_itself_does_not_conflict)
{
	FDBTransaction *tr = begin();
	const uint8_t one[8] = { 1 };

	get(tr, "other", false);
	set(tr, "a", "own");
	get(tr, "a", false);
	put("a", "x");
	cr_assert_eq(commit(tr), 0);
	end(&tr);
	tr = begin();
	get(tr, "other", false);
	fdb.fdb_transaction_atomic_op(tr, K("n"), one, 8, 2);
	get(tr, "n", false);
	put("n", "x");
	cr_assert_eq(commit(tr), 1020, "an atomic operation's result depends on others");
	end(&tr);
}

static int range_race(int limit, bool reverse, const char *w)
{
	FDBTransaction *tr = begin();
	int error;

	rows(tr, "a", "z", limit, reverse);
	put(w, "other");
	set(tr, "~own", "1");
	error = commit(tr);
	end(&tr);
	return error;
}

Test(standin_rules, a_range_conflicts_as_far_as_it_was_read)
{
	put("b", "1");
	put("d", "1");
	put("f", "1");
	cr_assert_eq(range_race(0, false, "c"), 1020, "a key that was not there");
	cr_assert_eq(range_race(0, false, "x"), 1020);
	del("c");
	del("x");
	cr_assert_eq(range_race(2, false, "e"), 0, "behind the last row");
	cr_assert_eq(range_race(2, false, "c"), 1020);
	del("c");
	del("e");
	cr_assert_eq(range_race(2, true, "c"), 0, "before the last row, from behind");
	cr_assert_eq(range_race(2, true, "e"), 1020);
}

Test(standin_rules, conflict_ranges_by_hand)
{
	FDBTransaction *tr = begin(), *other = begin();

	get(tr, "x", true);
	get(other, "y", false);
	cr_assert_eq(
	    fdb.fdb_transaction_add_conflict_range(tr, K("a"), K("b"), FDB_CONFLICT_READ), 0);
	set(tr, "own", "1");
	put("a1", "1");
	cr_assert_eq(commit(tr), 1020);
	end(&tr);
	tr = begin();
	cr_assert_eq(
	    fdb.fdb_transaction_add_conflict_range(tr, K("y"), K("z"), FDB_CONFLICT_WRITE), 0);
	cr_assert_eq(commit(tr), 0);
	set(other, "own", "1");
	cr_assert_eq(commit(other), 1020, "as if it had been written");
	end(&tr);
	end(&other);
}

Test(standin_rules, the_next_write_may_go_without_a_conflict_range)
{
	FDBTransaction *reader = begin(), *tr = begin();

	get(reader, "a", false);
	fdb.fdb_transaction_set_option(tr, FDB_TR_NEXT_WRITE_NO_CONFLICT, NULL, 0);
	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 0);
	set(reader, "own", "1");
	cr_assert_eq(commit(reader), 0);
	end(&tr);
	end(&reader);
}

static const char *select_key(FDBTransaction *tr, const char *name, bool or_equal, int offset)
{
	static char text[256];
	struct key k = key(name);
	FDBFuture *f = fdb.fdb_transaction_get_key(tr, k.at, k.len, or_equal, offset, 0);
	const uint8_t *at;
	int len, skip = key("").len;

	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_key(f, &at, &len), 0);
	if (len > skip && memcmp(at, key("").at, (size_t)skip) == 0)
		snprintf(text, sizeof(text), "%.*s", len - skip, (const char *)at + skip);
	else
		snprintf(text, sizeof(text), "out");
	fdb.fdb_future_destroy(f);
	return text;
}

Test(standin_rules, key_selectors)
{
	FDBTransaction *tr = begin();

	put("b", "1");
	put("d", "1");
	set(tr, "f", "own");
	cr_assert_str_eq(select_key(tr, "b", false, 1), "b", "first >= b");
	cr_assert_str_eq(select_key(tr, "b", true, 1), "d", "first > b");
	cr_assert_str_eq(select_key(tr, "d", true, 0), "d", "last <= d");
	cr_assert_str_eq(select_key(tr, "d", false, 0), "b", "last < d");
	cr_assert_str_eq(select_key(tr, "a", false, 3), "f", "two further on");
	cr_assert_str_eq(select_key(tr, "z", false, -1), "d", "one further back");
	clear(tr, "d");
	cr_assert_str_eq(select_key(tr, "b", true, 1), "f");
	cr_assert_str_eq(select_key(tr, "f", true, 100000), "out");
	cr_assert_str_eq(select_key(tr, "b", false, -100000), "out");
	end(&tr);
}

Test(standin_rules, selectors_past_the_ends_stop_there)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_get_key(tr, V("\xfe\xff"), 0, 100000, 0);
	const uint8_t *at;
	int len;

	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_key(f, &at, &len), 0);
	cr_assert(len == 1 && at[0] == 0xff);
	fdb.fdb_future_destroy(f);
	f = fdb.fdb_transaction_get_key(tr, V(""), 0, 0, 0);
	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_key(f, &at, &len), 0);
	cr_assert_eq(len, 0);
	fdb.fdb_future_destroy(f);
	f = fdb.fdb_transaction_get(tr, V("\xff/x"), 0);
	cr_assert_eq(ended(f), 2004, "system keys are out of reach");
	end(&tr);
}

Test(standin_rules, limits_of_ranges)
{
	FDBTransaction *tr = begin();
	struct key a = key("a"), z = key("z");
	const char *text;
	int error;

	for (char c = 'b'; c < 'g'; c++) {
		char name[2] = { c, '\0' };

		put(name, "0123456789");
	}
	cr_assert_str_eq(rows(tr, "a", "z", 2, false), "b=0123456789,c=0123456789+");
	cr_assert_str_eq(rows(tr, "a", "z", 2, true), "f=0123456789,e=0123456789+");
	cr_assert_str_eq(rows(tr, "c", "c", 0, false), "");
	/* One byte: one row, but never none. */
	text = rows_of(fdb.fdb_transaction_get_range(tr, a.at, a.len, 0, 1, z.at, z.len, 0, 1, 0, 1,
			   FDB_MODE_WANT_ALL, 0, 0, 0),
	    &error);
	cr_assert(error == 0 && strcmp(text, "b=0123456789+") == 0, "%d %s", error, text);
	rows_of(fdb.fdb_transaction_get_range(
		    tr, a.at, a.len, 0, 1, z.at, z.len, 0, 1, 0, 0, FDB_MODE_EXACT, 0, 0, 0),
	    &error);
	cr_assert_eq(error, 2210);
	rows_of(fdb.fdb_transaction_get_range(
		    tr, a.at, a.len, 0, 1, z.at, z.len, 0, 1, 0, 0, FDB_MODE_ITERATOR, 0, 0, 0),
	    &error);
	cr_assert_eq(error, 2000, "iterations count from one");
	/* From the second key to the one before the last. */
	text = rows_of(fdb.fdb_transaction_get_range(tr, a.at, a.len, 0, 2, z.at, z.len, 0, 0, 0, 0,
			   FDB_MODE_WANT_ALL, 0, 0, 0),
	    &error);
	cr_assert(error == 0 && strncmp(text, "c=0123456789,d=0123456789,e=0123456789", 38) == 0 &&
		strchr(text, 'f') == NULL,
	    "%d %s", error, text);
	end(&tr);
}

static uint64_t number_now(const char *name)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = ask(tr, name, false);
	fdb_bool_t present;
	const uint8_t *at;
	uint64_t n = 0;
	int len;

	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_value(f, &present, &at, &len), 0);
	cr_assert(present && len == 8);
	memcpy(&n, at, 8);
	fdb.fdb_future_destroy(f);
	end(&tr);
	return n;
}

static void atomic_number(const char *name, int kind, uint64_t n)
{
	FDBTransaction *tr = begin();
	struct key k = key(name);

	fdb.fdb_transaction_atomic_op(tr, k.at, k.len, (uint8_t *)&n, 8, kind);
	cr_assert_eq(commit(tr), 0);
	end(&tr);
}

Test(standin_rules, atomic_operations_on_numbers)
{
	atomic_number("n", 2, 0xff);
	atomic_number("n", 2, 3);
	cr_assert_eq(number_now("n"), 0x102);
	atomic_number("n", 12, 0x200);
	atomic_number("n", 12, 0xff);
	cr_assert_eq(number_now("n"), 0x200, "max, little-endian");
	atomic_number("n", 13, 0x1ff);
	cr_assert_eq(number_now("n"), 0x1ff, "min");
	atomic_number("m", 13, 7);
	cr_assert_eq(number_now("m"), 7, "min of nothing");
	atomic_number("n", 6, 0xf0);
	cr_assert_eq(number_now("n"), 0xf0, "and");
	atomic_number("n", 7, 0x0f);
	cr_assert_eq(number_now("n"), 0xff, "or");
	atomic_number("n", 8, 0x0f);
	cr_assert_eq(number_now("n"), 0xf0, "xor");
	atomic_number("n", 20, 0xf0);
	cr_assert_null(now("n"), "compare and clear");
}

Test(standin_rules, atomic_operations_on_strings)
{
	FDBTransaction *tr = begin();

	put("s", "m");
	fdb.fdb_transaction_atomic_op(tr, K("s"), V("abc"), 16);
	cr_assert_str_eq(get(tr, "s", false), "abc", "byte min");
	fdb.fdb_transaction_atomic_op(tr, K("s"), V("abd"), 17);
	fdb.fdb_transaction_atomic_op(tr, K("s"), V("!"), 9);
	cr_assert_eq(commit(tr), 0);
	cr_assert_str_eq(now("s"), "abd!", "byte max, append if fits");
	end(&tr);
	tr = begin();
	fdb.fdb_transaction_atomic_op(tr, K("s"), V("1"), 3);
	cr_assert_eq(commit(tr), 2018, "no such kind");
	end(&tr);
}

Test(standin_rules, versionstamps)
{
	FDBTransaction *tr = begin();
	FDBFuture *stamp;
	uint8_t name[128], value[15] = { 'v' }, want[10];
	struct key k = key("s/");
	const uint8_t *at;
	const char *text;
	int64_t version;
	int len, error;

	memcpy(name, k.at, (size_t)k.len);
	memset(name + k.len, 0, 14);
	name[k.len + 10] = (uint8_t)k.len;
	value[11] = 1;
	stamp = fdb.fdb_transaction_get_versionstamp(tr);
	fdb.fdb_transaction_atomic_op(tr, name, k.len + 14, V("key"), 14);
	fdb.fdb_transaction_atomic_op(tr, K("val"), value, 15, 15);
	text = got(ask(tr, "val", false), &error);
	cr_assert(text == NULL && error == 1036, "not to be read before: %d", error);
	end(&tr);
	cr_assert_eq(ended(stamp), 1025);

	tr = begin();
	stamp = fdb.fdb_transaction_get_versionstamp(tr);
	fdb.fdb_transaction_atomic_op(tr, name, k.len + 14, V("key"), 14);
	fdb.fdb_transaction_atomic_op(tr, K("val"), value, 15, 15);
	cr_assert_eq(commit(tr), 0);
	cr_assert_eq(fdb.fdb_transaction_get_committed_version(tr, &version), 0);
	cr_assert_eq(waited(stamp), 0);
	cr_assert_eq(fdb.fdb_future_get_key(stamp, &at, &len), 0);
	cr_assert_eq(len, 10);
	memcpy(want, at, 10);
	for (int i = 7; i >= 0; i--, version >>= 8)
		cr_assert_eq(want[i], (uint8_t)version, "the commit's version, big-endian");
	fdb.fdb_future_destroy(stamp);
	end(&tr);

	tr = begin();
	memcpy(name + k.len, want, 10);
	cr_assert_str_eq(got(fdb.fdb_transaction_get(tr, name, k.len + 10, 0), &error), "key");
	stamp = ask(tr, "val", false);
	{
		fdb_bool_t present = 0;

		cr_assert_eq(waited(stamp), 0);
		cr_assert_eq(fdb.fdb_future_get_value(stamp, &present, &at, &len), 0);
		cr_assert(present && len == 11 && at[0] == 'v' && memcmp(at + 1, want, 10) == 0);
	}
	fdb.fdb_future_destroy(stamp);
	end(&tr);
}

Test(standin_rules, limits_of_sizes)
{
	static uint8_t big[100001], long_key[10001];
	FDBTransaction *tr = begin();

	fdb.fdb_transaction_set(tr, K("a"), big, 100001);
	cr_assert_eq(commit(tr), 2103);
	fdb.fdb_transaction_reset(tr);
	fdb.fdb_transaction_set(tr, long_key, 10001, V("1"));
	cr_assert_eq(commit(tr), 2102);
	fdb.fdb_transaction_reset(tr);
	option(tr, FDB_TR_SIZE_LIMIT, 50000);
	fdb.fdb_transaction_set(tr, K("a"), big, 60000);
	cr_assert_eq(commit(tr), 2101);
	cr_assert_eq(on_error(tr, 2101), 2101);
	fdb.fdb_transaction_reset(tr);
	for (int i = 0; i < 105; i++) {
		char name[16];

		snprintf(name, sizeof(name), "big%d", i);
		fdb.fdb_transaction_set(tr, K(name), big, 100000);
	}
	cr_assert_eq(commit(tr), 2101, "ten megabytes");
	end(&tr);
}

Test(standin_rules, a_wrong_range_fails_the_commit)
{
	FDBTransaction *tr = begin();

	fdb.fdb_transaction_clear_range(tr, K("b"), K("a"));
	cr_assert_eq(commit(tr), 2005);
	end(&tr);
	tr = begin();
	option(tr, FDB_TR_SIZE_LIMIT, 1);
	cr_assert_eq(commit(tr), 2006);
	end(&tr);
}

Test(standin_rules, a_read_only_commit_has_no_version)
{
	FDBTransaction *tr = begin();
	FDBFuture *stamp = fdb.fdb_transaction_get_versionstamp(tr);
	int64_t version = 0;

	get(tr, "a", false);
	put("a", "1");
	cr_assert_eq(commit(tr), 0, "and no conflict");
	cr_assert_eq(fdb.fdb_transaction_get_committed_version(tr, &version), 0);
	cr_assert_eq(version, -1);
	cr_assert_eq(ended(stamp), 2021);
	end(&tr);
}

Test(standin_rules, read_versions_do_not_go_back)
{
	FDBTransaction *tr = begin(), *at = begin();
	FDBFuture *f;
	int64_t committed, seen;

	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 0);
	fdb.fdb_transaction_get_committed_version(tr, &committed);
	end(&tr);
	tr = begin();
	f = fdb.fdb_transaction_get_read_version(tr);
	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_int64(f, &seen), 0);
	cr_assert_geq(seen, committed);
	fdb.fdb_future_destroy(f);
	end(&tr);
	put("a", "2");
	fdb.fdb_transaction_set_read_version(at, committed);
	cr_assert_str_eq(get(at, "a", false), "1");
	end(&at);
}
