/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fdb fdb;
FDBDatabase *db;

static char prefix[64];
static pthread_t thread;

void rig_library(void)
{
	const char *name = standin_library();
	void *so = dlopen(name, RTLD_NOW | RTLD_LOCAL);

	standin_must(so != NULL, name);
#define LOAD(function, result, args)                                                               \
	fdb.function = (result(*) args)(uintptr_t)dlsym(so, #function);                            \
	standin_must(fdb.function != NULL, #function);
	FDB_API(LOAD)
#undef LOAD
}

static void *network(void *arg)
{
	standin_must(fdb.fdb_run_network() == 0, "fdb_run_network");
	return arg;
}

void rig_network(void)
{
	int version = fdb.fdb_get_max_api_version();

	version = version > 730 ? 730 : version;
	standin_must(fdb.fdb_select_api_version_impl(version, version) == 0, "API version");
	standin_must(fdb.fdb_setup_network() == 0, "fdb_setup_network");
	standin_must(pthread_create(&thread, NULL, network, NULL) == 0, "pthread_create");
}

void rig_network_end(void)
{
	standin_must(fdb.fdb_stop_network() == 0, "fdb_stop_network");
	pthread_join(thread, NULL);
}

void rig_open(const char *path, FDBDatabase **out)
{
	standin_must(fdb.fdb_create_database(path, out) == 0, "fdb_create_database");
}

static void clear_corner(void)
{
	FDBTransaction *tr;
	uint8_t last[64];
	int error;

	memcpy(last, prefix, strlen(prefix));
	last[strlen(prefix)] = 0xff;
	standin_must(fdb.fdb_database_create_transaction(db, &tr) == 0, "transaction");
	do {
		fdb.fdb_transaction_clear_range(tr, (uint8_t *)prefix, (int)strlen(prefix), last,
		    (int)strlen(prefix) + 1);
		error = commit(tr);
		standin_must(error == 0 || on_error(tr, error) == 0, "clearing");
	} while (error != 0);
	end(&tr);
}

void rig_place(void)
{
	snprintf(prefix, sizeof(prefix), "t/fdb/%d/", (int)getpid());
	if (!standin_real())
		standin_start();
}

void rig_client(void)
{
	rig_library();
	rig_network();
	rig_open(standin_cluster_file(), &db);
}

void rig_start(void)
{
	rig_place();
	rig_client();
	clear_corner();
}

void rig_stop(void)
{
	if (db == NULL) /* skipped */
		return;
	if (standin_real())
		clear_corner();
	fdb.fdb_database_destroy(db);
	rig_network_end();
	standin_stop();
}

/* --- short hands */

struct key key(const char *name)
{
	static __thread char keys[64][128];
	static __thread unsigned next;
	char *to = keys[next++ % 64];

	return (struct key){ (uint8_t *)to, snprintf(to, sizeof(keys[0]), "%s%s", prefix, name) };
}

FDBTransaction *begin(void)
{
	FDBTransaction *tr;

	standin_must(fdb.fdb_database_create_transaction(db, &tr) == 0, "transaction");
	return tr;
}

void end(FDBTransaction **trp)
{
	fdb.fdb_transaction_destroy(*trp);
	*trp = NULL;
}

int waited(FDBFuture *f)
{
	standin_must(fdb.fdb_future_block_until_ready(f) == 0, "block_until_ready");
	return fdb.fdb_future_get_error(f);
}

int ended(FDBFuture *f)
{
	int error = waited(f);

	fdb.fdb_future_destroy(f);
	return error;
}

int commit(FDBTransaction *tr)
{
	return ended(fdb.fdb_transaction_commit(tr));
}

int on_error(FDBTransaction *tr, int error)
{
	return ended(fdb.fdb_transaction_on_error(tr, error));
}

void option(FDBTransaction *tr, int which, int64_t value)
{
	standin_must(fdb.fdb_transaction_set_option(tr, which, (uint8_t *)&value, 8) == 0, "option");
}

void set(FDBTransaction *tr, const char *name, const char *value)
{
	struct key k = key(name);

	fdb.fdb_transaction_set(tr, k.at, k.len, (const uint8_t *)value, (int)strlen(value));
}

void clear(FDBTransaction *tr, const char *name)
{
	struct key k = key(name);

	fdb.fdb_transaction_clear(tr, k.at, k.len);
}

static void change(const char *name, const char *value)
{
	FDBTransaction *tr = begin();
	int error;

	do {
		if (value != NULL)
			set(tr, name, value);
		else
			clear(tr, name);
		error = commit(tr);
		standin_must(error == 0 || on_error(tr, error) == 0, "a change");
	} while (error != 0);
	end(&tr);
}

void put(const char *name, const char *value)
{
	change(name, value);
}

void del(const char *name)
{
	change(name, NULL);
}

FDBFuture *ask(FDBTransaction *tr, const char *name, bool snapshot)
{
	struct key k = key(name);

	return fdb.fdb_transaction_get(tr, k.at, k.len, snapshot);
}

const char *got(FDBFuture *f, int *error)
{
	static __thread char text[256];
	fdb_bool_t present = 0;
	const uint8_t *value;
	int len;

	*error = waited(f);
	if (*error == 0 && fdb.fdb_future_get_value(f, &present, &value, &len) == 0 && present)
		snprintf(text, sizeof(text), "%.*s", len, (const char *)value);
	fdb.fdb_future_destroy(f);
	return present ? text : NULL;
}

const char *get(FDBTransaction *tr, const char *name, bool snapshot)
{
	int error;
	const char *value = got(ask(tr, name, snapshot), &error);

	standin_must(error == 0, "get");
	return value;
}

const char *now(const char *name)
{
	FDBTransaction *tr = begin();
	const char *value;
	int error;

	for (;;) {
		value = got(ask(tr, name, false), &error);
		if (error == 0)
			break;
		standin_must(on_error(tr, error) == 0, "now");
	}
	end(&tr);
	return value;
}

const char *rows_of(FDBFuture *f, int *error)
{
	static __thread char text[4096];
	const FDBKeyValue *kv;
	size_t len = 0, skip = strlen(prefix);
	fdb_bool_t more;
	int n;

	text[0] = '\0';
	*error = waited(f);
	if (*error == 0 && fdb.fdb_future_get_keyvalue_array(f, &kv, &n, &more) == 0) {
		for (int i = 0; i < n && len < sizeof(text); i++)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%.*s=%.*s",
			    i > 0 ? "," : "", kv[i].key_length - (int)skip,
			    (const char *)kv[i].key + skip, kv[i].value_length,
			    (const char *)kv[i].value);
		if (more && len < sizeof(text))
			snprintf(text + len, sizeof(text) - len, "+");
	}
	fdb.fdb_future_destroy(f);
	return text;
}

const char *rows(FDBTransaction *tr, const char *b, const char *e, int limit, bool reverse)
{
	struct key from = key(b), till = key(e);
	int error;
	const char *text = rows_of(fdb.fdb_transaction_get_range(tr, from.at, from.len, 0, 1,
				       till.at, till.len, 0, 1, limit, 0, FDB_MODE_WANT_ALL, 0, 0,
				       reverse),
	    &error);

	standin_must(error == 0, "get_range");
	return text;
}
