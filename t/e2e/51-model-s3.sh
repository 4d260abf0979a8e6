#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The model test on a bucket of a real radosgw; see model.sh for what can be set.
. "${BATONFS_SRC:-.}/t/e2e/model.sh"

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
"$BATONFS_SRC/t/lib/s3put.sh" bucket data
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" "${COMMON[@]}"
same "$STEPS calls on a bucket" --steps "$STEPS"
same "$((STEPS / 20)) calls with large files" --steps $((STEPS / 20)) --large
turns "$TURNS calls on a bucket, upgraded and killed between them"
stop
