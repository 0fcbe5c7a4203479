# SPDX-License-Identifier: Apache-2.0
"""What the breaker's chaos tests share: a server that fails as it is told, callers that write down what they saw, and
the account at the end: callers, kernel counters and audit trail tell the same story, to the last connect."""

import collections
import contextlib
import datetime
import itertools
import json
import os
import re
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402

FAILURES = 3  # in a row: the threshold
TICK = 0.2
PATIENCE = 1.5  # of a caller; a connect given up within a second would count as nothing
POSTGRES = struct.pack("!ii", 41, 3 << 16) + b"user\0postgres\0database\0postgres\0\0"  # length, protocol 3.0
HOW = {  # what is sent, and what an answer says
    "http": (b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", lambda answer: answer.split()[1].decode()),
    "redis": (b"PING\r\n", lambda answer: "200" if answer.startswith(b"+PONG") else "error"),
    "postgres": (POSTGRES, lambda answer: "200" if answer.startswith(b"R") else "error"),
}


def ask(destination, how="http"):
    """One request on a connection of its own, and what became of it."""
    request, read = HOW[how]
    try:
        s = socket.create_connection(kilter.split(destination), timeout=PATIENCE)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "connect timed out"
    with s:
        try:
            s.sendall(request)
            answer = more = s.recv(4096)
            while more and how == "http":
                more = s.recv(4096)
            return read(answer) if answer else "closed"
        except TimeoutError:
            return "unanswered"
        except ConnectionError:
            return "reset"


def work(destination, how, count, pause, gate, stop):
    """A caller: what became of each of its requests. All that wait at a gate start when it is opened."""
    outcomes = []
    if gate:
        with open(gate, "rb"):
            pass
    while len(outcomes) < count and not (stop and os.path.exists(stop)):
        outcomes.append(ask(destination, how))
        time.sleep(pause)
    return outcomes


def serve(destination, log, mode_file):
    """A server that does what its mode file says: "STATUS HOLD", "reset HOLD" or "flap PERIOD". It writes down of each
    connection how many were under way with it, and how many had been answered; both err on the safe side: whoever is
    told of an answer is not under way any more."""
    lock, under_way, answered = threading.Lock(), 0, 0
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def status(mode, value):
        if mode == "flap":
            return "200" if int(time.monotonic() / value) % 2 else "500"
        time.sleep(value)
        return mode

    def one(connection):
        nonlocal under_way, answered
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                more = connection.recv(4096)
                if not more:
                    break
                data += more
            with open(mode_file, encoding="ascii") as f:
                mode, value = f.read().split()
            say = status(mode, float(value))
            with lock:
                under_way -= 1
                answered += 1
            if say == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif data:
                connection.sendall(f"HTTP/1.1 {say} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nxx".encode())

    with socket.create_server(kilter.split(destination), backlog=128) as listener:
        while True:
            connection, _ = listener.accept()
            with lock:
                under_way += 1
                os.write(out, f"{under_way} {answered}\n".encode())
            threading.Thread(target=one, args=(connection,), daemon=True).start()


class Server(kilter.Told):
    """The server above, told what to do."""

    def __init__(self, case, host="127.0.0.1", port=None, mode="200 0"):
        super().__init__(case, host, port, mode)
        case.sandbox.serve(serve, self.destination, self.log, self.mode_file)
        self.wait()

    def arrived(self):
        """Of each connection: how many were under way with it, how many answered before."""
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="ascii") as f:
            return [tuple(map(int, line.split())) for line in f]


