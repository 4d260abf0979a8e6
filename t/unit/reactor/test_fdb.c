/* SPDX-License-Identifier: BSD-2-Clause */
/* FoundationDB's client: its library, its futures in the loop, its end.  Nothing of it
 * starts twice in a process, and each test has one of its own. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../fdb/standin.h"
#include "../../lib/nth_fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "reactor/fdb.h"
#include "reactor/loop.h"

#define HAS(text, part) cr_assert_not_null(strstr(text, part), "\"%s\" lacks \"%s\"", text, part)

static struct loop *lp;
static struct fdb *f;
static struct errtext et;
static pthread_t loop_thread;
static unsigned threads_before;

static int open_with(const char *library, const char *cluster_file)
{
	et.s[0] = '\0';
	return fdb_new(&f, lp, library, cluster_file, &et);
}

/* Beside those that were there in the beginning. */
static unsigned threads(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	cr_assert_not_null(d);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return n - 2 - threads_before;
}

static void *nothing(void *arg)
{
	return arg;
}

static void start_loop(void)
{
	pthread_t first;

	/* ThreadSanitizer has a thread of its own from the first one on. */
	cr_assert_eq(pthread_create(&first, NULL, nothing, NULL), 0);
	cr_assert_eq(pthread_join(first, NULL), 0);
	log_open("test", LOG_TO_STDERR);
	log_set_level(LOG_LVL_ERROR);
	loop_thread = pthread_self();
	threads_before = threads();
	cr_assert_eq(loop_new(&lp, &clock_system), 0);
}

static void start_place(void)
{
	start_loop();
	if (!standin_real())
		standin_start();
}

static void start(void)
{
	start_place();
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
}

static void stop(void)
{
	fdb_free(&f);
	fdb_end();
	loop_free(&lp);
	standin_stop();
}

/* --- The library and the cluster's file */

TestSuite(fdb_library, .init = start_place, .fini = stop);

Test(fdb_library, one_that_is_not_there)
{
	static const char *const names[] = {"/nowhere/libfdb_c.so", "libfdb_of_nobody.so"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		cr_assert_eq(open_with(names[i], ""), -ENOENT);
		cr_assert_null(f);
		HAS(et.s, "meta.fdb.library");
		HAS(et.s, names[i]);
		HAS(et.s, "install the FoundationDB client");
	}
	cr_assert_eq(threads(), 0);
	cr_assert_eq(
	    open_with(standin_library(), standin_cluster_file()), 0, "a wrong one does no harm");
}

Test(fdb_library, one_that_is_something_else)
{
	cr_assert_eq(open_with("libm.so.6", ""), -ELIBBAD);
	cr_assert_null(f);
	HAS(et.s, "libm.so.6: has no fdb_select_api_version_impl");
	HAS(et.s, "6.3 or later");
	cr_assert_lt(open_with("/proc/self/status", ""), 0, "no library at all");
	HAS(et.s, "/proc/self/status");
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
}

Test(fdb_library, one_that_is_too_old)
{
	if (standin_real())
		cr_skip_test("a real library is of one version");
	setenv("BATONFS_FDB_STANDIN_MAX_API", "620", 1);
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), -EPROTONOSUPPORT);
	cr_assert_null(f);
	HAS(et.s, "offers API version 620, and 630 is needed");
	unsetenv("BATONFS_FDB_STANDIN_MAX_API");
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
}

static void check_version(const char *offers, int want)
{
	if (standin_real())
		cr_skip_test("a real library is of one version");
	setenv("BATONFS_FDB_STANDIN_MAX_API", offers, 1);
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
	cr_assert_eq(fdb_version(f), want);
}

Test(fdb_library, the_oldest_that_will_do)
{
	check_version("630", 630);
}

Test(fdb_library, one_that_is_newer_than_this)
{
	check_version("9999", FDB_API_LAST);
}

Test(fdb_library, a_cluster_file_that_is_none)
{
	char path[160];

	cr_assert_eq(open_with(standin_library(), "/nowhere/fdb.cluster"), -ENOENT);
	HAS(et.s, "meta.fdb.cluster.file /nowhere/fdb.cluster: No such file");
	cr_assert_lt(open_with(standin_library(), "/tmp"), 0);
	HAS(et.s, "/tmp: Is a directory");
	snprintf(path, sizeof(path), "/tmp/batonfs-empty.%d", (int)getpid());
	fclose(fopen(path, "w"));
	cr_assert_eq(open_with(standin_library(), path), -EINVAL);
	HAS(et.s, "is empty");
	unlink(path);
	cr_assert_null(f);
	cr_assert_eq(threads(), 0, "no network for nothing");
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
}

