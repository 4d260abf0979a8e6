#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The write cache over a bucket of a real radosgw, whose daemons get kill -9; see write_cache.sh.
. "${BATONFS_SRC:-.}/t/e2e/write_cache.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

stored() { # PATH
	s3_curl "$RGW_ENDPOINT/data/$1" 2>/dev/null
}

bucket_begin
STORE=(-u /=s3://data -s "s3.endpoint=$RGW_ENDPOINT")
everything
