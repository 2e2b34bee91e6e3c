#!/usr/bin/env bash
# Runs every fuzz target of every crate for SECONDS (default 60) each. Needs a nightly toolchain and cargo-fuzz.
set -euo pipefail
seconds=${1:-60}
cd "$(dirname "$0")/.."
for fuzz in crates/*/fuzz; do
    crate=$(dirname "$fuzz")
    for target in "$fuzz"/fuzz_targets/*.rs; do
        target=$(basename "$target" .rs)
        echo "== $crate: $target, $seconds s"
        (cd "$crate" && cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -timeout=10)
    done
done
