#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What is written under a policy reaches the storage in the background: while that is gone,
# refuses, or has another client's object of the name; across kill -9, upgrades and an
# unmount; each object once, with the right bytes, as another client sees it.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

FILES=${FILES:-16} # of each round that has a kill or an upgrade in it

bucket_begin
mkdir "$T/files" "$T/got"

faults_taken_once
PATH=$T/bin:$PATH

cat >"$T/rules.json" <<END
{"apiVersion": "v1.0",
 "defaultRule": {"policyMode": "WRITE_BACK"},
 "pathRules": [{"path": "/transient/**", "policyMode": "TRANSIENT"},
               {"path": "/through/**", "policyMode": "WRITE_THROUGH"}]}
END

begin() { # [FLAGS]
	serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s write.cache.enabled=true \
		-s worker.page.store.dir="$T/cache" -s write.staging.dir="$T/staged" \
		-s meta.dir="$T/meta" -s write.part.size=5MiB \
		-s worker.write.cache.async.persist.retry.max.interval=1s -s ufs.timeout=4s \
		-s keeper.restart.limit="100 in 1min" -o attr_timeout=0.1,entry_timeout=0.1 "$@"
}

field() { # PATH FIELD: of async-persist stat
	batonfs -m "$M" --json async-persist stat --path "$1" | jq -r ".$2"
}

is() { # PATH STATE
	[ "$(field "$1" state)" = "$2" ]
}

status() { # FIELD of status
	batonfs -m "$M" --json status | jq "$1"
}

none_staged() {
	[ -z "$(find "$T/staged" -type f)" ]
}

pinned() { # BYTES
	[ "$(status .persist.pinned_bytes)" = "$1" ]
}

fs_state() { # PATH: as fs stat has it
	batonfs -m "$M" --json fs stat "$1" | jq -r .persistence
}

in_bucket() { # NAME FILE: by another client
	s3_curl "$RGW_ENDPOINT/data/$1" | cmp -s - "$2"
}

drained() {
	timeout 90 batonfs -m "$M" async-persist drain >"$T/drain.out" 2>&1 ||
		die "drain: $(cat "$T/drain.out")"
}

# How often the gateway stored an object: "PUT /data/NAME" with the answer 200, or the end of
# an upload in parts.
stored() { # NAME
	grep -cE "\"(PUT /data/$1 |POST /data/$1\?uploadId=)[^\"]*\" 200" \
		"$T"/rgw/log/client.rgw.log || true
}

wait_for_fd() { # opens NAME on descriptor 5 and writes FILE to it
	exec 5>"$M/$1"
	cat "$2" >&5
}

pattern gen "$T/small.5000" "$T/big.40000000"
begin
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$M/dir" "$M/transient" "$M/through"

# --- as it should be
cp "$T/small.5000" "$M/dir/file"
expect "a file can be drained" drained
expect "another client sees it" in_bucket dir/file "$T/small.5000"
expect "and so does the mount" cmp "$T/small.5000" "$M/dir/file"
[ "$(fs_state /dir/file)" = PERSISTED ] || die "it is $(fs_state /dir/file)"
ok "its state is PERSISTED"
cp "$T/small.5000" "$M/transient/file"
[ "$(fs_state /transient/file)" = TRANSIENT ] || die "it is $(fs_state /transient/file)"
expect "a TRANSIENT file is not waited for" drained
[ "$(s3_status data transient/file)" = 404 ] || die "a TRANSIENT file is in the bucket"
[ "$(status .persist.transient)" = 1 ] || die "status does not count it"
ok "and not stored"
expect "nor in the way of umount" batonfs -m "$M" umount
keeper_ends
begin
expect "it is there after a remount" cmp "$T/small.5000" "$M/transient/file"
cp "$T/big.40000000" "$M/transient/large"
wait_until 60 "both are pinned" pinned 40005000
rm "$M/transient/file" "$M/transient/large"
wait_until 60 "the room is free again" pinned 0
ok "what is pinned is counted as it comes and goes"

