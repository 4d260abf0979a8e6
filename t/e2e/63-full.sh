#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# No room in /run or in state.dir: a start says which; a mount that serves already goes on,
# through upgrades and crashes, and there is an error where there is no way.
if [ "${BATONFS_FULL:-}" != inside ]; then
	if ! unshare --mount true 2>/dev/null; then
		echo "skipped: no mount namespace can be made here"
		exit 77
	fi
	BATONFS_FULL=inside exec unshare --mount --propagation private "$0" "$@"
fi
# The copies of other tests' mounts: they would live as long as this namespace.
awk '/ - fuse\.batonfs / { print $5 }' /proc/self/mountinfo | sort -r | while read -r other; do
	umount -l "$(printf '%b' "$other")"
done
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/src" "$T/st"
pattern gen "$T/src/a.3000001" "$T/src/b.4096"
for n in $(seq 400); do
	echo "$n" >"$T/src/file-$n"
done
FILES="$M/a.3000001 $M/b.4096"
mount -t tmpfs -o size=1m,nr_inodes=40,mode=755 run /run
mount -t tmpfs -o size=20m,nr_inodes=40,mode=700 state "$T/st"
URI="/=file://$T/src"
RUN=/run/batonfs/$(systemd_escape "$M")

fill() { # DIRECTORY: to the last byte and inode
	local n=0
	dd if=/dev/zero of="$1/full" bs=4k 2>/dev/null || true
	while ln -s x "$1/full.$n" 2>/dev/null; do
		n=$((n + 1))
	done
	! (echo x >"$1/one") 2>/dev/null || die "$1 is not full"
}

empty() { # DIRECTORY
	find "$1" -maxdepth 1 -name 'full*' -delete
	rm -f "$1/one"
}

goes_on() { # DESCRIPTION: upgrade and crash
	batonfs -m "$M" upgrade >/dev/null || die "$1: upgrade"
	crash
	readers_alive
	ok "$1: an upgrade and a crash"
}

# --- /run
fill /run
expect_exit 1 "$RUN" "a start without room in /run names the socket" batonfsd -u "$URI" "$M"
expect "and mounts nothing" not mounted
empty /run
batonfsd -u "$URI" -s state.dir="$T/st/s" -s keeper.restart.limit="50 in 1min" "$M"
# shellcheck disable=SC2086
readers_start buffered direct reopen list
fill /run
goes_on "/run is full"
expect "the client reaches it" test "$(batonfs -m "$M" --json status | jq -r .mountpoint)" = "$M"
batonfs -m "$M" conf set readahead.max 5MiB >/dev/null
goes_on "and after a setting was changed"
expect "which is kept" test "$(batonfs -m "$M" conf get readahead.max)" = 5MiB

# --- state.dir, too
fill "$T/st"
goes_on "state.dir is full, too"
for n in $(seq 400); do
	cat "$M/file-$n" >/dev/null 2>>"$T/cat.err" || true
done
expect "what was new is served as long as there is room, else the error says so" \
	not grep -qv "No space left on device" "$T/cat.err"
expect "what is known is served" pattern check "$M/b.4096"
goes_on "with all the room used"
empty "$T/st"
for n in $(seq 400); do
	[ "$(cat "$M/file-$n")" = "$n" ] || die "file-$n, with room again"
done
ok "with room again all is as before"
goes_on "and still"
readers_stop
ok "no reader saw anything of it"
fill /run
batonfs -m "$M" umount
expect "umount works without room" not mounted
fill "$T/st"
empty /run
expect_exit 1 "state" "a start without room in state.dir names it" batonfsd -u "$URI" -s state.dir="$T/st/s" "$M"
expect "and mounts nothing" not mounted
empty "$T/st"
batonfsd -u "$URI" -s state.dir="$T/st/s" "$M"
expect "with room it starts" pattern check "$M/b.4096"
batonfs -m "$M" umount

# --- no place for the keeper's socket
mkdir -m 700 "$T/own"
mkdir -m 777 "$T/open"
chmod 777 "$T/open"
mount -o remount,ro run /run
mount -t tmpfs -o ro shm /dev/shm
MINE=(-u "$URI" -s state.dir="$T/st/s" -s control.socket="$T/own/control" "$M")
unset XDG_RUNTIME_DIR
expect_exit 1 "(/run: Read-only file system; /dev/shm: Read-only file system)" \
	"where no directory will do for the keeper's socket, the start says so" batonfsd "${MINE[@]}"
XDG_RUNTIME_DIR=$T/open expect_exit 1 "$T/open: not there, or others can write to it" \
	"one that others can write to is not used" batonfsd "${MINE[@]}"
XDG_RUNTIME_DIR=$T/own batonfsd "${MINE[@]}"
expect "XDG_RUNTIME_DIR is" test -S "$T/own/batonfs-keeper."*/notify
pid_there() {
	batonfs -S "$T/own/control" --json status | jq -e .pid
}
before=$(pid_there)
kill -9 "$before"
expect "and all goes on with it" pattern check "$M/b.4096"
expect "by another daemon" test "$(pid_there)" != "$before"
expect "nothing is in /tmp" test -z "$(find /tmp -maxdepth 1 -name 'batonfs-keeper*' -newer "$T/own")"
batonfs -S "$T/own/control" umount
keeper_left() {
	compgen -G "$T/own/batonfs-keeper.*"
}
wait_until 60 "the keeper has removed its directory" not keeper_left
