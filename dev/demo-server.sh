# Sourced by the scripts in dev/ that need a server: `karat up --demo` in a folder of its own, on a free port, without limits.
# Who sources it has set `karat` to the binary and `name` to what its messages begin with, and is in the root of the repository.
#
#   start_demo [OPTION...]  with more options of `karat up`; returns once the sample data is in gold; sets `url`, `data` (its folder) and `work` (for other files)
#   is_running    whether it still does
#   stop_demo     stops it as an operator would, and fails when it does not end well
#   die MESSAGE   ends the script with 1, after the last lines of the server's log
#
# Whatever happens, the server and its folder are gone in the end.
deadline_s=300 stop_deadline_s=60

work=$(mktemp -d)
pid=
finish() {
  if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap finish EXIT

die() {
  echo "$name: $*" >&2
  tail -n 20 "$work/log" >&2
  exit 1
}

is_running() { kill -0 "$pid" 2>/dev/null; }

# It says so when everything is there: the last line of the demo.
is_ready() { grep -q 'Ctrl-C' "$work/out" 2>/dev/null; }

start_demo() {
  data=$work/data
  "$karat" up --demo --without-limits --data-dir "$data" --listen 127.0.0.1:0 "$@" >"$work/out" 2>"$work/log" </dev/null &
  pid=$!
  local end=$((SECONDS + deadline_s))
  until is_ready; do
    is_running || die 'the server ended by itself'
    [ $SECONDS -lt $end ] || die "the sample data was not in gold after ${deadline_s}s"
    sleep 0.2
  done
  url=$(sed -n 's|^ *reference *\(http.*\)/docs$|\1|p' "$work/out")
}

stop_demo() {
  kill -TERM "$pid"
  local end=$((SECONDS + stop_deadline_s))
  while is_running; do
    [ $SECONDS -lt $end ] || die "the server did not stop within ${stop_deadline_s}s"
    sleep 0.1
  done
  wait "$pid" || die "the server ended with $?"
  pid=
}
