//! The `config.json` of a Hugging Face model folder, reduced to what the decoder needs.
//!
//! Reads both forms of the rotary settings (`rope_theta` + `rope_scaling`, and the newer
//! `rope_parameters`). Never guesses: what the decoder cannot compute is refused by name.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// The families the decoder computes, by the name in `architectures`.
pub const SUPPORTED: [&str; 3] = ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"];

/// A family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama, and everything of its shape (SmolLM2, TinyLlama).
    Llama,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm on every head of q and k.
    Qwen3,
}

impl Architecture {
    /// Its name in `architectures`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => SUPPORTED[0],
            Self::Qwen2 => SUPPORTED[1],
            Self::Qwen3 => SUPPORTED[2],
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// How rotary frequencies are stretched beyond the trained context.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every position divided by `factor`.
    Linear {
        /// Divisor of the positions.
        factor: f64,
    },
    /// Llama 3.1: long waves divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long waves.
        factor: f64,
        /// Waves longer than the original context over this are divided.
        low_freq_factor: f64,
        /// Waves shorter than the original context over this are kept.
        high_freq_factor: f64,
        /// Context the model was first trained on, tokens.
        original_context: f64,
    },
    /// YaRN (Peng et al. 2023, arXiv:2309.00071).
    Yarn {
        /// Divisor of the interpolated dimensions.
        factor: f64,
        /// Rotations over the original context above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which a dimension is interpolated.
        beta_slow: f64,
        /// Context the model was first trained on, tokens.
        original_context: f64,
        /// Factor on cosine and sine.
        attention_factor: f64,
        /// Whether the ramp's ends are rounded to whole dimensions.
        truncate: bool,
    },
}

/// Shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the gated feed-forward.
    pub intermediate_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Longest sequence, tokens.
    pub max_positions: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Whether the output head is the embedding.
    pub tied: bool,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on o.
    pub o_bias: bool,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// Token that opens a sequence, where the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a generation.
    pub eos: Vec<u32>,
}

/// A `config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; a model folder needs config.json")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no JSON object.
    #[error("{path} is not a JSON object: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A key is missing or has a value of the wrong kind.
    #[error("config.json: {key} {problem}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A family the decoder does not compute.
    #[error("architecture {found:?} is not supported; supported are {}", SUPPORTED.join(", "))]
    Architecture {
        /// What the file names.
        found: String,
    },
    /// A feature of a known family that the decoder does not compute.
    #[error("config.json: {0} is not supported by this decoder")]
    Unsupported(String),
}

fn bad(key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Key { key: key.into(), problem: problem.into() }
}

/// Typed access to the keys of one JSON object; `null` counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.get(key)
            .map(|value| {
                value.as_f64().ok_or_else(|| bad(key, format!("is {value}, not a number")))
            })
            .transpose()
    }

    fn count(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .filter(|&n| n > 0 && n < 1 << 40)
                    .map(|n| n as usize)
                    .ok_or_else(|| bad(key, format!("is {value}, not a positive whole number")))
            })
            .transpose()
    }

    fn need(&self, key: &str) -> Result<usize, ConfigError> {
        self.count(key)?.ok_or_else(|| bad(key, "is missing"))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.get(key)
            .map(|value| value.as_bool().ok_or_else(|| bad(key, format!("is {value}, not a flag"))))
            .transpose()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn object(&self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        self.get(key)
            .map(|value| value.as_object().map(Keys).ok_or_else(|| bad(key, "is not an object")))
            .transpose()
    }
}

/// One token id or a list of them, as `eos_token_id` has it.
pub(crate) fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
        Some(other) => id(other).into_iter().collect(),
        None => Vec::new(),
    }
}

