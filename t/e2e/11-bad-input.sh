#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What a user gets wrong: exit code and words for each.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/src" && echo data >"$T/src/file"
URI="/=file://$T/src"
cat >"$T/bad.conf" <<'C'
# a comment
ufs.timeout = 10s

readahed.max = 1MiB
C

expect_exit 2 "a mount point is missing" "no mount point" batonfsd -u "$URI"
expect_exit 2 "no storage to mount" "no storage" batonfsd "$M"
expect_exit 2 "must be PATH=URI" "storage without a path" batonfsd -f -u "s3://bucket" "$M"
expect_exit 2 "unknown kind" "unknown scheme" batonfsd -f -u "/=gopher://x" "$M"
expect_exit 2 "readahead.max" "an unknown property names the nearest" batonfsd -f -u "$URI" -s readahed.max=1 "$M"
expect_exit 2 "bad.conf:4" "an unknown property in a file names the line" batonfsd -f -c "$T/bad.conf" -u "$URI" "$M"
expect_exit 2 "readahead.max" "and the nearest name" batonfsd -f -c "$T/bad.conf" -u "$URI" "$M"
expect_exit 2 "10min" "a value out of range names the range" batonfsd -f -u "$URI" -s ufs.connect.timeout=2h "$M"
expect_exit 2 "ufs.timeout" "a malformed value" batonfsd -f -u "$URI" -s ufs.timeout=soon "$M"
expect_exit 2 "No such file" "a configuration file that is not there" batonfsd -f -c "$T/none.conf" -u "$URI" "$M"
expect_exit 2 "frobnicate" "an unknown mount option" batonfsd -f -o ro,frobnicate -u "$URI" "$M"
expect_exit 1 "No such file or directory" "a missing mount point" batonfsd -f -u "$URI" "$T/nowhere"
expect_exit 1 "Not a directory" "a mount point that is a file" batonfsd -f -u "$URI" "$T/src/file"
expect_exit 3 "No such file or directory" "storage that does not exist" batonfsd -f -u "/=file://$T/none" "$M"
expect_exit 3 "No such file or directory" "the same in the background" batonfsd -u "/=file://$T/none" "$M"
expect_exit 3 "No such file or directory" "the same with --check" batonfsd --check -u "/=file://$T/none" "$M"
expect_exit 0 "are well" "--check of what is well" batonfsd --check -u "$URI" "$M"
mounted && die "--check mounted something"
expect_exit 5 "no daemon serves it" "--takeover=require without a daemon" batonfsd -f --takeover=require -u "$URI" "$M"
expect_exit 1 "tmpfs" "state.dir on a disk" batonfsd -f -s state.dir="$T/state" -u "$URI" "$M"
expect_exit 3 "credentials" "no credentials" batonfsd -f -u "/=s3://bucket" -s s3.endpoint=http://127.0.0.1:9 "$M"
expect_exit 2 "Try 'batonfsd --help'" "an unknown flag" batonfsd --frobnicate "$M"
expect_exit 1 "no batonfs daemon answers" "the client without a daemon" batonfs -m "$M" status
expect_exit 2 "" "the client: unknown command" batonfs -m "$M" frobnicate
mounted && die "something is mounted"

serve -u "$URI" -s worker.page.store.dir="$T/cache"
mkdir "$T/mnt2"
expect_exit 1 "$T/cache" "a second daemon on one cache directory" batonfsd -f -u "$URI" -s worker.page.store.dir="$T/cache" "$T/mnt2"
expect_exit 1 "busy" "a busy mount point" batonfsd -f --takeover=never -u "$URI" "$M"
expect "the first one serves on" grep -q data "$M/file"
expect_exit 1 "No such file or directory" "the client: unknown path" batonfs -m "$M" fs stat /nope
expect_exit 1 "/nope" "and it names the path" batonfs -m "$M" fs ls /nope
expect_exit 1 "ufs.timeout" "the client: a bad value" batonfs -m "$M" conf set ufs.timeout 99d
expect_exit 1 "memory.limit" "the client: a property that is not live" batonfs -m "$M" conf set memory.limit 64MiB
expect "conf set" batonfs -m "$M" conf set readahead.max 2MiB
expect "conf get prints the value alone" test "$(batonfs -m "$M" conf get readahead.max)" = 2MiB
stop
