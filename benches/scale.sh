#!/usr/bin/env bash
# What a second transform process is worth: the same records from Kafka to gold, by one process and by two, each pinned to a
# core of its own. Prints JSON; exit code 2 when two do less than BAR times the work of one.
#
#   env $(dev/kafka.sh start) benches/scale.sh
#
# Settings, from the environment:
#   KARAT_TEST_KAFKA   the broker, HOST:PORT
#   COUNT              distinct events (2000000): taking part in the group takes seconds, which should not count for much
#   BAR                least ratio (1.4)
#   CORES              the two cores (0,1). The broker should have others: on a machine with two cores it takes from what two
#                      processes have, and not from what one has
#   RUNS               of each, alternating; the medians count (3)
set -euo pipefail
cd "$(dirname "$0")/.."

KAFKA=${KARAT_TEST_KAFKA:?names no broker: dev/kafka.sh start}
COUNT=${COUNT:-2000000} BAR=${BAR:-1.4} CORES=${CORES:-0,1} RUNS=${RUNS:-3}
BIN=${BIN:-${CARGO_TARGET_DIR:-target}/release}
SCRATCH=$(mktemp -d)
TOPIC=bench.scale.$RANDOM$RANDOM
PIPELINES=$SCRATCH/pipelines.toml
PIDS=()

end() {
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
    PIDS=()
}
trap 'end; rm -rf -- "$SCRATCH"' EXIT

say() { echo "== $*" >&2; }

sed "s/bench\.scale/$TOPIC/" benches/pipelines/two.toml >"$PIPELINES"

# Everything is in the topic before the clock runs.
fill() {
    "$BIN/generate" --count "$COUNT" --out "$SCRATCH/events.ndjson" 2>/dev/null
    local data=$SCRATCH/door
    "$BIN/karat" ingest --kafka "$KAFKA" --pipelines "$PIPELINES" --data-dir "$data" --listen 127.0.0.1:0 --without-limits \
        >"$SCRATCH/door.log" 2>&1 &
    PIDS+=($!)
    local url=
    for _ in $(seq 300); do
        url=$(sed -n 's/.* listening address=\([^ ]*\).*/http:\/\/\1/p' "$SCRATCH/door.log")
        [ -z "$url" ] || break
        sleep 0.1
    done
    echo 'Correct-Horse-91-Staple' | "$BIN/karat" user create --username bench --role operator --password-stdin --data-dir "$data" >&2
    local key
    key=$("$BIN/karat" key create --owner bench --scope 'publish:*' --data-dir "$data")
    # Some events are bad on purpose: the door refuses them, and the exit code says so.
    "$BIN/karat" publish "$SCRATCH/events.ndjson" --url "$url" --key "$key" --format json >"$SCRATCH/published.json" || true
    end
    sed -n 's/.*"accepted": *\([0-9]*\).*/\1/p' "$SCRATCH/published.json" | head -n 1
}

# The records that the newest epochs of both pipelines cover: the smaller of the two. Asked while the clock runs, so it is cheap.
covered() {
    local pipeline newest count least=
    for pipeline in sources jobs; do
        newest=$(find "$1/_karat/epochs/$pipeline" -name '*.json' 2>/dev/null | sort | tail -n 1)
        count=0
        [ -z "$newest" ] || count=$(sed -n 's/.*"positions": *{\([^}]*\)}.*/\1/p' "$newest" | tr ',' '\n' | awk -F: '{ sum += $2 } END { print sum + 0 }')
        if [ -z "$least" ] || [ "$count" -lt "$least" ]; then least=$count; fi
    done
    echo "$least"
}

# run CORE...: seconds from the start of a process a core until everything is in gold.
run() {
    local lake began core
    lake=$(mktemp -d "$SCRATCH/lake.XXXX")
    began=$(date +%s.%N)
    for core in "$@"; do
        taskset -c "$core" "$BIN/karat" transform --kafka "$KAFKA" --pipelines "$PIPELINES" --lake "$lake" \
            --data-dir "$lake.data-$core" >"$lake.log-$core" 2>&1 &
        PIDS+=($!)
    done
    while [ "$(covered "$lake")" -lt "$RECORDS" ]; do
        for pid in "${PIDS[@]}"; do
            kill -0 "$pid" 2>/dev/null || { say "a process ended:"; tail -n 5 "$lake".log-* >&2; exit 1; }
        done
        sleep 0.5
    done
    echo "$(date +%s.%N) $began" | awk '{ printf "%.2f\n", $1 - $2 }'
    end
    rm -rf "$lake" "$lake".data-*
}

median() { sort -n | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

RECORDS=$(fill)
say "$RECORDS records in $TOPIC"
IFS=, read -r first second <<<"$CORES"
for number in $(seq "$RUNS"); do
    run "$first" >>"$SCRATCH/one"
    run "$first" "$second" >>"$SCRATCH/two"
    say "run $number: one $(tail -n 1 "$SCRATCH/one") s, two $(tail -n 1 "$SCRATCH/two") s"
done
one=$(median <"$SCRATCH/one") two=$(median <"$SCRATCH/two")
awk -v one="$one" -v two="$two" -v records="$RECORDS" -v bar="$BAR" 'BEGIN {
    printf "{\"records\": %d, \"one_s\": %.2f, \"two_s\": %.2f, \"ratio\": %.2f, \"bar\": %.2f}\n", records, one, two, one / two, bar
    exit one / two < bar ? 2 : 0
}'
