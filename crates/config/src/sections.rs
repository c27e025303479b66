//! The options, one struct a section. Units are in the names; defaults are in `Default`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crrl_rl::reward::RewardOptions;
use crrl_types::{Late, OnLoss, Staleness, Stragglers};
use serde::{Deserialize, Serialize};

/// The whole of `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// `[run]`
    pub run: RunSection,
    /// `[model]`
    pub model: ModelSection,
    /// `[tasks]`
    pub tasks: TasksSection,
    /// `[agent]`
    pub agent: AgentSection,
    /// `[sandbox]`
    pub sandbox: SandboxSection,
    /// `[reward]`
    pub reward: RewardOptions,
    /// `[rollout]`
    pub rollout: RolloutSection,
    /// `[engine]`
    pub engine: EngineSection,
    /// `[learner]`
    pub learner: LearnerSection,
    /// `[lora]`
    pub lora: LoraSection,
    /// `[cluster]`
    pub cluster: ClusterSection,
    /// `[telemetry]`
    pub telemetry: TelemetrySection,
    /// `[[node]]`, one for each process. Empty: [`ClusterConfig::default_nodes`].
    pub node: Vec<Node>,
}

/// What is run, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Folder of the run: ledger, checkpoints, logs, certificates.
    pub dir: PathBuf,
    /// Optimizer steps.
    pub steps: u64,
    /// Seed of task order, sampling and initialisation.
    pub seed: u64,
    /// Train and roll out in turns instead of at the same time.
    pub sync: bool,
    /// Last good copies of the ledger that are kept, for `crrl train --resume --ledger last-good`; 0 keeps
    /// none. Each takes as much room as the ledger.
    pub ledger_copies: u32,
}

impl Default for RunSection {
    fn default() -> Self {
        Self { dir: "runs/default".into(), steps: 100, seed: 0, sync: false, ledger_copies: 2 }
    }
}

/// The base model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// Hugging Face folder: config.json, safetensors, tokenizer.json. Empty names none, and nothing
    /// that needs a model starts.
    pub path: PathBuf,
    /// Adapter to start from (PEFT folder); none starts from a zero adapter.
    pub adapter: Option<PathBuf>,
    /// Where tensors live: `cpu`, or `cuda` in a build with that feature.
    pub device: String,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self { path: PathBuf::new(), adapter: None, device: "cpu".into() }
    }
}

/// The repair tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksSection {
    /// JSONL file of the tasks to train on.
    pub train: PathBuf,
    /// JSONL file of held-out tasks, evaluated before and after training; none evaluates nothing.
    pub held_out: Option<PathBuf>,
    /// Attempts at each held-out task an evaluation makes, at least 1. Builds before this one wrote 0
    /// for 1 into the folders of their runs.
    pub held_out_samples: u32,
}

impl Default for TasksSection {
    fn default() -> Self {
        Self { train: PathBuf::new(), held_out: None, held_out_samples: 1 }
    }
}

/// The agent's scaffold and its limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSection {
    /// `full` instructions, or `brief` ones for a policy with a short context.
    pub prompt: String,
    /// Tool calls an episode may make.
    pub calls_max: u32,
    /// Tokens an episode's transcript may hold.
    pub tokens_max: u32,
    /// Tokens one turn may generate.
    pub turn_tokens_max: u32,
    /// Wall time of an episode.
    pub time_max_s: f64,
    /// Characters of tool output the agent is shown.
    pub output_chars_max: usize,
    /// Times the agent is nudged when it stops without having changed anything.
    pub nudges_max: u32,
}

impl Default for AgentSection {
    fn default() -> Self {
        Self {
            prompt: "full".into(),
            calls_max: 30,
            tokens_max: 10_240,
            turn_tokens_max: 2_048,
            time_max_s: 60.0,
            output_chars_max: 2_000,
            nudges_max: 1,
        }
    }
}

