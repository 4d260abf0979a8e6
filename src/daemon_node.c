/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which node of a cluster this is.  Its id is in a file beside the staged files, since the
 * node is who has them: it survives daemons and reboots, and goes when they go.  While the
 * mount lives it is in the state database as well: a daemon that follows another one does
 * not wait for a disk to know who it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/units.h"
#include "daemon.h"
#include "meta/meta.h"
#include "ops/policy.h"
#include "peer/peer.h"
#include "reactor/statedb.h"

#define NODE_FILE "node"
/* The format, and the id. */
#define NODE_LINE "batonfs-node 1 %016" PRIx64 "\n"
#define NODE_LINE_MAX 64

static const char row_name[] = "node";

static bool id_ok(uint64_t id)
{
	return id != 0 && id != UINT64_MAX;
}

/* -ENOENT: there is none; -EPROTO: it is none. */
static int read_id(int dir, uint64_t *id)
{
	char buf[NODE_LINE_MAX], again[NODE_LINE_MAX];
	int fd = openat(dir, NODE_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		n = -errno;
	close(fd);
	if (n < 0)
		return (int)n;
	buf[n] = '\0';
	if (sscanf(buf, "batonfs-node 1 %" SCNx64, id) != 1 || !id_ok(*id))
		return -EPROTO;
	snprintf(again, sizeof(again), NODE_LINE, *id);
	return strcmp(again, buf) == 0 ? 0 : -EPROTO;
}

static int write_all(int fd, const char *buf, size_t len)
{
	ssize_t n = write(fd, buf, len);

	if (n < 0)
		return -errno;
	if ((size_t)n != len)
		return -ENOSPC;
	return fsync(fd) == 0 ? 0 : -errno;
}

/* A new one, if there is none yet.  The directory is locked: nobody else makes one. */
static int write_id(int dir, uint64_t *id)
{
	char buf[NODE_LINE_MAX];
	int fd, err;

	while (!id_ok(*id))
		*id = meta_intent_id();
	snprintf(buf, sizeof(buf), NODE_LINE, *id);
	fd = openat(
	    dir, NODE_FILE ".new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = write_all(fd, buf, strlen(buf));
	if (close(fd) != 0 && err == 0)
		err = -errno;
	if (err == 0 && renameat(dir, NODE_FILE ".new", dir, NODE_FILE) != 0)
		err = -errno;
	if (err == 0 && fsync(dir) != 0)
		err = -errno;
	return err;
}

/* One word: it stands in tables. */
static bool name_ok(const char *name)
{
	size_t n = strlen(name);

	if (n == 0 || n > META_NODE_NAME_MAX)
		return false;
	for (; *name != '\0'; name++) {
		if ((unsigned char)*name <= ' ' || *name == 0x7f || *name == '/')
			return false;
	}
	return true;
}

static int find_name(const struct daemon *d, char name[META_NODE_NAME_MAX + 1], struct errtext *et)
{
	const char *given = d->cfg->meta_node_name;

	if (given[0] == '\0') {
		if (gethostname(name, META_NODE_NAME_MAX) != 0)
			name[0] = '\0';
		name[META_NODE_NAME_MAX] = '\0';
		if (!name_ok(name))
			memcpy(name, "node", sizeof("node"));
		return 0;
	}
	if (!name_ok(given))
		return errtext_set(et, -EINVAL,
		    "meta.node.name '%s': must be one word of 1 to %d bytes without a slash", given,
		    META_NODE_NAME_MAX);
	memcpy(name, given, strlen(given) + 1);
	return 0;
}

static void rules_changed(void *arg)
{
	struct daemon *d = arg;

	if (d->db != NULL && d->cfg->write_cache_enabled)
		policy_refresh(d->fs);
}

/* --- In the state database */

uint64_t daemon_node_known(const struct daemon *d)
{
	struct statedb_val v;
	uint64_t id = 0;

	if (d->fdb != NULL && d->db != NULL &&
	    statedb_get(d->db, STATEDB_META, row_name, sizeof(row_name) - 1, &v) == 0 &&
	    v.len == sizeof(id))
		memcpy(&id, v.data, sizeof(id));
	return id_ok(id) ? id : 0;
}

int daemon_node_read(const char *path, int dir, uint64_t *id, struct errtext *et)
{
	uint64_t known = *id;
	int err = read_id(dir, id);

	if (err == 0 && known != 0 && *id != known)
		(void)errtext_set(et, -ESTALE,
		    "write.staging.dir %s/" NODE_FILE ": is of node %016" PRIx64
		    "; the mount goes on as node %016" PRIx64 ", which it is: give it back its file",
		    path, *id, known);
	if (known != 0)
		*id = known;
	/* Lost or damaged while the mount lives, it is written again; if it cannot be read, the
	 * next mount will say so. */
	if (err == -ENOENT || (err == -EPROTO && known != 0))
		err = write_id(dir, id);
	if (err == 0 || known != 0)
		return 0;
	return errtext_set(et, err, "write.staging.dir %s/" NODE_FILE ": %s", path,
	    err == -EPROTO ? "is not the id of a node: remove it only if nothing that was written "
			     "here waits to be persisted"
			   : strerror(-err));
}

int daemon_set_node(struct daemon *d, uint64_t id, struct errtext *et)
{
	struct meta_identity is = {.id = id, .capacity = d->cfg->page_store_size};
	int err = find_name(d, is.name, et);

	if (err != 0)
		return err;
	/* Without a cluster there is nobody to tell apart. */
	if (d->fdb != NULL) {
		snprintf(is.address, sizeof(is.address), "%s", peers_address(d->peers));
		if (id == 0)
			return errtext_set(et, -ETIMEDOUT,
			    "write.staging.dir %s: its disk does not answer, and has the id of "
			    "this node",
			    d->staging_dir);
		err = statedb_put(
		    d->db, STATEDB_META, row_name, sizeof(row_name) - 1, &id, sizeof(id));
		if (err != 0)
			return errtext_set(
			    et, err, "state database: the node's id: %s", strerror(-err));
		meta_on_rules(d->meta, rules_changed, d);
	}
	meta_set_identity(d->meta, &is);
	return 0;
}
