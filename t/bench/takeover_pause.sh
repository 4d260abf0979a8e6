#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# How long a takeover and a recovery from kill -9 stop a reader, with 10^3 to 10^6
# known nodes and 10,000 open handles: by what the daemon says in its status, and by
# the slowest request of a reader that asks all the time; and when nobody asks.
# ROUNDS=n takeovers and KILLS=n kills a size; NODES="1000 10000 100000 1000000".
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

ROUNDS=${ROUNDS:-20}
KILLS=${KILLS:-5}
NODES=${NODES:-1000 10000 100000 1000000}
HANDLES=10000
# On a tmpfs: a million files are made in seconds, and a disk's moods do not count.
S=$(mktemp -d /dev/shm/batonfs-bench.XXXXXX)
own_end() {
	# A daemon that lives needs its storage until lib.sh has unmounted.
	umount -l "$M" 2>/dev/null
	rm -rf "$S"
}

cat >"$T/upgrade" <<'END'
#!/bin/bash
before=$(batonfs -m "$M" --json status | jq .pid)
batonfs -m "$M" upgrade >/dev/null || exit 1
while kill -0 "$before" 2>/dev/null; do sleep 0.01; done
batonfs -m "$M" --json status | jq .last_takeover.pause_ms >>"$T/pause.status"
END
cat >"$T/kill" <<'END'
#!/bin/bash
before=$(batonfs -m "$M" --json status | jq .pid)
kill -9 "$before"
for _ in $(seq 2000); do
	after=$(batonfs -m "$M" --json status 2>/dev/null | jq .pid) && [ -n "$after" ] &&
		[ "$after" != "$before" ] && exit 0
	sleep 0.01
done
exit 1
END
# As much work for the machine as an upgrade, and no takeover: what of the slowest
# request is the machine's.
cat >"$T/nothing" <<'END'
#!/bin/bash
batonfs -m "$M" --json status | jq .pid >/dev/null
batonfsd --check -u "/=file://$M" >/dev/null
batonfs -m "$M" --json status | jq .last_takeover.pause_ms >/dev/null
END
chmod +x "$T/upgrade" "$T/kill" "$T/nothing"
export M T

# bench_probe's lines in milliseconds: FILE.getattr, FILE.read, and FILE, the longer one
sort_out() { # FILE
	awk -v f="$1" '{
		printf "%.2f\n", $1 / 1000 >(f ".getattr")
		printf "%.2f\n", $2 / 1000 >(f ".read")
		printf "%.2f\n", ($1 > $2 ? $1 : $2) / 1000 >f
	}'
}

line() { # WHAT FILE (milliseconds)
	say "$(printf '%-34s p50 %8.2f  p99 %8.2f  max %8.2f ms' "$1" "$(median <"$2")" \
		"$(percentile 99 <"$2")" "$(percentile 100 <"$2")")"
}

one_size() { # NODES
	local n=$1 handles=$((HANDLES < $1 ? HANDLES : $1))
	bench_probe tree "$S/t" "$n"
	mkfifo "$T/end"
	restart -u "/=file://$S" -s worker.page.store.dir="$T/cache" -s worker.page.store.size=64MiB \
		-s state.size=2GiB -s keeper.restart.limit="1000 in 1min" \
		-o attr_timeout=3600,entry_timeout=3600
	find "$M/t" -type f -printf x | wc -c >"$T/found"
	[ "$(cat "$T/found")" = "$n" ] || die "find saw $(cat "$T/found") files"
	bench_probe hold "$M/t" "$handles" <"$T/end" >"$T/held" &
	exec 5>"$T/end"
	wait_until 60 "the handles are open" grep -q ready "$T/held"
	say "$n files: $(batonfs -m "$M" --json status | jq -r '"\(.nodes) nodes known, \(.files_open) files open"')"
	: >"$T/pause.status"
	for _ in $(seq "$ROUNDS"); do
		"$T/upgrade" || die "an upgrade failed"
	done
	mv "$T/pause.status" "$T/pause.idle"
	: >"$T/pause.status"
	bench_probe during "$ROUNDS" "$M/probe" "$T/nothing" | sort_out "$T/nothing.reader"
	bench_probe during "$ROUNDS" "$M/probe" "$T/upgrade" | sort_out "$T/pause.reader"
	[ "$(wc -l <"$T/pause.reader")" = "$ROUNDS" ] || die "an upgrade failed"
	bench_probe during "$KILLS" "$M/probe" "$T/kill" | sort_out "$T/kill.reader"
	[ "$(wc -l <"$T/kill.reader")" = "$KILLS" ] || die "a recovery failed"
	line "no takeover, slowest request" "$T/nothing.reader"
	line "idle, takeover, by the status" "$T/pause.idle"
	line "takeover, by the status" "$T/pause.status"
	line "takeover, slowest getattr" "$T/pause.reader.getattr"
	line "takeover, slowest read" "$T/pause.reader.read"
	line "kill -9, slowest request" "$T/kill.reader"
	median <"$T/pause.status" >>"$T/curve"
	verdict "$(percentile 99 <"$T/pause.idle")" "<=" 5 "pause p99 by the status, idle, $n files"
	verdict "$(percentile 99 <"$T/pause.status")" "<=" 50 "pause p99 by the status, $n files"
	verdict "$(percentile 99 <"$T/pause.reader")" "<=" 50 "slowest request p99 in a takeover, $n files"
	verdict "$(percentile 100 <"$T/kill.reader")" "<=" 1000 "slowest request at a kill -9, $n files"
	exec 5>&-
	rm "$T/end"
	wait_until 60 "the handles are closed" sh -c "! grep -q . /proc/$!/comm"
}

mkdir "$S/t"
head -c 1M /dev/urandom >"$S/probe"
for n in $NODES; do
	one_size "$n"
done
verdict "$(calc "$(tail -n 1 "$T/curve") / $(head -n 1 "$T/curve")")" "<=" 2 "flat: median pause of the last size, of the first's"
stop
finish
