#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240
"""Policies: who and what they match, what trips them, what they force, where they send, and what holds them back."""

import os
import shutil
import socket
import struct
import time
import unittest

import guarded
import kilter

FAILURES = 3
PYTHON = os.path.basename(os.path.realpath("/proc/self/exe"))
A, CNAME, AAAA = 1, 5, 28


def labels(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answer_dns(address, ready, names, netns):
    """A resolver: names to addresses or to other names; what is not there does not exist."""
    def record(owner, kind, data):
        return owner + struct.pack("!HHIH", kind, 1, 60, len(data)) + data

    def answers(name, kind):
        owner = b"\xc0\x0c"  # the question's name
        while isinstance(names.get(name), str):
            name = names[name]
            yield record(owner, CNAME, labels(name))
            owner = labels(name)
        for to in names.get(name, ()):
            family = socket.AF_INET6 if ":" in to else socket.AF_INET
            if kind == (AAAA if family == socket.AF_INET6 else A):
                yield record(owner, kind, socket.inet_pton(family, to))

    guarded.enter(netns)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind((address, 53))
        with open(ready, "wb"):
            pass
        while True:
            query, client = s.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            name, at = [], 12
            while query[at]:
                name.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            name = ".".join(name).lower()
            rows = list(answers(name, struct.unpack("!H", query[end - 4:end - 2])[0]))
            flags = 0x8580 if name in names else 0x8583  # authoritative, recursion; NXDOMAIN
            s.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, len(rows), 0, 0) + query[12:end] + b"".join(rows),
                     client)


class Shown(guarded.Case):
    def wait_policy(self, destination, policy, match, caller="*"):
        """`kilter circuits show` says which policy it is, and why."""
        def told():
            row = self.circuit(destination, caller)
            return row.get("policy"), row.get("policy_match")

        try:
            kilter.wait_for("the policy", lambda: told() == (policy, match), kilter.SETTLE_SECONDS)
        except AssertionError:
            self.assertEqual(told(), (policy, match))


