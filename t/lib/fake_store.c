/* SPDX-License-Identifier: BSD-2-Clause */
#include "fake_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checksum.h"
#include "base/obj.h"

/* --- memory */

static unsigned char *mem_new(uint64_t size)
{
	uint64_t *p = mmap(NULL, size + 16, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	p[0] = size + 16;
	return (unsigned char *)(p + 2);
}

static void mem_free(unsigned char **mem)
{
	uint64_t *p;

	if (*mem == NULL)
		return;
	p = (uint64_t *)(void *)(*mem - 16);
	(void)munmap(p, p[0]);
	*mem = NULL;
}

static void set_str(char *to, size_t room, const char *from)
{
	if (strlen(from) >= room)
		abort();
	memcpy(to, from, strlen(from) + 1);
}

/* --- objects */

static void first_byte(const char *version, uint64_t off, unsigned char *buf, size_t len)
{
	(void)off;
	memset(buf, version[0], len);
}

void fake_store_init(struct fake_store *st)
{
	memset(st, 0, sizeof(*st));
	st->can = UFS_CAN_ABSENT;
	st->part_min = UFS_PART_MIN;
	st->made_up = first_byte;
}

static void upload_clear(struct fake_upload *up)
{
	for (unsigned i = 0; i < FAKE_PARTS; i++)
		mem_free(&up->part[i].data);
	memset(up, 0, sizeof(*up));
}

void fake_store_fini(struct fake_store *st)
{
	for (unsigned i = 0; i < st->nfiles; i++)
		mem_free(&st->file[i].data);
	for (unsigned i = 0; i < FAKE_UPLOADS; i++)
		upload_clear(&st->upload[i]);
	st->nfiles = 0;
}

static struct fake_file *find_kind(struct fake_store *st, const char *path, enum ufs_kind kind)
{
	for (unsigned i = 0; i < st->nfiles; i++)
		if (st->file[i].kind == kind && strcmp(st->file[i].path, path) == 0)
			return &st->file[i];
	return NULL;
}

struct fake_file *fake_store_find(struct fake_store *st, const char *path)
{
	struct fake_file *ff = find_kind(st, path, UFS_DIR);

	return ff != NULL ? ff : find_kind(st, path, UFS_FILE);
}

struct fake_file *fake_store_add(struct fake_store *st, const char *path, enum ufs_kind kind,
    uint64_t size, const char *version, const void *data)
{
	struct fake_file *ff = &st->file[st->nfiles];

	if (st->nfiles == FAKE_FILES)
		abort();
	st->nfiles++;
	memset(ff, 0, sizeof(*ff));
	set_str(ff->path, sizeof(ff->path), path);
	set_str(ff->version, sizeof(ff->version), version);
	ff->kind = kind;
	ff->size = size;
	ff->mode = kind == UFS_DIR ? 0755 : 0644;
	ff->mtime.tv_sec = 1000;
	if (data != NULL) {
		ff->data = mem_new(size);
		memcpy(ff->data, data, size);
	}
	return ff;
}

void fake_store_remove(struct fake_store *st, struct fake_file *ff)
{
	unsigned i = (unsigned)(ff - st->file);

	mem_free(&ff->data);
	memmove(ff, ff + 1, (st->nfiles - i - 1) * sizeof(*ff));
	st->nfiles--;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return n == 0 ? *path != '\0' : strncmp(path, dir, n) == 0 && path[n] == '/';
}

bool fake_store_below(const struct fake_store *st, const char *dir)
{
	for (unsigned i = 0; i < st->nfiles; i++)
		if (is_below(st->file[i].path, dir))
			return true;
	return false;
}

void fake_store_attr(const struct fake_store *st, const struct fake_file *ff, struct ufs_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->kind = ff->kind;
	a->size = ff->size;
	a->mtime = ff->mtime;
	if (ff->kind == UFS_FILE)
		set_str(a->version, sizeof(a->version), ff->version);
	if (!(st->can & UFS_CAN_SETATTR))
		return;
	a->have_mode = true;
	a->mode = ff->mode;
	a->uid = ff->uid;
	a->gid = ff->gid;
}

static void file_bytes(const struct fake_store *st, const struct fake_file *ff, uint64_t off,
    unsigned char *buf, size_t len)
{
	if (off > ff->size || len > ff->size - off)
		abort();
	if (ff->data != NULL) {
		memcpy(buf, ff->data + off, len);
		return;
	}
	st->made_up(*ff->seed != '\0' ? ff->seed : ff->version, off, buf, len);
}

int fake_store_bytes(struct fake_store *st, const char *path, const char *version, uint64_t off,
    void *buf, size_t len)
{
	const struct fake_file *ff = find_kind(st, path, UFS_FILE);

	if (ff == NULL && !st->strict) {
		st->made_up(version, off, buf, len);
		return 0;
	}
	if (ff == NULL || strcmp(ff->version, version) != 0)
		return -ESTALE;
	file_bytes(st, ff, off, buf, len);
	return 0;
}

unsigned fake_store_uploads(const struct fake_store *st)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FAKE_UPLOADS; i++)
		n += st->upload[i].id[0] != '\0';
	return n;
}

