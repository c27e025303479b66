//! `crrl model`: check a model folder, merge an adapter into it, convert it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use crrl_model::{ChatTokenizer, Cpu, Decoder, FileDtype, Lora, ModelDir, Precision, check, peft};

use super::failure::Coded;
use crate::meter::{Meter, Quiet};

/// Arguments of `crrl model`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    /// Show no progress.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read a Hugging Face model folder whole and say what it holds.
    Check {
        /// Folder with config.json, safetensors and tokenizer.json.
        dir: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Run the token ids in this file (a JSON list, or numbers apart by spaces or commas)
        /// and print the logits after the last one.
        #[arg(long, value_name = "FILE")]
        prompt_ids: Option<PathBuf>,
        /// Where the weights are read to and the prompt is run.
        #[arg(long, value_enum, default_value = "cpu")]
        device: Place,
        /// Type computed in on a GPU; the processor computes in f32.
        #[arg(long, value_enum, default_value = "bf16")]
        gpu_dtype: GpuDtype,
    },
    /// Add a PEFT adapter to the weights of its base model and write a model folder.
    Merge {
        /// Folder of the base model.
        dir: PathBuf,
        /// PEFT folder of the adapter.
        adapter: PathBuf,
        /// Folder to write.
        #[arg(long, short)]
        out: PathBuf,
        /// Type of the written weights; the base model's by default.
        #[arg(long)]
        dtype: Option<Dtype>,
    },
    /// Write a model folder again: shards joined, config.json in the newer form.
    Export {
        /// Folder of the model.
        dir: PathBuf,
        /// Folder to write.
        #[arg(long, short)]
        out: PathBuf,
        /// Type of the written weights; the model's by default.
        #[arg(long)]
        dtype: Option<Dtype>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Place {
    /// The processor, f32.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GpuDtype {
    F32,
    Bf16,
}

impl From<GpuDtype> for Precision {
    fn from(dtype: GpuDtype) -> Self {
        match dtype {
            GpuDtype::F32 => Self::F32,
            GpuDtype::Bf16 => Self::Bf16,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for FileDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

/// Runs `crrl model`.
///
/// # Errors
/// When a folder cannot be read or written, or does not pass.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let quiet = Quiet { quiet: args.quiet };
    match args.action {
        Action::Check { dir, json, prompt_ids, device, gpu_dtype } => {
            let prompt = prompt_ids.map(|path| read_ids(&path)).transpose()?;
            let meter = Meter::start(quiet, "reading the model", "", 0);
            let report = check_on(device, gpu_dtype.into(), &dir, prompt.as_deref())?;
            drop(meter);
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                print_report(&report);
            }
        }
        Action::Merge { dir, adapter, out, dtype } => {
            refuse_same(&dir, &out)?;
            let meter = Meter::start(quiet, "merging", "", 0);
            let folder = ModelDir::open(&dir)?;
            let decoder = Decoder::<Cpu>::load(&folder, &Default::default())?;
            meter.count().say("adding the adapter");
            let weights = peft::load(&adapter)?;
            weights
                .check_shapes(folder.config())
                .with_context(|| format!("{} is no adapter of this model", adapter.display()))?;
            let lora = Lora::from_weights(&weights, &Default::default());
            write(&decoder.merged(&lora), &folder, &out, dtype, &meter)?;
        }
        Action::Export { dir, out, dtype } => {
            refuse_same(&dir, &out)?;
            let meter = Meter::start(quiet, "exporting", "", 0);
            let folder = ModelDir::open(&dir)?;
            let decoder = Decoder::<Cpu>::load(&folder, &Default::default())?;
            write(&decoder, &folder, &out, dtype, &meter)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg_attr(
    not(feature = "cuda"),
    expect(unused_variables, reason = "what a GPU computes in matters with one only")
)]
fn check_on(
    device: Place,
    on_gpu: Precision,
    dir: &std::path::Path,
    prompt: Option<&[u32]>,
) -> anyhow::Result<check::Report> {
    match device {
        Place::Cpu => Ok(check::check::<Cpu>(dir, prompt)?),
        #[cfg(feature = "cuda")]
        Place::Cuda => {
            crrl_model::precision::compute_on_cuda_in(on_gpu)?;
            Ok(check::check::<crrl_model::Cuda>(dir, prompt)?)
        }
        #[cfg(not(feature = "cuda"))]
        Place::Cuda => Err(Coded::usage(
            "this build has no CUDA; build with --features cuda, or give --device cpu",
        )),
    }
}

/// Writing over the folder that is being read would destroy it half way.
fn refuse_same(dir: &std::path::Path, out: &std::path::Path) -> anyhow::Result<()> {
    if let (Ok(dir), Ok(out)) = (dir.canonicalize(), out.canonicalize())
        && dir == out
    {
        return Err(Coded::usage(
            "the folder to write is the one to read; name another with --out",
        ));
    }
    Ok(())
}

fn write(
    decoder: &Decoder<Cpu>,
    from: &ModelDir,
    out: &std::path::Path,
    dtype: Option<Dtype>,
    meter: &Meter,
) -> anyhow::Result<()> {
    meter.count().say(format!("writing {}", out.display()));
    let dtype = dtype.map_or(from.dtype(), FileDtype::from);
    decoder.save(out, dtype)?;
    // The tokenizer is opened first, so that a broken one is found here and not by the next user.
    ChatTokenizer::open(from.path())?;
    for name in
        ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"]
    {
        let source = from.path().join(name);
        if source.is_file() {
            std::fs::copy(&source, out.join(name))
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    meter.note(&format!("wrote {} ({})", out.display(), dtype.config_name()));
    Ok(())
}

fn read_ids(path: &std::path::Path) -> anyhow::Result<Vec<u32>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Coded::usage(format!("cannot read {}: {error}", path.display())))?;
    let ids: Result<Vec<u32>, _> = text
        .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'))
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_err(|_| part.to_owned()))
        .collect();
    match ids {
        Ok(ids) if ids.is_empty() => {
            Err(Coded::usage(format!("{} holds no token ids", path.display())))
        }
        Ok(ids) => Ok(ids),
        Err(part) => Err(Coded::usage(format!("{}: {part:?} is no token id", path.display()))),
    }
}

fn print_report(report: &check::Report) {
    println!("architecture   {}", report.architecture);
    println!("parameters     {}", report.parameters);
    println!("dtype          {}", report.dtype);
    println!("layers         {}", report.layers);
    println!("hidden size    {}", report.hidden_size);
    println!(
        "heads          {} of {}, {} for keys and values",
        report.heads, report.head_dim, report.kv_heads
    );
    println!("vocabulary     {}", report.vocab_size);
    println!("context        {} tokens", report.max_positions);
    println!("head           {}", if report.tied { "the embedding" } else { "its own" });
    println!("chat template  {}", report.chat_template);
    println!("base digest    {}", report.base_digest);
    if let Some(logits) = &report.logits {
        let mut best: Vec<_> = logits.iter().enumerate().collect();
        best.sort_by(|a, b| b.1.total_cmp(a.1));
        for (id, logit) in best.iter().take(5) {
            println!("next           {id} ({logit:.4})");
        }
    }
}
