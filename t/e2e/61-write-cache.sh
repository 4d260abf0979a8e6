#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The write cache over a directory, whose daemons get kill -9; see write_cache.sh.
. "${BATONFS_SRC:-.}/t/e2e/write_cache.sh" || exit

stored() { # PATH
	cat "$T/store/$1" 2>/dev/null
}

mkdir "$T/store"
STORE=(-u /="file://$T/store")
everything
[ -z "$(find "$T/store" -name '.batonfs*')" ] || die "temporary files were left"
ok "no temporary file is left"
