#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Renames in a bucket whose copy has to be made in parts, which is an upload: a daemon that
# is killed in the middle of one leaves nothing of it behind, and one that the storage has
# lost is begun anew.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

faults_taken_once
PATH=$T/bin:$PATH
# The first copy is said to be too large for one request.
LARGE="ufs.copy=errno:7@1"

bucket_begin

same() { # NAME: which is the large file
	[ "$(sha256sum <"$1")" = "$before" ] || die "$1 changed"
}

serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s worker.page.store.dir="$T/cache" \
	-s "keeper.restart.limit=1000 in 1min"
mkdir "$M/d0"
pattern gen "$M/d0/large.10000000"
before=$(sha256sum <"$M/d0/large.10000000")
mv "$M/d0/large.10000000" "$M/0"

n=0
for point in upload.copy.made upload.copy.begun ufs.part ufs.multi.end; do
	next_has "$LARGE,$point=kill"
	wait_until 60 "it serves" daemon_pid
	mv "$M/$n" "$M/$((n + 1))" || die "$point: mv failed"
	n=$((n + 1))
	not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "$point: nothing came by there"
	same "$M/$n"
	[ ! -e "$M/$((n - 1))" ] || die "$point: the old name is still there"
	wait_until 60 "$point: no upload is left" none_unfinished
	ok "killed at $point: the file is moved, and no upload is left"
done

mv "$M/$n" "$M/d0/large"
next_has "$LARGE,upload.copy.begun=kill"
wait_until 60 "it serves" daemon_pid
mv "$M/d0" "$M/d1" || die "mv of a directory failed"
not kill -0 "$(cat "$T/fault.pid")" 2>/dev/null || die "nothing came by upload.copy.begun"
same "$M/d1/large"
expect "the old directory is gone" not test -e "$M/d0"
wait_until 60 "no upload is left" none_unfinished
ok "killed in the rename of a directory: it is moved, and no upload is left"

# Somebody throws the upload away.
next_has "$LARGE,ufs.part=until:$T/go"
wait_until 60 "it serves" daemon_pid
mv "$M/d1/large" "$M/last" &
mover=$!
wait_until 60 "the first part is about to be copied" test -e "$T/go.here"
id=$(unfinished_uploads | sed 's/.*>//')
[ -n "$id" ] || die "there is no upload"
s3_curl -X DELETE "$RGW_ENDPOINT/data/last?uploadId=$id"
expect "it is gone from the storage" none_unfinished
touch "$T/go"
wait "$mover" || die "mv failed when the storage had lost the upload"
same "$M/last"
expect "the copy was begun anew by the same daemon" kill -0 "$(cat "$T/fault.pid")"
wait_until 60 "no upload is left" none_unfinished
ok "and left nothing"
stop
