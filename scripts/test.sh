#!/usr/bin/env bash
# Sets up, builds and runs every test, and prints the time of each stage.
# Tests that need large real files are listed as ignored unless BKBENCH_DATA names the folder that holds them.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() {
    current=$1
    local start=$SECONDS
    shift
    printf '\n==> %s: %s\n' "$current" "$*"
    "$@"
    times+=$(printf '%-12s %5d s' "$current" $((SECONDS - start)))$'\n'
}

summary() {
    local status=$?
    printf '\n%s' "$times"
    if [ $status -eq 0 ]; then
        printf 'test.sh: all stages passed in %d s\n' "$SECONDS"
    else
        printf 'test.sh: FAILED in stage %s after %d s\n' "$current" "$SECONDS" >&2
    fi
}

times='' current=none
trap summary EXIT

echo 'A first build compiles the whole dependency tree: about 25 minutes on two cores. The tests take minutes.'
stage setup scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
stage build cargo build --locked --all-targets
stage unit cargo test --locked --lib --bins
stage integration cargo test --locked --test it ${BKBENCH_DATA:+-- --include-ignored --skip twenty_kills --skip the_dispatches_of_a_gather}
stage docs cargo test --locked --doc
