#!/usr/bin/env bash
# Asks a running server everything that its OpenAPI document allows, and much that it does not, and fails when an answer
# is a fault of the server (5xx) or is not what the document says: status, media type, schema, headers.
#
#   dev/schemathesis.sh [KARAT]
#   dev/schemathesis.sh fetch      installs what it needs, and asks nothing
#
# KARAT is the binary; without it, KARAT_BIN, or the one in CARGO_TARGET_DIR (default target). The server runs in a folder
# of its own on a free port, with the sample data, without limits, on SQLite; the questions come from an admin. The same
# KARAT_SEED (default 5) asks the same questions; they take at most KARAT_SCHEMATHESIS_SECONDS (default 80).
#
# Left out is what would end the run itself, which every other question would then answer with 401, or never end:
#   logout, logout_all      they end the session of the run
#   delete_own_user         it ends the account of the run
#   read_event_stream       its answer has no end
# and no question about a user or a session names the account or the session of the run (dev/schemathesis.py).
#
# Needs Python 3.10 or newer; Schemathesis is installed from PyPI once, into ${KARAT_DEV_DIR:-target/dev}/schemathesis.
# Exit codes: 0 ok, 1 something was found or does not start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD/dev
name=schemathesis
karat=${1:-${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}}
seed=${KARAT_SEED:-5} seconds=${KARAT_SCHEMATHESIS_SECONDS:-80}
version=4.32.5

home=${KARAT_DEV_DIR:-target/dev}/schemathesis
mkdir -p "$home"
home=$(cd "$home" && pwd)
# The last step of the installation leaves the mark, so that a broken-off one, or that of another version, is done again.
if [ ! -e "$home/.installed-$version" ]; then
  echo "schemathesis: installing schemathesis $version into $home" >&2
  python3 -m venv --clear "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version" >&2
  touch "$home/.installed-$version"
fi

if [ "${1:-}" = fetch ]; then exit 0; fi

. dev/demo-server.sh

# Passkeys are for a host with a name.
start_demo --public-url http://localhost
KARAT_URL=$url

# Pairs of digits, so that chance makes no sequence and no repetition, which passwords must not have.
KARAT_USER=schemathesis KARAT_PASSWORD=Kx7-$(od -An -N12 -tx1 /dev/urandom | tr -d '\n' | tr ' ' '-')-Q
export KARAT_URL KARAT_USER KARAT_PASSWORD
printf '%s\n' "$KARAT_PASSWORD" |
  "$karat" user create --username "$KARAT_USER" --role admin --password-stdin --data-dir "$data" >/dev/null ||
  die 'the admin could not be created'
login=$("$home/venv/bin/python" "$here/schemathesis.py" login) || die 'the admin could not log in'
read -r token KARAT_RUN_IDS <<<"$login"
export KARAT_RUN_IDS

checks=not_a_server_error,status_code_conformance,content_type_conformance
checks=$checks,response_schema_conformance,response_headers_conformance
left_out=()
for operation in logout logout_all delete_own_user read_event_stream; do left_out+=(--exclude-operation-id "$operation"); done

# The security schemes are left to the header below: a made-up key beside it would make every answer a 401. Slow or
# picky generation of data says something about the tool, not about the server.
code=0
(cd "$work" && SCHEMATHESIS_HOOKS=$here/schemathesis.py "$home/venv/bin/schemathesis" run "$KARAT_URL/openapi.json" \
  --url "$KARAT_URL/api/v1" --header "Authorization: Bearer $token" --generation-with-security-parameters false \
  --checks "$checks" "${left_out[@]}" --seed "$seed" --max-time "$seconds" --max-examples 50 --workers 1 \
  --request-timeout 40 --continue-on-failure --suppress-health-check all --generation-database none) || code=$?

is_running || die 'the server ended by itself'
"$home/venv/bin/python" "$here/schemathesis.py" check "$token" ||
  die 'the run ended its own session: answers after that say nothing'
[ $code = 0 ] || die "something was found, or could not be asked (exit code $code)"

stop_demo
echo 'schemathesis: all well' >&2
