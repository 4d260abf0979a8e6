# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced, behind lib.sh, by the tests that need a real radosgw: one of their own, which ends
# with them, and the s3_* functions of s3put.sh to look at it as another client does.
# shellcheck source=t/lib/s3put.sh
. "$BATONFS_SRC/t/lib/s3put.sh"

# bucket_begin: starts it (RGW_TLS as in rgw.sh), with an empty bucket `data`; RGW_ENDPOINT,
# RGW_TLS_ENDPOINT and the credentials are in the environment from here on.
bucket_begin() {
	"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
	# shellcheck source=/dev/null
	. "$T/rgw/env"
	s3_bucket data || die "the bucket cannot be made"
}

# The gateway's pid, to stop it or let it go on.
gateway_pid() {
	awk '$1 == "rgw" { print $2 }' "$T/rgw/pids"
}

# gateway_kill: nothing listens there any more; what it has stored stays.
gateway_kill() {
	local pid
	pid=$(gateway_pid)
	kill -9 "$pid"
	wait_until 60 "the gateway is gone" not kill -0 "$pid"
}

# gateway_start: again, where it was.
gateway_start() {
	"$BATONFS_SRC/t/lib/rgw.sh" gateway "$T/rgw" || die "the gateway did not start again"
}

# unfinished_uploads: the ids of uploads in parts that nobody has ended or given up.
unfinished_uploads() {
	s3_curl "$RGW_ENDPOINT/data?uploads=" | grep -o '<UploadId>[^<]*'
}

none_unfinished() {
	[ -z "$(unfinished_uploads)" ]
}