# --- what was stored is read from the page store
fetched() {
	status '.counters["cache.fetch.bytes"]'
}
on_disk() { # BYTES at least
	[ "$(status .cache.used_bytes)" -ge "$1" ]
}
cp "$T/big.40000000" "$M/clean"
expect "a large file can be drained" drained
wait_until 60 "its staged file goes" none_staged
wait_until 60 "its pages are the page store's" on_disk 40000000
before=$(fetched)
# Past the pages that the kernel has.
dd if="$M/clean" of="$T/clean" iflag=direct bs=1M status=none || die "it cannot be read"
cmp "$T/big.40000000" "$T/clean" || die "it is not as it was written"
[ "$(fetched)" = "$before" ] || die "$(fetched) bytes were fetched, not $before"
ok "what was stored is read from the page store, and nothing is fetched"

# --- the storage is gone (a directory cannot be looked up then, a file that waits can)
exec 5>"$M/small" 6>"$M/big"
gateway_kill
cat "$T/small.5000" >&5
cat "$T/big.40000000" >&6
exec 5>&- 6>&-
ok "write and close work without the storage"
expect "both can be read" cmp "$T/small.5000" "$M/small"
expect "the large one too" cmp "$T/big.40000000" "$M/big"
tried() { # PATH N
	[ "$(field "$1" tries)" -ge "$2" ]
}
wait_until 60 "it was tried three times" tried /small 3
case $(field /small last_error) in
"" | null) die "no error is told: $(field /small last_error)" ;;
esac
ok "tries and the last error are told"
batonfs -m "$M" --json status >"$T/status"
jq -e '.persist | .waiting == 2 and .waiting_bytes == 40005000 and .oldest_seconds >= 0 and
	.pinned_bytes >= 40005000 and .last_error != ""' "$T/status" >/dev/null ||
	die "status: $(jq .persist "$T/status")"
ok "status says what waits"
[ "$(batonfs -m "$M" --json async-persist list | jq -r '[.entries[].path] | sort | join(" ")')" \
	= "/big /small" ] || die "list: $(batonfs -m "$M" async-persist list)"
ok "both are listed"
[ "$(batonfs -m "$M" --json async-persist list --worker other | jq .count)" = 0 ] ||
	die "another machine has them"
ok "as those of this machine"
batonfs -m "$M" --json fs explain /small >"$T/explain"
jq -e '.policy == "WRITE_BACK" and .rule_policy == "WRITE_BACK" and .tries >= 3' "$T/explain" \
	>/dev/null || die "explain: $(cat "$T/explain")"
ok "fs explain knows the policy and the tries"
expect_exit 1 "2 files are not in the storage yet, such as /" "umount is refused" \
	batonfs -m "$M" umount
expect_exit 1 "2 files are not in the storage" "drain gives up in time" \
	batonfs -m "$M" async-persist drain --timeout 1s
expect_exit 1 "2 files are not in the storage" "umount --drain too" \
	batonfs -m "$M" umount --drain 1s
crash
expect "a new daemon has the small one" cmp "$T/small.5000" "$M/small"
expect "and the large one" cmp "$T/big.40000000" "$M/big"
gateway_start
expect "what waits is stored when the storage is back" drained
expect "the small one" in_bucket small "$T/small.5000"
expect "the large one" in_bucket big "$T/big.40000000"
[ "$(status .persist.waiting)" = 0 ] || die "status: $(status .persist)"
[ "$(fs_state /small)" = PERSISTED ] || die "it is $(fs_state /small)"

# --- close under WRITE_THROUGH says that it is not stored; it is in the end
python3 - "$M/through/file" "$T/small.5000" "$T/opened" "$T/go" <<'END' &
import errno, os, sys, time
fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
open(sys.argv[3], "w").close()
while not os.path.exists(sys.argv[4]):
    time.sleep(0.01)
os.write(fd, open(sys.argv[2], "rb").read())
try:
    os.close(fd)
except OSError as e:
    sys.exit(0 if e.errno == errno.EIO else f"close: {e}")
sys.exit("close said that all is well")
END
writer=$!
wait_until 60 "the file is open" test -e "$T/opened"
gateway_kill
touch "$T/go"
wait $writer || die "close under WRITE_THROUGH"
ok "close under WRITE_THROUGH says EIO"
gateway_start
expect "it is stored in the background" drained
expect "as it was written" in_bucket through/file "$T/small.5000"

