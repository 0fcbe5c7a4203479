#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots Debian's own kernels in QEMU and runs the tests of the BPF programs and of the daemon in each.

    tests/vm/vm.py [--build DIR] [--cache DIR] [--jobs N] [--bench] [KERNEL...]

Kernels, QEMU and busybox are fetched by name from Debian's archive and checked as apt does: the
signature of InRelease, the hash of Packages in it, the hash of each package in that. Nothing is
installed and apt's own state is not touched. Emulation (TCG) alone: no /dev/kvm is needed.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from archive import Archive, run, unpacked

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

# Bookworm's QEMU 7.2 crashes guests at random under TCG and misses code that another CPU has patched.
ARCHES = {
    "amd64": {"qemu": "qemu-system-x86", "triplet": "x86_64-linux-gnu", "console": "ttyS0", "said": "ttyS1",
              "command": ("qemu-system-x86_64", "-machine", "q35", "-cpu", "max")},
    "arm64": {"qemu": "qemu-system-arm", "triplet": "aarch64-linux-gnu", "console": "ttyAMA0", "said": "ttyAMA1",
              "command": ("qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on")},
}
LOCKED = {"sid", "6.1-arm64"}  # these boot with lockdown=integrity, as Secure Boot does it
# The probes that have a lower tier, user/probe/registry.c, and all of them in it.
LOWER = dict.fromkeys(("tcp_conn", "guard_connect", "guard_iter", "guard_udp", "audit_process", "syscall", "sock_iter"),
                      "lower")
# Linux 5.10: an LSM program is no matter of age, and there is no guard_iter at all.
OLD = {p: tier for p, tier in {**LOWER, "guard_iter": ""}.items() if p != "audit_process"}
NO_BPF_LSM = {"6.1"}  # booted without bpf among its LSMs, where an LSM program is never called

# name: (architecture, suite, package of the image, the probes that are not in their full tier there: docs/kernels.md,
#        where the libraries are from: this machine, a suite, or "static": the programs of `make static`, which have none)
KERNELS = {
    "5.10": ("amd64", "bullseye", r"linux-image-5\.10\.[\d.-]+-cloud-amd64", OLD, "static"),
    "6.1": ("amd64", "bookworm", r"linux-image-6\.1\.[\d.-]+-cloud-amd64", {"guard_iter": "lower", "audit_process": "middle"}, None),
    "6.12": ("amd64", "trixie", r"linux-image-6\.12\.[\w.+-]+-cloud-amd64", {}, "trixie"),
    "sid": ("amd64", "sid", r"linux-image-\d[\w.+-]+-cloud-amd64", {}, "static"),
    "6.1-arm64": ("arm64", "bookworm", r"linux-image-6\.1\.[\d.-]+-cloud-arm64", {"guard_iter": "lower", "audit_process": "lower"}, "bookworm"),
}
TOOLS = (
    ("bookworm-backports", "qemu-system-(common|data)|seabios"),
    ("bookworm", r"busybox-static|cpio|libaio1|libcapstone4|libvdeplug2|libnl-3-200|libnl-route-3-200|libibverbs1|"
                 r"librdmacm1|libslirp0|libfuse3-3|libdaxctl1|libndctl6|libpmem1|liburing2|libfdt1|libpixman-1-0|"
                 r"libnuma1|libglib2.0-0|libgnutls30|libjpeg62-turbo|libpng16-16|libseccomp2|libsasl2-2|libbpf1|"
                 r"libzstd1|zlib1g|libkeyutils1|lld-14"),
)
# What another architecture is built against, what a machine with a suite's libraries runs with, and what both run.
BUILD = ("libc6-dev", "libgcc-12-dev", "libbpf-dev", "libelf-dev", "libmicrohttpd-dev", "libjansson-dev", "libyaml-dev",
         "libseccomp-dev", "libcap-dev", "libnghttp2-dev", "libprotobuf-c-dev", "zlib1g-dev", "libcmocka-dev")
LIBRARIES = r"libbpf1|libmicrohttpd12(t64)?|libjansson4|libyaml-0-2|libseccomp2|libcap2|libnghttp2-14|libprotobuf-c1|libcmocka0"
PROGRAMS = ("nginx", "curl", "busybox-static")
GUEST_SECONDS = 2400  # the tests inside: half of it, beside another machine, for the slowest
BOOT_SECONDS = 90    # before and after them
MEMORY_MIB = 1536
CPUS = 2             # per-CPU maps want more than one, and one is unplugged
REASON_LINES = 12    # of what a failed test said
FEW_EVENTS = 20      # a mean of fewer is in brackets


