#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300
"""The daemon is killed, stopped, upgraded or told otherwise while a circuit is closed, open or half-open: what is shut
stays shut for as long as the lease says, and no longer."""

import os
import shutil
import signal
import time
import unittest

import breaker
import kilter

FAILURES = breaker.FAILURES
LONG = "30s"  # no restart takes that long, on no machine
FAST = 0.001  # between two calls: more refusals a second than are recorded one by one


class Daemon(breaker.Case):
    def prepare(self, mode="500 0", **policy):
        self.server = breaker.Server(self, mode=mode)
        self.destination = self.server.destination
        self.policy = {"base_open": "60s", "max_open": "60s", **policy}
        self.configure(self.destination, **self.policy)
        self.daemon.start()

    def open(self):
        """An open circuit, and a server that is well again: whatever gets through will show."""
        self.assertEqual(self.trip(self.destination), ["500"] * FAILURES + ["refused"])
        self.server.tell("200 0")
        self.server.forget()

    def half_open(self):
        self.open()
        self.wait_state(self.destination, "half_open")

    def kill(self):
        """What it has written by now is what a SIGKILL leaves: so everything has to be written, and nobody calls."""
        self.explain()
        self.daemon.kill()

    def until(self, outcome, **more):
        """Calls until this is what callers see; returns how many connects got through by then, and refusals."""
        seen = []
        kilter.wait_for(f"callers see {outcome}", lambda: (
            seen.extend(self.ask(self.destination)), seen[-1] == outcome)[1], every=0.1, **more)
        return seen.count("200"), seen.count("refused")

    def arrivals(self):
        return len(self.server.arrived())


class Killed(Daemon):
    def test_while_closed_the_kernel_trips_alone_for_the_base_time(self):
        self.prepare(base_open="3s")
        self.assertEqual(self.ask(self.destination, FAILURES - 1), ["500"] * (FAILURES - 1))
        self.kill()
        # The run of failures goes on where it was.
        self.assertEqual(self.ask(self.destination, 3), ["500", "refused", "refused"])
        self.server.tell("200 0")
        self.until("200")
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.daemon.start()
        self.assertEqual(self.state(self.destination), "closed")
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.explain()
        self.assertEqual(len(self.records("circuit-kernel-trip")), 1)
        self.assertEqual(self.circuit(self.destination)["lease_expired"], 0)

    def test_while_closed_a_new_one_takes_over_what_the_kernel_did(self):
        self.prepare(base_open=LONG)
        self.assertEqual(self.ask(self.destination, FAILURES - 1), ["500"] * (FAILURES - 1))
        self.kill()
        self.assertEqual(self.ask(self.destination, 3), ["500", "refused", "refused"])
        self.daemon.start()
        self.wait_state(self.destination, "open")
        self.assertEqual(self.ask(self.destination), ["refused"])
        self.assertEqual(self.arrivals(), FAILURES)
        self.explain()

    def test_while_open_it_lets_go_when_the_lease_ends(self):
        self.prepare()
        self.open()
        self.kill()
        through, _ = self.until("200")
        self.assertEqual(through, 1)
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.daemon.start()
        self.assertEqual(self.ask(self.destination, 5), ["refused"] * 5)
        self.explain()
        self.assertEqual(self.circuit(self.destination)["lease_expired"], 11)
        self.assertEqual(self.arrivals(), 11)
        self.assertEqual([(a, b) for a, b, _ in self.transitions(self.destination)], [("closed", "open")])

    def test_while_open_and_back_within_the_lease_nothing_gets_through(self):
        self.prepare(lease=LONG)
        self.open()
        self.kill()
        with self.calling(self.destination, pause=FAST) as outcomes:
            self.daemon.start()
            self.assertEqual(self.state(self.destination), "open")
            time.sleep(3 * breaker.TICK)
        self.assertEqual(set(outcomes), {"refused"})
        self.assertGreater(len(outcomes), 10)
        self.explain()
        self.assertEqual(self.arrivals(), 0)
        self.assertEqual(self.circuit(self.destination)["lease_expired"], 0)

    def test_while_half_open_and_back_within_the_lease_trials_go_on(self):
        self.prepare(lease=LONG, base_open="2s")
        self.half_open()
        self.kill()
        self.assertEqual(self.ask(self.destination), ["200"])
        self.daemon.start()
        # One trial of two succeeded while nobody looked; it counts.
        self.assertEqual(self.state(self.destination), "half_open")
        self.assertEqual(self.ask(self.destination), ["200"])
        self.wait_state(self.destination, "closed")
        self.assertIn("2 trials succeeded", self.transitions(self.destination)[-1][2])
        self.explain()

    def test_while_half_open_it_keeps_the_permits_until_the_lease_ends(self):
        self.prepare(lease="8s", base_open="4s", half_open_timeout="60s")
        self.half_open()
        self.kill()
        self.server.tell("200 1")
        slow = [self.begin(self.destination, 1) for _ in range(2)]
        kilter.wait_for("both trials are under way", lambda: self.arrivals() == 2, every=0.01)
        refused = self.ask(self.destination, 5)
        self.assertEqual(refused, ["refused"] * 5)
        self.assertEqual(self.end(*slow), ["200"] * 2)
        self.server.tell("500 0")
        self.assertEqual(self.ask(self.destination, 2), ["500", "refused"])  # a trial that failed is the answer
        self.until("500")
        self.assertEqual(self.ask(self.destination, 10), ["500"] * 10)
        self.daemon.start()
        self.wait_state(self.destination, "open")
        self.assertEqual(self.ask(self.destination, 5), ["refused"] * 5)
        self.explain()
        self.assertEqual(self.circuit(self.destination)["lease_expired"], 11)


