/* SPDX-License-Identifier: BSD-2-Clause */
#include "reactor/fdb.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/obj.h"
#include "reactor/loop.h"
#include "reactor/mailbox.h"

/* What there is once in a process.  The loop's thread writes it; the lock is for the
 * counts of call backs, and never goes, since the network's thread unlocks it last. */
static struct {
	void *lib;
	struct fdb_api api;
	int version;
	bool running, ended;
	unsigned users;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t called;
} net = {.lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};

/* A future that somebody waits for, or gave up.  Of the network's thread from
 * fdb_wait() until its mail is on the loop, but for `wait`, which is the loop's. */
struct fdb_seat {
	struct mail mail;
	struct fdb *fdb;
	FDBFuture *future;
	struct fdb_wait *wait; /* NULL: nobody waits any more */
	TAILQ_ENTRY(fdb_seat) link;
};

struct fdb {
	uint32_t magic;
#define FDB_MAGIC 0x7a5c0fdbu
	struct mailbox *mailbox;
	FDBDatabase *db;
	TAILQ_HEAD(, fdb_seat) seats;
	unsigned nseats;
	bool freeing;
	unsigned calls; /* under net.lock: call backs that have not come */
};

/* --- The library */

static int load_functions(const char *library, struct errtext *et)
{
	static const struct {
		const char *name;
		size_t at;
	} rows[] = {
#define X(result, name, args) {"fdb_" #name, offsetof(struct fdb_api, name)},
	    FDB_FUNCTIONS(X)
#undef X
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		void *fn = dlsym(net.lib, rows[i].name);

		if (fn == NULL)
			return errtext_set(et, -ELIBBAD,
			    "meta.fdb.library %s: has no %s: it is no FoundationDB client of 6.3 "
			    "or later",
			    library, rows[i].name);
		memcpy((char *)&net.api + rows[i].at, &fn, sizeof(fn));
	}
	return 0;
}

static int choose_version(const char *library, struct errtext *et)
{
	int most = net.api.get_max_api_version(), version = MIN(most, FDB_API_LAST);
	fdb_error_t code;

	if (most < FDB_API_FIRST)
		return errtext_set(et, -EPROTONOSUPPORT,
		    "meta.fdb.library %s: offers API version %d, and %d is needed: install a "
		    "FoundationDB client of 6.3 or later",
		    library, most, FDB_API_FIRST);
	code = net.api.select_api_version_impl(version, version);
	if (code != 0)
		return errtext_set(et, -EPROTONOSUPPORT,
		    "meta.fdb.library %s: API version %d: %s (%d)", library, version,
		    net.api.get_error(code), code);
	net.version = version;
	return 0;
}

static int load(const char *library, struct errtext *et)
{
	int err;

	if (net.ended)
		return errtext_set(et, -EALREADY,
		    "FoundationDB's network has been stopped, and starts once in a process");
	if (net.version != 0)
		return 0;
	if (net.lib == NULL)
		net.lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (net.lib == NULL) {
		const char *why = dlerror();

		return errtext_set(et, -ENOENT,
		    "meta.fdb.library: %s: install the FoundationDB client, or say where its "
		    "libfdb_c.so is",
		    why != NULL ? why : library);
	}
	err = load_functions(library, et);
	if (err == 0)
		err = choose_version(library, et);
	if (err != 0 && net.version == 0) {
		dlclose(net.lib);
		net.lib = NULL;
	}
	return err;
}

/* --- The network */

static void *network(void *arg)
{
	fdb_error_t code = net.api.run_network();

	(void)arg;
	if (code != 0)
		log_error("FoundationDB's network: %s (%d)", net.api.get_error(code), code);
	return NULL;
}

/* Signals are the loop's. */
static int start_thread(void)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&net.thread, NULL, network, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

static int start(struct errtext *et)
{
	static bool set_up;
	fdb_error_t code = 0;
	int err;

	if (net.running)
		return 0;
	if (!set_up)
		code = net.api.setup_network();
	if (code != 0)
		return errtext_set(et, -EIO, "FoundationDB's network: %s (%d)",
		    net.api.get_error(code), code);
	set_up = true;
	err = start_thread();
	if (err != 0)
		return errtext_set(et, err, "FoundationDB's network: thread: %s", strerror(-err));
	net.running = true;
	return 0;
}

void fdb_end(void)
{
	fdb_error_t code;

	if (!net.running || net.users > 0)
		return;
	net.ended = true;
	code = net.api.stop_network();
	if (code != 0)
		log_error("FoundationDB's network: stop: %s (%d)", net.api.get_error(code), code);
	else
		pthread_join(net.thread, NULL);
	net.running = false;
}

/* --- The cluster */

/* The library's own words for this are few. */
static int check_cluster_file(const char *path, struct errtext *et)
{
	char buf[1];
	ssize_t n;
	int fd;

	if (*path == '\0')
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errtext_set(
		    et, -errno, "meta.fdb.cluster.file %s: %s", path, strerror(errno));
	n = read(fd, buf, sizeof(buf));
	if (n < 0)
		errtext_set(et, -errno, "meta.fdb.cluster.file %s: %s", path, strerror(errno));
	else if (n == 0)
		errtext_set(et, -EINVAL, "meta.fdb.cluster.file %s: is empty", path);
	close(fd);
	return n > 0 ? 0 : n == 0 ? -EINVAL : -EIO;
}

