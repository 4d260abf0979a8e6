/* SPDX-License-Identifier: BSD-2-Clause */
/* What the user calls, save futures (future.c) and the network (net.c). */
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "txn.h"
#include "wire.h"

#define API_MIN 13
#define API_MAX 730

int api_version;

static int api_max(void)
{
	const char *max = getenv("BATONFS_FDB_STANDIN_MAX_API");

	return max != NULL ? atoi(max) : API_MAX;
}

int fdb_get_max_api_version(void)
{
	return api_max();
}

const char *fdb_get_client_version(void)
{
	return "7.3.0,standin,fdb00b073000000";
}

fdb_error_t fdb_select_api_version_impl(int runtime_version, int header_version)
{
	if (api_version != 0)
		return ERR_API_SET;
	if (runtime_version > header_version)
		return ERR_API_INVALID;
	if (header_version > api_max() || runtime_version < API_MIN)
		return ERR_API_UNSUPPORTED;
	api_version = runtime_version;
	return 0;
}

static const struct {
	int code;
	const char *text;
} errors[] = {
	{ 0, "Success" },
	{ ERR_TOO_OLD, "Transaction is too old to perform reads or be committed" },
	{ ERR_FUTURE_VERSION, "Request for future version" },
	{ ERR_NOT_COMMITTED, "Transaction not committed due to conflict with another transaction" },
	{ ERR_UNKNOWN_RESULT, "Transaction may or may not have committed" },
	{ ERR_TRANSACTION_CANCELLED, "Operation aborted because the transaction was cancelled" },
	{ ERR_TIMED_OUT, "Operation aborted because the transaction timed out" },
	{ ERR_TOO_MANY_WATCHES, "Too many watches currently set" },
	{ 1037, "Storage process does not have recent mutations" },
	{ 1038, "Database is locked" },
	{ ERR_CANCELLED, "Asynchronous operation cancelled" },
	{ ERR_NO_CLUSTER_FILE, "No cluster file found in current directory or default location" },
	{ ERR_INVALID_OPERATION, "Invalid API call" },
	{ ERR_OUTSIDE, "Key outside legal range" },
	{ ERR_OPTION_VALUE, "Option set with an invalid value" },
	{ ERR_USED_DURING_COMMIT, "Operation issued while a commit was outstanding" },
	{ ERR_TOO_LARGE, "Transaction exceeds byte limit" },
	{ ERR_KEY_TOO_LARGE, "Key length exceeds limit" },
	{ ERR_VALUE_TOO_LARGE, "Value length exceeds limit" },
	{ ERR_CONNECTION_STRING, "Connection string invalid" },
	{ ERR_API_UNSUPPORTED, "API version not supported" },
};

const char *fdb_get_error(fdb_error_t code)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (errors[i].code == code)
			return errors[i].text;
	}
	return "An error of the stand-in";
}

static bool retryable_not_committed(int code)
{
	switch (code) {
	case ERR_TOO_OLD:
	case ERR_FUTURE_VERSION:
	case ERR_NOT_COMMITTED:
	case 1037: /* process_behind */
	case 1038: /* database_locked */
	case 1042: /* commit_proxy_memory_limit_exceeded */
	case 1051: /* batch_transaction_throttled */
	case 1078: /* grv_proxy_memory_limit_exceeded */
	case 1213: /* tag_throttled */
		return true;
	default:
		return false;
	}
}

static bool maybe_committed(int code)
{
	return code == ERR_UNKNOWN_RESULT || code == 1039; /* cluster_version_changed */
}

fdb_bool_t fdb_error_predicate(int predicate, fdb_error_t code)
{
	bool unknown = maybe_committed(code), not = retryable_not_committed(code);

	if (predicate == FDB_PREDICATE_RETRYABLE)
		return unknown || not;
	if (predicate == FDB_PREDICATE_MAYBE_COMMITTED)
		return unknown;
	return predicate == FDB_PREDICATE_RETRYABLE_NOT_COMMITTED && not;
}

static struct bytes take(const uint8_t *at, int len)
{
	return bytes_dup(bytes_of(at, len < 0 ? 0 : (size_t)len));
}

/* --- databases */

fdb_error_t fdb_create_database(const char *cluster_file, FDBDatabase **out)
{
	if (api_version == 0)
		return ERR_API_UNSET;
	*out = db_open(cluster_file);
	return 0;
}

static void run_db_destroy(struct call *c)
{
	db_drop(c->db);
}

void fdb_database_destroy(FDBDatabase *db)
{
	struct call *c = call_new(run_db_destroy, NULL);

	c->db = db;
	call_post(c);
}