static const char *failed_file;
static unsigned failures;

static void new_run(void)
{
	int err = open_with(standin_library(), failed_file);

	nth_disarm();
	failures += err != 0;
	cr_assert_eq(f == NULL, err != 0);
	cr_assert_eq(et.s[0] == '\0', err == 0, "without words");
	fdb_free(&f);
}

Test(fdb_library, each_allocation_may_fail)
{
	void *library;

	if (standin_real())
		cr_skip_test("a real library has allocations of its own");
	/* Opened already: the dynamic linker's own failures leak. */
	library = dlopen(standin_library(), RTLD_NOW | RTLD_LOCAL);
	cr_assert_not_null(library);
	failed_file = standin_cluster_file();
	for (unsigned n = 1; nth_arm(n), new_run(), nth_fired(); n++)
		;
	dlclose(library);
	cr_assert_gt(failures, 1);
	cr_assert_eq(open_with(standin_library(), failed_file), 0, "and then it works");
}

/* --- Futures */

TestSuite(fdb, .init = start, .fini = stop);

struct get {
	struct fdb_wait w;
	FDBTransaction *tr;
	char key[32];
	unsigned done;
	fdb_error_t code;
	bool present;
};

static void got(struct fdb_wait *w, FDBFuture *future)
{
	struct get *g = container_of(w, struct get, w);
	const uint8_t *val;
	fdb_bool_t present = 0;
	int len = 0;

	cr_assert(pthread_equal(pthread_self(), loop_thread));
	g->done++;
	g->code = fdb_api(f)->future_get_value(future, &present, &val, &len);
	g->present = present != 0;
	if (g->present)
		cr_assert(len == (int)strlen(g->key) && memcmp(val, g->key, (size_t)len) == 0,
		    "the value of another key");
}

static FDBFuture *ask(struct get *g)
{
	return fdb_api(f)->transaction_get(g->tr, (const uint8_t *)g->key, (int)strlen(g->key), 1);
}

static void get_start(struct get *g, unsigned no)
{
	memset(g, 0, sizeof(*g));
	snprintf(g->key, sizeof(g->key), "t/unit/%d/%u", (int)getpid(), no);
	g->tr = fdb_transaction(f);
	cr_assert_not_null(g->tr);
	cr_assert_eq(fdb_wait(f, &g->w, ask(g), got), 0);
	cr_assert_eq(g->done, 0, "never inline");
}

static void get_end(struct get *g)
{
	fdb_abort(&g->w);
	if (g->tr != NULL)
		fdb_api(f)->transaction_destroy(g->tr);
	g->tr = NULL;
}

static void turn_until_none(void)
{
	while (fdb_outstanding(f) > 0)
		loop_turn(lp, true);
}

#define KEYS 200

/* Every second key has its own name for a value; clear: none has. */
static void prepare(bool clear)
{
	const struct fdb_api *api = fdb_api(f);
	FDBTransaction *tr = fdb_transaction(f);
	struct get g;
	FDBFuture *end;
	fdb_error_t code;

	do {
		for (unsigned i = 0; i < KEYS; i += 2) {
			int len = snprintf(g.key, sizeof(g.key), "t/unit/%d/%u", (int)getpid(), i);
			const uint8_t *key = (const uint8_t *)g.key;

			if (clear)
				api->transaction_clear(tr, key, len);
			else
				api->transaction_set(tr, key, len, key, len);
		}
		end = api->transaction_commit(tr);
		cr_assert_eq(api->future_block_until_ready(end), 0);
		code = api->future_get_error(end);
		api->future_destroy(end);
		if (code != 0) {
			end = api->transaction_on_error(tr, code);
			cr_assert_eq(api->future_block_until_ready(end), 0);
			cr_assert_eq(api->future_get_error(end), 0);
			api->future_destroy(end);
		}
	} while (code != 0);
	api->transaction_destroy(tr);
}

