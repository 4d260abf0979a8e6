/* SPDX-License-Identifier: BSD-2-Clause */
/* What is acknowledged survives power loss and the daemon's death, and is whole. */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_log.h"
#include "meta_check.h"
#include "meta_rig.h"

TestSuite(meta_power);

#define TXNS 300
#define AT_ONCE 8
#define IMAGES 100

struct image {
	unsigned char acked[TXNS];
};

static struct meta_rig g;
static atomic_bool acked[TXNS];
static struct image images[IMAGES];
static unsigned nimages, events;

static void image_path(char *buf, size_t len, const char *top, unsigned i)
{
	int n = snprintf(buf, len, "%s/image-%u", top, i);

	if (n < 0 || (size_t)n >= len)
		abort();
}

/* In the writing thread: sometimes, power fails here. */
static void power_fails(void *arg)
{
	char dir[80], path[160];
	struct image *im;

	(void)arg;
	if (events++ % 3 == 2 || nimages == IMAGES)
		return;
	im = &images[nimages];
	for (unsigned i = 0; i < TXNS; i++)
		im->acked[i] = atomic_load(&acked[i]);
	image_path(dir, sizeof(dir), g.top, nimages);
	if (mkdir(dir, 0700) != 0)
		abort();
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", dir);
	disk_log_image(path, nimages);
	nimages++;
}

/* Each transaction writes two records and moves one; some take another's away, and some
 * a directory with content below.  All have content; the one that moves, its bytes. */
#define BELOW 6
struct two {
	struct meta_txn rq;
	struct meta_rig_end end;
	char path[5 + BELOW][32], bytes[32];
	struct meta_change ch[5 + BELOW];
	unsigned no;
};

static struct meta_change content(const char *path, unsigned no, unsigned id, enum meta_state state)
{
	struct meta_change ch = meta_rig_content(path, id, state, 1 + no);

	ch.rec.mode = no;
	ch.rec.content.next_ns = no * 7 % 100;
	return ch;
}

static void below(struct two *t, unsigned no)
{
	for (unsigned i = 0; i < BELOW; i++) {
		char *path = t->path[5 + i];

		(void)snprintf(path, sizeof(t->path[0]), "g/%u/%u/%u", no, i % 2, i);
		t->ch[4 + i] =
		    content(path, no, 10000 + no * BELOW + i, META_STATE_NOT_PERSISTED + i % 4);
	}
	(void)snprintf(t->path[4], sizeof(t->path[4]), "g/%u", no - 10);
	t->ch[4 + BELOW] = meta_rig_del(t->path[4]);
	t->rq.n = 5 + BELOW;
}

static void two_start(struct two *t, unsigned no)
{
	memset(t, 0, sizeof(*t));
	t->no = no;
	(void)snprintf(t->path[0], sizeof(t->path[0]), "a/%u/x", no);
	(void)snprintf(t->path[1], sizeof(t->path[1]), "b/%u", no);
	(void)snprintf(t->path[2], sizeof(t->path[2]), "c/%u/x", no);
	(void)snprintf(t->path[3], sizeof(t->path[3]), "b/%u", no - 1);
	t->ch[0] = content(t->path[0], no, 1 + no, META_STATE_NOT_PERSISTED);
	(void)snprintf(t->bytes, sizeof(t->bytes), "bytes of %u", no);
	t->ch[0].blob = t->bytes;
	t->ch[0].blob_len = t->ch[0].rec.content.size = strlen(t->bytes);
	t->ch[1] = content(t->path[1], no, 1000 + no, META_STATE_FAILED);
	t->ch[2] = meta_rig_move(t->path[0], t->path[2]);
	t->ch[3] = meta_rig_del(t->path[3]);
	t->rq.req.user = &t->end;
	t->rq.changes = t->ch;
	t->rq.n = no % 10 == 9 ? 4 : 3;
	if (no % 10 == 9)
		below(t, no);
	meta_txn(g.meta, &t->rq, meta_rig_done);
}

static bool there(struct meta_rig *at, const char *kind, unsigned no, const char *tail)
{
	char path[32];
	int mode;

	(void)snprintf(path, sizeof(path), "%s/%u%s", kind, no, tail);
	mode = meta_rig_mode(at, path);
	cr_assert(mode == (int)no || mode == -ENOENT, "%s: %d", path, mode);
	return mode == (int)no;
}

