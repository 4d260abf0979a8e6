/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Files whose every byte can be checked without a copy: word i of a file is a
 * function of i and of the file's base name.  Names end in ".SIZE".
 *
 *	pattern gen FILE.SIZE...	write them
 *	pattern cat FILE.SIZE		the content to stdout (for uploads)
 *	pattern check FILE.SIZE...	read each once, whole, and compare
 *	pattern hold FILE.SIZE	open, read the first bytes, say "ready", wait for the end
 *		of stdin, read the rest: right bytes ("whole") or ESTALE ("stale")
 *	pattern loop MODE FILE.SIZE...	read until SIGTERM, comparing; MODE is
 *		buffered, direct, mmap, reopen or list (readdir of the directories)
 *
 * loop ends with one line of figures and exit code 1 if a byte was wrong or a call
 * failed; the longest time one call took is printed in milliseconds.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1u << 20)
#define DIRECT_ALIGN 4096u

struct file {
	const char *path;
	uint64_t size, seed;
	int fd;
	char *map;
};

struct figures {
	uint64_t calls, bytes, errors, wrong, opens;
	uint64_t longest_ns;
};

#ifdef __SANITIZE_ADDRESS__
/* A test may run us where /proc does not know us: there the leak checker can neither
 * work nor read its options. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0";
}
#endif

static volatile sig_atomic_t stop;
static unsigned char *buf, *want;

static void on_term(int signo)
{
	(void)signo;
	stop = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static void fill(uint64_t seed, uint64_t off, unsigned char *out, size_t len)
{
	size_t i = 0;
	uint64_t w;

	while (i < len) {
		uint64_t at = off + i;
		size_t skip = at % 8, n = 8 - skip < len - i ? 8 - skip : len - i;

		w = mix(seed ^ (at / 8));
		memcpy(out + i, (unsigned char *)&w + skip, n);
		i += n;
	}
}

static void file_parse(struct file *f, const char *path)
{
	const char *base = strrchr(path, '/'), *dot = strrchr(path, '.');
	const char *p;

	memset(f, 0, sizeof(*f));
	f->path = path;
	f->fd = -1;
	base = base != NULL ? base + 1 : path;
	if (dot == NULL || dot < base) {
		fprintf(stderr, "pattern: %s: the name does not end in .SIZE\n", path);
		exit(2);
	}
	f->size = strtoull(dot + 1, NULL, 10);
	f->seed = UINT64_C(1469598103934665603);
	for (p = base; *p != '\0'; p++)
		f->seed = mix(f->seed ^ (unsigned char)*p);
}

static int write_all(int fd, const struct file *f)
{
	uint64_t off;

	for (off = 0; off < f->size;) {
		size_t n = f->size - off < CHUNK ? (size_t)(f->size - off) : CHUNK, done = 0;

		fill(f->seed, off, buf, n);
		while (done < n) {
			ssize_t w = write(fd, buf + done, n - done);

			if (w < 0)
				return -1;
			done += (size_t)w;
		}
		off += n;
	}
	return 0;
}

static bool compare(const struct file *f, uint64_t off, const unsigned char *data, size_t len)
{
	size_t i;

	fill(f->seed, off, want, len);
	if (memcmp(want, data, len) == 0)
		return true;
	for (i = 0; want[i] == data[i]; i++)
		;
	fprintf(stderr, "pattern: %s: wrong byte at %" PRIu64 ": %02x, not %02x\n", f->path,
	    off + i, data[i], want[i]);
	return false;
}

static void failed(struct figures *fg, const struct file *f, const char *call, uint64_t off)
{
	fprintf(stderr, "pattern: %s: %s at %" PRIu64 ": %s\n", f->path, call, off,
	    strerror(errno));
	fg->errors++;
}

static void took(struct figures *fg, uint64_t since)
{
	uint64_t ns = now_ns() - since;

	fg->calls++;
	if (ns > fg->longest_ns)
		fg->longest_ns = ns;
}

static bool file_open(struct file *f, int flags, struct figures *fg)
{
	uint64_t t = now_ns();
	struct stat st;

	f->fd = open(f->path, O_RDONLY | O_CLOEXEC | flags);
	took(fg, t);
	fg->opens++;
	if (f->fd < 0) {
		failed(fg, f, "open", 0);
		return false;
	}
	if (fstat(f->fd, &st) != 0) {
		failed(fg, f, "fstat", 0);
		return false;
	}
	if ((uint64_t)st.st_size != f->size) {
		fprintf(stderr, "pattern: %s: size %lld\n", f->path, (long long)st.st_size);
		fg->wrong++;
		return false;
	}
	return true;
}

/* One pread of the range, retried for what a short read left. */
static void read_range(struct file *f, uint64_t off, size_t len, bool direct, struct figures *fg)
{
	size_t done = 0, ask = len;

	if (direct)
		ask = (len + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
	while (done < len) {
		uint64_t t = now_ns();
		ssize_t n = pread(f->fd, buf + done, ask - done, (off_t)(off + done));

		took(fg, t);
		if (n <= 0) {
			if (n == 0)
				errno = ENODATA;
			failed(fg, f, "read", off + done);
			return;
		}
		done += (size_t)n;
	}
	fg->bytes += len;
	if (!compare(f, off, buf, len))
		fg->wrong++;
}

static void map_range(struct file *f, uint64_t off, size_t len, struct figures *fg)
{
	uint64_t t = now_ns();

	if (f->map == NULL) {
		f->map = mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
		if (f->map == MAP_FAILED) {
			f->map = NULL;
			failed(fg, f, "mmap", off);
			return;
		}
	}
	memcpy(buf, f->map + off, len);
	took(fg, t);
	fg->bytes += len;
	if (!compare(f, off, buf, len))
		fg->wrong++;
}

static void list_dir(const struct file *f, struct figures *fg)
{
	char path[4096];
	const char *base = strrchr(f->path, '/');
	struct dirent *de;
	uint64_t t = now_ns();
	bool seen = false;
	DIR *d;

	snprintf(path, sizeof(path), "%.*s", (int)(base - f->path), f->path);
	d = opendir(path);
	if (d == NULL) {
		failed(fg, f, "opendir", 0);
		return;
	}
	for (errno = 0; (de = readdir(d)) != NULL; errno = 0)
		if (strcmp(de->d_name, base + 1) == 0) {
			fg->wrong += seen;
			seen = true;
		}
	if (errno != 0)
		failed(fg, f, "readdir", 0);
	else if (!seen) {
		fprintf(stderr, "pattern: %s: missing from its directory\n", f->path);
		fg->wrong++;
	}
	closedir(d);
	took(fg, t);
}

static void loop_once(struct file *f, const char *mode, uint64_t *rnd, struct figures *fg)
{
	bool direct = strcmp(mode, "direct") == 0;
	uint64_t off = 0;
	size_t len;

	if (strcmp(mode, "list") == 0) {
		list_dir(f, fg);
		return;
	}
	if (f->fd < 0 && !file_open(f, direct ? O_DIRECT : 0, fg))
		return;
	/* Either one random piece, or a run of pieces from a random place. */
	*rnd = mix(*rnd);
	if (f->size > 0)
		off = *rnd % f->size / DIRECT_ALIGN * DIRECT_ALIGN;
	len = (*rnd >> 40) % 4 == 0 ? CHUNK : 4096 + (size_t)((*rnd >> 20) % 131072);
	do {
		if (len > f->size - off)
			len = (size_t)(f->size - off);
		if (len == 0)
			break;
		if (strcmp(mode, "mmap") == 0)
			map_range(f, off, len, fg);
		else
			read_range(f, off, len, direct, fg);
		off += len;
		*rnd = mix(*rnd);
	} while (!stop && off < f->size && !(direct && off % DIRECT_ALIGN != 0) && *rnd % 8 != 0);
	if (strcmp(mode, "reopen") == 0) {
		close(f->fd);
		f->fd = -1;
	}
}

static int cmd_loop(const char *mode, struct file *files, int n)
{
	struct figures fg = {0};
	uint64_t rnd = mix((uint64_t)getpid());
	struct sigaction sa = {.sa_handler = on_term, .sa_flags = SA_RESTART};

	sigaction(SIGTERM, &sa, NULL);
	while (!stop && fg.errors + fg.wrong < 10) {
		rnd = mix(rnd);
		loop_once(&files[rnd % (uint64_t)n], mode, &rnd, &fg);
	}
	printf("mode=%s calls=%" PRIu64 " opens=%" PRIu64 " bytes=%" PRIu64 " errors=%" PRIu64
	       " wrong=%" PRIu64 " longest_ms=%.1f\n",
	    mode, fg.calls, fg.opens, fg.bytes, fg.errors, fg.wrong,
	    (double)fg.longest_ns / 1e6);
	return fg.errors + fg.wrong > 0 || fg.calls == 0;
}

static int cmd_check(struct file *f)
{
	struct figures fg = {0};
	uint64_t off;

	if (file_open(f, 0, &fg))
		for (off = 0; off < f->size && fg.errors + fg.wrong == 0; off += CHUNK)
			read_range(f, off, f->size - off < CHUNK ? (size_t)(f->size - off) : CHUNK,
			    false, &fg);
	if (f->fd >= 0)
		close(f->fd);
	return fg.errors + fg.wrong > 0;
}

static int cmd_hold(struct file *f)
{
	struct figures fg = {0};
	uint64_t off;
	char c;

	if (!file_open(f, 0, &fg))
		return 1;
	read_range(f, 0, f->size < 4096 ? (size_t)f->size : 4096, false, &fg);
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	for (off = 0; off < f->size; off += CHUNK) {
		ssize_t n = pread(f->fd, buf, CHUNK, (off_t)off);

		if (n < 0 && errno == ESTALE) {
			puts("stale");
			return 0;
		}
		if (n != (ssize_t)(f->size - off < CHUNK ? f->size - off : CHUNK)) {
			failed(&fg, f, n < 0 ? "read" : "short read", off);
			return 1;
		}
		if (!compare(f, off, buf, (size_t)n))
			return 1;
	}
	puts("whole");
	return 0;
}

static int cmd_gen(struct file *f)
{
	int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write_all(fd, f) != 0 || close(fd) != 0) {
		fprintf(stderr, "pattern: %s: %s\n", f->path, strerror(errno));
		return 1;
	}
	return 0;
}

