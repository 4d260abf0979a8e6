/* SPDX-License-Identifier: BSD-2-Clause */
/* What was uploaded becomes clean cache: a durable staged file becomes a blob's. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "staged_rig.h"

#define ID (STAGED_DURABLE_BIT | 0x1234)
#define MOST (3 * RIG_PAGE)

static struct staged_rig s;
static unsigned char data[MOST];

static void begin(const char *dir)
{
	srig_init_disk(&s, dir);
	for (size_t i = 0; i < MOST; i++)
		data[i] = fake_byte("v1", i);
}

static void end(void)
{
	srig_fini(&s);
}

/* A file of so many bytes that the storage has. */
static struct staged *uploaded(uint64_t size)
{
	struct staged *sf = srig_create(&s, ID, NULL);

	cr_assert_eq(srig_do(&s, sf, staged_write, 0, size, data), 0);
	cr_assert_eq(srig_do(&s, sf, staged_sync, 0, 0, NULL), 0);
	staged_sending(sf);
	cr_assert_eq(staged_uploaded(sf, NULL, size), 0);
	return sf;
}

static void give(struct staged *sf, struct blob *b)
{
	cr_assert_eq(staged_give(&sf, b), 0);
	cr_assert_null(sf);
	rig_settle(&s.g);
}

static unsigned left(void)
{
	struct dirent *de;
	DIR *dir = opendir(s.dir);
	unsigned n = 0;

	if (dir == NULL)
		return 0;
	while ((de = readdir(dir)) != NULL)
		n += de->d_name[0] != '.';
	closedir(dir);
	return n;
}

/* Given, of so many bytes: are they there without the storage? */
static void adopted(uint64_t size)
{
	struct blob *b = rig_blob(&s.g, "f", "v1", size);
	uint64_t space = (size + BLOCK - 1) / BLOCK * BLOCK;

	give(uploaded(size), b);
	cr_assert_eq(left(), 0);
	cr_assert_eq(cache_blob_stored(b), size);
	cr_assert_eq(s.g.cache->used, space);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, size), 0);
	cache_blob_put(&b);
	/* And to the next daemon. */
	rig_settle(&s.g);
	rig_close(&s.g, true);
	cache_index_open(s.g.cache);
	rig_settle(&s.g);
	cr_assert_eq(s.g.cache->used, space);
	b = rig_blob(&s.g, "f", "v1", size);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, size), 0);
	cr_assert_eq(s.g.ufs->started, 0);
	cr_assert_eq(rig_counter(&s.g, CTR_CACHE_CHECKSUM_ERRORS), 0);
	cache_blob_put(&b);
}

Test(adopt, sizes)
{
	static const uint64_t size[] = {1, 4095, 4096, 10240, RIG_PAGE, RIG_PAGE + 1, MOST - 5, MOST};

	for (unsigned i = 0; i < ARRAY_LEN(size); i++) {
		begin(NULL);
		adopted(size[i]);
		end();
	}
}

Test(adopt, can_be_dropped)
{
	uint64_t from = 0;
	struct blob *b;

	begin(NULL);
	b = rig_blob(&s.g, "f", "v1", MOST);
	give(uploaded(MOST), b);
	cr_assert_eq(cache_blob_stored(b), MOST);
	cr_assert(!cache_blob_drop(b, &from, 100));
	rig_settle(&s.g);
	cr_assert_eq(s.g.cache->used, 0);
	cr_assert_eq(rig_disk_bytes(&s.g), 0);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, MOST), 0); /* from the storage */
	cache_blob_put(&b);
	end();
}

/* A bit that changes afterwards is found. */
Test(adopt, damage_is_found)
{
	char path[256];
	struct blob *b;
	int fd;

	begin(NULL);
	b = rig_blob(&s.g, "f", "v1", MOST);
	give(uploaded(MOST), b);
	cr_assert(rig_find_file(&s.g, path, sizeof(path)));
	fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, "x", 1, MOST - 7), 1);
	close(fd);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, MOST), 0);
	cr_assert_eq(rig_counter(&s.g, CTR_CACHE_CHECKSUM_ERRORS), 1);
	cache_blob_put(&b);
	end();
}