def version_key(name):
    return [int(n) for n in re.findall(r"\d+", name)]


def get_tools(cache, archives, arches):
    wanted = [(suite, p) for suite, pattern in TOOLS for p in archives(suite).newest(pattern)]
    for arch in arches:
        wanted += [("bookworm-backports", p) for p in archives("bookworm-backports").newest(ARCHES[arch]["qemu"])]

    def fill(path):
        for suite, package in wanted:
            archives(suite).unpack(package, path)

    name = "tools-" + "-".join(sorted(arches))
    return unpacked(os.path.join(cache, name), "\n".join(sorted(p["Filename"] for _, p in wanted)), fill)


def get_kernel(cache, archives, name):
    """(path of vmlinuz, release)"""
    arch, suite, pattern, _, _ = KERNELS[name]
    image = max(archives(suite, arch).newest(pattern), key=lambda p: version_key(p["Package"]))
    release = image["Package"].removeprefix("linux-image-")
    # Newer packages hold the image itself in linux-binary-*.
    parts = [image, *archives(suite, arch).newest(re.escape(f"linux-binary-{release}"))]

    def fill(path):
        for package in parts:
            archives(suite, arch).unpack(package, path)

    path = unpacked(os.path.join(cache, "kernels", name), "\n".join(p["Filename"] for p in parts), fill)
    for where, _, files in os.walk(path):
        for file in files:
            if file.startswith("vmlinuz"):
                return os.path.join(where, file), release
    raise FileNotFoundError(f"{release}: no vmlinuz in {path}")


def get_sysroot(cache, archives, arch, suite):
    """The libraries of a suite and programs for its machine; for another architecture the headers, too."""
    archive = archives(suite, arch)
    wanted = [p["Package"] for p in archive.newest(LIBRARIES)] if arch == "amd64" else BUILD
    packages = archive.with_libraries([*wanted, *PROGRAMS])

    def fill(path):
        for package in packages:
            archive.unpack(package, path)
        # Links to /lib would lead out of the root.
        for where, _, files in os.walk(path):
            for name in files:
                link = os.path.join(where, name)
                if os.path.islink(link) and os.readlink(link).startswith("/"):
                    target = path + os.readlink(link)
                    os.unlink(link)
                    os.symlink(os.path.relpath(target, where), link)

    return unpacked(os.path.join(cache, f"sysroot-{suite}-{arch}"), "\n".join(sorted(p["Filename"] for p in packages)), fill)


def make(*argv, path=""):
    """A make of its own: the one that may have called us lends no job slots across this program."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(["make", "-s", "--no-print-directory", f"-j{os.cpu_count()}", *argv], cwd=ROOT, text=True,
                          capture_output=True, check=False, env={**env, "PATH": f"{path}{env['PATH']}"})
    if done.returncode:
        sys.exit(f"make {' '.join(argv)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def cross_build(tools, sysroot, arch, build):
    """Everything for another architecture, by clang: it needs no compiler of its own for each."""
    triplet = ARCHES[arch]["triplet"]
    make(f"ARCH={arch}", f"B={build}",
         f"CC=clang --target={triplet} --sysroot={sysroot} -fuse-ld=lld -Wno-unused-command-line-argument",
         "HARDEN=-fstack-protector-strong -fPIE", "PKG_CFLAGS=",
         "PKG_LIBS=-lbpf -lmicrohttpd -ljansson -lyaml -lseccomp -lcap -lnghttp2 -lprotobuf-c -lz", "all", "build-bpf",
         path=os.path.join(tools, "usr/lib/llvm-14/bin") + ":")
    return build


class Programs:
    """Where a machine's programs and their libraries come from: this machine, or a root of another architecture."""

    def __init__(self, root, triplet):
        self.root = root
        self.dirs = [f"{root}/{d}" for d in (f"lib/{triplet}", f"usr/lib/{triplet}", "lib", "usr/lib", "lib64")]

    def path(self, name):
        return next(p for p in (f"{self.root}/{d}/{name}" for d in ("usr/sbin", "usr/bin", "bin")) if os.path.exists(p))

    def libraries(self, program):
        """(file, name in the machine) of all that the program is linked with, the loader too."""
        found, wanted = {}, [program]
        while wanted:
            text = run(["readelf", "-ld", wanted.pop()], capture_output=True, text=True).stdout
            loader = re.findall(r"interpreter: (/[^\]]+)\]", text)
            if loader:  # newer suites have all of /lib in /usr
                found[loader[0]] = next(p for p in (f"{self.root}{u}{loader[0]}" for u in ("", "/usr")) if os.path.exists(p))
            for name in re.findall(r"\(NEEDED\).*\[(.*)\]", text):
                if any(os.path.basename(f) == name for f in found):
                    continue
                path = next(p for p in (f"{d}/{name}" for d in self.dirs) if os.path.exists(p))
                found[path[len(self.root):]] = path
                wanted.append(path)
        return found.items()


