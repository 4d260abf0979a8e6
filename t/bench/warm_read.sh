#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What is in the page store, through the daemon, beside a minimal libfuse daemon that
# copies from the same disk (copyfs.c), in turns; and getattr and 4 KiB reads beside
# one that answers from memory.  ROUNDS=n turns.
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

ROUNDS=${ROUNDS:-7}
SECONDS_EACH=${SECONDS_EACH:-0.5}
MB=256
S=$T/src
mkdir "$S" "$T/pread" "$T/splice" "$T/memory"
head -c ${MB}M /dev/urandom >"$S/blob"

serve -u "/=file://$S" -s worker.page.store.dir="$T/cache" -s worker.page.store.size=2GiB \
	-o attr_timeout=3600,entry_timeout=3600
declare -A pid dir
pid[batonfs]=$(daemon_pid) dir[batonfs]=$M
window=$(cat "/sys/class/bdi/$(mountpoint -d "$M")/read_ahead_kb")
for how in pread splice memory; do
	bench_copyfs "$how" "$S" "$T/$how" &
	pid[$how]=$! dir[$how]=$T/$how
	wait_until 10 "copyfs is mounted" mountpoint -q "$T/$how"
	# The same window of the kernel for all: what is compared is the daemon.
	echo "$window" >"/sys/class/bdi/$(mountpoint -d "$T/$how")/read_ahead_kb" ||
		say "the kernel's window cannot be set: copyfs is measured with another one"
done
cached() {
	[ "$(batonfs -m "$M" --json status | jq .cache.used_bytes)" -ge $((MB << 20)) ]
}
bench_probe seq "$M/blob" >/dev/null
wait_until 60 "all of it is in the page store" cached
sync
for how in batonfs pread splice; do
	bench_probe seq "${dir[$how]}/blob" >/dev/null
done
say "the kernel reads ahead $window KiB for all"

for _ in $(seq "$ROUNDS"); do
	for how in batonfs pread splice; do
		before=$(cpu_of "${pid[$how]}")
		read -r bytes seconds <<<"$(bench_probe seq "${dir[$how]}/blob")"
		[ "$bytes" = $((MB << 20)) ] || die "$how: $bytes bytes"
		echo "$(calc "$bytes / 1e6 / $seconds") $(calc "$(cpu_of "${pid[$how]}") - $before")" \
			>>"$T/seq.$how"
	done
	for how in batonfs pread memory; do
		for what in getattr direct4k; do
			bench_probe $what "${dir[$how]}/blob" "$SECONDS_EACH" >>"$T/$what.$how"
		done
	done
done
rate() { # FILE
	awk '{ print $1 }' "$T/$1" | median
}
for how in batonfs pread splice; do
	say "$(printf 'sequential %-8s %7.0f MB/s  %5.2f CPU s/GiB' $how "$(rate seq.$how)" \
		"$(calc "$(awk '{ print $2 }' "$T/seq.$how" | median) * 1024 / $MB")")"
done
for what in getattr direct4k; do
	for how in batonfs pread memory; do
		say "$(printf '%-10s %-8s %7.0f a second' $what $how "$(rate $what.$how)")"
	done
done
verdict "$(ratio "$T/seq.batonfs" "$T/seq.pread" 1)" ">=" 0.8 "warm sequential read: of a copying daemon's"
say "$(printf 'beside one that splices: %.2f' "$(ratio "$T/seq.batonfs" "$T/seq.splice" 1)")"
verdict "$(ratio "$T/getattr.batonfs" "$T/getattr.memory" 1)" ">=" 0.6 "getattr: of a daemon's that answers from memory"
verdict "$(ratio "$T/direct4k.batonfs" "$T/direct4k.memory" 1)" ">=" 0.6 "4 KiB cached reads: of a daemon's that answers from memory"
say "$(printf 'beside one that reads the file: %.2f' "$(ratio "$T/direct4k.batonfs" "$T/direct4k.pread" 1)")"
for how in pread splice memory; do
	umount "$T/$how"
done
stop
finish
