# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# Sourced by every end-to-end test: a scratch directory, a daemon under its keeper,
# conditions instead of sleeps, and a clean-up that also works when a test fails.
#
#	BATONFS_BUILD	where batonfsd, batonfs, batonfs-keeper and pattern were built
#	BATONFS_SRC	the source tree
set -eu

: "${BATONFS_BUILD:=$PWD}" "${BATONFS_SRC:=$PWD}"

# Before Linux 6.9 a crash of the daemon ends the mount: what kills it proves nothing.
if grep -qE 'kill -(9|KILL)' "$0" && ! printf '6.9\n%s\n' "$(uname -r)" | sort -CV; then
	echo "skipped: it kills daemons, which only Linux 6.9 and later survive; this is $(uname -r)"
	exit 77
fi
T=$(mktemp -d /tmp/batonfs-e2e.XXXXXX)
M=$T/mnt
LOG=$T/daemon.log
# Every process of this test has this in its environment; so it is found again.
export BATONFS_TEST_DIR=$T
export PATH=$BATONFS_BUILD:$PATH
# No credentials of the person who runs the tests, no proxy.
export HOME=$T AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_CONFIG_FILE=/dev/null no_proxy='*'
unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE NOTIFY_SOCKET
unset AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI
unset AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE SSL_CERT_DIR
export AWS_EC2_METADATA_DISABLED=true
# Daemons that a keeper starts again may have no log: a sanitizer's words go to files.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$T/sanitizer
export UBSAN_OPTIONS=${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$T/sanitizer
mkdir "$M"
checks=0

ours() { # pids of this test's processes, but not this shell
	local d all=(/proc/[0-9]*/environ)
	# One look at all of them: hundreds of small programs would take a second.
	while read -r d; do
		d=${d#/proc/}
		d=${d%/environ}
		[ "$d" = $$ ] || [ "$d" = "$BASHPID" ] || echo "$d"
	done < <(grep -lzsxF "BATONFS_TEST_DIR=$T" "${all[@]}")
}

show_ours() { # what this test's processes are doing, for who looks for the reason
	local p t
	for p in $(ours); do
		[ -e "/proc/$p/exe" ] || continue
		echo "--- $p: $(tr '\0' ' ' <"/proc/$p/cmdline" | cut -c 1-200)"
		for t in "/proc/$p/task/"*; do
			echo "$(cat "$t/comm") $(awk '/^State/ { print $2 }' "$t/status") $(cat "$t/wchan")"
		done
	done 2>/dev/null | head -n 60
	awk -v t="$T" 'index($5, t) == 1 { print "--- mounted: " $5 }' /proc/self/mountinfo
}

cleanup() {
	local status=$? pid m n words='ERROR: [A-Za-z]*Sanitizer|runtime error:|Assertion'
	trap - EXIT
	set +e
	# A daemon that a sanitizer stopped was replaced by its keeper: look for its words.
	if grep -qsE "$words" "$LOG" "$T"/sanitizer.*; then
		echo "FAILED: there is a sanitizer's report or an assertion"
		grep -nsE -A 30 "$words" "$LOG" "$T"/sanitizer.* | head -n 80
		status=1
	fi
	if [ $status -ne 0 ]; then
		echo "--- log of the daemon:"
		tail -n 60 "$LOG" 2>/dev/null
		show_ours
	fi
	while read -r m; do
		umount -l "$m" 2>/dev/null
	done < <(awk -v t="$T" 'index($5, t) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
	for n in 1 2 3 4 5 6 7 8 9 10; do
		pid=$(ours)
		[ -z "$pid" ] && break
		# shellcheck disable=SC2086
		kill -9 $pid 2>/dev/null
		sleep 0.05
	done
	n=$(systemd_escape "$T")
	rm -rf "/run/batonfs/$n"* "/dev/shm/batonfs/$n"* "/var/lib/batonfs/$n"*
	rm -rf --one-file-system "$T"
	[ $status -eq 0 ] && echo "$checks checks passed"
	exit $status
}
trap cleanup EXIT

systemd_escape() { # /tmp/a.b -> tmp-a.b, as the daemon names its directories
	local p=${1#/}
	p=${p//-/\\x2d}
	echo "${p//\//-}"
}

die() {
	echo "FAILED: $*" >&2
	exit 1
}

ok() { # description: the line before it held
	checks=$((checks + 1))
	echo "ok $checks - $*"
}

# expect DESCRIPTION COMMAND...: the command succeeds
expect() {
	local what=$1
	shift
	"$@" || die "$what: $*"
	ok "$what"
}

# expect_exit CODE TEXT DESCRIPTION COMMAND...: exit code, and TEXT in its output
expect_exit() {
	local code=$1 text=$2 what=$3 out got=0
	shift 3
	out=$("$@" 2>&1) || got=$?
	[ "$got" = "$code" ] || die "$what: exit code $got, not $code: $* : $out"
	case $out in
	*"$text"*) ;;
	*) die "$what: no '$text' in: $out" ;;
	esac
	ok "$what"
}

# wait_until SECONDS DESCRIPTION COMMAND...
wait_until() {
	local end=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		[ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || die "waited in vain: $what: $*"
		sleep 0.02
	done
}

# On a slow machine an upgrade may take longer than changes wait for it by default.
PATIENT="-s fuse.migration.mutation.hold=10min"

# The daemon under a keeper (with the options $KEEPER_OPTIONS), ready when this returns:
# serve [flags...]
serve() {
	: >"$T/ready"
	# shellcheck disable=SC2086
	batonfs-keeper ${KEEPER_OPTIONS:-} --ready-fd 9 -- batonfsd -f $PATIENT "$@" "$M" 9>"$T/ready" 2>>"$LOG" &
	keeper=$!
	wait_until 60 "the mount serves" test -s "$T/ready"
	[ "$(cat "$T/ready")" = 0 ] || die "the daemon ended with $(cat "$T/ready"): $(tail -n 5 "$LOG")"
}

# may_only HEX: the daemon that serves has these capabilities (as in /proc/PID/status), as far
# as this shell can give them, in each of its threads; and says so.
may_only() {
	local pid t has told want n
	pid=$(daemon_pid) || return 1
	want=$(printf %016x $((16#$1 & 16#$(awk '/^CapBnd/ { print $2 }' /proc/self/status))))
	for t in /proc/"$pid"/task/*; do
		has=$(awk '/^Cap(Eff|Prm)/ { print $2 }' "$t/status" | sort -u)
		[ "$has" = "$want" ] || die "${t##*/} of the daemon has the capabilities $has, not $want"
	done
	told=$(batonfs -m "$M" --json status | jq '.capabilities | length')
	for ((n = 16#$want; n > 0; n >>= 1)); do
		told=$((told - (n & 1)))
	done
	[ "$told" = 0 ] || die "status tells of $told capabilities more than $want"
}

# The serving daemon's pid; fails if none answers.
daemon_pid() {
	local said
	said=$(batonfs -m "$M" --json status) && jq -e '.pid | numbers' <<<"$said"
}

# status_is FILTER: what status says is neither false nor null, as jq has it; false when nobody
# answers (jq 1.6 takes nothing at all for true).
status_is() {
	local said
	said=$(batonfs -m "$M" --json status) && jq -e "$1" <<<"$said" >/dev/null
}

# other_serves PID: a daemon answers, and it is not that one.
other_serves() {
	local p
	p=$(daemon_pid) && [ "$p" != "$1" ]
}

# crash: kill -9 for the daemon that serves, and another one answers.
crash() {
	local pid
	pid=$(daemon_pid) || die "no daemon serves that could be killed"
	kill -9 "$pid"
	wait_until 120 "a daemon after kill -9" other_serves "$pid"
}

# counter NAME: as the daemon that serves has it.
counter() {
	batonfs -m "$M" --json status | jq ".counters[\"$1\"]"
}

# faults_taken_once: $T/bin/batonfsd is the daemon from here on, with a fault that is taken
# once.  Whichever of its starts comes next has in BATONFS_FAULT what fault() said, whatever
# the environment says; $T/fault.taken is what was $T/fault then, and $T/fault.pid, which
# appears whole, has that daemon's pid.  All other starts have none.  PATH is the caller's.
faults_taken_once() {
	mkdir -p "$T/bin"
	cat >"$T/bin/batonfsd" <<WRAPPER
#!/bin/bash
unset BATONFS_FAULT
if mv "$T/fault" "$T/fault.taken" 2>/dev/null; then
	export BATONFS_FAULT=\$(cat "$T/fault.taken")
	echo \$\$ >"$T/fault.pid.new"
	mv "$T/fault.pid.new" "$T/fault.pid"
fi
exec -a "\$0" "$BATONFS_BUILD/batonfsd" "\$@"
WRAPPER
	chmod +x "$T/bin/batonfsd"
}

fault() { # FAULT: for the next start; it replaces one that was not taken
	echo "$1" >"$T/fault.new"
	mv "$T/fault.new" "$T/fault"
}

# next_has FAULT: kills the daemon; the keeper's next one, which begins now, has the fault.
next_has() {
	local serves
	serves=$(daemon_pid) || die "no daemon serves that could be killed"
	rm -f "$T/fault.pid"
	fault "$1"
	kill -9 "$serves"
	wait_until 60 "a daemon with the fault $1 begins" test -e "$T/fault.pid"
}

# keeper_ends: waits for the end of the keeper, which must be in order.
keeper_ends() {
	wait_until 60 "the keeper ends" not kill -0 "$keeper"
	wait "$keeper" || die "the keeper ended with $?"
}

# stop: unmounts through the client and waits for the keeper's end.
stop() {
	batonfs -m "$M" umount
	keeper_ends
}

# stop_forced: the same while there is what the storage does not have.
stop_forced() {
	batonfs -m "$M" umount --force
	keeper_ends
}

not() {
	! "$@"
}

mounted() {
	grep -q " $M fuse.batonfs " /proc/self/mounts
}

# connection: the directory that the kernel has for the mount, in a mount of our own.
connection() {
	mkdir -p "$T/connections"
	mountpoint -q "$T/connections" || mount -t fusectl none "$T/connections" || return 1
	echo "$T/connections/$(awk -v m="$M" '$5 == m { split($3, d, ":"); print d[2] }' /proc/self/mountinfo)"
}

sums() { # DIR: checksums of everything below, by path
	(cd "$1" && find . -type f -print0 | sort -z | xargs -0 -r md5sum)
}

free_port() {
	local p
	for p in $(shuf -i 20000-32000 -n 50); do
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return 0; }
	done
	die "no free port"
}

# Readers that compare every byte: readers_start MODE... FILES given in $FILES
readers_start() {
	local mode
	readers=""
	for mode in "$@"; do
		# shellcheck disable=SC2086
		pattern loop "$mode" $FILES >"$T/reader.$mode.out" 2>"$T/reader.$mode.err" &
		readers="$readers $mode:$!"
	done
}

readers_alive() {
	local r
	for r in $readers; do
		kill -0 "${r#*:}" 2>/dev/null || die "reader ${r%:*} ended early: $(cat "$T/reader.${r%:*}.err")"
	done
}

readers_stop() { # fails if one saw an error or a wrong byte
	local r bad=0
	for r in $readers; do
		kill -TERM "${r#*:}" 2>/dev/null || true
	done
	for r in $readers; do
		wait "${r#*:}" || bad=1
		cat "$T/reader.${r%:*}.out" "$T/reader.${r%:*}.err"
	done
	readers=""
	[ $bad = 0 ] || die "a reader saw an error or a wrong byte"
}
