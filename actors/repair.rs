//! One episode, from a task to a trajectory with its reward.
//!
//! Carries out what [`crrl_agent::Episode`] decides: generation in the engine, tool calls in a
//! sandbox, the diff at the end. Works with or without a cluster: rollout nodes and `crrl eval`
//! call the same function. Never keeps anything between episodes.

use std::sync::Arc;
use std::time::Duration;

use crrl_agent::{Action, ChatCodec, Episode, EpisodeRecord, Input, Invocation, ToolOutcome};
use crrl_rl::overlong;
use crrl_rl::reward::{self, RewardOptions};
use crrl_types::{EpisodeId, Finish, GroupId, NodeName, Reward, Sampling, Task, Trajectory};
use tokio::time::{Instant, timeout, timeout_at};

use crate::bombs::Bombs;
use crate::engine::{EngineHandle, EngineSequence, GenerateError};
use crate::live::{Live, LiveEntry};
use crate::sandboxes::{Lease, LeaseError, Sandboxes};

/// Time the diff may take after the episode's own time is up.
const DIFF_TIME_MAX: Duration = Duration::from_secs(10);
/// Time one sandbox may take to open, its template included.
const LEASE_TIME_MAX: Duration = Duration::from_secs(60);

/// The overlong penalty begins in the last fifth of the tokens, as DAPO's does (4,096 of 20,480).
const OVERLONG_SHARE: u32 = 5;

