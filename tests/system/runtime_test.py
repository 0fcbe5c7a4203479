#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600
"""Labels of pods that only the container runtime knows: asked of a real containerd, and of runtimes that fail."""

import base64
import contextlib
import os
import re
import socket
import subprocess
import unittest

import cri
import guarded
import kilter

FAILURES = 3
LIBRARIES = [path for path in ("/usr", "/lib", "/lib64") if os.path.exists(path)]
PYTHON = os.path.basename(os.path.realpath("/proc/self/exe"))


def ident(number):
    return f"{number:012x}" + "0" * 52


class Case(guarded.Case):
    def asking(self, endpoint, root=""):
        """Without a root no files are read: what is known is known from the runtime."""
        return {"top": f"runtime_root: '{root}'\nruntime_endpoint: {endpoint}\n"}

    def labels(self, name):
        return self.daemon.json(f"/api/v1/services/{name}")["labels"]

    def wait_labels(self, name, expected):
        def known():
            return any(row["name"] == name for row in self.daemon.json("/api/v1/services")["items"]) and \
                self.labels(name) == expected

        try:
            kilter.wait_for(f"the labels of {name}", known)
        except AssertionError:
            self.assertEqual(self.labels(name), expected)

    def state(self):
        return self.daemon.json("/api/v1/status")["runtime"]

    def wait_state_of_runtime(self, part):
        kilter.wait_for(f"the runtime: {part}", lambda: part in (self.state() or ""))

    def logged(self, part):
        with open(self.daemon.log, encoding="utf-8", errors="replace") as f:
            return [line for line in f if part in line]


class OfContainerd(Case):
    def setUp(self):
        super().setUp()
        if not os.path.exists("/usr/bin/containerd"):
            self.skipTest("needs Debian's containerd")
        self.containerd = cri.Containerd(self.sandbox).start()
        pause = self.sandbox.path("pause")
        subprocess.run(["gcc", "-static", "-O2", "-o", pause, os.path.join(kilter.ROOT, "tests/system/pause.c")],
                       check=True)
        self.containerd.import_image(pause, [path[1:] for path in LIBRARIES])

    def curls(self, container, destination, count=1):
        """From inside the container: statuses, "000" of a connect that was refused."""
        urls = [f"http://{destination}/"] * count
        return self.containerd.exec(container, "/usr/bin/curl", "-s", "-o", "/dev/null", "-H", "Connection: close", "-w",
                                    "%{http_code}\\n", *urls).split()

    def curls_beside(self, pod, container, destination):
        """From the container's cgroup, while no runtime is there to ask."""
        at = os.path.join(self.sandbox.cgroup, f"pod-{pod}", container)
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{destination}/"],
                              preexec_fn=lambda: self.sandbox.join(at), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False)
        return done.stdout

    def test_a_policy_by_labels_of_a_pod_holds_its_container(self):
        to = self.server(mode="500 0").destination
        trips = {"destination": to, "consecutive_failures": FAILURES}
        policies = ({**trips, "name": "carts", "labels": {"app": "cart*"}},
                    {**trips, "name": "rest", "consecutive_failures": 1000})
        # The kubelet's labels are in containerd's files; the pod's own are in none.
        node = self.sandbox.path("node")
        os.makedirs(os.path.join(node, "run"))
        os.symlink(os.path.join(self.containerd.dir, "state"), os.path.join(node, "run/containerd"))
        self.start(*policies, **self.asking("unix://" + self.containerd.socket, node))
        _, cart = self.containerd.pod("cart", LIBRARIES, app="cart-1", tier="front")
        _, user = self.containerd.pod("user", LIBRARIES, app="user")
        name, other = f"curl@{cart[:12]}", f"curl@{user[:12]}"
        self.assertEqual(self.curls(cart, to), ["500"])
        self.assertEqual(self.curls(user, to), ["500"])
        filed = {of: {"io.kubernetes.container.name": of, "io.kubernetes.pod.name": of, "io.kubernetes.pod.uid": of,
                      "io.kubernetes.pod.namespace": "shop"} for of in ("cart", "user")}
        self.wait_labels(name, {**filed["cart"], "app": "cart-1", "tier": "front"})
        self.wait_labels(other, {**filed["user"], "app": "user"})
        self.assertIn("app=cart-1", self.daemon.cli("service", name).stdout)
        self.assertIn("answers (runtime.v1)", self.daemon.cli("status").stdout)
        kilter.wait_for("the policy by labels", lambda: self.circuit(to, name).get("policy") == "carts")
        self.assertEqual(self.circuit(to, name)["policy_match"], "by address and port, label app; before rest")
        self.assertEqual(self.circuit(to)["policy"], "rest")
        self.assertEqual(self.curls(cart, to, FAILURES + 2)[-1], "000")
        self.assertEqual(self.curls(user, to, FAILURES + 2), ["500"] * (FAILURES + 2))
        self.wait_state(to, "open", caller=name)

        # The runtime is away while the daemon starts anew: what the circuit knew it knows still.
        self.containerd.stop()
        self.daemon.kill()
        self.daemon.start()
        self.wait_state(to, "open", caller=name)
        self.assertEqual(self.curls_beside("cart", cart, to), "000")
        self.assertEqual(self.curls_beside("user", user, to), "500")
        self.wait_state_of_runtime("No such file or directory")
        kilter.wait_for("it asks again", lambda: self.daemon.value("kilter_runtime_batches_total", outcome="failed") > 1)
        self.wait_labels(name, filed["cart"])
        self.assertEqual(len(self.logged("No such file or directory: labels")), 1)
        self.assertEqual(self.circuit(to, name)["policy"], "carts")
        self.containerd.start()
        self.wait_state_of_runtime("answers (runtime.v1)")
        self.wait_labels(other, {**filed["user"], "app": "user"})
        self.assertEqual(self.circuit(to, name)["policy"], "carts")
        self.assertEqual(len(self.logged("No such file or directory: labels")), 1)


