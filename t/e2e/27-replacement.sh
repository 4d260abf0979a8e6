#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Upgrades and kills (at random moments, and at named points) under 8 readers of a bucket
# that compare every byte: while the storage answers, while it is slow, while it hangs and
# while it is not there.  None of them sees an error.
#
#	ROUNDS=25	100 upgrades and 100 kills: so many of both with each of the four
#	SEED=n		the same sequence of decisions
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/bucket.sh
. "$BATONFS_SRC/t/e2e/bucket.sh"

ROUNDS=${ROUNDS:-1}
RANDOM=${SEED:=$$}
echo "SEED=$SEED"
# Where a daemon dies that only reads, is replaced, or replaces another.
POINTS=(ufs.read=kill@2 recover.adopted=kill ufs.list=kill release=kill@2 ufs.stat=kill@3
	daemon.begin=kill ufs.read=kill@9)
HANDOVER=(new.hello new.state new.ready new.commit new.done old.ready old.commit)

bucket_begin
mkdir -p "$T/src/d"
pattern gen "$T/src/d/a.60000000" "$T/src/d/b.30000001" "$T/src/d/c.3000000" "$T/src/d/e.4097"
FILES="$M/d/a.60000000 $M/d/b.30000001 $M/d/c.3000000 $M/d/e.4097"
s3_many data "$T/src"

faults_taken_once

eight_start() {
	local i mode
	readers=""
	for i in 1 2; do
		for mode in buffered direct mmap list; do
			# shellcheck disable=SC2086
			pattern loop $mode $FILES >"$T/reader.$mode$i.out" 2>"$T/reader.$mode$i.err" &
			readers="$readers $mode$i:$!"
		done
	done
}

served() {
	wait_until 120 "a daemon serves" daemon_pid
	readers_alive
}

upgrades() {
	local i before
	for i in $(seq "$ROUNDS"); do
		before=$(daemon_pid)
		timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 ||
			die "upgrade $i: $(cat "$T/up")"
		other_serves "$before" || die "upgrade $i: the same process serves on"
		readers_alive
	done
	ok "$1: $ROUNDS upgrades"
}

kill_one() { # the one that serves; it may have met its fault just now
	local pid
	served
	pid=$(daemon_pid) || return 0
	kill -9 "$pid" 2>/dev/null || true
	wait_until 120 "another daemon serves" other_serves "$pid"
}

kills() {
	local i
	for i in $(seq "$ROUNDS"); do
		case $((RANDOM % 3)) in
		0)
			# Either side of a hand-over.  One of old.* has it from the upgrade before.
			fault "takeover.${HANDOVER[RANDOM % ${#HANDOVER[@]}]}=kill"
			timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 || true
			served
			timeout 200 batonfs -m "$M" upgrade --binary "$T/bin/batonfsd" >"$T/up" 2>&1 || true
			;;
		1)
			fault "${POINTS[RANDOM % ${#POINTS[@]}]}"
			kill_one
			;;
		*)
			# The moment is what is random here; nothing is waited for.
			sleep 0.$((RANDOM % 5))
			kill_one
			;;
		esac
		served
	done
	# What took a fault and did not come by it is not to meet it later.
	rm -f "$T/fault"
	kill_one
	ok "$1: $ROUNDS kills, random and at named points"
}

slow() { # answers for a fifth of the time
	local p
	p=$(gateway_pid)
	while :; do
		kill -STOP "$p"
		sleep 0.4
		kill -CONT "$p"
		sleep 0.1
	done
}

# shellcheck disable=SC2086
batonfs-keeper --ready-fd 9 -- "$T/bin/batonfsd" -f $PATIENT -u /=s3://data -s s3.endpoint="$RGW_ENDPOINT" \
	-s worker.page.store.dir="$T/cache" -s worker.page.store.size=64MiB -s memory.limit=64MiB \
	-s ufs.timeout=10min -s keeper.restart.limit="1000 in 1min" \
	-s fuse.migration.slow.read.timeout=1s -s fuse.migration.ongoing.request.grace_period=1s \
	-o attr_timeout=0.3,entry_timeout=0.3 "$M" 9>"$T/ready" 2>>"$LOG" &
keeper=$!
wait_until 120 "the daemon is ready" grep -q . "$T/ready"
eight_start

upgrades "the storage answers"
kills "the storage answers"

slow &
slow=$!
upgrades "the storage is slow"
kills "the storage is slow"
kill $slow
wait $slow 2>/dev/null || true
kill -CONT "$(gateway_pid)"

kill -STOP "$(gateway_pid)"
upgrades "the storage hangs"
kills "the storage hangs"
kill -CONT "$(gateway_pid)"
expect "and answers again" pattern check "$M/d/c.3000000"

kill -9 "$(gateway_pid)"
upgrades "the storage is not there"
kills "the storage is not there"
gateway_start
expect "and is there again" pattern check "$M/d/c.3000000" "$M/d/b.30000001"
readers_stop
ok "no reader saw an error or a wrong byte"
stop
