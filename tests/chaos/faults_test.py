#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""While things break: nothing is lost in silence, nothing is counted twice, and nothing stays behind."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402

REQUESTS, CONNECTIONS, RATE = 60000, 10, 300
DISK_BYTES = 8 << 20  # holds what waits in memory, 1 MiB, and more


def records(path):
    """Whole records of a JSON Lines file."""
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.endswith("\n")]


def refused_connects(port, count):
    for _ in range(count):
        with socket.socket() as s:
            s.connect_ex(("127.0.0.1", port))


class FullDisk(kilter.Case):
    def setUp(self):
        super().setUp()
        self.disk = self.sandbox.path("disk")
        os.mkdir(self.disk)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", self.disk], check=True)
        self.sandbox.cleanups.callback(lambda: subprocess.run(["umount", "-l", self.disk], check=False))
        self.closed = kilter.free_port()
        self.daemon.audit = os.path.join(self.disk, "audit.jsonl")
        self.daemon.start()

    def connects(self, count):
        self.sandbox.call(refused_connects, self.closed, count)

    def lost(self):
        return int(self.daemon.value("kilter_dropped_total", where="audit"))

    def test_records_that_found_no_room_are_counted_exactly(self):
        self.connects(20)
        ballast = os.path.join(self.disk, "ballast")
        with open(ballast, "wb", buffering=0) as f, contextlib.suppress(OSError):
            while f.write(b"\0" * 4096):
                pass
        kilter.wait_for("records are lost", lambda: (self.connects(400), self.lost() > 0)[1], 60)
        self.assertEqual(self.daemon.get("/health/live")[0], 200)
        os.unlink(ballast)

        def told():
            self.connects(1)
            return [r for r in records(self.daemon.audit) if kilter.field(r, "event.action") == "records-lost"]

        kilter.wait_for("the loss is told", told, kilter.SETTLE_SECONDS)
        self.assertEqual(self.daemon.stop(), 0)
        written = records(self.daemon.audit)
        numbers = [kilter.field(r, "event.sequence") for r in written]
        self.assertEqual(numbers, sorted(set(numbers)), "each number once, in order")
        gaps = numbers[-1] - numbers[0] + 1 - len(numbers)
        said = sum(kilter.field(r, "kilter.records_lost") for r in written
                   if kilter.field(r, "event.action") == "records-lost")
        self.assertGreater(gaps, 0)
        self.assertEqual(said, gaps)


