#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What can go wrong in a hand-over, at every named point, under readers that compare
# every byte: either side dies, hangs or fails, strangers and wrong successors knock.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-1}
HOWS="kill errno:5"
[ "$ROUNDS" = 1 ] || HOWS="$HOWS exit"
S=$T/src
mkdir -p "$S/d" "$T/cache" "$T/cache2" "$T/other"
pattern gen "$S/d/a.8000000" "$S/d/b.3000001" "$S/d/c.4096"
FILES="$M/d/a.8000000 $M/d/b.3000001 $M/d/c.4096"
# shellcheck disable=SC2054
SETTINGS=(-u "/=file://$S" -s worker.page.store.dir="$T/cache" -s worker.page.store.size=64MiB
	-s keeper.restart.limit="500 in 1min" -s fuse.migration.ongoing.request.grace_period=1s
	-s fuse.migration.mutation.hold=10min
	-o attr_timeout=0.2,entry_timeout=0.2)
RUN=/run/batonfs/$(systemd_escape "$M")

faults_taken_once

new_daemon() { # PID: it is not that one any more
	local now
	now=$(daemon_pid) && [ -n "$now" ] && [ "$now" != "$1" ]
}

answers() {
	[ -n "$(timeout 30 batonfs -m "$M" --json status 2>/dev/null | jq -r .pid)" ]
}

keep() { # [keeper options --] the daemon under a keeper whose log we have
	local options=()
	while [ "${1#--}" != "$1" ]; do
		options+=("$1")
		shift
	done
	batonfs-keeper --watchdog 3s "${options[@]}" -- "$T/bin/batonfsd" -f "$@" "$M" 2>>"$LOG" &
	keeper=$!
	wait_until 60 "the mount serves" answers
}

upgrade() {
	timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1
}

# What was said of an upgrade whose old daemon died, with that exit code, is what has come of it.
told_the_truth() { # DESCRIPTION CODE
	local pid
	pid=$(daemon_pid) || die "$1: nobody serves"
	case $2 in
	0) grep -qx "version .*, pid $pid.*" "$T/upgrade.out" ;;
	5) grep -q "pid $pid (version .*) serves, which is not the new daemon" "$T/upgrade.out" ;;
	*) false ;;
	esac || die "$1: pid $pid serves; exit code $2: $(cat "$T/upgrade.out")"
}

served() { # DESCRIPTION: somebody serves, and right
	wait_until 60 "$1: a daemon serves" answers
	pattern check "$M/d/b.3000001" || die "$1: wrong content"
	readers_alive
}

# A daemon that dies between INIT's record and its reply: the kernel asks again.
fault daemon.init=kill
keep "${SETTINGS[@]}"
expect "a daemon that dies while it answers INIT is replaced" pattern check "$M/d/b.3000001"
[ -e "$T/fault.taken" ] || die "the fault was not taken"

# shellcheck disable=SC2086
readers_start buffered direct mmap reopen list
ino=$(stat -c %i "$M/d/b.3000001")

