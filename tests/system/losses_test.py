#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Records that the kernel could not hand over are counted exactly, and told once over all lives."""

import os
import signal
import unittest

import kilter

PROGRAMS = 6000  # their records are half as much again as the ring buffer holds
LOOP = f"i=0; while [ $i -lt {PROGRAMS} ]; do /bin/true; i=$((i+1)); done"
RECORDS = 2 * PROGRAMS + 2  # an exec and an exit of each, and of the shell


class Losses(kilter.Case):
    def told(self):
        """(records of programs, records told to be lost in the kernel, records-lost records)"""
        programs = len(self.daemon.audited(event__action="exec")) + len(self.daemon.audited(event__action="exit"))
        gaps = self.daemon.audited(event__action="records-lost", event__reason="kernel ring buffer")
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
