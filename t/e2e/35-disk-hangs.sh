#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A local disk that does not answer when a daemon begins or ends: it begins all the same and
# serves from the storage, an upgrade is refused at once, the end comes soon, and nothing of
# what was being written is lost.
# shellcheck source=t/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir "$T/src" "$T/copy" "$T/store"
for n in $(seq 12); do
	head -c 70000 /dev/urandom >"$T/src/file-$n"
done
cp "$T/src/"* "$T/copy"

# Operations of the page store's disk, and the first of that of staged files, wait until
# this file is there.
answers=$T/answers
export BATONFS_FAULT="cache.disk=until:$answers,staging.lock=until:$answers"

b() {
	batonfs -m "$M" "$@"
}

state_is() { # WORD
	[ "$(b --json status | jq -r .cache.state)" = "$1" ]
}

# What is asked for makes the disk be asked.
becomes() { # WORD
	right && state_is "$1"
}

right() { # every byte as it should be
	local f

	for f in "$T/copy/"*; do
		cmp "$f" "$M/${f##*/}" || return 1
	done
}

other_than() { # another daemon than pid $1 serves
	local p
	p=$(daemon_pid) && [ -n "$p" ] && [ "$p" != "$1" ]
}

begin() { # what the storage has is asked for each time
	serve -o attr_timeout=0,entry_timeout=0 -u "/=file://$T/src" \
		-s worker.page.store.dir="$T/store" -s meta.dir="$T/meta" \
		-s write.staging.dir="$T/staged" -s worker.page.store.slow.time=500ms \
		-s keeper.restart.limit="100 in 1min"
}

# --- it begins
begin
ok "a daemon serves although its disk does not answer"
expect "its disk is slow" state_is slow
expect_exit 0 "takes too long" "status says so" b status
expect "all is read as it is" right
# Who writes waits: the directory might be another mount's.
sh -c "echo written >'$M/early' && sync '$M/early'" &
writer=$!
expect_exit 5 "does not answer" "an upgrade is refused" b upgrade
expect "all is read after that" right
expect "no name was made before the disk is known" test ! -e "$T/staged"
touch "$answers"
wait_until 60 "the disk is used" becomes ok
ok "the disk is used when it answers"
wait "$writer" || die "the writer that waited"
expect "what waited is written" grep -qx written "$T/src/early"
echo written >"$T/copy/early"
b conf set worker.page.store.slow.time 10min >/dev/null
expect "an upgrade goes well now" b upgrade
b conf set worker.page.store.slow.time 500ms >/dev/null

# --- it begins after a crash, with something half written
exec 3>"$M/half"
echo first >&3
rm "$answers"
pid=$(daemon_pid)
kill -9 "$pid"
wait_until 120 "a daemon after the crash" other_than "$pid"
expect "all is read after a crash" right
touch "$answers"
echo second >&3
exec 3>&-
printf 'first\nsecond\n' >"$T/copy/half"
expect "what was half written is there" cmp "$T/copy/half" "$T/src/half"
wait_until 60 "the disk is used again" becomes ok

# --- it ends, and its keeper's next one begins
rm "$answers"
b fs free / >/dev/null 2>&1 || true
wait_until 60 "it hangs" becomes slow
pid=$(daemon_pid)
kill -TERM "$pid"
wait_until 120 "the next daemon" other_than "$pid"
expect "all is read after a restart" right
expect "its disk is slow, too" state_is slow

# --- it ends for good: fuse.migration.ongoing.request.grace_period and ten seconds
from=$SECONDS
expect "it is unmounted" b umount
echo "# that took $((SECONDS - from)) s"
wait_until 60 "its processes are gone" sh -c "! pgrep -f -- '-f.*$M\$' >/dev/null"
expect "nothing is mounted" sh -c "! grep -q ' $M ' /proc/self/mountinfo"

# --- and what it left is of use
touch "$answers"
begin
wait_until 60 "it is well" becomes ok
expect "a start after all that reads all" right
stop
