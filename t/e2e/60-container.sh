#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Containers with the image of etc/container: an application container reads and writes
# through a mount that a sidecar serves, while the sidecar is replaced by another one (with
# keepers, and with daemons that are both pid 1) and while the daemon in it is killed, in
# 96 MiB of memory.  By runc; where that cannot run, by unshare and without the limit.
# ROUNDS=n for more replacements, CONTAINERS=unshare to do without runc.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-2}
LIMIT=$((96 << 20))
# A sanitizer's own memory is not what is tested.
! ldd "$BATONFS_BUILD/batonfsd" | grep -qE 'lib(a|t|m)san' || LIMIT=$((1 << 30))
V=$T/volume
I=$T/image
A=$T/app
skip() {
	echo "skipped: $*"
	trap - EXIT
	umount -l "$T/shared" "$V/state" 2>/dev/null || true
	rm -rf --one-file-system "$T"
	exit 77
}
[ -c /dev/fuse ] || skip "no /dev/fuse here"
unshare --mount --pid --fork true 2>/dev/null || skip "no namespaces can be made here"

# --- the image, and the directory that mounts are seen through
"$BATONFS_SRC/etc/container/make-root" "$I" "$BATONFS_BUILD"/{batonfsd,batonfs,batonfs-keeper}
expect "the image has no shell" not test -e "$I/bin/sh"
cp "$BATONFS_SRC/t/lib/lsan.supp" "$I/etc/"
mkdir -p "$V/run" "$V/data" "$V/state" "$T/src/d" "$T/shared/mnt" "$T/box" "$T/out"
mount --bind "$T/shared" "$T/shared"
mount --make-shared "$T/shared"
mount -t tmpfs -o size=64m state "$V/state"
pattern gen "$T/src/d/a.6000000" "$T/src/d/b.3000001" "$T/src/d/c.4096"
# shellcheck disable=SC2054
DAEMON=(/bin/batonfsd -f -u /=file:///src -s control.socket=/run/batonfs/control
	-s fuse.migration.mutation.hold=10min
	-s state.dir=/state/mnt -s worker.page.store.dir=/data/cache -s worker.page.store.size=64MiB
	-o allow_other,attr_timeout=0.2,entry_timeout=0.2 /shared/mnt)
KEPT=(/bin/batonfs-keeper --stay -- "${DAEMON[@]}")

# --- the application's root: this machine's programs, and the mount
mkdir -p "$A/usr" "$A/etc" "$A/tests"
for d in bin lib lib64 sbin; do ln -s "usr/$d" "$A/$d"; done
cp "$BATONFS_BUILD/pattern" "$A/"
cat >"$A/main" <<'MAIN'
#!/bin/bash
# Until SIGTERM: readers that compare every byte, writers that know every answer.
pids=""
cd /shared/mnt || exit 1
for mode in direct mmap reopen list; do
	/pattern loop $mode d/a.6000000 d/b.3000001 d/c.4096 >"/out/reader.$mode" 2>&1 &
	pids="$pids $!"
done
for n in 1 2; do
	MUTATOR_LIST=/out/list.$n python3 /tests/mutator.py "/shared/mnt/w$n" "$n" >"/out/writer.$n" 2>&1 &
	pids="$pids $!"
done
term=""
trap 'term=1' TERM
: >/out/began
code=0
while [ -z "$term" ]; do
	for pid in $pids; do
		[ -d "/proc/$pid" ] || term=early
	done
	sleep 0.1
done
kill -TERM $pids
for pid in $pids; do
	wait "$pid" || code=$?
done
[ "$term" = 1 ] || code=$term
echo "$code" >/out/ended.new
mv /out/ended.new /out/ended
MAIN
chmod +x "$A/main"

