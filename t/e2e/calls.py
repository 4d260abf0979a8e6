#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What each system call gets on a mount that is written to, as the manual's table has
it: one function a row, run by 41-calls.sh.

	calls.py DIR [--other DIR2] [--only WORDS]

DIR is an empty directory of the mount; DIR2, if given, the same directory through
another mount of the same storage (short attr_timeout).  Exit status 1 if a row fails.
"""
import argparse
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
NOREPLACE, EXCHANGE = 1, 2
rows = []


def row(name):
    def add(fn):
        rows.append((name, fn))
        return fn
    return add


def fails(code, fn, *args, **kw):
    """fn fails with errno code."""
    try:
        result = fn(*args, **kw)
    except OSError as e:
        assert e.errno == code, f"errno {errno.errorcode.get(e.errno)}, not {errno.errorcode[code]}"
        return
    raise AssertionError(f"succeeded ({result!r}) where {errno.errorcode[code]} was expected")


def put(path, data=b"", mode=0o644):
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode)
    try:
        view = memoryview(data)
        while len(view) > 0:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def renameat2(src, dst, flags):
    if libc.renameat2(AT_FDCWD, os.fsencode(src), AT_FDCWD, os.fsencode(dst), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def pattern(n, seed=1):
    """n bytes that differ at every place."""
    unit = b"".join((i * 2654435761 + seed & 0xffffffff).to_bytes(4, "little") for i in range(1 << 14))
    out = bytearray()
    block = 0
    while len(out) < n:
        out += block.to_bytes(8, "little") + unit
        block += 1
    return bytes(out[:n])


def eventually(what, fn):
    end = time.monotonic() + 60
    while True:
        try:
            if fn():
                return
        except OSError as e:
            # ESTALE: opened as it was before, which is no longer to be had.
            if e.errno not in (errno.ENOENT, errno.ESTALE):
                raise
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


# --- create, write, read

@row("create and write, then read back")
def _(d, o):
    for n in (0, 1, 4095, 4096, 4097, 100000, 1 << 20, 20 << 20):
        data = pattern(n, n)
        put(f"{d}/f{n}", data)
        assert os.stat(f"{d}/f{n}").st_size == n
        assert get(f"{d}/f{n}") == data, n
    assert sorted(os.listdir(d)) == sorted(f"f{n}" for n in (0, 1, 4095, 4096, 4097, 100000, 1 << 20, 20 << 20))


@row("append")
def _(d, o):
    data = b""
    for i in range(6):
        with open(f"{d}/log", "ab") as f:
            piece = pattern(3 << 20, i) if i % 2 else b"line %d\n" % i
            f.write(piece)
            data += piece
        assert get(f"{d}/log") == data, i


@row("append with several write calls in one open")
def _(d, o):
    put(f"{d}/a", b"head")
    fd = os.open(f"{d}/a", os.O_WRONLY | os.O_APPEND)
    for i in range(50):
        os.write(fd, b"%02d" % i)
        os.lseek(fd, 0, os.SEEK_SET)
    assert os.fstat(fd).st_size == 104
    os.close(fd)
    assert get(f"{d}/a") == b"head" + b"".join(b"%02d" % i for i in range(50))


@row("random write to an existing object")
def _(d, o):
    data = bytearray(pattern(30 << 20))
    put(f"{d}/r", data)
    fd = os.open(f"{d}/r", os.O_RDWR)
    for off, n in ((0, 10), (5 << 20, 70000), ((30 << 20) - 3, 3), (12345678, 1), ((30 << 20) + 5, 4)):
        piece = pattern(n, off)
        os.pwrite(fd, piece, off)
        if off > len(data):
            data += bytes(off - len(data))
        data[off:off + n] = piece
        assert os.pread(fd, 100, max(0, off - 50)) == bytes(data[max(0, off - 50):max(0, off - 50) + 100])
    os.close(fd)
    assert get(f"{d}/r") == bytes(data)


@row("truncate, by name and by descriptor, down and up")
def _(d, o):
    data = pattern(3 << 20)
    put(f"{d}/t", data)
    os.truncate(f"{d}/t", 1234567)
    assert get(f"{d}/t") == data[:1234567]
    os.truncate(f"{d}/t", 2 << 20)
    assert get(f"{d}/t") == data[:1234567] + bytes((2 << 20) - 1234567)
    fd = os.open(f"{d}/t", os.O_RDWR)
    os.ftruncate(fd, 10)
    os.ftruncate(fd, 20)
    os.pwrite(fd, b"x", 15)
    assert os.pread(fd, 100, 0) == data[:10] + bytes(5) + b"x" + bytes(4)
    os.close(fd)
    assert get(f"{d}/t") == data[:10] + bytes(5) + b"x" + bytes(4)
    os.truncate(f"{d}/t", 0)
    assert get(f"{d}/t") == b""
    fails(errno.ENOENT, os.truncate, f"{d}/none", 0)
    fails(errno.EINVAL, os.truncate, f"{d}/t", -1)


@row("O_TRUNC and overwriting from the start")
def _(d, o):
    put(f"{d}/x", pattern(100000))
    put(f"{d}/x", b"short")
    assert get(f"{d}/x") == b"short"
    put(f"{d}/x")
    assert get(f"{d}/x") == b"" and os.stat(f"{d}/x").st_size == 0


@row("holes, SEEK_HOLE, SEEK_DATA")
def _(d, o):
    fd = os.open(f"{d}/h", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(fd, b"end", 10 << 20)
    assert os.pread(fd, 8, 5 << 20) == bytes(8)
    hole = os.lseek(fd, 0, os.SEEK_HOLE)
    assert hole <= 10 << 20
    assert os.lseek(fd, 10 << 20, os.SEEK_DATA) == 10 << 20
    assert os.lseek(fd, (10 << 20) + 1, os.SEEK_HOLE) == (10 << 20) + 3
    fails(errno.ENXIO, os.lseek, fd, (10 << 20) + 3, os.SEEK_DATA)
    os.close(fd)
    assert get(f"{d}/h") == bytes(10 << 20) + b"end"
    # In the storage they are zeros: sent, and told as data.
    n = 40 << 20
    fd = os.open(f"{d}/large", os.O_CREAT | os.O_RDWR, 0o644)
    os.ftruncate(fd, n)
    os.pwrite(fd, b"island", 21 << 20)
    assert os.lseek(fd, 0, os.SEEK_DATA) <= 21 << 20 and os.lseek(fd, 22 << 20, os.SEEK_HOLE) < n
    assert os.fstat(fd).st_blocks == n // 512
    os.fsync(fd)
    assert os.pread(fd, 8, (21 << 20) - 1) == b"\0island\0" and os.fstat(fd).st_blocks == n // 512
    os.close(fd)

    def closed():
        fd = os.open(f"{d}/large", os.O_RDONLY)
        try:
            return os.lseek(fd, 5, os.SEEK_DATA) == 5 and os.lseek(fd, 5, os.SEEK_HOLE) == n
        finally:
            os.close(fd)
    eventually("the storage has it", closed)
    assert os.stat(f"{d}/large").st_blocks == n // 512
    assert get(f"{d}/large") == bytes(21 << 20) + b"island" + bytes(n - (21 << 20) - 6)


@row("fallocate: allocate, keep size, punch hole, zero range")
def _(d, o):
    def falloc(fd, mode, off, n):
        if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)) != 0:
            raise OSError(ctypes.get_errno(), "fallocate")
    data = bytearray(pattern(100000))
    put(f"{d}/a", data)
    fd = os.open(f"{d}/a", os.O_RDWR)
    falloc(fd, 0, 90000, 20000)
    data += bytes(10000)
    assert os.fstat(fd).st_size == 110000
    falloc(fd, 1, 0, 1 << 20)
    assert os.fstat(fd).st_size == 110000
    falloc(fd, 3, 1000, 5000)
    data[1000:6000] = bytes(5000)
    falloc(fd, 16, 50000, 10)
    data[50000:50010] = bytes(10)
    assert os.pread(fd, 200000, 0) == bytes(data)
    fails(errno.EOPNOTSUPP, falloc, fd, 8, 0, 4096)
    os.close(fd)
    assert get(f"{d}/a") == bytes(data)


@row("fsync and fdatasync report and keep the file open")
def _(d, o):
    fd = os.open(f"{d}/s", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"one")
    os.fsync(fd)
    if o:
        eventually("the other mount sees what was synced", lambda: get(f"{o}/s") == b"one")
    os.write(fd, b"two")
    os.fdatasync(fd)
    os.close(fd)
    assert get(f"{d}/s") == b"onetwo"


@row("a thousand children that inherit a redirection")
def _(d, o):
    subprocess.run(["sh", "-c", 'for i in $(seq 200); do /bin/echo $i; done > "$0"', f"{d}/out"], check=True)
    assert get(f"{d}/out") == b"".join(b"%d\n" % i for i in range(1, 201))


# --- readers and writers

@row("readers of this mount see a writer's bytes")
def _(d, o):
    w = os.open(f"{d}/rw", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(w, b"hello")
    r = os.open(f"{d}/rw", os.O_RDONLY)
    assert os.read(r, 10) == b"hello"
    os.write(w, b", world")
    assert os.read(r, 10) == b", world"
    assert os.fstat(r).st_size == 12 and os.stat(f"{d}/rw").st_size == 12
    os.close(w)
    assert os.pread(r, 100, 0) == b"hello, world"
    put(f"{d}/rw", b"other")
    assert os.pread(r, 100, 0) == b"other"
    os.close(r)


@row("a second writer of an open file: EBUSY")
def _(d, o):
    a = os.open(f"{d}/b", os.O_CREAT | os.O_WRONLY, 0o644)
    fails(errno.EBUSY, os.open, f"{d}/b", os.O_WRONLY)
    fails(errno.EBUSY, os.open, f"{d}/b", os.O_RDWR | os.O_APPEND)
    os.write(a, b"x")
    os.close(a)
    b = os.open(f"{d}/b", os.O_WRONLY | os.O_APPEND)
    os.write(b, b"y")
    os.close(b)
    assert get(f"{d}/b") == b"xy"


@row("opening for writing right after close never meets the old writer")
def _(d, o):
    for i in range(100):
        with open(f"{d}/again", "ab", buffering=0) as f:
            f.write(b"%03d" % i)
    assert get(f"{d}/again") == b"".join(b"%03d" % i for i in range(100))


@row("O_CREAT|O_EXCL: one of many threads wins")
def _(d, o):
    for i in range(5):
        won = []
        lock = threading.Barrier(8)

        def attempt():
            lock.wait()
            try:
                os.close(os.open(f"{d}/x{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                won.append(1)
            except FileExistsError:
                pass
        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(won) == 1, len(won)


@row("O_CREAT|O_EXCL: one of two mounts wins")
def _(d, o):
    if not o:
        return
    for i in range(10):
        won = []
        lock = threading.Barrier(2)

        def attempt(where):
            lock.wait()
            try:
                os.close(os.open(f"{where}/e{i}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                won.append(1)
            except FileExistsError:
                pass
        threads = [threading.Thread(target=attempt, args=(w,)) for w in (d, o)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(won) == 1, len(won)


@row("open: flags and errors")
def _(d, o):
    fails(errno.ENOENT, os.open, f"{d}/none", os.O_WRONLY)
    put(f"{d}/f", b"1")
    fails(errno.EEXIST, os.open, f"{d}/f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.mkdir(f"{d}/dir")
    fails(errno.EISDIR, os.open, f"{d}/dir", os.O_WRONLY)
    fails(errno.EISDIR, os.open, f"{d}/dir", os.O_CREAT | os.O_WRONLY, 0o644)
    fails(errno.ENOTDIR, os.open, f"{d}/f/below", os.O_CREAT | os.O_WRONLY, 0o644)
    fails(errno.ENOENT, os.open, f"{d}/no/such", os.O_CREAT | os.O_WRONLY, 0o644)


# --- names

@row("unlink")
def _(d, o):
    put(f"{d}/u", b"1")
    os.unlink(f"{d}/u")
    fails(errno.ENOENT, os.stat, f"{d}/u")
    fails(errno.ENOENT, os.unlink, f"{d}/u")
    assert os.listdir(d) == []
    os.mkdir(f"{d}/dir")
    fails(errno.EISDIR, os.unlink, f"{d}/dir")


@row("unlink of an open file: the descriptor goes on")
def _(d, o):
    data = pattern(9 << 20)
    put(f"{d}/r", data)
    r = os.open(f"{d}/r", os.O_RDONLY)
    assert os.pread(r, 10, 0) == data[:10]
    os.unlink(f"{d}/r")
    fails(errno.ENOENT, os.stat, f"{d}/r")
    put(f"{d}/r", b"another")
    assert b"".join(iter(lambda: os.read(r, 1 << 20), b"")) == data
    assert os.fstat(r).st_size == len(data) and os.fstat(r).st_nlink == 0
    os.close(r)
    assert get(f"{d}/r") == b"another"
    w = os.open(f"{d}/w", os.O_CREAT | os.O_RDWR, 0o644)
    os.write(w, b"abc")
    os.unlink(f"{d}/w")
    os.write(w, b"def")
    assert os.pread(w, 10, 0) == b"abcdef"
    os.close(w)
    fails(errno.ENOENT, os.stat, f"{d}/w")
    assert os.listdir(d) == ["r"]


@row("mkdir and rmdir")
def _(d, o):
    os.mkdir(f"{d}/a")
    fails(errno.EEXIST, os.mkdir, f"{d}/a")
    assert stat.S_ISDIR(os.stat(f"{d}/a").st_mode) and os.listdir(f"{d}/a") == []
    os.makedirs(f"{d}/a/b/c")
    put(f"{d}/a/b/c/f", b"1")
    fails(errno.ENOTEMPTY, os.rmdir, f"{d}/a")
    fails(errno.ENOTEMPTY, os.rmdir, f"{d}/a/b/c")
    os.unlink(f"{d}/a/b/c/f")
    assert os.listdir(f"{d}/a/b/c") == [] and os.path.isdir(f"{d}/a/b/c")
    os.rmdir(f"{d}/a/b/c")
    assert os.path.isdir(f"{d}/a/b")
    os.rmdir(f"{d}/a/b")
    os.rmdir(f"{d}/a")
    fails(errno.ENOENT, os.rmdir, f"{d}/a")
    put(f"{d}/f")
    fails(errno.ENOTDIR, os.rmdir, f"{d}/f")
    fails(errno.ENOENT, os.mkdir, f"{d}/no/such")


@row("rename of a file")
def _(d, o):
    data = pattern(12 << 20)
    put(f"{d}/a", data)
    os.rename(f"{d}/a", f"{d}/b")
    fails(errno.ENOENT, os.stat, f"{d}/a")
    assert get(f"{d}/b") == data
    put(f"{d}/c", b"old")
    os.rename(f"{d}/b", f"{d}/c")
    assert get(f"{d}/c") == data and os.listdir(d) == ["c"]
    os.rename(f"{d}/c", f"{d}/c")
    assert get(f"{d}/c") == data
    fails(errno.ENOENT, os.rename, f"{d}/none", f"{d}/x")
    os.mkdir(f"{d}/dir")
    fails(errno.EISDIR, os.rename, f"{d}/c", f"{d}/dir")
    os.rename(f"{d}/c", f"{d}/dir/c")
    assert get(f"{d}/dir/c") == data


@row("rename keeps an open descriptor and st_ino")
def _(d, o):
    data = pattern(5 << 20)
    put(f"{d}/a", data)
    r = os.open(f"{d}/a", os.O_RDONLY)
    ino = os.fstat(r).st_ino
    os.rename(f"{d}/a", f"{d}/b")
    assert os.fstat(r).st_ino == ino == os.stat(f"{d}/b").st_ino
    assert b"".join(iter(lambda: os.read(r, 1 << 20), b"")) == data
    put(f"{d}/a", b"new")
    assert os.stat(f"{d}/a").st_ino != ino
    os.close(r)
    w = os.open(f"{d}/w", os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(w, b"1")
    os.rename(f"{d}/w", f"{d}/v")
    os.write(w, b"2")
    os.close(w)
    assert get(f"{d}/v") == b"12"
    fails(errno.ENOENT, os.stat, f"{d}/w")


@row("rename over an open file: its descriptor goes on")
def _(d, o):
    old, new = pattern(3 << 20, 1), pattern(2 << 20, 2)
    put(f"{d}/t", old)
    put(f"{d}/n", new)
    r = os.open(f"{d}/t", os.O_RDONLY)
    os.rename(f"{d}/n", f"{d}/t")
    assert b"".join(iter(lambda: os.read(r, 1 << 20), b"")) == old
    os.close(r)
    assert get(f"{d}/t") == new


@row("stat and fstat of an open file that is replaced, here and by another mount")
def _(d, o):
    old, new = pattern(300000, 1), pattern(200001, 2)

    def replaced(path, replace):
        put(path, old)
        r = os.open(path, os.O_RDONLY)
        was = os.fstat(r)
        replace()

        def told():
            now = os.fstat(r)
            assert now.st_size == len(old) and now.st_ino == was.st_ino, "fstat tells of another"
            assert now.st_mtime_ns == was.st_mtime_ns, "fstat has another's time"
            size = os.stat(path).st_size
            assert size in (len(old), len(new)), size
            return size == len(new)
        eventually("stat has the new one", told)
        assert told(), "stat has the old one again"
        links = os.fstat(r).st_nlink
        assert get(path) == new
        assert told()
        os.close(r)
        assert os.stat(path).st_size == len(new) and os.stat(path).st_nlink == 1
        return links, was.st_ino == os.stat(path).st_ino

    put(f"{d}/n", new)
    links, same = replaced(f"{d}/t", lambda: os.rename(f"{d}/n", f"{d}/t"))
    assert links == 0 and not same, "a rename over it leaves no name to the open one"
    if o:
        replaced(f"{d}/f", lambda: put(f"{o}/f", new))


@row("rename: NOREPLACE, EXCHANGE, into itself, onto other kinds")
def _(d, o):
    put(f"{d}/a", b"a")
    put(f"{d}/b", b"b")
    fails(errno.EEXIST, renameat2, f"{d}/a", f"{d}/b", NOREPLACE)
    renameat2(f"{d}/a", f"{d}/c", NOREPLACE)
    assert get(f"{d}/c") == b"a" and get(f"{d}/b") == b"b"
    fails(errno.EINVAL, renameat2, f"{d}/b", f"{d}/c", EXCHANGE)
    os.makedirs(f"{d}/dir/sub")
    fails(errno.EINVAL, os.rename, f"{d}/dir", f"{d}/dir/sub/x")
    fails(errno.ENOTDIR, os.rename, f"{d}/dir", f"{d}/b")
    fails(errno.EISDIR, os.rename, f"{d}/b", f"{d}/dir")
    os.mkdir(f"{d}/empty")
    fails(errno.ENOTEMPTY, os.rename, f"{d}/empty", f"{d}/dir")
    os.rename(f"{d}/dir", f"{d}/empty")
    assert os.listdir(f"{d}/empty") == ["sub"]


@row("rename of a directory with many children")
def _(d, o):
    want = {}
    for i in range(8):
        os.makedirs(f"{d}/src/d{i}/deep")
        for k in range(15):
            name = f"d{i}/deep/f{k}" if k % 2 else f"d{i}/f {k} ü"
            want[name] = b"%d %d" % (i, k)
            put(f"{d}/src/{name}", want[name])
    os.mkdir(f"{d}/src/hollow")
    r = os.open(f"{d}/src/d3/deep/f1", os.O_RDONLY)
    os.rename(f"{d}/src", f"{d}/dst")
    fails(errno.ENOENT, os.stat, f"{d}/src")
    found = {}
    for at, dirs, files in os.walk(f"{d}/dst"):
        for f in files:
            found[os.path.relpath(os.path.join(at, f), f"{d}/dst")] = get(os.path.join(at, f))
    assert found == want, set(found) ^ set(want)
    assert os.path.isdir(f"{d}/dst/hollow")
    assert os.read(r, 10) == b"3 1"
    os.close(r)
    assert os.listdir(d) == ["dst"]


@row("names at their limits")
def _(d, o):
    put(f"{d}/" + "n" * 255, b"1")
    assert get(f"{d}/" + "n" * 255) == b"1"
    fails(errno.ENAMETOOLONG, put, f"{d}/" + "n" * 256)
    fails(errno.ENAMETOOLONG, os.mkdir, f"{d}/" + "n" * 256)
    for name in ("a b", "100%", "ü漢字", "q?", "*", "back\\slash", "'\"", "#&;=+~", "-dash", "tab\there"):
        put(f"{d}/{name}", name.encode())
        assert get(f"{d}/{name}") == name.encode()
    listed = os.listdir(d)
    assert len(listed) == len(set(listed)) == 11, listed
    for name in listed:
        os.unlink(f"{d}/{name}")
    assert os.listdir(d) == []


@row("entries that come and go while a directory is listed")
def _(d, o):
    for i in range(300):
        put(f"{d}/keep{i:03}")
    stop = threading.Event()

    def churn():
        i = 0
        while not stop.is_set():
            put(f"{d}/come{i % 7}")
            os.unlink(f"{d}/come{i % 7}")
            i += 1
    t = threading.Thread(target=churn)
    t.start()
    try:
        for _ in range(10):
            names = [e.name for e in os.scandir(d)]
            assert len(names) == len(set(names)), "an entry twice"
            gone = {f"keep{i:03}" for i in range(300)} - set(names)
            assert not gone, f"missing: {sorted(gone)}"
    finally:
        stop.set()
        t.join()


# --- attributes

@row("chmod, chown, utimens")
def _(d, o):
    put(f"{d}/f", b"data")
    os.mkdir(f"{d}/dir")
    for p in (f"{d}/f", f"{d}/dir"):
        os.chmod(p, 0o640)
        os.utime(p, ns=(1_500_000_000_123_456_789, 1_400_000_000_987_654_321))
        st = os.stat(p)
        assert stat.S_IMODE(st.st_mode) == 0o640, oct(st.st_mode)
        assert st.st_mtime_ns == 1_400_000_000_987_654_321, st.st_mtime_ns
        if os.geteuid() == 0:
            os.chown(p, 1234, 5678)
            st = os.stat(p)
            assert (st.st_uid, st.st_gid) == (1234, 5678)
            os.chown(p, -1, 99)
            assert (os.stat(p).st_uid, os.stat(p).st_gid) == (1234, 99)
    assert get(f"{d}/f") == b"data"
    fails(errno.ENOENT, os.chmod, f"{d}/none", 0o600)


@row("attributes given while the file is open, and at creation")
def _(d, o):
    old = os.umask(0o027)
    try:
        fd = os.open(f"{d}/m", os.O_CREAT | os.O_WRONLY, 0o777)
        os.mkdir(f"{d}/dir", 0o777)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o750
    assert stat.S_IMODE(os.stat(f"{d}/dir").st_mode) == 0o750
    os.write(fd, b"1")
    os.fchmod(fd, 0o600)
    os.utime(fd, ns=(1, 1_300_000_000_000_000_001))
    os.close(fd)
    st = os.stat(f"{d}/m")
    assert stat.S_IMODE(st.st_mode) == 0o600 and st.st_mtime_ns == 1_300_000_000_000_000_001, st
    eventually("st_mtime stays when the file is settled",
               lambda: os.stat(f"{d}/m").st_mtime_ns == 1_300_000_000_000_000_001)


@row("what is made in a set-group-ID directory gets its group")
def _(d, o):
    if os.geteuid() != 0:
        return
    os.mkdir(f"{d}/g")
    os.chown(f"{d}/g", -1, 4321)
    os.chmod(f"{d}/g", 0o2775)
    put(f"{d}/g/f", b"x")
    os.close(os.open(f"{d}/g/x", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))
    os.mknod(f"{d}/g/n", stat.S_IFREG | 0o600)
    os.mkdir(f"{d}/g/sub")
    for name in ("f", "x", "n", "sub"):
        assert os.stat(f"{d}/g/{name}").st_gid == 4321, name


@row("st_mtime after a close does not change by itself")
def _(d, o):
    put(f"{d}/t", b"x")
    first = os.stat(f"{d}/t").st_mtime_ns
    assert abs(first / 1e9 - time.time()) < 60
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert os.stat(f"{d}/t").st_mtime_ns == first
        time.sleep(0.1)


@row("st_nlink, st_blocks, st_ino, statfs")
def _(d, o):
    put(f"{d}/f", bytes(100000))
    st = os.stat(f"{d}/f")
    assert st.st_nlink == 1 and st.st_blocks == (100000 + 511) // 512
    with os.scandir(d) as it:
        assert [e.inode() for e in it] == [st.st_ino]
    assert os.stat(d).st_nlink >= 2
    assert os.statvfs(d).f_bavail > 0


@row("access of others is checked (default_permissions)")
def _(d, o):
    if os.geteuid() != 0:
        return
    os.chmod(d, 0o755)
    put(f"{d}/secret", b"s")
    os.chmod(f"{d}/secret", 0o600)

    def other(q):
        os.setgid(65534)
        os.setuid(65534)
        try:
            open(f"{d}/secret", "rb")
            q.put("opened")
        except PermissionError:
            q.put("EACCES")
        except OSError as e:
            q.put(str(e))
    q = multiprocessing.Queue()
    p = multiprocessing.Process(target=other, args=(q,))
    p.start()
    p.join()
    assert q.get() == "EACCES"


# --- what is refused

@row("link, symlink, mknod, chattr, sticky bit, xattr")
def _(d, o):
    put(f"{d}/f")
    fails(errno.EOPNOTSUPP, os.link, f"{d}/f", f"{d}/l")
    fails(errno.EOPNOTSUPP, os.symlink, "f", f"{d}/s")
    fails(errno.EPERM, os.mkfifo, f"{d}/p")
    fails(errno.EPERM, os.mknod, f"{d}/c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fails(errno.EPERM, os.mknod, f"{d}/k", stat.S_IFSOCK | 0o600)
    os.mknod(f"{d}/reg", stat.S_IFREG | 0o600)
    assert os.stat(f"{d}/reg").st_size == 0
    fails(errno.EOPNOTSUPP, os.chmod, f"{d}/f", 0o1644)
    fails(errno.EOPNOTSUPP, os.setxattr, f"{d}/f", "user.x", b"1")
    fails(errno.EOPNOTSUPP, os.listxattr, f"{d}/f")
    fd = os.open(f"{d}/f", os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, ctypes.c_long(0x10))
        raise AssertionError("FS_IOC_SETFLAGS succeeded")
    except OSError as e:
        assert e.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM), e
    finally:
        os.close(fd)


# --- mmap, exec, locks

@row("mmap: shared read, private, shared write, msync")
def _(d, o):
    data = pattern(3 << 20)
    put(f"{d}/m", data)
    fd = os.open(f"{d}/m", os.O_RDWR)
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        assert m[:] == data
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        m[0:3] = b"abc"
    assert os.pread(fd, 3, 0) == data[:3]
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        m[1 << 20:(1 << 20) + 5] = b"hello"
        m.flush()
        assert os.pread(fd, 5, 1 << 20) == b"hello"
        m[5:10] = b"world"
    os.close(fd)
    want = bytearray(data)
    want[1 << 20:(1 << 20) + 5] = b"hello"
    want[5:10] = b"world"
    assert get(f"{d}/m") == bytes(want)


@row("mmap written after close of the descriptor")
def _(d, o):
    put(f"{d}/m", bytes(100000))
    fd = os.open(f"{d}/m", os.O_RDWR)
    m = mmap.mmap(fd, 0, mmap.MAP_SHARED)
    os.close(fd)
    m[70000:70003] = b"xyz"
    m.close()
    eventually("the bytes are in the file", lambda: get(f"{d}/m")[70000:70003] == b"xyz")


@row("executing a binary from the mount")
def _(d, o):
    with open("/bin/true", "rb") as f:
        put(f"{d}/prog", f.read(), 0o755)
    os.chmod(f"{d}/prog", 0o755)
    subprocess.run([f"{d}/prog"], check=True)
    put(f"{d}/script", b"#!/bin/sh\nexit 7\n", 0o755)
    assert subprocess.run([f"{d}/script"]).returncode == 7


@row("flock and fcntl locks between processes")
def _(d, o):
    put(f"{d}/l", b"x" * 100)

    def holder(kind, taken, done):
        f = open(f"{d}/l", "r+b" if kind == "w" else "rb")
        if kind == "w":
            fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
        else:
            fcntl.flock(f, fcntl.LOCK_EX)
        taken.set()
        done.wait()
    for kind in ("flock", "w"):
        taken, done = multiprocessing.Event(), multiprocessing.Event()
        p = multiprocessing.Process(target=holder, args=(kind, taken, done))
        p.start()
        taken.wait()
        with open(f"{d}/l", "rb") as f:
            if kind == "w":
                fails(errno.EAGAIN, fcntl.lockf, f, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 0)
                fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 50)
            else:
                fails(errno.EAGAIN, fcntl.flock, f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done.set()
        p.join()
        with open(f"{d}/l", "rb") as f:
            fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)


# --- two mounts

@row("close-to-open between two mounts")
def _(d, o):
    if not o:
        return
    put(f"{d}/c", b"one")
    eventually("the other mount has it", lambda: get(f"{o}/c") == b"one")
    put(f"{o}/c", pattern(100000))
    eventually("this mount sees the change", lambda: get(f"{d}/c") == pattern(100000))
    with open(f"{d}/c", "ab") as f:
        f.write(b"tail")
    eventually("and the other the append", lambda: get(f"{o}/c") == pattern(100000) + b"tail")
    os.unlink(f"{o}/c")
    eventually("it is gone here", lambda: not os.path.exists(f"{d}/c"))
    os.mkdir(f"{d}/dir")
    eventually("a directory is seen", lambda: os.path.isdir(f"{o}/dir"))
    os.rename(f"{o}/dir", f"{o}/moved")
    eventually("and its rename", lambda: os.listdir(d) == ["moved"])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir")
    ap.add_argument("--other")
    ap.add_argument("--only", action="append", default=[], help="part of a row's name")
    args = ap.parse_args()
    bad = 0
    for i, (name, fn) in enumerate(rows):
        if args.only and not any(n in name for n in args.only):
            continue
        d = os.path.join(args.dir, f"row{i}")
        try:
            os.mkdir(d)
            other = os.path.join(args.other, f"row{i}") if args.other else None
            if other:
                eventually("the other mount has the directory", lambda: os.path.isdir(other))
            fn(d, other)
            print(f"ok - {name}", flush=True)
        except Exception as e:  # pylint: disable=broad-except
            bad += 1
            tb = e.__traceback__
            where = tb.tb_next.tb_lineno if tb.tb_next else 0
            while tb.tb_next and tb.tb_next.tb_frame.f_code.co_filename == __file__:
                tb = tb.tb_next
            print(f"FAILED - {name}: line {where}: line {tb.tb_lineno}: {type(e).__name__}: {e}", flush=True)
    print(f"{bad} rows failed", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