class Stopped(Daemon):
    def test_starved_beyond_its_lease_it_lets_go_and_takes_it_back(self):
        self.prepare()
        self.open()
        self.daemon.process.send_signal(signal.SIGSTOP)
        try:
            self.until("200")
            self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        finally:
            self.daemon.process.send_signal(signal.SIGCONT)
        more, _ = self.until("refused")
        self.assertEqual(self.ask(self.destination, 10), ["refused"] * 10)
        self.explain()
        self.assertEqual(self.circuit(self.destination)["lease_expired"], 11 + more)
        self.assertEqual(self.arrivals(), 11 + more)
        self.assertEqual([(a, b) for a, b, _ in self.transitions(self.destination)], [("closed", "open")])


class Upgraded(Daemon):
    def test_another_binary_goes_on_where_the_first_one_ended(self):
        self.prepare(lease=LONG)
        self.open()
        before = self.circuit(self.destination)
        with self.calling(self.destination, pause=FAST) as outcomes:
            self.assertEqual(self.daemon.stop(), 0)
            binary = shutil.copy(kilter.KILTERD, self.sandbox.path("kilterd-next"))
            argv = self.daemon.argv()
            self.daemon.argv = lambda: [binary, *argv[1:]]
            self.daemon.start()
            after = self.circuit(self.destination)
            time.sleep(3 * breaker.TICK)
        self.assertEqual(set(outcomes), {"refused"})
        self.assertEqual(self.arrivals(), 0)
        for key in ("state", "since", "reason", "generation", "opens_in_a_row", "trips", "failures", "lease_expired"):
            self.assertEqual(after[key], before[key], key)
        self.assertLess(after["retry_in_seconds"], before["retry_in_seconds"])
        self.explain()
        # And it is in command.
        self.daemon.cli("circuits", "reset", f"*->{self.destination}")
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.explain()