# --- boxes
# box_config NAME ROOT HOW-MOUNTS-SPREAD LIMIT|- FAULT BINDS COMMAND...: BINDS are FROM:TO
# or, read-only, FROM:TO:ro
box_config() {
	local name=$1 root=$2 spread=$3 limit=$4 fault=$5 binds=$6
	shift 6
	mkdir -p "$T/box/$name"
	jq -n --argjson files "$(ulimit -Hn)" --argjson args "$(printf '%s\n' "$@" | jq -R . | jq -s .)" --arg root "$root" --arg t "$T" --arg spread "$spread" --arg limit "${limit#-}" \
		--arg binds "$binds" --arg fault "$fault" '
	def caps: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_CHOWN",
		"CAP_FOWNER", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
	def tmpfs(at): {destination: at, type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"]};
	{ociVersion: "1.0.2", root: {path: $root, readonly: true}, hostname: "box",
	process: {terminal: false, cwd: "/", user: {uid: 0, gid: 0}, args: $args,
		env: (["PATH=/bin:/usr/bin", "HOME=/", "BATONFS_TEST_DIR=" + $t,
			"LSAN_OPTIONS=suppressions=/etc/lsan.supp:print_suppressions=0"] +
			if $fault == "" then [] else ["BATONFS_FAULT=" + $fault] end),
		noNewPrivileges: true, rlimits: [{type: "RLIMIT_NOFILE", hard: $files, soft: $files}],
		capabilities: {bounding: caps, effective: caps, permitted: caps}},
	mounts: ([{destination: "/proc", type: "proc", source: "proc"}, tmpfs("/dev"), tmpfs("/run"),
		tmpfs("/tmp"),
		{destination: "/sys", type: "sysfs", source: "sysfs", options: ["ro"]},
		{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"]},
		{destination: "/shared", type: "bind", source: ($t + "/shared"), options: ["rbind", $spread]}] +
		[$binds | split(" ") | .[] | split(":") | {destination: .[1], type: "bind", source: .[0],
			options: (["rbind", "rprivate"] + .[2:])}]),
	linux: {namespaces: (["pid", "mount", "ipc", "uts", "network"] | map({type: .})),
		rootfsPropagation: $spread,
		devices: [{path: "/dev/fuse", type: "c", major: 10, minor: 229, fileMode: 438, uid: 0, gid: 0}],
		resources: ({devices: [{allow: true, access: "rwm"}]} +
			if $limit == "" then {} else {memory: {limit: ($limit | tonumber)}} end)}}' \
		>"$T/box/$name/config.json"
}

# What runc does of it, without limits and with the host's devices and /sys.
cat >"$T/unshared" <<'UNSHARED'
#!/bin/bash
set -eu
config=$1
root=$(jq -r .root.path "$config")
# Not the mounts of others, which would live as long as this namespace.
awk -v t="${config%/box/*}/" '/ - fuse\.batonfs / && index($5, t) != 1 { print $5 }' /proc/self/mountinfo |
	while read -r other; do
		umount -l "$(printf '%b' "$other")"
	done
mount --rbind "$root" "$root"
mount --make-rprivate "$root"
while read -r to type from options; do
	[ "$to" != /sys/fs/cgroup ] || continue
	mkdir -p "$root$to"
	case $type:$to in
	*:/dev | *:/sys) mount --rbind "$to" "$root$to" && mount --make-rslave "$root$to" ;;
	tmpfs:*) mount -t tmpfs tmpfs "$root$to" ;;
	proc:*) mount -t proc proc "$root$to" ;;
	bind:*)
		mount --rbind "$from" "$root$to"
		mount "--make-$(echo "$options" | grep -oE 'rshared|rslave|rprivate')" "$root$to"
		;;
	esac
done < <(jq -r '.mounts[] | [.destination, .type, .source, (.options // [] | join(","))] | join(" ")' "$config")
readarray -t env < <(jq -r '.process.env[]' "$config")
readarray -t args < <(jq -r '.process.args[]' "$config")
exec env -i "${env[@]}" "$(command -v chroot)" "$root" "${args[@]}"
UNSHARED
chmod +x "$T/unshared"

runc_() {
	runc --root "$T/runc" "$@"
}

id_of() { # the runtime's and the cgroup's name of a box
	echo "batonfs-${T##*.}-$1"
}

declare -A box # by name: the runtime's process
box_start() { # NAME, configured before
	if [ "$way" = runc ]; then
		runc_ run --bundle "$T/box/$1" "$(id_of "$1")" >>"$LOG" 2>&1 </dev/null &
	else
		unshare --mount --propagation unchanged --pid --fork --kill-child --ipc --uts \
			"$T/unshared" "$T/box/$1/config.json" >>"$LOG" 2>&1 </dev/null &
	fi
	box[$1]=$!
}

