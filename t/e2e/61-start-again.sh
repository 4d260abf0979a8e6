#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The end of a mount and a new beginning at the same place, with nothing waited for in
# between: who starts meets a daemon that is ending, or starting, and waits for it.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-10}
mkdir "$T/src" "$T/cache"
echo hello >"$T/src/hello"
MOUNT=(batonfsd -u "/=file://$T/src" -s "worker.page.store.dir=$T/cache")
RUN=/run/batonfs/$(systemd_escape "$M")
STATE=/dev/shm/batonfs/$(systemd_escape "$M")

gone() {
	! mounted && [ -z "$(ours)" ]
}

pids() { # of daemons and keepers of this test
	local p
	for p in $(ours); do
		case $(cat "/proc/$p/comm" 2>/dev/null) in batonfs*) echo "$p" ;; esac
	done
}

serves() {
	[ "$(cat "$M/hello")" = hello ]
}

state_kept() { # the serving daemon's state is where a crash will look for it
	serves || return 1
	crash
	serves
}

# at_the_door N: so many wait to be heard by a daemon that stands still.
at_the_door() {
	[ "$(ss -Hxl | grep -F " $RUN/" | awk '{ n += $3 } END { print n + 0 }')" -ge "$1" ]
}

dead() { # PID: also if nobody has asked for its end yet
	! grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null
}

# A daemon that serves, and stands still at this point of its end.
ends_at() { # POINT [FLAGS]
	local point=$1
	shift
	rm -f "$T/end" "$T/end.here"
	BATONFS_FAULT=daemon.end.$point=until:$T/end serve "${MOUNT[@]:1}" "$@"
	umount "$M"
	wait_until 60 "$point: the daemon ends" test -e "$T/end.here"
}

# A start that meets it, and has to wait.
meets_end() { # DESCRIPTION
	local starter
	"${MOUNT[@]}" "$M" &
	starter=$!
	wait_until 60 "$1: the next start meets it" at_the_door 1
	touch "$T/end"
	wait "$starter" || die "$1: start again: $?"
}

# --- the client waits for the end of the daemon and of its keeper
"${MOUNT[@]}" "$M"
two() {
	[ "$(pids | wc -l)" = 2 ]
}
wait_until 60 "there are a daemon and a keeper" two
batonfs -m "$M" umount
expect "umount is followed by rmdir" rmdir "$M"
mkdir "$M"
expect "nothing is left of the sockets" not test -e "$RUN"
expect "nor of the state" not test -e "$STATE"
wait_until 60 "daemon and keeper are reaped" gone
BATONFS_FAULT=daemon.end.sockets=until:$T/end serve "${MOUNT[@]:1}"
pid=$(daemon_pid)
batonfs -m "$M" umount &
client=$!
wait_until 60 "a daemon ends" test -e "$T/end.here"
kill -0 "$client" || die "umount returned before its daemon had ended"
touch "$T/end"
wait "$client" || die "umount: $?"
expect "umount returns when a slow daemon has ended" dead "$pid"
rm "$T/end"
for flag in "" --force "--drain 5s"; do
	"${MOUNT[@]}" "$M"
	# shellcheck disable=SC2086
	batonfs -m "$M" umount $flag
	"${MOUNT[@]}" "$M" || die "umount $flag, start: $?"
	serves || die "umount $flag, start: does not serve"
	batonfs -m "$M" umount
done
ok "umount with --force, with --drain and without, then a start"
BATONFS_FAULT=daemon.end.sockets=until:$T/end serve "${MOUNT[@]:1}"
expect_exit 1 "has not ended yet" "the client's patience has an end" batonfs -m "$M" --timeout 3s umount
"${MOUNT[@]}" "$M" &
starter=$!
touch "$T/end"
wait "$starter" || die "the next start ended with $?"
wait "$keeper" || die "the keeper of the one before ended with $?"
expect "whose rest the next start waits for" serves
batonfs -m "$M" umount

# --- a daemon whose disk hangs says so
BATONFS_FAULT=staged.write.data=until:$T/disk "${MOUNT[@]}" -s write.cache.enabled=true "$M"
# In one piece: the first of small ones would not go to the disk.
dd if=/dev/zero of="$M/slow" bs=1000000 count=1 2>/dev/null &
writer=$!
wait_until 60 "the disk hangs" test -e "$T/disk.here"
batonfs -m "$M" umount --force 2>"$T/umount.err" &
client=$!
wait_until 60 "what it waits for is said" grep -q "its daemon still waits for" "$T/umount.err"
touch "$T/disk"
wait "$client" || die "umount ended with $?: $(cat "$T/umount.err")"
ok "what a daemon's end waits for is said"
wait "$writer" && die "a write to a mount that ended did not fail"
rm -f "$T/src/slow"

# --- a daemon that ends in order while its keeper looks after the one before
touch "$T/reap"
BATONFS_FAULT=keeper.reap=until:$T/reap serve -u "/=file://$T/src" -s "worker.page.store.dir=$T/cache"
rm -f "$T/reap" "$T/reap.here"
batonfs -m "$M" upgrade >/dev/null
wait_until 60 "the keeper looks after the one before" test -e "$T/reap.here"
pid=$(daemon_pid)
batonfs -m "$M" umount &
client=$!
wait_until 60 "the daemon ends meanwhile" dead "$pid"
touch "$T/reap"
expect "a daemon ends right after an upgrade" wait "$client"
keeper_ends
mounted && die "its keeper started it again"
ok "and its keeper does not start it again"

