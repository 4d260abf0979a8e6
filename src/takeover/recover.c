/* SPDX-License-Identifier: BSD-2-Clause */
#include "config.h"

#include "takeover/recover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/obj.h"
#include "base/units.h"
#include "daemon.h"
#include "ops/counts.h"
#include "reactor/fuse_chan.h"
#include "reactor/notify.h"
#include "reactor/statedb.h"
#include "takeover/claim.h"
#include "takeover/forgets_log.h"
#include "takeover/held.h"

enum kept_fd {
	KEPT_FUSE,
	KEPT_EPOCH,
	KEPT_COUNTS,
	KEPT_INIT,
	KEPT_LOCK,
	KEPT_STATE,
	KEPT_CONTROL,
	KEPT_TAKEOVER,
	KEPT_MAX
};

static const char *const kept_names[KEPT_MAX] = {
    [KEPT_FUSE] = "fuse",
    [KEPT_EPOCH] = "epoch",
    [KEPT_COUNTS] = "counts",
    [KEPT_INIT] = "init",
    [KEPT_LOCK] = "lock",
    [KEPT_STATE] = "state",
    [KEPT_CONTROL] = "control",
    [KEPT_TAKEOVER] = "takeover",
};

/* A service may store other things, and the same name twice after a store that was
 * interrupted: the last one is the one that was meant. */
#define KEPT_TAKE 32

static void kept_close(int kept[KEPT_MAX])
{
	int i;

	for (i = 0; i < KEPT_MAX; i++) {
		if (kept[i] >= 0)
			close(kept[i]);
		kept[i] = -1;
	}
}

static int kept_take(int *kept, enum kept_fd which)
{
	int fd = kept[which];

	kept[which] = -1;
	return fd;
}

/* 0, or -ENOENT: nothing of a mount was passed. */
static int kept_collect(int kept[KEPT_MAX])
{
	struct notify_fd got[KEPT_TAKE];
	int n, i, k;

	for (k = 0; k < KEPT_MAX; k++)
		kept[k] = -1;
	n = notify_listen_fds(got, KEPT_TAKE);
	for (i = 0; i < n; i++) {
		for (k = 0; k < KEPT_MAX && strcmp(got[i].name, kept_names[k]) != 0; k++)
			;
		if (k == KEPT_MAX) {
			log_warn(
			    "a descriptor named %s was passed to this daemon: not known, closed",
			    got[i].name);
			close(got[i].fd);
			continue;
		}
		if (kept[k] >= 0)
			close(kept[k]);
		kept[k] = got[i].fd;
	}
	for (k = 0; k < KEPT_MAX && kept[k] < 0; k++)
		;
	return n < 0 ? n : k == KEPT_MAX ? -ENOENT : 0;
}

static int read_record(struct daemon *d, int fd, struct daemon_init_record *rec, struct errtext *et)
{
	const char *mp = d->args.mountpoint;
	ssize_t n = pread(fd, rec, sizeof(*rec), 0);

	if (n != (ssize_t)sizeof(*rec) || rec->magic != DAEMON_INIT_MAGIC)
		return errtext_set(
		    et, -EPROTO, "%s: the INIT record that the keeper held is damaged", mp);
	if (rec->version != 1)
		return errtext_set(et, -EPROTO,
		    "%s: the INIT record that the keeper held is of version %u: written by a newer "
		    "batonfsd; start that one",
		    mp, rec->version);
	if (rec->init.req_len > FUSE_CHAN_INIT_MAX || rec->init.reply_len > FUSE_CHAN_INIT_MAX ||
	    memchr(rec->mountpoint, '\0', sizeof(rec->mountpoint)) == NULL)
		return errtext_set(
		    et, -EPROTO, "%s: the INIT record that the keeper held is damaged", mp);
	if (strcmp(rec->mountpoint, mp) != 0)
		return errtext_set(et, -EINVAL,
		    "%s: the keeper holds the mount of %s: a keeper is for one mount point", mp,
		    rec->mountpoint);
	return 0;
}

static int recover_adopt(
    struct daemon *d, int kept[KEPT_MAX], struct daemon_init_record *rec, struct errtext *et)
{
	int err;

	if (kept[KEPT_FUSE] < 0 || kept[KEPT_EPOCH] < 0 || kept[KEPT_COUNTS] < 0 ||
	    kept[KEPT_INIT] < 0 || kept[KEPT_STATE] < 0)
		return errtext_set(et, -EPROTO,
		    "%s: the keeper did not hold all descriptors of the mount", d->args.mountpoint);
	err = read_record(d, kept[KEPT_INIT], rec, et);
	if (err != 0)
		return err;
	d->mount_id = rec->mount_id;
	d->init_fd = kept_take(kept, KEPT_INIT);
	err = epoch_adopt(&d->epoch, kept_take(kept, KEPT_EPOCH));
	if (err == 0)
		err = counts_adopt(&d->counts, kept_take(kept, KEPT_COUNTS));
	if (err != 0)
		return errtext_set(et, err, "%s: adopt the mount's shared memory: %s",
		    d->args.mountpoint, strerror(-err));
	err = daemon_adopt_state_dir(d, kept_take(kept, KEPT_STATE), et);
	if (err != 0)
		return err;
	/* Nothing is touched before this: who holds the claim lives. */
	err = claim_take(&d->epoch);
	if (err != 0)
		return errtext_set(et, err,
		    "%s: another daemon serves the mount already, or hangs while it holds the "
		    "right "
		    "to (epoch %llu)",
		    d->args.mountpoint, (unsigned long long)epoch_read(&d->epoch));
	return 0;
}