for round in $(seq "$ROUNDS"); do
	for point in hello state ready commit; do
		for how in $HOWS; do
			before=$(daemon_pid)
			fault "takeover.new.$point=$how"
			got=0
			upgrade || got=$?
			[ $got = 5 ] || die "new.$point=$how: exit code $got: $(cat "$T/upgrade.out")"
			grep -q . "$T/upgrade.out" || die "new.$point=$how: no words"
			served "new.$point=$how"
			[ "$(daemon_pid)" = "$before" ] || die "new.$point=$how: the old daemon does not serve"
			status_is '.last_takeover.failure != ""' ||
				die "new.$point=$how: status does not tell"
		done
	done
	ok "round $round: the new one fails before it serves: the old one goes on, with words"
	# With MAINPID moved its end is the keeper's business, or the old one's.
	fault takeover.new.done=kill
	upgrade || true
	served "new.done=kill"
	fault takeover.new.done=errno:5
	upgrade || true
	served "new.done=errno:5"
	ok "round $round: the new one dies, or cannot say DONE, when it has the mount"
	for point in ready state commit committed; do
		for how in kill errno:5@1; do
			[ $point$how != committederrno:5@1 ] || continue
			fault takeover.old.$point=$how
			upgrade || die "upgrade: $(cat "$T/upgrade.out")"
			before=$(daemon_pid)
			got=0
			upgrade || got=$?
			served "old.$point=$how"
			if [ $how = kill ]; then
				told_the_truth "old.$point=$how" $got
				[ "$(daemon_pid)" != "$before" ]
			else
				[ $got = 5 ] && [ "$(daemon_pid)" = "$before" ]
			fi || die "old.$point=$how: the wrong daemon serves; exit code $got"
		done
	done
	ok "round $round: the old one dies or fails while it hands over"
	# What hangs with the right in its hand is killed by the old daemon, or by the
	# keeper's watchdog.
	for point in new.commit new.done old.ready old.state old.window old.commit; do
		if [ "${point#old}" != "$point" ]; then
			fault takeover.$point=stop
			upgrade || die "upgrade: $(cat "$T/upgrade.out")"
			upgrade || true
		else
			fault takeover.$point=stop
			upgrade && die "$point=stop: the upgrade should fail"
		fi
		served "$point=stop"
	done
	# The state database does not answer whoever has got the right to open it.
	before=$(daemon_pid)
	fault state.format=stop
	upgrade && die "state.format=stop: the upgrade should fail"
	served "state.format=stop"
	[ "$(daemon_pid)" = "$before" ] || die "state.format=stop: the old daemon does not serve"
	ok "round $round: who hangs in a hand-over is ended"
	# A restarted daemon that dies or hangs on its way.
	for how in kill stop errno:5; do
		before=$(daemon_pid)
		fault recover.adopted=$how
		kill -9 "$before"
		served "recover.adopted=$how"
		[ "$(daemon_pid)" != "$before" ] || die "recover.adopted=$how"
	done
	ok "round $round: a daemon that dies or hangs while it recovers is replaced"
done
[ "$(stat -c %i "$M/d/b.3000001")" = "$ino" ] || die "st_ino has changed"

# A successor that waits does not disturb, and an upgrade meanwhile is refused.
fault takeover.new.ready=stop
"$T/bin/batonfsd" -f --takeover=require "${SETTINGS[@]}" "$M" 2>>"$LOG" &
frozen=$!
wait_until 60 "the successor has stopped" grep -q "^State:.T" /proc/$frozen/status
served "a successor that hangs before READY"
expect_exit 5 "taking this mount over at the moment" "a second successor is refused" \
	"$BATONFS_BUILD/batonfsd" -f --takeover=require "${SETTINGS[@]}" "$M"
kill -9 $frozen
wait $frozen || true
served "a successor that was frozen and killed"

# Wrong successors.
expect_exit 5 "worker.page.store.dir is not the directory" "another cache directory is refused" \
	"$BATONFS_BUILD/batonfsd" -f "${SETTINGS[@]}" -s worker.page.store.dir="$T/cache2" "$M"
expect_exit 5 "other storage" "another storage is refused" \
	"$BATONFS_BUILD/batonfsd" -f -u "/=file://$T/other" -s worker.page.store.dir="$T/cache" "$M"
expect_exit 5 "No such file" "an upgrade to a program that is not there is refused" \
	batonfs -m "$M" upgrade --binary "$T/nothing"
echo garbage >"$T/broken"
chmod +x "$T/broken"
expect_exit 5 "Exec format" "a broken program is refused" batonfs -m "$M" upgrade --binary "$T/broken"
expect_exit 5 "said nothing" "a program of another kind is refused" batonfs -m "$M" upgrade --binary /bin/true
served "after wrong successors"

# Strangers on the socket: noise, other users, silence.
cat >"$T/stranger.py" <<'PY'
import os, socket, struct, sys
def sock():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(15)
    s.connect(sys.argv[1])
    return s
for noise in (b'x', b'garbage garbage garbage', b'\0' * 16384, os.urandom(4000),
              b'tfob\1\0\1\0' + b'\1\0\0\0\xff\xff\xff\xff', b'tfob\1\0\3\0'):
    s = sock()
    s.send(noise)
    answer = s.recv(16384)
    assert answer[6:8] == b'\2\0', answer   # REFUSE
    s.close()
s = sock()
s.close()

# Messages in order, but not of a successor that will do.
def message(kind, *records, version=1):
    return struct.pack("<4sHH", b"tfob", version, kind) + b"".join(records)
def record(tag, data, flags=0):
    return struct.pack("<HHI", tag, flags, len(data)) + data + bytes(-len(data) % 8)
def number(tag, n):
    return record(tag, struct.pack("<Q", n))
