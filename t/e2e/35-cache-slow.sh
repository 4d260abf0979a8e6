#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A cache disk that does not answer: readers get their bytes from the storage, what has
# nothing to do with the disk goes on, a daemon that begins meanwhile serves, and the disk
# is used again when it answers.
# shellcheck source=t/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir "$T/src" "$T/copy"
pattern gen "$T/src/a.6000001" "$T/src/b.300000"
for n in $(seq 8); do
	head -c 70000 /dev/urandom >"$T/src/file-$n"
done
cp "$T/src/"* "$T/copy"

# Operations of the disk wait until this file is there.
answers=$T/answers
export BATONFS_FAULT="cache.disk=until:$answers"

b() {
	batonfs -m "$M" "$@"
}

# How long the disk may take.  Where it is not to be found slow, a slow machine is no reason.
patience() { # DURATION
	b conf set worker.page.store.slow.time "$1" >/dev/null
}

cache() { # MEMBER
	b --json status | jq -r ".cache.$1"
}

more_than() { # COUNTER VALUE
	[ "$(counter "$1")" -gt "$2" ]
}

# Each time a file that nobody has seen.
new=0
touch_something() {
	new=$((new + 1))
	head -c 70000 /dev/urandom >"$T/copy/new-$new"
	cp "$T/copy/new-$new" "$T/src"
	cmp "$T/copy/new-$new" "$M/new-$new" || die "new-$new cannot be read"
}

becomes() { # WORD
	touch_something
	[ "$(cache state)" = "$1" ]
}

right() { # every byte as it should be
	local f

	(cd "$T/copy" && find . -type f) | while read -r f; do
		cmp "$T/copy/$f" "$M/$f" || exit 1
	done
}

stored() { # so many bytes are on the disk
	[ "$(cache used_bytes)" -ge "$1" ]
}

touch "$answers"
serve -u "/=file://$T/src" -s worker.page.store.dir="$T/store" -s meta.dir="$T/meta" \
	-s write.staging.dir="$T/staged" -s worker.page.store.slow.time=10min -s pool.threads=2 \
	-s keeper.restart.limit="100 in 1min"
wait_until 60 "it is well" becomes ok
right
wait_until 60 "all is stored" stored 6860000
# Nothing of it is in this one's memory, so it must ask the disk.
b upgrade >/dev/null || die "upgrade"

rm "$answers"
patience 500ms
for n in 1 2 3 4; do
	cmp "$T/copy/file-$n" "$M/file-$n" &
	pids[n]=$!
done
# None of this needs the cache disk.
expect "a file is made" sh -c "echo x >'$M/made' && sync '$M/made'"
expect "a directory is made, listed and removed" \
	sh -c "mkdir '$M/d' && ls '$M/d' && rmdir '$M/d' && rm '$M/made'"
for n in 1 2 3 4; do
	wait "${pids[n]}" || die "file-$n"
done
ok "what waits for the disk is answered by the storage"
wait_until 60 "the disk is found slow" becomes slow
expect_exit 0 "takes too long" "status says so" b status
expect "all is read as it is" right
wait_until 60 "what was not stored is counted" more_than cache.behind 0
expect_exit 0 "file-1" "files are listed with what is cached of them" b fs ls /

pid=$(daemon_pid)
kill -9 "$pid"
wait_until 60 "a daemon after the crash" other_serves "$pid"
patience 500ms
expect "all is read after a crash" right
wait_until 60 "its disk is slow as well" becomes slow

patience 10min
touch "$answers"
wait_until 150 "the disk is used again" becomes ok
ok "the disk is used again"
expect "all is read then" right
expect "and an upgrade goes well" b upgrade
expect "all is read after it" right
stop
