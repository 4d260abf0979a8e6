#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The write cache: small and large files written under WRITE_BACK beside the disk itself and
# WRITE_THROUGH, and how fast they reach the storage beside 8 curl.  FILES=n small files a
# turn, ROUNDS=n turns, MB=n of a large file.
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit
# shellcheck source=t/lib/s3put.sh
. "$BATONFS_SRC/t/lib/s3put.sh"

FILES=${FILES:-300}
ROUNDS=${ROUNDS:-3}
MB=${MB:-256}
OBJECTS=8 # of the curl and of the mount, MB / 8 each

"$BATONFS_SRC/t/lib/rgw.sh" start "$T/rgw" || die "radosgw did not start"
# shellcheck source=/dev/null
. "$T/rgw/env"
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY RGW_ENDPOINT
s3_bucket ours
s3_bucket theirs
RGW=$(awk '$1 == "rgw" { print $2 }' "$T/rgw/pids")
own_end() {
	kill -CONT "$RGW" 2>/dev/null || true
}
cat >"$T/rules.json" <<END
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"},
 "pathRules": [{"path": "/through/**", "policyMode": "WRITE_THROUGH"}]}
END
# Names in a directory that was made here need no question to the storage for so long.
serve -u /=s3://ours -s s3.endpoint="$RGW_ENDPOINT" -s write.cache.enabled=true \
	-s write.staging.dir="$T/cache/staged" -s meta.dir="$T/cache/meta" \
	-s worker.page.store.pinned.file.capacity.limit.ratio=1 -s state.size=4GiB \
	-o attr_timeout=36000,entry_timeout=36000
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$T/direct" "$M/through"

# small DIRECTORY COUNT [fsync]: each file's microseconds
small() {
	python3 - "$@" <<'END'
import os, sys, time
where, count, sync = sys.argv[1], int(sys.argv[2]), len(sys.argv) > 3
data = os.urandom(10240)
for i in range(count):
    began = time.perf_counter()
    fd = os.open(f"{where}/{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, data)
    if sync:
        os.fsync(fd)
    os.close(fd)
    print((time.perf_counter() - began) * 1e6)
END
}

drain() {
	batonfs -m "$M" async-persist drain >/dev/null || die "drain"
}

for i in $(seq "$ROUNDS"); do
	mkdir "$T/direct/$i" "$M/back$i" "$M/through/$i"
	small "$T/direct/$i" "$FILES" fsync | median >>"$T/small.disk"
	small "$M/back$i" "$FILES" | median >>"$T/small.back"
	drain
	small "$M/through/$i" "$FILES" | median >>"$T/small.through"
done
for how in disk back through; do
	say "$(printf '10 KiB, %-8s %9.0f us' $how "$(median <"$T/small.$how")")"
done
verdict "$(ratio "$T/small.back" "$T/small.disk" 1)" "<=" 3 \
	"create+write+close under WRITE_BACK: times that with fsync on the disk"
verdict "$(ratio "$T/small.through" "$T/small.back" 1)" ">=" 5 "times as fast as WRITE_THROUGH"

# --- one large file
head -c $((MB << 20)) /dev/urandom >"$T/source"
now() {
	date +%s%N
}
for i in $(seq "$ROUNDS"); do
	began=$(now)
	dd if="$T/source" of="$T/direct/large" bs=1M conv=fsync status=none
	calc "($(now) - $began) / 1e9" >>"$T/large.disk"
	echo >>"$T/large.disk"
	kill -STOP "$RGW"
	began=$(now)
	dd if="$T/source" of="$M/back$i/large" bs=1M status=none
	calc "($(now) - $began) / 1e9" >>"$T/large.back"
	echo >>"$T/large.back"
	kill -CONT "$RGW"
	rm "$T/direct/large"
	drain
done
for how in disk back; do
	say "$(printf '%d MiB, %-5s %7.0f MB/s' "$MB" $how \
		"$(calc "$MB * 1.048576 / $(median <"$T/large.$how")")")"
done
verdict "$(ratio "$T/large.disk" "$T/large.back" 1)" ">=" 0.7 \
	"large sequential write: of the rate of the disk"

# --- how fast they reach the storage
split -n $OBJECTS -d -a 1 "$T/source" "$T/piece."
curl_put() { # TURN
	local i pids="" began
	began=$(now)
	for i in $(seq 0 $((OBJECTS - 1))); do
		s3_put theirs "$1.$i" "$T/piece.$i" &
		pids="$pids $!"
	done
	# shellcheck disable=SC2086
	wait $pids
	calc "($(now) - $began) / 1e9"
	echo
}
for i in $(seq "$ROUNDS"); do
	curl_put "$i" >>"$T/put.curl"
	kill -STOP "$RGW"
	for o in $(seq 0 $((OBJECTS - 1))); do
		cp "$T/piece.$o" "$M/back$i/piece.$o"
	done
	began=$(now)
	kill -CONT "$RGW"
	drain
	calc "($(now) - $began) / 1e9" >>"$T/put.mount"
	echo >>"$T/put.mount"
done
for how in curl mount; do
	say "$(printf '%d objects, %-5s %7.0f MB/s' $OBJECTS $how \
		"$(calc "$MB * 1.048576 / $(median <"$T/put.$how")")")"
done
verdict "$(ratio "$T/put.curl" "$T/put.mount" 1)" ">=" 0.7 \
	"storing in the background: of the rate of $OBJECTS curl"

stop
finish