HELLO, READY, CAPS, NEEDS, NAMESPACE = 1, 4, 1, 2, 5
ALL = number(CAPS, 2 ** 64 - 1)
for words, m in (
    ("another version of the protocol", message(HELLO, ALL, version=2)),
    ("another version of the protocol", message(HELLO, ALL, record(999, b"x", flags=1))),
    ("needs what this one", message(HELLO, ALL, number(NEEDS, 1 << 40))),
    ("cannot do what this one", message(HELLO, number(CAPS, 3), number(NEEDS, 0))),
    ("cannot do what this one", message(HELLO)),
    ("other storage", message(HELLO, number(NAMESPACE, 1), number(NEEDS, 0), ALL)),
    ("damaged", message(HELLO, ALL, ALL)),
    ("damaged", message(HELLO, ALL)[:-1]),
    ("instead of HELLO", message(READY)),
):
    answer = b"at the moment"
    while b"at the moment" in answer:  # the one before is not gone yet
        s = sock()
        s.send(m)
        try:
            answer = s.recv(16384)
        except ConnectionResetError:  # what it said is still to be read
            answer = s.recv(16384)
        s.close()
    assert answer[6:8] == b"\2\0" and words.encode() in answer, (words, answer)
PY
expect "noise on the takeover socket is refused" python3 "$T/stranger.py" "$RUN/takeover"
nobody() { # SCRIPT ARGUMENT: as another user, who could not open the script
	# One that everybody may run.
	setpriv --reuid=65534 --clear-groups "$(PATH=/usr/bin:/bin command -v python3)" - "$2" <"$1"
}
expect_exit 1 "PermissionError" "another user does not reach it" nobody "$T/stranger.py" "$RUN/takeover"

# As if the directory were open: both sides look at who the other one is, before a word.
cat >"$T/nobody.py" <<'PY'
import socket, sys
for name, kind in (("takeover", socket.SOCK_SEQPACKET), ("control", socket.SOCK_STREAM)):
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(60)
    s.connect(f"{sys.argv[1]}/{name}")
    try:
        got = s.recv(16384)
    except ConnectionResetError:
        got = b""
    assert got == b"", (name, got)
PY
chmod 755 "$RUN"
chmod 666 "$RUN/takeover" "$RUN/control"
chmod 711 "$T"
expect "another user who reaches the sockets is told nothing" \
	nobody "$T/nobody.py" "$RUN"
chmod 600 "$RUN/takeover" "$RUN/control"
chmod 700 "$RUN"
grep -q "refused a connection of user 65534" "$LOG" || die "the log does not tell"
mkdir "$T/theirs" "$T/ours" "$T/mnt2"
chown 65534 "$T/theirs"
cat >"$T/false.py" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.bind(sys.argv[1])
s.listen()
c = s.accept()[0]
c.settimeout(60)
sys.exit(len(c.recv(16384)) != 0)
PY
nobody "$T/false.py" "$T/theirs/takeover" &
false_daemon=$!
wait_until 60 "it listens" test -S "$T/theirs/takeover"
chmod 700 "$T/ours"
mv "$T/theirs/takeover" "$T/ours/"
expect_exit 5 "belongs to neither root nor this user" "a daemon of another user is not believed" \
	"$BATONFS_BUILD/batonfsd" -f --takeover=require -u "/=file://$S" \
	-s control.socket="$T/ours/control" "$T/mnt2"
expect "nor told anything" wait $false_daemon
served "after strangers"

# A successor that cannot honour what INIT has agreed: it says so before anything is stopped.
before=$(daemon_pid)
for check in "" --check; do
	fault fuse.init.bit=errno:1
	# shellcheck disable=SC2086
	expect_exit 5 "bit 63" "upgrade $check: a bit of INIT that a successor does not know" \
		batonfs -m "$M" upgrade $check --binary "$T/bin/batonfsd"
done
[ "$(daemon_pid)" = "$before" ] || die "another daemon serves"
served "after a bit of INIT"

# A successor for which there is no memory.  A sanitizer wants so much that it does not begin.
before=$(daemon_pid)
if ! ldd "$BATONFS_BUILD/batonfsd" | grep -qE 'lib[a-z]+san'; then
	printf '#!/bin/bash\nulimit -v 150000\nexec "%s" "$@"\n' "$BATONFS_BUILD/batonfsd" >"$T/poor"
	chmod +x "$T/poor"
	expect_exit 5 "batonfs: upgrade: " "a successor that lacks memory is given up" \
		batonfs -m "$M" upgrade --binary "$T/poor"
	[ "$(daemon_pid)" = "$before" ] || die "another daemon serves"
	served "after a successor without memory"
