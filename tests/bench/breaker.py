#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A circuit breaker beside none and beside HAProxy as a sidecar: what it costs while all is well, what it
spares while the server fails, and how soon calls go through again.

Arms take turns (contest.py says why), each with a server of its own. A call is one GET on a connection of its
own. While all is well the callers ask as fast as they can; for the rest they ask at one rate, whatever becomes
of a call, so that every arm is offered the same.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402
from bench import CLOCK_TICKS, cpu  # noqa: E402
from contest import STIMULUS, haproxy_config, spread  # noqa: E402

CALLERS, RATE = 16, 640  # calls a second by all of them together, once the server is to fail
FAILING_MS = 20  # what a failing answer takes
FAILURES, SUCCESSES = 5, 3  # in a row: until it opens, until it closes
OPEN = 2  # seconds until the next trial or check
BEFORE, AFTER = 1, 3 * OPEN  # seconds at that rate around the failing phase
BURST = 0.3  # seconds at its end in which one more caller asks without a pause
GOLDEN = 0.618  # its multiples, less their whole part, cover a span evenly, however many there are

POLICY = f"""
guard:
  max_open_ratio: 1
  policies:
    - name: upstream
      destination: "127.0.0.1:{{port}}"
      mode: enforce
      consecutive_failures: {FAILURES}
      failure_ratio: 0
      base_open: {OPEN}s
      max_open: {OPEN}s
      jitter: 0
      half_open_permits: {SUCCESSES}
      half_open_successes: {SUCCESSES}
"""

HAPROXY_CHECKS = f"""
	option httpchk GET /check
	default-server inter {OPEN}s fastinter 100ms downinter {OPEN}s fall {FAILURES} rise {SUCCESSES}"""
HAPROXY_OBSERVES = f"check observe layer7 error-limit {FAILURES} on-error mark-down"

# figure -> (how it is printed, what it is)
FIGURES = {
    "well_rate": ("{:.0f}", "well: requests/s"),
    "well_p50_ms": ("{:.3f}", "well: p50, ms"),
    "well_p99_ms": ("{:.3f}", "well: p99, ms"),
    "well_cpu_us": ("{:.1f}", "well: CPU of all, us a request"),
    "well_arm_cpu_us": ("{:.1f}", "well: of that agent or sidecar, us"),
    "well_other_cores": ("{:.2f}", "well: the rest of the machine, cores"),
    "trip_ms": ("{:.1f}", "failing: until the first is turned away, ms"),
    "reached": ("{:.0f}", "failing: requests that reached the server"),
    "checks": ("{:.0f}", "failing: health checks that reached it"),
    "failing_p50_ms": ("{:.3f}", "failing: a call, p50, ms"),
    "turned_p99_us": ("{:.0f}", "failing: a call turned away, p99, us"),
    "failing_callers_cpu_us": ("{:.1f}", "failing: CPU of the callers, us a call"),
    "failing_cpu_us": ("{:.1f}", "failing: CPU of all, us a call"),
    "failing_arm_cores": ("{:.4f}", "failing: agent or sidecar, cores"),
    "burst_p50_us": ("{:.1f}", "failing: a call without a pause, p50, us"),
    "burst_cpu_us": ("{:.1f}", "failing: its caller's CPU, us"),
    "first_ok_ms": ("{:.0f}", "well again: until the first ok, ms"),
    "steady_ok_ms": ("{:.0f}", "well again: until all are ok, ms"),
    "broken": ("{:.0f}", "calls that timed out or were cut off"),
}
ABSOLUTE = ("well_other_cores", "first_ok_ms", "steady_ok_ms")  # a ratio of these says nothing


def cpu_clock(pid):
    """Seconds of a process's own clock, to the nanosecond; what it does in a softirq is in it on most kernels."""
    return time.clock_gettime(~pid << 3 | 2)  # clock_getcpuclockid(3)


def burnt(pids):
    return sum(cpu_clock(pid) for pid in pids)


