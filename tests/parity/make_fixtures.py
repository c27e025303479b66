"""Writes the parity fixtures of crates/model: tiny random models with what transformers and PEFT
compute on them.

usage: make_fixtures.py [OUT_DIR]     default: crates/model/tests/fixtures

Needs torch, transformers, peft, safetensors, jinja2. Each model is a folder with config.json,
model.safetensors and expected.json: logits of every prompt position and 20 greedy tokens in f32;
with an adapter/ folder, the logits under it as well.
"""

import copy
import json
import pathlib
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "crates/model/tests/fixtures"
PROMPT = [3, 17, 42, 5, 88, 61, 2, 90, 33, 33, 7, 12, 70, 54, 1, 29, 83, 10, 46, 95, 64, 31, 8]
NEW_TOKENS = 20

SHAPE = dict(
    vocab_size=97, hidden_size=40, intermediate_size=56, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    bos_token_id=None, eos_token_id=None, pad_token_id=None,
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)


def rope(**scaling):
    return dict(rope_parameters=dict(rope_theta=500.0) | (scaling or dict(rope_type="default")))


MODELS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True, **rope()),
    "llama-llama3": LlamaConfig(**SHAPE | dict(num_key_value_heads=1), tie_word_embeddings=False,
                                attention_bias=True, mlp_bias=True, **rope(**LLAMA3)),
    "llama-linear": LlamaConfig(**SHAPE, head_dim=12, tie_word_embeddings=True,
                                **rope(rope_type="linear", factor=4.0)),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True, **rope()),
    "qwen2-yarn": Qwen2Config(**SHAPE | dict(max_position_embeddings=128), tie_word_embeddings=False,
                              **rope(rope_type="yarn", factor=4.0,
                                     original_max_position_embeddings=32)),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True, **rope()),
}
ADAPTED = {"llama": dict(r=4, lora_alpha=6, use_rslora=False),
           "qwen3": dict(r=8, lora_alpha=16, use_rslora=True)}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@torch.no_grad()
def expected(model):
    ids = torch.tensor([PROMPT])
    logits = model(ids).logits[0]
    greedy = list(PROMPT)
    for _ in range(NEW_TOKENS):
        greedy.append(int(model(torch.tensor([greedy])).logits[0, -1].argmax()))
    return dict(logits=[[round(x, 6) for x in row] for row in logits.tolist()],
                greedy=greedy[len(PROMPT):])


def old_form(path):
    """Rewrites config.json in the form before rope_parameters."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    path.write_text(json.dumps(config, indent=2) + "\n")


def shard(folder):
    """Splits the weights in two files and an index."""
    from safetensors.torch import load_file
    tensors = load_file(folder / "model.safetensors")
    names, files = sorted(tensors), {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
        files |= {n: file for n in part}
    (folder / "model.safetensors").unlink()
    index = dict(metadata={}, weight_map=files)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def main():
    for name, config in MODELS.items():
        torch.manual_seed(len(name))
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        config._attn_implementation = "eager"
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.no_grad():
            # The stock initialisation makes logits too flat to tell two programs apart.
            for key, p in model.named_parameters():
                p.copy_(1 + 0.2 * torch.randn_like(p) if "norm" in key else 0.25 * torch.randn_like(p))
                # Half of the files are bf16; what they hold must be exact in it.
                p.copy_(p.to(torch.bfloat16).float())
        want = dict(prompt=PROMPT) | expected(model)
        half = name in ("llama", "qwen2-yarn", "qwen3", "llama-linear")
        # A copy: a round trip through bf16 would round the rotary frequencies too.
        copy.deepcopy(model).to(torch.bfloat16 if half else torch.float32).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        if name in ("llama-llama3", "qwen2"):
            old_form(folder / "config.json")
        if name == "qwen2":
            shard(folder)
        if name in ADAPTED:
            lora = LoraConfig(target_modules=TARGETS, task_type="CAUSAL_LM", **ADAPTED[name])
            adapted = get_peft_model(model, lora).eval()
            with torch.no_grad():
                for key, p in adapted.named_parameters():
                    if "lora_" in key:
                        p.copy_(0.1 * torch.randn_like(p))
            want["adapted"] = expected(adapted)
            adapted.save_pretrained(folder / "adapter")
            (folder / "adapter" / "README.md").unlink(missing_ok=True)
        (folder / "expected.json").write_text(json.dumps(want) + "\n")
        print(name, want["greedy"])


main()
