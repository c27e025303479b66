//! The learner's thread: owns the model, trains, writes checkpoints. Everything it says goes to
//! the actor as a message; nothing waits for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use crrl_cluster::WorkerThread;
use crrl_config::{ClusterConfig, Objective};
use crrl_learner::checkpoint::{Progress, tear_newest};
use crrl_learner::publish::Published;
use crrl_learner::{Checkpoints, Episode, Learner, LearnerError};
use crrl_model::peft;
use crrl_rl::advantage::{Scale, advantages};
use crrl_types::{AdapterVersion, Finish, GroupId, Step, Trajectory};
use nix::sys::signal::{Signal, raise};
use ractor::ActorRef;

use crate::chaos::Poison;
use crate::engine::panic_text;
use crate::learner::{Args, Msg, Stepped};
use crate::settings;

/// Jobs that may wait: the actor gives one at a time, and one to pack again.
const JOBS_MAX: usize = 4;

/// Names of what the thread does, by number.
pub const PHASES: [&str; 6] =
    ["load model", "score", "forward/backward", "optimizer step", "pack adapter", "checkpoint"];

/// What the thread does, for whoever watches it; numbered as [`PHASES`].
#[derive(Debug, Clone, Copy)]
enum Phase {
    Load,
    Score,
    Pass,
    Update,
    Pack,
    Checkpoint,
}

impl From<crrl_learner::Phase> for Phase {
    fn from(part: crrl_learner::Phase) -> Self {
        match part {
            crrl_learner::Phase::Score => Self::Score,
            crrl_learner::Phase::Pass => Self::Pass,
            crrl_learner::Phase::Update => Self::Update,
        }
    }
}

/// What the thread may be given.
#[derive(Debug)]
pub enum Job {
    /// One optimizer step.
    Train {
        /// The step.
        step: Step,
        /// Version of the weights it starts from.
        version: AdapterVersion,
        /// The batch, group by group.
        trajectories: Vec<Trajectory>,
    },
    /// Pack the adapter again under another version.
    Republish {
        /// The version.
        version: AdapterVersion,
    },
}

/// Starts whoever trains: it says [`Msg::Ready`], and answers every job with a message.
pub type StartTrainer = Arc<dyn Fn(&Args, ActorRef<Msg>) -> std::io::Result<Trainer> + Send + Sync>;

/// The way to whoever trains; nothing more is asked of it once this is dropped.
pub struct Trainer(Box<dyn Fn(Job) -> bool + Send + Sync>);

impl Trainer {
    /// Gives jobs through `give`, which says whether the job was taken. It must not block.
    pub fn new(give: impl Fn(Job) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(give))
    }

    /// Starts the learner's thread; it loads the model first.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(args: &Args, actor: ActorRef<Msg>) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(JOBS_MAX);
        let (config, leave) = (args.config.clone(), args.leave.clone());
        let harm = Harm { poison: args.poison.clone(), torn: args.torn.clone() };
        let checkpoints =
            Checkpoints::new(args.run.checkpoints(), config.learner.checkpoints_kept as usize);
        let given = args.board.worker().clone();
        let thread = given.starting();
        std::thread::Builder::new().name("learner".into()).spawn(move || {
            let work = || work(&config, &checkpoints, &inbox, &actor, &harm, &thread);
            let reason = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(())) => return thread.stopped(),
                Ok(Err(error)) => {
                    leave.say_if_full(&error);
                    error.to_string()
                }
                Err(panic) => panic_text(&*panic),
            };
            thread.failed(&reason);
            // An actor that is gone needs no reason.
            let _ = actor.cast(Msg::Died(reason));
        })?;
        Ok(Self::new(move |job| {
            given.sent();
            let is_taken = jobs.try_send(job).is_ok();
            if !is_taken {
                given.unsent();
            }
            is_taken
        }))
    }

    /// Gives a job. A thread that has ended says so itself.
    pub(crate) fn give(&self, job: Job) {
        if !(self.0)(job) {
            tracing::warn!("the learner's thread takes no job; it is ending");
        }
    }
}

