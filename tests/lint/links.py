#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Refuses links that lead nowhere, and pages that nothing leads to: links.py START...

Follows the relative links of Markdown pages from each START. A link must name a file or folder
that exists and, where it has a fragment, a heading of that page. Every page beside the last START
must be reached.
"""
import os
import re
import sys

LINK = re.compile(r"\[[^][]*\]\(([^()\s]+)\)")


def text_of(page):
    """The page without what is shown as code."""
    with open(page, encoding="utf-8") as f:
        text = re.sub(r"^```.*?^```$", "", f.read(), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page):
    with open(page, encoding="utf-8") as f:
        headings = re.findall(r"^#+ +(.*)$", f.read(), flags=re.M)
    return {re.sub(r"[^\w -]", "", h.strip().lower()).replace(" ", "-") for h in headings}


def main():
    todo, seen, bad = list(sys.argv[1:]), set(), []
    while todo:
        page = os.path.normpath(todo.pop())
        if page in seen:
            continue
        seen.add(page)
        for link in LINK.findall(text_of(page)):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, fragment = link.partition("#")
            target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if not os.path.exists(target):
                bad.append(f"{page}: '{link}' leads nowhere")
            elif target.endswith(".md"):
                if fragment and fragment not in anchors(target):
                    bad.append(f"{page}: '{link}': {target} has no such heading")
                todo.append(target)
    folder = os.path.dirname(sys.argv[-1])
    for name in sorted(os.listdir(folder)):
        if name.endswith(".md") and os.path.join(folder, name) not in seen:
            bad.append(f"{os.path.join(folder, name)}: no page of the index leads here")
    print("\n".join(bad), end="\n" if bad else "")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
