#!/usr/bin/env bash
# A cluster of one build becomes one of another while it trains: nodes are restarted one after the other, and
# after each the two builds work together for some optimizer steps. At the end the audit.
# usage: rolling_upgrade.sh OLD [NEW]       OLD, NEW: binaries; NEW is built here where none is named
# An OLD of the commit before the protocol's version last grew is what this is for:
#   git worktree add /tmp/before COMMIT && (cd /tmp/before && cargo build --release)
# From the environment: STEPS after each restart (3), OUT (a folder for the run, kept; a temporary one
# otherwise).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
old=${1:?usage: rolling_upgrade.sh OLD [NEW]} new=${2:-} steps=${STEPS:-3}
if [ -z "$new" ]; then
    (cd "$root" && cargo build --quiet --release)
    new=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
CRRL=$out/crrl
cp "$old" "$CRRL"
leave() {
    "$CRRL" cluster down --run "$out/run" >/dev/null 2>&1 || true
    [ -n "${OUT:-}" ] || rm -rf "$out"
}
trap leave EXIT
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" 1000000 4 4 16

# Waits until so many more steps are made.
more() {
    python3 "$root/scripts/wait_for_steps.py" "$out/run/run.sqlite" "+$steps"
}
echo "$("$CRRL" --version), then $("$new" --version)"
"$CRRL" cluster up -f "$out/cluster.toml" >"$out/up.log" 2>&1 || { cat "$out/up.log" >&2; exit 1; }
more
# Where a program was there is another from now on; those that run keep theirs.
cp "$new" "$out/crrl.new" && mv "$out/crrl.new" "$CRRL"
for node in rollout-0 learner coordinator rollout-1; do
    "$CRRL" cluster restart --rolling "$node" --run "$out/run" 2>"$out/restart.log" || { cat "$out/restart.log" >&2; exit 1; }
    more
    echo "$steps steps with $node of the new build, too"
done
"$CRRL" cluster down --run "$out/run" >"$out/down.log" 2>&1 || { cat "$out/down.log" >&2; exit 1; }
"$CRRL" audit "$out/run"
