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
    mkdir -p "$out"
else
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" "$steps" 8 8 32
"$CRRL" tasks mutate "$root/examples/pytree" -n 60 --lines-max 12 --seed 1 -o "$out/held-out.jsonl" \
    2>>"$out/tasks.log"
sed -i "s|^train = .*|&\nheld_out = \"$out/held-out.jsonl\"\nheld_out_samples = 4|" "$out/cluster.toml"
for node in rollout-0 rollout-1; do
    printf '[[fault]]\nkind = "slow-tools"\nnode = "%s"\nms = %s\nduration_s = 3600\n' "$node" "$tools_ms" \
        >"$out/slow-$node.toml"
done

one() {
    local run=$1 training=
    shift
    local injecting=()
    "$CRRL" train -f "$out/cluster.toml" --quiet --json --set "run.dir=$run" "$@" >"$run.json" 2>"$out/log" &
    training=$!
    if [ "$tools_ms" != 0 ]; then
        until [ -s "$run/host.json" ]; do
            kill -0 "$training" || { cat "$out/log" >&2; exit 1; }
            sleep 0.1
        done
        # Each goes on until its node is gone.
        for node in rollout-0 rollout-1; do
            "$CRRL" chaos run "$out/slow-$node.toml" --run "$run" --window 0.1 --quiet >"$out/$node.log" 2>&1 &
            injecting+=($!)
        done
    fi
    wait "$training" || { cat "$out/log" >&2; exit 1; }
    [ ${#injecting[@]} = 0 ] || { kill "${injecting[@]}" 2>/dev/null; wait "${injecting[@]}"; } || true
}
for round in $(seq "$rounds"); do
    for sync in true false; do
        one "$out/$sync-$round" --set "run.sync=$sync" --set "run.seed=$round"
    done
done
python3 "$root/scripts/bench/async_against_sync.py" "$out" "$rounds" "$steps" "$tools_ms"
