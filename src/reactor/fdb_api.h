/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What batonfs uses of FoundationDB's C API, in declarations of its own: the library is
 * opened at run time (reactor/fdb.h), so nothing of it is needed to build, and a machine
 * without it runs all but meta.backend=fdb.
 *
 * The types, the codes and the way they lie in memory are those of API version 630 and
 * later (libfdb_c 6.3, 7.1, 7.3); none of these functions has changed since.  Every
 * pointer that a future hands out is good until the future is destroyed.  Futures' call
 * backs run on the network's thread, or inline in fdb_future_set_callback().
 */
#ifndef REACTOR_FDB_API_H
#define REACTOR_FDB_API_H

#include <stdint.h>

/* The oldest that is used, and the newest that this build knows. */
#define FDB_API_FIRST 630
#define FDB_API_LAST 730

/* Limits of the store, in bytes. */
#define FDB_KEY_MAX 10000
#define FDB_VALUE_MAX 100000
#define FDB_TXN_MAX 10000000

typedef struct FDB_future FDBFuture;
typedef struct FDB_database FDBDatabase;
typedef struct FDB_transaction FDBTransaction;
typedef int fdb_error_t;
typedef int fdb_bool_t;
typedef void (*FDBCallback)(FDBFuture *future, void *arg);

/* In an array of them, 24 bytes each: pointers are aligned to 4. */
#pragma pack(push, 4)
typedef struct keyvalue {
	const uint8_t *key;
	int key_length;
	const uint8_t *value;
	int value_length;
} FDBKeyValue;
#pragma pack(pop)
_Static_assert(sizeof(void *) != 8 || sizeof(FDBKeyValue) == 24, "packed as the library has it");

typedef enum {
	FDB_NET_OPTION_TRACE_ENABLE = 30,
	FDB_NET_OPTION_DISABLE_CLIENT_STATISTICS_LOGGING = 70
} FDBNetworkOption;

typedef enum {
	FDB_TR_OPTION_READ_YOUR_WRITES_DISABLE = 51,
	FDB_TR_OPTION_TIMEOUT = 500,	     /* int64, milliseconds; 0: none */
	FDB_TR_OPTION_RETRY_LIMIT = 501,     /* int64; -1: none */
	FDB_TR_OPTION_MAX_RETRY_DELAY = 502, /* int64, milliseconds */
	FDB_TR_OPTION_SIZE_LIMIT = 503	     /* int64, bytes */
} FDBTransactionOption;

typedef enum {
	FDB_STREAMING_MODE_WANT_ALL = -2,
	FDB_STREAMING_MODE_ITERATOR = -1,
	FDB_STREAMING_MODE_EXACT = 0
} FDBStreamingMode;

/* Little-endian numbers. */
typedef enum {
	FDB_MUTATION_TYPE_ADD = 2,
	FDB_MUTATION_TYPE_MAX = 12,
	FDB_MUTATION_TYPE_MIN = 13,
	FDB_MUTATION_TYPE_SET_VERSIONSTAMPED_KEY = 14,
	FDB_MUTATION_TYPE_SET_VERSIONSTAMPED_VALUE = 15
} FDBMutationType;

typedef enum {
	FDB_CONFLICT_RANGE_TYPE_READ = 0,
	FDB_CONFLICT_RANGE_TYPE_WRITE = 1
} FDBConflictRangeType;

/* For fdb_error_predicate(). */
enum {
	FDB_ERROR_PREDICATE_RETRYABLE = 50000,
	FDB_ERROR_PREDICATE_MAYBE_COMMITTED = 50001,
	FDB_ERROR_PREDICATE_RETRYABLE_NOT_COMMITTED = 50002
};

/* Errors that something is made of; others are only told. */
enum {
	FDB_ERR_TIMED_OUT = 1004,
	FDB_ERR_TRANSACTION_TOO_OLD = 1007,
	FDB_ERR_FUTURE_VERSION = 1009,
	FDB_ERR_NOT_COMMITTED = 1020,
	FDB_ERR_COMMIT_UNKNOWN_RESULT = 1021,
	FDB_ERR_TRANSACTION_CANCELLED = 1025,
	FDB_ERR_TRANSACTION_TIMED_OUT = 1031,
	FDB_ERR_PROCESS_BEHIND = 1037,
	FDB_ERR_DATABASE_LOCKED = 1038,
	FDB_ERR_CLUSTER_VERSION_CHANGED = 1039,
	FDB_ERR_OPERATION_CANCELLED = 1101,
	FDB_ERR_NO_CLUSTER_FILE_FOUND = 1515,
	FDB_ERR_NO_COMMIT_VERSION = 2021,
	FDB_ERR_TRANSACTION_READ_ONLY = 2023,
	FDB_ERR_TRANSACTION_TOO_LARGE = 2101,
	FDB_ERR_KEY_TOO_LARGE = 2102,
	FDB_ERR_VALUE_TOO_LARGE = 2103,
	FDB_ERR_CONNECTION_STRING_INVALID = 2104,
	FDB_ERR_API_VERSION_NOT_SUPPORTED = 2203
};