def garbage(path, kind):
    """Listens, and is no runtime."""
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(8)
        while True:
            connection, _ = s.accept()
            with connection, contextlib.suppress(OSError):
                if kind == "http1":
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 10)
                connection.recv(65536)


class OfOthers(Case):
    """A runtime of the test's own, which does what a real one would do on a bad day."""

    def setUp(self):
        super().setUp()
        self.to = self.server().destination
        self.runtime = cri.Runtime(self.sandbox)

    def begin(self, *ids, **plan):
        """Containers with a connection each, a daemon that finds them all at once, and a runtime."""
        self.runtime.tell(**plan)
        self.runtime.start()
        callers = [self.caller(cgroup=f"cri-containerd-{i}.scope") for i in ids]
        for caller in callers:
            self.assertEqual(caller.hold(self.to, 1), ["held"])
        self.start(**self.asking(self.runtime.socket))
        for i in ids:
            kilter.wait_for("the container is known", lambda i=i: self.name(i) in
                            [row["name"] for row in self.daemon.json("/api/v1/services")["items"]])

    @staticmethod
    def name(i):
        return f"{PYTHON}@{i[:12]}"

    def connections(self):
        """Connections to the runtime, and the pids of those that hold their other ends."""
        rows = [line.split() for line in subprocess.run(["ss", "-xpH"], check=True, capture_output=True,
                                                        text=True).stdout.splitlines()]
        peers = {row[7] for row in rows if row[4] == self.runtime.socket and row[1] == "ESTAB"}
        return {row[5]: frozenset(map(int, re.findall(r"pid=(\d+)", row[-1]))) for row in rows if row[5] in peers}

    def counted(self, outcome):
        return self.daemon.value("kilter_runtime_containers_total", outcome=outcome)

    def test_many_containers_are_two_questions(self):
        ids = [ident(n) for n in range(20)]
        containers = [{"id": ident(n), "pod_sandbox_id": ident(5000 + n // 2), "labels": {"n": str(n), "of": "c"}}
                      for n in range(3000)]
        pods = [{"id": ident(5000 + n), "labels": {"pod": str(n), "of": "pod"}} for n in range(1500)]
        pause = ident(5100)  # the sandbox itself has a process, too
        self.begin(*ids, pause, containers=containers, pods=pods)
        for n, i in enumerate(ids):
            self.wait_labels(self.name(i), {"n": str(n), "of": "c", "pod": str(n // 2)})
        self.wait_labels(self.name(pause), {"pod": "100", "of": "pod"})
        self.assertEqual(self.counted("known"), 21)
        asked = self.runtime.calls()
        self.assertIn("runtime.v1 ListPodSandbox *", asked)
        self.assertLess(len(asked), 8, "a batch for each of the first ticks at most")

        # One more, alone: it is asked for by its id.
        late = ident(2999)
        self.caller(cgroup=f"cri-containerd-{late}.scope").ask(self.to)
        self.wait_labels(self.name(late), {"n": "2999", "of": "c", "pod": "1499"})
        self.assertEqual(self.runtime.calls()[len(asked):],
                         [f"runtime.v1 ListContainers {late}", f"runtime.v1 ListPodSandbox {ident(6499)}"])

    def test_a_runtime_of_the_older_version_is_asked_in_that(self):
        i = ident(1)
        self.begin(i, versions=["runtime.v1alpha2"], containers=[{"id": i, "labels": {"app": "old"}}])
        self.wait_labels(self.name(i), {"app": "old"})
        self.assertEqual(self.runtime.calls(), ["runtime.v1 ListContainers unimplemented",
                                                f"runtime.v1alpha2 ListContainers {i}",
                                                f"runtime.v1alpha2 ListPodSandbox {i}"])
        self.assertEqual(self.state(), "answers (runtime.v1alpha2)")

    def test_a_container_that_the_runtime_does_not_know_is_given_up(self):
        known, unknown = ident(1), ident(2)
        self.begin(known, unknown, containers=[{"id": known, "labels": {"app": "x"}}])
        self.wait_labels(self.name(known), {"app": "x"})
        kilter.wait_for("it is given up", lambda: self.counted("unknown") == 1, 60)
        self.assertIsNone(self.labels(self.name(unknown)))
        self.assertEqual(self.runtime.calls().count("runtime.v1 ListContainers *"), 1)
        self.assertEqual(self.runtime.calls().count(f"runtime.v1 ListContainers {unknown}"), 4)
        self.assertEqual(self.daemon.value("kilter_runtime_wanted"), 0)

    def test_a_runtime_that_hangs_holds_nobody_up(self):
        i = ident(1)
        good = {"containers": [{"id": i, "labels": {"app": "x"}}]}
        self.begin(i, hang=True)
        kilter.wait_for("it was asked", self.runtime.calls)
        agent = {self.daemon.process.pid}  # and no process of the front

        def ticks_go_on_meanwhile():
            held = self.connections()
            before = self.daemon.json("/api/v1/status")["ticks"]
            kilter.wait_for("ticks go on", lambda: self.daemon.json("/api/v1/status")["ticks"] > before + 5)
            return held and set(held.values()) == {frozenset(agent)} and self.connections() == held

        kilter.wait_for("ticks while a connection is held", ticks_go_on_meanwhile)
        self.wait_state_of_runtime("no answer in time")
        self.assertIsNone(self.labels(self.name(i)))
        self.runtime.tell(**good)
        self.wait_labels(self.name(i), {"app": "x"})
        self.assertEqual(len(self.logged("no answer in time")), 1)
        self.assertEqual(len(self.logged("answers (runtime.v1)")), 1)

    def test_answers_that_are_too_large_cost_themselves_alone(self):
        large, other = ident(1), ident(2)
        labels = {"labels": {"app": "x"}}
        flood = [{"id": ident(100 + n), "pad": 400 << 10} for n in range(50)]  # 20 MB
        self.begin(large, other, containers=flood)
        self.wait_state_of_runtime("too large")
        self.runtime.tell(containers=[{"id": large, "pad": 600 << 10, **labels}, {"id": other, "pad": 400 << 10, **labels}])
        self.wait_labels(self.name(other), {"app": "x"})
        self.assertIsNone(self.labels(self.name(large)))
        self.assertGreaterEqual(self.counted("unusable"), 1)

    def test_what_is_no_runtime_is_told_so(self):
        i = ident(1)
        self.begin(i, versions=[])
        self.wait_state_of_runtime("neither runtime.v1 nor runtime.v1alpha2 is served there")
        for said, plan in {
            "ListContainers: gRPC status 14: not ready%0Ayet": {"status": [14, "not ready\nyet"]},
            "its answer cannot be read": {"raw": base64.b64encode(b"\x0a\xff\xff\xff\xff\x0f").decode()},
            "it does not speak HTTP/2": "http1",
            "it closed the connection": "close",
        }.items():
            with self.subTest(said):
                self.assertEqual(self.daemon.stop(), 0)  # a new one asks at once
                os.unlink(self.daemon.log)
                if isinstance(plan, str):
                    self.runtime.stop()
                    self.sandbox.serve(garbage, self.runtime.socket, plan)
                else:
                    self.runtime.tell(**plan)
                self.daemon.start()
                self.wait_state_of_runtime(said)
                kilter.wait_for("it asks again", lambda: self.daemon.value("kilter_runtime_batches_total",
                                                                           outcome="failed") > 1)
                self.assertEqual(len(self.logged("container runtime ")), 1, "it works as little as before")
                self.assertIsNone(self.labels(self.name(i)))


if __name__ == "__main__":
    unittest.main()
