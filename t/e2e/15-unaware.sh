#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Programs that know nothing of batonfs: Python, rsync, git, the loader, dd, find.
# What they hold across an upgrade and a kill -9 goes on working.
. "${BATONFS_SRC:-.}/t/e2e/lib.sh" || exit

S=$T/src
chmod 711 "$T" # another user is to come by
mkdir -p "$S/sub/deep" "$S/bin" "$S/lib" "$S/py" "$S/many"
pattern gen "$S/big.20000001" "$S/sub/mid.1048577" "$S/sub/small.4097" "$S/zero.0"
for i in $(seq 700); do echo "line of $i" >"$S/many/f$i"; done
echo "needle in here" >"$S/sub/deep/hay"
echo secret >"$S/secret" && chmod 600 "$S/secret"
cp "$(command -v cat)" "$S/bin/cat"
# shellcheck disable=SC2016
printf '#!/bin/sh\nexec echo "script: $1"\n' >"$S/bin/script" && chmod 755 "$S/bin/script"
echo 'int answer(void); int answer(void) { return 42; }' >"$T/a.c"
gcc -shared -fPIC -o "$S/lib/liba.so" "$T/a.c"
echo 'def answer(): return 43' >"$S/py/amodule.py"
touch -d '2001-02-03 04:05:06.789012345' "$S/many"/f* "$S/zero.0"
touch -d '2010-01-01' "$S/sub/small.4097"
git init -q -b main "$S/repo"
git -C "$S/repo" config gc.auto 0
(
	cd "$S/repo" && cp ../many/f[1-9] . && git add . &&
		git -c user.name=t -c user.email=t@localhost commit -q -m one
)
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

serve -o allow_other -u "/=file://$S" -s worker.page.store.dir="$T/cache"
BIG=$M/big.20000001

# --- copies and readers of all kinds
expect "rsync -a" rsync -a "$M/" "$T/rsync/"
expect "it copied everything" diff -r "$S" "$T/rsync"
[ -z "$(rsync -ain --delete "$M/" "$T/rsync/")" ] || die "a second rsync finds differences: $(rsync -ain "$M/" "$T/rsync/" | head)"
ok "a second one finds nothing to do: times, modes and sizes agree"
expect "cp" cmp "$S/big.20000001" <(cp "$BIG" "$T/copy" && cat "$T/copy")
cp -a "$M/sub" "$T/sub"
expect "cp -a of a tree" diff -r "$S/sub" "$T/sub"
for bs in 4096 65536 1M 3M; do
	cmp <(dd if="$BIG" iflag=direct bs=$bs status=none) "$S/big.20000001" || die "dd iflag=direct bs=$bs"
done
ok "dd iflag=direct with blocks of 4 KiB to 3 MiB"
expect "dd iflag=skip_bytes,direct" cmp <(dd if="$BIG" iflag=direct,skip_bytes skip=1234944 bs=8192 count=2 status=none) \
	<(tail -c +1234945 "$S/big.20000001" | head -c 16384)
expect "tac reads from the end" cmp <(tac "$M/many/f7" "$M/sub/deep/hay") <(tac "$S/many/f7" "$S/sub/deep/hay")
[ "$(cd "$M" && grep -rl needle --exclude-dir=repo .)" = ./sub/deep/hay ] || die "grep -r"
ok "grep -r finds it"
[ "$(find "$M/many" -type f -print0 | xargs -0 -P 4 -n 50 cat | sort | md5sum)" = "$(cat "$S"/many/* | sort | md5sum)" ] ||
	die "xargs -P 4 cat"
ok "four processes at once"

