/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_ABI_H
#define T_FDB_ABI_H

/*
 * The C API of FoundationDB's client library, versions 630 to 730, as far as the stand-in
 * has it: types, numbers and functions as that library documents them.  On purpose not
 * the declarations that batonfs itself uses, so that a mistake in either shows.
 */

#include <stdint.h>

typedef struct FDB_future FDBFuture;
typedef struct FDB_database FDBDatabase;
typedef struct FDB_transaction FDBTransaction;
typedef int fdb_error_t;
typedef int fdb_bool_t;
typedef void (*FDBCallback)(FDBFuture *future, void *arg);

#pragma pack(push, 4)
typedef struct {
	const uint8_t *key;
	int key_length;
} FDBKey;

typedef struct {
	const uint8_t *key;
	int key_length;
	const uint8_t *value;
	int value_length;
} FDBKeyValue;
#pragma pack(pop)

_Static_assert(sizeof(FDBKey) == 12 && sizeof(FDBKeyValue) == 24, "no holes in these");

enum {
	FDB_MODE_WANT_ALL = -2,
	FDB_MODE_ITERATOR = -1,
	FDB_MODE_EXACT = 0,
	FDB_MODE_SMALL = 1,
	FDB_MODE_MEDIUM = 2,
	FDB_MODE_LARGE = 3,
	FDB_MODE_SERIAL = 4,
};

enum { FDB_CONFLICT_READ = 0, FDB_CONFLICT_WRITE = 1 };

enum {
	FDB_PREDICATE_RETRYABLE = 50000,
	FDB_PREDICATE_MAYBE_COMMITTED = 50001,
	FDB_PREDICATE_RETRYABLE_NOT_COMMITTED = 50002,
};

/* Options of a transaction that do something here; others are taken without effect. */
enum {
	FDB_TR_NEXT_WRITE_NO_CONFLICT = 30,
	FDB_TR_READ_YOUR_WRITES_DISABLE = 51,
	FDB_TR_ACCESS_SYSTEM_KEYS = 301,
	FDB_TR_READ_SYSTEM_KEYS = 302,
	FDB_TR_TIMEOUT = 500,
	FDB_TR_RETRY_LIMIT = 501,
	FDB_TR_MAX_RETRY_DELAY = 502,
	FDB_TR_SIZE_LIMIT = 503,
	FDB_TR_SNAPSHOT_RYW_ENABLE = 600,
	FDB_TR_SNAPSHOT_RYW_DISABLE = 601,
	FDB_TR_USED_DURING_COMMIT_PROTECTION_DISABLE = 701,
};

/* Likewise of a database: 500 to 503 are defaults for the transactions'. */
enum { FDB_DB_MAX_WATCHES = 20, FDB_DB_SNAPSHOT_RYW_ENABLE = 26, FDB_DB_SNAPSHOT_RYW_DISABLE = 27 };

