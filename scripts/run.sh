#!/usr/bin/env bash
# The main job, from a bare machine: sets up, builds, runs all four benchmarks with the models of the smoke preset on
# the embedded text (on a GPU where there is one, else on the CPU), and writes a report of the comparison. The last
# line says where the report is. Arguments are handed on to `bkbench run` and win over these.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'A first build takes about 25 minutes on two cores; the four benchmarks of the smoke preset then take minutes more.'
scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
printed=$(mktemp)
trap 'rm -f "$printed"' EXIT
# A run whose models learn nothing ends with exit code 1, and has a record that tells of it.
status=0
cargo run --locked --bin bkbench -- run --all --preset smoke --device auto "$@" | tee "$printed" || status=$?
run=$(sed -n 's/^results: //p' "$printed")
# A dry run leaves nothing to tell of.
[ -z "$run" ] || cargo run --locked --quiet --bin bkbench -- report "$run"
exit "$status"
