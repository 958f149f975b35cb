#!/usr/bin/env bash
# The main job, from a bare machine: sets up, builds, trains the models of the smoke preset on the
# embedded text (on a GPU where there is one, else on the CPU), and draws the comparison. The last lines
# say where the results and the picture are. Arguments are handed on to `bkbench run` and win over these.
set -euo pipefail
cd "$(dirname "$0")/.."

echo 'A first build takes about 25 minutes on two cores; the smoke preset then takes minutes more.'
scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
cargo run --locked --bin bkbench -- run --benchmark longcontext --preset smoke --device auto "$@"
