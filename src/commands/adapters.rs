//! `crrl adapters`: what a run publishes, for tools outside it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use crrl_cluster::{AdapterFeed, OperatorError, RunDir};
use crrl_model::{AdapterWeights, FileDtype, peft};
use crrl_types::AdapterManifest;
use serde::Serialize;

use super::failure::{Coded, UNREACHABLE, say};
use crate::meter::{Meter, Quiet};
use crate::run::absolute;

/// Arguments of `crrl adapters`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write every adapter that a running cluster publishes as a PEFT folder of its own, and print a
    /// line for each. Folders appear whole or not at all; `latest` always points at the newest. Of
    /// several published while one is written only the newest is. Ends when the run does.
    Follow {
        /// Folder of the run.
        run: PathBuf,
        /// Folder for the adapters: `OUT/v7` is version 7.
        #[arg(long, short, value_name = "DIR")]
        out: PathBuf,
        /// Write the newest and leave; wait for it if there is none yet.
        #[arg(long)]
        once: bool,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        quiet: Quiet,
    },
}

/// What is printed of a version.
#[derive(Debug, Serialize)]
struct Line<'a> {
    version: u64,
    digest: String,
    base_digest: String,
    bytes: u64,
    /// `F32` or `BF16`.
    dtype: &'a str,
    path: &'a Path,
}

/// Runs `crrl adapters`.
///
/// # Errors
/// The run cannot be reached, or a folder not be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Action::Follow { run, out, once, json, quiet } = &args.action;
    let run = RunDir::new(absolute(run));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(follow(&run, &absolute(out), *once, *json, *quiet))
}

async fn follow(
    run: &RunDir,
    out: &Path,
    once: bool,
    json: bool,
    quiet: Quiet,
) -> anyhow::Result<ExitCode> {
    let base = run.config().map_err(|error| Coded::usage(error.to_string()))?.model.path;
    // Only the first is waited for in sight: the others come when they come.
    let mut waiting = Some(Meter::start(quiet, "waiting for an adapter", "", 0));
    let mut feed = AdapterFeed::connect(run).await.map_err(refused)?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut written = 0;
    let interrupted = tokio::signal::ctrl_c();
    let mut interrupted = std::pin::pin!(interrupted);
    loop {
        let next = tokio::select! {
            next = feed.next() => next,
            _ = &mut interrupted => break,
        };
        let offer = match next {
            Ok(offer) => offer,
            // It was followed to its end.
            Err(error) if written > 0 => {
                say(&format!("the run has ended: {error}"));
                break;
            }
            Err(error) => return Err(refused(error)),
        };
        let manifest = &offer.manifest;
        let bytes = match feed.fetch(&offer).await {
            Ok(bytes) => bytes,
            // A newer one comes in a moment.
            Err(error) => {
                let says = format!("version {} was not fetched: {error}", manifest.version);
                match &waiting {
                    Some(meter) => meter.warn(&says),
                    None => say(&says),
                }
                continue;
            }
        };
        let path = write(manifest, &bytes, &base, out)?;
        drop(waiting.take());
        print(manifest, &path, json)?;
        written += 1;
        if once {
            break;
        }
    }
    feed.close().await;
    Ok(ExitCode::SUCCESS)
}

fn refused(error: OperatorError) -> anyhow::Error {
    match error {
        OperatorError::NotARun(_) => Coded::usage(error.to_string()),
        other => Coded { code: UNREACHABLE, message: other.to_string() }.into(),
    }
}

/// Writes a PEFT folder beside its place, then puts it there.
fn write(
    manifest: &AdapterManifest,
    bytes: &[u8],
    base: &Path,
    out: &Path,
) -> anyhow::Result<PathBuf> {
    let weights = AdapterWeights::from_bytes(bytes)?;
    let place = out.join(format!("v{}", manifest.version));
    let beside = tempfile::Builder::new().prefix(".adapter-").tempdir_in(out)?;
    let folder = beside.path().join("peft");
    peft::save(&weights, &folder, &base.to_string_lossy(), FileDtype::F32)?;
    // The very bytes that were published, so that the digest can be checked.
    std::fs::write(folder.join("adapter_model.safetensors"), bytes)?;
    if place.exists() {
        std::fs::rename(&place, beside.path().join("before"))?;
    }
    let wrote = || format!("cannot write {}", place.display());
    std::fs::rename(&folder, &place).with_context(wrote)?;
    let link = beside.path().join("latest");
    std::os::unix::fs::symlink(place.file_name().unwrap_or_default(), &link)?;
    std::fs::rename(&link, out.join("latest")).with_context(wrote)?;
    Ok(place)
}

fn print(manifest: &AdapterManifest, path: &Path, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let AdapterManifest { version, digest, base_digest, bytes, tensors, .. } = manifest;
    if json {
        let line = Line {
            version: version.0,
            digest: digest.to_string(),
            base_digest: base_digest.to_string(),
            bytes: *bytes,
            dtype: tensors.first().map_or("", |tensor| tensor.dtype.as_str()),
            path,
        };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    } else {
        let megabytes = *bytes as f64 / 1e6;
        writeln!(out, "v{version}  {}  {megabytes:.1} MB  {}", digest.short(), path.display())?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use crrl_model::{Cpu, Lora, LoraConfig, ModelConfig, Target};
    use crrl_types::{AdapterVersion, Digest};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_written_loads_as_the_adapter_that_was_published() {
        let Value::Object(object) = json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 32,
            "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
        }) else {
            unreachable!("an object was written")
        };
        let model = ModelConfig::parse(&object).expect("a good configuration");
        let config =
            LoraConfig { rank: 2, targets: vec![Target::Q, Target::Down], ..LoraConfig::default() };
        let weights = Lora::<Cpu>::init(&config, &model, 7, &Default::default()).to_weights();
        let out = tempfile::tempdir().expect("a temporary folder");
        for dtype in [FileDtype::F32, FileDtype::Bf16] {
            let bytes = weights.to_bytes(dtype);
            let manifest = weights.manifest(&bytes, dtype, AdapterVersion(3), Digest::default());
            let path = write(&manifest, &bytes, Path::new("base"), out.path()).expect("writable");
            assert_eq!(path, out.path().join("v3"));
            let file = std::fs::read(path.join("adapter_model.safetensors")).expect("readable");
            assert_eq!(file, bytes);
            let read = peft::load(&out.path().join("latest")).expect("a PEFT folder");
            assert_eq!(read.config.targets, weights.config.targets);
            assert_eq!(read.to_bytes(dtype), bytes);
        }
        let left: Vec<_> = std::fs::read_dir(out.path()).expect("there").flatten().collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
