#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A daemon of an ordinary user, without any capability, that serves a descriptor which
# root has opened and mounted: it serves, is upgraded, survives a crash, and says what it
# cannot do.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

U=65534
if [ "$(id -u)" != 0 ] || ! python3 -c 'import ctypes' 2>/dev/null; then
	echo "skipped: root and python3 are needed"
	trap - EXIT
	rm -rf "$T"
	exit 77
fi

# Opens and mounts as root; the rest is done as nobody, who cannot gain anything again.
cat >"$T/given.py" <<'P'
import ctypes, os, sys
uid = int(sys.argv[2])
fd = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(fd, True)
opts = "fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,allow_other" % (fd, uid, uid)
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"given", sys.argv[1].encode(), b"fuse.batonfs", 6, opts.encode()) != 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
words = [str(fd) if w == "FD" else w for w in sys.argv[3:]]
os.execvp(words[0], words)
P
H=$T/home
S=$T/src
mkdir -p "$H" "$S/d"
pattern gen "$S/d/a.4000000" "$S/d/b.100003"
cp "$BATONFS_BUILD"/{batonfsd,batonfs,batonfs-keeper} "$T/"
chmod 755 "$T"
chown -R $U:$U "$H" "$S" "$M"
export PATH=$T:$PATH HOME=$H TMPDIR=$H
FILES="$M/d/a.4000000 $M/d/b.100003"
state=/dev/shm/batonfs-e2e-${T##*.}
mkdir "$state"
chown $U:$U "$state"
trap 'status=$?; rm -rf "$state"; (exit $status) || true; set +e; (exit $status); cleanup' EXIT

ask() {
	batonfs -S "$H/run/control" "$@"
}

as_user() {
	setpriv --reuid $U --regid $U --clear-groups "$@"
}

other_than() { # another daemon than pid $1 serves
	local p
	p=$(ask --json status | jq -r .pid) && [ -n "$p" ] && [ "$p" != "$1" ]
}

(cd "$H" && exec python3 "$T/given.py" "$M" $U batonfs-keeper -- batonfsd -f -u "/=file://$S" --fuse-fd FD \
	-s control.socket="$H/run/control" -s state.dir="$state/mnt" -s fuse.migration.mutation.hold=10min \
	-s worker.page.store.dir="$H/cache" -s worker.page.store.size=64MiB "$M") 2>>"$LOG" &
keeper=$!
wait_until 60 "it serves" other_than ""
pid=$(ask --json status | jq -r .pid)
expect "the daemon has no capability" grep -qE '^CapEff:[[:space:]]*0+$' "/proc/$pid/status"
expect "and says so" test "$(ask --json status | jq -c .capabilities)" = '[]'
expect "and is nobody's" test "$(stat -c %u "/proc/$pid")" = $U
expect "it serves the mount that was given" sh -c "grep -q '^given $M fuse.batonfs' /proc/self/mounts"
# shellcheck disable=SC2086
readers_start buffered direct reopen list
expect "its user can write" as_user sh -c "echo written >$M/new && grep -q written $S/new"
for n in 1 2 3; do
	pid=$(ask --json status | jq -r .pid)
	expect "upgrade $n" as_user "$T/batonfs" -S "$H/run/control" upgrade
	wait_until 60 "the next daemon serves" other_than "$pid"
	pid=$(ask --json status | jq -r .pid)
	kill -9 "$pid"
	wait_until 60 "a daemon after the crash" other_than "$pid"
	[ "$(ask --json status | jq -r .last_takeover.kind)" = recovery ] || die "no recovery"
	readers_alive
done
readers_stop
ok "3 upgrades and 3 crashes, and no reader saw anything"
expect "status says that the readahead window is what the kernel began with" \
	sh -c "batonfs -S '$H/run/control' status | grep -q 'readahead window could not be set'"
expect "the daemon still has no capability" \
	grep -qE '^CapEff:[[:space:]]*0+$' "/proc/$(ask --json status | jq -r .pid)/status"
expect_exit 1 "who mounted it unmounts it" "umount is not the daemon's to do" ask umount
expect "and it goes on" as_user pattern check "$M/d/b.100003"
umount "$M"
wait "$keeper" || die "the keeper ended with $?"
ok "umount(8) by root ends daemon and keeper"
