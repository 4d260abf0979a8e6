/* SPDX-License-Identifier: BSD-2-Clause */
/* s3://: URI, endpoint, addressing style; the requests without a file of their own. */
#include <errno.h>
#include <string.h>

#include "base/options.h"
#include "ufs/s3_priv.h"

/* S3 has no limit; what df can still print without overflow in any tool. */
#define S3_SPACE (UINT64_C(1) << 50)

static void s3_free(struct ufs *u)
{
	struct s3 *s3 = S3_OF(u);

	s3_keys_free(&s3->keys);
	explicit_bzero(&s3->sign_key, sizeof(s3->sign_key));
	explicit_bzero(s3->sse_key, sizeof(s3->sse_key));
	free(s3->base);
	free(s3->prefix);
	free(s3->bucket);
	free(u->uri);
	u->magic = 0;
	free(s3);
}

static void s3_statfs(struct ufs *u, struct ufs_statfs *rq)
{
	(void)u;
	rq->space.total = S3_SPACE;
	rq->space.free = S3_SPACE;
	ufs_answer_later(&rq->req, 0);
}

static const struct ufs_ops s3_ops = {
	.free = s3_free,
	.stat = s3_stat,
	.list = s3_list,
	.read = s3_read,
	.check = s3_check,
	.statfs = s3_statfs,
	.put = s3_put,
	.multi_begin = s3_multi_begin,
	.part = s3_part,
	.multi_end = s3_multi_end,
	.multi_abort = s3_multi_abort,
	.multi_sweep = s3_multi_sweep,
	.copy = s3_copy,
	.del = s3_delete,
	.mkdir = s3_mkdir,
	.rmdir = s3_rmdir,
};

int s3_key(const struct s3 *s3, const char *path, bool dir, char key[S3_KEY_BUF])
{
	size_t n = strlen(s3->prefix), m = strlen(path);
	bool slash = dir && m > 0;

	if (n + m + slash > S3_KEY_MAX)
		return -ENAMETOOLONG;
	memcpy(key, s3->prefix, n);
	memcpy(key + n, path, m);
	if (slash)
		key[n + m] = '/';
	key[n + m + slash] = '\0';
	return 0;
}

void s3_match_text(const struct s3 *s3, const char *version, char out[UFS_VERSION_MAX + 2])
{
	const char *q = s3->quote_match ? "\"" : "";

	(void)snprintf(out, UFS_VERSION_MAX + 2, "%s%s%s", q, version, q);
}

unsigned s3_object_headers(const struct s3 *s3, struct http_header out[S3_OBJECT_HEADERS])
{
	const struct config *cfg = s3->ufs.env.cfg;
	unsigned n = 0;

	if (*cfg->s3_storage_class != '\0')
		out[n++] = (struct http_header){ "x-amz-storage-class", cfg->s3_storage_class };
	if (strcmp(cfg->s3_encryption, "none") != 0)
		out[n++] = (struct http_header){ "x-amz-server-side-encryption",
			cfg->s3_encryption };
	if (*cfg->s3_kms_key != '\0')
		out[n++] = (struct http_header){ "x-amz-server-side-encryption-aws-kms-key-id",
			cfg->s3_kms_key };
	return n;
}

static bool word_of(const char *s, size_t n, const char *also)
{
	for (size_t i = 0; i < n; i++)
		if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
			(s[i] >= '0' && s[i] <= '9') || strchr(also, s[i]) != NULL))
			return false;
	return n > 0;
}

/* "bucket/prefix": the prefix is taken as it is, without percent-decoding. */
static int parse_uri(struct s3 *s3, const char *rest, struct errtext *et)
{
	size_t n = strcspn(rest, "/"), m;
	const char *p;
	char *path;

	if (!word_of(rest, n, "-._") || n > 255 || rest[0] == '.')
		return errtext_set(et, -EINVAL,
		    "the bucket's name is missing or has characters other than A-Z a-z 0-9 - . _");
	s3->bucket = strndup(rest, n);
	p = rest + n;
	p += strspn(p, "/");
	m = strlen(p);
	while (m > 0 && p[m - 1] == '/')
		m--;
	path = strndup(p, m);
	if (s3->bucket == NULL || path == NULL) {
		free(path);
		return errtext_set(et, -ENOMEM, "out of memory");
	}
	if (ufs_path_check(path) != 0 || m + 1 > S3_KEY_MAX) {
		free(path);
		return errtext_set(et, -EINVAL,
		    "the prefix has an empty component, \".\" or \"..\", or is too long");
	}
	if (asprintf(&s3->prefix, "%s%s", path, m > 0 ? "/" : "") < 0)
		s3->prefix = NULL;
	free(path);
	return s3->prefix != NULL ? 0 : errtext_set(et, -ENOMEM, "out of memory");
}

