/* SPDX-License-Identifier: BSD-2-Clause */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/options.h"
#include "reactor/fuse_chan.h"
#include "reactor/fuse_init.h"
#include "reactor/fuse_log.h"
#include "reactor/loop.h"
#include "reactor/statedb.h"

#define FUSE_CHAN_MAGIC 0xf05ec4a0u
#define RECV_SIZE (FUSE_INIT_IO_MAX + 4096u) /* as libfuse asks for */
#define HOLD_SIZE (256u << 10)               /* to begin with; grows */
#define UNIQUE_RESENT (UINT64_C(1) << 63)
#define NOTIFY_RESEND 7

enum chan_init { INIT_NONE, INIT_REPLAY, INIT_DONE };

struct fuse_chan {
	uint32_t magic;
	struct fuse_chan_env env;
	struct fuse_session *se; /* closes fd at its end, once it has it */
	int fd;
	struct loop_fd lf;
	bool watched, armed, gone;
	unsigned holds; /* reads nothing while there are any */
	struct turn_hook hook;
	bool hooked;
	struct statedb *db;

	enum chan_init init_state;
	struct fuse_chan_init init;

	unsigned char *recv; /* RECV_SIZE, prefaulted */
	const void *cur;     /* the request being dispatched */
	size_t cur_len;
	bool direct;  /* the next reply does not wait for the database */
	bool feeding; /* cur was not read by us */
	bool repeat, repeated; /* cur is done again if there is no memory; it has to be */
	uint64_t reply_bytes;
	unsigned resends;

	unsigned char *held; /* replies waiting for the commit, end to end */
	size_t held_len, held_cap;
};

void *fuse_chan_userdata(fuse_req_t req)
{
	struct fuse_chan *ch = fuse_req_userdata(req);

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	return ch->env.userdata;
}

/* --- Replies */

/* A no-op if the database's own hook has run. */
static int commit(struct fuse_chan *ch)
{
	int err = ch->db != NULL ? statedb_commit(ch->db) : 0;

	return epoch_mine(ch->env.epoch) ? err : -ESTALE;
}

static int hold_reply(struct fuse_chan *ch, const struct iovec *iov, int count, size_t len)
{
	size_t need = ch->held_len + len, cap = ch->held_cap;
	unsigned char *p;

	while (cap < need)
		cap = cap == 0 ? HOLD_SIZE : cap * 2;
	if (cap != ch->held_cap) {
		p = realloc(ch->held, cap);
		if (p == NULL)
			return -ENOMEM;
		ch->held = p;
		ch->held_cap = cap;
	}
	for (int i = 0; i < count; i++) {
		memcpy(ch->held + ch->held_len, iov[i].iov_base, iov[i].iov_len);
		ch->held_len += iov[i].iov_len;
	}
	return 0;
}

static int send_reply(struct fuse_chan *ch, const struct iovec *iov, int count)
{
	ssize_t n = writev(ch->fd, iov, count);
	int err = n < 0 ? -errno : 0;

	if (err == 0) {
		COUNT(ch->env.loop, FUSE_REPLIES, 1);
		ch->reply_bytes += (uint64_t)n;
		return 0;
	}
	COUNT(ch->env.loop, FUSE_REPLY_ERRORS, 1);
	if (err != -ENOENT && err != -ENODEV)
		log_warn("FUSE: the kernel refused a reply of %zd bytes: %s", fuse_iov_len(iov, count),
		    strerror(-err));
	return err;
}

static void record_init_reply(struct fuse_chan *ch, const struct iovec *iov, int count)
{
	int i;

	ch->init.reply_len = 0;
	for (i = 0; i < count; i++) {
		memcpy(ch->init.reply + ch->init.reply_len, iov[i].iov_base, iov[i].iov_len);
		ch->init.reply_len += (uint32_t)iov[i].iov_len;
	}
	if (ch->env.agreed != NULL && fuse_init_check(&ch->init, NULL) == 0)
		ch->env.agreed(ch->env.owner);
}

/* The daemon before recorded its reply and died before the kernel had it: the kernel
 * asks again, and gets what was recorded. */
static void repeat_init_reply(struct fuse_chan *ch, const struct fuse_in_header *in)
{
	_Alignas(uint64_t) unsigned char reply[FUSE_CHAN_INIT_MAX];
	struct fuse_out_header head;
	struct iovec iov = {.iov_base = reply, .iov_len = ch->init.reply_len};

	memcpy(reply, ch->init.reply, ch->init.reply_len);
	memcpy(&head, reply, sizeof(head));
	head.unique = in->unique;
	memcpy(reply, &head, sizeof(head));
	send_reply(ch, &iov, 1);
}

