#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Quantiles against what the client itself measured, with an upstream whose delays are known."""

import math
import re
import socket
import threading
import time
import unittest

import kilter

# A base-2 exponential histogram of schema 3 has 8 buckets per octave; a quantile is placed
# inside its bucket, so it is off by a bucket's width at most: 2^(1/8) - 1.
BOUND = 2 ** (1 / 8) - 1
# A duration lies between what the upstream slept and what the client saw: the client's clock runs in user space, with
# scheduling and the interpreter in it. This much for the reading of clocks.
SLACK = 0.0005
CONNECTIONS = 8
BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]


def upstream(port, delays):
    """Answers the Nth request of a connection after the Nth delay."""
    def work(connection):
        with connection, connection.makefile("rb") as stream:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for delay in delays:
                while line := stream.readline():
                    if not line.strip():
                        break
                else:
                    return
                time.sleep(delay)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            threading.Thread(target=work, args=(listener.accept()[0],), daemon=True).start()


def client(port, count):
    """Returns every duration as this client saw it: first byte out to first byte in."""
    durations = []

    def work():
        with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                start = time.perf_counter()
                s.sendall(b"GET /known HTTP/1.1\r\nHost: test\r\n\r\n")
                s.recv(4096)
                durations.append(time.perf_counter() - start)

    workers = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    return sorted(durations)


def quantile(durations, q):
    return durations[max(0, math.ceil(q * len(durations)) - 1)]


class Latency(kilter.Case):
    def measure(self, delays):
        port = kilter.free_port()
        self.sandbox.serve(upstream, port, delays)
        kilter.wait_for("the upstream listens", lambda: kilter.can_connect(port))
        self.daemon.start()
        durations = self.sandbox.call(client, port, len(delays))
        self.assertEqual(len(durations), CONNECTIONS * len(delays))
        self.settle(kilter.CLIENT, {"200": len(durations)})
        self.slept = sorted(delays * CONNECTIONS)
        return durations

    def check(self, durations):
        """Both sides' classic histograms and the exact ones have each quantile between the upstream's and the
        client's."""
        metrics = self.daemon.metrics()
        for side in ("server", "client"):
            buckets = {}
            for labels, value in metrics[f"http_{side}_request_duration_seconds_bucket"]:
                edge = float(labels["le"])
                buckets[edge] = buckets.get(edge, 0) + value
            self.assertEqual(sorted(buckets), BOUNDS + [math.inf], "the conventions' bounds")
            total = buckets[math.inf]
            for q in (0.5, 0.95, 0.99):
                edge = min(e for e, n in buckets.items() if n >= q * total)
                low = max([0] + [e for e in BOUNDS if e < edge])
                self.assertLessEqual(low, quantile(durations, q), f"{side} p{q * 100:g} bucket")
                self.assertGreaterEqual(edge, quantile(self.slept, q), f"{side} p{q * 100:g} bucket")
        shown = self.shown()
        for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            least, most = quantile(self.slept, q), quantile(durations, q)
            said = f"{name}: kilter says {shown[name]}, the upstream slept {least}, the client measured {most}"
            self.assertGreaterEqual(shown[name], least * (1 - BOUND) - SLACK, said)
            self.assertLessEqual(shown[name], most * (1 + BOUND) + SLACK, said)

    def shown(self):
        """The quantiles, in seconds, of the service that served, as the API tells them."""
        services = self.daemon.json("/api/v1/services")
        text = repr(services)
        found = {}

        def walk(node, path):
            if isinstance(node, dict):
                for key, value in node.items():
                    match = re.match(r"^(?:duration_)?(p50|p95|p99)(_ns|_ms|_us|_s|_seconds)?$", key)
                    if match and isinstance(value, (int, float)):
                        unit = {"_ns": 1e-9, "_us": 1e-6, "_ms": 1e-3}.get(match.group(2), 1)
                        found.setdefault(match.group(1), []).append(value * unit)
                    else:
                        walk(value, path + [key])
            elif isinstance(node, list):
                for value in node:
                    walk(value, path)

        walk(services, [])
        self.assertEqual(sorted(found), ["p50", "p95", "p99"], text[:2000])
        return {name: max(values) for name, values in found.items()}

    def test_1_ms(self):
        self.check(self.measure([0.001] * 400))

    def test_10_ms(self):
        self.check(self.measure([0.01] * 200))

    def test_100_ms(self):
        self.check(self.measure([0.1] * 60))

    def test_a_tail_of_1_s(self):
        # Two in a hundred: the p99 lies inside the tail, not at its edge.
        durations = self.measure(([0.01] * 49 + [1.0]) * 4)
        self.assertGreater(quantile(durations, 0.99), 0.9)
        self.check(durations)

    def test_a_tail_of_1_percent_is_counted_exactly(self):
        durations = self.measure(([0.01] * 99 + [1.0]) * 2)
        slow = sum(1 for d in durations if d > 0.75)
        for side in ("server", "client"):
            name = f"http_{side}_request_duration_seconds_bucket"
            total = self.daemon.value(name, le="+Inf")
            self.assertEqual(total - self.daemon.value(name, le="0.75"), slow)
            self.assertEqual(slow, CONNECTIONS * 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
