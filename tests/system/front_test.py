#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The front alone: its host publishes a made-up snapshot, so no BPF is needed."""

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import time
import unittest

from kilter import UnixConnection, free_port

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("B", "build"))
HOST = os.path.join(BUILD, "tests/system/front_host")
WAIT_SECONDS = 20
CONNECTIONS = 32  # front_host's api.max_connections
SERIES = 8000     # more than buffers of sockets hold: 20 MiB of text


class Front(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run(["make", "-s", "--no-print-directory", "-C", ROOT, f"B={BUILD}", HOST], check=True)

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="kilter-front-")
        self.addCleanup(self.dir.cleanup)
        os.chmod(self.dir.name, 0o755)
        self.port, self.path = free_port(), os.path.join(self.dir.name, "run", "kilter.sock")
        self.out = open(os.path.join(self.dir.name, "out"), "w+", encoding="utf-8")  # pylint: disable=consider-using-with
        self.addCleanup(self.out.close)
        self.start()

    def start(self, *args):
        self.host = subprocess.Popen([HOST, f"127.0.0.1:{self.port}", self.path, *args],  # pylint: disable=consider-using-with
                                     stdout=self.out, stderr=self.out)
        self.addCleanup(self.end, self.host)
        self.wait("it is ready", self.ready)

    def end(self, host):
        if host.poll() is None:
            host.terminate()
            host.wait(WAIT_SECONDS)

    def said(self):
        with open(self.out.name, encoding="utf-8") as f:
            return f.read()

    def wait(self, what, true):
        until = time.monotonic() + WAIT_SECONDS
        while not true():
            if time.monotonic() > until:
                self.fail(f"waited in vain until {what}:\n{self.said()}")
            time.sleep(0.05)

    def ask(self, method="GET", path="/health/ready", unix=False, body=None, **headers):
        c = UnixConnection(self.path) if unix else http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(c):
            c.request(method, path, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
            r = c.getresponse()
            return r.status, r.read(), r.headers

    def ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.ask()[0] == 200
        return False

    def raw(self, message, unix=False):
        """All that comes back for these bytes."""
        if unix:
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(10)
            s.connect(self.path)
        else:
            s = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        with s:
            s.sendall(message)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := s.recv(65536):
                    answer += chunk
            return answer

    def workers(self):
        return [int(p) for p in re.findall(r"^worker (\d+)$", self.said(), re.M) if int(p)]

    def ticks(self):
        _, body, _ = self.ask(path="/api/v1/status")
        return json.loads(body)["ticks"]

    def assert_never_late(self):
        self.assertNotIn("late ", self.said())

    def metric(self, name):
        _, body, _ = self.ask(path="/metrics")
        return {l.rsplit(" ", 1)[0]: float(l.rsplit(" ", 1)[1]) for l in body.decode().splitlines()
                if l.startswith(name)}


class Long(Front):
    """An exposition that is made while it is sent."""

    def start(self, *args):
        super().start(str(SERIES), *args)

    def assert_whole(self, body, end=b"\n"):
        self.assertTrue(body.endswith(end))
        lines = body.splitlines()
        samples = [l.rsplit(b" ", 1)[0] for l in lines if not l.startswith(b"#")]
        self.assertEqual(len(set(samples)), len(samples), "a sample is there twice")
        types = [l.split()[2] for l in lines if l.startswith(b"# TYPE")]
        self.assertEqual(len(set(types)), len(types), "a family is there twice")
        for role in (b"server", b"client"):
            counts = [b"http_" + role + b"_request_duration_seconds_count{", b"rpc_" + role + b"_call_duration_seconds_count{"]
            self.assertEqual(sum(l.startswith(tuple(counts)) for l in samples), SERIES // 2)
        self.assertIn(b'kilter_http_older_snapshots_total{path="/metrics"}', samples)

    def test_it_is_whole_in_every_form(self):
        _, plain, headers = self.ask(path="/metrics")
        self.assertEqual(headers["Transfer-Encoding"], "chunked")
        self.assert_whole(plain)
        _, zipped, headers = self.ask(path="/metrics", Accept_Encoding="gzip")
        self.assertEqual(headers["Content-Encoding"], "gzip")
        self.assert_whole(gzip.decompress(zipped))
        self.assert_whole(self.ask(path="/metrics", Accept="application/openmetrics-text")[1], b"\n# EOF\n")
        self.assertEqual(self.ask("HEAD", "/metrics")[:2], (200, b""))
        self.assert_whole(self.raw(b"GET /metrics HTTP/1.0\r\n\r\n").split(b"\r\n\r\n", 1)[1])  # no chunks there
        self.assert_never_late()

    def test_slow_readers_shut_nobody_out_and_get_what_they_began(self):
        slow = []
        for _ in range(4):
            tick = self.ticks()
            s = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            slow.append((tick, s, s.recv(1000)))
            self.wait("another snapshot is there", lambda t=tick: self.ticks() > t + 1)
        other = self.ask(path="/metrics")[1]
        bodies = []
        for _, s, body in slow:  # all of them before their time is up
            with s:
                while chunk := s.recv(1 << 20):
                    body += chunk
            bodies.append(body.split(b"\r\n\r\n", 1)[1])
        self.assert_whole(other)
        self.assertGreater(int(re.search(rb"^kilter_http_older_snapshots_total\{.*\} (\d+)$", other, re.M).group(1)), 0)
        began = []
        for body in bodies:
            self.assert_whole(body)
            began.append(int(re.search(rb"^kilter_ticks_total (\d+)$", body, re.M).group(1)))
        self.assertGreaterEqual(began[0], slow[0][0])
        self.assertGreaterEqual(began[1], slow[1][0])
        self.assertEqual(began[2:], [began[1]] * 2, "no more than two are held")

    def test_readers_that_leave_are_forgotten(self):
        for _ in range(3 * CONNECTIONS):
            s = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
            s.recv(1000)
            s.close()
        self.assert_whole(self.ask(path="/metrics")[1])
        self.assertEqual(len(self.workers()), 1)


class Rights(Front):
    def test_the_worker_has_none(self):
        self.has_none(self.workers()[-1])
        with open(f"/proc/{self.workers()[-1]}/status", encoding="ascii", errors="replace") as f:
            self.assertIn("Seccomp:\t2\n", f.read())

    def test_the_supervisor_has_none(self):
        self.has_none(int(re.search(r"^supervisor (\d+)$", self.said(), re.M).group(1)))

    def has_none(self, pid):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        for which in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            self.assertEqual(int(status[which], 16), 0, which)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertNotIn("0", status["Uid"].split())
        self.assertNotIn("0", status["Gid"].split())
        self.assertEqual(status["Groups"].strip(), "")

    def test_the_worker_holds_only_its_own_descriptors(self):
        base = f"/proc/{self.workers()[-1]}/fd"

        def held():
            return [os.readlink(os.path.join(base, f)) for f in os.listdir(base)]

        # Two that listen and one to the agent; one that was just answered may still be there.
        self.wait("it holds three sockets", lambda: sum(f.startswith("socket:") for f in held()) == 3)
        self.assertFalse([f for f in held() if f.startswith("/") and "memfd" not in f
                          and not f.startswith("/dev/") and f != self.out.name], held())

    def test_the_socket_is_for_its_group_only(self):
        mode = os.stat(self.path).st_mode
        self.assertTrue(stat.S_ISSOCK(mode))
        self.assertEqual(stat.S_IMODE(mode), 0o660)

    def test_stopping_removes_the_socket(self):
        self.host.terminate()
        self.assertEqual(self.host.wait(WAIT_SECONDS), 0)
        self.assertFalse(os.path.exists(self.path))

    def test_a_stale_socket_is_taken_over_a_live_one_is_not(self):
        other = subprocess.run([HOST, f"127.0.0.1:{free_port()}", self.path], capture_output=True, text=True,
                               check=False, timeout=WAIT_SECONDS)
        self.assertEqual(other.returncode, 1)
        self.assertIn(self.path, other.stderr)
        other = subprocess.run([HOST, f"127.0.0.1:{self.port}", self.path + "2"], capture_output=True, text=True,
                               check=False, timeout=WAIT_SECONDS)
        self.assertEqual(other.returncode, 1)
        self.assertIn(f"127.0.0.1:{self.port}", other.stderr)
        self.host.kill()
        self.host.wait()
        self.wait("the orphans are gone", lambda: not self.ready())
        self.assertTrue(os.path.exists(self.path))
        self.start()
        self.assertEqual(self.ask(unix=True)[0], 200)


class Life(Front):
    def test_a_killed_worker_is_replaced(self):
        old = self.workers()[-1]
        os.kill(old, signal.SIGKILL)
        self.wait("another serves", lambda: self.workers()[-1] != old and self.ready())
        self.assertIn("worker 0\n", self.said())
        self.assert_never_late()

    def test_a_stopped_worker_delays_nothing(self):
        before, worker = self.ticks(), self.workers()[-1]
        os.kill(worker, signal.SIGSTOP)
        try:
            held = [socket.create_connection(("127.0.0.1", self.port), timeout=5) for _ in range(100)]
            for s in held:
                s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(2)
        finally:
            os.kill(worker, signal.SIGCONT)
        for s in held:
            s.close()
        self.wait("it answers again", self.ready)
        self.assertGreater(self.ticks(), before + 20)
        self.assert_never_late()

    def test_ctrl_c_on_the_group_does_not_kill_the_front(self):
        worker = self.workers()[-1]
        supervisor = int(re.search(r"^supervisor (\d+)$", self.said(), re.M).group(1))
        os.kill(supervisor, signal.SIGINT)
        os.kill(worker, signal.SIGINT)
        self.assertTrue(self.ready())
        self.assertEqual(self.workers()[-1], worker)


class Abuse(Front):
    def test_garbage_and_floods_are_refused_and_counted(self):
        held = []
        for i in range(300):
            with contextlib.suppress(OSError):
                s = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                held.append(s)
                s.send([b"GET /metrics HTTP/1.1\r\n", b"\0\xff" * 400, b"G", os.urandom(64)][i % 4])
        for s in held:
            s.close()
        self.wait("it answers again", self.ready)
        refused = self.metric("kilter_http_connections_refused_total")
        self.assertGreater(refused['kilter_http_connections_refused_total{reason="malformed_head"}'], 0)
        self.assertGreater(refused['kilter_http_connections_refused_total{reason="connections_of_address"}'], 0)
        self.assert_never_late()

    def test_a_full_house_over_tcp_leaves_room_for_the_unix_socket(self):
        def fill():
            """As many as there may be, from so many addresses that none has too many."""
            for i in range(CONNECTIONS + 8):
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(("127.0.0.1", self.port), timeout=5,
                                                         source_address=(f"127.0.1.{1 + i // 4}", 0)))

        def full():
            fill()
            self.assertEqual(self.ask(unix=True)[0], 200)
            return self.refused_for_total() > before

        held, before = [], self.refused_for_total()
        self.addCleanup(lambda: [s.close() for s in held])
        self.wait("the house is full", full)

    def refused_for_total(self):
        _, body, _ = self.ask(path="/metrics", unix=True)
        return float(re.search(rb'connections_refused_total\{reason="connections"\} (\d+)', body).group(1))

    def test_slow_heads_and_slow_bodies_end_by_the_deadline(self):
        for start in (b"", b"GET / HT", b"POST /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1"):
            with self.subTest(start), socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS) as s:
                s.sendall(start)
                with contextlib.suppress(OSError):
                    while s.recv(4096):
                        pass
        refused = self.metric("kilter_http_connections_refused_total")
        self.assertEqual(refused['kilter_http_connections_refused_total{reason="deadline"}'], 3)

    def test_no_connection_leaks(self):
        for _ in range(CONNECTIONS * 4):
            self.assertEqual(self.ask()[0], 200)
        for _ in range(CONNECTIONS * 4):
            self.raw(b"\n")
        self.assertTrue(self.ready())

    def test_smuggling_is_refused(self):
        get = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
        for name, message, status in (
                ("two lengths", get + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
                ("equal lengths", get + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n", 400),
                ("length list", get + b"Content-Length: 0, 0\r\n\r\n", 400),
                ("signed length", get + b"Content-Length: +0\r\n\r\n", 400),
                ("length and chunks", get + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
                ("other coding", get + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
                ("two codings", get + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
                ("bare LF", b"GET /health/live HTTP/1.1\nHost: localhost\n\n", 400),
                ("bare CR", get + b"X: a\rb\r\n\r\n", 400),
                ("NUL", get + b"X-A: a\0b\r\n\r\n", 400),
                ("folded", get + b"X-A: a\r\n b\r\n\r\n", 400),
                ("space before colon", get + b"X-A : a\r\n\r\n", 400),
                ("no Host", b"GET /health/live HTTP/1.1\r\n\r\n", 400),
                ("two Hosts", get + b"Host: localhost\r\n\r\n", 400),
                ("rebound Host", b"GET /health/live HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400),
                ("absolute target", b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
                ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
                ("long target", b"GET /" + b"a" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
                ("long head", get + b"X: " + b"a" * 17000 + b"\r\n\r\n", 431),
                ("large body", get + b"Content-Length: 5000\r\n\r\n", 413)):
            with self.subTest(name):
                answer = self.raw(message)
                self.assertTrue(answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:200])
                self.assertIn(b"application/problem+json", answer)
        self.assertTrue(self.ready())

    def test_a_second_request_on_the_connection_is_never_answered(self):
        one = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = self.raw(one + one.replace(b"live", b"startup") + b"\0\n\0")
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1, answer)
        self.assertIn(b"Connection: close", answer)

    def test_any_host_on_the_unix_socket(self):
        self.assertIn(b" 200 ", self.raw(b"GET /health/live HTTP/1.1\r\nHost: any.example\r\n\r\n", unix=True))


class Http(Front):
    def test_every_described_path_answers(self):
        _, body, _ = self.ask(path="/api/openapi.json")
        paths = json.loads(body)["paths"]
        self.assertGreater(len(paths), 20)
        for path, operations in paths.items():
            if "get" in operations and "{" not in path:
                with self.subTest(path):
                    status, body, headers = self.ask(path=path)
                    self.assertEqual(status, 200)
                    self.assertEqual(headers["X-API-Version"], "v1")
                    self.assertTrue(headers["X-Request-ID"])
                    self.assertTrue(headers["X-Response-Time"])
                    if headers["Content-Type"] == "application/json":
                        json.loads(body)

    def test_promtool_passes(self):
        for accept in ("text/plain", "application/openmetrics-text"):
            _, body, headers = self.ask(path="/metrics", Accept=accept)
            self.assertIn(accept, headers["Content-Type"])
            if accept == "text/plain":
                done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
                self.assertEqual((done.returncode, done.stderr + done.stdout), (0, b""))
            else:
                self.assertTrue(body.endswith(b"\n# EOF\n"))

    def test_negotiation(self):
        status, body, headers = self.ask(path="/metrics", Accept_Encoding="gzip;q=0.5, identity;q=0.1")
        self.assertEqual((status, headers["Content-Encoding"]), (200, "gzip"))
        self.assertIn(b"kilter_ticks_total", gzip.decompress(body))
        for refused in ("gzip;q=0", "identity", "br"):
            self.assertIsNone(self.ask(path="/metrics", Accept_Encoding=refused)[2]["Content-Encoding"])
        self.assertEqual(self.ask(path="/api/v1/status", Accept="application/vnd.kilter.v1+json")[0], 200)
        self.assertEqual(self.ask(path="/api/v1/status", Accept="application/vnd.kilter.v9+json")[0], 406)
        self.assertIn("text/plain", self.ask(path="/metrics", Accept="*/*")[2]["Content-Type"])
        prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
        self.assertIn("openmetrics", self.ask(path="/metrics", Accept=prometheus)[2]["Content-Type"])

    def test_methods_and_names(self):
        status, _, headers = self.ask("DELETE", "/metrics")
        self.assertEqual((status, headers["Allow"]), (405, "GET, HEAD"))
        status, _, headers = self.ask("GET", "/api/v1/circuits/x/trip")
        self.assertEqual((status, headers["Allow"]), (405, "POST"))
        self.assertEqual(self.ask(path="/nowhere")[0], 404)
        self.assertEqual(self.ask(path="/api/v1/circuits/nothing")[0], 404)
        self.assertEqual(self.ask(path="/api/v1/circuits/%zz")[0], 400)
        self.assertEqual(self.ask(path="/api/v1/circuits/web%20-%3E%20192.0.2.1%3A80")[0], 200)
        status, body, headers = self.ask("HEAD", "/api/openapi.json")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["Content-Length"]), 1000)

    def test_pages(self):
        seen, cursor = [], ""
        while True:
            _, body, _ = self.ask(path="/api/v1/circuits?limit=1" + cursor)
            page = json.loads(body)
            seen += [c["name"] for c in page["items"]]
            if page["next"] is None:
                break
            cursor = "&cursor=" + page["next"]
        self.assertEqual(seen, ["web -> 192.0.2.1:80", "slow", "missing"])
        for bad in ("limit=0", "limit=x", "limit=1001", "cursor=-1"):
            self.assertEqual(self.ask(path="/api/v1/circuits?" + bad)[0], 400, bad)

    def test_services_are_those_that_serve_or_call(self):
        _, body, _ = self.ask(path="/api/v1/services?limit=1")
        page = json.loads(body)
        self.assertEqual([s["name"] for s in page["items"]], ['we"b\\\n\ufffd'])
        self.assertIsNone(page["next"])

    def test_request_ids(self):
        self.assertEqual(self.ask(X_Request_ID="mine.1")[2]["X-Request-ID"], "mine.1")
        for bad in ("a b", "x" * 64, "a\"b"):
            self.assertNotEqual(self.ask(X_Request_ID=bad)[2]["X-Request-ID"], bad)


class Commands(Front):
    path_of = "/api/v1/circuits/{}/{}"

    def post(self, name, verb="trip", **headers):
        return self.ask("POST", self.path_of.format(name, verb), unix=True, **headers)

    def test_root_on_the_unix_socket_commands(self):
        for verb in ("trip", "reset", "hold", "release"):
            self.assertEqual(self.post("web%20-%3E%20192.0.2.1%3A80", verb, X_Request_ID="id-" + verb)[0], 200)
        self.assertRegex(self.said(), r"command 1 web -> 192.0.2.1:80 id-trip uid=0 role=3 user= n=1\n")
        self.assertRegex(self.said(), r"command 4 web -> 192.0.2.1:80 id-release uid=0 role=3 user= n=4\n")
        self.assertEqual(self.post("missing")[0], 404)

    def test_tcp_only_reads(self):
        self.assertEqual(self.ask("POST", self.path_of.format("slow", "trip"))[0], 403)
        self.assertNotIn("command", self.said())

    def test_another_user_only_reads(self):
        os.chmod(self.path, 0o666)
        script = ("import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
                  "s.sendall(b'POST /api/v1/circuits/x/trip HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n'); "
                  "print(s.recv(4096).decode())")
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "python3", "-c", script,
                               self.path], capture_output=True, text=True, check=True, timeout=WAIT_SECONDS)
        self.assertTrue(done.stdout.startswith("HTTP/1.1 403 "), done.stdout)
        self.assertNotIn("command", self.said())

    def test_an_agent_that_does_not_answer(self):
        self.assertEqual(self.post("slow")[0], 504)

    def test_a_repeated_key_is_not_a_second_command(self):
        first = self.post("web", Idempotency_Key="k1")
        again = self.post("web", Idempotency_Key="k1")
        self.assertEqual((first[0], first[1]), (200, again[1]))
        self.assertEqual(self.said().count("command 1 web"), 1)
        self.assertEqual(self.post("web", "reset", Idempotency_Key="k1")[0], 422)
        self.assertEqual(self.post("web", Idempotency_Key="k2")[0], 200)
        self.assertEqual(self.said().count("command 1 web"), 2)
        self.assertEqual(self.post("web", Idempotency_Key="a b")[0], 400)

    def test_a_key_of_a_command_under_way_is_no_second_command(self):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            first = pool.submit(self.post, "slow", Idempotency_Key="k1")
            self.wait("the agent has it", lambda: "command 1 slow" in self.said())
            self.assertEqual(self.post("slow", Idempotency_Key="k1")[0], 409)
            self.assertEqual(self.post("web", Idempotency_Key="k1")[0], 409)
            self.assertEqual(self.post("web", Idempotency_Key="k2")[0], 200)
            self.assertEqual(first.result()[0], 504)
        self.assertEqual(self.said().count("command 1 slow"), 1)


TOKENS = {role: role[0] * 31 + "+/=" for role in ("viewer", "operator", "admin")}
OPEN = ("/", "/metrics", "/health/live", "/health/ready", "/health/startup")
READ = ("status", "services", "dependencies", "health", "health/summary", "circuits", "circuits/slow", "limits", "guard",
        "listeners", "syscalls", "probes", "audit", "config", "startup")


class Tokens(Front):
    """api.token_file: who may do what over TCP."""

    def start(self, *args):
        self.file = os.path.join(self.dir.name, "tokens")
        self.write("".join(f"{role} {token} {role}-name\n" for role, token in TOKENS.items()))
        super().start("64", self.file, *args)

    def write(self, text, mode=0o600):
        with open(self.file, "w", encoding="ascii") as f:
            os.fchmod(f.fileno(), mode)
            f.write(text)

    def reload(self):
        """What is said of it."""
        before = self.said().count("\nreloaded ")
        self.host.send_signal(signal.SIGHUP)
        self.wait("it has read the tokens", lambda: self.said().count("\nreloaded ") > before)
        return self.said().rsplit("\nreloaded ", 1)[1].split("\n", 1)[0]

    def get(self, token=None, path="/api/v1/status", scheme="Bearer"):
        return self.ask(path=path, **({"Authorization": f"{scheme} {token}"} if token else {}))

    def test_what_is_open_stays_open_whatever_is_sent(self):
        for path in OPEN:
            for token in (None, TOKENS["viewer"], "x" * 40, "?"):
                self.assertEqual(self.get(token, path)[0], 200, (path, token))

    def test_reading_takes_a_token(self):
        for path in ["/api/v1/" + p for p in READ] + ["/api/openapi.json"]:
            status, body, headers = self.get(None, path)
            self.assertEqual((status, headers["WWW-Authenticate"]), (401, 'Bearer realm="kilter"'), path)
            self.assertEqual((headers["Content-Type"], json.loads(body)["status"]), ("application/problem+json", 401))
            for token in TOKENS.values():
                self.assertIn(self.get(token, path)[0], (200, 404), path)  # not all are in the made-up snapshot
        self.assertEqual(self.ask("HEAD", "/api/v1/status")[0], 401)

    def test_a_token_that_is_none_of_ours(self):
        good = TOKENS["admin"]
        bad = [good[:-1], good + "=", "b" + good[1:], good.upper(), good[:31], "x", "x" * 128, "x" * 4096, good + " " + good,
               good + ",", '"' + good + '"', TOKENS["viewer"] + good]
        before = self.metric("kilter_http_connections_refused_total")['kilter_http_connections_refused_total{reason="bad_token"}']
        for token in bad:
            status, body, headers = self.get(token)
            self.assertEqual((status, headers["WWW-Authenticate"]), (401, 'Bearer realm="kilter", error="invalid_token"'), token)
            self.assertNotIn(token.encode(), body)
        for scheme in ("Basic", "Token", "Bearer,"):
            self.assertEqual(self.get(good, scheme=scheme)[0], 401)
        after = self.metric("kilter_http_connections_refused_total")['kilter_http_connections_refused_total{reason="bad_token"}']
        self.assertEqual(after - before, len(bad) + 3)
        self.assertEqual(self.get(good, scheme="bearer")[0], 200)

    def test_two_of_them_are_none(self):
        line = b"Authorization: Bearer " + TOKENS["admin"].encode() + b"\r\n"
        get = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\n"
        self.assertTrue(self.raw(get + line + b"\r\n").startswith(b"HTTP/1.1 200 "))
        for second in (line, b"authorization: x\r\n", b"Authorization:\r\n"):
            self.assertTrue(self.raw(get + line + second + b"\r\n").startswith(b"HTTP/1.1 400 "))

    def test_the_unix_socket_asks_for_no_token(self):
        self.assertEqual(self.ask(path="/api/v1/status", unix=True)[0], 200)
        self.assertEqual(self.ask(path="/api/v1/status", unix=True, Authorization="Bearer x")[0], 200)
        self.assertEqual(self.ask("POST", "/api/v1/guard/arm", unix=True)[0], 200)
        self.assertRegex(self.said(), r"uid=0 role=3 user= n=1\n")

    def test_the_command_says_whose_token_it_was(self):
        path = "/api/v1/circuits/web/reset"
        answer = self.ask("POST", path, Authorization="Bearer " + TOKENS["operator"], X_Request_ID="mine", Idempotency_Key="k")
        self.assertEqual(answer[0], 200)
        self.assertIn("command 2 web mine uid=4294967295 role=2 user=operator-name n=1\n", self.said())
        # A key is that of one bearer.
        again = self.ask("POST", path, Authorization="Bearer " + TOKENS["operator"], Idempotency_Key="k")
        self.assertEqual(again[1], answer[1])
        other = self.ask("POST", path, Authorization="Bearer " + TOKENS["admin"], Idempotency_Key="k")
        self.assertEqual(other[0], 200)
        self.assertIn("role=3 user=admin-name n=2\n", self.said())

    def test_a_reload_makes_and_revokes_tokens(self):
        fresh = "f" * 40
        self.write(f"# rotated\nviewer {fresh}\n")
        self.assertEqual(self.reload(), f"0 api.token_file: {self.file}: 1 tokens")
        self.assertEqual(self.get(fresh)[0], 200)
        self.assertEqual(self.get(TOKENS["admin"])[0], 401)
        os.kill(self.workers()[-1], signal.SIGKILL)
        self.wait("another serves", lambda: len([w for w in self.workers() if w]) > 1 and self.ready())
        self.assertEqual(self.get(fresh)[0], 200)
        self.assertEqual(self.get(TOKENS["viewer"])[0], 401)
        self.write("# nobody\n")
        self.assertEqual(self.reload(), f"0 api.token_file: {self.file}: 0 tokens")
        self.assertEqual(self.get(fresh)[0], 401)

    def test_a_bad_file_changes_nothing(self):
        secret = "s" * 40
        for text, mode, why in ((f"admin {secret}\nviewer short\n", 0o600, ":2: the token must have 32 to 128 characters"),
                                (f"root {secret}\n", 0o600, ":1: the role must be viewer, operator or admin"),
                                (f"admin {secret}\n", 0o640, " has mode 0640: group and others must have no right to it, as with 0600")):
            self.write(text, mode)
            self.assertTrue(self.reload().endswith(f" api.token_file: {self.file}{why}"), self.said())
            self.assertEqual(self.get(secret)[0], 401)
            self.assertEqual(self.get(TOKENS["viewer"])[0], 200)
        os.unlink(self.file)
        self.assertIn(" cannot be read: No such file or directory", self.reload())
        self.assertEqual(self.get(TOKENS["viewer"])[0], 200)
        self.assertNotIn(secret, self.said())

    def test_a_bad_file_is_no_start(self):
        bad = os.path.join(self.dir.name, "bad")
        with open(bad, "w", encoding="ascii") as f:
            os.fchmod(f.fileno(), 0o600)
            f.write("\nviewer x\n")
        other = subprocess.run([HOST, f"127.0.0.1:{free_port()}", self.path + "2", "64", bad], capture_output=True, text=True,
                               check=False, timeout=WAIT_SECONDS)
        self.assertEqual(other.returncode, 1)
        self.assertIn(f"api.token_file: {bad}:2: the token must have 32 to 128 characters", other.stderr)

    def test_the_description_says_who_may(self):
        paths = json.loads(self.get(TOKENS["viewer"], "/api/openapi.json")[1])
        self.assertEqual(paths["components"]["securitySchemes"]["bearer"], {"type": "http", "scheme": "bearer"})
        self.assertNotIn("security", paths["paths"]["/metrics"]["get"])
        self.assertEqual(paths["paths"]["/api/v1/circuits/{name}/trip"]["post"]["security"], [{"bearer": ["admin"]}])
        self.assertEqual(paths["paths"]["/api/v1/circuits"]["get"]["security"], [{"bearer": ["viewer"]}])

    def test_no_token_is_said_or_dumped(self):
        for token in TOKENS.values():
            self.assertEqual(self.get(token)[0], 200)
        self.ask("POST", "/api/v1/circuits/web/trip", Authorization="Bearer " + TOKENS["admin"])
        for token in TOKENS.values():
            self.assertNotIn(token, self.said())
        for pid in (self.host.pid, self.workers()[-1]):
            with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as f:
                maps = re.findall(r"kilter-tokens.*?VmFlags:([^\n]*)", f.read(), re.S)
            self.assertTrue(maps and all(" dd " in m + " " for m in maps), maps)
        with open(f"/proc/{self.workers()[-1]}/limits", encoding="ascii") as f:
            self.assertRegex(f.read(), r"Max core file size +0 +0 ")


if __name__ == "__main__":
    unittest.main(verbosity=2)