/* Without memory to hold it the reply leaves now, behind a commit of its own. */
static int hold_or_send(struct fuse_chan *ch, const struct iovec *iov, int count, size_t len)
{
	struct fuse_out_header head;
	struct iovec failed = {.iov_base = &head, .iov_len = sizeof(head)};

	if (hold_reply(ch, iov, count, len) == 0)
		return 0;
	fuse_chan_flush(ch);
	switch (commit(ch)) {
	case 0:
		return send_reply(ch, iov, count);
	case -ESTALE:
		return 0; /* as in drop_held() */
	default:
		memcpy(&head, iov[0].iov_base, sizeof(head));
		head.len = sizeof(head);
		head.error = -EIO;
		return send_reply(ch, &failed, 1);
	}
}

/* RELEASE comes once, and nobody looks at its answer: a file would stay open for ever. */
static bool to_be_repeated(struct fuse_chan *ch, const struct iovec *iov)
{
	struct fuse_out_header head;

	if (!ch->repeat || iov[0].iov_len < sizeof(head))
		return false;
	memcpy(&head, iov[0].iov_base, sizeof(head));
	ch->repeated = head.error == -ENOMEM;
	return ch->repeated;
}

/* The library calls this with every reply and notification.  Errors are logged in
 * send_reply(); ENOENT is the one that the library does not print as well. */
static ssize_t chan_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fuse_chan *ch = userdata;
	ssize_t len = fuse_iov_len(iov, count);
	int err;

	(void)fd;
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	if (ch->init_state == INIT_REPLAY || to_be_repeated(ch, iov))
		return len;
	if (ch->init_state == INIT_NONE && (size_t)len <= FUSE_CHAN_INIT_MAX)
		record_init_reply(ch, iov, count);
	if (!ch->direct && ch->db != NULL && statedb_dirty(ch->db))
		err = hold_or_send(ch, iov, count, (size_t)len);
	else
		err = send_reply(ch, iov, count);
	if (err == 0)
		return len;
	errno = ENOENT;
	return -1;
}

static ssize_t chan_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

static const struct fuse_custom_io chan_io = {.writev = chan_writev, .read = chan_read};

/* The database could not be committed: nothing that these replies promise is
 * recorded.  A successor whose epoch it is now gets the requests again from the
 * kernel; otherwise they fail. */
static void drop_held(struct fuse_chan *ch, int err)
{
	struct fuse_out_header head;
	struct iovec iov = {.iov_base = &head, .iov_len = sizeof(head)};
	size_t off;

	if (err == -ESTALE)
		return;
	log_error("state database: commit: %s; requests fail with EIO", strerror(-err));
	for (off = 0; off < ch->held_len; off += head.len) {
		uint32_t len;

		memcpy(&head, ch->held + off, sizeof(head));
		len = head.len;
		head.len = sizeof(head);
		head.error = -EIO;
		send_reply(ch, &iov, 1);
		head.len = len;
	}
}

static void send_held(struct fuse_chan *ch)
{
	struct fuse_out_header head;
	struct iovec iov;
	size_t off;

	for (off = 0; off < ch->held_len; off += head.len) {
		memcpy(&head, ch->held + off, sizeof(head));
		iov.iov_base = ch->held + off;
		iov.iov_len = head.len;
		send_reply(ch, &iov, 1);
	}
}

void fuse_chan_flush(struct fuse_chan *ch)
{
	int err;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	if (ch->held_len == 0)
		return;
	err = commit(ch);
	if (err == 0)
		send_held(ch);
	else
		drop_held(ch, err);
	ch->held_len = 0;
}

static void chan_turn_end(struct turn_hook *h)
{
	fuse_chan_flush(container_of(h, struct fuse_chan, hook));
}

int fuse_chan_reply_data(struct fuse_chan *ch, fuse_req_t req, struct iovec *iov, int niov)
{
	int err;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	ch->direct = true;
	if (niov <= 1)
		err = fuse_reply_buf(
		    req, niov == 1 ? iov[0].iov_base : NULL, niov == 1 ? iov[0].iov_len : 0);
	else
		err = fuse_reply_iov(req, iov, niov);
	ch->direct = false;
	return err;
}

