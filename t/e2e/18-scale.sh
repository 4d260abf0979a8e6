#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Much of everything: find over a bucket of many objects with memory that stays flat, the
# nodes forgotten again, large directories listed across an upgrade, 64 readers at once, a
# sparse file of 100 GiB.  SCALE_LONG=1: 1,000,000 objects, directories of 200,000 entries.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

DIRS=20 FILES=1000 FLAT=20000
[ -z "${SCALE_LONG:-}" ] || DIRS=1000 FLAT=200000
export AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret

# A sanitizer's own memory is not the daemon's.
sanitized=no
if ldd "$BATONFS_BUILD/batonfsd" | grep -qE 'lib[a-z]+san'; then
	sanitized=yes
fi

rss_anon() { # MiB
	awk '$1 == "RssAnon:" { print int($2 / 1024) }' "/proc/$1/status"
}

# flat DESCRIPTION COMMAND...: the daemon never has more than 64 MiB while it runs
flat() {
	local what=$1 pid most=0 now job
	shift
	pid=$(daemon_pid)
	"$@" &
	job=$!
	while kill -0 $job 2>/dev/null; do
		now=$(rss_anon "$pid")
		[ "$now" -le "$most" ] || most=$now
		sleep 0.05
	done
	wait $job || die "$what: failed"
	[ $sanitized = yes ] || [ "$most" -le 64 ] || die "$what: the daemon has $most MiB of its own"
	ok "$what: the daemon has at most $most MiB of its own"
}

bucket() { # DIRS FILES: a server with so many objects; sets E
	rm -f "$T/port"
	tree_s3 "$1" "$2" "$T/port" 2>"$T/tree.err" &
	server=$!
	wait_until 60 "the server listens" grep -q . "$T/port"
	E=http://127.0.0.1:$(cat "$T/port")
}

bucket_gone() {
	kill $server
	wait $server 2>/dev/null || true
}

nodes() {
	batonfs -m "$M" --json status | jq .nodes
}

few_nodes() {
	[ "$(nodes)" -lt 100 ]
}

count() { # FIND's arguments: the number of files is in $T/count
	find "$@" -type f -printf x | wc -c >"$T/count"
}

# --- many objects
bucket $DIRS $FILES
serve -u /=s3://b -s s3.endpoint="$E" -s state.size=2GiB -o ro,attr_timeout=3600,entry_timeout=3600
flat "find over $((DIRS * FILES)) objects" count "$M"
[ "$(cat "$T/count")" = $((DIRS * FILES)) ] || die "find saw $(cat "$T/count") files"
[ "$(nodes)" -gt $((DIRS * FILES)) ] || die "$(nodes) nodes are known"
ok "it saw each of them"
expect "one of them is what it should be" test "$(cat "$M/d0007/f000421")" = d0007/f000421
ino=$(stat -c %i "$M/d0007/f000421")
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
flat "and once more after an upgrade" count "$M"
[ "$(cat "$T/count")" = $((DIRS * FILES)) ] || die "find saw $(cat "$T/count") files"
[ "$(stat -c %i "$M/d0007/f000421")" = "$ino" ] || die "st_ino has changed"
# The kernel drops what it knows of one file system when that is remounted.
mount -i -o remount,ro "$M" || die "remount"
wait_until 120 "the nodes are forgotten" few_nodes
ok "nodes that the kernel forgets are gone: $(nodes) are left"
expect "and are found again" test "$(cat "$M/d0007/f000421")" = d0007/f000421
stop
bucket_gone

