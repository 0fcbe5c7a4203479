#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What kilter costs, beside the same machine without it and beside tools that do a part of its work.

Contenders take turns (interleaved), so that a slow minute of the machine hits all of them; every
figure is a median with its spread. Traffic stays on loopback and in a cgroup of the bench's own.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402

BAR_NS_PER_REQUEST_AND_SIDE = 250
BAR_CORE_AT_10K = 0.05
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
BPFTRACE = """
tracepoint:raw_syscalls:sys_enter { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@start[tid]/ { @ns[comm] = hist(nsecs - @start[tid]); delete(@start[tid]); }
"""


def wrk(sandbox, port, seconds, connections=32):
    """Requests per second and p99 in ms, as wrk says."""
    said = sandbox.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()
    return rate, float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def programs():
    """Run time and run count of every BPF program, as the kernel itself accounts them."""
    said = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, check=True).stdout
    return {p["id"]: p for p in json.loads(said)}


class Stats:
    """bpf_stats on for a while: it costs time itself, so it is never on in a rate comparison."""

    path = "/proc/sys/kernel/bpf_stats_enabled"

    def __enter__(self):
        with open(self.path, encoding="ascii") as f:
            self.old = f.read()
        with open(self.path, "w", encoding="ascii") as f:
            f.write("1")
        return self

    def __exit__(self, *_):
        with open(self.path, "w", encoding="ascii") as f:
            f.write(self.old)


EMPTY = """
#include <linux/bpf.h>
__attribute__((section("cgroup_skb/ingress"), used)) int empty_ingress(struct __sk_buff *skb) { return 1; }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""


class Empty:
    """A program that does nothing, beside kilter's: its time is what the accounting itself takes."""

    def __init__(self, sandbox):
        source, target = sandbox.write("empty.c", EMPTY), sandbox.path("empty.o")
        machine = f"/usr/include/{platform.machine()}-linux-gnu"
        subprocess.run(["clang", "-O2", "-target", "bpf", "-I", machine, "-c", source, "-o", target], check=True)
        self.pin, self.cgroup = os.path.join(sandbox.bpffs, "empty"), sandbox.cgroup
        subprocess.run(["bpftool", "prog", "load", target, self.pin], check=True)
        self.attached = ["cgroup_inet_ingress", "pinned", self.pin]
        subprocess.run(["bpftool", "cgroup", "attach", self.cgroup, *self.attached, "multi"], check=True)

    def close(self):
        subprocess.run(["bpftool", "cgroup", "detach", self.cgroup, *self.attached], check=True)
        os.unlink(self.pin)