# --- a file system that is mounted elsewhere, too
mkdir "$T/bind"
"${MOUNT[@]}" "$M"
mount --bind "$M" "$T/bind"
expect_exit 1 "mounted elsewhere too" "a bind mount that is left is named" \
	batonfs -m "$M" --timeout 3s umount
expect "and served" grep -q hello "$T/bind/hello"
umount "$T/bind"
wait_until 60 "everything is gone" gone
"${MOUNT[@]}" "$M"
mount --bind "$M" "$T/bind"
batonfs -m "$M" umount 2>"$T/umount.err" &
client=$!
wait_until 60 "the client waits for it" grep -q "mounted elsewhere too" "$T/umount.err"
umount "$T/bind"
wait "$client" || die "umount after the bind mount's end: $?"
ok "its end is waited for"
wait_until 60 "everything is gone" gone

# --- nobody waits: neither umount(8) nor who starts
"${MOUNT[@]}" "$M"
for n in $(seq "$ROUNDS"); do
	batonfs -m "$M" umount || die "round $n: umount"
	"${MOUNT[@]}" "$M" || die "round $n: start after batonfs umount: $?"
	serves || die "round $n: does not serve"
	umount "$M"
	"${MOUNT[@]}" "$M" || die "round $n: start after umount(8): $?"
	serves || die "round $n: does not serve"
done
expect "$ROUNDS times umount and start, at once" state_kept
umount "$M"
for point in drain clean sockets; do
	# For each of them: its daemon ends slowly, the next one begins meanwhile.
	ends_at $point
	meets_end "$point"
	expect "a start meets a daemon that ends slowly at '$point', and outlives it" state_kept
	umount "$M"
done
ends_at drain
"${MOUNT[@]}" -f --takeover=require "$M" >"$T/require.out" 2>&1 &
require=$!
"${MOUNT[@]}" --takeover=never "$M" &
never=$!
wait_until 60 "both meet it" at_the_door 2
touch "$T/end"
got=0
wait "$require" || got=$?
[ $got = 5 ] || die "--takeover=require ended with $got: $(cat "$T/require.out")"
# Of two at the door in the daemon's last turn one may only see that it has ended.
expect "--takeover=require says so" grep -qE "is ending|daemon ended before" "$T/require.out"
wait "$never" || die "--takeover=never ended with $?"
expect "--takeover=never waits, too" serves
expect_exit 1 "busy" "and never takes over" "${MOUNT[@]}" -f --takeover=never "$M"
BATONFS_FAULT=daemon.end.clean=kill "${MOUNT[@]}" --takeover=require "$M"
umount "$M"
"${MOUNT[@]}" "$M"
expect "a start meets a daemon that dies while it ends" state_kept
umount "$M"
UNTAKEABLE=(-s fuse.non.disruptive.migration.enabled=false)
for point in drain clean sockets; do
	ends_at $point "${UNTAKEABLE[@]}"
	meets_end "untakeable, $point"
	serves || die "untakeable, $point: does not serve"
	umount "$M"
done
ok "so it is with a daemon that does not let itself be taken over"

# --- two at once: one mounts, the other takes over
wait_until 60 "everything is gone" gone
BATONFS_FAULT=daemon.begin=until:$T/begin "${MOUNT[@]}" "$M" &
first=$!
wait_until 60 "the first one begins" test -e "$T/begin.here"
"${MOUNT[@]}" --takeover=require "$M" &
second=$!
wait_until 60 "the second one meets it" at_the_door 1
touch "$T/begin"
wait "$second" || die "the second one ended with $?"
expect "a start waits for one that has begun, and takes over" serves
wait "$first" || die "the first one ended with $?"
expect "so that there is one mount" test "$(grep -c " $M fuse.batonfs " /proc/self/mounts)" = 1
expect "which was taken over" test "$(batonfs -m "$M" --json status | jq -r .last_takeover.kind)" = takeover
batonfs -m "$M" umount
BATONFS_FAULT=daemon.begin=until:$T/never "${MOUNT[@]}" -f "$M" 2>>"$LOG" &
first=$!
wait_until 60 "the first one begins" test -e "$T/never.here"
"${MOUNT[@]}" "$M" &
second=$!
wait_until 60 "the second one meets it" at_the_door 1
kill -9 "$first"
wait "$second" || die "the second one ended with $?"
expect "if the first one dies, the second one mounts" serves
wait "$first" 2>/dev/null && die "the first one did not die"
starters=""
for n in 1 2 3 4; do
	"${MOUNT[@]}" "$M" 2>"$T/err.$n" &
	starters="$starters $!"
done
good=0
for n in $starters; do
	! wait "$n" || good=$((good + 1))
done
expect "of many at once at least one gets through ($good)" test "$good" -ge 1
expect "and there is still one mount" test "$(grep -c " $M fuse.batonfs " /proc/self/mounts)" = 1
expect "that serves" serves
batonfs -m "$M" umount
