# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced by tests of the window of a planned upgrade, held open at a named point, and of calls
# that are made meanwhile, each by a thread of a program that the test writes to $T/call.py
# (callers.py).
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

faults_taken_once

# The fault of a daemon that is to be replaced: its window is open until $T/go is there.
# shellcheck disable=SC2034 # for who sources this
WINDOW=takeover.old.window=until:$T/go@1

# upgrade FAULT|"" [SETTINGS]: to a daemon that has the fault; its words are in $T/upgrade.out.
upgrade() {
	rm -f "$T/fault"
	[ -z "$1" ] || fault "$1"
	shift
	timeout 100 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" -- "$@" >"$T/upgrade.out" 2>&1
}

# window_begin FAULT|"": the daemon that has $WINDOW is told to make way for one that has the
# fault; from here on its window is open.
window_begin() {
	upgrade "$1" &
	upgrading=$!
	wait_until 60 "the window is open" test -e "$T/go.here"
}

# window_close CODE: it ends, and the upgrade with that code.
window_close() {
	local got=0
	touch "$T/go"
	wait "$upgrading" || got=$?
	[ $got = "$1" ] || die "the upgrade ended with $got: $(cat "$T/upgrade.out")"
}

declare -A caller caller_go

# callers_start GROUP ARGS...: $T/call.py with these, ready to call.  As under memory pressure
# the kernel has forgotten all names but those that the program holds.
callers_start() {
	local group=$1 go
	shift
	rm -f "$T/go.$group"
	mkfifo "$T/go.$group"
	: >"$T/out.$group"
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$BATONFS_SRC/t/e2e python3 "$T/call.py" "$@" \
		<"$T/go.$group" >"$T/out.$group" 2>&1 &
	caller[$group]=$!
	# Whoever opens first waits for the other.
	exec {go}>"$T/go.$group"
	caller_go[$group]=$go
	wait_until 60 "the callers are ready" grep -q . "$T/out.$group"
	[ "$(cat "$T/out.$group")" = ready ] || die "the callers: $(cat "$T/out.$group")"
	mount -i -o remount "$M" || die "remount: $?"
}

# callers_call GROUP: now they call.
callers_call() {
	local go=${caller_go[$1]}
	echo >&"$go"
	exec {go}>&-
}

# called GROUP CALL: it has ended.
called() {
	grep -q "^$2 " "$T/out.$1"
}

# none_called GROUP: all of them wait.
none_called() {
	not grep ' ' "$T/out.$1" || die "calls have ended: $(cat "$T/out.$1")"
}

# all_got GROUP ERRNO|0 CALL...: these calls end with that.
all_got() {
	local c group=$1 code=$2
	shift 2
	for c in "$@"; do
		wait_until 60 "$c ends" called "$group" "$c"
		grep -qx "$c $code" "$T/out.$group" || die "$c: not $code: $(cat "$T/out.$group")"
	done
}

# callers_end GROUP: all calls were made.
callers_end() {
	wait "${caller[$1]}" || die "the callers: $(cat "$T/out.$1")"
}
