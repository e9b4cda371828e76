#!/usr/bin/env bash
# Runs every measurement in sequence, in release mode, and prints a Markdown table. README.md explains each.
#
#   benches/run.sh
#
# Settings, from the environment:
#   INPUT          file of events for log-to-gold; generated when not set
#   KEPT, REFUSED  what must come of INPUT; checked when set
#   RUNS           runs of log-to-gold and of the peer, alternating; the medians are printed (5)
#   PEER           command of another pipeline over the same file; gets `--input FILE --root FOLDER`, prints JSON with
#                  "lines_per_s" (see README.md)
#   PEER_DOOR      URL of another door that takes one JSON object a request
#   COMMITS        batches of microbatch (10000)
#   HISTORY        sizes at which refresh-cost measures (100000,1000000)
#   CONNECTIONS    connections of http-load (200)
#   SECONDS_EACH   seconds of http-load and freshness, and of each time of chart-load (20)
#   KAFKA          brokers, HOST:PORT; freshness is then measured on Kafka too
#   PORT           port of the server that is measured (18080)
#   SCRATCH        folder for everything that is written; a temporary one when not set
set -euo pipefail
cd "$(dirname "$0")/.."

RUNS=${RUNS:-5} COMMITS=${COMMITS:-10000} CONNECTIONS=${CONNECTIONS:-200} SECONDS_EACH=${SECONDS_EACH:-20}
PORT=${PORT:-18080} KEPT=${KEPT:-} REFUSED=${REFUSED:-} INPUT=${INPUT:-} PEER=${PEER:-} PEER_DOOR=${PEER_DOOR:-}
KAFKA=${KAFKA:-} HISTORY=${HISTORY:-100000,1000000}
BIN=${CARGO_TARGET_DIR:-target}/release
SCRATCH=${SCRATCH:-$(mktemp -d)}
mkdir -p "$SCRATCH"
SERVER=
ROWS=()

stop_server() {
    if [ -n "$SERVER" ]; then
        kill "$SERVER" 2>/dev/null || true
        wait "$SERVER" 2>/dev/null || true
        SERVER=
    fi
}
trap stop_server EXIT

say() { echo "== $*" >&2; }

# field NAME: the value of NAME in a line of JSON.
field() { sed -n 's/.*"'"$1"'": *\([^,}]*\).*/\1/p' | tail -n 1; }
# inner OBJECT NAME: the value of NAME in an object inside of it.
inner() { sed -n 's/.*"'"$1"'":{[^}]*"'"$2"'":\([^,}]*\).*/\1/p' | tail -n 1; }
median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }
row() { ROWS+=("| $1 | $2 | $3 | $4 |"); }

# start_server FOLDER [OPTION...]: an empty server, and KARAT_KEY for it.
start_server() {
    local data=$1
    shift
    rm -rf "$data"
    "$BIN/karat" up --data-dir "$data" --listen "127.0.0.1:$PORT" --without-limits "$@" >"$data.log" 2>&1 &
    SERVER=$!
    for _ in $(seq 300); do
        if curl -fs "http://127.0.0.1:$PORT/ready" >/dev/null 2>&1; then break; fi
        if ! kill -0 "$SERVER" 2>/dev/null; then
            echo "error: the server stopped; its last lines:" >&2
            tail -n 20 "$data.log" >&2
            exit 1
        fi
        sleep 0.2
    done
    # Nobody logs in with it: the account only owns a key of a server that lives for one measurement.
    echo 'Only 4 one measurement!' | "$BIN/karat" user create --username bench --password-stdin --data-dir "$data" >/dev/null
    KARAT_KEY=$("$BIN/karat" key create --owner bench --scope 'publish:*' --scope read --data-dir "$data" | tail -n 1)
    export KARAT_KEY
}

# watcher_keys NUMBER FOLDER: API keys of so many accounts that see every row, with commas between.
watcher_keys() {
    local keys=() number
    for number in $(seq "$1"); do
        echo 'Only 4 one measurement!' | "$BIN/karat" user create --username "watcher_$number" --role operator --password-stdin --data-dir "$2" >/dev/null
        keys+=("$("$BIN/karat" key create --owner "watcher_$number" --scope 'publish:*' --scope read --data-dir "$2" | tail -n 1)")
    done
    (IFS=, && echo "${keys[*]}")
}