# --- large directories: a stream that began under the old daemon goes on under the new
cat >"$T/lister.py" <<'P'
import os, sys
it = os.scandir(sys.argv[1])
seen = [next(it).name for _ in range(2000)]
print("begun", flush=True)
sys.stdin.readline()
seen += [e.name for e in it]
want = int(sys.argv[2])
assert len(seen) == want and len(set(seen)) == want, (len(seen), len(set(seen)))
P
lister() { # across an upgrade, and a kill
	local pid
	batonfs -m "$M" upgrade >/dev/null || die "upgrade"
	pid=$(daemon_pid)
	kill -9 "$pid"
	wait_until 120 "another daemon serves" other_serves "$pid"
}
large_dir() { # WHAT DIR
	local python
	mkfifo "$T/go"
	python3 "$T/lister.py" "$2" $FLAT <"$T/go" >"$T/lister.out" 2>&1 &
	python=$!
	exec 5>"$T/go"
	wait_until 120 "$1: the lister has begun" grep -q begun "$T/lister.out"
	lister
	echo >&5
	exec 5>&-
	flat "$1: a directory of $FLAT entries" wait_for $python
	rm "$T/go"
	count "$2"
	[ "$(cat "$T/count")" = $FLAT ] || die "$1: find saw $(cat "$T/count")"
	ok "$1: none was lost or doubled, across an upgrade and a kill -9 too"
}
wait_for() { # PID: flat() waits in a shell that is not its parent
	while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
	[ "$(wc -l <"$T/lister.out")" = 1 ] || { cat "$T/lister.out"; return 1; }
}
bucket 1 $FLAT
serve -u /=s3://b -s s3.endpoint="$E" -s keeper.restart.limit="100 in 1min" -o ro
large_dir "S3" "$M/d0000"
stop
bucket_gone
mkdir -p "$T/src/flat"
(cd "$T/src/flat" && seq -f 'a-file-with-a-name-%06g' $FLAT | xargs touch)
serve -u "/=file://$T/src" -s keeper.restart.limit="100 in 1min"
large_dir "a directory" "$M/flat"
stop

# --- 64 readers, little memory
S=$T/read
mkdir "$S"
files=""
for i in $(seq 64); do files="$files $S/f$i.$((100000 + i * 20000))"; done
# shellcheck disable=SC2086
pattern gen $files "$S/common.8000000"
serve -u "/=file://$S" -s memory.limit=16MiB
sixty_four() {
	local jobs="" f j
	for f in "$M"/f*; do
		pattern check "$f" "$M/common.8000000" "$f" &
		jobs="$jobs $!"
	done
	for j in $jobs; do wait "$j" || return 1; done
}
flat "64 readers at once" sixty_four
stop

# --- 10,000 open handles
mkdir "$T/handles"
seq 10000 | (cd "$T/handles" && while read -r i; do echo "$i is in here" >"$i"; done)
cat >"$T/handles.py" <<'P'
import json, os, resource, subprocess, sys, time
top, n = sys.argv[1], 10000
resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, n + 100))
files = [os.open(f"{top}/{i}", os.O_RDONLY) for i in range(1, n + 1)]

def status():
    said = subprocess.run(["batonfs", "-m", top, "--json", "status"], stdout=subprocess.PIPE)
    return json.loads(said.stdout) if said.returncode == 0 else None

def check(when):
    for i, f in enumerate(files):
        got = os.pread(f, 100, 0)
        assert got == b"%d is in here\n" % (i + 1), (when, i + 1, got)
    assert status()["files_open"] == n, (when, status()["files_open"])

check("at first")
subprocess.run(["batonfs", "-m", top, "upgrade"], check=True, stdout=subprocess.DEVNULL)
check("after an upgrade")
pid = status()["pid"]
os.kill(pid, 9)
end = time.monotonic() + 120
while (said := status()) is None or said["pid"] == pid:
    assert time.monotonic() < end, "no daemon follows"
    time.sleep(0.05)
check("after kill -9")
for f in files:
    os.close(f)
P
serve -u "/=file://$T/handles" -s memory.limit=16MiB -s keeper.restart.limit="100 in 1min"
expect "10,000 open handles, over an upgrade and a kill -9" python3 "$T/handles.py" "$M"
stop