/// Limits of one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxSection {
    /// Wall time of one command.
    pub command_time_max_s: f64,
    /// CPU time of one process.
    pub cpu_time_max_s: u64,
    /// Address space of one process, and memory of all together.
    pub memory_mib: u64,
    /// Processes at once.
    pub processes_max: u64,
    /// Size of one file.
    pub file_mib: u64,
    /// Size of everything the sandbox may write.
    pub disk_mib: u64,
    /// Output of one command that is kept.
    pub output_kib: usize,
    /// Go on with no isolation where namespaces cannot be had: whatever the policy types then runs
    /// as you, on your files.
    pub run_without_isolation: bool,
}

impl Default for SandboxSection {
    fn default() -> Self {
        Self {
            command_time_max_s: 10.0,
            cpu_time_max_s: 10,
            memory_mib: 512,
            processes_max: 64,
            file_mib: 16,
            disk_mib: 64,
            output_kib: 64,
            run_without_isolation: false,
        }
    }
}

/// How episodes are sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolloutSection {
    /// Attempts at one task (G).
    pub group_size: u32,
    /// Groups of one optimizer step.
    pub groups_per_step: u32,
    /// Softmax temperature.
    pub temperature: f32,
    /// Nucleus sampling; 1 keeps all.
    pub top_p: f32,
    /// Most likely tokens only; 0 keeps all.
    pub top_k: u32,
    /// Episodes one rollout node drives at once.
    pub concurrency: u32,
    /// Whether what is older than `staleness_max` is dropped, or trained on with its importance
    /// weights; or whether nothing is rolled out ahead at all.
    pub staleness: Staleness,
    /// How many versions old the oldest token of an episode may be when it is trained on.
    pub staleness_max: u64,
    /// An episode that is not back by then is handed to another node.
    pub lease_s: f64,
    /// Leave out groups whose attempts all earned the same.
    pub skip_equal_groups: bool,
    /// What becomes of an episode whose node is lost in the middle of it.
    pub on_loss: OnLoss,
    /// While the learner waits, a group is trained on once this many of its attempts are back; 0
    /// waits for all.
    pub group_min: u32,
    /// What becomes of the others.
    pub late: Late,
    /// An attempt that takes this many times the median is handed to a second node as well; 0 never.
    pub duplicate_after: f64,
    /// A task is handed out no more once this many nodes have died while they worked on it.
    pub quarantine_after: u32,
}

impl RolloutSection {
    /// What is done about the slowest attempts.
    #[must_use]
    pub fn stragglers(&self) -> Stragglers {
        let Self { group_min, late, duplicate_after, .. } = *self;
        Stragglers { group_min, late, duplicate_after }
    }
}

impl Default for RolloutSection {
    fn default() -> Self {
        Self {
            group_size: 8,
            groups_per_step: 8,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            concurrency: 16,
            staleness: Staleness::Bounded,
            staleness_max: 2,
            lease_s: 120.0,
            skip_equal_groups: true,
            on_loss: OnLoss::Resume,
            group_min: 0,
            late: Late::Drop,
            duplicate_after: 0.0,
            quarantine_after: 3,
        }
    }
}

/// How an engine generates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Prompt tokens computed in one step beside the sequences that decode.
    pub prefill_tokens_max: usize,
    /// Prompts of ended episodes kept for later ones.
    pub prefixes_max: usize,
    /// Keys and values of episodes under way when an adapter is swapped: `keep` or `recompute`.
    pub on_swap: String,
    /// Memory for keys and values at most.
    pub kv_mib_max: u64,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self { prefill_tokens_max: 512, prefixes_max: 4, on_swap: "keep".into(), kv_mib_max: 8_192 }
    }
}

/// Numbers for other people's tools.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySection {
    /// Address node 0 serves Prometheus's metrics at; node `i` of the configuration takes the port
    /// `i` higher. Empty serves none.
    pub prometheus: String,
    /// Write curves as TensorBoard event files into `RUN/tensorboard` while training.
    pub tensorboard: bool,
    /// Write curves as JSON lines into `RUN/metrics.jsonl` while training.
    pub jsonl: bool,
    /// Address of an OpenTelemetry collector (OTLP over HTTP) the coordinator sends traces of
    /// episodes and steps to. Empty sends none.
    pub otlp: String,
}

