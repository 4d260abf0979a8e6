/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake.h"
#include "fake_policy.h"
#include "fake_records.h"
#include "fake_sessions.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/obj.h"
#include "cache/cache.h"
#include "reactor/pool.h"
#include "reactor/task.h"
#include "takeover/server.h"

struct fake fake;

/* --- daemon, takeover, mount */

bool daemon_mount_gone(const struct daemon *d)
{
	(void)d;
	return !fake.mounted_elsewhere;
}

void daemon_keep_waiter(struct daemon *d, int fd)
{
	(void)d;
	cr_assert_geq(fd, 0);
	fake.waiters++;
}

void daemon_exit(struct daemon *d, bool unmount, int code)
{
	(void)d;
	(void)code;
	fake.exits++;
	fake.exit_unmounts = unmount;
}

int daemon_keep_setting(struct daemon *d, const char *name, const char *value)
{
	(void)d;
	snprintf(fake.kept, sizeof(fake.kept), "%s=%s", name, value);
	return fake.keep_err;
}

void daemon_apply_log_level(const struct config *cfg)
{
	(void)cfg;
}

int takeover_spawn(struct takeover_server *ts, const char *binary, const char *const *extra,
    bool check_only, void (*done)(void *arg, int err, const char *words), void *arg,
    struct errtext *et)
{
	(void)ts;
	if (fake.spawn_err != 0)
		return errtext_set(et, fake.spawn_err, "cannot be executed");
	snprintf(fake.spawn_line, sizeof(fake.spawn_line), "%s", binary != NULL ? binary : "-");
	for (; *extra != NULL; extra++) {
		strcat(fake.spawn_line, " ");
		strcat(fake.spawn_line, *extra);
	}
	fake.spawned++;
	fake.spawn_check = check_only;
	fake.spawn_done = done;
	fake.spawn_arg = arg;
	return 77;
}

int fuse_chan_unmount(const char *mountpoint, bool lazy)
{
	cr_assert_str_eq(mountpoint, "/mnt/test");
	cr_assert_not(lazy);
	fake.umounts++;
	while (atomic_load(&fake.umount_hangs))
		sched_yield();
	return fake.umount_err;
}

/* --- storage */

static char fake_storage;
#define FAKE_UFS ((struct ufs *)(void *)&fake_storage)

int fs_resolve(const struct fs *fs, const char *nspath, struct ufs **u, const char **path)
{
	(void)fs;
	if (strstr(nspath, "/..") != NULL)
		return -EINVAL;
	*u = FAKE_UFS;
	*path = nspath + 1;
	return 0;
}

struct ufs *fs_ufs(const struct fs *fs, unsigned i, const char **nspath)
{
	(void)fs;
	*nspath = "/";
	return i == 0 ? FAKE_UFS : NULL;
}

void fs_info(struct fs *fs, struct fs_info *out)
{
	(void)fs;
	*out = (struct fs_info){.nodes = 10, .open_files = 3, .open_dirs = 1, .running = 2};
}

void fs_deletions(const struct fs *fs, struct fs_deletions *out)
{
	(void)fs;
	memset(out, 0, sizeof(*out));
}

bool fs_deleted(const struct fs *fs, const char *nspath)
{
	(void)fs, (void)nspath;
	return false;
}

const char *ufs_uri(const struct ufs *u)
{
	(void)u;
	return "s3://bucket/prefix";
}

void ufs_health(const struct ufs *u, struct ufs_health *out)
{
	(void)u;
	out->ok = false;
	out->since_ns = 1;
	snprintf(out->last_error, sizeof(out->last_error), "503 SlowDown");
}

struct call {
	struct deferred df;
	struct ufs_req *req;
	int err;
};

static void answer(struct deferred *df)
{
	struct call *call = container_of(df, struct call, df);
	struct ufs_req *req = call->req;
	int err = call->err;

	req->priv = NULL;
	free(call);
	fake.running--;
	req->done(req, err);
}

static void answer_later(struct ufs_req *req, int err, void (*done)(struct ufs_req *r, int err))
{
	struct call *call = calloc(1, sizeof(*call));

	call->req = req;
	call->err = err;
	req->ufs = FAKE_UFS;
	req->done = done;
	req->priv = call;
	fake.running++;
	loop_defer(fake.d.loop, &call->df, answer);
}

void ufs_abort(struct ufs_req *req)
{
	struct call *call = req->priv;

	if (call == NULL)
		return;
	loop_undefer(fake.d.loop, &call->df);
	free(call);
	req->priv = NULL;
	fake.running--;
}

static bool is_dir(const char *path)
{
	return strcmp(path, "") == 0 || strcmp(path, "sub") == 0 || strcmp(path, "sub/deep") == 0 ||
	       strcmp(path, "gone") == 0;
}