/* --- Requests */

static void chan_init_op(void *userdata, struct fuse_conn_info *conn)
{
	struct fuse_chan *ch = userdata;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	if (ch->init_state == INIT_REPLAY) {
		fuse_init_restore(conn, &ch->init);
		return;
	}
	fuse_init_propose(conn);
	if (ch->env.ops->init != NULL)
		ch->env.ops->init(ch->env.userdata, conn);
}

static void process(struct fuse_chan *ch, void *raw, size_t len)
{
	struct fuse_buf buf = {.size = len, .mem = raw};
	const void *cur = ch->cur;
	size_t cur_len = ch->cur_len;

	ch->cur = raw;
	ch->cur_len = len;
	fuse_session_process_buf(ch->se, &buf);
	ch->cur = cur;
	ch->cur_len = cur_len;
}

static void process_twice(struct fuse_chan *ch, void *raw, size_t len)
{
	ch->repeat = true;
	ch->repeated = false;
	process(ch, raw, len);
	ch->repeat = false;
	if (ch->repeated)
		process(ch, raw, len);
}

static void first_init(struct fuse_chan *ch, void *raw, size_t len)
{
	if (len <= FUSE_CHAN_INIT_MAX) {
		memcpy(ch->init.req, raw, len);
		ch->init.req_len = (uint32_t)len;
	}
	process(ch, raw, len);
	if (fuse_init_check(&ch->init, NULL) != 0) {
		/* Refused by the library (which logged why), or a protocol this
		 * program was not made for. */
		memset(&ch->init, 0, sizeof(ch->init));
		return;
	}
	ch->init_state = INIT_DONE;
	/* The kernel sets its readahead window by the reply: it leaves before others
	 * change the window, or say that the mount serves. */
	fuse_chan_flush(ch);
	if (ch->env.ready != NULL)
		ch->env.ready(ch->env.owner);
}

static void dispatch(struct fuse_chan *ch, void *raw, size_t len)
{
	const struct fuse_in_header *in = raw;

	if (len < sizeof(*in) || in->len != len) {
		log_error("FUSE: a request of %zu bytes is damaged; ignored", len);
		return;
	}
	COUNT(ch->env.loop, FUSE_REQUESTS, 1);
	if ((in->unique & UNIQUE_RESENT) != 0)
		COUNT(ch->env.loop, FUSE_RESENT, 1);
	if (ch->init_state == INIT_NONE && in->opcode == FUSE_INIT)
		first_init(ch, raw, len);
	else if (in->opcode == FUSE_INIT)
		repeat_init_reply(ch, in);
	else if (in->opcode == FUSE_RELEASE || in->opcode == FUSE_RELEASEDIR)
		process_twice(ch, raw, len);
	else
		process(ch, raw, len);
}

static void connection_gone(struct fuse_chan *ch, int err)
{
	if (ch->gone)
		return;
	ch->gone = true;
	ch->armed = false;
	loop_fd_want(&ch->lf, 0);
	ch->env.gone(ch->env.owner, err);
}

/* Whether to go on in this wake. */
static bool read_one(struct fuse_chan *ch, uint64_t *bytes)
{
	struct fuse_buf buf = {.mem = ch->recv, .size = RECV_SIZE};
	int n = FAULT("fuse.read");

	if (n == 0)
		n = fuse_session_receive_buf(ch->se, &buf);
	if (n == -EAGAIN)
		return false;
	if (n == -EINTR || n == -ENOENT)
		return true;
	/* Unmounted is 0; ECONNABORTED where that met the read of a request that still
	 * waited (the RELEASE of a file just closed, say). */
	if (n <= 0) {
		connection_gone(ch, n == -ECONNABORTED ? 0 : n);
		return false;
	}
	*bytes += (uint64_t)n;
	dispatch(ch, ch->recv, (size_t)n);
	return true;
}

static void chan_readable(struct loop_fd *lf, unsigned what)
{
	struct fuse_chan *ch = container_of(lf, struct fuse_chan, lf);
	const struct config *cfg;
	uint64_t n, bytes = 0;

	(void)what;
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	cfg = ch->env.cfg;
	ch->reply_bytes = 0;
	for (n = 0; n < cfg->fuse_batch_requests && ch->armed && ch->holds == 0; n++) {
		if (bytes + ch->reply_bytes >= cfg->fuse_batch_bytes)
			break;
		if (!epoch_mine(ch->env.epoch)) {
			/* Somebody else's mount by now; he reads it. */
			fuse_chan_disarm(ch);
			return;
		}
		if (!read_one(ch, &bytes))
			return;
	}
}

