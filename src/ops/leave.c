/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The end of the mount: the kernel has no descriptor of ours any more, and does not say
 * so for each of them.  What was written goes to the storage as if it had.
 */
#include <errno.h>
#include <string.h>

#include "ops/persist.h"
#include "ops/session.h"
#include "ops/unlinked.h"

static void close_one(struct session *s, void *arg)
{
	(void)arg;
	session_use(s);
	s->last = true;
	/* What is safe here is uploaded by the next mount; what is not is tried once more. */
	if (s->policy != META_POLICY_NO_CACHE) {
		session_upload_recall(s);
		timer_cancel(&s->reap);
		if (s->state == SESSION_FAILED)
			s->state = SESSION_CLOSING;
	}
	while (s->writers > 0 && session_add_writer(s, -1) == 0)
		;
	session_unuse(s);
}

void fs_close_writers(struct fs *fs)
{
	persist_hold(fs);
	if (fs->db != NULL)
		session_foreach(fs, close_one, NULL);
	unlinked_flush(fs);
}

static void unsent_one(struct session *s, void *arg)
{
	unsigned *n = arg;

	if (s->state == SESSION_CLOSING)
		(*n)++;
}

unsigned fs_unsent(struct fs *fs)
{
	const char *path;
	unsigned n = unlinked_unsafe(fs, &path);

	session_foreach(fs, unsent_one, &n);
	return n;
}

static void report_one(struct session *s, void *arg)
{
	char path[UFS_PATH_MAX + 1];

	(void)arg;
	if (s->state == SESSION_ORPHAN || session_is_safe(s))
		return;
	if (node_path(s->fs, s->node, path) != 0)
		path[0] = '\0';
	if (s->policy == META_POLICY_NO_CACHE)
		session_leave(s);
	log_error("/%s: the mount ends and what was written to it (%llu bytes) is not in the "
		  "storage: %s: %s",
	    path, (unsigned long long)staged_size(s->sf),
	    s->error != 0 ? strerror(-s->error) : "write.drain.timeout has passed",
	    s->policy == META_POLICY_NO_CACHE
		? "it stays in write.staging.dir, where the next mount sets it aside (" STAGED_ASIDE
		  ")"
		: "it is lost");
}

void fs_report_lost(struct fs *fs)
{
	const char *path;
	unsigned n = unlinked_unsafe(fs, &path);

	if (n > 0)
		log_error("the mount ends and %u names that were deleted, such as /%s, are still in "
			  "the storage: %s",
		    n, path,
		    fs->unlinked->error != 0 ? strerror(-fs->unlinked->error)
					     : "write.drain.timeout has passed");
	if (fs->db != NULL)
		session_foreach(fs, report_one, NULL);
}
