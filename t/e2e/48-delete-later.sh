#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Deletions that are answered before the storage has done them: what this mount and others
# see, and that each is done once and for all, whatever ends the daemon or the storage.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

bucket_begin
start() {
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s ufs.timeout=1min \
		-s delete.delay=10s -s write.staging.dir="$T/staged" -s keeper.restart.limit="100 in 1min" \
		-o attr_timeout=60,entry_timeout=60
}
start

in_bucket() { # KEY: by another client
	[ "$(s3_status data "$1")" = 200 ]
}

pending() { # N
	[ "$(counter delete.pending)" = "$1" ]
}

names() { # DIRECTORY: what is in it
	(cd "$1" && echo *)
}

files() { # DIRECTORY NAMES...: with one that is deleted, so that the next wait for nobody
	local dir=$1 name
	shift
	mkdir -p "$M/$dir"
	for name in first "$@"; do
		echo "$name" >"$M/$dir/$name"
	done
	rm "$M/$dir/first"
	not in_bucket "$dir/first" || die "the first in a directory waits for the storage"
	since=$SECONDS
}

# soon COMMAND...: it succeeds, or delete.delay may have passed: this machine may be slow
soon() {
	"$@" || [ $((SECONDS - since)) -ge 9 ]
}

# --- what is seen
files see a b c
expect "more are deleted" rm "$M/see/a" "$M/see/b"
expect "which are gone here" test "$(ls "$M/see")" = c
expect "not yet in the storage" soon in_bucket see/a
expect "the status counts them" soon pending 2
expect "in words" soon grep -q "2 names not deleted in the storage yet" <(batonfs -m "$M" status)
expect_exit 1 "No such file" "the client knows" batonfs -m "$M" fs stat /see/a
expect "and lists" not grep -q /see/a <(batonfs -m "$M" fs ls -R /see)
expect "fsync of the directory waits for them" sync "$M/see"
expect "they are gone" not in_bucket see/a
expect "all of them" not in_bucket see/b
wait_until 60 "nothing waits any more" pending 0
ok "nothing waits any more"
rm "$M/see/c"
expect "another file of that name" cp /etc/passwd "$M/see/c"
expect "is not taken for the old one" cmp /etc/passwd "$M/see/c"
expect "nor in the storage" test "$(s3_curl "$RGW_ENDPOINT/data/see/c" | md5sum)" = "$(md5sum </etc/passwd)"

files tree/inner x y
files tree u v
expect "a tree goes at once" rm -rf "$M/tree"
expect "it is gone" not test -e "$M/tree"
expect "not yet in the storage" soon in_bucket tree/u
expect "another of that name" mkdir "$M/tree"
expect "is empty" test -z "$(ls -A "$M/tree")"
expect "no old file is in the storage" not in_bucket tree/inner/x

# --- whatever ends the daemon
files end k1 k2 k3 k4 k5 k6
rm "$M/end/k1" "$M/end/k2"
kill -9 "$(daemon_pid)"
expect "after a kill -9 they stay gone" test "$(names "$M/end")" = "k3 k4 k5 k6"
wait_until 60 "the next daemon deletes them" not in_bucket end/k1
wait_until 60 "the next daemon deletes them" pending 0
ok "the next daemon has deleted them"
rm "$M/end/k3" || die "rm"
rm "$M/end/k4"
expect "an upgrade" batonfs -m "$M" upgrade
expect "they stay gone" test "$(names "$M/end")" = "k5 k6"
wait_until 60 "the successor deletes them" pending 0
expect "the successor has deleted them" not in_bucket end/k4
rm "$M/end/k5"
since=$SECONDS
rm "$M/end/k6"
expect "they wait" soon pending 2
stop
expect "the end of the mount does not forget it" not in_bucket end/k6
start

# --- the storage is gone
files down d1 d2 d3
rm "$M/down/d1"
# Only while there is nothing to wait for: this machine may be slow.
batonfs -m "$M" conf set ufs.timeout 1500ms >/dev/null
gateway_kill
expect_exit 1 "Input/output error" "fsync says that it is not done" sync "$M/down"
expect_exit 1 "Input/output error" "so does a file that is to be made there" \
	dd if=/dev/null of="$M/down/d1" status=none
expect "it still waits" pending 1
expect "the status says why" grep -q "last error: " <(batonfs -m "$M" status)
expect_exit 1 "cannot remove" "another deletion is not promised" rm "$M/down/d2"
gateway_start
batonfs -m "$M" conf set ufs.timeout 1min >/dev/null
wait_until 60 "it is done when the storage is back" pending 0
expect "it is done when the storage is back" not in_bucket down/d1
expect "and works as before" rm "$M/down/d3"
expect "what was refused is there" test "$(names "$M/down")" = "d2"

# --- the storage refuses
files kept o1 keep1 keep2
cat >"$T/policy" <<'EOF'
{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*",
 "Action": "s3:DeleteObject", "Resource": "arn:aws:s3:::data/kept/keep*"}]}
EOF
s3_curl -X PUT --data-binary "@$T/policy" "$RGW_ENDPOINT/data?policy=" || die "no policy"
rm "$M/kept/o1"
rm "$M/kept/keep1"
expect "a deletion that is refused later" not test -e "$M/kept/keep1"
expect_exit 1 "Input/output error" "is told to whoever asks" sync "$M/kept"
expect "the file is there again" test "$(cat "$M/kept/keep1")" = keep1
expect "the other is not" not in_bucket kept/o1
expect "the status warns" grep -q "deleted here came back" <(batonfs -m "$M" status)
expect_exit 1 "Permission denied" "the next one waits, and is told" rm "$M/kept/keep2"

# --- O_EXCL without a request of its own
batonfs -m "$M" conf set create.exclusive mount >/dev/null
batonfs -m "$M" conf set delete.delay 0s >/dev/null
mkdir "$M/excl"
before=$(counter ufs.requests)
python3 - "$M/excl" <<'EOF'
import os, sys
for i in range(20):
    fd = os.open(f"{sys.argv[1]}/f{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, b"content")
    os.close(fd)
EOF
expect "one request makes a file" test $(($(counter ufs.requests) - before)) -le 22
expect "with its content" test "$(cat "$M/excl/f19")" = content
before=$(counter meta.reads)
for _ in $(seq 20); do
	cat "$M/excl/f19" >/dev/null
done
expect "who reads it does not ask the metadata store" test "$(counter meta.reads)" = "$before"
stop
