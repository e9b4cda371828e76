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
deadline_s=120 stop_deadline_s=40

work=$(mktemp -d)
pid=
finish() {
  if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

die() {
  echo "check-demo: $*" >&2
  tail -n 20 "$work/log" >&2
  exit 1
}

is_running() { kill -0 "$pid" 2>/dev/null; }

# It says so when everything is there: the last line of the demo.
is_ready() { grep -q 'Ctrl-C' "$work/out" 2>/dev/null; }

data=$work/data
"$karat" up --demo --without-limits --data-dir "$data" --listen 127.0.0.1:0 >"$work/out" 2>"$work/log" </dev/null &
pid=$!
end=$((SECONDS + deadline_s))
until is_ready; do
  is_running || die 'it ended by itself'
  [ $SECONDS -lt $end ] || die "the sample data was not in gold after ${deadline_s}s"
  sleep 0.2
done
echo "check-demo: the sample data is in gold" >&2

"$karat" table verify --data-dir "$data" || die 'the tables differ from bronze'
dev/read-tables.sh "$data/lake" || die 'the engines differ'
url=$(sed -n 's|^ *reference *\(http.*\)/docs$|\1|p' "$work/out")
KARAT_KEY=$("$karat" key create --owner demo --scope read --data-dir "$data" | tail -n 1)
export KARAT_KEY
dev/check-buckets.sh "$url" "$data/lake" || die 'summaries differ from what DuckDB computes'
unset KARAT_KEY

kill -TERM "$pid"
end=$((SECONDS + stop_deadline_s))
while is_running; do
  [ $SECONDS -lt $end ] || die "it did not stop within ${stop_deadline_s}s"
  sleep 0.1
done
wait "$pid" || die "it ended with $?"
pid=
"$karat" table verify --data-dir "$data" >/dev/null || die 'the tables differ after the stop'
echo "check-demo: all well" >&2
