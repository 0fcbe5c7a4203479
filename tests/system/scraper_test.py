#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""Debian's Prometheus scrapes it, promtool has no complaint, and a query gives the expected number."""

import gzip
import json
import subprocess
import unittest
import urllib.parse
import urllib.request

import kilter

REQUESTS = 500


class Scraper(kilter.Case):
    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.daemon.start()
        self.sandbox.run(["h2load", "--h1", "-n", str(REQUESTS), "-c", "4", f"http://127.0.0.1:{self.nginx.port}/"])
        self.settle(kilter.SERVER, {"200": REQUESTS})

    def test_promtool_check_metrics(self):
        _, body, _ = self.daemon.get("/metrics")
        done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""))

    def test_gzip_and_openmetrics(self):
        status, body, headers = self.daemon.get("/metrics", {"Accept-Encoding": "gzip"})
        self.assertEqual((status, headers.get("Content-Encoding")), (200, "gzip"))
        self.assertIn(b"kilter_build_info", gzip.decompress(body))
        accept = "application/openmetrics-text;version=1.0.0"
        _, body, headers = self.daemon.get("/metrics", {"Accept": accept})
        self.assertTrue(headers["Content-Type"].startswith("application/openmetrics-text"), headers)
        self.assertTrue(body.endswith(b"# EOF\n"))

    def test_prometheus_answers_the_p99(self):
        port = kilter.free_port()
        config = self.sandbox.write("prometheus.yml", f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: kilter
    static_configs: [{{targets: ['127.0.0.1:{self.daemon.port}']}}]
""")
        self.sandbox.spawn(["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                            f"--storage.tsdb.path={self.sandbox.path('tsdb')}", "--log.level=warn"], inside=False)

        def query(text):
            url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    result = json.load(answer)["data"]["result"]
            except OSError:
                return None
            return [float(r["value"][1]) for r in result]

        kilter.wait_for("the target is up", lambda: query("up") == [1.0])
        kilter.wait_for("counts are there", lambda: query(f"sum({kilter.SERVER})") == [float(REQUESTS)])
        buckets = {}
        for labels, value in self.daemon.metrics()["http_server_request_duration_seconds_bucket"]:
            edge = float(labels["le"])
            buckets[edge] = buckets.get(edge, 0) + value
        edges = sorted(buckets)
        rank = 0.99 * REQUESTS
        edge = next(e for e in edges if buckets[e] >= rank)
        low = max([0.0] + [e for e in edges if e < edge])
        below = buckets.get(low, 0)
        expected = low + (edge - low) * (rank - below) / (buckets[edge] - below)
        answer = query("histogram_quantile(0.99, sum by (le) (http_server_request_duration_seconds_bucket))")
        self.assertEqual(len(answer), 1)
        self.assertAlmostEqual(answer[0], expected, places=9)


if __name__ == "__main__":
    unittest.main(verbosity=2)