impl ModelConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed, or describes something the decoder cannot compute.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| ConfigError::Json { path: path.into(), reason: e.to_string() })?;
        let object = value.as_object().ok_or_else(|| ConfigError::Json {
            path: path.into(),
            reason: "it holds another kind of value".into(),
        })?;
        Self::parse(object)
    }

    /// Reads the object of a `config.json`.
    ///
    /// # Errors
    /// As [`ModelConfig::read`].
    pub fn parse(object: &Map<String, Value>) -> Result<Self, ConfigError> {
        let keys = Keys(object);
        let architecture = architecture(&keys)?;
        let hidden_size = keys.need("hidden_size")?;
        let heads = keys.need("num_attention_heads")?;
        let default_kv = if architecture == Architecture::Llama { heads } else { 32 };
        let max_positions = keys.count("max_position_embeddings")?.unwrap_or(2048);
        let head_dim = match keys.count("head_dim")? {
            Some(given) => given,
            // Qwen3 fixes it at 128 whatever the width.
            None if architecture == Architecture::Qwen3 => 128,
            None => hidden_size / heads,
        };
        let (rope_theta, rope_scaling) = rope(&keys, max_positions)?;
        let bias = keys.flag("attention_bias")?;
        if let Some(act) = keys.text("hidden_act")
            && act != "silu"
        {
            return Err(ConfigError::Unsupported(format!("hidden_act {act:?}")));
        }
        if keys.flag("use_sliding_window")? == Some(true) {
            return Err(ConfigError::Unsupported("use_sliding_window true".into()));
        }
        if keys.get("quantization_config").is_some() {
            return Err(ConfigError::Unsupported("quantization_config".into()));
        }
        let config = Self {
            architecture,
            vocab_size: keys.need("vocab_size")?,
            hidden_size,
            intermediate_size: keys.need("intermediate_size")?,
            layers: keys.need("num_hidden_layers")?,
            heads,
            kv_heads: keys.count("num_key_value_heads")?.unwrap_or(default_kv),
            head_dim,
            max_positions,
            norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tied: keys.flag("tie_word_embeddings")?.unwrap_or(false),
            qkv_bias: architecture == Architecture::Qwen2 || bias == Some(true),
            o_bias: architecture != Architecture::Qwen2 && bias == Some(true),
            mlp_bias: architecture == Architecture::Llama && keys.flag("mlp_bias")? == Some(true),
            bos: token_ids(keys.get("bos_token_id")).first().copied(),
            eos: token_ids(keys.get("eos_token_id")),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks what one key alone cannot tell.
    ///
    /// # Errors
    /// Names the key that does not fit the others.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(bad(
                "num_key_value_heads",
                format!("is {}, which does not divide the {} heads", self.kv_heads, self.heads),
            ));
        }
        if !self.head_dim.is_multiple_of(2) || self.head_dim == 0 {
            return Err(bad("head_dim", format!("is {}, not an even number", self.head_dim)));
        }
        if self.norm_eps <= 0.0 || self.rope_theta <= 0.0 {
            return Err(bad("rms_norm_eps or rope_theta", "is not positive"));
        }
        // Everything is indexed in memory; these bounds keep products far from overflow.
        for (key, value, most) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.layers, 1 << 12),
            ("num_attention_heads", self.heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_positions, 1 << 26),
        ] {
            if value == 0 || value > most {
                return Err(bad(key, format!("is {value}, outside 1..={most}")));
            }
        }
        Ok(())
    }

    /// Width of all query heads.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Whether q and k are normalised head by head.
    #[must_use]
    pub fn qk_norm(&self) -> bool {
        self.architecture == Architecture::Qwen3
    }

    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        crate::decoder::parameter_shapes(self)
            .iter()
            .map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }

    /// The object of a `config.json` that reads back as this.
    #[must_use]
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut rope = json!({ "rope_theta": self.rope_theta, "rope_type": "default" });
        match &self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => {
                rope["rope_type"] = json!("linear");
                rope["factor"] = json!(factor);
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                rope["rope_type"] = json!("llama3");
                rope["factor"] = json!(factor);
                rope["low_freq_factor"] = json!(low_freq_factor);
                rope["high_freq_factor"] = json!(high_freq_factor);
                rope["original_max_position_embeddings"] = json!(*original_context as u64);
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                original_context,
                attention_factor,
                truncate,
            } => {
                rope["rope_type"] = json!("yarn");
                rope["factor"] = json!(factor);
                rope["beta_fast"] = json!(beta_fast);
                rope["beta_slow"] = json!(beta_slow);
                rope["attention_factor"] = json!(attention_factor);
                rope["truncate"] = json!(truncate);
                rope["original_max_position_embeddings"] = json!(*original_context as u64);
            }
        }
        let mut out = json!({
            "architectures": [self.architecture.name()],
            "model_type": self.architecture.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_positions,
            "rms_norm_eps": self.norm_eps,
            "hidden_act": "silu",
            "rope_theta": self.rope_theta,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tied,
            "dtype": dtype,
        });
        if self.architecture != Architecture::Qwen2 {
            out["attention_bias"] = json!(self.qkv_bias);
        }
        if self.architecture == Architecture::Llama {
            out["mlp_bias"] = json!(self.mlp_bias);
        }
        if let Some(bos) = self.bos {
            out["bos_token_id"] = json!(bos);
        }
        if !self.eos.is_empty() {
            out["eos_token_id"] = json!(self.eos);
        }
        out
    }
}

