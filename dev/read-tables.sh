#!/usr/bin/env bash
# Reads every table of a lake with delta-rs for Python, Polars and DuckDB, and compares row counts and sums.
#
#   dev/read-tables.sh data/lake
#
# Needs Python 3.10 or newer. The engines are installed from PyPI once, into ${KARAT_DEV_DIR:-target/dev}/read-tables.
# Exit codes: 0 all agree, 1 a difference, 2 usage.
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n '2,7p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${KARAT_DEV_DIR:-$here/../target/dev}/read-tables
mkdir -p "$home"

# The last step of the installation leaves the mark, so that a broken-off one is done again.
if [ ! -e "$home/.installed" ]; then
  echo "installing deltalake, polars and duckdb into $home" >&2
  python3 -m venv --clear "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check 'deltalake>=1.1' 'polars>=1.20' 'duckdb>=1.1' >&2
  touch "$home/.installed"
fi
exec "$home/venv/bin/python" "$here/read-tables.py" "$@"
