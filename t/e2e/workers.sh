# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced, behind lib.sh, by tests with programs that go on while things happen to the mount,
# and end well when they are told to.

MUTATOR=$BATONFS_SRC/t/e2e/mutator.py
workers=""

# worker_start NAME COMMAND...: one that goes on until workers_stop; its words are in
# $T/worker.NAME.
worker_start() {
	local name=$1
	shift
	"$@" >"$T/worker.$name" 2>&1 &
	workers="$workers $name:$!"
}

# workers_alive WHERE: fails if one has ended.
workers_alive() {
	local w
	for w in $workers; do
		kill -0 "${w#*:}" 2>/dev/null ||
			die "$1: ${w%:*} ended early: $(tail -n 20 "$T/worker.${w%:*}")"
	done
}

some_worker_ended() {
	local w
	for w in $workers; do
		kill -0 "${w#*:}" 2>/dev/null || return 0
	done
	return 1
}

# workers_stop: tells all of them to end, shows their words, and fails if one saw what it
# should not.
workers_stop() {
	local w bad=""
	for w in $workers; do
		kill -TERM "${w#*:}" 2>/dev/null || true
	done
	for w in $workers; do
		wait "${w#*:}" || bad="$bad ${w%:*}"
		cat "$T/worker.${w%:*}"
	done
	workers=""
	[ -z "$bad" ] || die "these saw what they should not:$bad"
}

# mutators_start DIR N: so many writers that know what each call must answer, in DIR/w1 and
# so on.
mutators_start() {
	local i
	for i in $(seq "$2"); do
		MUTATOR_LIST=$T/list.$i worker_start "writer.$i" python3 "$MUTATOR" "$1/w$i" \
			"$((RANDOM * 100 + i))"
	done
}

# mutators_checked DIR N WHERE: what the writers kept is there, and nothing else.
mutators_checked() {
	local i
	for i in $(seq "$2"); do
		python3 "$MUTATOR" --check "$T/list.$i" "$1/w$i" || die "$3: writer $i"
	done
	ok "the writers' files, and no others, are in $3"
}