say "building"
cargo build --release --locked --workspace --bins

if [ -z "$INPUT" ]; then
    say "generating events"
    INPUT=$SCRATCH/events.ndjson
    TRUTH=$("$BIN/generate" --count 1000000 --shape etl-run --plain --out "$INPUT" 2>&1)
    KEPT=$(field events <<<"$TRUTH") REFUSED=$(field bad <<<"$TRUTH")
fi

say "log to gold, $RUNS runs${PEER:+, alternating with the peer}"
EXPECT=()
if [ -n "$KEPT" ]; then EXPECT+=(--kept "$KEPT"); fi
if [ -n "$REFUSED" ]; then EXPECT+=(--refused "$REFUSED"); fi
: >"$SCRATCH/gold.json"
: >"$SCRATCH/peer.json"
for run in $(seq "$RUNS"); do
    if [ -n "$PEER" ]; then
        # The peer is a command with its arguments, so it is split on purpose.
        # shellcheck disable=SC2086
        $PEER --input "$INPUT" --root "$SCRATCH/peer-$run" | tee -a "$SCRATCH/peer.json" >&2
        rm -rf "$SCRATCH/peer-$run"
    fi
    "$BIN/log-to-gold" --input "$INPUT" ${EXPECT[@]+"${EXPECT[@]}"} | tee -a "$SCRATCH/gold.json" >&2
done
each() { while read -r line; do field "$1" <<<"$line"; done <"$2"; }
ours=$(each events_per_second "$SCRATCH/gold.json" | median)
cpu=$(each cpu_us_per_event "$SCRATCH/gold.json" | median)
memory=$(each peak_memory_mib "$SCRATCH/gold.json" | sort -n | tail -n 1)
theirs=-
if [ -n "$PEER" ]; then
    speed=$(each lines_per_s "$SCRATCH/peer.json" | median)
    theirs="$speed/s (ratio $(ratio "$ours" "$speed"))"
fi
row "Log to gold, one file" "\`log-to-gold\`, median of $RUNS" "$ours events/s, $cpu us of processor an event, $memory MiB at most" "$theirs"

say "stock parts"
parts=$("$BIN/stock-parts" --input "$INPUT")
echo "$parts" >&2
row "JSON to columns, and the bytes and the columns to Parquet, alone, with stock parts" "\`stock-parts\`" \
    "$(field decode_us <<<"$parts") + $(field encode_bronze_us <<<"$parts") + $(field encode_silver_us <<<"$parts") us of processor an event: $(ratio "$(field sum_us <<<"$parts")" "$cpu") of log to gold" -

say "three gold tables"
three=$("$BIN/log-to-gold" --input "$INPUT" --pipelines benches/pipelines/three-golds.toml ${EXPECT[@]+"${EXPECT[@]}"})
echo "$three" >&2
row "Log to gold, gold by day, week and month" "\`log-to-gold --pipelines benches/pipelines/three-golds.toml\`" \
    "$(field events_per_second <<<"$three") events/s, $(field cpu_us_per_event <<<"$three") us of processor an event, $(field peak_memory_mib <<<"$three") MiB at most" -

say "keyed input"
"$BIN/generate" --count 2000000 --keys 1000000 --shape etl-run --plain --duplicates 0 --bad 0 --out "$SCRATCH/keyed.ndjson" 2>/dev/null
keyed=$("$BIN/log-to-gold" --input "$SCRATCH/keyed.ndjson" --pipelines benches/pipelines/upsert.toml)
rm -f "$SCRATCH/keyed.ndjson"
echo "$keyed" >&2
row "Log to gold, upsert into a million keys" "\`log-to-gold --pipelines benches/pipelines/upsert.toml\`" \
    "$(field events_per_second <<<"$keyed") events/s, $(field cpu_us_per_event <<<"$keyed") us of processor an event, $(field peak_memory_mib <<<"$keyed") MiB at most" -

