# SPDX-License-Identifier: Apache-2.0
"""What the tests of the guard share: servers that do as they are told and write down who came, callers that stay and
hold connections, the API as root uses it, and a network of its own."""

import contextlib
import ctypes
import errno
import http.client
import itertools
import json
import multiprocessing
import os
import socket
import subprocess
import threading
import time
import traceback
import urllib.parse

import kilter

TICK = 0.2
NEVER = "100s"  # an open time that no test waits for
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def enter(netns, resolv_conf=None):
    """Into a network namespace; with a resolv.conf of its own, which no other process sees."""
    with open(f"/run/netns/{netns}", "rb") as f:
        checked(libc.setns(f.fileno(), 0))
    if resolv_conf:
        checked(libc.unshare(CLONE_NEWNS))
        checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
        checked(libc.mount(resolv_conf.encode(), b"/etc/resolv.conf", None, MS_BIND, None))


def serve(destination, log, mode_file, label, netns=None):
    """HTTP/1.1 with keep-alive. The mode file says "STATUS DELAY"; the body is the server's label. Each connection
    that is accepted is a line in the log."""
    def one(connection):
        keep = "keep-alive"
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
            while line := stream.readline():
                if line.strip().lower() == b"connection: close":
                    keep = "close"
                if line.strip():
                    continue
                with open(mode_file, encoding="ascii") as f:
                    status, delay = f.read().split()
                time.sleep(float(delay))
                connection.sendall((f"HTTP/1.1 {status} X\r\nContent-Length: {len(label)}\r\n"
                                    f"Connection: {keep}\r\n\r\n{label}").encode())
                if keep == "close":
                    return

    if netns:
        enter(netns)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    host, port = kilter.split(destination)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            os.write(out, b"arrived\n")
            threading.Thread(target=one, args=(connection,), daemon=True).start()


