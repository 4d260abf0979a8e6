#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# 20 upgrades under readers that compare every byte, and successors that die.
# ROUNDS=n for more.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

ROUNDS=${ROUNDS:-20}
S=$T/src
mkdir -p "$S/d"
pattern gen "$S/d/a.30000000" "$S/d/b.3000001" "$S/d/c.4096" "$S/d/d.100003"
FILES="$M/d/a.30000000 $M/d/b.3000001 $M/d/c.4096 $M/d/d.100003"

# 10,000 open handles and a working directory inside the mount.
cat >"$T/handles.py" <<'PY'
import os, resource, sys
n = 10000
resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, n + 100))
source = sys.argv[1]
os.chdir(sys.argv[2])
names = sorted(os.listdir('.'))
fds = [os.open(names[i % len(names)], os.O_RDONLY) for i in range(n)]
whole = [open(os.path.join(source, name), 'rb').read() for name in names]
print('ready', flush=True)
for line in sys.stdin:
    for i, fd in enumerate(fds):
        data = whole[i % len(names)]
        at = i * 4096 % len(data)
        assert os.pread(fd, 64, at) == data[at:at + 64], (names[i % len(names)], at)
        assert os.fstat(fd).st_size == len(data)
    assert sorted(os.listdir('.')) == names
    assert os.getcwd() == sys.argv[2]
    print('right', flush=True)
PY

open_count() { # of sockets and databases: files of the storage come and go
	find "/proc/$(daemon_pid)/fd" -type l -printf '%l\n' | grep -cE '^socket:|\.mdb$'
}

not_more() { # than N are open, once the connections of a moment are gone
	[ "$(open_count)" -le "$1" ]
}

# No page store: the pages come from storage again and again.
serve -u "/=file://$S" -s memory.limit=16MiB -o attr_timeout=0.2,entry_timeout=0.2
coproc HANDLES { python3 "$T/handles.py" "$S/d" "$M/d" 2>"$T/handles.err"; }
# Further on it is named by number: bash forgets the names when it ends.
exec 3<&"${HANDLES[0]}" 4>&"${HANDLES[1]}"
# shellcheck disable=SC2154
handles=$HANDLES_PID
read -r -t 60 word <&3 || die "open 10,000 handles: $(cat "$T/handles.err")"
[ "$word" = ready ] || die "$word"
readers_start buffered direct mmap reopen list
ino=$(stat -c %i "$M/d/a.30000000")
opened=$(open_count)
n=0 longest=0
while [ $n -lt "$ROUNDS" ]; do
	before=$(daemon_pid)
	batonfs -m "$M" upgrade >"$T/upgrade.out" 2>&1 || die "upgrade: $(cat "$T/upgrade.out")"
	after=$(daemon_pid)
	[ "$before" != "$after" ] || die "the same process serves on"
	wait_until 60 "the old daemon is gone" not kill -0 "$before"
	readers_alive
	pause=$(batonfs -m "$M" --json status | jq .last_takeover.pause_ms)
	longest=$(jq -n "[$longest, $pause] | max")
	n=$((n + 1))
done
readers_alive
ok "$ROUNDS upgrades, longest pause $longest ms"
wait_until 60 "no more is open than before" not_more $((opened + 4))
ok "descriptors do not add up"
echo now >&4
read -r -t 60 word <&3 || die "10,000 handles: $(cat "$T/handles.err")"
[ "$word" = right ] || die "$word"
exec 3<&- 4>&-
kill "$handles"
wait "$handles" 2>/dev/null || true
ok "10,000 open handles and a cwd are as they were"
[ "$(stat -c %i "$M/d/a.30000000")" = "$ino" ] || die "st_ino has changed"
ok "st_ino is the same"
[ "$(id -u)" != 0 ] || expect "a daemon of root has the capabilities that file:// needs, and no others" \
	may_only 20401f
batonfs -m "$M" conf set readahead.max 3MiB
batonfs -m "$M" upgrade >/dev/null
expect "a live setting outlives the upgrade" test "$(batonfs -m "$M" conf get readahead.max)" = 3MiB

# A successor that dies before it has the right: the old daemon serves on.
for point in hello state ready; do
	before=$(daemon_pid)
	if BATONFS_FAULT=takeover.new.$point=kill batonfsd -f --takeover=require -u "/=file://$S" \
		-s memory.limit=16MiB "$M" >"$T/out" 2>&1; then
		die "$point: the successor should have died"
	fi
	readers_alive
	[ "$(daemon_pid)" = "$before" ] || die "$point: another daemon serves"
	expect "the old daemon serves on when the new one dies at $point" pattern check "$M/d/b.3000001"
done
# A successor that is not the same mount's.
mkdir "$T/other"
expect_exit 5 "" "a successor with another storage is refused" batonfsd -f --takeover=require -u "/=file://$T/other" "$M"
readers_alive
expect "upgrade --check says yes" batonfs -m "$M" upgrade --check
readers_stop
ok "no reader saw an error or a wrong byte"
stop
