#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Files are written under each policy while the storage refuses, is full, is gone, hangs or is
# slow: close answers as the manual's table says, what went wrong is told in words, nothing is
# lost, and everything is stored when the storage is well.  Files whose upload has an unknown
# outcome are deleted meanwhile: no object of theirs is left, and no newer one is lost.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/objects" "$T/files"
: >"$T/mode"
hostile_s3 "$T/objects" "$T/mode" "$T/port" &
wait_until 60 "the server listens" test -s "$T/port"
PORT=$(cat "$T/port")
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret

faults_taken_once
PATH=$T/bin:$PATH

cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back*/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"}]}
END

begin() { # [FLAGS]
	serve -u /=s3://b -s s3.endpoint="http://127.0.0.1:$PORT" -s s3.region=us-east-1 \
		-s write.cache.enabled=true -s write.staging.dir="$T/staged" -s meta.dir="$T/meta" \
		-s ufs.timeout=1500ms \
		-s worker.write.cache.async.persist.retry.max.interval=1s \
		-s keeper.restart.limit="100 in 1min" -o attr_timeout=0.1,entry_timeout=0.1 "$@"
}

mode() { # WORD: from the next request on
	echo "$1" >"$T/mode.new"
	mv "$T/mode.new" "$T/mode"
}

field() { # PATH FIELD: of async-persist stat
	batonfs -m "$M" --json async-persist stat --path "$1" | jq -r ".$2"
}

tried() { # PATH TIMES
	[ "$(field "$1" tries)" -ge "$2" ]
}

object() { # PATH: where the server has it
	echo "$T/objects/$(echo "$1" | tr / :)"
}

# write PATH FILE: prints what open, write and close say, in a process of its own.
write() {
	python3 - "$M/$1" "$2" <<'END'
import errno, os, sys
what = "open"
try:
    fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    what = "write"
    os.write(fd, open(sys.argv[2], "rb").read())
    what = "close"
    os.close(fd)
    print("ok")
except OSError as e:
    print(what, errno.errorcode[e.errno])
END
}

words() { # PATH TEXT: the last error has it
	case $(field "$1" last_error) in
	*"$2"*) ;;
	*) return 1 ;;
	esac
}

drained() {
	timeout 90 batonfs -m "$M" async-persist drain >"$T/drain.out" 2>&1 ||
		die "drain: $(cat "$T/drain.out")"
}

begin
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$M/back" "$M/temp" "$M/thru" "$M/back2"
for n in $(seq 20); do
	head -c $((n * 1234)) /dev/urandom >"$T/files/$n"
done

