#!/usr/bin/env python3
"""Compares the summaries of a running instance with what DuckDB computes from its lake.

    KARAT_KEY=... dev/check-buckets.sh http://127.0.0.1:8080 data/lake

For each zone and length of a bucket, `GET /summary` is asked for the whole range of the data, by source. DuckDB reads
the files of `gold.summary_state` at the version that the answer's epoch names, converts the start of each slice with
`timezone()`, truncates it with `date_trunc()` and adds up. Percentiles come from the durations in `silver.runs` of the
same epoch, where a bucket has at most 200 of them: above that the API's are within 1 %.

Standard output is one line a zone and length; differences are listed below it. Exit codes: 0 all agree, 1 a difference,
2 usage.
"""

import argparse
import datetime
import json
import math
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

import duckdb
from deltalake import DeltaTable

# Zones whose clocks are not set around midnight: there, a date that has begun goes on, which SQL does not know.
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
         "Pacific/Auckland", "America/St_Johns")
PIPELINE = "etl_runs"
MAX_DAYS_OF_HOURS = 400
EXACT_VALUES = 200
TOLERANCE = 1e-9
SHOWN_DIFFERENCES = 5

# Length, route with its parameters, first local time of the bucket of `local`, its label.
GRAINS = (
    ("hour", "/summary?grain=hour", "date_trunc('hour', local)", None),
    ("day", "/summary", "date_trunc('day', local)", "%Y-%m-%d"),
    ("ISO week", "/summary/weekly", "date_trunc('week', local)", "%G-W%V"),
    ("Sunday week", "/summary/weekly?week_start=sunday",
     "date_trunc('week', local + INTERVAL 1 DAY) - INTERVAL 1 DAY", "%Y-%m-%d"),
    ("month", "/summary/monthly", "date_trunc('month', local)", "%Y-%m"),
    ("quarter", "/summary?grain=quarter", "date_trunc('quarter', local)", None),
    ("year", "/summary?grain=year", "date_trunc('year', local)", "%Y"),
)
SUMS = ("runs", "completed", "failed", "aborted", "running", "records_read", "records_written", "records_failed",
        "bytes_written")
FIGURES = (*SUMS, "jobs", "avg_duration_ms", "p95_duration_ms", "revision")