static void has_bytes(struct meta_rig *at, unsigned no)
{
	struct meta_content_get rq = { .id = META_RIG_ID(1 + no) };
	char path[32], bytes[32];

	(void)snprintf(path, sizeof(path), "c/%u/x", no);
	(void)snprintf(bytes, sizeof(bytes), "bytes of %u", no);
	cr_assert_eq(meta_rig_content_get(at, &rq), 0);
	cr_assert_str_eq(rq.path, path);
	cr_assert_str_eq(rq.blob, bytes);
	meta_content_free(&rq);
}

static void check_image(unsigned n)
{
	struct meta_rig at;

	meta_rig_init_in(&at, "/dev/shm");
	image_path(at.dir, sizeof(at.dir), g.top, n);
	meta_rig_open(&at);
	for (unsigned i = 0; i < TXNS; i++) {
		bool c = there(&at, "c", i, "/x"), b = there(&at, "b", i, "");
		bool next = i % 10 == 8 && i + 1 < TXNS && there(&at, "c", i + 1, "/x");

		cr_assert(!images[n].acked[i] || c, "image %u has lost %u", n, i);
		cr_assert(!there(&at, "a", i, "/x"), "image %u: %u half done", n, i);
		cr_assert_eq(b, c && !next, "image %u: %u half done", n, i);
		if (c)
			has_bytes(&at, i);
	}
	meta_check(at.dir);
	cr_assert_eq(meta_rig_put(&at, "goes/on", 1), 0);
	meta_rig_settle(&at);
	cr_assert_eq(meta_check(at.dir).garbage, 0);
	meta_rig_fini(&at);
}

Test(meta_power, power_fails_at_any_moment)
{
	static struct two two[AT_ONCE];
	char path[128];
	unsigned started = 0, ended = 0;

	meta_rig_init_in(&g, "/dev/shm"); /* what is safe is decided above the disk */
	meta_rig_open(&g);
	(void)snprintf(path, sizeof(path), "%s/meta.mdb", g.dir);
	disk_log_start(path);
	disk_log_hook(power_fails, NULL);
	while (ended < TXNS) {
		for (unsigned i = 0; i < AT_ONCE; i++) {
			if (two[i].end.done) {
				cr_assert_eq(two[i].end.err, 0);
				atomic_store(&acked[two[i].no], true);
				two[i].end.done = false;
				two[i].no = UINT32_MAX;
				two[i].rq.changes = NULL;
				ended++;
			}
			/* Some alone, some together. */
			if (two[i].rq.changes == NULL && started < TXNS && (i < 1 + started / 25)) {
				two_start(&two[i], started++);
			}
		}
		(void)loop_turn(g.loop, false);
	}
	disk_log_hook(NULL, NULL);
	meta_rig_free(&g);
	disk_log_stop();
	cr_assert_gt(nimages, 50);
	for (unsigned i = 0; i < nimages; i++)
		check_image(i);
	meta_rig_fini(&g);
}

/* --- kill -9 */

static void child(int fd)
{
	for (unsigned no = 0;; no++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "k/%u/x", no);
		if (meta_rig_put(&g, path, no) != 0 || write(fd, &no, sizeof(no)) != sizeof(no))
			_exit(1);
	}
}

/* The children are forked while there are no threads. */
Test(meta_power, killed_at_any_moment)
{
	char top[] = "/tmp/batonfs-meta-XXXXXX";
	struct meta_rig where, after;

	cr_assert_not_null(mkdtemp(top));
	(void)snprintf(where.dir, sizeof(where.dir), "%s/meta", top);
	for (unsigned round = 0; round < 8; round++) {
		unsigned no, last = 0;
		int fds[2];
		pid_t pid;

		cr_assert_eq(pipe(fds), 0);
		pid = fork();
		cr_assert_geq(pid, 0);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			meta_rig_join(&g, &where);
			meta_rig_open(&g);
			child(fds[1]);
		}
		close(fds[1]);
		while (last < 5 + round * 3 && read(fds[0], &no, sizeof(no)) == sizeof(no))
			last = no;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(fds[0], &no, sizeof(no)) == sizeof(no))
			last = no;
		close(fds[0]);
		cr_assert_geq(last, 5 + round * 3);
		meta_rig_join(&after, &where);
		meta_rig_open(&after);
		for (no = 0; no <= last; no++)
			cr_assert(there(&after, "k", no, "/x"), "%u of %u", no, last);
		if (round == 7)
			memcpy(after.top, top, sizeof(top)); /* the end of the directory */
		meta_rig_fini(&after);
	}
}
