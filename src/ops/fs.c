/* SPDX-License-Identifier: BSD-2-Clause */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/units.h"
#include "ops/handle.h"
#include "ops/ledger.h"
#include "ops/op.h"
#include "ops/persist.h"
#include "ops/policy.h"
#include "ops/requests.h"
#include "ops/session.h"
#include "ops/unlinked.h"

/* 1: without writing; 2: without names to be deleted; 3: without bytes of small files.  All:
 * rows as here. */
#define STATE_FORMAT 4u
#define FS_WRITE_SHARE 8 /* of memory.limit: requests with data that wait for the disk */
#define ID_BATCH 1024u /* numbers reserved in one row of the database */

/* --- Requests */

static void fs_op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	CHECK_OBJ(fs, FS_MAGIC);
	if (fs->env.mo->max_background > 0)
		conn->max_background = fs->env.mo->max_background;
	if (fs->env.mo->auto_cache)
		conn->want |= conn->capable & FUSE_CAP_AUTO_INVAL_DATA;
}

const struct fuse_lowlevel_ops *fs_fuse_ops(void)
{
	static struct fuse_lowlevel_ops ops = {
	    .init = fs_op_init,
	    .lookup = lookup_lookup,
	    .forget = lookup_forget,
	    .forget_multi = lookup_forget_multi,
	    .getattr = lookup_getattr,
	    .setattr = setattr_setattr,
	    .statfs = lookup_statfs,
	    .open = open_open,
	    .read = file_read,
	    .lseek = file_lseek,
	    .mkdir = mkdir_mkdir,
	    .unlink = remove_unlink,
	    .rmdir = remove_rmdir,
	    .rename = rename_rename,
	    .create = create_create,
	    .mknod = create_mknod,
	    .write = write_write,
	    .fallocate = write_fallocate,
	    .flush = write_flush,
	    .fsync = write_fsync,
	    .release = write_release,
	    .opendir = dir_opendir,
	    .readdir = dir_readdir,
	    .readdirplus = dir_readdirplus,
	    .releasedir = dir_releasedir,
	    .fsyncdir = file_fsyncdir,
	};

	denied_fill(&ops);
	return &ops;
}

/* --- Life */

static void state_recover(struct timer *t);

int fs_new(struct fs **out, const struct fs_env *env)
{
	const struct config *cfg = env->cfg;
	struct fs *fs;
	int err;

	*out = NULL;
	ALLOC_OBJ(fs, FS_MAGIC);
	if (fs == NULL)
		return -ENOMEM;
	fs->env = *env;
	fs->attr_ttl_ns = (uint64_t)(env->mo->attr_timeout * (double)NS_PER_S);
	TAILQ_INIT(&fs->ops);
	TAILQ_INIT(&fs->dir_pages);
	TAILQ_INIT(&fs->moves);
	timer_init(&fs->recover, env->loop, state_recover);
	fs->write_limit = config_memory_limit(cfg) / FS_WRITE_SHARE;
	pathlocks_init(&fs->locks, env->loop);
	fs_set_writing(fs, env->meta, env->staging, env->uploads);
	fs_handover_init(fs);
	err = unlinked_init(fs);
	if (err == 0)
		err = config_parse_mode(cfg->dir_mode, &fs->dir_mode);
	if (err == 0)
		err = config_parse_mode(cfg->file_mode, &fs->file_mode);
	if (err == 0)
		err = config_parse_uid(cfg->default_uid, &fs->uid);
	if (err == 0)
		err = config_parse_gid(cfg->default_gid, &fs->gid);
	if (err != 0) {
		fs_free(&fs);
		return err;
	}
	*out = fs;
	return 0;
}

void fs_set_cache(struct fs *fs, struct cache *cache)
{
	fs->env.cache = cache;
}

void fs_set_writing(struct fs *fs, struct meta *meta, struct staging *staging,
    struct uploads *uploads)
{
	fs->meta = meta;
	fs->staging = staging;
	fs->uploads = uploads;
}

void fs_set_peers(struct fs *fs, struct ufs *peers)
{
	fs->peers = peers;
}

void fs_set_chan(struct fs *fs, struct fuse_chan *ch)
{
	fs->chan = ch;
}

void fs_free(struct fs **fp)
{
	struct fs *fs;

	if (*fp == NULL)
		return;
	TAKE_OBJ(fs, fp, FS_MAGIC);
	assert(fs->nops == 0);
	fs_state_detach(fs);
	session_close_all(fs);
	handle_forget_all(fs);
	persist_free(&fs->persist);
	policy_fini(fs);
	fs_handover_fini(fs);
	file_spare_free(fs);
	free(fs->slots);
	unlinked_fini(fs);
	pathlocks_fini(&fs->locks);
	fs_namespace_fini(fs);
	FREE_OBJ(fs);
}

