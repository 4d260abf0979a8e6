# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced, after lib.sh, by tests of two mounts of one storage: the second one is on $M2.

M2=$T/mnt2
mkdir "$M2"

serve_other() { # the same as serve, on the second mount point
	: >"$T/ready2"
	batonfs-keeper --ready-fd 8 -- batonfsd -f "$@" "$M2" 8>"$T/ready2" 2>>"$LOG" &
	keeper2=$!
	wait_until 60 "the second mount serves" test -s "$T/ready2"
	[ "$(cat "$T/ready2")" = 0 ] || die "the second daemon ended: $(tail -n 5 "$LOG")"
}

stop_other() {
	batonfs -m "$M2" umount
	wait_until 60 "the second keeper ends" not kill -0 "$keeper2"
	wait "$keeper2" || die "the second keeper ended with $?"
}
