/* SPDX-License-Identifier: BSD-2-Clause */
/* Futures, watches, cancelling, retries: of the stand-in as of the real library. */
#include "rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

TestSuite(standin_futures, .init = rig_start, .fini = rig_stop);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

struct seen {
	bool called, inside;
	int error, blocked;
	pthread_t thread;
};

static void see(FDBFuture *f, void *arg)
{
	struct seen *s = arg;

	pthread_mutex_lock(&lock);
	s->called = true;
	s->error = fdb.fdb_future_get_error(f);
	s->thread = pthread_self();
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

static void see_called(struct seen *s)
{
	pthread_mutex_lock(&lock);
	while (!s->called)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
}

static bool is_called(struct seen *s)
{
	bool called;

	pthread_mutex_lock(&lock);
	called = s->called;
	pthread_mutex_unlock(&lock);
	return called;
}

Test(standin_futures, a_callback_runs_once_the_future_is_ready)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = ask(tr, "a", false);
	struct seen early = { 0 }, late = { 0 };

	cr_assert_eq(fdb.fdb_future_set_callback(f, see, &early), 0);
	see_called(&early);
	cr_assert_eq(early.error, 0);
	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_set_callback(f, see, &late), 0);
	see_called(&late);
	fdb.fdb_future_destroy(f);
	end(&tr);
}

Test(standin_futures, a_future_that_is_not_ready_has_no_result)
{
	FDBTransaction *tr = begin();
	FDBFuture *f;
	int64_t n;

	set(tr, "a", "1");
	f = fdb.fdb_transaction_watch(tr, K("a"));
	cr_assert_eq(fdb.fdb_future_get_error(f), 2015);
	cr_assert_eq(fdb.fdb_future_get_int64(f, &n), 2015);
	cr_assert_not(fdb.fdb_future_is_ready(f));
	fdb.fdb_future_cancel(f);
	cr_assert_eq(ended(f), 1101);
	end(&tr);
}

static void block_there(FDBFuture *f, void *arg)
{
	struct seen *s = arg;
	FDBFuture *other = fdb.fdb_transaction_watch(*(FDBTransaction **)(s + 1), K("never"));

	(void)f;
	pthread_mutex_lock(&lock);
	s->blocked = fdb.fdb_future_block_until_ready(other);
	s->called = true;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	fdb.fdb_future_destroy(other);
}

Test(standin_futures, the_network_thread_does_not_wait_for_itself)
{
	FDBTransaction *tr = begin();
	struct {
		struct seen seen;
		FDBTransaction *tr;
	} arg = { .tr = tr };
	FDBFuture *f = fdb.fdb_transaction_watch(tr, K("a"));

	cr_assert_eq(fdb.fdb_future_set_callback(f, block_there, &arg), 0);
	fdb.fdb_future_cancel(f);
	see_called(&arg.seen);
	cr_assert_eq(arg.seen.blocked, 2026);
	fdb.fdb_future_destroy(f);
	end(&tr);
}

Test(standin_futures, a_destroyed_future_calls_back_all_the_same)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_watch(tr, K("a"));
	struct seen seen = { 0 };

	cr_assert_eq(fdb.fdb_future_set_callback(f, see, &seen), 0);
	fdb.fdb_future_destroy(f);
	see_called(&seen);
	cr_assert_eq(seen.error, 1101);
	cr_assert_not(pthread_equal(seen.thread, pthread_self()));
	end(&tr);
}

Test(standin_futures, released_memory_is_gone)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = ask(tr, "a", false);
	fdb_bool_t present;
	const uint8_t *at;
	int len;

	cr_assert_eq(waited(f), 0);
	cr_assert_eq(fdb.fdb_future_get_value(f, &present, &at, &len), 0);
	fdb.fdb_future_release_memory(f);
	cr_assert_eq(fdb.fdb_future_get_value(f, &present, &at, &len), 1102);
	fdb.fdb_future_destroy(f);
	end(&tr);
}

Test(standin_futures, a_watch_reports_a_change_by_another)
{
	FDBTransaction *tr = begin();
	FDBFuture *f;
	struct seen seen = { 0 };

	put("a", "1");
	f = fdb.fdb_transaction_watch(tr, K("a"));
	cr_assert_eq(fdb.fdb_future_set_callback(f, see, &seen), 0);
	cr_assert_eq(commit(tr), 0);
	end(&tr); /* it lives on */
	put("b", "1");
	put("a", "1");
	cr_assert_not(is_called(&seen), "neither another key nor the same value");
	put("a", "2");
	see_called(&seen);
	cr_assert_eq(ended(f), 0);
}

Test(standin_futures, a_watch_set_too_late_reports_at_once)
{
	FDBTransaction *tr = begin();
	FDBFuture *f;

	cr_assert_null(get(tr, "a", true));
	put("a", "1");
	f = fdb.fdb_transaction_watch(tr, K("a"));
	cr_assert_eq(commit(tr), 0, "read-only");
	cr_assert_eq(ended(f), 0);
	end(&tr);
}

Test(standin_futures, a_watch_compares_with_the_transactions_own_value)
{
	FDBTransaction *tr = begin();
	FDBFuture *f, *own;

	put("a", "1");
	set(tr, "a", "2");
	f = fdb.fdb_transaction_watch(tr, K("a"));
	own = fdb.fdb_transaction_watch(tr, K("b"));
	set(tr, "b", "changed after");
	cr_assert_eq(ended(own), 0, "before the commit");
	cr_assert_eq(commit(tr), 0);
	cr_assert_not(fdb.fdb_future_is_ready(f));
	put("a", "1");
	cr_assert_eq(ended(f), 0);
	end(&tr);
}

