#!/usr/bin/env bash
# The asynchronous loop beside `sync = true` at equal optimizer steps: the shipped policy on bugs put into
# the tree that ships with the project, two rollout nodes and a learner on this machine, rounds that
# alternate, medians of the training phase's wall time, and what each policy earns on held-out bugs.
# usage: async_against_sync.sh [STEPS [ROUNDS [TOOLS_MS]]]        10 steps, 3 rounds, 0
# TOOLS_MS: every tool call takes longer, exponentially distributed with this mean, as where commands build
# and test (`slow-tools` of `crrl chaos`): episodes are then of very uneven length, and most of their time is
# not the processor's. 0: as they come.
# From the environment: CRRL (a built binary; built here otherwise), OUT (a folder for the runs, kept; a
# temporary one otherwise).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
steps=${1:-10} rounds=${2:-3} tools_ms=${3:-0}
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
if [ -n "${OUT:-}" ]; then
    out=$OUT
    [ ! -e "$out/true-1" ] || { echo "$out holds runs already" >&2; exit 2; }
    mkdir -p "$out"
else
    out=$(mktemp -d)
fi
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" "$steps" 8 8 32
# Functions of either side are in no task of the other.
for side in train held-out; do
    count=$([ "$side" = train ] && echo 200 || echo 60)
    "$CRRL" tasks mutate "$root/examples/pytree" -n "$count" --lines-max 12 --split "$side" \
        -o "$out/$side.jsonl" 2>>"$out/tasks.log"
done
sed -i "s|^train = .*|train = \"$out/train.jsonl\"\nheld_out = \"$out/held-out.jsonl\"\nheld_out_samples = 4|" \
    "$out/cluster.toml"

started=()
leave() {
    [ ${#started[@]} = 0 ] || { kill -INT "${started[@]}" && wait "${started[@]}"; } 2>/dev/null || true
    [ -n "${OUT:-}" ] || rm -rf "$out"
}
trap leave EXIT
trap 'exit 130' INT TERM

# Slows the tools of one node down for as long as it is there; comes back once they are slow.
slow() {
    local run=$1 node=$2 seed=$3 deadline=$((SECONDS + 600))
    printf '[[fault]]\nkind = "slow-tools"\nnode = "%s"\nms = %s\nduration_s = 3600\n' "$node" "$tools_ms" \
        >"$out/slow.toml"
    "$CRRL" chaos run "$out/slow.toml" --run "$run" --seed "$seed" --window 0.1 --quiet >"$out/$node.log" 2>&1 &
    started+=($!)
    until grep -q "a fault begins" "$run/logs/$node.log"; do
        kill -0 $! 2>/dev/null || { cat "$out/$node.log" >&2; exit 1; }
        [ $SECONDS -lt $deadline ] || { echo "the tools of $node were never slow" >&2; exit 1; }
        sleep 0.1
    done
}

one() {
    local run=$1 round=$2 sync=$3 training
    "$CRRL" train -f "$out/cluster.toml" --quiet --json --set "run.dir=$run" --set "run.sync=$sync" \
        --set "run.seed=$round" >"$run.json" 2>"$out/log" &
    training=$!
    started=($training)
    if [ "$tools_ms" != 0 ]; then
        until [ -s "$run/host.json" ]; do
            kill -0 $training || { cat "$out/log" >&2; exit 1; }
            sleep 0.1
        done
        slow "$run" rollout-0 $((2 * round))
        slow "$run" rollout-1 $((2 * round + 1))
    fi
    wait $training || { cat "$out/log" >&2; exit 1; }
    # Those that slowed the tools down see their cluster gone.
    started=("${started[@]:1}")
    [ ${#started[@]} = 0 ] || { kill "${started[@]}"; wait "${started[@]}"; } 2>/dev/null || true
    started=()
}
for round in $(seq "$rounds"); do
    for sync in true false; do
        one "$out/$sync-$round" "$round" "$sync"
    done
done
python3 "$root/scripts/bench/async_against_sync.py" "$out" "$rounds" "$steps" "$tools_ms"
