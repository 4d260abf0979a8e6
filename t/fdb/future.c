/* SPDX-License-Identifier: BSD-2-Clause */
#include "future.h"

#include <stdlib.h>

#include "net.h"
#include "wire.h"

static STAILQ_HEAD(, FDB_future) settled = STAILQ_HEAD_INITIALIZER(settled);
static size_t settled_count;

FDBFuture *future_new(void)
{
	FDBFuture *f = mem_get(sizeof(*f));

	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->cond, NULL);
	f->refs = 2;
	return f;
}

FDBFuture *future_failed(int error)
{
	FDBFuture *f = future_new();

	f->ready = true;
	f->settled = true;
	f->error = error;
	f->refs = 1;
	return f;
}

static void results_free(FDBFuture *f)
{
	bytes_free(&f->bytes);
	buf_free(&f->memory);
	free(f->rows);
	free(f->strings);
	f->rows = NULL;
	f->strings = NULL;
}

void future_drop(FDBFuture *f)
{
	if (__atomic_sub_fetch(&f->refs, 1, __ATOMIC_ACQ_REL) > 0)
		return;
	while (f->callbacks != NULL) {
		struct callback *cb = f->callbacks;

		f->callbacks = cb->next;
		free(cb);
	}
	results_free(f);
	pthread_cond_destroy(&f->cond);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

void future_settle(FDBFuture *f, int error)
{
	if (f == NULL || f->settled)
		return;
	f->settled = true;
	f->settled_error = error;
	f->op = NULL;
	STAILQ_INSERT_TAIL(&settled, f, link);
	settled_count++;
}

static void deliver(FDBFuture *f)
{
	struct callback *cb, *next;

	pthread_mutex_lock(&f->lock);
	f->ready = true;
	f->error = f->settled_error;
	cb = f->callbacks;
	f->callbacks = NULL;
	pthread_cond_broadcast(&f->cond);
	pthread_mutex_unlock(&f->lock);
	for (; cb != NULL; cb = next) {
		next = cb->next;
		cb->fn(f, cb->arg);
		free(cb);
	}
	future_drop(f);
}

bool future_deliver(void)
{
	size_t n = settled_count;
	FDBFuture **all, *f;

	if (n == 0)
		return false;
	all = mem_get(n * sizeof(FDBFuture *));
	for (size_t i = 0; i < n; i++) {
		f = STAILQ_FIRST(&settled);
		STAILQ_REMOVE_HEAD(&settled, link);
		all[i] = f;
	}
	settled_count = 0;
	for (size_t i = n; i-- > 0;) {
		size_t j = (size_t)net_random() % (i + 1);

		f = all[j];
		all[j] = all[i];
		deliver(f);
	}
	free(all);
	return true;
}

/* --- what the user calls */

static void cancel(struct call *c)
{
	if (!c->future->settled)
		op_cancelled(c->future);
	future_drop(c->future);
}

void fdb_future_cancel(FDBFuture *f)
{
	struct call *c;

	if (fdb_future_is_ready(f))
		return;
	c = call_new(cancel, NULL);
	__atomic_add_fetch(&f->refs, 1, __ATOMIC_RELAXED);
	c->future = f;
	call_post(c);
}

void fdb_future_destroy(FDBFuture *f)
{
	fdb_future_cancel(f);
	future_drop(f);
}

void fdb_future_release_memory(FDBFuture *f)
{
	pthread_mutex_lock(&f->lock);
	if (++f->released >= f->gets && f->ready && f->error == 0) {
		f->error = ERR_RELEASED;
		results_free(f);
	}
	pthread_mutex_unlock(&f->lock);
}

fdb_error_t fdb_future_block_until_ready(FDBFuture *f)
{
	int error = 0;

	pthread_mutex_lock(&f->lock);
	if (!f->ready && net_is_me())
		error = ERR_ON_NETWORK_THREAD;
	while (!f->ready && error == 0)
		pthread_cond_wait(&f->cond, &f->lock);
	pthread_mutex_unlock(&f->lock);
	return error;
}

fdb_bool_t fdb_future_is_ready(FDBFuture *f)
{
	bool ready;

	pthread_mutex_lock(&f->lock);
	ready = f->ready;
	pthread_mutex_unlock(&f->lock);
	return ready;
}

fdb_error_t fdb_future_set_callback(FDBFuture *f, FDBCallback callback, void *arg)
{
	struct callback *cb = mem_get(sizeof(*cb));
	bool ready;

	cb->fn = callback;
	cb->arg = arg;
	pthread_mutex_lock(&f->lock);
	ready = f->ready;
	if (!ready) {
		cb->next = f->callbacks;
		f->callbacks = cb;
	}
	pthread_mutex_unlock(&f->lock);
	if (ready) {
		free(cb);
		callback(f, arg); /* at once, on this very thread */
	}
	return 0;
}

/* Takes the lock; 0: there is a result to be read, until finish(). */
static int start(FDBFuture *f)
{
	pthread_mutex_lock(&f->lock);
	if (!f->ready)
		return ERR_NOT_SET;
	if (f->error == 0)
		f->gets++;
	return f->error;
}

static int finish(FDBFuture *f, int error)
{
	pthread_mutex_unlock(&f->lock);
	return error;
}

fdb_error_t fdb_future_get_error(FDBFuture *f)
{
	int error;

	pthread_mutex_lock(&f->lock);
	error = f->ready ? f->error : ERR_NOT_SET;
	return finish(f, error);
}

fdb_error_t fdb_future_get_int64(FDBFuture *f, int64_t *out)
{
	int error = start(f);

	if (error == 0)
		*out = f->number;
	return finish(f, error);
}

fdb_error_t fdb_future_get_uint64(FDBFuture *f, uint64_t *out)
{
	int error = start(f);

	if (error == 0)
		*out = (uint64_t)f->number;
	return finish(f, error);
}

fdb_error_t fdb_future_get_key(FDBFuture *f, const uint8_t **key, int *length)
{
	int error = start(f);

	if (error == 0) {
		*key = f->bytes.at;
		*length = (int)f->bytes.len;
	}
	return finish(f, error);
}

/* Without a value the other two stay as they are: "meaningless". */
fdb_error_t fdb_future_get_value(
    FDBFuture *f, fdb_bool_t *present, const uint8_t **value, int *length)
{
	int error = start(f);

	if (error == 0)
		*present = f->present;
	if (error == 0 && f->present) {
		*value = f->bytes.at;
		*length = (int)f->bytes.len;
	}
	return finish(f, error);
}

fdb_error_t fdb_future_get_keyvalue_array(
    FDBFuture *f, const FDBKeyValue **kv, int *count, fdb_bool_t *more)
{
	int error = start(f);

	if (error == 0) {
		*kv = f->rows;
		*count = f->count;
		*more = f->more;
	}
	return finish(f, error);
}

fdb_error_t fdb_future_get_key_array(FDBFuture *f, const FDBKey **keys, int *count)
{
	int error = start(f);

	if (error == 0) {
		*keys = NULL;
		*count = 0;
	}
	return finish(f, error);
}

fdb_error_t fdb_future_get_string_array(FDBFuture *f, const char ***strings, int *count)
{
	int error = start(f);

	if (error == 0) {
		*strings = f->strings;
		*count = f->count;
	}
	return finish(f, error);
}
