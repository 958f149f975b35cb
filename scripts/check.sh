#!/usr/bin/env bash
# Everything a change must pass: formatting, lints, tests, documentation, licences.
# Run it before a commit; CI runs this script and no copy of it.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
[ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
scripts/test.sh
RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
if command -v cargo-deny > /dev/null; then
    cargo deny --locked check
else
    echo 'check.sh: cargo-deny is not installed, licences and advisories were not checked' >&2
fi
echo 'check.sh: passed'
