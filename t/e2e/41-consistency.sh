#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Two mounts of one storage, a directory and a bucket of a real radosgw: what one closes
# the other sees at its next open, within attr_timeout and at once if that is 0; what the
# kernel keeps of a file by kernel_cache and auto_cache; and what a daemon knows better
# than the kernel, which then does not go on to say the contrary.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/two.sh
. "$BATONFS_SRC/t/e2e/two.sh"

see=$BATONFS_SRC/t/e2e/consistency.py
FAR="attr_timeout=3600,entry_timeout=3600"

both() { # OPTIONS...: of both mounts, beside those of the storage
	serve "${STORE[@]}" -s worker.page.store.dir="$T/cache" "$@"
	serve_other "${STORE[@]}" -s worker.page.store.dir="$T/cache2" "$@"
}

neither() {
	stop
	stop_other
}

given() { # bytes that the daemon has given to readers
	batonfs -m "$M" --json status | jq '.counters["fuse.read.bytes"]'
}

# reread FILE: how many of its bytes come from the daemon when it is opened and read again,
# the least of a few times, as the kernel may always give up what it has
reread() {
	local least="" before now
	for _ in 1 2 3 4 5; do
		before=$(given)
		cat "$1" >/dev/null
		now=$(($(given) - before))
		[ -n "$least" ] && [ "$now" -ge "$least" ] || least=$now
	done
	echo "$least"
}

# changed FILE: the same once, for a file that has got another byte since it was read, and
# whose attributes the kernel has asked for since
changed() {
	local before
	cat "$1" >/dev/null
	printf x >>"$1"
	stat "$1" >/dev/null
	before=$(given)
	cat "$1" >/dev/null
	echo $(($(given) - before))
}

kept_in_kernel() { # WHAT
	[ "$(reread "$M/kept")" = 0 ] || die "$1: read from the daemon again: $(reread "$M/kept")"
	ok "$NAME: $1: what was read is kept when the file is opened again"
}

# What the kernel keeps of a file.
kernel() {
	local size=$((4 << 20)) got
	for word in "" kernel_cache auto_cache; do
		serve "${STORE[@]}" -s worker.page.store.dir="$T/cache" \
			-o "attr_timeout=0,entry_timeout=0${word:+,$word}"
		head -c $size /dev/urandom >"$T/kept"
		cp "$T/kept" "$M/kept"
		cat "$M/kept" >/dev/null
		kept_in_kernel "${word:-without an option}"
		batonfs -m "$M" upgrade >/dev/null
		kept_in_kernel "${word:-without an option}, after an upgrade"
		got=$(changed "$M/kept")
		if [ "$word" = auto_cache ]; then
			[ "$got" -gt $((size / 2)) ] || die "auto_cache: only $got bytes were read again"
			ok "$NAME: auto_cache: not when its size has changed"
		else
			[ "$got" -lt $((size / 2)) ] || die "${word:-without}: $got bytes were read again"
			ok "$NAME: ${word:-without an option}: also when its own writer has changed it"
		fi
		printf x >>"$T/kept"
		expect "$NAME: ${word:-without an option}: and is right" cmp "$T/kept" "$M/kept"
		rm "$M/kept"
		stop
	done
}

failed() { # PATH
	[ "$(batonfs -m "$M" --json async-persist stat --path "$1" | jq -r .state)" = FAILED ]
}

# A close(2) that failed: who drops it gets what the storage has, whatever the kernel was
# told to believe for how long.
dropped() {
	serve "${STORE[@]}" -s worker.page.store.dir="$T/cache" -o "$FAR" -s ufs.timeout=5s
	echo one >"$M/was"
	echo one >"$T/was"
	# (With O_EXCL, as cp(1) has it, an empty object would be there for the name.)
	(
		exec 5<>"$M/was" 6>"$M/new"
		break_storage
		cat "$T/large" >&5
		cat "$T/large" >&6
	)
	wait_until 60 "a change cannot be stored" failed /was
	wait_until 60 "and a new file cannot" failed /new
	expect "$NAME: what cannot be stored is here as it was written" cmp "$T/large" "$M/was"
	expect "$NAME: a new file too" cmp "$T/large" "$M/new"
	mend_storage
	expect "$NAME: dropping the change" batonfs -m "$M" async-persist drop /was
	expect "$NAME: shows the file as it was, at once" test "$(stat -c %s "$M/was")" = 4
	expect "$NAME: with its content" cmp "$T/was" "$M/was"
	expect "$NAME: dropping the new file" batonfs -m "$M" async-persist drop /new
	expect "$NAME: takes its name away, at once" not test -e "$M/new"
	expect "$NAME: also for who opens it" not cat "$M/new"
	rm "$M/was"
	stop
}

suite() {
	both -o attr_timeout=2,entry_timeout=2
	expect "$NAME: seen within attr_timeout" "$see" ttl "$M" "$M2" 2
	neither
	both -o attr_timeout=0
	mkdir "$M/d"
	expect "$NAME: seen at once with attr_timeout=0" "$see" at-once "$M/d" "$M2/d"
	expect "$NAME: in the other direction, too" "$see" at-once "$M2/d" "$M/d"
	rm -r "$M/d"
	neither
	serve "${STORE[@]}" -s worker.page.store.dir="$T/cache" -o "$FAR"
	serve_other "${STORE[@]}" -o "$FAR" -s memory.limit=16MiB -s readahead.max=0
	expect "$NAME: a mount that met another version does not tell the old one" \
		"$see" replaced "$M" "$M2"
	rm "$M"/r?
	neither
	kernel
	dropped
}

head -c 20000000 /dev/urandom >"$T/large"

# --- a directory, on a disk that is too small for some files
NAME=directory
mkdir "$T/store"
mount -t tmpfs -o size=120m,mode=755 batonfs-test "$T/store"
STORE=(-u /="file://$T/store")
break_storage() {
	mount -o remount,size=1m "$T/store" 2>/dev/null || mount -o remount,ro "$T/store"
}
mend_storage() {
	mount -o remount,rw,size=120m "$T/store"
}
export NATIVE=1
suite
unset NATIVE
umount "$T/store"

# --- a bucket
NAME=bucket
bucket_begin
STORE=(-u /=s3://data -s "s3.endpoint=$RGW_ENDPOINT")
break_storage() {
	gateway_kill
	batonfs -m "$M" conf set ufs.timeout 1500ms >/dev/null
}
mend_storage() {
	gateway_start
	batonfs -m "$M" conf set ufs.timeout 1min >/dev/null
}
suite
