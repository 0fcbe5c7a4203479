#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Letting go of everything at once: by hand with the daemon alive or dead, by a file, by the kernel's switch; and
back."""

import json
import os
import signal
import subprocess
import unittest

import guarded
import kilter

BY_HAND = "released by hand: nothing is refused"
BY_FILE = "released by guard.release_file: nothing is refused"


class Release(guarded.Case):
    def prepare(self, **more):
        """A circuit that is open, and the caller that it refuses."""
        self.to = self.server().destination
        self.start({"destination": self.to, "force": "open"}, **more)
        self.client = self.caller()
        self.refused()

    def refused(self):
        self.assertEqual(self.client.ask(self.to, 3), ["refused"] * 3)

    def released(self):
        self.assertEqual(self.client.ask(self.to, 3), ["200"] * 3)

    def wait_released(self, reason):
        """The API says that nothing is refused and why, everywhere; None: it is not so."""
        def told():
            return self.daemon.json("/api/v1/guard")["reason"] == reason

        kilter.wait_for(f"the guard says {reason}", told, kilter.SETTLE_SECONDS)
        self.assertEqual(self.daemon.json("/api/v1/guard")["released"], bool(reason))
        self.assertEqual(self.daemon.value("kilter_guard_released"), bool(reason))
        row = self.circuit(self.to)
        self.assertEqual((row["state"], row["mode"], row["mode_reason"]),
                         ("open", "observe" if reason else "enforce", reason or ""))
        self.released() if reason else self.refused()

    def switch(self, value=None):
        """The kernel's switch, as an operator reads and writes it without kilter."""
        path = os.path.join(self.sandbox.bpffs, "kilter", "guard_switch")
        if value is None:
            out = subprocess.run(["bpftool", "-j", "map", "lookup", "pinned", path, "key", "0", "0", "0", "0"],
                                 check=True, capture_output=True, text=True).stdout
            return json.loads(out)["value"][0] != "0x00"
        return subprocess.run(["bpftool", "map", "update", "pinned", path, "key", "0", "0", "0", "0",
                               "value", str(value), "0", "0", "0"], check=True)

    def wait_told(self, *expected):
        """What the audit trail has of it: (action, reason, by whom)."""
        def told():
            return [(r["event.action"], r["event.reason"], r.get("user.id")) for r in self.daemon.audited()
                    if r["event.action"] in ("guard-release", "guard-arm")]

        kilter.wait_for("all is recorded", lambda: len(told()) >= len(expected), kilter.SETTLE_SECONDS)
        self.assertEqual(told(), list(expected))

    def restart(self, kill):
        self.daemon.kill() if kill else self.daemon.stop()
        self.daemon.start()

    def test_released_and_armed_by_hand(self):
        self.prepare()
        self.wait_released(None)
        said = self.daemon.cli("circuits", "release", "--all").stdout
        self.assertIn("nothing is refused on this node until the guard is armed", said)
        self.released()
        self.wait_released(BY_HAND)
        self.wait_figure(self.to, "would_refuse_by.open", 6)
        # A second time changes nothing, and says so.
        again = self.daemon.cli("circuits", "release", "--all", check=False)
        self.assertIn("the guard is released already", again.stderr)
        self.assertEqual((again.returncode, again.stdout), (1, ""))

        self.assertIn("the guard is armed", self.daemon.cli("circuits", "arm").stdout)
        self.refused()
        self.wait_released(None)
        self.assertEqual(self.post("guard/arm")[0], 409)
        self.wait_told(("guard-release", "by hand", "0"), ("guard-arm", "by hand", "0"))

    def test_released_over_the_api(self):
        self.prepare()
        self.assertEqual(self.post("guard/release")[0], 200)
        self.wait_released(BY_HAND)
        self.assertEqual(self.post("guard/arm")[0], 200)
        self.wait_released(None)
        connection = guarded.http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=10)
        connection.request("POST", "/api/v1/guard/release")
        self.assertEqual(connection.getresponse().status, 403, "over TCP nobody is known")
        connection.close()
        self.wait_released(None)

    def test_limits_are_released_as_well(self):
        to = self.server().destination
        self.start({"destination": to, "rate_limit": 0.005, "burst": 1})
        caller = self.caller()
        self.assertEqual(caller.ask(to, 2), ["200", "refused"])
        self.daemon.cli("circuits", "release", "--all")
        self.assertEqual(caller.ask(to, 3), ["200"] * 3)
        self.daemon.cli("circuits", "arm")
        self.assertEqual(caller.ask(to), ["refused"])

    def test_what_was_released_stays_so_over_a_restart(self):
        self.prepare()
        self.daemon.cli("circuits", "release", "--all")
        for kill in (False, True):
            with self.subTest(kill=kill):
                self.restart(kill)
                self.wait_released(BY_HAND)
        self.daemon.cli("circuits", "arm")
        for kill in (False, True):
            with self.subTest(kill=kill, armed=True):
                self.restart(kill)
                self.wait_released(None)
        self.wait_told(("guard-release", "by hand", "0"), *[("guard-release", "found released at start", None)] * 2,
                       ("guard-arm", "by hand", "0"))

    def test_a_dead_daemon_is_not_needed_to_let_go(self):
        self.prepare(lease="60s")
        self.daemon.kill()
        self.refused()
        said = self.daemon.cli("circuits", "release", "--all").stdout
        self.assertIn("the daemon does not answer; its switch in the kernel is on", said)
        self.released()
        self.assertTrue(self.switch())
        # To arm takes a daemon, and says so.
        done = self.daemon.cli("circuits", "arm", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the daemon is needed for that", done.stderr)
        self.released()
        # The next daemon finds it so, and can end it.
        self.daemon.start()
        self.wait_released(BY_HAND)
        self.daemon.cli("circuits", "arm")
        self.wait_released(None)

    def test_a_hung_daemon_is_not_needed_to_let_go(self):
        self.prepare(lease="60s")
        self.daemon.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.daemon.process.send_signal, signal.SIGCONT)
        self.refused()
        said = self.daemon.cli("circuits", "release", "--all").stdout
        self.assertIn("the daemon does not answer; its switch in the kernel is on: nothing is refused", said)
        self.assertTrue(self.switch())
        self.released()
        self.assertEqual(self.process_state(), "T", "it hung all the while")
        # It has a command in its queue and finds the switch on: both say the same.
        self.daemon.process.send_signal(signal.SIGCONT)
        self.wait_figure(self.to, "would_refuse_by.open", 3)
        self.wait_released(BY_HAND)
        self.daemon.cli("circuits", "arm")
        self.wait_released(None)

    def process_state(self):
        with open(f"/proc/{self.daemon.process.pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0]

    def test_nothing_to_let_go_of(self):
        done = self.daemon.cli("circuits", "release", "--all", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("cannot be written", done.stderr)

    def test_a_file_comes_and_goes(self):
        self.prepare()
        self.sandbox.write("release", "")
        self.wait_released(BY_FILE)
        # Armed by hand it still releases: whoever put it there says when.
        self.assertEqual(self.post("guard/arm")[0], 409)
        self.wait_released(BY_FILE)
        os.unlink(self.release_file)
        self.wait_released(None)
        self.wait_told(("guard-release", f"{self.release_file} is there", None),
                       ("guard-arm", f"{self.release_file} is gone", None))

    def test_the_file_and_the_hand_release_each_for_itself(self):
        self.prepare()
        self.sandbox.write("release", "")
        self.wait_released(BY_FILE)
        self.daemon.cli("circuits", "release", "--all")
        self.wait_released(BY_HAND)
        os.unlink(self.release_file)
        self.wait_record("guard-release", event__reason=f"{self.release_file} is gone")
        self.wait_released(BY_HAND)
        self.sandbox.write("release", "")
        self.wait_record("guard-release", count=2, event__reason=f"{self.release_file} is there")
        self.assertIn(BY_FILE, self.daemon.cli("circuits", "arm").stdout)
        self.wait_released(BY_FILE)
        os.unlink(self.release_file)
        self.wait_released(None)

    def test_a_file_that_goes_while_the_daemon_is_down_is_gone(self):
        self.prepare()
        self.sandbox.write("release", "")
        self.wait_released(BY_FILE)
        for kill in (False, True):
            with self.subTest(kill=kill):
                self.restart(kill)
                self.wait_released(BY_FILE)
        self.daemon.stop()
        os.unlink(self.release_file)
        self.daemon.start()
        self.wait_released(None)

    def test_a_file_that_is_there_at_the_start(self):
        self.sandbox.write("release", "")
        self.to = self.server().destination
        self.start({"destination": self.to, "force": "open"})
        self.client = self.caller()
        self.released()
        self.wait_released(BY_FILE)
        self.wait_told(("guard-release", "found released at start", None))
        # Another name for it: the old file means nothing any more.
        self.reload({"destination": self.to, "force": "open"}, release_file=self.sandbox.path("other"))
        self.wait_released(None)

    def test_the_kernels_switch_is_followed(self):
        self.prepare()
        self.assertFalse(self.switch())
        self.switch(1)
        self.released()
        self.wait_released(BY_HAND)
        self.switch(0)
        self.refused()
        self.wait_released(None)
        self.wait_told(("guard-release", "the kernel's switch was turned on", None),
                       ("guard-arm", "the kernel's switch was turned off", None))
        # What the switch says outlives the daemon as what is said by hand does.
        self.switch(1)
        self.wait_released(BY_HAND)
        self.restart(kill=True)
        self.wait_released(BY_HAND)

    def test_the_kernels_switch_beside_the_file(self):
        self.prepare()
        self.sandbox.write("release", "")
        self.wait_released(BY_FILE)
        self.switch(1)
        self.wait_released(BY_HAND)
        os.unlink(self.release_file)
        self.wait_record("guard-release", event__reason=f"{self.release_file} is gone")
        self.wait_released(BY_HAND)
        self.sandbox.write("release", "")
        self.wait_record("guard-release", count=2, event__reason=f"{self.release_file} is there")
        self.switch(0)
        # The file is still there: the daemon turns it on again.
        self.wait_released(BY_FILE)
        self.assertTrue(self.switch())


if __name__ == "__main__":
    unittest.main(verbosity=2)
