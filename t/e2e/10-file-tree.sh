#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A directory mounted through file://: what a user does with a tree, and what
# changes the tree is refused.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
mkdir -p "$S/sub/deep/er" "$S/empty dir"
pattern gen "$S/big.20000001" "$S/sub/mid.1048577" "$S/sub/small.4097" "$S/sub/zero.0" "$S/one.1"
echo hello >"$S/sub/deep/er/hello.txt"
echo odd >"$S/sub/a name with 'quotes', %25 + & ? \\ ü 漢字"
chmod 640 "$S/one.1"
i=0
mkdir "$S/many"
while [ $i -lt 3000 ]; do
	: >"$S/many/file-$i"
	i=$((i + 1))
done
mkdir "$S/many/dir" && : >"$S/many/dir/x" && : >"$S/many/dir-" && : >"$S/many/dir."

serve -u "/=file://$S" -s worker.page.store.dir="$T/cache" -o ro

ls -lR "$M" >/dev/null || die "ls -lR"
ok "ls -lR works"
[ "$(cd "$S" && find . | sort)" = "$(cd "$M" && find . | sort)" ] || die "find differs"
ok "find lists the same names"
[ "$(sums "$S")" = "$(sums "$M")" ] || die "checksums differ"
ok "md5sum of every file agrees"
[ "$(sums "$S")" = "$(sums "$M")" ] || die "checksums differ when cached"
ok "md5sum agrees from the cache"
expect "big files are right" pattern check "$M/big.20000001" "$M/sub/mid.1048577" "$M/sub/small.4097" "$M/sub/zero.0" "$M/one.1"
tar -C "$M" -cf "$T/t.tar" . && mkdir "$T/x" && tar -C "$T/x" -xf "$T/t.tar"
expect "tar c and x give the same tree" diff -r "$S" "$T/x"
[ "$(stat -c '%s %a %Y' "$S/one.1")" = "$(stat -c '%s %a %Y' "$M/one.1")" ] || die "attributes differ"
ok "size, mode and mtime agree"
[ "$(stat -c %i "$M/one.1")" = "$(stat -c %i "$M/one.1")" ] || die "st_ino changes"
ino=$(stat -c %i "$M/sub/small.4097")
[ "$(find "$M/sub" -maxdepth 1 -name 'small*' -printf %i)" = "$ino" ] || die "d_ino is not st_ino"
ok "d_ino is st_ino"
expect "statfs answers" df "$M"
expect "tail of a file" test "$(tail -c 5 "$M/sub/deep/er/hello.txt")" = "ello"
expect "dd skips" cmp <(dd if="$M/big.20000001" bs=4097 skip=1000 count=3 status=none) <(dd if="$S/big.20000001" bs=4097 skip=1000 count=3 status=none)

# In a read-only mount everything that changes is refused with EROFS.
expect_exit 1 "Read-only file system" "create is EROFS" bash -c "echo x >'$M/new'"
expect_exit 1 "Read-only file system" "append is EROFS" bash -c "echo x >>'$M/one.1'"
expect_exit 1 "Read-only file system" "mkdir is EROFS" mkdir "$M/newdir"
expect_exit 1 "Read-only file system" "rm is EROFS" rm "$M/one.1"
expect_exit 1 "Read-only file system" "rmdir is EROFS" rmdir "$M/empty dir"
expect_exit 1 "Read-only file system" "mv is EROFS" mv "$M/one.1" "$M/two"
expect_exit 1 "Read-only file system" "chmod is EROFS" chmod 600 "$M/one.1"
expect_exit 1 "Read-only file system" "touch is EROFS" touch "$M/one.1"
expect_exit 1 "Read-only file system" "ln -s is EROFS" ln -s x "$M/link"
expect_exit 1 "Read-only file system" "truncate is EROFS" truncate -s 0 "$M/one.1"
expect_exit 1 "No such file" "a missing name is ENOENT" stat "$M/nothing"

# A file replaced in storage: the open descriptor keeps its version or gets ESTALE,
# the next open sees the new one.
mkfifo "$T/go"
pattern hold "$M/sub/mid.1048577" <"$T/go" >"$T/hold" 2>&1 &
hold=$!
exec 5>"$T/go"
wait_until 60 "the holder has opened" grep -q ready "$T/hold"
echo "new content" >"$S/sub/new" && mv "$S/sub/new" "$S/sub/mid.1048577"
wait_until 60 "the new version is seen" grep -q "new content" "$M/sub/mid.1048577"
ok "the next open sees the new version"
exec 5>&-
wait "$hold" || die "the open descriptor: $(cat "$T/hold")"
ok "the open descriptor keeps its version or gets ESTALE: $(tail -n 1 "$T/hold")"
: >"$S/appears"
wait_until 60 "a new file appears" test -e "$M/appears"
rm "$S/appears"
wait_until 60 "a removed file goes" not test -e "$M/appears"
ok "files come and go within the TTL"

stop
mounted && die "still mounted"
ok "umount ends daemon and keeper"
none_left() {
	[ -z "$(ours)" ]
}
wait_until 60 "no process is left" none_left
ok "no process is left"
