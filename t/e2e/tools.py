#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""zipfile, sqlite3 and numpy.memmap in a directory: tools.py DIR"""
import os
import sqlite3
import sys
import zipfile

import numpy

top = sys.argv[1]

path = os.path.join(top, "a.zip")
for i in range(20):
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as z:
        z.writestr(f"member{i}", bytes([i]) * (i * 10000))
with zipfile.ZipFile(path) as z:
    assert z.testzip() is None
    assert [z.read(f"member{i}") for i in range(20)] == [bytes([i]) * (i * 10000) for i in range(20)]

path = os.path.join(top, "a.db")
db = sqlite3.connect(path)
db.execute("create table t (k integer primary key, v blob)")
for i in range(50):
    with db:
        db.execute("insert into t values (?, ?)", (i, os.urandom(3000)))
with db:
    db.execute("delete from t where k % 3 = 0")
db.execute("vacuum")
db.close()
db = sqlite3.connect(path)
assert db.execute("pragma integrity_check").fetchone() == ("ok",)
assert db.execute("select count(*) from t").fetchone() == (33,)
db.close()

path = os.path.join(top, "a.npy")
m = numpy.memmap(path, dtype="int64", mode="w+", shape=(300, 1000))
m[:] = numpy.arange(300000).reshape(300, 1000)
m.flush()
del m
m = numpy.memmap(path, dtype="int64", mode="r+", shape=(300, 1000))
assert (m[299] == numpy.arange(299000, 300000)).all()
m[150, 7] = -1
del m
m = numpy.memmap(path, dtype="int64", mode="r", shape=(300, 1000))
assert m[150, 7] == -1 and int(m.sum()) == 300000 * 299999 // 2 - 150007 - 1
del m
os.unlink(path)
