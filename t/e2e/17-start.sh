#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The command line and the mount point: relative paths, other working directories,
# settings that are kept, mount points of all kinds, a descriptor from somebody else,
# the background.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

mkdir "$T/src"
echo hello >"$T/src/hello"
URI="/=file://$T/src"

# --- a relative -c and mount point, by a successor that begins elsewhere
mkdir "$T/one" "$T/two"
echo "readahead.max = 3MiB" >"$T/one/c.conf"
echo "readahead.max = 4MiB" >"$T/two/c.conf"
(cd "$T/one" && batonfsd -c c.conf -u "$URI" ../mnt)
expect "a relative -c" test "$(batonfs -m "$M" conf get readahead.max)" = 3MiB
crash
expect "means the same after a crash" test "$(batonfs -m "$M" conf get readahead.max)" = 3MiB
batonfs -m "$M" upgrade >/dev/null
expect "and after an upgrade" test "$(batonfs -m "$M" conf get readahead.max)" = 3MiB
before=$(daemon_pid)
(cd "$T/two" && batonfsd --takeover=require --config=c.conf -u "$URI" ../mnt)
expect "a second start took over" other_serves "$before"
expect "with its own file" test "$(batonfs -m "$M" conf get readahead.max)" = 4MiB
crash
expect "which its restart reads too" test "$(batonfs -m "$M" conf get readahead.max)" = 4MiB

# --- stdin, stdout and stderr, the working directory's and the starter's descriptors
pid=$(daemon_pid)
expect "the daemon has let go of stdin, stdout and stderr" \
	test "$(readlink /proc/"$pid"/fd/0 /proc/"$pid"/fd/1 /proc/"$pid"/fd/2 | sort -u)" = /dev/null
expect "it is in a session of its own" test "$(ps -o sid= -p "$pid" | tr -d ' ')" != "$(ps -o sid= -p $$ | tr -d ' ')"
zombies() {
	ps -o stat= -p "$(ours | paste -sd,)" | grep -q Z
}
wait_until 60 "no zombie is left" not zombies
batonfs -m "$M" umount

# --- in the foreground all of them go on with their words where their keeper has its own
serve -u "$URI"
for how in crash upgrade crash; do
	case $how in
	crash) crash ;;
	*) batonfs -m "$M" upgrade >/dev/null ;;
	esac
	pid=$(daemon_pid)
	wait_until 60 "pid $pid says that it serves" grep -q "batonfsd\[$pid\]" "$LOG"
done
expect "and so does the keeper" grep -q "batonfs-keeper\[$keeper\] .*: restarting" "$LOG"
ok "the words of restarted daemons are where those of the first were"
stop

# --- conf set wins over what the command line says twice, in every spelling
batonfsd -u "$URI" -s readahead.max=5MiB --set readahead.max=6MiB -sreadahead.max=7MiB "$M"
expect "the last one wins" test "$(batonfs -m "$M" conf get readahead.max)" = 7MiB
batonfs -m "$M" conf set readahead.max 8MiB >/dev/null
batonfs -m "$M" conf set ufs.timeout 12s >/dev/null
batonfs -m "$M" conf set readahead.max 9MiB >/dev/null
crash
expect "conf set outlives a crash" test "$(batonfs -m "$M" conf get readahead.max)" = 9MiB
expect "and the one before it too" test "$(batonfs -m "$M" conf get ufs.timeout)" = 12s
batonfs -m "$M" upgrade >/dev/null
expect "and an upgrade" test "$(batonfs -m "$M" conf get readahead.max)" = 9MiB
expect "without leaving earlier values behind" \
	test "$(tr '\0' '\n' </proc/"$(daemon_pid)"/cmdline | grep -c readahead.max)" = 1
batonfs -m "$M" umount

# --- the environment goes on to restarts and upgrades
AWS_ACCESS_KEY_ID=kept batonfsd -u "$URI" "$M"
crash
batonfs -m "$M" upgrade >/dev/null
expect "credentials in the environment survive both" \
	grep -qz '^AWS_ACCESS_KEY_ID=kept$' /proc/"$(daemon_pid)"/environ
batonfs -m "$M" umount

# --- what goes wrong is said once, with the exit code
out=$(batonfsd -u "/=file://$T/none" "$M" 2>&1) && die "mounted what is not there"
expect "a failure in the background is one line" test "$(echo "$out" | wc -l)" = 1
expect "and names the storage once" test "$(echo "$out" | grep -o "file://$T/none" | wc -l)" = 1

