#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the kernel forgets while a hand-over is under way is forgotten, once, also if the
# successor dies with it in its hand: no node stays behind, none goes too early.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
N=400
mkdir -p "$S/many"
(cd "$S/many" && seq -f 'f%g' $N | xargs touch)
pattern gen "$S/open.300001"
echo text >"$S/probe"
faults_taken_once
batonfs-keeper --watchdog 30s -- "$T/bin/batonfsd" -f -u "/=file://$S" \
	-s keeper.restart.limit="500 in 1min" -s fuse.migration.ongoing.request.grace_period=2min \
	-s fuse.migration.mutation.hold=0s -o attr_timeout=300,entry_timeout=300 "$M" 2>>"$LOG" &
keeper=$!
wait_until 60 "the mount serves" daemon_pid

nodes() { # at most so many are known
	[ "$(batonfs -m "$M" --json status | jq -e .nodes)" -le "$1" ]
}

# A remount lets the kernel give up all names of this mount that nobody uses.
shrink() {
	mount -i -o remount "$M" || die "remount: $?"
}

forgotten() {
	shrink
	nodes $((N / 4))
}

refused() {
	! chmod 600 "$M/probe" 2>"$T/chmod.err" && grep -q "temporarily unavailable" "$T/chmod.err"
}

# Up to a window in which the old daemon has read what the kernel forgets.
window() { # FAULT-OF-OLD FAULT: of the successor; "" for none
	local i
	rm -f "$T/fault" "$T/go" "$T/go.here"
	fault "takeover.old.window=until:$T/go@1${1:+,$1}"
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1 ||
		die "upgrade: $(cat "$T/upgrade.out")"
	old=$(daemon_pid)
	(cd "$M/many" && seq -f 'f%g' $N | xargs stat -c %i) >"$T/inodes"
	stat "$M/probe" >/dev/null
	nodes $((N / 2)) && die "the nodes are not known"
	exec 6<"$M/probe"
	[ -z "$2" ] || fault "$2"
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/upgrade.out" 2>&1 &
	upgrading=$!
	wait_until 60 "the window is open" test -e "$T/go.here"
	shrink
	# Of requests and what it forgets the kernel gives some of each in turn.
	for i in $(seq 20); do
		refused || die "no EAGAIN ($i): $(cat "$T/chmod.err")"
	done
}

after() { # EXIT-CODE DESCRIPTION: of the successor; "any" code
	local got=0
	wait $upgrading || got=$?
	[ "$1" = any ] || [ $got = "$1" ] || die "$2: the upgrade ended with $got: $(cat "$T/upgrade.out")"
	[ ! -e "$T/fault" ] || die "$2: the fault was not taken"
	wait_until 60 "$2: a daemon serves" daemon_pid
	wait_until 60 "$2: the nodes are forgotten" forgotten
	[ "$(cat <&6)" = text ] || die "$2: an open file does not read"
	exec 6<&-
	(cd "$M/many" && seq -f 'f%g' $N | xargs stat -c %i) | cmp - "$T/inodes" || die "$2: not the same files"
	pattern check "$M/open.300001"
	ok "$2"
}

round() { # EXIT-CODE FAULT DESCRIPTION: of the successor
	window "" "$2"
	touch "$T/go"
	after "$1" "$3"
}

round 0 "" "handed over"
round 5 takeover.new.commit=kill "the successor dies before it works them off"
round 5 forgets.one=kill@1 "at the first of them"
round 5 "forgets.one=kill@$((N / 4))" "in the middle"
# The keeper knows it already: its next one serves, or the old one.
round any takeover.new.done=kill "after them"

old_dies() { # FAULT DESCRIPTION: of the successor, which or the keeper's next one recovers
	window "" "$1"
	kill -9 "$old"
	after any "$2"
}

old_dies "" "the old daemon dies with them in its hand"
old_dies takeover.new.commit=kill "and its successor before it works them off"
old_dies forgets.one=kill@1 "and its successor at the first of them"
old_dies "forgets.one=kill@$((N / 4))" "and its successor in the middle"
window takeover.old.commit=kill ""
touch "$T/go"
after any "the old daemon dies when it is about to hand them over"
# It goes on itself: they are its own again, also if it dies later.
window takeover.old.commit=errno:5@1 ""
touch "$T/go"
after 5 "the old daemon does not get rid of them"
kill -9 "$old"
wait_until 60 "a daemon after the crash" daemon_pid
pattern check "$M/open.300001"
expect "nothing is left of the windows" not test -e "/dev/shm/batonfs/$(systemd_escape "$M")/window"
stop