say "refresh cost"
for refresh in merge keys; do
    file=benches/pipelines/$refresh.toml
    if [ "$refresh" = merge ]; then file=benches/pipelines/append.toml; fi
    cost=$("$BIN/refresh-cost" --history "$HISTORY" --pipelines "$file")
    echo "$cost" >&2
    row "10,000-row batch behind $HISTORY events, \`$refresh\`" "\`refresh-cost --pipelines $file\`" \
        "$(sed -n 's/.*"median_ms":\([^,]*\).*/\1/p' <<<"$cost" | paste -sd/ | sed 's,/, / ,g') ms (ratio $(field ratio <<<"$cost"))" -
done

say "microbatches"
batches=$("$BIN/microbatch" --commits "$COMMITS")
echo "$batches" >&2
row "1,000-row batch, at the start and after $COMMITS commits" "\`microbatch --commits $COMMITS\`" \
    "$(field first_median_ms <<<"$batches") ms, then $(field last_median_ms <<<"$batches") ms (ratio $(field ratio <<<"$batches"))" -

say "folds"
folds=$("$BIN/summary-fold")
echo "$folds" >&2
row "One year of quarters of an hour to days in a zone, 1 source / 100 sources / 100 by source" "\`summary-fold\`" \
    "$(field one_ms <<<"$folds") / $(field all_ms <<<"$folds") / $(field by_source_ms <<<"$folds") ms, slowest zone of each" -

say "files"
made=$("$BIN/export-memory" --rows 1000000 --scratch "$SCRATCH/files")
echo "$made" >&2
row "A file of 1,000,000 runs, the most memory over all formats" "\`export-memory --rows 1000000\`" \
    "$(field peak_memory_mib <<<"$made") MiB" -

say "who is calling"
token=$(cargo bench --locked --workspace --bench token)
tail -n 1 <<<"$token" >&2
row "An access token is validated, for the first time / again; an API key, likewise" "\`cargo bench --bench token\`" \
    "$(field token_first_us <<<"$token") / $(field token_cached_us <<<"$token") us; $(field key_first_us <<<"$token") / $(field key_cached_us <<<"$token") us, medians" -

# measure_freshness NAME [OPTION...]
measure_freshness() {
    local name=$1 fresh
    shift
    say "freshness, $name"
    start_server "$SCRATCH/server-${name// /-}" "$@"
    fresh=$("$BIN/freshness" --url "http://127.0.0.1:$PORT" --seconds "$SECONDS_EACH")
    echo "$fresh" >&2
    row "Publish to visible in \`GET /summary\`, 5,000 events/s, $name" "\`freshness --rate 5000\`" \
        "p50 $(inner visible p50_ms <<<"$fresh") ms, p99 $(inner visible p99_ms <<<"$fresh") ms" -
    stop_server
}
measure_freshness "embedded log"
if [ -n "$KAFKA" ]; then measure_freshness "Kafka" --kafka "$KAFKA"; fi

# measure_door URL OPTION...: prints the JSON line.
measure_door() {
    local url=$1
    shift
    "$BIN/http-load" --url "$url" --connections "$CONNECTIONS" --seconds "$SECONDS_EACH" "$@"
}
say "one event a request"
start_server "$SCRATCH/server-door"
DOOR=http://127.0.0.1:$PORT/api/v1/events
peer_door=-
one=$(measure_door "$DOOR" --pid "$SERVER")
if [ -n "$PEER_DOOR" ]; then
    peer_one=$(env -u KARAT_KEY "$BIN/http-load" --url "$PEER_DOOR" --connections "$CONNECTIONS" --seconds "$SECONDS_EACH")
    speed=$(field requests_per_second <<<"$peer_one")
    peer_door="$speed/s (ratio $(ratio "$(field requests_per_second <<<"$one")" "$speed"))"
fi
row "\`POST /events\`, one event a request, $CONNECTIONS connections" "\`http-load --connections $CONNECTIONS\`" \
    "$(field requests_per_second <<<"$one") requests/s, p50 $(field p50_ms <<<"$one") ms, p99 $(field p99_ms <<<"$one") ms, $(field errors <<<"$one") errors" "$peer_door"
stop_server
say "one event a request, the doors alone"
start_server "$SCRATCH/server-door-alone" --without-pipelines
alone=$(measure_door "$DOOR" --pid "$SERVER")
row "The same, \`up --without-pipelines\`" "\`http-load --connections $CONNECTIONS\`" \
    "$(field requests_per_second <<<"$alone") requests/s, $(field server_cpu_us_per_request <<<"$alone") us of processor a request, p50 $(field p50_ms <<<"$alone") ms, p99 $(field p99_ms <<<"$alone") ms, $(field errors <<<"$alone") errors" -
