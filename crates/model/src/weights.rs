//! A model folder on disk: `config.json` and safetensors, one file or an index of shards, in and
//! out. f32, bf16 and f16 are read, as f32 on the host; nothing is mapped into memory, so a file
//! that shrinks underneath is an error and not a crash.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor};
use crrl_types::Digest;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};

use crate::config::{ConfigError, ModelConfig};
use crate::decoder::{Decoder, WeightMap, parameter_shapes};

/// Longest safetensors header that is read, bytes (the format's own limit).
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// A tensor in host memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape, as in the file.
    pub shape: Vec<usize>,
    /// Its values, row by row.
    pub values: Vec<f32>,
}

impl HostTensor {
    /// A matrix with its dimensions exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        let (rows, columns) = (self.shape[0], self.shape[1]);
        let values = transpose(&self.values, rows, columns);
        Self { name: self.name, shape: vec![columns, rows], values }
    }

    pub(crate) fn hash_into(&self, hash: &mut blake3::Hasher) {
        hash.update(self.name.as_bytes());
        hash.update(&[0]);
        for &n in &self.shape {
            hash.update(&(n as u64).to_le_bytes());
        }
        let mut bytes = [0; 4096];
        for chunk in self.values.chunks(1024) {
            for (out, value) in bytes.chunks_exact_mut(4).zip(chunk) {
                out.copy_from_slice(&value.to_le_bytes());
            }
            hash.update(&bytes[..4 * chunk.len()]);
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`, in blocks that fit the cache.
#[must_use]
pub fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row0 in (0..rows).step_by(BLOCK) {
        for column0 in (0..columns).step_by(BLOCK) {
            for row in row0..(row0 + BLOCK).min(rows) {
                for column in column0..(column0 + BLOCK).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}

/// Type of the numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileDtype {
    /// 4 bytes.
    F32,
    /// 2 bytes, 8 bits of fraction.
    Bf16,
    /// 2 bytes, 11 bits of fraction.
    F16,
}

impl FileDtype {
    /// As `config.json` names it.
    #[must_use]
    pub fn config_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// As safetensors names it.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
        }
    }

    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    pub(crate) fn read(self, bytes: &[u8]) -> Vec<f32> {
        let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
        match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            Self::Bf16 => {
                bytes.chunks_exact(2).map(|b| f32::from_bits(u32::from(pair(b)) << 16)).collect()
            }
            Self::F16 => bytes.chunks_exact(2).map(|b| f16::from_bits(pair(b)).to_f32()).collect(),
        }
    }

    /// Whether every value is still finite once it is written: close to the greatest number of f32
    /// one rounds to infinity in bf16, from 65,520 on in f16.
    pub(crate) fn holds(self, values: &[f32]) -> bool {
        match self {
            Self::F32 => values.iter().all(|v| v.is_finite()),
            Self::Bf16 => values.iter().all(|&v| bf16::from_f32(v).is_finite()),
            Self::F16 => values.iter().all(|&v| f16::from_f32(v).is_finite()),
        }
    }

    /// Rounds to the nearest, ties to even.
    pub(crate) fn write(self, values: &[f32], out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
            Self::Bf16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
            Self::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
        }
    }
}

/// A model folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelDirError {
    /// Its `config.json`.
    #[error("model folder {path}: {source}")]
    Config {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// There are no weights.
    #[error(
        "model folder {path} has neither model.safetensors nor model.safetensors.index.json; \
         weights in other formats must be converted first"
    )]
    NoWeights {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is damaged or not what its name says: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A tensor is missing or has another shape or type than `config.json` implies.
    #[error("{path}: tensor {name} {problem}")]
    Tensor {
        /// The folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

struct Shard {
    path: PathBuf,
    file: File,
    /// Where the data begins, bytes.
    offset: u64,
    metadata: Metadata,
}

/// An opened model folder; no weight is read yet.
pub struct ModelDir {
    path: PathBuf,
    config: ModelConfig,
    shards: Vec<Shard>,
    place: HashMap<String, usize>,
}

impl std::fmt::Debug for ModelDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelDir").field("path", &self.path).field("config", &self.config).finish()
    }
}

impl ModelDir {
    /// Opens a folder: reads `config.json` and the headers of the weights.
    ///
    /// # Errors
    /// When a file is missing, damaged or of an unsupported model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelDirError> {
        let path = path.as_ref().to_owned();
        let config = ModelConfig::read(&path.join("config.json"))
            .map_err(|source| ModelDirError::Config { path: path.clone(), source })?;
        let mut shards = Vec::new();
        let mut place = HashMap::new();
        for file in weight_files(&path)? {
            let shard = Shard::open(path.join(file))?;
            place.extend(shard.metadata.offset_keys().into_iter().map(|key| (key, shards.len())));
            shards.push(shard);
        }
        let dir = Self { path, config, shards, place };
        for (name, shape) in parameter_shapes(&dir.config) {
            dir.check(&name, &shape)?;
        }
        Ok(dir)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shape and constants of the model.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Type of the first weight.
    #[must_use]
    pub fn dtype(&self) -> FileDtype {
        self.find("model.embed_tokens.weight")
            .and_then(|(shard, name)| FileDtype::of(shard.metadata.info(&name)?.dtype))
            .unwrap_or(FileDtype::F32)
    }

    /// The shard a tensor is in, and its name there: some files leave the prefix `model.` out.
    fn find(&self, name: &str) -> Option<(&Shard, String)> {
        let bare = name.strip_prefix("model.").unwrap_or(name);
        [name, bare].into_iter().find_map(|name| {
            self.place.get(name).map(|&index| (&self.shards[index], name.to_owned()))
        })
    }

    fn fault(&self, name: &str, problem: impl Into<String>) -> ModelDirError {
        ModelDirError::Tensor {
            path: self.path.clone(),
            name: name.into(),
            problem: problem.into(),
        }
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<(), ModelDirError> {
        let Some((shard, key)) = self.find(name) else {
            return Err(self.fault(name, "is missing"));
        };
        let info = shard.metadata.info(&key).expect("found in this shard");
        if info.shape != shape {
            let problem = format!("has shape {:?}, config.json implies {shape:?}", info.shape);
            return Err(self.fault(name, problem));
        }
        if FileDtype::of(info.dtype).is_none() {
            let problem = format!("is of type {:?}; F32, BF16 and F16 are read", info.dtype);
            return Err(self.fault(name, problem));
        }
        Ok(())
    }

    /// Reads one tensor.
    fn tensor(&self, name: &str) -> Result<HostTensor, ModelDirError> {
        let (shard, key) = self.find(name).ok_or_else(|| self.fault(name, "is missing"))?;
        let info = shard.metadata.info(&key).expect("found in this shard");
        let dtype = FileDtype::of(info.dtype).expect("checked when opened");
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0; end - begin];
        shard
            .file
            .read_exact_at(&mut bytes, shard.offset + begin as u64)
            .map_err(|source| ModelDirError::Io { path: shard.path.clone(), source })?;
        Ok(HostTensor {
            name: name.to_owned(),
            shape: info.shape.clone(),
            values: dtype.read(&bytes),
        })
    }

    /// Every parameter of the model, read one at a time, in the order of [`parameter_shapes`].
    pub fn tensors(&self) -> impl Iterator<Item = Result<HostTensor, ModelDirError>> + '_ {
        parameter_shapes(&self.config).into_iter().map(|(name, _)| self.tensor(&name))
    }

    /// Identity of the weights, as [`Decoder::base_digest`] has it; reads them all.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn base_digest(&self) -> Result<Digest, ModelDirError> {
        let mut hash = blake3::Hasher::new();
        for tensor in self.tensors() {
            tensor?.hash_into(&mut hash);
        }
        Ok(Digest(*hash.finalize().as_bytes()))
    }
}

impl Shard {
    fn open(path: PathBuf) -> Result<Self, ModelDirError> {
        let io = |source| ModelDirError::Io { path: path.clone(), source };
        let format = |reason: String| ModelDirError::Format { path: path.clone(), reason };
        let mut file = File::open(&path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| format("shorter than a safetensors header".into()))?;
        let header = u64::from_le_bytes(size);
        if header > HEADER_BYTES_MAX || header + 8 > length {
            return Err(format(format!("says its header has {header} bytes of {length}")));
        }
        let mut text = vec![0; header as usize];
        file.read_exact_at(&mut text, 8).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&text)
            .map_err(|e| format(format!("bad safetensors header: {e}")))?;
        let offset = header + 8;
        let needed = offset + metadata.data_len() as u64;
        if length != needed {
            return Err(format(format!("{length} bytes long, its header says {needed}")));
        }
        Ok(Self { path, file, offset, metadata })
    }
}

/// The weight files of a folder, each once.
fn weight_files(path: &Path) -> Result<Vec<String>, ModelDirError> {
    let index = path.join("model.safetensors.index.json");
    if path.join("model.safetensors").is_file() {
        return Ok(vec!["model.safetensors".into()]);
    }
    if !index.is_file() {
        return Err(ModelDirError::NoWeights { path: path.into() });
    }
    let text = std::fs::read_to_string(&index)
        .map_err(|source| ModelDirError::Io { path: index.clone(), source })?;
    let format =
        |reason: &str| ModelDirError::Format { path: index.clone(), reason: reason.into() };
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| format(&e.to_string()))?;
    let map = value["weight_map"].as_object().ok_or_else(|| format("weight_map is missing"))?;
    let mut files = Vec::new();
    for file in map.values() {
        let file = file.as_str().ok_or_else(|| format("weight_map names no file"))?;
        // A name from a foreign file must not lead out of the folder.
        if Path::new(file).components().count() != 1 || file == ".." {
            return Err(format(&format!("weight_map leads out of the folder: {file:?}")));
        }
        if !files.iter().any(|known| known == file) {
            files.push(file.to_owned());
        }
    }
    Ok(files)
}

impl<B: Backend> Decoder<B> {
    /// Loads a folder's weights onto a device.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn load(dir: &ModelDir, device: &B::Device) -> Result<Self, ModelDirError> {
        Self::from_host(dir.config(), device, dir.tensors())
    }

    /// Writes `config.json` and `model.safetensors` into a folder, made if need be. The files
    /// appear whole or not at all.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn save(&self, path: &Path, dtype: FileDtype) -> Result<(), ModelDirError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| ModelDirError::Io { path, source }
        };
        std::fs::create_dir_all(path).map_err(io(path))?;
        let mut collect = Collect { dtype, tensors: HashMap::new() };
        let _: Decoder<B> = self.map(&mut collect);
        let order = parameter_shapes(&self.config);
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
        let mut offset = 0;
        for (name, shape) in &order {
            let end = offset + shape.iter().product::<usize>() * dtype.size();
            header.insert(
                name.clone(),
                serde_json::json!({
                    "dtype": dtype.file_name(), "shape": shape, "data_offsets": [offset, end]
                }),
            );
            offset = end;
        }
        let mut header = serde_json::Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let target = path.join("model.safetensors");
        let part = path.join("model.safetensors.part");
        let mut file = File::create(&part).map_err(io(&part))?;
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io(&part))?;
        file.write_all(&header).map_err(io(&part))?;
        for (name, _) in &order {
            let bytes = collect.tensors.remove(name).expect("every parameter is mapped");
            file.write_all(&bytes).map_err(io(&part))?;
        }
        file.sync_all().map_err(io(&part))?;
        std::fs::rename(&part, &target).map_err(io(&target))?;
        let config = path.join("config.json");
        let text = serde_json::to_string_pretty(&self.config.to_json(dtype.config_name()))
            .expect("a JSON value has a text");
        std::fs::write(&config, text + "\n").map_err(io(&config))
    }
}

/// Collects the bytes of every weight as a file has them.
struct Collect {
    dtype: FileDtype,
    tensors: HashMap<String, Vec<u8>>,
}

impl Collect {
    fn keep(&mut self, name: &str, values: &[f32]) {
        let mut bytes = Vec::with_capacity(values.len() * self.dtype.size());
        self.dtype.write(values, &mut bytes);
        self.tensors.insert(name.to_owned(), bytes);
    }
}

/// The values of a tensor as f32 on the host, row by row.
#[must_use]
pub fn to_host<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
    let data = tensor.to_data().convert_dtype(DType::F32);
    data.to_vec().expect("converted to f32")
}

impl<B: Backend> WeightMap<B, B> for Collect {
    fn matrix(&mut self, name: &str, weight: Tensor<B, 2>) -> Tensor<B, 2> {
        let values = to_host(&weight);
        if name == "model.embed_tokens.weight" {
            self.keep(name, &values);
        } else {
            let [rows, columns] = weight.dims();
            self.keep(name, &transpose(&values, rows, columns));
        }
        weight
    }

    fn vector(&mut self, name: &str, weight: Tensor<B, 1>) -> Tensor<B, 1> {
        self.keep(name, &to_host(&weight));
        weight
    }
}