def ask(destination):
    """One request on a connection of its own: (status, body)."""
    with contextlib.closing(http.client.HTTPConnection(*kilter.split(destination), timeout=10)) as connection:
        connection.request("GET", "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        return str(answer.status), answer.read().decode()


class Caller:
    """What a caller's process can be asked for."""

    def __init__(self):
        self.held = []
        self.pool = []

    def ask(self, destination, count=1, pause=0):
        outcomes = []
        for _ in range(count):
            try:
                outcomes.append(ask(destination)[0])
            except ConnectionRefusedError:
                outcomes.append("refused")
            except ConnectionError:
                outcomes.append("reset")
            except TimeoutError:
                outcomes.append("timed out")
            time.sleep(pause)
        return outcomes

    def bodies(self, destination, count):
        return [ask(destination)[1] for _ in range(count)]

    def hold(self, destination, count):
        """Connects and keeps what it gets; how each attempt went."""
        outcomes = []
        for _ in range(count):
            try:
                self.held.append(socket.create_connection(kilter.split(destination), timeout=10))
                outcomes.append("held")
            except ConnectionRefusedError:
                outcomes.append("refused")
        return outcomes

    def drop(self, count):
        for _ in range(count):
            self.held.pop().close()

    def fill_pool(self, destination, count):
        """Keep-alive connections, each with a request behind it, idle from then on."""
        for _ in range(count):
            connection = http.client.HTTPConnection(*kilter.split(destination), timeout=10)
            connection.request("GET", "/")
            connection.getresponse().read()
            self.pool.append((destination, connection.sock, connection))
        return len(self.pool)

    def ended(self, destination):
        """Of the pooled connections to a destination: how many have been ended under their owner, and how. Nothing is
        sent: an idle connection that is whole has nothing to read."""
        ends = []
        for to, sock, _ in self.pool:
            if to != destination:
                continue
            if sock.fileno() < 0:  # reuse() found out
                ends.append("closed")
                continue
            sock.setblocking(False)
            try:
                ends.append("closed" if not sock.recv(1) else "data")
            except BlockingIOError:
                ends.append("whole")
            except OSError as error:
                ends.append(error.strerror)
            sock.settimeout(10)
        return ends

    def reuse(self, destination, count=None):
        """A request on each pooled connection to a destination, or on the first few, without a new connect()."""
        outcomes = []
        for _, sock, connection in [row for row in self.pool if row[0] == destination][:count]:
            try:
                connection.auto_open = 0
                connection.sock = sock
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                outcomes.append(str(answer.status))
            except (OSError, http.client.HTTPException):
                outcomes.append("ended")
        return outcomes

    def hammer(self, destination, cpu, seconds):
        """Connects all the time, on one CPU: (first attempt, last attempt, connected, refused)."""
        os.sched_setaffinity(0, {cpu})
        address = kilter.split(destination)
        connected = refused = 0
        first = last = time.monotonic()
        while last < first + seconds:
            with socket.socket() as s:
                last = time.monotonic()
                error = s.connect_ex(address)
            if not error:
                connected += 1
            elif error == errno.ECONNREFUSED:
                refused += 1
                time.sleep(0.0002)  # some CPU for those who answer
            else:
                raise OSError(error, os.strerror(error))
        return first, last, connected, refused

    def send_dns(self, address, messages, asked):
        """Sends these from port 53 of an address to this process, on a socket that has that address as its peer, as a
        resolver's has, or on one that has asked nobody."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to, \
             socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((address, 53))
            to.bind(("127.0.0.1", 0))
            if asked:
                to.connect((address, 53))
            for message in messages:
                server.sendto(message, to.getsockname())

    def lookup(self, name):
        try:
            return sorted({info[4][0] for info in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
        except socket.gaierror:
            return []


def attend(pipe, ours, netns, resolv_conf):
    """A caller's process: does what it is asked for over the pipe."""
    ours.close()  # or it would not notice that nobody asks any more
    if netns:
        enter(netns, resolv_conf)
    caller = Caller()
    while True:
        name, args = pipe.recv()
        try:
            pipe.send((True, getattr(caller, name)(*args)))
        except Exception:  # carried over
            pipe.send((False, traceback.format_exc()))


class Process(kilter.Child):
    """A caller in a process of its own inside the cgroup, or below it: process.METHOD(...) is Caller.METHOD there."""

    def __init__(self, sandbox, cgroup=None, netns=None, resolv_conf=None):
        self.pipe, theirs = multiprocessing.Pipe()
        super().__init__(sandbox, attend, theirs, self.pipe, netns, resolv_conf, cgroup=cgroup)
        theirs.close()

    def begin(self, name, *args):
        self.pipe.send((name, args))

    def result(self):
        ok, value = self.pipe.recv()
        if not ok:
            raise AssertionError(value)
        return value

    def __getattr__(self, name):
        def call(*args):
            self.begin(name, *args)
            return self.result()

        return call

    def end(self):
        super().end()
        self.pipe.close()


class Server(kilter.Told):
    """The server above, told what to do."""

    def __init__(self, case, host="127.0.0.1", port=None, mode="200 0", label="", netns=None):
        super().__init__(case, host, port, mode)
        case.sandbox.serve(serve, self.destination, self.log, self.mode_file, label, netns)
        if netns:
            kilter.wait_for("the server listens", lambda: os.path.exists(self.log))
        else:
            self.wait()

    def arrived(self):
        with contextlib.suppress(FileNotFoundError), open(self.log, encoding="ascii") as f:
            return len(f.readlines())
        return 0


class Case(kilter.Case):
    def setUp(self):
        super().setUp()
        self.numbers = itertools.count()
        self.release_file = self.sandbox.path("release")

    # --- the daemon ---

    def configure(self, *policies, top="", **guard):
        """Writes the configuration. Policies enforce at once and do nothing else of their own accord: what a test is
        about, it says."""
        quiet = {"mode": "enforce", "consecutive_failures": 0, "failure_ratio": 0, "base_open": NEVER,
                 "max_open": NEVER, "jitter": 0, "half_open_permits": 1, "half_open_successes": 1}
        text = f"tick: {TICK}s\nsyscalls: {{enabled: false}}\naudit: {{exec: false, exit: false, listen: false}}\n{top}"
        guard = {"lease": "20s", "max_open_ratio": 1, "release_file": self.release_file, **guard}
        text += "guard:\n" + "".join(f"  {key}: {value}\n" for key, value in guard.items()) + "  policies:\n"
        for policy in policies:
            rows = [f"{key}: {json.dumps(value)}\n" for key, value in {**quiet, **policy}.items()]
            text += "    - " + "      ".join(rows)
        with open(self.daemon.config, "w", encoding="utf-8") as f:
            f.write(text)

    def start(self, *policies, **more):
        self.configure(*policies, **more)
        self.daemon.start()

    def reload(self, *policies, **more):
        self.configure(*policies, **more)
        self.daemon.reload()

    def show(self, *args):
        return json.loads(self.daemon.cli(*args, "-o", "json").stdout)

    def circuits(self):
        return {row["name"]: row for row in self.show("circuits")["items"]}

    def circuit(self, destination, caller="*"):
        """The circuit as `kilter circuits show` has it; {} while there is none."""
        name = f"{caller}->{destination}"
        return self.show("circuits", "show", name) if name in self.circuits() else {}

    def wait_state(self, destination, *states, caller="*", **more):
        kilter.wait_for(f"the circuit is {' or '.join(states)}",
                        lambda: self.circuit(destination, caller).get("state") in states, **more)

    def wait_figure(self, destination, key, value, caller="*"):
        """A figure of a circuit arrives, and stays what it is for two ticks more."""
        def read():
            row = self.circuit(destination, caller)
            for part in key.split("."):
                row = row.get(part, {})
            return row

        with contextlib.suppress(AssertionError):  # what does not agree is shown below
            kilter.wait_for(key, lambda: read() == value, kilter.SETTLE_SECONDS)
        time.sleep(2 * TICK)
        self.assertEqual(read(), value, f"{key} of {caller}->{destination}")

    def metric(self, name, destination, caller="*", **labels):
        return self.daemon.value(name, circuit=f"{caller}->{destination}", **labels)

    def post(self, path, headers=None, **query):
        """As root over the Unix socket: (status, what the body says)."""
        connection = kilter.UnixConnection(self.daemon.socket)
        try:
            target = "/api/v1/" + path + ("?" + urllib.parse.urlencode(query) if query else "")
            connection.request("POST", target, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    # --- the audit trail ---

    def refusals(self, destination):
        """The reasons of the refused connects to a destination, in order."""
        host, port = kilter.split(destination)
        return [r["event.reason"] for r in self.records("connect-refused", destination__ip=host, destination__port=port)]

    def wait_refusals(self, destination, *reasons):
        with contextlib.suppress(AssertionError):
            kilter.wait_for("each refusal is a record", lambda: len(self.refusals(destination)) >= len(reasons),
                            kilter.SETTLE_SECONDS)
        self.assertEqual(self.refusals(destination), [f"refused by the guard: {reason}" for reason in reasons])

    def wait_record(self, action, count=1, **fields):
        """Waits for the last of so many records and returns it."""
        kilter.wait_for(f"{count} records of {action}", lambda: len(self.records(action, **fields)) >= count,
                        kilter.SETTLE_SECONDS)
        records = self.records(action, **fields)
        self.assertEqual(len(records), count, records)
        return records[-1]

    # --- servers and callers ---

    def server(self, **more):
        return Server(self, **more)

    def caller(self, cgroup=None, **more):
        return Process(self.sandbox, cgroup and self.subgroup(cgroup), **more)

    def subgroup(self, name):
        path = os.path.join(self.sandbox.cgroup, name)
        if not os.path.isdir(path):
            os.mkdir(path)
            self.sandbox.cleanups.callback(self.remove_subgroup, path)
        return path

    def container(self, number, pod=None, **labels):
        """A container as CRI-O leaves it in its files: (cgroup, id). pod: the id of the sandbox."""
        ident = f"{number:012x}" + "0" * 52
        annotations = {"io.kubernetes.cri-o.Labels": json.dumps(labels), "io.kubernetes.cri-o.SandboxID": pod or ident}
        at = self.sandbox.path("node/run/containers/storage/overlay-containers", ident, "userdata")
        os.makedirs(at)
        with open(os.path.join(at, "config.json"), "w", encoding="utf-8") as f:
            json.dump({"ociVersion": "1.0.2", "annotations": annotations}, f)
        return f"crio-{ident}.scope", ident

    @staticmethod
    def remove_subgroup(path):
        def gone():
            with contextlib.suppress(OSError):
                os.rmdir(path)
            return not os.path.exists(path)

        kilter.wait_for("the cgroup below is empty", gone)

    def curl(self, destination, count=1):
        """The same by another program: statuses, "000" of a connect that was refused."""
        config = "".join(f'url = "http://{destination}/"\noutput = "/dev/null"\n' for _ in range(count))
        path = self.sandbox.write(f"curl-{next(self.numbers)}", config)
        done = subprocess.run(["curl", "-s", "-H", "Connection: close", "-w", "%{http_code}\\n", "-K", path],
                              preexec_fn=self.sandbox.join, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        return done.stdout.split()

    def network(self, *addresses):
        """A network namespace with these addresses on its loopback device."""
        name = f"kilter-{os.getpid()}-{next(self.numbers)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.sandbox.cleanups.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        for address in addresses:
            subprocess.run(["ip", "-n", name, "address", "add", address, "dev", "lo"], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        return name
