//! The tokenizer and the shape of a model made from scratch.

use std::sync::Arc;

use anyhow::Context as _;
use crrl_actors::chat_codec::ModelCodec;
use crrl_agent::ChatCodec;
use crrl_model::{Architecture, ChatTokenizer, ModelConfig, RopeScaling};

use super::Args;
use super::material::Material;
use crate::commands::failure::Coded;

/// Traces a vocabulary is trained on.
const TRACES: u64 = 3000;

/// Tags of the tool format: one token each.
const TAGS: [&str; 4] = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"];

/// Texts that the tokenizer reads as one token, and that its merges must not be spent on.
const WHOLE: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

/// Trains a vocabulary on transcripts as the policy will read and write them.
pub(crate) fn tokenizer(args: &Args, material: &Material) -> anyhow::Result<ChatTokenizer> {
    // Bytes alone are enough to render transcripts; their text is what is wanted.
    let bytes = ChatTokenizer::train(std::iter::once(""), 256 + 3 + TAGS.len(), &TAGS)?;
    let codec: Arc<dyn ChatCodec> = Arc::new(ModelCodec::from(bytes));
    let options = crrl_agent::Options::brief(1 << 20);
    let mut texts = Vec::new();
    for index in 0..TRACES {
        // A stream of its own: none of these is trained on by number.
        let example = material
            .example(&codec, &options, args.seed ^ u64::MAX, index)
            .map_err(anyhow::Error::msg)?;
        let mut text = codec.decode(&example.tokens);
        for whole in WHOLE.iter().chain(&TAGS) {
            text = text.replace(whole, "\n");
        }
        texts.push(text);
    }
    ChatTokenizer::train(texts.iter().map(String::as_str), args.vocab, &TAGS)
        .context("the vocabulary cannot be trained")
}

/// The shape the flags ask for.
pub(crate) fn config(args: &Args, tokenizer: &ChatTokenizer) -> anyhow::Result<ModelConfig> {
    if args.heads == 0 || !args.dim.is_multiple_of(args.heads) {
        return Err(Coded::usage(format!(
            "--heads ({}) must divide --dim ({})",
            args.heads, args.dim
        )));
    }
    let config = ModelConfig {
        architecture: Architecture::Llama,
        vocab_size: tokenizer.vocab_size(),
        hidden_size: args.dim,
        intermediate_size: args.inner.unwrap_or((args.dim * 8).div_ceil(3).next_multiple_of(32)),
        layers: args.layers,
        heads: args.heads,
        kv_heads: args.kv_heads.unwrap_or(args.heads),
        head_dim: args.dim / args.heads,
        max_positions: args.context,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        bos: None,
        eos: tokenizer.eos_ids().to_vec(),
    };
    config.validate().map_err(|error| Coded::usage(error.to_string()))?;
    Ok(config)
}
