/* SPDX-License-Identifier: BSD-2-Clause */
#include "ctl/ctl_meta_json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/obj.h"
#include "base/units.h"
#include "ctl/ctl_persist.h"

static const char *const kinds[] = {
    [META_PASS] = "path", [META_FILE] = "file", [META_DIR] = "directory"};

static void put_time(struct json_out *o, const char *key, const struct timespec *ts)
{
	json_key(o, key);
	json_open_array(o);
	json_put_i64(o, ts->tv_sec);
	json_put_i64(o, ts->tv_nsec);
	json_close_array(o);
}

static void put_content(struct json_out *o, const struct meta_content *ct)
{
	char id[24];

	snprintf(id, sizeof(id), "%016" PRIx64, ct->id);
	json_key(o, "content");
	json_open_object(o);
	json_add_text(o, "policy", ctl_policy_text(ct));
	json_add_text(o, "id", id);
	json_add_u64(o, "size", ct->size);
	json_add_u64(o, "tail_crc", ct->tail_crc);
	json_add_u64(o, "since_ns", ct->since_ns);
	json_close_object(o);
}

void ctl_meta_put(struct json_out *o, const struct meta_record *rec)
{
	json_add_text(o, "kind", kinds[rec->kind]);
	if ((rec->has & META_HAS_MODE) != 0)
		json_add_u64(o, "mode", rec->mode);
	if ((rec->has & META_HAS_UID) != 0)
		json_add_u64(o, "uid", rec->uid);
	if ((rec->has & META_HAS_GID) != 0)
		json_add_u64(o, "gid", rec->gid);
	if ((rec->has & META_HAS_MTIME) != 0)
		put_time(o, "mtime", &rec->mtime);
	if ((rec->has & META_HAS_ATIME) != 0)
		put_time(o, "atime", &rec->atime);
	if (rec->version[0] != '\0')
		json_add_text(o, "version", rec->version);
	if ((rec->has & META_HAS_CONTENT) != 0)
		put_content(o, &rec->content);
}

/* --- Reading */

static int get_u64(const struct json *v, uint64_t max, uint64_t *n)
{
	if (v->type != JSON_NUMBER || units_parse_u64(v->text, n) != 0 || *n > max)
		return -EINVAL;
	return 0;
}

static int get_u32(const struct json *v, uint32_t *n)
{
	uint64_t wide;
	int err = get_u64(v, UINT32_MAX, &wide);

	*n = err == 0 ? (uint32_t)wide : 0;
	return err;
}

static int get_time(const struct json *v, struct timespec *ts)
{
	const struct json *s = v->type == JSON_ARRAY ? v->first : NULL;
	const struct json *ns = s != NULL ? s->next : NULL;
	uint64_t n, seconds;
	bool minus;

	if (ns == NULL || ns->next != NULL || s->type != JSON_NUMBER)
		return -EINVAL;
	minus = s->text[0] == '-';
	if (units_parse_u64(s->text + minus, &seconds) != 0 || seconds > INT64_MAX ||
	    get_u64(ns, NS_PER_S - 1, &n) != 0)
		return -EINVAL;
	ts->tv_sec = minus ? -(time_t)seconds : (time_t)seconds;
	ts->tv_nsec = (long)n;
	return 0;
}

static int get_policy(const struct json *v, uint8_t *policy)
{
	struct meta_content ct = {.policy = META_POLICY_WRITE_THROUGH};

	if (v->type != JSON_STRING)
		return -EINVAL;
	for (; ct.policy <= META_POLICY_TRANSIENT; ct.policy++) {
		*policy = ct.policy;
		if (strcmp(v->text, ctl_policy_text(&ct)) == 0)
			return 0;
	}
	return -EINVAL;
}

static int get_id(const struct json *v, uint64_t *id)
{
	char again[24];

	if (v->type != JSON_STRING)
		return -EINVAL;
	*id = strtoull(v->text, NULL, 16);
	snprintf(again, sizeof(again), "%016" PRIx64, *id);
	return strcmp(again, v->text) == 0 && (*id & META_CONTENT_BIT) != 0 ? 0 : -EINVAL;
}

