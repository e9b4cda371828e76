#!/usr/bin/env bash
# Sends real OpenLineage events to a running Karat through the public clients, unchanged:
# a small program with openlineage-python, and a dbt project (one seed, three models, one test) with dbt-ol.
#
#   dev/live-openlineage.sh http://127.0.0.1:8080 "$KARAT_KEY" > sent.json
#
# Standard output is one JSON object: the events and runs that were sent, by state, namespace and day, and the rows and
# bytes that they wrote. A test compares it with GET /api/v1/summary. Everything else goes to standard error.
# Needs Python 3.9 or newer. The clients are installed once, into target/dev/live.
# Exit codes: 0 ok, 1 a client failed, 2 usage.
set -euo pipefail

if [ $# -ne 2 ]; then
  echo "usage: $0 URL API_KEY" >&2
  exit 2
fi
url=$1
key=$2
here=$(cd "$(dirname "$0")" && pwd)
home="${KARAT_LIVE_DIR:-$here/../target/dev/live}"
mkdir -p "$home"
home=$(cd "$home" && pwd)

if [ ! -x "$home/venv/bin/dbt-ol" ]; then
  echo "installing the clients into $home/venv" >&2
  python3 -m venv "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/live/requirements.txt" >&2
fi

work=$(mktemp -d "$home/run.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -r "$here/live/dbt" "$work/dbt"

# Each client sends over HTTP first and, when that was answered with success, keeps a copy of what it sent.
export OPENLINEAGE_CONFIG="$work/openlineage.yml"
cat > "$OPENLINEAGE_CONFIG" <<YAML
transport:
  type: composite
  continue_on_failure: false
  transports:
    - type: http
      url: "$url"
      auth:
        type: api_key
        apiKey: "$key"
    - type: file
      log_file_path: "$work/sent.ndjson"
      append: true
YAML
chmod 600 "$OPENLINEAGE_CONFIG"

echo "openlineage-python: sending runs" >&2
"$home/venv/bin/python" "$here/live/client.py" >&2

echo "dbt-ol: running the project" >&2
cd "$work/dbt"
# The wrapper starts `dbt` by its name.
export PATH="$home/venv/bin:$PATH"
export DBT_PROFILES_DIR="$work/dbt" DBT_SEND_ANONYMOUS_USAGE_STATS=false OPENLINEAGE_NAMESPACE=live-dbt
for command in seed run test; do
  "$home/venv/bin/dbt-ol" "$command" --no-use-colors >&2
done

"$home/venv/bin/python" "$here/live/count.py" "$work/sent.ndjson"
