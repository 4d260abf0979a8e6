/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test: a random sequence of file system calls by several processes, made on
 * two directories and compared call by call.  A difference is shrunk to a short script
 * that can be replayed.  --help says what it takes and what it does not compare.
 */
#include "model.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *tested, *reference, *hook, *out;
static unsigned procs = 3, patience = 120, shrink_seconds = 120;
static bool verbose;
static unsigned round_no; /* each run has directories of its own */

/* --- who may write: a second writer of a file is left out */

struct open_file {
	unsigned users; /* descriptors */
	bool writable;
	dev_t dev;
	ino_t ino;
};

struct worker {
	pid_t pid;
	int fd;
	struct open_file *slot[MODEL_SLOTS];
};

struct run {
	char dir[2][512]; /* tested, reference */
	struct worker w[MODEL_PROCS];
	struct open_file files[MODEL_PROCS * MODEL_SLOTS];
	size_t skipped;
};

static void release(struct open_file **slot)
{
	if (*slot != NULL)
		(*slot)->users--;
	*slot = NULL;
}

static bool file_id(const struct run *r, const char *path, struct stat *st)
{
	char full[600];

	(void)snprintf(full, sizeof(full), "%s/%s", r->dir[1], path);
	return stat(full, st) == 0;
}

static bool second_writer(const struct run *r, const struct model_step *st)
{
	struct stat s;

	if (st->op != OP_open || (st->flags & O_ACCMODE) == O_RDONLY || !file_id(r, st->a, &s))
		return false;
	for (size_t i = 0; i < sizeof(r->files) / sizeof(r->files[0]); i++) {
		const struct open_file *f = &r->files[i];

		if (f->users > 0 && f->writable && f->dev == s.st_dev && f->ino == s.st_ino)
			return true;
	}
	return false;
}

static void note_open(struct run *r, const struct model_step *st, const struct model_answer *an)
{
	struct open_file **slot = &r->w[st->proc].slot[st->slot], *f = r->files;
	struct stat s = { 0 };

	release(slot);
	while (f->users > 0)
		f++;
	(void)file_id(r, st->a, &s);
	*f = (struct open_file){ 1, an->writable, s.st_dev, s.st_ino };
	*slot = f;
}

static void note(struct run *r, const struct model_step *st, const struct model_answer *an)
{
	struct worker *w = &r->w[st->proc];

	if (st->op == OP_close && !an->skipped)
		release(&w->slot[st->slot]);
	if (!an->done)
		return;
	if (st->op == OP_open)
		note_open(r, st, an);
	if (st->op == OP_dup && st->slot != st->slot2) {
		release(&w->slot[st->slot2]);
		w->slot[st->slot2] = w->slot[st->slot];
		w->slot[st->slot2]->users++;
	}
}

/* --- processes */

static void worker_start(struct run *r, unsigned i)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) != 0)
		err(2, "socketpair");
	(void)fflush(NULL);
	r->w[i].pid = fork();
	if (r->w[i].pid < 0)
		err(2, "fork");
	if (r->w[i].pid == 0) {
		for (unsigned k = 0; k < MODEL_PROCS; k++)
			if (r->w[k].fd > 0)
				(void)close(r->w[k].fd);
		(void)close(sv[0]);
		model_worker(sv[1], r->dir[0], r->dir[1]);
	}
	(void)close(sv[1]);
	r->w[i].fd = sv[0];
}

static void worker_end(struct run *r, unsigned i)
{
	struct worker *w = &r->w[i];

	for (unsigned k = 0; k < MODEL_SLOTS; k++)
		release(&w->slot[k]);
	(void)close(w->fd);
	w->fd = 0;
	(void)waitpid(w->pid, NULL, 0);
}

/* False: it gave no answer in time. */
static bool ask(struct worker *w, const struct model_step *st, struct model_answer *an)
{
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	ssize_t n;

	if (send(w->fd, st, sizeof(*st), MSG_NOSIGNAL) != (ssize_t)sizeof(*st))
		errx(2, "a process of the test has ended");
	if (poll(&p, 1, (int)patience * 1000) == 0)
		return false;
	n = recv(w->fd, an, sizeof(*an), 0);
	if (n != (ssize_t)sizeof(*an))
		errx(2, "a process of the test has ended");
	return true;
}

/* --- one run */

