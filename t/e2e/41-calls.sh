#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Every row of the table "what a call gets", on a directory and on a real radosgw, with
# a second mount of the same storage beside; then what must hold after a remount.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"
# shellcheck source=t/e2e/two.sh
. "$BATONFS_SRC/t/e2e/two.sh"

OPTS="-s ufs.timeout=20s -o attr_timeout=0.1,entry_timeout=0.1,allow_other"

calls() { # NAME: all rows, in a directory of that name
	mkdir "$M/$1"
	chmod 755 "$T"
	python3 "$BATONFS_SRC/t/e2e/calls.py" "$M/$1" --other "$M2/$1" || die "$1: a row failed"
	ok "every row of the table on $1"
}

remount() { # FLAGS...: what is kept by storage and metadata store
	mkdir -p "$M/kept/dir" "$M/kept/empty"
	echo content >"$M/kept/file"
	chmod 4751 "$M/kept/file"
	chown 12:34 "$M/kept/file" "$M/kept/dir"
	chmod 700 "$M/kept/dir"
	touch -d '2001-02-03 04:05:06.789' "$M/kept/file" "$M/kept/dir"
	before=$(stat -c '%n %a %u %g %.Y %s' "$M/kept/file" "$M/kept/dir")
	stop
	serve "$@"
	[ "$(stat -c '%n %a %u %g %.Y %s' "$M/kept/file" "$M/kept/dir")" = "$before" ] ||
		die "attributes changed: $before; now $(stat -c '%n %a %u %g %.Y %s' "$M/kept/file" "$M/kept/dir")"
	ok "mode, owner and times survive a remount"
	expect "and so does content" grep -qx content "$M/kept/file"
	expect "and an empty directory" test -d "$M/kept/empty"
}

# --- a directory
mkdir "$T/store"
# shellcheck disable=SC2086
{
	serve -u /="file://$T/store" $OPTS -s worker.page.store.dir="$T/cache"
	serve_other -u /="file://$T/store" $OPTS -s worker.page.store.dir="$T/cache2"
	calls directory
	remount -u /="file://$T/store" $OPTS -s worker.page.store.dir="$T/cache"
}
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left"
ok "no temporary file is left"
stop
stop_other

# --- a bucket
bucket_begin
# shellcheck disable=SC2086
{
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" $OPTS
	serve_other -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" $OPTS
	calls bucket
	remount -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" $OPTS
}
stop
stop_other

# --- fs rm
# shellcheck disable=SC2086
serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" $OPTS
mkdir -p "$M/tree/a/b" "$M/tree/c"
for i in $(seq 300); do echo "$i" >"$M/tree/a/b/f$i"; done
cp "$M/tree/a/b/f1" "$M/tree/single"
exec 5<"$M/tree/a/b/f77"
expect_exit 1 "Is a directory" "fs rm of a directory wants -R" batonfs -m "$M" fs rm /tree
expect "fs rm of a file" batonfs -m "$M" fs rm /tree/single
[ "$(batonfs -m "$M" --json fs rm -R /tree)" = '{"files":300,"directories":4,"failed":0,"complete":true}' ] ||
	die "fs rm -R"
expect "fs rm -R removes a tree" not test -e "$M/tree"
[ "$(cat <&5)" = 77 ] || die "a file that was open"
ok "and who had a file of it open goes on"
exec 5<&-
mkdir "$M/tree"
for i in $(seq 300); do echo "$i" >"$M/tree/f$i"; done
script -qec "batonfs -m '$M' fs rm -R /tree" /dev/null >"$T/rm.terminal" </dev/null || die "fs rm -R on a terminal"
expect "on a terminal it shows how far it is" grep -q "256 files and 0 directories removed .*300 files and 1 " \
	<(tr '\r\n' '  ' <"$T/rm.terminal")
expect_exit 1 "No such file or directory" "fs rm of what is not there" batonfs -m "$M" fs rm -R /tree

# A thousand children behind one redirection cost one upload.
before=$(counter upload.puts)
sh -c 'for i in $(seq 1000); do /bin/echo $i; done' >"$M/children"
[ "$(cat "$M/children")" = "$(seq 1000)" ] || die "what the children wrote"
[ $(($(counter upload.puts) - before)) -le 1 ] || die "$(($(counter upload.puts) - before)) uploads for 1000 children"
ok "a thousand children that inherit a redirection cost one upload"
stop

# --- across storages, and read-only
mkdir "$T/a" "$T/b"
# shellcheck disable=SC2086
serve -u /a="file://$T/a" -u /b="file://$T/b" $OPTS
echo 1 >"$M/a/f"
mkdir "$M/a/d"
expect_exit 1 "" "rename across storages is not done" python3 -c "import os; os.rename('$M/a/f', '$M/b/f')"
expect "mv(1) across storages copies" mv "$M/a/f" "$M/b/g"
expect "to the other storage" grep -qx 1 "$T/b/g"
expect "and deletes the first" not test -e "$T/a/f"
expect_exit 1 "Device or resource busy" "an attached storage cannot be removed" rmdir "$M/a"
stop
# shellcheck disable=SC2086
serve -u /="file://$T/a" -o ro
expect_exit 1 "Read-only file system" "a read-only mount refuses writes" touch "$M/x"
expect_exit 1 "Read-only file system" "and directories" mkdir "$M/x"
stop
