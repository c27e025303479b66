#!/usr/bin/env bash
# The asynchronous loop beside `sync = true` at equal optimizer steps: the shipped policy on bugs put into
# the tree that ships with the project, two rollout nodes and a learner on this machine, rounds that
# alternate, medians of the training phase's wall time.
# usage: async_against_sync.sh [STEPS [ROUNDS]]        10 steps, 3 rounds
# From the environment: CRRL (a built binary; built here otherwise).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
steps=${1:-10} rounds=${2:-3}
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" "$steps" 8 8 32
for round in $(seq "$rounds"); do
    for sync in true false; do
        "$CRRL" train -f "$out/cluster.toml" --quiet --json --set "run.dir=$out/$sync-$round" \
            --set "run.sync=$sync" --set "run.seed=$round" >"$out/$sync-$round.json" 2>"$out/log" || {
            cat "$out/log" >&2
            exit 1
        }
    done
done
python3 - "$out" "$rounds" "$steps" <<'PY'
import json, statistics, sys
out, rounds, steps = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def walls(sync):
    runs = [json.load(open(f"{out}/{sync}-{r}.json"))["trainings"][0] for r in range(1, rounds + 1)]
    return [run["wall_ms"] / 1000 for run in runs]
both = {name: walls(sync) for name, sync in (("in turns (sync)", "true"), ("asynchronous", "false"))}
print("| loop | wall of the training phase, s, median | all |\n|---|---|---|")
for name, values in both.items():
    print(f"| {name} | {statistics.median(values):.1f} | {', '.join(f'{v:.1f}' for v in values)} |")
a, b = (statistics.median(v) for v in both.values())
print(f"\n{a / b:.2f} times as fast; {steps} steps of 8 groups of 8, {rounds} rounds, alternating")
PY
