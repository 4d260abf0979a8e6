/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test: one sequence of file system calls on two directories, whose answers
 * must be the same.  model_script.c makes, prints and reads the sequence, model_call.c
 * does one call on both and compares, model.c is the rest.
 */
#ifndef T_E2E_MODEL_H
#define T_E2E_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define MODEL_PROCS 8
#define MODEL_SLOTS 6 /* descriptors of a process */
#define MODEL_PATH 48
#define MODEL_FILE_MAX (16u << 20)

/* What a line of a script has. */
#define F_PROC 1u
#define F_SLOT 2u
#define F_SLOT2 4u
#define F_A 8u
#define F_B 16u
#define F_OFF 32u
#define F_LEN 64u
#define F_FLAGS 128u /* of open, by name */
#define F_MODE 256u
#define F_SEED 512u /* of bytes written, or a value */

/* OP(name, weight, fields, bits): what is what is in model_script.c. */
#define B_FD 1u	   /* uses the descriptor in `slot` */
#define B_FD2 2u   /* and in `slot2` */
#define B_DATA 4u  /* not for directories' descriptors */
#define MODEL_OPS                                                                                  \
	OP(open, 160, F_PROC | F_SLOT | F_A | F_FLAGS | F_MODE, 0)                                 \
	OP(close, 120, F_PROC | F_SLOT, B_FD)                                                      \
	OP(dup, 12, F_PROC | F_SLOT | F_SLOT2, B_FD)                                               \
	OP(read, 50, F_PROC | F_SLOT | F_LEN, B_FD | B_DATA)                                       \
	OP(write, 80, F_PROC | F_SLOT | F_LEN | F_SEED, B_FD | B_DATA)                             \
	OP(pread, 60, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                              \
	OP(pwrite, 80, F_PROC | F_SLOT | F_OFF | F_LEN | F_SEED, B_FD | B_DATA)                    \
	OP(seek_set, 20, F_PROC | F_SLOT | F_OFF, B_FD | B_DATA)                                   \
	OP(seek_end, 10, F_PROC | F_SLOT, B_FD | B_DATA)                                           \
	OP(seek_hole, 10, F_PROC | F_SLOT | F_OFF, B_FD | B_DATA)                                  \
	OP(seek_data, 10, F_PROC | F_SLOT | F_OFF, B_FD | B_DATA)                                  \
	OP(ftruncate, 30, F_PROC | F_SLOT | F_OFF, B_FD | B_DATA)                                  \
	OP(truncate, 20, F_PROC | F_A | F_OFF, 0)                                                  \
	OP(fallocate, 6, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                           \
	OP(fallocate_keep, 4, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                      \
	OP(punch, 8, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                               \
	OP(zero_range, 4, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                          \
	OP(copy_range, 10, F_PROC | F_SLOT | F_SLOT2 | F_OFF | F_LEN, B_FD | B_FD2 | B_DATA)       \
	OP(mmap_read, 15, F_PROC | F_SLOT | F_OFF | F_LEN, B_FD | B_DATA)                          \
	OP(mmap_write, 15, F_PROC | F_SLOT | F_OFF | F_LEN | F_SEED, B_FD | B_DATA)                \
	OP(fsync, 15, F_PROC | F_SLOT, B_FD)                                                       \
	OP(fdatasync, 8, F_PROC | F_SLOT, B_FD)                                                    \
	OP(fstat, 30, F_PROC | F_SLOT, B_FD)                                                       \
	OP(fchmod, 8, F_PROC | F_SLOT | F_MODE, B_FD)                                              \
	OP(futimens, 8, F_PROC | F_SLOT | F_SEED, B_FD)                                            \
	OP(fork_close, 6, F_PROC, 0)                                                               \
	OP(fork_write, 8, F_PROC | F_SLOT | F_LEN | F_SEED, B_FD | B_DATA)                         \
	OP(exit, 4, F_PROC, 0)                                                                     \
	OP(stat, 50, F_PROC | F_A, 0)                                                              \
	OP(access, 8, F_PROC | F_A, 0)                                                             \
	OP(chmod, 12, F_PROC | F_A | F_MODE, 0)                                                    \
	OP(chown, 8, F_PROC | F_A | F_SEED, 0)                                                     \
	OP(utimens, 12, F_PROC | F_A | F_SEED, 0)                                                  \
	OP(readdir, 40, F_PROC | F_A, 0)                                                           \
	OP(mkdir, 50, F_PROC | F_A | F_MODE, 0)                                                    \
	OP(rmdir, 20, F_PROC | F_A, 0)                                                             \
	OP(unlink, 40, F_PROC | F_A, 0)                                                            \
	OP(rename, 50, F_PROC | F_A | F_B, 0)                                                      \
	OP(rename_new, 12, F_PROC | F_A | F_B, 0)                                                  \
	OP(check, 0, F_PROC, 0)                                                                    \
	OP(hook, 0, 0, 0)

enum model_op {
#define OP(name, weight, fields, bits) OP_##name,
	MODEL_OPS
#undef OP
	    OPS
};

struct model_step {
	enum model_op op;
	unsigned proc, slot, slot2;
	char a[MODEL_PATH], b[MODEL_PATH];
	uint64_t off, len;
	int flags;
	unsigned mode;
	uint64_t seed;
};

struct model_row {
	const char *name;
	unsigned weight, fields, bits;
};
extern const struct model_row model_rows[OPS];

/* --- model_script.c */
struct model_script {
	struct model_step *v;
	size_t n;
};
extern bool model_large; /* more large files */
/* n calls, a `check` every 100, and a `hook` every `hook` (0: none). */
void model_generate(struct model_script *sc, uint64_t seed, size_t n, unsigned procs, size_t hook);
void model_print(FILE *to, const struct model_step *st);
/* Aborts the program with a message on what is no script. */
void model_load(struct model_script *sc, const char *file);

/* --- model_call.c: what a process does with its steps. */
struct model_answer {
	bool skipped;	/* nothing to do it with */
	bool writable;	/* open: its description can be written to */
	bool done;	/* open, dup: the slot is in use now; else: it worked */
	char diff[480]; /* "": the same */
};
/* Reads steps from fd and answers them, until its end. */
_Noreturn void model_worker(int fd, const char *tested, const char *reference);
/* What is left out of the comparison, and why. */
void model_print_left_out(void);

#endif
