#!/usr/bin/env bash
# The main job, from a bare machine: sets up, builds, trains the models of the smoke preset on the
# embedded text (on a GPU where there is one, else on the CPU), and draws the comparison.
# Arguments are handed on to `bkbench run`; the last --preset or --device given wins.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'A first build takes about 20 minutes on two cores; the smoke preset then takes minutes more.'
scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
cargo build --locked --bin bkbench
bkbench=${CARGO_TARGET_DIR:-target}/debug/bkbench

out=results/smoke-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$out"
"$bkbench" run --benchmark longcontext --preset smoke --device auto --output "$out/longcontext.json" "$@"
"$bkbench" plot stability --results_file "$out/longcontext.json" --output "$out/stability.svg" --show_confidence_intervals
echo
echo "results: $out/longcontext.json"
echo "picture: $out/stability.svg"
