/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Records of the metadata store as JSON, for `batonfs meta export` and `import`:
 *
 *	kind			"file", "directory", or "path": it only leads to records below
 *	mode, uid, gid		numbers; absent: the record does not say
 *	mtime, atime		[seconds, nanoseconds]; the same
 *	version			of a file: what the storage has
 *	content			of a file that was written under a policy: policy, id (16
 *				hexadecimal digits), size, tail_crc, since_ns
 *
 * Only content that is PERSISTED has such a form.
 */
#ifndef CTL_CTL_META_JSON_H
#define CTL_CTL_META_JSON_H

#include "base/json.h"
#include "meta/meta.h"

/* Members of an open object. */
void ctl_meta_put(struct json_out *o, const struct meta_record *rec);
/* -EINVAL with words: it is none, or has a member that this build does not know. */
int ctl_meta_get(const struct json *v, struct meta_record *rec, struct errtext *et);

#endif
