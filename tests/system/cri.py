# SPDX-License-Identifier: Apache-2.0
"""A real containerd of a test's own, with an image made here and nothing of the machine's; and a runtime that is none,
for what a real one does not do when it is asked to."""

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile

import kilter

PYTHON = "/usr/bin/python3"  # Debian's: it has Debian's grpc
HOST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cri_host.py")
PAUSE = "kilter.test/pause:1"
NODE = {"namespace_options": {"network": 2, "pid": 2, "ipc": 2}}  # the node's own: no network plugin is needed
CGROUP_V1 = "/sys/fs/cgroup"


def _blob(tar, data):
    digest = hashlib.sha256(data).hexdigest()
    _file(tar, f"blobs/sha256/{digest}", data)
    return digest


def _file(tar, name, data, mode=0o644):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def image(path, program, directories=()):
    """An OCI image of one static program, /pause, and of empty directories to mount on."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        with open(program, "rb") as f:
            _file(tar, "pause", f.read(), 0o755)
    layer = layer.getvalue()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps({"architecture": machine, "os": "linux", "config": {"Entrypoint": ["/pause"]},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}})
    with tarfile.open(path, "w") as tar:
        def part(kind, data):
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + _blob(tar, data),
                    "size": len(data)}

        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": part("config.v1+json", config.encode()),
                    "layers": [part("layer.v1.tar+gzip", gzip.compress(layer, mtime=0))]}
        index = part("manifest.v1+json", json.dumps(manifest).encode())
        index["annotations"] = {"io.containerd.image.name": PAUSE, "org.opencontainers.image.ref.name": "1"}
        _file(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [index]}).encode())
        _file(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


class Containerd:
    """A containerd of a test's own: its socket, files, image and pods go with the test."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.dir = tempfile.mkdtemp(prefix="kilter-ctrd.")  # short: a socket's address has 107 bytes
        self.socket = os.path.join(self.dir, "c.sock")
        self.config = os.path.join(self.dir, "config.toml")
        self.process = self.client = None
        self.pods = []
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(f"""
version = 2
root = "{self.dir}/root"
state = "{self.dir}/state"
[grpc]
  address = "{self.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{self.dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self.dir}/none"
    conf_dir = "{self.dir}/none"
""")
        sandbox.cleanups.callback(self.end)

    def start(self):
        self.process = self.sandbox.spawn(["containerd", "-c", self.config])
        kilter.wait_for("containerd answers", lambda: self._ctr("version", check=False).returncode == 0)
        self.client = subprocess.Popen([PYTHON, "-B", HOST, "call", self.socket], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        return self

    def stop(self):
        """Its pods go on."""
        self.client.kill()  # its input may be open in what the test has forked
        self.client.communicate()
        self.process.terminate()
        self.process.wait(30)
        self.process = self.client = None

    def _ctr(self, *args, check=True):
        return subprocess.run(["ctr", "-a", self.socket, "-n", "k8s.io", *args], check=check, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def import_image(self, program, directories=()):
        image(self.sandbox.path("pause.tar"), program, directories)
        self._ctr("images", "import", "--snapshotter", "native", self.sandbox.path("pause.tar"))

    def call(self, method, **fields):
        print(json.dumps([method, fields]), file=self.client.stdin, flush=True)
        said = json.loads(self.client.stdout.readline())
        if "error" in said:
            raise AssertionError(said["error"])
        return said

    def pod(self, name, mounts=(), **labels):
        """A pod of one container, named after it; its cgroup is below the sandbox's. Returns the ids of both."""
        pod = {"metadata": {"name": name, "uid": name, "namespace": "shop"}, "log_directory": self.dir,
               "labels": {"io.kubernetes.pod.name": name, **labels},
               "linux": {"cgroup_parent": f"/{self.sandbox.name}/pod-{name}", "security_context": NODE}}
        sandbox = self.call("RunPodSandbox", config=pod)["pod_sandbox_id"]
        self.pods.append(sandbox)
        container = {"metadata": {"name": name}, "image": {"image": PAUSE}, "log_path": f"{name}.log",
                     "labels": {"io.kubernetes.container.name": name}, "linux": {"security_context": NODE},
                     "mounts": [{"container_path": path, "host_path": path, "readonly": True} for path in mounts]}
        ident = self.call("CreateContainer", pod_sandbox_id=sandbox, sandbox_config=pod,
                          config=container)["container_id"]
        self.call("StartContainer", container_id=ident)
        return sandbox, ident

    def exec(self, container, *argv):
        """What it prints."""
        done = self.call("ExecSync", container_id=container, cmd=argv, timeout=60)
        return base64.b64decode(done.get("stdout", "")).decode()

    def end(self):
        if self.pods and not self.process:
            self.start()
        for pod in self.pods:
            with contextlib.suppress(AssertionError):
                self.call("StopPodSandbox", pod_sandbox_id=pod)
                self.call("RemovePodSandbox", pod_sandbox_id=pod)
        if self.client:
            self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        # The cgroups that runc has made in each hierarchy, and not removed.
        for mount in [os.path.join(CGROUP_V1, name) for name in os.listdir(CGROUP_V1)] + [kilter.cgroup2_root()]:
            for at, _, _ in os.walk(os.path.join(mount, self.sandbox.name), topdown=False):
                if at != self.sandbox.cgroup:
                    with contextlib.suppress(OSError):
                        os.rmdir(at)


class Runtime:
    """Says what it is told to: see cri_host.py."""

    def __init__(self, sandbox, **plan):
        self.sandbox = sandbox
        self.socket = sandbox.path("cri.sock")
        self.file = sandbox.path("cri.json")
        self.process = None
        self.tell(**plan)

    def tell(self, containers=(), pods=(), **plan):
        with open(self.file + ".new", "w", encoding="utf-8") as f:
            json.dump({"containers": containers, "pods": pods, **plan}, f)
        os.replace(self.file + ".new", self.file)

    def start(self):
        self.process = self.sandbox.spawn([PYTHON, "-B", HOST, "serve", self.socket, self.file], inside=False)
        kilter.wait_for("the runtime listens", self._listens)
        return self

    def _listens(self):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.socket) == 0

    def stop(self):
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def calls(self):
        with contextlib.suppress(FileNotFoundError), open(self.file + ".calls", encoding="utf-8") as f:
            return f.read().splitlines()
        return []
