#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Databases on the local disk whose pages cannot be read any more, as after an error of the
# disk: the page store's index and the metadata store.  The daemon lives on; what needs them
# ends with an error or goes past, status says why, and both are used again when their disk
# is well, with all that was in them.
# shellcheck source=t/e2e/lib.sh
. "$(dirname "$0")/lib.sh"

mkdir "$T/src" "$T/copy"
for n in $(seq 40); do
	head -c 70000 /dev/urandom >"$T/src/file-$n"
done
cp "$T/src/"* "$T/copy"

b() {
	batonfs -m "$M" "$@"
}

status_of() { # PATH IN THE JSON
	b --json status | jq -r "$1"
}

right() { # every byte as it should be
	local f

	(cd "$T/copy" && find . -type f) | while read -r f; do
		cmp "$T/copy/$f" "$M/$f" || exit 1
	done
}

stored() { # so many bytes are on the disk
	[ "$(status_of .cache.used_bytes)" -ge "$1" ]
}

# The two pages that LMDB keeps its state in stay, and the file itself: it is mapped.
fail() { # FILE
	cp "$1" "$1.image"
	truncate -s 8192 "$1"
}

mend() { # FILE
	dd if="$1.image" of="$1" conv=notrunc status=none
	rm "$1.image"
}

same_daemon() {
	[ "$(daemon_pid)" = "$pid" ]
}

says() { # PATH IN THE JSON, TEXT
	status_of "$1" | grep -q "$2"
}

serve -o attr_timeout=0,entry_timeout=0 -u "/=file://$T/src" \
	-s worker.page.store.dir="$T/store" -s meta.dir="$T/meta" \
	-s write.staging.dir="$T/staged" -s write.cache.enabled=true
pid=$(daemon_pid)
expect "all is read" right
# What is nowhere but here.
echo '{"apiVersion": "v1.0", "pathRules": [{"path": "/t/**", "policyMode": "TRANSIENT"}]}' \
	>"$T/rules"
b pathconfig set "$T/rules" >/dev/null || die "rules"
mkdir "$M/t" "$T/copy/t"
for n in $(seq 20); do
	head -c $((n * 7000)) /dev/urandom >"$T/copy/t/written-$n"
	cp "$T/copy/t/written-$n" "$M/t" || die "write"
done
wait_until 60 "all is stored" stored 2800000

# --- the metadata store
b upgrade >/dev/null || die "upgrade" # so that nothing of it is in memory
pid=$(daemon_pid)
fail "$T/meta/meta.mdb"
expect_exit 1 "Input/output error" "what needs a record fails" stat "$M/t/never-seen"
expect "nothing is written" not sh -c "echo x >'$M/t/new'"
expect "the daemon lives" same_daemon
wait_until 60 "status says why" says .metadata.error "cannot be read\|ends too early"
expect "it is not open" test "$(status_of .metadata.health)" != ok
mend "$T/meta/meta.mdb"
wait_until 60 "it is open again" says .metadata.health '^ok$'
expect "all is there, and right" right
cp "$T/copy/file-1" "$M/t/new" || die "write"
cp "$T/copy/file-1" "$T/copy/t/new"
expect "and more is written" right
expect "by the same daemon" same_daemon

# --- the index
fail "$T/store/index.mdb"
b fs free /file-1 >/dev/null 2>&1 || true
expect "all is read without the index" right
wait_until 60 "status says that it failed" says .cache.last_error "index"
expect "the daemon lives, too" same_daemon
mend "$T/store/index.mdb" 2>/dev/null || true
wait_until 150 "the page store is used again" says .cache.state '^ok$'
expect "all is read with it" right
expect "the same daemon has done all that" same_daemon
expect "and hands over to the next" b upgrade
expect "which reads all" right
stop