# --- another client has made an object of the name
conflict() { # NAME
	exec 5>"$M/$1"
	cat "$T/small.5000" >&5
	echo theirs >"$T/theirs"
	s3_put data "$1" "$T/theirs"
	exec 5>&-
	wait_until 60 "it has failed" is "/$1" FAILED
}
conflict mine
ok "a conflict is FAILED"
expect "the other's object is untouched" in_bucket mine "$T/theirs"
expect "and ours is there too" cmp "$T/small.5000" "$M/mine"
expect_exit 1 "have failed" "drain says so" batonfs -m "$M" async-persist drain
expect_exit 1 "such as /mine" "umount is refused" batonfs -m "$M" umount
expect_exit 1 "another client has made an object of that name" "a retry says what is in the way" \
	batonfs -m "$M" async-persist retry /mine
expect "the other's object is still untouched" in_bucket mine "$T/theirs"
crash
# It may look once more at what was tried just before.
wait_until 60 "a new daemon knows it" is /mine FAILED
expect "a new daemon leaves the other's object alone" in_bucket mine "$T/theirs"
s3_delete data mine
expect "when it is gone a retry works" batonfs -m "$M" async-persist retry /mine
expect "and stores ours" in_bucket mine "$T/small.5000"
conflict dropped
expect "or ours is dropped" batonfs -m "$M" async-persist drop /dropped
wait_until 60 "the name is the other's" cmp "$T/theirs" "$M/dropped"
ok "the name is the other's"
expect "and nothing waits" drained

# --- killed and upgraded on the way: each object once
round() { # NAME COMMAND...: COMMAND runs while files are written and stored
	local name=$1 i pid
	shift
	mkdir "$M/$name" "$T/files/$name"
	for i in $(seq "$FILES"); do
		head -c $((i * 997)) /dev/urandom >"$T/files/$name/$i"
	done
	cp "$T/files/$name"/* "$M/$name/" &
	pid=$!
	"$@"
	wait $pid || die "$name: a writer saw an error"
	"$@"
	drained
	for i in $(seq "$FILES"); do
		wait_until 60 "$name/$i is in the gateway's log" logged "$name/$i"
		[ "$(stored "$name/$i")" = 1 ] || die "$name/$i was stored $(stored "$name/$i") times"
		printf 'url = "%s/data/%s/%s"\noutput = "%s/got/%s.%s"\n' "$RGW_ENDPOINT" "$name" "$i" \
			"$T" "$name" "$i"
	done >"$T/urls"
	s3_curl --no-progress-meter -K "$T/urls" || die "$name: an object is missing"
	for i in $(seq "$FILES"); do
		cmp "$T/files/$name/$i" "$T/got/$name.$i" || die "$name/$i"
	done
	ok "$name: each of $FILES files was stored once, byte for byte"
}
logged() { # NAME: the gateway has written to its log that it has stored it
	[ "$(stored "$1")" -ge 1 ]
}
upgraded() {
	batonfs -m "$M" upgrade >"$T/upgrade.out" 2>&1 || die "upgrade: $(cat "$T/upgrade.out")"
}
round upgrades upgraded
wait_until 60 "the staged files go" none_staged
ok "no staged file is left"
round kills crash
for point in persist.begun persist.stored persist.recorded; do
	fault "$point=kill@3"
	crash
	round "$point" true
done

# --- a large file goes on where it was when the daemon died
fault upload.part.sent=kill@4
crash
cp "$T/big.40000000" "$M/large"
expect "a large file is stored over the death of the daemon" drained
expect "as it was written" in_bucket large "$T/big.40000000"
[ -e "$T/fault.taken" ] || die "the daemon did not die"
wait_until 60 "it is in the gateway's log" logged large
began=$(grep -cE '"POST /data/large\?uploads' "$T"/rgw/log/client.rgw.log)
[ "$began" = 1 ] || die "its upload was begun $began times"
ok "its upload was begun once"

# --- left to the next mount
exec 5>"$M/left"
gateway_kill
cat "$T/small.5000" >&5
exec 5>&-
expect "umount --force leaves files" stop_forced
gateway_start
# A daemon that dies between the record and the file leaves the file to this look.
begin -s write.cache.async.file.check.period=1s -s write.cache.async.check.orphan.timeout=1s
expect "which the next mount has" cmp "$T/small.5000" "$M/left"
expect "and stores" drained
expect "as they were written" in_bucket left "$T/small.5000"
wait_until 60 "the staged files go" none_staged
ok "no staged file is left by those that died either"
stop
