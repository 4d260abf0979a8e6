#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What each system call gets on a path with a write policy, as the manual's table has it:
one function a row, run by 62-policy-calls.sh.

	policy_calls.py DIR --policy POLICY [--held | --settle COMMAND] [--silly]
	                [--storage DIR2] [--only WORDS]
	policy_calls.py DIR --stopped

DIR is an empty directory under the policy.  --held: persisting is held back; --settle:
this command returns when nothing waits to be persisted.  --silly: the interceptor is on.
DIR2 is the same directory in the storage.  --stopped: the storage does not answer, and
DIR has the files of --prepare.  Exit status 1 if a row fails.
"""
import argparse
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import time

import calls
from calls import errno, fails, get, pattern

rows = []


def row(name):
    def add(fn):
        rows.append((name, fn))
        return fn
    return add


class Ground:
    """A directory, and how its files come to their state."""

    def __init__(self, top, args):
        self.top, self.args = top, args
        self.storage = args.storage and os.path.join(args.storage, os.path.basename(top))

    def at(self, name):
        return f"{self.top}/{name}"

    def new(self, name, data=b"content", mode=0o644):
        """A new file, closed, in the state that is looked at."""
        fd = os.open(self.at(name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        os.fchmod(fd, mode)
        view = memoryview(data)
        while len(view) > 0:
            view = view[os.write(fd, view):]
        self.close(fd)
        self.settle()
        return self.at(name)

    def close(self, fd):
        """close(2) says so if the policy wants the storage to have it, and it cannot."""
        if self.args.held and self.args.policy == "WRITE_THROUGH":
            fails(errno.EIO, os.close, fd)
        else:
            os.close(fd)

    def settle(self):
        if self.args.settle:
            subprocess.run(self.args.settle, shell=True, check=True, stdout=subprocess.DEVNULL)


# --- until the last close

@row("create, sequential write, append, random write, truncate until the last close")
def _(g):
    for n in (0, 4096, 3 << 20):
        data = bytearray(pattern(n, n))
        fd = os.open(g.at(f"f{n}"), os.O_CREAT | os.O_RDWR, 0o640)
        os.write(fd, data)
        os.fsync(fd)
        for off, piece in ((0, b"first"), (n // 2, b"middle"), (n + 10, b"behind")):
            os.pwrite(fd, piece, off)
            if off > len(data):
                data += bytes(off - len(data))
            data[off:off + len(piece)] = piece
        os.ftruncate(fd, len(data) + 100)
        data += bytes(100)
        os.ftruncate(fd, len(data) - 103)
        del data[-103:]
        assert os.pread(fd, len(data) + 1, 0)[:1 << 20] == bytes(data)[:1 << 20]
        os.lseek(fd, 0, os.SEEK_END)
        os.write(fd, b"end")
        data += b"end"
        assert os.fstat(fd).st_size == len(data)
        g.close(fd)
        assert get(g.at(f"f{n}")) == bytes(data), n
        g.settle()
        assert get(g.at(f"f{n}")) == bytes(data), n
        assert os.stat(g.at(f"f{n}")).st_size == len(data)


@row("open with O_APPEND")
def _(g):
    fd = os.open(g.at("log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    for i in range(50):
        os.write(fd, b"%02d" % i)
        os.lseek(fd, 0, os.SEEK_SET)
    g.close(fd)
    assert get(g.at("log")) == b"".join(b"%02d" % i for i in range(50))


@row("truncate(2) by path of a file that is open for writing")
def _(g):
    fd = os.open(g.at("t"), os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"0123456789")
    os.truncate(g.at("t"), 4)
    assert os.fstat(fd).st_size == 4
    g.close(fd)
    assert get(g.at("t")) == b"0123"


@row("a file that is closed without a byte")
def _(g):
    assert get(g.new("empty", b"")) == b""
    fd = os.open(g.at("ro"), os.O_CREAT | os.O_RDONLY, 0o644)
    os.close(fd)
    g.settle()
    assert get(g.at("ro")) == b""
    fails(errno.EACCES, os.open, g.at("ro"), os.O_WRONLY)


# --- closed

@row("open for writing of a closed file: EACCES; with O_CREAT|O_EXCL: EEXIST")
def _(g):
    p = g.new("c")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC,
                  os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        fails(errno.EACCES, os.open, p, flags, 0o644)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY):
        fails(errno.EEXIST, os.open, p, flags | os.O_CREAT | os.O_EXCL, 0o644)
    assert get(p) == b"content"


@row("truncate of a closed file: EACCES")
def _(g):
    p = g.new("c")
    for n in (0, 3, 7, 100):
        fails(errno.EACCES, os.truncate, p, n)
    assert get(p) == b"content"


@row("rename: EIO")
def _(g):
    p = g.new("c")
    os.mkdir(g.at("d"))
    g.new("d/below")
    for to in ("e", "d/e", "d/below"):
        fails(errno.EIO, os.rename, p, g.at(to))
    fails(errno.EIO, calls.renameat2, p, g.at("e"), calls.NOREPLACE)
    fails(errno.EIO, os.rename, g.at("d"), g.at("e"))
    fails(errno.ENOENT, os.rename, g.at("none"), g.at("e"))
    assert sorted(os.listdir(g.top)) == ["c", "d"]


@row("rename of an open file: EIO")
def _(g):
    fd = os.open(g.at("o"), os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(fd, b"1")
    fails(errno.EIO, os.rename, g.at("o"), g.at("p"))
    g.close(fd)
    assert os.listdir(g.top) == ["o"]


@row("rename to .fuse_hidden*: deleted at the last close with the interceptor, else EIO")
def _(g):
    p = g.new("c", b"hidden soon")
    if not g.args.silly:
        fails(errno.EIO, os.rename, p, g.at(".fuse_hidden0000000100000001"))
        return
    fd = os.open(p, os.O_RDONLY)
    os.rename(p, g.at(".fuse_hidden0000000100000001"))
    fails(errno.ENOENT, os.stat, p)
    assert os.pread(fd, 100, 0) == b"hidden soon"
    assert g.new("c", b"another") == p
    assert os.pread(fd, 100, 0) == b"hidden soon"
    os.close(fd)
    assert os.listdir(g.top) == ["c"] and get(p) == b"another"
    w = os.open(g.at("w"), os.O_CREAT | os.O_RDWR, 0o644)
    os.write(w, b"1")
    os.rename(g.at("w"), g.at(".fuse_hidden0000000100000002"))
    os.write(w, b"2")
    assert os.pread(w, 10, 0) == b"12"
    os.close(w)
    assert os.listdir(g.top) == ["c"]
    os.mkdir(g.at("d"))
    fails(errno.EIO, os.rename, g.at("d"), g.at(".fuse_hidden0000000100000003"))
    fails(errno.EIO, os.rename, p, g.at("d/.fuse_hidden0000000100000004"))


@row("unlink, and the name again")
def _(g):
    for i in range(3):
        p = g.new("u", b"time %d" % i)
        assert get(p) == b"time %d" % i
        os.unlink(p)
        fails(errno.ENOENT, os.stat, p)
        fails(errno.ENOENT, os.unlink, p)
        assert os.listdir(g.top) == []
    if g.storage:
        g.settle()
        assert os.listdir(g.storage) == []


@row("rmdir and mkdir")
def _(g):
    os.mkdir(g.at("d"))
    fails(errno.EEXIST, os.mkdir, g.at("d"))
    g.new("d/f")
    fails(errno.EEXIST, os.mkdir, g.at("d/f"))
    fails(errno.ENOTDIR, os.mkdir, g.at("d/f/e"))
    fails(errno.ENOTEMPTY, os.rmdir, g.at("d"))
    fails(errno.ENOTDIR, os.rmdir, g.at("d/f"))
    fails(errno.EISDIR, os.unlink, g.at("d"))
    os.unlink(g.at("d/f"))
    os.rmdir(g.at("d"))
    fails(errno.ENOENT, os.stat, g.at("d"))
    os.makedirs(g.at("a/b/c"))
    g.new("a/b/c/f")
    shutil.rmtree(g.at("a"))
    assert os.listdir(g.top) == []


@row("chmod, chown, utimens, stat")
def _(g):
    p = g.new("a", b"12345", 0o604)
    st = os.stat(p)
    assert stat.S_IMODE(st.st_mode) == 0o604 and st.st_size == 5 and st.st_nlink == 1
    assert abs(st.st_mtime - time.time()) < 300
    os.chmod(p, 0o750)
    os.chown(p, 12, 34)
    os.utime(p, ns=(10**18 + 5, 10**18 + 7))
    for _ in range(2):
        st = os.stat(p)
        assert stat.S_IMODE(st.st_mode) == 0o750 and (st.st_uid, st.st_gid) == (12, 34)
        assert st.st_mtime_ns == 10**18 + 7 and st.st_size == 5
        time.sleep(0.15)  # the attributes of before are not believed any longer
    assert get(p) == b"12345"
    fd = os.open(g.at("w"), os.O_CREAT | os.O_WRONLY, 0o600)
    os.fchmod(fd, 0o640)
    os.write(fd, b"x")
    os.utime(fd, ns=(10**18, 10**18 + 1))
    g.close(fd)
    g.settle()
    st = os.stat(g.at("w"))
    assert stat.S_IMODE(st.st_mode) == 0o640 and st.st_mtime_ns == 10**18 + 1


@row("statfs")
def _(g):
    g.new("s")
    v = os.statvfs(g.top)
    assert v.f_bsize > 0 and v.f_blocks > 0 and v.f_bavail <= v.f_blocks and v.f_namemax == 255


@row("readdir: each name once, with its kind")
def _(g):
    names = {f"f{i:04}" for i in range(40)} | {"a", "a-b", "a.b", "a0"}
    for n in names:
        fd = os.open(g.at(n), os.O_CREAT | os.O_WRONLY, 0o644)
        g.close(fd)
    for n in ("d", "a-", "f0030.d"):
        os.mkdir(g.at(n))
        g.new(f"{n}/below")
    g.settle()
    seen = list(os.scandir(g.top))
    assert sorted(e.name for e in seen) == sorted(names | {"d", "a-", "f0030.d"})
    for e in seen:
        assert e.is_dir() == (e.name not in names), e.name
    assert os.listdir(g.at("d")) == ["below"]


@row("readdir while its names are deleted, made and persisted")
def _(g):
    names = [f"n{i:03}" for i in range(120)]
    for n in names:
        fd = os.open(g.at(n), os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(fd, b"1")
        g.close(fd)
    seen = []
    with os.scandir(g.top) as it:
        for e in it:
            seen.append(e.name)
            if len(seen) == 10:
                for n in names[100:105]:
                    os.unlink(g.at(n))
                os.close(os.open(g.at("n9"), os.O_CREAT | os.O_RDONLY, 0o644))
                g.settle()
    assert len(seen) == len(set(seen)), "a name twice"
    assert set(names[:100] + names[105:]) <= set(seen), "a name is missing"
    assert sorted(os.listdir(g.top)) == sorted(names[:100] + names[105:] + ["n9"])


@row("link: EOPNOTSUPP; symlink, special files, chattr, sticky bit")
def _(g):
    p = g.new("l")
    fails(errno.EOPNOTSUPP, os.link, p, g.at("m"))
    fails(errno.EOPNOTSUPP, os.symlink, "l", g.at("m"))
    for kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK):
        fails(errno.EPERM, os.mknod, g.at("m"), kind | 0o600, os.makedev(1, 3))
    fails(errno.EOPNOTSUPP, os.chmod, p, 0o1644)
    fd = os.open(p, os.O_RDONLY)
    fails(errno.EOPNOTSUPP, fcntl.ioctl, fd, 0x80086601, bytearray(8))
    os.close(fd)
    assert os.listdir(g.top) == ["l"]


@row("mknod of a regular file")
def _(g):
    if g.args.held and g.args.policy == "WRITE_THROUGH":
        return  # it is stored before the call returns, by no upload
    os.mknod(g.at("m"), stat.S_IFREG | 0o640)
    g.settle()
    st = os.stat(g.at("m"))
    assert stat.S_ISREG(st.st_mode) and st.st_size == 0 and stat.S_IMODE(st.st_mode) == 0o640
    fails(errno.EEXIST, os.mknod, g.at("m"), stat.S_IFREG | 0o640)
    fails(errno.EACCES, os.open, g.at("m"), os.O_WRONLY)
    os.unlink(g.at("m"))
    assert os.listdir(g.top) == []


# --- open

@row("unlink of an open file: the open descriptor goes on working")
def _(g):
    p = g.new("u", pattern(200000))
    r = os.open(p, os.O_RDONLY)
    os.unlink(p)
    fails(errno.ENOENT, os.stat, p)
    assert os.pread(r, 300000, 0) == pattern(200000)
    assert os.fstat(r).st_size == 200000
    os.close(r)
    w = os.open(g.at("w"), os.O_CREAT | os.O_RDWR, 0o644)
    os.write(w, b"one")
    os.fsync(w)
    os.unlink(g.at("w"))
    os.write(w, b"two")
    os.ftruncate(w, 5)
    assert os.pread(w, 10, 0) == b"onetw" and os.fstat(w).st_size == 5
    again = g.new("w", b"newer")
    os.close(w)
    assert get(again) == b"newer" and os.listdir(g.top) == ["w"]


@row("a second writer of an open file: EBUSY; EACCES once it is closed")
def _(g):
    a = os.open(g.at("b"), os.O_CREAT | os.O_WRONLY, 0o644)
    for flags in (os.O_WRONLY, os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
        fails(errno.EBUSY, os.open, g.at("b"), flags)
    os.write(a, b"x")
    fails(errno.EBUSY, os.open, g.at("b"), os.O_WRONLY | os.O_CREAT, 0o644)
    fails(errno.EEXIST, os.open, g.at("b"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    g.close(a)
    fails(errno.EACCES, os.open, g.at("b"), os.O_WRONLY)
    assert get(g.at("b")) == b"x"


@row("a local writer and local readers of one file")
def _(g):
    w = os.open(g.at("rw"), os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(w, b"hello")
    r = os.open(g.at("rw"), os.O_RDONLY)
    assert os.read(r, 10) == b"hello"
    os.fsync(w)
    os.write(w, b", world")
    assert os.read(r, 10) == b", world"
    assert os.fstat(r).st_size == 12 and os.stat(g.at("rw")).st_size == 12
    g.close(w)
    g.settle()
    assert os.pread(r, 100, 0) == b"hello, world"
    os.close(r)


@row("names that cannot be: EINVAL, ENAMETOOLONG")
def _(g):
    fails(errno.ENAMETOOLONG, os.open, g.at("n" * 256), os.O_CREAT | os.O_WRONLY)
    deep = g.top
    for _ in range(3):
        deep += "/" + "d" * 250
        os.mkdir(deep)
    fails(errno.ENAMETOOLONG, os.open, deep + "/" + "f" * 255, os.O_CREAT | os.O_WRONLY)
    p = g.new("n" * 255)
    assert get(p) == b"content" and sorted(os.listdir(g.top)) == ["d" * 250, "n" * 255]


@row("flock and fcntl locks")
def _(g):
    p = g.new("k")
    a, b = os.open(p, os.O_RDONLY), os.open(p, os.O_RDONLY)
    fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fails(errno.EAGAIN, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(a)
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(b, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(b)


@row("objects of others: readable, deletable, not writable")
def _(g):
    if not g.storage:
        return
    with open(f"{g.storage}/theirs", "wb") as f:
        f.write(b"foreign")
    p = g.at("theirs")
    calls.eventually("it is seen", lambda: get(p) == b"foreign")
    assert os.listdir(g.top) == ["theirs"]
    fails(errno.EACCES, os.open, p, os.O_WRONLY)
    fails(errno.EACCES, os.truncate, p, 0)
    fails(errno.EIO, os.rename, p, g.at("mine"))
    fails(errno.EEXIST, os.open, p, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.unlink(p)
    assert os.listdir(g.top) == [] and os.listdir(g.storage) == []


@row("what the storage has")
def _(g):
    g.new("s", b"bytes")
    if not g.storage:
        return
    here = not g.args.held and g.args.policy != "TRANSIENT"
    assert os.listdir(g.storage) == (["s"] if here else [])
    if here:
        with open(f"{g.storage}/s", "rb") as f:
            assert f.read() == b"bytes"


# --- the storage does not answer

def prepare(top):
    for name, n in (("small", 100), ("large", 3 << 20), ("gone", 5000), ("mode", 10)):
        with open(f"{top}/{name}", "wb") as f:
            f.write(pattern(n))


def stopped(top):
    assert get(f"{top}/small") == pattern(100)
    assert get(f"{top}/large") == pattern(3 << 20)
    assert os.stat(f"{top}/large").st_size == 3 << 20
    os.chmod(f"{top}/mode", 0o601)
    assert stat.S_IMODE(os.stat(f"{top}/mode").st_mode) == 0o601
    fails(errno.EACCES, os.open, f"{top}/small", os.O_WRONLY)
    fails(errno.EIO, os.rename, f"{top}/small", f"{top}/other")
    if "TRANSIENT" not in top:
        return  # an upload was begun: the storage has to be told
    fd = os.open(f"{top}/gone", os.O_RDONLY)
    os.unlink(f"{top}/gone")
    assert os.read(fd, 6000) == pattern(5000)
    os.close(fd)
    fails(errno.ENOENT, os.stat, f"{top}/gone")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("dir")
    ap.add_argument("--policy", default="WRITE_BACK")
    ap.add_argument("--held", action="store_true")
    ap.add_argument("--settle")
    ap.add_argument("--silly", action="store_true")
    ap.add_argument("--storage")
    ap.add_argument("--only", default="")
    ap.add_argument("--prepare", action="store_true")
    ap.add_argument("--stopped", action="store_true")
    args = ap.parse_args()
    if args.prepare or args.stopped:
        (prepare if args.prepare else stopped)(args.dir)
        return 0
    bad = 0
    for i, (name, fn) in enumerate(rows):
        if args.only not in name:
            continue
        top = f"{args.dir}/row{i:02}"
        os.mkdir(top)
        try:
            fn(Ground(top, args))
        except Exception as e:  # the next rows are told all the same
            bad += 1
            tb = e.__traceback__
            while tb.tb_next and tb.tb_next.tb_frame.f_code.co_filename == __file__:
                tb = tb.tb_next
            print(f"FAILED: {name}: line {tb.tb_lineno}: {type(e).__name__}: {e}", flush=True)
    print(f"{args.policy}: {len(rows) - bad} of {len(rows)} rows hold", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
