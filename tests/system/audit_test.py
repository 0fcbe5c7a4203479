#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""Who did what: every exec, exit, connect and listen in the cgroup is one record, in order, without a gap."""

import os
import signal
import socket
import stat
import subprocess
import time
import unittest

import kilter


def connect(port):
    socket.create_connection(("127.0.0.1", port), timeout=5).close()


def listen(port):
    with socket.create_server(("127.0.0.1", port)):
        time.sleep(0.2)


class Audit(kilter.Case):
    def setUp(self):
        super().setUp()
        self.daemon.start()

    def await_records(self, count, match):
        def have():
            return [r for r in self.daemon.audited() if match(r)]

        kilter.wait_for("the records are written", lambda: len(have()) >= count, kilter.SETTLE_SECONDS)
        time.sleep(2 * kilter.TICK_SECONDS)
        records = have()
        self.assertEqual(len(records), count, records[:3])
        return records

    def test_exec_and_exit_with_status(self):
        for _ in range(50):
            subprocess.run(["/bin/sh", "-c", "exit 7"], preexec_fn=self.sandbox.join, check=False)
        execs = self.await_records(50, lambda r: kilter.field(r, "event.category") in ("process", ["process"]) and
                                   "exit 7" in repr(kilter.field(r, "process.args")) and
                                   "exec" in kilter.field(r, "event.action"))
        record = execs[0]
        self.assertEqual(os.path.realpath(kilter.field(record, "process.executable")), os.path.realpath("/bin/sh"))
        self.assertEqual(str(kilter.field(record, "user.id")), "0")
        self.assertEqual(kilter.field(record, "process.parent.pid"), os.getpid())
        pids = {kilter.field(r, "process.pid") for r in execs}
        exits = self.await_records(50, lambda r: "exit" in kilter.field(r, "event.action") and
                                   kilter.field(r, "process.pid") in pids)
        self.assertEqual({kilter.field(r, "process.exit_code") for r in exits}, {7})

    def test_connect_and_listen(self):
        port = kilter.free_port()
        with socket.create_server(("127.0.0.1", port)):
            for _ in range(20):
                self.sandbox.call(connect, port)
        records = self.await_records(20, lambda r: kilter.field(r, "destination.port") == port)
        self.assertEqual({kilter.field(r, "destination.ip") for r in records}, {"127.0.0.1"})
        self.sandbox.call(listen, port)
        self.await_records(1, lambda r: "listen" in kilter.field(r, "event.action") and str(port) in repr(r))

    def test_the_sequence_has_no_gap_over_a_restart(self):
        self.daemon.stop()
        self.daemon.start()
        numbers = [kilter.field(r, "event.sequence") for r in self.daemon.audited()]
        self.assertGreater(len(numbers), 1)
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))

    def test_the_file_is_for_root_and_its_group(self):
        self.assertEqual(stat.S_IMODE(os.stat(self.daemon.audit).st_mode), 0o640)

    def test_sighup_reopens_a_file_that_was_moved(self):
        os.rename(self.daemon.audit, self.daemon.audit + ".moved")
        self.daemon.process.send_signal(signal.SIGHUP)
        kilter.wait_for("a new file", lambda: os.path.exists(self.daemon.audit))
        subprocess.run(["/bin/sh", "-c", "exit 3"], preexec_fn=self.sandbox.join, check=False)
        kilter.wait_for("records go there", lambda: "exit 3" in repr(self.daemon.audited()))

    def test_what_the_agent_does_is_in_it(self):
        self.daemon.stop()
        actions = [kilter.field(r, "event.action") for r in self.daemon.audited()]
        self.assertTrue(any("start" in a for a in actions), actions)
        self.assertTrue(any("stop" in a for a in actions), actions)

    def test_the_command_line_reads_it(self):
        subprocess.run(["/bin/sh", "-c", "exit 5"], preexec_fn=self.sandbox.join, check=False)
        kilter.wait_for("it is written", lambda: "exit 5" in repr(self.daemon.audited()))
        kilter.wait_for("it is shown", lambda: "sh" in self.daemon.cli("audit", "tail").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
