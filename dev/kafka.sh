#!/usr/bin/env bash
# A real Apache Kafka broker for tests: one KRaft node on free ports of 127.0.0.1.
#
#   dev/kafka.sh fetch     fetches its jars if needed, and starts nothing
#   dev/kafka.sh start     starts it if needed; prints KARAT_TEST_KAFKA=127.0.0.1:PORT on standard output
#   dev/kafka.sh status    the same line if it answers; exit code 3 if it does not run
#   dev/kafka.sh stop      ends it and removes everything but the cached jars
#   dev/kafka.sh kill      SIGKILL, and what it has stays; `again` starts it on that, at the same address
#   dev/kafka.sh freeze    SIGSTOP; `thaw` lets it go on
#
#   env $(dev/kafka.sh start) cargo test -p karat-eventlog
#
# Needs Java 17 or later, and Maven the first time, to fetch the jars that kafka/pom.xml names. Everything lives in
# ${KARAT_DEV_DIR:-target/dev}/kafka, taken from the top of the repository.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
home=${KARAT_DEV_DIR:-target/dev}/kafka
mkdir -p "$home"
home=$(cd "$home" && pwd)
jars=$home/jars run=$home/run
start_deadline_s=180 stop_deadline_s=20 attempts=3

say() { printf '%s\n' "kafka: $*" >&2; }
die() { say "$*"; exit 1; }

need_java() {
  command -v java >/dev/null || die 'java is missing: install a Java 17 runtime (Debian: openjdk-17-jre-headless)'
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || die "java ${version:-of an unknown version} is too old: Kafka 4 needs Java 17"
}

# The jars are fetched again when the pom changes.
fetch_jars() {
  local wanted
  wanted=$(cksum <"$here/kafka/pom.xml")
  [ "$(cat "$jars/.pom" 2>/dev/null || true)" = "$wanted" ] && return
  command -v mvn >/dev/null || die 'mvn is missing: install Maven (Debian: maven); it is needed once, to fetch the jars'
  say 'fetching the jars'
  rm -rf "$jars"
  mvn -B -q -Dstyle.color=never -f "$here/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars" >&2 ||
    die 'maven could not fetch the jars'
  printf '%s' "$wanted" >"$jars/.pom"
}

is_ours() { # the process of the pid file, and not another that got its number
  local pid
  pid=$(cat "$run/pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$run/server.properties"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    if is_free "$port" && [ "$port" != "${1:-}" ]; then echo "$port"; return; fi
  done
}

# Asks for the API versions, the first question of every client; a broker answers it when it has joined its cluster.
answers() {
  local reply
  reply=$(
    {
      exec 3<>"/dev/tcp/127.0.0.1/$1"
      # length 10, request 18 version 0, correlation 7, no client name
      printf '\0\0\0\012\0\022\0\0\0\0\0\007\377\377' >&3
      timeout 2 head -c 10 <&3 | od -An -tx1 | tr -d ' \n'
    } 2>/dev/null
  ) || return 1
  # length, correlation 7, no error
  [[ $reply == ????????000000070000 ]]
}

write_settings() {
  cat >"$run/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$2
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$2
advertised.listeners=PLAINTEXT://127.0.0.1:$1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$run/data
num.partitions=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
EOF
}

java_run() { java -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" "$@"; }

launch() { # one attempt
  local port controller cluster
  rm -rf "$run"
  mkdir -p "$run"
  port=$(free_port) controller=$(free_port "$port")
  write_settings "$port" "$controller"
  cluster=$(java_run kafka.tools.StorageTool random-uuid 2>>"$run/log" | tail -n 1)
  java_run kafka.tools.StorageTool format -t "$cluster" -c "$run/server.properties" >>"$run/log" 2>&1
  run_broker "$port"
}

run_broker() { # PORT: runs it on what is there, and waits until it answers
  local port=$1 deadline
  setsid nohup java -Xms256m -Xmx768m -XX:+UseG1GC -Djava.awt.headless=true \
    -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$jars/*" kafka.Kafka "$run/server.properties" \
    </dev/null >>"$run/log" 2>&1 &
  echo $! >"$run/pid"
  deadline=$((SECONDS + start_deadline_s))
  while [ $SECONDS -lt $deadline ]; do
    if answers "$port"; then echo "$port" >"$run/port"; return 0; fi
    kill -0 "$(cat "$run/pid")" 2>/dev/null || return 1
    sleep 0.2
  done
  return 1
}

end() {
  local pid deadline
  if is_ours; then
    pid=$(cat "$run/pid")
    kill -TERM "$pid" 2>/dev/null || true
    deadline=$((SECONDS + stop_deadline_s))
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -rf "$run"
}

show() { echo "KARAT_TEST_KAFKA=127.0.0.1:$(cat "$run/port")"; }

is_up() { is_ours && [ -s "$run/port" ] && answers "$(cat "$run/port")"; }

case ${1:-} in
  fetch)
    need_java
    fetch_jars
    ;;
  start)
    if is_up; then show; exit 0; fi
    need_java
    fetch_jars
    end
    for attempt in $(seq $attempts); do
      if launch; then show; exit 0; fi
      say "attempt $attempt failed; the end of its log:"
      tail -n 20 "$run/log" >&2 || true
      end
    done
    die "the broker did not answer within ${start_deadline_s}s"
    ;;
  status)
    if is_up; then show; else say 'not running'; exit 3; fi
    ;;
  stop)
    end
    ;;
  kill)
    is_ours || die 'not running'
    kill -KILL "$(cat "$run/pid")"
    while kill -0 "$(cat "$run/pid")" 2>/dev/null; do sleep 0.05; done
    ;;
  again)
    if is_ours; then die 'it runs'; fi
    run_broker "$(cat "$run/port")" || die "the broker did not come back within ${start_deadline_s}s"
    ;;
  freeze) is_ours && kill -STOP "$(cat "$run/pid")" ;;
  thaw) is_ours && kill -CONT "$(cat "$run/pid")" ;;
  *)
    sed -n '2,14p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
