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
use crrl_telemetry::names;
use crrl_types::{
    EpisodeId, Finish, GroupId, JournalEntry, NodeName, Reward, Sampling, Task, Trajectory, Work,
};
use metrics::{counter, histogram};
use tokio::time::{Instant, timeout, timeout_at};

use crate::bombs::Bombs;
use crate::engine::{EngineHandle, EngineSequence, GenerateError};
use crate::live::{Live, LiveEntry};
use crate::sandboxes::{Changed, Lease, LeaseError, Sandboxes};
use crate::slow_tools::SlowTools;
use crate::stopwatch::Stopwatch;

/// Time the diff may take after the episode's own time is up.
const DIFF_TIME_MAX: Duration = Duration::from_secs(10);
/// Time one sandbox may take to open, its template included.
const LEASE_TIME_MAX: Duration = Duration::from_secs(60);

/// Time a tool call may take that is made once more; commands have limits of their own.
const CALL_AGAIN_TIME_MAX: Duration = Duration::from_secs(60);

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
    /// Going on with what another node began came out otherwise.
    #[error("it cannot be gone on with: {0}")]
    Past(String),
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
    slow: SlowTools,
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
        let (live, bombs, slow) = Default::default();
        Ok(Self { engine, sandboxes, codec, options, reward, node, live, bombs, slow })
    }

    /// Also runs in sandboxes what is meant to do harm, as it comes.
    #[must_use]
    pub fn with_bombs(mut self, bombs: Bombs) -> Self {
        self.bombs = bombs;
        self
    }

    /// Also has tool calls take longer, as it comes.
    #[must_use]
    pub fn with_slow_tools(mut self, slow: SlowTools) -> Self {
        self.slow = slow;
        self
    }

    /// What the episodes under way are doing.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The pool of their sandboxes.
    #[must_use]
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
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
        self.go_on(attempt, Vec::new(), |_| (), &Stopwatch::start()).await
    }

    /// The same, from where another node left off: what `past` tells is not generated again, and its
    /// tool calls are made once more, so that the sandbox is as it was. Before each turn of the
    /// policy `turns` is told what has happened since the last; `watch` measures.
    ///
    /// # Errors
    /// As [`Self::repair`]; [`RepairError::Past`] if the sandbox came out otherwise.
    pub async fn go_on(
        &self,
        attempt: Attempt,
        past: Vec<JournalEntry>,
        turns: impl Fn(Vec<JournalEntry>) + Send,
        watch: &Stopwatch,
    ) -> Result<Trajectory, RepairError> {
        let started = watch.began();
        let Attempt { episode: id, group, task, sampling, time_max } = attempt;
        let live = self.live.enter(id, group, task.instance_id.clone());
        let mut episode =
            Episode::new(Arc::clone(&self.codec), self.options.clone(), &task.problem_statement)?;
        let (mut sandbox, mut sequence) = self.places(&task, &live).await?;
        live.preparing("starting");
        histogram!(names::PLACES_TIME).record(started.elapsed());
        watch.did(0, started, Work::Places);

        // The clock starts when the places are there: waiting for them is not the policy's time.
        let time = time_max.map_or(self.options.time_max, |max| max.min(self.options.time_max));
        let deadline = Instant::now() + time;
        if let Some(bomb) = self.bombs.take() {
            bomb.set_off(&mut sandbox, deadline).await;
        }
        let mut input = Input::Start;
        let (mut turn, replaying, replayed) = (0, Instant::now(), past.len());
        let mut past = past.into_iter();
        let mut news = Vec::new();
        // The sequence knows nothing yet of what the transcript holds.
        let mut fresh = true;
        let record = loop {
            let action = episode.step(input);
            turn += u32::from(matches!(action, Action::Generate { .. }));
            if let Some(entry) = past.next() {
                input = again(&action, entry, &mut sandbox, &live).await?;
                if past.len() == 0 {
                    let entries = u32::try_from(replayed).unwrap_or(u32::MAX);
                    watch.did(0, replaying, Work::Replay { entries });
                }
                continue;
            }
            let since = Instant::now();
            let context = u32::try_from(episode.tokens().len()).unwrap_or(u32::MAX);
            let tool = called(&action);
            input = match action {
                Action::Generate { append, max_tokens } => {
                    live.thinking();
                    if !news.is_empty() {
                        turns(std::mem::take(&mut news));
                    }
                    let append = if fresh { episode.tokens().to_vec() } else { append };
                    fresh = false;
                    let max_tokens = max_tokens.min(sampling.max_tokens);
                    let sampling = Sampling { max_tokens, ..sampling.clone() };
                    generate(&mut sequence, append, sampling, deadline).await?
                }
                Action::Call(invocation) => {
                    let late = self.slow.next(since.into_std());
                    call(&mut sandbox, &invocation, late, &live, deadline).await
                }
                Action::CollectDiff => collect(&mut sandbox).await,
                Action::Finish(record) => break *record,
            };
            if let Some(work) = done(&input, context, tool) {
                watch.did(turn, since, work);
            }
            news.extend(input.journal_entry());
        };
        drop(sequence);
        sandbox.close().await;
        if record.finish == Finish::Failed {
            return Err(RepairError::Episode(record.failure));
        }
        let scoring = Instant::now();
        let reward = self.reward(&task, &record).await?;
        watch.did(0, scoring, Work::Reward);
        let EpisodeRecord { tokens, generated, logprobs, adapters, turns, finish, diff, .. } =
            record;
        histogram!(names::EPISODE_TIME).record(started.elapsed());
        histogram!(names::TURNS).record(turns.len() as f64);
        let sampled = generated.iter().filter(|drawn| **drawn).count();
        counter!(names::TOKENS).increment(sampled as u64);
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
    async fn places(
        &self,
        task: &Task,
        live: &LiveEntry,
    ) -> Result<(Lease, EngineSequence), RepairError> {
        let refused = |source| RepairError::Sandbox { task: task.instance_id.to_string(), source };
        let lease = async { self.sandbox(task, live).await.map_err(refused) };
        let sequence = async { self.engine.open().await.map_err(RepairError::from) };
        let places = async { tokio::try_join!(lease, sequence) };
        let late = |_| Err(refused(LeaseError::Timeout(LEASE_TIME_MAX)));
        timeout(LEASE_TIME_MAX, places).await.unwrap_or_else(late)
    }

    /// A sandbox with the task's base. Watchers are told what is waited for meanwhile; the place in the
    /// engine, which is asked for at the same time, only where it is all that is missing.
    async fn sandbox(&self, task: &Task, live: &LiveEntry) -> Result<Lease, LeaseError> {
        let (open, max) = (self.sandboxes.open(), self.sandboxes.open_max());
        live.preparing(&format!("waiting for a sandbox, {open} of {max} taken"));
        let place = self.sandboxes.place(live.episode()).await?;
        live.preparing("opening a sandbox");
        let lease = self.sandboxes.lease(place, task).await?;
        live.preparing("waiting for a place in the engine");
        Ok(lease)
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

/// The tool an action calls.
fn called(action: &Action) -> &'static str {
    match action {
        Action::Call(invocation) => invocation.tool(),
        _ => "",
    }
}

/// The piece of work that an input ends.
fn done(input: &Input, context: u32, tool: &str) -> Option<Work> {
    Some(match input {
        Input::Generated { tokens, .. } => Work::Generate {
            context,
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            version: tokens.last().map(|token| token.version).unwrap_or_default(),
        },
        Input::ToolResult(outcome) => Work::Call { tool: tool.to_owned(), ok: outcome.ok },
        Input::Diff(_) | Input::TooMuch(_) => Work::Diff,
        // What was under way when the time was up still took it.
        Input::DeadlinePassed if !tool.is_empty() => {
            Work::Call { tool: tool.to_owned(), ok: false }
        }
        Input::DeadlinePassed => Work::Generate { context, tokens: 0, version: Default::default() },
        Input::Start | Input::Broken(_) => return None,
    })
}

/// What another node has seen happen, here once more.
async fn again(
    action: &Action,
    entry: JournalEntry,
    sandbox: &mut Lease,
    live: &LiveEntry,
) -> Result<Input, RepairError> {
    match (action, &entry) {
        (Action::Generate { .. }, JournalEntry::Generated { .. }) => live.thinking(),
        (Action::Call(invocation), JournalEntry::Tool { ok, .. }) => {
            live.calling(invocation);
            let ran = timeout(CALL_AGAIN_TIME_MAX, sandbox.run(invocation)).await;
            let ran =
                ran.map_err(|_| RepairError::Past("a tool call takes too long".to_owned()))?;
            let (_, now) = ran.map_err(|error| RepairError::Past(error.to_string()))?;
            if now != *ok {
                let name = |ok| if ok { "succeeded" } else { "failed" };
                let (there, here) = (name(*ok), name(now));
                let what = format!("a tool call {there} there and {here} here");
                return Err(RepairError::Past(what));
            }
        }
        (Action::CollectDiff, JournalEntry::Diff(_)) => {}
        _ => return Err(RepairError::Past("its journal is of another scaffold".to_owned())),
    }
    Ok(entry.into())
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
    Ok(Input::Generated { tokens: generated.tokens, stop: generated.stop })
}

async fn call(
    sandbox: &mut Lease,
    invocation: &Invocation,
    late: Duration,
    live: &LiveEntry,
    deadline: Instant,
) -> Input {
    live.calling(invocation);
    let started = Instant::now();
    let run = async {
        // A timer takes a millisecond even for nothing.
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        sandbox.run(invocation).await
    };
    let ran = timeout_at(deadline, run).await;
    let tool = invocation.tool();
    histogram!(names::TOOL_TIME, "tool" => tool).record(started.elapsed());
    let ok = matches!(ran, Ok(Ok((_, true)))).to_string();
    counter!(names::TOOL_CALLS, "tool" => tool, "ok" => ok).increment(1);
    match ran {
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
        Ok(Ok(Changed::Diff(diff))) => Input::Diff(diff),
        Ok(Ok(Changed::TooMuch(why))) => Input::TooMuch(why),
        Ok(Err(error)) => Input::Broken(error.to_string()),
        Err(_) => Input::Broken(format!("the diff took longer than {DIFF_TIME_MAX:?}")),
    }
}
