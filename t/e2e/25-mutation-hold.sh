#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The window of a planned upgrade, held open at a named point: what a change, a listing
# and everything else that comes meanwhile meet, by fuse.migration.mutation.hold, also if
# either daemon dies there.  ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh"

ROUNDS=${ROUNDS:-4}
S=$T/src
mkdir -p "$S/d/sub" "$S/w"
pattern gen "$S/a.3000001" "$S/b.100003"
FILES="$M/a.3000001 $M/b.100003"
for f in grow cut sync close mode gone time trunc; do
	echo "$f" >"$S/d/$f"
done
mkdir "$S/d/empty"

faults_taken_once

upgrade() { # FAULT of the new daemon, or "" [settings]
	rm -f "$T/fault"
	[ -z "$1" ] || fault "$1"
	shift
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" -- "$@" >"$T/upgrade.out" 2>&1
}

answers() {
	[ -n "$(timeout 30 batonfs -m "$M" --json status 2>/dev/null | jq -r .pid)" ]
}

status() { # FIELD of the last takeover
	batonfs -m "$M" --json status | jq ".last_takeover.$1"
}

batonfs-keeper --watchdog 30s -- "$T/bin/batonfsd" -f -u "/=file://$S" \
	-s keeper.restart.limit="500 in 1min" -s fuse.migration.ongoing.request.grace_period=2min \
	-o attr_timeout=300,entry_timeout=300,negative_timeout=300 "$M" 2>>"$LOG" &
keeper=$!
wait_until 60 "the mount serves" answers

