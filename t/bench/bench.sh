# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced by every measurement: end-to-end lib.sh and what measuring needs beside it.
#
#	BATONFS_BUILD	an optimised build (configure without --enable-developer)
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
export LC_ALL=C
missed=0
HZ=$(getconf CLK_TCK)

# A measurement's own clean-up, before lib.sh's; replaced where there is one.
own_end() {
	:
}
bench_end() { # keeps the exit code for lib.sh's clean-up
	local status=$?
	own_end
	return $status
}
trap 'if bench_end; then cleanup; else cleanup; fi' EXIT

cpu_of() { # PID -> user and system seconds so far
	local stat
	stat=$(<"/proc/$1/stat")
	# shellcheck disable=SC2086 # the fields behind the name, which may have spaces
	set -- ${stat##*) }
	calc "(${12} + ${13}) / $HZ"
}

calc() { # EXPRESSION, as awk has it
	awk "BEGIN { printf \"%.6g\", ($1) }"
}

median() { # numbers on standard input
	sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

percentile() { # P, numbers on standard input: the smallest that P % do not exceed
	sort -g | awk -v p="$1" '{ v[NR] = $1 }
		END { i = int(NR * p / 100); if (i < NR * p / 100) i++; print v[i < 1 ? 1 : i] }'
}

# ratio A B COLUMN: the median of the turns' ratios, as the machine's mood changes from
# turn to turn
ratio() {
	paste <(awk -v c="$3" '{ print $c }' "$1") <(awk -v c="$3" '{ print $c }' "$2") |
		awk '{ print $1 / $2 }' | median
}

# verdict VALUE RELATION LIMIT WHAT: prints the line, counts a miss
verdict() {
	local word=ok
	if ! awk "BEGIN { exit !($1 $2 $3) }"; then
		word=MISSED
		missed=$((missed + 1))
	fi
	printf '%-6s %-58s %8.2f  (to reach: %s %s)\n' "$word" "$4" "$1" "$2" "$3"
}

say() {
	printf '       %s\n' "$*"
}

finish() {
	[ $missed -eq 0 ] || say "$missed numbers missed"
	checks=$((checks + 1))
}

restart() { # ARGS of serve: a daemon that knows nothing of before
	if mounted; then
		stop
	fi
	rm -rf "$T/cache"
	serve "$@"
}
