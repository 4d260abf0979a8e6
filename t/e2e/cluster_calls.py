# SPDX-License-Identifier: BSD-2-Clause
"""Calls on the mounts of several nodes at the same time, and their history (t/lib/linear.py).

    cluster_calls.py run SECONDS HISTORY MOUNT...
    cluster_calls.py end HISTORY STORE MOUNT...    when all is stored: what is there at last

A file is its number of bytes, which no two creates share, and which bytes those are follows
from it: so stat(2) tells which one it is also where the bytes are on another node.  Two workers
a node; a name is one worker's on each node, for what a node sees of a file that it is writing
itself is no news.  A node where a close(2) was refused keeps what was written there (FAILED)
and shows it: it has nothing more to do with that name.  Rules are set and asked for meanwhile.

A name is made on one node only, and removed on all; with CONTEND=1 it is made on all.  Then two
creates at the same time may both be told that all is well: the second one's close(2) is refused
while the first one's file is not stored, but not after.
"""
import contextlib
import errno
import json
import os
import random
import subprocess
import sys
import threading
import time

WORKERS, NAMES = 2, 8
lock = threading.Lock()
last_value = 0
problems = []
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV)


def content(value):
    line = f"{value:09}\n".encode()
    return (line * (value // len(line) + 1))[:value]


def new_value():
    global last_value
    with lock:
        last_value += 1
        # Some lie in their record, some in a staged file.
        return last_value + (1000 if last_value % 2 else 70000)


class Worker(threading.Thread):
    def __init__(self, node, number, mount, until):
        super().__init__()
        self.node, self.mount, self.until = node, mount, until
        self.bare = os.stat(os.path.dirname(mount)).st_dev
        self.top = f"c{number}"
        self.names = [f"c{number}/n{i}" for i in range(NAMES)]
        self.history = []
        self.spoiled = set()
        self.rng = random.Random(f"{node} {number}")
        self.makes = set(self.names)
        if not os.environ.get("CONTEND"):
            self.makes = {n for i, n in enumerate(self.names) if "abc"[i % 3] == node}

    @contextlib.contextmanager
    def root(self):
        """The root of the mount for one call.  While a node is dead its mount point is a
        directory as others are, where nothing is."""
        fd = os.open(self.mount, os.O_PATH | os.O_DIRECTORY)
        try:
            if os.fstat(fd).st_dev == self.bare:
                raise OSError(errno.ENOTCONN, "not mounted")
            yield fd
        finally:
            os.close(fd)

    def note(self, op, began, **rest):
        self.history.append({"op": op, "on": self.node, "from": began, "to": time.monotonic(), **rest})

    def create(self, name):
        value = new_value()
        began = time.monotonic()
        call = {"name": name, "value": value}
        try:
            with self.root() as root:
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=root)
        except OSError as e:
            if e.errno == errno.EEXIST:
                self.note("create", began, end="exists", **call)
            else:
                self.failed(name, e)
                self.note("create", began, end="unknown", **call)
            return
        end = "ok"
        try:
            data = content(value)
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as e:
            self.failed(name, e)
            end = "unknown"
        try:
            os.close(fd)
        except OSError as e:
            self.failed(name, e)
            end = "unknown"
        self.note("create", began, end=end, **call)

    def failed(self, name, e):
        """What came of it here is another matter than what came of it."""
        self.spoiled.add(name)
        if e.errno in GONE:
            time.sleep(0.02)

    def unlink(self, name):
        began = time.monotonic()
        end = "ok"
        try:
            with self.root() as root:
                os.unlink(name, dir_fd=root)
        except OSError as e:
            end = {errno.ENOENT: "absent", errno.EBUSY: "none"}.get(e.errno, "unknown")
        self.note("unlink", began, name=name, end=end)

    def stat(self, name):
        began = time.monotonic()
        try:
            with self.root() as root:
                size = os.stat(name, dir_fd=root).st_size
            self.note("read", began, name=name, value=size)
        except FileNotFoundError:
            self.note("read", began, name=name, value=None)
        except OSError:
            pass

    def read(self, name):
        began = time.monotonic()
        try:
            with self.root() as root:
                fd = os.open(name, os.O_RDONLY, dir_fd=root)
            with open(fd, "rb", buffering=0) as f:
                data = f.read(200000)
        except FileNotFoundError:
            self.note("read", began, name=name, value=None)
            return
        except OSError:
            return
        if data != content(len(data)) or not data:
            problems.append(f"{name} on {self.node}: {len(data)} bytes that nobody wrote")
        self.note("read", began, name=name, value=len(data))

    def list(self, _):
        began = time.monotonic()
        try:
            with self.root() as root:
                fd = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
            try:
                there = set(os.listdir(fd))
            finally:
                os.close(fd)
        except OSError:
            return
        for name in self.names:
            if name not in self.spoiled:
                self.note("read", began, name=name,
                          value=True if name.split("/")[1] in there else None)

    def rename(self, name):
        began = time.monotonic()
        try:
            with self.root() as root:
                os.rename(name, name + ".renamed", src_dir_fd=root, dst_dir_fd=root)
            problems.append(f"{name} on {self.node}: rename(2) has worked")
        except FileNotFoundError:
            self.note("read", began, name=name, value=None)
        except OSError:
            pass

    def run(self):
        calls = [self.create] * 8 + [self.unlink] * 2 + [self.stat] * 3 + \
            [self.read] * 2 + [self.list] + [self.rename]
        while time.monotonic() < self.until:
            names = [n for n in self.names if n not in self.spoiled]
            if not names:
                break
            call, name = self.rng.choice(calls), self.rng.choice(names)
            if call != self.create or name in self.makes:
                call(name)
            time.sleep(self.rng.random() * 0.03)


class Rules(threading.Thread):
    """Sets them on one node and asks for them on another."""
    def __init__(self, mounts, until):
        super().__init__()
        self.mounts, self.until, self.history = mounts, until, []

    def ask(self, mount, *words, text=None):
        done = subprocess.run(["batonfs", "-m", mount, "--json", *words], input=text,
                              capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def run(self):
        for i in range(1, 1000000):
            if time.monotonic() >= self.until:
                return
            began = time.monotonic()
            text = json.dumps({"apiVersion": "v1.0", "defaultRule":
                               {"description": f"r{i}", "policyMode": "WRITE_BACK"}})
            said = self.ask(self.mounts[i % len(self.mounts)], "pathconfig", "set", "-", text=text)
            self.history.append({"op": "set", "value": f"r{i}", "from": began,
                                 "to": time.monotonic(), "end": "ok" if said else "unknown",
                                 "version": said["version"] if said else 0})
            for mount in self.mounts:
                get_rules(self, mount)


def get_rules(who, mount):
    began = time.monotonic()
    said = who.ask(mount, "pathconfig", "show")
    if said is not None and said["version"] > 0:
        value = (said["rules"].get("defaultRule") or {}).get("description")
        if value != "first":
            who.history.append({"op": "get", "node": mount, "version": said["version"],
                                "value": value, "from": began, "to": time.monotonic()})


def save(history, path, how):
    with open(path, how, encoding="utf-8") as f:
        for call in history:
            f.write(json.dumps(call) + "\n")


def run(seconds, path, mounts):
    until = time.monotonic() + float(seconds)
    all_of = [Worker(m.rsplit(".", 1)[1], k, m, until) for m in mounts for k in range(WORKERS)]
    all_of.append(Rules(mounts, until))
    for t in all_of:
        t.start()
    for t in all_of:
        t.join()
    save([c for t in all_of for c in t.history], path, "w")
    print(sum(len(t.history) for t in all_of), "calls,",
          sum(len(t.spoiled) for t in all_of[:-1]), "names given up")


def end(path, store, mounts):
    history = []
    wanted = {f"c{k}/n{i}" for k in range(WORKERS) for i in range(NAMES)}
    with open(path, encoding="utf-8") as f:
        calls = [json.loads(line) for line in f]
    acknowledged = {c["value"] for c in calls if c["op"] == "create" and c["end"] == "ok"}
    for mount in mounts:
        w = Worker(mount.rsplit(".", 1)[1], 0, mount, 0)
        for name in sorted(wanted):
            before = len(w.history)
            w.read(name)
            if len(w.history) == before:
                problems.append(f"{name}: cannot be read on {w.node}")
        history += w.history
    there = {}
    for top, _, files in os.walk(store):
        for name in files:
            with open(os.path.join(top, name), "rb") as f:
                data = f.read()
            there[os.path.relpath(os.path.join(top, name), store)] = len(data)
            if data != content(len(data)):
                problems.append(f"{name} in the storage: {len(data)} bytes that nobody wrote")
    if set(there) - wanted:
        problems.append(f"in the storage, and nobody made it: {set(there) - wanted}")
    if len(set(there.values())) != len(there):
        problems.append(f"one file in two places: {there}")
    seen = {c["name"]: c["value"] for c in history if c["value"] is not None}
    if seen != there:
        problems.append(f"the mounts have {seen}, the storage {there}")
    save(history, path, "a")
    print(f"{len(acknowledged)} files were acknowledged; at the end there are {len(there)}")


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3], sys.argv[4:])
else:
    end(sys.argv[2], sys.argv[3], sys.argv[4:])
for p in problems:
    print(p)
sys.exit(1 if problems else 0)
