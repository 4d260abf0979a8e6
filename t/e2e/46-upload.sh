#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Large files become objects: parts sent while they are written, only changed parts sent
# again, nothing left behind at the storage, and a daemon that dies on the way is followed
# by one that goes on with the parts that are there.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

MIB=1048576
bucket_begin
head -c $((60 * MIB)) /dev/urandom >"$T/source"

faults_taken_once
PATH=$T/bin:$PATH

begin() {
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s write.part.size=5MiB \
		-s write.staging.dir="$T/staged" -s meta.dir="$T/meta" \
		-s keeper.restart.limit="100 in 1min"
}

unfinished() { # how many uploads the storage has that were not ended
	unfinished_uploads | wc -l
}

same() { # the mount, another client and the local file
	cmp "$T/source" "$M/file" && cmp "$T/source" <(s3_curl "$RGW_ENDPOINT/data/file")
}

# change OFFSET LENGTH: the same random bytes in the local file and through the mount
change() {
	head -c "$2" /dev/urandom >"$T/piece"
	dd if="$T/piece" of="$T/source" bs=1M seek="$1" oflag=seek_bytes conv=notrunc status=none &&
		dd if="$T/piece" of="$M/file" bs=1M seek="$1" oflag=seek_bytes conv=notrunc status=none
}

# sends MIBS COPIED DESCRIPTION COMMAND...: the command succeeds, and so many whole MiB were
# sent at most and copied within the storage at least
sends() {
	local sent copied most=$1 least=$2 what=$3
	sent=$(counter upload.bytes)
	copied=$(counter upload.copied.bytes)
	shift 3
	"$@" || die "$what: $*"
	sent=$(($(counter upload.bytes) - sent))
	copied=$(($(counter upload.copied.bytes) - copied))
	[ $sent -le $((most * MIB)) ] || die "$what: $sent bytes were sent"
	[ $copied -ge $((least * MIB)) ] || die "$what: only $copied bytes were copied"
	ok "$what: $sent bytes sent, $copied copied"
}

begin
sends 60 0 "a large file" cp "$T/source" "$M/file"
expect "is there" same
sends 5 55 "a byte changed" change $((22 * MIB)) 1
expect "is there" same
sends 1 60 "a byte appended" change $((60 * MIB)) 1
expect "is there" same
sends 10 50 "a change over two parts" change $((30 * MIB - 10)) 20
expect "is there" same
truncate -s $((38 * MIB)) "$T/source"
sends 4 35 "cut off" truncate -s $((38 * MIB)) "$M/file"
expect "is there" same
truncate -s $((48 * MIB)) "$T/source"
sends 13 35 "made longer" truncate -s $((48 * MIB)) "$M/file"
expect "is there" same
expect "nothing is left at the storage" test "$(unfinished)" = 0

# --- fsync, which has to store all of it
exec 5<>"$M/file" 6<>"$T/source"
synced() { # OFFSET LENGTH: so much is written there, through a descriptor that stays open
	python3 -c "import os; [os.pwrite(f, b'x' * $2, $1) for f in (5, 6)]; os.fsync(5)"
}
asked() { # how often the storage was asked for something by COMMAND...
	local before
	before=$(counter ufs.requests)
	"$@" || die "$*"
	echo $(($(counter ufs.requests) - before))
}
sends 5 40 "fsync after a byte" synced $((7 * MIB)) 1
expect "is there" same
n=$(asked synced $((7 * MIB)) 1)
echo "fsync of a byte in $((48 / 5 + 1)) parts: $n requests"
[ "$(asked python3 -c 'import os; os.fsync(5); os.fsync(5)')" = 0 ] || die "fsync of nothing new"
ok "fsync of nothing new asks for nothing"
for i in 0 1 2; do
	sends 9 40 "fsync of a MiB appended" synced $((48 * MIB + i * MIB)) $MIB
done
[ "$(asked eval 'exec 5>&- 6>&-')" = 0 ] || die "close after fsync"
ok "and neither does close after that"
expect "is there" same
expect "nothing is left at the storage" test "$(unfinished)" = 0

# --- while it is written
exec 5>"$M/ahead"
head -c $((40 * MIB)) "$T/source" >&5
sent() {
	[ "$(counter upload.bytes)" -ge $((before + 30 * MIB)) ]
}
before=0
wait_until 60 "parts are sent before the file is closed" sent
ok "parts are sent before the file is closed"
expect "as an unfinished upload" test "$(unfinished)" = 1
rm "$M/ahead"
exec 5>&-
wait_until 60 "which ends when the file is deleted" none_unfinished
ok "which ends when the file is deleted"

# --- over an upgrade
before=$(counter upload.bytes)
exec 5>"$M/two"
head -c $((40 * MIB)) "$T/source" >&5
wait_until 60 "parts are sent" sent
batonfs -m "$M" upgrade >/dev/null
expect "a new daemon knows them" test "$(unfinished)" = 1
tail -c +$((40 * MIB + 1)) "$T/source" >&5
exec 5>&-
most=$(($(stat -c %s "$T/source") - 30 * MIB))
[ "$(counter upload.bytes)" -le $most ] || die "sent again: $(counter upload.bytes) of $most"
ok "and sends only the rest"
expect "the file is whole" cmp "$T/source" <(s3_curl "$RGW_ENDPOINT/data/two")
expect "nothing is left at the storage" test "$(unfinished)" = 0
stop

# --- over crashes, at each of these points
for at in upload.multi.begun upload.part.sent@1 upload.part.sent@7 ufs.multi.end upload.made; do
	case $at in
	*@*) fault "${at%@*}=kill@${at#*@}" ;;
	*) fault "$at=kill" ;;
	esac
	begin
	pid=$(daemon_pid)
	expect "$at: a file is written" cp "$T/source" "$M/file.${at/@/-}"
	wait_until 60 "a new daemon serves" daemon_pid
	[ "$(daemon_pid)" != "$pid" ] || die "$at: the daemon was not killed"
	expect "$at: whole" cmp "$T/source" <(s3_curl "$RGW_ENDPOINT/data/file.${at/@/-}")
	wait_until 60 "$at: nothing is left at the storage" none_unfinished
	ok "$at: nothing is left at the storage"
	stop
done