fn architecture(keys: &Keys<'_>) -> Result<Architecture, ConfigError> {
    let named = keys
        .get("architectures")
        .and_then(Value::as_array)
        .and_then(|list| list.first())
        .and_then(Value::as_str)
        .or_else(|| keys.text("model_type"));
    match named {
        Some("LlamaForCausalLM" | "llama") => Ok(Architecture::Llama),
        Some("Qwen2ForCausalLM" | "qwen2") => Ok(Architecture::Qwen2),
        Some("Qwen3ForCausalLM" | "qwen3") => Ok(Architecture::Qwen3),
        Some(other) => Err(ConfigError::Architecture { found: other.into() }),
        None => Err(bad("architectures", "is missing; it names the family of the model")),
    }
}

fn rope(keys: &Keys<'_>, max_positions: usize) -> Result<(f64, RopeScaling), ConfigError> {
    let new = keys.object("rope_parameters")?;
    let old = keys.object("rope_scaling")?;
    let theta = match &new {
        Some(new) => new.number("rope_theta")?,
        None => None,
    };
    let theta = theta.or(keys.number("rope_theta")?).unwrap_or(10_000.0);
    for object in new.iter().chain(&old).chain([keys]) {
        if let Some(part) = object.number("partial_rotary_factor")?
            && part != 1.0
        {
            return Err(ConfigError::Unsupported(format!("partial_rotary_factor {part}")));
        }
    }
    let Some(rope) = new.or(old) else { return Ok((theta, RopeScaling::None)) };
    let kind = rope.text("rope_type").or_else(|| rope.text("type")).unwrap_or("default");
    let factor = || {
        rope.number("factor")?
            .filter(|&factor| factor > 0.0)
            .ok_or_else(|| bad("rope factor", format!("is missing; {kind} scaling needs it")))
    };
    let original = || {
        let here = rope.number("original_max_position_embeddings")?;
        let there = keys.number("original_max_position_embeddings")?;
        Ok::<f64, ConfigError>(here.or(there).unwrap_or(max_positions as f64))
    };
    let need = |key: &str| rope.number(key)?.ok_or_else(|| bad(key, "is missing"));
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor()? },
        "llama3" => RopeScaling::Llama3 {
            factor: factor()?,
            low_freq_factor: need("low_freq_factor")?,
            high_freq_factor: need("high_freq_factor")?,
            original_context: original()?,
        },
        "yarn" => {
            let original_context = original()?;
            // Where the original context is known, the factor follows from it when absent.
            let factor = match rope.number("factor")? {
                Some(factor) if factor > 0.0 => factor,
                _ => max_positions as f64 / original_context,
            };
            let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
            let attention_factor = match (
                rope.number("attention_factor")?,
                rope.number("mscale")?,
                rope.number("mscale_all_dim")?,
            ) {
                (Some(given), ..) => given,
                (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale(m) / scale(all),
                _ => scale(1.0),
            };
            RopeScaling::Yarn {
                factor,
                beta_fast: rope.number("beta_fast")?.unwrap_or(32.0),
                beta_slow: rope.number("beta_slow")?.unwrap_or(1.0),
                original_context,
                attention_factor,
                truncate: rope.flag("truncate")?.unwrap_or(true),
            }
        }
        other => return Err(ConfigError::Unsupported(format!("rope scaling {other:?}"))),
    };
    Ok((theta, scaling))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 32, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "rope_theta": 5000.0
        })
    }

    fn parse(value: &Value) -> Result<ModelConfig, ConfigError> {
        ModelConfig::parse(value.as_object().expect("an object"))
    }

    #[test]
    fn both_forms_of_the_rotary_settings_say_the_same() {
        let mut old = base();
        old["rope_scaling"] = json!({ "type": "linear", "factor": 4.0 });
        let mut new = base();
        new.as_object_mut().expect("an object").remove("rope_theta");
        new["rope_parameters"] =
            json!({ "rope_theta": 5000.0, "rope_type": "linear", "factor": 4.0 });
        assert_eq!(parse(&old).expect("old"), parse(&new).expect("new"));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut value = base();
        value["rope_scaling"] = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64
        });
        let config = parse(&value).expect("llama3");
        assert_eq!(parse(&config.to_json("float32")).expect("own text"), config);
    }

    #[test]
    fn a_foreign_architecture_is_named_with_the_supported_list() {
        let mut value = base();
        value["architectures"] = json!(["MambaForCausalLM"]);
        let message = parse(&value).expect_err("foreign").to_string();
        assert!(message.contains("MambaForCausalLM"), "{message}");
        assert!(message.contains("Qwen3ForCausalLM"), "{message}");
    }

    #[test]
    fn what_the_decoder_cannot_compute_is_refused() {
        for (key, wrong) in [
            ("hidden_act", json!("gelu")),
            ("use_sliding_window", json!(true)),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(5)),
            ("vocab_size", json!("many")),
            ("rope_scaling", json!({ "rope_type": "longrope", "factor": 2.0 })),
        ] {
            let mut value = base();
            value[key] = wrong;
            assert!(parse(&value).is_err(), "{key} was taken");
        }
    }
}