# --- what stat(2) tells
[ "$(du -sb "$M/many" "$M/sub" | cut -f 1 | xargs)" = "$(du -sb "$M/many" "$M/sub" | cut -f 1 | xargs)" ] || die "du varies"
[ "$(cd "$M" && find . -type f -printf '%s\n' | sort -n)" = "$(cd "$S" && find . -type f -printf '%s\n' | sort -n)" ] || die "sizes"
[ "$(du -s --apparent-size -B 1 "$BIG" | cut -f 1)" = 20000001 ] || die "du --apparent-size"
[ "$(du -k "$BIG" | cut -f 1)" -ge 19532 ] || die "du -k: $(du -k "$BIG")"
ok "du counts the bytes"
[ "$(cd "$M" && find . -path ./repo -prune -o -type f -newer sub/small.4097 -print | sort)" = \
	"$(cd "$S" && find . -path ./repo -prune -o -type f -newer sub/small.4097 -print | sort)" ] || die "find -newer"
ok "find -newer compares times as the storage has them"
[ "$(stat -c '%y' "$M/zero.0")" = "$(stat -c '%y' "$S/zero.0")" ] || die "nanoseconds"
ok "times have nanoseconds"
case $(stat -f -c '%T %l' "$M") in
fuse*" 255") ok "stat -f: type and longest name" ;;
*) die "stat -f: $(stat -f "$M")" ;;
esac
[ "$(find "$M" -xdev -type f | wc -l)" = "$(find "$S" -type f | wc -l)" ] || die "-xdev"
[ "$(find "$M" -printf '%i\n' | sort | uniq -d | wc -l)" = 0 ] || die "inode numbers occur twice"
ok "one device, no inode number twice"

# --- programs and libraries
expect "a program on the mount runs" test "$("$M/bin/cat" "$M/sub/deep/hay")" = "needle in here"
expect "a script on the mount runs" test "$("$M/bin/script" x)" = "script: x"
expect "a library is loaded from it" test "$(python3 -c "import ctypes; print(ctypes.CDLL('$M/lib/liba.so').answer())")" = 42
expect "a Python module is imported from it" test "$(PYTHONPATH=$M/py python3 -c 'import amodule; print(amodule.answer())')" = 43
expect "git log in a repository on it" test "$(git -C "$M/repo" log --format=%s)" = one
expect "git clone from it" git clone -q --no-local "$M/repo" "$T/clone"
expect "git clone with copied objects" git clone -q "$M/repo" "$T/clone2"
expect "git fsck of the clone" git -C "$T/clone2" fsck --strict
expect "git status without the right to write" git -C "$M/repo" status --porcelain

# --- Python: each way to read; descriptors, mappings, a directory iterator and the
# working directory live through an upgrade and a crash
cat >"$T/reads.py" <<'P'
import fcntl, hashlib, mmap, os, sys

mnt, src = sys.argv[1:3]
want = open(src + "/big.20000001", "rb").read()
path = mnt + "/big.20000001"

names = sorted(e.name for e in os.scandir(mnt + "/many"))
assert names == sorted(os.listdir(src + "/many")), "scandir"
for e in os.scandir(mnt + "/many"):
    assert e.is_file() and not e.is_symlink() and e.inode() == e.stat().st_ino, e.path
assert sorted(d for d, _, _ in os.walk(mnt + "/sub")) == [mnt + "/sub", mnt + "/sub/deep"]

buf = bytearray(len(want) + 100)
with open(path, "rb", buffering=0) as f:
    n = at = 0
    view = memoryview(buf)
    while (n := f.readinto(view[at:])) > 0:
        at += n
    assert at == len(want) and buf[:at] == want, "readinto"
    assert f.readinto(view) == 0, "read at the end"
    assert os.pread(f.fileno(), 100, len(want) + 5) == b"", "pread behind the end"
    got = [bytearray(7), bytearray(4096), bytearray(100001)]
    assert os.preadv(f.fileno(), got, 12345) == 7 + 4096 + 100001
    assert b"".join(got) == want[12345:12345 + 104104], "preadv"
    for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_RANDOM, os.POSIX_FADV_WILLNEED,
                   os.POSIX_FADV_DONTNEED, os.POSIX_FADV_NOREUSE):
        os.posix_fadvise(f.fileno(), 0, 0, advice)
        assert os.pread(f.fileno(), 65536, 9999991) == want[9999991:9999991 + 65536]
    fcntl.flock(f, fcntl.LOCK_SH)
    fcntl.lockf(f, fcntl.LOCK_SH)
    assert os.lseek(f.fileno(), 0, os.SEEK_END) == len(want)
    assert os.lseek(f.fileno(), 0, os.SEEK_DATA) == 0
    assert os.lseek(f.fileno(), 0, os.SEEK_HOLE) == len(want)