Test(fdb, each_future_ends_once_in_any_order)
{
	static struct get g[KEYS];

	prepare(false);
	for (unsigned i = 0; i < KEYS; i++)
		get_start(&g[i], i);
	cr_assert_eq(fdb_outstanding(f), KEYS);
	turn_until_none();
	for (unsigned i = 0; i < KEYS; i++) {
		cr_assert_eq(g[i].done, 1);
		cr_assert_eq(g[i].code, 0);
		cr_assert_eq(g[i].present, i % 2 == 0);
		cr_assert_null(g[i].w.seat);
		get_end(&g[i]);
	}
	prepare(true);
}

/* The call back runs inline then. */
Test(fdb, one_that_is_ready_before_it_is_waited_for)
{
	struct get g = {.key = "t/unit/none"};
	FDBFuture *future;

	g.tr = fdb_transaction(f);
	future = ask(&g);
	cr_assert_eq(fdb_api(f)->future_block_until_ready(future), 0);
	cr_assert_eq(fdb_wait(f, &g.w, future, got), 0);
	cr_assert_eq(g.done, 0, "never inline");
	cr_assert_eq(fdb_outstanding(f), 1);
	turn_until_none();
	cr_assert_eq(g.done, 1);
	get_end(&g);
}

static void got_and_asks(struct fdb_wait *w, FDBFuture *future)
{
	struct get *g = container_of(w, struct get, w);

	got(w, future);
	if (g->done < 5)
		cr_assert_eq(fdb_wait(f, &g->w, ask(g), got_and_asks), 0);
}

Test(fdb, the_next_one_from_within_the_last)
{
	struct get g = {.key = "t/unit/none"};

	g.tr = fdb_transaction(f);
	cr_assert_eq(fdb_wait(f, &g.w, ask(&g), got_and_asks), 0);
	turn_until_none();
	cr_assert_eq(g.done, 5);
	get_end(&g);
}

Test(fdb, none_at_all_is_out_of_memory)
{
	struct get g = {.done = 0};

	cr_assert_eq(fdb_wait(f, &g.w, NULL, got), -ENOMEM);
	cr_assert_null(g.w.seat);
	cr_assert_eq(fdb_outstanding(f), 0);
	fdb_abort(&g.w);
}

static void cluster_holds(void)
{
	if (standin_real())
		cr_skip_test("a real cluster is not held up on demand");
	standin_write("faults", "any hold\n");
}

Test(fdb, given_up_before_its_end)
{
	struct get a, b;

	cluster_holds();
	get_start(&a, 1);
	get_start(&b, 2);
	standin_wait_fired("any hold", 1);
	fdb_abort(&a.w);
	cr_assert_null(a.w.seat);
	fdb_abort(&a.w);
	while (fdb_outstanding(f) > 1)
		loop_turn(lp, true); /* cancelled, it ends without an answer */
	cr_assert(a.done == 0 && b.done == 0);
	standin_write("faults", "");
	turn_until_none();
	cr_assert(a.done == 0 && b.done == 1 && b.code == 0);
	get_end(&a);
	get_end(&b);
}

static void wait_ready(FDBFuture *future)
{
	while (!fdb_api(f)->future_is_ready(future))
		sched_yield();
}

/* Its mail is on the way, or about to be. */
Test(fdb, given_up_after_its_end)
{
	struct get g = {.key = "t/unit/none"};
	FDBFuture *future;

	g.tr = fdb_transaction(f);
	future = ask(&g);
	cr_assert_eq(fdb_wait(f, &g.w, future, got), 0);
	wait_ready(future);
	fdb_abort(&g.w);
	turn_until_none();
	cr_assert_eq(g.done, 0);
	get_end(&g);
}

static struct get pair[2];

static void got_and_aborts(struct fdb_wait *w, FDBFuture *future)
{
	got(w, future);
	fdb_abort(&pair[0].w);
	fdb_abort(&pair[1].w);
}

/* Both have ended by then. */
Test(fdb, given_up_by_another_ones_end)
{
	for (int i = 0; i < 2; i++) {
		FDBFuture *future;

		pair[i].tr = fdb_transaction(f);
		strcpy(pair[i].key, "t/unit/none");
		future = ask(&pair[i]);
		cr_assert_eq(fdb_api(f)->future_block_until_ready(future), 0);
		cr_assert_eq(fdb_wait(f, &pair[i].w, future, got_and_aborts), 0);
	}
	turn_until_none();
	cr_assert_eq(pair[0].done + pair[1].done, 1);
	get_end(&pair[0]);
	get_end(&pair[1]);
}

