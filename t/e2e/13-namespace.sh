#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Several storages in one mount, a part of the namespace, mount options; odd names.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir -p "$T/top/own" "$T/top/nfs" "$T/a/train/x" "$T/a/private" "$T/b/sub" "$T/top/data"
echo top >"$T/top/file"
echo hidden >"$T/top/nfs/hidden"
echo beside >"$T/top/data/beside"
echo a >"$T/a/train/x/a"
echo secret >"$T/a/private/secret"
echo b >"$T/b/sub/b"
chmod 0700 "$T/a"

same() { # DESCRIPTION WANT GOT
	[ "$2" = "$3" ] || die "$1: '$3', not '$2'"
	ok "$1"
}

names() { # DIR: what it lists, sorted
	find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | xargs
}

# --- Virtual directories only.
serve -u "/data/a=file://$T/a" -u "/data/more/b=file://$T/b"
same "the top has what leads to storage" "data" "$(ls "$M")"
same "so has the directory below" "a more" "$(names "$M/data")"
same "find sees all of it" "a b secret" "$(find "$M" -type f -printf '%f\n' | sort | xargs)"
same "a directory on the way is read-only" 555 "$(stat -c %a "$M/data/more")"
same "an attached one has its own mode" 700 "$(stat -c %a "$M/data/a")"
expect_exit 1 "Read-only file system" "nothing can be made on the way" mkdir "$M/data/new"
same "fs ls shows them" "/data" "$(batonfs -m "$M" --json fs ls / | jq -r '.. | .path? // empty')"
same "fs ls -R goes down into storage" "/data/a/private/secret /data/a/train/x/a /data/more/b/sub/b" \
	"$(batonfs -m "$M" --json fs ls -R / | jq -r '.. | select(.kind? == "file") | .path' | sort | xargs)"
same "status names both storages" "/data/a /data/more/b" \
	"$(batonfs -m "$M" --json status | jq -r '.storage[].path' | xargs)"
same "fs stat names the storage of a file" "file://$T/a" \
	"$(batonfs -m "$M" --json fs stat /data/a/train/x/a | jq -r .storage)"
ino=$(stat -c %i "$M/data/a/train/x/a")

# The order on the command line is of no account to a successor, the storage is.
exec 7<"$M/data/a/train/x/a" 8<"$M/data/more/b/sub/b"
before=$(daemon_pid)
batonfs -m "$M" upgrade >/dev/null
[ "$(daemon_pid)" != "$before" ] || die "no other daemon serves"
same "open files of both storages go on over an upgrade" "a b" "$(cat <&7) $(cat <&8)"
exec 7<&- 8<&-
kill -9 "$(daemon_pid)"
same "and the namespace over a crash" "a more" "$(names "$M/data")"
expect_exit 5 "" "other storage is refused" batonfsd -f --takeover=require \
	-u "/data/a=file://$T/b" -u "/data/more/b=file://$T/a" "$M"
same "and the mount goes on" a "$(cat "$M/data/a/train/x/a")"
batonfsd --takeover=require -u "/data/more/b=file://$T/b" -u "/data/a=file://$T/a" "$M" ||
	die "the same storage in another order is refused"
ok "another order is taken"
wait_until 60 "the first keeper ends" not kill -0 "$keeper"
same "inode numbers stay" "$ino" "$(stat -c %i "$M/data/a/train/x/a")"
batonfs -m "$M" umount
wait_until 60 "unmounted" not mounted

# --- Storage at the top, and others inside.
mkdir "$T/small"
mount -t tmpfs -o size=4m none "$T/small"
serve -u "/=file://$T/top" -u "/nfs=file://$T/b" -u "/data/a=file://$T/a" -u "/small=file://$T/small"
same "an attached storage is listed once, with what is beside it" "data file nfs own small" "$(names "$M")"
same "it hides what was there" "sub" "$(ls "$M/nfs")"
expect_exit 1 "No such file" "also by name" cat "$M/nfs/hidden"
same "a directory on the way keeps its entries" "a beside" "$(names "$M/data")"
same "and its mode" "$(stat -c %a "$T/top/data")" "$(stat -c %a "$M/data")"
same "statfs is that of the storage" "$(stat -f -c %b "$T/small")" "$(stat -f -c %b "$M/small")"
[ "$(stat -f -c %b "$M")" != "$(stat -f -c %b "$T/small")" ] || die "the top's figures are the tmpfs'"
stop
umount "$T/small"

