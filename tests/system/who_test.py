#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 180
"""Who it was: a service is named after its container or its unit, and stays so when both are gone."""

import os
import unittest

import kilter

POD = "0f5b1a2e-5b70-4e0c-8f0e-9d3d2a1c7b11"
CONTAINER = "3f9ad9c21f" + "0" * 54
UNIT = "system.slice/billing.service"
IN_POD = (f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/"
          f"cri-containerd-{CONTAINER}.scope")


class Who(kilter.Case):
    def group(self, name):
        """A cgroup below ours, as systemd or a container runtime would name it, and what removes it."""
        path = os.path.join(self.sandbox.cgroup, name)
        os.makedirs(path)

        def remove():
            at = path
            while at != self.sandbox.cgroup:
                if os.path.isdir(at):
                    os.rmdir(at)
                at = os.path.dirname(at)

        self.sandbox.cleanups.callback(remove)
        return path, remove

    def inside(self, path, *argv):
        self.sandbox.run(["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', path, *argv])

    def clients(self):
        rows = self.daemon.metrics()[kilter.CLIENT]
        return {have["service_name"]: int(value) for have, value in rows if value}

    def served_to(self, group, name):
        path, remove = self.group(group)
        nginx = self.sandbox.nginx("location / { return 200; }\n")
        self.daemon.start()
        for _ in range(3):
            self.inside(path, "curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/")
        kilter.wait_for("the caller has its name", lambda: self.clients() == {name: 3})
        service = self.daemon.json(f"/api/v1/services/{name}")
        # It is stopped: its cgroup is gone. Then we are: the name is all there is to go by.
        remove()
        self.daemon.kill()
        self.daemon.start()
        kilter.wait_for("it still has", lambda: self.clients() == {name: 3})
        return service

    def test_a_unit(self):
        service = self.served_to(UNIT, "billing")
        self.assertEqual((service["kind"], service["unit"]), ("unit", "billing"))

    def test_a_container_of_a_pod(self):
        service = self.served_to(IN_POD, f"curl@{CONTAINER[:12]}")
        self.assertEqual((service["kind"], service["container_id"]), ("container", CONTAINER))
        self.assertEqual(service["pod_uid"], POD)


if __name__ == "__main__":
    unittest.main(verbosity=2)
