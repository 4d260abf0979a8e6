/* SPDX-License-Identifier: BSD-2-Clause */
#include "cache/upload.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cache/upload_priv.h"

int uploads_new(struct uploads **out, const struct uploads_env *env)
{
	struct uploads *us;

	ALLOC_OBJ(us, UPLOADS_MAGIC);
	*out = us;
	if (us == NULL)
		return -ENOMEM;
	us->env = *env;
	us->part_min = UFS_PART_MIN;
	us->read_most = 8 * MIB;
	us->look_again = 10 * NS_PER_S;
	us->budget = cache_write_memory(env->cfg);
	TAILQ_INIT(&us->all);
	TAILQ_INIT(&us->queue);
	TAILQ_INIT(&us->orphans);
	TAILQ_INIT(&us->multis);
	SLIST_INIT(&us->idle);
	timer_init(&us->idle_end, env->loop, body_idle_end);
	return 0;
}

void uploads_free(struct uploads **usp)
{
	struct uploads *us;
	struct up_send *s;

	if (*usp == NULL)
		return;
	TAKE_OBJ(us, usp, UPLOADS_MAGIC);
	assert(TAILQ_EMPTY(&us->all));
	while (!TAILQ_EMPTY(&us->multis)) {
		struct up_multi *m = TAILQ_FIRST(&us->multis);

		assert(m->copy == NULL);
		multi_free(&m);
	}
	while ((s = TAILQ_FIRST(&us->orphans)) != NULL) {
		TAILQ_REMOVE(&us->orphans, s, link);
		s->us = NULL;
	}
	body_idle_free(us, true);
	free(us->ufs);
	loop_undefer(us->env.loop, &us->pump);
	FREE_OBJ(us);
}

void uploads_set_db(struct uploads *us, struct statedb *db)
{
	CHECK_OBJ(us, UPLOADS_MAGIC);
	us->db = db;
}

int upload_part_room(struct upload *up, unsigned number)
{
	unsigned n = MAX(up->nparts, 16);
	struct up_part *part;

	if (number <= up->nparts)
		return 0;
	while (n < number)
		n *= 2;
	part = reallocarray(up->part, n, sizeof(*part));
	if (part == NULL)
		return -ENOMEM;
	memset(part + up->nparts, 0, (n - up->nparts) * sizeof(*part));
	up->part = part;
	up->nparts = n;
	return 0;
}

void upload_unknown(struct upload *up)
{
	free(up->id);
	free(up->part);
	up->id = NULL;
	up->part = NULL;
	up->nparts = 0;
	up->unit = up->sent = 0;
	up->rows_due = up->sums = false;
}

void upload_forget(struct upload *up)
{
	assert(TAILQ_EMPTY(&up->sends) && up->begin == NULL);
	if (up->id != NULL)
		rows_del_all(up);
	upload_unknown(up);
}

int upload_new(struct uploads *us, struct staged *sf, struct upload **out)
{
	struct upload *up;
	int err;

	CHECK_OBJ(us, UPLOADS_MAGIC);
	ALLOC_OBJ(up, UPLOAD_MAGIC);
	*out = up;
	if (up == NULL)
		return -ENOMEM;
	up->us = us;
	up->sf = sf;
	up->key = staged_id(sf);
	TAILQ_INIT(&up->sends);
	TAILQ_INSERT_TAIL(&us->all, up, all_link);
	err = rows_load(up);
	if (err != 0)
		upload_free(out);
	return err;
}

void upload_free(struct upload **upp)
{
	struct upload *up;

	if (*upp == NULL)
		return;
	TAKE_OBJ(up, upp, UPLOAD_MAGIC);
	run_stop(up);
	multi_abandon(up);
	TAILQ_REMOVE(&up->us->all, up, all_link);
	upload_unknown(up);
	free(up->uri);
	free(up->path);
	free(up->base);
	FREE_OBJ(up);
}

static bool same_place(const struct upload *up, struct ufs *ufs, const char *path)
{
	if (up->path == NULL || strcmp(up->path, path) != 0)
		return false;
	if (up->ufs != NULL)
		return up->ufs == ufs;
	return up->uri != NULL && strcmp(up->uri, ufs_uri(ufs)) == 0;
}

int upload_place(struct upload *up, struct ufs *ufs, const char *path, const char *base_version)
{
	char *p, *base = NULL;

	CHECK_OBJ(up, UPLOAD_MAGIC);
	assert(up->run == NULL);
	if (base_version != NULL && (base = strdup(base_version)) == NULL)
		return -ENOMEM;
	if (!same_place(up, ufs, path)) {
		p = strdup(path);
		if (p == NULL) {
			free(base);
			return -ENOMEM;
		}
		if (up->ufs == NULL && up->uri != NULL && strcmp(up->uri, ufs_uri(ufs)) == 0)
			up->ufs = ufs;
		sends_abort(up);
		if (up->ufs == ufs)
			multi_drop_moved(up, path);
		else
			multi_drop(up);
		free(up->path);
		up->path = p;
	}
	free(up->base);
	up->base = base;
	up->ufs = ufs;
	up->no_copy = false;
	return 0;
}

void upload_drop(struct upload *up)
{
	CHECK_OBJ(up, UPLOAD_MAGIC);
	assert(up->run == NULL);
	up->ahead = false;
	sends_abort(up);
	multi_drop(up);
}

const char *upload_id(const struct upload *up)
{
	return up->id != NULL ? up->id : "";
}

uint64_t upload_sent(const struct upload *up)
{
	return up->sent;
}
