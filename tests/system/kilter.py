# SPDX-License-Identifier: Apache-2.0
"""A daemon, servers and clients of one test's own: cgroup, bpffs, ports and files, removed after.

Nothing here touches the host's root cgroup: kilterd is given a subtree (--cgroup), servers and
clients run inside it, the daemon and the test itself outside, so that scrapes are not counted.
"""

import collections
import contextlib
import http.client
import itertools
import json
import os
import pickle
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import traceback
import unittest
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("B", "build"))
KILTERD = os.environ.get("KILTERD", os.path.join(BUILD, "kilterd"))
KILTER = os.environ.get("KILTER", os.path.join(BUILD, "kilter"))
START_SECONDS = 30  # loading every program on a busy two-core machine takes a few
SETTLE_SECONDS = 15  # how long a count may take to reach /metrics before it is called lost
TICK_SECONDS = 1

PORTS = range(15000, 32000)  # below ip_local_port_range; each is handed out once in a process and round
ports = itertools.cycle(random.sample(PORTS, len(PORTS)))

SERVER = "http_server_request_duration_seconds_count"
CLIENT = "http_client_request_duration_seconds_count"


def cgroup2_root():
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        lines = mounts.readlines()
    for line in lines:
        fields = line.split()
        if fields[2] == "cgroup2":
            return fields[1]
    raise unittest.SkipTest("no cgroup v2 hierarchy is mounted")


def pins(directory):
    """What is pinned below: the kernel puts files of its own (progs.debug) into a bpffs' root."""
    return [f for _, _, files in os.walk(directory) for f in files if not f.endswith(".debug")]


def free_port(family=socket.AF_INET):
    """A port that nobody listens on and that no connection is given: a kernel's choice is free only for the moment,
    and may be chosen again before the server that it was for has started."""
    for port in ports:
        with socket.socket(family) as s, contextlib.suppress(OSError):
            s.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
            return port


def wait_for(what, predicate, seconds=START_SECONDS, every=0.05):
    """Polls until predicate() is true; a time only bounds how long a failure takes to show."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; last seen {value!r}")
        time.sleep(every)


def can_connect(port, host="127.0.0.1"):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return [int(child) for child in f.read().split()]


def family(pid):
    """A process and what it forked, children last; whoever is gone meanwhile has none."""
    forked = []
    with contextlib.suppress(OSError):
        forked = children(pid)
    return [pid] + [p for child in forked for p in family(child)]


@contextlib.contextmanager
def moving_about(pids):
    """From CPU to CPU: the next segment of who has moved may overtake its last one."""
    def move():
        cpus = sorted(os.sched_getaffinity(0))
        for turn in itertools.count():
            if ended.wait(0.0005):
                return
            for pid in pids:
                os.sched_setaffinity(pid, {cpus[turn % len(cpus)]})

    ended = threading.Event()
    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        ended.set()
        mover.join()


def split(destination):
    host, port = destination.rsplit(":", 1)
    return host.strip("[]"), int(port)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \S+)?$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def parse_metrics(text):
    """{name: [(labels, value)]} of a Prometheus text exposition."""
    families = collections.defaultdict(list)
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = SAMPLE.match(line)
        if not match:
            raise AssertionError(f"not a sample: {line!r}")
        labels = dict(LABEL.findall(match.group(2) or ""))
        families[match.group(1)].append((labels, float(match.group(3))))
    return families


class Sandbox:
    """Everything a test starts lives in its cgroup and below its directory."""

    def __init__(self, name):
        self.name = f"kilter-test-{name}-{os.getpid()}"
        self.cgroup = os.path.join(cgroup2_root(), self.name)
        self.dir = tempfile.mkdtemp(prefix=self.name + ".")
        os.chmod(self.dir, 0o755)
        self.bpffs = os.path.join(self.dir, "bpf")
        self.pids = []
        self.cleanups = contextlib.ExitStack()
        os.mkdir(self.cgroup)
        self.cleanups.callback(self._remove)
        os.mkdir(self.bpffs)
        subprocess.run(["mount", "-t", "bpf", "bpf", self.bpffs], check=True)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def join(self, cgroup=None):
        """Into the cgroup, or into one below it."""
        with open(os.path.join(cgroup or self.cgroup, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write("0")

    def spawn(self, argv, inside=True, **kw):
        log = open(self.path(os.path.basename(argv[0]) + ".out"), "ab")
        kw.setdefault("stdout", log)
        kw.setdefault("stderr", subprocess.STDOUT)
        kw.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(argv, preexec_fn=self.join if inside else None, **kw)
        log.close()
        self.pids.append(process)
        return process

    def run(self, argv, timeout=120, **kw):
        """Runs a client inside the cgroup to its end and returns what it printed."""
        done = subprocess.run(argv, preexec_fn=self.join, timeout=timeout, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **kw)
        if done.returncode:
            raise AssertionError(f"{argv[0]} exited {done.returncode}: {done.stdout[-2000:]}")
        return done.stdout

    def call(self, function, *args):
        """Calls a python function in a process inside the cgroup and returns its result."""
        return Child(self, function, *args).result()

    def serve(self, function, *args):
        """Runs a python function, a server, inside the cgroup until the end of the test."""
        def run():
            try:
                function(*args)
            except BaseException:
                traceback.print_exc()

        return Child(self, run).end

    def nginx(self, locations, workers=2, extra=""):
        """A real nginx with an access log of one status per line; returns it when it listens."""
        return Nginx(self, locations, workers, extra)

    def close(self):
        self.cleanups.close()

    def _remove(self):
        for process in reversed(self.pids):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        # Whatever a server forked is in this cgroup and in no other.
        for _ in range(100):
            with open(os.path.join(self.cgroup, "cgroup.procs"), encoding="ascii") as f:
                left = [int(line) for line in f]
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        subprocess.run(["umount", self.bpffs], check=False)
        for _ in range(100):
            try:
                os.rmdir(self.cgroup)
                break
            except OSError:
                time.sleep(0.05)
        shutil.rmtree(self.dir, ignore_errors=True)


class Child:
    """A function in a process of its own inside the cgroup, or below it; result() waits for what it returns."""

    def __init__(self, sandbox, function, *args, cgroup=None):
        self.what = function.__name__
        self.read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.read)
            try:
                sandbox.join(cgroup)
                result = (True, function(*args))
            except BaseException:  # the child only carries it over
                result = (False, traceback.format_exc())
            try:
                with os.fdopen(write, "wb") as f:
                    pickle.dump(result, f)
            finally:
                os._exit(0)
        os.close(write)
        sandbox.cleanups.callback(self.end)

    def end(self):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.read)
            self.pid = 0

    def result(self):
        with os.fdopen(os.dup(self.read), "rb") as f:
            data = f.read()
        self.end()
        ok, value = pickle.loads(data) if data else (False, f"{self.what} died")
        if not ok:
            raise AssertionError(value)
        return value


class Nginx:
    def __init__(self, sandbox, locations, workers, extra):
        self.port = free_port()
        self.port6 = free_port(socket.AF_INET6)
        self.log = sandbox.path("access.log")
        self.root = sandbox.path("www")
        os.makedirs(self.root, exist_ok=True)
        conf = sandbox.write("nginx.conf", f"""
