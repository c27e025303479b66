//! Who trains, played: a batch becomes made-up weights after a while. A step is on the disk before it
//! is told, as `actors/trainer.rs` has it; the learner's actor itself is the real one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crrl_actors::learner::{Args, Msg, Stepped};
use crrl_actors::trainer::{Job, StartTrainer, Trainer};
use crrl_cluster::run_dir::write_atomic;
use crrl_config::AdapterDtype;
use crrl_control::audit::{CheckpointFact, Held};
use crrl_learner::publish::Published;
use crrl_sim::Rng;
use crrl_types::{AdapterManifest, AdapterVersion, Digest, EpisodeId, Step};
use ractor::ActorRef;
use rand::{Rng as _, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::truth::Truth;

/// Checkpoints that are kept.
const KEPT: usize = 3;
/// Longest a step takes.
const STEP_MAX_MS: u64 = 600;

/// What adapters are made of.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    count: usize,
    dtype: AdapterDtype,
}

impl Numbers {
    /// A safetensors file of numbers in 0 to 1.
    fn file(self, rng: &mut Rng) -> Vec<u8> {
        let Self { count, dtype } = self;
        let (name, size) = match dtype {
            AdapterDtype::F32 => ("F32", 4),
            AdapterDtype::Bf16 => ("BF16", 2),
        };
        let header = format!(
            r#"{{"a":{{"dtype":"{name}","shape":[{count}],"data_offsets":[0,{}]}}}}"#,
            size * count
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        for _ in 0..count {
            // bf16 is the upper half.
            bytes.extend(&rng.random::<f32>().to_le_bytes()[4 - size..]);
        }
        bytes
    }
}

/// A checkpoint. The weights are a number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Checkpoint {
    step: u64,
    version: u64,
    weights: u64,
    consumed: Vec<EpisodeId>,
    /// Digest of the rest.
    seal: String,
}

impl Checkpoint {
    fn sealed(mut self) -> Self {
        self.seal = String::new();
        let json = serde_json::to_vec(&self).expect("plain numbers");
        self.seal = Digest::of(&json).to_string();
        self
    }

    fn load(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let held: Self = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if held == held.clone().sealed() { Ok(held) } else { Err("the seal is broken".to_owned()) }
    }

    /// The adapter these weights are, under a version.
    fn publish(&self, version: AdapterVersion, numbers: Numbers) -> Published {
        let bytes = numbers.file(&mut Rng::seed_from_u64(self.weights));
        let manifest = AdapterManifest {
            version,
            digest: Digest::of(&bytes),
            base_digest: Digest::of(b"base"),
            bytes: bytes.len() as u64,
            rank: 1,
            alpha_milli: 1000,
            tensors: Vec::new(),
            finite: true,
        };
        Published { manifest, bytes }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

/// What is on the disk, for an audit.
pub(crate) fn facts(folder: &Path) -> Vec<CheckpointFact> {
    files(folder)
        .into_iter()
        .map(|path| CheckpointFact {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            holds: Checkpoint::load(&path).map(|held| Held {
                step: Step(held.step),
                consumed: held.consumed,
                finite: true,
            }),
        })
        .collect()
}

/// The newest checkpoint will not load; the one before it does.
pub(crate) fn damage_newest(folder: &Path) {
    if let [.., before, newest] = &files(folder)[..]
        && Checkpoint::load(before).is_ok()
    {
        std::fs::write(newest, b"damaged").expect("the folder of a machine that is off");
    }
}

/// Starts the played trainer; its weights are of `floats` numbers.
pub(crate) fn start(seed: u64, floats: usize, truth: Truth) -> StartTrainer {
    Arc::new(move |args: &Args, actor: ActorRef<Msg>| {
        let (sender, jobs) = mpsc::unbounded_channel();
        let folder = args.run.checkpoints();
        let rng = Rng::seed_from_u64(seed);
        let numbers = Numbers { count: floats, dtype: args.config.learner.adapter_dtype };
        tokio::spawn(work(folder, numbers, rng, truth.clone(), jobs, actor));
        Ok(Trainer::new(move |job| sender.send(job).is_ok()))
    })
}

async fn work(
    folder: PathBuf,
    numbers: Numbers,
    mut rng: Rng,
    truth: Truth,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    actor: ActorRef<Msg>,
) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(1..500))).await;
    let newest = files(&folder).into_iter().rev().find_map(|path| Checkpoint::load(&path).ok());
    let mut held = newest.unwrap_or_default();
    let (step, version) = (Step(held.step), AdapterVersion(held.version));
    let adapter = (held.version > 0).then(|| Box::new(held.publish(version, numbers)));
    // An actor that has ended asks for nothing more.
    let _ = actor.cast(Msg::Ready { step, version, adapter });
    while let Some(job) = jobs.recv().await {
        let message = match job {
            Job::Train { step, version, trajectories } => {
                let takes = rng.random_range(20..STEP_MAX_MS);
                tokio::time::sleep(Duration::from_millis(takes)).await;
                let consumed: Vec<EpisodeId> = trajectories.iter().map(|t| t.episode).collect();
                held = Checkpoint {
                    step: step.0,
                    version: version.0 + 1,
                    weights: rng.random(),
                    consumed: consumed.clone(),
                    seal: String::new(),
                }
                .sealed();
                truth.learner_makes(step.0, &consumed);
                if let Err(error) = save(&folder, &held) {
                    let _ = actor.cast(Msg::Died(error));
                    return;
                }
                let adapter = held.publish(AdapterVersion(held.version), numbers);
                let metrics = vec![("loss".to_owned(), 0.5)];
                Msg::Stepped(Box::new(Stepped { step, consumed, metrics, adapter }))
            }
            Job::Republish { version } => {
                held.version = version.0;
                Msg::Republished(Box::new(held.publish(version, numbers)))
            }
        };
        if actor.cast(message).is_err() {
            return;
        }
    }
}

fn save(folder: &Path, checkpoint: &Checkpoint) -> Result<(), String> {
    let path = folder.join(format!("step-{:08}.json", checkpoint.step));
    let json = serde_json::to_vec(checkpoint).expect("plain numbers");
    write_atomic(&path, &json).map_err(|error| error.to_string())?;
    // What was made after an older checkpoint is of another life.
    let files = files(folder);
    let later = files.iter().filter(|file| **file > path);
    let old = files.iter().filter(|file| **file <= path).rev().skip(KEPT);
    for file in later.chain(old) {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}
