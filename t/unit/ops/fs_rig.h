/* SPDX-License-Identifier: BSD-2-Clause */
/* A mount over a scripted storage, which has the files d/small and big; clients that read. */
#ifndef T_OPS_FS_RIG_H
#define T_OPS_FS_RIG_H

#include "ops_rig.h"

#define FSR_NO_CACHE "attr_timeout=0,entry_timeout=0"
#define FSR_LONG "attr_timeout=600,entry_timeout=0,negative_timeout=600"

extern struct rig fsr;

void fsr_begin(const char *opts);
/* The same, on a clock that the test moves. */
void fsr_begin_still(const char *opts);
void fsr_begin_writing_still(const char *opts);
void fsr_finish(void); /* the suites' .fini */
/* A directory "many" with so many entries. */
void fsr_add_many(unsigned n);
/* stat(2) of a name through the mount. */
int fsr_run_stat(const char *name);

struct fsr_want {
	const char *name;
	size_t size;
	char fill;
};
/* In a client, the whole of an open file: 0, an errno, or WRONG. */
int fsr_read_all(int fd, const struct fsr_want *w);
/* A client: arg is a struct fsr_want. */
int fsr_c_read(const struct tmp_mount *tm, void *arg);
/* arg: how many entries "many" must have (unsigned); each name once, in any order. */
int fsr_c_list(const struct tmp_mount *tm, void *arg);

/* Two pipes, made before the client starts: it says where it is, and waits to be told to
 * go on. */
void fsr_make_pipes(void);
void fsr_child_pause(void); /* in the client */
void fsr_await_child(void);
void fsr_wake_child(void);

#endif
