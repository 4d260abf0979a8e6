/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page of a directory: ListObjectsV2 with delimiter "/".
 *
 * Where both the key `a` and keys `a/…` exist the directory wins, but `a` may come
 * pages before `a/` ("a", "a-1", "a-2", …, "a/").  So at the end of a page that is
 * not the last, each file name N may still turn out hidden if the page's last key
 * lies between N and N/, i.e. begins with N.  There are few.  If N is the last entry
 * it is kept back and comes first in the next page; else the storage is asked
 * whether anything begins with N/.  Nothing of this needs memory between pages:
 * a successor that knows only the last entry returned gets the same sequence.
 */
#include <errno.h>
#include <string.h>

#include "ufs/s3_priv.h"
#include "ufs/ufs_page.h"

#define PAGE_KEYS 1000
/* More empty pages in a row than this, each with a continuation, is no listing. */
#define EMPTY_PAGES_MAX 1000u
/* Sorts after everything that a key below a directory can begin with. */
#define KEY_END "\xf4\x8f\xbf\xbf"

struct cursor {
	struct ufs_cursor base;
	char *path, *token;
	/* The page after this entry (NULL: none has been returned yet). */
	char *after;
	enum ufs_kind after_kind;
	/* The last key that storage sent, relative to the directory. */
	char *last;
	size_t last_len;
	unsigned empty;
	bool carried;
	char carried_name[UFS_NAME_MAX + 1];
	struct ufs_attr carried_attr;
};

struct list_call {
	struct ufs_call call;
	struct s3 *s3;
	struct s3_req req;
	struct s3_probe probe;
	struct s3_xml *xml;
	struct ufs_page page;
	struct cursor *cur;  /* of the page before, or NULL */
	struct cursor *next; /* of the page after, or NULL */
	char key[S3_KEY_BUF]; /* of the directory, with its slash */
	size_t key_len;
	char *path, *after;
	enum ufs_kind after_kind;
	char *last;
	size_t last_len, hidden, seen;
	size_t probing; /* entry asked about; those from here on are not yet judged */
};

/* --- cursors */

static void cursor_free(struct ufs_cursor *base)
{
	struct cursor *c = container_of(base, struct cursor, base);

	free(c->path);
	free(c->token);
	free(c->after);
	free(c->last);
	free(c);
}

static bool cursor_fits(const struct cursor *c, const char *path, const char *after,
    enum ufs_kind after_kind)
{
	if (strcmp(c->path, path) != 0 || (c->after == NULL) != (after == NULL))
		return false;
	return after == NULL || (strcmp(c->after, after) == 0 && c->after_kind == after_kind);
}

/* The next page's cursor; -ENOMEM. */
static int cursor_make(struct list_call *lc)
{
	struct cursor *c = calloc(1, sizeof(*c));
	const struct ufs_entry *e = NULL;
	const char *after = lc->after;

	if (c == NULL)
		return -ENOMEM;
	c->base.free = cursor_free;
	lc->next = c;
	c->after_kind = lc->after_kind;
	if (lc->page.count > 0) {
		e = &lc->page.entries[lc->page.count - 1];
		after = e->name;
		c->after_kind = e->attr.kind;
	}
	c->empty = lc->seen == 0 ? (lc->cur != NULL ? lc->cur->empty : 0) + 1 : 0;
	c->path = strdup(lc->path);
	c->token = strdup(s3_xml_token(lc->xml));
	c->after = after != NULL ? strdup(after) : NULL;
	c->last = lc->last;
	c->last_len = lc->last_len;
	lc->last = NULL;
	if (c->path == NULL || c->token == NULL || (after != NULL && c->after == NULL))
		return -ENOMEM;
	return 0;
}

/* --- the end */

static void list_release(struct list_call *lc)
{
	s3_req_abort(&lc->req);
	s3_probe_abort(&lc->probe);
	s3_xml_free(&lc->xml);
	ufs_page_clear(&lc->page);
	if (lc->cur != NULL)
		cursor_free(&lc->cur->base);
	if (lc->next != NULL)
		cursor_free(&lc->next->base);
	free(lc->path);
	free(lc->after);
	free(lc->last);
}

