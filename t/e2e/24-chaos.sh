#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Upgrades and kills at random moments while a bucket is read through a page store
# too small for it, and the storage stops answering now and then.  SECONDS_LONG=n for
# a longer run, SEED=n for the same sequence of decisions.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

SECONDS_LONG=${SECONDS_LONG:-20}
RANDOM=${SEED:=$$}
echo "SEED=$SEED"
bucket_begin
mkdir -p "$T/src/d"
pattern gen "$T/src/d/a.100000000" "$T/src/d/b.40000000" "$T/src/d/c.60000001" "$T/src/d/e.4097"
s3_many data "$T/src"
rgw=$(gateway_pid)

serve -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" -s worker.page.store.dir="$T/cache" \
	-s worker.page.store.size=64MiB -s memory.limit=64MiB \
	-s keeper.restart.limit="1000 in 1min" -o attr_timeout=0.3,entry_timeout=0.3
FILES="$M/d/a.100000000 $M/d/b.40000000 $M/d/c.60000001 $M/d/e.4097"
readers_start buffered direct mmap reopen list
end=$(($(date +%s) + SECONDS_LONG))
ups=0 kills=0 stops=0 lost=0
# On a slow machine one of them may not have had its turn by then.
tried() {
	[ "$(date +%s)" -ge $((end + 120)) ] || { [ $ups != 0 ] && [ $kills != 0 ]; }
}
while [ "$(date +%s)" -lt $end ] || ! tried; do
	# The moment is what is random here; nothing is waited for.
	sleep 0.$((RANDOM % 9))
	case $((RANDOM % 5)) in
	0 | 1)
		# One that a kill before it has hit may fail, and says so.
		if batonfs -m "$M" upgrade >"$T/up" 2>&1; then ups=$((ups + 1)); else lost=$((lost + 1)); fi
		;;
	2 | 3)
		if p=$(daemon_pid 2>/dev/null) && [ -n "$p" ] && kill -9 "$p" 2>/dev/null; then
			kills=$((kills + 1))
		fi
		;;
	*)
		kill -STOP "$rgw"
		sleep 0.$((RANDOM % 9))
		kill -CONT "$rgw"
		stops=$((stops + 1))
		;;
	esac
	readers_alive
done
echo "$ups upgrades ($lost lost to a kill), $kills kills, $stops times the storage hung"
if [ $ups = 0 ] || [ $kills = 0 ]; then die "nothing was tried"; fi
# Every reader comes by once more.
expect "the files are right" pattern check "$M/d/b.40000000" "$M/d/e.4097"
readers_stop
ok "no reader saw an error or a wrong byte"
stop