Test(standin_futures, a_watch_ends_with_its_transaction)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_watch(tr, K("a"));

	fdb.fdb_transaction_reset(tr);
	cr_assert_eq(ended(f), 1025);
	get(tr, "b", false);
	put("b", "1");
	f = fdb.fdb_transaction_watch(tr, K("a"));
	set(tr, "c", "1");
	cr_assert_eq(commit(tr), 1020);
	cr_assert_eq(ended(f), 1020);
	end(&tr);
}

Test(standin_futures, watches_are_limited)
{
	FDBDatabase *small;
	FDBTransaction *tr;
	FDBFuture *one, *two;
	int64_t max = 1;

	rig_open(standin_cluster_file(), &small);
	cr_assert_eq(fdb.fdb_database_set_option(small, FDB_DB_MAX_WATCHES, (uint8_t *)&max, 8), 0);
	cr_assert_eq(fdb.fdb_database_create_transaction(small, &tr), 0);
	one = fdb.fdb_transaction_watch(tr, K("a"));
	cr_assert_eq(commit(tr), 0);
	fdb.fdb_transaction_reset(tr);
	two = fdb.fdb_transaction_watch(tr, K("b"));
	cr_assert_eq(commit(tr), 0);
	cr_assert_eq(ended(two), 1032);
	fdb.fdb_future_cancel(one);
	cr_assert_eq(ended(one), 1101);
	end(&tr);
	fdb.fdb_database_destroy(small);
}

Test(standin_futures, a_cancelled_transaction_stays_so_until_it_is_reset)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_watch(tr, K("a"));

	fdb.fdb_transaction_cancel(tr);
	fdb.fdb_future_destroy(f);
	cr_assert_eq(ended(ask(tr, "a", false)), 1025);
	cr_assert_eq(commit(tr), 1025);
	cr_assert_eq(on_error(tr, 1020), 1025);
	fdb.fdb_transaction_reset(tr);
	cr_assert_null(get(tr, "a", false));
	end(&tr);
}

Test(standin_futures, a_timeout_counts_from_the_beginning)
{
	FDBTransaction *tr = begin();
	FDBFuture *f = fdb.fdb_transaction_get_versionstamp(tr);

	option(tr, FDB_TR_TIMEOUT, 20);
	cr_assert_eq(ended(f), 1031);
	cr_assert_eq(ended(ask(tr, "a", false)), 1031);
	cr_assert_eq(on_error(tr, 1031), 1031);
	fdb.fdb_transaction_reset(tr);
	cr_assert_null(get(tr, "a", false));
	end(&tr);
}

Test(standin_futures, after_the_commit_nothing_is_asked)
{
	FDBTransaction *tr = begin();

	set(tr, "a", "1");
	cr_assert_eq(commit(tr), 0);
	cr_assert_eq(ended(ask(tr, "a", false)), 2017);
	end(&tr);
}

Test(standin_futures, on_error_begins_again_or_gives_the_error_back)
{
	FDBTransaction *tr = begin();

	option(tr, FDB_TR_RETRY_LIMIT, 2);
	set(tr, "a", "1");
	cr_assert_eq(on_error(tr, 1020), 0);
	cr_assert_null(get(tr, "a", false), "writes are gone");
	cr_assert_eq(on_error(tr, 1021), 0);
	cr_assert_eq(on_error(tr, 1020), 1020, "two tries, and that stayed set");
	cr_assert_eq(ended(ask(tr, "a", false)), 1025);
	fdb.fdb_transaction_reset(tr);
	cr_assert_eq(on_error(tr, 2004), 2004);
	cr_assert_eq(ended(ask(tr, "a", false)), 1025, "cancelled");
	end(&tr);
}

Test(standin_futures, predicates)
{
	static const struct {
		int code;
		bool retryable, maybe, not;
	} want[] = { { 1007, 1, 0, 1 }, { 1009, 1, 0, 1 }, { 1020, 1, 0, 1 }, { 1021, 1, 1, 0 },
		{ 1037, 1, 0, 1 }, { 1038, 1, 0, 1 }, { 1039, 1, 1, 0 }, { 1031, 0, 0, 0 },
		{ 1025, 0, 0, 0 }, { 2101, 0, 0, 0 } };

	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		int c = want[i].code;

		cr_assert_eq(!!fdb.fdb_error_predicate(50000, c), want[i].retryable, "%d", c);
		cr_assert_eq(!!fdb.fdb_error_predicate(50001, c), want[i].maybe, "%d", c);
		cr_assert_eq(!!fdb.fdb_error_predicate(50002, c), want[i].not, "%d", c);
	}
	cr_assert_eq(fdb.fdb_select_api_version_impl(630, 630), 2201);
	cr_assert_eq(fdb.fdb_setup_network(), 2009);
	cr_assert_eq(fdb.fdb_run_network(), 2025);
}

Test(standin_futures, a_wrong_cluster_file_shows_in_the_transactions)
{
	FDBDatabase *wrong;
	FDBTransaction *tr;

	rig_open("/nonexistent/fdb.cluster", &wrong);
	cr_assert_eq(fdb.fdb_database_create_transaction(wrong, &tr), 0);
	cr_assert_eq(ended(fdb.fdb_transaction_get_read_version(tr)), 1515);
	cr_assert_eq(ended(ask(tr, "a", false)), 1515);
	end(&tr);
	fdb.fdb_database_destroy(wrong);
}