void ufs_stat(struct ufs *u, struct ufs_stat *rq, void (*done)(struct ufs_req *r, int err))
{
	int err = 0;

	(void)u;
	memset(&rq->attr, 0, sizeof(rq->attr));
	rq->attr.mtime.tv_sec = 1000000000;
	if (is_dir(rq->path)) {
		rq->attr.kind = UFS_DIR;
	} else if (strcmp(rq->path, "file") == 0) {
		rq->attr.size = 200;
		strcpy(rq->attr.version, "etag");
	} else {
		err = -ENOENT;
	}
	answer_later(&rq->req, err, done);
}

/* The entries of a directory in order: "0" is "sub" or "deep", then "gone" in the
 * root, then the files. */
static const char *entry(const char *dir, unsigned i, char *buf, bool *is_directory)
{
	const char *subs[] = {
	    strcmp(dir, "") == 0 ? "sub" : strcmp(dir, "sub") == 0 ? "deep" : NULL,
	    strcmp(dir, "") == 0 ? "gone" : NULL,
	};

	*is_directory = true;
	for (unsigned s = 0; s < 2; s++)
		if (subs[s] != NULL && i-- == 0)
			return subs[s];
	*is_directory = false;
	sprintf(buf, "file-%06u", i);
	return i < fake.nfiles ? buf : NULL;
}

void ufs_list_free(struct ufs_list *rq)
{
	for (size_t i = 0; i < rq->count; i++)
		free((void *)(uintptr_t)rq->entries[i].name);
	free(rq->entries);
	rq->entries = NULL;
	rq->count = 0;
}

static unsigned first_after(const struct ufs_list *rq)
{
	char buf[32];
	bool d;
	unsigned i = 0;

	if (rq->after == NULL)
		return 0;
	while (strcmp(entry(rq->path, i, buf, &d), rq->after) != 0)
		i++;
	cr_assert_eq(rq->after_kind, d ? UFS_DIR : UFS_FILE);
	return i + 1;
}

void ufs_list(struct ufs *u, struct ufs_list *rq, void (*done)(struct ufs_req *r, int err))
{
	unsigned i = first_after(rq);
	const char *name;
	char buf[32];
	bool d;
	int err = 0;

	(void)u;
	fake.lists++;
	if (fake.fail_list != 0 && --fake.fail_list == 0)
		err = -EIO;
	if (strcmp(rq->path, "gone") == 0)
		err = -ENOENT;
	ufs_list_free(rq);
	rq->more = false;
	if (err == 0) {
		rq->entries = calloc(FAKE_PAGE, sizeof(*rq->entries));
		while (rq->count < FAKE_PAGE && (name = entry(rq->path, i, buf, &d)) != NULL) {
			struct ufs_entry *en = &rq->entries[rq->count++];

			en->name = strdup(name);
			en->name_len = strlen(name);
			en->attr.kind = d ? UFS_DIR : UFS_FILE;
			en->attr.size = d ? 0 : 100;
			i++;
		}
		rq->more = rq->count == FAKE_PAGE;
	}
	answer_later(&rq->req, err, done);
}

/* --- cache: half of each file */

static char fake_blob;

const char *cache_health_word(enum cache_health health)
{
	return health == CACHE_OK ? "ok" : "failed";
}

void cache_status(const struct cache *c, struct cache_status *out)
{
	(void)c;
	*out = (struct cache_status){.dir = "/cache", .capacity = 1000, .used = 500, .pinned = 7};
}

struct blob *cache_blob_get(struct cache *c, const struct blob_id *id)
{
	(void)c;
	cr_assert_eq(id->ufs, FAKE_UFS);
	fake.blobs++;
	return (struct blob *)(void *)&fake_blob;
}

uint64_t cache_blob_cached(const struct blob *b)
{
	(void)b;
	return fake.dropped > 0 ? 0 : 50;
}

uint64_t cache_blob_stored(const struct blob *b)
{
	(void)b;
	return 40;
}

void cache_blob_where(const struct blob *b, struct cache_where *out)
{
	(void)b;
	*out = (struct cache_where){.pages = 2, .pages_on_disk = 1, .file = "/cache/blobs/x"};
}

bool cache_blob_drop(struct blob *b, uint64_t *from, unsigned max)
{
	(void)b;
	cr_assert_gt(max, 0);
	fake.dropped++;
	return (*from)++ == 0;
}

void cache_load_start(struct cache_load *l, struct blob *b, void (*done)(struct cache_load *l,
    int err))
{
	memset(l, 0, sizeof(*l));
	l->blob = b;
	l->done = done;
	cr_assert_lt(fake.nloading, ARRAY_LEN(fake.loading));
	fake.loading[fake.nloading++] = l;
}

void cache_load_abort(struct cache_load *l)
{
	for (unsigned i = 0; i < fake.nloading; i++)
		if (fake.loading[i] == l)
			fake.loading[i] = fake.loading[--fake.nloading];
}

void cache_blob_put(struct blob **bp)
{
	cr_assert_not_null(*bp);
	cr_assert_gt(fake.blobs, 0);
	fake.blobs--;
	*bp = NULL;
}

