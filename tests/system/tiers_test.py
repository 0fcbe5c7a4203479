#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""The lower tiers, forced by the configuration: what older kernels get does the same."""

import errno
import itertools
import os
import socket
import subprocess
import threading
import time
import unittest

import kilter

LOWER = """
kernel: {set_retval: false, tracing_storage: false, task_storage: false, error_report: false, map_batch: false,
  lsm: false, fentry: false}
syscalls: {window: 1s, period: 1s}
"""
KEYS = {"guard_connect": "kernel.set_retval", "guard_udp": "kernel.error_report", "tcp_conn": "kernel.tracing_storage",
        "sock_iter": "kernel.tracing_storage", "syscall": "kernel.task_storage", "audit_process": "kernel.lsm"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def read_answer(stream):
    while stream.readline().strip():
        pass
    stream.read(3)


def ask(port, count):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s, s.makefile("rb") as stream:
        for _ in range(count):
            s.sendall(REQUEST)
            read_answer(stream)


def connect_errors(port, count):
    """What each connect() to this port gives."""
    errors = []
    for _ in range(count):
        with socket.socket() as s:
            errors.append(s.connect_ex(("127.0.0.1", port)))
    return errors


class Tiers(kilter.Case):
    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }', workers=1)

    def restart(self, config):
        if self.daemon.process:
            self.assertEqual(self.daemon.stop(), 0)
        self.sandbox.write("kilter.yaml", config)
        self.daemon.start()

    def lower(self):
        """What is in its lower tier because a key says so, not because this kernel has no better one."""
        return {p["name"]: p["reason"] for p in self.daemon.json("/api/v1/status")["probes"]
                if p["tier"] == "lower" and p["reason"].startswith("kernel.")}

    def executed(self, marker):
        return [r for r in self.daemon.audited() if r["event.action"] == "exec" and marker in r["process.args"]]

    def agree(self, count):
        self.settle(kilter.SERVER, {"200": count})
        self.settle(kilter.CLIENT, {"200": count})

    def test_each_is_told_with_the_key_that_forced_it(self):
        self.restart(LOWER)
        self.assertEqual({n: r.split()[0] for n, r in self.lower().items()}, KEYS)
        self.sandbox.call(ask, self.nginx.port, 50)
        self.agree(50)
        # The sampler is always armed, and what it knows of threads does not pile up.
        kilter.wait_for("system calls are counted", lambda: self.daemon.value(
            "kilter_syscall_duration_seconds_count", service_name="nginx", syscall="writev") >= 50)

    def test_a_connection_older_than_the_daemon_is_seen_to_its_end(self):
        ready, go = os.pipe(), os.pipe()

        def old(port):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as s, s.makefile("rb") as stream:
                s.sendall(REQUEST)
                read_answer(stream)
                os.write(ready[1], b"x")
                os.read(go[0], 1)
                for _ in range(30):
                    s.sendall(REQUEST)
                    read_answer(stream)

        def release():
            os.read(ready[0], 1)
            self.restart(LOWER)
            os.write(go[1], b"x")

        thread = threading.Thread(target=release)
        thread.start()
        self.sandbox.call(old, self.nginx.port)
        thread.join()
        self.agree(30)
        for role in ("server", "client"):
            kilter.wait_for(f"the {role}'s end", lambda r=role: self.daemon.value(
                "kilter_tcp_connections_closed_total", role=r) == 1)

    def test_a_refusal_is_enetunreach(self):
        port = kilter.free_port()
        self.restart(LOWER + f"""
guard:
  policies:
    - {{name: dead, mode: enforce, destination: "127.0.0.1:{port}", consecutive_failures: 5, base_open: 60s}}
""")
        self.assertEqual(self.sandbox.call(connect_errors, port, 8),
                         [errno.ECONNREFUSED] * 5 + [errno.ENETUNREACH] * 3)
        kilter.wait_for("refusals are counted", lambda: self.daemon.value("kilter_circuit_refused_total") == 3)

    def test_from_one_tier_to_the_other_and_back_counts_once(self):
        for count, config in enumerate(("", LOWER, ""), start=1):
            self.restart(config)
            self.assertEqual(set(self.lower()), set(KEYS) if config else set())
            links = os.listdir(os.path.join(self.sandbox.bpffs, "kilter", "links"))
            self.assertEqual({n for n in links if n.startswith("guard_connect")},
                             {"guard_connect4_rewrite", "guard_connect6_rewrite"} if config else
                             {"guard_connect4", "guard_connect6"})
            self.assertEqual(len([n for n in links if n.startswith("audit_exec")]), 1, links)
            self.sandbox.call(ask, self.nginx.port, 20)
            self.agree(20 * count)
            subprocess.run(["/bin/true", f"tier {count}"], preexec_fn=self.sandbox.join, check=True)
            kilter.wait_for("the exec is written", lambda: self.executed(f"tier {count}"))
        time.sleep(2 * kilter.TICK_SECONDS)
        records = [self.executed(f"tier {n}") for n in (1, 2, 3)]
        self.assertEqual([len(r) for r in records], [1, 1, 1])
        for record in itertools.chain(*records):
            self.assertEqual(record["process.executable"], "/bin/true")
            self.assertEqual(record["process.parent.pid"], os.getpid())


if __name__ == "__main__":
    unittest.main()