static int open_cluster(struct fdb *f, const char *cluster_file, struct errtext *et)
{
	fdb_error_t code = net.api.create_database(*cluster_file != '\0' ? cluster_file : NULL, &f->db);

	if (code == 0)
		return 0;
	f->db = NULL;
	return errtext_set(et, -EINVAL, "meta.fdb.cluster.file %s: %s (%d)",
	    *cluster_file != '\0' ? cluster_file : "(default)", net.api.get_error(code), code);
}

int fdb_new(struct fdb **out, struct loop *lp, const char *library, const char *cluster_file,
    struct errtext *et)
{
	struct fdb *f;
	int err;

	*out = NULL;
	err = load(library, et);
	if (err == 0)
		err = check_cluster_file(cluster_file, et);
	if (err == 0)
		err = start(et);
	if (err != 0)
		return err;
	ALLOC_OBJ(f, FDB_MAGIC);
	if (f == NULL)
		return errtext_set(et, -ENOMEM, "FoundationDB: out of memory");
	TAILQ_INIT(&f->seats);
	net.users++;
	err = mailbox_new(&f->mailbox, lp);
	if (err != 0)
		errtext_set(et, err, "FoundationDB: mailbox: %s", strerror(-err));
	else
		err = open_cluster(f, cluster_file, et);
	if (err != 0) {
		fdb_free(&f);
		return err;
	}
	*out = f;
	return 0;
}

void fdb_free(struct fdb **fp)
{
	struct fdb_seat *s;
	struct fdb *f;

	if (*fp == NULL)
		return;
	TAKE_OBJ(f, fp, FDB_MAGIC);
	f->freeing = true;
	TAILQ_FOREACH (s, &f->seats, link)
		net.api.future_cancel(s->future);
	pthread_mutex_lock(&net.lock);
	while (f->calls > 0)
		pthread_cond_wait(&net.called, &net.lock);
	pthread_mutex_unlock(&net.lock);
	if (f->mailbox != NULL)
		mailbox_free(&f->mailbox); /* with what was posted */
	assert(TAILQ_EMPTY(&f->seats));
	if (f->db != NULL)
		net.api.database_destroy(f->db);
	net.users--;
	FREE_OBJ(f);
}

const struct fdb_api *fdb_api(const struct fdb *f)
{
	CHECK_OBJ(f, FDB_MAGIC);
	return &net.api;
}

int fdb_version(const struct fdb *f)
{
	CHECK_OBJ(f, FDB_MAGIC);
	return net.version;
}

FDBTransaction *fdb_transaction(struct fdb *f)
{
	FDBTransaction *tr = NULL;

	CHECK_OBJ(f, FDB_MAGIC);
	return net.api.database_create_transaction(f->db, &tr) == 0 ? tr : NULL;
}

const char *fdb_words(const struct fdb *f, fdb_error_t code)
{
	CHECK_OBJ(f, FDB_MAGIC);
	return net.api.get_error(code);
}

/* --- Futures */

/* On the loop. */
static void delivered(struct mail *m)
{
	struct fdb_seat *s = container_of(m, struct fdb_seat, mail);
	struct fdb *f = s->fdb;
	struct fdb_wait *w = s->wait;

	TAILQ_REMOVE(&f->seats, s, link);
	f->nseats--;
	if (w != NULL) {
		w->seat = NULL;
		if (!f->freeing)
			w->done(w, s->future);
	}
	net.api.future_destroy(s->future);
	free(s);
}

/* On the network's thread, or inline.  The mail first: then fdb_free() finds it there. */
static void called(FDBFuture *future, void *arg)
{
	struct fdb_seat *s = arg;
	struct fdb *f = s->fdb;

	(void)future;
	pthread_mutex_lock(&net.lock);
	mailbox_post(f->mailbox, &s->mail);
	if (--f->calls == 0)
		pthread_cond_broadcast(&net.called);
	pthread_mutex_unlock(&net.lock);
}

int fdb_wait(struct fdb *f, struct fdb_wait *w, FDBFuture *future,
    void (*done)(struct fdb_wait *w, FDBFuture *future))
{
	struct fdb_seat *s;

	CHECK_OBJ(f, FDB_MAGIC);
	assert(w->seat == NULL && !f->freeing);
	if (future == NULL)
		return -ENOMEM;
	s = calloc(1, sizeof(*s));
	if (s == NULL) {
		net.api.future_cancel(future);
		net.api.future_destroy(future);
		return -ENOMEM;
	}
	s->mail.fn = delivered;
	s->fdb = f;
	s->future = future;
	s->wait = w;
	w->done = done;
	pthread_mutex_lock(&net.lock);
	f->calls++;
	pthread_mutex_unlock(&net.lock);
	if (net.api.future_set_callback(future, called, s) != 0) {
		pthread_mutex_lock(&net.lock);
		f->calls--;
		pthread_mutex_unlock(&net.lock);
		net.api.future_destroy(future);
		free(s);
		return -ENOMEM;
	}
	w->seat = s;
	TAILQ_INSERT_TAIL(&f->seats, s, link);
	f->nseats++;
	return 0;
}

void fdb_abort(struct fdb_wait *w)
{
	struct fdb_seat *s = w->seat;

	if (s == NULL)
		return;
	s->wait = NULL;
	w->seat = NULL;
	net.api.future_cancel(s->future);
}

unsigned fdb_outstanding(const struct fdb *f)
{
	CHECK_OBJ(f, FDB_MAGIC);
	return f->nseats;
}
