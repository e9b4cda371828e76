#!/usr/bin/env bash
# Whether clients of others work with the PostgreSQL port: starts `karat up --demo` in a folder of its own on free ports, asks it
# with psql and with psycopg (a good question, a refused write, a wrong key, what drivers say at the start, a question that is
# broken off), then starts it again with a certificate and asks under TLS.
#
#   dev/check-postgres-wire.sh
#   dev/check-postgres-wire.sh fetch      installs what it needs, and asks nothing
#
# Needs psql and openssl (Debian: postgresql-client, openssl) and Python 3.10 or newer; psycopg is installed from PyPI once, into
# ${KARAT_DEV_DIR:-target/dev}/postgres-wire. KARAT_BIN names another binary than the one in CARGO_TARGET_DIR (default target); it
# is built with `--features postgres-wire`. Exit codes: 0 ok, 1 something is otherwise than it should be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD/dev
name=check-postgres-wire
karat=${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}
version=3.3.9

home=${KARAT_DEV_DIR:-target/dev}/postgres-wire
mkdir -p "$home"
# The last step of the installation leaves the mark, so that a broken-off one, or that of another version, is done again.
if [ ! -e "$home/.installed-$version" ]; then
  echo "$name: installing psycopg $version into $home" >&2
  python3 -m venv --clear "$home/venv"
  "$home/venv/bin/pip" install --quiet --disable-pip-version-check "psycopg[binary]==$version" >&2
  touch "$home/.installed-$version"
fi

if [ "${1:-}" = fetch ]; then exit 0; fi

for tool in psql openssl; do
  if ! command -v "$tool" >/dev/null; then
    echo "$name: \`$tool\` is missing: install Debian's postgresql-client and openssl" >&2
    exit 1
  fi
done
. dev/demo-server.sh

# Where the port is, as the log says it.
postgres_port() { sed -n 's/.*PostgreSQL clients are answered.*127\.0\.0\.1:\([0-9]*\).*/\1/p' "$work/log" | tail -n 1; }

# refused PATTERN COMMAND...: fails unless the command does, and says so.
refused() {
  local pattern=$1 said
  shift
  if said=$("$@" 2>&1 </dev/null); then die "answered what is to be refused: $*"; fi
  grep -qE -- "$pattern" <<<"$said" || die "expected \`$pattern\`, found: $said"
}

ask() { psql --no-psqlrc --tuples-only --no-align --set ON_ERROR_STOP=1 --set VERBOSITY=verbose "$@"; }

start_demo --postgres-listen 127.0.0.1:0
key=$("$karat" key create --owner demo --scope read --data-dir "$data" | tail -n 1)
port=$(postgres_port)
[ -n "$port" ] || die 'the log does not say where the port is'
place="host=127.0.0.1 port=$port user=demo dbname=karat connect_timeout=10"
export PGPASSWORD=$key

runs=$(ask "$place" -c 'SELECT sum(runs) FROM gold.daily_summary' </dev/null) || die 'psql got no answer'
[ "$runs" -gt 0 ] || die "expected runs of the sample, found \`$runs\`"
[ "$(ask "$place" -c 'SHOW server_encoding' </dev/null)" = UTF8 ] || die 'a setting is not told'
refused '42000' ask "$place" -c 'DELETE FROM gold.daily_summary'
refused '42000.*no table' ask "$place" -c 'SELECT * FROM gold.nothing'
refused 'the name or the API key is wrong' env PGPASSWORD="${key%?????}00000" psql --no-psqlrc "$place" -c 'SELECT 1'
refused 'the name or the API key is wrong' psql --no-psqlrc "${place/user=demo/user=nobody}" -c 'SELECT 1'
refused 'SSL' psql --no-psqlrc "$place sslmode=require" -c 'SELECT 1'
KARAT_POSTGRES=$place KARAT_RUNS=$runs "$home/venv/bin/python" "$here/check-postgres-wire.py" </dev/null ||
  die 'psycopg did not get what it should'
stop_demo

# The same folder under TLS, which the demo does not take.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
  -addext 'subjectAltName=IP:127.0.0.1,DNS:localhost' -keyout "$work/tls.key" -out "$work/tls.pem" 2>/dev/null ||
  die 'openssl made no certificate'
: >"$work/log"
"$karat" up --data-dir "$data" --listen 127.0.0.1:0 --postgres-listen 127.0.0.1:0 --without-limits \
  --tls-certificate "$work/tls.pem" --tls-key "$work/tls.key" >"$work/out" 2>"$work/log" </dev/null &
pid=$!
end=$((SECONDS + deadline_s))
until port=$(postgres_port) && [ -n "$port" ]; do
  is_running || die 'the server ended by itself'
  [ $SECONDS -lt $end ] || die "the port was not there after ${deadline_s}s"
  sleep 0.2
done
place="host=127.0.0.1 port=$port user=demo dbname=karat connect_timeout=10 sslmode=verify-full sslrootcert=$work/tls.pem"
until again=$(ask "$place" -c 'SELECT sum(runs) FROM gold.daily_summary' 2>"$work/psql" </dev/null); do
  # The newest epoch is read a moment after the start.
  [ $SECONDS -lt $end ] || die "no answer under TLS: $(cat "$work/psql")"
  sleep 0.5
done
[ "$again" = "$runs" ] || die "expected $runs under TLS, found \`$again\`"
stop_demo
refused 'server.postgres_listen' "$karat" up --data-dir "$work/other" --listen 127.0.0.1:0 --postgres-listen 0.0.0.0:0
echo "$name: all well" >&2