class Storm(kilter.Case):
    def test_kills_stops_and_bad_reloads_under_load_lose_no_request(self):
        nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.daemon.start()
        good = self.sandbox.write("good.yaml", "health:\n  error_ratio_degraded: 0.07\n")
        bad = self.sandbox.write("bad.yaml", "health:\n  error_ratio_degraded: often\n")
        load = self.sandbox.spawn(["h2load", "--h1", "-n", str(REQUESTS), "-c", str(CONNECTIONS), "-t", "1", "--rps",
                                   str(RATE), f"http://127.0.0.1:{nginx.port}/"])
        dice = random.Random(2)  # the same storm in each run
        deeds = [self.kill_agent, self.kill_front, lambda: self.pause_front(dice.uniform(0.2, 1.5)),
                 lambda: self.reload(good), lambda: self.reload_bad(bad, good), self.half_a_request]
        weathered = 0
        while load.poll() is None:
            dice.choice(deeds)()
            weathered += 1
            kilter.wait_for("kilterd is ready", self.ready)
        self.assertEqual(load.returncode, 0)
        self.assertGreater(weathered, 5)
        self.assertEqual(nginx.logged_at_least(REQUESTS), {"200": REQUESTS})
        self.settle(kilter.SERVER, {"200": REQUESTS})
        self.settle(kilter.CLIENT, {"200": REQUESTS})
        self.daemon.args = ["--unpin"]
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(kilter.pins(self.sandbox.bpffs), [])

    def ready(self):
        with contextlib.suppress(OSError):
            return self.daemon.get("/health/ready")[0] == 200
        return False

    def kill_agent(self):
        self.daemon.kill()
        self.daemon.start()

    def front(self):
        supervisors = kilter.children(self.daemon.process.pid)
        return [w for s in supervisors for w in kilter.children(s)]

    def kill_front(self):
        for pid in self.front():
            os.kill(pid, signal.SIGKILL)

    def pause_front(self, seconds):
        for pid in self.front():
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(seconds, self.go_on, [pid]).start()

    def go_on(self, pid):
        with contextlib.suppress(ProcessLookupError):  # its supervisor may have ended it
            os.kill(pid, signal.SIGCONT)

    def reload(self, path):
        self.configure(path)
        self.daemon.process.send_signal(signal.SIGHUP)

    def reload_bad(self, bad, good):
        refusals = self.refusals()
        self.reload(bad)
        kilter.wait_for("the bad file is refused", lambda: self.refusals() > refusals)
        self.configure(good)

    def configure(self, path):
        shutil.copy(path, self.sandbox.path("next.yaml"))
        os.replace(self.sandbox.path("next.yaml"), self.daemon.config)

    def refusals(self):
        with open(self.daemon.log, encoding="utf-8") as f:
            return f.read().count("the configuration stays as it was")

    def half_a_request(self):
        with contextlib.suppress(OSError):
            s = socket.create_connection(("127.0.0.1", self.daemon.port), timeout=5)
            self.sandbox.cleanups.callback(s.close)
            s.sendall(b"GET /metrics HTTP/1.1\r\nHo")


class NoRoom(kilter.Case):
    """Maps that are far too small: what does not fit is counted, and told as incomplete."""

    config = "limits:\n  series: 64\n  routes_per_workload: 2\n"

    def test_what_does_not_fit_is_counted_and_told(self):
        nginx = self.sandbox.nginx("".join(f"location = /{s} {{ return {s}; }}\n" for s in range(450, 499)))
        self.daemon.start()
        for status in range(450, 499):
            self.sandbox.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/{status}"])
        counted = sum(nginx.logged_at_least(49).values())

        def accounted():
            return sum(self.daemon.counts(kilter.SERVER).values()) + sum(self.daemon.counts(kilter.CLIENT).values())

        kilter.wait_for("every request is counted, if only in an overflow series",
                        lambda: accounted() == 2 * counted, kilter.SETTLE_SECONDS)
        self.assertGreater(self.daemon.value("kilter_dropped_total", where="series", reason="full"), 0)
        self.assertTrue(self.daemon.json("/api/v1/status")["incomplete"])


# In a network of its own: one address without a route, and one that is on the link and does not answer to ARP.
NOWHERE = """
set -e
ip link set lo up
ip link add v0 type veth peer name v1
ip addr add 192.0.2.1/24 dev v0
ip link set v0 up
ip link set v1 up
for i in 1 2 3; do curl -s -o /dev/null --max-time 30 http://198.51.100.1/ && exit 1; done
for i in 1 2; do curl -s -o /dev/null --max-time 30 http://192.0.2.2/ && exit 1; done
exit 0
"""


class Nowhere(kilter.Case):
    def test_unreachable_destinations_are_counted_by_address_and_in_the_audit_trail(self):
        self.daemon.start()
        self.sandbox.run(["unshare", "-n", "sh", "-c", NOWHERE])

        def failed():
            rows = self.daemon.metrics()["kilter_tcp_connect_failures_total"]
            return {(l["server_address"], l["reason"]): int(v) for l, v in rows if v}

        kilter.wait_for("each failure is counted", lambda: sum(failed().values()) >= 5)
        self.assertEqual(failed(), {("198.51.100.1", "unreachable"): 3, ("192.0.2.2", "unreachable"): 2})
        kilter.wait_for("and recorded", lambda: len(self.records("connect", event__outcome="failure")) == 5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
