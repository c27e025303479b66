//! What is asked for on the command line.

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use crrl_engine::Device;
use crrl_model::{FileDtype, Precision, precision};

/// Anything that ends a benchmark.
pub(crate) type Fault = Box<dyn Error>;

/// Measures the engine or the learner on a model folder.
#[derive(Debug, Parser)]
#[command(name = "model_speed")]
pub(crate) struct Options {
    /// What is measured.
    #[arg(value_enum)]
    pub(crate) work: Work,
    /// Hugging Face folder of the model.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// Where tensors live.
    #[arg(long, value_enum, default_value = "cpu")]
    pub(crate) device: Place,
    /// Type computed in: f32 on the processor, bf16 on a GPU unless f32 is named.
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<Number>,
    /// Sequences at once: of decode, a LoRA step, and those that generate during a hand-over
    /// (16, 4 and 4 by default).
    #[arg(long)]
    pub(crate) sequences: Option<usize>,
    /// Tokens of a prompt (decode 128, prefill 512, hand-over 128) or of a training sequence (256).
    #[arg(long)]
    pub(crate) tokens: Option<usize>,
    /// Tokens sampled by each sequence of decode.
    #[arg(long, default_value_t = 64)]
    pub(crate) new_tokens: usize,
    /// Times the work is done and timed, after once untimed; the median counts.
    #[arg(long, default_value_t = 5)]
    pub(crate) repeats: usize,
    /// Rank of the adapter, on all seven projections.
    #[arg(long, default_value_t = 16)]
    pub(crate) rank: usize,
    /// Type an adapter is handed over in.
    #[arg(long, value_enum, default_value = "bf16")]
    pub(crate) adapter_dtype: Number,
    /// A LoRA step keeps each layer's input only and computes the rest again.
    #[arg(long)]
    pub(crate) checkpoint: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Given by `cargo bench` to every benchmark; means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Sequences decode side by side, greedily.
    Decode,
    /// One prompt is read and one token sampled.
    Prefill,
    /// Forward, backward and AdamW of an adapter.
    LoraStep,
    /// An adapter goes from the learner to the first token sampled under it.
    HandOver,
}

/// Where tensors live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Place {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU; needs a build with the feature `cuda`.
    Cuda,
}

/// Type of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Number {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
}

impl Number {
    /// As files name it.
    pub(crate) fn of_file(self) -> FileDtype {
        match self {
            Self::F32 => FileDtype::F32,
            Self::Bf16 => FileDtype::Bf16,
        }
    }
}

impl Place {
    /// Its name, as the learner takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// As the engine takes it.
    pub(crate) fn engine(self) -> Device {
        match self {
            Self::Cpu => Device::Cpu,
            Self::Cuda => Device::Cuda,
        }
    }
}

impl Options {
    /// Refuses what cannot be measured, and sets the device to the type asked for.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self.device {
            Place::Cpu => precision::compute_on_cpu_in(self.precision())?,
            #[cfg(feature = "cuda")]
            Place::Cuda => precision::compute_on_cuda_in(self.precision())?,
            #[cfg(not(feature = "cuda"))]
            Place::Cuda => return Err("this build has no CUDA; build with --features cuda".into()),
        }
        let counts = [
            ("--repeats", Some(self.repeats), 1),
            ("--sequences", self.sequences, 1),
            ("--tokens", self.tokens, 2),
            ("--new-tokens", Some(self.new_tokens), 2),
            ("--rank", Some(self.rank), 1),
        ];
        for (name, value, least) in counts {
            if value.is_some_and(|value| value < least) {
                return Err(format!("{name}: give {least} or more").into());
            }
        }
        Ok(())
    }

    /// The type computed in.
    pub(crate) fn precision(&self) -> Precision {
        match (self.dtype, self.device) {
            (Some(Number::F32), _) | (None, Place::Cpu) => Precision::F32,
            (Some(Number::Bf16), _) | (None, Place::Cuda) => Precision::Bf16,
        }
    }
}