class Instance:
    """A running instance and its lake."""

    def __init__(self, url: str, lake: str, credential: str) -> None:
        self.url, self.lake, self.credential = url.rstrip("/"), lake, credential

    def get(self, path: str) -> dict:
        request = urllib.request.Request(f"{self.url}/api/v1{path}")
        request.add_header("authorization", f"Bearer {self.credential}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def table(self, epoch: int, name: str) -> duckdb.DuckDBPyConnection:
        """A connection in which `t` is a table at the version of an epoch."""
        manifest = os.path.join(self.lake, "_karat", "epochs", PIPELINE, f"{epoch}.json")
        if not os.path.exists(manifest):
            folder = os.path.dirname(manifest)
            manifest = next(os.path.join(folder, file) for file in os.listdir(folder)
                            if file.split(".")[0].lstrip("0") == str(epoch))
        with open(manifest, encoding="utf-8") as file:
            version = json.load(file)["tables"][name]
        files = DeltaTable(os.path.join(self.lake, *name.split(".")), version=version).file_uris()
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        source = "SELECT * FROM read_parquet($files, union_by_name = true)"
        connection.execute(f"CREATE TABLE t AS {source}", {"files": files})
        return connection


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares summaries with DuckDB.")
    parser.add_argument("url", help="such as http://127.0.0.1:8080")
    parser.add_argument("lake", help="folder of its lake, such as data/lake")
    arguments = parser.parse_args()
    instance = Instance(arguments.url, arguments.lake, os.environ["KARAT_KEY"])
    epoch = instance.get("/summary")["epoch"]
    state, runs = instance.table(epoch, "gold.summary_state"), instance.table(epoch, "silver.runs")
    first, last = state.execute("SELECT min(bucket_start)::DATE - 1, max(bucket_start)::DATE + 1 FROM t").fetchone()
    print(f"epoch {epoch}, {first} to {last}")
    num_bad = 0
    for zone in ZONES:
        for grain, route, truncated, label in GRAINS:
            begin = max(first, last - datetime.timedelta(days=MAX_DAYS_OF_HOURS - 1)) if grain == "hour" else first
            found = answered(instance, route, zone, begin, last, epoch)
            expected = computed(state, runs, zone, truncated, label, grain, begin, last)
            differences = differences_between(expected, found)
            num_bad += bool(differences)
            print(f"{zone:20} {grain:12} {len(expected):>6} buckets  {'DIFFERENT' if differences else 'same'}")
            for difference in differences[:SHOWN_DIFFERENCES]:
                print(f"    {difference}")
    print(f"{num_bad} of {len(ZONES) * len(GRAINS)} differ" if num_bad else "all are the same")
    return 1 if num_bad else 0


def answered(instance: Instance, route: str, zone: str, first, last, epoch: int) -> dict:
    """Figures by first local time, offset of hours, and source, as the API gives them; all of one epoch."""
    question = {"from": first, "to": last, "tz": zone, "group_by": "source", "limit": 10_000}
    buckets = {}
    while True:
        separator = "&" if "?" in route else "?"
        page = instance.get(f"{route}{separator}{urllib.parse.urlencode(question)}")
        if page["epoch"] != epoch:
            sys.exit(f"the instance moved on from epoch {epoch} to {page['epoch']}: run this while nothing is published")
        for bucket in page["buckets"]:
            start = datetime.datetime.fromisoformat(bucket["start"])
            is_hour = "grain=hour" in route
            # An hour that is cut by a change of the clocks is that of its full hour.
            local = start.strftime("%Y-%m-%d %H:00") if is_hour else f"{bucket['bucket_start']} 00:00"
            offset = int(start.utcoffset().total_seconds()) if is_hour else 0
            figures = {name: bucket[name] for name in FIGURES}
            figures["label"] = "" if is_hour else bucket["bucket"]
            buckets[(local, offset, bucket["source"])] = figures
        if page["next_cursor"] is None:
            return buckets
        question["cursor"] = page["next_cursor"]


def computed(state, runs, zone: str, truncated: str, label, grain: str, first, last) -> dict:
    """The same by DuckDB."""
    def rows(connection, time: str, wanted: str):
        # Slices count as a whole, by their start.
        slices = f"time_bucket(INTERVAL 15 MINUTES, {time})"
        local = f"SELECT *, timezone($zone, {slices}) AS local, {slices} AS slice FROM t"
        offset = "epoch(local)::BIGINT - epoch(slice)::BIGINT" if grain == "hour" else "0"
        named = f"SELECT *, {truncated} AS first, {offset} AS clock_offset FROM ({local}) WHERE local::DATE BETWEEN $first AND $last"
        query = f"SELECT strftime(first, '%Y-%m-%d %H:%M'), clock_offset, source, {wanted} FROM ({named}) GROUP BY first, clock_offset, source"
        return connection.execute(query, {"zone": zone, "first": first, "last": last}).fetchall()

    sums = ", ".join(f"sum({name})::BIGINT" for name in SUMS)
    label_sql = f"strftime(first, '{label}')" if label else "''"
    if grain == "quarter":
        label_sql = "strftime(first, '%Y') || '-Q' || quarter(first)"
    average = "sum(duration_sum_us)::DOUBLE / nullif(sum(durations), 0) / 1000"
    wanted = f"{sums}, count(DISTINCT job), {average}, max(revision), {label_sql}"
    buckets = {}
    for local, offset, source, *values in rows(state, "bucket_start", wanted):
        *sum_values, jobs, mean, revision, name = values
        buckets[(local, offset, source)] = {
            **dict(zip(SUMS, sum_values, strict=True)), "jobs": jobs, "avg_duration_ms": mean, "revision": revision,
            "label": name, "p95_duration_ms": None,
        }
    for local, offset, source, durations in rows(runs, "started_at", "list_sort(list(duration_us) FILTER (duration_us IS NOT NULL))"):
        if durations:
            exact = durations[math.ceil(0.95 * len(durations)) - 1] / 1000
            # Wide enough for bins where there are more values than are kept.
            buckets[(local, offset, source)]["p95_duration_ms"] = (exact, TOLERANCE if len(durations) <= EXACT_VALUES else 0.01)
    return buckets


def differences_between(expected: dict, found: dict) -> list[str]:
    lines = [f"{key}: only DuckDB has it" for key in expected.keys() - found.keys()]
    lines += [f"{key}: only the API has it" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        for name, value in expected[key].items():
            if not is_same(value, found[key][name]):
                lines.append(f"{key} {name}: DuckDB {value}, API {found[key][name]}")
    return sorted(lines)


def is_same(expected: object, found: object) -> bool:
    expected, tolerance = expected if isinstance(expected, tuple) else (expected, TOLERANCE)
    if expected is None or found is None or isinstance(expected, str):
        return expected == found
    return abs(expected - found) <= tolerance * max(abs(expected), abs(found))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.url}: {error.code} {error.read().decode(errors='replace')}")
    except urllib.error.URLError as error:
        sys.exit(f"cannot be reached: {error.reason}")