static int run(const char *cmd, const char *mode, struct file *files, int n)
{
	int ret = 0, i;

	if (strcmp(cmd, "loop") == 0)
		return cmd_loop(mode, files, n);
	for (i = 0; i < n; i++) {
		if (strcmp(cmd, "gen") == 0)
			ret |= cmd_gen(&files[i]);
		else if (strcmp(cmd, "cat") == 0)
			ret |= write_all(STDOUT_FILENO, &files[i]) != 0;
		else if (strcmp(cmd, "hold") == 0)
			ret |= cmd_hold(&files[i]);
		else
			ret |= cmd_check(&files[i]);
	}
	return ret;
}

int main(int argc, char **argv)
{
	int first = argc > 1 && strcmp(argv[1], "loop") == 0 ? 3 : 2, ret, i;
	struct file *files;

	if (argc <= first) {
		fprintf(stderr,
		    "usage: pattern gen|cat|check|hold FILE.SIZE... | loop MODE FILE.SIZE...\n");
		return 2;
	}
	files = calloc((size_t)argc, sizeof(*files));
	buf = aligned_alloc(DIRECT_ALIGN, CHUNK);
	want = malloc(CHUNK);
	if (files == NULL || buf == NULL || want == NULL) {
		free(files);
		return 2;
	}
	for (i = first; i < argc; i++)
		file_parse(&files[i - first], argv[i]);
	ret = run(argv[1], argv[2], files, argc - first);
	free(files);
	free(buf);
	free(want);
	return ret;
}
