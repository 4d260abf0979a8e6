#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""File handles that nobody was given: forged.py DIR COUNT

Takes DIR's own handle and puts other node ids into it: the first COUNT, and what is beyond all
bounds.  Prints the inode number of each that can be opened, then of the directory above it.
"""
import ctypes
import os
import stat
import struct
import sys

top, count = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int),
                ("id", ctypes.c_ubyte * 128)]


own = Handle(bytes=128)
mount_id = ctypes.c_int()
mount = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
if libc.name_to_handle_at(mount, b"", ctypes.byref(own), ctypes.byref(mount_id), 0x1000) != 0:
    sys.exit("name_to_handle_at: " + os.strerror(ctypes.get_errno()))
# FUSE's: the node id's halves, the generation.
if (own.type, own.bytes) != (0x81, 12):
    sys.exit(f"handles of type {own.type:#x} with {own.bytes} bytes")
generation = struct.unpack_from("=III", own.id)[2]
odd = [0, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 62, 1 << 63, (1 << 64) - 2, (1 << 64) - 1]
for node in odd + list(range(1, count + 1)):
    for gen in {0, 1, generation}:
        struct.pack_into("=III", own.id, 0, node >> 32, node & 0xffffffff, gen)
        fd = libc.open_by_handle_at(mount, ctypes.byref(own), os.O_PATH | os.O_NOFOLLOW)
        if fd < 0:
            continue
        st = os.fstat(fd)
        print(st.st_ino)
        if stat.S_ISDIR(st.st_mode) and st.st_ino != os.fstat(mount).st_ino:
            print(os.stat("..", dir_fd=fd).st_ino)
        os.close(fd)
