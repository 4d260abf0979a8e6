#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What one mount sees of what another mount of the same storage does; run by
41-consistency.sh.

	consistency.py ttl A B SECONDS	changed through A, seen through B: an open after so
					many seconds has what was closed before
	consistency.py at-once A B	the same without any delay
	consistency.py replaced A B	B has a file open, and believes for an hour what it
					knows, when A replaces it
"""
import errno
import mmap
import os
import sys
import time

# What a busy machine may add to a time to live, which begins where an answer arrives.
SLACK = 20


def put(path, data):
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    try:
        view = memoryview(data)
        while len(view) > 0:
            view = view[os.write(fd, view):]
    finally:
        os.close(fd)


def get(path):
    with open(path, "rb") as f:
        return f.read()


def fill(n, i):
    """n bytes of version i: none has those of another at any place."""
    return bytes([i % 251]) * n


def whole(data, n, versions):
    """It is one of the versions, and all of it."""
    assert len(data) == n, f"{len(data)} bytes, not {n}"
    for i in versions:
        if data == fill(n, i):
            return i
    raise AssertionError(f"a mix, or none of the versions {versions}: {set(data)}")


# --- within the time to live

def ttl(a, b, seconds):
    n = 300000
    put(f"{a}/f", fill(n, 1))
    end = time.monotonic() + seconds + SLACK
    while not os.path.exists(f"{b}/f"):
        assert time.monotonic() < end, "a new file is not seen"
    assert get(f"{b}/f") == fill(n, 1)
    for i in range(2, 5):
        put(f"{a}/f", fill(n, i))
        closed = time.monotonic()
        while True:
            began = time.monotonic()
            try:
                seen = whole(get(f"{b}/f"), n, (i - 1, i))
            except OSError as e:
                # It was opened as it was before, and that is no longer to be had.
                assert e.errno == errno.ESTALE, e
                seen = i - 1
            if seen == i:
                break
            assert began < closed + seconds + SLACK, f"version {i} is not seen"
        assert os.stat(f"{b}/f").st_mtime_ns == os.stat(f"{a}/f").st_mtime_ns or \
            not os.environ.get("NATIVE"), "another time than through the other mount"
    os.unlink(f"{a}/f")
    gone = time.monotonic()
    while os.path.exists(f"{b}/f"):
        assert time.monotonic() < gone + seconds + SLACK, "it is still seen"


# --- at once

def sync_dir(path):
    """Deletions of a bucket are sent a moment later, but for this."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


def at_once(a, b):
    n = 200000
    for i in range(1, 40):
        put(f"{a}/f", fill(n, i))
        assert os.stat(f"{b}/f").st_size == n
        assert whole(get(f"{b}/f"), n, (i - 1, i)) == i, f"an older version than {i}"
        # Both have written it, in turns.
        if i % 3 == 0:
            with open(f"{b}/f", "ab") as f:
                f.write(b"tail")
            assert os.stat(f"{a}/f").st_size == n + 4
            assert get(f"{a}/f") == fill(n, i) + b"tail"
    # Mapped, and with the pages of the version before in the kernel's cache.
    fd = os.open(f"{b}/f", os.O_RDONLY)
    with mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) as m:
        before = m[:]
        put(f"{a}/f", fill(n, 77))
        assert m[:] == before, "a mapping has bytes of another version"
        assert get(f"{b}/f") == fill(n, 77)
    os.close(fd)
    # Shorter, longer, empty.
    for size in (10, 70000, 0, 1):
        put(f"{a}/f", fill(size, size))
        assert os.stat(f"{b}/f").st_size == size and get(f"{b}/f") == fill(size, size), size
    os.truncate(f"{a}/f", 5000)
    assert get(f"{b}/f") == fill(1, 1) + bytes(4999)
    # Names that come and go, which the other has asked for before.
    for i in range(10):
        for p in (f"{b}/name", f"{b}/dir", f"{b}/dir/below", f"{b}/moved"):
            assert not os.path.exists(p), p
        put(f"{a}/name", b"%d" % i)
        os.mkdir(f"{a}/dir")
        put(f"{a}/dir/below", b"b")
        assert get(f"{b}/name") == b"%d" % i
        assert sorted(os.listdir(b)) == ["dir", "f", "name"] and os.listdir(f"{b}/dir") == ["below"]
        os.rename(f"{a}/name", f"{a}/moved")
        assert get(f"{b}/moved") == b"%d" % i and not os.path.exists(f"{b}/name")
        os.unlink(f"{a}/moved")
        os.unlink(f"{a}/dir/below")
        sync_dir(f"{a}/dir")
        os.rmdir(f"{a}/dir")
        sync_dir(a)
        for p in ("moved", "dir"):
            try:
                os.close(os.open(f"{b}/{p}", os.O_RDONLY))
                raise AssertionError(f"{p} can still be opened")
            except FileNotFoundError:
                pass
        assert os.listdir(b) == ["f"], os.listdir(b)


# --- what this daemon knows better

def replaced(a, b):
    """B's cache has room for the beginning of it only."""
    n = 24 << 20
    for i in range(1, 4):
        put(f"{a}/r{i}", fill(n, 1))
        assert os.stat(f"{b}/r{i}").st_size == n
        fd = os.open(f"{b}/r{i}", os.O_RDONLY)
        assert os.pread(fd, 4096, 0) == fill(4096, 1)
        put(f"{a}/r{i}", fill(n + 1, 2))
        # The descriptor keeps what it had, as far as that is here, or gets ESTALE.
        stale = False
        for off in range(0, n, 1 << 20):
            try:
                assert os.pread(fd, 1 << 20, off) == fill(1 << 20, 1), "a mix of versions"
            except OSError as e:
                assert e.errno == errno.ESTALE, e
                stale = True
        assert stale, "all of it was here: this shows nothing"
        # Having met the other version, the mount does not tell anybody of the one before.
        # (Who has it open goes on to see its attributes, and the kernel does not tell him from
        # one who asks by name, until the name is opened again or entry_timeout is over.)
        if i % 2 == 1:
            os.close(fd)
            assert os.stat(f"{b}/r{i}").st_size == n + 1, "stat has the old size"
        assert get(f"{b}/r{i}") == fill(n + 1, 2), "an open after ESTALE gets the old version"
        assert os.stat(f"{b}/r{i}").st_size == n + 1, "stat has the old size after that"
        if i % 2 == 0:
            assert os.fstat(fd).st_size == n, "fstat has another version's size"
            os.close(fd)


def main():
    what, a, b = sys.argv[1:4]
    if what == "ttl":
        ttl(a, b, float(sys.argv[4]))
    elif what == "at-once":
        at_once(a, b)
    else:
        replaced(a, b)


if __name__ == "__main__":
    main()