def usage(pids):
    """CPU seconds and resident bytes of processes."""
    seconds, resident = 0.0, 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        seconds += (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            resident += 1024 * int(re.search(r"^Rss:\s+(\d+)", f.read(), re.M).group(1))
    return seconds, resident


def family(pid):
    found, todo = [pid], [pid]
    while todo:
        current = todo.pop()
        with open(f"/proc/{current}/task/{current}/children", encoding="ascii") as f:
            children = [int(c) for c in f.read().split()]
        found += children
        todo += children
    return found


class Bench:
    def __init__(self, runs, seconds):
        self.runs, self.seconds = runs, seconds
        self.sandbox = kilter.Sandbox("bench")
        self.nginx = self.sandbox.nginx('location / { access_log off; return 200 "ok\\n"; }', workers=1)
        self.daemon = kilter.Daemon(self.sandbox)

    def with_kilter(self):
        self.daemon.args = ["--unpin"]
        self.daemon.start()
        return self.daemon.stop

    def with_process(self, argv, ready):
        # These tools read tracefs, which not every host has mounted: they get it in a mount namespace.
        tracefs = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$@\""

        def start():
            process = self.sandbox.spawn(["unshare", "-m", "sh", "-c", tracefs, "sh", *argv], inside=False,
                                         stdout=subprocess.DEVNULL)
            time.sleep(ready)
            if process.poll() is not None:
                raise RuntimeError(f"{argv[0]} ended with {process.returncode}")

            def stop():
                process.terminate()
                process.wait(20)
            return stop
        return start

    def compare(self):
        contenders = {
            "nothing": lambda: (lambda: None),
            "kilter": self.with_kilter,
            "bpftrace: latency histogram of system calls by comm": self.with_process(["bpftrace", "-e", BPFTRACE], 5),
        }
        # Debian's libbpf-tools are in sbin; bpfcc-tools and perf-tools use the same names elsewhere.
        for name, argv in (("libbpf-tools: syscount -L", ["/usr/sbin/syscount", "-L", "-i", "1"]),
                           ("libbpf-tools: tcplife", ["/usr/sbin/tcplife"])):
            contenders[name] = self.with_process(argv, 3)
        rates = {name: [] for name in contenders}
        tails = {name: [] for name in contenders}
        failed = {}
        for _ in range(self.runs):
            for name, start in contenders.items():
                if name in failed:
                    continue
                try:
                    stop = start()
                except (RuntimeError, AssertionError, OSError) as error:
                    failed[name] = str(error).splitlines()[0]
                    continue
                try:
                    rate, tail = wrk(self.sandbox, self.nginx.port, self.seconds)
                finally:
                    stop()
                rates[name].append(rate)
                tails[name].append(tail)
        result = {}
        for name in contenders:
            if name in failed:
                result[name] = {"failed": failed[name]}
                continue
            # Each round against its own bare run: what both share divides out.
            ratios = [r / b for r, b in zip(rates[name], rates["nothing"])]
            result[name] = {"requests_per_second": spread(rates[name]), "p99_ms": spread(tails[name]),
                            "ratio": spread(ratios),
                            "p99_ratio": spread([t / b for t, b in zip(tails[name], tails["nothing"])])}
        return result

    def per_event(self):
        others = programs()  # of whoever else uses this machine
        stop = self.with_kilter()
        empty = Empty(self.sandbox)
        try:
            per_request, net, table = [], [], {}
            with Stats():
                for _ in range(self.runs):
                    before = programs()
                    start = sum(self.daemon.counts(kilter.SERVER).values())
                    wrk(self.sandbox, self.nginx.port, self.seconds)
                    time.sleep(3 * kilter.TICK_SECONDS)
                    requests = sum(self.daemon.counts(kilter.SERVER).values()) - start
                    total, runs, accounting = 0, 0, 0
                    for number, program in programs().items():
                        if number in others:
                            continue
                        old = before.get(number, {})
                        ns = program.get("run_time_ns", 0) - old.get("run_time_ns", 0)
                        count = program.get("run_cnt", 0) - old.get("run_cnt", 0)
                        if not count:
                            continue
                        row = table.setdefault(program.get("name", str(number)), {"ns": [], "per_request": []})
                        row["ns"].append(ns / count)
                        row["per_request"].append(count / max(1, requests))
                        if program.get("name", "").startswith("request_"):
                            total, runs = total + ns, runs + count
                        if program.get("name", "") == "empty_ingress":
                            accounting = ns / count
                    sides = 2 * max(1, requests)  # both sides are observed
                    per_request.append(total / sides)
                    net.append((total - runs * accounting) / sides)
        finally:
            empty.close()
            stop()
        return {"ns_per_request_and_side": spread(per_request), "bar": BAR_NS_PER_REQUEST_AND_SIDE,
                "ns_without_accounting": spread(net),
                "programs": {name: {"ns_per_event": spread(row["ns"]), "events_per_request": spread(row["per_request"])}
                             for name, row in sorted(table.items())}}

    def daemon_cost(self):
        rows = []
        stop = self.with_kilter()
        try:
            for rate in (0, 1000, 10000, None):
                pids = family(self.daemon.process.pid)
                cpu, _ = usage(pids)
                began = time.monotonic()
                reached = 0.0
                if rate is None:
                    reached, _ = wrk(self.sandbox, self.nginx.port, 10)
                elif rate:
                    self.sandbox.run(["h2load", "--h1", "-n", str(rate * 10), "-c", "10", "-t", "1",
                                      "--rps", str(rate // 10), f"http://127.0.0.1:{self.nginx.port}/"])
                    reached = rate * 10 / (time.monotonic() - began)
                else:
                    time.sleep(10)
                elapsed = time.monotonic() - began
                after, resident = usage(pids)
                rows.append({"asked": rate, "requests_per_second": reached,
                             "cores": (after - cpu) / elapsed, "rss_bytes": resident})
        finally:
            stop()
        return rows

    def close(self):
        self.sandbox.close()


def show(result):
    print(f"\n{'contender':<54} {'req/s':>9} {'ratio':>7} {'spread':>15} {'p99 ms':>8} {'ratio':>7}")
    for name, row in result["compare"].items():
        if "failed" in row:
            print(f"{name:<54} could not run here: {row['failed']}")
            continue
        ratio = row["ratio"]
        print(f"{name:<54} {row['requests_per_second']['median']:>9.0f} {ratio['median']:>7.3f} "
              f"{ratio['min']:>7.3f}-{ratio['max']:<7.3f} {row['p99_ms']['median']:>8.3f} "
              f"{row['p99_ratio']['median']:>7.3f}")
    events = result["per_event"]
    whole, net = events["ns_per_request_and_side"], events["ns_without_accounting"]
    print(f"\nkernel time per request and side: {whole['median']:.0f} ns ({whole['min']:.0f}-{whole['max']:.0f}); "
          f"less what an empty program is accounted for: {net['median']:.0f} ns ({net['min']:.0f}-{net['max']:.0f}); "
          f"bar {events['bar']} ns")
    print(f"{'program':<24} {'ns/event':>9} {'events/request':>15}")
    for name, row in events["programs"].items():
        print(f"{name:<24} {row['ns_per_event']['median']:>9.0f} {row['events_per_request']['median']:>15.2f}")
    print(f"\n{'requests/s':>12} {'daemon, cores':>14} {'RSS, MiB':>10}    (bar: {BAR_CORE_AT_10K} core at 10,000/s)")
    for row in result["daemon"]:
        print(f"{row['requests_per_second']:>12.0f} {row['cores']:>14.4f} {row['rss_bytes'] / 2**20:>10.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    bench = Bench(options.runs, options.seconds)
    try:
        result = {"kernel": platform.release(), "cpus": os.cpu_count(), "compare": bench.compare(),
                  "per_event": bench.per_event(), "daemon": bench.daemon_cost()}
    finally:
        bench.close()
    show(result)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
