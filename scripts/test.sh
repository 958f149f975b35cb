#!/usr/bin/env bash
# Sets up, builds and runs every test, and prints the time of each stage.
# Tests that need large real files are listed as ignored unless BKBENCH_DATA names the folder that holds them.
set -euo pipefail
cd "$(dirname "$0")/.."

stage() {
    local name=$1 start=$SECONDS
    shift
    printf '\n==> %s: %s\n' "$name" "$*"
    "$@"
    stages+=("$(printf '%-12s %5d s' "$name" $((SECONDS - start)))")
}

summary() {
    local status=$?
    printf '\n'
    [ ${#stages[@]} -eq 0 ] || printf '%s\n' "${stages[@]}"
    if [ $status -eq 0 ]; then
        printf 'test.sh: all stages passed in %d s\n' "$SECONDS"
    else
        printf 'test.sh: FAILED after %d s, in the stage shown last above\n' "$SECONDS" >&2
    fi
}

stages=()
trap summary EXIT

echo "A first build compiles about 600 crates (about 20 minutes on two cores); the tests take minutes after it."
stage setup scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
stage build cargo build --locked --all-targets
stage unit cargo test --locked --lib --bins
stage integration cargo test --locked --test it
[ -z "${BKBENCH_DATA:-}" ] || stage real-files cargo test --locked --test it -- --ignored
stage docs cargo test --locked --doc
