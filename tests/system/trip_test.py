#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""A failing dependency: the kernel refuses the sixth connect, lets trials through, and lets go in the end."""

import os
import socket
import threading
import time
import unittest

import kilter

FAILURES = 5
LEASE = 4


def upstream(port, log, status_file):
    """Answers with the status that a file holds, and writes down each connection that arrives."""
    def work(connection):
        with connection, connection.makefile("rb") as stream:
            while line := stream.readline():
                if line.strip():
                    continue
                with open(status_file, encoding="ascii") as f:
                    status = f.read()
                connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nxx".encode())

    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            with open(log, "a", encoding="ascii") as f:
                f.write("arrived\n")
            threading.Thread(target=work, args=(connection,), daemon=True).start()


def ask(port):
    """One request on a connection of its own: its status, or "refused"."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as s, s.makefile("rb") as stream:
            s.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            answer = stream.readline().split()[1].decode()
            stream.read(4)
            return answer
    except ConnectionRefusedError:
        return "refused"


def ask_often(port, count):
    return [ask(port) for _ in range(count)]


class Trip(kilter.Case):
    def prepare(self, mode="enforce", base_open="2s", **more):
        self.port = kilter.free_port()
        extra = "".join(f"      {k}: {v}\n" for k, v in more.items())
        with open(self.daemon.config, "w", encoding="utf-8") as f:
            f.write(f"""
guard:
  lease: {LEASE}s
  max_open_ratio: 1
  policies:
    - name: upstream
      workload: "*"
      destination: "127.0.0.1:{self.port}"
      mode: {mode}
      consecutive_failures: {FAILURES}
      failure_ratio: 0
      base_open: {base_open}
      max_open: 120s
      jitter: 0
      half_open_permits: 2
      half_open_successes: 2
{extra}""")
        self.daemon.start()

    def serve(self, status):
        self.log, self.status = self.sandbox.path("arrived.log"), self.sandbox.write("status", status)
        end = self.sandbox.serve(upstream, self.port, self.log, self.status)
        # Looked at from outside the cgroup, and taken off the log again.
        kilter.wait_for("the upstream listens", lambda: kilter.can_connect(self.port))
        kilter.wait_for("it wrote that down", lambda: self.arrived() >= 1)
        os.truncate(self.log, 0)
        return end

    def arrived(self):
        if not os.path.exists(self.log):
            return 0
        with open(self.log, encoding="ascii") as f:
            return len(f.readlines())

    def ask(self, count=1):
        return self.sandbox.call(ask_often, self.port, count)

    def state(self):
        open_states = {labels["state"] for labels, value in self.daemon.metrics()["kilter_circuit_state"]
                       if value == 1 and str(self.port) in labels["circuit"]}
        return open_states.pop() if len(open_states) == 1 else (open_states or None)

    def refused(self):
        return sum(v for labels, v in self.daemon.metrics()["kilter_circuit_refused_total"]
                   if str(self.port) in labels.get("circuit", str(self.port)))

    def test_the_sixth_connect_after_five_500s_never_arrives(self):
        self.prepare()
        self.serve("500")
        self.assertEqual(self.ask(FAILURES + 5), ["500"] * FAILURES + ["refused"] * 5)
        self.assertEqual(self.arrived(), FAILURES)
        kilter.wait_for("refusals are counted", lambda: self.refused() == 5)
        # The kernel opened it by itself; that is a record before the daemon's own.
        actions = [kilter.field(r, "event.action") for r in self.daemon.audited()]
        self.assertEqual(actions.count("circuit-kernel-trip"), 1)
        self.assertLess(actions.index("circuit-kernel-trip"), actions.index("circuit-transition"))
        trip = self.records("circuit-kernel-trip")[0]
        self.assertIn(f"127.0.0.1:{self.port}", kilter.field(trip, "kilter.subject"))

    def test_the_sixth_connect_to_a_closed_port_is_kilters_refusal(self):
        self.prepare(base_open="60s")
        self.assertEqual(self.ask(FAILURES), ["refused"] * FAILURES)
        self.assertEqual(self.refused(), 0)
        # Now somebody listens, and still the kernel says no: it is the circuit's answer.
        self.serve("200")
        self.assertEqual(self.ask(3), ["refused"] * 3)
        self.assertEqual(self.arrived(), 0)
        kilter.wait_for("refusals are counted", lambda: self.refused() == 3)

    def test_it_recovers_through_half_open(self):
        self.prepare()
        self.serve("500")
        self.ask(FAILURES)
        self.assertEqual(self.ask(), ["refused"])
        kilter.wait_for("the daemon confirms", lambda: self.state() == "open")
        self.sandbox.write("status", "200")
        answers = []

        def closed():
            answers.extend(self.ask())
            return self.state() == "closed"

        kilter.wait_for("the circuit closes", closed, every=0.2)
        self.assertIn("200", answers)
        self.assertEqual(self.ask(20), ["200"] * 20)
        steps = [r for r in self.daemon.audited() if "half" in repr(r).lower()]
        self.assertTrue(steps, "half-open is in the audit trail")

    def test_a_failed_trial_opens_it_again(self):
        self.prepare(base_open="1s")
        self.serve("500")
        self.ask(FAILURES)
        kilter.wait_for("a trial arrives", lambda: self.ask() == ["500"], every=0.2)
        kilter.wait_for("it is open again", lambda: self.ask() == ["refused"], every=0.01)
        self.assertLessEqual(self.arrived(), FAILURES + 2)

    def test_a_dead_daemon_lets_go_when_the_lease_ends_and_not_before(self):
        self.prepare(base_open="110s")
        self.serve("500")
        self.ask(FAILURES)
        kilter.wait_for("the daemon confirms", lambda: self.state() == "open")
        self.sandbox.write("status", "200")
        self.daemon.process.kill()
        killed = time.monotonic()
        self.daemon.process.wait()
        self.assertEqual(self.ask(), ["refused"])
        kilter.wait_for("traffic flows", lambda: self.ask() == ["200"], seconds=3 * LEASE, every=0.1)
        held = time.monotonic() - killed
        # It is renewed every tick: what is left of it at a kill is more than half.
        self.assertGreater(held, LEASE / 2)
        self.assertEqual(self.ask(5), ["200"] * 5)

    def test_observe_refuses_nothing_and_records_the_same(self):
        self.prepare(mode="observe")
        self.serve("500")
        self.assertEqual(self.ask(FAILURES + 15), ["500"] * (FAILURES + 15))
        self.assertEqual(self.arrived(), FAILURES + 15)
        self.assertEqual(self.refused(), 0)
        kilter.wait_for("the decision is recorded",
                        lambda: [r for r in self.daemon.audited() if str(self.port) in repr(r) and "open" in repr(r)])

    def test_other_destinations_are_untouched(self):
        self.prepare()
        self.serve("500")
        self.ask(FAILURES + 1)
        nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.assertEqual(self.sandbox.call(ask_often, nginx.port, 20), ["200"] * 20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
