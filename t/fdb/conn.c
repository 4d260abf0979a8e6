/* SPDX-License-Identifier: BSD-2-Clause */
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "conn.h"
#include "wire.h"

#define RETRY_MS 20
#define PREFIX "standin:"

static TAILQ_HEAD(, FDB_database) dbs = TAILQ_HEAD_INITIALIZER(dbs);
static uint64_t last_id;

/* What a database without an option of its own has. */
static const struct defaults usual = { 0, -1, 1000, SIZE_LIMIT, 1 };

/* The directory that a cluster file names, or NULL and the error of the API. */
static char *read_cluster_file(const char *path, int *error)
{
	char text[4096] = "", *dir;
	FILE *in;

	if (path == NULL || path[0] == '\0')
		path = getenv("FDB_CLUSTER_FILE");
	in = fopen(path == NULL ? "/etc/foundationdb/fdb.cluster" : path, "re");
	*error = ERR_NO_CLUSTER_FILE;
	if (in == NULL)
		return NULL;
	if (fgets(text, sizeof(text), in) == NULL)
		text[0] = '\0';
	fclose(in);
	text[strcspn(text, "\r\n")] = '\0';
	*error = ERR_CONNECTION_STRING;
	if (strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return NULL;
	*error = 0;
	dir = mem_get(strlen(text));
	strcpy(dir, text + strlen(PREFIX));
	return dir;
}

/* As in the real library a wrong cluster file shows in the transactions, not here. */
FDBDatabase *db_open(const char *cluster_file)
{
	FDBDatabase *db = mem_get(sizeof(*db));

	db->refs = 1;
	db->dir_fd = db->fd = -1;
	db->defaults = usual;
	db->max_watches = 10000;
	db->dir = read_cluster_file(cluster_file, &db->error);
	return db;
}

void db_hold(FDBDatabase *db)
{
	db->refs++;
}

static struct op *commit_on_wire(FDBDatabase *db)
{
	struct op *op, *next;

	HASH_ITER(hh, db->sent, op, next) {
		if (op->kind == OP_COMMIT && op->on_wire)
			return op;
	}
	return NULL;
}

static void disconnect(FDBDatabase *db)
{
	struct rd none = { 0 };
	struct op *op;

	if (db->fd >= 0)
		close(db->fd);
	db->fd = -1;
	db->greeted = false;
	db->in.len = db->out.len = 0;
	db->retry_at = net_now() + RETRY_MS;
	while ((op = commit_on_wire(db)) != NULL) {
		op_unsend(op);
		op_answered(op, ERR_UNKNOWN_RESULT, &none);
	}
}

void db_drop(FDBDatabase *db)
{
	if (--db->refs > 0)
		return;
	if (db->fd >= 0)
		close(db->fd);
	if (db->dir_fd >= 0)
		close(db->dir_fd);
	if (db->link.tqe_prev != NULL)
		TAILQ_REMOVE(&dbs, db, link);
	buf_free(&db->in);
	buf_free(&db->out);
	free(db->dir);
	free(db);
}

void op_send(struct op *op, uint32_t kind, const struct buf *body)
{
	FDBDatabase *db = op->db;

	if (db->link.tqe_prev == NULL)
		TAILQ_INSERT_TAIL(&dbs, db, link);
	op->id = ++last_id;
	op->state = OP_SENT;
	op->message.len = 0;
	buf_u32(&op->message, (uint32_t)(12 + body->len));
	buf_u32(&op->message, kind);
	buf_u64(&op->message, op->id);
	buf_raw(&op->message, body->at, body->len);
	HASH_ADD(hh, db->sent, id, sizeof(op->id), op);
	op->on_wire = db->greeted;
	if (db->greeted)
		buf_raw(&db->out, op->message.at, op->message.len);
}

void op_unsend(struct op *op)
{
	if (op->id != 0)
		HASH_DELETE(hh, op->db->sent, op);
	op->id = 0;
	buf_free(&op->message);
}

void op_tell_forget(struct op *op)
{
	if (!op->db->greeted)
		return;
	buf_u32(&op->db->out, 20);
	buf_u32(&op->db->out, WIRE_FORGET);
	buf_u64(&op->db->out, 0);
	buf_u64(&op->db->out, op->id);
}

/* Says who we are, and again what the last server did not answer. */
static void greet(FDBDatabase *db)
{
	const char *node = getenv("BATONFS_FDB_STANDIN_NODE");
	struct bytes name = bytes_text(node == NULL ? "" : node);
	struct op *op, *next;

	db->greeted = true;
	buf_u32(&db->out, (uint32_t)(12 + 4 + name.len));
	buf_u32(&db->out, WIRE_HELLO);
	buf_u64(&db->out, 0);
	buf_bytes(&db->out, name);
	HASH_ITER(hh, db->sent, op, next) {
		op->on_wire = true;
		buf_raw(&db->out, op->message.at, op->message.len);
	}
}

static void connect_to(FDBDatabase *db)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	/* By way of a descriptor: the path may be longer than an address. */
	if (db->dir_fd < 0)
		db->dir_fd = open(db->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/sock", db->dir_fd);
	db->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (db->dir_fd < 0 || db->fd < 0 ||
	    connect(db->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		disconnect(db);
	else
		greet(db);
}

int64_t conn_connect(void)
{
	int64_t now = net_now(), next = -1;
	FDBDatabase *db;

	TAILQ_FOREACH (db, &dbs, link) {
		if (db->greeted || db->sent == NULL)
			continue;
		if (db->retry_at <= now)
			connect_to(db);
		if (!db->greeted && (next < 0 || db->retry_at - now < next))
			next = db->retry_at - now < 0 ? 0 : db->retry_at - now;
	}
	return next;
}

nfds_t conn_poll(struct pollfd **fds)
{
	nfds_t n = 1;
	FDBDatabase *db;

	TAILQ_FOREACH (db, &dbs, link)
		n++;
	*fds = mem_get(n * sizeof(**fds));
	n = 1;
	TAILQ_FOREACH (db, &dbs, link) {
		(*fds)[n].fd = db->greeted ? db->fd : -1;
		(*fds)[n++].events = (short)(POLLIN | (db->out.len > 0 ? POLLOUT : 0));
	}
	return n;
}

static void serve_answers(FDBDatabase *db)
{
	size_t done = 0;

	while (db->in.len - done >= 4) {
		struct rd r = { db->in.at + done, db->in.len - done, false };
		uint32_t len = rd_u32(&r);
		uint64_t id;
		struct op *op;
		int error;

		if (r.len < len)
			break;
		r.len = len;
		done += 4 + len;
		id = rd_u64(&r);
		error = (int)rd_u32(&r);
		HASH_FIND(hh, db->sent, &id, sizeof(id), op);
		if (op != NULL) {
			op_unsend(op);
			op_answered(op, error, &r);
		}
	}
	buf_cut(&db->in, done);
}

static bool receive(FDBDatabase *db)
{
	uint8_t part[1 << 14];
	ssize_t n;

	while ((n = recv(db->fd, part, sizeof(part), 0)) > 0)
		buf_raw(&db->in, part, (size_t)n);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	return false;
}

static bool transmit(FDBDatabase *db)
{
	ssize_t n;

	while (db->out.len > 0) {
		n = send(db->fd, db->out.at, db->out.len, MSG_NOSIGNAL);
		if (n <= 0)
			return errno == EAGAIN || errno == EINTR;
		buf_cut(&db->out, (size_t)n);
	}
	return true;
}

void conn_serve(const struct pollfd *fds)
{
	nfds_t i = 1;
	FDBDatabase *db, *next;

	TAILQ_FOREACH_SAFE (db, &dbs, link, next) {
		short revents = fds[i++].revents;
		bool up = true;

		if (!db->greeted || revents == 0)
			continue;
		db_hold(db);
		if ((revents & ~POLLOUT) != 0) {
			up = receive(db);
			serve_answers(db);
		}
		if (!up || !transmit(db))
			disconnect(db);
		db_drop(db);
	}
}
