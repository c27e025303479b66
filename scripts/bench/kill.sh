#!/usr/bin/env bash
# kill -9 of a rollout node, many times, while a cluster trains the shipped policy on this machine: how soon
# it was missed, and how soon after that its work was out again.
# usage: kill.sh [TIMES]              TIMES it is killed (20)
# From the environment: CRRL (a built binary; built here otherwise), OUT (a folder for the run).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
times=${1:-20}
export OUT=${OUT:-$(mktemp -d)}
SCENARIOS=kill-rollout "$root/scripts/bench/resilience.sh" "$times"
echo
python3 "$root/scripts/bench/again.py" "$OUT/run/events.jsonl"
