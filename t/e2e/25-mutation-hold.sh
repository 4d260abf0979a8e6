#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The window of a planned upgrade, held open at a named point: what a change, a listing
# and everything else that comes meanwhile meet, by fuse.migration.mutation.hold, also if
# either daemon dies there.  ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/window.sh" || exit
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-4}
S=$T/src
mkdir -p "$S/d/sub" "$S/w"
pattern gen "$S/a.3000001" "$S/b.100003"
FILES="$M/a.3000001 $M/b.100003"
for f in grow cut sync close mode gone time trunc; do
	echo "$f" >"$S/d/$f"
done
mkdir "$S/d/empty"

status() { # FIELD of the last takeover
	batonfs -m "$M" --json status | jq ".last_takeover.$1"
}

batonfs-keeper --watchdog 30s -- "$T/bin/batonfsd" -f -u "/=file://$S" \
	-s keeper.restart.limit="500 in 1min" -s fuse.migration.ongoing.request.grace_period=2min \
	-o attr_timeout=300,entry_timeout=300,negative_timeout=300 "$M" 2>>"$LOG" &
keeper=$!
wait_until 60 "the mount serves" daemon_pid

# What happens in the window; the names are known to the kernel, so that nothing is asked
# before the change itself.
cat >"$T/call.py" <<'PY'
import mmap, os, sys
import callers
d, names = sys.argv[1], sys.argv[2:]
mine = {"write": "grow", "ftruncate": "cut", "fsync": "sync", "close": "close"}
fd = {n: os.open(f"{d}/d/{mine[n]}", os.O_RDWR) for n in names if n in mine}
cold = os.open(f"{d}/a.3000001", os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
at = os.open(f"{d}/d", os.O_RDONLY | os.O_DIRECTORY)
callers.hold(*(f"{d}/d/{n}" for n in ("grow", "cut", "mode", "gone", "time", "trunc", "empty", "sub")))
calls = {
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
callers.run({n: calls[n] for n in names})
PY
FAILS="write ftruncate chmod utimes unlink rmdir truncate readdir opendir"
WAITS="lookup read fsync close"

waiting() { # N: so many requests are unanswered, as the kernel sees it
	[ "$(cat "$(connection)/waiting")" -ge "$1" ]
}

window_open() { # SETTING FAULT of the new daemon: from here on requests wait
	upgrade "$WINDOW" -s fuse.migration.mutation.hold="$1" ||
		die "upgrade: $(cat "$T/upgrade.out")"
	old=$(daemon_pid)
	rm -f "$T/go" "$T/go.here"
}

state() { # of what the callers may change
	(cd "$S/d" && stat -c '%n %s %a %Y %F' -- * && cat grow cut trunc 2>/dev/null)
}

more_than() { # REPLIES: work goes on
	[ "$(counter fuse.replies)" -gt "$(($1 + 50))" ]
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
callers_start all "$M" $FAILS $WAITS
window_begin ""
callers_call all
wait_until 60 "all wait" waiting 9
window_close 0
# shellcheck disable=SC2086
all_got all 0 $FAILS fsync close read
all_got all ENOENT lookup
callers_end all
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
	callers_start all "$M" $FAILS $WAITS
	before=$(state)
	window_begin ""
	callers_call all
	# shellcheck disable=SC2086
	all_got all EAGAIN $FAILS
	ok "$hold: new changes and listings fail with EAGAIN while the window is open"
	for c in lookup read fsync close; do
		! called all $c || die "$c did not wait: $(cat "$T/out.all")"
	done
	[ "$(state)" = "$before" ] || die "something was changed: $(state)"
	window_close 0
	all_got all 0 read fsync close
	all_got all ENOENT lookup
	callers_end all
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
callers_start all "$M" mkdir rename
window_begin ""
callers_call all
wait_until 60 "both wait" waiting 2
window_close 0
all_got all 0 mkdir rename
callers_end all
if [ ! -d "$S/d/new" ] || [ ! -e "$S/d/went" ] || [ -e "$S/d/gone" ]; then
	die "not done: $(state)"
fi
ok "0s: a name that has to be looked up is, by the new daemon"

# --- The new daemon dies in the window: the old one serves what it holds.
restore
window_open 0s
callers_start all "$M" write unlink readdir lookup read close
before=$(state)
window_begin takeover.new.state=sleep:1ms
callers_call all
all_got all EAGAIN write unlink readdir
new=$(cat "/proc/$old/task/$old/children")
# shellcheck disable=SC2086
kill -9 $new
window_close 5
all_got all 0 read close
all_got all ENOENT lookup
callers_end all
[ "$(daemon_pid)" = "$old" ] || die "the old daemon does not serve"
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "a successor that dies in the window: the old daemon answers what it holds"
readers_alive

# --- It dies when it has been given the requests: they come again.
restore
window_open 0s
callers_start all "$M" write rmdir readdir lookup read close
before=$(state)
window_begin takeover.new.commit=kill
callers_call all
all_got all EAGAIN write rmdir readdir
window_close 5
all_got all 0 read close
all_got all ENOENT lookup
callers_end all
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "a successor that dies with the requests in its hand: they are answered"
readers_alive

# --- The old one dies.
restore
window_open 0s
callers_start all "$M" write rmdir readdir lookup read close
before=$(state)
window_begin ""
callers_call all
all_got all EAGAIN write rmdir readdir
kill -9 "$old"
wait $upgrading || true
all_got all 0 read close
all_got all ENOENT lookup
callers_end all
wait_until 60 "a daemon serves" daemon_pid
[ "$(state)" = "$before" ] || die "something was changed: $(state)"
ok "an old daemon that dies in the window: what it had read is answered"
readers_alive

# --- Those who try again lose nothing, and see nothing but EAGAIN for a change.
upgrade "" -s fuse.migration.mutation.hold=0s || die "upgrade: $(cat "$T/upgrade.out")"
MUTATOR_EAGAIN=1 mutators_start "$M/w" 2
for i in 1 2; do
	wait_until 60 "writer $i has begun" test -d "$S/w/w$i"
done
for i in $(seq "$ROUNDS"); do
	replies=$(counter fuse.replies)
	wait_until 60 "requests are answered" more_than "$replies"
	upgrade takeover.old.window=sleep:100ms || die "upgrade $i: $(cat "$T/upgrade.out")"
done
workers_stop
mutators_checked "$S/w" 2 "the storage"
ok "0s: who does it again after EAGAIN finds that nothing has come of it, $ROUNDS upgrades"
status_is '.takeovers.requests_refused > 20 and .takeovers.failed >= 2 and
	.takeovers.recoveries >= 1 and ([.takeovers.pause.histogram[].count] | add) == .takeovers.takeovers' ||
	die "status: $(batonfs -m "$M" --json status | jq .takeovers)"
batonfs -m "$M" status | grep -q "pauses: " || die "status: $(batonfs -m "$M" status)"
ok "status counts them for the whole mount, over takeovers and recoveries"

readers_stop
ok "no reader saw an error or a wrong byte"
stop