# What happens in the window, each call in a thread of its own; the names are known to
# the kernel, so that nothing is asked before the change itself.  Says what errno each
# got, 0 for success.
cat >"$T/call.py" <<'PY'
import errno, mmap, os, sys, threading
d, names = sys.argv[1], sys.argv[2:]
mine = {"write": "grow", "ftruncate": "cut", "fsync": "sync", "close": "close"}
fd = {n: os.open(f"{d}/d/{mine[n]}", os.O_RDWR) for n in names if n in mine}
cold = os.open(f"{d}/a.3000001", os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
at = os.open(f"{d}/d", os.O_RDONLY | os.O_DIRECTORY)
for n in ("grow", "cut", "mode", "gone", "time", "trunc", "empty", "new", "sub"):
    try:
        os.stat(f"{d}/d/{n}")
    except FileNotFoundError:
        pass
CALLS = {
    "write": lambda: os.pwrite(fd["write"], b"more", 5),
    "ftruncate": lambda: os.ftruncate(fd["ftruncate"], 1),
    "chmod": lambda: os.chmod(f"{d}/d/mode", 0o600),
    "utimes": lambda: os.utime(f"{d}/d/time", (1000000000, 1000000000)),
    "unlink": lambda: os.unlink(f"{d}/d/gone"),
    "rmdir": lambda: os.rmdir(f"{d}/d/empty"),
    "truncate": lambda: os.close(os.open(f"{d}/d/trunc", os.O_WRONLY | os.O_TRUNC)),
    "readdir": lambda: os.listdir(at),
    "opendir": lambda: os.listdir(f"{d}/d/sub"),
    "lookup": lambda: os.stat(f"{d}/d/sub/{os.getpid()}"),
    "read": lambda: os.preadv(cold, [page], 4096),
    "mkdir": lambda: os.mkdir(f"{d}/d/new"),
    "rename": lambda: os.rename(f"{d}/d/gone", f"{d}/d/went"),
    "fsync": lambda: os.fsync(fd["fsync"]),
    "close": lambda: os.close(fd["close"]),
}
def call(name):
    try:
        CALLS[name]()
        code = "0"
    except OSError as e:
        code = errno.errorcode[e.errno]
    os.write(1, f"{name} {code}\n".encode())
os.write(1, b"ready\n")
sys.stdin.readline()
threads = [threading.Thread(target=call, args=(n,)) for n in names]
for t in threads:
    t.start()
for t in threads:
    t.join()
os._exit(0)
PY
FAILS="write ftruncate chmod utimes unlink rmdir truncate readdir opendir"
WAITS="lookup read fsync close"

callers_start() { # NAME...: they are ready to call
	rm -f "$T/go.callers"
	mkfifo "$T/go.callers"
	: >"$T/out.callers"
	python3 "$T/call.py" "$M" "$@" <"$T/go.callers" >"$T/out.callers" 2>&1 &
	callers=$!
	exec 8>"$T/go.callers"
	wait_until 60 "the callers are ready" grep -q . "$T/out.callers"
	[ "$(cat "$T/out.callers")" = ready ] || die "the callers: $(cat "$T/out.callers")"
}

callers_call() {
	echo >&8
	exec 8>&-
}

callers_end() {
	wait $callers || die "the callers: $(cat "$T/out.callers")"
}

waiting() { # N: so many requests are unanswered, as the kernel sees it
	local dev
	dev=$(awk -v m="$M" '$5 == m { print $3 }' /proc/self/mountinfo)
	[ "$(cat "/sys/fs/fuse/connections/${dev#*:}/waiting")" -ge "$1" ]
}

ended() { # NAME
	grep -q "^$1 " "$T/out.callers"
}

all_got() { # ERRNO NAME...
	local c code=$1
	shift
	for c in "$@"; do
		wait_until 60 "$c ends" ended "$c"
		grep -qx "$c $code" "$T/out.callers" || die "$c: not $code: $(cat "$T/out.callers")"
	done
}

window_open() { # SETTING FAULT of the new daemon: from here on requests wait
	upgrade "takeover.old.window=until:$T/go@1" -s fuse.migration.mutation.hold="$1" ||
		die "upgrade: $(cat "$T/upgrade.out")"
	old=$(daemon_pid)
	rm -f "$T/go" "$T/go.here"
}

window_begin() {
	upgrade "$1" &
	upgrading=$!
	wait_until 60 "the window is open" test -e "$T/go.here"
}

window_close() { # exit code of the upgrade
	local got=0
	touch "$T/go"
	wait $upgrading || got=$?
	[ $got = "$1" ] || die "the upgrade ended with $got: $(cat "$T/upgrade.out")"
}

state() { # of what the callers may change
	(cd "$S/d" && stat -c '%n %s %a %Y %F' -- * && cat grow cut trunc 2>/dev/null)
}

more_than() { # REPLIES: work goes on
	[ "$(batonfs -m "$M" --json status | jq '.counters["fuse.replies"]')" -gt "$(($1 + 50))" ]
}

restore() { # what successful calls have changed, through the mount
	local f
	for f in grow cut mode gone time trunc; do
		echo "$f" >"$M/d/$f"
	done
	chmod 644 "$M"/d/[a-z]*[a-z] "$M/d/mode"
	mkdir -p "$M/d/empty"
	[ ! -e "$M/d/new" ] || rmdir "$M/d/new"
	rm -f "$M/d/went"
}

# shellcheck disable=SC2086
readers_start buffered direct

# --- Time enough: everybody waits, nobody sees anything.
window_open 10min
# shellcheck disable=SC2086
callers_start $FAILS $WAITS
window_begin ""
callers_call
wait_until 60 "all wait" waiting 9
window_close 0
# shellcheck disable=SC2086
all_got 0 $FAILS fsync close read
all_got ENOENT lookup
callers_end
[ "$(stat -c %s "$S/d/cut"),$(stat -c %a "$S/d/mode"),$(stat -c %Y "$S/d/time"),$(cat "$S/d/trunc")" = "1,600,1000000000," ] ||
	die "not all was done: $(state)"
if [ -e "$S/d/gone" ] || [ -e "$S/d/empty" ]; then
	die "not all was removed"
fi
[ "$(status requests_refused)" = 0 ] || die "status: $(batonfs -m "$M" --json status | jq .last_takeover)"
ok "a window that is shorter than the hold: nobody fails"
readers_alive

# --- Longer than the hold: what is new fails, the rest waits.
for hold in 100ms 0s; do
	restore
	window_open $hold
	# shellcheck disable=SC2086
	callers_start $FAILS $WAITS
	before=$(state)
	window_begin ""
	callers_call
	# shellcheck disable=SC2086
	all_got EAGAIN $FAILS
	ok "$hold: new changes and listings fail with EAGAIN while the window is open"
	for c in lookup read fsync close; do
		! ended $c || die "$c did not wait: $(cat "$T/out.callers")"
	done
	[ "$(state)" = "$before" ] || die "something was changed: $(state)"
	window_close 0
	all_got 0 read fsync close
	all_got ENOENT lookup
	callers_end
	ok "$hold: all else waits for the new daemon, and is answered"
	[ "$(state)" = "$before" ] || die "something was changed: $(state)"
	ok "$hold: what failed has changed nothing"
	if [ "$(status requests_refused)" -lt 9 ] || [ "$(status moved.requests_held)" -lt 4 ]; then
		die "status: $(batonfs -m "$M" --json status | jq .last_takeover)"
	fi
	ok "$hold: status tells how many"
	readers_alive
done

# --- A call that looks its name up first waits with that, and then succeeds.
restore
window_open 0s
callers_start mkdir rename
window_begin ""
callers_call
wait_until 60 "both wait" waiting 2
window_close 0
all_got 0 mkdir rename
callers_end
if [ ! -d "$S/d/new" ] || [ ! -e "$S/d/went" ] || [ -e "$S/d/gone" ]; then
	die "not done: $(state)"
fi
ok "0s: a name that has to be looked up is, by the new daemon"

# --- The new daemon dies in the window: the old one serves what it holds.
restore
window_open 0s
callers_start write unlink readdir lookup read close
before=$(state)
window_begin takeover.new.state=sleep:1ms
callers_call
all_got EAGAIN write unlink readdir
new=$(cat "/proc/$old/task/$old/children")
# shellcheck disable=SC2086
kill -9 $new
window_close 5
all_got 0 read close
all_got ENOENT lookup
callers_end
[ "$(daemon_pid)" = "$old" ] || die "the old daemon does not serve"
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "a successor that dies in the window: the old daemon answers what it holds"
readers_alive

# --- It dies when it has been given the requests: they come again.
restore
window_open 0s
callers_start write rmdir readdir lookup read close
before=$(state)
window_begin takeover.new.commit=kill
callers_call
all_got EAGAIN write rmdir readdir
window_close 5
all_got 0 read close
all_got ENOENT lookup
callers_end
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "a successor that dies with the requests in its hand: they are answered"
readers_alive

# --- The old one dies.
restore
window_open 0s
callers_start write rmdir readdir lookup read close
before=$(state)
window_begin ""
callers_call
all_got EAGAIN write rmdir readdir
kill -9 "$old"
wait $upgrading || true
all_got 0 read close
all_got ENOENT lookup
callers_end
wait_until 60 "a daemon serves" answers
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "an old daemon that dies in the window: what it had read is answered"
readers_alive

# --- Those who try again lose nothing, and see nothing but EAGAIN for a change.
upgrade "" -s fuse.migration.mutation.hold=0s || die "upgrade: $(cat "$T/upgrade.out")"
for i in 1 2; do
	MUTATOR_EAGAIN=1 MUTATOR_LIST=$T/list.$i python3 "$BATONFS_SRC/t/e2e/mutator.py" "$M/w/$i" \
		"$RANDOM" >"$T/writer.$i" 2>&1 &
	eval "writer_$i=$!"
	wait_until 60 "writer $i has begun" test -d "$S/w/$i"
done
for i in $(seq "$ROUNDS"); do
	replies=$(batonfs -m "$M" --json status | jq '.counters["fuse.replies"]')
	wait_until 60 "requests are answered" more_than "$replies"
	upgrade takeover.old.window=sleep:100ms || die "upgrade $i: $(cat "$T/upgrade.out")"
done
# shellcheck disable=SC2154
kill -TERM "$writer_1" "$writer_2"
for i in 1 2; do
	pid=writer_$i
	wait "${!pid}" || die "writer $i: $(cat "$T/writer.$i")"
	cat "$T/writer.$i"
	python3 "$BATONFS_SRC/t/e2e/mutator.py" --check "$T/list.$i" "$S/w/$i" || die "writer $i"
done
ok "0s: who does it again after EAGAIN finds that nothing has come of it, $ROUNDS upgrades"
batonfs -m "$M" --json status | jq -e '.takeovers.requests_refused > 20 and .takeovers.failed >= 2 and
	.takeovers.recoveries >= 1 and ([.takeovers.pause.histogram[].count] | add) == .takeovers.takeovers' \
	>/dev/null || die "status: $(batonfs -m "$M" --json status | jq .takeovers)"
batonfs -m "$M" status | grep -q "pauses: " || die "status: $(batonfs -m "$M" status)"
ok "status counts them for the whole mount, over takeovers and recoveries"

readers_stop
ok "no reader saw an error or a wrong byte"
stop
