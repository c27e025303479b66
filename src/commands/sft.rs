//! `crrl sft`: supervised fine-tuning on oracle traces. With `--from-scratch` it also makes the
//! tokenizer and the model; without, it trains an adapter (or all weights) of an existing model.

mod drill;
mod material;
mod scratch;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::failure::Coded;
use crate::meter::Quiet;

/// What `crrl sft` is given.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct Args {
    /// Source tree whose functions get bugs, or a task file (.jsonl). Without it, the Python
    /// standard library of this machine.
    #[arg(value_name = "PATH")]
    pub(crate) source: Option<PathBuf>,
    /// Folder the trained model (or adapter, in PEFT's format) is written to.
    #[arg(long, short = 'o', value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Make a tokenizer and a model of the sizes below and train every weight.
    #[arg(long, conflicts_with = "model")]
    pub(crate) from_scratch: bool,
    /// Model folder to start from.
    #[arg(long, value_name = "DIR", required_unless_present = "from_scratch")]
    pub(crate) model: Option<PathBuf>,
    /// Train every weight of `--model` instead of an adapter.
    #[arg(long, requires = "model")]
    pub(crate) full: bool,
    /// Go on from the newest checkpoint in the output folder.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where tensors live: `cpu`, or `cuda` in a build with that feature.
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub(crate) device: String,

    /// Tokens to train on, prompts included.
    #[arg(long, default_value_t = 16_000_000, value_name = "N", help_heading = "Training")]
    pub(crate) tokens: u64,
    /// Tokens of one update.
    #[arg(long, default_value_t = 8192, value_name = "N", help_heading = "Training")]
    pub(crate) batch_tokens: usize,
    /// Tokens of one forward and backward pass; bounds memory.
    #[arg(long, default_value_t = 8192, value_name = "N", help_heading = "Training")]
    pub(crate) micro_batch_tokens: usize,
    /// Peak learning rate [default: 3e-3 from scratch, 2e-4 for an adapter, 2e-5 with --full].
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    pub(crate) learning_rate: Option<f64>,
    /// Updates of linear warm-up; a cosine to a twentieth of the peak follows.
    #[arg(long, default_value_t = 50, value_name = "N", help_heading = "Training")]
    pub(crate) warmup: u64,
    /// AdamW's decoupled weight decay.
    #[arg(long, default_value_t = 0.01, value_name = "RATE", help_heading = "Training")]
    pub(crate) weight_decay: f64,
    /// Keep only each layer's input and compute the rest again: less memory, more time.
    #[arg(long, help_heading = "Training")]
    pub(crate) checkpoint_activations: bool,
    /// Weight of the tokens that are only read (prompts, tool output) beside 1 for those the agent
    /// writes [default: 0.2 from scratch, else 0].
    #[arg(long, value_name = "WEIGHT", help_heading = "Training")]
    pub(crate) prompt_loss: Option<f64>,
    /// Seed of weights, traces and their order.
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Training")]
    pub(crate) seed: u64,
    /// Updates between two looks at held-out traces.
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = "Training")]
    pub(crate) eval_every: u64,
    /// Held-out traces looked at.
    #[arg(long, default_value_t = 200, value_name = "N", help_heading = "Training")]
    pub(crate) eval_traces: usize,
    /// Updates between two checkpoints.
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = "Training")]
    pub(crate) checkpoint_every: u64,

    /// Width of the residual stream.
    #[arg(long, default_value_t = 128, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) dim: usize,
    /// Layers.
    #[arg(long, default_value_t = 4, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) layers: usize,
    /// Attention heads.
    #[arg(long, default_value_t = 4, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) heads: usize,
    /// Key and value heads [default: as many as heads].
    #[arg(long, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) kv_heads: Option<usize>,
    /// Width of the feed-forward [default: 8/3 of the width, rounded up to 32].
    #[arg(long, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) inner: Option<usize>,
    /// Tokens of the vocabulary.
    #[arg(long, default_value_t = 1024, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) vocab: usize,
    /// Context, tokens. Traces that do not fit are left out.
    #[arg(long, default_value_t = 512, value_name = "N", help_heading = "Size (--from-scratch)")]
    pub(crate) context: usize,

    /// Rank of the adapter.
    #[arg(long, default_value_t = 16, value_name = "N", help_heading = "Adapter (--model)")]
    pub(crate) rank: usize,
    /// Scale of the adapter is alpha / rank.
    #[arg(long, default_value_t = 32.0, value_name = "X", help_heading = "Adapter (--model)")]
    pub(crate) alpha: f32,

    /// Kinds of bug, separated by commas, by the names `crrl tasks mutate --help` lists [default: those
    /// of the small policy].
    #[arg(long, value_delimiter = ',', value_name = "KIND", help_heading = "Traces")]
    pub(crate) kinds: Vec<String>,
    /// Longest function, lines [default: that of the small policy's tasks].
    #[arg(long, value_name = "N", help_heading = "Traces")]
    pub(crate) lines_max: Option<usize>,
    /// Share of traces with new names and paths.
    #[arg(long, value_name = "SHARE", help_heading = "Traces")]
    pub(crate) renamed: Option<f64>,
    /// Share of traces that only copy lines.
    #[arg(long, value_name = "SHARE", help_heading = "Traces")]
    pub(crate) copying: Option<f64>,
    /// Share of traces that look too briefly or stop too early: what is left to learn from reward.
    #[arg(long, value_name = "SHARE", help_heading = "Traces")]
    pub(crate) careless: Option<f64>,
    /// Examples until no drill is left: the first ones are short copying drills, then ever fewer.
    /// A model made from nothing finds copying sooner in them than in traces [default: 8000 from
    /// scratch, else 0].
    #[arg(long, value_name = "N", help_heading = "Traces")]
    pub(crate) drills: Option<u64>,
    /// How much the scaffold says [default: brief from scratch, full with --model].
    #[arg(long, value_parser = ["brief", "full"], value_name = "STYLE", help_heading = "Traces")]
    pub(crate) prompt: Option<String>,

    #[command(flatten)]
    pub(crate) quiet: Quiet,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.batch_tokens == 0 || args.tokens < args.batch_tokens as u64 {
        return Err(Coded::usage(format!(
            "--tokens ({}) must be at least --batch-tokens ({}), and both above 0",
            args.tokens, args.batch_tokens
        )));
    }
    if args.checkpoint_every == 0 || args.eval_every == 0 {
        return Err(Coded::usage("--checkpoint-every and --eval-every are at least 1"));
    }
    if let Some(file) = args.source.as_ref().filter(|path| path.is_file())
        && let Some(flag) = of_trees(args).next()
    {
        return Err(Coded::usage(format!(
            "{flag} does nothing with a task file ({}): its bugs and functions are what they are; leave \
             it out, or name a source tree",
            file.display()
        )));
    }
    training::run(args)
}

/// The flags given that say how bugs and traces are made of a source tree.
fn of_trees(args: &Args) -> impl Iterator<Item = &'static str> {
    let given = [
        ("--kinds", !args.kinds.is_empty()),
        ("--lines-max", args.lines_max.is_some()),
        ("--renamed", args.renamed.is_some()),
        ("--copying", args.copying.is_some()),
        ("--careless", args.careless.is_some()),
    ];
    given.into_iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| flag)
}
