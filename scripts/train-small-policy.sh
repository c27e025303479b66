#!/usr/bin/env bash
# Makes the small policy that ships in models/small, from nothing: a vocabulary and a decoder of
# about a million weights, trained on oracle traces over Python's standard library. Only files on
# the fine-tuning side of the split are read; the quickstart trains and measures on the others.
#
#   scripts/train-small-policy.sh [FOLDER] [further options of `crrl sft`]
#
# FOLDER is models/small unless given. A run that was stopped goes on with --resume.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in cargo cc git; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is not on the PATH; it is needed to build crrl" >&2
        exit 4
    fi
done

out=models/small
if [[ $# -gt 0 && $1 != -* ]]; then
    out=$1
    shift
fi

cargo build --release -p crrl
# Checkpoints stay outside the folder that is shipped.
work=$(dirname "$out")/.$(basename "$out").training
"${CARGO_TARGET_DIR:-target}/release/crrl" sft --from-scratch --out "$work" \
    --tokens 7000000 --batch-tokens 2048 --micro-batch-tokens 8192 --learning-rate 2e-3 \
    --drills 8000 --prompt-loss 0.2 \
    --dim 128 --layers 4 --heads 4 --vocab 1024 --context 512 \
    --eval-every 200 --checkpoint-every 200 --seed 0 "$@"

mkdir -p "$out"
for file in config.json model.safetensors tokenizer.json tokenizer_config.json; do
    cp "$work/$file" "$out/$file"
done
echo "wrote $out"
