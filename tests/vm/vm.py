#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots Debian's own kernels in QEMU and runs the tests of the BPF programs and of the daemon in each.

    tests/vm/vm.py [--build DIR] [--cache DIR] [--jobs N] [KERNEL...]

Kernels, QEMU and busybox are fetched by name from Debian's archive and checked as apt does: the
signature of InRelease, the hash of Packages in it, the hash of each package in that. Nothing is
installed and apt's own state is not touched. Emulation (TCG) alone: no /dev/kvm is needed.
"""

import argparse
import concurrent.futures
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
ARCHIVE = os.environ.get("KILTER_VM_ARCHIVE") or "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
HELPER = "/usr/lib/apt/apt-helper"

# name: (suite, package of the image, whether kilter runs there: docs/kernels.md)
KERNELS = {
    "5.10": ("bullseye", r"linux-image-5\.10\.[\d.-]+-cloud-amd64", False),
    "6.1": ("bookworm", r"linux-image-6\.1\.[\d.-]+-cloud-amd64", True),
    "6.12": ("trixie", r"linux-image-6\.12\.[\w.+-]+-cloud-amd64", True),
    "sid": ("sid", r"linux-image-\d[\w.+-]+-cloud-amd64", True),
}
# Bookworm's QEMU 7.2 crashes guests at random under TCG and misses code that another CPU has patched.
TOOLS = (
    ("bookworm-backports", r"qemu-system-(x86|common|data)|seabios"),
    ("bookworm", r"busybox-static|cpio|libaio1|libcapstone4|libvdeplug2|libnl-3-200|libnl-route-3-200|libibverbs1|"
                 r"librdmacm1|libslirp0|libfuse3-3|libdaxctl1|libndctl6|libpmem1|liburing2|libfdt1|libpixman-1-0|"
                 r"libnuma1|libglib2.0-0|libgnutls30|libjpeg62-turbo|libpng16-16|libseccomp2|libsasl2-2|libbpf1|"
                 r"libzstd1|zlib1g|libkeyutils1"),
)
GUEST_SECONDS = 420  # the tests inside
BOOT_SECONDS = 90    # before and after them
MEMORY_MIB = 1536
CPUS = 2             # per-CPU maps want more than one


def run(argv, **more):
    return subprocess.run(argv, check=True, **more)


class Archive:
    """Packages of one suite, verified, unpacked where one likes."""

    def __init__(self, cache, suite):
        self.cache = cache
        self.suite = suite
        lists = os.path.join(cache, "lists")
        os.makedirs(lists, exist_ok=True)
        # Valid-Until is not looked at: suites that are no longer updated keep an old one.
        release = self.fetch(f"dists/{suite}/InRelease", os.path.join(lists, f"{suite}.InRelease"))
        text = run(["gpgv", "--quiet", "--keyring", KEYRING, "--output", "-", release], capture_output=True,
                   text=True).stdout
        name = "main/binary-amd64/Packages.xz"
        digest = re.search(rf"^SHA256:\n(?: .*\n)*? ([0-9a-f]{{64}}) +\d+ {name}$", text, re.M).group(1)
        path = self.fetch(f"dists/{suite}/{name}", os.path.join(lists, f"{suite}.Packages.xz"), digest)
        with lzma.open(path, "rt", encoding="utf-8") as f:
            self.packages = {}
            for stanza in f.read().split("\n\n"):
                fields = dict(re.findall(r"^(Package|Version|Filename|SHA256): (.*)$", stanza, re.M))
                if fields:
                    self.packages.setdefault(fields["Package"], []).append(fields)

    def fetch(self, path, to, digest=None):
        if digest and os.path.exists(to):
            known = run(["sha256sum", to], capture_output=True, text=True).stdout.split()[0]
            if known == digest:
                return to
        hashed = [f"SHA256:{digest}"] if digest else []
        run([HELPER, "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download-file",
             f"{ARCHIVE}/{path}", to, *hashed], stdout=subprocess.DEVNULL)
        return to

    def newest(self, pattern):
        """Packages whose name matches, the newest version of each."""
        found = []
        for name, versions in self.packages.items():
            if re.fullmatch(pattern, name):
                best = versions[0]
                for v in versions[1:]:
                    if subprocess.run(["dpkg", "--compare-versions", v["Version"], "gt", best["Version"]],
                                      check=False).returncode == 0:
                        best = v
                found.append(best)
        return found

    def unpack(self, package, to):
        debs = os.path.join(self.cache, "debs")
        os.makedirs(debs, exist_ok=True)
        deb = self.fetch(package["Filename"], os.path.join(debs, os.path.basename(package["Filename"])),
                         package["SHA256"])
        run(["dpkg-deb", "-x", deb, to])


def unpacked(path, mark, fill):
    """A directory of the cache that fill(dir) makes, made anew when what it holds (mark) is another."""
    stamp = os.path.join(path, ".mark")
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as f:
            if f.read() == mark:
                return path
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    fill(path)
    with open(stamp, "w", encoding="utf-8") as f:
        f.write(mark)
    return path


def version_key(name):
    return [int(n) for n in re.findall(r"\d+", name)]


def get_tools(cache, archives):
    wanted = [(suite, p) for suite, pattern in TOOLS for p in archives(suite).newest(pattern)]

    def fill(path):
        for suite, package in wanted:
            archives(suite).unpack(package, path)

    return unpacked(os.path.join(cache, "tools"), "\n".join(sorted(p["Filename"] for _, p in wanted)), fill)


def get_kernel(cache, archives, name):
    """(path of vmlinuz, release)"""
    suite, pattern, _ = KERNELS[name]
    image = max(archives(suite).newest(pattern), key=lambda p: version_key(p["Package"]))
    release = image["Package"].removeprefix("linux-image-")
    # Newer packages hold the image itself in linux-binary-*.
    parts = [image, *archives(suite).newest(re.escape(f"linux-binary-{release}"))]

    def fill(path):
        for package in parts:
            archives(suite).unpack(package, path)

    path = unpacked(os.path.join(cache, "kernels", name), "\n".join(p["Filename"] for p in parts), fill)
    for where, _, files in os.walk(path):
        for file in files:
            if file.startswith("vmlinuz"):
                return os.path.join(where, file), release
    raise FileNotFoundError(f"{release}: no vmlinuz in {path}")


def libraries(program):
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    return re.findall(r"(/\S+) \(0x", done.stdout)


def make_initramfs(tools, build, to):
    """A root with busybox, the programs under test, what drives them, and the libraries of all."""
    with tempfile.TemporaryDirectory(prefix="kilter-vm.") as root:
        def put(source, name, mode=0o755):
            target = os.path.join(root, name.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(source, target)
            os.chmod(target, mode)

        tests = os.path.join(build, "tests/bpf")
        programs = {os.path.join(build, "kilterd"): "/kilter/kilterd", os.path.join(build, "kilter"): "/usr/bin/kilter",
                    shutil.which("nginx", path="/usr/sbin:/usr/bin"): "/usr/sbin/nginx",
                    shutil.which("curl"): "/usr/bin/curl"}
        programs.update({os.path.join(tests, t): f"/kilter/build/tests/bpf/{t}"
                         for t in sorted(os.listdir(tests)) if t.endswith("_test")})
        for source, name in programs.items():
            put(source, name)
            for library in libraries(source):
                put(library, library)
        put(os.path.join(tools, "bin/busybox"), "/bin/busybox")
        put(os.path.join(HERE, "init"), "/init")
        put(os.path.join(HERE, "guest.sh"), "/kilter/guest.sh")
        put(os.path.join(HERE, "nginx.conf"), "/kilter/nginx.conf", 0o644)
        for name, text in (("passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
                           ("group", "root:x:0:\nwww-data:x:33:\nadm:x:4:\nnogroup:x:65534:\n"),
                           ("hosts", "127.0.0.1 localhost\n::1 localhost\n")):
            os.makedirs(os.path.join(root, "etc"), exist_ok=True)
            with open(os.path.join(root, "etc", name), "w", encoding="ascii") as f:
                f.write(text)
        for name in ("dev", "var/log/nginx", "var/lib/nginx", "usr/lib/nginx/modules"):
            os.makedirs(os.path.join(root, name), exist_ok=True)
        names = run(["find", "."], cwd=root, capture_output=True).stdout
        with open(to, "wb") as f:
            run([os.path.join(tools, "bin/cpio"), "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=names, stdout=f)


def boot(tools, vmlinuz, initramfs, out, name, runs):
    """Runs one machine to its end; returns (status inside or None, seconds)."""
    log, said = (os.path.join(out, f"{name}.{e}") for e in ("log", "out"))
    for path in (log, said):
        open(path, "wb").close()
    libs = ":".join(os.path.join(tools, d) for d in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    # 5.10 has no bpf among its default lsm=.
    line = f"console=ttyS0 quiet panic=-1 oops=panic lsm=lockdown,yama,integrity,apparmor,bpf vm_limit={GUEST_SECONDS}"
    argv = [os.path.join(tools, "usr/bin/qemu-system-x86_64"), "-L", os.path.join(tools, "usr/share/qemu"),
            "-L", os.path.join(tools, "usr/share/seabios"), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(CPUS),
            "-m", str(MEMORY_MIB), "-kernel", vmlinuz, "-initrd", initramfs,
            "-append", line + ("" if runs else " vm_refuses"), "-serial", f"file:{log}", "-serial", f"file:{said}"]
    begin = time.monotonic()
    with open(os.path.join(out, f"{name}.qemu"), "wb") as errors:
        try:
            subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                           env={**os.environ, "LD_LIBRARY_PATH": libs}, timeout=GUEST_SECONDS + BOOT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            errors.write(b"ended: the machine took too long\n")
    with open(said, encoding="utf-8", errors="replace") as f:
        end = re.findall(r"^VM-RC (\d+)", f.read(), re.M)
    return (int(end[-1]) if end else None), time.monotonic() - begin


def results(out, name):
    """({test: passed}, the daemon's status document or None, cases passed) of what a machine said."""
    with open(os.path.join(out, f"{name}.out"), encoding="utf-8", errors="replace") as f:
        text = f.read().replace("\r", "")
    tests = {n: status == "0" for n, status in re.findall(r"^VM-TEST (.*) (\d+)$", text, re.M)}
    status = re.findall(r"^VM-STATUS (\{.*\})$", text, re.M)
    for case in re.findall(r"^ok \d+(?: - \S+)? # SKIP.*$", text, re.M):
        tests[f"skipped: {case}"] = False  # these machines can run everything
    cases = len(re.findall(r"^ok \d+", text, re.M)) + sum(1 for t, ok in tests.items() if ok and t.startswith("daemon"))
    return tests, json.loads(status[-1]) if status else None, cases


def one(tools, kernel, initramfs, out, name):
    runs = KERNELS[name][2]
    vmlinuz, release = kernel
    code, seconds = boot(tools, vmlinuz, initramfs, out, name, runs)
    if code is None and not results(out, name)[0]:  # never reached a test: emulation is not perfect
        for end in ("log", "out"):
            os.replace(os.path.join(out, f"{name}.{end}"), os.path.join(out, f"{name}.first.{end}"))
        print(f"     {name}: never reached a test (console: {os.path.join(out, name + '.first.log')}), once more", flush=True)
        code, seconds = boot(tools, vmlinuz, initramfs, out, name, runs)
    tests, status, cases = results(out, name)
    failed = [t for t, ok in tests.items() if not ok]
    good = code == 0 and not failed and (status is not None or not runs)
    print(f"{'ok  ' if good else 'FAIL'} {name:5} {release:32} {cases:3} cases {seconds:4.0f} s"
          f"{'' if runs else '  (refuses to start, as it should)'}", flush=True)
    if not good:
        for t in failed:
            print(f"     failed: {t}")
        if code != 0 and not failed:
            print(f"     ended early: status {code}")
        print(f"     console: {os.path.join(out, name + '.log')}, output: {os.path.join(out, name + '.out')}", flush=True)
    return good, status


def table(statuses):
    """Feature x kernel, as the daemon itself reports its tiers."""
    rows = {}
    for name, status in statuses.items():
        for probe in (status or {}).get("probes", []):
            tier = probe["tier"] if probe.get("running") else "off"
            rows.setdefault(probe["name"], {})[name] = tier
    width = max([len(r) for r in rows] + [8])
    print("\n" + " ".join([f"{'probe':{width}}"] + [f"{n:>9}" for n in statuses]))
    for row, tiers in rows.items():
        print(" ".join([f"{row:{width}}"] + [f"{tiers.get(n, '-'):>9}" for n in statuses]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--cache", default=os.environ.get("KILTER_VM_CACHE") or os.path.expanduser("~/.cache/kilter-vm"))
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // CPUS))
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    args = parser.parse_args()
    for name in args.kernels:
        if name not in KERNELS:
            parser.error(f"unknown kernel '{name}'; known: {', '.join(KERNELS)}")
    names = args.kernels or list(KERNELS)
    out = os.path.join(args.build, "vm")
    os.makedirs(out, exist_ok=True)
    known = {}

    def archives(suite):
        if suite not in known:
            known[suite] = Archive(args.cache, suite)
        return known[suite]

    os.makedirs(args.cache, exist_ok=True)
    begin = time.monotonic()
    tools = get_tools(args.cache, archives)
    kernels = {name: get_kernel(args.cache, archives, name) for name in names}
    initramfs = os.path.join(out, "initramfs.cpio")
    make_initramfs(tools, args.build, initramfs)
    print(f"kernels and tools are there: {time.monotonic() - begin:.0f} s", flush=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        done = dict(zip(names, pool.map(lambda n: one(tools, kernels[n], initramfs, out, n), names)))
    table({name: status for name, (_, status) in done.items()})
    bad = [name for name, (good, _) in done.items() if not good]
    print(f"\n{len(done) - len(bad)} kernels passed, {len(bad)} failed, {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