def copied(step):
    with open(path, "rb") as f, open(sys.argv[3], "w+b") as out:
        at = 0
        while (n := step(out.fileno(), f.fileno(), at)) > 0:
            at += n
        out.seek(0)
        assert out.read() == want, step

copied(lambda o, i, at: os.sendfile(o, i, at, 1 << 20))

# What is held from here on lives through an upgrade and a crash.
os.chdir(mnt + "/sub")
where = os.getcwd()
f = open(path, "rb", buffering=0)
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
m[0:4096]
it = os.scandir(mnt + "/many")
seen = [next(it).name for _ in range(10)]
dirfd = os.open(mnt + "/sub", os.O_RDONLY | os.O_DIRECTORY)
ino = os.stat(path).st_ino
for word in sys.stdin:
    assert os.getcwd() == where and os.stat(path).st_ino == ino, word
    assert open("small.4097", "rb").read() == open(src + "/sub/small.4097", "rb").read(), word
    assert os.pread(os.open("deep/hay", os.O_RDONLY, dir_fd=dirfd), 6, 0) == b"needle", word
    assert hashlib.md5(m).digest() == hashlib.md5(want).digest(), word
    f.seek(0)
    assert f.read(len(want)) == want[:len(want)], word
    seen += [next(it).name for _ in range(100)]
    print("well after", word.strip(), flush=True)
seen += [e.name for e in it]
assert sorted(seen) == names, "the iterator lost or doubled names"
print("end", flush=True)
P
mkfifo "$T/words"
python3 "$T/reads.py" "$M" "$S" "$T/py.copy" <"$T/words" >"$T/py.out" 2>&1 &
py=$!
exec 7>"$T/words"
said() { # WORD: Python has said it, or has ended
	grep -q "$1" "$T/py.out" || ! kill -0 $py 2>/dev/null
}
step() { # WORD
	echo "$1" >&7
	wait_until 60 "Python is through with it" said "well after $1"
	grep -q "well after $1" "$T/py.out" || die "Python after $1: $(tail -n 5 "$T/py.out")"
}
step start
ok "Python: scandir, readinto, preadv, fadvise, locks, SEEK_HOLE, sendfile"
batonfs -m "$M" upgrade >/dev/null
step upgrade
ok "descriptor, mapping, iterator and working directory live through an upgrade"
before=$(daemon_pid)
kill -9 "$before"
wait_until 60 "another daemon serves" other_serves "$before"
step crash
exec 7>&-
wait $py || die "Python: $(tail -n 5 "$T/py.out")"
ok "and a crash; the directory iterator lost and doubled nothing"

# --- a working directory inside
(cd "$M/sub/deep" && [ "$(cat hay ../../sub/deep/hay | wc -l)" = 2 ] && [ "$(pwd -P)" = "$M/sub/deep" ] &&
	test -e ../small.4097 && [ "$(find .. -maxdepth 1 | wc -l)" = 4 ]) || die "cwd inside"
ok "relative paths from a working directory inside"

# --- another user
as_nobody() {
	setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
}
expect "another user reads what modes allow" as_nobody cmp "$BIG" "$S/big.20000001"
expect_exit 1 "Permission denied" "and not what they forbid" as_nobody cat "$M/secret"
expect "access(2) tells so" not as_nobody test -r "$M/secret"
expect_exit 1 "Permission denied" "and cannot touch the files of another" as_nobody touch "$M/many/f1"
stop

serve -u "/=file://$S"
expect_exit 2 "Permission denied" "without allow_other another user sees nothing" as_nobody ls "$M/"
stop
