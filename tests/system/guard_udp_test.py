#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""Failures of UDP: a name server (dnsmasq) that is gone, hangs and comes back, asked by dig; and one that takes what it
is sent and never answers."""

import contextlib
import errno
import select
import signal
import socket
import subprocess
import unittest

import guarded
import kilter

FAILURES = 3
TOLD_MS = 500  # on loopback; less than silence is
LOWER = "kernel: {set_retval: false, error_report: false}\n"


def send_each(port, count):
    """Datagrams from a connected socket each: how it went, with what the kernel told the sender within some time."""
    outcomes = []
    for _ in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            error = s.connect_ex(("127.0.0.1", port))
            if not error:
                s.send(b"requests:1|c")
                error_comes = select.poll()
                error_comes.register(s, 0)
                error_comes.poll(TOLD_MS)
                error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            outcomes.append(errno.errorcode.get(error, "sent"))
    return outcomes


class Udp(guarded.Case):
    def setUp(self):
        super().setUp()
        self.port = kilter.free_port()
        self.to = f"udp://127.0.0.1:{self.port}"
        self.dnsmasq = None

    def serve(self):
        self.dnsmasq = self.sandbox.spawn(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-resolv",
             "--no-hosts", "--bind-interfaces", "--listen-address=127.0.0.1", f"--port={self.port}",
             "--address=/name.test/10.1.2.3"], inside=False, stderr=subprocess.DEVNULL)
        kilter.wait_for("dnsmasq answers", lambda: self.dig(inside=False) == "10.1.2.3")

    def end(self):
        self.dnsmasq.terminate()
        self.dnsmasq.wait(10)

    def dig(self, seconds=2, inside=True):
        """One query, without another try: the address, or "" and why."""
        argv = ["dig", "@127.0.0.1", "-p", str(self.port), f"+time={seconds}", "+tries=1", "+short", "name.test"]
        done = subprocess.run(argv, preexec_fn=self.sandbox.join if inside else None, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60, check=False)
        return done.stdout.strip() if not done.returncode else f"failed: {done.returncode}"

    def send(self, count):
        return self.sandbox.call(send_each, self.port, count)

    def policy(self, **more):
        return {"name": "names", "destination": self.to, "consecutive_failures": FAILURES, **more}

    def failures(self, **wanted):
        zero = {"connect": 0, "no_answer": 0, "http": 0, "slow_trial": 0}
        self.wait_figure(self.to, "failures_by", {**zero, **wanted})
        for reason, count in {**zero, **wanted}.items():
            self.assertEqual(self.metric("kilter_circuit_failures_total", self.to, reason=reason), count)

    def test_a_server_that_is_gone_and_comes_back(self):
        self.serve()
        self.start(self.policy(base_open="1s", max_open="1s", half_open_successes=2, half_open_timeout="60s"))
        for _ in range(4):
            self.assertEqual(self.dig(), "10.1.2.3")
        self.wait_figure(self.to, "successes", 4)
        self.end()
        for _ in range(FAILURES):
            self.assertNotEqual(self.dig(), "10.1.2.3")
        self.failures(connect=FAILURES)
        self.wait_record("circuit-kernel-trip", event__reason=f"{FAILURES} failures in a row, seen in the kernel")
        record = self.wait_record("datagram", FAILURES)
        self.assertEqual((record["event.reason"], record["network.transport"], record["destination.port"]),
                         ("ECONNREFUSED: Connection refused", "udp", self.port))
        self.assertTrue(record["process.name"].startswith("isc-net") or record["process.name"] == "dig", record)
        # Trials of a server that is still gone fail: it opens again.
        kilter.wait_for("a trial fails", lambda: self.dig() != "10.1.2.3" and
                        self.records("circuit-transition", event__reason="a trial failed (1 of 1)"))
        self.serve()
        kilter.wait_for("trials succeed", lambda: self.dig() == "10.1.2.3" and
                        self.circuit(self.to)["state"] == "closed")
        self.wait_record("circuit-transition", event__reason="2 trials succeeded, 2 were asked for")
        self.assertGreater(sum(self.circuit(self.to)["refused_by"].values()), 0)

    def test_a_refusal_is_no_failure(self):
        self.start(self.policy())
        self.assertEqual(self.send(FAILURES + 4), ["ECONNREFUSED"] * (FAILURES + 4))
        self.failures(connect=FAILURES)
        self.wait_figure(self.to, "refused", 4)
        self.wait_refusals(self.to.removeprefix("udp://"), *["the circuit is open"] * 4)

    def hang(self, **more):
        self.serve()
        self.start(self.policy(), **more)
        self.assertEqual(self.dig(), "10.1.2.3")
        self.dnsmasq.send_signal(signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            stack.callback(self.dnsmasq.send_signal, signal.SIGCONT)
            for _ in range(FAILURES):
                self.assertNotEqual(self.dig(), "10.1.2.3")
            self.failures(no_answer=FAILURES)
            self.wait_state(self.to, "open")
            self.assertEqual(self.circuit(self.to)["reason"],
                             f"{FAILURES} failures in a row reached the threshold of {FAILURES}")

    def test_a_server_that_hangs(self):
        self.hang()

    def test_a_server_that_hangs_in_the_lower_tier(self):
        self.hang(top=LOWER)

    def test_in_the_lower_tier_nobody_hears_of_icmp(self):
        self.start(self.policy(), top=LOWER)
        self.assertEqual(self.send(FAILURES + 2), ["ECONNREFUSED"] * (FAILURES + 2))
        self.failures()
        self.assertEqual(self.circuit(self.to)["state"], "closed")
        probe = next(p for p in self.daemon.json("/api/v1/status")["probes"] if p["name"] == "guard_udp")
        self.assertEqual((probe["tier"], probe["reason"]), ("lower", "kernel.error_report is false"))

    def test_one_that_never_answers_fails_by_icmp_alone(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
            statsd.bind(("127.0.0.1", self.port))
            self.start(self.policy(base_open="1s", max_open="1s", half_open_timeout="60s"))
            self.assertEqual(self.send(FAILURES + 2), ["sent"] * (FAILURES + 2))
            self.failures()
        self.assertEqual(self.send(FAILURES), ["ECONNREFUSED"] * FAILURES)
        self.failures(connect=FAILURES)
        self.wait_record("circuit-transition", kilter__to="open")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
            statsd.bind(("127.0.0.1", self.port))
            self.wait_state(self.to, "half_open")
            # That it was sent and no error came is all there is to know of the trial.
            self.assertEqual(self.send(1), ["sent"])
            self.wait_state(self.to, "closed")


if __name__ == "__main__":
    unittest.main(verbosity=2)
