#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What very many files that wait to be stored cost: memory, the commands that tell of them,
# the periodic check, a restart, an upgrade, umount.  N=n files that wait, of BYTES each,
# which are put straight into the metadata store (1,000,000 take some minutes).
. "${BATONFS_SRC:-.}/t/bench/bench.sh" || exit

N=${N:-20000}
BYTES=${BYTES:-100}
DIRS=16

# On a tmpfs: the disk's moods do not count.
S=$(mktemp -d /dev/shm/batonfs-bench.XXXXXX)
own_end() {
	umount -l "$M" 2>/dev/null
	rm -rf "$S"
}
# The storage takes nothing: each try fails and is put off.
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0", "defaultRule": {"policyMode": "WRITE_BACK"}}
END
for d in $(seq 0 $((DIRS - 1))); do
	mkdir -p "$S/store/d$d"
done
export BATONFS_FAULT=persist.begun=errno:5
STORE=(-u "/=file://$S/store" -s write.cache.enabled=true
	-s write.staging.dir="$S/cache/staged" -s meta.dir="$S/cache/meta"
	-s worker.page.store.size=1TiB -s worker.page.store.pinned.file.capacity.limit.ratio=1)
# The kernel keeps the names that it was told: all are known, to the end.
begin() {
	serve "${STORE[@]}" -s state.size=8GiB -s keeper.restart.limit="1000 in 1min" \
		-o attr_timeout=36000,entry_timeout=36000
}
now() {
	date +%s%N
}
took() { # COMMAND...: milliseconds
	local began
	began=$(now)
	"$@" >/dev/null || die "$*"
	calc "($(now) - $began) / 1e6"
}
rss() { # KiB
	awk '$1 == "RssAnon:" { print $2 }' "/proc/$(daemon_pid)/status"
}
status() {
	batonfs -m "$M" --json status
}
first_row() {
	batonfs -m "$M" async-persist list 2>/dev/null | head -n 2
}
one() {
	batonfs -m "$M" async-persist stat --path /d1/1
}
line() { # FILES
	say "$(printf '%8d files wait: RssAnon %7d KiB, status %6.1f ms, first rows %6.1f ms, stat %6.1f ms' \
		"$1" "$(rss)" "$(took status)" "$(took first_row)" "$(took one)")"
}
# slowest SECONDS: the longest that a stat(2) of a known name, asked of the daemon, and a
# status took meanwhile; and the most memory
cat >"$T/watch.py" <<'END'
import os, subprocess, sys, time
seconds, mount, pid = float(sys.argv[1]), sys.argv[2], sys.argv[3]
end, call, tell, rss, fd = time.time() + seconds, 0, 0, 0, os.open(mount, os.O_RDONLY)
while time.time() < end:
    began = time.perf_counter()
    os.statvfs(fd)
    call = max(call, time.perf_counter() - began)
    began = time.perf_counter()
    subprocess.run(["batonfs", "-m", mount, "status"], stdout=subprocess.DEVNULL, check=True)
    tell = max(tell, time.perf_counter() - began)
    with open(f"/proc/{pid}/status") as f:
        rss = max(rss, *(int(l.split()[1]) for l in f if l.startswith("RssAnon")))
    time.sleep(0.005)
print(f"{call * 1000:.1f} {tell * 1000:.1f} {rss}")
END
slowest() {
	python3 "$T/watch.py" "$1" "$M" "$(daemon_pid)"
}

begin
empty=$(rss)
say "$(printf '%8d files wait: RssAnon %7d KiB, status %6.1f ms' 0 "$empty" "$(took status)")"
stop
began=$(now)
bench_waiting "$S/cache/meta" "$N" $DIRS "$BYTES"
say "$N files put into the metadata store in $(calc "($(now) - $began) / 1e9") s"
began=$(now)
begin
say "the mount serves after $(calc "($(now) - $began) / 1e9") s"
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
line "$N"
began=$(now)
found=$(find "$M" -type f -size +0 -printf x | wc -c)
[ "$found" = "$N" ] || die "find saw $found files"
say "find of all of them: $(calc "($(now) - $began) / 1e9") s"
line "$N"
say "$(status | jq -r '"\(.nodes) nodes known, \(.persist.waiting) wait, metadata store \(.metadata.used_bytes / 1048576 | floor) MiB"')"
verdict "$(calc "($(rss) - $empty) / 1024")" "<=" 32 "RssAnon: MiB more than without"
verdict "$(took status)" "<=" 100 "status with $N files that wait: ms"
verdict "$(took first_row)" "<=" 200 "async-persist list, its first rows: ms"
began=$(now)
listed=$(batonfs -m "$M" --timeout 0 async-persist list | grep -vc 'last error' || true)
say "all $listed rows in $(calc "($(now) - $began) / 1e9") s, RssAnon then $(rss) KiB"
[ "$listed" -ge "$N" ] || die "$listed rows, not $N"

