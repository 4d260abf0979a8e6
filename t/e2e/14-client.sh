#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# What the manual says of the client and the configuration: members of each JSON
# answer, which setting wins and how long, the protocol of the control socket,
# warnings, and memory.limit as a ceiling.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
mkdir -p "$S/sub" "$S/memory"
echo content >"$S/sub/file"
echo odd >"$S/sub/"$'b\xffyte'
URI="/=file://$S"

members() { # COMMAND...: names of all members, sorted
	batonfs -m "$M" --json "$@" | jq -r '[paths(type | . != "object" and . != "array")
		| map(if type == "number" then "N" else . end) | join(".")] | unique | .[]' | xargs
}

has_members() { # WANT COMMAND...
	local want=$1 got
	shift
	got=$(members "$@") || die "$*: no JSON"
	[ "$got" = "$(tr ' ' '\n' <<<"$want" | LC_ALL=C sort | xargs)" ] || die "$*: has $got, not $want"
	ok "--json $*"
}

cat >"$T/conf" <<'C'
# a comment
ufs.timeout = 11s   # and one behind a value
alluxio.ufs.connect.timeout = 3s
ufs.timeout = 12s

  readahead.max  =  7MiB
C
serve -c "$T/conf" -s readahead.max=8MiB -s readahead.max=9MiB -u "$URI"
expect "the last line of the file wins" test "$(batonfs -m "$M" conf get ufs.timeout)" = 12s
expect "-s wins over the file, the last one over the others" test "$(batonfs -m "$M" conf get readahead.max)" = 9MiB
expect "a name with another system's prefix" test "$(batonfs -m "$M" conf get ufs.connect.timeout)" = 3s

# --- members that scripts may rely on; nulls and empty lists included
entry="path kind size mtime persistence cached_bytes cached_percent stored_bytes"
batonfs -m "$M" --json status >"$T/status"
jq -e '(keys_unsorted == ["version", "pid", "uptime_seconds", "mountpoint", "subtree", "mount_id",
	"keeper", "capabilities", "storage", "metadata", "cluster", "cache", "read_only", "persist_queue", "writing",
	"persist", "files_open",
	"directories_open", "nodes", "requests_running", "last_takeover", "takeovers", "warnings", "counters"])
	and (.storage[0] | keys_unsorted == ["path", "uri", "health", "since_seconds", "last_error"])
	and (.metadata | keys_unsorted == ["backend", "dir", "health", "error", "records", "used_bytes"])
	and .cluster == []
	and (.writing | keys_unsorted == ["dir", "files_open", "files_failed", "staged_files",
		"staged_bytes", "dirty_bytes", "failed_example", "error", "deletions_pending",
		"deletions_refused", "deletions_error", "set_aside"])
	and (.persist | keys_unsorted == ["waiting", "waiting_bytes", "running", "failed", "transient",
		"persisted", "oldest_seconds", "outside", "pinned_bytes", "pinned_limit_bytes", "last_error"])
	and (.cache | keys_unsorted == ["dir", "index_open", "capacity_bytes", "used_bytes",
		"pinned_bytes", "memory_limit_bytes", "memory_used_bytes", "fetches_running", "state",
		"since_seconds", "error", "last_error"])
	and (.last_takeover | keys_unsorted == ["kind", "time", "pause_ms", "from_pid",
		"from_version", "moved", "requests_refused",
		"requests_aborted", "requests_replayed", "failure", "failure_time"])
	and (.last_takeover.moved | keys_unsorted == ["handles", "requests_held", "requests_resumed"])
	and (.takeovers | keys_unsorted == ["takeovers", "recoveries", "failed", "requests_held",
		"requests_resumed", "requests_refused", "requests_aborted", "requests_replayed", "pause"])
	and (.takeovers.pause | keys_unsorted == ["total_ms", "longest_ms", "histogram"])
	and (.counters | to_entries | length > 10 and all(.value | type == "number"))' \
	"$T/status" >/dev/null || die "status: $(cat "$T/status")"
ok "--json status has the members of the manual"
has_members "name value" conf get ufs.timeout
has_members "name value previous kept" conf set ufs.timeout 13s
has_members "properties.N.name properties.N.value properties.N.default properties.N.range properties.N.live properties.N.help" conf list
has_members "entries.N.${entry// / entries.N.} count complete" fs ls -R /
has_members "$entry mtime_nsec version storage storage_path mode uid gid" fs stat /sub/file
has_members "check message" upgrade --check
expect "options may stand behind the command" test "$(batonfs conf get ufs.timeout -m "$M" --json | jq -r .value)" = 13s
expect "an odd byte comes as a lone surrogate" python3 -c '
import json, os, subprocess, sys
out = subprocess.run(["batonfs", "-m", sys.argv[1], "--json", "fs", "ls", "/sub"], stdout=-1, check=True)
names = [e["path"].encode("utf-8", "surrogateescape") for e in json.loads(out.stdout)["entries"]]
assert b"/sub/b\xffyte" in names, names' "$M"
expect_exit 1 "No such file" "errors are words with --json too" batonfs -m "$M" --json fs stat /nope
[ -z "$(batonfs -m "$M" --json fs stat /nope 2>/dev/null)" ] || die "an error wrote to stdout"
ok "and leave the standard output empty"

