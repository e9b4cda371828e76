#!/usr/bin/env bash
# Compares the summaries of a running instance, by hour, day, week, month, quarter and year in several time zones, with
# what DuckDB computes from the tables of its lake.
#
#   export KARAT_KEY=$(karat key create --owner NAME --scope read)     # or any credential that may read everything
#   dev/check-buckets.sh http://127.0.0.1:8080 data/lake
#
# Needs Python 3.10 or newer; the engines are installed by dev/engines.sh.
# Exit codes: 0 all agree, 1 a difference, 2 usage.
set -euo pipefail

if [ $# -lt 2 ] || [ -z "${KARAT_KEY:-}" ]; then
  sed -n '2,9p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/engines.sh")
exec "$python" "$here/check-buckets.py" "$@"
