#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""on_open: close_connections. Idle connections of a pool are ended when their circuit opens; nobody else's are."""

import re
import time
import unittest

import guarded
import kilter

FAILURES = 3
POOL = 12
OTHERS = 5
ENDED = {"closed", "Software caused connection abort"}  # the error is told once


class Close(guarded.Case):
    def prepare(self, top="", **more):
        """Two servers of one policy: the first will fail."""
        self.upstream = self.server()
        self.to, self.other = self.upstream.destination, self.server().destination
        self.start(*({"destination": to, "consecutive_failures": FAILURES, "on_open": "close_connections",
                      "base_open": "2s", **more} for to in (self.to, self.other)), top=top)

    def pools(self):
        """A caller with a pool to each of them."""
        caller = self.caller()
        caller.fill_pool(self.to, POOL)
        caller.fill_pool(self.other, OTHERS)
        self.assertEqual(caller.ended(self.to), ["whole"] * POOL)
        return caller

    def fail(self, caller):
        """The dependency goes bad. The last failure may end its connection before the answer has been read."""
        self.upstream.tell("500 0")
        self.assertEqual(caller.reuse(self.to, FAILURES)[:-1], ["500"] * (FAILURES - 1))
        self.upstream.tell("200 0")

    def wait_ended(self, caller, count=POOL):
        def ended():
            return sum(end in ENDED for end in caller.ended(self.to))

        kilter.wait_for("the idle connections are ended", lambda: ended() == count, kilter.SETTLE_SECONDS)

    def untouched(self, caller):
        self.assertEqual(caller.ended(self.other), ["whole"] * OTHERS)
        self.assertEqual(caller.reuse(self.other), ["200"] * OTHERS)

    def closed_by_audit(self):
        """How many connections the audit trail says were ended, record by record."""
        return [int(re.match(r"(\d+) connections? of open circuits ended", r["event.reason"]).group(1))
                for r in self.records("connections-closed")]

    def wait_closed(self, count):
        """Figure, metric and audit trail have the same number."""
        self.wait_figure(self.to, "connections_closed", count)
        self.assertEqual(self.metric("kilter_circuit_connections_closed_total", self.to), count)
        self.assertEqual(self.metric("kilter_circuit_connections_closed_total", self.other), 0)
        kilter.wait_for("the audit trail agrees", lambda: sum(self.closed_by_audit()) == count, kilter.SETTLE_SECONDS)

    def test_idle_connections_end_when_the_circuit_opens(self):
        self.prepare()
        caller = self.pools()
        self.wait_figure(self.to, "connections_open", POOL)
        self.fail(caller)
        self.wait_ended(caller)
        self.assertEqual(caller.reuse(self.to), ["ended"] * POOL)
        self.untouched(caller)
        self.wait_closed(POOL)
        self.assertEqual(self.closed_by_audit(), [POOL], "in one go")
        record = self.records("connections-closed")[0]
        self.assertEqual((record["kilter.subject"], record["event.outcome"]), ("guard", "success"))
        self.wait_figure(self.to, "connections_open", 0)
        # What has been ended is no failure of the destination: the trial that comes next closes the circuit.
        kilter.wait_for("a trial succeeds", lambda: caller.ask(self.to) == ["200"], every=0.2)
        self.wait_state(self.to, "closed")
        self.assertEqual(self.circuit(self.to)["transitions"], {"closed": 1, "open": 1, "half_open": 1})
        self.assertEqual(self.circuit(self.to)["failures"], FAILURES)

    def test_a_request_under_way_is_cut_off_as_well(self):
        self.prepare()
        caller = self.caller()
        self.upstream.tell("200 5")
        caller.begin("ask", self.to, 2)
        kilter.wait_for("its request is under way", lambda: self.circuit(self.to)["connections_open"] == 1)
        self.daemon.cli("circuits", "trip", f"*->{self.to}")
        outcomes = caller.result()
        self.assertEqual(outcomes, ["reset", "refused"])
        self.wait_closed(1)

    def test_in_another_network_namespace(self):
        netns = self.network()
        self.upstream = self.server(netns=netns)
        self.to, self.other = self.upstream.destination, self.server(netns=netns).destination
        self.start(*({"destination": to, "consecutive_failures": FAILURES, "on_open": "close_connections",
                      "base_open": "2s"} for to in (self.to, self.other)))
        caller = self.caller(netns=netns)
        caller.fill_pool(self.to, POOL)
        caller.fill_pool(self.other, OTHERS)
        self.fail(caller)
        self.wait_ended(caller)
        self.untouched(caller)
        self.wait_closed(POOL)
        rights = [p for p in self.daemon.json("/api/v1/startup")["items"] if p["name"] == "rights"]
        self.assertIn("kilterd-netns", rights[0]["result"])

    def test_each_opening_ends_what_is_there_then(self):
        self.prepare()
        for times in (1, 2):
            with self.subTest(times=times):
                caller = self.pools()
                self.fail(caller)
                self.wait_ended(caller)
                self.wait_closed(times * POOL)
                self.untouched(caller)
                caller.end()
                other = self.caller()
                kilter.wait_for("a trial succeeds", lambda: other.ask(self.to) == ["200"], every=0.2)
                self.wait_state(self.to, "closed")
                other.end()

    def test_opened_by_hand(self):
        self.prepare()
        name = f"*->{self.to}"
        for how, back, count in (("trip", "reset", POOL), ("force-open", "release", 2 * POOL)):
            with self.subTest(how=how):
                caller = self.pools()
                self.daemon.cli("circuits", how, name)
                self.wait_ended(caller)
                self.untouched(caller)
                self.wait_closed(count)
                caller.end()
                self.daemon.cli("circuits", back, name)
                if how == "force-open":
                    self.daemon.cli("circuits", "reset", name)

    def test_connections_that_are_older_than_the_daemon(self):
        self.prepare()
        self.daemon.stop()
        caller = self.pools()
        self.daemon.start()
        self.wait_figure(self.to, "connections_open", POOL)
        self.fail(caller)
        self.wait_ended(caller)
        self.untouched(caller)
        self.wait_closed(POOL)

    def test_who_does_not_ask_for_it_keeps_them(self):
        for more in ({"on_open": "keep"}, {"mode": "observe"}):
            with self.subTest(**more):
                if self.daemon.process:
                    self.daemon.stop()
                self.prepare(**more)
                caller = self.pools()
                self.fail(caller)
                self.wait_state(self.to, "open", "half_open")
                time.sleep(3 * guarded.TICK)
                self.assertEqual(caller.ended(self.to), ["whole"] * POOL)
                self.assertEqual(caller.reuse(self.to), ["200"] * POOL)
                self.wait_closed(0)

    def test_while_released_nothing_is_ended(self):
        self.prepare()
        self.daemon.cli("circuits", "release", "--all")
        caller = self.pools()
        self.fail(caller)
        self.wait_state(self.to, "open", "half_open")
        time.sleep(3 * guarded.TICK)
        self.assertEqual(caller.reuse(self.to), ["200"] * POOL)
        self.wait_closed(0)

    def test_the_lower_tier_leaves_them(self):
        self.prepare(top="kernel: {sock_destroy: false}\n")
        probe = {p["name"]: p for p in self.daemon.json("/api/v1/status")["probes"]}["guard_iter"]
        self.assertEqual(probe["tier"], "lower")
        self.assertIn("kernel.sock_destroy", probe["reason"])
        caller = self.pools()
        self.wait_figure(self.to, "connections_open", POOL)
        self.fail(caller)
        self.wait_state(self.to, "open")
        self.assertEqual(caller.ask(self.to), ["refused"], "all else is as it was")
        time.sleep(3 * guarded.TICK)
        self.assertEqual(caller.ended(self.to), ["whole"] * POOL)
        self.assertEqual(caller.reuse(self.to), ["200"] * POOL)
        self.wait_closed(0)

    def test_a_pool_to_nginx(self):
        nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        to = f"127.0.0.1:{nginx.port}"
        self.start({"destination": to, "on_open": "close_connections"})
        caller = self.caller()
        caller.fill_pool(to, POOL)
        self.daemon.cli("circuits", "force-open", f"*->{to}")
        kilter.wait_for("all are ended", lambda: all(end in ENDED for end in caller.ended(to)))
        self.wait_figure(to, "connections_closed", POOL)
        # The pool's owner does what pools do: it connects anew, and that is refused, until it is not.
        self.assertEqual(caller.ask(to), ["refused"])
        self.daemon.cli("circuits", "force-closed", f"*->{to}")
        self.assertEqual(caller.ask(to, 3), ["200"] * 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
