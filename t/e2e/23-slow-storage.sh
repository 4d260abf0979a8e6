#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Upgrades and crashes while the storage does not answer: reads that are stuck in it are
# handed on or fail as configured, and all else is served.  ROUNDS=n for more, FROZEN=65 for
# an old daemon that is frozen for longer than any of its time limits.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-1}
FROZEN=${FROZEN:-0}
S=$T/src
faults_taken_once
mkdir -p "$S" "$T/slow" "$T/cache"
pattern gen "$S/warm.3000000" "$S/warm.100003"
# Read once each, so that nothing has them in memory.
cold=0
for i in $(seq $((16 * ROUNDS))); do
	pattern gen "$S/cold$i.2097152"
done
FILES="$M/warm.3000000 $M/warm.100003"

# The storage is a mount of its own, which can be stopped.
batonfsd -f --takeover=never -u "/=file://$S" -s fuse.non.disruptive.migration.enabled=false \
	"$T/slow" 2>>"$T/slow.log" &
storage=$!
wait_until 60 "the storage is there" test -e "$T/slow/warm.100003"

start() {
	batonfs-keeper --watchdog 5s -- "$T/bin/batonfsd" -f -u "/=file://$T/slow" \
		-s worker.page.store.dir="$T/cache" -s worker.page.store.size=256MiB \
		-s fuse.migration.slow.read.timeout=1s -s keeper.restart.limit="500 in 1min" \
		-s fuse.migration.ongoing.request.grace_period=1s "$@" \
		-o attr_timeout=300,entry_timeout=300 "$M" 2>>"$LOG" &
	keeper=$!
	wait_until 60 "the mount serves" mounted
	wait_until 60 "the mount serves" daemon_pid
	pattern check "$M/warm.3000000" "$M/warm.100003"
}

fetching() { # something that the readers do not want: what they read is all here
	[ "$(timeout 30 batonfs -m "$M" --json status | jq .cache.fetches_running)" -ge 1 ]
}

# A read that the storage does not answer; its end is in $T/stuck.out.
stuck() {
	cold=$((cold + 1))
	exec 7<"$M/cold$cold.2097152"
	kill -STOP $storage
	(dd if=/proc/self/fd/7 of="$T/got" bs=131072 count=1 iflag=direct 2>"$T/stuck.err" &&
		head -c 131072 "$S/cold$cold.2097152" | cmp - "$T/got"; echo $? >"$T/stuck.out") &
	reader=$!
	wait_until 60 "the read is stuck" fetching
}

stuck_ends() { # CODE DESCRIPTION
	wait_until 60 "$2: the read ends" not kill -0 "$reader"
	wait "$reader" || true
	[ "$(cat "$T/stuck.out")" = "$1" ] || die "$2: the read ended with $(cat "$T/stuck.out" "$T/stuck.err"), not $1"
	exec 7<&-
	ok "$2"
}

upgrade() {
	before=$(daemon_pid)
	timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1 ||
		die "upgrade: $(cat "$T/upgrade.out")"
	[ "$(daemon_pid)" != "$before" ] || die "the same process serves on"
	readers_alive
}

short_pause() { # shorter than what a read is waited for
	[ "$(batonfs -m "$M" --json status | jq '.last_takeover.pause_ms < 1000')" = true ]
}

resumed() {
	[ "$(batonfs -m "$M" --json status | jq .last_takeover.moved.requests_resumed)" -ge 1 ]
}

is_frozen() {
	grep -q '^State:.T' "/proc/$1/status"
}

# What a process could still change: files below these that it has open or mapped for writing.
cat >"$T/writable.py" <<'PY'
import os, re, sys
p = f"/proc/{sys.argv[1]}"
ours = sys.argv[2:]
found = set()
for fd in os.listdir(f"{p}/fd"):
    name = os.readlink(f"{p}/fd/{fd}")
    flags = int(re.search(r"flags:\s*(\d+)", open(f"{p}/fdinfo/{fd}").read()).group(1), 8)
    if flags & os.O_ACCMODE != os.O_RDONLY:
        found.add(name)
for line in open(f"{p}/maps"):
    words = line.split(None, 5)
    if len(words) == 6 and words[1][1] == "w" and words[1][3] == "s":
        found.add(words[5].strip())
print(*sorted(n for n in found if n.startswith(tuple(ours))))
PY