impl TelemetrySection {
    /// Where the `nth` node of a configuration serves metrics, if it does.
    #[must_use]
    pub fn prometheus_of(&self, nth: usize) -> Option<SocketAddr> {
        let first: SocketAddr = self.prometheus.parse().ok()?;
        let port = first.port().checked_add(u16::try_from(nth).ok()?)?;
        Some(SocketAddr::new(first.ip(), port))
    }
}

/// Policy-gradient objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the field's own names; see docs/ARCHITECTURE.md")]
pub enum Objective {
    Grpo,
    Bnpo,
    DrGrpo,
    Dapo,
    Gspo,
    Cispo,
}

/// Learning-rate schedule after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls to a tenth along a half cosine.
    Cosine,
}

/// Type of an adapter's numbers on its way to engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterDtype {
    /// As the learner has them.
    F32,
    /// Rounded to bfloat16, to the nearest and ties to even: half the bytes.
    Bf16,
}

/// How the policy is updated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnerSection {
    /// Objective.
    pub objective: Objective,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Schedule after warm-up, over `run.steps`.
    pub schedule: Schedule,
    /// AdamW's decay rate of the first moment.
    pub beta1: f64,
    /// AdamW's decay rate of the second moment.
    pub beta2: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Global gradient norm above which gradients are scaled down; 0 never clips.
    pub grad_norm_max: f64,
    /// Lower clip of the probability ratio.
    pub clip_low: f64,
    /// Upper clip of the probability ratio.
    pub clip_high: f64,
    /// Weight of the k3 estimate of KL to the reference (the adapter switched off); 0 computes none.
    pub kl_beta: f64,
    /// Cap of the per-token importance weight old / sampler; 0 applies none.
    pub importance_cap: f64,
    /// Passes over each batch.
    pub epochs: u32,
    /// Optimizer steps each pass is cut into.
    pub minibatches: u32,
    /// Tokens of one forward and backward pass.
    pub micro_batch_tokens: u32,
    /// Recompute activations layer by layer instead of keeping them.
    pub checkpoint_activations: bool,
    /// Checkpoints kept; one is written with every optimizer step.
    pub checkpoints_kept: u32,
    /// Type adapters travel in. Master weights, moments and checkpoints are f32 whatever it is; with
    /// `bf16` engines sample with weights off by up to 1/256 of each value.
    pub adapter_dtype: AdapterDtype,
}

impl Default for LearnerSection {
    fn default() -> Self {
        Self {
            objective: Objective::DrGrpo,
            learning_rate: 1e-4,
            warmup_steps: 5,
            schedule: Schedule::Constant,
            beta1: 0.9,
            beta2: 0.95,
            weight_decay: 0.0,
            grad_norm_max: 1.0,
            clip_low: 0.2,
            clip_high: 0.28,
            kl_beta: 0.0,
            importance_cap: 2.0,
            epochs: 1,
            minibatches: 1,
            micro_batch_tokens: 10_240,
            checkpoint_activations: false,
            checkpoints_kept: 3,
            adapter_dtype: AdapterDtype::F32,
        }
    }
}

/// The adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSection {
    /// Rank.
    pub rank: u32,
    /// Scale is alpha / rank.
    pub alpha: f64,
    /// Projections it is on: any of q k v o gate up down.
    pub targets: Vec<String>,
}

impl Default for LoraSection {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            targets: ["q", "k", "v", "o", "gate", "up", "down"].map(str::to_owned).to_vec(),
        }
    }
}

/// Hours a node's certificate is valid where nothing else is said.
pub const CERTIFICATE_HOURS: u32 = 24 * 7;

