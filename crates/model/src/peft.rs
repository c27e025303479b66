//! PEFT folders: `adapter_config.json` and `adapter_model.safetensors`, in and out.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::adapter::{ADAPTER_BYTES_MAX, AdapterError, AdapterWeights};
use crate::lora::{LoraConfig, Target};
use crate::weights::FileDtype;

/// A PEFT folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeftError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `adapter_config.json` is malformed, or asks for what is not computed here.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The weights do not fit their configuration.
    #[error("{path}: {source}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: AdapterError,
    },
}

/// Reads a PEFT folder.
///
/// # Errors
/// When a file is missing or malformed, or the adapter is not a plain LoRA on the decoder's maps.
pub fn load(dir: &Path) -> Result<AdapterWeights, PeftError> {
    let path = dir.join("adapter_config.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| PeftError::Io { path: path.clone(), source })?;
    let fault = |reason: String| PeftError::Config { path: path.clone(), reason };
    let value: Value = serde_json::from_str(&text).map_err(|e| fault(e.to_string()))?;
    let config = parse(&value).map_err(fault)?;
    let path = dir.join("adapter_model.safetensors");
    let io = |source| PeftError::Io { path: path.clone(), source };
    let length = std::fs::metadata(&path).map_err(io)?.len();
    if length > ADAPTER_BYTES_MAX as u64 {
        return Err(PeftError::Config {
            path: path.clone(),
            reason: format!("{length} bytes are more than the {ADAPTER_BYTES_MAX} allowed"),
        });
    }
    let bytes = std::fs::read(&path).map_err(io)?;
    AdapterWeights::from_safetensors(&bytes, config)
        .map_err(|source| PeftError::Weights { path: path.clone(), source })
}

fn parse(value: &Value) -> Result<LoraConfig, String> {
    if let Some(kind) = value["peft_type"].as_str()
        && kind != "LORA"
    {
        return Err(format!("peft_type {kind:?} is not supported; LORA is"));
    }
    // Each of these changes what is computed; an adapter that uses one must not load silently.
    for key in ["use_dora", "fan_in_fan_out", "lora_bias"] {
        if value[key] == Value::Bool(true) {
            return Err(format!("{key} is not supported"));
        }
    }
    for key in ["rank_pattern", "alpha_pattern"] {
        if value[key].as_object().is_some_and(|map| !map.is_empty()) {
            return Err(format!("{key} is not supported"));
        }
    }
    for key in ["modules_to_save", "layers_to_transform", "trainable_token_indices"] {
        if !value[key].is_null() && value[key].as_array().is_none_or(|list| !list.is_empty()) {
            return Err(format!("{key} is not supported"));
        }
    }
    if value["bias"].as_str().is_some_and(|bias| bias != "none") {
        return Err(format!("bias {} is not supported; \"none\" is", value["bias"]));
    }
    let rank = value["r"].as_u64().filter(|&r| (1..=4096).contains(&r));
    let rank = rank.ok_or_else(|| format!("r is {}, not in 1..=4096", value["r"]))? as usize;
    let alpha = value["lora_alpha"]
        .as_f64()
        .filter(|alpha| alpha.is_finite())
        .ok_or_else(|| format!("lora_alpha is {}, not a number", value["lora_alpha"]))?;
    let mut targets = match &value["target_modules"] {
        Value::String(all) if all == "all-linear" => Target::ALL.to_vec(),
        Value::Array(list) => list
            .iter()
            .map(|name| {
                let name = name.as_str().unwrap_or_default();
                Target::from_name(name).ok_or_else(|| {
                    let known = Target::ALL.map(Target::name).join(", ");
                    format!("target module {name:?} is not supported; supported are {known}")
                })
            })
            .collect::<Result<_, _>>()?,
        other => return Err(format!("target_modules is {other}, not a list of names")),
    };
    targets.sort_unstable();
    targets.dedup();
    Ok(LoraConfig {
        rank,
        alpha: alpha as f32,
        targets,
        rank_stabilized: value["use_rslora"] == Value::Bool(true),
    })
}

/// Writes a PEFT folder, made if need be. `base_model` is what `base_model_name_or_path` says.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn save(
    weights: &AdapterWeights,
    dir: &Path,
    base_model: &str,
    dtype: FileDtype,
) -> Result<(), PeftError> {
    let config = &weights.config;
    let value = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": config.targets.iter().map(|target| target.name()).collect::<Vec<_>>(),
        "use_rslora": config.rank_stabilized,
        "use_dora": false,
        "fan_in_fan_out": false,
        "bias": "none",
        "inference_mode": true,
    });
    let text = serde_json::to_string_pretty(&value).expect("a JSON value has a text") + "\n";
    let write = |path: PathBuf, bytes: &[u8]| {
        let part = path.with_extension("part");
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, &path))
            .map_err(|source| PeftError::Io { path, source })
    };
    std::fs::create_dir_all(dir).map_err(|source| PeftError::Io { path: dir.into(), source })?;
    write(dir.join("adapter_config.json"), text.as_bytes())?;
    write(dir.join("adapter_model.safetensors"), &weights.to_bytes(dtype))
}
