#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""The daemon dies in the middle of 100,000 requests; both lives together counted 100,000."""

import time
import unittest

import kilter

REQUESTS = 100000
CONNECTIONS = 20
RATE = 500  # per connection and second: ten seconds of load


class Restart(kilter.Case):
    def load(self):
        port = self.nginx.port
        return self.sandbox.spawn(["h2load", "--h1", "-n", str(REQUESTS), "-c", str(CONNECTIONS), "-t", "1",
                                   "--rps", str(RATE), f"http://127.0.0.1:{port}/"])

    def setUp(self):
        super().setUp()
        self.nginx = self.sandbox.nginx('location / { return 200 "ok\\n"; }')
        self.daemon.start()

    def finish(self, load):
        self.assertEqual(load.wait(90), 0)
        self.assertEqual(self.nginx.logged_at_least(REQUESTS), {"200": REQUESTS})
        self.settle(kilter.SERVER, {"200": REQUESTS})
        self.settle(kilter.CLIENT, {"200": REQUESTS})

    def counted(self):
        return sum(self.daemon.counts(kilter.SERVER).values())

    def test_sigkill_and_restart_under_load(self):
        load = self.load()
        for part in (0.2, 0.5):
            kilter.wait_for("load runs", lambda part=part: self.counted() > part * REQUESTS)
            self.daemon.kill()
            self.assertIsNone(load.poll(), "the load ended before the daemon was killed")
            time.sleep(1)  # requests that only the kernel sees
            self.daemon.start()
        self.finish(load)

    def test_orderly_restart_under_load(self):
        load = self.load()
        kilter.wait_for("load runs", lambda: self.counted() > 0.2 * REQUESTS)
        self.assertEqual(self.daemon.stop(), 0)
        self.assertIsNone(load.poll(), "the load ended before the daemon was stopped")
        self.daemon.start()
        self.finish(load)


if __name__ == "__main__":
    unittest.main(verbosity=2)