static void loaded_work(struct pool_job *job)
{
	(void)job;
}

static void loaded_done(struct pool_job *job)
{
	struct cache_loaded *w = container_of(job, struct cache_loaded, job);

	fake.loads_running--;
	w->done(w);
}

void cache_when_loaded(struct cache *c, struct cache_loaded *w,
    void (*done)(struct cache_loaded *w))
{
	(void)c;
	memset(w, 0, sizeof(*w));
	w->done = done;
	fake.loads_running++;
	pool_submit(fake.d.pool, NULL, &w->job, loaded_work, loaded_done);
}

/* --- the client */

void fake_init(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.client = -1;
	fake.d.magic = DAEMON_MAGIC;
	fake.d.args.mountpoint = (char *)(uintptr_t)"/mnt/test";
	fake.d.args.fuse_fd = -1;
	cr_assert_eq(loop_new(&fake.d.loop, &clock_system), 0);
	cr_assert_eq(pool_new(&fake.d.pool, fake.d.loop, 1), 0);
	fake.d.cfg = config_new();
	cr_assert_not_null(fake.d.cfg);
	fake.d.takeover = (struct takeover_server *)(void *)&fake;
	fake_sessions(fake.d.loop, 0);
	fake_records("", 0);
}

void fake_fini(void)
{
	if (fake.d.ctl != NULL)
		ctl_free(&fake.d.ctl);
	cr_assert_eq(task_count(fake.d.loop), 0);
	cr_assert_eq(fake.running, 0, "storage requests are left");
	cr_assert_eq(fake.blobs, 0, "blobs are left");
	cr_assert_eq(fake.nloading, 0, "loads are left");
	pool_free(&fake.d.pool);
	loop_free(&fake.d.loop);
	config_free(&fake.d.cfg);
	fake_policy_fini();
	if (fake.client >= 0)
		close(fake.client);
	free(fake.got);
}

void fake_connect(const struct ctl_command *commands)
{
	int sv[2];

	if (fake.d.ctl == NULL) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
		sa_family_t autobind = AF_UNIX;

		cr_assert_eq(bind(fd, (struct sockaddr *)(void *)&autobind, sizeof(autobind)), 0);
		cr_assert_eq(listen(fd, 5), 0);
		cr_assert_eq(ctl_adopt(&fake.d.ctl, &fake.d, fd), 0);
	}
	if (commands != NULL)
		fake.d.ctl->commands = commands;
	if (fake.client >= 0)
		close(fake.client);
	free(fake.got);
	fake.got = NULL;
	fake.got_len = 0;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
	fake.client = sv[0];
	cr_assert_eq(ctl_conn_new(fake.d.ctl, sv[1]), 0);
}

void fake_settle(void)
{
	while (loop_turn(fake.d.loop, fake.loads_running > 0))
		;
}

void fake_say(const char *text)
{
	size_t len = strlen(text);

	while (len > 0) {
		ssize_t n = send(fake.client, text, len, MSG_NOSIGNAL);

		if (n > 0) {
			text += n;
			len -= (size_t)n;
		} else {
			cr_assert_eq(errno, EAGAIN);
			loop_turn(fake.d.loop, false);
		}
	}
}

static unsigned lines(void)
{
	unsigned n = 0;

	for (size_t i = 0; i < fake.got_len; i++)
		n += fake.got[i] == '\n';
	return n;
}

/* False: end of file. */
static bool take(void)
{
	for (;;) {
		ssize_t n;

		fake.got = realloc(fake.got, fake.got_len + 65537);
		n = recv(fake.client, fake.got + fake.got_len, 65536, 0);
		if (n > 0)
			fake.got_len += (size_t)n;
		fake.got[fake.got_len] = '\0';
		if (n > 0)
			continue;
		return n < 0 && errno == EAGAIN;
	}
}

void fake_read(unsigned n)
{
	while (take() && lines() < n)
		loop_turn(fake.d.loop, false);
}

static char *nth(unsigned n, size_t *len)
{
	char *p;

	fake_read(n);
	cr_assert_geq(lines(), n, "only %u lines have come: %s", lines(), fake.got);
	p = fake.got;
	while (--n > 0)
		p = strchr(p, '\n') + 1;
	*len = strcspn(p, "\n");
	return p;
}

void fake_line(unsigned n, const char *line)
{
	size_t len;
	char *p = nth(n, &len);

	cr_assert(strlen(line) == len && memcmp(p, line, len) == 0, "%.*s is not %s", (int)len, p,
	    line);
}

void fake_line_has(unsigned n, const char *words)
{
	size_t len;
	char *p = nth(n, &len), *copy = strndup(p, len);

	cr_assert_not_null(strstr(copy, words), "no %s in %s", words, copy);
	free(copy);
}

void fake_closed(void)
{
	while (take())
		loop_turn(fake.d.loop, false);
}