fi

# A successor that is older than the state database: it says so, and the old one goes on;
# so does the keeper's next one.
fault state.format=errno:1
expect_exit 5 "is from a newer version" "a successor that does not know the state database's format" \
	batonfs -m "$M" upgrade --binary "$T/bin/batonfsd"
[ "$(daemon_pid)" = "$before" ] || die "another daemon serves"
served "a newer state database"
fault state.format=errno:1
kill -9 "$before"
wait_until 60 "a daemon after the crash" new_daemon "$before"
[ ! -e "$T/fault" ] || die "the fault was not taken"
grep -q "format .* is from a newer version" "$LOG" || die "the log does not tell"
served "a newer state database after a crash"
ok "a state database of a newer version is refused, and served on"

# The old daemon is frozen before anything was said.
before=$(daemon_pid)
kill -STOP "$before"
got=0
timeout 200 "$BATONFS_BUILD/batonfsd" -f --takeover=check "${SETTINGS[@]}" "$M" >"$T/out" 2>&1 || got=$?
case $got in
0 | 5) ;;
*) die "who asks a daemon that is frozen: $got: $(cat "$T/out")" ;;
esac
wait_until 60 "the watchdog has replaced it" new_daemon "$before"
served "a daemon that was frozen before STATE"
ok "an old daemon that is frozen before STATE is replaced by its keeper"

# Who asked for the upgrade goes away: it is done all the same.
before=$(daemon_pid)
fault takeover.new.ready=sleep:500ms
batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >/dev/null 2>&1 &
client=$!
wait_until 60 "the upgrade has begun" test -e "$T/fault.taken" -a ! -e "$T/fault"
kill -9 $client
wait $client 2>/dev/null || true
wait_until 60 "another daemon serves" other_serves "$before"
ok "an upgrade is finished though its client was killed"

# The daemon is told to end while it hands over: the successor gets the mount.
before=$(daemon_pid)
fault takeover.new.ready=stop
upgrade &
client=$!
stopped() { # a child of the daemon
	local p
	for p in $(<"/proc/$before/task/$before/children"); do
		grep -q "^State:.T" "/proc/$p/status" && frozen=$p && return
	done
	return 1
}
wait_until 60 "the successor has stopped" stopped
kill -TERM "$before"
wait_until 60 "the daemon has heard the signal" grep -q "SIGTERM: ending after the takeover" "$LOG"
kill -CONT "$frozen"
wait $client || die "the upgrade failed: $(cat "$T/upgrade.out")"
wait_until 60 "another daemon serves" other_serves "$before"
served "SIGTERM during a hand-over"
ok "SIGTERM during a hand-over loses nothing"

# After an upgrade to another program a crash starts that one, not the old.
mkdir "$T/bin2"
sed "s|^exec .*|exec -a \"\$0\" \"$BATONFS_BUILD/batonfsd\" \"\$@\"|" "$T/bin/batonfsd" >"$T/bin2/batonfsd2"
chmod +x "$T/bin2/batonfsd2"
expect "upgrade to another program" batonfs -m "$M" upgrade --binary "$T/bin2/batonfsd2"
crash
tr '\0' ' ' <"/proc/$(daemon_pid)/cmdline" | grep -q "^$T/bin2/batonfsd2 " || die "the old program was started after a crash"
ok "after a crash the keeper starts the program of the last upgrade"
upgrade || die "back: $(cat "$T/upgrade.out")"

# The keeper dies: the daemon notices, goes on, and can be given another.
kill -9 "$keeper"
wait "$keeper" 2>/dev/null || true
unkept() { status_is '.keeper == false and (.warnings | tostring | contains("keeper"))'; }
wait_until 60 "the daemon notices that its keeper is gone" unkept
served "without a keeper"
before=$(daemon_pid)
keep "${SETTINGS[@]}"
wait_until 60 "the new keeper's daemon serves" other_serves "$before"
crash
served "with a new keeper"
ok "a daemon whose keeper died is taken over by one with a new keeper"

readers_stop
ok "no reader saw an error or a wrong byte"

