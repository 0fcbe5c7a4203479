#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Roles over TCP with the real daemon: each role against each command, what the audit trail says of it, and reloads
by an agent that has dropped its rights. What the front alone does with a token is in front_test.py."""

import json
import os
import signal
import unittest
import urllib.parse
import urllib.request

import guarded
import kilter

ROLES = ("viewer", "operator", "admin")
TOKENS = {role: role[0] * 38 + "==" for role in ROLES}
DESTINATION = "10.99.98.97:80"
NAME = f"*->{DESTINATION}"


class Roles(guarded.Case):
    def setUp(self):
        super().setUp()
        self.file = self.sandbox.path("tokens")
        self.write("".join(f"{role} {token} the-{role}\n" for role, token in TOKENS.items()))

    def write(self, text, mode=0o600):
        with open(self.file, "w", encoding="ascii") as f:
            os.fchmod(f.fileno(), mode)
            f.write(text)

    def begin(self):
        self.start({"name": "upstream", "destination": DESTINATION}, top=f"api: {{token_file: '{self.file}'}}\n")
        kilter.wait_for("the circuit is there", lambda: NAME in self.circuits())

    def tcp(self, path, token=None, method="POST"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.daemon.port}/api/v1/{path}", method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def test_each_role_against_each_command(self):
        self.begin()
        of, limits = (f"{kind}/{urllib.parse.quote(NAME)}/" for kind in ("circuits", "limits"))
        # What it takes, and what is done before as root, so that there is something to do.
        commands = (("operator", of + "reset", of + "trip"), ("operator", of + "hold", None),
                    ("operator", of + "release", of + "hold"), ("operator", limits + "reset", limits + "set?burst=7"),
                    ("admin", of + "trip", of + "reset"), ("admin", of + "force-open", None),
                    ("admin", of + "force-closed", None), ("admin", of + "disable", None),
                    ("admin", limits + "set?rate_limit=5", None), ("admin", "guard/release", "guard/arm"),
                    ("admin", "guard/arm", "guard/release"))
        for needed, path, before in commands:
            for role in (None, *ROLES):
                self.post(of + "release")
                if before:
                    kind, _, query = before.partition("?")
                    self.post(kind, **dict(urllib.parse.parse_qsl(query)))
                may = role and ROLES.index(role) >= ROLES.index(needed)
                self.assertEqual(self.tcp(path, TOKENS.get(role)), 200 if may else 403 if role else 401, (path, role))
        for role in ROLES:
            self.assertEqual(self.tcp("circuits", TOKENS[role], "GET"), 200)
        self.assertEqual(self.tcp("circuits", None, "GET"), 401)
        self.assertEqual(self.daemon.get("/metrics")[0], 200)

        # Who it was, and of those who might not nothing.
        def records(**fields):
            return self.daemon.audited(event__outcome="success", **fields)

        kilter.wait_for("all of it is in the trail", lambda: len(records(user__name="the-admin")) >= len(commands))
        self.assertEqual(len(records(user__name="the-admin")), len(commands))
        self.assertEqual(len(records(user__name="the-operator")), 4)
        self.assertFalse(records(user__name="the-viewer"))
        trip, = records(user__name="the-admin", event__action="circuit-trip")
        self.assertEqual((trip["user.roles"], trip["kilter.subject"]), (["admin"], NAME))
        self.assertNotIn("user.id", trip)
        self.assertTrue([r for r in records(event__action="circuit-transition")
                         if r["event.reason"] == "tripped by hand, admin the-admin"])

        with open(self.daemon.audit, encoding="utf-8") as f:
            said = f.read() + self.daemon.logs() + json.dumps(self.show("config"))
        for token in TOKENS.values():
            self.assertNotIn(token, said)

    def test_reloads(self):
        self.begin()
        fresh = "f" * 32
        self.assertIn(f"api.token_file: {self.file}: 3 tokens", self.daemon.logs())
        self.write(f"viewer {fresh}\nadmin short\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        record = self.wait_record("config-rejected", kilter__subject="tokens")
        self.assertEqual(record["event.reason"], f"api.token_file: {self.file}:2: the token must have 32 to 128 characters")
        self.assertEqual(self.tcp("circuits", fresh, "GET"), 401)
        self.assertEqual(self.tcp("circuits", TOKENS["viewer"], "GET"), 200)
        # A bad configuration does not keep a token that has to go.
        self.write(f"viewer {fresh}\n")
        with open(self.daemon.config, "a", encoding="utf-8") as f:
            f.write("nonsense: 1\n")
        self.daemon.process.send_signal(signal.SIGHUP)
        self.wait_record("config-change", kilter__subject="tokens")
        self.assertEqual(self.tcp("circuits", fresh, "GET"), 200)
        self.assertEqual(self.tcp("circuits", TOKENS["admin"], "GET"), 401)

    def test_a_file_that_others_may_read_is_no_start(self):
        self.write(f"admin {TOKENS['admin']}\n", 0o644)
        with self.assertRaisesRegex(AssertionError, f"exited 1:\n.*api.token_file: {self.file} has mode 0644: "
                                                    "group and others must have no right to it, as with 0600"):
            self.begin()


if __name__ == "__main__":
    unittest.main(verbosity=2)