def busy():
    """Seconds that all CPUs were not idle."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / CLOCK_TICKS


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


def per(total, count):
    return 1e6 * total / count if count else None


class Upstream:
    def __init__(self, sandbox):
        self.port = kilter.free_port()
        self.process = sandbox.spawn([os.path.join(STIMULUS, "upstream"), str(self.port), str(FAILING_MS)], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        kilter.wait_for("the server listens", lambda: kilter.can_connect(self.port))

    def turn(self, state):
        """From now on "well" or "failing"; what it counted so far: requests, checks; both again while failing."""
        self.process.stdin.write(state + "\n")
        self.process.stdin.flush()
        return [int(n) for n in self.process.stdout.readline().split()]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


class Bare:
    def __init__(self, sandbox, port):
        self.port = port

    def pids(self):
        return []

    def stop(self):
        pass


class Enforcing(Bare):
    def __init__(self, sandbox, port):
        super().__init__(sandbox, port)
        self.daemon = kilter.Daemon(sandbox, POLICY.format(port=port), ["--unpin"]).start()

    def pids(self):
        return kilter.family(self.daemon.process.pid)

    def stop(self):
        self.daemon.stop()


class Sidecar(Bare):
    def __init__(self, sandbox, port):
        super().__init__(sandbox, kilter.free_port())
        conf = sandbox.write("haproxy.cfg", haproxy_config(self.port, port, HAPROXY_OBSERVES, HAPROXY_CHECKS))
        self.process = sandbox.spawn(["haproxy", "-db", "-f", conf], inside=False)
        kilter.wait_for("haproxy listens", lambda: kilter.can_connect(self.port))

    def pids(self):
        return kilter.family(self.process.pid)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


ARMS = {"none": Bare, "kilter": Enforcing, "HAProxy": Sidecar}


class Call:
    def __init__(self, line):
        began, took, self.outcome = line.split()
        self.began, self.took = int(began) / 1e9, int(took) / 1e9
        self.ended = self.began + self.took
        self.turned = self.outcome in ("turned", "refused")


def parse(said):
    """CPU seconds and calls that callers printed."""
    lines = said.splitlines()
    return int(lines[0]) / 1e9, [Call(line) for line in lines[1:]]


class Round:
    """One arm, from its start to its end."""

    def __init__(self, sandbox, arm, seconds, failing):
        self.sandbox, self.seconds, self.failing = sandbox, seconds, failing
        self.upstream = Upstream(sandbox)
        try:
            self.arm = arm(sandbox, self.upstream.port)
            try:
                self.result = {**self.well(), **self.outage()}
            finally:
                self.arm.stop()
        finally:
            self.upstream.stop()

    def callers(self, count, rate, seconds):
        return [os.path.join(STIMULUS, "callers"), *map(str, (self.arm.port, count, rate, seconds))]

    def well(self):
        groups = self.arm.pids(), [self.upstream.process.pid]
        before, began, busy_before = [burnt(pids) for pids in groups], time.monotonic(), busy()
        ours, calls = parse(self.sandbox.run(self.callers(CALLERS, 0, self.seconds)))
        arm, server = [burnt(pids) - b for pids, b in zip(groups, before)]
        others = (busy() - busy_before - ours - arm - server) / (time.monotonic() - began)
        bad = sum(c.outcome != "ok" for c in calls)
        if bad:
            raise AssertionError(f"{bad} of {len(calls)} calls were not ok while all was well")
        elapsed = max(c.ended for c in calls) - min(c.began for c in calls)
        took = [c.took for c in calls]
        return {"well_rate": len(calls) / elapsed, "well_p50_ms": 1e3 * quantile(took, 0.5),
                "well_p99_ms": 1e3 * quantile(took, 0.99), "well_cpu_us": per(ours + arm + server, len(calls)),
                "well_arm_cpu_us": per(arm, len(calls)), "well_other_cores": others}

    def outage(self):
        process = self.sandbox.spawn(self.callers(CALLERS, RATE, BEFORE + self.failing + BURST + AFTER),
                                     stdout=subprocess.PIPE, text=True)
        groups = [process.pid], self.arm.pids(), [self.upstream.process.pid]
        time.sleep(BEFORE)
        self.upstream.turn("failing")
        fails, before = time.monotonic(), [burnt(pids) for pids in groups]
        time.sleep(self.failing)
        ends, spent = time.monotonic(), [burnt(pids) - b for pids, b in zip(groups, before)]
        reached = self.upstream.turn("failing")
        burst = parse(self.sandbox.run(self.callers(1, 0, BURST)))
        self.upstream.turn("well")
        heals = time.monotonic()
        _, calls = parse(process.communicate(timeout=60)[0])
        return {"reached": reached[2], "checks": reached[3], "broken": sum(c.outcome == "broken" for c in calls),
                **self.failure([c for c in calls if fails <= c.began < ends], ends - fails, spent),
                **self.burst(*burst),
                **self.recovery([c for c in calls if c.ended > heals], heals)}

    def burst(self, spent, calls):
        return {"burst_p50_us": 1e6 * quantile([c.took for c in calls], 0.5), "burst_cpu_us": per(spent, len(calls))}

    def failure(self, calls, elapsed, spent):
        failed = [c.ended for c in calls if c.outcome == "failed"]
        turned = [c for c in calls if c.turned]
        trip = 1e3 * (min(c.ended for c in turned) - min(failed)) if failed and turned else None
        took = [c.took for c in turned]
        return {"trip_ms": trip, "failing_p50_ms": 1e3 * quantile([c.took for c in calls], 0.5),
                "turned_p99_us": 1e6 * quantile(took, 0.99) if took else None,
                "failing_callers_cpu_us": per(spent[0], len(calls)), "failing_cpu_us": per(sum(spent), len(calls)),
                "failing_arm_cores": spent[1] / elapsed}

    def recovery(self, calls, heals):
        good = [c.ended for c in calls if c.outcome == "ok"]
        bad = max((c.ended for c in calls if c.outcome != "ok"), default=heals)
        steady = [t for t in good if t > bad]
        return {"first_ok_ms": 1e3 * (min(good) - heals) if good else None,
                "steady_ok_ms": 1e3 * (min(steady) - heals) if steady else None}


def compare(sandbox, rounds, seconds):
    """{arm: its figures of each round, or why it could not run}"""
    rows, broken = {name: [] for name in ARMS}, {}
    for i in range(rounds):
        # Outages end in another part of the time between trials in each round, and are as long for every arm.
        failing = seconds + 2 * OPEN * (i * GOLDEN % 1)
        for name, arm in ARMS.items():
            if name in broken:
                continue
            try:
                rows[name].append(Round(sandbox, arm, seconds, failing).result)
            except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
                broken[name] = (str(error).splitlines() or [type(error).__name__])[0]
    return {name: {"failed": broken[name]} if name in broken else summary(rows[name], rows["none"]) for name in ARMS}


def summary(rows, bare):
    """{figure: values and their ratios to the bare run of the same round}; what never happened is not in it."""
    result = {}
    for figure in FIGURES:
        values = [r[figure] for r in rows if r[figure] is not None]
        ratios = [r[figure] / b[figure] for r, b in zip(rows, bare)
                  if r[figure] is not None and b[figure] and figure not in ABSOLUTE]
        if values:
            result[figure] = {"value": spread(values), **({"ratio": spread(ratios)} if ratios else {})}
    return result


def ratio_text(ratio):
    return f"{ratio:.3f}" if ratio >= 0.1 else f"{ratio:.2g}"


def show_row(title, name, row, form, rounds):
    line = f"{title:<45} {name:<8} "
    if not row:
        print(f"{line}{'-':>9}")
        return
    value = {k: form.format(row["value"][k]) for k in ("median", "min", "max")}
    line += f"{value['median']:>9} {value['min'] + '-' + value['max']:>17}"
    if "ratio" in row:
        ratio = {k: ratio_text(row["ratio"][k]) for k in ("median", "min", "max")}
        line += f" {ratio['median']:>7} {ratio['min'] + '-' + ratio['max']:>17}"
    if row["value"]["runs"] < rounds:
        line += f"  in {row['value']['runs']} of {rounds} rounds"
    print(line)


def show(result):
    print(f"{'':<45} {'':<8} {'median':>9} {'spread':>17} {'ratio':>7} {'spread':>17}")
    for figure, (form, title) in FIGURES.items():
        for name, arm in result["arms"].items():
            show_row(title, name, arm.get(figure), form, result["rounds"])
            title = ""
    for name, arm in result["arms"].items():
        if "failed" in arm:
            print(f"{name} could not run here: {arm['failed']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3, help="of health, and of failure at least")
    options = parser.parse_args()
    sandbox = kilter.Sandbox("breaker")
    try:
        arms = compare(sandbox, options.rounds, options.seconds)
    finally:
        sandbox.close()
    result = {"kernel": platform.release(), "cpus": os.cpu_count(), "cpu": cpu(), "rounds": options.rounds,
              "seconds": options.seconds, "callers": CALLERS, "rate": RATE, "failing_ms": FAILING_MS, "arms": arms}
    show(result)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
