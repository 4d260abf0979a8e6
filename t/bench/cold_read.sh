#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A cold sequential read through the mount beside 8 parallel ranged GETs of curl, in
# turns: from a server limited to 400 MB/s, from one without limit, from a radosgw.
# ROUNDS=n turns each; SERVERS="limited unlimited radosgw".
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

ROUNDS=${ROUNDS:-5}
SERVERS=${SERVERS:-limited unlimited radosgw}
MB=256
SIZE=$((MB * 1024 * 1024))
export AWS_ACCESS_KEY_ID=testaccess AWS_SECRET_ACCESS_KEY=testsecretkey0123456789
TIMEFORMAT='%R %U %S'

# Prints: seconds, processor seconds
curl_read() {
	local i part=$((SIZE / 8)) pids
	{ time {
		pids=""
		for i in 0 1 2 3 4 5 6 7; do
			curl -sS -f -o /dev/null --aws-sigv4 aws:amz:us-east-1:s3 \
				--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
				-H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
				-r "$((i * part))-$(((i + 1) * part - 1))" "$endpoint/bench/blob" &
			pids="$pids $!"
		done
		# shellcheck disable=SC2086
		for i in $pids; do wait "$i" || echo failed >"$T/curl.failed"; done
	}; } 2>&1 | awk '{ print $1, $2 + $3 }'
	[ ! -e "$T/curl.failed" ] || die "curl failed"
}

# Prints: seconds, processor seconds of the daemon
mount_read() { # arguments of serve
	local pid before bytes seconds
	restart -u /=s3://bench -s "s3.endpoint=$endpoint" "$@" >&2
	pid=$(daemon_pid)
	before=$(cpu_of "$pid")
	read -r bytes seconds <<<"$(bench_probe seq "$M/blob")"
	[ "$bytes" = $SIZE ] || die "$bytes bytes read"
	echo "$seconds $(calc "$(cpu_of "$pid") - $before")"
}

compare() { # NAME LIMIT WHAT: LIMIT of the ratio, or -: for information only
	local name=$1 i how row=()
	curl_read >/dev/null # the server warms up
	for i in $(seq "$ROUNDS"); do
		curl_read >>"$T/$name.curl"
		mount_read >>"$T/$name.memory"
		mount_read -s worker.page.store.dir="$T/cache" -s worker.page.store.size=2GiB \
			>>"$T/$name.disk"
	done
	for how in curl memory disk; do
		row=("$(awk '{ print $1 }' "$T/$name.$how" | median)"
			"$(awk '{ print $2 }' "$T/$name.$how" | median)")
		say "$(printf '%-10s %-7s %7.0f MB/s  %5.2f CPU s/GiB' "$name" "$how" \
			"$(calc "$SIZE / 1e6 / ${row[0]}")" "$(calc "${row[1]} * 1024 / $MB")")"
	done
	if [ "$2" = - ]; then
		for how in memory disk; do
			say "$3, $how: $(printf '%.2f' "$(ratio "$T/$name.curl" "$T/$name.$how" 1)") of curl's rate"
		done
		return
	fi
	for how in memory disk; do
		verdict "$(ratio "$T/$name.curl" "$T/$name.$how" 1)" ">=" "$2" "$3, $how: of curl's rate"
	done
}

for server in $SERVERS; do
	port=$(free_port)
	endpoint=http://127.0.0.1:$port
	case $server in
	radosgw)
		"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
		# shellcheck source=/dev/null
		. "$T/rgw/env"
		endpoint=$RGW_ENDPOINT
		export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
		head -c $SIZE /dev/urandom >"$T/blob"
		"$BATONFS_SRC/t/lib/s3put.sh" bucket bench
		"$BATONFS_SRC/t/lib/s3put.sh" put bench blob "$T/blob"
		rm "$T/blob"
		compare radosgw 0.6 "cold read, radosgw"
		"$BATONFS_SRC/t/lib/rgw.sh" stop "$T/rgw"
		continue
		;;
	limited) bench_server "$port" $SIZE 400000000 & ;;
	*) bench_server "$port" $SIZE & ;;
	esac
	pid=$!
	wait_until 20 "the server answers" curl -sf -o /dev/null -I "$endpoint/bench/blob"
	case $server in
	limited) compare limited 0.9 "cold read, 400 MB/s" ;;
	*) compare unlimited - "cold read, unlimited server" ;;
	esac
	kill "$pid"
done
stop
finish