# --- a client of one's own, as the manual shows it
expect "the protocol of the control socket" python3 -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
lines = s.makefile("rw")
def ask(command, **args):
    lines.write(json.dumps({"command": command, "args": args}) + "\n")
    lines.flush()
    rows = []
    while "progress" in (row := json.loads(lines.readline())):
        rows.append(row["progress"])
    return rows, row
rows, end = ask("fs ls", path="/", recursive=False)
assert [r["path"] for r in rows] == ["/memory", "/sub"] and "result" in end, (rows, end)
rows, end = ask("fs stat", path="/nope")
assert end["error"]["code"] == "ENOENT" and "/nope" in end["error"]["message"], end
assert "status" in [c["name"] for c in ask("help")[1]["result"]["commands"]]
assert "error" in ask("frobnicate")[1]' "/run/batonfs/$(systemd_escape "$M")/control"
expect_exit 0 "Usage: batonfs conf set NAME VALUE" "help of a command" batonfs conf set -h
expect_exit 0 "batonfs conf list" "help of a family of commands" batonfs conf -h

# --- how long a live setting holds
cp "$T/conf" "$T/conf.before"
before=$(daemon_pid)
kill -9 "$before"
wait_until 60 "another daemon serves" other_serves "$before"
expect "conf set outlives a crash" test "$(batonfs -m "$M" conf get ufs.timeout)" = 13s
expect "and does not change the file" cmp "$T/conf" "$T/conf.before"
expect "upgrade with another setting" batonfs -m "$M" upgrade -- -s memory.limit=20MiB
expect "which is in effect" test "$(batonfs -m "$M" conf get memory.limit)" = 20MiB
before=$(daemon_pid)
for with in "-- -s bogus=1" "--binary /bin/true"; do
	# shellcheck disable=SC2086
	if batonfs -m "$M" upgrade $with >"$T/out" 2>&1; then
		die "upgrade $with should fail"
	fi
	words=$(sed -n 's/^batonfs: upgrade: //p' "$T/out")
	[ -n "$words" ] || die "upgrade $with: $(cat "$T/out")"
	[ "$(batonfs -m "$M" --json status | jq -r .last_takeover.failure)" = "$words" ] ||
		die "status does not tell the failure: $words"
	ok "upgrade $with fails, and status tells it: $words"
done
[ "$(daemon_pid)" = "$before" ] || die "the daemon was replaced"
ok "and the old daemon serves on"
cd "$M"
expect_exit 1 "in use" "umount of a mount in use" batonfs -m "$M" umount
batonfs -m "$M" umount --force --json >"$T/umount"
cd "$T"
[ "$(jq -r '.mountpoint + (keys | length | tostring)' "$T/umount")" = "${M}1" ] || die "umount --json: $(cat "$T/umount")"
ok "umount --force --json"
keeper_ends

# --- a kernel that cannot send requests again: known before the crash
BATONFS_FAULT=daemon.kernel.old=errno:1 serve -u "$URI"
batonfs -m "$M" status | grep -q 'Warning: .*a crash of the daemon ends the mount' || die "no warning: $(batonfs -m "$M" status)"
ok "status warns if the kernel cannot help after a crash"
stop

# --- memory.limit: many readers of many files
for i in $(seq 24); do names="${names:-} $S/memory/$i.3000001"; done
# shellcheck disable=SC2086
pattern gen $names
serve -u "$URI" -s memory.limit=16MiB
base=$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$(daemon_pid)/status")
jobs=''
for i in $(seq 24); do
	pattern check "$M/memory/$i.3000001" &
	jobs="$jobs $!"
	dd if="$M/memory/$i.3000001" of=/dev/null bs=2M iflag=direct status=none &
	jobs="$jobs $!"
done
most=0
reading() { # samples what is in use; true while one reads
	local j used
	used=$(batonfs -m "$M" --json status | jq .cache.memory_used_bytes)
	[ "$used" -le "$most" ] || most=$used
	for j in $jobs; do
		kill -0 "$j" 2>/dev/null && return 0
	done
	return 1
}
while reading; do :; done
for j in $jobs; do
	wait "$j" || die "a reader failed"
done
if [ "$most" = 0 ] || [ "$most" -gt $((16 * 1024 * 1024)) ]; then
	die "buffers of $most bytes were in use"
fi
ok "48 readers with 16 MiB of buffers: all bytes right, at most $most bytes in use"
peak=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$(daemon_pid)/status")
# 72 MB were read.  A sanitizer keeps what was freed for a while.
if ! grep -q __asan_init "$BATONFS_BUILD/batonfsd"; then
	[ $((peak - base)) -le $((40 * 1024)) ] || die "the daemon grew by $((peak - base)) KiB"
	ok "the process grew by $((peak - base)) KiB"
fi
stop
