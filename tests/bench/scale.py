#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How kilter grows: with request series, with open connections, with connections that come and go.

Series are written into the kernel's maps by tests/stimulus/series, as no test machine has ten thousand services;
connections are real, over loopback. Writes a table, and with --plot the curves.
"""

import argparse
import gzip
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
import kilter  # noqa: E402

SERIES = (1000, 10000, 25000, 50000, 100000)
CONNECTIONS = (5000, 10000, 25000, 50000)
ROOM = "limits: {series: 131072, conns: 131072, workloads: 16384, peers: 65536}\n"
NAMED = ROOM.replace("}", ", services: 16384, edges: 65536}")  # a name and its edges for each of the services
TICKS = 5            # looked at, after two that are not
FILES = 8000         # sockets of one process: below what hosts allow
HOLD_SECONDS = 600   # longer than anything here takes
CHURN_SECONDS = 20
MIB = 2 ** 20


def resident(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        return 1024 * int(re.search(r"^Rss:\s+(\d+)", f.read(), re.M).group(1))


def peak(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return 1024 * int(re.search(r"^VmHWM:\s+(\d+)", f.read(), re.M).group(1))


def on_cpu(pid):
    """ns; of its one thread."""
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0])


def slab():
    """What the kernel's objects take, sockets and their storage among them."""
    with open("/proc/meminfo", encoding="ascii") as f:
        return 1024 * int(re.search(r"^SUnreclaim:\s+(\d+)", f.read(), re.M).group(1))


def raise_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def accept_all(port):
    raise_files()
    kept = []
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listener:
        while True:
            kept.append(listener.accept()[0])


def connect_many(port, count, at):
    """Opens them, says so by making a file, and keeps them."""
    raise_files()
    kept = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count)]
    with open(at, "w", encoding="ascii"):
        pass
    time.sleep(HOLD_SECONDS)
    return kept


