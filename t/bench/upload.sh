#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A large file written and closed through the mount, beside 8 curl that upload its parts
# at the same time, to the same radosgw in turns.  MB=n, ROUNDS=n turns; the gateway keeps
# all that was ever uploaded in memory (RGW_BYTES).
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

ROUNDS=${ROUNDS:-3}
MB=${MB:-256}
SIZE=$((MB * 1024 * 1024))
PART=$((SIZE / 8))

# shellcheck source=t/lib/s3put.sh
. "$BATONFS_SRC/t/lib/s3put.sh"

now() {
	date +%s%N
}

seconds_since() {
	printf '%s\n' "$(calc "($(now) - $1) / 1e9")"
}

element() { # NAME: the text of that element of the document on standard input
	sed -n "s:.*<$1>\(.*\)</$1>.*:\1:p"
}

# Prints the seconds from the first part to the object.
curl_upload() {
	local url=$RGW_ENDPOINT/theirs/blob id i began pids="" etag list=""
	began=$(now)
	id=$(s3_curl -X POST "$url?uploads=" | element UploadId)
	[ -n "$id" ] || die "curl could not begin an upload"
	for i in 1 2 3 4 5 6 7 8; do
		s3_curl -o /dev/null -D "$T/part.$i" -T "$T/source.$i" \
			"$url?partNumber=$i&uploadId=$id" || echo failed >"$T/curl.failed" &
		pids="$pids $!"
	done
	# shellcheck disable=SC2086
	wait $pids
	[ ! -e "$T/curl.failed" ] || die "curl failed"
	for i in 1 2 3 4 5 6 7 8; do
		etag=$(sed -n 's/^[Ee][Tt]ag: *//p' "$T/part.$i" | tr -d '\r"')
		list+="<Part><PartNumber>$i</PartNumber><ETag>$etag</ETag></Part>"
	done
	s3_curl -o /dev/null -X POST -H 'Content-Type: application/xml' \
		-d "<CompleteMultipartUpload>$list</CompleteMultipartUpload>" \
		"$url?uploadId=$id" || die "curl could not end the upload"
	seconds_since "$began"
}

# Prints the seconds from the open to the end of close(), and the daemon's processor
# seconds.
mount_upload() {
	local pid before began
	pid=$(daemon_pid)
	before=$(cpu_of "$pid")
	began=$(now)
	cat "$T"/source.? >"$M/blob" || die "the upload failed"
	echo "$(seconds_since "$began") $(calc "$(cpu_of "$pid") - $before")"
}

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
s3_bucket ours
s3_bucket theirs
for i in 1 2 3 4 5 6 7 8; do
	head -c $PART /dev/urandom >"$T/source.$i"
done
serve -u /=s3://ours -s s3.endpoint="$RGW_ENDPOINT" -s write.staging.dir="$T/staged" \
	-s meta.dir="$T/meta"
curl_upload >/dev/null # the server warms up
for _ in $(seq "$ROUNDS"); do
	curl_upload >>"$T/curl"
	mount_upload >>"$T/mount"
	rm "$M/blob"
done
cat "$T"/source.? >"$M/blob"
cmp <(cat "$T"/source.?) <(s3_curl "$RGW_ENDPOINT/ours/blob") || die "another object"
for how in curl mount; do
	say "$(printf '%-7s %7.0f MB/s' $how \
		"$(calc "$SIZE / 1e6 / $(awk '{ print $1 }' "$T/$how" | median)")")"
done
say "$(printf 'mount   %7.2f CPU s/GiB' \
	"$(calc "$(awk '{ print $2 }' "$T/mount" | median) * 1024 / $MB")")"
verdict "$(ratio "$T/curl" "$T/mount" 1)" ">=" 0.7 "upload of $MB MiB: of the rate of 8 curl"
stop
finish