/* --- what requests do */

/* What both ways of making an object have in common. */
struct placing {
	const char *path, *if_version;
	bool absent;
	const struct ufs_set *set;
	struct ufs_attr *attr;
	uint64_t file;
	bool again;
};

static int place_check(struct fake_store *st, const struct placing *pl)
{
	const struct fake_file *ff = find_kind(st, pl->path, UFS_FILE);

	if (pl->again && ff != NULL && ff->file != 0 && ff->file == pl->file)
		return 0;
	if (pl->absent && ff != NULL)
		return -EEXIST;
	if (pl->if_version != NULL && (ff == NULL || strcmp(ff->version, pl->if_version) != 0))
		return -ESTALE;
	return 0;
}

static void set_apply(struct fake_file *ff, const struct ufs_set *set)
{
	if (set == NULL)
		return;
	if (set->what & UFS_SET_MODE)
		ff->mode = set->mode;
	if (set->what & UFS_SET_UID)
		ff->uid = set->uid;
	if (set->what & UFS_SET_GID)
		ff->gid = set->gid;
	if (set->what & UFS_SET_MTIME)
		ff->mtime = set->mtime;
}

/* The row for a new content, which keeps mode and owner of the one before. */
static struct fake_file *place(struct fake_store *st, const char *path, const char *letter)
{
	struct fake_file *ff = find_kind(st, path, UFS_FILE);

	if (ff == NULL)
		ff = fake_store_add(st, path, UFS_FILE, 0, "", NULL);
	mem_free(&ff->data);
	ff->seed[0] = '\0';
	ff->file = 0;
	ff->mtime.tv_sec = 1000 + ++st->serial;
	(void)snprintf(ff->version, sizeof(ff->version), "%s%u", letter, st->serial);
	return ff;
}

static int do_stat(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_stat *rq = container_of(r, struct ufs_stat, req);
	const struct fake_file *ff = fake_store_find(st, rq->path);
	const struct fake_file dir = { .kind = UFS_DIR, .mode = 0755, .mtime = { .tv_sec = 1000 } };

	if ((ff == NULL || ff->kind == UFS_FILE) &&
	    (*rq->path == '\0' || fake_store_below(st, rq->path)))
		ff = &dir;
	if (ff == NULL)
		return -ENOENT;
	fake_store_attr(st, ff, &rq->attr);
	rq->mine = ff->file != 0 && ff->file == rq->file && !st->unmarked;
	return 0;
}

static int sum_check(struct fake_store *st, const struct ufs_sum *sum, const void *body, size_t len)
{
	if (!sum->have || st->no_sums)
		return 0;
	if (checksum_crc32c(body, len) != sum->crc32c)
		return -EBADMSG;
	st->sums++;
	return 0;
}