/* The right, and what the dead daemon had been told that the kernel has forgotten. */
static int recover_take_right(struct daemon *d, struct errtext *et)
{
	struct held_list forgets = STAILQ_HEAD_INITIALIZER(forgets);
	uint64_t from = epoch_read(&d->epoch), gone;
	int err;

	forgets_log_claim(d->state_fd, from, d->counts, true, &forgets, &gone);
	err = daemon_take_right(d, from, false, et);
	if (err == 0)
		forgets_log_apply(d->fs, d->state_fd, d->counts, d->epoch.mine, gone, &forgets);
	held_free(&forgets);
	return err;
}

static int recover_open(
    struct daemon *d, int kept[KEPT_MAX], const struct daemon_init_record *rec, struct errtext *et)
{
	int err;

	/* Bound still, perhaps by a daemon that finishes its reads: not to be made anew. */
	d->adopt_ctl_fd = kept_take(kept, KEPT_CONTROL);
	d->adopt_takeover_fd = kept_take(kept, KEPT_TAKEOVER);
	if (daemon_open_cache(d, kept_take(kept, KEPT_LOCK), et) != DAEMON_EXIT_OK)
		return -EIO;
	err = daemon_new_chan(d, et);
	if (err == 0)
		err = fuse_chan_adopt(d->chan, kept_take(kept, KEPT_FUSE), &rec->init, et);
	if (err == 0)
		err = FAULT("recover.adopted");
	if (err == 0)
		err = recover_take_right(d, et);
	return err;
}

/* Without a resend the callers of what the dead daemon had read would wait for
 * ever: closing every descriptor gives them an error. */
static int recover_cannot_resend(struct daemon *d, int err, struct errtext *et)
{
	daemon_unstore_fds();
	d->serving = false;
	return errtext_set(et, -EOPNOTSUPP,
	    "%s: the daemon died and this kernel cannot send its requests again (%s; Linux 6.9 "
	    "can): "
	    "the mount is given up, unmount and mount again",
	    d->args.mountpoint, strerror(-err));
}

static void recover_report(struct daemon *d, uint64_t began)
{
	struct takeover_report *r = &d->report;
	struct fs_info info;

	fs_info(d->fs, &info);
	r->kind = REPORT_RECOVERY;
	r->wall_ns = clock_system.wall(&clock_system);
	/* When the last one died nobody noted; this is our own share. */
	r->pause_ns = clock_system.monotonic(&clock_system) - began;
	r->handles = (uint32_t)(info.open_files + info.open_dirs);
	COUNT(d->loop, TAKEOVERS, 1);
	d->tally.recoveries++;
	tally_save(&d->tally, d->db, 0);
	log_warn("%s: recovered after the end of the daemon before (epoch %llu) in %llu.%03llu ms",
	    d->args.mountpoint, (unsigned long long)d->epoch.mine,
	    (unsigned long long)(r->pause_ns / NS_PER_MS),
	    (unsigned long long)(r->pause_ns % NS_PER_MS / NS_PER_US));
}

int recover_begin(struct daemon *d, struct errtext *et)
{
	uint64_t began = clock_system.monotonic(&clock_system);
	struct daemon_init_record rec = {.mount_id = 0};
	int kept[KEPT_MAX], err;

	CHECK_OBJ(d, DAEMON_MAGIC);
	err = kept_collect(kept);
	if (err != 0)
		return err == -ENOENT ? err
				      : errtext_set(et, err, "LISTEN_FDS: %s", strerror(-err));
	if (kept[KEPT_FUSE] >= 0 && fuse_chan_fd_gone(kept[KEPT_FUSE])) {
		kept_close(kept);
		daemon_unstore_fds();
		return errtext_set(et, -ENOTCONN, "%s: the mount that the keeper held is gone",
		    d->args.mountpoint);
	}
	err = recover_adopt(d, kept, &rec, et);
	if (err == 0)
		err = recover_open(d, kept, &rec, et);
	kept_close(kept);
	if (err != 0)
		return err;
	err = fuse_chan_resend(d->chan);
	if (err != 0)
		return recover_cannot_resend(d, err, et);
	d->kept = true;
	d->ready = rec.init.req_len > 0;
	fuse_chan_arm(d->chan);
	recover_report(d, began);
	return 0;
}