/* One row a function: result, name without "fdb_", arguments. */
#define FDB_FUNCTIONS(X)                                                                           \
	X(fdb_error_t, select_api_version_impl, (int runtime, int header))                         \
	X(int, get_max_api_version, (void))                                                        \
	X(const char *, get_client_version, (void))                                                \
	X(const char *, get_error, (fdb_error_t code))                                             \
	X(fdb_bool_t, error_predicate, (int predicate, fdb_error_t code))                          \
	X(fdb_error_t, network_set_option,                                                         \
	    (FDBNetworkOption option, const uint8_t *value, int len))                              \
	X(fdb_error_t, setup_network, (void))                                                      \
	X(fdb_error_t, run_network, (void))                                                        \
	X(fdb_error_t, stop_network, (void))                                                       \
	X(fdb_error_t, create_database, (const char *cluster_file, FDBDatabase **out))             \
	X(void, database_destroy, (FDBDatabase * db))                                              \
	X(fdb_error_t, database_create_transaction, (FDBDatabase * db, FDBTransaction **out))     \
	X(void, future_cancel, (FDBFuture * f))                                                    \
	X(void, future_destroy, (FDBFuture * f))                                                   \
	X(fdb_error_t, future_block_until_ready, (FDBFuture * f))                                  \
	X(fdb_bool_t, future_is_ready, (FDBFuture * f))                                            \
	X(fdb_error_t, future_set_callback, (FDBFuture * f, FDBCallback fn, void *arg))            \
	X(fdb_error_t, future_get_error, (FDBFuture * f))                                          \
	X(fdb_error_t, future_get_int64, (FDBFuture * f, int64_t *out))                            \
	X(fdb_error_t, future_get_key, (FDBFuture * f, const uint8_t **key, int *len))             \
	X(fdb_error_t, future_get_value,                                                           \
	    (FDBFuture * f, fdb_bool_t * present, const uint8_t **value, int *len))                \
	X(fdb_error_t, future_get_keyvalue_array,                                                  \
	    (FDBFuture * f, const FDBKeyValue **kv, int *count, fdb_bool_t *more))                 \
	X(void, transaction_destroy, (FDBTransaction * tr))                                        \
	X(void, transaction_cancel, (FDBTransaction * tr))                                         \
	X(void, transaction_reset, (FDBTransaction * tr))                                          \
	X(fdb_error_t, transaction_set_option,                                                     \
	    (FDBTransaction * tr, FDBTransactionOption option, const uint8_t *value, int len))     \
	X(FDBFuture *, transaction_get_read_version, (FDBTransaction * tr))                        \
	X(FDBFuture *, transaction_get,                                                            \
	    (FDBTransaction * tr, const uint8_t *key, int key_len, fdb_bool_t snapshot))           \
	X(FDBFuture *, transaction_get_range,                                                      \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_len, fdb_bool_t begin_or_equal,  \
		int begin_offset, const uint8_t *end, int end_len, fdb_bool_t end_or_equal,        \
		int end_offset, int limit, int target_bytes, FDBStreamingMode mode, int iteration, \
		fdb_bool_t snapshot, fdb_bool_t reverse))                                          \
	X(void, transaction_set,                                                                   \
	    (FDBTransaction * tr, const uint8_t *key, int key_len, const uint8_t *value, int len)) \
	X(void, transaction_clear, (FDBTransaction * tr, const uint8_t *key, int key_len))         \
	X(void, transaction_clear_range,                                                           \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_len, const uint8_t *end,         \
		int end_len))                                                                      \
	X(void, transaction_atomic_op,                                                             \
	    (FDBTransaction * tr, const uint8_t *key, int key_len, const uint8_t *param, int len,  \
		FDBMutationType type))                                                             \
	X(FDBFuture *, transaction_watch, (FDBTransaction * tr, const uint8_t *key, int key_len))  \
	X(FDBFuture *, transaction_commit, (FDBTransaction * tr))                                  \
	X(fdb_error_t, transaction_get_committed_version, (FDBTransaction * tr, int64_t *out))     \
	X(FDBFuture *, transaction_get_versionstamp, (FDBTransaction * tr))                        \
	X(FDBFuture *, transaction_on_error, (FDBTransaction * tr, fdb_error_t error))             \
	X(fdb_error_t, transaction_add_conflict_range,                                             \
	    (FDBTransaction * tr, const uint8_t *begin, int begin_len, const uint8_t *end,         \
		int end_len, FDBConflictRangeType type))

/* The functions of the library that was opened: api->transaction_get(...). */
struct fdb_api {
#define X(result, name, args) result(*name) args;
	FDB_FUNCTIONS(X)
#undef X
};

#endif