class Case(kilter.Case):
    def setUp(self):
        super().setUp()
        self.seen = collections.Counter()  # what callers saw, all destinations
        self.dropped = 0  # refusals of circuits that are gone
        self.numbers = itertools.count()

    # --- the daemon ---

    def configure(self, *destinations, lease="2s", ratio=1, **policy):
        """Writes the configuration: one policy for each destination, enforcing and quick."""
        keys = {"mode": "enforce", "consecutive_failures": FAILURES, "failure_ratio": 0, "base_open": "1s",
                "max_open": "4s", "jitter": 0, "half_open_permits": 2, "half_open_successes": 2, **policy}
        text = f"tick: {TICK}s\naudit: {{exec: false, exit: false, listen: false}}\nsyscalls: {{enabled: false}}\n"
        text += f"guard:\n  lease: {lease}\n  max_open_ratio: {ratio}\n  policies:\n"
        for destination in destinations:
            text += f"    - destination: \"{destination}\"\n"
            text += "".join(f"      {key}: {value}\n" for key, value in keys.items())
        if not destinations:
            text = text.replace("  policies:\n", "  policies: []\n")
        with open(self.daemon.config, "w", encoding="utf-8") as f:
            f.write(text)

    def reload(self, *destinations, **policy):
        self.configure(*destinations, **policy)
        self.daemon.reload()

    def circuits(self):
        rows = json.loads(self.daemon.cli("circuits", "-o", "json").stdout)["items"]
        return {row["name"]: row for row in rows}

    def circuit(self, destination):
        return self.circuits().get(f"*->{destination}", {})

    def state(self, destination):
        return self.circuit(destination).get("state")

    def wait_state(self, destination, *states, **more):
        kilter.wait_for(f"the circuit is {' or '.join(states)}", lambda: self.state(destination) in states, **more)

    # --- callers ---

    def begin(self, destination, count, how="http", pause=0, gate=None, stop=None):
        return kilter.Child(self.sandbox, work, destination, how, count, pause, gate, stop)

    def end(self, *callers):
        outcomes = [outcome for one in callers for outcome in one.result()]
        self.seen.update(outcomes)
        return outcomes

    def ask(self, destination, count=1, how="http"):
        return self.end(self.begin(destination, count, how))

    @contextlib.contextmanager
    def calling(self, destination, pause=0.02):
        """Calls all the time; the list is filled at the end."""
        stop, outcomes = self.sandbox.path(f"stop-{next(self.numbers)}"), []
        callers = self.begin(destination, 1 << 30, pause=pause, stop=stop)
        yield outcomes
        with open(stop, "wb"):
            pass
        outcomes += self.end(callers)

    def trip(self, destination, how="http"):
        """Failures up to the threshold and one connect more, which the kernel must refuse."""
        def opened():
            return self.circuit(destination)["transitions"]["open"]

        before = opened()
        outcomes = self.ask(destination, FAILURES + 1, how)
        self.assertNotIn("200", outcomes)
        self.assertEqual(outcomes[-1], "refused")
        kilter.wait_for("the daemon confirms", lambda: opened() > before)
        return outcomes

    def recover(self, destination, how="http"):
        """Calls as a patient client does, until the circuit is closed."""
        def closed():
            self.ask(destination, 1, how)
            return self.state(destination) == "closed"

        kilter.wait_for("the circuit closes", closed, seconds=60, every=0.2)
        self.assertEqual(self.ask(destination, 10, how), ["200"] * 10)

    # --- the account ---

    def transitions(self, destination):
        rows = self.records("circuit-transition", kilter__subject=f"*->{destination}")
        return [(r["kilter.from"], r["kilter.to"], r["event.reason"]) for r in rows]

    def figures(self):
        """The same things, as callers, kernel and audit trail have them."""
        circuits = self.circuits().values()
        connects = collections.Counter(r.get("kilter.errno", 0) for r in self.records("connect"))
        refused = self.records("connect-refused")
        lost = sum(r["kilter.records_lost"] for r in self.records("records-lost"))
        by_kilter = self.dropped + sum(c["refused"] for c in circuits)
        return {
            "refused, as callers saw it": (self.seen["refused"], by_kilter + connects[111]),
            "refused by kilter, in the audit trail": (by_kilter, len(refused) + lost),
            "connects that timed out": (self.seen["connect timed out"], connects[110]),
            "connects that went through": (self.seen.total() - self.seen["refused"] - self.seen["connect timed out"],
                                           connects[0]),
        }

    def balanced(self):
        return all(ours == theirs for ours, theirs in self.figures().values())

    def explain(self):
        """Every refusal is explained, and the counts agree exactly; then two ticks more: nothing comes twice."""
        with contextlib.suppress(AssertionError):  # what does not agree is shown below
            kilter.wait_for("the account is even", self.balanced, kilter.SETTLE_SECONDS, every=0.2)
        time.sleep(2 * TICK)
        for what, (ours, theirs) in self.figures().items():
            self.assertEqual(ours, theirs, what)
        for record in self.records("records-lost"):
            self.assertEqual(record["event.reason"], "more refused connects in a second than are recorded")
        end = time.monotonic() + kilter.SETTLE_SECONDS
        while True:
            try:
                return self.explain_circuits()
            except AssertionError:  # it may have moved between the two looks
                if time.monotonic() > end:
                    raise
            time.sleep(TICK)

    def explain_circuits(self):
        circuits, trail = self.circuits(), self.daemon.audited()
        starts = [i for i, r in enumerate(trail) if r["event.action"] == "agent-start"]
        for name in {r["kilter.subject"] for r in trail if r["event.action"] == "circuit-transition"}:
            self.explain_circuit(name, circuits.get(name), trail, trail[starts[-1]:])

    def explain_circuit(self, name, circuit, trail, life):
        def told(records, action):
            return [r for r in records if r["event.action"] == action and r.get("kilter.subject") == name]

        steps = told(trail, "circuit-transition")
        state = "closed"
        for step in steps:
            self.assertEqual(step["kilter.from"], state, f"{name}: each transition begins where the last one ended")
            state = step["kilter.to"]
        if circuit and not self.dropped:
            self.assertEqual(circuit["state"], state)
            self.assertEqual(circuit["trips"], len(told(trail, "circuit-kernel-trip")))
            into = collections.Counter(r["kilter.to"] for r in told(life, "circuit-transition"))
            self.assertEqual(circuit["transitions"], {s: into[s] for s in ("closed", "open", "half_open")})
        # No refusal but while the circuit was not closed. The daemon's clock is read after the deed: a second of grace.
        marks = sorted([(when(r), 1) for r in told(trail, "circuit-kernel-trip")] +
                       [(when(r), 0 if r["kilter.to"] == "closed" else 1) for r in steps])
        for refusal in self.records("connect-refused"):
            if name != f"*->{refusal['destination.ip']}:{refusal['destination.port']}":
                continue
            at = when(refusal)
            earlier = [shut for t, shut in marks if t < at - 1][-1:]
            self.assertTrue(any(earlier + [shut for t, shut in marks if at - 1 <= t <= at + 1]),
                            f"{name} was closed when it refused: {refusal}")


def when(record):
    """Seconds since the epoch; fromisoformat of Python 3.11 takes no nanoseconds."""
    text, fraction = re.fullmatch(r"(.*)\.(\d+)Z", record["@timestamp"]).groups()
    return datetime.datetime.fromisoformat(text + "+00:00").timestamp() + float("0." + fraction)