say "100 events a request, the doors alone"
many=$(measure_door "$DOOR" --pid "$SERVER" --batch 100 --connections 32)
row "\`POST /events\`, 100 events a request, 32 connections, \`up --without-pipelines\`" "\`http-load --batch 100 --connections 32\`" \
    "$(field events_per_second <<<"$many") events/s, p99 $(field p99_ms <<<"$many") ms, $(field errors <<<"$many") errors" -
stop_server

say "account routes"
start_server "$SCRATCH/server-accounts"
accounts=$("$BIN/auth-load" --url "http://127.0.0.1:$PORT" --connections 200 --seconds 20)
echo "$accounts" >&2
slowest=$(grep -o '{"route":[^}]*}' <<<"$accounts" | sed 's/.*"route":"\([^"]*\)".*"p99_ms":\([^,]*\).*/\1 \2 ms/' | paste -sd, | sed 's/,/, /g')
row "Account routes that hash no password, 200 connections, $(field rate <<<"$accounts") requests/s in all, from when each was due" "\`auth-load\`" \
    "p99: $slowest; $(field errors <<<"$accounts") errors" -
stop_server

say "charts"
start_server "$SCRATCH/server-charts"
# Of the days that the charts show.
"$BIN/generate" --count 100000 --duplicates 0 --bad 0 --start "$(date -u -d '29 days ago' +%F)" --days 29 --out "$SCRATCH/recent.ndjson" 2>/dev/null
"$BIN/karat" publish "$SCRATCH/recent.ndjson" examples/profits.ndjson --url "http://127.0.0.1:$PORT" >&2
rm -f "$SCRATCH/recent.ndjson"
# Twenty accounts have ten sockets each, which is what a user may have.
watchers=$(watcher_keys 20 "$SCRATCH/server-charts")
charts=$(KARAT_KEY=$watchers "$BIN/chart-load" --url "http://127.0.0.1:$PORT" --clients 200 --interval 1 --seconds "$((SECONDS_EACH > 3 ? SECONDS_EACH : 3))" --publish-rate 50 --pid "$SERVER")
echo "$charts" >&2
row "200 WebSockets with charts at 1 s, while nothing changes; for them with 50 events/s, which change them up to twice a second" "\`chart-load --publish-rate 50\`" \
    "$(field core_share <<<"$charts") of one core ($(inner no_client server_core_share <<<"$charts") without a client) at $(inner quiet messages_per_second <<<"$charts") messages/s; $(field core_share_of_clients <<<"$charts") at $(inner changing messages_per_second <<<"$charts") messages/s" -
stop_server

say "summaries beside a fixed text"
# A thousand connections, at both ends.
ulimit -n 4096 2>/dev/null || true
serving=$("$BIN/serve-load" --seconds "$((SECONDS_EACH / 4 > 0 ? SECONDS_EACH / 4 : 1))")
echo "$serving" >&2
speeds=$(grep -o '{"route":[^}]*}' <<<"$serving" \
    | sed 's/.*"route":"\([^"]*\)","connections":\([^,]*\),"requests_per_second":\([^,]*\),.*"p99_ms":\([^}]*\)}/\1 (\2) \3\/s, p99 \4 ms/' | paste -sd';' | sed 's/;/; /g')
row "\`GET /summary\` from memory and 304, beside a fixed text, (connections), asked by $(field generator <<<"$serving" | tr -d '"')" "\`serve-load\`" "$speeds" -
row "\`GET /summary\` of a year, one source, never asked before, 100 requests/s, from when each was due" "\`serve-load\`" \
    "p50 $(inner never_asked p50_ms <<<"$serving") ms, p99 $(inner never_asked p99_ms <<<"$serving") ms" -

processor=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
memory=$(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
echo "Measured on $(date -u +%Y-%m-%d), $(nproc) processors ($processor), $memory of memory, release build, by \`benches/run.sh\`:"
echo
echo "| measurement | command | result | peer |"
echo "|---|---|---|---|"
printf '%s\n' "${ROWS[@]}"
