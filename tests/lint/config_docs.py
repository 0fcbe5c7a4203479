#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The reference of the configuration is what kilterd prints: config_docs.py KILTERD PAGE MANUAL

PAGE must be the very text; MANUAL must have the same keys, in the same order, with the same defaults.
"""
import difflib
import re
import subprocess
import sys


def table(page):
    return [(key, value if value != '""' else "empty")
            for key, value in re.findall(r"^\| `([^`]+)` \| `([^`]*)` \|", page, flags=re.M)]


def manual_items(manual):
    items = re.findall(r"^\.It Va (\S+)\n(.*?)(?=^\.It|^\.El)", manual, flags=re.M | re.S)
    return [(key, match.group(1) if (match := re.search(r"^Default: (.*)\.$", text, flags=re.M)) else None)
            for key, text in items]


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: config_docs.py KILTERD PAGE MANUAL")
    program, page, manual = sys.argv[1:]
    printed = subprocess.run([program, "--config-docs"], check=True, capture_output=True, text=True).stdout
    with open(page, encoding="utf-8") as f:
        written = f.read()
    with open(manual, encoding="utf-8") as f:
        items = manual_items(f.read())
    bad = False
    if written != printed:
        sys.stdout.writelines(difflib.unified_diff(written.splitlines(True), printed.splitlines(True), page, "printed"))
        print(f"{page} is stale: kilterd --config-docs > {page}")
        bad = True
    if items != table(printed):
        differ = [f"{a} here, {b} printed" for a, b in zip(items, table(printed)) if a != b]
        print(f"{manual} has other keys or defaults than kilterd: {differ[0] if differ else 'more or fewer'}")
        bad = True
    sys.exit(bad)


if __name__ == "__main__":
    main()
