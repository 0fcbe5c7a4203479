#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""Both sides' request counts equal nginx's access log: none lost, none counted twice."""

import collections
import os
import socket
import threading
import time
import unittest

import kilter

MIB = 1 << 20


def read_answers(stream, count, head=False):
    """Reads that many HTTP/1.1 answers and returns their statuses; 1xx are not answers."""
    statuses = []
    while len(statuses) < count:
        line = stream.readline()
        if not line:
            raise AssertionError(f"connection ended after {len(statuses)} of {count} answers")
        status = line.split()[1].decode()
        length, chunked = 0, False
        while (header := stream.readline().strip().lower()) != b"":
            if header.startswith(b"content-length:"):
                length = int(header.split(b":")[1])
            if header.startswith(b"transfer-encoding:") and b"chunked" in header:
                chunked = True
        if status.startswith("1"):
            continue
        statuses.append(status)
        if head or status in ("204", "304"):
            continue
        if chunked:
            while (size := int(stream.readline().split(b";")[0], 16)) > 0:
                stream.read(size + 2)
            stream.readline()
        else:
            stream.read(length)
    return statuses


def exchange(host, port, pieces, answers, head=False, pause=0.0):
    """Sends the pieces, each in a segment of its own, and reads that many answers."""
    with socket.create_connection((host, port), timeout=30) as s, s.makefile("rb") as stream:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            s.sendall(piece)
            if pause:
                time.sleep(pause)
        return read_answers(stream, answers, head)


def request(path="/", method="GET", headers="", body=b""):
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode() + body


def one_by_one(host, port, count):
    for _ in range(count):
        exchange(host, port, [request(headers="Connection: close\r\n")], 1)


def kept_alive(host, port, count, message, head=False):
    with socket.create_connection((host, port), timeout=30) as s, s.makefile("rb") as stream:
        for _ in range(count):
            s.sendall(message)
            read_answers(stream, 1, head)


def pipelined(host, port, bursts, depth):
    with socket.create_connection((host, port), timeout=30) as s, s.makefile("rb") as stream:
        for _ in range(bursts):
            s.sendall(b"".join(request("/" if i % 2 else "/none") for i in range(depth)))
            read_answers(stream, depth)


def many_threads(host, port, threads, count):
    def work():
        try:
            kept_alive(host, port, count, request())
        except Exception as error:  # carried to the caller
            errors.append(error)

    errors = []
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    if errors:
        raise errors[0]


