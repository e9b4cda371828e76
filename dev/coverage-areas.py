#!/usr/bin/env python3
"""For dev/coverage.sh: sums the lines of each area up, and fails when too few of them ran.

    cargo llvm-cov report --json --summary-only | coverage-areas.py ROOT

ROOT is the folder that the areas are in. Standard output is one line an area and one for all. Exit codes: 0 ok, 1 too few
lines ran or a file is of no area, 2 usage.
"""

import json
import os
import sys

# Each with the share of its lines that must run; none where only the sum of all is looked at.
AREAS = {"access/src": None, "http/src": None, "api/src/auth": 90.0}
OF_ALL = 90.0


def sums(files, root):
    """Lines and lines that ran, by area."""
    found = {area: [0, 0] for area in AREAS}
    for file in files:
        path = os.path.relpath(file["filename"], root)
        area = next((area for area in AREAS if path.startswith(area + "/")), None)
        if area is None:
            sys.exit(f"coverage: {path} is of no area: leave it out, or name its area in coverage-areas.py")
        lines = file["summary"]["lines"]
        found[area][0] += lines["count"]
        found[area][1] += lines["covered"]
    return found


def is_enough(name, lines, ran, least):
    share = 100 * ran / lines if lines else 0.0
    bar = "" if least is None else f", at least {least:g}"
    print(f"{name:<14}{lines:>7} lines {lines - ran:>5} missed {share:>7.2f} %{bar}")
    return least is None or share >= least


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    areas = sums(json.load(sys.stdin)["data"][0]["files"], sys.argv[1])
    enough = [is_enough(area, lines, ran, AREAS[area]) for area, (lines, ran) in areas.items()]
    enough.append(is_enough("all", sum(n for n, _ in areas.values()), sum(n for _, n in areas.values()), OF_ALL))
    if all(enough):
        return 0
    print("coverage: too few lines ran: see the files above that miss most", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
