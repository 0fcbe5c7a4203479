#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 120
"""Calls of gRPC and requests of HTTP/2, put into the kernel's maps as its programs leave them, are told and judged."""

import contextlib
import os
import subprocess
import unittest

import kilter

RPC_SERVER = "rpc_server_call_duration_seconds_count"
RPC_CLIENT = "rpc_client_call_duration_seconds_count"
PORT = "50051"


def rows(samples):
    """{labels without what all of them bear: value} of the service that was made up."""
    common = ("service_name", "server_port")
    return {frozenset((k, v) for k, v in labels.items() if k not in common): int(value)
            for labels, value in samples if labels["service_name"] == "shop" and labels["server_port"] == PORT}


def labels(**kw):
    return frozenset(kw.items())


class Rpc(kilter.Case):
    def setUp(self):
        super().setUp()
        self.daemon.start()
        subprocess.run([os.path.join(kilter.BUILD, "tests/stimulus/calls"), os.path.join(self.sandbox.bpffs, "kilter")],
                       check=True, stdout=subprocess.DEVNULL)

    def expect(self, name, expected):
        with contextlib.suppress(AssertionError):  # the one below says more
            kilter.wait_for(name, lambda: rows(self.daemon.metrics()[name]) == expected, kilter.SETTLE_SECONDS)
        self.assertEqual(rows(self.daemon.metrics()[name]), expected)

    def test_calls_are_a_family_of_their_own(self):
        check = {"rpc_system_name": "grpc", "rpc_method": "grpc.health.v1.Health/Check"}
        self.expect(RPC_SERVER, {
            labels(rpc_system_name="grpc", rpc_method="shop.Cart/Add", rpc_response_status_code="OK"): 3,
            labels(**check, rpc_response_status_code="OK"): 40,
            labels(**check, rpc_response_status_code="NOT_FOUND"): 5,
            labels(**check, rpc_response_status_code="UNAVAILABLE", error_type="UNAVAILABLE"): 6,
            labels(**check, error_type="reset"): 7})
        get = {"rpc_system_name": "grpc", "rpc_method": "orders.v1.Orders/Get", "server_address": "192.0.2.1"}
        self.expect(RPC_CLIENT, {
            labels(**get, rpc_response_status_code="OK"): 8,
            labels(**get, rpc_response_status_code="NOT_FOUND", error_type="NOT_FOUND"): 9,
            labels(**get, rpc_response_status_code="DEADLINE_EXCEEDED", error_type="DEADLINE_EXCEEDED"): 10,
            labels(**get): 11})
        request = {"http_request_method": "GET", "url_template": "/items/{id}", "url_scheme": "http"}
        self.expect(kilter.SERVER, {
            labels(**request, http_response_status_code="200"): 12,
            labels(**request, http_response_status_code="200", network_protocol_version="2"): 13,
            labels(**request, http_response_status_code="503", network_protocol_version="2", error_type="503"): 14})
        self.expect(kilter.CLIENT, {})

    def test_promtool_has_no_complaint_and_no_sample_is_there_twice(self):
        kilter.wait_for("the calls are there", lambda: len(rows(self.daemon.metrics()[RPC_CLIENT])) == 4)
        _, body, _ = self.daemon.get("/metrics")
        done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""))
        names = [line.rsplit(b" ", 1)[0] for line in body.splitlines() if not line.startswith(b"#")]
        self.assertEqual(len(names), len(set(names)))

    def test_errors_of_the_service_are_those_of_both_protocols(self):
        def figures():
            service = self.daemon.json("/api/v1/services/shop")
            return {side: tuple(service[side]["1h"][n] for n in ("requests", "errors")) for side in ("server", "client")}

        kilter.wait_for("the service is there", lambda: rows(self.daemon.metrics()[RPC_CLIENT]))
        # 6 UNAVAILABLE, 7 reset, 14 answers of 503; 10 DEADLINE_EXCEEDED, and what has no status has no error.
        kilter.wait_for("the windows have them",
                        lambda: figures() == {"server": (100, 27), "client": (38, 10)})


class Guarded(kilter.Case):
    """A call as curl makes it, and what nginx answers: a response of headers alone, with a code."""
    CODES = {"Get": 5, "Put": 8, "Down": 14}  # NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE

    def guard(self, failures):
        self.port = kilter.free_port()
        methods = "".join(f"location = /orders.v1.Orders/{name} {{ add_header grpc-status {code} always; return 200; }}"
                          for name, code in self.CODES.items())
        self.sandbox.nginx("", extra=f"server {{ listen 127.0.0.1:{self.port} http2; "
                                     f"default_type application/grpc; {methods} }}")
        with open(self.daemon.config, "w", encoding="utf-8") as f:
            f.write(f"""
guard:
  protect_loopback: false
  max_open_ratio: 1
  policies:
    - destination: "127.0.0.1:{self.port}"
      mode: enforce
      consecutive_failures: 3
      failure_ratio: 0
      base_open: 100s
      failures: {failures}
""")
        self.daemon.start()

    def call(self, method):
        """The HTTP status, or 0 when the connect was refused."""
        done = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge",
                               "-H", "content-type: application/grpc", "-X", "POST",
                               f"http://127.0.0.1:{self.port}/orders.v1.Orders/{method}"],
                              preexec_fn=self.sandbox.join, stdout=subprocess.PIPE, text=True, check=False)
        return int(done.stdout)

    def test_a_code_that_is_named_trips_and_another_does_not(self):
        self.guard("[grpc_resource_exhausted]")
        self.assertEqual([self.call("Down") for _ in range(4)], [200] * 4)
        self.assertEqual([self.call("Put") for _ in range(4)], [200, 200, 200, 0])

    def test_the_errors_of_grpc_trip_and_what_is_not_found_does_not(self):
        self.guard("[grpc_errors]")
        self.assertEqual([self.call("Get") for _ in range(4)], [200] * 4)
        self.assertEqual([self.call("Down") for _ in range(4)], [200, 200, 200, 0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
