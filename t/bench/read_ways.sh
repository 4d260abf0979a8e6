#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Ways to read a cold file other than in sequence, from a server that answers DELAY
# milliseconds after each request and sends 400 MB/s at most: with readahead beside
# without, in turns.  ROUNDS=n turns each; WAYS="steps ...".
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

ROUNDS=${ROUNDS:-3}
WAYS=${WAYS:-steps backwards steps_back random}
DELAY=${DELAY:-20}
SIZE=$((512 << 20))
export AWS_ACCESS_KEY_ID=testaccess AWS_SECRET_ACCESS_KEY=testsecretkey0123456789

# Prints seconds, and the bytes of those pages that it read something of
cat >"$T/reader.py" <<'END_READER'
import os, random, sys, time
K, M = 1 << 10, 1 << 20
how, path = sys.argv[1:3]
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size
rnd = random.Random(5)
reads = {
    "steps": [(off, 64 * K) for off in range(0, size, 3 * M)],
    "backwards": [(off, 128 * K) for off in range(size // 4 - 128 * K, -1, -128 * K)],
    "steps_back": [(off, 64 * K) for off in range(size - 3 * M, -1, -3 * M)],
    "random": [(rnd.randrange(size // (4 * K)) * 4 * K, 4 * K) for _ in range(150)],
}[how]
began = time.monotonic()
for off, n in reads:
    if len(os.pread(fd, n, off)) != n:
        sys.exit("short read")
print(time.monotonic() - began, len({off // M for off, n in reads}) * M)
END_READER

# Prints: seconds, bytes of used pages, bytes fetched, processor seconds of the daemon
read_as() { # WAY WINDOW
	local pid before row fetched
	restart -u /=s3://bench -s s3.endpoint="http://127.0.0.1:$port" -s readahead.max="$2" >&2
	pid=$(daemon_pid)
	before=$(cpu_of "$pid")
	row=$(python3 "$T/reader.py" "$1" "$M/blob") || die "$1"
	# What is still under way when the reader ends is fetched as well, or given up.
	wait_until 60 "nothing is under way" sh -c \
		"[ \"\$(batonfs -m '$M' --json status | jq .cache.fetches_running)\" = 0 ]"
	fetched=$(batonfs -m "$M" --json status | jq '.counters["cache.fetch.bytes"]')
	echo "$row $fetched $(calc "$(cpu_of "$pid") - $before")"
}

port=$(free_port)
bench_server "$port" "$SIZE" 400000000 "$DELAY" &
wait_until 20 "the server answers" curl -sf -o /dev/null -I "http://127.0.0.1:$port/bench/blob"
for way in $WAYS; do
	for _ in $(seq "$ROUNDS"); do
		read_as "$way" 0 >>"$T/$way.without"
		read_as "$way" 256MiB >>"$T/$way.with"
	done
	for how in without with; do
		say "$(printf '%-10s %-7s readahead %7.2f s  %5.2f bytes fetched/used  %5.2f CPU s/GiB' \
			"$way" "$how" "$(awk '{ print $1 }' "$T/$way.$how" | median)" \
			"$(awk '{ print $3 / $2 }' "$T/$way.$how" | median)" \
			"$(awk '{ print $4 * 1073741824 / $3 }' "$T/$way.$how" | median)")"
	done
	case $way in
	random) least=0.9 most=1.2 ;;
	*) least=3 most=1.3 ;;
	esac
	verdict "$(ratio "$T/$way.without" "$T/$way.with" 1)" ">=" $least "$way: times as fast with readahead"
	verdict "$(awk '{ print $3 / $2 }' "$T/$way.with" | median)" "<=" $most "$way: bytes fetched for each used"
done
stop
finish