# --- each way to fail: PUT alone, so that names can be looked up
n=0
for way in "403:permission denied" "bucket:NoSuchBucket" "full:the storage is full" \
	"quota:the quota in the storage is used up" "503:answers with an error" \
	"close:cannot be reached" "silent:did not answer in time"; do
	n=$((n + 1))
	how=${way%%:*} text=${way#*:}
	mode "put-$how"
	[ "$(write "back/$how" "$T/files/$n")" = ok ] || die "$how: WRITE_BACK is not acknowledged"
	[ "$(write "temp/$how" "$T/files/$n")" = ok ] || die "$how: TRANSIENT is not acknowledged"
	[ "$(write "thru/$how" "$T/files/$n")" = "close EIO" ] || die "$how: WRITE_THROUGH: close"
	for p in back temp thru; do
		cmp "$T/files/$n" "$M/$p/$how" || die "$how: $p cannot be read"
	done
	wait_until 60 "$how: it is tried" tried "/back/$how" 1
	words "/back/$how" "$text" || die "$how: it says: $(field "/back/$how" last_error)"
	words "/thru/$how" "$text" || die "$how: it says: $(field "/thru/$how" last_error)"
	wait_until 60 "$how: status says so" status_is '.persist.last_error != ""'
	ok "$how: close as promised, and why it is not stored: $text"
done
wait_until 60 "it is tried again" tried /back/403 2
status_is '.persist | .waiting == 14 and .transient == 7 and .failed == 0' ||
	die "status: $(batonfs -m "$M" --json status | jq -c .persist)"
ok "all of them wait"
mode ""
expect "all is stored when the storage is well" drained
n=0
for how in 403 bucket full quota 503 close silent; do
	n=$((n + 1))
	for p in back thru; do
		cmp "$T/files/$n" "$(object "$p/$how")" || die "$p/$how is not what was written"
	done
	[ ! -e "$(object "temp/$how")" ] || die "TRANSIENT was stored"
	cmp "$T/files/$n" "$M/temp/$how" || die "temp/$how"
done
ok "byte for byte"
mode put-slow
# Slow it is, and this machine may be, too.
batonfs -m "$M" conf set ufs.timeout 1min >/dev/null
[ "$(write back/slow "$T/files/9")" = ok ] || die "WRITE_BACK waits for a slow storage"
[ "$(write thru/slow "$T/files/9")" = ok ] || die "WRITE_THROUGH fails on a slow storage"
expect "a slow storage takes longer" cmp "$T/files/9" "$(object thru/slow)"
mode put-lost
batonfs -m "$M" conf set ufs.timeout 1500ms >/dev/null
[ "$(write back/lost "$T/files/10")" = ok ] || die "WRITE_BACK"
wait_until 60 "it is stored, and nobody hears of it" cmp "$T/files/10" "$(object back/lost)"
mode ""
expect "an answer that got lost does no harm" drained
cmp "$T/files/10" "$(object back/lost)" || die "lost"

# --- all of it is gone: directories that were made here are known
mode put-close
for n in 1 2 3; do
	[ "$(write "back2/$n" "$T/files/$n")" = ok ] || die "back2/$n"
done
mode all-close
expect "a directory that was made here is there without the storage" test -d "$M/back2"
crash
expect "for the next daemon too" test -d "$M/back2"
cmp "$T/files/3" "$M/back2/3" || die "back2/3"
expect "with what was written there" cmp "$T/files/1" "$M/back2/1"

# --- deleted while nobody knows whether it was stored
doubtful() { # PATH
	[ "$(batonfs -m "$M" --json fs explain "$1" | jq .outcome_unknown)" = true ] && tried "$1" 1
}
pending() { # N
	status_is ".writing.deletions_pending == $1"
}
for n in 1 2 3; do
	wait_until 60 "its outcome is not known" doubtful "/back2/$n"
done
# As if that upload had arrived.
cp "$T/files/1" "$(object back2/1)"
head -c 77 /dev/urandom >"$(object back2/2)"
for n in 1 2 3; do
	expect "it can be deleted all the same" rm "$M/back2/$n"
	expect "and is gone" not test -e "$M/back2/$n"
done
expect "the deletions wait" pending 3
crash
wait_until 60 "they wait after a kill -9" pending 3
expect "and the name stays free" not test -e "$M/back2/1"
cp "$T/files/4" "$T/files/new"
mode ""
wait_until 60 "they are done" pending 0
expect "no object is left" not test -e "$(object back2/1)"
expect "nor an upload that was none" not test -e "$(object back2/3)"
expect "somebody else's of another size stays" test -e "$(object back2/2)"
[ "$(write back2/1 "$T/files/new")" = ok ] || die "a newer file of the name"
expect "a newer file is stored" drained
expect "and stays" cmp "$T/files/new" "$(object back2/1)"

# --- killed on the way of such a deletion
mode put-close
for n in a b c; do
	[ "$(write "back2/$n" "$T/files/5")" = ok ] || die "back2/$n"
done
mode all-close
for n in a b c; do
	wait_until 60 "its outcome is not known" doubtful "/back2/$n"
	cp "$T/files/5" "$(object back2/$n)"
done
for at in a:remove.begun b:remove.doubt c:remove.done; do
	rm -f "$T/fault.taken"
	fault "${at#*:}=kill@1"
	crash
	expect "a file is deleted over a death at ${at#*:}" rm "$M/back2/${at%%:*}"
	expect "it is gone" not test -e "$M/back2/${at%%:*}"
done
# Without what outlives the process, but not the machine: as after a power loss.
wait_until 60 "three wait" pending 3
stop_forced
mode head-503
begin
wait_until 60 "the next mount knows what is to be deleted" pending 3
mode ""
wait_until 60 "and deletes it" pending 0
for n in a b c; do
	expect "no object of back2/$n is left" not test -e "$(object "back2/$n")"
done
expect "all is stored" drained
stop
begin
pending 0 || die "a deletion is done again"
ok "and it is not done again"

# --- left behind: outside of what is mounted next, and without its bytes
mode put-403
[ "$(write back/left "$T/files/11")" = ok ] || die "back/left"
find "$T/staged" -type f | sort >"$T/before"
[ "$(write back/missing "$T/files/20")" = ok ] || die "back/missing"
find "$T/staged" -type f | sort | comm -13 "$T/before" - >"$T/missing"
stop_forced
xargs rm -f <"$T/missing"
begin --subtree /temp
expect "what is outside is counted" wait_until 60 "it is counted" status_is '.persist.outside == 2'
expect_exit 0 "outside of what is mounted, for a mount that has them: 2" \
	"a drain says so and ends" timeout 60 batonfs -m "$M" async-persist drain
expect "and umount does not mind" batonfs -m "$M" umount
keeper_ends
mode ""
begin
wait_until 60 "the next mount stores it" cmp "$T/files/11" "$(object back/left)"
failing() {
	words /back/missing "cannot be read here" && tried /back/missing 2
}
wait_until 60 "a file that has lost its bytes is shown" failing
ok "a file that has lost its bytes is shown: $(field /back/missing last_error)"
expect "nothing is stored of it" not test -e "$(object back/missing)"
expect "it can be removed" rm "$M/back/missing"
expect "then nothing waits" drained
stop
