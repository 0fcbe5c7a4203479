# SPDX-License-Identifier: Apache-2.0
"""Contests: one workload, several contenders that watch it, in turns.

Contenders take turns (interleaved), so that a slow minute of the machine hits all of them. Every figure is a
ratio to the bare run of its own round, as a median with its spread: what both share divides out.
"""

import os
import re
import statistics
import subprocess
import time

import kilter

BPFTRACE_SYSCALLS = """
tracepoint:raw_syscalls:sys_enter { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@start[tid]/ { @ns[comm] = hist(nsecs - @start[tid]); delete(@start[tid]); }
"""
BPFTRACE_EXECS = "tracepoint:sched:sched_process_exec { printf(\"%s\\n\", str(args->filename)); }"
EVERY_CALL = "syscalls: {window: 1s, period: 1s}\n"
STIMULUS = os.path.join(kilter.BUILD, "tests/stimulus")


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


def wrk(sandbox, port, seconds, connections=32):
    """Requests per second and p99 in ms, as wrk says."""
    said = sandbox.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"])
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said).group(1))
    return rate, milliseconds(re.search(r"99%\s+([\d.]+(?:us|ms|s))", said).group(1))


def haproxy_config(front, port, options="", backend=""):
    """In front of one server, at its best: its own connections to it stay open from one call to the next."""
    return f"""
global
	nbthread 1
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
frontend in
	bind 127.0.0.1:{front}
	default_backend upstream
backend upstream
	http-reuse always{backend}
	server upstream 127.0.0.1:{port} {options}
"""


class Contender:
    """How one is started (returns how it is stopped), and what it changes for the workload: another port, a wrapper."""

    def __init__(self, start=lambda: (lambda: None), port=None, wrap=()):
        self.start, self.port, self.wrap = start, port, list(wrap)


