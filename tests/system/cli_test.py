#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""The command line as its user has it: on real traffic, on a terminal, without a daemon, against a hostile one."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import unittest

import kilter

ESCAPE = "\x1b"
READS = (["status"], ["services"], ["deps"], ["health"], ["circuits"], ["circuits", "list"], ["probes"],
         ["probes", "list"], ["config", "show"], ["health", "--summary"])


def traffic(port):
    """Some requests each second until the end of the test."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as s:
            for _ in range(20):
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                s.recv(4096)
                time.sleep(0.02)


class WithTraffic(kilter.Case):
    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.daemon.start()
        self.sandbox.serve(traffic, self.nginx.port)
        kilter.wait_for("requests are seen", lambda: sum(self.daemon.counts(kilter.SERVER).values()) > 20)


class Commands(WithTraffic):
    def test_every_list_in_every_form(self):
        for command in READS:
            for form in ("table", "wide", "json"):
                with self.subTest(command=command, form=form):
                    done = self.daemon.cli(*command, "-o", form)
                    self.assertTrue(done.stdout.strip())
                    self.assertEqual(done.stderr, "")
                    self.assertNotIn(ESCAPE, done.stdout, "no colours where there is no terminal")
                    if form == "json":
                        json.loads(done.stdout)

    def test_what_it_says_is_what_the_api_says(self):
        said = json.loads(self.daemon.cli("services", "-o", "json").stdout)
        rows = said["items"] if isinstance(said, dict) else said
        told = self.daemon.json("/api/v1/services")["items"]
        self.assertEqual({r["name"] for r in rows}, {r["name"] for r in told})
        self.assertIn("nginx", {r["name"] for r in rows})
        table = self.daemon.cli("services").stdout
        self.assertRegex(table, r"(?m)^nginx +server +\d")
        self.assertRegex(self.daemon.cli("service", "nginx").stdout, "10s(.|\n)*1h")
        self.assertIn(f"127.0.0.1:{self.nginx.port}", self.daemon.cli("deps").stdout)

    def test_bench_says_what_each_program_costs(self):
        before = sum(self.daemon.counts(kilter.SERVER).values())
        said = json.loads(self.daemon.cli("bench", "--interval", "2s", "-o", "json").stdout)
        programs = {p["name"]: p for p in said["programs"]}
        self.assertGreater(programs["request_ingress"]["events"], 0)
        self.assertGreater(programs["request_egress"]["ns_per_event"], 0)
        # Both sides of each request, and no more than went by meanwhile.
        self.assertGreater(said["requests"], 0)
        kilter.wait_for("the daemon has read them", lambda: 2 * (
            sum(self.daemon.counts(kilter.SERVER).values()) - before) >= said["requests"] - 2)
        self.assertIn("for each and side", self.daemon.cli("bench", "--interval", "500ms").stdout)
        # It needs no daemon, as long as the programs are there.
        self.daemon.kill()
        self.assertGreater(json.loads(self.daemon.cli("bench", "--interval", "1s", "-o", "json").stdout)["requests"], 0)

    def test_rows_only(self):
        with_headers = self.daemon.cli("probes").stdout.splitlines()
        rows = self.daemon.cli("probes", "--no-headers").stdout.splitlines()
        self.assertEqual(len(rows), len(with_headers) - 1)

    def test_exit_statuses(self):
        for argv, status, what in ((["service", "no-such-thing"], 3, "no-such-thing"),
                                   (["circuits", "show", "nothing"], 3, "nothing"),
                                   (["servces"], 2, "did you mean 'services'"), (["services", "--colour"], 2, "--colour"),
                                   (["services", "-o", "yaml"], 2, "table"), (["top", "--interval", "soon"], 2, "soon"),
                                   (["service"], 2, "NAME")):
            with self.subTest(argv=argv):
                done = self.daemon.cli(*argv, check=False)
                self.assertEqual(done.returncode, status, done.stdout + done.stderr)
                self.assertIn(what, done.stderr)

    def test_top_in_a_pipe(self):
        done = self.daemon.cli("top", "--count", "2", "--interval", "300ms")
        self.assertEqual(len(re.findall(r"(?m)^nginx ", done.stdout)), 2)
        self.assertNotIn(ESCAPE, done.stdout)

    def test_without_a_daemon_the_maps_still_speak(self):
        self.assertEqual(self.daemon.stop(), 0)
        done = self.daemon.cli("services", check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("nginx", done.stdout)
        self.assertIn("daemon", done.stderr)

    def test_the_audit_trail(self):
        subprocess.run(["/bin/sh", "-c", "exit 3"], preexec_fn=self.sandbox.join, check=False)
        kilter.wait_for("the exec is recorded", lambda: "exit 3" in self.audit("query", "--action", "exec"))
        lines = self.audit("query", "--limit", "5", "-o", "json").splitlines()
        self.assertEqual(len(lines), 5)
        for line in lines:
            json.loads(line)
        self.assertTrue(self.audit("tail").strip())
        self.assertEqual(len(self.audit("tail", "-n", "3", "-o", "json").splitlines()), 3)

    def test_following_shows_what_was_asked_for_over_a_rotation(self):
        with subprocess.Popen([kilter.KILTER, "audit", "tail", "-F", "-o", "json", "--action", "exec", "--file",
                               self.daemon.audit], stdout=subprocess.PIPE, text=True) as follower:
            self.addCleanup(follower.kill)
            for i, mark in enumerate(("first-mark", "second-mark")):
                # Again and again: when the follower is ready is not ours to know.
                self.sandbox.spawn(["/bin/sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9; do /bin/true {mark}; sleep 1; done"])
                for line in follower.stdout:
                    record = json.loads(line)
                    self.assertEqual(kilter.field(record, "event.action"), "exec")
                    if mark in repr(kilter.field(record, "process.args")):
                        break
                if not i:
                    os.rename(self.daemon.audit, self.daemon.audit + ".moved")
                    self.daemon.process.send_signal(signal.SIGHUP)
                    kilter.wait_for("a new file is there", lambda: os.path.exists(self.daemon.audit))
            follower.kill()

    def test_what_comes_while_the_query_prints_is_neither_missed_nor_doubled(self):
        def records():
            with open(self.daemon.audit, encoding="utf-8") as f:
                return f.read().count("\n")

        def programs(n):
            self.sandbox.spawn(["/bin/sh", "-c", f"i=0; while [ $i -lt {n} ]; do /bin/true; i=$((i+1)); done"])

        programs(1000)  # an exec and an exit each
        kilter.wait_for("there is more than a pipe holds", lambda: records() > 2000)
        before = records()
        with subprocess.Popen([kilter.KILTER, "audit", "tail", "-F", "-o", "json", "--limit", "2000", "--file",
                               self.daemon.audit], stdout=subprocess.PIPE, text=True) as follower:
            self.addCleanup(follower.kill)
            # It is in the middle of its print-out now, and its reader is not in a hurry.
            follower.stdout.readline()
            programs(200)
            kilter.wait_for("more has come", lambda: records() >= before + 400)
            numbers = [kilter.field(json.loads(follower.stdout.readline()), "event.sequence") for _ in range(2300)]
            follower.kill()
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))

    def audit(self, *args):
        return self.daemon.cli("audit", *args, "--file", self.daemon.audit).stdout


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv, term="xterm-256color", rows=24, columns=100):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = term
            os.environ.pop("NO_COLOR", None)
            os.execv(argv[0], argv)
        self.said = ""
        self.resize(rows, columns)

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def read(self, seconds=0.2):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    chunk = os.read(self.fd, 65536)
                except OSError:  # the other side is gone
                    break
                if not chunk:
                    break
                self.said += chunk.decode(errors="replace")
        return self.said

    def await_text(self, what, seconds=kilter.SETTLE_SECONDS):
        kilter.wait_for(f"{what!r} is shown", lambda: re.search(what, self.read()), seconds)

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def wait(self):
        """Its exit status; what it says meanwhile is read, or it could not end."""
        def ended():
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return [os.waitstatus_to_exitcode(status)] if pid else None

        status = kilter.wait_for("the command ends", ended, 20)[0]
        os.close(self.fd)
        return status


class Top(WithTraffic):
    def terminal(self, term="xterm-256color", **kw):
        t = Terminal([kilter.KILTER, "top", "--interval", "300ms", "--socket", self.daemon.socket], term, **kw)
        self.addCleanup(self.end, t)
        return t

    def end(self, terminal):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)

    def test_it_draws_resizes_and_gives_the_terminal_back(self):
        t = self.terminal()
        t.await_text("nginx")
        t.said = ""
        t.resize(10, 60)

        def fits():
            # What lies between two ways home to the corner is a whole frame.
            frames = t.read().split(f"{ESCAPE}[H")[1:-1]
            lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in frames[-1].replace("\r", "").split("\n")] if frames else []
            return any("nginx" in line for line in lines) and max(map(len, lines)) <= 60 and len(lines) <= 10

        kilter.wait_for("a frame of the new size", fits)
        t.said = ""
        for key in "reepn":  # whatever they sort by, it must stay alive
            t.type(key)
        t.await_text("nginx")
        t.type("q")
        self.assertEqual(t.wait(), 0)
        self.assertIn(f"{ESCAPE}[?25h", t.said, "the cursor is shown again")
        self.assertIn(f"{ESCAPE}[?1049l", t.said, "the screen is as it was")

    def test_ctrl_c_gives_the_terminal_back(self):
        t = self.terminal()
        t.await_text("nginx")
        t.said = ""
        t.type("\x03")
        t.wait()
        self.assertIn(f"{ESCAPE}[?25h", t.said)

    def test_a_dumb_terminal_gets_no_escapes(self):
        t = self.terminal("dumb")
        t.await_text("nginx")
        self.assertNotIn(ESCAPE, t.said)
        t.type("\x03")
        t.wait()


class Hostile(unittest.TestCase):
    """Whoever owns the socket may be anyone: one clear error, in bounded time, nothing raw on the terminal."""

    def setUp(self):
        self.sandbox = kilter.Sandbox("hostile")
        self.addCleanup(self.sandbox.close)
        self.path = self.sandbox.path("hostile.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.threads = []
        self.addCleanup(self.end)
        self.listener.bind(self.path)
        self.listener.listen()

    def end(self):
        """The servers first: one that still accepts would serve whoever gets this descriptor next."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(20)
        self.listener.close()

    def against(self, *answers, command="services"):
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = self.listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        for part in answers:
                            if part is None:
                                connection.settimeout(60)
                                connection.recv(1)  # until the other side has had enough
                            elif callable(part):
                                part(connection)
                            else:
                                connection.sendall(part)

        self.threads.append(threading.Thread(target=serve, daemon=True))
        self.threads[-1].start()
        return subprocess.run([kilter.KILTER, command, "--socket", self.path, "--bpffs", self.sandbox.path("none")],
                              capture_output=True, timeout=60, text=True, errors="replace", check=False)

    def refused(self, *answers, command="services"):
        done = self.against(*answers, command=command)
        self.assertIn(done.returncode, (1, 4), done.stderr)
        self.assertTrue(done.stderr.startswith("kilter: "), done.stderr)
        self.assertLess(len(done.stderr), 1000)
        for raw in (ESCAPE, "\x07", "\x9b"):
            self.assertNotIn(raw, done.stdout + done.stderr)
        return done

    def test_garbage(self):
        self.refused(os.urandom(4096))

    def test_nothing_at_all(self):
        self.refused()

    def test_an_answer_cut_off(self):
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"items\":[")

    def test_half_an_answer_then_silence(self):
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Le", None)

    def test_no_json(self):
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>no!")

    def test_escapes_where_json_should_be(self):
        for body in (b"\x1b]0;owned\x07", b'{"a" "\xc2\x9b31m"}'):
            with self.subTest(body):
                self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)

    def test_a_list_that_never_ends(self):
        body = b'{"items":[],"next":"7"}'
        done = self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body)
        self.assertEqual(done.returncode, 1)

    def test_a_list_that_breaks_off_between_its_pages(self):
        body = b'{"items":[],"next":"7"}'
        first = b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        done = self.refused(lambda c: [c.sendall(first), self.listener.shutdown(socket.SHUT_RDWR)])
        self.assertEqual(done.returncode, 4)

    def test_json_of_another_shape(self):
        self.refused(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    def test_an_endless_head(self):
        self.refused(lambda c: [c.sendall(b"X-Filler: " + b"y" * 1000 + b"\r\n") for _ in range(100000)])

    def test_an_endless_body(self):
        def body(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{\"items\":[")
            for _ in range(1000000):
                connection.sendall(b" " * 65536)

        self.refused(body)

    def test_escapes_in_an_error(self):
        problem = b'{"title":"\\u001b]0;owned\\u0007","detail":"\\u001b[2J\\u009b31m","status":500}'
        done = self.refused(b"HTTP/1.1 500 No\r\nContent-Type: application/problem+json\r\nContent-Length: " +
                            str(len(problem)).encode() + b"\r\n\r\n" + problem)
        self.assertIn("31m", done.stderr)


class Completion(unittest.TestCase):
    def test_bash_completes_commands_and_options(self):
        def complete(line):
            script = ('source <("$0" completion bash); COMP_LINE="$1"; COMP_POINT=${#1}; read -ra COMP_WORDS <<< "$1"; '
                      '[[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _kilter; '
                      'printf "%s\\n" "${COMPREPLY[@]}"')
            done = subprocess.run(["bash", "-c", script, kilter.KILTER, line], capture_output=True, text=True,
                                  check=True, timeout=20)
            self.assertEqual(done.stderr, "")
            return done.stdout.split()

        self.assertIn("services", complete("kilter servi"))
        self.assertNotIn("health", complete("kilter servi"))
        self.assertIn("--output", complete("kilter services --out"))
        self.assertEqual(set(complete("kilter services -o ")), {"table", "wide", "json"})
        self.assertIn("trip", complete("kilter circuits t"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
