#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The ways to a bucket of a real radosgw: the bucket in the host name, TLS with a private
# authority, a proxy, credentials that an endpoint hands out.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$T/key.pem" \
	-out "$T/ca.pem" -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1,DNS:s3.localhost,DNS:*.s3.localhost \
	2>/dev/null || die "no certificate"
cat "$T/ca.pem" "$T/key.pem" >"$T/server.pem"
RGW_TLS=$T/server.pem bucket_begin
mkdir -p "$T/src/sub"
pattern gen "$T/src/data.3000000"
echo odd >"$T/src/sub/a b+c%20ü"
s3_many data "$T/src"
same() { # DESCRIPTION
	[ "$(sums "$M")" = "$(sums "$T/src")" ] || die "$1: the trees differ: $(ls -lR "$M")"
	ok "$1"
}

# libcurl resolves localhost and what is below it by itself.
PORT=${RGW_ENDPOINT##*:}
serve -u /=s3://data -s s3.path.style=false -s s3.endpoint="http://s3.localhost:$PORT"
same "the bucket in the host name"
stop

expect_exit 3 "certificate" "TLS of a private authority, which nobody named" \
	batonfsd -f -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s ufs.timeout=5s "$M"
serve -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem"
same "TLS with s3.ca.file"
stop
expect_exit 0 "are well" "TLS with SSL_CERT_FILE" \
	env SSL_CERT_FILE="$T/ca.pem" batonfsd --check -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT"
expect_exit 0 "are well" "TLS and the bucket in the host name" \
	batonfsd --check -u /=s3://data -s s3.path.style=false -s s3.ca.file="$T/ca.pem" \
	-s s3.endpoint="https://s3.localhost:${RGW_TLS_ENDPOINT##*:}"
expect_exit 3 "TLS failed" "a certificate for another name" \
	batonfsd --check -u /=s3://data -s s3.ca.file="$T/ca.pem" -s s3.endpoint="https://localhost:${RGW_TLS_ENDPOINT##*:}"

# A proxy that tunnels, named as curl(1) has it named.
python3 "$BATONFS_SRC/t/e2e/proxy.py" "me:p@ss" "$T/proxy.port" "$T/proxy.log" &
wait_until 60 "the proxy listens" test -s "$T/proxy.port"
PROXY=127.0.0.1:$(cat "$T/proxy.port")
TLS_HOST=${RGW_TLS_ENDPOINT#https://}
unset no_proxy
export https_proxy="http://me:p%40ss@$PROXY"
serve -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem"
same "TLS through a proxy that wants a password"
expect "the proxy saw it" grep -qx "tunnel $TLS_HOST" "$T/proxy.log"
: >"$T/proxy.log"
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
echo new >"$T/src/new"
s3_put data new "$T/src/new"
same "and after an upgrade"
expect "the proxy saw that as well" grep -qx "tunnel $TLS_HOST" "$T/proxy.log"
stop
check() { # FLAGS...: is the storage there?
	batonfsd --check -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem" "$@"
}
: >"$T/proxy.log"
https_proxy="http://me:wrong@$PROXY" \
	expect_exit 3 "" "a proxy that does not know us" check -s ufs.timeout=5s
expect "it was asked" grep -qx "denied $TLS_HOST" "$T/proxy.log"
: >"$T/proxy.log"
no_proxy="example.org,127.0.0.1" \
	expect_exit 0 "are well" "a storage that no_proxy names is reached without it" check
expect "the proxy saw nothing of that" test ! -s "$T/proxy.log"
unset https_proxy
export no_proxy='*'

# Credentials from an endpoint: an answer in a file, over openssl's plain file server.
keys() { # ACCESS SECRET
	printf '{"AccessKeyId":"%s","SecretAccessKey":"%s","Token":"","Expiration":"%s"}' \
		"$1" "$2" "$(date -u -d '+1 hour' +%Y-%m-%dT%H:%M:%SZ)"
}
keys "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$T/good.json"
keys "$AWS_ACCESS_KEY_ID" wrong >"$T/bad.json"
P=$(free_port)
(cd "$T" && exec openssl s_server -accept "127.0.0.1:$P" -key key.pem -cert ca.pem -WWW -quiet) </dev/null >/dev/null 2>&1 &
wait_until 60 "the endpoint answers" curl -s --cacert "$T/ca.pem" "https://127.0.0.1:$P/good.json"
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
export AWS_CONTAINER_CREDENTIALS_FULL_URI="https://127.0.0.1:$P/good.json"
serve -u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem"
same "credentials from the container's endpoint"
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
same "and after an upgrade"
stop
export AWS_CONTAINER_CREDENTIALS_FULL_URI="https://127.0.0.1:$P/bad.json"
expect_exit 3 "SignatureDoesNotMatch" "credentials that the storage refuses" batonfsd --check \
	-u /=s3://data -s s3.endpoint="$RGW_TLS_ENDPOINT" -s s3.ca.file="$T/ca.pem"
export AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:9/none
expect_exit 3 "the container's credential endpoint" "an endpoint that is not there" batonfsd --check \
	-u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s ufs.timeout=1s
