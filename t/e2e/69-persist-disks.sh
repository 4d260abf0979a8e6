#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Local disks under the write cache that are full, read-only or not there: the storage's, which
# is a directory here, and that of the metadata store.  Each call says what is promised, why a
# file is not stored is told in words, nothing that was acknowledged is lost, and all goes on by
# itself when the disk is well again.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

if [ "$(id -u)" != 0 ]; then
	echo "skipped: only root can mount what is to be full"
	exit 77
fi
mkdir "$T/src" "$T/meta"
mount -t tmpfs -o size=16m,mode=700 batonfs-test "$T/src"
mount -t tmpfs -o size=16m,mode=700 batonfs-test "$T/meta"
mkdir "$T/src/data"
head -c 300000 /dev/urandom >"$T/data"
head -c 9000 /dev/urandom >"$T/small"
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"}]}
END

begin() {
	serve -u "/=file://$T/src/data" -s write.cache.enabled=true \
		-s write.staging.dir="$T/staged" -s meta.dir="$T/meta/db" -s meta.size=64MiB \
		-s worker.page.store.size=1GiB \
		-s worker.page.store.pinned.file.capacity.limit.ratio=1 \
		-s worker.write.cache.async.persist.retry.max.interval=1s \
		-s keeper.restart.limit="100 in 1min" -o attr_timeout=0.1,entry_timeout=0.1
}

# write PATH FILE: prints what open, write and close say, in a process of its own.
write() {
	python3 - "$M/$1" "$2" <<'END'
import errno, os, sys
what = "open"
try:
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    what = "write"
    data = open(sys.argv[2], "rb").read()
    while data:
        data = data[os.write(fd, data):]
    what = "close"
    os.close(fd)
    print("ok")
except OSError as e:
    print(what, errno.errorcode[e.errno])
END
}

words() { # PATH TEXT: the last error has it
	case $(batonfs -m "$M" --json async-persist stat --path "$1" | jq -r .last_error) in
	*"$2"*) ;;
	*) return 1 ;;
	esac
}

drained() {
	timeout 90 batonfs -m "$M" async-persist drain >"$T/drain.out" 2>&1 ||
		die "drain: $(cat "$T/drain.out")"
}

fill() { # DIR: no byte is left
	dd if=/dev/zero of="$1/filler" bs=64k status=none 2>/dev/null || true
	dd if=/dev/zero bs=4k status=none 2>/dev/null >>"$1/filler" || true
}

begin
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$M/back" "$M/temp" "$M/thru"
expect "all is well" drained

# --- the storage
# bad HOW TEXT: the storage takes nothing; what was written is kept, and why it is
bad() {
	local p
	[ "$(write "back/$1" "$T/data")" = ok ] || die "$1: WRITE_BACK is not acknowledged"
	[ "$(write "temp/$1" "$T/data")" = ok ] || die "$1: TRANSIENT is not acknowledged"
	[ "$(write "thru/$1" "$T/data")" = "close EIO" ] || die "$1: close under WRITE_THROUGH"
	wait_until 60 "$1: it is tried, and says why" words "/back/$1" "$2"
	wait_until 60 "$1: it is tried, and says why" words "/thru/$1" "$2"
	crash
	for p in back temp thru; do
		cmp "$T/data" "$M/$p/$1" || die "$1: $p/$1"
	done
	ok "$1: close as promised, kept over a kill -9: $2"
}
good() { # HOW
	expect "$1: stored when the storage is well" drained
	cmp "$T/data" "$T/src/data/back/$1" || die "$1: back"
	cmp "$T/data" "$T/src/data/thru/$1" || die "$1: thru"
	[ ! -e "$T/src/data/temp/$1" ] || die "$1: TRANSIENT was stored"
	[ -z "$(find "$T/src/data" -name '.batonfs*')" ] || die "$1: a temporary file is left"
	ok "$1: byte for byte, and nothing else"
}
fill "$T/src"
bad full "the storage is full"
rm "$T/src/filler"
good full
wait_until 60 "nothing is being written there" mount -o remount,ro "$T/src"
bad read-only "the storage is read-only"
mount -o remount,rw "$T/src"
good read-only

# --- the metadata store cannot be opened, or not at once, by a new daemon that has the mount
faults_taken_once
upgrade_with() { # FAULT
	fault "$1"
	batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 || die "$1: $(cat "$T/up")"
	[ ! -e "$T/fault" ] || die "$1: the fault was not taken"
}
[ "$(write back/before "$T/data")" = ok ] || die "back/before"
[ "$(write temp/before "$T/data")" = ok ] || die "temp/before"
exec 8<"$M/temp/before"
upgrade_with meta.open=errno:5@1
expect "EIO: the new daemon serves" status_is .pid
expect "EIO: it is told" grep -q "metadata store .*: open: Input/output error" "$LOG"
wait_until 60 "EIO: it is opened a moment later" grep -q "metadata store .*: open again" "$LOG"
expect "EIO: what was acknowledged is there" cmp "$T/data" "$M/back/before"
expect "EIO: what was open is" cmp "$T/data" /proc/self/fd/8
upgrade_with "meta.open=until:$T/go@1"
wait_until 60 "silent: it is asked" test -e "$T/go.here"
cmp "$T/data" "$M/temp/before" &
reader=$!
expect "silent: the new daemon serves" status_is .pid
touch "$T/go"
expect "silent: who asked is answered when it is" wait $reader
exec 8<&-
expect "all is well after that" test "$(write back/after "$T/small")" = ok
expect "and stored" drained
fill "$T/meta"
expect "full: an upgrade goes through" batonfs -m "$M" upgrade
expect "full: what was acknowledged is there" cmp "$T/data" "$M/temp/before"
rm "$T/meta/filler" "$M/back/before" "$M/back/after" "$M/temp/before"

# --- the metadata store, while what waits there cannot go to the storage
many() { # writes m0, m1, ... until one fails: how many there are, and what failed
	python3 - "$M/back" "$T/small" <<'END'
import errno, os, sys
data = open(sys.argv[2], "rb").read()
n, what = 0, "nothing"
try:
    while n < 5000:
        what = "open"
        fd = os.open(f"{sys.argv[1]}/m{n}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        what = "write"
        os.write(fd, data)
        what = "close"
        os.close(fd)
        n += 1
except OSError as e:
    what += " " + errno.errorcode[e.errno]
print(n, what)
END
}
wait_until 60 "nothing is being written there" mount -o remount,ro "$T/src"
fill "$T/meta"
read -r kept said <<<"$(many)"
case $said in
*" ENOSPC") ;;
*) die "its disk is full, and the call says: $said" ;;
esac
ok "a disk without room for records is told: $said after $kept files"
crash
for n in $(seq 0 $((kept - 1))); do
	cmp "$T/small" "$M/back/m$n" || die "back/m$n was acknowledged"
done
cmp "$T/data" "$M/temp/full" || die "temp/full was acknowledged"
ok "what was acknowledged before is there after a kill -9"
expect "files can be deleted" rm "$M/temp/read-only"
mount -o remount,rw "$T/src"
expect "what waits is stored, with the one that had no room" drained
for n in $(seq 0 $((kept - 1))); do
	cmp "$T/small" "$T/src/data/back/m$n" || die "back/m$n is stored otherwise"
done
rm "$T/meta/filler"
expect "with room again files can be made" test "$(write back/again "$T/small")" = ok
expect "and are stored" drained
cmp "$T/small" "$T/src/data/back/again" || die "back/again"
stop
begin
expect "the next mount has all" cmp "$T/data" "$M/temp/full"
stop
