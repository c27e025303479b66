//! From `cluster.toml` to the options of each part: the one place where the two meet.

use std::path::Path;
use std::time::Duration;

use crrl_config::{AdapterDtype, AgentSection, ClusterConfig, Node, SandboxSection};
use crrl_model::{FileDtype, LoraConfig, Target};
use crrl_rl::objective::{Importance, Objective, Surrogate};

use crate::sandboxes::PoolOptions;

/// Templates kept beyond those of the episodes under way.
const TEMPLATES_SPARE: usize = 32;

/// The engine of a rollout node.
#[must_use]
pub fn engine(config: &ClusterConfig) -> crrl_engine::Options {
    let concurrency = config.rollout.concurrency as usize;
    crrl_engine::Options {
        device: match config.model.device.as_str() {
            "cuda" => crrl_engine::Device::Cuda,
            _ => crrl_engine::Device::Cpu,
        },
        sequences_max: concurrency,
        context_max: config.agent.tokens_max as usize,
        prefill_tokens_max: config.engine.prefill_tokens_max,
        prefixes_max: config.engine.prefixes_max,
        on_swap: match config.engine.on_swap.as_str() {
            "recompute" => crrl_engine::OnSwap::Recompute,
            _ => crrl_engine::OnSwap::Keep,
        },
        kv_bytes_max: config.engine.kv_mib_max << 20,
        ..crrl_engine::Options::default()
    }
}

/// The scaffold.
#[must_use]
pub fn agent(section: &AgentSection) -> crrl_agent::Options {
    crrl_agent::Options {
        style: match section.prompt.as_str() {
            "brief" => crrl_agent::Style::Brief,
            _ => crrl_agent::Style::Full,
        },
        calls_max: section.calls_max,
        tokens_max: section.tokens_max,
        turn_tokens_max: section.turn_tokens_max,
        time_max: Duration::from_secs_f64(section.time_max_s),
        output_chars_max: section.output_chars_max,
        nudges_max: section.nudges_max,
        ..crrl_agent::Options::default()
    }
}

/// The pool of sandboxes of a rollout node.
#[must_use]
pub fn pool(config: &ClusterConfig, cache: &Path) -> PoolOptions {
    let concurrency = config.rollout.concurrency as usize;
    PoolOptions {
        sandboxes_max: concurrency,
        templates_max: concurrency + TEMPLATES_SPARE,
        cache: cache.to_owned(),
    }
}

/// The limits of one sandbox.
#[must_use]
pub fn sandbox(section: &SandboxSection) -> crrl_sandbox::Options {
    let limits = crrl_sandbox::Limits {
        command_time_max: Duration::from_secs_f64(section.command_time_max_s),
        cpu_time_max_s: section.cpu_time_max_s,
        memory_bytes: section.memory_mib << 20,
        processes_max: section.processes_max,
        file_bytes: section.file_mib << 20,
        disk_bytes: section.disk_mib << 20,
        output_bytes: section.output_kib << 10,
        ..crrl_sandbox::Limits::default()
    };
    crrl_sandbox::Options {
        limits,
        launcher: None,
        run_without_isolation: section.run_without_isolation,
    }
}

/// The learner.
#[must_use]
pub fn learner(config: &ClusterConfig) -> crrl_learner::Options {
    let section = &config.learner;
    let (low, high) = (section.clip_low, section.clip_high);
    let clipped = Surrogate::Clipped { low, high };
    let base = match section.objective {
        crrl_config::Objective::Grpo => Objective { surrogate: clipped, ..Objective::grpo() },
        crrl_config::Objective::Bnpo => Objective { surrogate: clipped, ..Objective::bnpo() },
        crrl_config::Objective::DrGrpo => {
            Objective { surrogate: clipped, ..Objective::dr_grpo(config.agent.tokens_max) }
        }
        crrl_config::Objective::Dapo => Objective { surrogate: clipped, ..Objective::dapo() },
        // The ratio of a sequence and CISPO's cap live on scales of their own.
        crrl_config::Objective::Gspo => Objective::gspo(),
        crrl_config::Objective::Cispo => Objective::cispo(),
    };
    let importance = (section.importance_cap > 0.0)
        .then(|| Importance { cap: section.importance_cap, ..Importance::default() });
    crrl_learner::Options {
        trainable: crrl_learner::Trainable::Lora(lora(config)),
        optimizer: crrl_learner::AdamW {
            learning_rate: section.learning_rate,
            beta1: section.beta1,
            beta2: section.beta2,
            weight_decay: section.weight_decay,
            warmup_steps: section.warmup_steps,
            schedule: match section.schedule {
                crrl_config::Schedule::Constant => crrl_learner::Schedule::Constant,
                crrl_config::Schedule::Cosine => {
                    crrl_learner::Schedule::Cosine { steps: config.run.steps, floor: 0.1 }
                }
            },
            grad_norm_max: section.grad_norm_max,
            ..crrl_learner::AdamW::default()
        },
        objective: Objective { importance, beta: section.kl_beta, ..base },
        epochs: section.epochs,
        minibatches: section.minibatches,
        micro_batch_tokens: section.micro_batch_tokens as usize,
        checkpoint_activations: section.checkpoint_activations,
        seed: config.run.seed,
        ..crrl_learner::Options::default()
    }
}

/// The adapter.
#[must_use]
pub fn lora(config: &ClusterConfig) -> LoraConfig {
    let named = |name: &String| Target::from_name(&format!("{name}_proj"));
    #[expect(clippy::cast_possible_truncation, reason = "a scale of a few digits")]
    let alpha = config.lora.alpha as f32;
    LoraConfig {
        rank: config.lora.rank as usize,
        alpha,
        targets: config.lora.targets.iter().filter_map(named).collect(),
        rank_stabilized: false,
    }
}

/// The type adapters travel in.
#[must_use]
pub fn adapter_dtype(config: &ClusterConfig) -> FileDtype {
    match config.learner.adapter_dtype {
        AdapterDtype::F32 => FileDtype::F32,
        AdapterDtype::Bf16 => FileDtype::Bf16,
    }
}

/// Threads of a node's tensor work.
#[must_use]
pub fn threads(node: &Node) -> usize {
    match node.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// Gives this process's tensor work its threads. Once, before any tensor is made.
///
/// # Errors
/// When tensor work has begun already or the threads cannot be had.
pub fn set_threads(threads: usize) -> Result<(), rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()
}
