/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_WIRE_H
#define T_FDB_WIRE_H

/*
 * What the library and the server say to each other over DIR/sock.
 *
 *	request	u32 length of what follows, u32 kind, u64 id, body
 *	answer	u32 length of what follows, u64 id, u32 error, body (error 0 only)
 *
 * Numbers are little-endian; bytes are u32 length and the bytes themselves.
 *
 *	HELLO	node name; no answer
 *	GRV	-> u64 version
 *	GET	view, key -> u32 present, value
 *	KEY	view, top, selector -> u32 ends, key
 *	RANGE	view, top, selector begin, selector end, u32 rows, u32 bytes, u32 reverse
 *		-> u32 ends, u32 more, u32 n, n times key and value
 *	COMMIT	u64 read version, ranges read, ranges written, mutations -> u64 version
 *	WATCH	key, u32 present, value -> when the key's value is another
 *	FORGET	u64 id of a WATCH, which stays without an answer; no answer
 *
 *	view		u64 version, mutations that it shows on top of it
 *	mutations	u32 n, n times: u32 kind, bytes, bytes
 *	selector	key, u32 or_equal, u32 offset
 *	top		the first key that is out of reach
 *	ends		bits: END_BEGIN, END_END
 */

enum wire_kind {
	WIRE_HELLO,
	WIRE_GRV,
	WIRE_GET,
	WIRE_KEY,
	WIRE_RANGE,
	WIRE_COMMIT,
	WIRE_WATCH,
	WIRE_FORGET,
	WIRE_KINDS,
};

/* A selector ran into the beginning, or into the end, of all keys. */
#define END_BEGIN 1u
#define END_END 2u

/* Kinds of mutations: those of the API, and two that have functions of their own. */
enum mutation_kind {
	MUT_SET = 0,
	MUT_CLEAR_RANGE = 1,
	MUT_ADD = 2,
	MUT_AND = 6,
	MUT_OR = 7,
	MUT_XOR = 8,
	MUT_APPEND_IF_FITS = 9,
	MUT_MAX = 12,
	MUT_MIN = 13,
	MUT_STAMPED_KEY = 14,
	MUT_STAMPED_VALUE = 15,
	MUT_BYTE_MIN = 16,
	MUT_BYTE_MAX = 17,
	MUT_COMPARE_AND_CLEAR = 20,
};

#define KEY_LIMIT 10000
#define VALUE_LIMIT 100000
#define SIZE_LIMIT 10000000
#define MESSAGE_LIMIT (64u << 20)

#define ERR_TOO_OLD 1007
#define ERR_FUTURE_VERSION 1009
#define ERR_NOT_COMMITTED 1020
#define ERR_UNKNOWN_RESULT 1021
#define ERR_TRANSACTION_CANCELLED 1025
#define ERR_TIMED_OUT 1031
#define ERR_TOO_MANY_WATCHES 1032
#define ERR_WATCHES_DISABLED 1034
#define ERR_UNREADABLE 1036
#define ERR_CANCELLED 1101
#define ERR_RELEASED 1102
#define ERR_NO_CLUSTER_FILE 1515
#define ERR_INVALID_OPERATION 2000
#define ERR_OUTSIDE 2004
#define ERR_INVERTED 2005
#define ERR_OPTION_VALUE 2006
#define ERR_OPTION 2007
#define ERR_NOT_SETUP 2008
#define ERR_ALREADY_SETUP 2009
#define ERR_VERSION_SET 2010
#define ERR_VERSION_INVALID 2011
#define ERR_RANGE_LIMITS 2012
#define ERR_NOT_SET 2015
#define ERR_USED_DURING_COMMIT 2017
#define ERR_MUTATION_KIND 2018
#define ERR_INVALID_VERSION 2020
#define ERR_NO_COMMIT_VERSION 2021
#define ERR_NO_RESTART 2025
#define ERR_ON_NETWORK_THREAD 2026
#define ERR_TOO_LARGE 2101
#define ERR_KEY_TOO_LARGE 2102
#define ERR_VALUE_TOO_LARGE 2103
#define ERR_CONNECTION_STRING 2104
#define ERR_UNSUPPORTED 2108
#define ERR_API_UNSET 2200
#define ERR_API_SET 2201
#define ERR_API_INVALID 2202
#define ERR_API_UNSUPPORTED 2203
#define ERR_EXACT_WITHOUT_LIMITS 2210

#endif