fn work(
    config: &ClusterConfig,
    checkpoints: &Checkpoints,
    jobs: &mpsc::Receiver<Job>,
    actor: &ActorRef<Msg>,
    harm: &Harm,
    thread: &WorkerThread,
) -> Result<(), LearnerError> {
    thread.enter(Phase::Load as usize);
    let mut learner =
        Learner::load(&config.model.path, &config.model.device, settings::learner(config))?;
    let watching = thread.clone();
    learner.tell_phases(move |part| watching.enter(Phase::from(part) as usize));
    let mut progress = resume(config, checkpoints, &mut learner)?;
    let dtype = settings::adapter_dtype(config);
    let adapter = match progress.version {
        AdapterVersion(0) => None,
        version => Some(Box::new(learner.publish(version, dtype)?)),
    };
    let (step, version) = (Step(progress.step), progress.version);
    if actor.cast(Msg::Ready { step, version, adapter }).is_err() {
        return Ok(());
    }
    thread.idle();
    while let Ok(job) = jobs.recv() {
        thread.taken();
        let message = match job {
            Job::Train { step, version, trajectories } => {
                let _at_it = thread.work(Phase::Score as usize);
                progress.version = version;
                if harm.poison.take() {
                    learner.spoil_next_update();
                }
                let ahead = |adapter: &Published| {
                    // An actor that is gone is noticed at the end of the step.
                    let _ = actor.cast(Msg::Packed(Box::new(adapter.clone())));
                };
                let kept = (config, checkpoints, thread);
                let stepped = train(kept, &mut learner, &mut progress, step, &trajectories, ahead)?;
                if harm.torn.take() {
                    tear(checkpoints);
                }
                Msg::Stepped(Box::new(stepped))
            }
            Job::Republish { version } => {
                // No piece of work: it takes a moment, and would make a step seem to take too long.
                thread.enter(Phase::Pack as usize);
                progress.version = version;
                let adapter = learner.publish(version, dtype)?;
                thread.idle();
                Msg::Republished(Box::new(adapter))
            }
        };
        if actor.cast(message).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What is to go wrong on purpose.
struct Harm {
    /// Updates that are spoilt.
    poison: Poison,
    /// Checkpoints that are torn.
    torn: Poison,
}

/// Leaves half of the newest checkpoint and dies, as if the power had failed in between.
fn tear(checkpoints: &Checkpoints) {
    match tear_newest(checkpoints) {
        Ok(path) => {
            tracing::warn!(?path, "a torn checkpoint, on purpose");
            // Fails only for a signal that does not exist.
            let _ = raise(Signal::SIGKILL);
        }
        Err(error) => tracing::error!(%error, "no checkpoint was torn"),
    }
}

/// The newest checkpoint that is whole; without any, the configuration's adapter or a fresh one.
fn resume(
    config: &ClusterConfig,
    checkpoints: &Checkpoints,
    learner: &mut Learner,
) -> Result<Progress, LearnerError> {
    let found = checkpoints.newest()?;
    for damaged in &found.damaged {
        tracing::warn!("checkpoint left out: {damaged}");
    }
    if let Some(checkpoint) = found.checkpoint {
        let progress = checkpoint.restore(learner)?;
        tracing::info!(step = progress.step, version = %progress.version, "resumed");
        return Ok(progress);
    }
    let Some(adapter) = &config.model.adapter else { return Ok(Progress::default()) };
    learner.set_adapter(&peft::load(adapter)?)?;
    // Engines begin with the base model: the adapter has to reach them as a version of its own.
    Ok(Progress { version: AdapterVersion(1), ..Progress::default() })
}

/// One step. `ahead` gets its adapter before the checkpoint is written.
fn train(
    (config, checkpoints, thread): (&ClusterConfig, &Checkpoints, &WorkerThread),
    learner: &mut Learner,
    progress: &mut Progress,
    step: Step,
    trajectories: &[Trajectory],
    ahead: impl FnOnce(&Published),
) -> Result<Stepped, LearnerError> {
    let began = Instant::now();
    let episodes = episodes(config, trajectories, progress.version);
    let report = learner.reinforce(&episodes)?;
    let mut metrics = report.named();
    metrics.push(("tokens_per_s".into(), report.tokens_per_s()));
    progress.step = step.0;
    progress.version = progress.version.next();
    let consumed: Vec<_> = trajectories.iter().map(|trajectory| trajectory.episode).collect();
    progress.consumed.clone_from(&consumed);
    thread.enter(Phase::Pack as usize);
    // Packed first: values that are not finite must not be in the newest checkpoint either, or the
    // run could never be resumed.
    let adapter = learner.publish(progress.version, settings::adapter_dtype(config))?;
    ahead(&adapter);
    thread.enter(Phase::Checkpoint as usize);
    checkpoints.save(learner, progress)?;
    metrics::histogram!(crrl_telemetry::names::STEP_TIME).record(began.elapsed());
    Ok(Stepped { step, consumed, metrics, adapter })
}

/// Trajectories with their advantages within their groups. One that the harness failed carries
/// none and is compared with nobody.
fn episodes(
    config: &ClusterConfig,
    trajectories: &[Trajectory],
    version: AdapterVersion,
) -> Vec<Episode> {
    let scale = match config.learner.objective {
        Objective::DrGrpo => Scale::None,
        _ => Scale::Group,
    };
    let mut groups: BTreeMap<GroupId, Vec<&Trajectory>> = BTreeMap::new();
    for trajectory in trajectories {
        groups.entry(trajectory.group).or_default().push(trajectory);
    }
    let reward = |trajectory: &&Trajectory| {
        (trajectory.finish != Finish::Failed).then_some(trajectory.reward.total)
    };
    let rewards: Vec<Vec<Option<f64>>> =
        groups.values().map(|group| group.iter().map(reward).collect()).collect();
    let advantages = advantages(&rewards, scale);
    let pairs = groups.values().zip(&advantages);
    pairs
        .flat_map(|(group, advantage)| group.iter().zip(&advantage.values))
        .map(|(trajectory, advantage)| Episode::new(trajectory, *advantage, version))
        .collect()
}

#[cfg(test)]
mod tests {
    use crrl_types::{EpisodeId, Reward};

    use super::*;

    fn trajectory(episode: u64, group: u64, reward: f64, finish: Finish) -> Trajectory {
        Trajectory {
            episode: EpisodeId(episode),
            group: GroupId(group),
            task: "t".into(),
            node: "rollout-0".into(),
            tokens: vec![1, 2],
            generated: vec![false, true],
            logprobs: vec![0.0, -0.5],
            adapters: Vec::new(),
            turns: Vec::new(),
            finish,
            diff: String::new(),
            reward: Reward { total: reward, success: false, components: Vec::new() },
            temperature: 1.0,
            wall_ms: 1,
        }
    }

    #[test]
    fn attempts_are_compared_within_their_group_and_a_failed_one_with_nobody() {
        let batch = [
            trajectory(1, 7, 1.0, Finish::Done),
            trajectory(2, 8, 5.0, Finish::Done),
            trajectory(3, 7, 0.0, Finish::Done),
            trajectory(4, 8, 5.0, Finish::Done),
            trajectory(5, 7, 9.0, Finish::Failed),
        ];
        let mut config = ClusterConfig::default();
        config.learner.objective = Objective::DrGrpo;
        let mut advantages: Vec<(u64, f64)> = episodes(&config, &batch, AdapterVersion(0))
            .into_iter()
            .map(|episode| (episode.id.0, episode.advantage))
            .collect();
        advantages.sort_by_key(|(id, _)| *id);
        assert_eq!(advantages, [(1, 0.5), (2, 0.0), (3, -0.5), (4, 0.0), (5, 0.0)]);
    }
}