static int do_put(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_put *rq = container_of(r, struct ufs_put, req);
	const struct placing pl = { rq->path, rq->if_version, rq->absent, rq->set, &rq->attr,
		rq->file, rq->again && !st->unmarked };
	struct fake_file *ff;
	int err = place_check(st, &pl);

	if (err == 0)
		err = sum_check(st, &rq->sum, rq->body, rq->len);
	if (err != 0)
		return err;
	ff = place(st, rq->path, "p");
	ff->file = rq->file;
	ff->size = rq->len;
	ff->data = mem_new(rq->len);
	if (rq->len > 0)
		memcpy(ff->data, rq->body, rq->len);
	st->put_bytes += rq->len;
	set_apply(ff, rq->set);
	fake_store_attr(st, ff, &rq->attr);
	return 0;
}

static struct fake_upload *upload_find(struct fake_store *st, const char *id, const char *path)
{
	for (unsigned i = 0; i < FAKE_UPLOADS; i++)
		if (*id != '\0' && strcmp(st->upload[i].id, id) == 0 &&
		    strcmp(st->upload[i].path, path) == 0)
			return &st->upload[i];
	return NULL;
}

static struct fake_upload *upload_begin(struct fake_store *st, const char *path)
{
	struct fake_upload *up = st->upload;

	while (up < st->upload + FAKE_UPLOADS && up->id[0] != '\0')
		up++;
	if (up == st->upload + FAKE_UPLOADS)
		abort();
	(void)snprintf(up->id, sizeof(up->id), "upload-%u", ++st->serial);
	set_str(up->path, sizeof(up->path), path);
	return up;
}

static int do_multi_begin(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_multi_begin *rq = container_of(r, struct ufs_multi_begin, req);
	struct fake_upload *up = upload_begin(st, rq->path);

	(void)snprintf(rq->id, sizeof(rq->id), "%s", up->id);
	up->file = rq->file;
	up->sums = rq->sums = rq->sums && !st->no_sums;
	return 0;
}

static struct fake_part *part_row(struct fake_upload *up, unsigned number)
{
	struct fake_part *free_row = NULL;

	for (unsigned i = 0; i < FAKE_PARTS; i++) {
		if (up->part[i].number == number)
			return &up->part[i];
		if (up->part[i].number == 0 && free_row == NULL)
			free_row = &up->part[i];
	}
	if (free_row == NULL)
		abort();
	return free_row;
}

static int do_part(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_part *rq = container_of(r, struct ufs_part, req);
	struct fake_upload *up = upload_find(st, rq->id, rq->path);
	unsigned char *data;
	struct fake_part *p;
	int err = 0;

	if (rq->number == 0 || rq->number > UFS_PARTS_MAX || rq->len == 0)
		abort();
	if (up == NULL)
		return -ENOENT;
	if (rq->sum.have != up->sums)
		abort();
	err = rq->body != NULL ? sum_check(st, &rq->sum, rq->body, rq->len) : 0;
	if (err != 0)
		return err;
	data = mem_new(rq->len);
	if (rq->body != NULL)
		memcpy(data, rq->body, rq->len);
	else
		err = fake_store_bytes(
		    st, rq->src_path, rq->src_version, rq->src_off, data, rq->len);
	if (err != 0) {
		mem_free(&data);
		return err;
	}
	p = part_row(up, rq->number);
	mem_free(&p->data);
	*p = (struct fake_part){ .number = rq->number,
		.off = rq->off,
		.len = rq->len,
		.data = data,
		.sum = rq->sum,
		.copied = rq->body == NULL };
	if (p->copied)
		st->copied_bytes += p->len;
	else
		st->part_bytes += p->len;
	(void)snprintf(p->etag, sizeof(p->etag), "e%u", ++st->serial);
	(void)snprintf(rq->etag, sizeof(rq->etag), "%s", p->etag);
	return 0;
}

