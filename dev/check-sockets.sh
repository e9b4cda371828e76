#!/usr/bin/env bash
# Whether clients of others work with the WebSockets and the stream of events: starts `karat up --demo` in a folder of its own
# on a free port, and runs dev/check-sockets.mjs on it, with `ws` and `eventsource` from npm.
#
#   dev/check-sockets.sh
#
# Needs Node.js 20 or newer; the packages are installed once, into ${KARAT_DEV_DIR:-target/dev}/sockets. KARAT_BIN names another
# binary than the one in CARGO_TARGET_DIR (default target). Takes a minute: a client that does not answer is given up after
# half of one. Exit codes: 0 ok, 1 something is otherwise than it should be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD/dev
name=check-sockets
karat=${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}
. dev/demo-server.sh

command -v node >/dev/null || die 'node is missing: install Node.js 20 or later'
home=${KARAT_DEV_DIR:-target/dev}/sockets
mkdir -p "$home"
home=$(cd "$home" && pwd)
# The program stands beside its libraries, which is how node finds them.
cp "$here/check-sockets.mjs" "$home/check.mjs"
for package in ws@8 eventsource@3; do
  [ -d "$home/node_modules/${package%@*}" ] ||
    npm install --silent --no-audit --no-fund --prefix "$home" "$package" >&2 || die "npm could not install $package"
done

start_demo
KARAT_PASSWORD=Kx7-$(od -An -N12 -tx1 /dev/urandom | tr -d '\n' | tr ' ' '-')-Q
for user in first second; do
  printf '%s\n' "$KARAT_PASSWORD" |
    "$karat" user create --username "sockets_$user" --role admin --password-stdin --data-dir "$data" >/dev/null ||
    die 'an account could not be created'
done
KARAT_URL=$url KARAT_PASSWORD=$KARAT_PASSWORD node "$home/check.mjs" || die 'a client of another did not get what it should'
stop_demo
echo "$name: all well" >&2
