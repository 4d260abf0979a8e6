#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A bucket of a real radosgw: the tree, hostile names, wrong credentials, a bucket
# that is not there, a gateway that hangs or dies in mid-read and comes back, and
# upgrade and kill while all of that.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

bucket_begin
S=$T/src
mkdir -p "$S/train/deep/er" "$S/many"
pattern gen "$S/train/big.40000000" "$S/train/part.8388608" "$S/train/small.4097" "$S/train/zero.0"
for n in 'a b' 'q?' 'back\slash' '100%' 'plus+' 'and&' "single'" 'double"' 'ü 漢字' 'x;y=z' '#hash' '*star' '~tilde'; do
	echo "$n" >"$S/train/deep/$n"
done
long=$(printf 'n%.0s' $(seq 255))
echo long >"$S/train/deep/er/$long"
for i in $(seq 1500); do echo "$i" >"$S/many/file-$i"; done
s3_many data "$S"
# A name that is a prefix of another, a directory marker, keys that no path can name.
echo one >"$T/one"
s3_put data "order/a" "$T/one"
s3_put data "order/a-b" "$T/one"
s3_put data "order/a.c" "$T/one"
s3_put data "order/dir/x" "$T/one"
s3_put data "order/dir-" "$T/one"
: >"$T/nothing"
s3_put data "marker/" "$T/nothing"
s3_put data "odd//double" "$T/one"
s3_put data "both" "$T/one"
s3_put data "both/inner" "$T/one"

ARGS="-s s3.endpoint=$RGW_ENDPOINT -s ufs.timeout=2min -o attr_timeout=0.5,entry_timeout=0.5"

# shellcheck disable=SC2086
{
	expect_exit 3 "NoSuchBucket" "a bucket that does not exist" batonfsd -f -u /=s3://nobucket $ARGS "$M"
	expect_exit 3 "SignatureDoesNotMatch" "a wrong secret" env AWS_SECRET_ACCESS_KEY=wrong batonfsd -f -u /=s3://data $ARGS "$M"
	expect_exit 3 "InvalidAccessKeyId" "an unknown key" env AWS_ACCESS_KEY_ID=nobody batonfsd -f -u /=s3://data $ARGS "$M"
	expect_exit 3 "" "a dead endpoint" batonfsd -f -u /=s3://data -s s3.endpoint=http://127.0.0.1:9 -s ufs.timeout=1s "$M"
	expect_exit 0 "are well" "--check of the bucket" batonfsd --check -u /=s3://data $ARGS
	serve -u /=s3://data $ARGS -s worker.page.store.dir="$T/cache"
}

[ "$(id -u)" != 0 ] || expect "a daemon of root has the capabilities that a bucket needs, and no others" \
	may_only 204006
ls -lR "$M" >/dev/null || die "ls -lR"
ok "ls -lR works"
[ "$(cd "$S" && find . -type f | sort)" = "$(cd "$M" && find ./train ./many -type f | sort)" ] || die "find differs"
ok "find lists the same names"
[ "$(sums "$S/train")" = "$(sums "$M/train")" ] || die "checksums differ"
[ "$(sums "$S/many")" = "$(sums "$M/many")" ] || die "checksums differ (many)"
ok "md5sum of every object agrees"
tar -C "$M" -cf "$T/t.tar" train && mkdir "$T/x" && tar -C "$T/x" -xf "$T/t.tar"
expect "tar c and x give the same tree" diff -r "$S/train" "$T/x/train"
[ "$(find "$M/order" -mindepth 1 -maxdepth 1 -printf '%f %y\n' | sort | tr '\n' ,)" = "a f,a-b f,a.c f,dir d,dir- f," ] ||
	die "order: $(ls -l "$M/order")"
ok "names that begin alike are all there, once"
expect "a marker is an empty directory" test -d "$M/marker" -a -z "$(ls "$M/marker")"
expect "the directory wins over the object of its name" test "$(cat "$M/both/inner")" = one
[ -z "$(ls "$M/odd")" ] || die "odd: $(ls "$M/odd")"
ok "keys that no path can name are hidden"
[ "$(counter ufs.hidden)" -gt 0 ] || die "and not counted"
ok "and counted"
expect "fs ls over the control socket" batonfs -m "$M" fs ls /train
[ "$(batonfs -m "$M" --json fs ls -R /many | jq '.entries | length')" = 1500 ] || die "fs ls -R"
ok "fs ls -R --json has every entry"
[ "$(batonfs -m "$M" --json fs stat /train/big.40000000 | jq .size)" = 40000000 ] || die "fs stat"
ok "fs stat"

# An object replaced in storage.
pattern gen "$S/v.500000"
s3_put data v.500000 "$S/v.500000"
mkfifo "$T/go"
pattern hold "$M/v.500000" <"$T/go" >"$T/hold" 2>&1 &
hold=$!
exec 5>"$T/go"
wait_until 60 "the holder has opened" grep -q ready "$T/hold"
s3_put data v.500000 "$T/one"
wait_until 60 "the new version is seen" grep -qx one "$M/v.500000"
exec 5>&-
wait "$hold" || die "the open descriptor: $(cat "$T/hold")"
ok "the open descriptor keeps its version or gets ESTALE: $(tail -n 1 "$T/hold")"

# Readers without a page store in the way: a small one, so that most reads fetch.
stop
# shellcheck disable=SC2086
serve -u /=s3://data $ARGS -s memory.limit=32MiB -s keeper.restart.limit="100 in 1min"
FILES="$M/train/big.40000000 $M/train/part.8388608 $M/train/small.4097"
readers_start buffered direct reopen list
for i in 1 2 3; do
	batonfs -m "$M" upgrade >/dev/null || die "upgrade $i"
	readers_alive
done
ok "upgrades while reading the bucket"
before=$(daemon_pid)
kill -9 "$before"
wait_until 60 "a new daemon serves" other_serves "$before"
readers_alive
ok "kill -9 while reading the bucket"

# The gateway hangs for less than ufs.timeout: readers wait, and an upgrade works.
rgw=$(gateway_pid)
kill -STOP "$rgw"
expect "upgrade while the storage hangs" timeout 60 batonfs -m "$M" upgrade
kill -CONT "$rgw"
pattern check "$M/train/part.8388608"
readers_alive
ok "storage that hangs in mid-read and comes back"

# The gateway dies with requests in it, and is started again.
kill -9 "$rgw"
cat "$M/train/part.8388608" >"$T/during" &
during=$!
gateway_start
rgw=$(gateway_pid)
wait $during || die "a read begun while the gateway was dead failed"
expect "a read begun while the gateway was dead is right" cmp "$T/during" "$S/train/part.8388608"
expect "and so are the files" pattern check "$M/train/big.40000000" "$M/train/small.4097"
readers_alive
ok "storage that dies in mid-read and comes back"
readers_stop
ok "no reader saw an error or a wrong byte"

# Gone for longer: errors within ufs.timeout, not a hang; then all is well again.
batonfs -m "$M" conf set ufs.timeout 2s
kill -STOP "$rgw"
expect_exit 1 "" "an error within ufs.timeout" timeout 60 cat "$M/many/file-77"
kill -CONT "$rgw"
wait_until 60 "the mount is well again" cat "$M/many/file-77"
ok "and well again when the storage is back"
stop
