#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Readahead as the counters show it: readers that go in steps, backwards, or at several
# places of one handle find what they want under way; readers at random fetch nothing in
# vain; and an upgrade costs no more than the reads in which it is recognised again.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/src"
for f in steps back below eight direct random pairs faults upgrade; do
	truncate -s 1G "$T/src/$f"
done
cat >"$T/reader.py" <<'END_READER'
import mmap, os, random, sys
K, M = 1 << 10, 1 << 20
how, path = sys.argv[1:3]
fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if how == "direct" else 0))
size = os.fstat(fd).st_size
rnd = random.Random(5)
def read(off, n):
    if len(os.pread(fd, n, off)) != n:
        sys.exit("short read")
if how == "steps":
    for off in range(0, size, 3 * M):
        read(off, 64 * K)
elif how == "back":
    for off in range(size - 5 * M, 0, -5 * M):
        read(off, 64 * K)
elif how == "below":
    for off in range(400 * M, 0, -128 * K):
        read(off - 128 * K, 128 * K)
elif how == "eight":
    for off in range(0, 32 * M, 128 * K):
        for k in range(8):
            read(k * 128 * M + off, 128 * K)
elif how == "direct":
    buf = mmap.mmap(-1, 256 * K)
    for off in range(0, size, 4 * M):
        if os.preadv(fd, [buf], off) != 256 * K:
            sys.exit("short read")
elif how == "random":
    for _ in range(250):
        read(rnd.randrange(size // (4 * K)) * 4 * K, 4 * K)
elif how == "pairs":
    for _ in range(120):
        off = rnd.randrange(size // (4 * K) - 64) * 4 * K
        read(off, 128 * K)
        read(off + 128 * K, 128 * K)
elif how == "faults":
    m = mmap.mmap(fd, size, prot=mmap.PROT_READ)
    for _ in range(50):
        m[rnd.randrange(size)]
elif how == "upgrade":
    for off in range(0, size, 3 * M):
        if off == 300 * M:
            print("half", flush=True)
            sys.stdin.readline()
        read(off, 64 * K)
END_READER

idle() { # nothing that was begun is still to be counted
	[ "$(batonfs -m "$M" --json status | jq .cache.fetches_running)" = 0 ]
}

look() { # sets fetched, ahead and used: bytes since the last look
	local now
	wait_until 60 "what was begun has ended" idle
	now=$(batonfs -m "$M" --json status | jq -r '.counters |
		"\(.["cache.fetch.bytes"]) \(.["cache.ahead.bytes"]) \(.["cache.ahead.used.bytes"])"')
	# shellcheck disable=SC2086
	set -- $now $seen
	seen=$now
	fetched=$(($1 - $4)) ahead=$(($2 - $5)) used=$(($3 - $6))
}

# judge READER FORESEEN MIB: so many of MIB were under way when they were wanted, and at
# most a fifth was for nothing
judge() {
	look
	echo "# $1: $((fetched >> 20)) MiB fetched, of $((ahead >> 20)) ahead $((used >> 20)) used"
	[ $((used >> 20)) -ge "$2" ] || die "$1: $((used >> 20)) MiB foreseen"
	[ $((ahead - used)) -le $(($3 << 20)) ] || die "$1: $(((ahead - used) >> 20)) MiB for nothing"
	ok "$1"
}

serve -u "/=file://$T/src" -s memory.limit=512MiB
seen="0 0 0"
run() { # READER FORESEEN MIB
	look
	python3 "$T/reader.py" "$1" "$M/$1" || die "$1"
	judge "$@"
}

# Of 342 pages, of 204, 400, 256, 256.
run steps 330 35
run back 192 35
run below 390 35
run eight 230 140
run direct 245 35
# At random, of at most 250 MiB, 360, 250.
run random 0 20
run pairs 0 20
run faults 0 40

python3 - <<'END_OFF' "$M/steps" || die "fadvise"
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
END_OFF
batonfs -m "$M" conf set readahead.max 0 >/dev/null
run steps 0 0
batonfs -m "$M" conf unset readahead.max >/dev/null 2>&1 || batonfs -m "$M" conf set readahead.max 256MiB >/dev/null

mkfifo "$T/go"
python3 "$T/reader.py" upgrade "$M/upgrade" <"$T/go" >"$T/said" 2>"$T/why" &
reader=$!
exec 7>"$T/go"
wait_until 60 "half is read" grep -q half "$T/said"
expect "an upgrade between two steps" timeout 200 batonfs -m "$M" upgrade >/dev/null
seen="0 0 0"
look
echo >&7
exec 7>&-
wait "$reader" || die "the reader: $(cat "$T/why")"
judge "after an upgrade" 225 35
stop
