#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A proxy that only tunnels, and only for who has its password:

	proxy.py USER:PASSWORD PORT_FILE LOG

It listens on 127.0.0.1, on the port that it writes into PORT_FILE.  Each request is a line of
LOG: what it asked for, and "tunnel", "denied" (a wrong password or none) or "refused" (not a
CONNECT).
"""
import base64
import os
import socket
import socketserver
import sys
import threading

user, port_file, log_file = sys.argv[1:]
wanted = "Basic " + base64.b64encode(user.encode()).decode()
log = open(log_file, "a", buffering=1)


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for s in (source, sink):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Client(socketserver.StreamRequestHandler):
    rbufsize = 0  # what comes behind the head is the tunnel's

    def handle(self):
        request = self.rfile.readline().decode().split()
        given = ""
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            if name.lower() == "proxy-authorization":
                given = value.strip()
        if len(request) < 2:
            return
        if request[0] != "CONNECT":
            self.end("refused", request[1], b"405 Only tunnels")
        elif given != wanted:
            self.end("denied", request[1],
                     b"407 Who are you\r\nProxy-Authenticate: Basic realm=x")
        else:
            self.tunnel(request[1])

    def end(self, what, target, status):
        log.write(f"{what} {target}\n")
        self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    def tunnel(self, target):
        host, _, port = target.rpartition(":")
        log.write(f"tunnel {target}\n")
        with socket.create_connection((host, int(port))) as far:
            self.wfile.write(b"HTTP/1.1 200 Here it is\r\n\r\n")
            back = threading.Thread(target=pump, args=(far, self.request))
            back.start()
            pump(self.request, far)
            back.join()


class Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True


with Proxy(("127.0.0.1", 0), Client) as proxy:
    with open(port_file + ".new", "w") as f:
        f.write(str(proxy.server_address[1]))
    os.rename(port_file + ".new", port_file)
    proxy.serve_forever()
