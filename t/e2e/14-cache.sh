#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The page store as its users see it: load, free and explain; a warm cache after a
# restart and after a reboot; a damaged block; a disk that is full.
# shellcheck source=t/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || { echo "not root: skipped"; exit 77; }

mkdir -p "$T/src/sub/deep" "$T/cache" "$T/small"
head -c 20000000 /dev/urandom >"$T/src/big"
: >"$T/src/sub/empty"
for i in $(seq 30); do
	head -c $((i * 1111)) /dev/urandom >"$T/src/sub/deep/f$i"
done
total=$(du -sb --apparent-size "$T"/src/big "$T"/src/sub/deep/f* | awk '{ n += $1 } END { print n }')
sums "$T/src" >"$T/want"

b() {
	batonfs -m "$M" "$@"
}

is() { # COUNTER OP NUMBER
	test "$(counter "$1")" "$2" "$3"
}

right() { # every byte as it should be
	sums "$M" >"$T/got" && cmp "$T/want" "$T/got"
}

cached() { # PERCENT: of every file
	local said
	said=$(b --json fs ls -R /) && jq -e --argjson p "$1" \
		'all(.entries[]; .kind == "directory" or .size == 0 or .cached_percent == $p)' \
		<<<"$said" >/dev/null
}

pages() { # PATH NUMBER: so many of it are on disk
	[ "$(b --json fs explain "$1" | jq .pages_on_disk)" = "$2" ]
}

space_below() { # BYTES: the page files take less
	[ "$(du -s --block-size=1 "$T/cache/blobs" | cut -f1)" -lt "$1" ]
}

index_open() {
	status_is .cache.index_open
}

start() { # and what is on disk is known
	serve -u "/=file://$T/src" -s "worker.page.store.dir=$T/cache"
	wait_until 60 "the index is open" index_open
}

# --- load, explain, free

start
expect_exit 0 NO_CACHE "explain names the policy" b fs explain /big
expect "nothing is cached yet" pages /big 0
expect_exit 0 "loaded /sub/deep/f30" "a tree is loaded, with a line a file" b fs load /
expect "all of it is cached" cached 100
expect "each byte was fetched once" is cache.fetch.bytes -eq "$total"
expect_exit 0 "32 files" "a second load has nothing to do" b fs load /
expect "and fetched nothing" is cache.fetch.bytes -eq "$total"
expect "what is loaded is read" right
expect "without the storage" is cache.fetch.bytes -eq "$total"
expect "explain counts the pages" pages /big 20
file=$(b --json fs explain /big | jq -r .cache_file)
expect "and names the file that has them" test -f "$file"
expect_exit 1 "/nope: No such file or directory" "a path that is not there" b fs load /nope
expect_exit 1 "/nope: No such file or directory" "also for free" b fs free /nope
expect_exit 0 "freed /sub/deep/f7" "a part of the tree is freed" b fs free /sub
expect "the rest stays" pages /big 20
expect "the part went" pages /sub/deep/f7 0
expect_exit 0 "loaded /sub/deep/f7 " "one file is loaded" b fs load /sub/deep/f7
expect_exit 0 '"complete":true' "--json is one object" b --json fs load /
if command -v script >/dev/null; then
	b fs free / >/dev/null
	expect_exit 0 "32/32 files" "a terminal gets a bar" \
		script -qec "batonfs -m $M fs load /" /dev/null
fi
expect "all of it is cached again" cached 100

# --- a restart, a reboot

stop
start
expect "after a restart all is right" right
expect "from the cache alone" is cache.fetch.bytes -eq 0
stop
rm -rf "/dev/shm/batonfs/$(systemd_escape "$M")"
start
expect "after a reboot all is right" right
expect "from the cache alone, too" is cache.fetch.bytes -eq 0

# --- a damaged block

stop
printf 'damage' | dd of="$file" bs=1 seek=5000000 conv=notrunc status=none
start
expect "a damaged block is not served" right
expect "it was counted" is cache.checksum.errors -ge 1
expect "its page was fetched again" is cache.fetch.bytes -eq $((1024 * 1024))
wait_until 60 "the page is stored again" pages /big 20
expect_exit 0 "" "everything is freed" b fs free /
expect "nothing is cached" cached 0
wait_until 60 "the space is given back" \
	space_below 2000000
stop

# --- a tree larger than the store

mkdir "$T/large"
for i in 1 2 3 4 5; do
	head -c 16000000 /dev/urandom >"$T/large/f$i"
done
serve -u "/=file://$T/large" -s "worker.page.store.dir=$T/cache" -s worker.page.store.size=64MiB
expect_exit 1 "fs load: " "a tree larger than the store is not called loaded" b fs load /
stop

# --- a load that is broken off, and done again

mkdir "$T/many" "$T/many.cache"
for i in $(seq 2000); do
	printf '%01000d' "$i" >"$T/many/$i"
done
serve -u "/=file://$T/many" -s "worker.page.store.dir=$T/many.cache"
b fs load / 2>/dev/null | head -n 100 >"$T/loaded" # whose end breaks it off
expect "a load was at work" test "$(wc -l <"$T/loaded")" = 100
expect "and was broken off" is cache.fetch.bytes -lt 2000000
expect_exit 0 "2000 files" "it is done again" b fs load /
# What was under way then may be fetched twice.
expect "and goes on where it was" is cache.fetch.bytes -le $((2000000 + 100 * 1000))
stop

# --- a load whose daemon is replaced, and one whose daemon is killed, while the storage hangs

mkdir "$T/objects" "$T/s3.cache"
for i in $(seq 40); do
	head -c 100000 /dev/urandom >"$T/objects/$i"
done
echo ok >"$T/mode"
"$BATONFS_BUILD/hostile_s3" "$T/objects" "$T/mode" "$T/port" 2>/dev/null &
wait_until 60 "the server listens" test -s "$T/port"
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret
serve -u /=s3://b -s "s3.endpoint=http://127.0.0.1:$(cat "$T/port")" \
	-s "worker.page.store.dir=$T/s3.cache" -s ufs.timeout=10min -s ufs.low.speed.time=1s
begin_load() { # of all; it waits for the storage
	echo get-silent >"$T/mode"
	b fs load / >"$T/loaded" 2>&1 &
	load=$!
	wait_until 60 "a load is at work" is memory.used.bytes -gt 0
}
end_load() { # DESCRIPTION
	local got=0
	echo ok >"$T/mode"
	wait $load || got=$?
	[ $got = 0 ] || die "$1: exit code $got: $(cat "$T/loaded")"
	[ "$(tail -n 1 "$T/loaded" | cut -d, -f1)" = "40 files" ] || die "$1: $(cat "$T/loaded")"
	cached 100 || die "$1: $(b fs ls -R /)"
	ok "$1"
}
begin_load
b upgrade >/dev/null || die "upgrade"
end_load "a load goes on with the next daemon after an upgrade"
b fs free / >/dev/null
begin_load
kill -9 "$(daemon_pid)"
end_load "and after a kill -9"
stop

# --- a disk that is full

mount -t tmpfs -o size=12m small "$T/small"
serve -u "/=file://$T/src" -s "worker.page.store.dir=$T/small"
expect "a full cache disk costs no reader anything" right
wait_until 60 "it is noticed" is cache.write.errors -ge 1
expect_exit 0 "No space left" "status says why" b status
expect_exit 1 "did not take all of it" "a load says that it did not fit" b fs load /big
expect "and reads go on" right
stop
umount "$T/small"
