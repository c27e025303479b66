"""One session on a GPU machine: every step with its own time limit, whatever became of it recorded,
and one Markdown table. run.sh starts it.

Writes into --out: results.jsonl (one line a step), table.md, machine.json. A step that fails or runs
too long never stops the ones after it; --budget leaves out what would begin too late.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SIDES = ("crrl", "torch")
# Seconds a step may take, by size: loading and compiling kernels come on top of the work.
LIMITS = {"tiny": 120, "0.5b": 240, "1.5b": 300, "7b": 540}
KINDS = ("logits", "decode", "prefill", "lora-step", "hand-over")
NUMBERS = {
    "decode": ("decode_tokens_per_s", "decode, tokens/s"),
    "prefill": ("prefill_tokens_per_s", "prefill, tokens/s"),
    "lora-step": ("step_s", "LoRA step, s"),
    "hand-over": ("hand_over_p50_ms", "adapter to first token, p50, ms"),
}


class DeviceMemory:
    """Watches the memory in use on the GPU, MiB, while a step runs."""

    def __init__(self, watch):
        self.peak = None
        self.process = None
        if not watch:
            return
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "200"]
        try:
            self.process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True,
                                            stderr=subprocess.DEVNULL)
        except OSError:
            return
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            try:
                self.peak = max(self.peak or 0, int(line))
            except ValueError:
                continue

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
        return self.peak


class Session:
    def __init__(self, args):
        self.args = args
        self.began = time.monotonic()
        self.records = []
        self.results = open(os.path.join(args.out, "results.jsonl"), "a")

    def left(self):
        return self.args.budget - (time.monotonic() - self.began)

    def step(self, size, kind, side, command, keep=None):
        """Runs a command; its last line on stdout, if it is JSON, joins the record."""
        limit = self.args.limit or LIMITS[size]
        record = dict(size=size, kind=kind, side=side, status="ok")
        if self.left() < 10:
            record["status"] = "not begun: the budget is spent"
            return self.note(record, None)
        limit = min(limit, self.left())
        memory = DeviceMemory(self.args.device == "cuda")
        began = time.monotonic()
        # Output goes to files: a pipe would keep a killed step's children waiting.
        log = os.path.join(self.args.models, f"{size}-{kind}-{side}")
        with open(log + ".out", "w") as out, open(log + ".err", "w") as err:
            process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
            try:
                code = process.wait(timeout=limit)
                record["status"] = "ok" if code == 0 else f"failed: exit code {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
                record["status"] = f"failed: ran past {limit:.0f} s"
        record["wall_s"] = round(time.monotonic() - began, 2)
        record["device_used_peak_mib"] = memory.stop()
        with open(log + ".out") as out:
            text = out.read().strip()
        if keep:
            with open(keep, "w") as file:
                file.write(text)
        elif text:
            try:
                record |= json.loads(text.splitlines()[-1])
            except (ValueError, TypeError):
                record["said"] = text[-400:]
        if record["status"] != "ok":
            with open(log + ".err") as err:
                record["stderr"] = err.read()[-1500:]
        return self.note(record, text)

    def note(self, record, text):
        self.records.append(record)
        self.results.write(json.dumps(record) + "\n")
        self.results.flush()
        print(f"{record['size']:>5} {record['kind']:<10} {record['side']:<6} {record['status']}"
              f" ({record.get('wall_s', 0):.0f} s)", file=sys.stderr, flush=True)
        return record["status"] == "ok"

    def python(self, name, *arguments):
        return [sys.executable, os.path.join(HERE, name), *arguments]

    def program(self, name, *arguments):
        return [os.path.join(self.args.programs, name), *arguments]

    def size(self, size):
        args = self.args
        model = os.path.join(args.models, f"random-{size}")
        if not self.step(size, "make", "-", self.python("shapes.py", size, model)):
            return
        if "logits" in args.steps:
            self.logits(size, model)
        common = ["--model", model, "--device", args.device, "--repeats", str(args.repeats), "--json"]
        sizes = {
            "decode": ["--sequences", str(args.sequences), "--tokens", str(args.prompt),
                       "--new-tokens", str(args.new_tokens)],
            "prefill": ["--tokens", str(args.prefill)],
            "lora-step": ["--sequences", str(args.train_sequences), "--tokens", str(args.train_tokens)],
            "hand-over": [],
        }
        for kind, extra in sizes.items():
            if kind not in args.steps:
                continue
            if size == "7b" and kind in ("lora-step", "hand-over"):
                # The graph of a whole pass beside the weights is more than it needs to show.
                extra = extra + ["--checkpoint"]
            self.step(size, kind, "crrl", self.program("model_speed", kind, *extra, *common))
            if kind != "hand-over":
                dtype = "bf16" if args.device == "cuda" else "f32"
                peer = self.python("peer.py", kind, *extra, *common, "--dtype", dtype)
                if args.device == "cpu":
                    peer += ["--threads", os.environ.get("RAYON_NUM_THREADS", str(os.cpu_count()))]
                self.step(size, kind, "torch", peer)

    def logits(self, size, model):
        args = self.args
        at = lambda name: os.path.join(args.models, f"{size}-{name}.json")
        with open(at("prompt"), "w") as file:
            json.dump([(17 + 37 * t + t * t) % 500 for t in range(48)], file)
        check = ["model", "check", model, "--prompt-ids", at("prompt"), "--json"]
        ours = {}
        if args.device == "cuda":
            for dtype in ("f32", "bf16"):
                # The larger ones would not fit beside each other in f32, and bf16 is what runs.
                if dtype == "f32" and size not in ("tiny", "0.5b"):
                    continue
                on = ["--device", "cuda", "--gpu-dtype", dtype]
                path = at(f"cuda-{dtype}")
                if self.step(size, f"check-{dtype}", "crrl", self.program("crrl", *check, *on), path):
                    ours[dtype] = path
        if size == "tiny" or args.device == "cpu":
            path = at("cpu")
            if self.step(size, "check-cpu", "crrl", self.program("crrl", *check), path):
                # Under a name of its own: the very same reference judges both backends.
                ours.setdefault("f32", path)
                if ours["f32"] != path:
                    self.step(size, "logits-cpu", "-", self.compare(model, size, {"f32": path}))
        if ours:
            self.step(size, "logits", "-", self.compare(model, size, ours))

    def compare(self, model, size, ours):
        prompt = os.path.join(self.args.models, f"{size}-prompt.json")
        parts = [f"{dtype}={path}" for dtype, path in ours.items()]
        return self.python("logits.py", "--model", model, "--prompt", prompt, "--device",
                           self.args.device, "--ours", *parts)


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(records):
    """The newest record of each step, as Markdown."""
    newest = {(r["size"], r["kind"], r["side"]): r for r in records}
    lines = ["| size | what | crrl | torch | crrl / torch | device memory, MiB, crrl / torch |",
             "|---|---|---|---|---|---|"]
    for size in LIMITS:
        for kind, (field, name) in NUMBERS.items():
            pair = [newest.get((size, kind, side)) for side in SIDES]
            if not any(pair):
                continue
            values = [r.get(field) if r and r["status"] == "ok" else None for r in pair]
            cells = [number(v) if v is not None else (r["status"] if r else "-")
                     for v, r in zip(values, pair)]
            ratio = f"{values[0] / values[1]:.2f}" if values[0] is not None and values[1] else "-"
            used = [str(r.get("device_used_peak_mib") or "-") if r else "-" for r in pair]
            lines.append(f"| {size} | {name} | {cells[0]} | {cells[1]} | {ratio} | {' / '.join(used)} |")
    lines += ["", "Logits: largest difference from transformers in f32, over the deviation of its logits.",
              "", "| size | crrl f32 | crrl bf16 | torch bf16 | good |", "|---|---|---|---|---|"]
    for size in LIMITS:
        for kind in ("logits", "logits-cpu"):
            record = newest.get((size, kind, "-"))
            if not record:
                continue
            cells = [f"{record[f]:.2e}" if f in record else "-"
                     for f in ("crrl_f32", "crrl_bf16", "torch_bf16")]
            name = size if kind == "logits" else f"{size}, crrl on the processor"
            good = record.get("good", record["status"])
            lines.append(f"| {name} | {' | '.join(cells)} | {good} |")
    failed = [r for r in newest.values() if r["status"] != "ok"]
    if failed:
        lines += ["", "Not ok:", ""]
        lines += [f"- {r['size']} {r['kind']} {r['side']}: {r['status']}" for r in failed]
    return "\n".join(lines) + "\n"


def machine(args):
    import torch
    import transformers

    said = dict(python=platform.python_version(), torch=torch.__version__,
                transformers=transformers.__version__, cores=os.cpu_count(), device=args.device,
                cuda_path=os.environ.get("CUDA_PATH"), arguments=vars(args))
    if args.device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        try:
            said["gpu"] = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            said["gpu"] = f"unknown: {error}"
        said["torch_cuda"] = torch.version.cuda
    commit = os.path.join(HERE, "commit")
    if os.path.exists(commit):
        said["commit"] = open(commit).read().strip()
    return said


def names(known):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return chosen
    return parse


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", type=names(tuple(LIMITS)), default=list(LIMITS))
    parser.add_argument("--steps", type=names(KINDS), default=list(KINDS))
    parser.add_argument("--budget", type=float, default=570.0, help="seconds in all")
    parser.add_argument("--limit", type=float, help="seconds a step, whatever its size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--train-sequences", type=int, default=4)
    parser.add_argument("--train-tokens", type=int, default=256)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    try:
        with open(os.path.join(args.out, "machine.json"), "w") as file:
            json.dump(machine(args), file, indent=1)
    except Exception as error:  # noqa: BLE001 - whatever it is, the steps still run
        print(f"machine: {error}", file=sys.stderr)
    session = Session(args)
    for size in args.sizes:
        try:
            session.size(size)
        except Exception as error:  # noqa: BLE001 - recorded; the next size still runs
            session.note(dict(size=size, kind="session", side="-", status=f"failed: {error!r}"), None)
    with open(os.path.join(args.out, "results.jsonl")) as lines:
        text = table([json.loads(line) for line in lines])
    with open(os.path.join(args.out, "table.md"), "w") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
