#!/usr/bin/env bash
# Every fault scenario, several times each, against a cluster that trains the shipped policy on this
# machine: one Markdown table of what was survived, how soon it was noticed and got over, and the audit
# of the run.
# usage: resilience.sh [TIMES]        TIMES each scenario is tried (3); about a quarter of an hour a round
# From the environment: CRRL (a built binary; built here otherwise), SCENARIOS (all), OUT (a folder for
# the run; a temporary one, kept if something was not survived), SERVER=apart (the parameter server is a node
# of its own, so that its own scenarios can happen).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
times=${1:-3} scenarios=${SCENARIOS:-all}
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"

# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" 1000000 4 4 16

"$CRRL" train -f "$out/cluster.toml" --quiet >"$out/train.log" 2>&1 &
training=$!
trap 'kill -INT $training 2>/dev/null || true; wait $training 2>/dev/null || true' EXIT
code=0
for _ in $(seq 50); do
    # The host is a moment behind the command that starts it.
    [ -f "$out/run/host.json" ] && break
    sleep 0.2
done
echo "One machine, $(nproc) cores; $(uname -sr); each scenario $times times; seed 0."
echo
# shellcheck disable=SC2086 # several scenarios are several words
"$CRRL" chaos run $scenarios -f "$out/cluster.toml" --times "$times" --window 3 || code=$?
if [ "$code" != 0 ]; then
    echo "not everything was survived: $out" >&2
    trap - EXIT
    kill -INT $training; wait $training || true
fi
exit "$code"
