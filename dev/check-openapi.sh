#!/usr/bin/env bash
# Whether openapi.json still holds what clients were told: compares it with the one of a base, by oasdiff. Fails when a change
# breaks clients and is not in docs/openapi-breaks.txt, and prints each.
#
#   dev/check-openapi.sh [BASE]
#
# BASE is a revision of git. Without it, it is the newest release (tag `v*`) before this commit, else the first parent: what was
# there before this commit was merged. Where there is none (no history, or none with an openapi.json) nothing is compared, and it
# says so.
#
# oasdiff is built once, into ${KARAT_DEV_DIR:-target/dev}/oasdiff, with the Go that is there or one from PyPI.
# Exit codes: 0 ok, 1 clients break, or it cannot be compared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=v1.37.0
breaks=docs/openapi-breaks.txt

say() { printf '%s\n' "check-openapi: $*" >&2; }
die() { say "$*"; exit 1; }
pass() { say "nothing is compared: $*"; exit 0; }

. dev/go.sh

listed=$(grep -vE '^(#|[[:space:]]*$)' "$breaks" || true)
while IFS= read -r line; do
  [[ -z $line || $line =~ ^[A-Z]+\ /.*\ \#\ .*[^[:space:]] ]] ||
    die "$breaks: expected \`GET /path what changed # the reason\`, found \`$line\`"
done <<<"$listed"

has() { git rev-parse --quiet --verify "$1^{commit}" >/dev/null; }

base=${1:-}
if [ -n "$base" ]; then
  has "$base" || die "BASE: expected a revision of this clone, found \`$base\`"
else
  [ -e .git ] || pass 'this is no clone of git'
  has HEAD || die 'git does not tell the commit of this clone'
  has 'HEAD^' || pass 'this clone has no history before this commit'
  base=$(git describe --tags --abbrev=0 --match 'v*' 'HEAD^' 2>/dev/null) || base='HEAD^'
fi
commit=$(git rev-parse --short "$base^{commit}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! git cat-file -e "$commit:openapi.json" 2>/dev/null; then
  [ -z "${1:-}" ] || die "BASE: \`$base\` has no openapi.json"
  pass "$base has no openapi.json"
fi
git show "$commit:openapi.json" >"$work/base.json"
if cmp -s "$work/base.json" openapi.json; then
  say "openapi.json is that of $base ($commit)"
  exit 0
fi

home=${KARAT_DEV_DIR:-target/dev}/oasdiff/$version
if [ ! -x "$home/oasdiff" ]; then
  say "building oasdiff $version, once"
  build_with_go "$home" github.com/oasdiff/oasdiff "$version"
fi
# A reason is for people; without it a line is what oasdiff itself takes.
sed 's/ # .*//' <<<"$listed" >"$work/breaks.txt"
code=0
# What it warns of breaks clients too: a parameter that is gone is refused here.
"$home/oasdiff" breaking "$work/base.json" openapi.json --err-ignore "$work/breaks.txt" --warn-ignore "$work/breaks.txt" \
  --fail-on WARN --allow-external-refs=false --format singleline --color never >"$work/found" || code=$?
sed 's/^\([a-z]*\) at [^ ]*, in API /\1: /' "$work/found" >&2
case $code in
  0) say "what clients know of $base ($commit) holds" ;;
  1) die "the document breaks clients of $base ($commit): undo it, or list what is meant in $breaks with its reason" ;;
  *) die "oasdiff could not compare with $base ($commit)" ;;
esac
