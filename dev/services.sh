#!/usr/bin/env bash
# Real services for tests, on free ports of 127.0.0.1: PostgreSQL, MariaDB, Redis, a mail server, an OpenID provider and
# an S3 server.
#
#   dev/services.sh fetch [NAME...]   installs what is missing (Debian, as root), and starts nothing
#   dev/services.sh start [NAME...]   installs what is missing (Debian, as root), starts what does not run; prints one
#                                     KARAT_TEST_NAME=ADDRESS a line on standard output
#   dev/services.sh status [NAME...]  the same lines for what answers; exit code 3 if anything does not
#   dev/services.sh stop              ends them and removes their data
#
# NAMEs are postgres, mariadb, redis, mail, oidc and s3; all without any.
#
#   env $(dev/services.sh start) cargo test -p karat-access
#
# The S3 server is the Versity gateway over a folder: it is built once, by the Go that is there or one from PyPI.
#
# Everything lives in ${KARAT_DEV_DIR:-target/dev}/services, taken from the top of the repository. Started by root,
# PostgreSQL runs as the user `postgres`, and its data is in a folder of /tmp that this user may enter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/.."
home=${KARAT_DEV_DIR:-target/dev}/services
mkdir -p "$home"
home=$(cd "$home" && pwd)
run=$home/run
deadline_s=180

say() { printf '%s\n' "services: $*" >&2; }
die() { say "$*"; exit 1; }

. dev/go.sh

postgres_bin() { ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; }

has() { # NAME: whether it is among the chosen ones
  case " $services " in *" $1 "*) ;; *) return 1 ;; esac
}

