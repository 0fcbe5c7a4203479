# SPDX-License-Identifier: Apache-2.0
"""Debian's archive without apt's state: packages by name, checked as apt does (the signature of
InRelease, the hash of Packages in it, the hash of each package in that), unpacked where one likes."""

import lzma
import os
import re
import shutil
import subprocess

ARCHIVE = os.environ.get("KILTER_VM_ARCHIVE") or "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
HELPER = "/usr/lib/apt/apt-helper"


def run(argv, **more):
    return subprocess.run(argv, check=True, **more)


class Archive:
    """Packages of one suite and architecture."""

    def __init__(self, cache, suite, arch="amd64"):
        self.cache = cache
        lists = os.path.join(cache, "lists")
        os.makedirs(lists, exist_ok=True)
        # Valid-Until is not looked at: suites that are no longer updated keep an old one.
        release = self.fetch(f"dists/{suite}/InRelease", os.path.join(lists, f"{suite}.InRelease"))
        text = run(["gpgv", "--quiet", "--keyring", KEYRING, "--output", "-", release], capture_output=True,
                   text=True).stdout
        name = f"main/binary-{arch}/Packages.xz"
        digest = re.search(rf"^SHA256:\n(?: .*\n)*? ([0-9a-f]{{64}}) +\d+ {name}$", text, re.M).group(1)
        path = self.fetch(f"dists/{suite}/{name}", os.path.join(lists, f"{suite}.{arch}.Packages.xz"), digest)
        with lzma.open(path, "rt", encoding="utf-8") as f:
            self.packages = {}
            for stanza in f.read().split("\n\n"):
                fields = dict(re.findall(r"^(Package|Version|Filename|SHA256|Depends): (.*)$", stanza, re.M))
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

    def with_libraries(self, names):
        """These packages, and the libraries and headers that they depend on."""
        found, wanted = {}, list(names)
        while wanted:
            name = wanted.pop()
            if name in found or name not in self.packages:
                continue
            found[name] = self.newest(re.escape(name))[0]
            for one in found[name].get("Depends", "").split(","):
                other = re.split(r"[ :(|]", one.strip())[0]
                if re.match(r"lib|zlib1g|linux-libc-dev", other):
                    wanted.append(other)
        return list(found.values())

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
