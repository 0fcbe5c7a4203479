#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What kilter costs, beside the same machine without it and beside tools that do a part of its work.

Traffic stays on loopback and in a cgroup of the bench's own. contest.py holds who runs against whom.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402
from contest import Ground, hold, spread, wrk  # noqa: E402

BAR_NS_PER_REQUEST_AND_SIDE = 250
BAR_NS_PER_OPAQUE_PACKET = 60
BAR_CORE_AT_10K = 0.05
TOLERANCE = 0.05  # a median may be this much worse than the baseline's, where the spreads do not meet
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
SCRAPES = 20


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


class Bench(Ground):
    def __init__(self, runs, seconds):
        super().__init__(seconds)
        self.runs = runs

    def with_kilter(self):
        return self.kilter().start()

    def compare(self, only):
        return {name: {"unit": unit, "contenders": hold(workload, contenders, self.runs)}
                for name, (unit, workload, contenders) in self.contests().items() if name in only}

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

    def opaque(self):
        """Packets of a protocol that nobody parses: a branch after the header. Redis is one, so far."""
        others = programs()
        stop = self.with_kilter()
        empty = Empty(self.sandbox)
        try:
            figures = []
            with Stats():
                for _ in range(self.runs):
                    before = programs()
                    self.get(self.kilter())
                    rows = {}
                    for number, program in programs().items():
                        old = before.get(number, {})
                        count = program.get("run_cnt", 0) - old.get("run_cnt", 0)
                        if number not in others and count:
                            ns = program.get("run_time_ns", 0) - old.get("run_time_ns", 0)
                            rows[program.get("name", "")] = (ns, count)
                    accounting = rows["empty_ingress"][0] / rows["empty_ingress"][1]
                    ns, count = (rows["request_ingress"][k] + rows["request_egress"][k] for k in (0, 1))
                    figures.append(ns / count - accounting)
        finally:
            empty.close()
            stop()
        return {"ns_per_packet": spread(figures), "bar": BAR_NS_PER_OPAQUE_PACKET}

    def start_cost(self):
        """How long loading takes, and what the maps weigh when few series are there."""
        seconds = []
        for _ in range(self.runs):
            stop = self.with_kilter()
            steps = {s["name"]: s["took_seconds"] for s in self.daemon.json("/api/v1/status")["startup"]}
            seconds.append(steps["probes"])
            maps = json.loads(self.daemon.cli("bench", "--interval", "100ms", "-o", "json").stdout)["map_bytes"]
            stop()
        return {"load_seconds": spread(seconds), "map_bytes": maps}

    def scrape(self):
        """/metrics of ours, with a service under load, and of node_exporter."""
        port = kilter.free_port()
        stop = self.with_kilter()
        exporter = self.tool(["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{port}"], 2).start()
        rows = {"kilter": ([], []), "node_exporter": ([], [])}
        try:
            wrk(self.sandbox, self.nginx.port, 1)
            for _ in range(SCRAPES):
                for name, at in (("kilter", self.daemon.port), ("node_exporter", port)):
                    began = time.monotonic()
                    with urllib.request.urlopen(f"http://127.0.0.1:{at}/metrics", timeout=10) as answer:
                        rows[name][1].append(len(answer.read()))
                    rows[name][0].append(1000 * (time.monotonic() - began))
        finally:
            exporter()
            stop()
        return {name: {"ms": spread(ms), "bytes": sizes[-1]} for name, (ms, sizes) in rows.items()}

    def daemon_cost(self):
        rows = []
        stop = self.with_kilter()
        try:
            for rate in (0, 1000, 10000, None):
                pids = kilter.family(self.daemon.process.pid)
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


