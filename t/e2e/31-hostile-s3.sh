#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Storage that misbehaves: whatever it says, no crash, no wrong byte, no call that
# hangs longer than ufs.timeout allows; and the daemon serves on when it behaves again.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

O=$T/objects
mkdir "$O"
echo ok >"$T/mode"
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret
HOSTILE=$BATONFS_BUILD/hostile_s3
"$HOSTILE" "$O" "$T/mode" "$T/port" 2>"$T/hostile.err" &
wait_until 60 "the server listens" test -s "$T/port"
E=http://127.0.0.1:$(cat "$T/port")

mode() { # atomically: the server reads it at each request
	echo "$1" >"$T/mode.new"
	mv "$T/mode.new" "$T/mode"
}

n=0
fresh() { # an object that nobody has read yet: sets F
	n=$((n + 1))
	F=object-$n
	head -c 300000 /dev/urandom >"$O/$F"
}

# within SECONDS COMMAND...: its exit code, 124 never: that is a hang
within() {
	local got=0
	timeout -k 1 "$@" >"$T/out" 2>"$T/err" || got=$?
	[ $got -lt 124 ] || die "hangs: $*"
	return $got
}

mode list-301
expect_exit 3 "eu-moon-1" "another region, in words" batonfsd --check -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=2s
mode list-307
expect_exit 3 "b.s3.moon.example" "another endpoint, in words" batonfsd --check -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=2s
mode list-skew
expect_exit 3 "clock" "a clock that differs, in words" batonfsd --check -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=2s
mode list-html
expect_exit 3 "not a listing" "a web page is no bucket" batonfsd --check -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=2s
mode list-silent
expect_exit 3 "no answer in time" "silence" batonfsd --check -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=1s
mode ok

fresh
serve -u /=s3://b -s s3.endpoint="$E" -s ufs.timeout=1500ms -s ufs.low.speed.time=1s -o attr_timeout=0,entry_timeout=0
pid=$(daemon_pid)
expect "an honest answer" cmp "$M/$F" "$O/$F"

well() { # the same daemon serves on, with the right bytes
	mode ok
	[ "$(daemon_pid)" = "$pid" ] || die "after $1: another daemon"
	cmp "$M/$F" "$O/$F" || die "after $1: wrong bytes, or not well again"
}

# The whole file right, or an error; what came before an error is right as well.
for how in error html 503 301 307 skew headers silent close junk \
	etag range longer shorter 200 cut reset stall slow; do
	fresh
	# The name is known when the lies begin.
	within 60 stat "$M/$F" || die "stat: $(cat "$T/err")"
	mode "get-$how"
	got=0
	within 60 dd if="$M/$F" of="$T/copy" bs=64k || got=$?
	if [ $got -eq 0 ]; then
		cmp -s "$T/copy" "$O/$F" || die "get-$how: wrong bytes without an error"
	else
		cmp -s -n "$(stat -c %s "$T/copy")" "$T/copy" "$O/$F" || die "get-$how: wrong bytes before the error"
	fi
	case $how in
	error | html | 503 | 301 | 307 | skew | headers | silent | close | junk | etag | range | shorter | longer)
		[ $got -ne 0 ] || die "get-$how: no error" ;;
	200 | cut | reset)
		[ $got -eq 0 ] || die "get-$how: $(cat "$T/err")" ;;
	esac
	well "get-$how"
done
ok "bodies: errors in 2xx, cuts, wrong ranges, tags and lengths, resets, stalls, slow bytes, redirects"

for how in error html 503 301 307 skew headers silent close junk old noetag nodate; do
	fresh
	mode "head-$how"
	got=0
	within 60 cat "$M/$F" || got=$?
	[ $got -ne 0 ] || cmp -s "$T/out" "$O/$F" || die "head-$how: wrong bytes without an error"
	[ $got -ne 0 ] || die "head-$how: no error"
	! grep -q 'No such file' "$T/err" || die "head-$how: an error became ENOENT"
	well "head-$how"
done
ok "attributes: none that cannot be believed, and no error becomes ENOENT"

# An object that is replaced between HEAD and GET, and one that is replaced while it is
# open, by a server that ignores If-Match as well.
fresh
within 60 stat "$M/$F" || die "stat"
mode get-ignore
exec 5<"$M/$F"
tr 'a-y' 'b-z' <"$O/$F" >"$O/.new"
mv "$O/.new" "$O/$F"
got=0
within 60 cat <&5 || got=$?
exec 5<&-
[ $got -ne 0 ] || die "an open file became another one"
[ ! -s "$T/out" ] || die "bytes of another version: $(stat -c %s "$T/out")"
ok "an object that changes under its reader is an error, never a mix"
well "a replaced object"

for how in error html 503 301 307 skew headers silent close junk bomb deep value token empty \
	backward foreign notoken short stall slow; do
	mode "list-$how"
	got=0
	within 60 ls "$M" || got=$?
	[ $got -ne 0 ] || die "list-$how: no error, but: $(head -c 300 "$T/out")"
	well "list-$how"
done
ok "listings: errors in 2xx, bombs, depth, tokens that repeat or never end, foreign keys, cuts, stalls"

mode list-many
got=0
within 60 ls "$M" || got=$?
[ $got -ne 0 ] || die "30000 entries in one page: no error"
well "list-many"
mode list-forever
got=0
timeout -k 60 3 ls -U "$M" >/dev/null 2>&1 || got=$?
[ $got -eq 124 ] || die "a listing without end ended with $got"
well "list-forever"
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
[ "$rss" -lt 1500000 ] || die "a listing without end is kept: $rss kB"
ok "a listing without end can be interrupted, and is not kept"

mode ok
expect "the names are all there again" diff <(ls "$O") <(ls "$M")
[ "$(daemon_pid)" = "$pid" ] || die "another daemon"
ok "all by one daemon"

# An upgrade while storage is silent, and an end while it is.
fresh
mode ok
within 60 stat "$M/$F" || die "stat"
mode get-silent
cat "$M/$F" >"$T/late" 2>/dev/null &
reader=$!
expect "an upgrade while storage is silent" timeout 60 batonfs -m "$M" upgrade >/dev/null
mode ok
wait "$reader" || true
[ ! -s "$T/late" ] || cmp -s -n "$(stat -c %s "$T/late")" "$T/late" "$O/$F" || die "wrong bytes after the upgrade"
stop
[ ! -s "$T/hostile.err" ] || die "the server: $(cat "$T/hostile.err")"
