/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intents of the metadata store, and what a daemon that opens the store does about them.
 *
 * The blob of a renamed directory: kind, format, phase, flags, length of the first path
 * (big-endian, two bytes), both paths.
 */
#include <errno.h>
#include <string.h>

#include "base/units.h"
#include "ops/op.h"
#include "ops/rename.h"
#include "ops/unlinked.h"

#define RENAME_FORMAT 1u
#define RENAME_HEAD 6u
#define FLAG_DST_WAS 1u
#define RETRY_NS (5 * NS_PER_S)

size_t move_encode(const struct move_intent *in, unsigned char blob[MOVE_BLOB_MAX])
{
	size_t a = strlen(in->src), b = strlen(in->dst);

	blob[0] = INTENT_KIND_RENAME;
	blob[1] = RENAME_FORMAT;
	blob[2] = (unsigned char)in->phase;
	blob[3] = in->dst_was ? FLAG_DST_WAS : 0;
	blob[4] = (unsigned char)(a >> 8);
	blob[5] = (unsigned char)a;
	memcpy(blob + RENAME_HEAD, in->src, a);
	memcpy(blob + RENAME_HEAD + a, in->dst, b);
	return RENAME_HEAD + a + b;
}

static int decode_path(char *out, const unsigned char *p, size_t len)
{
	if (len == 0 || len > UFS_PATH_MAX || memchr(p, '\0', len) != NULL)
		return -EPROTO;
	memcpy(out, p, len);
	out[len] = '\0';
	return 0;
}

int move_decode(struct move_intent *in, uint64_t id, const void *blob, size_t len)
{
	const unsigned char *b = blob;
	size_t a;
	int err;

	memset(in, 0, sizeof(*in));
	if (len < RENAME_HEAD || b[0] != INTENT_KIND_RENAME || b[1] != RENAME_FORMAT ||
	    b[2] < MOVE_COPY || b[2] > MOVE_UNDO)
		return -EPROTO;
	in->id = id;
	in->phase = b[2];
	in->dst_was = (b[3] & FLAG_DST_WAS) != 0;
	a = (size_t)b[4] << 8 | b[5];
	if (a > len - RENAME_HEAD)
		return -EPROTO;
	err = decode_path(in->src, b + RENAME_HEAD, a);
	if (err == 0)
		err = decode_path(in->dst, b + RENAME_HEAD + a, len - RENAME_HEAD - a);
	if (err == 0 && (path_within(in->src, in->dst) || path_within(in->dst, in->src)))
		err = -EPROTO;
	return err;
}

/* --- Recovery: everything that changes names waits until what was begun before holds
 * its locks again. */
struct recovery {
	struct fs *fs;
	struct meta_intents intents;
	struct pathlock lock;
	struct timer again;
	bool failed;
};

static void recovery_start(struct recovery *rc);

static void recovery_end(struct recovery *rc)
{
	struct fs *fs = rc->fs;

	meta_abort(&rc->intents.req);
	meta_intents_free(&rc->intents);
	timer_cancel(&rc->again);
	pathlock_end(&rc->lock);
	fs->recovery = NULL;
	free(rc);
}

static int take_up(struct fs *fs, const struct meta_intent *it)
{
	const unsigned char *kind = it->blob;
	struct move_intent in;
	struct dirmove *m;
	int err;

	if (it->len > 0 && *kind == INTENT_KIND_UNLINK) {
		err = unlinked_doubt_take(fs, it->id, it->blob, it->len);
		if (err != 0 && err != -ENOMEM)
			log_warn("metadata store: intent %016llx, a deletion: %s",
			    (unsigned long long)it->id, strerror(-err));
		return err == -ENOMEM ? err : 0;
	}
	if (it->len == 0 || *kind != INTENT_KIND_RENAME) {
		log_warn("metadata store: intent %016llx is of a kind that this version does not "
			 "know; it is left alone",
		    (unsigned long long)it->id);
		return 0;
	}
	if (dirmove_find(fs, it->id) != NULL)
		return 0;
	err = move_decode(&in, it->id, it->blob, it->len);
	if (err == 0)
		err = dirmove_resume(fs, &in, &m);
	if (err == -ENOMEM)
		return err;
	if (err == -EXDEV)
		log_warn("rename of /%s to /%s, which was begun, waits until their storage is "
			 "attached",
		    in.src, in.dst);
	else if (err != 0)
		log_warn("metadata store: intent %016llx: %s; it is left alone",
		    (unsigned long long)it->id, strerror(-err));
	return 0;
}

static void again_fired(struct timer *t)
{
	recovery_start(container_of(t, struct recovery, again));
}

static void intents_cb(struct meta_req *r, int err)
{
	struct recovery *rc = r->user;
	size_t i;

	for (i = 0; err == 0 && i < rc->intents.count; i++)
		err = take_up(rc->fs, &rc->intents.intents[i]);
	meta_intents_free(&rc->intents);
	/* Without the store nothing can be changed anyway. */
	pathlock_end(&rc->lock);
	if (err == 0) {
		recovery_end(rc);
		return;
	}
	if (!rc->failed)
		log_warn("metadata store: looking for unfinished renames: %s", strerror(-err));
	rc->failed = true;
	timer_arm(&rc->again, RETRY_NS);
}

static void locked_cb(struct pathlock *l)
{
	(void)l; /* it stands in the queue: that is enough */
}

static void recovery_start(struct recovery *rc)
{
	rc->lock.passes = true;
	if (pathlock_add(&rc->lock, "", true) == 0)
		(void)pathlock_try(&rc->fs->locks, &rc->lock, locked_cb);
	memset(&rc->intents, 0, sizeof(rc->intents));
	rc->intents.req.user = rc;
	meta_intents(rc->fs->meta, &rc->intents, intents_cb);
}

void fs_recover_intents(struct fs *fs)
{
	struct recovery *rc;

	if (fs->meta == NULL || fs->recovery != NULL)
		return;
	rc = calloc(1, sizeof(*rc));
	if (rc == NULL) {
		log_error("looking for unfinished renames: out of memory");
		return;
	}
	rc->fs = fs;
	timer_init(&rc->again, fs->env.loop, again_fired);
	fs->recovery = rc;
	recovery_start(rc);
}

void fs_stop_intents(struct fs *fs)
{
	if (fs->recovery != NULL)
		recovery_end(fs->recovery);
	dirmove_stop_all(fs);
}
