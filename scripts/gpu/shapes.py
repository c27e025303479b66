"""Model folders of a real model's shape with random weights, the same ones every time.

usage: shapes.py SIZE OUT_DIR
"""

import json
import os
import sys
import zlib

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

# Qwen2.5's, and one for a comparison of backends.
SIZES = {
    "tiny": dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, vocab_size=512, tie_word_embeddings=True),
    "0.5b": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                 num_attention_heads=14, num_key_value_heads=2, vocab_size=151936,
                 tie_word_embeddings=True),
    "1.5b": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
                 num_attention_heads=12, num_key_value_heads=2, vocab_size=151936,
                 tie_word_embeddings=True),
    "7b": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
               num_attention_heads=28, num_key_value_heads=4, vocab_size=152064,
               tie_word_embeddings=False),
}
END = "<|endoftext|>"
SHARD_BYTES = 2 << 30


def shapes(config):
    """Every parameter's name and shape."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    kv = head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for name, out, into, biased in [
            ("self_attn.q_proj", hidden, hidden, True), ("self_attn.k_proj", kv, hidden, True),
            ("self_attn.v_proj", kv, hidden, True), ("self_attn.o_proj", hidden, hidden, False),
            ("mlp.gate_proj", inner, hidden, False), ("mlp.up_proj", inner, hidden, False),
            ("mlp.down_proj", hidden, inner, False),
        ]:
            yield f"{at}{name}.weight", (out, into)
            if biased:
                yield f"{at}{name}.bias", (out,)
        yield f"{at}input_layernorm.weight", (hidden,)
        yield f"{at}post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def values(name, shape):
    """Seeded by the name. Norms are near one and biases are not zero, so that both are tested."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("norm.weight"):
        drawn = 1 + 0.1 * torch.randn(shape, generator=generator)
    elif name.endswith("bias"):
        drawn = 0.1 * torch.randn(shape, generator=generator)
    else:
        # Uniform is several times cheaper to draw than normal; the deviation is 0.02.
        drawn = torch.empty(shape).uniform_(-0.0346, 0.0346, generator=generator)
    return drawn.to(torch.bfloat16)


def write_weights(config, out):
    shard, size, number, index, total = {}, 0, 0, {}, 0

    def flush():
        nonlocal shard, size, number
        number += 1
        file = f"model-{number:05}.safetensors"
        save_file(shard, os.path.join(out, file), metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, file))
        shard, size = {}, 0

    for name, shape in shapes(config):
        tensor = values(name, shape)
        shard[name] = tensor
        size += tensor.nbytes
        total += tensor.nbytes
        if size >= SHARD_BYTES:
            flush()
    if shard:
        flush()
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as file:
        json.dump(dict(metadata=dict(total_size=total), weight_map=index), file)


def write_tokenizer(out):
    """One token a byte, and one that ends."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(os.path.join(out, "tokenizer.json"))
    with open(os.path.join(out, "tokenizer_config.json"), "w") as file:
        json.dump(dict(eos_token=END, tokenizer_class="PreTrainedTokenizerFast"), file)


def main():
    size, out = sys.argv[1:]
    done = os.path.join(out, "config.json")
    if os.path.exists(done):
        return
    os.makedirs(out, exist_ok=True)
    write_weights(SIZES[size], out)
    write_tokenizer(out)
    config = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_act="silu",
                  max_position_embeddings=4096, rms_norm_eps=1e-6, rope_theta=1e6,
                  torch_dtype="bfloat16", eos_token_id=256, bos_token_id=256, **SIZES[size])
    # Last: a folder that has it is whole.
    with open(done + ".part", "w") as file:
        json.dump(config, file, indent=1)
    os.rename(done + ".part", done)


if __name__ == "__main__":
    main()