def make_initramfs(tools, programs_of, busybox, build, daemons, to):
    """A root with busybox, the programs under test, what drives them, and the libraries of all. daemons: where the
    two programs are, build: where the tests are."""
    with tempfile.TemporaryDirectory(prefix="kilter-vm.") as root:
        def put(source, name, mode=0o755):
            target = os.path.join(root, name.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(source, target)
            os.chmod(target, mode)

        tests = os.path.join(build, "tests/bpf")
        programs = {os.path.join(daemons, "kilterd"): "/kilter/kilterd", os.path.join(daemons, "kilter"): "/usr/bin/kilter",
                    programs_of.path("nginx"): "/usr/sbin/nginx", programs_of.path("curl"): "/usr/bin/curl"}
        programs.update({os.path.join(tests, t): f"/kilter/build/tests/bpf/{t}"
                         for t in sorted(os.listdir(tests)) if t.endswith("_test")})
        for source, name in programs.items():
            put(source, name)
            for library, file in programs_of.libraries(source):
                put(file, library)
        put(busybox, "/bin/busybox")
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


def boot(tools, vmlinuz, initramfs, out, name, architecture, words, counted=False):
    """Runs one machine to its end; returns (status inside or None, seconds). words are for its command line. counted:
    it has one CPU, whose clock is how many instructions it has executed, a nanosecond each."""
    log, said = (os.path.join(out, f"{name}.{e}") for e in ("log", "out"))
    for path in (log, said):
        open(path, "wb").close()
    libs = ":".join(os.path.join(tools, d) for d in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    arch = ARCHES[architecture]
    command, *machine = arch["command"]
    # 5.10 has no bpf among its default lsm=.
    lsm = "lockdown,yama,integrity,apparmor" + ("" if name in NO_BPF_LSM else ",bpf")
    line = (f"console={arch['console']} quiet panic=-1 oops=panic lsm={lsm} "
            f"vm_said={arch['said']} vm_limit={GUEST_SECONDS} {words}")
    speed = ("-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-smp", "1") if counted else \
            ("-accel", "tcg,thread=multi", "-smp", str(CPUS))
    argv = [os.path.join(tools, "usr/bin", command), "-L", os.path.join(tools, "usr/share/qemu"),
            "-L", os.path.join(tools, "usr/share/seabios"), "-nodefaults", "-no-user-config", "-display", "none",
            "-no-reboot", *machine, *speed, "-m", str(MEMORY_MIB),
            "-kernel", vmlinuz, "-initrd", initramfs, "-append", line, "-serial", f"file:{log}", "-serial", f"file:{said}"]
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
    """({test: passed}, {run: what is known of it}, cases passed) of what a machine said. Known of a run are the daemon's
    status document, and how the machine slept."""
    with open(os.path.join(out, f"{name}.out"), encoding="utf-8", errors="replace") as f:
        text = f.read().replace("\r", "")
    tests = {n: status == "0" for n, status in re.findall(r"^VM-TEST [\d.]+ (.*) (\d+)$", text, re.M)}
    known = {}
    for what, run, value in re.findall(r"^VM-(STATUS|SUSPEND) (\w+) (.*)$", text, re.M):
        if re.fullmatch(r"\{.*\}", value):
            value = json.loads(value)
        elif what == "STATUS":  # no daemon
            continue
        known.setdefault(run, {})[what] = value
    for case in re.findall(r"^ok \d+(?: - \S+)? # SKIP.*$", text, re.M):
        tests[f"skipped: {case}"] = False  # these machines can run everything
    cases = len(re.findall(r"^ok \d+", text, re.M)) + sum(1 for t, ok in tests.items() if ok and not t.startswith("bpf:"))
    return tests, known, cases


def reasons(out, name, failed):
    """What a machine said when a test failed, few lines of it: of a BPF test what cmocka complains of, of another what was
    printed last before its result. Who reads the log of a CI has nothing else."""
    with open(os.path.join(out, f"{name}.out"), encoding="utf-8", errors="replace") as f:
        lines = f.read().replace("\r", "").splitlines()
    begin = 0
    for end, line in enumerate(lines):
        test = re.match(r"VM-TEST [\d.]+ (.*) \d+$", line)
        if not test:
            continue
        if test[1] in failed:
            yield test[1], ([l for at, l in enumerate(lines[begin:end], begin) if l.startswith("not ok") or
                             (l.startswith("#") and any(b.startswith("not ok") for b in lines[max(begin, at - 4):at]))]
                            or [l for l in lines[begin:end] if l.strip()][-REASON_LINES:])[:REASON_LINES]
        begin = end + 1


def one(tools, kernel, initramfs, out, name):
    best = KERNELS[name][3]
    tiers = ("full", "middle", "lower")  # of the audit: each one that is no better than the best
    audit = ",".join(tiers[tiers.index(best.get("audit_process", "full")):])
    words = (f"vm_tiers={'lower' if best == OLD else 'full,lower'} vm_audit={audit}"
             f"{' lockdown=integrity' if name in LOCKED else ''}")
    vmlinuz, release = kernel
    code, seconds = boot(tools, vmlinuz, initramfs, out, name, KERNELS[name][0], words)
    if code is None and not results(out, name)[0]:  # never reached a test: emulation is not perfect
        for end in ("log", "out"):
            os.replace(os.path.join(out, f"{name}.{end}"), os.path.join(out, f"{name}.first.{end}"))
        print(f"     {name}: never reached a test (console: {os.path.join(out, name + '.first.log')}), once more", flush=True)
        code, seconds = boot(tools, vmlinuz, initramfs, out, name, KERNELS[name][0], words)
    tests, known, cases = results(out, name)
    failed = [t for t, ok in tests.items() if not ok]
    for run, wanted in (("best", best), ("lower", {**LOWER, "guard_iter": best.get("guard_iter", "lower")})):
        got = {p["name"]: p["tier"] for p in known.get(run, {}).get("STATUS", {}).get("probes", []) if p["tier"] != "full"}
        if got != wanted:
            failed.append(f"{run}: not in their full tier: {got}; awaited: {wanted}")
    good = code == 0 and not failed
    print(f"{'ok  ' if good else 'FAIL'} {name:9} {release:32} {cases:3} cases {seconds:4.0f} s", flush=True)
    if not good:
        why = dict(reasons(out, name, failed))
        for t in failed:
            print("\n       ".join([f"     failed: {t}", *why.get(t, ())]))
        if code != 0 and not failed:
            print(f"     ended early: status {code}")
        print(f"     console: {os.path.join(out, name + '.log')}, output: {os.path.join(out, name + '.out')}", flush=True)
    return good, known.get("best", {})


def grid(title, names, rows):
    """Prints {row: {kernel: cell}}."""
    width = max([len(r) for r in rows] + [len(title)])
    print("\n" + " ".join([f"{title:{width}}"] + [f"{n:>9}" for n in names]))
    for row, cells in rows.items():
        print(" ".join([f"{row:{width}}"] + [f"{cells.get(n, '-'):>9}" for n in names]))


def features(best):
    """Feature x kernel, as the daemon itself reports its tiers; and how the machine slept."""
    rows = {}
    for name, known in best.items():
        for probe in known.get("STATUS", {}).get("probes", []):
            tier = probe["tier"] if probe.get("running") else "off"
            rows.setdefault(probe["name"], {})[name] = tier
    rows["(suspend)"] = {name: known.get("SUSPEND", "-") for name, known in best.items()}
    grid("tier of", best, rows)
    for name, known in best.items():
        for probe in known.get("STATUS", {}).get("probes", []):
            if probe["tier"] in ("middle", "lower"):
                print(f"{name}: {probe['name']}: " + ", ".join(why.split(": ")[0] for why in probe["reason"].split("; ")))


def bench_one(tools, kernel, initramfs, out, name):
    """(whether it worked, the document of `kilter bench` or why there is none), of one machine that counts its
    instructions: they are its clock, so that neither this machine's load nor the emulator's caches are in it."""
    code, seconds = boot(tools, kernel[0], initramfs, out, f"{name}-bench", KERNELS[name][0],
                         f"vm_bench=1{' lockdown=integrity' if name in LOCKED else ''}", counted=True)
    said = os.path.join(out, f"{name}-bench.out")
    with open(said, encoding="utf-8", errors="replace") as f:
        found = re.findall(r"^VM-BENCH (.*)$", f.read().replace("\r", ""), re.M)
    bench = found[-1] if found else "kilter bench was not reached"
    print(f"{'FAIL' if code else 'ok  '} {name:9} {kernel[1]:32} {seconds:4.0f} s" + (f"; output: {said}" if code else ""),
          flush=True)
    return code == 0, json.loads(bench) if bench.startswith("{") else bench


def costs(benches):
    """Program x kernel: what the kernel accounts an event for, as a multiple of an empty program there."""
    rows, without = {}, {}
    for name, bench in benches.items():
        if isinstance(bench, str):
            without[name] = bench
        elif bench["accounting_ns"] <= 0:
            without[name] = "the kernel accounts no time for an empty program"
        else:
            sums = {}  # the kernel cuts names at 15 characters, so that two can be one
            for program in bench["programs"]:
                events, ns = sums.get(program["name"], (0, 0))
                sums[program["name"]] = (events + program["events"], ns + program["events"] * program["ns_per_event"])
            for program, (events, ns) in sums.items():
                if events:
                    ratio = f"{ns / events / bench['accounting_ns'] + 1:.1f}"
                    rows.setdefault(program, {})[name] = ratio if events >= FEW_EVENTS else f"({ratio})"
    for cells in rows.values():
        cells.update({name: "none" for name in without})
    print("\nEmulated, no times: what the kernel accounts an event for, as a multiple of an empty program on that kernel, by\n"
          f"a clock that counts instructions. In brackets the mean of fewer than {FEW_EVENTS} events; -: there was none")
    grid("EMULATED, x empty", benches, dict(sorted(rows.items())))
    for name, why in without.items():
        print(f"{name}: none: {why}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--cache", default=os.environ.get("KILTER_VM_CACHE") or os.path.expanduser("~/.cache/kilter-vm"))
    parser.add_argument("--jobs", type=int, default=max(2, (os.cpu_count() or 2) // CPUS))
    parser.add_argument("--bench", action="store_true", help="no tests: what each BPF program costs, in instructions")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    args = parser.parse_args()
    args.build = os.path.abspath(args.build)
    for name in args.kernels:
        if name not in KERNELS:
            parser.error(f"unknown kernel '{name}'; known: {', '.join(KERNELS)}")
    names = args.kernels or list(KERNELS)
    out = os.path.join(args.build, "vm")
    os.makedirs(out, exist_ok=True)
    known = {}

    def archives(suite, arch="amd64"):
        if (suite, arch) not in known:
            known[suite, arch] = Archive(args.cache, suite, arch)
        return known[suite, arch]

    os.makedirs(args.cache, exist_ok=True)
    begin = time.monotonic()
    tools = get_tools(args.cache, archives, {KERNELS[name][0] for name in names})
    kernels = {name: get_kernel(args.cache, archives, name) for name in names}
    roots = {(arch, userland): get_sysroot(args.cache, archives, arch, userland)
             for arch, _, _, _, userland in map(KERNELS.get, names) if userland not in (None, "static")}
    print(f"kernels and tools are there: {time.monotonic() - begin:.0f} s", flush=True)
    initramfs = {}
    for name in names:
        arch, _, _, _, userland = KERNELS[name]
        root = roots.get((arch, userland), "")
        build = daemons = args.build
        if arch != "amd64":
            build = daemons = cross_build(tools, root, arch, os.path.join(args.build, arch))
        elif userland == "static":
            daemons = os.path.join(args.build, "static")
            make(f"B={args.build}", "static")
        busybox = os.path.join(tools if arch == "amd64" else root, "bin/busybox")
        initramfs[name] = os.path.join(out, f"{name}.cpio")
        make_initramfs(tools, Programs(root, ARCHES[arch]["triplet"]), busybox, build, daemons, initramfs[name])
    print(f"all is built: {time.monotonic() - begin:.0f} s", flush=True)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        order = names[::-1]  # the slow ones, which stand last in the table, first
        work = bench_one if args.bench else one
        done = dict(zip(order, pool.map(lambda n: work(tools, kernels[n], initramfs[n], out, n), order)))
    said = {name: done[name][1] for name in names}
    (costs if args.bench else features)(said)
    bad = [name for name, (good, _) in done.items() if not good]
    print(f"\n{len(done) - len(bad)} kernels passed, {len(bad)} failed, {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
