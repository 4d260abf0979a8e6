#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Writers that know what each call must answer go on while the daemon is upgraded, killed
# at random and killed at the named points of its changes; every change happens exactly
# once.  ROUNDS=100 for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh"

ROUNDS=${ROUNDS:-8}
WRITERS=${WRITERS:-3}

writers_start() { # DIR
	local i
	writers=""
	for i in $(seq "$WRITERS"); do
		MUTATOR_LIST=$T/list.$i python3 "$BATONFS_SRC/t/e2e/mutator.py" "$M/$1/w$i" \
			"$((RANDOM * 100 + i))" >"$T/writer.$i" 2>&1 &
		writers="$writers $i:$!"
	done
}

writers_alive() {
	local w
	for w in $writers; do
		kill -0 "${w#*:}" 2>/dev/null || die "writer ${w%:*}: $(cat "$T/writer.${w%:*}")"
	done
}

writers_stop() {
	local w bad=0
	for w in $writers; do
		kill -TERM "${w#*:}" 2>/dev/null || true
	done
	for w in $writers; do
		wait "${w#*:}" || bad=1
		cat "$T/writer.${w%:*}"
	done
	[ $bad = 0 ] || die "a writer saw what it should not"
}

calls_made() { # so many requests have been answered by now
	batonfs -m "$M" --json status | jq '.counters["fuse.replies"]'
}

work_goes_on() { # the daemon that serves now has answered some
	[ "$(calls_made 2>/dev/null || echo 0)" -gt 20 ]
}

rounds() { # NAME
	local i pid
	writers_start "$1"
	for i in $(seq "$ROUNDS"); do
		wait_until 60 "requests are answered" work_goes_on
		writers_alive
		if [ $((i % 2)) = 0 ]; then
			batonfs -m "$M" upgrade >/dev/null || die "upgrade $i"
		else
			pid=$(daemon_pid)
			kill -9 "$pid"
			wait_until 60 "a new daemon serves" new_daemon "$pid"
		fi
	done
	wait_until 60 "requests are answered" work_goes_on
	writers_alive
	writers_stop
	ok "$ROUNDS upgrades and kills under $WRITERS writers on $1"
}

new_daemon() { # PID: it is not that one any more
	local now
	now=$(daemon_pid) && [ -n "$now" ] && [ "$now" != "$1" ]
}

checked() { # DIR: what the writers kept is there
	local i
	for i in $(seq "$WRITERS"); do
		python3 "$BATONFS_SRC/t/e2e/mutator.py" --check "$T/list.$i" "$1/w$i" || die "writer $i"
	done
	ok "the writers' files, and no others, are in $2"
}

mkdir "$T/store"
serve -u /="file://$T/store" -s worker.page.store.dir="$T/cache" -s "keeper.restart.limit=1000 in 1min"
mkdir "$M/directory"
rounds directory
checked "$M/directory" "the mount"
stop
checked "$T/store/directory" "the storage"
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left: $(find "$T/store" -name '.batonfs*')"
ok "no temporary file is left"
[ -z "$(find "$T/cache/staged" -type f 2>/dev/null)" ] || die "staged files were left"
ok "no staged file is left"

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
"$BATONFS_SRC/t/lib/s3put.sh" bucket data
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s "keeper.restart.limit=1000 in 1min"
mkdir "$M/bucket"
rounds bucket
checked "$M/bucket" "the mount"
stop
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT"
checked "$M/bucket" "the bucket, after a remount"
stop
