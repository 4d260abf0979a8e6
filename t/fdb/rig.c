/* SPDX-License-Identifier: BSD-2-Clause */
#include "rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct fdb fdb;
FDBDatabase *db;
char rig_dir[64];
pid_t rig_server;
const char *rig_cluster_file;

static char cluster_file[96], prefix[64];
static pthread_t thread;

static void must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "rig: %s\n", what);
		abort();
	}
}

static void nap(void)
{
	struct timespec ms = { 0, 2000000 };

	nanosleep(&ms, NULL);
}

static const char *built(const char *name)
{
	static char path[512];
	const char *dir = getenv("BATONFS_BUILD");

	snprintf(path, sizeof(path), "%s/%s", dir != NULL ? dir : ".", name);
	return path;
}

bool rig_real(void)
{
	return getenv("BATONFS_TEST_FDB_CLUSTER_FILE") != NULL;
}

void rig_library(void)
{
	const char *name = getenv("BATONFS_TEST_FDB_LIBRARY");
	void *so;

	if (name == NULL)
		name = rig_real() ? "libfdb_c.so" : built("libfdb_c.so");
	so = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	must(so != NULL, name);
#define LOAD(function, result, args)                                                               \
	fdb.function = (result(*) args)(uintptr_t)dlsym(so, #function);                            \
	must(fdb.function != NULL, #function);
	FDB_API(LOAD)
#undef LOAD
}

void rig_write(const char *name, const char *text)
{
	char path[160], temp[160];
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", rig_dir, name);
	snprintf(temp, sizeof(temp), "%s/%s.new", rig_dir, name);
	out = fopen(temp, "w");
	must(out != NULL && fputs(text, out) >= 0 && fclose(out) == 0 && rename(temp, path) == 0, name);
}

unsigned rig_fired(const char *line)
{
	char path[160], text[256];
	unsigned n = 0;
	FILE *in;

	snprintf(path, sizeof(path), "%s/fired", rig_dir);
	in = fopen(path, "r");
	while (in != NULL && fgets(text, sizeof(text), in) != NULL)
		n += strncmp(text, line, strlen(line)) == 0;
	if (in != NULL)
		fclose(in);
	return n;
}

void rig_wait_fired(const char *line, unsigned n)
{
	while (rig_fired(line) < n)
		nap();
}

void rig_serve(void)
{
	char arg[] = "--with-parent", name[] = "standin_server";
	char *argv[] = { name, rig_dir, arg, NULL };

	must(posix_spawn(&rig_server, built("standin_server"), NULL, NULL, argv, environ) == 0,
	    "standin_server");
	/* The library waits for it as for any cluster; its file is needed before. */
	while (access(cluster_file, F_OK) != 0) {
		must(waitpid(rig_server, NULL, WNOHANG) == 0, "standin_server ended");
		nap();
	}
}

void rig_kill(void)
{
	kill(rig_server, SIGKILL);
	must(waitpid(rig_server, NULL, 0) == rig_server, "waitpid");
	rig_server = 0;
}

static void *network(void *arg)
{
	must(fdb.fdb_run_network() == 0, "fdb_run_network");
	return arg;
}

void rig_network(void)
{
	int version = fdb.fdb_get_max_api_version();

	version = version > 730 ? 730 : version;
	must(fdb.fdb_select_api_version_impl(version, version) == 0, "API version");
	must(fdb.fdb_setup_network() == 0, "fdb_setup_network");
	must(pthread_create(&thread, NULL, network, NULL) == 0, "pthread_create");
}

void rig_network_end(void)
{
	must(fdb.fdb_stop_network() == 0, "fdb_stop_network");
	pthread_join(thread, NULL);
}

void rig_open(const char *path, FDBDatabase **out)
{
	must(fdb.fdb_create_database(path, out) == 0, "fdb_create_database");
}

static void clear_corner(void)
{
	FDBTransaction *tr;
	uint8_t last[64];
	int error;

	memcpy(last, prefix, strlen(prefix));
	last[strlen(prefix)] = 0xff;
	must(fdb.fdb_database_create_transaction(db, &tr) == 0, "transaction");
	do {
		fdb.fdb_transaction_clear_range(tr, (uint8_t *)prefix, (int)strlen(prefix), last,
		    (int)strlen(prefix) + 1);
		error = commit(tr);
		must(error == 0 || on_error(tr, error) == 0, "clearing");
	} while (error != 0);
	end(&tr);
}

void rig_place(void)
{
	rig_cluster_file = getenv("BATONFS_TEST_FDB_CLUSTER_FILE");
	snprintf(prefix, sizeof(prefix), "t/fdb/%d/", (int)getpid());
	if (rig_cluster_file != NULL)
		return;
	snprintf(rig_dir, sizeof(rig_dir), "/tmp/standin.XXXXXX");
	must(mkdtemp(rig_dir) != NULL, "mkdtemp");
	snprintf(cluster_file, sizeof(cluster_file), "%s/fdb.cluster", rig_dir);
	rig_cluster_file = cluster_file;
	/* On a machine that is slow enough any transaction would be too old. */
	rig_write("clock", "stopped");
	rig_serve();
}

void rig_client(void)
{
	rig_library();
	rig_network();
	rig_open(rig_cluster_file, &db);
}

void rig_start(void)
{
	rig_place();
	rig_client();
	clear_corner();
}

static void remove_dir(void)
{
	DIR *d = opendir(rig_dir);
	struct dirent *e;

	while (d != NULL && (e = readdir(d)) != NULL)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d != NULL)
		closedir(d);
	rmdir(rig_dir);
}

void rig_stop(void)
{
	if (db == NULL) /* skipped */
		return;
	if (rig_real())
		clear_corner();
	fdb.fdb_database_destroy(db);
	rig_network_end();
	if (rig_server != 0)
		rig_kill();
	if (!rig_real())
		remove_dir();
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

	must(fdb.fdb_database_create_transaction(db, &tr) == 0, "transaction");
	return tr;
}

void end(FDBTransaction **trp)
{
	fdb.fdb_transaction_destroy(*trp);
	*trp = NULL;
}

int waited(FDBFuture *f)
{
	must(fdb.fdb_future_block_until_ready(f) == 0, "block_until_ready");
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
	must(fdb.fdb_transaction_set_option(tr, which, (uint8_t *)&value, 8) == 0, "option");
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
		must(error == 0 || on_error(tr, error) == 0, "a change");
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

	must(error == 0, "get");
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
		must(on_error(tr, error) == 0, "now");
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

	must(error == 0, "get_range");
	return text;
}
