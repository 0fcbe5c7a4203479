#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400
"""Starts, refusals, reloads, ends; and a front that is killed, stopped or flooded delays nobody."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
import unittest

import kilter


class Refusals(kilter.Case):
    def refused(self, status, *patterns, argv=None, env=None):
        """A start that must fail: with this exit status and one clear error that says this."""
        done = subprocess.run(argv or self.daemon.argv(), capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL, env=env, check=False)
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, status, said)
        for pattern in patterns:
            self.assertRegex(said, pattern)
        return said

    def config_fault(self, text, place, what):
        path = self.sandbox.write("kilter.yaml", text)
        self.refused(2, re.escape(f"{path}:{place}") + ".*" + what)

    def test_broken_syntax(self):
        self.config_fault("log: {level: info\n", "", ".")

    def test_unknown_key(self):
        self.config_fault("log:\n  levle: info\n", "2:", "levle")

    def test_wrong_type(self):
        self.config_fault("tick: [1]\n", "1:", "tick")

    def test_out_of_range(self):
        self.config_fault("guard:\n  lease: 5h\n", "2:", "60")

    def test_every_fault_in_one_run(self):
        path = self.sandbox.write("kilter.yaml", "nope: 1\nguard:\n  lease: 5h\nlog:\n  level: loud\n")
        self.refused(2, re.escape(path) + ":1:", re.escape(path) + ":3:", re.escape(path) + ":5:")

    def test_check_config_starts_nothing(self):
        done = subprocess.run([*self.daemon.argv(), "--check-config"], capture_output=True, timeout=30, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(kilter.pins(self.sandbox.bpffs), [])

    def test_unknown_flag(self):
        self.refused(2, "nonsense", argv=[kilter.KILTERD, "--nonsense"])

    def test_a_busy_port(self):
        with socket.create_server(("127.0.0.1", self.daemon.port)):
            self.refused(1, str(self.daemon.port))

    def test_an_unwritable_state_dir(self):
        self.daemon.state = "/proc/kilter-state"
        self.refused(1, "/proc/kilter-state")

    def test_an_unwritable_audit_file(self):
        self.daemon.audit = "/proc/kilter-audit.jsonl"
        self.refused(1, "/proc/kilter-audit.jsonl")

    def test_an_unwritable_socket(self):
        self.daemon.socket = "/proc/kilter/kilter.sock"
        self.refused(1, "/proc/kilter")

    def test_pins_where_no_bpffs_can_be(self):
        argv = self.daemon.argv()
        argv[argv.index("--bpffs") + 1] = "/proc/kilter"
        self.refused(1, "/proc/kilter", argv=argv)

    def test_a_cgroup_that_is_none(self):
        argv = self.daemon.argv()
        argv[argv.index("--cgroup") + 1] = self.sandbox.dir
        self.refused(1, re.escape(self.sandbox.dir) + ".*cgroup", argv=argv)

    def test_no_btf(self):
        hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh"]
        self.refused(3, "/sys/kernel/btf/vmlinux.*CONFIG_DEBUG_INFO_BTF", argv=[*hidden, *self.daemon.argv()])

    def test_no_rights(self):
        os.chmod(self.sandbox.dir, 0o777)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *self.daemon.argv()]
        said = self.refused(1, "root|CAP_BPF", argv=argv)
        self.assertLess(len(said.splitlines()), 20, said)

    def test_a_second_daemon_on_the_same_pins(self):
        self.daemon.start()
        second = kilter.Daemon(self.sandbox)
        second.socket, second.state = self.sandbox.path("second.sock"), self.sandbox.path("second-state")
        second.audit = self.sandbox.path("second.jsonl")
        self.refused(1, "another|already", argv=second.argv())
        self.assertEqual(self.daemon.get("/health/ready")[0], 200)


class Life(kilter.Case):
    def test_two_daemons_with_names_of_their_own(self):
        other = kilter.Sandbox("life-other")
        self.addCleanup(other.close)
        self.daemon.start()
        kilter.Daemon(other).start()
        self.assertEqual(self.daemon.get("/health/ready")[0], 200)

    def test_sigterm_drains_and_keeps_the_pins(self):
        self.daemon.start()
        self.assertEqual(self.daemon.stop(30), 0)
        self.assertTrue(os.listdir(os.path.join(self.sandbox.bpffs, "kilter")))

    def test_a_signal_in_the_middle_of_the_start_ends_it_in_good_order(self):
        for name, status in (("SIGTERM", 0), ("SIGINT", 0)):
            with self.subTest(name), open(self.daemon.log, "ab") as log:
                process = self.sandbox.spawn(self.daemon.argv(), inside=False, stdout=log, stderr=log)
                # The front is up before the first program is loaded.
                kilter.wait_for("the start has begun", lambda: kilter.can_connect(self.daemon.port))
                process.send_signal(getattr(signal, name))
                self.assertEqual(process.wait(60), status, self.daemon.logs())
                self.assertFalse(kilter.can_connect(self.daemon.port))

    def test_unpin_removes_them(self):
        self.daemon.args = ["--unpin"]
        self.daemon.start()
        self.assertEqual(self.daemon.stop(30), 0)
        self.assertEqual(kilter.pins(self.sandbox.bpffs), [])

    def test_sighup_with_a_bad_file_changes_nothing(self):
        self.daemon.start()
        before = self.daemon.json("/api/v1/config")
        self.sandbox.write("kilter.yaml", "guard:\n  nonsense: 1\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        kilter.wait_for("it is reported", lambda: "nonsense" in self.daemon.logs())
        self.assertEqual(self.daemon.json("/api/v1/config"), before)
        self.assertEqual(self.daemon.get("/health/ready")[0], 200)

    def test_sighup_takes_a_good_file(self):
        self.daemon.start()
        self.sandbox.write("kilter.yaml", "health:\n  error_ratio_degraded: 0.125\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        kilter.wait_for("it is in force", lambda: "0.125" in repr(self.daemon.json("/api/v1/config")))

    def test_status_names_every_probes_tier(self):
        self.daemon.start()
        said = self.daemon.cli("status").stdout
        for probe in ("sock_owner", "tcp_conn", "request", "guard_connect"):
            self.assertIn(probe, said)

    def test_an_unreachable_daemon_has_its_own_exit_status(self):
        self.assertEqual(self.daemon.cli("status", check=False).returncode, 4)


class Front(kilter.Case):
    """The agent's ticks, seen from the counts that go on arriving."""

    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.daemon.start()

    def fronts(self):
        """The daemon's descendants, deepest last: the supervisor and the worker."""
        return kilter.family(self.daemon.process.pid)[1:]

    def late(self):
        """Ticks that came late, as the agent itself counts them."""
        samples = [(n, v) for n, have in self.daemon.metrics().items() for _, v in have if "late" in n]
        self.assertTrue(samples, "the agent exports how many of its ticks were late")
        return sum(v for _, v in samples)

    def load(self, count):
        self.sandbox.run(["h2load", "--h1", "-n", str(count), "-c", "4", f"http://127.0.0.1:{self.nginx.port}/"])

    def test_it_holds_no_rights(self):
        worker = self.fronts()[-1]
        with open(f"/proc/{worker}/status", encoding="ascii") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(int(status["CapPrm"], 16), 0)
        self.assertEqual(int(status["CapBnd"], 16) & int(status["CapInh"], 16), 0)
        self.assertNotIn("0", status["Uid"].split())
        self.assertEqual(status["Seccomp"].strip(), "2")
        self.assertEqual(status["NoNewPrivs"].strip(), "1")

    def test_the_agent_keeps_three_capabilities(self):
        with open(f"/proc/{self.daemon.process.pid}/status", encoding="ascii") as f:
            effective = int(re.search(r"^CapEff:\s*(\w+)", f.read(), re.M).group(1), 16)
        self.assertEqual(effective, (1 << 12) | (1 << 38) | (1 << 39), "NET_ADMIN, PERFMON, BPF")

    def test_killed_it_comes_back_and_nothing_is_lost(self):
        self.load(100)
        worker = self.fronts()[-1]
        os.kill(worker, signal.SIGKILL)
        self.load(100)
        kilter.wait_for("a new front answers", lambda: self.answers() and self.fronts()[-1] != worker)
        self.settle(kilter.SERVER, {"200": 200})
        self.assertIsNone(self.daemon.process.poll())

    def answers(self):
        try:
            return self.daemon.get("/health/live", timeout=2)[0] == 200
        except OSError:
            return False

    def test_stopped_it_delays_no_tick(self):
        late = self.late()
        worker = self.fronts()[-1]
        os.kill(worker, signal.SIGSTOP)
        try:
            self.load(200)
            time.sleep(5)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
        kilter.wait_for("it answers again", self.answers)
        self.settle(kilter.SERVER, {"200": 200})
        self.assertEqual(self.late(), late)

    def test_flooded_it_delays_no_tick(self):
        late = self.late()
        held = []
        for i in range(300):
            with contextlib.suppress(OSError):
                s = socket.create_connection(("127.0.0.1", self.daemon.port), timeout=1)
                s.send([b"GET /metrics HTTP/1.1\r\n", b"\0\xff" * 400, b"G", b""][i % 4])
                held.append(s)
        self.load(200)
        time.sleep(3)
        for s in held:
            s.close()
        kilter.wait_for("it answers again", self.answers)
        self.settle(kilter.SERVER, {"200": 200})
        self.assertEqual(self.late(), late)

    def test_smuggling_is_refused(self):
        for name, message in (
                ("two lengths", b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"),
                ("length and chunks", b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
                                      b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                ("bare LF", b"GET /health/live HTTP/1.1\nHost: x\n\n"),
                ("NUL", b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n")):
            with self.subTest(name), socket.create_connection(("127.0.0.1", self.daemon.port), timeout=10) as s:
                s.sendall(message)
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    answer = s.recv(4096)
                self.assertNotIn(b" 200 ", answer.split(b"\r\n")[0])
        self.assertTrue(self.answers())


if __name__ == "__main__":
    unittest.main(verbosity=2)