class Scale:
    def __init__(self):
        self.sandbox = kilter.Sandbox("scale")
        self.configure(ROOM)

    def configure(self, limits):
        self.daemon = kilter.Daemon(self.sandbox, limits, args=["--unpin"])

    def sample(self, name):
        """Of one line: a text of hundreds of MiB is not parsed for it."""
        return float(re.search(rb"^" + re.escape(name).encode() + rb" (\S+)$", self.text(), re.M).group(1))

    def text(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.daemon.port}/metrics", timeout=120) as answer:
            return answer.read()

    def ticks(self):
        """The duration of a tick, ms."""
        found = []
        time.sleep(2 * kilter.TICK_SECONDS)
        for _ in range(TICKS):
            time.sleep(kilter.TICK_SECONDS)
            found.append(1000 * self.sample("kilter_tick_duration_seconds"))
        return statistics.median(found)

    def scrape(self, front):
        """samples: what Prometheus calls series, a line each."""
        used, began = sum(map(on_cpu, front)), time.monotonic()
        body = self.text()
        took, used = time.monotonic() - began, sum(map(on_cpu, front)) - used
        return {"scrape_ms": 1000 * took, "front_ms": used / 1e6, "scrape_bytes": len(body),
                "scrape_gzip_bytes": len(gzip.compress(body, 6)), "samples": body.count(b"\n") - body.count(b"\n#")}

    def figures(self):
        agent, *front = kilter.family(self.daemon.process.pid)
        return {"tick_ms": self.ticks(), **self.scrape(front), "agent_bytes": resident(agent),
                "front_bytes": sum(resident(p) for p in front), "front_peak_bytes": sum(peak(p) for p in front),
                "map_bytes": self.sample("kilter_map_memory_bytes"), "dropped": self.lost()}

    def lost(self):
        """In the kernel's maps and in the model: a name or an edge too many is one as well."""
        return sum(float(v) for v in re.findall(rb"^kilter_(?:dropped|model_overflow)_total\{.*\} (\S+)$", self.text(), re.M))

    def series(self, limits):
        rows = []
        self.configure(limits)
        for count in SERIES:
            self.daemon.start()
            maker = self.sandbox.spawn([os.path.join(kilter.BUILD, "tests/stimulus/series"),
                                        os.path.join(self.sandbox.bpffs, "kilter"), str(count), str(HOLD_SECONDS)])
            kilter.wait_for("all series are there", lambda n=count: self.sample('kilter_series{map="series"}') >= n, 60, every=1)
            rows.append({"series": count, **self.figures()})
            maker.terminate()
            maker.wait()
            self.daemon.stop()
        return rows

    def hold(self, count, tag):
        """Opens that many connections; returns what ends them."""
        ends = []
        for i, first in enumerate(range(0, count, FILES)):
            port, done = kilter.free_port(), self.sandbox.path(f"{tag}{count}.{i}")
            ends.append(self.sandbox.serve(accept_all, port))
            kilter.wait_for("a server listens", lambda p=port: kilter.can_connect(p))
            ends.append(self.sandbox.serve(connect_many, port, min(FILES, count - first), done))
            kilter.wait_for("they are connected", lambda d=done: os.path.exists(d), 120)

        def end():
            for one in reversed(ends):
                one()
        return end

    def connections(self):
        rows = []
        for count in CONNECTIONS:
            self.daemon.start()
            before = slab()
            end = self.hold(count, "watched")
            kilter.wait_for("all are counted", lambda n=count: self.daemon.value(
                "kilter_tcp_connections_open", role="client") >= n, 30)
            row = {"connections": count, **self.figures(), "memory_bytes": slab() - before}
            end()
            kilter.wait_for("all are gone", lambda: self.daemon.value("kilter_tcp_connections_open") == 0, 60)
            self.daemon.stop()
            before = slab()  # the same without kilter: what the sockets themselves take
            end = self.hold(count, "bare")
            row["bare_memory_bytes"] = slab() - before
            end()
            rows.append(row)
        return rows

    def churn(self):
        """Short connections as fast as they go: what is counted, what is lost, what stays behind."""
        nginx = self.sandbox.nginx('location / { access_log off; return 200 "ok\\n"; }', workers=1)
        self.daemon.start()
        agent = self.daemon.process.pid
        before = {"rss": resident(agent), "maps": self.daemon.value("kilter_map_memory_bytes"), "slab": slab()}
        said = self.sandbox.run(["wrk", "-t1", "-c64", f"-d{CHURN_SECONDS}s", "-H", "Connection: close",
                                 f"http://127.0.0.1:{nginx.port}/"])
        asked = int(re.search(r"(\d+) requests in", said).group(1))
        kilter.wait_for("all are closed", lambda: self.daemon.value("kilter_tcp_connections_open") == 0, 60)
        counted = sum(self.daemon.counts(kilter.SERVER).values())
        row = {"seconds": CHURN_SECONDS, "requests": asked, "counted": counted, "per_second": asked / CHURN_SECONDS,
               "opened": self.daemon.value("kilter_tcp_connections_opened_total", role="server"),
               "closed": self.daemon.value("kilter_tcp_connections_closed_total", role="server"),
               "dropped": self.lost(), "agent_grown_bytes": resident(agent) - before["rss"],
               "maps_grown_bytes": self.daemon.value("kilter_map_memory_bytes") - before["maps"],
               "slab_grown_bytes": slab() - before["slab"]}
        self.daemon.stop()
        return row

    def close(self):
        self.sandbox.close()


def table(rows, first, columns):
    print(f"\n{first:>12} " + " ".join(f"{title:>14}" for title, _ in columns))
    for row in rows:
        print(f"{row[first]:>12} " + " ".join(f"{value(row):>14}" for _, value in columns))


