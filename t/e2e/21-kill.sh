#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# 20 times kill -9 of the daemon under readers that compare every byte.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-20}
S=$T/src
mkdir -p "$S/d"
pattern gen "$S/d/a.30000000" "$S/d/b.3000001" "$S/d/c.4096" "$S/d/d.100003"
FILES="$M/d/a.30000000 $M/d/b.3000001 $M/d/c.4096 $M/d/d.100003"

serve -u "/=file://$S" -s worker.page.store.dir="$T/cache" -s worker.page.store.size=64MiB \
	-s keeper.restart.limit="1000 in 1min" -o attr_timeout=0.2,entry_timeout=0.2
readers_start buffered direct mmap reopen list

n=0
while [ $n -lt "$ROUNDS" ]; do
	crash
	readers_alive
	n=$((n + 1))
done
ok "$ROUNDS times killed and recovered"
status_is '.last_takeover.kind == "recovery"' || die "status does not tell the recovery"
ok "status tells the recovery"
readers_stop
ok "no reader saw an error or a wrong byte"

# Killed between an upgrade and the next: the keeper follows the main process.
before=$(daemon_pid)
batonfs -m "$M" upgrade
after=$(daemon_pid)
[ "$before" != "$after" ] || die "not upgraded"
crash
expect "files are right after upgrade and kill" pattern check "$M/d/a.30000000" "$M/d/b.3000001"
stop
