#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The write cache over a bucket of a real radosgw, whose daemons get kill -9; see write_cache.sh.
. "${BATONFS_SRC:-.}/t/e2e/write_cache.sh"
# shellcheck source=t/lib/s3put.sh
. "$BATONFS_SRC/t/lib/s3put.sh"

stored() { # PATH
	s3_curl "$RGW_ENDPOINT/data/$1" 2>/dev/null
}

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
s3_bucket data
STORE=(-u /=s3://data -s "s3.endpoint=$RGW_ENDPOINT")
everything
"$BATONFS_SRC/t/lib/rgw.sh" stop "$T/rgw"