# --- mount points
try_mountpoint() { # DESCRIPTION DIRECTORY [NAME by which it is given]
	local name=${3:-$2}
	batonfsd -u "$URI" "$name" || die "$1: exit code $?"
	grep -q hello "$2/hello" || die "$1: it does not serve"
	[ "$(batonfs -m "$name" --json status | jq -r .mountpoint)" = "$(realpath "$2")" ] ||
		die "$1: $(batonfs -m "$name" --json status | jq -r .mountpoint)"
	batonfs -m "$name" upgrade >/dev/null || die "$1: upgrade"
	batonfs -m "$name" umount || die "$1: umount"
	! findmnt -rn -t fuse.batonfs | grep -q "^$T" || die "$1: still mounted"
	ok "mount point: $1"
}
mkdir "$T/with space" "$T/ü€ñ" "$T/-f" "$T/back\\slash,comma" "$T/new
line" "$T/d"
ln -s d "$T/link"
try_mountpoint "space" "$T/with space"
try_mountpoint "unicode" "$T/ü€ñ"
try_mountpoint "newline" "$T/new
line"
try_mountpoint "backslash and comma" "$T/back\\slash,comma"
try_mountpoint "slashes" "$T/d" "$T//d///"
try_mountpoint "through a link" "$T/d" "$T/link"
cd "$T/d"
batonfsd -u "$URI" .
expect "mount point: ." grep -q hello "$T/d/hello"
cd "$T"
batonfs -m d umount
batonfsd -u "$URI" -- -f
expect "mount point: -f" grep -q hello "$T/-f/hello"
batonfs -m ./-f umount
deep=$T
part=$(printf 'd%.0s' $(seq 200))
while [ $((${#deep} + 201)) -lt 3900 ]; do
	deep=$deep/$part
done
mkdir -p "$deep"
try_mountpoint "of ${#deep} bytes" "$deep"
touch "$T/d/hidden"
batonfsd -u "$URI" "$T/d"
expect "a mount over something says so" sh -c "batonfs -m '$T/d' status | grep -q 'Warning.*not empty'"
batonfs -m "$T/d" umount
expect "what was hidden is there again" test -e "$T/d/hidden"
cd /

# --- a descriptor that somebody else opened and mounted
cat >"$T/given.py" <<'P'
import ctypes, os, sys
fd = os.open("/dev/fuse", os.O_RDWR)
os.set_inheritable(fd, True)
if sys.argv[1] != "-":
    opts = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fd
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"given", sys.argv[1].encode(), b"fuse.batonfs", 6, opts.encode()) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
words = [str(fd) if w == "FD" else w for w in sys.argv[2:]]
os.execvp(words[0], words)
P
expect "--fuse-fd" python3 "$T/given.py" "$M" batonfsd -u "$URI" --fuse-fd FD "$M"
expect "it serves" grep -q hello "$M/hello"
expect "it is the mount that was given" sh -c "grep -q '^given $M fuse.batonfs' /proc/self/mounts"
batonfs -m "$M" upgrade >/dev/null
expect "an upgrade takes it over" grep -q hello "$M/hello"
crash
expect "a crash is survived" grep -q hello "$M/hello"
batonfs -m "$M" umount
expect_exit 2 "--fuse-fd 77: is not open" "a descriptor that is not open" batonfsd -f -u "$URI" --fuse-fd 77 "$M"
expect_exit 2 "is not /dev/fuse" "one that is something else" batonfsd -f -u "$URI" --fuse-fd 0 "$M" </dev/null

# --- a keeper that gives back what is not all of a mount, or not of this version
cat >"$T/kept.py" <<'P'
import ctypes, os, sys
mountpoint, init, names, words = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
fds = []
for name in names.split(":"):
    if name == "fuse":
        fd = os.open("/dev/fuse", os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        opts = "fd=%d,rootmode=40000,user_id=0,group_id=0" % fd
        if libc.mount(b"kept", mountpoint.encode(), b"fuse.batonfs", 6, opts.encode()) != 0:
            sys.exit(os.strerror(ctypes.get_errno()))
    else:
        fd = os.memfd_create(name)
        if name == "init":
            os.write(fd, open(init, "rb").read())
    fds.append(fd)
# From the top, so that none is overwritten: descriptors are numbered from 3 on.
high = [os.dup2(fd, 100 + i, True) for i, fd in enumerate(fds)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, True)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execvp(words[0], words)
P
kept() { # CODE TEXT DESCRIPTION INIT NAMES
	expect_exit "$1" "$2" "$3" python3 "$T/kept.py" "$M" "$4" "$5" batonfsd -f -u "$URI" "$M"
	umount -l "$M"
}
init_of() { # PID: its INIT record
	local fd
	for fd in "/proc/$1/fd/"*; do
		case $(readlink "$fd") in *batonfs-init*) cat "$fd" && return ;; esac
	done
}
batonfsd -u "$URI" "$M"
init_of "$(daemon_pid)" >"$T/init"
expect "a daemon has an INIT record" test -s "$T/init"
batonfs -m "$M" umount
ALL=fuse:epoch:counts:state:init
kept 1 "did not hold all descriptors" "a keeper without the INIT record" "$T/init" fuse:epoch:counts:state
kept 1 "did not hold all descriptors" "a keeper with nothing but the mount" "$T/init" fuse
head -c 100 "$T/init" >"$T/init.short"
kept 1 "is damaged" "an INIT record that is cut off" "$T/init.short" $ALL
python3 -c 'import sys; b = bytearray(open(sys.argv[1], "rb").read()); b[4] = 2; open(sys.argv[2], "wb").write(b)' \
	"$T/init" "$T/init.newer"
kept 1 "written by a newer" "an INIT record of a newer version" "$T/init.newer" $ALL
kept 1 "shared memory" "descriptors that are something else" "$T/init" $ALL
batonfsd -u "$URI" "$M"
expect "after all of them a mount is made" grep -q hello "$M/hello"
batonfs -m "$M" umount