static void run_db_option(struct call *c)
{
	struct defaults *d = &c->db->defaults;

	switch (c->n[0]) {
	case FDB_DB_MAX_WATCHES:
		c->db->max_watches = c->n[1];
		break;
	case FDB_DB_SNAPSHOT_RYW_ENABLE:
	case FDB_DB_SNAPSHOT_RYW_DISABLE:
		d->snapshot_ryw = c->n[0] == FDB_DB_SNAPSHOT_RYW_ENABLE;
		break;
	case FDB_TR_TIMEOUT:
		d->timeout = c->n[1];
		break;
	case FDB_TR_RETRY_LIMIT:
		d->retry_limit = c->n[1];
		break;
	case FDB_TR_MAX_RETRY_DELAY:
		d->max_delay = c->n[1];
		break;
	case FDB_TR_SIZE_LIMIT:
		d->size_limit = c->n[1];
		break;
	default:
		break;
	}
	db_drop(c->db);
}

static void option_of(struct call *c, int option, const uint8_t *value, int length)
{
	c->a = take(value, value == NULL ? 0 : length);
	c->n[0] = option;
	if (c->a.len == 8)
		memcpy(&c->n[1], c->a.at, 8); /* little-endian, as this machine */
}

static void run_db_hold(struct call *c)
{
	db_hold(c->db);
}

fdb_error_t fdb_database_set_option(
    FDBDatabase *db, int option, const uint8_t *value, int length)
{
	struct call *c = call_new(run_db_hold, NULL);
	bool number = option == FDB_DB_MAX_WATCHES || (option >= 500 && option <= 503);

	c->db = db;
	if (option < 10 || option > 999 || (number && (value == NULL || length != 8))) {
		free(c);
		return option < 10 || option > 999 ? ERR_OPTION : ERR_OPTION_VALUE;
	}
	call_post(c);
	c = call_new(run_db_option, NULL);
	c->db = db;
	option_of(c, option, value, length);
	call_post(c);
	return 0;
}

double fdb_database_get_main_thread_busyness(FDBDatabase *db)
{
	(void)db;
	return 0;
}

/* --- transactions: every function posts what is to be done */

static void run_tr_new(struct call *c)
{
	db_hold(c->tr->db);
	tr_reset(c->tr);
}

fdb_error_t fdb_database_create_transaction(FDBDatabase *db, FDBTransaction **out)
{
	FDBTransaction *tr = mem_get(sizeof(*tr));

	tr->db = db;
	tr->committed = -1;
	TAILQ_INIT(&tr->ops);
	call_post(call_new(run_tr_new, tr));
	*out = tr;
	return 0;
}

static void run_tr_destroy(struct call *c)
{
	tr_free(c->tr);
}

void fdb_transaction_destroy(FDBTransaction *tr)
{
	call_post(call_new(run_tr_destroy, tr));
}

static void run_cancel(struct call *c)
{
	tr_fail(c->tr, ERR_TRANSACTION_CANCELLED);
}

void fdb_transaction_cancel(FDBTransaction *tr)
{
	call_post(call_new(run_cancel, tr));
}

static void run_reset(struct call *c)
{
	tr_reset(c->tr);
}

void fdb_transaction_reset(FDBTransaction *tr)
{
	call_post(call_new(run_reset, tr));
}

fdb_error_t fdb_transaction_set_option(
    FDBTransaction *tr, int option, const uint8_t *value, int length)
{
	struct call *c;

	if (option < 10 || option > 4999)
		return ERR_OPTION;
	c = call_new(call_option, tr);
	option_of(c, option, value, length);
	call_post(c);
	return 0;
}

static void run_set_version(struct call *c)
{
	FDBTransaction *tr = c->tr;
	int error = tr->version_state != VERSION_NONE ? ERR_VERSION_SET :
	    c->n[0] <= 0				 ? ERR_VERSION_INVALID :
							   0;

	if (error != 0 && tr->deferred == 0)
		tr->deferred = error;
	if (error != 0)
		return;
	tr->version_state = VERSION_KNOWN;
	tr->version = c->n[0];
}

void fdb_transaction_set_read_version(FDBTransaction *tr, int64_t version)
{
	struct call *c = call_new(run_set_version, tr);

	c->n[0] = version;
	call_post(c);
}

static FDBFuture *post(struct call *c)
{
	FDBFuture *f = future_new();

	c->future = f;
	call_post(c);
	return f;
}

