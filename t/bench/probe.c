/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The measuring side, a reader like any application.
 *
 *	bench_probe seq FILE			one sequential read: bytes, seconds
 *	bench_probe getattr FILE SECONDS	getattr requests a second (all reach the daemon)
 *	bench_probe direct4k FILE SECONDS	O_DIRECT reads of 4 KiB, at random, a second
 *	bench_probe tree DIR N			makes N empty files, 1,000 a directory
 *	bench_probe hold DIR N			opens the first N files of such a tree, prints
 *						"ready", holds them until its input ends
 *	bench_probe during N FILE COMMAND...	runs COMMAND N times; a line each: the longest
 *						time that a getattr and that a 4 KiB read
 *						took meanwhile, in microseconds
 *
 * Prints numbers only; exit code 1 if a request failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000ull
#define CHUNK (1024u * 1024)
#define A_DIR 1000
#define WARM_MORE (512ull * 1024 * 1024) /* for buffers of the daemon */

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS + (uint64_t)ts.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "bench_probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | flags);

	if (fd < 0)
		fail(path);
	return fd;
}

static void *aligned(size_t size)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, size) != 0)
		fail("memory");
	memset(p, 0, size);
	return p;
}

static void do_getattr(int fd)
{
	struct statx st;

	/* The kernel may not answer this from what it remembers. */
	if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) != 0)
		fail("statx");
}

static uint64_t file_size(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		fail("fstat");
	return (uint64_t)st.st_size;
}

static void do_read4k(int fd, void *buf, uint64_t blocks)
{
	static uint64_t seed = 88172645463325252ull;

	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	if (pread(fd, buf, 4096, (off_t)(seed % blocks * 4096)) != 4096)
		fail("pread");
}

/* A virtual machine that gives free memory back to its host pays for each page's
 * first use, several times what the page's reading costs.  Whoever reads into the
 * page cache (and writes a page store) would pay it, who throws bytes away not. */
static void warm_memory(uint64_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		fail("memory");
	munmap(p, size);
}

static int seq(char **argv)
{
	int fd = open_file(argv[0], 0);
	char *buf = aligned(CHUNK);
	uint64_t begin, bytes = 0;
	ssize_t n;

	warm_memory(2 * file_size(fd) + WARM_MORE);
	/* What the kernel has of it from an earlier read does not count. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	begin = now();
	while ((n = read(fd, buf, CHUNK)) > 0)
		bytes += (uint64_t)n;
	if (n < 0)
		fail("read");
	printf("%llu %.4f\n", (unsigned long long)bytes, (double)(now() - begin) / NS);
	return 0;
}

static int rate(char **argv, int direct)
{
	int fd = open_file(argv[0], direct ? O_DIRECT : 0);
	uint64_t begin, end, n = 0, blocks = file_size(fd) / 4096;
	char *buf = aligned(4096);

	if (direct && blocks == 0)
		fail("file too small");
	begin = now();
	end = begin + (uint64_t)(atof(argv[1]) * NS);
	while (now() < end) {
		for (int i = 0; i < 64; i++, n++) {
			if (direct)
				do_read4k(fd, buf, blocks);
			else
				do_getattr(fd);
		}
	}
	printf("%.0f\n", (double)n * NS / (double)(now() - begin));
	return 0;
}

static void name_of(char *path, size_t size, const char *dir, unsigned long i)
{
	snprintf(path, size, "%s/d%04lu/file-%06lu", dir, i / A_DIR, i);
}

static int tree(char **argv)
{
	unsigned long n = strtoul(argv[1], NULL, 10);
	char path[4096];

	for (unsigned long i = 0; i < n; i++) {
		int fd;

		if (i % A_DIR == 0) {
			snprintf(path, sizeof(path), "%s/d%04lu", argv[0], i / A_DIR);
			if (mkdir(path, 0755) != 0 && errno != EEXIST)
				fail(path);
		}
		name_of(path, sizeof(path), argv[0], i);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			fail(path);
		close(fd);
	}
	return 0;
}

static int hold(char **argv)
{
	unsigned long n = strtoul(argv[1], NULL, 10);
	struct rlimit lim = {.rlim_cur = n + 100, .rlim_max = n + 100};
	char path[4096];

	if (setrlimit(RLIMIT_NOFILE, &lim) != 0)
		fail("RLIMIT_NOFILE");
	for (unsigned long i = 0; i < n; i++) {
		name_of(path, sizeof(path), argv[0], i);
		open_file(path, 0);
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, path, 1) > 0)
		;
	return 0;
}

static _Atomic uint64_t worst_getattr, worst_read;
static atomic_bool stop;

static void *prober(void *arg)
{
	const char *path = arg;
	int fd = open_file(path, O_DIRECT);
	uint64_t blocks = file_size(fd) / 4096;
	char *buf = aligned(4096);

	while (!stop) {
		uint64_t t0 = now(), t1, t2;

		do_getattr(fd);
		t1 = now();
		do_read4k(fd, buf, blocks);
		t2 = now();
		if (t1 - t0 > worst_getattr)
			worst_getattr = t1 - t0;
		if (t2 - t1 > worst_read)
			worst_read = t2 - t1;
		/* A reader, not a load: it leaves the processors to the others. */
		usleep(100);
	}
	close(fd);
	free(buf);
	return NULL;
}

static int during(char **argv)
{
	unsigned long n = strtoul(argv[0], NULL, 10);
	pthread_t th;

	if (pthread_create(&th, NULL, prober, argv[1]) != 0)
		fail("thread");
	for (unsigned long i = 0; i < n; i++) {
		pid_t pid;
		int status;

		worst_getattr = worst_read = 0;
		pid = fork();
		if (pid < 0)
			fail("fork");
		if (pid == 0) {
			execvp(argv[2], argv + 2);
			_exit(127);
		}
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				fail("waitpid");
		if (status != 0) {
			fprintf(stderr, "bench_probe: round %lu: %s failed\n", i, argv[2]);
			return 1;
		}
		printf("%llu %llu\n", (unsigned long long)(worst_getattr / 1000),
		    (unsigned long long)(worst_read / 1000));
		fflush(stdout);
	}
	stop = true;
	pthread_join(th, NULL);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc == 3 && strcmp(what, "seq") == 0)
		return seq(argv + 2);
	if (argc == 4 && strcmp(what, "getattr") == 0)
		return rate(argv + 2, 0);
	if (argc == 4 && strcmp(what, "direct4k") == 0)
		return rate(argv + 2, 1);
	if (argc == 4 && strcmp(what, "tree") == 0)
		return tree(argv + 2);
	if (argc == 4 && strcmp(what, "hold") == 0)
		return hold(argv + 2);
	if (argc > 4 && strcmp(what, "during") == 0)
		return during(argv + 2);
	fprintf(stderr, "usage: bench_probe seq|getattr|direct4k|tree|hold|during ...\n");
	return 2;
}
