//! An adapter in host memory: what is published, hashed, checked and sent. The bytes are one
//! safetensors file with PEFT's names; the shape of the adapter rides in the file's metadata.

use crrl_types::{AdapterManifest, AdapterVersion, Digest, TensorEntry};
use safetensors::SafeTensors;

use crate::config::ModelConfig;
use crate::lora::{LoraConfig, Target};
use crate::weights::FileDtype;

/// Key of the file's metadata under which the shape of the adapter is kept.
const METADATA_KEY: &str = "crrl.lora";

/// Most bytes an adapter may have.
pub const ADAPTER_BYTES_MAX: usize = 1 << 30;

/// One factor, as PEFT keeps it: A is `[rank, in]`, B is `[out, rank]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterTensor {
    /// PEFT's name.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Values, row by row.
    pub values: Vec<f32>,
}

/// An adapter's weights: layer by layer, in each the targets in the order of the configuration,
/// of each A and then B.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterWeights {
    /// Shape of the adapter.
    pub config: LoraConfig,
    /// The factors.
    pub tensors: Vec<AdapterTensor>,
}

/// Bytes that are no adapter of this model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Not an adapter file.
    #[error("not an adapter file: {0}")]
    Format(String),
    /// A tensor is missing, foreign, or of another shape.
    #[error("adapter tensor {name} {problem}")]
    Tensor {
        /// PEFT's name of it.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A value is infinite or not a number.
    #[error("adapter tensor {name} holds a value that is not finite")]
    NotFinite {
        /// PEFT's name of it.
        name: String,
    },
    /// A value is finite, and would not be in the type of the file.
    #[error(
        "adapter tensor {name} holds a value that rounds to infinity in {dtype}: weights of that size \
         have diverged, train with a lower learning rate"
    )]
    Overflow {
        /// PEFT's name of it.
        name: String,
        /// The type, as safetensors names it.
        dtype: &'static str,
    },
    /// The bytes are not those of the manifest.
    #[error("adapter bytes hash to {found}, the manifest says {expected}")]
    Digest {
        /// Hash of the bytes.
        found: Digest,
        /// The manifest's.
        expected: Digest,
    },
    /// The adapter belongs to another base model.
    #[error("adapter belongs to base model {found}, this one is {expected}")]
    Base {
        /// The manifest's base.
        found: Digest,
        /// The loaded model.
        expected: Digest,
    },
    /// The manifest describes another adapter than the bytes hold.
    #[error("manifest and adapter disagree on {0}")]
    Manifest(&'static str),
}

impl AdapterWeights {
    /// PEFT's name of a factor; `letter` is `A` or `B`.
    #[must_use]
    pub fn tensor_name(layer: usize, target: Target, letter: &str) -> String {
        format!("base_model.model.model.layers.{layer}.{}.lora_{letter}.weight", target.path())
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.tensors.len() / (2 * self.config.targets.len()).max(1)
    }

    /// The first tensor with a value that is not finite.
    #[must_use]
    pub fn first_not_finite(&self) -> Option<&str> {
        self.first_not_finite_as(FileDtype::F32)
    }

    /// The first tensor with a value that is not finite once it is written as `dtype`.
    #[must_use]
    pub fn first_not_finite_as(&self, dtype: FileDtype) -> Option<&str> {
        let broken = |tensor: &&AdapterTensor| !dtype.holds(&tensor.values);
        self.tensors.iter().find(broken).map(|tensor| tensor.name.as_str())
    }

