#!/usr/bin/env bash
# Throws bytes at every decoder that reads what comes from elsewhere, beginning with the corpus, and fails
# where one is wrong about some. What was found lies in OUT, to be put into fuzz/corpus once it is mended.
# usage: fuzz.sh [SECONDS] [DECODER...]     SECONDS for each (60; 0 only builds); every decoder
# From the environment: JOBS at once (2), OUT (a temporary folder, kept where something was found),
# MERGE=1 to take what covers more into fuzz/corpus afterwards, CARGO_TARGET_DIR.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:-60}
shift || true
jobs=${JOBS:-2} out=${OUT:-$(mktemp -d)}
target=${CARGO_TARGET_DIR:-$root/fuzz/target} host=$(rustc -vV | sed -n 's/^host: //p')
all=$(sed -n 's/.*Decoder { name: "\([a-z-]*\)".*/\1/p' "$root/crates/untrusted/src/lib.rs")
names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names <<<"$all"

# Counters of what was run, compared values too; with --target, so that build scripts have none.
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares"
RUSTFLAGS=$flags cargo build --quiet --release --manifest-path "$root/fuzz/Cargo.toml" \
    --target "$host" --target-dir "$target/fuzz"
program=$target/fuzz/$host/release/decoders
[ "$seconds" != 0 ] || exit 0

one() {
    local name=$1
    mkdir -p "$out/$name/found" "$out/$name/corpus"
    if CRRL_DECODER=$name "$program" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -verbosity=1 -artifact_prefix="$out/$name/found/" \
        "$out/$name/corpus" "$root/fuzz/corpus/$name" >"$out/$name/log" 2>&1; then
        printf '%-18s %12s runs, %s\n' "$name" \
            "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$name/log")" \
            "$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$out/$name/log" | tail -1)"
    else
        printf '%-18s FOUND: %s\n' "$name" "$(ls "$out/$name/found")"
        tail -25 "$out/$name/log"
        return 1
    fi
}
export -f one
export seconds out root program
code=0
printf '%s\n' "${names[@]}" | xargs -P "$jobs" -I{} bash -c 'one {}' || code=1

if [ "$code" = 0 ] && [ -n "${MERGE:-}" ]; then
    for name in "${names[@]}"; do
        CRRL_DECODER=$name "$program" -merge=1 -max_len=2048 "$root/fuzz/corpus/$name" "$out/$name/corpus" \
            >"$out/$name/merge.log" 2>&1
    done
fi
if [ "$code" = 0 ]; then
    [ -n "${OUT:-}" ] || rm -rf "$out"
else
    echo "what was found: $out" >&2
fi
exit "$code"
