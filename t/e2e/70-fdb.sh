#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The write cache with its records in FoundationDB, over a directory, under daemons that get
# kill -9 (see write_cache.sh), while commits conflict, or nobody knows if they have happened.
. "${BATONFS_SRC:-.}/t/e2e/write_cache.sh" || exit
# shellcheck source=t/e2e/fdb.sh
. "$BATONFS_SRC/t/e2e/fdb.sh"

stored() { # PATH
	cat "$T/store/$1" 2>/dev/null
}

cluster_start
faults "read 1007 percent=1" "commit 1020 percent=5" "commit 1021 maybe percent=5"
mkdir "$T/store"
STORE=(-u /="file://$T/store" "${CLUSTER[@]}")
BARE=(-s meta.backend=embedded)
everything
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left"
ok "no temporary file is left"
if ! is_real; then
	expect "commits of unknown outcome were met" fired commit 1021
	expect "and conflicts" fired commit 1020
fi