static void list_abort(struct ufs_call *c)
{
	struct list_call *lc = container_of(c, struct list_call, call);

	list_release(lc);
	ufs_call_drop(c);
}

static void list_end(struct list_call *lc, int err)
{
	struct ufs_list *rq = container_of(lc->call.rq, struct ufs_list, req);

	if (err == 0) {
		COUNT(lc->s3->ufs.env.loop, UFS_HIDDEN, lc->hidden);
		rq->exists = lc->seen > 0 || *lc->path == '\0' || lc->after != NULL ||
		    lc->cur != NULL;
		rq->more = lc->next != NULL;
		rq->hidden = lc->hidden > 0;
		ufs_page_give(&lc->page, rq);
		rq->cursor = lc->next != NULL ? &lc->next->base : NULL;
		lc->next = NULL;
	}
	list_release(lc);
	ufs_call_end(&lc->call, err);
}

/* --- the answer's entries */

static int note_last(struct list_call *lc, const char *rel, size_t len)
{
	char *copy;

	lc->seen++;
	if (lc->last != NULL) {
		size_t n = MIN(lc->last_len, len);
		int c = memcmp(lc->last, rel, n);

		if (c > 0 || (c == 0 && lc->last_len >= len))
			return 0;
	}
	copy = malloc(len + 1);
	if (copy == NULL)
		return -ENOMEM;
	memcpy(copy, rel, len);
	copy[len] = '\0';
	free(lc->last);
	lc->last = copy;
	lc->last_len = len;
	return 0;
}

static int add(struct list_call *lc, const char *name, size_t len, const struct ufs_attr *attr)
{
	/* A page after another one must go on behind it, or listings would lose
	 * entries or never end. */
	if (lc->cur != NULL && lc->cur->last != NULL) {
		const struct cursor *c = lc->cur;
		int d = ufs_key_cmp(name, len, attr->kind, c->last, c->last_len, UFS_FILE);

		if (d < 0)
			return -EBADMSG;
		if (d == 0)
			return 0;
	}
	if (!ufs_name_ok(name, len)) {
		lc->hidden++;
		return 0;
	}
	if (lc->after != NULL && ufs_key_cmp(name, len, attr->kind, lc->after,
				     strlen(lc->after), lc->after_kind) <= 0)
		return 0;
	return ufs_page_add(&lc->page, name, len, attr);
}

static int on_object(void *arg, const struct s3_xml_object *o)
{
	struct list_call *lc = arg;
	struct ufs_attr attr = { .kind = UFS_FILE, .size = o->size };
	const char *rel = o->key + lc->key_len;
	size_t len;
	int err;

	if (o->key_len < lc->key_len || memcmp(o->key, lc->key, lc->key_len) != 0)
		return -EBADMSG;
	len = o->key_len - lc->key_len;
	if (memchr(rel, '/', len) != NULL)
		return -EBADMSG;
	err = note_last(lc, rel, len);
	if (err != 0 || len == 0) /* the directory's own marker */
		return err;
	attr.mtime.tv_sec = o->mtime;
	memcpy(attr.version, o->version, sizeof(attr.version));
	return add(lc, rel, len, &attr);
}

static int on_prefix(void *arg, const char *key, size_t key_len)
{
	struct list_call *lc = arg;
	struct ufs_attr attr = { .kind = UFS_DIR };
	const char *rel = key + lc->key_len;
	size_t len;
	int err;

	if (key_len <= lc->key_len || memcmp(key, lc->key, lc->key_len) != 0)
		return -EBADMSG;
	len = key_len - lc->key_len;
	if (memchr(rel, '/', len) != rel + len - 1)
		return -EBADMSG;
	err = note_last(lc, rel, len);
	return err != 0 ? err : add(lc, rel, len - 1, &attr);
}