# --- A part of the namespace.
serve -t /s3/train -u "/s3=file://$T/a" -u "/other=file://$T/b"
same "a part is mounted" "x" "$(ls "$M")"
same "inode 1 is its top" 1 "$(stat -c %i "$M")"
same "'..' of its top is outside of the mount" "$(stat -c %i "$T")" "$(stat -c %i "$M/..")"
expect_exit 1 "No such file" "what is beside it is not there" stat "$M/../private"
for p in / /s3 /s3/private /s3/private/secret /other /other/sub/b; do
	expect_exit 1 "No such file or directory" "fs stat $p" batonfs -m "$M" fs stat $p
	expect_exit 1 "No such file or directory" "fs ls $p" batonfs -m "$M" fs ls $p
	for c in explain load free rm; do
		expect_exit 1 "No such file or directory" "fs $c $p" batonfs -m "$M" fs $c $p
	done
	expect_exit 1 "No such file or directory" "async-persist drop $p" \
		batonfs -m "$M" async-persist drop $p
done
for p in /s3/train/../private /s3/train/x/../../private; do
	expect_exit 1 "" "fs ls $p" batonfs -m "$M" fs ls $p
	expect_exit 1 "Invalid argument" "async-persist drop $p" batonfs -m "$M" async-persist drop $p
done
expect "all that is out of reach is as it was" test "$(cat "$T/a/private/secret" "$T/b/sub/b" | xargs)" = "secret b"
same "fs ls of the part" "/s3/train/x" "$(batonfs -m "$M" --json fs ls /s3/train | jq -r '.. | .path? // empty')"
same "status does not name what is out of reach" "/s3" "$(batonfs -m "$M" --json status | jq -r '.storage[].path')"
expect_exit 5 "" "a successor with another part is refused" batonfsd -f --takeover=require \
	-t /s3 -u "/s3=file://$T/a" -u "/other=file://$T/b" "$M"
cat "$M/x/a" >/dev/null
# Who may open any handle comes to what is in the part, whatever node id he makes up.
exec 7<"$M/x/a" # so the kernel keeps all that is there
forged() { # DESCRIPTION
	local all
	all=$(find "$M" -printf '%i\n' | sort)
	same "$1" "$all" "$(python3 "$BATONFS_SRC/t/e2e/forged.py" "$M" 4000 | sort -u)"
}
forged "forged file handles open what is inside, all of it and nothing else"
batonfs -m "$M" upgrade >/dev/null
same "an upgrade keeps the part" "x" "$(ls "$M")"
forged "also after the upgrade"
exec 7<&-
stop
serve -t /s3 -u "/s3/x=file://$T/a" -u "/s3/y=file://$T/b" -u "/=file://$T/top"
expect_exit 1 "" "a part above storage: nothing of the top" test -e "$M/file"
same "a part above storage" "x y" "$(names "$M")"
stop
expect_exit 2 "no storage is attached there" "a part that is nowhere" batonfsd -f -t /nope -u "/s3=file://$T/a" "$M"
expect_exit 3 "--subtree /s3/nope: No such file" "a part that storage does not have" \
	batonfsd -f -t /s3/nope -u "/s3=file://$T/a" "$M"
expect_exit 3 "--subtree /s3/train/x/a: Not a directory" "a part that is a file" \
	batonfsd -f -t /s3/train/x/a -u "/s3=file://$T/a" "$M"
expect_exit 2 "is attached there already" "one path twice" \
	batonfsd -f -u "/s3=file://$T/a" -u "/s3=file://$T/b" "$M"
expect_exit 2 "is not a namespace path" "a path with .." batonfsd -f -u "/../x=file://$T/a" "$M"

# --- Mount options.
options() {
	awk -v m="$M" '$2 == m { print $4 }' /proc/self/mounts
}
serve -u "/=file://$T/a" -o allow_other,ro,max_background=17,kernel_cache,auto_cache \
	-o attr_timeout=600,entry_timeout=600,negative_timeout=600
case ,$(options), in
*,ro,*allow_other,*) ok "ro and allow_other show in /proc/mounts" ;;
*) die "options: $(options)" ;;
esac
expect_exit 1 "Read-only" "ro" touch "$M/new"
if [ -e "$(connection)/max_background" ]; then
	same "max_background reaches the kernel" 17 "$(cat "$(connection)/max_background")"