/* --- State database */

static int number_get(struct fs *fs, const char *name, uint64_t *out)
{
	struct statedb_val v;
	uint64_t be;
	int err = statedb_get(fs->db, STATEDB_META, name, strlen(name), &v);

	if (err != 0)
		return err;
	if (v.len != sizeof(be))
		return -EPROTO;
	memcpy(&be, v.data, sizeof(be));
	*out = be64toh(be);
	return 0;
}

static int number_put(struct fs *fs, const char *name, uint64_t value)
{
	uint64_t be = htobe64(value);

	return statedb_put(fs->db, STATEDB_META, name, strlen(name), &be, sizeof(be));
}

int fs_next_id(struct fs *fs, uint64_t *id)
{
	int err;

	fs->changed = true;
	if (fs->next_id == fs->id_limit) {
		err = number_put(fs, "ids", fs->id_limit + ID_BATCH);
		if (err != 0)
			return err;
		fs->id_limit += ID_BATCH;
	}
	*id = fs->next_id++;
	return 0;
}

static int save_open_dirs(struct fs *fs)
{
	return number_put(fs, "open dirs", fs->open_dirs);
}

int fs_handle_opened(struct fs *fs, bool dir)
{
	fs->changed = true;
	if (!dir)
		return 0;
	fs->open_dirs++;
	return save_open_dirs(fs);
}

int fs_handle_closed(struct fs *fs, bool dir)
{
	fs->changed = true;
	if (!dir)
		return 0;
	if (fs->open_dirs > 0)
		fs->open_dirs--;
	return save_open_dirs(fs);
}

static int state_create(struct fs *fs)
{
	uint64_t id = 0;
	int err;

	while (id == 0)
		if (getrandom(&id, sizeof(id), 0) != (ssize_t)sizeof(id))
			return -EIO;
	fs->mount_id = id;
	fs->next_id = fs->id_limit = NODE_ROOT + 1;
	fs->open_dirs = 0;
	err = number_put(fs, "mount id", id);
	if (err == 0)
		err = number_put(fs, "namespace", fs_namespace_digest(fs));
	if (err == 0)
		err = save_open_dirs(fs);
	if (err == 0)
		err = number_put(fs, "ids", fs->id_limit);
	if (err == 0)
		err = node_make_root(fs);
	if (err == 0)
		err = number_put(fs, "format", STATE_FORMAT);
	return err;
}

static int state_load(struct fs *fs)
{
	int err = number_get(fs, "mount id", &fs->mount_id);

	if (err == 0)
		err = number_get(fs, "ids", &fs->id_limit);
	if (err == 0)
		err = number_get(fs, "open dirs", &fs->open_dirs);
	/* Numbers reserved by somebody before us are never given out. */
	fs->next_id = fs->id_limit;
	return err;
}

/* A turn's rows are lost, and the replies that told of them have failed: what is in
 * memory has to say again what the rows say. */
static void state_recover(struct timer *t)
{
	struct fs *fs = container_of(t, struct fs, recover);
	int err;

	if (fs->db == NULL)
		return;
	statedb_recover(fs->db);
	err = state_load(fs);
	if (err == 0)
		err = handle_check_all(fs);
	if (err == 0)
		err = session_check_all(fs);
	if (err == 0)
		err = unlinked_check(fs);
	policy_state_again(fs);
	/* Rows whose deletion was lost with the turn are those of answered requests. */
	if (err == 0)
		ledger_open(fs);
	fs->recover_failed = err != 0;
	if (err == 0)
		log_info("state database: read again; requests are served as before");
	else
		log_error("state database: read again: %s", strerror(-err));
}

static void state_gauges(struct fs *fs)
{
	uint64_t handles = statedb_count(fs->db, STATEDB_HANDLES);

	GAUGE_SET(fs->env.loop, NODES, statedb_count(fs->db, STATEDB_NODES));
	GAUGE_SET(fs->env.loop, OPEN_DIRS, fs->open_dirs);
	GAUGE_SET(fs->env.loop, OPEN_FILES, handles - MIN(handles, fs->open_dirs));
}

/* Slots whose rows were deleted are given back only now: were it earlier, a crash
 * before the commit would leave two nodes with one slot. */
