//! Checkpoints: folders that appear whole or not at all, and are checked before they are used.
//!
//! `step-00000042-00000043/`, of 42 updates and step 43, holds the weights (`adapter/` as a PEFT folder, or
//! `model/`), the optimizer's moments (`moments.safetensors`), and `manifest.json`, written last, with a
//! hash of every other file. A step whose update was left out has a folder of its own all the same: it
//! takes no other's place. Builds before wrote `step-00000042/`. Everything random in a run is drawn from
//! the seed and a counter kept here.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crrl_machine::disk;
use crrl_model::{FileDtype, ModelDir, peft};
use crrl_types::{AdapterVersion, Digest, EpisodeId};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::LearnerError;
use crate::learner::Learner;
use crate::options::{Options, Trainable};
use crate::parameters::Parameters;

const MANIFEST: &str = "manifest.json";
const MOMENTS: &str = "moments.safetensors";
const ADAPTER: &str = "adapter";
const MODEL: &str = "model";

/// Version of the layout.
const FORMAT: u32 = 1;

/// Where a run is, besides its weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps of the run.
    pub step: u64,
    /// Newest published version.
    pub version: AdapterVersion,
    /// Number of the next example or task.
    pub cursor: u64,
    /// Episodes trained on, so that none is trained on twice.
    pub consumed: Vec<EpisodeId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    updates: u64,
    base: Digest,
    options: Options,
    progress: Progress,
    /// Path inside the folder to the hash of its bytes.
    files: BTreeMap<String, Digest>,
}

/// A checkpoint that has been checked.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

/// What [`Checkpoints::newest`] finds.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest one that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// What is wrong with newer ones, newest first.
    pub damaged: Vec<String>,
}

/// What [`Checkpoints::examine`] says of one checkpoint: what it holds, or why it would not load.
pub type Verdict = Result<Examined, String>;

/// What [`Checkpoints::examine`] finds in a checkpoint that loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Where the run was.
    pub progress: Progress,
    /// Whether every value of every tensor is finite.
    pub finite: bool,
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// Checkpoints in `dir`, of which the newest `keep` (at least one) stay.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, keep: usize) -> Self {
        Self { dir: dir.into(), keep: keep.max(1) }
    }

    /// Whether there is any, whole or damaged.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.list().is_ok_and(|list| !list.is_empty())
    }

    /// Writes one; returns its folder. One of the same number of updates and the same step is replaced.
    ///
    /// # Errors
    /// When a file cannot be written; earlier checkpoints are untouched then.
    pub fn save(&self, learner: &Learner, progress: &Progress) -> Result<PathBuf, LearnerError> {
        // What a full disk left half written is thrown away by the next try.
        disk::until_room(&self.dir, || self.save_now(learner, progress))
    }

    fn save_now(&self, learner: &Learner, progress: &Progress) -> Result<PathBuf, LearnerError> {
        disk::before_write()
            .map_err(|source| LearnerError::Io { path: self.dir.clone(), source })?;
        // In this order: builds before counted updates alone, and names are sorted.
        let name = format!("step-{:08}-{:08}", learner.updates(), progress.step);
        let (part, target) = (self.dir.join(format!(".{name}.part")), self.dir.join(&name));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LearnerError::Io { path, source }
        };
        if part.exists() {
            std::fs::remove_dir_all(&part).map_err(io(&part))?;
        }
        std::fs::create_dir_all(&part).map_err(io(&part))?;
        // The masters: resumed from what a GPU rounded, a run would not go on as it was.
        match learner.master_adapter() {
            Some(adapter) => peft::save(&adapter, &part.join(ADAPTER), "", FileDtype::F32)?,
            None => learner.save_model(&part.join(MODEL), FileDtype::F32)?,
        }
        let moments = part.join(MOMENTS);
        std::fs::write(&moments, pack(learner.parameters())).map_err(io(&moments))?;
        let mut files = BTreeMap::new();
        hash_files(&part, "", &mut files)?;
        let manifest = Manifest {
            format: FORMAT,
            updates: learner.updates(),
            base: learner.base_digest(),
            options: learner.options().clone(),
            progress: progress.clone(),
            files,
        };
        let text = serde_json::to_vec_pretty(&manifest).expect("plain data has a text");
        let path = part.join(MANIFEST);
        std::fs::write(&path, text).map_err(io(&path))?;
        sync(&path)?;
        sync(&part)?;
        if target.exists() {
            std::fs::remove_dir_all(&target).map_err(io(&target))?;
        }
        std::fs::rename(&part, &target).map_err(io(&target))?;
        self.set_aside_newer(&target)?;
        sync(&self.dir)?;
        self.prune()?;
        Ok(target)
    }

    /// The newest checkpoint whose files are what its manifest says.
    ///
    /// # Errors
    /// When the folder cannot be read. A damaged checkpoint is no error while there is an older
    /// one; with none left it is [`Found::checkpoint`] empty and the reasons beside it.
    pub fn newest(&self) -> Result<Found, LearnerError> {
        let mut found = Found::default();
        for path in self.list()?.into_iter().rev() {
            match open(&path) {
                Ok(manifest) => {
                    found.checkpoint = Some(Checkpoint { path, manifest });
                    return Ok(found);
                }
                Err(reason) => {
                    let text = format!("checkpoint {} is damaged: {reason}", path.display());
                    tracing::warn!("{text}");
                    found.damaged.push(text);
                }
            }
        }
        Ok(found)
    }

    /// Every checkpoint, oldest first: its folder, and where the run was and whether all its
    /// values are finite, or why it would not load. Nothing is changed.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn examine(&self) -> Result<Vec<(PathBuf, Verdict)>, LearnerError> {
        let examine = |path: PathBuf| {
            let examined = open(&path).and_then(|manifest| {
                let mut finite = true;
                for name in manifest.files.keys().filter(|name| name.ends_with(".safetensors")) {
                    let bytes =
                        std::fs::read(path.join(name)).map_err(|e| format!("{name}: {e}"))?;
                    finite &= all_finite(&bytes).map_err(|e| format!("{name}: {e}"))?;
                }
                Ok(Examined { progress: manifest.progress, finite })
            });
            (path, examined)
        };
        Ok(self.list()?.into_iter().map(examine).collect())
    }

    /// Folders of checkpoints, oldest first.
    fn list(&self) -> Result<Vec<PathBuf>, LearnerError> {
        let io = |source| LearnerError::Io { path: self.dir.clone(), source };
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        let mut list = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io)?;
            if entry.file_name().to_string_lossy().starts_with("step-") {
                list.push(entry.path());
            }
        }
        list.sort_unstable();
        Ok(list)
    }

    /// What is newer than the newest that was written would not load when this life began. Under its own
    /// name it would count as one to keep, in place of one that loads.
    fn set_aside_newer(&self, newest: &Path) -> Result<(), LearnerError> {
        for path in self.list()?.into_iter().filter(|path| path.as_path() > newest) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let aside = self.dir.join(format!(".damaged-{name}"));
            let io = |source| LearnerError::Io { path: path.clone(), source };
            if aside.exists() {
                std::fs::remove_dir_all(&aside).map_err(io)?;
            }
            std::fs::rename(&path, &aside).map_err(io)?;
            tracing::warn!(
                "{} was damaged and is set aside as {}",
                path.display(),
                aside.display()
            );
        }
        Ok(())
    }

    fn prune(&self) -> Result<(), LearnerError> {
        let list = self.list()?;
        for old in &list[..list.len().saturating_sub(self.keep)] {
            std::fs::remove_dir_all(old)
                .map_err(|source| LearnerError::Io { path: old.clone(), source })?;
        }
        Ok(())
    }
}