/// An episode that could not be carried out. The policy is never at fault here.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The scaffold's options.
    #[error(transparent)]
    Options(#[from] crrl_agent::InvalidOptions),
    /// No sandbox.
    #[error("task {task}: {source}")]
    Sandbox {
        /// The task.
        task: String,
        /// What happened.
        source: LeaseError,
    },
    /// No sequence, or the engine is gone.
    #[error(transparent)]
    Engine(#[from] GenerateError),
    /// The scaffold gave up.
    #[error("{0}")]
    Episode(String),
    /// The reward could not be computed.
    #[error(transparent)]
    Reward(#[from] reward::ScoreError),
    /// A fault of ours.
    #[error("the reward's computation panicked: {0}")]
    RewardPanic(String),
}

/// One attempt at one task.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its number.
    pub episode: EpisodeId,
    /// The attempts it is compared with.
    pub group: GroupId,
    /// What is to be repaired.
    pub task: Task,
    /// How to sample; `max_tokens` bounds a turn beside the scaffold's own limit.
    pub sampling: Sampling,
    /// Wall time, where it is less than the scaffold's.
    pub time_max: Option<Duration>,
}

/// What episodes need. Cheap to clone.
#[derive(Clone)]
pub struct Repairer {
    engine: EngineHandle,
    sandboxes: Sandboxes,
    codec: Arc<dyn ChatCodec>,
    options: crrl_agent::Options,
    reward: RewardOptions,
    node: NodeName,
    live: Live,
    bombs: Bombs,
}

impl Repairer {
    /// `options.tokens_max` is lowered to the engine's context where that is shorter.
    ///
    /// # Errors
    /// When the scaffold's options make no sense.
    pub fn new(
        engine: EngineHandle,
        sandboxes: Sandboxes,
        codec: Arc<dyn ChatCodec>,
        mut options: crrl_agent::Options,
        reward: RewardOptions,
        node: NodeName,
    ) -> Result<Self, RepairError> {
        let context = u32::try_from(engine.context()).unwrap_or(u32::MAX);
        options.tokens_max = options.tokens_max.min(context);
        options.validate()?;
        let (live, bombs) = (Live::default(), Bombs::default());
        Ok(Self { engine, sandboxes, codec, options, reward, node, live, bombs })
    }

    /// Also runs in sandboxes what is meant to do harm, as it comes.
    #[must_use]
    pub fn with_bombs(mut self, bombs: Bombs) -> Self {
        self.bombs = bombs;
        self
    }

    /// What the episodes under way are doing.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The engine the episodes sample from.
    #[must_use]
    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    /// Rolls one episode out. Dropping the future abandons it: its sequence and sandbox are
    /// closed.
    ///
    /// # Errors
    /// When something of ours failed; the episode is then not to be trained on.
    pub async fn repair(&self, attempt: Attempt) -> Result<Trajectory, RepairError> {
        let started = Instant::now();
        let Attempt { episode: id, group, task, sampling, time_max } = attempt;
        let live = self.live.enter(id, group, task.instance_id.clone());
        let mut episode =
            Episode::new(Arc::clone(&self.codec), self.options.clone(), &task.problem_statement)?;
        let (mut sandbox, mut sequence) = self.places(&task).await?;

        // The clock starts when the places are there: waiting for them is not the policy's time.
        let time = time_max.map_or(self.options.time_max, |max| max.min(self.options.time_max));
        let deadline = Instant::now() + time;
        if let Some(bomb) = self.bombs.take() {
            bomb.set_off(&mut sandbox, deadline).await;
        }
        let mut input = Input::Start;
        let record = loop {
            input = match episode.step(input) {
                Action::Generate { append, max_tokens } => {
                    live.thinking();
                    let max_tokens = max_tokens.min(sampling.max_tokens);
                    let sampling = Sampling { max_tokens, ..sampling.clone() };
                    generate(&mut sequence, append, sampling, deadline).await?
                }
                Action::Call(invocation) => call(&mut sandbox, &invocation, &live, deadline).await,
                Action::CollectDiff => collect(&mut sandbox).await,
                Action::Finish(record) => break *record,
            };
        };
        drop(sequence);
        sandbox.close().await;
        if record.finish == Finish::Failed {
            return Err(RepairError::Episode(record.failure));
        }
        let reward = self.reward(&task, &record).await?;
        let EpisodeRecord { tokens, generated, logprobs, adapters, turns, finish, diff, .. } =
            record;
        Ok(Trajectory {
            episode: id,
            group,
            task: task.instance_id,
            node: self.node.clone(),
            tokens,
            generated,
            logprobs,
            adapters,
            turns,
            finish,
            diff,
            reward,
            temperature: sampling.temperature,
            wall_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// A sandbox with the task's base, and a sequence.
    async fn places(&self, task: &Task) -> Result<(Lease, EngineSequence), RepairError> {
        let refused = |source| RepairError::Sandbox { task: task.instance_id.to_string(), source };
        let lease = async { self.sandboxes.lease(task).await.map_err(refused) };
        let sequence = async { self.engine.open().await.map_err(RepairError::from) };
        let places = async { tokio::try_join!(lease, sequence) };
        let late = |_| Err(refused(LeaseError::Timeout(LEASE_TIME_MAX)));
        timeout(LEASE_TIME_MAX, places).await.unwrap_or_else(late)
    }

    /// Similarity takes time quadratic in the patch: off the async threads.
    async fn reward(&self, task: &Task, record: &EpisodeRecord) -> Result<Reward, RepairError> {
        let (gold, diff) = (task.patch.clone(), record.diff.clone());
        let conduct = conduct(record, self.options.tokens_max);
        let options = self.reward;
        let scored =
            tokio::task::spawn_blocking(move || reward::score(&gold, &diff, &options, &conduct));
        match scored.await {
            Ok(reward) => Ok(reward?),
            Err(panic) => Err(RepairError::RewardPanic(panic.to_string())),
        }
    }
}

/// Shares of what the policy did, for rewards that are shaped with them.
fn conduct(record: &EpisodeRecord, tokens_max: u32) -> reward::Conduct {
    let counts = record.conduct;
    let share = |part: u32, whole: u32| {
        if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
    };
    let tokens = u32::try_from(record.tokens.len()).unwrap_or(u32::MAX);
    reward::Conduct {
        edit: share(counts.edits_ok, counts.edits),
        malformed: share(counts.malformed, counts.calls),
        overlong: overlong::penalty(tokens, tokens_max, tokens_max / OVERLONG_SHARE),
    }
}

async fn generate(
    sequence: &mut EngineSequence,
    append: Vec<u32>,
    sampling: Sampling,
    deadline: Instant,
) -> Result<Input, RepairError> {
    let Ok(result) = timeout_at(deadline, sequence.generate(append, sampling)).await else {
        return Ok(Input::DeadlinePassed);
    };
    let generated = result?;
    let tokens = generated.tokens.iter().map(|token| crrl_agent::Sampled {
        id: token.id,
        logprob: token.logprob,
        version: token.version,
        digest: token.digest,
    });
    let stop = match generated.stop {
        crrl_engine::Stop::EndOfTurn => crrl_agent::Stop::EndOfTurn,
        crrl_engine::Stop::Text => crrl_agent::Stop::Text,
        crrl_engine::Stop::Length => crrl_agent::Stop::Length,
    };
    Ok(Input::Generated { tokens: tokens.collect(), stop })
}

async fn call(
    sandbox: &mut Lease,
    invocation: &Invocation,
    live: &LiveEntry,
    deadline: Instant,
) -> Input {
    live.calling(invocation);
    let started = Instant::now();
    match timeout_at(deadline, sandbox.run(invocation)).await {
        Err(_) => Input::DeadlinePassed,
        Ok(Err(reason)) => Input::Broken(reason.to_string()),
        Ok(Ok((output, ok))) => {
            let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Input::ToolResult(ToolOutcome { output, ok, wall_ms })
        }
    }
}

async fn collect(sandbox: &mut Lease) -> Input {
    match timeout(DIFF_TIME_MAX, sandbox.diff()).await {
        Ok(Ok(diff)) => Input::Diff(diff),
        Ok(Err(error)) => Input::Broken(error.to_string()),
        Err(_) => Input::Broken(format!("the diff took longer than {DIFF_TIME_MAX:?}")),
    }
}