class Matching(Shown):
    def test_the_executable_decides(self):
        bad = self.server()
        to = bad.destination
        trips = {"destination": to, "consecutive_failures": FAILURES}
        self.start({**trips, "name": "of-curl", "executable": "cu?l"},
                   {**trips, "name": "of-python", "executable": "python*", "consecutive_failures": 1000})
        caller = self.caller()
        caller.ask(to)
        self.curl(to)
        self.wait_policy(to, "of-curl", "by address and port, executable", "curl")
        self.wait_policy(to, "of-python", "by address and port, executable", PYTHON)
        bad.tell("500 0")  # not before: the first may end, and count, when its circuit is there
        self.assertEqual(self.curl(to, FAILURES + 2), ["500"] * FAILURES + ["000"] * 2)
        self.assertEqual(caller.ask(to, FAILURES + 2), ["500"] * (FAILURES + 2), "curl's circuit, not python's")
        self.wait_state(to, "open", caller="curl")
        self.wait_state(to, "closed", caller=PYTHON)

    def test_the_cgroup_decides(self):
        to = self.server(mode="500 0").destination
        below = "*" + os.path.basename(self.sandbox.cgroup)
        self.start({"name": "shop", "cgroup": f"{below}/shop-*", "destination": to, "consecutive_failures": FAILURES},
                   {"name": "rest", "destination": to.split(":")[0], "consecutive_failures": 1000})
        shop, back = self.caller(cgroup="shop-1.service"), self.caller(cgroup="back.service")
        shop.ask(to)
        back.ask(to)
        kilter.wait_for("both have a circuit", lambda: len(self.circuits()) == 2)
        rows = {row["policy"]: row for row in self.circuits().values()}
        self.assertEqual(set(rows), {"shop", "rest"})
        self.assertEqual(rows["shop"]["policy_match"], "by address and port, cgroup; before rest")
        self.assertEqual(rows["rest"]["policy_match"], "by address")
        self.assertEqual(shop.ask(to, FAILURES + 1)[-1], "refused")
        self.assertEqual(back.ask(to, FAILURES + 1)[-1], "500")

    def test_the_labels_of_the_pod_decide(self):
        to = self.server(mode="500 0").destination
        trips = {"destination": to, "consecutive_failures": FAILURES}
        policies = ({**trips, "name": "carts", "labels": {"app": "cart*", "io.kubernetes.container.name": "*"}},
                    {**trips, "name": "rest", "consecutive_failures": 1000})
        more = {"top": f"runtime_root: {self.sandbox.path('node')}\n"}
        pod = self.container(1, app="cart-1")[1]
        cart, cart_id = self.container(2, pod, **{"io.kubernetes.container.name": "cart"})
        user = self.container(3, **{"io.kubernetes.container.name": "user", "app": "user"})[0]
        other = "4" * 64  # a container that no runtime knows
        callers = [self.caller(cgroup=group) for group in (cart, user, f"crio-{other}.scope", "web.service")]
        name = f"{PYTHON}@{cart_id[:12]}"
        self.start(*policies, **more)
        for caller in callers:
            caller.ask(to)
        self.wait_policy(to, "carts", "by address and port, label app, label io.kubernetes.container.name; before rest",
                         name)
        self.assertEqual(self.daemon.json(f"/api/v1/services/{name}")["labels"],
                         {"app": "cart-1", "io.kubernetes.container.name": "cart"})
        self.assertIn("app=cart-1", self.daemon.cli("service", name).stdout)
        self.assertIsNone(self.daemon.json(f"/api/v1/services/{PYTHON}@{other[:12]}")["labels"])
        self.assertEqual(callers[0].ask(to, FAILURES + 1)[-1], "refused")
        for caller in callers[1:]:
            self.assertEqual(caller.ask(to, FAILURES + 1)[-1], "500")
        self.wait_state(to, "open", caller=name)
        self.wait_policy(to, "rest", "by address and port")
        # The container's files are gone: what its circuit knew, it knows still.
        self.daemon.kill()
        shutil.rmtree(self.sandbox.path("node"))
        self.daemon.start()
        self.wait_state(to, "open", caller=name)
        self.assertEqual(self.circuit(to, name)["policy"], "carts")
        self.assertEqual(callers[0].ask(to), ["refused"])

    def test_labels_that_a_reload_asks_for_are_known(self):
        to = self.server(mode="500 0").destination
        more = {"top": f"runtime_root: {self.sandbox.path('node')}\n"}
        group, ident = self.container(5, app="cart")
        self.start({"name": "all", "destination": to.split(":")[0], "consecutive_failures": 1000}, **more)
        caller = self.caller(cgroup=group)
        caller.ask(to)
        name = f"{PYTHON}@{ident[:12]}"
        self.wait_policy(to, "all", "by address", name)
        self.reload({"name": "carts", "destination": to, "labels": {"app": "cart"}, "consecutive_failures": FAILURES},
                    **more)
        self.wait_policy(to, "carts", "by address and port, label app", name)
        self.assertEqual(caller.ask(to, FAILURES + 1)[-1], "refused")

    def test_the_most_specific_wins_and_show_says_why(self):
        server = self.server()
        to = server.destination
        policies = [{"name": "any", "destination": "*"},
                    {"name": "port", "destination": f":{server.port}"},
                    {"name": "prefix", "destination": "127.0.0.0/8"},
                    {"name": "longer", "destination": "127.0.0.0/24"},
                    {"name": "address", "destination": "127.0.0.1"},
                    {"name": "caller", "destination": "127.0.0.1", "executable": "python*"},
                    {"name": "exact", "destination": to}]
        caller = self.caller()
        self.start(*policies)
        self.wait_policy(to, "exact", "by address and port; before any, port, prefix, longer, address")
        # From the most specific on they are taken away, while it runs; callers get circuits of their own.
        for count, match in ((6, "by address, executable; before any, port, prefix, longer, address"),
                             (5, "by address; before any, port, prefix, longer"),
                             (4, "by prefix; before any, port, prefix"),
                             (3, "by prefix; before any, port"),
                             (2, "by port; before any"),
                             (1, "by any destination"),
                             (0, "no policy matches")):
            with self.subTest(count=count):
                self.reload(*policies[:count])
                caller.ask(to)
                self.wait_policy(to, policies[count - 1]["name"] if count else "defaults", match, PYTHON)
                self.assertNotIn(f"*->{to}", self.circuits())
        # Only what names the address may refuse on loopback.
        self.reload(policies[0])
        row = self.circuit(to, PYTHON)
        self.assertEqual((row["mode"], row["mode_reason"]),
                         ("observe", "protected: loopback; a policy must name the address"))


