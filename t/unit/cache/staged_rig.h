/* SPDX-License-Identifier: BSD-2-Clause */
/* A rig with staged files: a state database, a directory, and requests to their end. */
#ifndef T_CACHE_STAGED_RIG_H
#define T_CACHE_STAGED_RIG_H

#include "cache/staged_priv.h"
#include "rig.h"

struct staged_rig {
	struct rig g;
	char state[64], dir[80]; /* of the database; of the files */
	struct statedb *db;
	struct staging *st;
};

void srig_init(struct staged_rig *s);
/* dir: of the files, instead of one of its own. */
void srig_init_in(struct staged_rig *s, const char *dir);
/* With a page store; the files lie in it, or in dir. */
void srig_init_disk(struct staged_rig *s, const char *dir);
void srig_fini(struct staged_rig *s);
/* Ends the rig and begins it again with its files on a tmpfs that this test alone sees, with
 * these mount options; or skips the test.  srig_small_disk_end() unmounts it. */
void srig_small_disk(struct staged_rig *s, const char *options);
void srig_small_disk_end(struct staged_rig *s);
/* As after a crash: what is in memory goes, rows and files stay.  No file is open. */
void srig_restart(struct staged_rig *s);
/* The last row and file are what a successor would find now. */
void srig_commit(struct staged_rig *s);
struct staged *srig_create(struct staged_rig *s, uint64_t id, struct blob *base);
struct staged *srig_open(struct staged_rig *s, uint64_t id, struct blob *base);

struct srig_io {
	struct staged_io io;
	bool done;
	int err;
};
typedef void (*srig_verb)(struct staged_io *io);
void srig_start(struct srig_io *si, struct staged *sf, srig_verb verb, uint64_t off,
    uint64_t len, const void *data);
bool srig_done(void *si);
/* To the end: its error. */
int srig_do(struct staged_rig *s, struct staged *sf, srig_verb verb, uint64_t off, uint64_t len,
    const void *data);
int srig_zero(struct staged_rig *s, struct staged *sf, uint64_t off, uint64_t len, bool keep);
/* 0, or -EBADMSG if the bytes are others. */
int srig_check(struct staged_rig *s, struct staged *sf, uint64_t off, const void *data,
    size_t len);
/* The first bytes as an upload reads them; io->got and io->crc say what they are: the error. */
int srig_pread(struct staged_rig *s, struct staged *sf, void *mem, uint64_t len,
    struct staged_io *io);
uint64_t srig_rows(struct staged_rig *s); /* of extents */
/* Number 1, over so many bytes of a base; bytes: where these go, MIN(size, 4 MiB). */
struct staged *srig_over_base(struct staged_rig *s, unsigned char *bytes, uint64_t size);
enum staged_kind srig_kind_at(struct staged *sf, uint64_t off);
void srig_file_path(const struct staged_rig *s, uint64_t id, char *buf, size_t len);
void srig_sums_path(const struct staged_rig *s, uint64_t id, char *buf, size_t len);
bool srig_file_there(const struct staged_rig *s, uint64_t id);
bool srig_sums_there(const struct staged_rig *s, uint64_t id);
void srig_base_bytes(const char *version, uint64_t off, unsigned char *buf, size_t len);

#endif