void fuse_chan_feed(struct fuse_chan *ch, const void *raw, size_t len)
{
	void *copy;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	/* The library's parser takes a writable, aligned buffer; the receive
	 * buffer may be in use further up. */
	copy = malloc(len);
	if (copy == NULL) {
		struct fuse_in_header in;
		struct fuse_out_header head = {.len = sizeof(head), .error = -ENOMEM};
		struct iovec iov = {.iov_base = &head, .iov_len = sizeof(head)};

		if (len >= sizeof(in)) {
			memcpy(&in, raw, sizeof(in));
			head.unique = in.unique;
			send_reply(ch, &iov, 1);
		}
		return;
	}
	memcpy(copy, raw, len);
	ch->feeding = true;
	dispatch(ch, copy, len);
	ch->feeding = false;
	free(copy);
}

bool fuse_chan_feeding(const struct fuse_chan *ch)
{
	return ch->feeding;
}

const void *fuse_chan_current(const struct fuse_chan *ch, size_t *len)
{
	*len = ch->cur_len;
	return ch->cur;
}

int fuse_chan_resend(struct fuse_chan *ch)
{
	struct fuse_out_header head = {.len = sizeof(head), .error = NOTIFY_RESEND};

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	/* What has been answered is not to come again. */
	fuse_chan_flush(ch);
	ch->resends++;
	if (write(ch->fd, &head, sizeof(head)) == (ssize_t)sizeof(head))
		return 0;
	return errno == EINVAL ? -EOPNOTSUPP : -errno;
}

unsigned fuse_chan_resends(const struct fuse_chan *ch)
{
	return ch->resends;
}

/* --- Life */

static int new_session(struct fuse_chan *ch, const char *const *opts)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_lowlevel_ops ops = *ch->env.ops;
	char max_read[32];
	int err = -ENOMEM;

	snprintf(max_read, sizeof(max_read), "max_read=%u", FUSE_INIT_IO_MAX);
	if (fuse_opt_add_arg(&args, "batonfsd") != 0 || fuse_opt_add_arg(&args, "-o") != 0 ||
	    fuse_opt_add_arg(&args, max_read) != 0)
		goto out;
	for (; opts != NULL && *opts != NULL; opts++)
		if (fuse_opt_add_arg(&args, "-o") != 0 || fuse_opt_add_arg(&args, *opts) != 0)
			goto out;
	ops.init = chan_init_op;
	ops.destroy = NULL;
	err = -EINVAL;
	ch->se = fuse_session_new(&args, &ops, sizeof(ops), ch);
	if (ch->se != NULL)
		err = 0;
out:
	fuse_opt_free_args(&args);
	return err;
}

/* A fault on this memory while the process is being killed would lose the
 * request, so its pages are there before the first read, and stay if they may. */
