#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Changes a directory in all ways, and knows what each call must answer: a change that
a replaced daemon did twice, or not at all, is seen by its errno, by the bytes or by the
listing.

	mutator.py DIR SEED [SECONDS]	until SIGTERM, or for so long
	mutator.py --check LIST DIR	what LIST says is in DIR, and nothing else

On its end it writes the content that DIR must have to $MUTATOR_LIST: "md5 path" lines.
Exit status 1 with words at the first difference.

With $MUTATOR_EAGAIN changes and listings, and nothing else, may fail with EAGAIN; they
are done again, and must find that nothing has come of them.  A write that takes several
requests may then be short.
"""
import errno
import hashlib
import os
import random
import signal
import sys
import time

stopping = False
REFUSABLE = (os.pwrite, os.write, os.ftruncate, os.mkdir, os.rename, os.chmod, os.utime,
             os.listdir, os.rmdir, os.unlink)


def refusable(fn, args):
    if "MUTATOR_EAGAIN" not in os.environ:
        return False
    return fn in REFUSABLE or fn is os.open and args[1] & (os.O_CREAT | os.O_TRUNC) != 0


def stop(*_):
    global stopping
    stopping = True


class Mutator:
    def __init__(self, top, seed):
        self.top, self.rnd, self.n = top, random.Random(seed), 0
        self.kept = {}  # path below top -> md5
        self.calls = 0
        self.longest = 0.0
        self.refused = 0

    def call(self, fn, *args, fails=0):
        """fn(*args) succeeds, or fails with that errno."""
        while True:
            began = time.monotonic()
            code, result = 0, None
            try:
                result = fn(*args)
            except OSError as e:
                code = e.errno
            self.longest = max(self.longest, time.monotonic() - began)
            self.calls += 1
            if code != errno.EAGAIN or not refusable(fn, args):
                break
            self.refused += 1
            time.sleep(0.01)
        if code != fails:
            raise AssertionError(f"{fn.__name__}{args[:2]}: {errno.errorcode.get(code, 'no error')}"
                                 f" where {errno.errorcode.get(fails, 'none')} was due")
        return result

    def content(self):
        size = self.rnd.choice((0, 1, 100, 5000, 70000, 300000, 2000000, 9500000))
        return self.rnd.randbytes(size)

    def write(self, path, fn, fd, piece, *at):
        """All of piece: short only where the rest may have failed with EAGAIN."""
        n = self.call(fn, fd, piece, *at)
        while n < len(piece):
            if not refusable(fn, ()) or n <= 0:
                raise AssertionError(f"{path}: a short write")
            n += self.call(fn, fd, piece[n:], *(off + n for off in at))

    def write_file(self, path):
        data = bytearray()
        fd = self.call(os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
        todo = self.content()
        at = 0
        while at < len(todo):
            piece = todo[at:at + self.rnd.randrange(1, 400000)]
            self.write(path, os.pwrite, fd, piece, at)
            at += len(piece)
        data += todo
        if data and self.rnd.random() < 0.4:
            off = self.rnd.randrange(len(data))
            piece = self.rnd.randbytes(self.rnd.randrange(1, 100000))
            self.write(path, os.pwrite, fd, piece, off)
            data[off:off + len(piece)] = piece
        if self.rnd.random() < 0.2:
            cut = self.rnd.randrange(len(data) + 1)
            self.call(os.ftruncate, fd, cut)
            del data[cut:]
        if self.rnd.random() < 0.3:
            self.call(os.fsync, fd)
        if self.call(os.fstat, fd).st_size != len(data):
            raise AssertionError(f"{path}: size of the open file")
        off = self.rnd.randrange(len(data) + 1)
        if self.call(os.pread, fd, 50000, off) != bytes(data[off:off + 50000]):
            raise AssertionError(f"{path}: wrong bytes in the open file at {off}")
        self.call(os.close, fd)
        if self.rnd.random() < 0.3:
            fd = self.call(os.open, path, os.O_WRONLY | os.O_APPEND)
            piece = self.rnd.randbytes(self.rnd.randrange(1, 50000))
            self.write(path, os.write, fd, piece)
            data += piece
            self.call(os.close, fd)
        return bytes(data)

    def expect(self, path, data):
        fd = self.call(os.open, path, os.O_RDONLY)
        got = bytearray()
        while True:
            piece = self.call(os.read, fd, 1 << 20)
            if not piece:
                break
            got += piece
        self.call(os.close, fd)
        if bytes(got) != data:
            raise AssertionError(f"{path}: wrong bytes ({len(got)} of {len(data)})")

    def step(self):
        self.n += 1
        name, d = f"{self.top}/f{self.n}", f"{self.top}/d{self.n}"
        data = self.write_file(name)
        self.call(os.open, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, fails=errno.EEXIST)
        self.expect(name, data)
        self.call(os.mkdir, d, 0o750)
        self.call(os.mkdir, d, fails=errno.EEXIST)
        self.call(os.rename, name, f"{d}/moved")
        self.call(os.stat, name, fails=errno.ENOENT)
        self.call(os.chmod, f"{d}/moved", 0o600)
        self.call(os.utime, f"{d}/moved", (1000000000 + self.n, 1000000000 + self.n))
        if self.call(os.listdir, d) != ["moved"]:
            raise AssertionError(f"{d}: listing")
        self.call(os.rmdir, d, fails=errno.ENOTEMPTY)
        self.call(os.rename, d, f"{d}.new")
        self.call(os.stat, d, fails=errno.ENOENT)
        self.expect(f"{d}.new/moved", data)
        st = self.call(os.stat, f"{d}.new/moved")
        if st.st_mtime != 1000000000 + self.n or st.st_mode & 0o7777 != 0o600:
            raise AssertionError(f"{d}.new/moved: attributes {st}")
        if self.rnd.random() < 0.5:
            self.kept[f"d{self.n}.new/moved"] = hashlib.md5(data).hexdigest()
        else:
            self.call(os.unlink, f"{d}.new/moved")
            self.call(os.stat, f"{d}.new/moved", fails=errno.ENOENT)
            self.call(os.rmdir, f"{d}.new")
            self.call(os.stat, f"{d}.new", fails=errno.ENOENT)
        if len(self.kept) > 12:
            path = self.rnd.choice(sorted(self.kept))
            del self.kept[path]
            self.call(os.unlink, f"{self.top}/{path}")
            self.call(os.rmdir, f"{self.top}/{os.path.dirname(path)}")


def found(top):
    out = {}
    for at, _, files in os.walk(top):
        for f in files:
            with open(os.path.join(at, f), "rb") as fd:
                out[os.path.relpath(os.path.join(at, f), top)] = hashlib.md5(fd.read()).hexdigest()
    return out


def compare(want, top):
    have = found(top)
    for path in sorted(set(want) | set(have)):
        if want.get(path) != have.get(path):
            print(f"{top}/{path}: {have.get(path, 'not there')}, not {want.get(path, 'there')}")
            sys.exit(1)


def main():
    if sys.argv[1] == "--check":
        with open(sys.argv[2], encoding="utf-8") as f:
            want = dict(reversed(line.rstrip("\n").split(" ", 1)) for line in f)
        compare(want, sys.argv[3])
        print(f"{len(want)} files are as they should be")
        return
    signal.signal(signal.SIGTERM, stop)
    top, seed = sys.argv[1], int(sys.argv[2])
    end = time.monotonic() + float(sys.argv[3]) if len(sys.argv) > 3 else None
    os.makedirs(top, exist_ok=True)
    m = Mutator(top, seed)
    try:
        while not stopping and (end is None or time.monotonic() < end):
            m.step()
        compare(m.kept, top)
    except AssertionError as e:
        print(f"seed {seed}, step {m.n}: {e}", flush=True)
        sys.exit(1)
    with open(os.environ.get("MUTATOR_LIST", os.devnull), "w", encoding="utf-8") as f:
        for path, md5 in sorted(m.kept.items()):
            f.write(f"{md5} {path}\n")
    print(f"steps={m.n} calls={m.calls} kept={len(m.kept)} longest={m.longest * 1000:.0f}ms errors=0"
          f" refused={m.refused}")


main()
