#!/usr/bin/env bash
# Makes the pictures of docs/DASHBOARD.md: scripts/dashboard_shots.sh [RUN RUN]
#
# RUN RUN are folders of runs that are over. Without them two short quickstarts are made in a temporary
# folder (some ten minutes on two cores), and the first is also photographed while it is under way.
# Needs python3 and chromium. From the environment: CRRL (a built binary; built here otherwise).
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${CRRL:-}" ]; then
    cargo build --quiet --release
    CRRL=${CARGO_TARGET_DIR:-target}/release/crrl
fi
crrl=$CRRL
images=${IMAGES:-docs/images}
shots=crates/dashboard/tests/browser/shots.py
work=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT

# Serves these runs; their address is in $address then.
serve() {
    : >"$work/address"
    "$crrl" dashboard "$@" >"$work/address" 2>/dev/null &
    pids+=($!)
    for _ in $(seq 200); do
        [ -s "$work/address" ] && break
        sleep 0.05
    done
    address=$(head -1 "$work/address")
}

if [ $# -eq 2 ]; then
    first=$1 second=$2
else
    first=$work/quick-a second=$work/quick-b
    "$crrl" quickstart --quiet --seed 0 --steps 12 --run-dir "$first" >/dev/null &
    training=$!
    pids+=("$training")
    until [ -f "$first/run.sqlite" ]; do sleep 0.2; kill -0 "$training"; done
    serve "$first"
    # In the middle of the training: a third of its steps are made.
    python3 scripts/wait_for_steps.py "$first/run.sqlite" 4
    python3 "$shots" "$images" "$address" 0/overview=dashboard-live 0/actors@dark=dashboard-actors
    wait "$training"
    "$crrl" quickstart --quiet --seed 1 --steps 12 --run-dir "$second" >/dev/null
fi

serve "$first" "$second"
# An episode with something to see: solved, and of more than one turn.
episode=$(python3 - "$first/run.sqlite" <<'PY'
import sqlite3, sys
store = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
print(store.execute("SELECT e.id FROM episodes e JOIN turns t ON t.episode = e.id WHERE e.success = 1 AND e.step IS NOT NULL "
                    "GROUP BY e.id HAVING count(*) >= 2 ORDER BY e.id DESC LIMIT 1").fetchone()[0])
PY
)
python3 "$shots" "$images" "$address" \
    0/curves=dashboard-curves 0/rollouts@1280x620=dashboard-rollouts "0/episode/$episode?colour=logprob@1280x760@down655=dashboard-episode" \
    0/compare=dashboard-compare 0/faults=dashboard-faults \
    "0/overview@390x844=dashboard-phone" "0/rollouts@390x844@dark=dashboard-phone-dark"