static int alloc_recv(struct fuse_chan *ch)
{
	void *p = mmap(NULL, RECV_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	ch->recv = p;
	if (mlock(p, RECV_SIZE) != 0)
		log_debug("FUSE buffer not locked in memory: %s", strerror(errno));
	return 0;
}

int fuse_chan_new(struct fuse_chan **out, const struct fuse_chan_env *env,
    const char *const *mount_opts, struct errtext *et)
{
	struct errtext why = {.s = ""};
	struct fuse_chan *ch;
	int err;

	*out = NULL;
	ALLOC_OBJ(ch, FUSE_CHAN_MAGIC);
	if (ch == NULL)
		return errtext_set(et, -ENOMEM, "FUSE session: out of memory");
	ch->env = *env;
	ch->fd = -1;
	fuse_log_install();
	err = alloc_recv(ch);
	if (err == 0) {
		fuse_log_catch(&why);
		err = new_session(ch, mount_opts);
		fuse_log_catch(NULL);
	}
	if (err != 0) {
		fuse_chan_free(&ch);
		return errtext_set(
		    et, err, "FUSE session: %s", why.s[0] != '\0' ? why.s : strerror(-err));
	}
	loop_hook_add(env->loop, &ch->hook, chan_turn_end);
	ch->hooked = true;
	*out = ch;
	return 0;
}

void fuse_chan_free(struct fuse_chan **cp)
{
	struct fuse_chan *ch;

	if (*cp == NULL)
		return;
	TAKE_OBJ(ch, cp, FUSE_CHAN_MAGIC);
	if (ch->hooked)
		loop_hook_remove(ch->env.loop, &ch->hook);
	if (ch->watched)
		loop_fd_fini(&ch->lf);
	if (ch->se != NULL)
		fuse_session_destroy(ch->se);
	if (ch->recv != NULL)
		munmap(ch->recv, RECV_SIZE);
	free(ch->held);
	FREE_OBJ(ch);
}

/* Gives fd to session and loop; on failure it is closed. */
static int take_fd(struct fuse_chan *ch, int fd, bool in_session)
{
	int err = 0, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		err = -errno;
	if (err == 0)
		err = fuse_session_custom_io(ch->se, &chan_io, fd);
	if (err != 0) {
		if (!in_session)
			close(fd);
		return err;
	}
	ch->fd = fd;
	err = loop_fd_init(&ch->lf, ch->env.loop, fd, chan_readable);
	if (err == 0)
		ch->watched = true;
	return err;
}

int fuse_chan_mount(struct fuse_chan *ch, const char *mountpoint, struct errtext *et)
{
	struct errtext why = {.s = ""};
	int err;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	assert(ch->fd < 0);
	errno = 0;
	fuse_log_catch(&why);
	err = fuse_session_mount(ch->se, mountpoint) == 0 ? 0 : (errno != 0 ? -errno : -EIO);
	fuse_log_catch(NULL);
	if (err != 0)
		return errtext_set(et, err, "mount on %s: %s", mountpoint,
		    why.s[0] != '\0' ? why.s : strerror(-err));
	err = take_fd(ch, fuse_session_fd(ch->se), true);
	if (err != 0) {
		fuse_chan_unmount(mountpoint, true);
		return errtext_set(et, err, "mount on %s: %s", mountpoint, strerror(-err));
	}
	return 0;
}

int fuse_chan_adopt(
    struct fuse_chan *ch, int fd, const struct fuse_chan_init *init, struct errtext *et)
{
	_Alignas(uint64_t) unsigned char req[FUSE_CHAN_INIT_MAX];
	int err;

	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	assert(ch->fd < 0);
	err = init->req_len > 0 ? fuse_init_check(init, et) : 0;
	if (err != 0) {
		close(fd);
		return err;
	}
	err = take_fd(ch, fd, false);
	if (err != 0)
		return errtext_set(et, err, "FUSE descriptor: %s", strerror(-err));
	if (init->req_len == 0)
		return 0;
	ch->init = *init;
	ch->init_state = INIT_REPLAY;
	memcpy(req, init->req, init->req_len);
	process(ch, req, init->req_len);
	ch->init_state = INIT_DONE;
	if (fuse_session_exited(ch->se))
		return errtext_set(
		    et, -EPROTO, "the FUSE library refused the recorded INIT request");
	return 0;
}

void fuse_chan_set_statedb(struct fuse_chan *ch, struct statedb *db)
{
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	if (db != ch->db)
		fuse_chan_flush(ch);
	ch->db = db;
}

int fuse_chan_fd(const struct fuse_chan *ch)
{
	return ch->fd;
}

bool fuse_chan_mine(const struct fuse_chan *ch)
{
	return ch->init_state == INIT_DONE && epoch_mine(ch->env.epoch);
}

const struct fuse_chan_init *fuse_chan_init_record(const struct fuse_chan *ch)
{
	return &ch->init;
}

static void watch(struct fuse_chan *ch)
{
	bool reads = ch->armed && ch->holds == 0;

	if (ch->gone || !ch->watched)
		return;
	if (loop_fd_want(&ch->lf, reads ? LOOP_READ : 0) != 0 && reads)
		connection_gone(ch, -ENOMEM);
}

void fuse_chan_arm(struct fuse_chan *ch)
{
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	assert(ch->watched);
	if (ch->gone)
		return;
	ch->armed = true;
	watch(ch);
}

void fuse_chan_disarm(struct fuse_chan *ch)
{
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	ch->armed = false;
	watch(ch);
}

void fuse_chan_hold(struct fuse_chan *ch)
{
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	if (ch->holds++ == 0)
		watch(ch);
}

void fuse_chan_unhold(struct fuse_chan *ch)
{
	CHECK_OBJ(ch, FUSE_CHAN_MAGIC);
	assert(ch->holds > 0);
	if (--ch->holds == 0)
		watch(ch);
}