    /// One safetensors file. `dtype` rounds; read the bytes back to know what others get.
    #[must_use]
    pub fn to_bytes(&self, dtype: FileDtype) -> Vec<u8> {
        let config = serde_json::to_string(&self.config).expect("plain data has a text");
        let mut header = serde_json::Map::new();
        header.insert(
            "__metadata__".into(),
            serde_json::json!({ "format": "pt", METADATA_KEY: config }),
        );
        let mut offset = 0;
        for tensor in &self.tensors {
            let end = offset + tensor.values.len() * dtype.size();
            header.insert(
                tensor.name.clone(),
                serde_json::json!({
                    "dtype": dtype.file_name(), "shape": tensor.shape, "data_offsets": [offset, end]
                }),
            );
            offset = end;
        }
        let mut text = serde_json::Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + text.len() + offset);
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
        for tensor in &self.tensors {
            dtype.write(&tensor.values, &mut bytes);
        }
        bytes
    }

    /// Reads what [`AdapterWeights::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such file, or a value is not finite.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AdapterError> {
        let format = |reason: String| AdapterError::Format(reason);
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| format(e.to_string()))?;
        let text = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(METADATA_KEY))
            .ok_or_else(|| format(format!("metadata has no {METADATA_KEY}")))?;
        let config: LoraConfig = serde_json::from_str(text).map_err(|e| format(e.to_string()))?;
        Self::from_safetensors(bytes, config)
    }

    /// Reads a safetensors file with PEFT's names.
    pub(crate) fn from_safetensors(bytes: &[u8], config: LoraConfig) -> Result<Self, AdapterError> {
        if bytes.len() > ADAPTER_BYTES_MAX {
            return Err(AdapterError::Format(format!(
                "{} bytes are more than the {ADAPTER_BYTES_MAX} allowed",
                bytes.len()
            )));
        }
        let file =
            SafeTensors::deserialize(bytes).map_err(|e| AdapterError::Format(e.to_string()))?;
        if config.targets.is_empty() || config.rank == 0 {
            return Err(AdapterError::Format("an adapter without targets or rank".into()));
        }
        let per_layer = 2 * config.targets.len();
        if file.len() % per_layer != 0 {
            return Err(AdapterError::Format(format!(
                "{} tensors are no whole number of layers of {per_layer}",
                file.len()
            )));
        }
        let mut tensors = Vec::with_capacity(file.len());
        for layer in 0..file.len() / per_layer {
            for &target in &config.targets {
                for letter in ["A", "B"] {
                    tensors.push(read_factor(&file, layer, target, letter, config.rank)?);
                }
            }
        }
        let weights = Self { config, tensors };
        match weights.first_not_finite() {
            Some(name) => Err(AdapterError::NotFinite { name: name.to_owned() }),
            None => Ok(weights),
        }
    }

    /// Whether every shape is the one this model needs.
    ///
    /// # Errors
    /// Names the first tensor that does not fit.
    pub fn check_shapes(&self, model: &ModelConfig) -> Result<(), AdapterError> {
        if self.layers() != model.layers {
            return Err(AdapterError::Format(format!(
                "adapter of {} layers for a model of {}",
                self.layers(),
                model.layers
            )));
        }
        let mut tensors = self.tensors.iter();
        for _ in 0..model.layers {
            for &target in &self.config.targets {
                let (input, output) = target.dims(model);
                for shape in [[self.config.rank, input], [output, self.config.rank]] {
                    let tensor = tensors.next().expect("one pair a layer and target");
                    if tensor.shape != shape || tensor.values.len() != shape[0] * shape[1] {
                        return Err(AdapterError::Tensor {
                            name: tensor.name.clone(),
                            problem: format!(
                                "has shape {:?}, the model needs {shape:?}",
                                tensor.shape
                            ),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The manifest of bytes made by [`AdapterWeights::to_bytes`].
    #[must_use]
    pub fn manifest(
        &self,
        bytes: &[u8],
        dtype: FileDtype,
        version: AdapterVersion,
        base_digest: Digest,
    ) -> AdapterManifest {
        let entry = |tensor: &AdapterTensor| TensorEntry {
            name: tensor.name.clone(),
            shape: tensor.shape.iter().map(|&n| n as u64).collect(),
            dtype: dtype.file_name().to_owned(),
        };
        AdapterManifest {
            version,
            digest: Digest::of(bytes),
            base_digest,
            bytes: bytes.len() as u64,
            rank: self.config.rank as u32,
            alpha_milli: alpha_milli(&self.config),
            tensors: self.tensors.iter().map(entry).collect(),
            finite: self.first_not_finite_as(dtype).is_none(),
        }
    }

    /// Reads published bytes after checking them against their manifest and the loaded model.
    ///
    /// # Errors
    /// When length, hash, base model, shapes, types or a value are not what they must be.
    pub fn verified(
        manifest: &AdapterManifest,
        bytes: &[u8],
        model: &ModelConfig,
        base_digest: Digest,
    ) -> Result<Self, AdapterError> {
        if manifest.base_digest != base_digest {
            return Err(AdapterError::Base { found: manifest.base_digest, expected: base_digest });
        }
        let found = Digest::of(bytes);
        if found != manifest.digest || bytes.len() as u64 != manifest.bytes {
            return Err(AdapterError::Digest { found, expected: manifest.digest });
        }
        let weights = Self::from_bytes(bytes)?;
        weights.check_shapes(model)?;
        if weights.config.rank as u32 != manifest.rank {
            return Err(AdapterError::Manifest("rank"));
        }
        if alpha_milli(&weights.config) != manifest.alpha_milli {
            return Err(AdapterError::Manifest("alpha"));
        }
        let names = weights.tensors.iter().map(|tensor| tensor.name.as_str());
        if !names.eq(manifest.tensors.iter().map(|entry| entry.name.as_str())) {
            return Err(AdapterError::Manifest("tensors"));
        }
        let (_, file) = SafeTensors::read_metadata(bytes)
            .map_err(|error| AdapterError::Format(error.to_string()))?;
        for entry in &manifest.tensors {
            let Some(info) = file.info(&entry.name) else {
                return Err(AdapterError::Manifest("tensors"));
            };
            if !info.shape.iter().map(|&n| n as u64).eq(entry.shape.iter().copied()) {
                return Err(AdapterError::Manifest("shapes"));
            }
            if FileDtype::of(info.dtype).map(FileDtype::file_name) != Some(entry.dtype.as_str()) {
                return Err(AdapterError::Manifest("types"));
            }
        }
        Ok(weights)
    }
}

fn alpha_milli(config: &LoraConfig) -> u32 {
    (config.alpha * 1000.0).round() as u32
}

fn read_factor(
    file: &SafeTensors<'_>,
    layer: usize,
    target: Target,
    letter: &str,
    rank: usize,
) -> Result<AdapterTensor, AdapterError> {
    let name = AdapterWeights::tensor_name(layer, target, letter);
    let fault = |problem: String| AdapterError::Tensor { name: name.clone(), problem };
    let view = file.tensor(&name).map_err(|_| fault("is missing".into()))?;
    let &[rows, columns] = view.shape() else {
        return Err(fault(format!("has shape {:?}, not a matrix's", view.shape())));
    };
    if (if letter == "A" { rows } else { columns }) != rank {
        return Err(fault(format!("has shape {:?}, the rank is {rank}", view.shape())));
    }
    let dtype = FileDtype::of(view.dtype())
        .ok_or_else(|| fault(format!("is of type {:?}", view.dtype())))?;
    let values = dtype.read(view.data());
    Ok(AdapterTensor { name, shape: [rows, columns], values })
}