impl Checkpoint {
    /// Where the run was.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.manifest.progress
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts weights, moments and the count of updates into a learner of the same model and kind.
    ///
    /// # Errors
    /// When the learner trains another base model or other weights.
    pub fn restore(&self, learner: &mut Learner) -> Result<Progress, LearnerError> {
        let fault = |reason: String| LearnerError::Checkpoint { path: self.path.clone(), reason };
        let manifest = &self.manifest;
        if manifest.options.trainable != learner.options().trainable {
            return Err(fault("it trains other weights than this run is set to train".into()));
        }
        // With every weight trained the base is in the checkpoint itself, and changes with it.
        let adapts = matches!(manifest.options.trainable, Trainable::Lora(_));
        if adapts && manifest.base != learner.base_digest() {
            return Err(fault(format!(
                "it belongs to base model {}, this one is {}",
                manifest.base.short(),
                learner.base_digest().short()
            )));
        }
        let path = self.path.join(MOMENTS);
        let bytes = std::fs::read(&path).map_err(|source| LearnerError::Io { path, source })?;
        let unpacked = |parameters: &mut Parameters| unpack(&bytes, parameters);
        let restored = match manifest.options.trainable {
            Trainable::Lora(_) => {
                let adapter = peft::load(&self.path.join(ADAPTER))?;
                learner.restore(None, Some(&adapter), manifest.updates, unpacked)?
            }
            Trainable::Full => {
                let model = ModelDir::open(self.path.join(MODEL))?;
                learner.restore(Some(&model), None, manifest.updates, unpacked)?
            }
        };
        restored.map_err(fault)?;
        Ok(manifest.progress.clone())
    }
}

/// Reads a manifest and checks every file against it.
fn open(path: &Path) -> Result<Manifest, String> {
    let text = std::fs::read(path.join(MANIFEST)).map_err(|e| format!("{MANIFEST}: {e}"))?;
    let manifest: Manifest =
        serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    if manifest.format != FORMAT {
        return Err(format!("format {}, this program reads {FORMAT}", manifest.format));
    }
    for (name, expected) in &manifest.files {
        let bytes = std::fs::read(path.join(name)).map_err(|e| format!("{name}: {e}"))?;
        if Digest::of(&bytes) != *expected {
            return Err(format!("{name} is not the file that was written"));
        }
    }
    Ok(manifest)
}

