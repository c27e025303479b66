"""What benches/model_speed measures, done by torch, transformers and PEFT: one JSON line.

usage: peer.py decode|prefill|lora-step --model DIR [--device cpu|cuda] [--dtype f32|bf16] ...

The same prompts, shapes, number of threads and type; scaled-dot-product attention and the key-value
cache on; greedy decoding of a fixed number of tokens; AdamW with the learner's constants and the
gradient clipped to 1. Nothing is compiled ahead (no torch.compile).
"""

import argparse
import json
import os
import time

import torch
from transformers import AutoModelForCausalLM

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def prompt(tokens, salt, vocab):
    """As benches/model_speed/prompts.rs."""
    first, span = vocab // 8, vocab - vocab // 8
    return [first + (t * 7919 + salt * 104_729 + t * t * 31) % span for t in range(tokens)]


def rows(count, tokens, salt, vocab, device):
    return torch.tensor([prompt(tokens, salt + i, vocab) for i in range(count)], device=device)


def settled(device):
    """The time, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def upper_median(values):
    return sorted(values)[len(values) // 2]


def load(args):
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    return model.to(args.device)


def decode(model, args, vocab):
    """Rate of the tokens after the first: a run to the first token alone is taken off."""
    count, tokens = args.sequences or 16, args.tokens or 128
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    options = dict(do_sample=False, use_cache=True)

    def seconds(ids, new):
        began = settled(args.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new,
                             min_new_tokens=new, **options)
        ended = settled(args.device)
        assert out.shape[1] == ids.shape[1] + new, "a sequence ended early"
        return ended - began

    rates, walls = [], []
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):
            ids = rows(count, tokens, repeat * count, vocab, args.device)
            first, whole = seconds(ids, 1), seconds(ids, args.new_tokens)
            if repeat:
                rates.append(count * (args.new_tokens - 1) / (whole - first))
                walls.append(whole)
    return dict(sequences=count, prompt_tokens=tokens, new_tokens=args.new_tokens,
                decode_tokens_per_s=upper_median(rates), wall_s=upper_median(walls))


def prefill(model, args, vocab):
    tokens = args.tokens or 512
    rates = []
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):
            ids = rows(1, tokens, repeat, vocab, args.device)
            began = settled(args.device)
            model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1).item()
            if repeat:
                rates.append(tokens / (settled(args.device) - began))
    return dict(prompt_tokens=tokens, prefill_tokens_per_s=upper_median(rates))


def lora_step(model, args, vocab):
    from peft import LoraConfig, get_peft_model

    count, tokens = args.sequences or 4, args.tokens or 256
    torch.manual_seed(0)
    lora = LoraConfig(r=args.rank, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS,
                      task_type="CAUSAL_LM")
    if args.checkpoint:
        model.gradient_checkpointing_enable(dict(use_reentrant=False))
        model.enable_input_require_grads()
    model = get_peft_model(model, lora)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    seconds, losses = [], []
    for repeat in range(args.repeats + 1):
        ids = rows(count, tokens, repeat * count, vocab, args.device)
        began = settled(args.device)
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if repeat:
            seconds.append(settled(args.device) - began)
    step = upper_median(seconds)
    return dict(sequences=count, sequence_tokens=tokens, rank=args.rank, checkpoint=args.checkpoint,
                step_s=step, train_tokens_per_s=count * tokens / step, losses=losses)


def peak_mib():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=["decode", "prefill", "lora-step"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", action="store_true", help="the only form there is")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load(args)
    model.eval()
    work = {"decode": decode, "prefill": prefill, "lora-step": lora_step}[args.work]
    result = dict(bench=args.work, side="torch", model=os.path.basename(args.model.rstrip("/")),
                  device=args.device, dtype=args.dtype, threads=torch.get_num_threads(),
                  repeats=args.repeats)
    result |= work(model, args, model.config.vocab_size)
    result["rss_peak_mib"] = peak_mib()
    if args.device == "cuda":
        result["device_peak_mib"] = torch.cuda.max_memory_reserved() / 2**20
    print(json.dumps(result))


if __name__ == "__main__":
    main()
