#!/usr/bin/env bash
# Packs what a GPU machine without cargo and network needs into one small folder: the binary and the
# benchmark with CUDA, stripped and compressed, and the scripts. Needs no CUDA toolkit.
# usage: pack.sh OUT_DIR        then, there: OUT=RESULTS bash OUT_DIR/run.sh
# From the environment: FEATURES (cuda; empty for a trial on the processor), CUDARC_CUDA_VERSION (the
# CUDA release whose functions are bound, 13000 where nothing is said), MIB_MAX (60).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(realpath -m "${1:?usage: pack.sh OUT_DIR}")
features=${FEATURES-cuda} mib_max=${MIB_MAX:-60}
mkdir -p "$out"

cd "$root"
cargo build --release ${features:+--features "$features"} --bin crrl --bench model_speed \
    --message-format=json-render-diagnostics >"$out/.build.jsonl"
for name in crrl model_speed; do
    built=$(sed -n 's/.*"name":"'$name'".*"executable":"\([^"]*\)".*/\1/p' "$out/.build.jsonl" | tail -1)
    strip -o "$out/$name" "$built"
    echo "$name: $(stat -c %s "$out/$name") bytes stripped" >&2
    xz -T1 -6 -f "$out/$name"
done
rm "$out/.build.jsonl"
cp scripts/gpu/{run.sh,session.py,shapes.py,logits.py} scripts/bench/peer.py "$out/"
git rev-parse HEAD >"$out/commit"

mib=$(($(du -sb "$out" | cut -f1) >> 20))
echo "$out: $mib MiB" >&2
[ "$mib" -lt "$mib_max" ] || { echo "more than $mib_max MiB" >&2; exit 1; }