/* The length of the whole, or a negative errno as S3 would refuse it. */
static int64_t parts_check(
    const struct fake_store *st, struct fake_upload *up, const struct ufs_multi_end *rq)
{
	uint64_t off = 0;

	if (rq->nparts == 0)
		return -EINVAL;
	for (unsigned i = 0; i < rq->nparts; i++) {
		const struct ufs_part_id *id = &rq->parts[i];
		const struct fake_part *p = part_row(up, id->number);

		if (id->sum.have != up->sums ||
		    (up->sums && id->sum.crc32c != p->sum.crc32c))
			return -EINVAL;
		if (p->number == 0 || strcmp(p->etag, id->etag) != 0 || p->len != id->len ||
		    p->off != off || (i > 0 && id->number <= rq->parts[i - 1].number) ||
		    (i + 1 < rq->nparts && p->len < st->part_min))
			return -EINVAL;
		off += p->len;
	}
	return (int64_t)off;
}

static int do_multi_end(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_multi_end *rq = container_of(r, struct ufs_multi_end, req);
	const struct placing pl = { rq->path, rq->if_version, rq->absent, rq->set, &rq->attr,
		rq->file, rq->again && !st->unmarked };
	struct fake_upload *up = upload_find(st, rq->id, rq->path);
	struct fake_file *ff;
	int64_t size;
	int err;

	if (up == NULL)
		return -ENOENT;
	size = parts_check(st, up, rq);
	err = size < 0 ? (int)size : place_check(st, &pl);
	if (err != 0)
		return err;
	ff = place(st, rq->path, "m");
	ff->file = up->file;
	ff->size = (uint64_t)size;
	ff->data = mem_new((uint64_t)size);
	for (unsigned i = 0; i < rq->nparts; i++) {
		const struct fake_part *p = part_row(up, rq->parts[i].number);

		memcpy(ff->data + p->off, p->data, p->len);
	}
	upload_clear(up);
	set_apply(ff, rq->set);
	fake_store_attr(st, ff, &rq->attr);
	return 0;
}

/* As S3, for which all uploads of a path are the same. */
static int do_multi_sweep(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_multi_sweep *rq = container_of(r, struct ufs_multi_sweep, req);

	for (unsigned i = 0; i < FAKE_UPLOADS; i++) {
		bool keep = st->upload[i].id[0] == '\0' ||
		    strcmp(st->upload[i].path, rq->path) != 0;

		for (unsigned k = 0; k < rq->nkeep && !keep; k++)
			keep = strcmp(rq->keep[k], st->upload[i].id) == 0;
		if (keep)
			continue;
		upload_clear(&st->upload[i]);
		rq->found++;
	}
	return 0;
}

static int do_multi_abort(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_multi_abort *rq = container_of(r, struct ufs_multi_abort, req);
	struct fake_upload *up = upload_find(st, rq->id, rq->path);

	if (up != NULL)
		upload_clear(up);
	return 0;
}

static int do_copy(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_copy *rq = container_of(r, struct ufs_copy, req);
	const struct fake_file *from = find_kind(st, rq->src, UFS_FILE);
	struct fake_upload *up = upload_find(st, rq->id, rq->dst);
	struct fake_file *to, src;

	if (rq->begun == NULL && st->copy_max != 0 && rq->size > st->copy_max)
		return -E2BIG;
	if (rq->begun != NULL && *rq->id == '\0') {
		(void)snprintf(rq->id, sizeof(rq->id), "%s", upload_begin(st, rq->dst)->id);
		return FAKE_BEGUN;
	}
	rq->gone = rq->begun != NULL && up == NULL;
	if (rq->gone)
		return -EIO;
	if (from == NULL)
		return -ENOENT;
	if (strcmp(from->version, rq->src_version) != 0 || from->size != rq->size)
		return -ESTALE;
	if (strcmp(rq->src, rq->dst) == 0)
		return -EINVAL;
	if (up != NULL)
		upload_clear(up);
	src = *from; /* rows may move; the bytes do not */
	to = place(st, rq->dst, "c");
	to->size = src.size;
	to->mode = src.mode;
	to->uid = src.uid;
	to->gid = src.gid;
	if (src.data != NULL) {
		to->data = mem_new(src.size);
		memcpy(to->data, src.data, src.size);
	} else {
		set_str(to->seed, sizeof(to->seed), *src.seed != '\0' ? src.seed : src.version);
	}
	st->copied_bytes += src.size;
	fake_store_attr(st, to, &rq->attr);
	return 0;
}

