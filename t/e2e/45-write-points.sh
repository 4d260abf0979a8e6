#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The daemon is killed at the named points of creating, writing and uploading, under
# writers that know what each call must answer: each change happens exactly once.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-1}
POINTS="mkdir.noted mkdir.made create.made open.made write.done truncate.done release upload.begun upload.sent
	upload.taken session.end"
mkdir "$T/store"

faults_taken_once
PATH=$T/bin:$PATH

# The next daemon has the fault, and is killed by it.
dies_at() { # POINT
	next_has "$1=kill@$((RANDOM % 5 + 1))"
	wait_until 60 "it comes by $1 and dies" not kill -0 "$(cat "$T/fault.pid")"
	wait_until 60 "another one serves" daemon_pid
}

points() { # NAME POINTS...
	local name=$1 point i
	shift
	mkdir "$M/$name"
	mutators_start "$M/$name" 3
	for i in $(seq "$ROUNDS"); do
		for point in "$@"; do
			dies_at "$point"
			workers_alive "$point"
			ok "killed at $point under writers on $name"
		done
	done
	workers_stop
}

# An upload in parts that a daemon has just begun when it dies: the storage has it, and its
# id is nowhere.  The file comes into being all the same, or is deleted meanwhile; nothing
# is left of what was begun.
begun() { # LEFT: prints what is left in the storage
	local left=$1 point
	head -c 20000000 /dev/urandom >"$T/large"
	for point in ufs.multi.begin upload.multi.made upload.multi.begun; do
		next_has "$point=kill"
		wait_until 60 "a daemon serves" daemon_pid
		cp "$T/large" "$M/$point" || die "$point: cp failed"
		not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "$point: nothing came by there"
		wait_until 60 "$point: nothing is left of what was begun" none "$left"
		cmp "$T/large" "$M/$point" || die "$point: the file is another"
		next_has "$point=kill"
		wait_until 60 "a daemon serves" daemon_pid
		exec 5>"$M/$point"
		cat "$T/large" >&5
		wait_until 60 "$point: it dies" not kill -0 "$(cat "$T/fault.pid")"
		rm "$M/$point"
		exec 5>&-
		wait_until 60 "$point: nothing is left of what was begun for a file that is gone" \
			none "$left"
		ok "killed at $point: nothing is left in the storage"
	done
}

# A small file that has two names for a moment, before the temporary one replaces the old.
linked() {
	echo one >"$M/small"
	next_has posix.linked=kill
	wait_until 60 "a daemon serves" daemon_pid
	echo two >"$M/small"
	not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "posix.linked: nothing came by there"
	expect "killed at posix.linked: the file is the new one" test "$(cat "$M/small")" = two
	wait_until 60 "and no other" none temporary_files
	ok "and no other"
}

# The same where the file system knows no files without a name.
named() {
	local nameless="posix.nameless=errno:95"
	echo one >"$M/named"
	next_has "$nameless,posix.named=kill"
	wait_until 60 "a daemon serves" daemon_pid
	echo two >"$M/named"
	not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "posix.named: nothing came by there"
	expect "killed at posix.named: the file is the new one" test "$(cat "$M/named")" = two
	wait_until 60 "it is the only one" none temporary_files
	next_has "$nameless,posix.named=kill"
	wait_until 60 "a daemon serves" daemon_pid
	exec 5>"$M/unnamed"
	echo three >&5
	exec 5>&-
	wait_until 60 "posix.named: it dies" not kill -0 "$(cat "$T/fault.pid")"
	rm "$M/unnamed"
	wait_until 60 "nothing is left" none temporary_files
	ok "killed at posix.named: nothing is left under temporary names"
}

none() { # COMMAND
	[ -z "$("$1")" ]
}

temporary_files() {
	find "$T/store" -name '.batonfs*'
}

serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache" -s "keeper.restart.limit=1000 in 1min"
# shellcheck disable=SC2086
points directory $POINTS create.reserved
mutators_checked "$M/directory" 3 "the mount"
begun temporary_files
linked
named
stop
mutators_checked "$T/store/directory" 3 "the storage"
[ -z "$(temporary_files)" ] || die "temporary files were left: $(temporary_files)"
ok "no temporary file is left"
[ -z "$(find "$T/cache/staged" -type f 2>/dev/null)" ] || die "staged files were left"
ok "no staged file is left"

bucket_begin
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s "keeper.restart.limit=1000 in 1min"
# shellcheck disable=SC2086
points bucket $POINTS create.reserved upload.recorded unlinked.noted unlinked.send unlinked.sent unlinked.recorded \
	unlinked.gone
mutators_checked "$M/bucket" 3 "the mount"
wait_until 60 "no upload is left in the bucket" none unfinished_uploads
ok "no upload is left in the bucket"
begun unfinished_uploads
stop
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT"
mutators_checked "$M/bucket" 3 "the bucket, after a remount"
stop