Test(fdb, its_own_timeout)
{
	const int64_t ms = 30;
	struct get g = {.key = "t/unit/none"};

	cluster_holds();
	g.tr = fdb_transaction(f);
	cr_assert_eq(fdb_api(f)->transaction_set_option(
			 g.tr, FDB_TR_OPTION_TIMEOUT, (const uint8_t *)&ms, sizeof(ms)),
	    0);
	cr_assert_eq(fdb_wait(f, &g.w, ask(&g), got), 0);
	turn_until_none();
	cr_assert_eq(g.done, 1);
	cr_assert_eq(g.code, FDB_ERR_TRANSACTION_TIMED_OUT);
	HAS(fdb_words(f, g.code), "timed out");
	get_end(&g);
}

/* As it is while the cluster is gone, and when it comes back. */
Test(fdb, a_server_that_goes_and_comes)
{
	struct get g;

	if (standin_real())
		cr_skip_test("a real cluster is not ours to stop");
	standin_kill();
	get_start(&g, 1);
	for (int i = 0; i < 100; i++)
		loop_turn(lp, false);
	cr_assert_eq(g.done, 0);
	standin_serve();
	turn_until_none();
	cr_assert(g.done == 1 && g.code == 0);
	get_end(&g);
}

static void wait_run(struct get *g)
{
	FDBFuture *future;

	nth_disarm(); /* what the library has is its own */
	future = ask(g);
	nth_arm(1);
	g->code = fdb_wait(f, &g->w, future, got);
	nth_disarm();
}

Test(fdb, a_wait_without_memory)
{
	struct get g = {.key = "t/unit/none"};

	if (standin_real())
		cr_skip_test("a real library has allocations of its own");
	g.tr = fdb_transaction(f);
	wait_run(&g);
	cr_assert_eq(g.code, -ENOMEM);
	cr_assert_null(g.w.seat);
	turn_until_none();
	cr_assert_eq(g.done, 0);
	cr_assert_eq(fdb_wait(f, &g.w, ask(&g), got), 0);
	turn_until_none();
	cr_assert_eq(g.done, 1);
	get_end(&g);
}

/* --- The end */

Test(fdb, freed_while_much_is_under_way)
{
	static struct get g[KEYS];

	for (unsigned i = 0; i < KEYS; i++)
		get_start(&g[i], i);
	for (unsigned i = 0; i < KEYS; i++)
		fdb_api(f)->transaction_destroy(g[i].tr);
	fdb_free(&f);
	for (unsigned i = 0; i < KEYS; i++)
		cr_assert(g[i].done == 0 && g[i].w.seat == NULL);
	for (int i = 0; i < 10; i++)
		loop_turn(lp, false);
}

Test(fdb, freed_while_the_cluster_is_silent)
{
	struct get g;

	cluster_holds();
	get_start(&g, 1);
	standin_wait_fired("any hold", 1);
	fdb_api(f)->transaction_destroy(g.tr);
	fdb_free(&f);
	cr_assert_eq(g.done, 0);
}

Test(fdb, two_that_share_the_network)
{
	struct fdb *first = f;
	struct get g;

	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), 0);
	cr_assert_eq(threads(), 1, "there is one network in a process");
	fdb_end();
	get_start(&g, 1);
	fdb_free(&first);
	fdb_end();
	turn_until_none();
	cr_assert(g.done == 1 && g.code == 0, "not ended while one of them is used");
	get_end(&g);
}

Test(fdb, the_network_ends_and_never_comes_again)
{
	struct get g;

	get_start(&g, 1);
	turn_until_none();
	get_end(&g);
	cr_assert_eq(threads(), 1);
	fdb_free(&f);
	cr_assert_eq(threads(), 1);
	fdb_end();
	cr_assert_eq(threads(), 0);
	fdb_end();
	cr_assert_eq(open_with(standin_library(), standin_cluster_file()), -EALREADY);
	HAS(et.s, "starts once in a process");
	cr_assert_null(f);
}