static int list_head(struct s3_req *r)
{
	struct list_call *lc = container_of(r, struct list_call, req);
	struct s3_xml_sink sink = { .arg = lc, .object = on_object, .prefix = on_prefix };

	s3_xml_free(&lc->xml);
	ufs_page_clear(&lc->page);
	free(lc->last);
	lc->last = NULL;
	lc->last_len = lc->hidden = lc->seen = 0;
	lc->xml = s3_xml_new(&sink);
	return lc->xml != NULL ? 0 : -ENOMEM;
}

static int list_data(struct s3_req *r, const void *data, size_t len)
{
	return s3_xml_data(r, container_of(r, struct list_call, req)->xml, data, len);
}

static int list_complete(struct s3_req *r)
{
	struct list_call *lc = container_of(r, struct list_call, req);
	const char *token, *why = NULL;
	int err = s3_xml_complete(r, lc->xml);

	if (err != 0 || !s3_xml_truncated(lc->xml))
		return err;
	token = s3_xml_token(lc->xml);
	if (*token == '\0')
		why = "there is more, but no continuation token";
	else if (lc->cur != NULL && strcmp(token, lc->cur->token) == 0)
		why = "the continuation token is the one that was sent";
	else if (lc->cur != NULL && lc->seen == 0 && lc->cur->empty >= EMPTY_PAGES_MAX)
		why = "nothing but empty pages";
	if (why == NULL)
		return 0;
	(void)snprintf(r->words, sizeof(r->words), "the listing is not usable: %s", why);
	return -EIO;
}

/* --- files that a directory hides */

static void hide(struct list_call *lc, size_t i)
{
	ufs_page_remove(&lc->page, i);
	lc->hidden++;
}

static void hide_in_page(struct list_call *lc)
{
	struct ufs_page *pg = &lc->page;
	size_t out = 0;

	/* Marked first: the search needs the page in order. */
	for (size_t i = 0; i < pg->count; i++) {
		const struct ufs_entry *e = &pg->entries[i];

		if (e->attr.kind == UFS_FILE &&
		    ufs_page_find(pg, e->name, e->name_len, UFS_DIR) != NULL) {
			pg->entries[i].attr.size = UINT64_MAX;
			lc->hidden++;
		}
	}
	for (size_t i = 0; i < pg->count; i++)
		if (pg->entries[i].attr.size != UINT64_MAX)
			pg->entries[out++] = pg->entries[i];
	pg->count = out;
}

/* May a directory of this file's name come in a later page? */
static bool undecided(const struct list_call *lc, const struct ufs_entry *e)
{
	if (e->attr.kind != UFS_FILE || lc->last == NULL || lc->last_len < e->name_len ||
	    memcmp(lc->last, e->name, e->name_len) != 0)
		return false;
	if (lc->key_len + e->name_len + 1 > S3_KEY_MAX) /* no room for a directory */
		return false;
	return lc->last_len == e->name_len || (unsigned char)lc->last[e->name_len] < '/';
}

static void judge_next(struct list_call *lc);

static void probe_done(struct s3_probe *p, int err)
{
	struct list_call *lc = container_of(p, struct list_call, probe);

	if (err != 0) {
		list_end(lc, err);
		return;
	}
	if (p->found)
		hide(lc, lc->probing);
	else
		lc->probing++;
	judge_next(lc);
}

static void page_end(struct list_call *lc)
{
	struct ufs_page *pg = &lc->page;
	const struct ufs_entry *keep = NULL;
	int err;

	if (pg->count > lc->probing) /* the last entry was not asked about */
		keep = &pg->entries[--pg->count];
	err = cursor_make(lc);
	if (err == 0 && keep != NULL) {
		lc->next->carried = true;
		memcpy(lc->next->carried_name, keep->name, keep->name_len + 1);
		lc->next->carried_attr = keep->attr;
	}
	list_end(lc, err);
}

/* Asks about the undecided entries one by one; the last one is rather kept back,
 * unless the page would be left empty and the listing not get on. */
