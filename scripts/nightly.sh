#!/usr/bin/env bash
# The engine's random tests from SEEDS (default 10,000) seeds each, in a release build, and as many orders of its threads.
# Takes hours.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-10000}
export MODEL_SEEDS=$seeds FAULT_SEEDS=$seeds CRASH_SEEDS=$seeds
cargo test --release -p hybridlog --test simulation
scripts/interleavings.sh "$seeds"
