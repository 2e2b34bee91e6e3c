#!/usr/bin/env bash
# Loads many times more data than the server may use memory, reads every value back, and checks what that cost.
#
#   scripts/ten-times-memory.sh [10|100]
#
# 10:  2.5 GiB in values of 1 KiB under --maxmemory 256mb (about three minutes, 3 GiB of disk)
# 100: 25 GiB in values of 4 KiB under the same (about half an hour, 28 GiB of disk)
#
# What must hold, or the script ends with 1: no error; every value right, read in random order by 64 connections and by
# one; the load at 100 MiB/s or more; peak resident memory at most 1.1 times maxmemory. Then the same again in a memory
# control group of maxmemory and 10%, where page cache and the kernel's own memory count too, if one can be made here
# (that takes root). Data goes to a directory of its own under TMPDIR, which must be on a disk, and is removed.
set -euo pipefail
cd "$(dirname "$0")/.."

times=${1:-10}
case $times in
    10) value_bytes=1024 ;;
    100) value_bytes=4096 ;;
    *) echo "usage: $0 [10|100]" >&2; exit 2 ;;
esac
maxmemory_mib=256
maxmemory_bytes=$((maxmemory_mib << 20))
keys=$((maxmemory_bytes * times / value_bytes))
bin=${CARGO_TARGET_DIR:-target}/release
peak_max_bytes=$((maxmemory_bytes / 10 * 11))

scratch=$(mktemp -d)
server_pid= group=
cleanup() {
    if [[ -n $server_pid ]]; then
        kill -KILL "$server_pid" 2>/dev/null || true
        wait "$server_pid" 2>/dev/null || true
    fi
    [[ -z $group ]] || rmdir "$group" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }

check_disk() {
    local kind free_kib need_kib=$((maxmemory_bytes / 1024 * times * 11 / 10 + (1 << 20)))
    kind=$(stat -f -c %T "$scratch")
    [[ $kind != tmpfs ]] || fail "$scratch is in memory: set TMPDIR to a directory on a disk"
    free_kib=$(df -k --output=avail "$scratch" | tail -n 1)
    ((free_kib >= need_kib)) || fail "$scratch has $((free_kib >> 20)) GiB free, $((need_kib >> 20)) GiB are needed"
}

# Makes a memory control group limited to maxmemory and 10% and sets `group`, or leaves it empty.
make_group() {
    local name=ferrite-ten-times-$$ root=/sys/fs/cgroup
    if mkdir "$root/memory/$name" 2>/dev/null; then
        group=$root/memory/$name
        echo "$peak_max_bytes" >"$group/memory.limit_in_bytes"
    elif grep -qw memory "$root/cgroup.subtree_control" 2>/dev/null && mkdir "$root/$name" 2>/dev/null; then
        group=$root/$name
        echo "$peak_max_bytes" >"$group/memory.max"
        echo 0 >"$group/memory.swap.max" 2>/dev/null || true
    fi
}

start_server() {
    local log=$scratch/log
    mkdir "$scratch/data"
    : >"$log"
    # The shell joins the group, then becomes the server.
    bash -c '[[ -z $1 ]] || echo $$ >"$1/cgroup.procs"; shift; exec "$@"' start "$group" \
        "$bin/ferrite" --port 0 --bind 127.0.0.1 --dir "$scratch/data" --maxmemory "${maxmemory_mib}mb" \
        >"$log" 2>&1 &
    server_pid=$!
    for _ in $(seq 200); do
        port=$(sed -n 's/.*Ready to accept connections on port \([0-9]*\).*/\1/p' "$log")
        [[ -z $port ]] || return 0
        kill -0 "$server_pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "$log"
    fail "the server is not ready"
}

# load ARGUMENTS...: one run of `bench load` over all keys.
load() {
    "$bin/bench" load --port "$port" --keys "$keys" --value-bytes "$value_bytes" --server-pid "$server_pid" "$@" \
        2>"$scratch/errors" | tee "$scratch/report" || { cat "$scratch/errors"; fail "bench load $*"; }
}

check_memory() {
    local peak=$(($(awk '/^VmHWM/ { print $2 }' "/proc/$server_pid/status") * 1024))
    echo "peak resident memory: $(mib "$peak") of $(mib "$maxmemory_bytes")"
    ((peak <= peak_max_bytes)) || fail "peak resident memory is over $(mib "$peak_max_bytes")"
    if [[ -n $group ]]; then
        local charged
        charged=$(cat "$group/memory.max_usage_in_bytes" 2>/dev/null || cat "$group/memory.peak" 2>/dev/null || echo 0)
        echo "peak memory charged to the control group: $(mib "$charged") of $(mib "$peak_max_bytes")"
    fi
}

run() {
    echo "== $(mib $((keys * value_bytes))) of values under $(mib "$maxmemory_bytes"), ${group:-no} control group"
    start_server
    load --preload --connections 8 --pipeline 64
    local rate
    rate=$(awk '/values:/ { print int($2); exit }' "$scratch/report")
    ((rate >= 100)) || fail "loaded at $rate MiB/s, not at 100 or more"
    load --verify --connections 64 --pipeline 16
    load --verify --connections 1 --pipeline 256
    check_memory
    kill -TERM "$server_pid"
    wait "$server_pid" || fail "the server ended with status $?"
    server_pid=
    rm -rf "$scratch/data"
}

cargo build --release -p ferrite -p bench
check_disk
run
make_group
if [[ -n $group ]]; then
    run
else
    echo "no memory control group can be made here: skipped"
fi
echo "passed"
