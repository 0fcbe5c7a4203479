#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""A dependency that is killed, frozen, resets, or is bad in half of its replicas: the breaker opens in time, for the
right one alone, and closes again; every refusal is in the audit trail."""

import glob
import os
import signal
import unittest

import breaker
import kilter

FAILURES = breaker.FAILURES


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # it went with its parent
            pass


class Killed(breaker.Case):
    """SIGKILL, and later a new start: connects are refused by the machine first, by the circuit then."""

    def weather(self, start, destination, how):
        self.configure(destination)
        self.daemon.start()
        process = start()
        self.assertEqual(self.ask(destination, 5, how), ["200"] * 5)
        send(kilter.family(process.pid), signal.SIGKILL)
        process.wait()
        host, port = kilter.split(destination)
        kilter.wait_for("the server is gone", lambda: not kilter.can_connect(port, host))
        self.assertEqual(self.trip(destination, how), ["refused"] * (FAILURES + 1))
        kilter.wait_for("one refusal is the circuit's own", lambda: self.circuit(destination)["refused"] == 1)
        self.assertEqual(self.circuit(destination)["failures"], FAILURES)
        trip = self.records("circuit-kernel-trip")
        self.assertEqual([r["kilter.subject"] for r in trip], [f"*->{destination}"])
        kilter.wait_for("a trial fails, for it is still down", lambda: (
            self.ask(destination, 1, how), "a trial failed" in repr(self.transitions(destination)))[1], every=0.2)
        start()
        self.recover(destination, how)
        steps = [(a, b) for a, b, _ in self.transitions(destination)]
        self.assertEqual(steps[0], ("closed", "open"))
        self.assertEqual(steps[-2:], [("open", "half_open"), ("half_open", "closed")])
        self.explain()

    def listening(self, destination, argv):
        host, port = kilter.split(destination)
        process = self.sandbox.spawn(argv)
        kilter.wait_for("the server listens", lambda: kilter.can_connect(port, host))
        return process

    def test_nginx(self):
        destination = f"127.0.0.1:{kilter.free_port()}"
        nginx = self.sandbox.nginx("", extra=f'server {{ listen {destination}; location / {{ return 200 "ok"; }} }}')
        first = self.sandbox.pids[-1]
        self.weather(lambda: first if first.poll() is None else self.listening(
            destination, ["nginx", "-p", self.sandbox.dir, "-c", self.sandbox.path("nginx.conf")]), destination, "http")
        self.assertGreater(nginx.logged_at_least(15)["200"], 0)

    def test_redis(self):
        destination = f"127.0.0.1:{kilter.free_port()}"
        argv = ["redis-server", "--bind", "127.0.0.1", "--port", destination.split(":")[1], "--save", "",
                "--dir", self.sandbox.dir]
        self.weather(lambda: self.listening(destination, argv), destination, "redis")

    def test_postgresql(self):
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        self.assertTrue(programs, "no PostgreSQL: deploy/deps.sh test")
        destination = f"127.0.0.1:{kilter.free_port()}"
        data = self.sandbox.path("pg")
        os.mkdir(data)
        os.chown(data, 65534, 65534)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]  # it does not run as root
        self.sandbox.run([*nobody, f"{programs[-1]}/initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N",
                          "--locale=C"], cwd="/")
        argv = [*nobody, f"{programs[-1]}/postgres", "-D", data, "-h", "127.0.0.1", "-p", destination.split(":")[1],
                "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=1MB",
                "-c", "max_connections=10", "-c", "dynamic_shared_memory_type=mmap"]

        def start():
            process = self.listening(destination, argv)
            host, port = kilter.split(destination)  # from outside: nobody counts these
            kilter.wait_for("it takes users", lambda: breaker.ask(f"{host}:{port}", "postgres") == "200")
            return process

        self.weather(start, destination, "postgres")


class Frozen(breaker.Case):
    def test_a_stopped_server_is_given_up_and_taken_back(self):
        destination = f"127.0.0.1:{kilter.free_port()}"
        self.configure(destination, base_open="2s")
        self.daemon.start()
        # Two connections fit into its queue; the third gets no answer to its SYN.
        self.sandbox.nginx("", workers=1, extra=f"server {{ listen {destination} backlog=1; "
                           'location / { return 200 "ok"; } }')
        pids = kilter.family(self.sandbox.pids[-1].pid)
        self.assertEqual(self.ask(destination, 3), ["200"] * 3)
        send(pids, signal.SIGSTOP)
        outcomes = self.trip(destination)
        self.assertEqual(outcomes, ["unanswered", "unanswered", "connect timed out", "refused"])
        kilter.wait_for("a trial fails, for it is still frozen", lambda: (
            self.ask(destination), "a trial failed" in repr(self.transitions(destination)))[1], every=0.2)
        send(pids, signal.SIGCONT)
        self.recover(destination)
        self.explain()


class Resetting(breaker.Case):
    def test_requests_that_end_in_a_reset_count(self):
        server = breaker.Server(self, mode="reset 0")
        self.configure(server.destination, failures="[no_answer]")
        self.daemon.start()
        self.assertEqual(self.trip(server.destination), ["reset"] * FAILURES + ["refused"])
        self.assertEqual(len(server.arrived()), FAILURES)
        server.tell("200 0")
        self.recover(server.destination)
        self.explain()

    def test_what_the_policy_does_not_name_does_not_count(self):
        server = breaker.Server(self, mode="reset 0")
        self.configure(server.destination, failures="[connect, http_5xx]")
        self.daemon.start()
        self.assertEqual(self.ask(server.destination, 20), ["reset"] * 20)
        self.explain()
        self.assertEqual(self.transitions(server.destination), [])


class Replicas(breaker.Case):
    def test_the_bad_half_alone_is_shut(self):
        port = kilter.free_port()
        good = breaker.Server(self, "127.0.0.2", port)
        bad = breaker.Server(self, "127.0.0.3", port, mode="500 0")
        # One of two may be open: the panic guard must not take half of them for all.
        self.configure(good.destination, bad.destination, ratio=0.5)
        self.daemon.start()
        with self.calling(good.destination) as good_outcomes, self.calling(bad.destination) as bad_outcomes:
            kilter.wait_for("the bad one was tried, and opened again",
                            lambda: "a trial failed" in repr(self.transitions(bad.destination)))
            bad.tell("200 0")
            self.wait_state(bad.destination, "closed", seconds=60)
            calls = len(bad.arrived())
            kilter.wait_for("it is called again", lambda: len(bad.arrived()) > calls + 10)
        self.assertEqual(set(good_outcomes), {"200"})
        self.assertEqual(set(bad_outcomes), {"500", "200", "refused"})
        self.assertEqual(self.transitions(good.destination), [])
        self.assertEqual(self.circuit(good.destination)["refused"], 0)
        self.explain()


if __name__ == "__main__":
    unittest.main(verbosity=2)