static void judge_next(struct list_call *lc)
{
	struct ufs_page *pg = &lc->page;
	char key[S3_KEY_BUF + UFS_NAME_MAX + 2];

	while (lc->probing < pg->count && !undecided(lc, &pg->entries[lc->probing]))
		lc->probing++;
	if (lc->probing == pg->count || (lc->probing == pg->count - 1 && pg->count > 1)) {
		page_end(lc);
		return;
	}
	(void)snprintf(key, sizeof(key), "%s%s/", lc->key, pg->entries[lc->probing].name);
	lc->probe.s3 = lc->s3;
	lc->probe.done = probe_done;
	s3_probe_start(&lc->probe, key);
}

static void list_done(struct s3_req *r, int err)
{
	struct list_call *lc = container_of(r, struct list_call, req);

	if (err == -ENOENT || err == -ESTALE)
		err = -EIO; /* no answer to a listing */
	if (err == 0 && lc->cur != NULL && lc->cur->carried)
		err = ufs_page_add(&lc->page, lc->cur->carried_name,
		    strlen(lc->cur->carried_name), &lc->cur->carried_attr);
	if (err != 0) {
		list_end(lc, err);
		return;
	}
	if (lc->last == NULL && lc->cur != NULL) { /* an empty page */
		lc->last = lc->cur->last;
		lc->last_len = lc->cur->last_len;
		lc->cur->last = NULL;
	}
	ufs_page_sort(&lc->page);
	hide_in_page(lc);
	if (s3_xml_truncated(lc->xml))
		judge_next(lc);
	else
		list_end(lc, 0);
}

/* --- the question */

static char *list_query(const struct list_call *lc)
{
	char *query = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&query, &len);

	if (f == NULL)
		return NULL;
	if (lc->cur != NULL) {
		(void)fputs("continuation-token=", f);
		s3_enc_value(f, lc->cur->token);
		(void)fputc('&', f);
	}
	(void)fprintf(f, "delimiter=%%2F&encoding-type=url&list-type=2&max-keys=%d&prefix=",
	    PAGE_KEYS);
	s3_enc_value(f, lc->key);
	if (lc->cur == NULL && lc->after != NULL) {
		(void)fputs("&start-after=", f);
		s3_enc_value(f, lc->key);
		s3_enc_value(f, lc->after);
		/* Where that would be too long for a key, the directory comes once
		 * more and is dropped as one that is not after itself. */
		if (lc->after_kind == UFS_DIR)
			s3_enc_value(f, lc->key_len + strlen(lc->after) + 1 + strlen(KEY_END) <=
				    S3_KEY_MAX
				? "/" KEY_END
				: "/");
	}
	if (s3_stream_close(f, &query))
		return query;
	free(query);
	return NULL;
}

void s3_list(struct ufs *u, struct ufs_list *rq, const char *after)
{
	struct cursor *cur = rq->cursor != NULL ?
	    container_of((struct ufs_cursor *)rq->cursor, struct cursor, base) :
	    NULL;
	struct list_call *lc = ufs_call_new(&rq->req, sizeof(*lc), list_abort);
	char *query = NULL;
	bool ok;

	if (lc == NULL)
		return;
	rq->cursor = NULL;
	if (cur != NULL && !cursor_fits(cur, rq->path, after, rq->after_kind)) {
		cursor_free(&cur->base);
		cur = NULL;
	}
	lc->cur = cur;
	lc->s3 = S3_OF(u);
	lc->path = strdup(rq->path);
	lc->after = after != NULL ? strdup(after) : NULL;
	lc->after_kind = rq->after_kind;
	ok = lc->path != NULL && (after == NULL || lc->after != NULL);
	if (s3_key(lc->s3, rq->path, true, lc->key) != 0) {
		list_release(lc);
		ufs_call_drop(&lc->call);
		ufs_answer_later(&rq->req, -ENAMETOOLONG);
		return;
	}
	lc->key_len = strlen(lc->key);
	if (ok)
		query = list_query(lc);
	lc->req.s3 = lc->s3;
	lc->req.method = "GET";
	lc->req.head = list_head;
	lc->req.data = list_data;
	lc->req.complete = list_complete;
	lc->req.done = list_done;
	s3_req_start(&lc->req, query != NULL ? "" : NULL, query);
	free(query);
}
