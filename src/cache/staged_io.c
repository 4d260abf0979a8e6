/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests: one after the other through the pool, bytes first, then rows, then the
 * answer.  Cutting is the other way round: the file loses its bytes when the rows that
 * do not need them any more are committed.
 */
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "cache/staged_priv.h"

static struct staged *sf_of(const struct staged_io *io)
{
	CHECK_OBJ(io->sf, STAGED_MAGIC);
	return io->sf;
}

/* --- Beginning and end */

int io_begin(struct staged_io *io, enum io_kind kind)
{
	struct staged *sf = sf_of(io);

	io->cache = sf->st->env.cache;
	io->priv = io->mem = NULL;
	io->pos = io->off;
	io->kind = (uint8_t)kind;
	io->state = IO_IDLE;
	io->err = 0;
	io->got = 0;
	memset(&io->iov, 0, sizeof(io->iov));
	memset(&io->job, 0, sizeof(io->job));
	sf->nio++;
	if (io->off > INT64_MAX || io->len > (uint64_t)INT64_MAX - io->off) {
		if (kind == IO_READ || kind == IO_PREAD || kind == IO_FILL)
			io->len = io->off > INT64_MAX ? 0 : (uint64_t)INT64_MAX - io->off;
		else
			return -EFBIG;
	}
	return 0;
}

void io_ready(struct staged_io *io, int err)
{
	struct staging *st = sf_of(io)->st;

	io->state = IO_READY;
	io->err = err;
	TAILQ_INSERT_TAIL(&st->ready, io, link);
	loop_defer(st->env.loop, &st->ready_run, io_run_ready);
}

static void end(struct staged_io *io, int err)
{
	struct staged *sf = sf_of(io);

	io->state = IO_IDLE;
	assert(sf->nio > 0);
	sf->nio--;
	io->done(io, err);
}

void io_run_ready(struct deferred *d)
{
	struct staging *st = container_of(d, struct staging, ready_run);
	struct staged_io *io;

	while ((io = TAILQ_FIRST(&st->ready)) != NULL) {
		TAILQ_REMOVE(&st->ready, io, link);
		end(io, io->err);
	}
}

/* --- The queue */

void io_queue(struct staged_io *io)
{
	struct staged *sf = sf_of(io);

	io->state = IO_QUEUED;
	TAILQ_INSERT_TAIL(&sf->queue, io, link);
	io_kick(sf);
}

void io_unqueue(struct staged_io *io)
{
	struct staged *sf = sf_of(io);

	if (TAILQ_FIRST(&sf->queue) == io)
		sf->running = false;
	TAILQ_REMOVE(&sf->queue, io, link);
	io->state = IO_IDLE;
}

static void finish(struct staged_io *io, int err)
{
	struct staged *sf = sf_of(io);

	io_unqueue(io);
	io_kick(sf);
	fill_kick(sf); /* what was cut or written is not missing any more */
	end(io, err);
}

static int grow(struct staged *sf, uint64_t size)
{
	uint64_t old = sf->size, changed = sf->changed;
	int err;

	if (size <= sf->size)
		return 0;
	sf->size = size;
	sf->changed = sf->gen;
	err = staged_rows_head(sf);
	if (err != 0) {
		sf->size = old;
		sf->changed = changed;
	}
	return err;
}

/* What PUNCH_HOLE does not reach stays as it is. */
static uint64_t zero_end(const struct staged_io *io)
{
	uint64_t to = io->off + io->len;

	return io->keep_size ? MIN(to, io->sf->size) : to;
}

/* Is there anything in the file or the base that must become zero? */
static bool zero_needed(const struct staged *sf, uint64_t from, uint64_t to)
{
	struct ext *x = map_find(&sf->map, from);

	return from < to && (from < sf->limit || (x != NULL && x->start < to));
}

