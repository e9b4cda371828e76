#!/usr/bin/env bash
# Prints the Python that has delta-rs, Polars and DuckDB; for the other scripts here.
#
# Needs Python 3.10 or newer. They are installed from PyPI once, into ${KARAT_DEV_DIR:-target/dev}/read-tables.
set -euo pipefail
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
echo "$home/venv/bin/python"
