# SPDX-License-Identifier: Apache-2.0
import unittest


class Sample(unittest.TestCase):
    def test_passes(self):
        pass

    def test_fails(self):
        self.fail("as it should")

    def test_skips(self):
        self.skipTest("as it should")


unittest.main()