/* The file has done it: 0 or the database's error. */
static int apply(struct staged_io *io)
{
	struct staged *sf = io->sf;
	uint64_t to = io->off + io->len;
	int err = 0;

	switch (io->kind) {
	case IO_WRITE:
		err = FAULT("staged.write.row");
		if (err == 0)
			err = ext_set(sf, io->off, to, sf->gen);
		if (err == 0 && sf->durable)
			early_wrote(sf, to);
		return err;
	case IO_ZERO:
		if (zero_needed(sf, io->off, zero_end(io)))
			err = ext_set(sf, io->off, zero_end(io), sf->gen);
		if (err == 0 && !io->keep_size)
			err = grow(sf, to);
		return err;
	case IO_ALLOCATE:
		return io->keep_size ? 0 : grow(sf, to);
	default:
		return 0;
	}
}

static const char *const verbs[] = {
	[IO_WRITE] = "write",
	[IO_READ] = "read",
	[IO_PREAD] = "read",
	[IO_TRUNCATE] = "truncate",
	[IO_ZERO] = "zero",
	[IO_ALLOCATE] = "allocate",
	[IO_FILL] = "fill",
	[IO_SYNC] = "sync",
	[IO_CHUNK] = "fill",
};

static void job_done(struct pool_job *job)
{
	struct staged_io *io = container_of(job, struct staged_io, job);
	struct staged *sf = sf_of(io);
	int err = job->result;

	if (sf->held && sf->st != NULL) {
		int rc = hold_leave(sf);

		if (err == 0 && io->kind != IO_READ && io->kind != IO_PREAD)
			err = job->result = rc;
	}
	if (io->kind == IO_SYNC && durable_sync_rest(io, err, job_done))
		return;
	if (sf->durable)
		err = durable_ended(io, err);
	if (err != 0 && sf->st != NULL)
		staged_error(sf->st, sf, verbs[io->kind], err);
	else if (sf->st != NULL && io->kind == IO_WRITE)
		sf->st->error[0] = '\0';
	switch (io->kind) {
	case IO_CHUNK:
		fill_chunk_ended(io, err);
		return;
	case IO_READ:
	case IO_PREAD:
		sread_end(io, err);
		break;
	case IO_TRUNCATE:
		err = 0; /* the size is what was asked for: only space is wasted */
		break;
	default:
		if (err == 0)
			err = apply(io);
		break;
	}
	finish(io, err);
}

static void submit(struct staged_io *io)
{
	pool_submit(io->sf->pool, NULL, &io->job, staged_file_work, job_done);
}

static int truncate_rows(struct staged_io *io)
{
	struct staged *sf = io->sf;
	int err;

	if (io->off >= sf->size)
		return grow(sf, io->off);
	durable_changes(sf, io->off);
	err = ext_cut(sf, io->off);
	if (err != 0)
		return err;
	/* In memory whatever becomes of the row: the extents are gone. */
	sf->size = io->off;
	sf->limit = MIN(sf->limit, io->off);
	sf->cut = MIN(sf->cut, io->off);
	early_cut(sf, io->off);
	sf->changed = sf->gen;
	fill_cut(sf, io->off);
	err = hold_cut(sf);
	if (err == 0)
		err = staged_rows_head(sf);
	sf->rows_bad |= err != 0;
	return err;
}

void io_committed(struct staged *sf, int err)
{
	struct staged_io *io = TAILQ_FIRST(&sf->queue);

	if (err == 0)
		submit(io);
	else
		finish(io, err);
}

enum turn {
	TURN_POOL,
	TURN_COMMIT,
	TURN_DONE, /* nothing to be done in the file: io->err */
	TURN_BACK, /* it left the queue */
};

static enum turn begin_truncate(struct staged_io *io)
{
	bool less = io->off < io->sf->size;

	io->err = truncate_rows(io);
	return less && io->err == 0 && !io->sf->held ? TURN_COMMIT : TURN_DONE;
}

static enum turn begin_chunk(struct staged_io *io)
{
	uint64_t from, to;

	sf_gap(io->sf, io->off, io->off + io->len, &from, &to);
	return from == to ? TURN_DONE : TURN_POOL;
}

