#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What meta.h says, in FoundationDB: the suites of unit-meta that both back ends have to
# pass, on a stand-in of their own: once as it is, once with faults of each kind that
# FoundationDB says may be tried again.  Or once in the cluster that
# BATONFS_TEST_FDB_CLUSTER_FILE names, with the library BATONFS_TEST_FDB_LIBRARY.
#	STEPS=n SEED=n	for the model
set -eu
: "${BATONFS_BUILD:=$PWD}" "${BATONFS_SRC:=$PWD}"
export STEPS=${STEPS:-300} # with a restart among them
server=

cleanup() {
	local status=$?
	trap - EXIT
	[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
	[ -z "${D-}" ] || rm -rf "$D"
	exit $status
}
trap cleanup EXIT

die() {
	echo "FAILED: $*" >&2
	exit 1
}

suites() { # WHAT [TESTS]
	echo "--- $1"
	"$BATONFS_SRC/t/lib/unit.sh" "$BATONFS_BUILD/unit-meta" \
		--filter "@(meta|meta_content|meta_model|meta_nodes|meta_scan)/${2-*}" || die "$1"
}

serve() {
	"$BATONFS_BUILD/standin_server" "$D" --with-parent 2>"$D/words" &
	server=$!
	until [ -e "$D/fdb.cluster" ]; do
		kill -0 $server 2>/dev/null || die "the server: $(cat "$D/words")"
		sleep 0.02
	done
}

server_ends() { # a sanitizer has its say then
	local status=0
	kill -TERM "$server"
	wait "$server" || status=$?
	server=
	if [ $status != 0 ] || [ -s "$D/words" ]; then
		die "the server, $status: $(cat "$D/words")"
	fi
}

faults() { # LINE...
	printf '%s\n' "$@" >"$D/faults.new"
	mv "$D/faults.new" "$D/faults"
}

met() { # REQUEST ACT
	grep -q "^$1 $2 " "$D/fired" || die "no $1 met $2: the faults were for nothing"
}

if [ -n "${BATONFS_TEST_FDB_CLUSTER_FILE-}" ]; then
	suites "$BATONFS_TEST_FDB_CLUSTER_FILE"
	exit 0
fi
D=$(mktemp -d /tmp/batonfs-fdb.XXXXXX)
export BATONFS_TEST_FDB_CLUSTER_FILE=$D/fdb.cluster
export BATONFS_TEST_FDB_LIBRARY=$BATONFS_BUILD/libfdb_c.so
serve
suites "as it is"
# A sweep is thousands of reads in one transaction.
faults "grv 1037 percent=2" "read 1007 percent=0.01" "read 1009 percent=0.01" \
	"commit 1020 percent=10" "commit 1021 maybe percent=15" "commit 1007 percent=3" \
	"commit drop maybe percent=2"
# Paths of 512 names are so many rounds, and each fault is a new beginning: not those.
BATONFS_TEST_FDB_REPEATS=1 suites "with faults" '!(bad_paths_and_records)'
faults
for fault in "grv 1037" "read 1007" "read 1009" "commit 1020" "commit 1021" "commit 1007" \
	"commit drop"; do
	# shellcheck disable=SC2086
	met $fault
done
server_ends
