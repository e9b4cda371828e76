#!/usr/bin/env bash
# The first command of README, checked from outside: starts `karat up --demo` in a folder of its own on a free port, waits for
# the sample data to be in gold, verifies the tables against bronze, reads them with three other engines, compares summaries
# in several time zones with DuckDB, and stops it.
#
#   dev/check-demo.sh
#
# KARAT_BIN names another binary than the one in CARGO_TARGET_DIR (default target). Exit codes: 0 ok, 1 something differs or
# does not start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
karat=${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}
name=check-demo
. dev/demo-server.sh

start_demo
echo "check-demo: the sample data is in gold" >&2

"$karat" table verify --data-dir "$data" || die 'the tables differ from bronze'
dev/read-tables.sh "$data/lake" || die 'the engines differ'
KARAT_KEY=$("$karat" key create --owner demo --scope read --data-dir "$data" | tail -n 1)
export KARAT_KEY
dev/check-buckets.sh "$url" "$data/lake" || die 'summaries differ from what DuckDB computes'
unset KARAT_KEY

stop_demo
"$karat" table verify --data-dir "$data" >/dev/null || die 'the tables differ after the stop'
echo "check-demo: all well" >&2
