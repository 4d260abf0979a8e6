/* SPDX-License-Identifier: BSD-2-Clause */
/* A loop with pool, HTTP and one storage, and requests that wait for their end. */
#ifndef T_UNIT_UFS_UFS_FIX_H
#define T_UNIT_UFS_UFS_FIX_H

#include "base/options.h"
#include "reactor/http.h"
#include "reactor/loop.h"
#include "reactor/pool.h"
#include "ufs/ufs.h"

struct ufs_fix {
	struct loop *loop;
	struct pool *pool;
	struct http *http;
	struct config *cfg;
	struct ufs_env env;
	struct ufs *ufs;
	int err;
	bool done;
	/* read: what came */
	char *data;
	size_t data_len, data_room;
	bool keep_data;
	size_t abort_at; /* abort in on_data once so much came; 0: never */
};

/* Ends a test that hangs.  Not criterion's .timeout: its runner now and then leaks what
 * it makes for one, and leaks fail sanitizer builds. */
void ufs_fix_limit(void);
/* Short retry intervals, path style, fixed keys; endpoint may be NULL. */
void ufs_fix_init(struct ufs_fix *f, const char *endpoint);
void ufs_fix_attach(struct ufs_fix *f, const char *uri);
void ufs_fix_set(struct ufs_fix *f, const char *name, const char *value);
void ufs_fix_fini(struct ufs_fix *f);
uint64_t ufs_fix_counter(struct ufs_fix *f, enum counter_id id);

int ufs_fix_stat(struct ufs_fix *f, const char *path, struct ufs_attr *attr);
/* One page; rq is zeroed or from the page before. */
int ufs_fix_list(struct ufs_fix *f, struct ufs_list *rq);
/* The bytes are in f->data. */
int ufs_fix_read(
    struct ufs_fix *f, const char *path, const char *version, uint64_t off, size_t len);
int ufs_fix_check(struct ufs_fix *f, char *words, size_t len);
/* UFS_FIX_RUN(f, put, &rq): ufs_put() and its end. */
#define UFS_FIX_RUN(f, kind, rq)                                                                   \
	((rq)->req.user = (f), ufs_##kind((f)->ufs, (rq), ufs_fix_done), ufs_fix_wait(f), (f)->err)
void ufs_fix_wait(struct ufs_fix *f);
void ufs_fix_done(struct ufs_req *r, int err);

#endif