static void make_dirs(struct run *r)
{
	const char *of[2] = { tested, reference };

	round_no++;
	for (unsigned i = 0; i < 2; i++) {
		(void)snprintf(r->dir[i], sizeof(r->dir[i]), "%s/model-%d-%u", of[i], getpid(),
		    round_no);
		if (mkdir(r->dir[i], 0755) != 0)
			err(2, "mkdir %s", r->dir[i]);
	}
}

static void remove_dirs(const struct run *r)
{
	for (unsigned i = 0; i < 2; i++) {
		char cmd[600];

		(void)snprintf(cmd, sizeof(cmd), "rm -rf '%s'", r->dir[i]);
		if (system(cmd) != 0)
			warnx("%s: not all of it could be removed", r->dir[i]);
	}
}

static void step(struct run *r, const struct model_step *st, struct model_answer *an)
{
	memset(an, 0, sizeof(*an));
	if (st->op == OP_hook) {
		if (hook != NULL && system(hook) != 0)
			errx(2, "the hook failed: %s", hook);
		return;
	}
	if (st->op == OP_exit) {
		worker_end(r, st->proc);
		worker_start(r, st->proc);
		return;
	}
	an->skipped = second_writer(r, st);
	if (an->skipped)
		return;
	if (!ask(&r->w[st->proc], st, an)) {
		(void)snprintf(an->diff, sizeof(an->diff), "no answer within %u s", patience);
		(void)kill(r->w[st->proc].pid, SIGKILL);
		return;
	}
	note(r, st, an);
}

/* The number of the step that differs, or -1. */
static long run_script(const struct model_script *sc, struct model_answer *an, size_t *skipped)
{
	struct run r = { 0 };
	long bad = -1;

	make_dirs(&r);
	for (unsigned i = 0; i < MODEL_PROCS; i++)
		worker_start(&r, i);
	for (size_t i = 0; i < sc->n && bad < 0; i++) {
		if (verbose) {
			(void)printf("%zu: ", i);
			model_print(stdout, &sc->v[i]);
			(void)fflush(stdout);
		}
		step(&r, &sc->v[i], an);
		if (an->diff[0] != '\0')
			bad = (long)i;
		r.skipped += an->skipped;
	}
	for (unsigned i = 0; i < MODEL_PROCS; i++)
		worker_end(&r, i);
	if (skipped != NULL)
		*skipped = r.skipped;
	remove_dirs(&r);
	return bad;
}

/* --- shrinking: leaves out what is not needed for a difference */

static double now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void cut(struct model_script *sc, size_t from, size_t n)
{
	memmove(&sc->v[from], &sc->v[from + n], (sc->n - from - n) * sizeof(*sc->v));
	sc->n -= n;
}

static bool still_differs(const struct model_script *sc, struct model_script *best,
    struct model_answer *an)
{
	struct model_answer got;
	long bad = run_script(sc, &got, NULL);

	if (bad < 0)
		return false;
	memcpy(best->v, sc->v, ((size_t)bad + 1) * sizeof(*sc->v));
	best->n = (size_t)bad + 1;
	*an = got;
	return true;
}

static void shrink(struct model_script *best, struct model_answer *an)
{
	struct model_script try = { calloc(best->n, sizeof(*try.v)), 0 };
	double end = now() + shrink_seconds;
	size_t piece = best->n / 2;

	if (try.v == NULL)
		err(2, "memory");
	while (piece > 0 && now() < end) {
		bool smaller = false;

		/* From the end: what is early is more often needed. */
		for (size_t at = best->n > piece ? best->n - piece : 0; now() < end;) {
			memcpy(try.v, best->v, best->n * sizeof(*try.v));
			try.n = best->n;
			if (at + piece <= try.n) {
				cut(&try, at, piece);
				smaller |= try.n > 0 && still_differs(&try, best, an);
			}
			if (at == 0)
				break;
			at = at > piece ? at - piece : 0;
		}
		if (!smaller || piece > best->n)
			piece = piece > best->n ? best->n : piece / 2;
	}
	free(try.v);
}