/// How nodes find and watch each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    /// Address the coordinator listens on (UDP). Port 0 takes a free one.
    pub listen: String,
    /// QUIC keep-alive.
    pub keep_alive_ms: u64,
    /// Silence after which a connection is given up.
    pub idle_timeout_ms: u64,
    /// Silence of the application after which a node counts as hung.
    pub heartbeat_timeout_ms: u64,
    /// Restarts of one node within `restart_window_s` before the host gives it up.
    pub restarts_max: u32,
    /// The window restarts are counted in.
    pub restart_window_s: f64,
    /// Wait before the first restart; doubles up to `backoff_max_ms`.
    pub backoff_min_ms: u64,
    /// Longest wait before a restart.
    pub backoff_max_ms: u64,
    /// Whether rollout nodes pass adapters on: `auto` (those on the parameter server's machine),
    /// `off`, or the address and port to do so at.
    pub relay: String,
    /// How fast a node sends weights and batches.
    pub bulk_mib_per_s: u64,
    /// Hours a node's certificate is valid. The running cluster renews it when a third is left; a
    /// node that was away for longer needs another token.
    pub certificate_hours: u32,
    /// Address or host name others reach this machine at, where it listens on every address; empty
    /// asks the machine that is started over ssh. A name is looked up by the others, at every dial.
    pub address: String,
    /// ssh's configuration file; empty takes ssh's own (`~/.ssh/config`).
    pub ssh_config: PathBuf,
    /// How long a node waits for room on a full disk before it ends, and the run with it; the run can
    /// be resumed. 0 ends at once.
    pub disk_wait_s: f64,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            keep_alive_ms: 500,
            idle_timeout_ms: 3_000,
            heartbeat_timeout_ms: 5_000,
            restarts_max: 5,
            restart_window_s: 60.0,
            backoff_min_ms: 200,
            backoff_max_ms: 5_000,
            relay: "auto".into(),
            bulk_mib_per_s: 1_024,
            certificate_hours: CERTIFICATE_HOURS,
            address: String::new(),
            ssh_config: PathBuf::new(),
            disk_wait_s: 60.0,
        }
    }
}

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Hands tasks out and keeps the ledger.
    Coordinator,
    /// Keeps the newest adapter and streams it.
    ParameterServer,
    /// Trains.
    Learner,
    /// Rolls episodes out.
    Rollout,
}

/// One process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique name; letters, digits and `-`.
    pub name: String,
    /// What it is for.
    pub roles: Vec<Role>,
    /// Threads its tensor work uses; 0 takes one for each core.
    #[serde(default = "one_thread")]
    pub threads: usize,
    /// Whether somebody else starts it, on this machine or another, from an invitation.
    #[serde(default, skip_serializing_if = "is_false")]
    pub external: bool,
    /// The machine it is started on over ssh, as ssh is told it: a name of ssh's configuration, or
    /// `user@machine`. None is this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Folder of the node there; `crrl/NAME` in the home folder if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The run's model there; the same path as here if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// The program that is copied there, a file of this machine; this very program if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<PathBuf>,
    /// Where its tensors live; as `model.device` if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The GPU it sees, by the driver's number; all of them, and the first is used, if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// Private memory its process may take, in MiB; a process that wants more ends, and is started
    /// again. 0 sets no bound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub memory_mib: u64,
    /// Address of its machine, and port, at which it passes adapters on to other rollout nodes; as
    /// `cluster.relay` if none is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
}

impl Node {
    /// Whether the host process of the run's machine starts it there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !self.external && self.host.is_none()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn one_thread() -> usize {
    1
}

impl ClusterConfig {
    /// The nodes of the run: those configured, or one coordinator with the parameter server, one
    /// learner and two rollout nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        if self.node.is_empty() { Self::default_nodes() } else { self.node.clone() }
    }

    /// Where the tensors of a node live.
    #[must_use]
    pub fn device_of<'a>(&'a self, node: &'a Node) -> &'a str {
        node.device.as_deref().unwrap_or(&self.model.device)
    }

    /// One coordinator with the parameter server, one learner, two rollout nodes.
    #[must_use]
    pub fn default_nodes() -> Vec<Node> {
        let node = |name: &str, roles: &[Role], threads| Node {
            name: name.into(),
            roles: roles.to_vec(),
            threads,
            ..Node::default()
        };
        vec![
            node("coordinator", &[Role::Coordinator, Role::ParameterServer], 1),
            node("learner", &[Role::Learner], 0),
            node("rollout-0", &[Role::Rollout], 1),
            node("rollout-1", &[Role::Rollout], 1),
        ]
    }
}
