#!/usr/bin/env bash
# How weights travel, on this machine: fan-out to eight nodes, 10 MB until four nodes have it, 100 MB beside
# plain TCP, control messages beside 100 MB, an adapter in f32 and in bf16 (crates/cluster/benches/weights), and
# each leg of the hand-over of real adapters in a training run.
# usage: weights.sh [ROUNDS [STEPS]]        5 rounds, 12 optimizer steps
# From the environment: CRRL and WEIGHTS (built binary and bench; built here otherwise), OUT (a folder for the
# run, kept; a temporary one otherwise).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=${1:-5} steps=${2:-12}
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
if [ -n "${OUT:-}" ]; then
    out=$OUT
    mkdir -p "$out"
else
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
echo "One machine, $(nproc) cores; $(uname -sr)."
if [ -n "${WEIGHTS:-}" ]; then
    ROUNDS=$rounds "$WEIGHTS"
else
    (cd "$root" && ROUNDS=$rounds cargo bench --quiet -p crrl-cluster --bench weights)
fi
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" "$steps" 4 8 32
"$CRRL" train -f "$out/cluster.toml" --quiet >"$out/train.log" 2>&1 || {
    cat "$out/train.log" >&2
    exit 1
}
python3 "$root/scripts/bench/hand_over.py" "$out/run"
