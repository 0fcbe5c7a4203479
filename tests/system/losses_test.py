#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""What finds no room in the kernel is counted exactly, told once over all lives, and reaches health."""

import collections
import os
import signal
import socket
import threading
import unittest

import kilter

PROGRAMS = 6000  # their records are half as much again as the ring buffer holds
LOOP = f"i=0; while [ $i -lt {PROGRAMS} ]; do /bin/true; i=$((i+1)); done"
RECORDS = 2 * PROGRAMS + 2  # an exec and an exit of each, and of the shell


STATUSES = range(200, 400)


def server(port):
    """Answers GET /NNN with status NNN."""
    def work(connection):
        with connection, connection.makefile("rb") as stream:
            for line in stream:
                if line.startswith(b"GET /"):
                    status = line.split()[1][1:].decode()
                elif not line.strip():
                    length = "" if status == "204" else "Content-Length: 0\r\n"
                    connection.sendall(f"HTTP/1.1 {status} X\r\n{length}\r\n".encode())

    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        while True:
            threading.Thread(target=work, args=(listener.accept()[0],), daemon=True).start()


def ask(port):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as s, s.makefile("rb") as stream:
        for status in STATUSES:
            s.sendall(f"GET /{status} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            while stream.readline().strip():
                pass


class FullMap(kilter.Case):
    config = "limits: {series: 64}\n"

    def test_requests_without_room_are_counted_apart_and_nothing_is_called_healthy(self):
        self.daemon.start()
        port = kilter.free_port()
        self.sandbox.serve(server, port)
        kilter.wait_for("the server listens", lambda: kilter.can_connect(port))
        self.sandbox.call(ask, port)

        def seen():
            return sum(sum(self.daemon.counts(side).values()) for side in (kilter.SERVER, kilter.CLIENT))

        def dropped():
            return int(self.daemon.value("kilter_dropped_total", where="series", reason="full"))

        kilter.wait_for("every request is counted", lambda: seen() >= 2 * len(STATUSES))
        self.assertEqual(seen(), 2 * len(STATUSES))
        self.assertGreater(dropped(), 0)
        # Those without room for a series of their own are in the overflow series, by class of status.
        apart = collections.Counter()
        for side in (kilter.SERVER, kilter.CLIENT):
            apart += self.daemon.counts(side, otel_metric_overflow="true")
        self.assertEqual(apart.total(), dropped())
        self.assertEqual(set(apart), {"2xx", "3xx"})

        def judged():
            health = self.daemon.json("/api/v1/health")
            return {s["name"]: (s["state"], [r["text"] for r in s["reasons"]])
                    for s in (health["node"], *health["workloads"])}

        told = f"{dropped()} observations lost (series: full): figures are incomplete"
        states = kilter.wait_for("the node says what is missing",
                                 lambda: (j := judged())["node"] == ("unknown", [told]) and j)
        self.assertNotIn("healthy", {state for state, _ in states.values()})


    def test_a_pinned_map_keeps_its_size_and_the_log_says_so(self):
        self.daemon.start()
        self.assertEqual(self.daemon.stop(), 0)
        with open(self.daemon.config, encoding="utf-8") as f:
            text = f.read()
        self.assertIn("series: 64", text)
        with open(self.daemon.config, "w", encoding="utf-8") as f:
            f.write(text.replace("series: 64", "series: 128"))
        self.daemon.start()
        with open(self.daemon.log, encoding="utf-8") as f:
            log = f.read()
        self.assertIn("limits.series: the pinned map was made for 64 entries and keeps that size; "
                      "stop with --unpin to apply 128", log)


class Losses(kilter.Case):
    def told(self):
        """(records of programs, records told to be lost in the kernel, records-lost records)"""
        programs = len(self.records("exec")) + len(self.records("exit"))
        gaps = self.records("records-lost", event__reason="kernel ring buffer")
        return programs, sum(kilter.field(g, "kilter.records_lost") for g in gaps), len(gaps)

    def sequence_file(self):
        with open(os.path.join(self.daemon.state, "audit.seq"), encoding="ascii") as f:
            return f.read()

    def test_a_daemon_that_does_not_look_loses_a_number_that_is_told(self):
        self.daemon.start()
        os.kill(self.daemon.process.pid, signal.SIGSTOP)
        try:
            self.sandbox.run(["sh", "-c", LOOP])
        finally:
            os.kill(self.daemon.process.pid, signal.SIGCONT)
        kilter.wait_for("every record is there or told to be lost",
                        lambda: sum(self.told()[:2]) >= RECORDS)
        programs, lost, gaps = self.told()
        self.assertEqual(programs + lost, RECORDS)
        self.assertGreater(lost, 0)
        # What was told of the kernel's counter outlives a kill: the next life does not tell it again.
        kilter.wait_for("what was told is kept", lambda: f" {lost:020d} " in self.sequence_file())
        self.daemon.kill()
        self.daemon.start()
        self.sandbox.run(["sh", "-c", "true"])
        kilter.wait_for("the new life writes",
                        lambda: self.told()[0] >= programs + 2)
        self.assertEqual(self.told(), (programs + 2, lost, gaps))
        self.assertEqual(self.daemon.value("kilter_dropped_total", where="events", reason="full"), lost)


if __name__ == "__main__":
    unittest.main()