class Ground:
    """The servers under load, and everybody who may watch them."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.sandbox = kilter.Sandbox("bench")
        self.nginx = self.sandbox.nginx('location / { access_log off; return 200 "ok\\n"; }', workers=1)
        self.redis = kilter.free_port()
        self.sandbox.spawn(["redis-server", "--port", str(self.redis), "--save", "", "--bind", "127.0.0.1"])
        kilter.wait_for("redis listens", lambda: kilter.can_connect(self.redis))
        self.daemon = kilter.Daemon(self.sandbox)

    def close(self):
        self.sandbox.close()

    # --- Workloads: a contender -> (rate, p99 in ms or None)

    def http(self, contender):
        return wrk(self.sandbox, contender.port or self.nginx.port, self.seconds)

    def get(self, contender):
        said = self.sandbox.run(["redis-benchmark", "-p", str(contender.port or self.redis), "-t", "get", "-c", "20",
                                 "-n", str(30000 * self.seconds), "--csv"])
        row = said.strip().splitlines()[-1].replace('"', "").split(",")
        return float(row[1]), float(row[6])

    def stimulus(self, name):
        def run(contender):
            said = self.sandbox.run([*contender.wrap, os.path.join(STIMULUS, name), str(self.seconds)])
            return float(said.strip().splitlines()[-1]), None
        return run

    # --- Contenders

    def kilter(self, config=""):
        def start():
            self.sandbox.write("kilter.yaml", config)
            self.daemon.args = ["--unpin"]
            self.daemon.start()
            return self.daemon.stop
        return Contender(start)

    def tool(self, argv, ready, port=None):
        # Tracers read tracefs, which not every host has mounted: they get it in a mount namespace.
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
        return Contender(start, port)

    def workers(self):
        """nginx's processes, for those who attach to processes."""
        with open(self.sandbox.path("nginx.pid"), encoding="ascii") as f:
            master = int(f.read())
        return [str(pid) for pid in kilter.children(master)]

    def haproxy(self):
        port = kilter.free_port()
        stats = f"""
frontend stats
	bind 127.0.0.1:{kilter.free_port()}
	http-request use-service prometheus-exporter
"""
        conf = self.sandbox.write("haproxy.cfg", haproxy_config(port, self.nginx.port) + stats)
        return self.tool(["haproxy", "-db", "-f", conf], 1, port)

    def auditd(self):
        """Rules of its own for /bin/true alone; what was set before is set again."""
        rule = ["always,exit", "-F", "arch=b64", "-S", "execve", "-F", f"exe={os.path.realpath('/bin/true')}"]
        conf = self.sandbox.path("audit")
        os.makedirs(conf, exist_ok=True)
        self.sandbox.write("audit/auditd.conf", f"log_file = {conf}/audit.log\nlog_format = RAW\nflush = INCREMENTAL_ASYNC\n"
                           "freq = 50\nmax_log_file = 1000\nmax_log_file_action = ROTATE\nnum_logs = 2\nspace_left = 75\n"
                           "space_left_action = SUSPEND\nadmin_space_left = 50\nadmin_space_left_action = SUSPEND\n"
                           "disk_full_action = SUSPEND\ndisk_error_action = SUSPEND\n")
        os.chmod(os.path.join(conf, "auditd.conf"), 0o640)
        inner = self.tool(["auditd", "-n", "-c", conf], 2)

        def control(*args):
            done = subprocess.run(["auditctl", *args], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"auditctl {args[0]}: {done.stderr.strip() or done.stdout.strip()}")
            return done.stdout

        def start():
            enabled = re.search(r"^enabled (\d)", control("-s"), re.M).group(1)
            stop = inner.start()
            try:
                control("-a", *rule)
                control("-e", "1")
            except RuntimeError:
                stop()
                raise

            def end():
                control("-d", *rule)
                control("-e", enabled)
                stop()
            return end
        return Contender(start)

    def contests(self):
        """name -> (what is counted, workload, contenders); the first contender is the bare run."""
        bare, ours = Contender(), self.kilter()
        syscount = self.tool(["/usr/sbin/syscount", "-L", "-i", "1"], 3)
        histogram = self.tool(["bpftrace", "-e", BPFTRACE_SYSCALLS], 5)
        return {
            "nginx": ("requests/s", self.http, {
                "nothing": bare, "kilter": ours,
                "HAProxy as a sidecar, for its metrics": self.haproxy(),
                "bpftrace: latency histogram of system calls by comm": histogram,
                # Debian's libbpf-tools are in sbin; bpfcc-tools and perf-tools use the same names elsewhere.
                "libbpf-tools: syscount -L": syscount,
                "libbpf-tools: tcplife": self.tool(["/usr/sbin/tcplife"], 3),
                "tcpdump with a port filter": self.tool(["tcpdump", "-i", "lo", "-w", "/dev/null", "-s", "256",
                                                         "tcp", "port", str(self.nginx.port)], 1),
                "perf trace -s of the workers": self.tool(["perf", "trace", "-s", "-p", ",".join(self.workers())], 2),
                "strace -c of the workers": self.tool(["strace", "-c", "-f", "-p", ",".join(self.workers())], 1)}),
            "redis": ("GETs/s", self.get, {
                "nothing": bare, "kilter": ours,
                "tcpdump with a port filter": self.tool(["tcpdump", "-i", "lo", "-w", "/dev/null", "-s", "256",
                                                         "tcp", "port", str(self.redis)], 1)}),
            "system calls": ("getppid/s", self.stimulus("syscalls"), {
                "nothing": bare, "kilter": ours, "kilter, every call": self.kilter(EVERY_CALL),
                "kilter, every call, lower tier": self.kilter(EVERY_CALL + "kernel: {task_storage: false}\n"),
                "bpftrace: latency histogram of system calls by comm": histogram,
                "libbpf-tools: syscount -L": syscount,
                "perf trace -s": Contender(wrap=["perf", "trace", "-s", "-o", self.sandbox.path("perf.out"), "--"]),
                "strace -c": Contender(wrap=["strace", "-c", "-f", "-o", self.sandbox.path("strace.out")])}),
            "execs": ("starts/s", self.stimulus("execs"), {
                "nothing": bare, "kilter": ours,
                "libbpf-tools: execsnoop": self.tool(["/usr/sbin/execsnoop"], 3),
                "bpftrace: exec": self.tool(["bpftrace", "-e", BPFTRACE_EXECS], 5),
                "auditd: a rule for execve": self.auditd()}),
        }


def hold(workload, contenders, runs):
    """{contender: rates, tails and their ratios to the bare run of the same round, or why it could not run}"""
    measured = {name: [] for name in contenders}
    failed = {}
    for _ in range(runs):
        for name, contender in contenders.items():
            if name in failed:
                continue
            try:
                stop = contender.start()
                try:
                    measured[name].append(workload(contender))
                finally:
                    stop()
            except (RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
                failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
    bare = measured[next(iter(contenders))]
    result = {}
    for name, rows in measured.items():
        if name in failed or len(rows) < len(bare):
            result[name] = {"failed": failed.get(name, "too few runs")}
            continue
        result[name] = {"rate": spread([r for r, _ in rows]), "ratio": spread([r / b for (r, _), (b, _) in zip(rows, bare)])}
        if rows[0][1] is not None:
            result[name]["p99_ms"] = spread([t for _, t in rows])
            result[name]["p99_ratio"] = spread([t / b for (_, t), (_, b) in zip(rows, bare)])
    return result
