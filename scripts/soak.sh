#!/usr/bin/env bash
# A small cluster trains while random faults of every kind befall it, one after the other, and is watched:
# memory and descriptors of each process, throughput by the minute; at the end the audit, and what is left
# of processes, mounts and files. One Markdown page. Exit code 0 if every fault was survived, throughput was
# not found to stay below its level after them (I9), the audit is clean and nothing is left over.
# usage: soak.sh [MINUTES] [SEED]       30 minutes, seed 0
# From the environment: CRRL (a built binary; built here otherwise), OUT (a folder for the run; a temporary
# one, kept if something went wrong), SCENARIOS (those drawn from; every one but those of a parameter server
# that is a node of its own).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
minutes=${1:-30} seed=${2:-0}
# Faults that are injected by one call: each ends with an audit of the whole run.
batch=8
if [ -z "${CRRL:-}" ]; then
    (cd "$root" && cargo build --quiet --release)
    CRRL=${CARGO_TARGET_DIR:-$root/target}/release/crrl
fi
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"
# shellcheck source=scripts/bench/small_cluster.sh
. "$root/scripts/bench/small_cluster.sh"
small_cluster "$root" "$out" 1000000 4 4 16
# Bombs go on until their command's time is up; room on a disk comes back in time.
printf '[sandbox]\ncommand_time_max_s = 2.0\n' >>"$out/cluster.toml"

mounts_before=$(wc -l </proc/self/mounts)
"$CRRL" train -f "$out/cluster.toml" --quiet >"$out/train.log" 2>&1 &
training=$!
sampler=
cleanup() {
    [ -z "$sampler" ] || kill "$sampler" 2>/dev/null || true
    kill -INT $training 2>/dev/null || true
    wait $training 2>/dev/null || true
}
trap cleanup EXIT
until [ -s "$out/run/host.json" ]; do
    kill -0 $training || { cat "$out/train.log" >&2; exit 1; }
    sleep 0.2
done
python3 "$root/scripts/soak.py" sample "$out/run" >"$out/samples.csv" &
sampler=$!

mapfile -t drawn < <(python3 "$root/scripts/soak.py" draw "$seed" "${SCENARIOS:-$("$CRRL" chaos list | awk '$1 !~ /-parameter-server$/ {print $1}' | xargs)}")
end=$((SECONDS + minutes * 60)) round=0 code=0
while [ $SECONDS -lt $end ]; do
    some=("${drawn[@]:$((round * batch % (${#drawn[@]} - batch))):$batch}")
    # shellcheck disable=SC2015 # a round that fails is told of at the end
    "$CRRL" chaos run "${some[@]}" -f "$out/cluster.toml" --seed $((seed + round)) --window 2 --within 5 --json \
        >>"$out/chaos.jsonl" 2>>"$out/chaos.log" || code=$?
    round=$((round + 1))
    kill -0 $training 2>/dev/null || { echo "the run has ended:" >&2; cat "$out/train.log" >&2; code=1; break; }
done
cleanup
trap - EXIT
"$CRRL" audit "$out/run" >"$out/audit.txt" || code=1
python3 "$root/scripts/soak.py" table "$out" "$minutes" "$seed" "$mounts_before" || code=1
if [ "$code" != 0 ]; then
    echo "something went wrong: $out" >&2
elif [ -z "${OUT:-}" ]; then
    rm -rf "$out"
fi
exit "$code"