static void run_get_version(struct call *c)
{
	FDBTransaction *tr = c->tr;
	int error = tr->db->error != 0 ? tr->db->error : tr->deferred;

	if (error == 0)
		error = tr_used_during_commit(tr) ? ERR_USED_DURING_COMMIT : tr->failed;
	if (error == 0 && tr->version_state == VERSION_FAILED)
		error = (int)tr->version;
	if (error != 0 || tr->version_state == VERSION_KNOWN) {
		c->future->number = tr->version;
		future_settle(c->future, error);
		return;
	}
	op_new(tr, OP_VERSION, c->future);
	tr_need_version(tr);
}

FDBFuture *fdb_transaction_get_read_version(FDBTransaction *tr)
{
	return post(call_new(run_get_version, tr));
}

FDBFuture *fdb_transaction_get(
    FDBTransaction *tr, const uint8_t *key, int length, fdb_bool_t snapshot)
{
	struct call *c = call_new(call_get, tr);

	c->a = take(key, length);
	c->n[0] = snapshot;
	return post(c);
}

FDBFuture *fdb_transaction_get_key(FDBTransaction *tr, const uint8_t *key, int length,
    fdb_bool_t or_equal, int offset, fdb_bool_t snapshot)
{
	struct call *c = call_new(call_get_key, tr);

	c->a = take(key, length);
	c->n[0] = or_equal;
	c->n[1] = offset;
	c->n[2] = snapshot;
	return post(c);
}

static void run_addresses(struct call *c)
{
	c->future->strings = mem_get(sizeof(*c->future->strings));
	c->future->strings[0] = "127.0.0.1:4500";
	c->future->count = 1;
	future_settle(c->future, c->tr->failed);
}

FDBFuture *fdb_transaction_get_addresses_for_key(
    FDBTransaction *tr, const uint8_t *key, int length)
{
	(void)key;
	(void)length;
	return post(call_new(run_addresses, tr));
}

/* The bytes that a mode and its iteration stand for, 0: no limit, -1: there is no such. */
static int mode_bytes(int mode, int iteration)
{
	static const int of_mode[] = { 0, 256, 1000, 4096, 120000 };
	static const int of_iteration[] = { 4096, 6144, 9216, 13824, 20736, 31104, 46656, 69984,
		80000, 120000 };
	const int n = sizeof(of_iteration) / sizeof(of_iteration[0]);

	if (mode == FDB_MODE_WANT_ALL)
		mode = FDB_MODE_SERIAL;
	if (mode == FDB_MODE_ITERATOR)
		return iteration <= 0 ? -1 : of_iteration[iteration > n ? n - 1 : iteration - 1];
	return mode >= 0 && mode <= FDB_MODE_SERIAL ? of_mode[mode] : -1;
}

FDBFuture *fdb_transaction_get_range(FDBTransaction *tr, const uint8_t *begin, int begin_length,
    fdb_bool_t begin_or_equal, int begin_offset, const uint8_t *end, int end_length,
    fdb_bool_t end_or_equal, int end_offset, int limit, int target_bytes, int mode, int iteration,
    fdb_bool_t snapshot, fdb_bool_t reverse)
{
	int bytes = mode_bytes(mode, iteration);
	struct call *c;

	if (mode == FDB_MODE_EXACT && limit == 0 && target_bytes == 0)
		return future_failed(ERR_EXACT_WITHOUT_LIMITS);
	if (bytes < 0)
		return future_failed(ERR_INVALID_OPERATION);
	if (target_bytes == 0 || (bytes > 0 && bytes < target_bytes))
		target_bytes = bytes;
	c = call_new(call_get_range, tr);
	c->a = take(begin, begin_length);
	c->b = take(end, end_length);
	c->n[0] = begin_or_equal;
	c->n[1] = begin_offset;
	c->n[2] = end_or_equal;
	c->n[3] = end_offset;
	c->n[4] = limit;
	c->n[5] = target_bytes;
	c->n[6] = snapshot;
	c->n[7] = reverse;
	return post(c);
}

void fdb_transaction_set(FDBTransaction *tr, const uint8_t *key, int length, const uint8_t *value,
    int value_length)
{
	struct call *c = call_new(call_set, tr);

	c->a = take(key, length);
	c->b = take(value, value_length);
	call_post(c);
}

void fdb_transaction_atomic_op(FDBTransaction *tr, const uint8_t *key, int length,
    const uint8_t *operand, int operand_length, int kind)
{
	struct call *c = call_new(call_atomic, tr);

	c->a = take(key, length);
	c->b = take(operand, operand_length);
	c->n[0] = kind;
	call_post(c);
}

void fdb_transaction_clear(FDBTransaction *tr, const uint8_t *key, int length)
{
	struct call *c = call_new(call_clear_range, tr);

	c->a = take(key, length);
	c->n[0] = 1;
	call_post(c);
}

