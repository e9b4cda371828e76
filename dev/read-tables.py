#!/usr/bin/env python3
"""Reads every Delta table of a lake with three engines and compares what they see.

    dev/read-tables.sh data/lake

For each table: the number of rows, and for each column the number of values and, for numbers, booleans and times,
their sum. Sums of whole numbers, decimals and times are exact; sums of floats may differ by a relative 1e-9, because
engines add in their own order.

The engines are delta-rs (`deltalake`, by SQL over the table), Polars (`scan_delta`) and DuckDB (`read_parquet` over the
files that the Delta log lists: its own Delta reader is a download that this script does without). All three read the
same version, so tables may be written to meanwhile.

Standard output is one line a table; differences are listed below it. Exit codes: 0 all agree, 1 a difference or a
table that an engine cannot read, 2 usage.
"""

import argparse
import decimal
import json
import os
import sys
from dataclasses import dataclass

import duckdb
import polars as pl
from deltalake import DeltaTable, QueryBuilder

ENGINES = ("deltalake", "polars", "duckdb")
FLOAT_TOLERANCE = 1e-9
INTEGERS = {"byte", "short", "integer", "long"}
FLOATS = {"float", "double"}
TIMES = {"timestamp", "timestamp_ntz"}
DECIMAL_DIGITS = 38


@dataclass(frozen=True)
class Column:
    """A column and the kind of sum that it gets: int, float, decimal, bool, time, date or none."""

    name: str
    kind: str
    scale: int = 0


def main() -> int:
    decimal.getcontext().prec = 2 * DECIMAL_DIGITS
    arguments = parse_arguments()
    tables = find_tables(arguments.lake)
    if not tables:
        print(f"no Delta table below {arguments.lake}", file=sys.stderr)
        return 2
    width = max(len(name) for name in tables)
    print(f"{'table':{width}}  {'version':>7}  {'rows':>12}  {'columns':>7}  result")
    num_bad = 0
    for name, path in tables.items():
        line, differences = compare(path, arguments.only)
        print(f"{name:{width}}  {line}")
        for difference in differences:
            print(f"{'':{width}}    {difference}")
        num_bad += bool(differences)
    engines = ", ".join(arguments.only)
    if num_bad:
        print(f"\n{num_bad} of {len(tables)} tables differ between {engines}")
        return 1
    print(f"\n{len(tables)} tables are the same in {engines}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compares the tables of a lake between three engines.")
    parser.add_argument("lake", help="folder of the lake, such as data/lake")
    parser.add_argument("--only", type=lambda text: tuple(text.split(",")), default=ENGINES, metavar="ENGINE,ENGINE",
                        help=f"engines to compare, of {', '.join(ENGINES)}")
    arguments = parser.parse_args()
    if not os.path.isdir(arguments.lake):
        parser.error(f"{arguments.lake} is not a folder")
    unknown = set(arguments.only) - set(ENGINES)
    if unknown:
        parser.error(f"unknown engine {', '.join(sorted(unknown))}")
    return arguments


def find_tables(lake: str) -> dict[str, str]:
    """Full name such as `gold.daily_summary` and folder of each table."""
    tables = {}
    for folder, subfolders, _ in os.walk(lake):
        if "_delta_log" in subfolders:
            tables[os.path.relpath(folder, lake).replace(os.sep, ".")] = os.path.abspath(folder)
            subfolders.clear()
        subfolders.sort()
    return dict(sorted(tables.items()))


def compare(path: str, engines: tuple[str, ...]) -> tuple[str, list[str]]:
    """The text of the table's line, and the differences."""
    try:
        table = DeltaTable(path)
        columns = columns_of(table)
    except Exception as error:  # noqa: BLE001 - whatever an engine says about a table is the result
        return "  cannot be opened", [f"deltalake: {first_line(error)}"]
    readers = {"deltalake": read_deltalake, "polars": read_polars, "duckdb": read_duckdb}
    found, differences = {}, []
    for engine in engines:
        try:
            found[engine] = readers[engine](table, path, columns)
        except Exception as error:  # noqa: BLE001
            differences.append(f"{engine}: {first_line(error)}")
    if found:
        differences += differences_between(found)
    rows = next(iter(found.values()))["rows"] if found else "?"
    result = "DIFFERENT" if differences else "same"
    return f"{table.version():>7}  {rows:>12}  {len(columns):>7}  {result}", differences


def columns_of(table: DeltaTable) -> list[Column]:
    fields = json.loads(table.schema().to_json())["fields"]
    return [Column(field["name"], *kind_of(field["type"])) for field in fields]


def kind_of(delta_type: object) -> tuple[str, int]:
    if not isinstance(delta_type, str):
        return "none", 0
    if delta_type.startswith("decimal"):
        return "decimal", int(delta_type.rstrip(")").split(",")[1])
    kinds = {**dict.fromkeys(INTEGERS, "int"), **dict.fromkeys(FLOATS, "float"), **dict.fromkeys(TIMES, "time")}
    kinds |= {"boolean": "bool", "date": "date"}
    return kinds.get(delta_type, "none"), 0