# --- the periodic check
read -r call tell most <<<"$(slowest 5)"
say "$(printf 'no check:   slowest call %8.1f ms, slowest status %8.1f ms, RssAnon %7d KiB' "$call" "$tell" "$most")"
batonfs -m "$M" conf set write.cache.async.check.orphan.timeout 1s >/dev/null
batonfs -m "$M" conf set write.cache.async.file.check.period 1s >/dev/null
kill -9 "$(daemon_pid)"
wait_until 60 "a new daemon serves" daemon_pid
read -r call tell most <<<"$(slowest "${CHECK_SECONDS:-30}")"
say "$(printf 'with checks: slowest call %7.1f ms, slowest status %8.1f ms, RssAnon %7d KiB' "$call" "$tell" "$most")"
verdict "$call" "<=" 100 "slowest call while all is checked: ms"
verdict "$(calc "($most - $empty) / 1024")" "<=" 32 "RssAnon while all is checked: MiB more"
batonfs -m "$M" conf set write.cache.async.file.check.period 10min >/dev/null

# --- restart and upgrade
for _ in 1 2 3; do
	pid=$(daemon_pid)
	kill -9 "$pid"
	began=$(now)
	stat -f "$M" >/dev/null
	calc "($(now) - $began) / 1e6" >>"$T/kill"
	echo >>"$T/kill"
	wait_until 60 "a new daemon serves" daemon_pid
	began=$(now)
	status >/dev/null
	say "kill -9: a call waited $(tail -n 1 "$T/kill") ms, status then $(calc "($(now) - $began) / 1e6") ms"
done
verdict "$(sort -g "$T/kill" | tail -n 1)" "<=" 1000 "longest recovery from kill -9: ms"
for _ in 1 2 3; do
	batonfs -m "$M" upgrade >/dev/null || die "upgrade"
	status | jq .last_takeover.pause_ms >>"$T/pause"
done
verdict "$(sort -g "$T/pause" | tail -n 1)" "<=" 50 "longest pause of an upgrade: ms"
line "$N"

# --- the end
began=$(now)
batonfs -m "$M" umount 2>"$T/refused" && die "umount is not refused"
say "umount refuses in $(calc "($(now) - $began) / 1e6") ms: $(cat "$T/refused")"
began=$(now)
batonfs -m "$M" --json fs rm -R /d1 >"$T/rm.json" || die "fs rm: $(cat "$T/rm.json")"
say "fs rm -R of $((N / DIRS)) of them: $(calc "($(now) - $began) / 1e9") s, RssAnon $(rss) KiB"
began=$(now)
batonfs -m "$M" umount --force >/dev/null
say "umount --force, with $N nodes known, ends in $(calc "($(now) - $began) / 1e9") s"
wait_until 60 "the keeper ends" not kill -0 "$keeper"

# --- the next mount, whose storage takes them
unset BATONFS_FAULT
began=$(now)
serve "${STORE[@]}"
say "the next mount serves after $(calc "($(now) - $began) / 1e9") s"
before=$(status | jq .persist.waiting)
batonfs -m "$M" async-persist drain --timeout "${DRAIN_SECONDS:-20}s" 2>"$T/drain" || true
after=$(status | jq .persist.waiting)
say "drained for ${DRAIN_SECONDS:-20} s: $((before - after)) of $before stored: $(cat "$T/drain")"
batonfs -m "$M" umount --force >/dev/null
wait_until 60 "the keeper ends" not kill -0 "$keeper"
finish