void fdb_transaction_clear_range(FDBTransaction *tr, const uint8_t *begin, int begin_length,
    const uint8_t *end, int end_length)
{
	struct call *c = call_new(call_clear_range, tr);

	c->a = take(begin, begin_length);
	c->b = take(end, end_length);
	call_post(c);
}

FDBFuture *fdb_transaction_watch(FDBTransaction *tr, const uint8_t *key, int length)
{
	struct call *c = call_new(call_watch, tr);

	c->a = take(key, length);
	return post(c);
}

FDBFuture *fdb_transaction_commit(FDBTransaction *tr)
{
	return post(call_new(call_commit, tr));
}

/* After the commit's future is ready, which orders this thread behind the other. */
fdb_error_t fdb_transaction_get_committed_version(FDBTransaction *tr, int64_t *version)
{
	*version = tr->committed;
	return 0;
}

static void run_size(struct call *c)
{
	c->future->number = tr_size(c->tr);
	future_settle(c->future, c->tr->deferred);
}

FDBFuture *fdb_transaction_get_approximate_size(FDBTransaction *tr)
{
	return post(call_new(run_size, tr));
}

static void run_stamp(struct call *c)
{
	FDBTransaction *tr = c->tr;
	int error = tr->deferred != 0 ? tr->deferred : tr->failed;

	if (error == 0 && tr_used_during_commit(tr))
		error = ERR_USED_DURING_COMMIT;
	if (error != 0)
		future_settle(c->future, error);
	else
		op_new(tr, OP_STAMP, c->future);
}

FDBFuture *fdb_transaction_get_versionstamp(FDBTransaction *tr)
{
	return post(call_new(run_stamp, tr));
}

fdb_error_t fdb_transaction_add_conflict_range(FDBTransaction *tr, const uint8_t *begin,
    int begin_length, const uint8_t *end, int end_length, int kind)
{
	struct call *c;

	if (kind != FDB_CONFLICT_READ && kind != FDB_CONFLICT_WRITE)
		return ERR_INVALID_OPERATION;
	if (bytes_cmp(bytes_of(begin, (size_t)begin_length), bytes_of(end, (size_t)end_length)) > 0)
		return ERR_INVERTED;
	c = call_new(call_conflict_range, tr);
	c->a = take(begin, begin_length);
	c->b = take(end, end_length);
	c->n[0] = kind;
	call_post(c);
	return 0;
}

/* --- errors */

/* The wait is over: everything of the failed try goes. */
static void retry(struct timer *t)
{
	struct op *op = (struct op *)(void *)((char *)t - offsetof(struct op, timer)), *other;
	FDBTransaction *tr = op->tr;

	TAILQ_REMOVE(&tr->ops, op, link);
	tr->failed = ERR_TRANSACTION_CANCELLED;
	while ((other = TAILQ_FIRST(&tr->ops)) != NULL)
		op_end(other, ERR_TRANSACTION_CANCELLED);
	tr_clear(tr);
	TAILQ_INSERT_TAIL(&tr->ops, op, link);
	op_end(op, 0);
}

/* Milliseconds to wait before another try; -1: there is none after this error. */
static int64_t delay_of(FDBTransaction *tr, int error)
{
	double now = tr->backoff;

	if (error == ERR_TOO_OLD || error == ERR_FUTURE_VERSION)
		return tr->max_delay < 10 ? tr->max_delay : 10;
	if (error != ERR_UNKNOWN_RESULT && !retryable_not_committed(error))
		return -1;
	tr->backoff = now * 2 * 1000 > (double)tr->max_delay ? (double)tr->max_delay / 1000 : now * 2;
	return (int64_t)(now * 1000 * (net_random() % 1000) / 1000);
}

static void run_on_error(struct call *c)
{
	FDBTransaction *tr = c->tr;
	int error = (int)c->n[0];
	int64_t delay = -1;
	struct op *op;

	if (tr->failed != 0) {
		future_settle(c->future, tr->failed);
		return;
	}
	if (tr->retry_limit < 0 || tr->retries < tr->retry_limit)
		delay = delay_of(tr, error);
	if (tr->retries < INT_MAX)
		tr->retries++;
	if (delay < 0) {
		future_settle(c->future, error == 0 ? ERR_INVALID_OPERATION : error);
		tr_fail(tr, ERR_TRANSACTION_CANCELLED);
		return;
	}
	op = op_new(tr, OP_RETRY, c->future);
	timer_arm(&op->timer, net_now() + delay, retry);
}

FDBFuture *fdb_transaction_on_error(FDBTransaction *tr, fdb_error_t error)
{
	struct call *c = call_new(run_on_error, tr);

	c->n[0] = error;
	return post(c);
}