/// Cuts the newest checkpoint's moments to half their length, as a machine that lost power in the middle
/// might have left them. Gives the file; none where there is no checkpoint.
///
/// # Errors
/// The folder cannot be read, or the file not written.
pub fn tear_newest(checkpoints: &Checkpoints) -> Result<Option<PathBuf>, LearnerError> {
    let Some(newest) = checkpoints.list()?.pop() else { return Ok(None) };
    let path = newest.join(MOMENTS);
    let io = |source| LearnerError::Io { path: path.clone(), source };
    let file = File::options().write(true).open(&path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    file.set_len(len / 2).and_then(|()| file.sync_all()).map_err(io)?;
    Ok(Some(path))
}

/// Hashes every file under a folder and brings it to the disk.
fn hash_files(
    root: &Path,
    under: &str,
    files: &mut BTreeMap<String, Digest>,
) -> Result<(), LearnerError> {
    let dir = root.join(under);
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LearnerError::Io { path, source }
    };
    for entry in std::fs::read_dir(&dir).map_err(io(&dir))? {
        let path = entry.map_err(io(&dir))?.path();
        let name = path.strip_prefix(root).expect("listed under it").to_string_lossy().into_owned();
        if path.is_dir() {
            hash_files(root, &name, files)?;
        } else {
            let bytes = std::fs::read(&path).map_err(io(&path))?;
            files.insert(name, Digest::of(&bytes));
        }
        sync(&path)?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), LearnerError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| LearnerError::Io { path: path.to_owned(), source })
}

/// Whether a safetensors file holds finite values only.
///
/// # Errors
/// It is no such file, or holds something else than F32, BF16 or F16.
pub fn all_finite(bytes: &[u8]) -> Result<bool, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let known = [Dtype::F32, Dtype::BF16, Dtype::F16];
    if let Some((name, tensor)) = file.tensors().iter().find(|(_, t)| !known.contains(&t.dtype())) {
        return Err(format!("{name} is of type {:?}", tensor.dtype()));
    }
    // A number is not finite when all bits of its exponent are set.
    let bits = |data: &[u8], exponent: u16| {
        data.as_chunks().0.iter().all(|b| u16::from_le_bytes(*b) & exponent != exponent)
    };
    Ok(file.tensors().iter().all(|(_, tensor)| match tensor.dtype() {
        Dtype::F32 => {
            tensor.data().as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite())
        }
        Dtype::BF16 => bits(tensor.data(), 0x7f80),
        _ => bits(tensor.data(), 0x7c00),
    }))
}

/// Both moments of every parameter as one safetensors file.
fn pack(parameters: &Parameters) -> Vec<u8> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let parts: Vec<(String, &[usize], Vec<u8>)> = parameters
        .list
        .iter()
        .flat_map(|p| {
            [
                (format!("first.{}", p.name), p.shape.as_slice(), bytes(&p.first)),
                (format!("second.{}", p.name), p.shape.as_slice(), bytes(&p.second)),
            ]
        })
        .collect();
    let views = parts.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        (name.as_str(), view.expect("as many bytes as the shape says"))
    });
    safetensors::serialize(views, None).expect("plain tensors have bytes")
}

fn unpack(bytes: &[u8], parameters: &mut Parameters) -> Result<(), String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| format!("{MOMENTS}: {e}"))?;
    for parameter in &mut parameters.list {
        for (moment, out) in [("first", &mut parameter.first), ("second", &mut parameter.second)] {
            let name = format!("{moment}.{}", parameter.name);
            let view = file.tensor(&name).map_err(|e| format!("{MOMENTS}: {name}: {e}"))?;
            if view.shape() != parameter.shape || view.dtype() != Dtype::F32 {
                return Err(format!("{MOMENTS}: {name} has another shape or type"));
            }
            for (out, bytes) in out.iter_mut().zip(view.data().chunks_exact(4)) {
                *out = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn file(values: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).expect("as many bytes");
        safetensors::serialize([("a", view)], None).expect("one tensor")
    }

    #[test]
    fn whatever_the_bytes_of_an_adapter_are_they_are_judged() {
        assert_eq!(all_finite(&file(&[0.5, -1.0])), Ok(true));
        assert_eq!(all_finite(&file(&[0.5, f32::NAN])), Ok(false));
        let whole = file(&[0.5; 16]);
        for seed in 0..5_000 {
            println!("seed {seed}");
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..3) {
                    0 => bytes[at] = rng.random(),
                    1 => bytes.truncate(at + 1),
                    // The header is text, and its numbers are what is trusted.
                    _ => {
                        let header = 60.min(bytes.len() - 8).max(1);
                        bytes[8 + at % header] = b'9';
                    }
                }
                if bytes.len() < 16 {
                    break;
                }
            }
            let _ = all_finite(&bytes);
        }
    }
}