def show(result):
    for name, contest in result["compare"].items():
        print(f"\n{name:<54} {contest['unit']:>10} {'ratio':>7} {'spread':>15} {'p99 ms':>8} {'ratio':>7}")
        for contender, row in contest["contenders"].items():
            if "failed" in row:
                print(f"{contender:<54} could not run here: {row['failed']}")
                continue
            ratio = row["ratio"]
            tail = f"{row['p99_ms']['median']:>8.3f} {row['p99_ratio']['median']:>7.3f}" if "p99_ms" in row else ""
            print(f"{contender:<54} {row['rate']['median']:>10.0f} {ratio['median']:>7.3f} "
                  f"{ratio['min']:>7.3f}-{ratio['max']:<7.3f} {tail}".rstrip())
    events, opaque = result["per_event"], result["opaque"]
    whole, net, packet = events["ns_per_request_and_side"], events["ns_without_accounting"], opaque["ns_per_packet"]
    print(f"\nkernel time per request and side: {whole['median']:.0f} ns ({whole['min']:.0f}-{whole['max']:.0f}); "
          f"less what an empty program is accounted for: {net['median']:.0f} ns ({net['min']:.0f}-{net['max']:.0f}); "
          f"bar {events['bar']} ns")
    print(f"a packet of a protocol that is not parsed: {packet['median']:.0f} ns ({packet['min']:.0f}-{packet['max']:.0f}), "
          f"without the accounting; bar {opaque['bar']} ns")
    print(f"{'program':<24} {'ns/event':>9} {'events/request':>15}")
    for name, row in events["programs"].items():
        print(f"{name:<24} {row['ns_per_event']['median']:>9.0f} {row['events_per_request']['median']:>15.2f}")
    start = result["start"]
    print(f"\nloading: {start['load_seconds']['median']:.2f} s; maps, hardly used: {start['map_bytes'] / 2**20:.1f} MiB")
    for name, row in result["scrape"].items():
        print(f"a scrape of {name}: {row['ms']['median']:.2f} ms ({row['ms']['min']:.2f}-{row['ms']['max']:.2f}), "
              f"{row['bytes']} bytes")
    print(f"\n{'requests/s':>12} {'daemon, cores':>14} {'RSS, MiB':>10}    (bar: {BAR_CORE_AT_10K} core at 10,000/s)")
    for row in result["daemon"]:
        print(f"{row['requests_per_second']:>12.0f} {row['cores']:>14.4f} {row['rss_bytes'] / 2**20:>10.1f}")


def regressions(result, baseline):
    """What is worse than in the baseline by more than noise: the spreads do not meet, nor the medians nearly."""
    worse = []
    for name, contest in baseline["compare"].items():
        for contender in contest["contenders"]:
            old = contest["contenders"][contender].get("ratio")
            new = result["compare"].get(name, {}).get("contenders", {}).get(contender, {}).get("ratio")
            if contender.startswith("kilter") and old and new and new["max"] < old["min"] and \
                    new["median"] < old["median"] * (1 - TOLERANCE):
                worse.append(f"{name}, {contender}: {new['median']:.3f} of the bare rate; the baseline has {old['median']:.3f}")
    if baseline["cpu"] != result["cpu"]:
        return worse, f"nanoseconds are not compared: the baseline is from another CPU ({baseline['cpu']})"
    for what, old, new in (("a request and side", baseline["per_event"]["ns_without_accounting"],
                            result["per_event"]["ns_without_accounting"]),
                           ("a packet that is not parsed", baseline["opaque"]["ns_per_packet"],
                            result["opaque"]["ns_per_packet"])):
        if new["min"] > old["max"] and new["median"] > old["median"] * (1 + TOLERANCE):
            worse.append(f"{what}: {new['median']:.0f} ns; the baseline has {old['median']:.0f}")
    return worse, None


def cpu():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        found = re.search(r"^model name\s*: (.*)$", f.read(), re.M)
    return found.group(1) if found else platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write every figure there; such a file is a baseline, too")
    parser.add_argument("--baseline", metavar="FILE", help="compare with an earlier run; exit 1 when something is worse")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("contests", nargs="*", help="nginx, redis, system calls, execs; all by default")
    options = parser.parse_args()
    bench = Bench(options.runs, options.seconds)
    try:
        known = list(bench.contests())
        for name in options.contests:
            if name not in known:
                parser.error(f"unknown contest '{name}'; known: {', '.join(known)}")
        result = {"kernel": platform.release(), "cpus": os.cpu_count(), "cpu": cpu(),
                  "compare": bench.compare(options.contests or known), "per_event": bench.per_event(),
                  "opaque": bench.opaque(), "start": bench.start_cost(), "scrape": bench.scrape(),
                  "daemon": bench.daemon_cost()}
    finally:
        bench.close()
    show(result)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if options.baseline:
        with open(options.baseline, encoding="utf-8") as f:
            worse, note = regressions(result, json.load(f))
        for line in ([note] if note else []) + worse:
            print(line)
        print(f"{len(worse)} figures worse than in {options.baseline}")
        sys.exit(bool(worse))


if __name__ == "__main__":
    main()