class Names(Shown):
    """By DNS name: in a network of its own, with a resolver on port 53 of a loopback address."""

    RESOLVER = "127.0.0.53"
    NAMES = {"db.shop.test": ("10.77.0.1",), "cache.shop.test": ("10.77.0.2", "fd77::2"),
             "www.shop.test": "edge.cdn.test", "edge.cdn.test": ("10.77.0.3",), "www.other.test": ("10.77.0.4",)}

    def setUp(self):
        super().setUp()
        self.netns = self.network("10.77.0.1/32", "10.77.0.2/32", "10.77.0.3/32", "10.77.0.4/32", "fd77::2/128")
        ready = self.sandbox.path("resolver")
        self.sandbox.serve(answer_dns, self.RESOLVER, ready, self.NAMES, self.netns)
        kilter.wait_for("the resolver answers", lambda: os.path.exists(ready))
        self.resolv_conf = self.sandbox.write("resolv.conf", f"nameserver {self.RESOLVER}\n")
        self.port = kilter.free_port()
        self.client = self.caller(netns=self.netns, resolv_conf=self.resolv_conf)

    def serve(self, host, mode="500 0"):
        return self.server(host=host, port=self.port, mode=mode, netns=self.netns).destination

    def resolve(self, name, *addresses):
        self.assertEqual(self.client.lookup(name), sorted(addresses))

    def trip(self, to):
        self.assertEqual(self.client.ask(to, FAILURES + 1), ["500"] * FAILURES + ["refused"])

    def test_a_name_and_a_pattern_of_names(self):
        db, cache, edge, other = (self.serve(f"10.77.0.{n}") for n in (1, 2, 3, 4))
        trips = {"consecutive_failures": FAILURES}
        self.start({"name": "tests", "destination": "*.test", **trips},
                   {"name": "shop", "destination": "*.shop.test", **trips},
                   {"name": "db", "destination": f"DB.shop.test.:{self.port}", **trips},
                   {"name": "net", "destination": "10.77.0.0/16", **trips})
        for to in (db, cache, edge, other):
            self.client.ask(to)
            self.wait_policy(to, "net", "by prefix", PYTHON)
            self.assertEqual(self.circuit(to, PYTHON)["dns_name"], "")
        # From the node's own lookups on they have names.
        self.resolve("db.shop.test", "10.77.0.1")
        self.resolve("cache.shop.test", "10.77.0.2", "fd77::2")
        self.resolve("www.shop.test", "10.77.0.3")
        self.resolve("www.other.test", "10.77.0.4")
        self.resolve("nobody.shop.test")
        self.wait_policy(db, "db", "by db.shop.test and port; before tests, shop, net", PYTHON)
        self.wait_policy(cache, "shop", "by *.shop.test; before tests, net", PYTHON)
        self.wait_policy(edge, "shop", "by *.shop.test; before tests, net", PYTHON)
        self.wait_policy(other, "tests", "by *.test; before net", PYTHON)
        self.assertEqual(self.circuit(db, PYTHON)["dns_name"], "db.shop.test")
        self.assertIn(self.circuit(edge, PYTHON)["dns_name"], ("edge.cdn.test", "www.shop.test"))
        self.assertGreaterEqual(self.daemon.value("kilter_dns_answers_total"), 5)
        self.assertEqual(self.daemon.value("kilter_dns_malformed_total"), 0)
        self.assertEqual(self.daemon.value("kilter_dns_evicted_total"), 0)
        for to in (db, cache, edge, other):
            self.trip(to)
        self.wait_state(db, "open", caller=PYTHON)

    def test_an_ipv6_address_has_its_name(self):
        to = self.serve("fd77::2")
        self.start({"name": "cache", "destination": "cache.*", "consecutive_failures": FAILURES})
        self.resolve("cache.shop.test", "10.77.0.2", "fd77::2")
        self.client.ask(to)
        self.wait_policy(to, "cache", "by cache.*", PYTHON)
        self.trip(to)

    def test_a_name_that_is_known_before_the_first_connect(self):
        to = self.serve("10.77.0.1")
        self.start({"name": "db", "destination": "db.shop.test", "consecutive_failures": FAILURES})
        self.resolve("db.shop.test", "10.77.0.1")
        self.client.ask(to)
        self.wait_policy(to, "db", "by db.shop.test", PYTHON)
        self.trip(to)

    def test_what_is_no_answer_is_counted_and_names_nothing(self):
        to = self.serve("10.77.0.4")
        self.start({"name": "db", "destination": "*.shop.test"})
        good = b"\0\1\x84\0\0\1\0\1\0\0\0\0" + labels("db.shop.test") + b"\0\1\0\1"
        good += b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + socket.inet_aton("10.77.0.4")
        self.client.send_dns("127.0.0.54", [b"\0" * 12, b"\xff" * 40, good[:-2], good[:7] + b"\2" + good[8:]], True)
        self.client.send_dns("127.0.0.54", [good], False)
        kilter.wait_for("they are counted", lambda: self.daemon.value("kilter_dns_malformed_total") >= 3)
        self.client.ask(to)
        self.wait_policy(to, "defaults", "no policy matches", PYTHON)