fi
same "a name and its attributes" 2 "$(stat -c %s "$M/train/x/a")"
expect_exit 1 "No such file" "a name that is not there" stat "$M/train/later"
echo "more than before" >"$T/a/train/x/a"
echo later >"$T/a/train/later"
same "attr_timeout: what was asked once is not asked again" 2 "$(stat -c %s "$M/train/x/a")"
expect_exit 1 "No such file" "negative_timeout: nor what was not there" stat "$M/train/later"
stop
serve -u "/=file://$T/a" -o attr_timeout=0,entry_timeout=0
same "attr_timeout=0: seen at once" 17 "$(stat -c %s "$M/train/x/a")"
rm "$T/a/train/later"
expect_exit 1 "No such file" "entry_timeout=0: gone at once" stat "$M/train/later"
echo later >"$T/a/train/later"
same "and back at once" later "$(cat "$M/train/later")"

# --- A state database that gets full in the middle of a listing.
stop
mkdir "$T/many" "$T/st"
(cd "$T/many" && seq -f 'file-%07.0f' 20000 | xargs touch)
mount -t tmpfs -o size=3m none "$T/st"
mkdir -m 0700 "$T/st/s"
serve -u "/=file://$T/many" -s "state.dir=$T/st/s" -o attr_timeout=600,entry_timeout=600
exec 7<"$M/file-0000001"
same "all names are listed" 20000 "$(find "$M" -mindepth 1 -printf . 2>/dev/null | wc -c)"
expect "what is not known cannot be looked up, and says why" bash -c \
	"find '$M' -size +1 2>'$T/errors'; grep -q 'No space left' '$T/errors' && ! grep -v 'No space left' '$T/errors'"
expect "an open file is still there" test -r /dev/fd/7
same "and the daemon" "$T/st/s" "$(dirname "$(find "$T/st/s" -name data.mdb)")"
exec 7<&-
stop
umount "$T/st"
serve -u "/=file://$T/a" -o attr_timeout=0,entry_timeout=0

# --- A file:// tree with what a bucket does not have.
O=$T/a/odd
mkdir "$O"
long=$(printf 'n%.0s' $(seq 255))
echo long >"$O/$long"
odd=$(printf 'bad\xff\xfe\x01utf')
echo odd >"$O/$odd"
ln -s "$T/a/private/secret" "$O/link"
ln -s "$T/a/private" "$O/dirlink"
mkfifo "$O/fifo"
same "names of 255 bytes and of any bytes, no links, no pipes" 2 \
	"$(find "$M/odd" -mindepth 1 -printf . | wc -c)"
same "the long name reads" long "$(cat "$M/odd/$long")"
same "the odd name reads" odd "$(cat "$M/odd/$odd")"
expect_exit 1 "No such file" "a link is not followed" cat "$M/odd/link"
expect_exit 1 "" "nor is one on the way" cat "$M/odd/dirlink/secret"
expect_exit 1 "No such file" "a pipe is not opened" timeout 60 cat "$M/odd/fifo"
expect_exit 1 "File name too long" "256 bytes" stat "$M/odd/n$long"
mkdir "$O/turn"
echo in >"$O/turn/in"
cd "$M/odd/turn"
ls >/dev/null
rm -r "$O/turn"
echo file >"$O/turn"
same "a directory that is a file by now" file "$(cat "$M/odd/turn")"
expect_exit 1 "" "its old entries are gone" cat "$M/odd/turn/in"
cd "$T"
# A path of more than 1024 bytes: not there, and what is above stays listable.
(
	cd "$O"
	for i in 1 2 3 4 5; do
		mkdir "$i$(printf 'd%.0s' $(seq 219))"
		cd "$i"*
	done
	echo deep >file
)
expect "what has no path is hidden, and nothing else" bash -c "find '$M/odd' >'$T/found'"
same "as deep as a path can be" 4 "$(grep -c ddddd "$T/found")"
same "the daemon is well" odd "$(cat "$M/odd/$odd")"
stop
at=$(printf 'p%.0s' $(seq 200))
serve -u "/=file://$T/top" -u "/$at=file://$O"
expect "the same where it is attached deeper" bash -c "find '$M/$at' >'$T/found'"
same "less of it has a path" 3 "$(grep -c ddddd "$T/found")"
stop