daemon off; user root; worker_processes {workers}; pid {sandbox.path('nginx.pid')};
error_log {sandbox.path('nginx.err')};
events {{ worker_connections 2048; }}
http {{
	log_format status '$status $request_method';
	access_log {self.log} status;
	client_body_temp_path {sandbox.path('body')}; proxy_temp_path {sandbox.path('proxy')};
	fastcgi_temp_path {sandbox.path('fcgi')}; uwsgi_temp_path {sandbox.path('uwsgi')};
	scgi_temp_path {sandbox.path('scgi')};
	if_modified_since before; keepalive_requests 1000000; client_max_body_size 64m; client_header_buffer_size 16k;
	{extra}
	server {{
		listen 127.0.0.1:{self.port} backlog=1024;
		listen [::1]:{self.port6} backlog=1024;
		root {self.root};
		{locations}
	}}
}}
""")
        self.process = sandbox.spawn(["nginx", "-p", sandbox.dir, "-c", conf])
        wait_for("nginx listens", lambda: can_connect(self.port))

    def workers(self):
        """The pids of the processes that answer."""
        return children(self.process.pid)

    def logged(self):
        """Requests by status, as nginx itself wrote them down."""
        counts = collections.Counter()
        with open(self.log, encoding="utf-8") as f:
            for line in f:
                counts[line.split()[0]] += 1
        return counts

    def logged_at_least(self, least):
        """nginx writes a request down after its last byte left: the client may know of the answer first."""
        end = time.monotonic() + SETTLE_SECONDS
        while sum((counts := self.logged()).values()) < least:
            if time.monotonic() > end:
                raise AssertionError(f"nginx logged {sum(counts.values())} of at least {least} requests")
            time.sleep(0.05)
        return counts


class Told:
    """What servers of our own share: each does what its mode file says, and writes down who came."""

    def __init__(self, case, host, port, mode):
        self.host, self.port = host, port or free_port()
        self.destination = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.log, self.mode_file = (case.sandbox.path(f"{what}-{self.destination}") for what in ("arrived", "mode"))
        self.tell(mode)

    def tell(self, mode):
        with open(self.mode_file + ".new", "w", encoding="ascii") as f:
            f.write(mode)
        os.replace(self.mode_file + ".new", self.mode_file)

    def wait(self):
        """Until it listens; who asked for that is forgotten."""
        wait_for("the server listens", lambda: can_connect(self.port, self.host))
        wait_for("it wrote that down", self.arrived)
        self.forget()

    def forget(self):
        os.truncate(self.log, 0)


class Daemon:
    def __init__(self, sandbox, config="", args=(), env=None):
        self.sandbox = sandbox
        self.port = free_port()
        self.socket = sandbox.path("kilter.sock")
        self.audit = sandbox.path("audit.jsonl")
        self.state = sandbox.path("state")
        self.log = sandbox.path("kilterd.log")
        self.config = sandbox.write("kilter.yaml", config)
        self.args = list(args)
        self.env = env
        self.process = None

    def argv(self):
        return [KILTERD, "--config", self.config, "--listen", f"127.0.0.1:{self.port}", "--socket", self.socket,
                "--cgroup", self.sandbox.cgroup, "--bpffs", os.path.join(self.sandbox.bpffs, "kilter"),
                "--state-dir", self.state, "--audit-file", self.audit, *self.args]

    def start(self):
        with open(self.log, "ab") as log:
            self.process = self.sandbox.spawn(self.argv(), inside=False, stdout=log, stderr=log)
        wait_for("kilterd is ready", self._ready)
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"kilterd exited {self.process.returncode}:\n{self.logs()}")
        try:
            return self.get("/health/ready")[0] == 200
        except OSError:
            return False

    def logs(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-8000:]

    def kill(self):
        self.process.kill()
        self.process.wait()
        # The front notices that its agent is gone; its port must be free before the next start.
        wait_for("the front of a killed daemon goes", lambda: not can_connect(self.port))

    def stop(self, seconds=35):
        self.process.terminate()
        return self.process.wait(seconds)

    def reload(self):
        """Has it read its configuration again, and waits until it has."""
        def told():
            return len(self.audited(event__action="config-change"))

        before = told()
        self.process.send_signal(signal.SIGHUP)
        wait_for("the configuration is read", lambda: told() > before)

    def get(self, path, headers=None, timeout=10):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def metrics(self):
        status, body, _ = self.get("/metrics")
        if status != 200:
            raise AssertionError(f"/metrics answered {status}")
        return parse_metrics(body.decode())

    def json(self, path):
        status, body, _ = self.get(path)
        if status != 200:
            raise AssertionError(f"{path} answered {status}: {body[:400]!r}")
        return json.loads(body)

    def cli(self, *args, check=True):
        done = subprocess.run([KILTER, *args, "--socket", self.socket, "--bpffs",
                               os.path.join(self.sandbox.bpffs, "kilter")], timeout=30, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if check and done.returncode:
            raise AssertionError(f"kilter {' '.join(args)} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def value(self, name, **labels):
        """The sum of a metric's samples that bear these labels."""
        return sum(v for have, v in self.metrics()[name]
                   if all(have.get(k) == w for k, w in labels.items()))

    def counts(self, name, label="http_response_status_code", **labels):
        """Requests of one side by status code."""
        counts = collections.Counter()
        for have, value in self.metrics()[name]:
            if value and all(have.get(k) == w for k, w in labels.items()):
                counts[have.get(label, "")] += int(value)
        return counts

    def audited(self, **fields):
        """Audit records with these (dotted) fields, in order."""
        records = []
        if not os.path.exists(self.audit):
            return records
        with open(self.audit, encoding="utf-8") as f:
            for line in f:
                if not line.endswith("\n"):
                    break
                record = json.loads(line)
                if all(field(record, k.replace("__", ".")) == v for k, v in fields.items()):
                    records.append(record)
        return records


