#!/usr/bin/env bash
# scripts/seeds.sh [N [FIRST]]: the random tests from N seeds (default 100) that nobody has run before, for every night: the
# engine against a map, faults and losses of power on the simulated disk, collections against maps, repairs, and the commands
# against a real server. FIRST, which is printed, repeats a run. Some two minutes for each seed.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-100}
first=${2:-$(date +%s%N)}
echo "seeds from $first on; again with: scripts/seeds.sh $count $first"
seeds=$first..$((first + count))

MODEL_SEEDS=$seeds CRASH_SEEDS=$seeds FAULT_SEEDS=$seeds \
    cargo test --release -p hybridlog --test simulation --test collections
for ((seed = first; seed < first + count; seed++)); do
    echo "seed $seed"
    REPAIR_SEED=$seed CONCURRENCY_SEED=$seed \
        cargo test --quiet --release -p hybridlog --test repair --test concurrency
    FERRITE_TEST_SEED=$seed cargo test --quiet --release -p ferrite --test differential
done