static enum turn begin(struct staged_io *io)
{
	switch (io->kind) {
	case IO_TRUNCATE:
		return begin_truncate(io);
	case IO_CHUNK:
		return begin_chunk(io);
	case IO_READ:
	case IO_PREAD:
		if (sread_begin(io))
			return TURN_POOL;
		io_unqueue(io);
		fill_start(io);
		return TURN_BACK;
	case IO_ZERO:
		if (!zero_needed(io->sf, io->off, zero_end(io))) {
			io->err = apply(io);
			return TURN_DONE;
		}
		/* fall through */
	case IO_WRITE:
	case IO_ALLOCATE:
		io->err = map_reserve(&io->sf->map);
		if (io->err == 0 && io->sf->durable)
			io->err = durable_reserve(io);
		if (io->err == 0 && io->kind == IO_WRITE && hold_write(io))
			return TURN_DONE;
		return io->err == 0 ? TURN_POOL : TURN_DONE;
	default:
		return TURN_POOL;
	}
}

/* The directory is not ours yet; or a file of an earlier mount has the name, and is just
 * being moved out of the way. */
static bool held(const struct staged *sf, const struct staged_io *io)
{
	if (sf->st->stopped)
		return true;
	return sweep_moves(sf) && !sf->durable && sf->fd < 0 && sf->map.n == 0 &&
	       (io->kind == IO_WRITE || io->kind == IO_ZERO || io->kind == IO_ALLOCATE ||
		   io->kind == IO_CHUNK);
}

void io_kick(struct staged *sf)
{
	struct staged_io *io;

	while (sf->st != NULL && !sf->running && (io = TAILQ_FIRST(&sf->queue)) != NULL &&
	       !held(sf, io)) {
		switch (begin(io)) {
		case TURN_POOL:
			sf->running = true;
			sf->sweeping = sf->st->sweep != NULL;
			submit(io);
			break;
		case TURN_COMMIT:
			sf->running = true;
			TAILQ_INSERT_TAIL(&sf->st->commit, sf, commit_link);
			break;
		case TURN_DONE:
			if (io->kind == IO_CHUNK) {
				fill_chunk_ended(io, 0);
				return; /* it has kicked */
			}
			io_unqueue(io);
			io_ready(io, io->err);
			break;
		case TURN_BACK:
			break;
		}
	}
}

/* --- What callers ask for */

static void ask(struct staged_io *io, enum io_kind kind)
{
	int err = io_begin(io, kind);

	if (err != 0 || (io->len == 0 && kind != IO_TRUNCATE && kind != IO_SYNC))
		io_ready(io, err);
	else
		io_queue(io);
}

void staged_write(struct staged_io *io)
{
	ask(io, IO_WRITE);
}

void staged_truncate(struct staged_io *io)
{
	io->len = 0;
	ask(io, IO_TRUNCATE);
}

void staged_zero(struct staged_io *io)
{
	ask(io, IO_ZERO);
}

void staged_allocate(struct staged_io *io)
{
	ask(io, IO_ALLOCATE);
}

void staged_sync(struct staged_io *io)
{
	io->off = io->len = 0;
	ask(io, IO_SYNC);
}

void staged_fill(struct staged_io *io)
{
	(void)io_begin(io, IO_FILL);
	fill_start(io);
}

bool staged_io_abort(struct staged_io *io)
{
	struct staged *sf;

	if (io->state == IO_IDLE || (io->kind != IO_READ && io->kind != IO_FILL &&
					io->kind != IO_PREAD))
		return false;
	sf = sf_of(io);
	switch (io->state) {
	case IO_FILLING:
		fill_leave(io);
		break;
	case IO_MEMORY:
		read_memory_leave(io->cache, &io->seat);
		break;
	case IO_QUEUED:
		if (sf->running && TAILQ_FIRST(&sf->queue) == io && !pool_recall(&io->job))
			return false;
		io_unqueue(io);
		io_kick(sf);
		break;
	default:
		TAILQ_REMOVE(&sf->st->ready, io, link);
		break;
	}
	io->state = IO_IDLE;
	sf->nio--;
	staged_read_release(io);
	return true;
}
