#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The disk of the write cache is full, or cannot be written to any more, in the middle of a
# write: the call that finds no room says so, what was accepted and acknowledged stays, and it
# goes on by itself with room again.  And what was written and never made safe, whose writer
# has died, goes after a while; what was made safe before does not.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

if [ "$(id -u)" != 0 ]; then
	echo "skipped: only root can mount what is to be full"
	exit 77
fi
faults_taken_once
PATH=$T/bin:$PATH
mkdir "$T/src" "$T/disk"
head -c 6000000 /dev/urandom >"$T/data"
mount -t tmpfs -o size=8m,mode=700 batonfs-test "$T/disk"
cat >"$T/rules.json" <<'END'
{"apiVersion": "v1.0",
 "pathRules": [{"path": "/temp/**", "policyMode": "TRANSIENT"},
               {"path": "/back/**", "policyMode": "WRITE_BACK"}]}
END

# A writer of a line of commands; it answers each with "0" or the errno's name.
cat >"$T/writer.py" <<'PY'
import errno, os, sys
data, fds = open(sys.argv[1], "rb").read(), {}
for line in sys.stdin:
    what, path, *place = line.split()
    try:
        if what == "open":
            fds[path] = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        elif what == "write":  # OFFSET LENGTH
            at, end = int(place[0]), int(place[0]) + int(place[1])
            while at < end:
                at += os.pwrite(fds[path], data[at:end], at)
        elif what == "sync":
            os.fsync(fds[path])
        elif what == "close":
            os.close(fds.pop(path))
        print(0, flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
PY
writer_start() {
	coproc WRITER { exec python3 "$T/writer.py" "$T/data"; }
}
says() { # ANSWER COMMAND...
	local want=$1 got
	shift
	echo "$1 $M/back/$2" "${@:3}" >&"${WRITER[1]}"
	read -r got <&"${WRITER[0]}"
	[ "$got" = "$want" ] || die "$*: $got, not $want"
}
would() { # COMMAND...: until it succeeds
	local got
	echo "$1 $M/back/$2" "${@:3}" >&"${WRITER[1]}"
	read -r got <&"${WRITER[0]}"
	[ "$got" = 0 ]
}
same() { # FILE LENGTH: just these bytes
	[ "$(stat -c %s "$1")" = "$2" ] && cmp -n "$2" "$1" "$T/data"
}
stored() { # FILE LENGTH
	same "$T/src/$1" "$2"
}

serve -u "/=file://$T/src" -s write.cache.enabled=true -s write.staging.dir="$T/disk/staged" \
	-s meta.dir="$T/meta" -s worker.page.store.size=1GiB \
	-s worker.page.store.pinned.file.capacity.limit.ratio=1 \
	-s worker.write.cache.async.persist.retry.max.interval=1s \
	-s write.cache.async.file.check.period=1s -s worker.mark.writing.files.duration=1s \
	-s keeper.restart.limit="100 in 1min" -o attr_timeout=0,entry_timeout=0
batonfs -m "$M" pathconfig set "$T/rules.json" >/dev/null
mkdir "$M/temp" "$M/back"

# --- full
writer_start
head -c 3000000 "$T/data" >"$M/temp/kept"
says 0 open grows
says 0 write grows 0 3000000
says 0 sync grows
says ENOSPC write grows 3000000 3000000
ok "the write that does not fit is told so"
expect "what was accepted is there" cmp -n 3000000 "$M/back/grows" "$T/data"
says 0 open small
says 0 write small 0 10000
says 0 close small
expect "a small file needs no room there" same "$M/back/small" 10000
wait_until 60 "and is stored" stored back/small 10000
expect "what was acknowledged before is there" same "$M/temp/kept" 3000000
kill -9 "$(daemon_pid)"
wait_until 60 "a daemon serves" daemon_pid
expect "also after a crash" same "$M/temp/kept" 3000000
expect "as is what was written and synced" cmp -n 3000000 "$M/back/grows" "$T/data"
rm "$M/temp/kept"
wait_until 60 "with room again the same call succeeds" would write grows 3000000 3000000
says 0 close grows
wait_until 60 "it is stored" stored back/grows 6000000
ok "with room it went on, and is stored as it was written"

# --- read-only
says 0 open begun
says 0 write begun 0 10000
wait_until 60 "nothing is being written there" mount -o remount,ro "$T/disk"
says EROFS write begun 10000 100000
says 0 close begun
# The kernel may have cut the write in two, of which the first still was a small one's.
size=$(stat -c %s "$M/back/begun")
[ "$size" -ge 10000 ] || die "it has $size bytes"
wait_until 60 "what was accepted is stored without that disk" stored back/begun "$size"
ok "a disk that is read-only is told, and what was accepted is stored"
says 0 open late
says EROFS write late 0 100000
mount -o remount,rw "$T/disk"
says 0 write late 0 100000
says 0 close late
wait_until 60 "what is written again is stored" stored back/late 100000
ok "and when it can be written to again the same call succeeds"

# --- never made safe
says 0 open safe
says 0 write safe 0 100000
says 0 sync safe
next_has secure.synced=errno:28
wait_until 60 "a daemon serves" daemon_pid
says 0 write safe 100000 50000
says ENOSPC close safe
killed=0
python3 - "$M/back/dangling" <<'PY' || killed=$?
import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
os.write(fd, bytes(200000))
os.kill(os.getpid(), 9)
PY
[ $killed = 137 ] || die "the writer ended with $killed"
wait_until 60 "it goes" not test -e "$M/back/dangling"
ok "what was never made safe and whose writer has died goes"
expect "what was made safe is there" cmp -n 100000 "$M/back/safe" "$T/data"
kill -9 "$(daemon_pid)"
wait_until 60 "a daemon serves" daemon_pid
wait_until 60 "it is made safe and stored by itself" stored back/safe 150000
ok "and is stored, with what was written since"
expect "the other is not stored" not test -e "$T/src/back/dangling"
expect "drain" batonfs -m "$M" async-persist drain --timeout 60s
stop