static void save(const struct model_script *sc, const struct model_answer *an, uint64_t seed)
{
	FILE *to = fopen(out, "w");

	if (to == NULL) {
		warn("%s", out);
		return;
	}
	(void)fprintf(to, "# of seed %llu; differs at the last line\n", (unsigned long long)seed);
	for (size_t i = 0; i < sc->n; i++)
		model_print(to, &sc->v[i]);
	(void)fprintf(to, "# %s\n", an->diff);
	(void)fclose(to);
}

static int report(struct model_script *sc, long bad, struct model_answer *an, uint64_t seed)
{
	(void)printf("DIFFERENT at step %ld of seed %llu: %s\n  ", bad, (unsigned long long)seed,
	    an->diff);
	model_print(stdout, &sc->v[bad]);
	(void)fflush(stdout);
	sc->n = (size_t)bad + 1;
	save(sc, an, seed);
	if (shrink_seconds > 0) {
		shrink(sc, an);
		save(sc, an, seed);
	}
	(void)printf("%zu steps are left: model --replay %s\n", sc->n, out);
	for (size_t i = sc->n > 60 ? sc->n - 60 : 0; i < sc->n; i++) {
		(void)printf("  ");
		model_print(stdout, &sc->v[i]);
	}
	(void)printf("%s\n", an->diff);
	return 1;
}

static void usage(void)
{
	(void)printf(
	    "usage: model [options] TESTED REFERENCE\n"
	    "Makes the same calls in both directories and compares results, errno and bytes.\n"
	    "  --seed N       the sequence; default: from the clock\n"
	    "  --steps N      its length (20000)\n"
	    "  --procs N      processes (3)\n"
	    "  --large        more files of several MiB\n"
	    "  --hook CMD     run CMD (by sh) between two calls ...\n"
	    "  --hook-every N ... every N steps (500)\n"
	    "  --replay FILE  these calls, and not a random sequence\n"
	    "  --out FILE     where the script of a difference goes (model.script)\n"
	    "  --shrink S     seconds for making it shorter (120; 0: do not)\n"
	    "  --patience S   a call that takes longer is a difference (120)\n"
	    "  --verbose      print each call before it is made\n"
	    "Exit code: 0 no difference, 1 a difference, 2 trouble.\n");
	model_print_left_out();
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", 1, NULL, 's' }, { "steps", 1, NULL, 'n' },
		{ "procs", 1, NULL, 'p' }, { "hook", 1, NULL, 'k' }, { "hook-every", 1, NULL, 'e' },
		{ "replay", 1, NULL, 'r' }, { "out", 1, NULL, 'o' }, { "shrink", 1, NULL, 'S' },
		{ "patience", 1, NULL, 'P' }, { "verbose", 0, NULL, 'v' },
		{ "large", 0, NULL, 'l' }, { "help", 0, NULL, 'h' },
		{ 0 } };
	uint64_t seed = (uint64_t)time(NULL);
	size_t steps = 20000, every = 500, skipped = 0;
	const char *replay = NULL;
	struct model_script sc;
	struct model_answer an = { 0 };
	int c, status = 0;
	long bad;

	out = "model.script";
	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (c) {
		case 's':
			seed = strtoull(optarg, NULL, 10);
			break;
		case 'n':
			steps = strtoul(optarg, NULL, 10);
			break;
		case 'p':
			procs = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'k':
			hook = optarg;
			break;
		case 'e':
			every = strtoul(optarg, NULL, 10);
			break;
		case 'r':
			replay = optarg;
			break;
		case 'o':
			out = optarg;
			break;
		case 'S':
			shrink_seconds = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'P':
			patience = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'l':
			model_large = true;
			break;
		case 'v':
			verbose = true;
			break;
		case 'h':
			usage();
			return 0;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || procs < 1 || procs > MODEL_PROCS)
		errx(2, "two directories, and 1 to %u processes; model --help says more",
		    MODEL_PROCS);
	tested = argv[optind];
	reference = argv[optind + 1];
	if (replay != NULL) {
		model_load(&sc, replay);
	} else {
		(void)printf("seed %llu\n", (unsigned long long)seed);
		(void)fflush(stdout);
		model_generate(&sc, seed, steps, procs, hook != NULL ? every : 0);
	}
	bad = run_script(&sc, &an, &skipped);
	if (bad >= 0)
		status = report(&sc, bad, &an, seed);
	else
		(void)printf("no difference in %zu steps, %zu of them skipped\n", sc.n, skipped);
	free(sc.v);
	return status;
}