class ExactCounts(kilter.Case):
    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx("""
location = /empty { return 204; }
location = /fail { return 500 "no\\n"; }
location = /post { return 200 "taken\\n"; }
location = /zipped { gzip on; gzip_types *; gzip_min_length 1; gzip_http_version 1.0; }
""")
        for name, size in (("index.html", 600), ("zipped", 300000), ("big", MIB)):
            with open(os.path.join(self.nginx.root, name), "wb") as f:
                f.write(os.urandom(size))
        self.daemon.start()

    def agree(self, least):
        logged = self.nginx.logged_at_least(least)
        self.settle(kilter.SERVER, logged)
        self.settle(kilter.CLIENT, logged)

    def test_keep_alive(self):
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 2000, request())
        self.agree(2000)

    def test_a_connection_per_request(self):
        self.sandbox.call(one_by_one, "127.0.0.1", self.nginx.port, 1000)
        self.agree(1000)

    def test_pipelined(self):
        self.sandbox.call(pipelined, "127.0.0.1", self.nginx.port, 100, 10)
        self.agree(1000)

    def test_pipelined_deeper_than_starts_are_remembered(self):
        self.sandbox.call(pipelined, "127.0.0.1", self.nginx.port, 20, 60)
        self.agree(1200)

    def test_pipelined_while_the_server_moves_between_cpus(self):
        """Answers then wait on one CPU while the next ones come in on another, or both come in at once."""
        with kilter.moving_about(self.nginx.workers()):
            self.sandbox.call(pipelined, "127.0.0.1", self.nginx.port, 200, 60)
        self.agree(12000)

    def test_answers_of_1_mib(self):
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 200, request("/big"))
        self.agree(200)

    def test_request_bodies_of_1_mib(self):
        body = request("/post", "POST", f"Content-Length: {MIB}\r\n", os.urandom(MIB))
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 100, body)
        self.agree(100)

    def test_bodies_that_look_like_http(self):
        text = b"HTTP/1.1 500 Trap\r\nContent-Length: 0\r\n\r\nGET /trap HTTP/1.1\r\nHost: x\r\n\r\n" * 50
        body = request("/post", "POST", f"Content-Length: {len(text)}\r\n", text)
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 100, body)
        self.agree(100)

    def test_chunked_answers(self):
        zipped = request("/zipped", headers="Accept-Encoding: gzip\r\n")
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 200, zipped)
        self.agree(200)

    def test_chunked_requests(self):
        chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
        body = request("/post", "POST", "Transfer-Encoding: chunked\r\n", chunk * 20 + b"0\r\n\r\n")
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 200, body)
        self.agree(200)

    def test_ipv6(self):
        self.sandbox.call(kept_alive, "::1", self.nginx.port6, 1000, request())
        self.sandbox.call(one_by_one, "::1", self.nginx.port6, 200)
        self.agree(1200)

    def test_200_connections_at_once(self):
        self.sandbox.call(many_threads, "127.0.0.1", self.nginx.port, 200, 50)
        self.agree(10000)

    def test_head_204_304_and_errors(self):
        date = "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n"
        for message, head in ((request("/big", "HEAD"), True), (request("/empty"), False),
                              (request("/", headers=date), False), (request("/none"), False),
                              (request("/fail"), False), (request("/"), False)):
            self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 50, message, head)
        self.agree(300)
        self.assertEqual(dict(self.nginx.logged()), {"200": 100, "204": 50, "304": 50, "404": 50, "500": 50})

    def test_methods_nobody_knows_are_other(self):
        self.sandbox.call(kept_alive, "127.0.0.1", self.nginx.port, 50, request("/", "BREW"))
        self.agree(50)
        self.assertEqual(self.daemon.counts(kilter.SERVER, "http_request_method"), {"_OTHER": 50})

    def test_headers_split_over_segments(self):
        message = request("/", headers="X-Filler: " + "y" * 300 + "\r\n")
        for size in (1, 3, 7, 64):
            pieces = [message[i:i + size] for i in range(0, len(message), size)]
            for _ in range(3):
                self.sandbox.call(exchange, "127.0.0.1", self.nginx.port, pieces, 1, False, 0.002)
        self.agree(12)

    def test_a_connection_older_than_the_daemon(self):
        self.daemon.stop()
        ready, go = os.pipe(), os.pipe()

        def old(port):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as s, s.makefile("rb") as stream:
                s.sendall(request())
                read_answers(stream, 1)
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                for _ in range(100):
                    s.sendall(request())
                    read_answers(stream, 1)

        def release():
            os.read(ready[0], 1)
            self.daemon.start()
            before.update(self.nginx.logged_at_least(1))
            os.write(go[1], b"x")

        before = collections.Counter()
        # A first life saw nothing of the first request: the pins are removed with it.
        self.sandbox_clean_pins()
        thread = threading.Thread(target=release)
        thread.start()
        self.sandbox.call(old, self.nginx.port)
        thread.join()
        expected = self.nginx.logged_at_least(101) - before
        self.assertEqual(sum(expected.values()), 100)
        self.settle(kilter.SERVER, expected)
        self.settle(kilter.CLIENT, expected)

    def sandbox_clean_pins(self):
        self.daemon.args = ["--unpin"]
        self.daemon.start()
        self.daemon.stop()
        self.daemon.args = []


def early_hints(port, log, count):
    """A server that answers 103 and then 200, and writes down how many it answered."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream, open(log, "w", encoding="ascii") as out:
            for _ in range(count):
                while stream.readline().strip():
                    pass
                connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
                time.sleep(0.001)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                out.write("200\n")
                out.flush()
        time.sleep(60)


class InterimAnswers(kilter.Case):
    def test_1xx_is_no_answer(self):
        self.daemon.start()
        port, log = kilter.free_port(), self.sandbox.path("hints.log")
        self.sandbox.serve(early_hints, port, log, 100)
        # One connection only is accepted, so the client itself waits for the listener.

        def client():
            for _ in range(200):
                try:
                    return kept_alive("127.0.0.1", port, 100, request())
                except ConnectionRefusedError:
                    time.sleep(0.05)
            raise AssertionError("the server did not listen")

        self.sandbox.call(client)
        with open(log, encoding="ascii") as f:
            expected = collections.Counter(line.strip() for line in f)
        self.assertEqual(expected, {"200": 100})
        self.settle(kilter.SERVER, expected)
        self.settle(kilter.CLIENT, expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