/* Each function: name, result, arguments. */
#define FDB_API(X)                                                                                 \
	X(fdb_select_api_version_impl, fdb_error_t, (int runtime_version, int header_version))     \
	X(fdb_get_max_api_version, int, (void))                                                    \
	X(fdb_get_client_version, const char *, (void))                                            \
	X(fdb_get_error, const char *, (fdb_error_t code))                                         \
	X(fdb_error_predicate, fdb_bool_t, (int predicate, fdb_error_t code))                      \
	X(fdb_network_set_option, fdb_error_t, (int option, const uint8_t *value, int length))     \
	X(fdb_setup_network, fdb_error_t, (void))                                                  \
	X(fdb_run_network, fdb_error_t, (void))                                                    \
	X(fdb_stop_network, fdb_error_t, (void))                                                   \
	X(fdb_add_network_thread_completion_hook, fdb_error_t, (void (*hook)(void *), void *arg))  \
	X(fdb_future_cancel, void, (FDBFuture * f))                                                \
	X(fdb_future_release_memory, void, (FDBFuture * f))                                        \
	X(fdb_future_destroy, void, (FDBFuture * f))                                               \
	X(fdb_future_block_until_ready, fdb_error_t, (FDBFuture * f))                              \
	X(fdb_future_is_ready, fdb_bool_t, (FDBFuture * f))                                        \
	X(fdb_future_set_callback, fdb_error_t, (FDBFuture * f, FDBCallback callback, void *arg))  \
	X(fdb_future_get_error, fdb_error_t, (FDBFuture * f))                                      \
	X(fdb_future_get_int64, fdb_error_t, (FDBFuture * f, int64_t *out))                        \
	X(fdb_future_get_uint64, fdb_error_t, (FDBFuture * f, uint64_t *out))                      \
	X(fdb_future_get_key, fdb_error_t, (FDBFuture * f, const uint8_t **key, int *length))      \
	X(fdb_future_get_value, fdb_error_t,                                                       \
	    (FDBFuture * f, fdb_bool_t *present, const uint8_t **value, int *length))              \
	X(fdb_future_get_keyvalue_array, fdb_error_t,                                              \
	    (FDBFuture * f, const FDBKeyValue **kv, int *count, fdb_bool_t *more))                 \
	X(fdb_future_get_key_array, fdb_error_t,                                                   \
	    (FDBFuture * f, const FDBKey **keys, int *count))                                      \
	X(fdb_future_get_string_array, fdb_error_t,                                                \
	    (FDBFuture * f, const char ***strings, int *count))                                    \
	X(fdb_create_database, fdb_error_t, (const char *cluster_file, FDBDatabase **out))         \
	X(fdb_database_destroy, void, (FDBDatabase * db))                                          \
	X(fdb_database_set_option, fdb_error_t,                                                    \
	    (FDBDatabase * db, int option, const uint8_t *value, int length))                      \
	X(fdb_database_create_transaction, fdb_error_t, (FDBDatabase * db, FDBTransaction **out))  \
	X(fdb_database_get_main_thread_busyness, double, (FDBDatabase * db))                       \
	X(fdb_transaction_destroy, void, (FDBTransaction * tr))                                    \
	X(fdb_transaction_cancel, void, (FDBTransaction * tr))                                     \
	X(fdb_transaction_set_option, fdb_error_t,                                                 \
	    (FDBTransaction * tr, int option, const uint8_t *value, int length))                   \
	X(fdb_transaction_set_read_version, void, (FDBTransaction * tr, int64_t version))          \
	X(fdb_transaction_get_read_version, FDBFuture *, (FDBTransaction * tr))                    \
	X(fdb_transaction_get, FDBFuture *,                                                        \
	    (FDBTransaction * tr, const uint8_t *key, int length, fdb_bool_t snapshot))            \
	X(fdb_transaction_get_key, FDBFuture *,                                                    \
	    (FDBTransaction * tr, const uint8_t *key, int length, fdb_bool_t or_equal, int offset, \
		fdb_bool_t snapshot))                                                              \
	X(fdb_transaction_get_addresses_for_key, FDBFuture *,                                      \
	    (FDBTransaction * tr, const uint8_t *key, int length))                                 \
	X(fdb_transaction_get_range, FDBFuture *,                                                  \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_length, fdb_bool_t begin_or_equal, \
		int begin_offset, const uint8_t *end, int end_length, fdb_bool_t end_or_equal,     \
		int end_offset, int limit, int target_bytes, int mode, int iteration,              \
		fdb_bool_t snapshot, fdb_bool_t reverse))                                          \
	X(fdb_transaction_set, void,                                                               \
	    (FDBTransaction * tr, const uint8_t *key, int length, const uint8_t *value,            \
		int value_length))                                                                 \
	X(fdb_transaction_atomic_op, void,                                                         \
	    (FDBTransaction * tr, const uint8_t *key, int length, const uint8_t *operand,          \
		int operand_length, int kind))                                                     \
	X(fdb_transaction_clear, void, (FDBTransaction * tr, const uint8_t *key, int length))      \
	X(fdb_transaction_clear_range, void,                                                       \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_length, const uint8_t *end,      \
		int end_length))                                                                   \
	X(fdb_transaction_watch, FDBFuture *,                                                      \
	    (FDBTransaction * tr, const uint8_t *key, int length))                                 \
	X(fdb_transaction_commit, FDBFuture *, (FDBTransaction * tr))                              \
	X(fdb_transaction_get_committed_version, fdb_error_t,                                      \
	    (FDBTransaction * tr, int64_t *version))                                               \
	X(fdb_transaction_get_approximate_size, FDBFuture *, (FDBTransaction * tr))                \
	X(fdb_transaction_get_versionstamp, FDBFuture *, (FDBTransaction * tr))                    \
	X(fdb_transaction_on_error, FDBFuture *, (FDBTransaction * tr, fdb_error_t error))         \
	X(fdb_transaction_reset, void, (FDBTransaction * tr))                                      \
	X(fdb_transaction_add_conflict_range, fdb_error_t,                                         \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_length, const uint8_t *end,      \
		int end_length, int kind))

#endif