static int do_delete(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_delete *rq = container_of(r, struct ufs_delete, req);

	if (rq->n > UFS_DELETE_MAX)
		abort();
	for (unsigned i = 0; i < rq->n; i++) {
		struct fake_file *ff =
		    rq->errs[i] != 0 ? NULL
				     : find_kind(st, rq->paths[i],
					   rq->dirs != NULL && rq->dirs[i] ? UFS_DIR : UFS_FILE);

		if (ff != NULL)
			fake_store_remove(st, ff);
	}
	return 0;
}

static bool parent_missing(struct fake_store *st, const char *path)
{
	char dir[FAKE_PATH];
	char *end;

	set_str(dir, sizeof(dir), path);
	end = strrchr(dir, '/');
	if (end == NULL)
		return false;
	*end = '\0';
	return find_kind(st, dir, UFS_DIR) == NULL && !fake_store_below(st, dir);
}

static int do_mkdir(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_mkdir *rq = container_of(r, struct ufs_mkdir, req);
	bool files = (st->can & UFS_CAN_RENAME) != 0;
	struct fake_file *ff = find_kind(st, rq->path, UFS_DIR);

	if (files && (fake_store_find(st, rq->path) != NULL || fake_store_below(st, rq->path)))
		return -EEXIST;
	if (files && parent_missing(st, rq->path))
		return -ENOENT;
	if (ff == NULL)
		ff = fake_store_add(st, rq->path, UFS_DIR, 0, "", NULL);
	ff->mtime.tv_sec = 1000 + ++st->serial;
	set_apply(ff, rq->set);
	fake_store_attr(st, ff, &rq->attr);
	return 0;
}

static int do_rmdir(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_rmdir *rq = container_of(r, struct ufs_rmdir, req);
	bool files = (st->can & UFS_CAN_RENAME) != 0;
	struct fake_file *ff = find_kind(st, rq->path, UFS_DIR);

	if (files && fake_store_below(st, rq->path))
		return -ENOTEMPTY;
	if (files && ff == NULL)
		return find_kind(st, rq->path, UFS_FILE) != NULL ? -ENOTDIR : -ENOENT;
	if (ff != NULL)
		fake_store_remove(st, ff);
	return 0;
}

/* As rename(2) says, without what lies below. */
static int rename_check(struct fake_store *st, const struct ufs_rename *rq)
{
	const struct fake_file *src = fake_store_find(st, rq->src);
	const struct fake_file *dst = fake_store_find(st, rq->dst);

	if (src == NULL || parent_missing(st, rq->dst))
		return -ENOENT;
	if (dst != NULL && rq->noreplace)
		return -EEXIST;
	if (is_below(rq->dst, rq->src))
		return -EINVAL;
	if (dst == NULL)
		return 0;
	if (dst->kind == UFS_DIR)
		return src->kind != UFS_DIR			    ? -EISDIR
		       : dst != src && fake_store_below(st, rq->dst) ? -ENOTEMPTY
								    : 0;
	return src->kind == UFS_DIR ? -ENOTDIR : 0;
}

