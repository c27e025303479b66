//! What an episode leaves behind, in tokens.
//!
//! Sampled ids are never turned into text and back: the learner trains on exactly what the engine
//! drew. Every sampled token carries its log-probability and the adapter it was drawn under.

use serde::{Deserialize, Serialize};

use crate::id::{AdapterVersion, Digest, EpisodeId, GroupId, NodeName, TaskId};
use crate::reward::Reward;

/// One finished episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trajectory {
    /// This attempt.
    pub episode: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What was to be repaired.
    pub task: TaskId,
    /// Node that rolled it out.
    pub node: NodeName,
    /// Every token of the transcript, prompt first. `[len]`
    pub tokens: Vec<u32>,
    /// Whether the policy generated the token. `[len]`
    pub generated: Vec<bool>,
    /// Log-probability under the sampler, at temperature 1 scaling of the logits by the sampling
    /// temperature; 0.0 where not generated. `[len]`
    pub logprobs: Vec<f32>,
    /// Which adapter drew which tokens, in order, covering the generated tokens only.
    pub adapters: Vec<TokenSpan>,
    /// The turns, for people and for the inspector.
    pub turns: Vec<Turn>,
    /// How it ended.
    pub finish: Finish,
    /// Canonical diff of what the agent changed; where that is too much, a line that says so.
    pub diff: String,
    /// What it earned.
    pub reward: Reward,
    /// Sampling temperature of its tokens.
    pub temperature: f32,
    /// Wall time from start to end.
    pub wall_ms: u64,
}

impl Trajectory {
    /// The oldest adapter any token was drawn under; `None` if nothing was generated.
    #[must_use]
    pub fn oldest_version(&self) -> Option<AdapterVersion> {
        self.adapters.iter().map(|span| span.version).min()
    }

    /// Number of tokens the policy generated.
    #[must_use]
    pub fn generated_len(&self) -> usize {
        self.generated.iter().filter(|g| **g).count()
    }
}

/// A run of generated tokens drawn under one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSpan {
    /// Index into the transcript of the first token.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// Adapter version.
    pub version: AdapterVersion,
    /// Adapter digest, as activated by the engine.
    pub digest: Digest,
}

/// One turn: what the policy said, and what its tools answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What the policy wrote, decoded.
    pub text: String,
    /// Tokens it took.
    pub tokens: u32,
    /// Calls it made, in order.
    pub tools: Vec<ToolRecord>,
}

/// One tool call and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolRecord {
    /// Tool's name as the policy wrote it (empty where the call could not be parsed).
    pub name: String,
    /// Arguments as JSON text.
    pub arguments: String,
    /// What the policy was shown.
    pub output: String,
    /// Whether the call did what it was meant to.
    pub ok: bool,
    /// Wall time of the call.
    pub wall_ms: u64,
}

/// How an episode ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The agent said it was done.
    Done,
    /// It used up its calls.
    CallLimit,
    /// It used up its tokens.
    TokenLimit,
    /// It used up its time.
    TimeLimit,
    /// The harness failed, not the agent; the episode is not trained on.
    Failed,
}
