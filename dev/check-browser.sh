#!/usr/bin/env bash
# Whether a browser works with passkeys, with the dashboard of docs/DASHBOARD.md and with the reference pages: starts
# `karat up --demo` in a folder of its own on a free port, and runs dev/browser/check.mjs on it, which drives Chromium with
# `playwright-core` from npm. Nothing but loopback is reached.
#
#   dev/check-browser.sh
#   dev/check-browser.sh fetch      installs what it needs, and opens nothing
#
# Needs Node.js 20 or newer and Chromium (Debian has it; KARAT_CHROMIUM names another one). The package is installed once, into
# ${KARAT_DEV_DIR:-target/dev}/browser. KARAT_BIN names another binary than the one in CARGO_TARGET_DIR (default target).
# Takes half a minute. Exit codes: 0 ok, 1 something is otherwise than it should be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD/dev
name=check-browser
karat=${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}
version=1.65.1

fail() {
  echo "$name: $*" >&2
  exit 1
}
command -v node >/dev/null || fail 'node is missing: install Node.js 20 or later'
home=${KARAT_DEV_DIR:-target/dev}/browser
mkdir -p "$home"
home=$(cd "$home" && pwd)
# The programs stand beside their library, which is how node finds it.
cp "$here"/browser/*.mjs "$home/"
grep -qF "\"version\": \"$version\"" "$home/node_modules/playwright-core/package.json" 2>/dev/null ||
  npm install --silent --no-audit --no-fund --prefix "$home" "playwright-core@$version" >&2 ||
  fail 'npm could not install playwright-core'

if [ "${1:-}" = fetch ]; then exit 0; fi

chromium=$(command -v "${KARAT_CHROMIUM:-chromium}") || fail "${KARAT_CHROMIUM:-chromium} is missing: install Chromium"
. dev/demo-server.sh

free_port() {
  node -e 'const s = require("node:net").createServer().listen(0, "127.0.0.1", () => { console.log(s.address().port); s.close(); })'
}

# Passkeys are for the address of the page that asks them.
page=$(free_port) dashboard=$(free_port)
start_demo --public-url "http://localhost:$page" --allowed-origins "http://localhost:$dashboard"
KARAT_PASSWORD=Kx7-$(od -An -N12 -tx1 /dev/urandom | tr -d '\n' | tr ' ' '-')-Q
admin=browser_admin people='browser_first browser_second browser_third'
for user in $admin $people; do
  role=user
  [ "$user" != "$admin" ] || role=admin
  printf '%s\n' "$KARAT_PASSWORD" |
    "$karat" user create --username "$user" --role "$role" --password-stdin --data-dir "$data" >/dev/null ||
    die 'an account could not be created'
done
# What a browser leaves in its home goes with the folder of the server.
env -u XDG_CONFIG_HOME -u XDG_CACHE_HOME HOME="$work" TMPDIR="$work" KARAT_URL="$url" KARAT_ROOT="$PWD" \
  KARAT_PASSWORD="$KARAT_PASSWORD" KARAT_ADMIN="$admin" KARAT_PEOPLE="$people" KARAT_CHROMIUM="$chromium" \
  KARAT_PAGE_PORT="$page" KARAT_DASHBOARD_PORT="$dashboard" node "$home/check.mjs" || die 'a browser did not get what it should'
stop_demo
echo "$name: all well" >&2
