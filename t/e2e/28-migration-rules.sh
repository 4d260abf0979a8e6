#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a planned upgrade promises to requests that are under way, in a storage that stands
# still: reads by fuse.migration.slow.read.timeout and slow.read.action, also while the
# window is held open at a named point; changes by mutation.wire.timeout and
# ongoing.request.grace_period.  ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/window.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

ROUNDS=${ROUNDS:-1}
S=$T/src
mkdir -p "$S/d" "$T/slow"
pattern gen "$S/warm.300001"
FILES="$M/warm.300001"

# The storage is a mount of its own, which can be stopped.
batonfsd -f --takeover=never -u "/=file://$S" -s fuse.non.disruptive.migration.enabled=false \
	-o attr_timeout=0,entry_timeout=0,negative_timeout=0 "$T/slow" 2>>"$T/slow.log" &
storage=$!
wait_until 60 "the storage is there" test -e "$T/slow/warm.300001"

start() { # SETTINGS
	batonfs-keeper --watchdog 30s -- "$T/bin/batonfsd" -f "$@" \
		-s worker.page.store.dir="$T/cache" -s keeper.restart.limit="500 in 1min" \
		-s fuse.migration.mutation.hold=10min -s ufs.timeout=10min \
		-o attr_timeout=300,entry_timeout=300,negative_timeout=300 "$M" 2>>"$LOG" &
	keeper=$!
	wait_until 60 "the mount serves" daemon_pid
}

upgraded() {
	upgrade "" || die "upgrade: $(cat "$T/upgrade.out")"
}

ended() { # the daemon before has no request any more
	grep -q "the old daemon has ended" "$LOG"
}

# The daemon that the next upgrade replaces: with these settings, and a window that stays
# open if FAULT says so.
prepare() { # FAULT or "" SETTINGS
	rm -f "$T/go" "$T/go.here"
	: >"$LOG"
	upgrade "$@" || die "upgrade: $(cat "$T/upgrade.out")"
	old=$(daemon_pid)
	wait_until 60 "the daemon before has ended" ended
}

running() { # N: so many requests run in the daemon
	status_is ".requests_running >= $1"
}

fetching() { # something that the readers do not want: what they read is all here
	status_is ".cache.fetches_running >= 1"
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
	wait_until 60 "the read is stuck" fetching
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
	status_is '.counters["fuse.reply.errors"] == 0' ||
		die "the kernel refused an answer: $(batonfs -m "$M" --json status | jq .counters)"
}

start -u "/=file://$T/slow"
pattern check "$M/warm.300001"
# shellcheck disable=SC2086
readers_start buffered direct
SLOW=fuse.migration.slow.read.timeout
ACTION=fuse.migration.slow.read.action
WIRE=fuse.migration.mutation.wire.timeout
GRACE=fuse.migration.ongoing.request.grace_period

for _ in $(seq "$ROUNDS"); do
	# --- Reads
	prepare "" -s $SLOW=10min
	stuck
	upgraded
	still_stuck "10min"
	kill -CONT $storage
	stuck_ends 0
	wait_until 60 "the old daemon has answered all" ended
	status_is '.last_takeover.moved.requests_resumed == 0 and .last_takeover.requests_aborted == 0' ||
		die "it was not answered by the old daemon"
	once
	ok "a read that ends in its time is answered by the old daemon"

	prepare "" -s $SLOW=0s
	stuck
	upgraded
	wait_until 60 "the old daemon has answered all" ended
	still_stuck "0s"
	status_is '.last_takeover.moved.requests_held + .last_takeover.moved.requests_resumed >= 1' ||
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
	wait_until 60 "status tells of it" status_is '.last_takeover.requests_aborted >= 1'
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
	status_is '.last_takeover.moved.requests_held >= 1 and .last_takeover.moved.requests_resumed == 0' ||
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
rm -r "$T/cache"

# --- Changes, on a bucket whose gateway can be stopped.
# Calls of which the kernel knows the names.
cat >"$T/call.py" <<'PY'
import os, sys
import callers
d, names = sys.argv[1], sys.argv[2:]
# A directory each: the kernel lets one change of a directory begin at a time.
p = {n: f"{d}/{n}/it" for n in names}
fd = {n: os.open(p[n] if n == "close" else os.path.dirname(p[n]),
    os.O_WRONLY | os.O_APPEND if n == "close" else os.O_RDONLY) for n in names}