class Reloaded(Daemon):
    def settings(self, **policy):
        self.reload(self.destination, **{**self.policy, **policy})

    def test_another_threshold(self):
        self.prepare()
        self.open()
        before = self.circuit(self.destination)
        self.settings(consecutive_failures=FAILURES + 2)
        self.assertEqual(self.ask(self.destination, 5), ["refused"] * 5)
        kilter.wait_for("they are counted", lambda: self.circuit(self.destination)["refused"] == before["refused"] + 5)
        self.assertEqual(self.circuit(self.destination)["generation"], before["generation"])
        self.explain()
        self.daemon.cli("circuits", "reset", f"*->{self.destination}")
        self.server.tell("500 0")
        self.assertEqual(self.ask(self.destination, FAILURES + 3), ["500"] * (FAILURES + 2) + ["refused"])
        self.explain()

    def test_observe_and_back(self):
        self.prepare()
        self.open()
        self.settings(mode="observe")
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        kilter.wait_for("they are counted", lambda: self.circuit(self.destination)["would_refuse"] == 10)
        self.assertEqual(self.state(self.destination), "open")
        self.settings()
        self.assertEqual(self.ask(self.destination, 10), ["refused"] * 10)
        self.explain()
        self.assertEqual(self.circuit(self.destination)["would_refuse"], 10)
        self.assertEqual([(a, b) for a, b, _ in self.transitions(self.destination)], [("closed", "open")])

    def test_no_policy_and_back(self):
        self.prepare()
        self.open()
        self.explain()
        self.dropped = self.circuit(self.destination)["refused"]
        self.reload()
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        kilter.wait_for("it is gone", lambda: not self.circuit(self.destination))
        self.assertEqual([(a, b) for a, b, _ in self.transitions(self.destination)],
                         [("closed", "open"), ("open", "closed")])
        self.settings()
        self.wait_state(self.destination, "closed")
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.server.tell("500 0")
        self.trip(self.destination)
        self.explain()


class Restart(Daemon):
    """What was decided, and by whom, over a start that finds the world changed."""

    def replace(self, old, new):
        with open(self.daemon.config, encoding="utf-8") as f:
            text = f.read()
        self.sandbox.write("kilter.yaml", text.replace(old, new))

    def restart_with(self, old, new, *destinations):
        self.prepare()
        self.assertEqual(self.daemon.stop(), 0)
        self.configure(*[self.destination for _ in destinations])
        self.replace(old, new)
        self.daemon.start()
        time.sleep(3)  # longer than the lease
        self.assertEqual(self.ask(self.destination, FAILURES + 3), ["500"] * (FAILURES + 3))

    def test_guard_off_at_restart_is_off(self):
        self.restart_with("guard:\n", "guard:\n  mode: \"off\"\n", 1)

    def test_policy_gone_at_restart_is_gone(self):
        self.restart_with("guard:\n", "guard:\n  defaults: {mode: \"off\"}\n")

    def jam(self):
        state = os.path.join(self.daemon.state, "circuits")
        kilter.wait_for("the state is saved", lambda: os.path.exists(state))
        time.sleep(3 * breaker.TICK)
        os.mkdir(state + ".new")  # as a full or read-only state_dir: it cannot be saved any more

    def test_open_in_the_kernel_is_newer_than_closed_in_the_file(self):
        self.prepare(base_open="1s", window="60s", lease="30s")
        self.trip(self.destination)
        self.server.tell("200 0")
        self.recover(self.destination)
        self.jam()
        self.server.tell("500 0")
        self.reload(self.destination, base_open="60s", max_open="60s", window="60s", lease="30s")
        self.trip(self.destination)
        self.daemon.kill()
        self.assertEqual(self.ask(self.destination, 3), ["refused"] * 3)
        self.daemon.start()
        self.assertEqual(self.ask(self.destination, 3), ["refused"] * 3)

    def test_closed_in_the_kernel_is_newer_than_open_in_the_file(self):
        self.prepare(window="60s", lease="30s")
        self.open()
        self.jam()
        self.daemon.cli("circuits", "reset", f"*->{self.destination}")
        self.assertEqual(self.ask(self.destination, 3), ["200"] * 3)
        self.daemon.kill()
        self.assertEqual(self.ask(self.destination, 3), ["200"] * 3)
        self.daemon.start()
        self.assertEqual(self.ask(self.destination, 3), ["200"] * 3)

    def test_a_trip_that_the_kernel_took_back_is_over(self):
        self.prepare(base_open="1s")
        self.daemon.process.send_signal(signal.SIGSTOP)
        self.assertEqual(self.ask(self.destination, FAILURES + 1), ["500"] * FAILURES + ["refused"])
        self.server.tell("200 0")
        time.sleep(2)
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)
        self.daemon.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)

    def test_the_same_over_a_kill_and_with_nobody_calling(self):
        self.prepare(base_open="1s")
        self.kill()
        self.assertEqual(self.ask(self.destination, FAILURES + 1), ["500"] * FAILURES + ["refused"])
        self.server.tell("200 0")
        time.sleep(4)
        self.daemon.start()
        self.assertEqual(self.ask(self.destination, 10), ["200"] * 10)


if __name__ == "__main__":
    unittest.main(verbosity=2)
