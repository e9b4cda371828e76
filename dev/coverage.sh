#!/usr/bin/env bash
# How many lines of accounts and access the tests run, file by file and summed up: access/src, http/src and api/src/auth.
# Fails below 90 of 100 lines of all of them together, and of api/src/auth alone: what is nearest to clients must not hide
# behind the rest.
#
#   dev/coverage.sh
#
# Only tests in their own process count: those end to end run the binary, which has no counters.
# Everything is built once more, with counters, into llvm-cov-target of the build folder (some gigabytes), which no other
# build looks at; `cargo llvm-cov clean` empties it. The selection of packages is that of the other builds, with the unit
# tests of every crate and the suites of these three. No service is needed: what only a service runs counts as not run.
# Files of tests are left out; unit tests beside the code count as lines of their file.
#
# Exit codes: 0 ok, 69 something is missing (it says how to install it), else a test failed or too few lines ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=0
if ! command -v cargo-llvm-cov >/dev/null; then
  echo 'coverage: cargo-llvm-cov is missing: cargo install cargo-llvm-cov --locked' >&2
  missing=1
fi
if [ -z "${LLVM_COV:-}" ] && [ ! -x "$(rustc --print target-libdir)/../bin/llvm-cov" ]; then
  echo "coverage: LLVM's tools for this Rust are missing: rustup component add llvm-tools" >&2
  missing=1
fi
if [ "$missing" = 1 ]; then exit 69; fi

# The expressions of llvm-cov can only name what is left out, so that is all there is but the three.
others=()
for path in */ api/src/*/ api/src/*.rs; do
  case $path in
    access/ | http/ | api/ | api/src/auth/) ;;
    *) others+=("$path") ;;
  esac
done
left_out=$(IFS='|' && echo "${others[*]}")

kept=(--workspace --locked --ignore-filename-regex "^$(pwd -P)/($left_out)")

cargo llvm-cov "${kept[@]}" --lib --test access --test http --test serving
cargo llvm-cov report "${kept[@]}" --json --summary-only | python3 dev/coverage-areas.py "$(pwd -P)"
