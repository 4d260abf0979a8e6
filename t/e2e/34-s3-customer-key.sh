#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Objects that a real radosgw encrypts with the customer's key (SSE-C): written, changed,
# renamed and read with it, and not without.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$T/key.pem" \
	-out "$T/ca.pem" -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1 \
	2>/dev/null || die "no certificate"
cat "$T/ca.pem" "$T/key.pem" >"$T/server.pem"
RGW_TLS=$T/server.pem bucket_begin
head -c 32 /dev/urandom >"$T/raw"
base64 "$T/raw" >"$T/text"
head -c 32 /dev/urandom >"$T/other"
S3=(-u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem"
	-s meta.dir="$T/meta" -s write.staging.dir="$T/staged" -s ufs.timeout=10s)

pattern gen "$T/large.12000000"
serve "${S3[@]}" -s s3.sse.customer.key.file="$T/raw"
mkdir "$M/dir"
echo small >"$M/dir/small"
cp "$T/large.12000000" "$M/dir/large"
echo more >>"$M/dir/large"
cp "$M/dir/small" "$M/copy"
# Not every storage copies what it cannot read; then nothing has moved.
if mv "$M/dir" "$M/moved" 2>"$T/words"; then
	ok "a directory is renamed"
	D=moved
else
	expect "a directory is not renamed where the storage cannot copy" grep -q "not supported" "$T/words"
	D=dir
fi
echo more >>"$T/large.12000000"
expect "what was written is read while it is here" cmp "$T/large.12000000" "$M/$D/large"
stop

serve "${S3[@]}" -s s3.sse.customer.key.file="$T/text"
expect "the same key as text: a large file" cmp "$T/large.12000000" "$M/$D/large"
expect "a small one" grep -qx small "$M/$D/small"
expect "all names" test "$(cd "$M" && find . | sort | xargs)" = ". ./copy ./$D ./$D/large ./$D/small"
batonfs -m "$M" upgrade >/dev/null
expect "after an upgrade" grep -qx small "$M/copy"
expect "the key is not in what is shown" not grep -qF "$(cat "$T/text")" <(batonfs -m "$M" conf list; batonfs -m "$M" --json status; cat "$LOG")
rm -r "${M:?}/$D"
expect "deleting" test "$(ls "$M")" = copy
stop

for key in "" "$T/other"; do
	serve "${S3[@]}" -s s3.sse.customer.key.file="$key"
	expect "another key, or none: the name is there" test "$(ls "$M")" = copy
	expect "and cannot be read" not cat "$M/copy"
	stop
done
expect_exit 2 "must have a key of 32 bytes" "a key that is none" \
	batonfsd --check "${S3[@]}" -s s3.sse.customer.key.file="$T/ca.pem"
expect_exit 2 "No such file" "a key that is not there" \
	batonfsd --check "${S3[@]}" -s s3.sse.customer.key.file="$T/nope"
expect_exit 2 "only one can be" "two ways at a time" \
	batonfsd --check "${S3[@]}" -s s3.sse.customer.key.file="$T/raw" -s s3.server.side.encryption=AES256