def show(result):
    common = (("tick, ms", lambda r: f"{r['tick_ms']:.1f}"), ("scrape, ms", lambda r: f"{r['scrape_ms']:.0f}"),
              ("its lines", lambda r: f"{r['samples']}"), ("CPU ms/100,000", lambda r: f"{1e5 * r['front_ms'] / r['samples']:.0f}"),
              ("scrape, MiB", lambda r: f"{r['scrape_bytes'] / MIB:.2f}"),
              ("gzip, MiB", lambda r: f"{r['scrape_gzip_bytes'] / MIB:.2f}"),
              ("agent, MiB", lambda r: f"{r['agent_bytes'] / MIB:.1f}"), ("front, MiB", lambda r: f"{r['front_bytes'] / MIB:.1f}"),
              ("at most", lambda r: f"{r['front_peak_bytes'] / MIB:.1f}"), ("maps, MiB", lambda r: f"{r['map_bytes'] / MIB:.1f}"), ("dropped", lambda r: f"{r['dropped']:.0f}"))
    table(result["series"], "series", common)
    print("\nthe same with a name for every service and an edge for every pair:")
    table(result["named"], "series", common)
    table(result["connections"], "connections", (
        *common[:1], *common[4:],
        ("ours, B/conn.", lambda r: f"{(r['memory_bytes'] - r['bare_memory_bytes']) / r['connections']:.0f}")))
    c = result["churn"]
    print(f"\n{c['per_second']:.0f} connections/s for {c['seconds']} s: {c['requests']} by wrk's count, {c['counted']} by ours; "
          f"{c['opened']:.0f} opened, {c['closed']:.0f} closed, {c['dropped']:.0f} dropped; "
          f"the agent grew by {c['agent_grown_bytes'] / MIB:.1f} MiB, the maps by {c['maps_grown_bytes'] / MIB:.2f} MiB")


def plot(result, to):
    """Four small curves, by gnuplot."""
    def data(rows, x, *ys):
        return "\n".join(" ".join(f"{f(r):.4f}" for f in (lambda r: r[x] / 1000, *ys)) for r in rows) + "\ne\n"

    panels = (
        ("request series, thousands", "ms", [("tick", "series", lambda r: r["tick_ms"]),
                                             ("tick, with all names and edges", "named", lambda r: r["tick_ms"]),
                                             ("scrape", "series", lambda r: r["scrape_ms"]),
                                             ("scrape, with all", "named", lambda r: r["scrape_ms"])]),
        ("request series, thousands", "MiB", [("agent", "series", lambda r: r["agent_bytes"] / MIB),
                                              ("front", "series", lambda r: r["front_bytes"] / MIB),
                                              ("maps", "series", lambda r: r["map_bytes"] / MIB),
                                              ("agent, with all names and edges", "named", lambda r: r["agent_bytes"] / MIB),
                                              ("front, with all", "named", lambda r: r["front_bytes"] / MIB),
                                              ("a scrape, with all", "named", lambda r: r["scrape_bytes"] / MIB)]),
        ("open connections, thousands", "ms", [("tick", "connections", lambda r: r["tick_ms"])]),
        ("open connections, thousands", "MiB", [("agent", "connections", lambda r: r["agent_bytes"] / MIB),
                                                ("kernel, with the sockets", "connections", lambda r: r["memory_bytes"] / MIB),
                                                ("kernel, the sockets alone", "connections",
                                                 lambda r: r["bare_memory_bytes"] / MIB)]))
    script = [f"set terminal svg size 900,640 font 'sans,11' background rgb 'white'; set output '{to}'",
              "set multiplot layout 2,2; set key left top; set grid; set yrange [0:*]; set xrange [0:*]"]
    for xlabel, ylabel, curves in panels:
        script.append(f"set xlabel '{xlabel}'; set ylabel '{ylabel}'")
        script.append("plot " + ", ".join(f"'-' using 1:2 with linespoints title '{title}'" for title, _, _ in curves))
        script.append("".join(data(result[kind], "connections" if kind == "connections" else "series", f) for _, kind, f in curves).rstrip())
    subprocess.run(["gnuplot"], input="\n".join(script) + "\n", text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--plot", metavar="FILE", help="an SVG")
    options = parser.parse_args()
    scale = Scale()
    try:
        result = {"series": scale.series(ROOM), "named": scale.series(NAMED), "connections": scale.connections(),
                  "churn": scale.churn()}
    finally:
        scale.close()
    show(result)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
            f.write("\n")
    if options.plot:
        plot(result, options.plot)


if __name__ == "__main__":
    main()
