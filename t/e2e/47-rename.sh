#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Renames and removals in a bucket, which knows neither directories nor renames: many
# files, a daemon that is killed at each step or hands over in the middle, power loss.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

FILES=${FILES:-100}

faults_taken_once
PATH=$T/bin:$PATH

bucket_begin

begin() {
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s worker.page.store.dir="$T/cache" \
		-s "keeper.restart.limit=1000 in 1min" -o attr_timeout=0.2,entry_timeout=0.2
}

dies_at() { # POINT COMMAND...: which comes by it, and succeeds
	local point=$1
	shift
	next_has "$point=kill"
	wait_until 60 "it serves" daemon_pid
	"$@" || die "$point: $* failed"
	not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "$point: nothing came by there"
	ok "killed at $point: $*"
}

tree() { # DIR: files here and there, one of several parts, an empty directory
	local i
	mkdir -p "$1/sub/deep" "$1/empty" "$1/möbel"
	for i in $(seq 30); do echo "$1 $i" >"$1/sub/file-$i"; done
	echo x >"$1/sub/deep/x"
	echo y >"$1/möbel/a b"
	chmod 640 "$1/sub/file-3"
	touch -d '2001-02-03 04:05:06' "$1/sub/file-3" "$1/sub/file-4"
}

told() { # DIR: what it is like, and when its files changed
	(cd "$1" && find . -printf '%p %m %s %y\n' && find . -type f -printf '%p %T@\n' &&
		find . -type f -print0 | sort -z | xargs -0 sha256sum) | sort
}

same_as() { # WANT DIR
	local got
	got=$(told "$2")
	[ "$got" = "$1" ] || die "$2 changed: $(diff <(echo "$1") <(echo "$got"))"
}

begin
mkdir "$M/many"
for i in $(seq "$FILES"); do echo "$i" >"$M/many/$i"; done
before=$(told "$M/many")
mv "$M/many" "$M/more"
same_as "$before" "$M/more"
expect "the old name is gone" not test -e "$M/many"
storage_asked() { # what was remembered has run out
	local before
	before=$(counter ufs.requests)
	stat "$M/more/$FILES" >/dev/null
	[ "$(counter ufs.requests)" -gt "$before" ]
}
wait_until 60 "the storage is asked again" storage_asked
same_as "$before" "$M/more"
ok "$FILES files moved, with their times"
pattern gen "$M/more/large.30000000"
before=$(sha256sum <"$M/more/large.30000000")
mv "$M/more" "$M/again"
[ "$(sha256sum <"$M/again/large.30000000")" = "$before" ] || die "a large file changed"
ok "and a large one"
rm -r "$M/again"
expect "rm -r leaves nothing" not test -e "$M/again"

# --- A daemon that is killed at each step.
tree "$M/t0"
before=$(told "$M/t0")
n=0
for point in rename.noted rename.dir.noted rename.dir.copied rename.dir.switched \
	rename.dir.moved rename.dir.deleted rename.done; do
	dies_at $point mv "$M/t$n" "$M/t$((n + 1))"
	n=$((n + 1))
	same_as "$before" "$M/t$n"
	expect "the old name is gone" not test -e "$M/t$((n - 1))"
done
echo file >"$M/f0"
touch -d '2002-03-04 05:06:07' "$M/f0"
i=0
for point in rename.noted rename.copied rename.deleted rename.done; do
	dies_at $point mv "$M/f$i" "$M/f$((i + 1))"
	i=$((i + 1))
	[ "$(cat "$M/f$i") $(stat -c %Y "$M/f$i")" = "file $(date -d '2002-03-04 05:06:07' +%s)" ] ||
		die "$point: the file changed"
	expect "the old name is gone" not test -e "$M/f$((i - 1))"
done
for point in remove.begun remove.deleted remove.done; do
	mkdir -p "$M/d"
	echo x >"$M/d/x"
	dies_at $point rm "$M/d/x"
	expect "and it is gone" not test -e "$M/d/x"
	dies_at $point rmdir "$M/d"
	expect "so is its directory" not test -e "$M/d"
done

# --- A hand-over in the middle.
mkdir "$M/u0"
for i in $(seq "$FILES"); do echo "$i" >"$M/u0/$i"; done
before=$(told "$M/u0")
batonfs -m "$M" conf set rename.parallel 1
mv "$M/u0" "$M/u1" &
mover=$!
batonfs -m "$M" upgrade >/dev/null
wait $mover || die "mv failed in a hand-over"
same_as "$before" "$M/u1"
expect "the old name is gone after a hand-over" not test -e "$M/u0"

# --- Power loss: what was begun is finished by the next mount.
for point in rename.dir.copied rename.dir.switched; do
	before=$(told "$M/t$n")
	next_has "$point=stop"
	wait_until 60 "it serves" daemon_pid
	mv "$M/t$n" "$M/t$((n + 1))" 2>/dev/null &
	mover=$!
	wait_until 60 "it stops at $point" grep -q '^State:.T' "/proc/$(cat "$T/fault.pid")/status"
	kill -9 "$keeper"
	kill -9 "$(cat "$T/fault.pid")"
	wait $mover && die "mv succeeded without a daemon"
	wait "$keeper" 2>/dev/null || true
	umount -l "$M"
	rm -rf "/dev/shm/batonfs/$(systemd_escape "$M")"
	begin
	n=$((n + 1))
	wait_until 60 "the rename is finished" not test -e "$M/t$((n - 1))"
	wait_until 60 "and in its new place" test -e "$M/t$n/empty"
	same_as "$before" "$M/t$n"
	ok "finished after power loss at $point"
done
stop

# --- a directory on this machine, which renames by itself: killed before that, between that
# and what this daemon knows of it, and behind that
mkdir "$T/local"
serve -u /="file://$T/local" -s worker.page.store.dir="$T/cache.local" \
	-s "keeper.restart.limit=1000 in 1min" -o attr_timeout=0.2,entry_timeout=0.2
for point in rename.noted rename.native rename.done; do
	echo "$point" >"$M/from"
	exec 5<"$M/from"
	inode=$(stat -c %i "$M/from")
	dies_at "$point" mv -T "$M/from" "$M/$point"
	expect "$point: the old name is gone" not test -e "$M/from"
	expect "$point: the new one is the same file" test "$(stat -c %i "$M/$point") $(cat "$M/$point" /dev/fd/5)" \
		= "$inode $point"$'\n'"$point"
	exec 5<&-
	echo other >"$M/from"
	dies_at "$point" mv -T "$M/from" "$M/$point"
	expect "$point: another takes its place" test "$(cat "$M/$point" "$T/local/$point")" = other$'\n'other
	tree "$M/tree"
	before=$(told "$M/tree")
	dies_at "$point" mv -T "$M/tree" "$M/$point.d"
	same_as "$before" "$M/$point.d"
	expect "$point: a directory, too" not test -e "$M/tree"
done
expect "the storage has no other names" test "$(find "$T/local" -mindepth 1 -maxdepth 1 | wc -l)" = 6
stop