def read_deltalake(table: DeltaTable, _path: str, columns: list[Column]) -> dict[str, object]:
    def total(column: Column) -> str:
        name = quoted(column.name)
        return {
            "int": f"sum(CAST({name} AS DECIMAL({DECIMAL_DIGITS}, 0)))",
            "decimal": f"sum(CAST({name} AS DECIMAL({DECIMAL_DIGITS}, {column.scale})))",
            "float": f"sum(CAST({name} AS DOUBLE))",
            "bool": f"sum(CAST({name} AS BIGINT))",
            # A file may hold another unit than the table; Delta's timestamps are microseconds.
            "time": f"sum(CAST(CAST(arrow_cast({name}, 'Timestamp(Microsecond, None)') AS BIGINT)"
                    f" AS DECIMAL({DECIMAL_DIGITS}, 0)))",
            "date": f"sum(CAST(arrow_cast({name}, 'Int32') AS BIGINT))",
        }[column.kind]

    batches = QueryBuilder().register("t", table).execute(select("t", columns, total)).read_all()
    row = [batches.column(index)[0].as_py() for index in range(batches.num_columns)]
    return labelled(columns, row)


def read_polars(table: DeltaTable, path: str, columns: list[Column]) -> dict[str, object]:
    def total(column: Column) -> pl.Expr:
        name = pl.col(column.name)
        return {
            "int": lambda: name.cast(pl.Int128).sum(),
            "decimal": lambda: name.cast(pl.Decimal(DECIMAL_DIGITS, column.scale)).sum(),
            "float": lambda: name.cast(pl.Float64).sum(),
            "bool": lambda: name.cast(pl.Int64).sum(),
            "time": lambda: name.dt.epoch("us").cast(pl.Int128).sum(),
            "date": lambda: name.cast(pl.Int32).cast(pl.Int64).sum(),
        }[column.kind]()

    scan = pl.scan_delta(path, version=table.version())
    wanted = [pl.len().alias("rows")]
    for index, column in enumerate(columns):
        wanted.append(pl.col(column.name).count().alias(f"count {index}"))
        if column.kind != "none":
            # A sum of nothing is 0 in Polars and NULL in SQL.
            value = pl.when(pl.col(column.name).count() > 0).then(total(column))
            wanted.append(value.alias(f"sum {index}"))
    return labelled(columns, list(scan.select(wanted).collect(engine="streaming").row(0)))


def read_duckdb(table: DeltaTable, _path: str, columns: list[Column]) -> dict[str, object]:
    def total(column: Column) -> str:
        name = quoted(column.name)
        return {
            "int": f"sum(CAST({name} AS HUGEINT))",
            "decimal": f"sum(CAST({name} AS DECIMAL({DECIMAL_DIGITS}, {column.scale})))",
            "float": f"sum(CAST({name} AS DOUBLE))",
            "bool": f"sum(CAST({name} AS BIGINT))",
            "time": f"sum(CAST(epoch_us({name}) AS HUGEINT))",
            "date": f"sum(CAST({name} AS DATE) - DATE '1970-01-01')",
        }[column.kind]

    files = table.file_uris()
    if not files:
        return labelled(columns, [0] + [value for column in columns for value in empty(column)])
    connection = duckdb.connect()
    partitioned = "true" if table.metadata().partition_columns else "false"
    source = f"read_parquet($files, hive_partitioning = {partitioned}, union_by_name = true)"
    row = connection.execute(select(source, columns, total), {"files": files}).fetchone()
    return labelled(columns, list(row))


def select(source: str, columns: list[Column], total) -> str:
    wanted = ["count(*)"]
    for column in columns:
        wanted.append(f"count({quoted(column.name)})")
        if column.kind != "none":
            wanted.append(total(column))
    named = [f"{expression} AS c{index}" for index, expression in enumerate(wanted)]
    return f"SELECT {', '.join(named)} FROM {source}"


def empty(column: Column) -> list[object]:
    return [0] if column.kind == "none" else [0, None]


def labelled(columns: list[Column], row: list[object]) -> dict[str, object]:
    labels = ["rows"]
    for column in columns:
        labels.append(f"count of {column.name}")
        if column.kind != "none":
            labels.append(f"sum of {column.name}")
    return dict(zip(labels, row, strict=True))


def differences_between(found: dict[str, dict[str, object]]) -> list[str]:
    engines = list(found)
    first = found[engines[0]]
    lines = []
    for label in first:
        values = [found[engine][label] for engine in engines]
        if not all(is_same(values[0], value) for value in values[1:]):
            lines.append(f"{label}: " + ", ".join(f"{engine} {value}" for engine, value in zip(engines, values)))
    return lines


def is_same(a: object, b: object) -> bool:
    if a is None or b is None:
        return a is b
    if isinstance(a, float) or isinstance(b, float):
        a, b = float(a), float(b)
        return a == b or (a != a and b != b) or abs(a - b) <= FLOAT_TOLERANCE * max(abs(a), abs(b))
    return decimal.Decimal(a) == decimal.Decimal(b)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


if __name__ == "__main__":
    sys.exit(main())
