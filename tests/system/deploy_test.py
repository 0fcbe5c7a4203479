#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""What is shipped works as it is shipped: installed files, example configurations, and the rights that
the systemd unit and the DaemonSet grant, no more and no less."""

import os
import re
import subprocess
import tempfile
import unittest

import kilter

UNIT = os.path.join(kilter.ROOT, "deploy/systemd/kilter.service.in")
DAEMONSET = os.path.join(kilter.ROOT, "deploy/kubernetes/daemonset.yaml")
KEPT = {"bpf", "perfmon", "net_admin"}


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def unit_rights():
    line = re.search(r"^CapabilityBoundingSet=(.*)$", read(UNIT), re.M).group(1)
    return {c.removeprefix("CAP_").lower() for c in line.split()}


def daemonset_rights():
    text = re.search(r"add: \[([^\]]*)\]", read(DAEMONSET)).group(1)
    return {c.strip().lower() for c in text.split(",")}


def config_map():
    """kilter.yaml of the ConfigMap: the block below its key, without its indentation."""
    block = re.search(r"^  kilter\.yaml: \|\n((?:    .*\n|\n)+)", read(DAEMONSET), re.M).group(1)
    return re.sub(r"^    ", "", block, flags=re.M)


class Installed(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="kilter-test-install.")
        self.addCleanup(self.dir.cleanup)

    def install(self):
        # Nothing is built here: the programs under test are there.
        touched = ["-o", kilter.KILTERD, "-o", kilter.KILTER]
        subprocess.run(["make", "-s", "-C", kilter.ROOT, f"B={kilter.BUILD}", f"DESTDIR={self.dir.name}",
                        "PREFIX=/usr", *touched, "install"], check=True, capture_output=True, text=True,
                       env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")})

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def test_everything_is_in_its_place(self):
        self.install()
        for name, mode in (("usr/sbin/kilterd", 0o755), ("usr/bin/kilter", 0o755), ("etc/kilter/kilter.yaml", 0o644),
                           ("usr/lib/sysusers.d/kilter.conf", 0o644), ("usr/lib/tmpfiles.d/kilter.conf", 0o644),
                           ("usr/share/man/man1/kilter.1", 0o644), ("usr/share/man/man8/kilterd.8", 0o644),
                           ("usr/share/man/man5/kilter.yaml.5", 0o644)):
            with self.subTest(name):
                self.assertEqual(os.stat(self.path(name)).st_mode & 0o777, mode)
        for name in ("bash-completion/completions/kilter", "zsh/site-functions/_kilter",
                     "fish/vendor_completions.d/kilter.fish"):
            with self.subTest(name):
                self.assertIn("circuits", read(self.path(f"usr/share/{name}")))
        unit = read(self.path("usr/lib/systemd/system/kilter.service"))
        self.assertIn("\nExecStart=/usr/sbin/kilterd ", unit)
        self.assertNotIn("@PREFIX@", unit)

    def test_an_existing_configuration_stays(self):
        os.makedirs(self.path("etc/kilter"))
        with open(self.path("etc/kilter/kilter.yaml"), "w", encoding="ascii") as f:
            f.write("tick: 2s\n")
        self.install()
        self.assertEqual(read(self.path("etc/kilter/kilter.yaml")), "tick: 2s\n")

    def check(self, text):
        with open(self.path("kilter.yaml"), "w", encoding="utf-8") as f:
            f.write(text)
        done = subprocess.run([kilter.KILTERD, "--check-config", "--config", self.path("kilter.yaml")],
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_shipped_configurations_are_good(self):
        example = read(os.path.join(kilter.ROOT, "deploy/kilter.yaml"))
        self.check(example)
        # What the example proposes in comments is good as well: below the first empty comment it is YAML.
        proposed = re.sub(r"^# ?", "", example[example.index("#\n# guard:"):], flags=re.M)
        self.assertIn("consecutive_failures", proposed)
        self.check(proposed)
        self.check(config_map())
        manual = read(os.path.join(kilter.ROOT, "docs/man/kilter.yaml.5"))
        for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", manual, re.M | re.S):
            self.check(block)


class Rights(kilter.Case):
    def start_with(self, rights):
        argv = self.daemon.argv()
        held = "-all," + ",".join(f"+{c}" for c in sorted(rights))
        self.daemon.argv = lambda: ["setpriv", "--bounding-set", held, "--inh-caps", "-all", "--no-new-privs", *argv]
        self.daemon.start()

    def test_both_deployments_grant_the_same(self):
        self.assertEqual(unit_rights(), daemonset_rights())

    def tiers(self):
        return {p["name"]: p["tier"] for p in self.daemon.json("/api/v1/status")["probes"]}

    def test_what_is_granted_is_enough(self):
        self.daemon.start()
        best = self.tiers()  # a kernel may refuse some to everybody
        self.assertEqual(self.daemon.stop(), 0)
        self.start_with(unit_rights())
        self.assertGreater(len(best), 3)
        self.assertEqual(self.tiers(), best)
        self.assertEqual(self.daemon.stop(), 0)

    def test_without_the_rights_of_the_front_nothing_is_served(self):
        """Each right that is granted is needed: the front does not go on with more than it may have."""
        with self.assertRaises(AssertionError) as caught:
            self.start_with(KEPT)
        self.assertIn("front: giving up rights", str(caught.exception))

    def test_without_a_right_that_stays_the_first_line_says_so(self):
        for right in sorted(KEPT):
            with self.subTest(right), self.assertRaises(AssertionError) as caught:
                self.start_with(unit_rights() - {right})
            self.assertIn("kilterd needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN", str(caught.exception))
            self.daemon.argv = kilter.Daemon.argv.__get__(self.daemon)


if __name__ == "__main__":
    unittest.main()