# The old daemon freezes at a point of its end with a read in its hand.  The new one kills it
# and does the read; or it cannot (FAULT in its way), and the old one goes on when the kernel
# has sent the read again, before the storage answers, or behind.
frozen() { # POINT FAULT|"" before|behind
	local old client open
	fault "takeover.old.$1=stop"
	upgrade
	wait_until 60 "the daemon before is gone" not kill -0 "$before"
	old=$(daemon_pid)
	stuck
	: >"$LOG"
	[ -z "$2" ] || fault "$2"
	timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1 &
	client=$!
	wait_until 60 "another daemon serves" other_serves "$old"
	before=$(daemon_pid)
	wait_until 60 "the old one is frozen at $1" is_frozen "$old"
	if [ -n "$2" ]; then
		wait_until 60 "its reads are repeated" grep -q "hangs and cannot be killed from here" "$LOG"
		sleep "$FROZEN"
		open=$(python3 "$T/writable.py" "$old" "$T/cache" "$T/slow" /dev/shm /var/lib)
		[ "$open" = "$T/cache/lock" ] || die "frozen at $1 it has open for writing: $open"
		[ "$3" = before ] || kill -CONT $storage
		[ "$3" = before ] || stuck_ends 0 "frozen at $1: its read is answered"
		kill -CONT "$old"
	fi
	wait_until 60 "the old daemon is gone" not kill -0 "$old"
	if [ "$3" = before ]; then
		kill -CONT $storage
		stuck_ends 0 "frozen at $1: its read is answered"
	fi
	wait $client || true
	echo "client: $(cat "$T/upgrade.out")"
	[ "$(daemon_pid)" = "$before" ] || die "frozen at $1: another daemon serves"
	readers_alive
	ok "frozen at $1${2:+ and not killed}: the daemon that replaced it serves on"
}

start -s ufs.timeout=10min
# shellcheck disable=SC2086
readers_start buffered mmap

for point in committed "done" end; do
	frozen $point "" before
done
frozen committed takeover.link.kill=errno:1 before
frozen "done" takeover.link.kill=errno:1 behind
frozen end takeover.link.kill=errno:1 before

for _ in $(seq "$ROUNDS"); do
	# Where this machine stands still the pause may be long, once.
	for try in 1 2 3 4 5; do
		stuck
		upgrade
		! short_pause || break
		kill -CONT $storage
		stuck_ends 0 "a read that was stuck is answered; the pause was long"
	done
	short_pause || die "$try times requests stood still for long although only storage is slow"
	wait_until 60 "the read is handed on" resumed
	wait_until 60 "the old daemon is gone" not kill -0 "$before"
	kill -CONT $storage
	stuck_ends 0 "a read that was stuck is answered by the new daemon"

	stuck
	upgrade
	upgrade
	kill -CONT $storage
	stuck_ends 0 "two upgrades in a row while a read is stuck"

	# The old daemon freezes with the read in its hand: the new one does not wait.  (On a
	# slow machine it may have handed it on, and be gone.)
	stuck
	upgrade
	kill -STOP "$before" 2>/dev/null || true
	kill -CONT $storage
	stuck_ends 0 "a frozen old daemon does not keep its reads"
	kill -9 "$before" 2>/dev/null || true

	# It is killed.
	stuck
	upgrade
	kill -9 "$before" 2>/dev/null || true
	kill -CONT $storage
	stuck_ends 0 "an old daemon is killed with a read in its hand"

	# And so is the one that serves.
	stuck
	crash
	readers_alive
	kill -CONT $storage
	stuck_ends 0 "kill -9 of the daemon with a read in its hand"

	# Both, one after the other.
	stuck
	upgrade
	crash
	kill -CONT $storage
	stuck_ends 0 "an upgrade, then kill -9, with a read in the first one's hand"
done
readers_stop
ok "no reader saw an error or a wrong byte"
stop

# The rule of old: a read that takes too long fails.
start -s fuse.migration.slow.read.action=abort
# shellcheck disable=SC2086
readers_start buffered
stuck
upgrade
stuck_ends 1 "abort: a stuck read fails"
grep -q "Input/output error" "$T/stuck.err" || die "not EIO: $(cat "$T/stuck.err")"
aborted() {
	status_is '.last_takeover.requests_aborted >= 1 and .takeovers.requests_aborted >= 1'
}
wait_until 60 "abort: status tells of it" aborted
ok "abort: status tells of it"
kill -CONT $storage
readers_stop
ok "abort: others see nothing of it"
expect "the file can be read again" pattern check "$M/cold$cold.2097152"

# An end that does not wait for the storage.
stuck
kill -TERM "$keeper"
wait_until 60 "the keeper ends" not kill -0 "$keeper"
mounted && die "still mounted"
kill -CONT $storage
wait $reader || true
exec 7<&-
ok "SIGTERM to the keeper unmounts while the storage is stuck"
kill -INT $storage
wait $storage || true