class Tripping(guarded.Case):
    def prepare(self, mode="200 0", **policy):
        self.upstream = self.server(mode=mode)
        self.to, self.name = self.upstream.destination, f"*->{self.upstream.destination}"
        self.start({"name": "upstream", "destination": self.to, **policy})
        return self.caller()

    def reason(self):
        return self.circuit(self.to)["reason"]

    def test_slow_calls_of_a_time_trip(self):
        caller = self.prepare(slow_call_ratio=0.5, slow_call_duration="300ms", minimum_requests=4, window="30s")
        self.assertEqual(caller.ask(self.to, 4), ["200"] * 4)
        self.upstream.tell("200 0.4")
        self.assertEqual(caller.ask(self.to, 4), ["200"] * 4)
        self.wait_state(self.to, "open")
        self.assertRegex(self.reason(), r"slow call ratio 0\.50 reached 0\.50 in 30s \(4 of 8 took over 0\.3s\)")
        self.assertEqual(caller.ask(self.to), ["refused"])
        self.assertEqual((self.circuit(self.to)["slow"], self.circuit(self.to)["failures"]), (4, 0))
        self.assertEqual(self.metric("kilter_circuit_slow_calls_total", self.to), 4)

    def test_slow_calls_of_a_count_trip_with_the_call_that_reaches_it(self):
        caller = self.prepare(slow_call_ratio=0.3, slow_call_duration="300ms", minimum_requests=10,
                              window_type="count", window_calls=10, base_open="1s", max_open="2s")
        self.assertEqual(caller.ask(self.to, 20), ["200"] * 20)
        self.upstream.tell("200 0.4")
        self.assertEqual(caller.ask(self.to, 5), ["200"] * 3 + ["refused"] * 2)
        kilter.wait_for("the daemon confirms", lambda: self.circuit(self.to)["transitions"]["open"] == 1)
        self.assertIn("slow call ratio reached 0.30 in the last 10 calls (3 took over 0.3s)",
                      self.records("circuit-transition")[0]["event.reason"])
        # A trial that is slow is no success; a fast one is.
        kilter.wait_for("a trial", lambda: caller.ask(self.to) == ["200"], every=0.1)
        kilter.wait_for("it opens again", lambda: self.circuit(self.to)["transitions"]["open"] == 2)
        self.upstream.tell("200 0")
        kilter.wait_for("a trial", lambda: caller.ask(self.to) == ["200"], every=0.1)
        self.wait_state(self.to, "closed")

    def test_the_last_calls_are_counted_whenever_they_were(self):
        caller = self.prepare(failure_ratio=0.5, minimum_requests=8, window_type="count", window_calls=8, window="1s")
        # Never 4 of 8; 3 of the first 3 say nothing. At the end one of the oldest three is left, and the last but one.
        for status, count in (("500", 3), ("200", 5), ("500", 1), ("200", 1)):
            self.upstream.tell(f"{status} 0")
            self.assertEqual(caller.ask(self.to, count), [status] * count)
        self.assertEqual(self.circuit(self.to)["trips"], 0)
        time.sleep(1.5)  # longer than any window of time
        self.upstream.tell("500 0")
        # The first takes the place of the oldest, which was bad as well.
        self.assertEqual(caller.ask(self.to, 6), ["500"] * 3 + ["refused"] * 3)
        self.wait_state(self.to, "open")
        self.assertEqual(self.reason(), "failure ratio reached 0.50 in the last 8 calls (4 failed)")
        self.wait_refusals(self.to, *["the circuit is open"] * 3)
        trip = self.wait_record("circuit-kernel-trip")
        self.assertIn("failure_ratio reached", trip["event.reason"])

    def test_a_status_that_is_listed_is_a_failure_and_no_other_is(self):
        caller = self.prepare(mode="500 0", consecutive_failures=FAILURES, failures=["connect", "http_429"])
        self.assertEqual(caller.ask(self.to, 2 * FAILURES), ["500"] * 2 * FAILURES)
        self.wait_figure(self.to, "failures", 0)
        self.upstream.tell("404 0")
        self.assertEqual(caller.ask(self.to, 2 * FAILURES), ["404"] * 2 * FAILURES)
        self.upstream.tell("429 0")
        self.assertEqual(caller.ask(self.to, FAILURES + 2), ["429"] * FAILURES + ["refused"] * 2)
        self.wait_figure(self.to, "failures", FAILURES)

    def test_after_an_outage_a_rising_share_is_let_through(self):
        caller = self.prepare(mode="500 0", consecutive_failures=FAILURES, base_open="500ms", ramp_up="8s")
        caller.ask(self.to, FAILURES + 1)
        self.upstream.tell("200 0")
        kilter.wait_for("a trial succeeds", lambda: caller.ask(self.to) == ["200"], every=0.05)
        self.wait_state(self.to, "closed")
        outcomes = caller.ask(self.to, 60)
        self.assertIn("refused", outcomes)
        self.wait_figure(self.to, "refused_by.ramp_up", outcomes.count("refused"))
        self.assertEqual(self.metric("kilter_circuit_refused_total", self.to, reason="ramp_up"),
                         outcomes.count("refused"))
        kilter.wait_for("a record says why", lambda: "refused by the guard: the circuit was closed a moment ago" in
                        self.refusals(self.to))
        self.assertEqual(self.circuit(self.to)["state"], "closed")
        kilter.wait_for("all go through", lambda: caller.ask(self.to, 20) == ["200"] * 20, every=0.5)

    # --- forced ---

    def test_forced_by_the_policy(self):
        caller = self.prepare(force="open")
        self.assertEqual(caller.ask(self.to, 3), ["refused"] * 3)
        row = self.circuit(self.to)
        self.assertEqual((row["state"], row["forced"], row["reason"]), ("open", "open", "forced open by the policy"))
        self.assertEqual(self.upstream.arrived(), 0)
        policy = {"name": "upstream", "destination": self.to, "consecutive_failures": FAILURES}
        self.reload({**policy, "force": "closed"})
        self.wait_state(self.to, "closed")
        self.upstream.tell("500 0")
        self.assertEqual(caller.ask(self.to, 3 * FAILURES), ["500"] * 3 * FAILURES)
        self.reload(policy)
        kilter.wait_for("the circuit decides", lambda: not self.circuit(self.to)["forced"])
        self.assertEqual(caller.ask(self.to, FAILURES + 1)[-1], "refused")

    def test_forced_by_hand(self):
        caller = self.prepare(consecutive_failures=FAILURES)
        cli = self.daemon.cli
        self.assertIn("forced open", cli("circuits", "force-open", self.name).stdout)
        self.assertEqual(caller.ask(self.to, 2), ["refused"] * 2)
        self.assertIn("open (forced)", cli("circuits").stdout)
        again = cli("circuits", "force-open", self.name, check=False)
        self.assertIn("it is in that state already", again.stderr)
        self.assertNotEqual(again.returncode, 0)
        for kill in (False, True):
            self.daemon.kill() if kill else self.daemon.stop()
            self.daemon.start()
            self.assertEqual(caller.ask(self.to), ["refused"])
            self.assertEqual(self.circuit(self.to)["forced"], "open")
        cli("circuits", "force-closed", self.name)
        self.upstream.tell("500 0")
        self.assertEqual(caller.ask(self.to, 3 * FAILURES), ["500"] * 3 * FAILURES)
        cli("circuits", "release", self.name)
        # The run of failures went on meanwhile: the next one is enough.
        self.assertEqual(caller.ask(self.to, 3), ["500", "refused", "refused"])
        self.wait_state(self.to, "open")

        cli("circuits", "disable", self.name)
        row = self.circuit(self.to)
        self.assertEqual((row["state"], row["forced"], row["mode"], row["mode_reason"]),
                         ("closed", "disabled", "off", "disabled by hand"))
        failures = row["failures"]
        self.assertEqual(caller.ask(self.to, 3 * FAILURES), ["500"] * 3 * FAILURES)
        self.wait_figure(self.to, "failures", failures)
        cli("circuits", "release", self.name)
        self.assertEqual(caller.ask(self.to, FAILURES + 1)[-1], "refused")
        self.wait_record("circuit-release", count=2)
        told = [(r["event.action"], r["event.outcome"]) for r in self.daemon.audited(kilter__subject=self.name)
                if "user.id" in r]
        self.assertEqual(told, [("circuit-force-open", "success"), ("circuit-force-open", "failure"),
                                ("circuit-force-closed", "success"), ("circuit-release", "success"),
                                ("circuit-disable", "success"), ("circuit-release", "success")])

    def test_a_hand_comes_before_the_policy(self):
        caller = self.prepare(force="open")
        self.daemon.cli("circuits", "force-closed", self.name)
        self.assertEqual(caller.ask(self.to), ["200"])
        self.daemon.cli("circuits", "release", self.name)
        self.assertEqual(caller.ask(self.to), ["refused"])

    # --- the stand-by ---

    def test_a_standby_takes_over(self):
        standby = self.server(label="standby")
        caller = self.prepare(mode="500 0", consecutive_failures=FAILURES, standby=standby.destination, base_open="3s",
                              max_open="3s")
        self.assertEqual(caller.bodies(self.to, FAILURES + 3), [""] * FAILURES + ["standby"] * 3)
        self.assertEqual((self.upstream.arrived(), standby.arrived()), (FAILURES, 3))
        self.wait_figure(self.to, "redirected", 3)
        self.assertEqual(self.metric("kilter_circuit_redirected_total", self.to), 3)
        self.assertEqual(self.circuit(self.to)["refused"], 0)
        record = self.wait_record("connect-redirected", count=3)
        self.assertEqual((record["destination.port"], record["event.reason"]),
                         (self.upstream.port, "sent to the stand-by by the guard: the circuit is not closed"))
        self.upstream.tell("200 0")
        kilter.wait_for("a trial reaches the destination", lambda: caller.bodies(self.to, 1) == [""], every=0.1)
        self.wait_state(self.to, "closed")
        self.assertEqual(caller.bodies(self.to, 3), [""] * 3)

    # --- the panic guard ---

    def destinations(self, count, **guard):
        servers = [self.server(mode="500 0") for _ in range(count)]
        self.start(*({"destination": s.destination, "consecutive_failures": FAILURES} for s in servers), **guard)
        return [s.destination for s in servers]

    def test_no_more_destinations_than_their_share(self):
        to = self.destinations(4, max_open_ratio=0.5)
        caller = self.caller()
        for destination in to[:2]:
            self.assertEqual(caller.ask(destination, FAILURES + 1)[-1], "refused")
            self.wait_state(destination, "open")
        self.assertEqual((self.daemon.value("kilter_guard_destinations", state="any"),
                          self.daemon.value("kilter_guard_destinations", state="not_closed")), (4, 2))
        guard = self.daemon.json("/api/v1/guard")
        self.assertEqual((guard["circuits"], guard["circuits_not_closed"], guard["destinations"],
                          guard["destinations_not_closed"]), (4, 2, 4, 2))
        caller.ask(to[2], FAILURES)
        kilter.wait_for("it is held back", lambda: self.daemon.value("kilter_circuit_suppressed_total") == 1)
        self.assertEqual(caller.ask(to[2], 2 * FAILURES), ["500"] * 2 * FAILURES)
        self.assertIn("suppressed: 3 of 4 destinations would be open, 2 may be", self.circuit(to[2])["reason"])
        record = self.wait_record("circuit-transition", kilter__subject=f"*->{to[2]}")
        self.assertEqual((record["event.outcome"], record["kilter.to"]), ("failure", "closed"))

    def test_callers_of_one_destination_count_once(self):
        server = self.server(mode="500 0")
        to = server.destination
        others = [f"127.0.0.1:{kilter.free_port()}" for _ in range(3)]
        self.start({"executable": "*?", "destination": to, "consecutive_failures": FAILURES},
                   *({"destination": other} for other in others), max_open_ratio=0.25)
        caller = self.caller()
        caller.ask(to)
        self.curl(to)
        kilter.wait_for("both have a circuit", lambda: len(self.circuits()) == 5)
        self.assertEqual(caller.ask(to, FAILURES + 1)[-1], "refused")
        self.assertEqual(self.curl(to, FAILURES + 1)[-1], "000")
        self.wait_state(to, "open", caller=PYTHON)
        self.wait_state(to, "open", caller="curl")
        self.assertEqual(self.daemon.value("kilter_guard_destinations", state="not_closed"), 1)

    def test_no_more_circuits_than_max_open(self):
        to = self.destinations(3, max_open=1)
        caller = self.caller()
        self.assertEqual(caller.ask(to[0], FAILURES + 1)[-1], "refused")
        self.wait_state(to[0], "open")
        caller.ask(to[1], FAILURES)
        kilter.wait_for("it is held back", lambda: self.daemon.value("kilter_circuit_suppressed_total") == 1)
        self.assertIn("suppressed: 2 circuits would be open, 1 may be", self.circuit(to[1])["reason"])
        self.assertEqual(caller.ask(to[1], 2 * FAILURES), ["500"] * 2 * FAILURES)
        # A hand may.
        self.daemon.cli("circuits", "trip", f"*->{to[1]}")
        self.assertEqual(caller.ask(to[1]), ["refused"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
