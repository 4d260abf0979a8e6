#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Creates files and notes what it was told of each, so that what a killed daemon, or a
machine without power, leaves behind can be held against it.

	acks.py write DIR SEED LIST [COUNT]	until SIGTERM, or so many files
	acks.py cut SYNCED DIR IMAGE SEED	what a machine without power has of DIR, which nobody
					changes just now (synced.c keeps SYNCED)
	acks.py check LIST... DIR	what was acknowledged is there, byte for byte; what was
					not is whole or absent; and nothing else is there

A line of LIST is written before a call ("syncing", "rewriting", "closing", "removing") and
after its answer ("synced", "closed", "removed"): WORD SIZE MD5 NAME.
"""
import errno
import hashlib
import os
import random
import signal
import sys

ANY = "any"
stopping = False


def stop(*_):
    global stopping
    stopping = True


def md5(data):
    return hashlib.md5(data).hexdigest()


class Writer:
    def __init__(self, top, seed, notes):
        self.top, self.seed, self.rnd = top, seed, random.Random(seed)
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.kept = []

    def note(self, word, name, data):
        os.write(self.notes, f"{word} {len(data)} {md5(data)} {name}\n".encode())

    def path(self, name):
        return os.path.join(self.top, name)

    def append(self, fd, data, size):
        piece = self.rnd.randbytes(size)
        at = 0
        while at < size:
            n = os.pwrite(fd, piece[at:at + self.rnd.randrange(1, 200000)], len(data) + at)
            at += n
        data += piece

    def overwrite(self, fd, data):
        off = self.rnd.randrange(len(data))
        piece = self.rnd.randbytes(self.rnd.randrange(1, 20000))
        if os.pwrite(fd, piece, off) != len(piece):
            raise AssertionError("a short write")
        data[off:off + len(piece)] = piece

    def sync(self, fd, name, data):
        self.note("syncing", name, data)
        os.fsync(fd)
        self.note("synced", name, data)

    def make(self, n):
        rnd, name, data = self.rnd, f"{self.seed}-{n}", bytearray()
        fd = os.open(self.path(name), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
        self.append(fd, data, rnd.choice((0, 1, 100, 4096, 10000, 16384, 16385, 70000, 500000)))
        if data and rnd.random() < 0.3:
            self.overwrite(fd, data)
        if rnd.random() < 0.4:
            self.sync(fd, name, data)
            self.append(fd, data, rnd.choice((0, 1, 5000, 20000)))
        elif data and rnd.random() < 0.3:
            self.sync(fd, name, data)
            self.note("rewriting", name, data)
            self.overwrite(fd, data)
            if rnd.random() < 0.5:
                data = data[:rnd.randrange(len(data) + 1)]
                os.ftruncate(fd, len(data))
        if rnd.random() < 0.3:
            os.fchmod(fd, 0o600)
        if os.pread(fd, len(data) + 1, 0) != bytes(data):
            raise AssertionError(f"{name}: other bytes while it is open")
        self.note("closing", name, data)
        os.close(fd)
        self.note("closed", name, data)
        self.kept.append((name, bytes(data)))

    def look(self, name, data):
        if os.stat(self.path(name)).st_size != len(data):
            raise AssertionError(f"{name}: another size")
        with open(self.path(name), "rb") as f:
            if f.read() != data:
                raise AssertionError(f"{name}: other bytes")
        try:
            os.close(os.open(self.path(name), os.O_WRONLY))
            raise AssertionError(f"{name}: opened for writing again")
        except OSError as e:
            if e.errno != errno.EACCES:
                raise

    def remove(self, at):
        name, data = self.kept.pop(at)
        self.note("removing", name, data)
        os.unlink(self.path(name))
        self.note("removed", name, data)
        if os.path.exists(self.path(name)):
            raise AssertionError(f"{name}: removed, and there")

    def run(self, count):
        n = 0
        while not stopping and (count == 0 or n < count):
            n += 1
            self.make(n)
            self.look(*self.rnd.choice(self.kept[-5:]))
            if self.rnd.random() < 0.25:
                self.remove(self.rnd.randrange(len(self.kept)))
            if n % 10 == 0:
                have = {e for e in os.listdir(self.top) if e.startswith(f"{self.seed}-")}
                if have != {k for k, _ in self.kept}:
                    raise AssertionError(f"the listing: {have ^ {k for k, _ in self.kept}}")
        print(f"{n} files, {len(self.kept)} kept")


def check(lists, top):
    may = {}  # name -> the contents that it may have; None: absent, ANY: what was safe is changed
    for notes in lists:
        with open(notes, encoding="ascii") as f:
            for line in f:
                if not line.endswith("\n"):
                    continue
                word, size, digest, name = line.split()
                content = (int(size), digest)
                if word in ("synced", "closed"):
                    may[name] = [content]
                elif word in ("syncing", "closing"):
                    may.setdefault(name, [None]).append(content)
                elif word == "rewriting":
                    may[name] = [ANY]
                elif word == "removing":
                    may[name].append(None)
                else:
                    may[name] = [None]
    there = set(os.listdir(top))
    for name, contents in may.items():
        found = None
        if name in there:
            with open(os.path.join(top, name), "rb") as f:
                data = f.read()
            found = (len(data), md5(data))
        if ANY in contents and found is not None:
            continue
        # Synced, and written on: at least what was synced, if not at once more.
        if found not in contents and not (found and written_on(data, contents)):
            sys.exit(f"{name}: {found} where one of {contents} was due")
    if not there <= set(may):
        extra = [n for n in there - set(may) if not recoverable(n, lists)]
        if extra:
            sys.exit(f"nobody has made {extra}")
    print(f"{sum(1 for c in may.values() if None not in c)} files acknowledged, {len(there)} there")


def written_on(data, contents):
    return any(c is not None and len(data) > c[0] and md5(data[:c[0]]) == c[1]
               for c in contents[:1])


def recoverable(name, lists):
    """Made after the last line, when the note had not been written yet."""
    seed = name.split("-")[0]
    last = [0]
    for notes in lists:
        with open(notes, encoding="ascii") as f:
            last += [int(ln.split()[3].split("-")[1]) for ln in f
                     if ln.endswith("\n") and ln.split()[3].startswith(seed + "-")]
    return int(name.split("-")[1]) == max(last) + 1


def synced(shadow, rel):
    return os.path.join(shadow, "".join("%" + part for part in rel.split("/") if part))


def cut_file(old, new, to, rnd):
    """Of what was not synced each page is there or not; and so is a new length."""
    data = bytearray(open(old, "rb").read())
    try:
        now = open(new, "rb").read()
    except FileNotFoundError:
        now = bytes(data)
    size = len(data)
    if rnd.random() < 0.5:
        size = len(now)
    data = data[:size].ljust(size, b"\0")
    for at in range(0, min(size, len(now)), 4096):
        page = now[at:at + 4096]
        if data[at:at + len(page)] != page and rnd.random() < 0.5:
            data[at:at + len(page)] = page
    with open(to, "wb") as f:
        f.write(data[:size])


def cut(shadow, top, image, seed):
    rnd = random.Random(seed)
    files = 0
    for sub in ("meta", "staged"):
        os.makedirs(os.path.join(image, sub))
        try:
            with open(synced(shadow, sub) + "%.names", encoding="ascii") as f:
                names = set(f.read().split("\n")) - {"", ".", ".."}
        except FileNotFoundError:
            continue
        # A name that was not synced may be there, too; one that was deleted, still.
        names |= {n for n in os.listdir(os.path.join(top, sub)) if rnd.random() < 0.5}
        for name in names:
            old, new = synced(shadow, f"{sub}/{name}"), os.path.join(top, sub, name)
            to = os.path.join(image, sub, name)
            if not os.path.isfile(old) or old.endswith(".names"):
                if not os.path.isfile(new):
                    continue
                old = "/dev/null"
            cut_file(old, new, to, rnd)
            files += 1
    print(f"{files} files")


def main():
    if sys.argv[1] == "check":
        check(sys.argv[2:-1], sys.argv[-1])
        return
    if sys.argv[1] == "cut":
        cut(*sys.argv[2:5], int(sys.argv[5]))
        return
    signal.signal(signal.SIGTERM, stop)
    top, seed, notes = sys.argv[2], int(sys.argv[3]), sys.argv[4]
    os.makedirs(top, exist_ok=True)
    Writer(top, seed, notes).run(int(sys.argv[5]) if len(sys.argv) > 5 else 0)


if __name__ == "__main__":
    main()
