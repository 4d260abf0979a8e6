#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An application that knows nothing of replaced daemons, in a directory:

	busy.py rename|create DIR	works until SIGTERM; every call must do what it says
	busy.py list DIR		lists it, which has files that nobody touches
	busy.py hold DIR		makes files, holds locks, mappings, descriptors, a
					working directory; for each line that it reads it
					looks whether all of that is as it was: "well WORD"

Exit status 1 with words at the first thing that is not as it should be.
"""
import errno
import fcntl
import mmap
import os
import random
import signal
import sys
import time

stopping = False


def stop(*_):
    global stopping
    stopping = True


def write_new(path, data):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    assert os.write(fd, data) == len(data), path
    os.close(fd)


def read_all(path):
    with open(path, "rb") as f:
        return f.read()


def fails(code, fn, *args):
    try:
        fn(*args)
    except OSError as e:
        assert e.errno == code, f"{fn.__name__}{args}: {e}"
        return
    raise AssertionError(f"{fn.__name__}{args}: no {errno.errorcode[code]}")


def rename(top):
    """A file and a directory walk through names; one replaces another."""
    n = 0
    write_new(f"{top}/file.0", b"the file")
    os.mkdir(f"{top}/dir.0")
    write_new(f"{top}/dir.0/inside", b"inside")
    while not stopping:
        os.rename(f"{top}/file.{n}", f"{top}/file.{n + 1}")
        fails(errno.ENOENT, os.stat, f"{top}/file.{n}")
        assert read_all(f"{top}/file.{n + 1}") == b"the file"
        os.rename(f"{top}/dir.{n}", f"{top}/dir.{n + 1}")
        assert os.listdir(f"{top}/dir.{n + 1}") == ["inside"]
        write_new(f"{top}/victim", b"to be replaced")
        write_new(f"{top}/new", b"%d" % n)
        os.rename(f"{top}/new", f"{top}/victim")
        assert read_all(f"{top}/victim") == b"%d" % n
        os.unlink(f"{top}/victim")
        n += 1
        assert sorted(os.listdir(top)) == [f"dir.{n}", f"file.{n}"], os.listdir(top)
    return n


def create(top):
    """Files that are made once, listed and removed."""
    n, rnd, have = 0, random.Random(1), {}
    while not stopping:
        name = f"f{n}"
        have[name] = rnd.randbytes(rnd.choice((0, 1, 4096, 70000)))
        write_new(f"{top}/{name}", have[name])
        fails(errno.EEXIST, write_new, f"{top}/{name}", b"")
        n += 1
        if n % 20 == 0:
            assert set(os.listdir(top)) == set(have), set(os.listdir(top)) ^ set(have)
            for name in list(have)[:10]:
                assert read_all(f"{top}/{name}") == have[name], name
                os.unlink(f"{top}/{name}")
                del have[name]
    return n


def lister(top):
    """Names that never change, seen once each."""
    n, inodes, want = 0, None, sorted(os.listdir(top))
    while not stopping:
        with os.scandir(top) as it:
            seen = [(e.name, e.inode()) for e in it]
        assert sorted(name for name, _ in seen) == want, "names were lost or doubled"
        inodes = inodes or dict(seen)
        assert dict(seen) == inodes, "inode numbers have changed"
        n += 1
    return n


def work(fn, top):
    signal.signal(signal.SIGTERM, stop)
    if fn is not lister:
        os.makedirs(top)
    began = time.monotonic()
    n = fn(top)
    print(f"{fn.__name__}: rounds={n} seconds={time.monotonic() - began:.0f} errors=0")


def lock_refused(path, how):
    """Whether another process cannot have the lock."""
    pid = os.fork()
    if pid == 0:
        fd = os.open(path, os.O_RDONLY)  # a file has one writer
        try:
            how(fd)
        except (BlockingIOError, PermissionError):
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def whole(fd):
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def middle(fd):
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 1000)


def outside(fd):
    fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 100, 2000)


class Held:
    def __init__(self, top):
        self.top, rnd = top, random.Random(2)
        os.makedirs(f"{top}/cwd/below")
        self.data = rnd.randbytes(1500000)
        for name in ("locked", "ranged", "mapped", "gone", "cwd/near"):
            write_new(f"{top}/{name}", self.data)
        self.names = [f"{top}/ino{i}" for i in range(40)]
        for name in self.names:
            write_new(name, b"x")
        self.inodes = self.inodes_now()
        self.locked = os.open(f"{top}/locked", os.O_RDWR)
        whole(self.locked)
        self.ranged = os.open(f"{top}/ranged", os.O_RDWR)
        fcntl.lockf(self.ranged, fcntl.LOCK_EX | fcntl.LOCK_NB, 100, 1000)
        fd = os.open(f"{top}/mapped", os.O_RDONLY)
        self.map = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        self.gone = os.open(f"{top}/gone", os.O_RDONLY)
        os.unlink(f"{top}/gone")
        self.written = os.open(f"{top}/written", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        self.bytes = b""
        os.chdir(f"{top}/cwd/below")
        self.dir = os.open(".", os.O_RDONLY | os.O_DIRECTORY)

    def inodes_now(self):
        return [os.stat(name).st_ino for name in self.names]

    def look(self):
        assert lock_refused(f"{self.top}/locked", whole), "the flock is not held any more"
        assert lock_refused(f"{self.top}/ranged", middle), "the range is not locked any more"
        assert not lock_refused(f"{self.top}/ranged", outside), "more than the range is locked"
        assert self.map[:] == self.data, "the mapping has other bytes"
        assert os.pread(self.gone, len(self.data), 0) == self.data, "the removed file"
        assert os.fstat(self.gone).st_size == len(self.data)
        assert os.getcwd() == f"{self.top}/cwd/below"
        assert read_all("../near") == self.data, "from the working directory"
        assert os.listdir(self.dir) == [], "the working directory has entries"
        assert self.inodes_now() == self.inodes, "inode numbers have changed"
        piece = os.urandom(10000)
        assert os.pwrite(self.written, piece, len(self.bytes)) == len(piece)
        self.bytes += piece
        assert os.pread(self.written, len(self.bytes), 0) == self.bytes, "what was written"
        if len(self.bytes) > 2000000:
            os.ftruncate(self.written, 0)
            self.bytes = b""

    def end(self):
        os.fsync(self.written)
        os.close(self.written)
        assert read_all(f"{self.top}/written") == self.bytes, "what was written, at last"


def hold(top):
    held = Held(top)
    held.look()
    print("well begun", flush=True)
    for word in sys.stdin:
        held.look()
        print("well", word.strip(), flush=True)
    held.end()
    print("well ended", flush=True)


def main():
    role, top = sys.argv[1:]
    if role == "hold":
        hold(top)
    else:
        work({"rename": rename, "create": create, "list": lister}[role], top)


main()