static void not_adopted(struct staged *sf, struct blob *b)
{
	give(sf, b);
	cr_assert_eq(left(), 0);
	cr_assert_eq(s.g.cache->used, 0);
	cr_assert_eq(cache_blob_stored(b), 0);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, cache_blob_size(b)), 0);
	cache_blob_put(&b);
}

/* Neither what was changed since, nor of another length. */
Test(adopt, only_what_the_storage_has)
{
	struct staged *sf;

	begin(NULL);
	sf = uploaded(MOST);
	cr_assert_eq(srig_do(&s, sf, staged_write, 5, 5, data), 0);
	not_adopted(sf, rig_blob(&s.g, "f", "v1", MOST));
	end();
	begin(NULL);
	not_adopted(uploaded(MOST), rig_blob(&s.g, "f", "v1", MOST - 1));
	end();
}

/* Where the sums do not say what the bytes are. */
Test(adopt, sums_must_agree)
{
	char path[256];
	struct staged *sf;
	int fd;

	begin(NULL);
	sf = uploaded(MOST - 100);
	snprintf(path, sizeof(path), "%s/%llx", s.dir, (unsigned long long)ID);
	fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, "x", 1, MOST - 200), 1);
	close(fd);
	not_adopted(sf, rig_blob(&s.g, "f", "v1", MOST - 100));
	end();
}

Test(adopt, other_file_system)
{
	char dir[64] = "/dev/shm/batonfs-adopt-XXXXXX";
	struct stat a, b;

	cr_assert_not_null(mkdtemp(dir));
	begin(dir);
	if (stat(dir, &a) == 0 && stat(s.g.dir, &b) == 0 && a.st_dev != b.st_dev)
		not_adopted(uploaded(MOST), rig_blob(&s.g, "f", "v1", MOST));
	end();
	rmdir(dir);
}

Test(adopt, without_a_page_store)
{
	struct blob *b;

	srig_init(&s);
	for (size_t i = 0; i < MOST; i++)
		data[i] = fake_byte("v1", i);
	b = rig_blob(&s.g, "f", "v1", MOST);
	give(uploaded(MOST), b);
	cr_assert_eq(left(), 0);
	cache_blob_put(&b);
	end();
}

Test(adopt, no_room)
{
	begin(NULL);
	s.g.cache->capacity = MOST - 1;
	not_adopted(uploaded(MOST), rig_blob(&s.g, "f", "v1", MOST));
	end();
}

/* Part of it is on disk already, as a reader fetched it. */
Test(adopt, beside_what_is_there)
{
	struct blob *b;

	begin(NULL);
	b = rig_blob(&s.g, "f", "v1", MOST);
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, 10), 0);
	rig_settle(&s.g);
	give(uploaded(MOST), b);
	cr_assert_eq(left(), 0);
	cr_assert_eq(s.g.cache->used, cache_blob_stored(b));
	cr_assert_eq(rig_read(&s.g, b, NULL, 0, MOST), 0);
	cache_blob_put(&b);
	end();
}

/* A reader that comes while it is being adopted, and the end of the cache. */
Test(adopt, read_meanwhile)
{
	struct rig_read rr;
	struct staged *sf;
	struct blob *b;

	begin(NULL);
	sf = uploaded(MOST);
	b = rig_blob(&s.g, "f", "v1", MOST);
	cr_assert_eq(staged_give(&sf, b), 0);
	rig_read_start(&rr, b, NULL, 0, MOST);
	cr_assert(rig_until(&s.g, rig_read_done, &rr));
	cr_assert_eq(rr.err, 0);
	cr_assert(rig_read_right(&rr));
	rig_read_end(&rr);
	rig_settle(&s.g);
	cr_assert_eq(left(), 0);
	cr_assert_eq(s.g.cache->used, cache_blob_stored(b));
	cache_blob_put(&b);
	end();
	begin(NULL);
	sf = uploaded(MOST);
	b = rig_blob(&s.g, "f", "v1", MOST);
	cr_assert_eq(staged_give(&sf, b), 0);
	cache_blob_put(&b);
	loop_turn(s.g.loop, 0);
	rig_close(&s.g, false);
	end();
}