# --- 100 GiB, nearly all of it a hole
cat >"$T/sparse.py" <<'P'
import hashlib, mmap, os, sys
size = 100 << 30
islands = [(at, os.urandom(n) if len(sys.argv) == 2 else None, n) for at, n in (
    (0, 70001), ((1 << 31) - 5000, 10000), ((1 << 32) - 1, 3), (50 * (1 << 30) + 123, 3 << 20),
    (size - 100000, 100000))]
if len(sys.argv) == 2:
    with open(sys.argv[1], "wb") as f:
        f.truncate(size)
        for at, data, _ in islands:
            f.seek(at)
            f.write(data)
    sys.exit()

def md5s(path):
    f = os.open(path, os.O_RDONLY)
    assert os.fstat(f).st_size == size and os.lseek(f, 0, os.SEEK_END) == size
    for at, _, n in islands:
        # with what is around it
        first, left = max(0, at - 10000), n + 20000
        h = hashlib.md5()
        while left > 0 and (data := os.pread(f, min(left, 1 << 20), first)):
            h.update(data)
            first += len(data)
            left -= len(data)
        yield h.hexdigest()
    for at in (10 << 30, 77 * (1 << 30) + 999):
        assert os.pread(f, 300000, at) == bytes(300000), at
    with mmap.mmap(f, 16 << 20, prot=mmap.PROT_READ, offset=50 * (1 << 30)) as m:
        yield hashlib.md5(m).hexdigest()
    assert os.pread(f, 10, size) == b""
    d = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buf = mmap.mmap(-1, 1 << 20)
    assert os.preadv(d, [buf], size - (1 << 20)) == 1 << 20
    yield hashlib.md5(buf).hexdigest()

here, there = list(md5s(sys.argv[1])), list(md5s(sys.argv[2]))
assert here == there, (here, there)
P
python3 "$T/sparse.py" "$S/sparse"
serve -u "/=file://$S" -s memory.limit=16MiB -s worker.page.store.dir="$T/cache" \
	-s worker.page.store.size=64MiB
flat "a sparse file of 100 GiB, read at places" python3 "$T/sparse.py" "$M/sparse" "$S/sparse"
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
flat "and once more after an upgrade" python3 "$T/sparse.py" "$M/sparse" "$S/sparse"
stop

# --- fs rm -R of many files: it goes on where it was stopped, and through a kill and an
# upgrade of the daemon
mkdir -p "$T/full/many"
(cd "$T/full/many" && python3 -c '
import os
for d in range(100):
    os.mkdir(f"d{d}")
    for i in range(1000):
        os.close(os.open(f"d{d}/f{i}", os.O_CREAT | os.O_WRONLY))')
serve -u "/=file://$T/full" -s keeper.restart.limit="100 in 1min"
left() {
	find "$T/full/many" -type f -printf x | wc -c
}
fewer_than() {
	[ "$(left)" -lt "$1" ]
}
batonfs -m "$M" fs rm -R /many >"$T/rm.out" &
rm=$!
wait_until 300 "some are removed" fewer_than 90000
kill -9 $rm
wait $rm || true
n=$(left)
[ "$n" -gt 0 ] || die "it ended before it was killed"
ok "fs rm -R of 100,000 files is killed with $n left"
batonfs -m "$M" --json fs rm -R /many >"$T/rm.json" 2>"$T/rm.err" &
rm=$!
wait_until 300 "more are removed" fewer_than $((n * 2 / 3))
pid=$(daemon_pid)
kill -9 "$pid"
wait_until 300 "and more" fewer_than $((n / 3))
batonfs -m "$M" upgrade >/dev/null || die "upgrade"
wait $rm || die "fs rm: $(cat "$T/rm.json" "$T/rm.err")"
jq -e '.failed == 0 and .complete and .files >= 1' "$T/rm.json" >/dev/null || die "fs rm: $(cat "$T/rm.json")"
ok "another one removes the rest, through a kill and an upgrade: $(cat "$T/rm.json")"
expect "nothing is left" not test -e "$T/full/many"
stop