static int get_content(const struct json *v, struct meta_content *ct)
{
	bool id = false, policy = false, size = false;
	int err = v->type == JSON_OBJECT ? 0 : -EINVAL;

	for (const struct json *m = v->first; m != NULL && err == 0; m = m->next) {
		if (strcmp(m->key, "policy") == 0) {
			err = get_policy(m, &ct->policy);
			policy = true;
		} else if (strcmp(m->key, "id") == 0) {
			err = get_id(m, &ct->id);
			id = true;
		} else if (strcmp(m->key, "size") == 0) {
			err = get_u64(m, INT64_MAX, &ct->size);
			size = true;
		} else if (strcmp(m->key, "tail_crc") == 0) {
			err = get_u32(m, &ct->tail_crc);
		} else if (strcmp(m->key, "since_ns") == 0) {
			err = get_u64(m, UINT64_MAX, &ct->since_ns);
		} else {
			err = -EINVAL;
		}
	}
	ct->state = META_STATE_PERSISTED;
	return err == 0 && id && policy && size ? 0 : -EINVAL;
}

static int get_kind(const struct json *v, enum meta_kind *kind)
{
	for (unsigned i = META_FILE; v->type == JSON_STRING && i < ARRAY_LEN(kinds); i++) {
		if (strcmp(v->text, kinds[i]) == 0) {
			*kind = (enum meta_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int get_version(const struct json *v, char version[META_VERSION_MAX])
{
	size_t len = v->type == JSON_STRING ? strlen(v->text) : META_VERSION_MAX;

	if (len >= META_VERSION_MAX)
		return -EINVAL;
	memcpy(version, v->text, len + 1);
	return 0;
}

static int get_member(const struct json *m, struct meta_record *rec)
{
	unsigned has = 0;
	int err;

	if (strcmp(m->key, "path") == 0)
		return m->type == JSON_STRING ? 0 : -EINVAL; /* the caller's */
	if (strcmp(m->key, "kind") == 0)
		return get_kind(m, &rec->kind);
	if (strcmp(m->key, "version") == 0)
		return get_version(m, rec->version);
	if (strcmp(m->key, "mode") == 0) {
		has = META_HAS_MODE;
		err = get_u32(m, &rec->mode);
	} else if (strcmp(m->key, "uid") == 0) {
		has = META_HAS_UID;
		err = get_u32(m, &rec->uid);
	} else if (strcmp(m->key, "gid") == 0) {
		has = META_HAS_GID;
		err = get_u32(m, &rec->gid);
	} else if (strcmp(m->key, "mtime") == 0) {
		has = META_HAS_MTIME;
		err = get_time(m, &rec->mtime);
	} else if (strcmp(m->key, "atime") == 0) {
		has = META_HAS_ATIME;
		err = get_time(m, &rec->atime);
	} else if (strcmp(m->key, "content") == 0) {
		has = META_HAS_CONTENT;
		err = get_content(m, &rec->content);
	} else {
		err = -ENOSYS;
	}
	rec->has |= has;
	return err;
}

int ctl_meta_get(const struct json *v, struct meta_record *rec, struct errtext *et)
{
	memset(rec, 0, sizeof(*rec));
	if (v->type != JSON_OBJECT)
		return errtext_set(et, -EINVAL, "a record is an object");
	for (const struct json *m = v->first; m != NULL; m = m->next) {
		int err = get_member(m, rec);

		if (err == -ENOSYS)
			return errtext_set(et, -EINVAL,
			    "\"%s\" is nothing that this build knows: import it with the batonfs "
			    "that wrote it",
			    m->key);
		if (err != 0)
			return errtext_set(et, -EINVAL, "\"%s\" has a wrong value", m->key);
	}
	if (rec->kind == META_PASS)
		return errtext_set(et, -EINVAL, "\"kind\" is missing");
	if (rec->kind == META_DIR && (rec->version[0] != '\0' || (rec->has & META_HAS_CONTENT) != 0))
		return errtext_set(et, -EINVAL, "a directory has neither version nor content");
	return 0;
}
