"""How far logits of `crrl model check --json` are from those of transformers.

usage: logits.py --model DIR --prompt IDS.json --device cpu|cuda --ours TYPE=CHECK.json ...

The reference is transformers in f32 without TF32. What bf16 itself costs is measured by running
transformers in bf16, too: ours in bf16 may be a few times as far away, ours in f32 only by rounding.
One JSON line; exit code 1 where a difference is too large.
"""

import argparse
import json

import torch
from transformers import AutoModelForCausalLM

# Differences over the deviation of the reference's logits. f32 leaves room for tensor cores, whose
# TF32 has ten bits.
F32_MOST = 0.02
BF16_MOST_OF_PEER = 4.0
BF16_LEAST = 0.01


def peer(args, ids, dtype):
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    model = model.to(args.device).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([ids], device=args.device), logits_to_keep=1).logits
    return logits[0, -1].float().cpu()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--ours", nargs="+", required=True)
    args = parser.parse_args()
    with open(args.prompt) as file:
        ids = json.load(file)
    reference = peer(args, ids, torch.float32)
    deviation = reference.std().item()

    def distance(logits):
        return ((logits - reference).abs().max() / deviation).item()

    result = dict(deviation=deviation, torch_bf16=distance(peer(args, ids, torch.bfloat16)))
    good = True
    for part in args.ours:
        dtype, path = part.split("=", 1)
        with open(path) as file:
            logits = torch.tensor(json.load(file)["logits"])
        off = distance(logits)
        most = F32_MOST if dtype == "f32" else max(BF16_LEAST, BF16_MOST_OF_PEER * result["torch_bf16"])
        result[f"crrl_{dtype}"] = off
        result[f"crrl_{dtype}_most"] = most
        result[f"crrl_{dtype}_same_best"] = bool(logits.argmax() == reference.argmax())
        good &= off <= most
    result["good"] = good
    print(json.dumps(result))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
