#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Rate limits and bulkheads: kept by the kernel, shown everywhere, set and reset by hand, and still there after a
restart."""

import os
import socket
import time
import unittest

import guarded
import kilter

RATE, BURST = 400, 400  # a burst of a second: what CPUs that others use take from the callers is not lost
SECONDS = 10  # of full load
SLOWEST = 0.005  # connects a second: the next one is beyond the end of each test
FASTER = "over the rate limit"
FULL = "max_connections are open"


def accept(port, log):
    """Accepts and closes, and writes down how many there were."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener, open(log, "w", encoding="ascii") as f:
        for count in range(1, 1 << 30):
            listener.accept()[0].close()
            f.seek(0)
            f.write(str(count))
            f.flush()


class Limits(guarded.Case):
    def prepare(self, **policy):
        """A server and its policy, with the daemon running; the caller."""
        self.to = self.server().destination
        self.name = f"*->{self.to}"
        self.policy = {"name": "upstream", "destination": self.to, **policy}
        self.start(self.policy)
        return self.caller()

    def limit(self):
        return self.show("limits", "show", self.name)

    def wait_limit(self, **fields):
        kilter.wait_for(f"the limit is {fields}", lambda: fields.items() <= self.limit().items())

    def restart(self, kill):
        self.daemon.kill() if kill else self.daemon.stop()
        self.daemon.start()

    # --- what the kernel does ---

    def test_the_rate_is_kept_within_a_hundredth(self):
        port, log = kilter.free_port(), self.sandbox.path("accepted")
        self.sandbox.serve(accept, port, log)

        def accepted():
            with open(log, encoding="ascii") as f:
                return int(f.read() or 0)

        kilter.wait_for("the listener counts", lambda: kilter.can_connect(port) and accepted())
        to = f"127.0.0.1:{port}"
        self.start({"destination": to, "rate_limit": RATE, "burst": BURST})
        before = accepted()
        cpus = sorted(os.sched_getaffinity(0))
        callers = [self.caller() for _ in cpus]
        for caller, cpu in zip(callers, cpus):
            caller.begin("hammer", to, cpu, SECONDS)
        results = [caller.result() for caller in callers]
        connected, refused = (sum(r[i] for r in results) for i in (2, 3))
        kilter.wait_for("all are accepted", lambda: accepted() - before >= connected, kilter.SETTLE_SECONDS)
        seconds = max(r[1] for r in results) - min(r[0] for r in results)
        expected = RATE * seconds + BURST
        self.assertGreater(refused, expected, "they were faster than the limit")
        self.assertEqual(accepted() - before, connected)
        self.assertAlmostEqual(connected / expected, 1, delta=0.01, msg=f"{connected} in {seconds:.3f} s")
        self.wait_figure(to, "refused_by.rate_limit", refused)
        self.assertEqual(self.circuit(to)["refused"], refused)

    def test_a_rate_limit_is_seen_by_everybody(self):
        caller = self.prepare(rate_limit=SLOWEST, burst=3)
        self.assertEqual(caller.ask(self.to, 8), ["200"] * 3 + ["refused"] * 5)
        self.wait_refusals(self.to, *[FASTER] * 5)
        self.wait_figure(self.to, "refused_by", {"open": 0, "half_open": 0, "ramp_up": 0, "rate_limit": 5,
                                                 "max_connections": 0})
        self.assertEqual(self.circuit(self.to)["state"], "closed", "a limit is no failure")
        limit = self.limit()
        self.assertEqual((limit["rate_limit"], limit["burst"], limit["by_hand"], limit["mode"], limit["policy"]),
                         (SLOWEST, 3, False, "enforce", "upstream"))
        self.assertEqual(limit["refused"], {"rate_limit": 5, "max_connections": 0})
        self.assertGreater(limit["rate_used_ratio"], 0.9)
        self.assertEqual(self.daemon.json("/api/v1/limits")["items"][0]["name"], self.name)
        row = self.daemon.cli("limits").stdout.splitlines()[-1].split()
        self.assertEqual((row[0], row[1], row[3], row[-1]), (self.name, "enforce", "3", "upstream"))
        self.assertEqual(self.metric("kilter_circuit_refused_total", self.to, reason="rate_limit"), 5)
        self.assertEqual(self.metric("kilter_limit_rate", self.to), SLOWEST)
        self.assertGreater(self.metric("kilter_limit_rate_used_ratio", self.to), 0.9)

    def test_a_bulkhead_is_seen_by_everybody(self):
        caller = self.prepare(max_connections=3)
        self.assertEqual(caller.hold(self.to, 5), ["held"] * 3 + ["refused"] * 2)
        self.wait_limit(connections=3, connections_peak=3, max_connections=3, rate_limit=None)
        self.assertEqual(self.metric("kilter_limit_connections", self.to), 3)
        self.assertEqual(self.metric("kilter_limit_connections_max", self.to), 3)
        # A place that becomes free is taken by the next; another process has no places of its own.
        caller.drop(1)
        other = self.caller()
        self.assertEqual(other.hold(self.to, 2), ["held", "refused"])
        other.end()
        caller.drop(1)
        self.assertEqual(caller.ask(self.to, 5), ["200"] * 5)
        self.wait_limit(connections=1, connections_peak=3, refused={"rate_limit": 0, "max_connections": 3})
        self.wait_refusals(self.to, *[FULL] * 3)
        self.assertEqual(self.metric("kilter_circuit_refused_total", self.to, reason="max_connections"), 3)
        self.assertEqual(self.daemon.value("kilter_circuit_refused_total"), 3, "for no other reason")

    def test_connections_that_are_older_than_the_limit_count(self):
        caller = self.prepare()
        caller.hold(self.to, 2)
        self.daemon.cli("limits", "set", self.name, "max_connections=3")
        self.assertEqual(caller.hold(self.to, 2), ["held", "refused"])
        self.daemon.cli("limits", "set", self.name, "max_connections=1")
        caller.drop(2)
        self.assertEqual(caller.hold(self.to, 1), ["refused"])
        caller.drop(1)
        self.assertEqual(caller.hold(self.to, 2), ["held", "refused"])

    def test_observe_refuses_nothing_and_counts_the_same(self):
        caller = self.prepare(mode="observe", rate_limit=SLOWEST, burst=2)
        self.assertEqual(caller.ask(self.to, 5), ["200"] * 5)
        self.wait_figure(self.to, "would_refuse_by.rate_limit", 3)
        self.assertEqual(self.limit()["would_refuse"], {"rate_limit": 3, "max_connections": 0})
        self.assertEqual(self.circuit(self.to)["refused"], 0)
        self.assertEqual(self.metric("kilter_circuit_would_refuse_total", self.to, reason="rate_limit"), 3)

    def test_each_caller_has_a_limit_of_its_own(self):
        to = self.server().destination
        self.start({"executable": "*?", "destination": to, "rate_limit": SLOWEST, "burst": 3})
        caller = self.caller()
        self.assertEqual((caller.ask(to), self.curl(to)), (["200"], ["200"]))
        kilter.wait_for("both have a circuit", lambda: len(self.circuits()) == 2)
        self.assertEqual(caller.ask(to, 4), ["200"] * 3 + ["refused"])
        self.assertEqual(self.curl(to, 4), ["200"] * 3 + ["000"])
        kilter.wait_for("each counts its own", lambda: [row["refused"] for row in self.circuits().values()] == [1, 1])

    def test_a_very_slow_rate_has_its_burst(self):
        caller = self.prepare()
        for rate, burst in (("0.000001", 18448), ("0.00001", 184469), ("0." + 300 * "0" + "1", 5)):
            with self.subTest(rate=rate, burst=burst):
                self.assertEqual(self.post(f"limits/{self.name}/set", rate_limit=rate, burst=burst)[0], 200)
                self.assertEqual(caller.ask(self.to, 5), ["200"] * 5)
                self.post(f"limits/{self.name}/reset")

    # --- by hand ---

    def test_set_and_reset_by_hand(self):
        caller = self.prepare(rate_limit=SLOWEST, burst=2)
        self.assertEqual(caller.ask(self.to, 3)[-1], "refused")
        said = self.daemon.cli("limits", "set", self.name, "rate_limit=500", "burst=50", "max_connections=7").stdout
        self.assertIn(f"circuit {self.name} has other limits", said)
        # What the slower limit would have made it wait for is forgotten: the burst fills up at the new rate.
        kilter.wait_for("the new rate lets through", lambda: caller.ask(self.to) == ["200"])
        time.sleep(0.2)
        self.assertEqual(caller.ask(self.to, 20), ["200"] * 20)
        limit = self.limit()
        self.assertEqual((limit["rate_limit"], limit["burst"], limit["max_connections"], limit["by_hand"]),
                         (500, 50, 7, True))
        self.assertIn("(by hand)", self.daemon.cli("limits").stdout)
        record = self.wait_record("limit-set", kilter__subject=self.name)
        self.assertEqual((record["event.outcome"], record["user.id"], record["event.reason"]),
                         ("success", "0", "rate_limit 500, burst 50, max_connections 7"))

        self.assertIn("has its policy's limits", self.daemon.cli("limits", "reset", self.name).stdout)
        limit = self.limit()
        self.assertEqual((limit["rate_limit"], limit["burst"], limit["max_connections"], limit["by_hand"]),
                         (SLOWEST, 2, 0, False))
        self.wait_record("limit-reset", kilter__subject=self.name, event__outcome="success", user__id="0")
        # What was used up before is forgotten.
        self.assertEqual(caller.ask(self.to, 3), ["200", "200", "refused"])

    def test_what_was_set_by_hand_is_there_after_a_restart(self):
        caller = self.prepare(rate_limit=1000, burst=100)
        status, said = self.post(f"limits/{self.name}/set", rate_limit=SLOWEST, burst=4, max_connections=2)
        self.assertEqual((status, said["circuit"]), (200, self.name))
        self.assertEqual(caller.hold(self.to, 1), ["held"])
        for kill in (False, True):
            self.restart(kill)
            with self.subTest(kill=kill):
                limit = self.limit()
                self.assertEqual((limit["rate_limit"], limit["burst"], limit["max_connections"], limit["by_hand"]),
                                 (SLOWEST, 4, 2, True))
                # So is what had been used up, and what is open.
                self.assertEqual(caller.ask(self.to), ["200"])
                self.wait_limit(connections=1)
        self.assertEqual(caller.ask(self.to, 2), ["200", "refused"])
        self.wait_refusals(self.to, FASTER)
        # A new policy has no say in it either, until it is reset.
        self.reload({**self.policy, "rate_limit": 2000})
        self.assertEqual(self.limit()["rate_limit"], SLOWEST)
        self.assertEqual(self.post(f"limits/{self.name}/reset")[0], 200)
        self.assertEqual((self.limit()["rate_limit"], self.limit()["by_hand"]), (2000, False))
        self.restart(kill=True)
        self.assertEqual((self.limit()["rate_limit"], self.limit()["by_hand"]), (2000, False))

    def test_a_limit_outlives_its_daemon_by_no_more_than_the_lease(self):
        caller = self.prepare(rate_limit=SLOWEST, burst=1)
        self.reload(self.policy, lease="4s")
        self.assertEqual(caller.ask(self.to, 2), ["200", "refused"])
        self.daemon.kill()
        self.assertEqual(caller.ask(self.to), ["refused"])
        kilter.wait_for("it lets go", lambda: caller.ask(self.to) == ["200"], every=0.2)
        self.assertEqual(caller.ask(self.to, 5), ["200"] * 5)

    def test_a_repeated_command_is_carried_out_once(self):
        self.prepare()
        path, key = f"limits/{self.name}/set", {"Idempotency-Key": "deploy-17"}
        first = self.post(path, key, rate_limit=50)
        self.assertEqual(first[0], 200)
        self.assertEqual(self.post(path, key, rate_limit=50), first)
        status, said = self.post(path, key, rate_limit=51)
        self.assertEqual((status, said["detail"]), (422, "this Idempotency-Key belongs to another request"))
        self.assertEqual(self.post(f"limits/{self.name}/reset", key)[0], 422)
        self.assertEqual(self.limit()["rate_limit"], 50)
        self.assertEqual(self.post(path, {"Idempotency-Key": "deploy-18"}, rate_limit=50)[0], 200)
        self.wait_record("limit-set", count=2)

    # --- what is not done ---

    def test_bad_values_are_told_so(self):
        self.prepare(rate_limit=20, burst=5)
        path = f"limits/{self.name}/set"
        rate, burst, connections = (f"{what} must be a number from {least} to 1000000" for what, least in
                                    (("rate_limit", 0), ("burst", 1), ("max_connections", 0)))
        for query, sentence in (
                ({}, "?rate_limit, ?burst or ?max_connections is expected"),
                ({"rate_limit": ""}, rate), ({"rate_limit": "-1"}, rate), ({"rate_limit": "nan"}, rate),
                ({"rate_limit": "1e7"}, rate), ({"rate_limit": "5/s"}, rate), ({"rate_limit": " 5"}, rate),
                ({"rate_limit": 5, "burst": 0}, burst), ({"rate_limit": 5, "burst": "1.5"}, burst),
                ({"rate_limit": 5, "burst": ""}, burst), ({"rate_limit": 5, "burst": 1000001}, burst),
                ({"max_connections": "-1"}, connections), ({"max_connections": "ten"}, connections),
                ({"max_connections": 99999999999}, connections)):
            with self.subTest(query=query):
                status, said = self.post(path, **query)
                self.assertEqual((status, said["detail"]), (400, sentence))
        for args, sentence in (
                ([self.name, "rate_limit=fast"], "'rate_limit=fast' is not rate_limit=N"),
                ([self.name, "speed=5"], "'speed=5' is not rate_limit=N"),
                ([self.name], "NAME and rate_limit=N, burst=N or max_connections=N is expected"),
                ([self.name, "rate_limit=2000000"], rate),
                (["*->127.0.0.9:1", "rate_limit=5"], "there is no circuit of that name")):
            with self.subTest(args=args):
                done = self.daemon.cli("limits", "set", *args, check=False)
                self.assertIn(sentence, done.stderr)
                self.assertNotEqual(done.returncode, 0)
        self.assertEqual((self.limit()["rate_limit"], self.limit()["burst"], self.limit()["by_hand"]), (20, 5, False))
        self.assertEqual(self.records("limit-set", event__outcome="success"), [])

    def test_who_may_not_set_it_and_what_is_not_there(self):
        self.prepare()
        status, said = self.post("limits/*->127.0.0.9:1/set", rate_limit=5)
        self.assertEqual((status, said["detail"]), (404, "circuit *->127.0.0.9:1: there is no circuit of that name"))
        self.assertEqual(self.daemon.get("/api/v1/limits/nobody")[0], 404)
        # Over TCP nobody is known: it is for reading.
        connection = guarded.http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=10)
        connection.request("POST", f"/api/v1/limits/{self.name}/set?rate_limit=5")
        self.assertEqual(connection.getresponse().status, 403)
        connection.close()
        self.assertEqual(self.daemon.json("/api/v1/limits")["items"], [], "no limit, no row")


if __name__ == "__main__":
    unittest.main(verbosity=2)
