#!/usr/bin/env bash
# Whether slow clients stop others: starts `karat up --demo` in a folder of its own on a free port, runs slowhttptest on it with
# 500 connections (slow heads, slow bodies, slow readers) and then holds 5,000 idle sockets, and asks for /health each second
# meanwhile.
#
#   dev/check-slow.sh
#
# Needs slowhttptest (Debian has it), curl and Python 3. KARAT_BIN names another binary than the one in CARGO_TARGET_DIR
# (default target). KARAT_SLOW_SECONDS (default 40) bounds each part. Exit codes: 0 ok, 1 an answer took longer than a second,
# did not come, or slow connections stayed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
karat=${KARAT_BIN:-${CARGO_TARGET_DIR:-target}/debug/karat}
name=check-slow
seconds=${KARAT_SLOW_SECONDS:-40}
. dev/demo-server.sh

for tool in slowhttptest curl python3; do
  if ! command -v "$tool" >/dev/null; then
    echo "$name: \`$tool\` is missing: install the package of that name" >&2
    exit 1
  fi
done

# The clients have an address of their own, as another client has.
client=127.0.0.2

slow=
stop_slow() { if [ -n "$slow" ]; then kill "$slow" 2>/dev/null || true; fi; }
trap 'stop_slow; finish' EXIT

# under NAME COMMAND...: runs the command while /health is asked each second.
under() {
  local what=$1 asked=0
  shift
  "$@" >"$work/slow.out" 2>&1 </dev/null &
  slow=$!
  while kill -0 "$slow" 2>/dev/null; do
    curl --silent --show-error --fail --max-time 1 --interface "$client" --output /dev/null "$url/health" ||
      die "$what: /health did not answer within a second"
    asked=$((asked + 1))
    sleep 1
  done
  local code=0
  wait "$slow" || code=$?
  if [ "$code" != 0 ]; then
    cat "$work/slow.out" >&2
    die "$what: the slow clients ended with $code"
  fi
  slow=
  echo "$name: $what: $asked answers in time" >&2
}

idle() {
  python3 - "${url#*://}" "$seconds" <<'PYTHON'
import resource, select, socket, sys, time

host, port = sys.argv[1].rsplit(":", 1)
most = 5000
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sockets = [socket.create_connection((host, int(port))) for _ in range(most)]
poll = select.poll()
for each in sockets:
    poll.register(each, select.POLLIN)
# All are closed by the server: those beyond the share at once, the others for saying nothing.
left, end = {each.fileno() for each in sockets}, time.monotonic() + float(sys.argv[2])
while left and time.monotonic() < end:
    for number, _ in poll.poll(1000):
        poll.unregister(number)
        left.discard(number)
print(f"{len(left)} of {most} idle sockets stayed open")
sys.exit(1 if left else 0)
PYTHON
}

start_demo
options=(-c 500 -r 100 -l "$seconds" -p 3 -i 5)
under 'slow heads' slowhttptest -H "${options[@]}" -u "$url/health"
under 'slow bodies' slowhttptest -B "${options[@]}" -s 8192 -u "$url/api/v1/auth/login"
under 'slow readers' slowhttptest -X -c 500 -r 100 -l "$seconds" -p 3 -w 8 -y 16 -n 5 -z 8 -k 3 -u "$url/openapi.json"
under 'idle sockets' idle
stop_demo
echo "$name: all well" >&2