if "close" in names:
    os.write(fd["close"], b"more")
# Listing a directory lets the kernel ask for its attributes again.
for n in names:
    callers.hold(os.path.dirname(p[n]), p[n])
calls = {
    "unlink": lambda: os.unlink(p["unlink"]),
    "rename": lambda: os.rename(p["rename"], p["rename"] + ".new"),
    "mkdir": lambda: os.mkdir(p["mkdir"] + ".new"),
    "rmdir": lambda: os.rmdir(p["rmdir"]),
    "chmod": lambda: os.chmod(p["chmod"], 0o600),
    "truncate": lambda: os.truncate(p["truncate"], 1),
    "readdir": lambda: os.listdir(fd["readdir"]),
    "close": lambda: os.close(fd["close"]),
}
callers.run({n: calls[n] for n in names})
PY

state() { # DIR
	(cd "$M/$1" && find . -type f -printf '%p %m %s\n' -o -printf '%p\n' | sort)
}

callers() { # DIR NAME...: they are ready to call; $before is how it is
	local dir=$1 c
	shift
	for c in "$@"; do
		mkdir -p "$M/$dir/$c"
		if [ "$c" = rmdir ]; then mkdir "$M/$dir/$c/it"; else echo text >"$M/$dir/$c/it"; fi
	done
	before=$(state "$dir")
	callers_start "$dir" "$M/$dir" "$@"
}

done_once() { # all that had begun was, and nothing else
	[ "$(cd "$M/begun" && find . -mindepth 2 | sort | tr '\n' ' ')" = "./close/it ./mkdir/it ./mkdir/it.new \
./readdir/it ./rename/it.new ./truncate/it " ] || die "not done once: $(state begun)"
	[ "$(cd "$M/begun" && stat -c %s truncate/it && cat close/it)" = "1
text
more" ] || die "not done: $(state begun)"
}

bucket_begin
gateway=$(gateway_pid)
ALL="rename mkdir rmdir truncate readdir close"
LATE="unlink rmdir chmod truncate readdir"
start -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT"
for _ in $(seq "$ROUNDS"); do
	prepare "" -s $WIRE=10min -s $GRACE=10min -s fuse.migration.mutation.hold=0s -s log.level=debug
	# shellcheck disable=SC2086
	callers begun $ALL
	# shellcheck disable=SC2086
	callers late $LATE
	kill -STOP "$gateway"
	asked=$(counter ufs.requests)
	callers_call begun
	wait_until 60 "all have begun" running 6
	# What nobody has asked the storage yet is not waited for: two of them are no changes.
	wait_until 60 "the storage is asked" status_is ".counters[\"ufs.requests\"] >= $((asked + 6))"
	: >"$LOG"
	upgrade "" &
	upgrading=$!
	wait_until 60 "the window is open" grep -q "the window begins" "$LOG"
	callers_call late
	# shellcheck disable=SC2086
	all_got late EAGAIN $LATE
	callers_end late
	ok "0s: a new change fails with EAGAIN while those that have begun are waited for"
	none_called begun
	kill -CONT "$gateway"
	window_close 0
	# shellcheck disable=SC2086
	all_got begun 0 $ALL
	callers_end begun
	done_once
	[ "$(state late)" = "$before" ] || die "something was changed: $(state late)"
	ok "what had begun is done, once, and nothing else is"
	rm -r "$M/begun" "$M/late"

	prepare "" -s $WIRE=10min -s $GRACE=100ms -s fuse.migration.mutation.hold=10min
	# shellcheck disable=SC2086
	callers begun $ALL
	kill -STOP "$gateway"
	callers_call begun
	wait_until 60 "all have begun" running 6
	upgraded
	none_called begun
	status_is '.last_takeover.moved.requests_held >= 6' || die "they were not handed over"
	kill -CONT "$gateway"
	# shellcheck disable=SC2086
	all_got begun 0 $ALL
	callers_end begun
	done_once
	ok "what has begun and does not end in the grace period is done by the new daemon, once"
	rm -r "$M/begun"
done
stop
