#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A bit that changes on the local disk after a file was closed: it is not read and not
# stored, and all is kept.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/store"

faults_taken_once
PATH=$T/bin:$PATH

cat >"$T/rules.json" <<'RULES'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"}}
RULES

state_is() { # PATH STATE
	[ "$(batonfs -m "$M" --json fs stat "$1" | jq -r .persistence)" = "$2" ]
}

flip() { # FILE OFFSET
	python3 - "$1" "$2" <<'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    c = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([c ^ 16]))
PY
}

# Nothing is stored before the next daemon.
fault persist.begun=errno:5
serve -u /="file://$T/store" -s write.cache.enabled=true -s write.staging.dir="$T/staged" \
	-s meta.dir="$T/meta" -s keeper.restart.limit="100 in 1min" \
	-s worker.write.cache.async.persist.retry.max.interval=1s
expect "rules are taken" batonfs -m "$M" pathconfig set "$T/rules.json"
head -c 300000 /dev/urandom >"$T/data"
cp "$T/data" "$M/bad" || die "cp failed"
bad=$(find "$T/staged" -type f -size +200k ! -name '*.sum')
[ -f "$bad" ] || die "where is the local file? $(ls -l "$T/staged")"
[ -f "$bad.sum" ] || die "it has no checksums"
cp "$T/data" "$M/good" || die "cp failed"
flip "$bad" 123456
kill -9 "$(daemon_pid)"
wait_until 60 "what was changed is not stored" state_is /bad FAILED
wait_until 60 "what was not is" state_is /good PERSISTED
cmp "$T/data" "$T/store/good" || die "stored otherwise"
[ ! -e "$T/store/bad" ] || die "it was stored"
[ -f "$bad" ] || die "the local file was deleted"
[ "$(counter staged.checksum.errors)" -ge 1 ] ||
	die "it was not counted"
ok "it was counted"
# The kernel's own copy is that of before.
read_block() { # N
	dd if="$M/bad" iflag=direct bs=4096 skip="$1" count=1 of="$T/block" 2>"$T/dd.err"
}
read_block 29 || die "another block cannot be read: $(cat "$T/dd.err")"
read_block 30 && die "it can be read"
grep -q 'Input/output error' "$T/dd.err" || die "it fails otherwise: $(cat "$T/dd.err")"
ok "it cannot be read, and what is beside it can"
flip "$bad" 123456
expect "made good again it is tried again" batonfs -m "$M" async-persist retry /bad
wait_until 60 "and stored" state_is /bad PERSISTED
cmp "$T/data" "$T/store/bad" || die "stored otherwise"
