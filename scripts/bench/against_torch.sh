#!/usr/bin/env bash
# Our engine and learner beside torch, transformers and PEFT on one model: rounds that alternate
# between the two, medians, one Markdown table with the settings of both.
# usage: against_torch.sh MODEL_DIR VENV
#   VENV  a Python environment with torch, transformers and peft
# From the environment: ROUNDS (3), THREADS (all cores), REPEATS in a round (5), OUT (folder for the
# raw lines; a temporary one), BENCH (a built model_speed; built here otherwise), and sizes that make
# a trial run short: SEQUENCES, PROMPT, NEW_TOKENS, PREFILL, TRAIN_SEQUENCES, TRAIN_TOKENS.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
model=$(realpath "${1:?usage: against_torch.sh MODEL_DIR VENV}")
python=$(realpath -s "${2:?usage: against_torch.sh MODEL_DIR VENV}")/bin/python
rounds=${ROUNDS:-3} threads=${THREADS:-$(nproc)} repeats=${REPEATS:-5}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"

if [ -z "${BENCH:-}" ]; then
    BENCH=$(cd "$here/../.." && cargo build --release --bench model_speed --message-format=json |
        sed -n 's/.*"name":"model_speed".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
fi
export RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads MKL_NUM_THREADS=$threads
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONWARNINGS=ignore

decode=(--sequences "${SEQUENCES:-16}" --tokens "${PROMPT:-128}" --new-tokens "${NEW_TOKENS:-64}")
prefill=(--tokens "${PREFILL:-512}")
train=(--sequences "${TRAIN_SEQUENCES:-4}" --tokens "${TRAIN_TOKENS:-256}")

ours() { "$BENCH" "$@" --model "$model" --repeats "$repeats" --json >>"$out/ours.jsonl"; }
theirs() {
    "$python" "$here/peer.py" "$@" --model "$model" --repeats "$repeats" --threads "$threads" \
        2>>"$out/peer.err" >>"$out/theirs.jsonl" || { tail -5 "$out/peer.err" >&2; return 1; }
}

: >"$out/ours.jsonl"; : >"$out/theirs.jsonl"; : >"$out/peer.err"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for side in ours theirs; do
        $side decode "${decode[@]}"
        $side prefill "${prefill[@]}"
        $side lora-step "${train[@]}"
    done
done
ours hand-over "${train[@]:0:2}"

"$python" "$here/table.py" "$out/ours.jsonl" "$out/theirs.jsonl"
