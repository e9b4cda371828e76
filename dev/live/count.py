"""Counts what was sent, from the clients' own copy: one OpenLineage event a line.

Prints one JSON object: events by type, and runs by state in total, by namespace and by the UTC day of their start, with
the rows and bytes that they wrote (the latest figure of each output of a run).
"""

import json
import sys
from collections import Counter, defaultdict
from datetime import datetime, timezone

STATES = {"COMPLETE": "completed", "FAIL": "failed", "ABORT": "aborted"}


def day_of(time: str) -> str:
    return datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone(timezone.utc).date().isoformat()


def collect(path: str):
    events, runs = Counter(), {}
    with open(path, encoding="utf-8") as lines:
        for line in filter(str.strip, lines):
            event = json.loads(line)
            kind = event.get("eventType")
            events[kind or "OTHER"] += 1
            if not kind or not event.get("run"):
                continue
            key = (event["job"]["namespace"], event["run"]["runId"])
            run = runs.setdefault(key, {"state": "running", "start": event["eventTime"], "outputs": {}})
            run["start"] = min(run["start"], event["eventTime"])
            run["state"] = STATES.get(kind, run["state"])
            for output in event.get("outputs") or []:
                statistics = (output.get("outputFacets") or {}).get("outputStatistics") or {}
                run["outputs"].setdefault((output["namespace"], output["name"]), {}).update(
                    {name: value for name, value in statistics.items() if isinstance(value, int)}
                )
    return events, runs


def tally(runs) -> dict:
    total = Counter(runs=0, completed=0, failed=0, aborted=0, running=0, records_written=0, bytes_written=0)
    for run in runs:
        total["runs"] += 1
        total[run["state"]] += 1
        for statistics in run["outputs"].values():
            total["records_written"] += statistics.get("rowCount", 0)
            total["bytes_written"] += statistics.get("size", 0)
    return dict(total)


def main() -> None:
    events, runs = collect(sys.argv[1])
    by_namespace, by_day = defaultdict(list), defaultdict(list)
    for (namespace, _), run in runs.items():
        by_namespace[namespace].append(run)
        by_day[day_of(run["start"])].append(run)
    answer = {
        "events": dict(sorted(events.items())),
        "totals": tally(runs.values()),
        "by_source": {name: tally(some) for name, some in sorted(by_namespace.items())},
        "by_day": {day: tally(some) for day, some in sorted(by_day.items())},
    }
    json.dump(answer, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
