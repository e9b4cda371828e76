#!/usr/bin/env bash
# Reads every table of a lake with delta-rs for Python, Polars and DuckDB, and compares row counts and sums.
#
#   dev/read-tables.sh data/lake
#
# Needs Python 3.10 or newer; the engines are installed by dev/engines.sh.
# Exit codes: 0 all agree, 1 a difference, 2 usage.
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,7p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$("$here/engines.sh")
exec "$python" "$here/read-tables.py" "$@"
