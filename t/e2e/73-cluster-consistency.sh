#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Three nodes of a cluster that make, remove, list, read and refuse to rename the same files at
# the same time, and change the path rules, while daemons are killed, whole nodes die and come
# back, commits conflict or end nobody knows how, and the cluster is silent to one node or to
# all.  The history is explained by an order that respects time (t/lib/linear.py), and at the
# end each file that is there is in the storage, once, with the right bytes.
#	SECONDS_LONG=n	so long (12); in a real cluster only daemons and nodes die
#	CONTEND=1	files of one name are made on all nodes (cluster_calls.py: what is not
#			excluded yet)
#	KEEP=FILE	for a history that cannot be explained
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"
# shellcheck source=t/e2e/nodes.sh
. "$BATONFS_SRC/t/e2e/nodes.sh"

expect "the checker knows good from bad" \
	env PYTHONDONTWRITEBYTECODE=1 python3 "$BATONFS_SRC/t/lib/linear_test.py"

usual() { # FAULT...: what goes wrong all the time, and more
	faults "$@" "commit 1020 percent=3" "commit 1021 maybe percent=3" "read 1007 percent=0.1"
}

start() { # NODE
	begin "$1" -s meta.timeout=2s -s "keeper.restart.limit=1000 in 1min" \
		-o attr_timeout=0,entry_timeout=0
}

mkdir -p "$T/store/c0" "$T/store/c1"
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"description": "first", "policyMode": "WRITE_BACK"}}
END
cluster_start
for n in a b c; do
	start $n
done
wait_until 60 "all see all alive" all_alive
batonfs -m "$T/mnt.a" pathconfig set "$T/rules.json" >/dev/null
rule_is() { # NODE
	[ "$(batonfs -m "$T/mnt.$1" --json pathconfig show | jq .version)" -ge 1 ]
}
for n in a b c; do
	wait_until 60 "the rules hold on $n" rule_is $n
done
usual
python3 "$BATONFS_SRC/t/e2e/cluster_calls.py" run "${SECONDS_LONG:-12}" "$T/history" \
	"$T/mnt.a" "$T/mnt.b" "$T/mnt.c" >"$T/calls.out" 2>&1 &
calls=$!

calls_go_on() {
	kill -0 $calls 2>/dev/null
}

daemon_dies() { # NODE
	local pid
	on "$1"
	pid=$(daemon_pid) || return 0
	kill -9 "$pid"
}

# A fault is there for half a second, and then none is: calls go on in both.
round=0
while calls_go_on; do
	n=$(echo a b c | cut -d ' ' -f $((round % 3 + 1)))
	case $((round % 5)) in
	0) daemon_dies "$n" ;;
	1) usual "any hold node=$n" ;;
	2) usual ;;
	3)
		wait_until 60 "a daemon that can be killed" eval "on $n; daemon_pid"
		crash_node "$n"
		start "$n"
		;;
	4) usual "any hold" ;;
	esac
	round=$((round + 1))
	sleep 0.5
	usual
	sleep 0.3
done
wait $calls || die "$(cat "$T/calls.out")"
cat "$T/calls.out"
ok "calls went on for $round rounds of faults"
faults

# --- the end: all is stored, and what was refused is dropped
drop_failed() { # NODE
	local path
	batonfs -m "$T/mnt.$1" --json async-persist list |
		jq -r '.entries[] | select(.state == "FAILED") | .path' >"$T/failed"
	while read -r path; do
		batonfs -m "$T/mnt.$1" async-persist drop "$path" >/dev/null || return 1
	done <"$T/failed"
}
drained() { # NODE
	drop_failed "$1" && batonfs -m "$T/mnt.$1" async-persist drain --timeout 2s
}
for n in a b c; do
	wait_until 60 "all of $n is stored" drained $n
done
wait_until 60 "all see all alive" all_alive
expect "what is there is in the storage once, and read on all nodes" \
	python3 "$BATONFS_SRC/t/e2e/cluster_calls.py" end "$T/history" "$T/store" \
	"$T/mnt.a" "$T/mnt.b" "$T/mnt.c"
PYTHONDONTWRITEBYTECODE=1 python3 "$BATONFS_SRC/t/lib/linear.py" "$T/history" >"$T/words" || {
	[ -z "${KEEP-}" ] || cp "$T/history" "$KEEP"
	die "$(cat "$T/words")"
}
cat "$T/words"
ok "the history is explained by one order"
for n in a b c; do
	leave $n
done
