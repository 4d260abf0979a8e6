#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a planned upgrade promises to requests that are under way, in a storage that stands
# still: reads by fuse.migration.slow.read.timeout and slow.read.action, also while the
# window is held open at a named point; changes by mutation.wire.timeout and
# ongoing.request.grace_period.  ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh"

ROUNDS=${ROUNDS:-1}
S=$T/src
mkdir -p "$S/d" "$T/slow"
pattern gen "$S/warm.300001"
FILES="$M/warm.300001"
faults_taken_once

# The storage is a mount of its own, which can be stopped.
batonfsd -f --takeover=never -u "/=file://$S" -s fuse.non.disruptive.migration.enabled=false \
	-o attr_timeout=0,entry_timeout=0,negative_timeout=0 "$T/slow" 2>>"$T/slow.log" &
storage=$!
wait_until 60 "the storage is there" test -e "$T/slow/warm.300001"

start() {
	batonfs-keeper --watchdog 30s -- "$T/bin/batonfsd" -f -u "/=file://$T/slow" \
		-s worker.page.store.dir="$T/cache" -s keeper.restart.limit="500 in 1min" \
		-s fuse.migration.mutation.hold=10min -s ufs.timeout=10min \
		-o attr_timeout=300,entry_timeout=300,negative_timeout=300 "$M" 2>>"$LOG" &
	keeper=$!
	wait_until 60 "the mount serves" daemon_pid
	pattern check "$M/warm.300001"
}

status() { # FILTER
	batonfs -m "$M" --json status | jq -e "$1" >/dev/null
}

upgrade() { # [settings]
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" -- "$@" >"$T/upgrade.out" 2>&1 ||
		die "upgrade: $(cat "$T/upgrade.out")"
}

ended() { # the daemon before has no request any more
	grep -q "the old daemon has ended" "$LOG"
}

# The daemon that the next upgrade replaces: with these settings, and a window that stays
# open if FAULT says so.
prepare() { # FAULT or "" SETTINGS
	local fault=$1
	shift
	rm -f "$T/fault" "$T/go" "$T/go.here"
	[ -z "$fault" ] || fault "$fault"
	: >"$LOG"
	upgrade "$@"
	old=$(daemon_pid)
	wait_until 60 "the daemon before has ended" ended
}

window_begin() { # FAULT of the new daemon, or ""
	rm -f "$T/fault"
	[ -z "$1" ] || fault "$1"
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1 &
	upgrading=$!
	wait_until 60 "the window is open" test -e "$T/go.here"
}

window_close() { # exit code of the upgrade
	local got=0
	touch "$T/go"
	wait $upgrading || got=$?
	[ $got = "$1" ] || die "the upgrade ended with $got: $(cat "$T/upgrade.out")"
}

running() { # N: so many requests run in the daemon
	status ".requests_running >= $1"
}

# A read that the storage does not answer; its end is in $T/stuck.out.
cold=0
stuck() {
	cold=$((cold + 1))
	pattern gen "$S/cold$cold.524288"
	exec 7<"$M/cold$cold.524288"
	kill -STOP $storage
	: >"$LOG"
	rm -f "$T/stuck.out"
	(dd if=/proc/self/fd/7 of="$T/got" bs=131072 count=1 iflag=direct 2>"$T/stuck.err" &&
		head -c 131072 "$S/cold$cold.524288" | cmp - "$T/got"; echo $? >"$T/stuck.new"
	mv "$T/stuck.new" "$T/stuck.out") &
	reader=$!
	wait_until 60 "the read is stuck" running 1
}

stuck_ends() { # CODE
	wait_until 60 "the read ends" test -e "$T/stuck.out"
	wait $reader || true
	exec 7<&-
	[ "$(cat "$T/stuck.out")" = "$1" ] || die "the read ended with $(cat "$T/stuck.out" "$T/stuck.err"), not $1"
	[ "$1" = 0 ] || grep -q "Input/output error" "$T/stuck.err" || die "not EIO: $(cat "$T/stuck.err")"
	readers_alive
}

still_stuck() {
	[ ! -e "$T/stuck.out" ] || die "$1: the read ended: $(cat "$T/stuck.out" "$T/stuck.err")"
}

# No answer was given to what had been answered: the kernel took each of them.
once() {
	status '.counters["fuse.reply.errors"] == 0' ||
		die "the kernel refused an answer: $(batonfs -m "$M" --json status | jq .counters)"
}

start
# shellcheck disable=SC2086
readers_start buffered direct
SLOW=fuse.migration.slow.read.timeout
ACTION=fuse.migration.slow.read.action
WINDOW=takeover.old.window=until:$T/go@1

for _ in $(seq "$ROUNDS"); do
	# --- Reads
	prepare "" -s $SLOW=10min
	stuck
	upgrade
	still_stuck "10min"
	kill -CONT $storage
	stuck_ends 0
	wait_until 60 "the old daemon has answered all" ended
	status '.last_takeover.moved.requests_resumed == 0 and .last_takeover.requests_aborted == 0' ||
		die "it was not answered by the old daemon"
	once
	ok "a read that ends in its time is answered by the old daemon"

	prepare "" -s $SLOW=0s
	stuck
	upgrade
	wait_until 60 "the old daemon has answered all" ended
	still_stuck "0s"
	status '.last_takeover.moved.requests_held + .last_takeover.moved.requests_resumed >= 1' ||
		die "0s: it was not handed over"
	kill -CONT $storage
	stuck_ends 0
	once
	ok "0s: it is handed over at once, and answered by the new daemon"

	prepare "$WINDOW" -s $SLOW=100ms -s $ACTION=abort
	stuck
	window_begin ""
	stuck_ends 1
	kill -0 $upgrading || die "the upgrade did not wait: $(cat "$T/upgrade.out")"
	window_close 0
	wait_until 60 "status tells of it" status '.last_takeover.requests_aborted >= 1'
	kill -CONT $storage
	expect "the file can be read again" pattern check "$M/cold$cold.524288"
	once
	ok "abort: a slow read fails with EIO while the window is open"

	prepare "$WINDOW" -s $SLOW=100ms -s $ACTION=resume
	stuck
	window_begin ""
	wait_until 60 "the read is taken from the old daemon" grep -q "slow reads go to the new daemon" "$LOG"
	still_stuck "resume"
	window_close 0
	wait_until 60 "the old daemon has answered all" ended
	still_stuck "resume"
	status '.last_takeover.moved.requests_held >= 1 and .last_takeover.moved.requests_resumed == 0' ||
		die "it did not go with COMMIT: $(batonfs -m "$M" --json status | jq .last_takeover)"
	kill -CONT $storage
	stuck_ends 0
	once
	ok "resume: a slow read goes to the new daemon with all else, and gets its bytes"

	prepare "$WINDOW" -s $SLOW=100ms -s $ACTION=resume
	stuck
	window_begin takeover.new.state=sleep:1ms
	wait_until 60 "the read is taken from the old daemon" grep -q "slow reads go to the new daemon" "$LOG"
	# shellcheck disable=SC2046
	kill -9 $(cat "/proc/$old/task/$old/children")
	window_close 5
	[ "$(daemon_pid)" = "$old" ] || die "the old daemon does not serve"
	still_stuck "rollback"
	kill -CONT $storage
	stuck_ends 0
	once
	ok "resume: a successor that dies then: the old daemon does the read again"
done

readers_stop
ok "no reader saw an error or a wrong byte"
stop
kill -INT $storage
wait $storage || true
