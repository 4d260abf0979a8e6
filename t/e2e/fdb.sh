# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# A cluster for a test, after lib.sh: a stand-in's (t/fdb), with a server of the test's own in
# $T/fdb; or, if BATONFS_TEST_FDB_CLUSTER_FILE is set, that one, with the library
# BATONFS_TEST_FDB_LIBRARY, where the keys below a prefix of the test's own stay.
CLUSTER_FILE=${BATONFS_TEST_FDB_CLUSTER_FILE:-$T/fdb/fdb.cluster}
LIBRARY=${BATONFS_TEST_FDB_LIBRARY:-$BATONFS_BUILD/libfdb_c.so}
# shellcheck disable=SC2034
CLUSTER=(-s meta.backend=fdb -s meta.fdb.library="$LIBRARY"
	-s meta.fdb.cluster.file="$CLUSTER_FILE" -s meta.fdb.prefix="t/e2e/${T##*/}")
server=

is_real() {
	[ -n "${BATONFS_TEST_FDB_CLUSTER_FILE-}" ]
}

cluster_start() { # also after cluster_kill: it has what it had
	is_real && return
	mkdir -p "$T/fdb"
	standin_server "$T/fdb" 2>>"$LOG" &
	server=$!
	wait_until 60 "the server serves" test -S "$T/fdb/sock"
}

cluster_kill() {
	kill -9 "$server"
	wait "$server" 2>/dev/null || true
	rm -f "$T/fdb/sock"
}

faults() { # LINE...: none without
	is_real && return
	[ $# -gt 0 ] || set -- ""
	printf '%s\n' "$@" >"$T/fdb/faults.new"
	mv "$T/fdb/faults.new" "$T/fdb/faults"
}

fired() { # REQUEST ACT: it has been met
	grep -q "^$1 $2 " "$T/fdb/fired"
}
