/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * After every start, in the background: files that no row describes are removed,
 * and space beyond what a file's rows describe is given back.  A crash leaves
 * both.  One directory of blobs/ at a time: the pool finds suspects, the loop
 * strikes off blobs that are in use, the pool mends the rest; a blob that is
 * opened meanwhile is loaded after that, in the index's lane.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/cache_priv.h"

#define SUSPECTS 64
#define DIRS 256
/* The file system's own blocks are counted with the file. */
#define SLACK (64 * KIB)

struct suspect {
	unsigned char hash[INDEX_HASH];
	bool skip;
};

struct scrub {
	struct pool_job job;
	struct cache *c;
	unsigned dir, n, mended;
	bool more; /* the directory may have further ones */
	struct suspect suspect[SUSPECTS];
};

static bool parse_hash(const char *name, unsigned char *hash)
{
	for (int i = 0; i < INDEX_HASH; i++) {
		unsigned v;
		int used = 0;

		if (sscanf(name + 2 * i, "%2x%n", &v, &used) != 1 || used != 2)
			return false;
		hash[i] = (unsigned char)v;
	}
	return name[2 * INDEX_HASH] == '\0';
}

static bool suspicious(struct index *ix, int fd, const char *name, const unsigned char *hash)
{
	uint64_t bytes;
	struct stat st;
	int err = index_bytes(ix, hash, &bytes);

	if (err == -ENOENT)
		return true;
	return err == 0 && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (uint64_t)st.st_blocks * 512 > bytes + SLACK;
}

static void scan_work(struct pool_job *job)
{
	struct scrub *s = container_of(job, struct scrub, job);
	struct cache *c = s->c;
	struct dirent *de;
	char sub[16];
	DIR *dir;
	int fd;

	s->n = 0;
	s->more = false;
	snprintf(sub, sizeof(sub), "blobs/%02x", s->dir);
	fd = openat(c->dir_fd, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (dir == NULL) {
		close(fd);
		return;
	}
	while ((de = readdir(dir)) != NULL) {
		struct suspect *su = &s->suspect[s->n];

		if (!parse_hash(de->d_name, su->hash) ||
		    !suspicious(c->index, fd, de->d_name, su->hash))
			continue;
		su->skip = false;
		if (++s->n == SUSPECTS) {
			s->more = true;
			break;
		}
	}
	closedir(dir);
}

struct gaps {
	int fd;
	uint64_t page_size, next; /* first page not known to be present */
};

static int punch_before(void *arg, uint64_t page, const uint32_t *crc, uint32_t ncrc)
{
	struct gaps *g = arg;

	(void)crc;
	(void)ncrc;
	if (page > g->next &&
	    fallocate(g->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		(off_t)(g->next * g->page_size), (off_t)((page - g->next) * g->page_size)) != 0)
		return -errno;
	g->next = page + 1;
	return 0;
}

static void trim_file(struct cache *c, const char *name, const unsigned char *hash)
{
	struct gaps g = {.page_size = c->page_size};
	struct stat st;

	g.fd = openat(c->dir_fd, name, O_RDWR | O_CLOEXEC);
	if (g.fd < 0)
		return;
	if (index_rows(c->index, hash, 0, UINT32_MAX, punch_before, &g) == 0 &&
	    fstat(g.fd, &st) == 0)
		(void)punch_before(&g, ((uint64_t)st.st_size + c->page_size - 1) / c->page_size,
		    NULL, 0);
	close(g.fd);
}

static void mend_work(struct pool_job *job)
{
	struct scrub *s = container_of(job, struct scrub, job);
	char name[DISK_NAME_MAX];
	uint64_t bytes;

	s->mended = 0;
	for (unsigned i = 0; i < s->n && epoch_mine(s->c->env.epoch); i++) {
		if (s->suspect[i].skip)
			continue;
		disk_name(s->suspect[i].hash, name);
		if (index_bytes(s->c->index, s->suspect[i].hash, &bytes) == -ENOENT) {
			if (unlinkat(s->c->dir_fd, name, 0) == 0)
				s->mended++;
		} else {
			trim_file(s->c, name, s->suspect[i].hash);
		}
	}
}

static void scan_done(struct pool_job *job);

static void scan_next(struct scrub *s)
{
	struct cache *c = s->c;

	if (c->state == STORE_OPEN && s->dir < DIRS) {
		cache_job(c, &c->index_lane, &s->job, scan_work, scan_done);
		return;
	}
	c->scrub = NULL;
	free(s);
}

static void mend_done(struct pool_job *job)
{
	struct scrub *s = container_of(job, struct scrub, job);
	struct cache *c = s->c;

	if (s->mended > 0)
		log_info("page store %s: %u files without a row removed", c->dir, s->mended);
	/* The same directory again only if that leads on. */
	if (!s->more || s->mended == 0)
		s->dir++;
	scan_next(s);
	cache_job_done(c);
}

static void scan_done(struct pool_job *job)
{
	struct scrub *s = container_of(job, struct scrub, job);
	struct cache *c = s->c;
	unsigned left = 0;

	for (unsigned i = 0; i < s->n; i++) {
		s->suspect[i].skip = blob_find_hash(c, s->suspect[i].hash) != NULL;
		left += !s->suspect[i].skip;
	}
	if (left > 0 && c->state == STORE_OPEN) {
		cache_job(c, &c->index_lane, &s->job, mend_work, mend_done);
	} else {
		s->dir++;
		scan_next(s);
	}
	cache_job_done(c);
}

void scrub_start(struct cache *c)
{
	struct scrub *s;

	if (c->scrub != NULL)
		return;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return; /* the next start does it */
	s->c = c;
	c->scrub = s;
	scan_next(s);
}