install_missing() {
  local packages=()
  ! has postgres || [ -x "$(postgres_bin)/postgres" ] || packages+=(postgresql)
  ! has mariadb || [ -x /usr/sbin/mariadbd ] || packages+=(mariadb-server)
  ! has redis || command -v redis-server >/dev/null || packages+=(redis-server)
  python3 -c 'import venv, ensurepip' 2>/dev/null || packages+=(python3-venv)
  if [ ${#packages[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "missing: ${packages[*]}; install them, or run this once as root"
    say "installing ${packages[*]}"
    # The packages' own services stay off: these run on their own ports.
    local policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; trap "rm -f $policy" EXIT; }
    apt-get update -qq >&2 || say 'the package lists could not be brought up to date'
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" >&2 ||
      die 'apt could not install the packages'
  fi
  # One that was broken off has no pip.
  "$home/venv/bin/pip" --version >/dev/null 2>&1 || python3 -m venv --clear "$home/venv"
  ! has mail || "$home/venv/bin/python" -c 'import aiosmtpd' 2>/dev/null ||
    "$home/venv/bin/pip" install -q 'aiosmtpd==1.4.6' >&2 || die 'pip could not install aiosmtpd'
  ! has s3 || [ -x "$home/bin/versitygw" ] || build_s3
  has oidc || return 0
  node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' 2>/dev/null ||
    die 'node is missing or too old: install Node.js 20 or later'
  # The program stands beside its library, which is how node finds it.
  mkdir -p "$home/oidc"
  cp "$here/oidc-provider.mjs" "$home/oidc/provider.mjs"
  [ -d "$home/oidc/node_modules/oidc-provider" ] ||
    npm install --silent --no-audit --no-fund --prefix "$home/oidc" oidc-provider@9 >&2 ||
    die 'npm could not install oidc-provider'
}

versitygw=v1.8.0

build_s3() {
  say "building versitygw $versitygw: some minutes, once"
  build_with_go "$home/bin" github.com/versity/versitygw/cmd/versitygw "$versitygw"
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    # Nor one that another service here was given and does not listen on yet.
    if is_free "$port" && ! grep -qsx "$port" "$run"/*.port; then echo "$port"; return; fi
  done
}

is_alive() { # NAME: the process of its pid file, and not another that got its number
  local pid
  pid=$(cat "$run/$1.pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$(cat "$run/$1.mark")"
}

is_up() { is_alive "$1" && [ -s "$run/$1.port" ] && ! is_free "$(cat "$run/$1.port")"; }

# NAME MARK COMMAND...: runs a program of its own session whose command line holds MARK.
launch() {
  local name=$1 mark=$2
  shift 2
  printf '%s' "$mark" >"$run/$name.mark"
  setsid nohup "$@" </dev/null >>"$run/$name.log" 2>&1 &
  echo $! >"$run/$name.pid"
}

wait_for() { # NAME
  local until=$((SECONDS + deadline_s))
  while [ $SECONDS -lt $until ]; do
    if is_up "$1"; then return 0; fi
    sleep 0.1
  done
  tail -n 20 "$run/$1.log" >&2 || true
  die "$1 did not answer within ${deadline_s}s"
}

as_postgres=(env)
[ "$(id -u)" != 0 ] || as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)

# Data of tests need not survive a power cut.
start_postgres() {
  local bin data port
  bin=$(postgres_bin)
  if [ "$(id -u)" = 0 ]; then data=$(mktemp -d /tmp/karat-postgres.XXXXXX); chown postgres: "$data"; else data=$run/postgres; mkdir -p "$data"; fi
  printf '%s' "$data" >"$run/postgres.data"
  port=$(free_port)
  "${as_postgres[@]}" "$bin/initdb" -D "$data/db" -U karat --auth=trust -E UTF8 --no-sync >>"$run/postgres.log" 2>&1
  echo "$port" >"$run/postgres.port"
  launch postgres "$data/db" "${as_postgres[@]}" "$bin/postgres" -D "$data/db" -p "$port" -k "$data" \
    -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off -c max_connections=400
}

start_mariadb() {
  local data=$run/mariadb port user=()
  port=$(free_port)
  [ "$(id -u)" = 0 ] && user=(--user=root)
  mariadb-install-db --no-defaults "${user[@]}" --datadir="$data" --auth-root-authentication-method=normal \
    --skip-test-db >>"$run/mariadb.log" 2>&1
  # One statement a line is what it reads.
  printf "CREATE USER 'karat'@'127.0.0.1' IDENTIFIED BY 'karat';\nGRANT ALL ON *.* TO 'karat'@'127.0.0.1';\n" >"$run/mariadb.sql"
  echo "$port" >"$run/mariadb.port"
  launch mariadb "$data" mariadbd --no-defaults "${user[@]}" --datadir="$data" --port="$port" --bind-address=127.0.0.1 \
    --socket="$run/mariadb.sock" --skip-name-resolve --innodb-flush-log-at-trx-commit=0 --max-connections=400 \
    --init-file="$run/mariadb.sql"
}

start_redis() {
  local port
  port=$(free_port)
  echo "$port" >"$run/redis.port"
  # Redis rewrites its command line; this part stays.
  launch redis ":$port" redis-server --port "$port" --bind 127.0.0.1 --save '' --appendonly no --dir "$run"
}

start_mail() {
  local port
  port=$(free_port)
  mkdir -p "$run/mail"
  echo "$port" >"$run/mail.port"
  launch mail "$run/mail" "$home/venv/bin/python" "$here/mail-server.py" "$port" "$run/mail"
}

start_oidc() {
  local port
  port=$(free_port)
  echo "$port" >"$run/oidc.port"
  launch oidc "$home/oidc/provider.mjs" node "$home/oidc/provider.mjs" "$port"
}

start_s3() {
  local port
  port=$(free_port)
  # A folder in its root is a bucket.
  mkdir -p "$run/s3/buckets/karat" "$run/s3/attributes"
  echo "$port" >"$run/s3.port"
  ROOT_ACCESS_KEY_ID=karat ROOT_SECRET_ACCESS_KEY=karat-secret launch s3 "$run/s3/buckets" \
    "$home/bin/versitygw" --port "127.0.0.1:$port" --keep-alive --quiet posix --sidecar "$run/s3/attributes" "$run/s3/buckets"
}

show() { # NAME
  local port
  port=$(cat "$run/$1.port")
  case $1 in
    postgres) echo "KARAT_TEST_POSTGRES=postgres://karat@127.0.0.1:$port/postgres" ;;
    mariadb) echo "KARAT_TEST_MYSQL=mysql://karat:karat@127.0.0.1:$port/mysql" ;;
    oidc) echo "KARAT_TEST_OIDC=http://127.0.0.1:$port" ;;
    redis) echo "KARAT_TEST_REDIS=redis://127.0.0.1:$port" ;;
    s3) echo "KARAT_TEST_S3=http://karat:karat-secret@127.0.0.1:$port/karat" ;;
    mail) echo "KARAT_TEST_SMTP=smtp://127.0.0.1:$port"; echo "KARAT_TEST_MAIL_DIR=$run/mail" ;;
  esac
}

end() { # NAME
  local pid until
  if is_alive "$1"; then
    pid=$(cat "$run/$1.pid")
    kill -TERM "$pid" 2>/dev/null || true
    until=$((SECONDS + 20))
    while kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $until ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  if [ -s "$run/$1.data" ]; then rm -rf -- "$(cat "$run/$1.data")"; fi
}

all='postgres mariadb redis mail oidc s3'
services=${*:2}
services=${services:-$all}
for name in $services; do
  case " $all " in *" $name "*) ;; *) die "there is no service $name: those are $all" ;; esac
done

case ${1:-} in
  fetch)
    install_missing
    ;;
  start)
    install_missing
    mkdir -p "$run"
    for name in $services; do
      if ! is_up "$name"; then
        end "$name"
        rm -rf -- "$run/$name" "$run/$name".*
        "start_$name"
      fi
    done
    for name in $services; do wait_for "$name"; show "$name"; done
    ;;
  status)
    code=0
    for name in $services; do if is_up "$name"; then show "$name"; else say "$name does not run"; code=3; fi; done
    exit $code
    ;;
  stop)
    for name in $all; do end "$name"; done
    rm -rf -- "$run"
    ;;
  *)
    sed -n '2,18p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