static void fs_turn_end(struct turn_hook *hook)
{
	struct fs *fs = container_of(hook, struct fs, hook);
	uint64_t format;
	size_t i;

	ledger_turn_end(fs);
	if (statedb_lost(fs->db) && !timer_armed(&fs->recover))
		timer_arm(&fs->recover, fs->recover_failed ? NS_PER_S : 0);
	if (!fs->changed)
		return;
	fs->changed = false;
	/* The read fails if the commit did, or if the mount is another daemon's now. */
	if (fs->nslots > 0 && statedb_commit(fs->db) == 0 && number_get(fs, "format", &format) == 0)
		for (i = 0; i < fs->nslots; i++)
			counts_free_slot(fs->counts, fs->slots[i]);
	fs->nslots = 0;
	state_gauges(fs);
}

void fs_free_slot_later(struct fs *fs, uint32_t slot)
{
	size_t cap = fs->slots_cap == 0 ? 64 : fs->slots_cap * 2;
	uint32_t *p;

	fs->changed = true;
	if (slot == 0)
		return;
	if (fs->nslots == fs->slots_cap) {
		p = realloc(fs->slots, cap * sizeof(*p));
		if (p == NULL)
			return; /* lost until the mount ends: eight bytes */
		fs->slots = p;
		fs->slots_cap = cap;
	}
	fs->slots[fs->nslots++] = slot;
}

int fs_state_open(struct fs *fs, struct statedb *db, struct counts *counts, struct errtext *et)
{
	uint64_t format = STATE_FORMAT, digest;
	int err;

	assert(fs->db == NULL && fs->ufs != NULL);
	fs->db = db;
	fs->counts = counts;
	err = number_get(fs, "format", &format);
	if (err == 0 && FAULT("state.format") != 0)
		format = STATE_FORMAT + 1;
	if (err == -ENOENT)
		err = state_create(fs);
	else if (err == 0 && format > STATE_FORMAT)
		err = errtext_set(et, -EPROTO,
		    "state database: format %llu is from a newer version of batonfs (this one "
		    "knows %u)",
		    (unsigned long long)format, STATE_FORMAT);
	else if (err == 0 && number_get(fs, "namespace", &digest) == 0 &&
		 digest != fs_namespace_digest(fs))
		err = errtext_set(et, -EPROTO,
		    "state database: the mount was made with other storage (--ufs, --subtree), "
		    "whose files are open; unmount first");
	else if (err == 0)
		err = state_load(fs);
	if (err == 0)
		err = policy_state_open(fs, et);
	if (err == 0 && format < STATE_FORMAT) {
		err = number_put(fs, "format", STATE_FORMAT);
		/* Nor is there room for anything that an older version would not know. */
		err = err == -ENOSPC ? 0 : err;
	}
	if (err != 0) {
		fs->db = NULL;
		if (err == -EPROTO && et != NULL && et->s[0] != '\0')
			return err;
		return errtext_set(et, err, "state database: %s", strerror(-err));
	}
	if (fs->persist == NULL && fs->meta != NULL && fs->staging != NULL) {
		err = persist_new(&fs->persist, fs);
		if (err != 0) {
			fs->db = NULL;
			return errtext_set(et, err, "write cache: %s", strerror(-err));
		}
	}
	fs->detached = false;
	for (unsigned i = 0; i < fs->nattached; i++)
		ufs_set_mount_id(fs->attached[i].ufs, fs->mount_id);
	ledger_open(fs);
	err = session_open_all(fs);
	if (err != 0)
		log_error("state database: write sessions: %s", strerror(-err));
	err = unlinked_open(fs);
	if (err != 0)
		log_error("state database: deleted names: %s", strerror(-err));
	loop_hook_add(fs->env.loop, &fs->hook, fs_turn_end);
	fs->hooked = true;
	state_gauges(fs);
	return 0;
}

void fs_state_detach(struct fs *fs)
{
	if (fs->hooked) {
		fs_turn_end(&fs->hook);
		loop_hook_remove(fs->env.loop, &fs->hook);
		fs->hooked = false;
	}
	ledger_detach(fs);
	policy_state_close(fs);
	timer_cancel(&fs->recover);
	/* What is left of them are rows, which the next to open the database reads. */
	if (fs->db != NULL)
		session_close_all(fs);
	unlinked_close(fs);
	fs->db = NULL;
	fs->counts = NULL;
	fs->detached = true;
}

void fs_info(struct fs *fs, struct fs_info *out)
{
	uint64_t handles;

	memset(out, 0, sizeof(*out));
	out->running = fs->nops;
	out->mount_id = fs->mount_id;
	if (fs->db == NULL)
		return;
	handles = statedb_count(fs->db, STATEDB_HANDLES);
	out->nodes = statedb_count(fs->db, STATEDB_NODES);
	out->open_dirs = fs->open_dirs;
	out->open_files = handles - MIN(handles, fs->open_dirs);
}
