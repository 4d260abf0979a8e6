#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Stands between two nodes of a cluster: relay.py PORT UPSTREAM_PORT MODE_FILE

Passes each HTTP request on, and its answer back, as the file says at that moment:
pass, flip (one byte of the body is another), short (half of the body, then the end),
long (a byte more), empty (nothing, and the end), noise (no HTTP), other (200 with a page),
silent (no answer, ever), once (the first answer breaks off, the next ones pass)."""
import socket
import sys
import threading

PORT, UPSTREAM, MODE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
broken = set()


def mode():
    with open(MODE, encoding="ascii") as f:
        return f.read().strip()


def read_head(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None, b""
        data += more
    head, rest = data.split(b"\r\n\r\n", 1)
    return head + b"\r\n\r\n", rest


def length_of(head):
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def ask(head):
    with socket.create_connection(("127.0.0.1", UPSTREAM)) as up:
        up.sendall(head)
        answer, body = read_head(up)
        if answer is None:
            return b"", b""
        want = 0 if head.startswith(b"HEAD") else length_of(answer)
        while len(body) < want:
            more = up.recv(65536)
            if not more:
                break
            body += more
        return answer, body


def spoil(how, head, answer, body):
    """The answer's bytes, and whether the connection goes on."""
    if how == "other":
        return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", True
    if how == "noise":
        return b"\x00\xff no http at all\r\n" * 20, False
    if how == "once" and head.split(b" ")[1] not in broken:
        broken.add(head.split(b" ")[1])
        return answer + body[: len(body) // 2], False
    if head.startswith(b"HEAD"):
        return answer, True
    if how == "flip":
        return answer + body[:-1] + bytes([body[-1] ^ 1]), True
    if how == "short":
        return answer + body[: len(body) // 2], False
    if how == "long":
        n = str(len(body)).encode()
        more = str(len(body) + 1).encode()
        return answer.replace(b"Content-Length: " + n, b"Content-Length: " + more) + body + b"x", True
    return answer + body, True


def serve(sock):
    with sock:
        while True:
            head, _ = read_head(sock)
            if head is None:
                return
            how = mode()
            if how == "empty":
                return
            if how == "silent":
                while sock.recv(1):
                    pass
                return
            data, stay = spoil(how, head, *ask(head))
            sock.sendall(data)
            if not stay:
                return


def guarded(sock):
    try:
        serve(sock)
    except OSError:
        pass


listener = socket.create_server(("127.0.0.1", PORT))
while True:
    conn, _ = listener.accept()
    threading.Thread(target=guarded, args=(conn,), daemon=True).start()
