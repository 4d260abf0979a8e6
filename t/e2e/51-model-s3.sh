#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The model test on a bucket of a real radosgw; see model.sh for what can be set.
. "${BATONFS_SRC:-.}/t/e2e/model.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

bucket_begin
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" "${COMMON[@]}"
same "$STEPS calls on a bucket" --steps "$STEPS"
same "$((STEPS / 20)) calls with large files" --steps $((STEPS / 20)) --large
turns "$TURNS calls on a bucket, upgraded and killed between them"
stop
