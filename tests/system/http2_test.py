#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""HTTP/2 and gRPC, without TLS: counts equal nginx's access log and what gRPC's own library says."""

import collections
import os
import unittest

import kilter

CALLS = os.path.join(kilter.ROOT, "tests", "stimulus", "grpc_calls.py")
SERVER = "rpc_server_call_duration_seconds_count"
CLIENT = "rpc_client_call_duration_seconds_count"


class Http2(kilter.Case):
    def setUp(self):
        super().setUp()
        self.port = kilter.free_port()
        self.nginx = self.sandbox.nginx("", extra=f"""
	server {{
		listen 127.0.0.1:{self.port} http2;
		root {self.sandbox.path('www')};
		location = /empty {{ return 204; }}
		location = /fail {{ return 503 "no\\n"; }}
		location /users/ {{ return 200 "yes\\n"; }}
	}}
""")
        for name, size in (("index.html", 600), ("big", 1 << 20)):
            with open(os.path.join(self.nginx.root, name), "wb") as f:
                f.write(os.urandom(size))
        self.daemon.start()

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def agree(self, least):
        logged = self.nginx.logged_at_least(least)
        self.settle(kilter.SERVER, logged)
        self.settle(kilter.CLIENT, logged)
        self.assertEqual(self.lost(), {})

    def lost(self):
        return {(labels["where"], labels["reason"]): value
                for labels, value in self.daemon.metrics()["kilter_dropped_total"]
                if value and labels["where"] in ("http1", "http2", "sockets", "series")}

    def h2load(self, *argv):
        self.sandbox.run(["h2load", *argv])

    def test_one_at_a_time(self):
        self.h2load("-n2000", "-c1", "-m1", self.url("/"))
        self.agree(2000)

    def test_many_streams_on_many_connections(self):
        self.h2load("-n20000", "-c20", "-m50", self.url("/"), self.url("/empty"), self.url("/none"), self.url("/fail"))
        self.agree(20000)

    def test_large_bodies(self):
        self.h2load("-n200", "-c4", "-m10", self.url("/big"))
        self.agree(200)

    def test_servers_that_move_between_cpus(self):
        with kilter.moving_about(self.nginx.workers()):
            self.h2load("-n40000", "-c4", "-m40", self.url("/"), self.url("/empty"), self.url("/none"))
        self.agree(40000)

    def test_posted_bodies(self):
        body = self.sandbox.write("posted", "x" * 100000)
        self.h2load("-n200", "-c2", "-m5", "-d", body, self.url("/users/7"))
        self.agree(200)

    def test_one_connection_for_many_paths(self):
        urls = [self.url(path) for path in ("/", "/empty", "/none", "/fail", "/users/12?token=abc")]
        self.sandbox.run(["nghttp", "-n", "-m20", *urls])
        self.agree(100)

    def test_methods_and_templates_are_told(self):
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            flags = ["-I"] if method == "HEAD" else ["-X", method]
            self.sandbox.run(["curl", "-s", "-o", "/dev/null", "--http2-prior-knowledge", *flags,
                              self.url("/users/12345/orders?secret=1")])
        self.agree(6)
        told = collections.Counter()
        for labels, value in self.daemon.metrics()[kilter.SERVER]:
            told[labels["http_request_method"], labels.get("url_template")] += value
        self.assertEqual(told, {(m, "/users/{id}/orders"): 1
                                for m in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")})


class Grpc(kilter.Case):
    def setUp(self):
        super().setUp()
        self.address = f"127.0.0.1:{kilter.free_port()}"

    def start(self):
        self.sandbox.spawn([CALLS, "serve", self.address])
        kilter.wait_for("gRPC's server listens", lambda: kilter.can_connect(int(self.address.split(":")[1])))

    def call(self, threads, count, *requests, timeout=30.0):
        out = self.sandbox.run([CALLS, "call", self.address, str(threads), str(count), str(timeout), *requests])
        return {name: int(n) for name, n in (line.split() for line in out.splitlines())}

    def codes(self, name):
        counts = collections.Counter()
        for labels, value in self.daemon.metrics().get(name, ()):
            counts[labels.get("rpc_response_status_code", labels.get("error_type", "?"))] += int(value)
        return dict(counts)

    def agree(self, told):
        for name in (SERVER, CLIENT):
            kilter.wait_for(f"{name} is {told}", lambda name=name: self.codes(name) == told or None, seconds=15)

    def test_codes_are_what_the_library_says(self):
        self.daemon.start()
        self.start()
        told = self.call(4, 300, "0 0 10", "5 0 0", "14 0 0", "13 0 0", "0 0 100000", "16 0 0")
        self.assertEqual(sum(told.values()), 1200)
        self.assertEqual(told["OK"], 400)
        self.agree(told)

    def test_streams_of_answers(self):
        self.daemon.start()
        self.start()
        self.agree(self.call(2, 100, "stream 0 0 0", "stream 8 0 0"))

    def test_the_method_is_told(self):
        self.daemon.start()
        self.start()
        self.agree(self.call(1, 10, "0 0 10"))
        methods = {labels["rpc_method"] for labels, _ in self.daemon.metrics()[SERVER]}
        self.assertEqual(methods, {"kilter.test.Echo/Call"})


if __name__ == "__main__":
    unittest.main()
