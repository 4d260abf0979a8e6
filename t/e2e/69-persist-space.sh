#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What is not stored yet takes room up to a limit, and no more; what nobody needs is cleaned up
# beside what is open; files outside of what is mounted are left alone; a large tree goes, over
# interruptions and deaths of the daemon.  FILES=100000 for a larger one.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

FILES=${FILES:-4000}
mkdir "$T/src"

cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/temp/**", "policyMode": "TRANSIENT"},
               {"path": "/none/**", "policyMode": "NO_CACHE"},
               {"path": "/**", "policyMode": "WRITE_BACK"}]}
END

begin() { # [FLAGS]
	serve -u "/=file://$T/src" -s write.cache.enabled=true -s write.staging.dir="$T/staged" \
		-s meta.dir="$T/meta" -s worker.page.store.dir="$T/cache" \
		-s worker.page.store.size=64MiB -s worker.page.store.pinned.file.capacity.limit.ratio=0.25 \
		-s worker.write.cache.async.persist.retry.max.interval=1s \
		-s keeper.restart.limit="1000 in 1min" -o attr_timeout=0.1,entry_timeout=0.1 "$@"
}

available() { # at most this many bytes
	[ "$(df --output=avail -B1 "$M/temp" | tail -n 1)" -le "$1" ]
}

# --- the limit: 16 MiB
begin
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$M/temp" "$M/back" "$M/none"
status_is '.persist.pinned_limit_bytes == 16777216' || die "the limit is another"
for n in $(seq 5); do
	head -c 3000000 /dev/zero >"$M/temp/$n" || die "temp/$n does not fit"
done
expect_exit 1 "No space left" "the write that does not fit is told so" \
	dd if=/dev/zero of="$M/temp/6" bs=1M count=8 status=none
rm -f "$M/temp/6"
wait_until 60 "what is pinned is counted" status_is '.persist.pinned_bytes == 15000000'
ok "status counts what is pinned"
expect "df knows the room that is left" available 1777216
[ "$(stat -c %s "$M/temp/5")" = 3000000 ] || die "temp/5 has another size"
expect "what was acknowledged is there" cmp -n 3000000 "$M/temp/5" /dev/zero
expect "where no policy governs there is room" \
	dd if=/dev/zero of="$M/none/large" bs=1M count=8 status=none
rm "$M/temp/1" "$M/temp/2" "$M/temp/3" "$M/temp/4"
wait_until 60 "the room is free again" status_is '.persist.pinned_bytes == 3000000'
expect "and can be used" dd if=/dev/zero of="$M/back/large" bs=1M count=12 status=none
expect "what is stored" batonfs -m "$M" async-persist drain --timeout 60s
wait_until 60 "is not pinned any more" status_is '.persist.pinned_bytes == 3000000'
expect "so more can be written" dd if=/dev/zero of="$M/back/more" bs=1M count=12 status=none
expect "and stored" batonfs -m "$M" async-persist drain --timeout 60s
rm "$M/temp/5" "$M/back/large" "$M/back/more"

# --- a tree goes
tree() { # FILES
	local i
	for i in $(seq $(($1 / 500))); do
		mkdir -p "$T/src/tree/d$((i % 4))/e$i"
		(cd "$T/src/tree/d$((i % 4))/e$i" && seq -f "f%g" 500 | xargs touch)
	done
}
left() {
	find "$T/src/tree" -type f 2>/dev/null | wc -l
}
fewer() { # than this many are left
	[ "$(left)" -lt "$1" ]
}
tree "$FILES"
mkdir "$M/tree/back"
for n in $(seq 50); do
	echo "$n" >"$M/tree/back/$n"
done
# Where this shell is slow it may be done before it can be interrupted.
for _ in 1 2 3 4 5; do
	batonfs -m "$M" fs rm -R /tree >"$T/rm.out" 2>&1 &
	rm_pid=$!
	wait_until 60 "it has begun" fewer "$FILES"
	kill -TERM $rm_pid 2>/dev/null || true
	wait $rm_pid || true
	[ ! -e "$T/src/tree" ] || break
	tree "$FILES"
	wait_until 60 "the new tree is seen" test -e "$M/tree/d1"
done
pid=$(daemon_pid)
had=$(left)
batonfs -m "$M" --json fs rm -R /tree >"$T/rm.json" 2>"$T/rm.err" &
rm_pid=$!
wait_until 60 "it has begun" fewer "$had"
kill -9 "$pid"
wait $rm_pid || die "what is interrupted cannot be gone on with: $(cat "$T/rm.err" "$T/rm.json")"
expect "it goes on where it was interrupted, over a death of the daemon" \
	jq -e '.complete and .failed == 0' "$T/rm.json"
expect "nothing is left of it" not test -e "$T/src/tree"
expect "nor for the mount" not test -e "$M/tree"
expect_exit 1 "No such file" "it is not there twice" batonfs -m "$M" fs rm -R /tree
wait_until 60 "nothing of it is pinned" status_is '.persist | .waiting == 0 and .pinned_bytes == 0'
ok "nothing of it waits"
expect "umount" batonfs -m "$M" umount
keeper_ends

# --- what nobody needs, beside what is open and what is kept
old=$T/staged/8000000000000abc
head -c 5000 /dev/zero >"$old"
echo sums >"$old.sum"
touch -d "2 hours ago" "$old" "$old.sum"
begin -s write.cache.async.file.check.period=1s -s write.cache.async.check.orphan.timeout=1s \
	-s worker.mark.writing.files.duration=1s
head -c 70000 /dev/urandom >"$T/kept"
cp "$T/kept" "$M/temp/kept"
exec 5>"$M/temp/open" 6>"$M/temp/never"
head -c 50000 "$T/kept" >&5
touch "$T/begun"
later() { # the clean-up has come by since
	touch "$T/now"
	[ "$(stat -c %Y "$T/now")" -gt $(($(stat -c %Y "$T/begun") + 5)) ]
}
wait_until 60 "a staged file that nothing belongs to goes" not test -e "$old"
expect "with its sums" not test -e "$old.sum"
wait_until 60 "some periods pass" later
tail -c 20000 "$T/kept" >&5
exec 5>&- 6>&-
expect "a file that is open for long is not touched" cmp "$T/kept" "$M/temp/open"
expect "nor one that is empty" test -e "$M/temp/never"
expect "nor one that is kept here" cmp "$T/kept" "$M/temp/kept"
stop
