"""What psycopg gets from the PostgreSQL port. Run by dev/check-postgres-wire.sh, which says where it is (KARAT_POSTGRES, with the
key in PGPASSWORD) and how many runs there are (KARAT_RUNS)."""

import datetime
import decimal
import os
import threading

import psycopg

place = os.environ["KARAT_POSTGRES"]
runs = int(os.environ["KARAT_RUNS"])


def refused(code, ask, words=""):
    """Asks for something that is to be refused with this code, in these words."""
    try:
        ask()
    except psycopg.Error as error:
        found = error.sqlstate
        assert found == code and words in str(error), f"expected {code} {words}, found {found}: {error}"
    else:
        raise AssertionError(f"expected {code}, found an answer")


# Begins a transaction by itself, and ends it.
with psycopg.connect(place) as connection:
    found = connection.execute("SELECT sum(runs) FROM gold.daily_summary").fetchone()[0]
    assert int(found) == runs, f"expected {runs}, found {found}"

values = """
SELECT true AS flag, 9007199254740993 AS whole, CAST('-12345678901234.05' AS DECIMAL(20, 2)) AS exact, CAST(0.5 AS DOUBLE) AS half,
  'a' AS words, CAST(NULL AS TEXT) AS nothing, CAST('2026-08-01' AS DATE) AS day,
  CAST('2026-08-01T10:00:00.5Z' AS TIMESTAMP) AS moment, CAST('ab' AS BYTEA) AS bytes
"""
expected = (
    True,
    9007199254740993,
    decimal.Decimal("-12345678901234.05"),
    0.5,
    "a",
    None,
    datetime.date(2026, 8, 1),
    datetime.datetime(2026, 8, 1, 10, 0, 0, 500000, tzinfo=datetime.timezone.utc),
    b"ab",
)
with psycopg.connect(place, autocommit=True) as connection:
    for binary in (False, True):
        row = connection.cursor(binary=binary).execute(values).fetchone()
        assert row == expected, f"expected {expected}, found {row} (binary: {binary})"
    # Often enough to be prepared by itself.
    for _ in range(8):
        assert connection.execute("SELECT 1 AS one").fetchone() == (1,)
    assert len(connection.execute("SELECT run_id FROM silver.runs LIMIT 500").fetchall()) == 500
    refused("42000", lambda: connection.execute("INSERT INTO gold.daily_summary SELECT 1"))
    refused("0A000", lambda: connection.execute("SELECT %s", [1]))
    bound = psycopg.ClientCursor(connection).execute("SELECT %s AS n", [7]).fetchone()
    assert bound == (7,), f"found {bound}"

    # A question that is broken off by another thread, as Ctrl-C does it: again and again, for only one that runs is.
    is_over = threading.Event()

    def cancel():
        while not is_over.wait(0.3):
            connection.cancel()

    nest = "SELECT events FROM silver.runs"
    for _ in range(5):
        nest = f"SELECT a.events + b.events AS events FROM silver.runs a, ({nest} LIMIT 9000000000000) b"
    breaker = threading.Thread(target=cancel)
    breaker.start()
    try:
        refused("57014", lambda: connection.execute(f"SELECT sum(events) AS s FROM ({nest})"), "broken off")
    finally:
        is_over.set()
        breaker.join()
    assert connection.execute("SELECT 2 AS two").fetchone() == (2,), "the session goes on"

# A refusal inside of a transaction holds until it is rolled back.
with psycopg.connect(place) as connection:
    refused("22000", lambda: connection.execute("SELECT 1 / 0"))
    refused("25P02", lambda: connection.execute("SELECT 1"))
    connection.rollback()
    assert connection.execute("SELECT 3 AS three").fetchone() == (3,)

try:
    psycopg.connect(place, password="kk_00_00")
except psycopg.OperationalError as error:
    assert "the name or the API key is wrong" in str(error), error
else:
    raise AssertionError("a wrong key begins a session")