# Both die: errors, not a hang; and the next start says what to do.
exec 6<"$M/d/a.8000000"
pid=$(daemon_pid)
kill -9 "$keeper" "$pid"
expect_exit 1 "" "with keeper and daemon dead callers get an error" timeout 60 cat "$M/d/c.4096"
exec 6<&-
[ -S "$RUN/takeover" ] || die "no stale socket to test with"
mounted || die "no dead mount to test with"
wait "$keeper" 2>/dev/null || true
keep "${SETTINGS[@]}"
expect "the next start unmounts what is dead" grep -q "the mount there was dead" "$LOG"
expect "once" test "$(grep -c " $M fuse.batonfs " /proc/self/mounts)" = 1
expect "a stale socket is no hindrance" pattern check "$M/d/b.3000001"

# The keeper is told to end right after a crash: the mount goes in order.
kill -9 "$(daemon_pid)"
kill -TERM "$keeper"
wait_until 60 "the keeper ends" not kill -0 "$keeper"
mounted && die "still mounted"
ok "SIGTERM to the keeper while its daemon comes up unmounts"
wait "$keeper" || true

# The mount point is unmounted while a successor is on its way, and in the window.
unmounted() { # DESCRIPTION; $T/go lets it go on
	wait_until 60 "$1: it has come there" test -e "$T/go.here"
	# umount(8) looks at what it unmounts first, and would wait.
	python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).umount2(sys.argv[1].encode(), 0))' "$M" ||
		die "$1: umount: $?"
	touch "$T/go"
	wait $client || true
	wait_until 60 "$1: the keeper ends" not kill -0 "$keeper"
	wait "$keeper" || die "$1: the keeper ended with $?"
	mounted && die "$1: still mounted"
	[ ! -e "$RUN" ] || die "$1: the sockets are left"
	wait_until 60 "$1: nobody is left" nobody_left
	rm -f "$T/go" "$T/go.here"
	ok "$1: both daemons end, and nothing is left"
}
nobody_left() {
	local p
	for p in $(ours); do
		case $(cat "/proc/$p/comm" 2>/dev/null) in batonfs*) return 1 ;; esac
	done
}
keep "${SETTINGS[@]}"
fault "takeover.new.ready=until:$T/go"
upgrade &
client=$!
unmounted "unmounted before READY"
fault "takeover.old.window=until:$T/go@1"
keep "${SETTINGS[@]}" -s fuse.migration.ongoing.request.grace_period=2min
upgrade &
client=$!
unmounted "unmounted in the window"
keep "${SETTINGS[@]}"
fault "takeover.new.commit=until:$T/go"
upgrade &
client=$!
unmounted "unmounted when the successor has the right"

# Two keepers that are both the first process of a pid namespace.
start_first() {
	# The leak checker looks for its threads in /proc, which is of another namespace.
	ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 \
		unshare --pid --fork --kill-child batonfs-keeper -- "$T/bin/batonfsd" -f "${SETTINGS[@]}" "$M" 2>>"$LOG" &
	keeper=$!
}
start_first
wait_until 60 "the mount serves" answers
# shellcheck disable=SC2086
readers_start buffered direct
first=$keeper
start_first
wait_until 60 "the first container is gone" not kill -0 "$first"
wait "$first" || die "the first container ended with $?"
served "between pid namespaces"
for pid in $(ours); do
	[ "$(cat "/proc/$pid/comm" 2>/dev/null)" = batonfsd ] && kill -9 "$pid"
done
served "kill -9 in a pid namespace"
readers_stop
ok "two keepers, both pid 1 of their namespaces"
stop

# Switched off: a second daemon is refused, nothing is kept, a restart unmounts.
keep "${SETTINGS[@]}"
expect "upgrade to a daemon with migration off" batonfs -m "$M" upgrade -- -s fuse.non.disruptive.migration.enabled=false
status_is '.keeper == false' || die "the descriptors are still kept"
expect_exit 5 "fuse.non.disruptive.migration.enabled" "a second daemon is refused" \
	"$BATONFS_BUILD/batonfsd" -f "${SETTINGS[@]}" "$M"
expect_exit 5 "switched off" "upgrade says so" batonfs -m "$M" upgrade
pid=$(daemon_pid)
kill -TERM "$pid"
wait_until 60 "unmounted" not mounted
wait "$keeper" || die "the keeper ended with $?"
ok "SIGTERM unmounts when migration is switched off"
