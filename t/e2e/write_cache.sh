# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# The write cache: daemons that are killed, at random and at named points, or replaced, under
# writers that note what each call answered.  What was acknowledged is there, byte for byte,
# and in the storage in the end.  Sourced by the tests on directories and on buckets, which
# set STORE (flags of the daemon; BARE: those of one that has the storage alone, as well) and
# define stored PATH, which prints an object, or fails.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit
# shellcheck source=t/e2e/workers.sh
. "$BATONFS_SRC/t/e2e/workers.sh"

ROUNDS=${ROUNDS:-1}
ACKS=$BATONFS_SRC/t/e2e/acks.py
POINTS="create.made write.done secure.synced secure.recorded release park session.end
	persist.adopted persist.begun persist.stored persist.recorded"
STORE=()
BARE=()

faults_taken_once
PATH=$T/bin:$PATH

cat >"$T/rules.json" <<'RULES'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/back/**", "policyMode": "WRITE_BACK"},
               {"path": "/temp/**", "policyMode": "TRANSIENT"},
               {"path": "/none/**", "policyMode": "NO_CACHE"}]}
RULES

with_cache() {
	serve "${STORE[@]}" -s worker.page.store.dir="$T/cache" -s write.cache.enabled=true \
		-s "keeper.restart.limit=1000 in 1min"
}

write_in() { # DIR SEED
	worker_start "$2" python3 "$ACKS" write "$M/$1" "$2" "$T/list.$1.$2"
	wait_until 60 "writer $2 writes" test -s "$T/list.$1.$2"
}

checked() { # WHERE DIR...
	local where=$1 d
	shift
	for d in "$@"; do
		python3 "$ACKS" check "$T/list.$d".* "$M/$d" || die "$d: $where"
		ok "$d: what was acknowledged is in $where"
	done
}

staged_at_most() { # so many files are here, beside the one that says which node this is
	[ "$(find "$T/cache/staged" -type f ! -name node | wc -l)" -le "$1" ]
}

# What each policy promises; leaves the daemon running.
promises() {
	local p

	with_cache
	expect "rules are taken" batonfs -m "$M" pathconfig set "$T/rules.json"
	mkdir "$M/back" "$M/temp" "$M/none" "$M/thru"
	for p in back temp none thru; do
		printf 'something' >"$M/$p/a" || die "$p: a write failed"
		[ "$(cat "$M/$p/a")" = something ] || die "$p: it reads otherwise"
	done
	for p in none thru; do
		[ "$(stored $p/a)" = something ] || die "$p: closed, and not in the storage"
	done
	ok "after close(2) NO_CACHE and WRITE_THROUGH are in the storage"
	printf 'more' >>"$M/none/a" || die "a closed file under NO_CACHE cannot be appended to"
	for p in back temp thru; do
		(printf 'more' >>"$M/$p/a") 2>/dev/null && die "$p: opened for writing when it was closed"
		[ "$(cat "$M/$p/a")" = something ] || die "$p: changed by that"
	done
	ok "what is closed under a policy is not written again"
	wait_until 60 "WRITE_BACK is stored in the background" stored back/a
	expect "all is stored that is to be" batonfs -m "$M" async-persist drain --timeout 60s
	[ "$(stored back/a)" = something ] || die "stored otherwise"
	not stored temp/a 2>/dev/null || die "TRANSIENT was stored"
	# TRANSIENT: its bytes, and their checksums.
	wait_until 60 "of what is stored nothing is kept here" staged_at_most 2
	rm "$M/back/a" "$M/temp/a" "$M/thru/a" "$M/none/a"
	for p in back none thru; do
		wait_until 60 "deleted here, it goes in the storage" not stored $p/a
	done
	wait_until 60 "of what is deleted nothing is kept" staged_at_most 0
	ok "deleted is deleted"
}

# Killed and replaced at random.
killed_at_random() { # TIMES
	local i

	for i in $(seq "$1"); do
		sleep "0.$((RANDOM % 4 + 1))"
		if [ $((i % 4)) = 0 ]; then
			batonfs -m "$M" upgrade >/dev/null || die "upgrade"
		else
			kill -9 "$(daemon_pid)"
		fi
		wait_until 60 "a daemon serves" daemon_pid
		workers_alive "kill $i"
	done
	ok "writers did not notice $1 kills and upgrades"
}

dead_or_worker_ended() { # PID
	not kill -0 "$1" || some_worker_ended
}

# Killed where it hurts.
killed_at_points() {
	local point pid

	for point in $POINTS; do
		next_has "$point=kill@$((RANDOM % 3 + 1))"
		pid=$(cat "$T/fault.pid")
		wait_until 60 "it comes by $point and dies" dead_or_worker_ended "$pid"
		workers_alive "$point"
		wait_until 60 "another one serves" daemon_pid
		workers_alive "$point"
	done
	ok "nor that it died at $(echo "$POINTS" | wc -w) named points"
}

everything() {
	local i

	promises
	write_in back 1
	write_in temp 2
	write_in thru 3
	for i in $(seq "$ROUNDS"); do
		killed_at_random 5
		killed_at_points
	done
	workers_stop
	checked "the mount" back temp thru
	expect "all is stored" batonfs -m "$M" async-persist drain --timeout 60s
	stop
	with_cache
	checked "the next mount" back temp thru
	batonfs -m "$M" pathconfig test --path /back/x | grep -q WRITE_BACK ||
		die "the rules are forgotten"
	ok "and the rules are there"
	stop
	# With nothing but the storage.
	serve "${STORE[@]}" "${BARE[@]}" -s worker.page.store.dir="$T/other"
	checked "the storage" back thru
	[ -z "$(find "$M/temp" -type f 2>/dev/null)" ] || die "TRANSIENT was stored"
	stop
}
