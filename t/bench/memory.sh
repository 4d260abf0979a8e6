#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The daemon's own memory (RssAnon) and all that its cgroup is charged: idle with a
# million known nodes, and under load with several memory limits.
# NODES=n, LIMITS="16MiB 64MiB 256MiB".
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

NODES=${NODES:-1000000}
LIMITS=${LIMITS:-16 64 256}
S=$(mktemp -d /dev/shm/batonfs-bench.XXXXXX)
G=
if [ -w /sys/fs/cgroup/memory ]; then
	G=/sys/fs/cgroup/memory/batonfs-bench.$$
elif grep -qw memory /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null; then
	G=/sys/fs/cgroup/batonfs-bench.$$
fi

own_end() {
	local p
	umount -l "$M" 2>/dev/null
	rm -rf "$S"
	[ -n "$G" ] && [ -d "$G" ] || return 0
	while read -r p; do
		echo "$p" >"$G/../cgroup.procs"
	done <"$G/cgroup.procs" 2>/dev/null
	rmdir "$G"
}

if [ -z "$G" ] || ! mkdir "$G" 2>/dev/null; then
	G=
	say "no memory cgroup to be had here: RssAnon only"
fi

rss_anon() { # MiB
	awk '$1 == "RssAnon:" { printf "%.1f", $2 / 1024 }' "/proc/$1/status"
}

total() { # of the cgroup: what it is made of
	[ -n "$G" ] || { echo "-"; return 0; }
	local f=$G/memory.usage_in_bytes
	[ -e "$f" ] || f=$G/memory.current
	awk -v t="$(cat "$f")" '
		$1 == "rss" || $1 == "anon" { a = $2 } $1 == "shmem" { s = $2 }
		$1 == "cache" || $1 == "file" { c = $2 }
		END { printf "%.0f MiB (anonymous %.0f, state on tmpfs %.0f, page cache %.0f)",
			t / 1048576, a / 1048576, s / 1048576, (c - s) / 1048576 }' "$G/memory.stat"
}

serve_grouped() { # as serve, with the keeper and the daemon in the cgroup
	if [ -n "$G" ]; then
		echo 0 >"$G/cgroup.procs"
	fi
	restart "$@"
	if [ -n "$G" ]; then
		echo 0 >"$G/../cgroup.procs"
	fi
}

# --- Idle
bench_probe tree "$S" "$NODES"
serve_grouped -u "/=file://$S" -s state.size=2GiB -s worker.page.store.dir="$T/cache" \
	-o attr_timeout=3600,entry_timeout=3600
pid=$(daemon_pid)
say "idle, nothing known: RssAnon $(rss_anon "$pid") MiB, cgroup $(total)"
find "$M" -type f >/dev/null
known() { # what the kernel still knows, and nothing runs
	[ "$(batonfs -m "$M" --json status | jq .requests_running)" = 0 ]
}
wait_until 30 "it is idle" known
nodes=$(batonfs -m "$M" --json status | jq .nodes)
say "idle, $nodes nodes known: RssAnon $(rss_anon "$pid") MiB, cgroup $(total)"
verdict "$(rss_anon "$pid")" "<=" 64 "RssAnon in MiB, idle, $nodes nodes known"
stop
rm -rf "${S:?}"/*

# --- Under load: 8 sequential and 8 random readers of more than fits
head -c 256M /dev/urandom >"$S/a"
for f in b c d; do cp "$S/a" "$S/$f"; done
for limit in $LIMITS; do
	for store in no yes; do
		args=()
		[ $store = no ] || args=(-s worker.page.store.dir="$T/cache" -s worker.page.store.size=512MiB)
		serve_grouped -u "/=file://$S" -s memory.limit="${limit}MiB" "${args[@]}"
		pid=$(daemon_pid)
		jobs=""
		for f in a b c d a b c d; do
			bench_probe seq "$M/$f" >/dev/null &
			jobs="$jobs $!"
			bench_probe direct4k "$M/$f" "${LOAD_SECONDS:-4}" >/dev/null &
			jobs="$jobs $!"
		done
		most=0
		for j in $jobs; do
			while kill -0 "$j" 2>/dev/null; do
				most=$(calc "$(rss_anon "$pid") > $most ? $(rss_anon "$pid") : $most")
				sleep 0.02
			done
			wait "$j" || die "a reader failed"
		done
		say "memory.limit ${limit}MiB, page store: $store: most RssAnon $most MiB, cgroup $(total)"
		verdict "$most" "<=" $((limit + 64)) "RssAnon in MiB under load, memory.limit ${limit}MiB, store: $store"
	done
done
stop
finish