static int parse_endpoint(struct s3 *s3, const struct config *cfg, struct errtext *et)
{
	const char *ep = cfg->s3_endpoint, *host;
	char *made = NULL;
	bool foreign = *ep != '\0';
	size_t n;
	int r, err = 0;

	if (!word_of(cfg->s3_region, strlen(cfg->s3_region), "-_"))
		return errtext_set(et, -EINVAL, "s3.region \"%s\" is no region's name",
		    cfg->s3_region);
	if (!foreign) {
		if (asprintf(&made, "https://s3.%s.amazonaws.com", cfg->s3_region) < 0)
			return errtext_set(et, -ENOMEM, "out of memory");
		ep = made;
	}
	if (strncmp(ep, "http://", 7) == 0)
		host = ep + 7;
	else if (strncmp(ep, "https://", 8) == 0)
		host = ep + 8;
	else
		host = "";
	n = strcspn(host, "/");
	if (!word_of(host, n, "-._:[]") || strspn(host + n, "/") != strlen(host + n)) {
		err = errtext_set(et, -EINVAL,
		    "s3.endpoint \"%s\" is not of the form http[s]://HOST[:PORT]", ep);
		goto out;
	}
	if (cfg->s3_path_style)
		r = asprintf(&s3->base, "%.*s/%s", (int)(host - ep + (ptrdiff_t)n), ep, s3->bucket);
	else
		r = asprintf(
		    &s3->base, "%.*s%s.%.*s", (int)(host - ep), ep, s3->bucket, (int)n, host);
	if (r < 0)
		s3->base = NULL;
	/* '@' cannot be in a bucket's name, so this cannot be another bucket's URI. */
	if (s3->base == NULL ||
	    asprintf(&s3->ufs.uri, "s3://%s%s%.*s%s%.*s", s3->bucket, foreign ? "@" : "",
		foreign ? (int)n : 0, host, *s3->prefix != '\0' ? "/" : "",
		*s3->prefix != '\0' ? (int)strlen(s3->prefix) - 1 : 0, s3->prefix) < 0) {
		s3->ufs.uri = NULL;
		err = errtext_set(et, -ENOMEM, "out of memory");
	}
out:
	free(made);
	return err;
}

/* What goes into headers as it is. */
static int check_object_options(const struct config *cfg, struct errtext *et)
{
	if (*cfg->s3_storage_class != '\0' &&
	    !word_of(cfg->s3_storage_class, strlen(cfg->s3_storage_class), "_-"))
		return errtext_set(et, -EINVAL, "s3.storage.class \"%s\" is no class's name",
		    cfg->s3_storage_class);
	if (*cfg->s3_sse_key_file != '\0' && strcmp(cfg->s3_encryption, "none") != 0)
		return errtext_set(et, -EINVAL,
		    "s3.sse.customer.key.file and s3.server.side.encryption = %s are two ways to "
		    "encrypt: only one can be",
		    cfg->s3_encryption);
	if (*cfg->s3_kms_key == '\0')
		return 0;
	if (!word_of(cfg->s3_kms_key, strlen(cfg->s3_kms_key), "_-:/.+=@"))
		return errtext_set(
		    et, -EINVAL, "s3.sse.kms.key.id \"%s\" is no key's name", cfg->s3_kms_key);
	if (strcmp(cfg->s3_encryption, "aws:kms") != 0)
		return errtext_set(et, -EINVAL,
		    "s3.sse.kms.key.id needs s3.server.side.encryption = aws:kms");
	return 0;
}

int s3_new(struct ufs **out, const struct ufs_env *env, const char *rest, struct errtext *et)
{
	struct s3 *s3 = calloc(1, sizeof(*s3));
	int err;

	if (s3 == NULL)
		return errtext_set(et, -ENOMEM, "out of memory");
	s3->ufs.magic = UFS_MAGIC;
	s3->ufs.ops = &s3_ops;
	s3->ufs.env = *env;
	s3->ufs.can = UFS_CAN_ABSENT;
	s3->copy_max = UFS_PART_MAX;
	s3->copy_part = UINT64_C(512) << 20;
	err = parse_uri(s3, rest, et);
	if (err == 0)
		err = parse_endpoint(s3, env->cfg, et);
	if (err == 0)
		err = check_object_options(env->cfg, et);
	if (err == 0)
		err = s3_sse_load(s3, env->cfg->s3_sse_key_file, et);
	if (err == 0)
		err = s3_keys_new(&s3->keys, env, et);
	if (err != 0) {
		s3_free(&s3->ufs);
		return err;
	}
	*out = &s3->ufs;
	return 0;
}

/* --- check: one listing of one key shows endpoint, signature and bucket */

struct check {
	struct ufs_call call;
	struct s3_probe probe;
};

static void check_abort(struct ufs_call *c)
{
	struct check *ck = container_of(c, struct check, call);

	s3_probe_abort(&ck->probe);
	ufs_call_drop(c);
}

static void check_done(struct s3_probe *p, int err)
{
	struct check *ck = container_of(p, struct check, probe);
	struct ufs_check *rq = container_of(ck->call.rq, struct ufs_check, req);

	if (err != 0) {
		if (strcmp(p->req.error.code, "NoSuchBucket") == 0)
			err = -ENOENT;
		(void)errtext_set(&rq->et, err, "storage %s: %s", p->s3->ufs.uri, p->req.words);
	}
	ufs_call_end(&ck->call, err);
}

void s3_check(struct ufs *u, struct ufs_check *rq)
{
	struct check *ck = ufs_call_new(&rq->req, sizeof(*ck), check_abort);

	if (ck == NULL)
		return;
	ck->probe.s3 = S3_OF(u);
	ck->probe.done = check_done;
	s3_probe_start(&ck->probe, ck->probe.s3->prefix);
}
