/* SPDX-License-Identifier: BSD-2-Clause */
/* Transactions: checked, copied, and given on, or told to wait. */
#include <errno.h>
#include <string.h>

#include "meta/records.h"
#include "meta/store.h"

/* --- Checks */

static bool below(const char *path, const char *top)
{
	size_t n = strlen(top);

	return strncmp(path, top, n) == 0 && path[n] == '/';
}

static int move_check(const char *path, const char *to)
{
	int err = meta_path_check(path);

	if (err == 0)
		err = meta_path_check(to);
	if (err != 0)
		return err;
	return *path == '\0' || *to == '\0' || below(path, to) || below(to, path) ? -EINVAL : 0;
}

/* It is all of the content, or it would not be of use. */
static int content_blob_check(const struct meta_change *ch)
{
	const struct meta_content *ct = meta_content_of(&ch->rec);

	return ct != NULL && ch->blob_len <= META_BLOB_MAX && ch->blob_len == ct->size ? 0 : -EINVAL;
}

static int change_check(const struct meta_change *ch)
{
	int err;

	switch (ch->verb) {
	case META_PUT:
		err = meta_path_check(ch->path);
		if (err == 0)
			err = meta_record_check(&ch->rec);
		if (err == 0 && ch->blob != NULL)
			err = content_blob_check(ch);
		return err != 0 || *ch->path != '\0' || ch->rec.kind == META_DIR ? err : -EINVAL;
	case META_DEL:
		return *ch->path != '\0' ? meta_path_check(ch->path) : -EINVAL;
	case META_MOVE:
		return move_check(ch->path, ch->to);
	case META_INTENT_PUT:
		return ch->id != 0 && ch->blob_len <= META_BLOB_MAX ? 0 : -EINVAL;
	case META_INTENT_DEL:
		return ch->id != 0 ? 0 : -EINVAL;
	case META_SETTING_PUT:
		return ch->id != 0 && ch->blob_len <= META_SETTING_MAX &&
				       ch->if_version < UINT64_MAX
			   ? 0
			   : -EINVAL;
	}
	return -EINVAL;
}

static int txn_check(const struct meta_change *changes, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; err == 0 && i < n; i++)
		err = change_check(&changes[i]);
	return err;
}

/* --- Copies */

/* Only what the verb uses counts. */
static bool has_path(const struct meta_change *ch)
{
	return ch->verb == META_PUT || ch->verb == META_DEL || ch->verb == META_MOVE;
}

static bool has_blob(const struct meta_change *ch)
{
	return ch->verb == META_INTENT_PUT || ch->verb == META_SETTING_PUT ||
	       (ch->verb == META_PUT && ch->blob != NULL);
}

static size_t change_size(const struct meta_change *ch)
{
	size_t n = sizeof(*ch);

	n += has_path(ch) ? request_text_size(ch->path) : 0;
	n += ch->verb == META_MOVE ? request_text_size(ch->to) : 0;
	n += has_blob(ch) ? ch->blob_len : 0;
	return n;
}

static void copy_change(
    struct meta_change *to, const struct meta_change *ch, uint64_t self, char **at)
{
	*to = *ch;
	if (ch->verb == META_PUT && ch->rec.content.node == 0 && meta_content_of(&ch->rec) != NULL)
		to->rec.content.node = self;
	to->path = has_path(ch) ? request_text(at, ch->path) : NULL;
	to->to = ch->verb == META_MOVE ? request_text(at, ch->to) : NULL;
	to->blob = NULL;
	if (has_blob(ch)) {
		to->blob = *at;
		if (ch->blob_len > 0)
			memcpy(*at, ch->blob, ch->blob_len);
		*at += ch->blob_len;
	}
}

void request_txn(struct meta *m, struct meta_txn *rq, uint64_t mark,
    void (*done)(struct meta_req *r, int err))
{
	int err = txn_check(rq->changes, rq->n);
	unsigned n = err == 0 ? rq->n : 0;
	struct meta_call *c;
	size_t size = 0;
	char *at;

	for (unsigned i = 0; i < n; i++)
		size += change_size(&rq->changes[i]);
	c = request_new(m, &rq->req, done, META_OP_TXN, size);
	if (c == NULL)
		return;
	c->changes = (struct meta_change *)(c + 1);
	c->n = n;
	c->mark = mark;
	c->promised = rq == &m->later_txn;
	at = (char *)(c->changes + n);
	for (unsigned i = 0; i < n; i++)
		copy_change(&c->changes[i], &rq->changes[i], meta_self(m), &at);
	request_start(c, err);
}

/* Answered from the next turn's deferred queue, behind the commit that keeps it. */
static void txn_later(
    struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err))
{
	struct meta_call *c = request_new(m, &rq->req, done, META_OP_TXN, 0);

	if (c != NULL)
		meta_call_end(c, later_add(m, rq->changes, rq->n));
}

void meta_txn(struct meta *m, struct meta_txn *rq, void (*done)(struct meta_req *r, int err))
{
	CHECK_OBJ(m, META_MAGIC);
	bool valid = txn_check(rq->changes, rq->n) == 0;

	if (rq->later && valid && later_takes(m, rq->changes, rq->n))
		txn_later(m, rq, done);
	else
		request_txn(m, rq, valid ? later_before(m, rq->changes, rq->n) : 0, done);
}
