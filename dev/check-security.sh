#!/usr/bin/env bash
# Whether each statement of docs/SECURITY.md is shown by a test: each that the product meets has a row, a row names at least
# one test, and each that it names is there, carries the number of the row (`security_07_...`, `security_03_and_04_...`) and
# is not ignored. And whether each test with the number of a row is named on the page. Prints what is missing.
#
#   dev/check-security.sh
#
# Exit codes: 0 ok, 1 something is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
page=docs/SECURITY.md

tests=$(find . -path ./target -prune -o -name '*.rs' -exec awk '
  FNR == 1 { is_test = is_ignored = 0 }
  /^[ \t]*#\[(tokio::)?test[](]/ { is_test = 1 }
  /^[ \t]*#\[ignore/ { is_ignored = 1 }
  match($0, /fn [a-z0-9_]+/) {
    name = substr($0, RSTART + 3, RLENGTH - 3)
    if (is_test && !is_ignored && name ~ /^security_[0-9][0-9]_/) print name
    is_test = is_ignored = 0
  }' {} +)

# carries NAME NUMBER: only the numbers before the sentence count, so that no other figure in it is taken for one.
carries() { [[ $1 =~ ^security_([0-9]{2}(_and_[0-9]{2})*)_ && _and_${BASH_REMATCH[1]}_ == *"_and_$2_"* ]]; }

missing=0
say() {
  echo "check-security: $*" >&2
  missing=1
}

rows=$(sed -n 's/^| \([0-9][0-9]\) | .* | \(.*\) |$/\1 \2/p' "$page" | tr -d '`,')
if [ "$(grep -c . <<<"$rows")" != "$(grep -c '^| *[0-9]' "$page")" ] || [ -z "$rows" ]; then
  say "$page: its rows must be \`| 07 | what holds | names of tests |\`"
fi
while read -r number named; do
  if [ -z "$number" ]; then continue; fi
  if [ -z "$named" ]; then say "$number: no test is named"; fi
  for name in $named; do
    if ! grep -qx -- "$name" <<<"$tests"; then
      say "$number: there is no test \`$name\` that runs"
    elif ! carries "$name" "$number"; then
      say "$number: \`$name\` does not carry the number"
    fi
  done
done <<<"$rows"
numbers=$(cut -d ' ' -f 1 <<<"$rows")
# Those that the product meets and this page is about. 83, erasure, it does not.
for number in $(seq -w 1 68) $(seq 75 82) 84; do
  if ! grep -qx -- "$number" <<<"$numbers"; then say "$number: there is no row"; fi
done
for name in $tests; do
  if grep -q -- "\`$name\`" "$page"; then continue; fi
  for number in $numbers; do
    if carries "$name" "$number"; then say "$number: \`$name\` is not named"; fi
  done
done
exit "$missing"