def field(record, dotted):
    """A field of an audit record, whether it is written flat ("event.action") or nested."""
    if dotted in record:
        return record[dotted]
    for part in dotted.split("."):
        if not isinstance(record, dict) or part not in record:
            return None
        record = record[part]
    return record


class Case(unittest.TestCase):
    """One sandbox per test; a failing test shows what the daemon logged."""

    config = ""

    def setUp(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        name = re.sub(r"[^a-z0-9]+", "-", self.id().split(".", 1)[-1].lower())[:60]
        self.sandbox = Sandbox(name)
        self.addCleanup(self.sandbox.close)
        self.daemon = Daemon(self.sandbox, self.config)
        self.addCleanup(self.show_log)

    def show_log(self):
        outcome = getattr(self, "_outcome", None)
        if outcome and not outcome.success and os.path.exists(self.daemon.log):
            print(f"--- kilterd's log of {self.id()}\n{self.daemon.logs()}\n---")

    def records(self, action, **fields):
        return self.daemon.audited(event__action=action, **fields)

    def settle(self, name, expected, **labels):
        """Waits for the counts to arrive, then two ticks more: nothing is lost and nothing comes twice."""
        end = time.monotonic() + SETTLE_SECONDS
        while self.daemon.counts(name, **labels) != expected and time.monotonic() < end:
            time.sleep(0.2)
        time.sleep(2 * TICK_SECONDS)
        self.assertEqual(dict(self.daemon.counts(name, **labels)), dict(expected), f"{name} by status")
