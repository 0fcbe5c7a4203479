#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""A dependency that flaps, and fifty callers at once on one that dies: the circuit keeps its times and its permits."""

import os
import re
import unittest

import breaker
import kilter

FAILURES = breaker.FAILURES
CALLERS = 50
PERMITS, SUCCESSES = 2, 6
WINDOW, BASE_OPEN, MAX_OPEN = 1, 2, 4  # base: a good and a bad window, so that trials meet what tripped it


class Flapping(breaker.Case):
    """Good for a window, bad for a window, and so on: the circuit moves no faster than its open times let it."""

    def flap(self, **policy):
        server = breaker.Server(self, mode=f"flap {WINDOW}")
        self.configure(server.destination, window=f"{WINDOW}s", base_open=f"{BASE_OPEN}s", max_open=f"{MAX_OPEN}s",
                       **policy)
        self.daemon.start()
        with self.calling(server.destination) as outcomes:
            kilter.wait_for("a stay that was doubled is over", lambda: self.doubled(server.destination), seconds=60)
        self.assertLessEqual({"500", "refused"}, set(outcomes))
        self.assertLessEqual(set(outcomes), {"200", "500", "refused"})  # it may have been tried in bad windows alone
        self.explain()
        self.keeps_its_times(server.destination)
        return server

    def doubled(self, destination):
        steps = [(was, to) for was, to, _ in self.transitions(destination)]
        again = ("half_open", "open")
        return again in steps and ("open", "half_open") in steps[steps.index(again):]

    def keeps_its_times(self, destination):
        """Each stay is as long as the back-off asks, by the circuit's own clock; the doubling is undone by one step for
        each window that it stayed closed, and by no more."""
        rows = self.records("circuit-transition", kilter__subject=f"*->{destination}")
        least, closed_at = 0, breaker.when(rows[0])
        for row in rows:
            if row["kilter.to"] == "closed":
                closed_at = breaker.when(row)
            elif row["kilter.to"] == "open":
                if row["kilter.from"] == "closed":
                    windows = int((breaker.when(row) - closed_at + 1) / WINDOW)  # a second for the clocks
                    least = max(0, least - windows)
                least += 1
            else:
                stayed = float(re.match(r"open for ([0-9.]+)s", row["event.reason"]).group(1))
                self.assertGreaterEqual(stayed, min(BASE_OPEN * 2 ** (least - 1), MAX_OPEN), row)
        # Between two openings lies the open time, whatever happened else.
        opened = [breaker.when(r) for r in rows if r["kilter.to"] == "open"]
        self.assertLessEqual(len(opened), 2 + (opened[-1] - opened[0]) / BASE_OPEN)

    def test_failures_in_a_row(self):
        self.flap()

    def test_failure_ratio(self):
        server = self.flap(consecutive_failures=0, failure_ratio=0.5, minimum_requests=5)
        self.assertEqual(self.circuit(server.destination)["trips"], 0)
        self.assertIn("failure ratio", self.transitions(server.destination)[0][2])


class Fifty(breaker.Case):
    def rush(self, destination, count, pause=0.0):
        """All callers pass the gate together."""
        gate = self.sandbox.path(f"gate-{next(self.numbers)}")
        os.mkfifo(gate)
        callers = [self.begin(destination, count, pause=pause, gate=gate) for _ in range(CALLERS)]
        with open(gate, "wb"):
            return self.end(*callers)

    def test_from_the_trip_on_nothing_but_trials_gets_through(self):
        server = breaker.Server(self, mode="200 0")
        self.configure(server.destination, base_open="60s", max_open="60s")
        self.daemon.start()
        self.assertEqual(set(self.rush(server.destination, 2)), {"200"})
        server.tell("500 0")
        server.forget()
        outcomes = self.rush(server.destination, 40)
        self.assertEqual(set(outcomes), {"500", "refused"})
        # Whoever was under way when it opened got there: one for each caller at most.
        self.assertEqual(outcomes.count("500"), len(server.arrived()))
        self.assertLessEqual(len(server.arrived()), FAILURES - 1 + CALLERS)
        self.wait_state(server.destination, "open")
        server.forget()
        self.assertEqual(set(self.rush(server.destination, 10)), {"refused"})
        self.assertEqual(server.arrived(), [])
        self.explain()
        # So many at once are more than are recorded one by one.
        self.assertTrue(self.records("records-lost"))

    def half_open(self, mode, answers):
        """A circuit that has just become half-open, and nobody has called since."""
        server = breaker.Server(self, mode="500 0")
        self.configure(server.destination, base_open="2s", max_open="60s", half_open_permits=PERMITS,
                       half_open_successes=SUCCESSES, half_open_timeout="30s")
        self.daemon.start()
        self.trip(server.destination)
        server.tell(mode)
        self.wait_state(server.destination, "half_open")
        server.forget()
        outcomes = self.rush(server.destination, 30, pause=0.02)
        self.assertLessEqual(set(outcomes), {"refused", answers})
        self.assertEqual(outcomes.count(answers), len(server.arrived()))
        return server

    def test_trials_that_fail(self):
        server = self.half_open("500 0.3", "500")
        self.explain()
        stays = sum(to == "half_open" for _, to, _ in self.transitions(server.destination))
        self.assertGreater(len(server.arrived()), 0)
        self.assertLessEqual(len(server.arrived()), PERMITS * stays)

    def test_trials_that_succeed(self):
        server = self.half_open("200 0.1", "200")
        # It closes after so many answers: whoever arrived before the last of them was a trial.
        before = server.arrived()[0][1]
        trials = [under_way for under_way, answered in server.arrived() if answered - before < SUCCESSES]
        self.assertGreaterEqual(len(trials), SUCCESSES)
        self.assertLessEqual(max(trials), PERMITS)
        self.recover(server.destination)
        self.explain()


if __name__ == "__main__":
    unittest.main(verbosity=2)
