#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Writers that know what each call must answer go on while the daemon is upgraded, killed
# at random and killed at the named points of its changes; every change happens exactly
# once.  ROUNDS=100 for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh"
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

mkdir "$T/store"
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
