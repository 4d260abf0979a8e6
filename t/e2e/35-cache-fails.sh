#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A cache disk that gets full, read-only, fails, is removed or unmounted while the mount
# serves: readers notice nothing, upgrades and crashes go well, status shows it with one
# line of the log a change, and the disk is used again when it is well.
# shellcheck source=t/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || { echo "not root: skipped"; exit 77; }

mkdir "$T/src" "$T/disk" "$T/back"
pattern gen "$T/src/a.6000001" "$T/src/b.300000" "$T/src/c.4096"
for n in $(seq 40); do
	head -c 70000 /dev/urandom >"$T/src/file-$n"
done
FILES="$M/a.6000001 $M/b.300000 $M/c.4096"

b() {
	batonfs -m "$M" "$@"
}

state_is() { # WORD
	[ "$(b --json status | jq -r .cache.state)" = "$1" ]
}

# Each time a file that nobody has seen.
new=0
touch_something() {
	new=$((new + 1))
	head -c 70000 /dev/urandom >"$T/src/new-$new"
	cat "$M/new-$new" >/dev/null || die "new-$new cannot be read"
}

becomes() { # WORD
	touch_something
	state_is "$1"
}

# It may be over soon: what was told stays.
fails_with() { # TEXT
	touch_something
	b --json status | jq -r .cache.last_error | grep -q "$1"
}

told() { # TEXT: lines of the log with it
	grep -c "$1" "$LOG" || true
}

right() { # every byte as it should be
	local f

	b fs free / >/dev/null 2>&1 || true
	(cd "$T/src" && find . -type f) | while read -r f; do
		cmp "$T/src/$f" "$M/$f" || exit 1
	done
}

# In the state as it is: every byte right, an upgrade, a crash.
survives() { # DESCRIPTION
	expect "$1: all is read as it is" right
	expect_exit 0 "" "$1: an upgrade" b upgrade
	expect "$1: all is read after it" right
	crash
	expect "$1: all is read after a crash" right
	readers_alive
}

begin() { # DIRECTORY
	# What is written lies elsewhere: it is the cache that fails.
	serve -u "/=file://$T/src" -s worker.page.store.dir="$1" \
		-s meta.dir="$T/meta" -s write.staging.dir="$T/staged" \
		-s keeper.restart.limit="100 in 1min"
	readers_start buffered direct reopen
	wait_until 60 "it is well" becomes ok
}

finish() {
	readers_stop
	stop
}

# --- full
mount -t tmpfs -o size=24m small "$T/disk"
begin "$T/disk/store"
lines=$(told '(full)')
dd if=/dev/zero of="$T/disk/filler" bs=64k 2>/dev/null || true
wait_until 60 "full: it is noticed" fails_with "No space left"
expect_exit 0 "No space left" "full: status says why" b status
for _ in $(seq 30); do
	touch_something
done
# Room that the cache makes of its own pages brings it back for a while.
again=$(told 'in use again')
expect "full: a line of the log a change, not a request" \
	test "$(told '(full)')" -le $((lines + 2 + again))
survives full
rm "$T/disk/filler"
wait_until 150 "full: in use again" becomes ok
ok "full: in use again when there is room"
finish

# --- removed
begin "$T/disk/store"
rm -rf "$T/disk/store"
wait_until 60 "removed: it is noticed" fails_with "No such file"
expect_exit 0 "No such file" "removed: status says why" b status
wait_until 150 "removed: made anew" becomes ok
expect "removed: it is filled again" test -d "$T/disk/store/blobs"
survives removed
finish

# --- unmounted
begin "$T/disk/store"
umount -l "$T/disk"
mkdir "$T/disk/store"
wait_until 60 "unmounted: it is noticed" becomes failed
survives unmounted
expect "unmounted: nothing is written to what was below" not test -e "$T/disk/store/identity"
mount -t tmpfs -o size=24m small "$T/disk"
mkdir "$T/disk/store"
: >"$T/disk/store/lock"
printf 'batonfs page store 1\n' >"$T/disk/store/identity"
wait_until 150 "unmounted: mounted again it is used" becomes ok
ok "unmounted: mounted again it is used"
finish
umount "$T/disk"

# --- read-only: as a file system does that found itself damaged
truncate -s 64M "$T/back/image"
mkfs.ext4 -q "$T/back/image" 2>/dev/null
if ! mount -o loop,errors=remount-ro "$T/back/image" "$T/disk" 2>/dev/null; then
	echo "skipped: read-only, failing: no loop device here"
	exit 0
fi
dev=$(findmnt -no SOURCE "$T/disk")
fault=/sys/fs/ext4/${dev#/dev/}/trigger_fs_error
if [ -e "$fault" ]; then
	begin "$T/disk/store"
	echo "a test" >"$fault"
	wait_until 60 "read-only: status says it" becomes read-only
	expect_exit 0 "Read-only" "read-only: status says why" b status
	survives read-only
	umount -l "$T/disk"
	truncate -s 64M "$T/back/image2"
	mkfs.ext4 -q "$T/back/image2" 2>/dev/null
	mount -o loop "$T/back/image2" "$T/disk"
	mkdir "$T/disk/store"
	printf 'batonfs page store 1\n' >"$T/disk/store/identity"
	wait_until 150 "read-only: mended and mounted it is used" becomes ok
	ok "read-only: mended and mounted it is used"
	finish
fi
umount "$T/disk"
