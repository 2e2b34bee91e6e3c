#!/usr/bin/env bash
# Kills the release server with SIGKILL at random moments and checks what is there after each restart, with appendfsync
# always (no acknowledged write may be lost) and everysec (none older than a second).
#
#   scripts/kill-loop.sh [CYCLES]     20 cycles for each of the two (about a minute), unless said otherwise
#
# A small maxmemory puts data on all tiers. On failure the seed and the directory with the server's files are printed.
set -euo pipefail
cd "$(dirname "$0")/.."

cycles=${1:-20}
cargo build --release -p ferrite -p bench
bin=$(realpath "${CARGO_TARGET_DIR:-target}/release")
for appendfsync in always everysec; do
    "$bin/bench" kill --cycles "$cycles" \
        --server "'$bin/ferrite' --appendonly yes --appendfsync $appendfsync --maxmemory 64mb"
done