static int do_rename(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_rename *rq = container_of(r, struct ufs_rename, req);
	size_t n = strlen(rq->src);
	int err;

	if (!(st->can & UFS_CAN_RENAME))
		return -EOPNOTSUPP;
	err = rename_check(st, rq);
	if (err == 0 && strcmp(rq->src, rq->dst) != 0) {
		if (fake_store_find(st, rq->dst) != NULL)
			fake_store_remove(st, fake_store_find(st, rq->dst));
		for (unsigned i = 0; i < st->nfiles; i++) {
			char *path = st->file[i].path, old[FAKE_PATH];

			if (strcmp(path, rq->src) != 0 && !is_below(path, rq->src))
				continue;
			memcpy(old, path, strlen(path) + 1);
			if (snprintf(path, FAKE_PATH, "%s%s", rq->dst, old + n) >= FAKE_PATH)
				abort();
		}
	}
	if (err == 0)
		fake_store_attr(st, fake_store_find(st, rq->dst), &rq->attr);
	return err;
}

static int do_setattr(struct fake_store *st, struct ufs_req *r)
{
	struct ufs_setattr *rq = container_of(r, struct ufs_setattr, req);
	struct fake_file *ff = fake_store_find(st, rq->path);

	if (!(st->can & UFS_CAN_SETATTR))
		return -EOPNOTSUPP;
	if (ff == NULL)
		return -ENOENT;
	if (ff->kind == UFS_FILE) {
		/* The content stays as it is under the new version. */
		if (*ff->seed == '\0')
			memcpy(ff->seed, ff->version, strlen(ff->version) + 1);
		(void)snprintf(ff->version, sizeof(ff->version), "a%u", ++st->serial);
	}
	set_apply(ff, rq->set);
	fake_store_attr(st, ff, &rq->attr);
	return 0;
}

/* --- failures */

void fake_store_fail(
    struct fake_store *st, enum fake_op op, unsigned nth, unsigned times, int err, bool effect)
{
	for (unsigned i = 0; i < ARRAY_LEN(st->fault); i++) {
		if (st->fault[i].times != 0)
			continue;
		st->fault[i] = (struct fake_fault){ op, nth, times, err, effect };
		return;
	}
	abort();
}

static const struct fake_fault *fault_now(
    struct fake_store *st, enum fake_op op, struct fake_fault *copy)
{
	const struct fake_fault *now = NULL;

	for (unsigned i = 0; i < ARRAY_LEN(st->fault); i++) {
		struct fake_fault *ft = &st->fault[i];

		if (ft->times == 0 || ft->op != op || (ft->nth > 1 && ft->nth-- > 1))
			continue;
		if (now != NULL)
			continue;
		*copy = *ft;
		now = copy;
		ft->times--;
	}
	return now;
}

int fake_store_do(struct fake_store *st, enum fake_op op, struct ufs_req *rq)
{
	static int (*const table[FAKE_OPS])(struct fake_store *, struct ufs_req *) = {
		[FAKE_STAT] = do_stat,
		[FAKE_PUT] = do_put,
		[FAKE_MULTI_BEGIN] = do_multi_begin,
		[FAKE_PART] = do_part,
		[FAKE_MULTI_END] = do_multi_end,
		[FAKE_MULTI_ABORT] = do_multi_abort,
		[FAKE_MULTI_SWEEP] = do_multi_sweep,
		[FAKE_COPY] = do_copy,
		[FAKE_DELETE] = do_delete,
		[FAKE_MKDIR] = do_mkdir,
		[FAKE_RMDIR] = do_rmdir,
		[FAKE_RENAME] = do_rename,
		[FAKE_SETATTR] = do_setattr,
	};
	struct fake_fault copy;
	const struct fake_fault *ft = fault_now(st, op, &copy);
	int err = 0;

	st->count[op]++;
	if (table[op] != NULL && (ft == NULL || ft->effect))
		err = table[op](st, rq);
	return ft != NULL ? ft->err : err;
}
