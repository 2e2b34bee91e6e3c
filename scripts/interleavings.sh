#!/usr/bin/env bash
# Tries the lock-free parts of the engine in thousands of orders of their threads, and sees to it that bugs planted into them
# are found: crates/hybridlog/src/interleavings.rs says how. About half a minute, and as long again to build.
#
# scripts/interleavings.sh [EXECUTIONS]: so many of each kind and scenario, in place of what each takes by default. Then the
# planted bugs are left out.
set -euo pipefail
cd "$(dirname "$0")/.."

# A directory of its own: everything is built anew for the flag.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/interleavings
export RUSTFLAGS="${RUSTFLAGS:-} --cfg shuttle"
if [[ $# -gt 0 ]]; then
    FERRITE_INTERLEAVINGS=$1 cargo test -p hybridlog --lib interleavings:: -- --skip planted
else
    cargo test -p hybridlog --lib interleavings::
fi
