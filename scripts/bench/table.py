"""Medians of two files of benchmark lines, side by side, as Markdown.

usage: table.py OURS.jsonl THEIRS.jsonl
"""

import importlib.metadata
import json
import statistics
import sys

# Benchmark, field, what it is called, and whether more is better.
ROWS = [
    ("decode", "decode_tokens_per_s", "decode, tokens/s", True),
    ("decode", "rss_peak_mib", "decode, peak memory, MiB", False),
    ("prefill", "prefill_tokens_per_s", "prefill, tokens/s", True),
    ("prefill", "rss_peak_mib", "prefill, peak memory, MiB", False),
    ("lora-step", "step_s", "LoRA step, s", False),
    ("lora-step", "train_tokens_per_s", "LoRA step, tokens/s", True),
    ("lora-step", "rss_peak_mib", "LoRA step, peak memory, MiB", False),
    ("lora-step", "device_peak_mib", "LoRA step, peak device memory, MiB", False),
    ("hand-over", "hand_over_p50_ms", "adapter to first token, p50, ms", False),
]
SETTINGS = ["device", "dtype", "threads", "repeats", "sequences", "prompt_tokens", "new_tokens",
            "sequence_tokens", "rank", "checkpoint"]


def read(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines if line.strip()]


def of(lines, bench):
    return [line for line in lines if line["bench"] == bench]


def median(lines, bench, field):
    values = [line[field] for line in of(lines, bench) if line.get(field) is not None]
    return statistics.median(values) if values else None


def cell(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main():
    ours, theirs = read(sys.argv[1]), read(sys.argv[2])
    print("| | crrl | torch | crrl / torch | better |")
    print("|---|---|---|---|---|")
    for bench, field, name, more in ROWS:
        a, b = median(ours, bench, field), median(theirs, bench, field)
        if a is None and b is None:
            continue
        ratio = f"{a / b:.2f}" if a is not None and b else "-"
        print(f"| {name} | {cell(a)} | {cell(b)} | {ratio} | {'more' if more else 'less'} |")
    print()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}"
                         for name in ("torch", "transformers", "peft"))
    print(f"Medians over rounds that alternate ({versions}). Settings:")
    print()
    for bench in ("decode", "prefill", "lora-step", "hand-over"):
        for side, lines in (("crrl", ours), ("torch", theirs)):
            lines = of(lines, bench)
            if lines:
                said = ", ".join(f"{k} {lines[0][k]}" for k in SETTINGS if k in lines[0])
                print(f"- {bench}, {side}, {len(lines)} rounds: {said}")
    a, b = of(ours, "lora-step"), of(theirs, "lora-step")
    if a and b:
        # Before the first update both sides have the base model: the same batch, the same loss.
        print(f"- loss of the first batch: {a[0]['losses'][0]:.5f} and {b[0]['losses'][0]:.5f}")


if __name__ == "__main__":
    main()