box_signal() { # NAME SIGNAL: to its first process
	if [ "$way" = runc ]; then
		runc_ kill "$(id_of "$1")" "$2"
	else
		kill "-$2" "$(pgrep -P "${box[$1]}")"
	fi
}

sidecar() { # NAME [FAULT] -- COMMAND...
	local name=$1 fault=""
	shift
	[ "$1" = -- ] || { fault=$1 && shift; }
	shift
	box_config "$name" "$I" rshared "$limit" "$fault" \
		"$V/run:/run/batonfs $V/state:/state $V/data:/data $T/src:/src" "$@"
	box_start "$name"
}

boxes_end() {
	local d
	for d in "$T"/runc/*; do
		[ ! -d "$d" ] || runc_ delete --force "${d##*/}"
	done
	umount -l "$V/state"
} 2>/dev/null
trap 'status=$?; set +e; boxes_end; (exit $status); cleanup' EXIT

# runc with the limit, without it, or no runc: the first that works.
way="" limit=""
for try in "runc $LIMIT" "runc -" "unshare -"; do
	way=${try% *} limit=${try#* }
	[ "$way" != runc ] || command -v runc >/dev/null || continue
	[ "$way" = "${CONTAINERS:-$way}" ] || continue
	: >"$LOG"
	sidecar "probe${limit:0:1}" -- /bin/batonfsd --version
	wait "${box[probe${limit:0:1}]}" && grep -q '^libfuse ' "$LOG" && break
	echo "   $way, limit $limit: $(tail -n 1 "$LOG")"
	way=""
done
[ -n "$way" ] || skip "neither runc nor unshare can make a container here"
echo "containers by $way, memory limit: ${limit/#-/none (no memory cgroup can be made here)}"
: >"$LOG"

# --- what is looked at
ask() {
	timeout 60 batonfs -S "$V/run/control" "$@"
}

daemons() { # their pids as we see them
	local p
	for p in $(pgrep -x batonfsd); do
		! grep -qz "^BATONFS_TEST_DIR=$T\$" "/proc/$p/environ" 2>/dev/null || echo "$p"
	done
}

app_fine() {
	[ ! -e "$T/out/ended" ] || die "the application ended early: $(cat "$T"/out/*)"
}

replies() { # how many the daemon that serves now has given
	ask --json status | jq '.counters["fuse.replies"]'
}

one_serves() { # ... and only one is there, which is none of $1, and it has worked
	local now
	now=$(daemons)
	[ "$(echo "$now" | wc -w)" = 1 ] && [ "$now" != "$1" ] && [ "$(replies)" -gt 500 ]
}

served() { # DESCRIPTION PID-OF-THE-ONE-BEFORE
	wait_until 60 "$1: the next daemon serves alone" one_serves "$2"
	app_fine
}

peak() { # BOX: its memory's, and no OOM kill
	local dir bytes oom found=""
	[ "$limit" != - ] || return 0
	while read -r dir; do
		if [ -e "$dir/memory.peak" ]; then
			bytes=$(cat "$dir/memory.peak")
			oom=$(awk '$1 == "oom_kill" { print $2 }' "$dir/memory.events")
		elif [ -e "$dir/memory.max_usage_in_bytes" ]; then
			bytes=$(cat "$dir/memory.max_usage_in_bytes")
			oom=$(awk '$1 == "oom_kill" { print $2 }' "$dir/memory.oom_control")
		else
			continue
		fi
		found=1
		echo "   $1: memory peak $((bytes >> 10)) KiB of $((LIMIT >> 10)), OOM kills: ${oom:-0}"
		[ "${oom:-0}" = 0 ] || die "$1: the kernel killed for want of memory"
	done < <(find /sys/fs/cgroup -maxdepth 5 -type d -name "$(id_of "$1")")
	[ -n "$found" ] || echo "   $1: its memory cgroup says nothing"
}

ended() { # BOX: in order, told to or by itself
	wait "${box[$1]}" || die "$1 ended with $?: $(tail -n 5 "$LOG")"
}

# --- a sidecar and an application
answers() {
	[ "$(ask --json status | jq -r .mountpoint)" = /shared/mnt ]
}
sidecar a0 -- "${KEPT[@]}"
wait_until 60 "the first sidecar serves" answers
expect "its mount is seen outside" test -e "$T/shared/mnt/d/c.4096"
box_config app "$A" rslave - "" "/usr:/usr:ro /etc:/etc:ro $T/out:/out $BATONFS_SRC/t/e2e:/tests:ro" \
	/bin/bash /main
box_start app
wait_until 60 "the application has begun" test -e "$T/out/began"
served "the application works" ""

# --- replaced by a container with a keeper of its own; the daemon in it is killed
for n in $(seq "$ROUNDS"); do
	before=$(daemons)
	sidecar "a$n" -- "${KEPT[@]}"
	served "replacement $n" "$before"
	[ "$(ask --json status | jq -r .last_takeover.kind)" = takeover ] || die "a$n did not take over"
	kill -0 "${box[a$((n - 1))]}" || die "the sidecar before did not stay"
	peak "a$((n - 1))"
	box_signal "a$((n - 1))" TERM
	ended "a$((n - 1))"
	before=$(daemons)
	kill -9 "$before"
	served "kill -9 after replacement $n" "$before"
	[ "$(ask --json status | jq -r .last_takeover.kind)" = recovery ] || die "a$n did not recover"
done
ok "$ROUNDS times a sidecar took over from another one, and survived kill -9 of its daemon"

# --- a successor that dies
before=$(daemons)
sidecar dies takeover.new.ready=kill -- "${KEPT[@]}"
expect "a successor that dies on the way ends" not wait "${box[dies]}"
expect "and the daemon goes on" test "$(daemons)" = "$before"
app_fine

# --- without keepers: both daemons are the first processes of their pid namespaces
sidecar p1 -- "${DAEMON[@]}"
served "a daemon that is pid 1 took over" "$before"
peak "a$ROUNDS"
box_signal "a$ROUNDS" TERM
ended "a$ROUNDS"
before=$(daemons)
sidecar p2 -- "${DAEMON[@]}"
served "from it another one that is pid 1" "$before"
ended p1
before=$(daemons)
expect "two daemons that are both pid 1 follow each other" \
	test "$(awk '$1 == "NSpid:" { print $NF }' "/proc/$before/status")" = 1
sidecar last -- "${KEPT[@]}"
served "back to one with a keeper" "$before"
ended p2
before=$(daemons)
kill -9 "$before"
served "kill -9 there" "$before"

# --- nobody saw anything
app_fine
box_signal app TERM
wait_until 60 "the application ends" test -e "$T/out/ended"
wait "${box[app]}" || true
cat "$T"/out/reader.* "$T"/out/writer.* | sed 's/^/   /'
expect "no error and no wrong byte in the application" test "$(cat "$T/out/ended")" = 0
for n in 1 2; do
	python3 "$BATONFS_SRC/t/e2e/mutator.py" --check "$T/out/list.$n" "$T/src/w$n" || die "writer $n: the storage has something else"
done
ok "the storage has what the application wrote"
peak last
box_signal last TERM
ended last
expect "SIGTERM to the last one unmounts" not grep -q " $T/shared/mnt " /proc/self/mounts

# --- the container is killed as a whole: errors, and the next start clears up
sidecar k1 -- "${KEPT[@]}"
wait_until 60 "it serves" answers
before=$(daemons)
box_signal k1 KILL
wait "${box[k1]}" || true
gone_wrong() { # an error, not a hang
	local got=0
	timeout 60 ls "$T/shared/mnt" || got=$?
	[ $got != 0 ] && [ $got != 124 ]
}
wait_until 60 "callers get an error" gone_wrong
if [ "$way" = runc ]; then runc_ delete --force "$(id_of k1)"; fi
sidecar k2 -- "${KEPT[@]}"
wait_until 60 "the next one serves" answers
expect "after the end of all the next container mounts anew" pattern check "$T/shared/mnt/d/b.3000001"
expect "and once" test "$(grep -c " $T/shared/mnt " /proc/self/mounts)" = 1
box_signal k2 TERM
ended k2
