#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Writers that know what each call must answer go on while the daemon is upgraded, killed
# at random and killed at the named points of its changes; every change happens exactly
# once.  So they do while an old daemon that hands over is frozen.  ROUNDS=100 for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-8}
WRITERS=${WRITERS:-3}

work_goes_on() { # the daemon that serves now has answered some
	[ "$(counter fuse.replies 2>/dev/null || echo 0)" -gt 20 ]
}

rounds() { # NAME
	local i
	mutators_start "$M/$1" "$WRITERS"
	for i in $(seq "$ROUNDS"); do
		wait_until 60 "requests are answered" work_goes_on
		workers_alive "round $i"
		if [ $((i % 2)) = 0 ]; then
			batonfs -m "$M" upgrade >/dev/null || die "upgrade $i"
		else
			crash
		fi
	done
	wait_until 60 "requests are answered" work_goes_on
	workers_alive "round $i"
	workers_stop
	ok "$ROUNDS upgrades and kills under $WRITERS writers on $1"
}

# The old daemon stops for good at a named point of its hand-over: before COMMIT its keeper
# ends it, later the one that has the mount.
frozen() { # POINT
	local old
	fault "takeover.old.$1=stop"
	batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 ||
		die "upgrade to one that freezes at $1: $(cat "$T/up")"
	[ ! -e "$T/fault" ] || die "$1: the fault was not taken"
	old=$(daemon_pid)
	wait_until 60 "$1: requests are answered" work_goes_on
	timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 || true
	wait_until 60 "the daemon that froze at $1 is ended" not kill -0 "$old"
	wait_until 60 "$1: another daemon serves" other_serves "$old"
	wait_until 60 "$1: requests are answered" work_goes_on
	workers_alive "frozen at $1"
}

all_frozen() { # DIR
	local point
	mutators_start "$M/$1" "$WRITERS"
	for point in ready state window commit committed "done" end; do
		frozen $point
	done
	workers_stop
	mutators_checked "$M/$1" "$WRITERS" "the mount"
	ok "an old daemon that freezes at any point of its hand-over under $WRITERS writers"
}

mkdir "$T/store"
faults_taken_once
KEEPER_OPTIONS="--watchdog 3s" serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache" \
	-s "keeper.restart.limit=1000 in 1min" -s fuse.migration.slow.read.timeout=1s \
	-s fuse.migration.ongoing.request.grace_period=1s
mkdir "$M/frozen"
all_frozen frozen
stop
mutators_checked "$T/store/frozen" "$WRITERS" "the storage"

serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache" -s "keeper.restart.limit=1000 in 1min"
mkdir "$M/directory"
rounds directory
mutators_checked "$M/directory" "$WRITERS" "the mount"
stop
mutators_checked "$T/store/directory" "$WRITERS" "the storage"
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left: $(find "$T/store" -name '.batonfs*')"
ok "no temporary file is left"
[ -z "$(find "$T/cache/staged" -type f 2>/dev/null)" ] || die "staged files were left"
ok "no staged file is left"

bucket_begin
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s "keeper.restart.limit=1000 in 1min"
mkdir "$M/bucket"
rounds bucket
mutators_checked "$M/bucket" "$WRITERS" "the mount"
stop
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT"
mutators_checked "$M/bucket" "$WRITERS" "the bucket, after a remount"
stop
