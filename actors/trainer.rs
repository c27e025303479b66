//! The learner's thread: owns the model, trains, writes checkpoints. Everything it says goes to
//! the actor as a message; nothing waits for it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, mpsc};
use std::time::{Duration, Instant};

use crrl_cluster::{Row, WorkerThread};
use crrl_config::{ClusterConfig, Objective};
use crrl_learner::checkpoint::{Progress, tear_newest};
use crrl_learner::publish::Published;
use crrl_learner::{Checkpoints, Episode, Learner, LearnerError, Report, Stop, example};
use crrl_model::adapter::ADAPTER_BYTES_MAX;
use crrl_model::{FileDtype, peft};
use crrl_rl::advantage::{Scale, advantages};
use crrl_types::{AdapterVersion, Finish, GroupId, Step, Trajectory};
use nix::sys::signal::{Signal, raise};
use ractor::ActorRef;

use crate::chaos::Poison;
use crate::engine::panic_text;
use crate::learner::{Args, LearnerBoard, Msg, Stepped};
use crate::leave::Farewell;
use crate::node::RESTARTS_MAX;
use crate::settings;

/// Jobs that may wait: the actor gives one at a time, and one to pack again.
const JOBS_MAX: usize = 4;
/// Steps in a row that may change no weight. A batch now and then may be spoilt; a policy that has
/// diverged stays so, and a run must not count as complete that learnt nothing.
const UNCHANGED_STEPS_MAX: u32 = 10;
/// Lives of the actor in one process that may begin one step and come to no end. One more than are
/// started within the supervisor's window: a process whose lives are short is replaced first, and what ails
/// the device or its memory may be gone with it.
const LIVES_MAX: u32 = RESTARTS_MAX + 1;
/// How long a thread waits for the one before it to end: for a pass, or for a checkpoint to be written.
/// Past it the actor is started again, and waits again. So short that one that hangs is waited for more often
/// than a supervisor restarts within its window: only a fresh process is rid of it.
const TURN_WAIT: Duration = Duration::from_secs(5);
/// Time between two looks whether it has.
const TURN_LOOK: Duration = Duration::from_millis(10);

/// Why the thread ends.
#[derive(Debug, thiserror::Error)]
enum TrainError {
    /// What the learner says.
    #[error(transparent)]
    Learner(#[from] LearnerError),
    /// Nothing is learnt any more.
    #[error(
        "{steps} steps in a row changed no weight: a loss or gradient that is not finite left every \
         update out, or no episode of a batch could be trained on (the learner's log says which). The last \
         checkpoint holds the weights from before: resume with a lower learner.learning_rate, or start \
         a new run from an earlier checkpoint's adapter (model.adapter)"
    )]
    Stuck {
        /// How many.
        steps: u32,
    },
    /// The adapter could not be sent, or not be read back.
    #[error(
        "an adapter of {sent} bytes as it is sent, and {kept} as a checkpoint keeps it, is more than the \
         {most} that either may have: lower lora.rank or name fewer lora.targets; \
         learner.adapter_dtype = \"bf16\" halves what is sent, and nothing else"
    )]
    TooLarge {
        /// In the type it travels in.
        sent: u64,
        /// In f32.
        kept: u64,
        /// The limit.
        most: u64,
    },
    /// A step failed in life after life.
    #[error(
        "step {step} was begun {lives} times in a row, each time in another life of the learner, and came \
         to no end; the last time: {why}"
    )]
    Again {
        /// The step.
        step: Step,
        /// How often.
        lives: u32,
        /// Why it failed the last time.
        why: String,
    },
    /// The thread of the actor's life before goes on.
    #[error("the thread that trained before has not ended in {} s", TURN_WAIT.as_secs())]
    Taken,
}

impl TrainError {
    /// Whether starting again would come to the same.
    fn is_hopeless(&self) -> bool {
        match self {
            Self::Learner(error) => !error.may_pass(),
            Self::Stuck { .. } | Self::TooLarge { .. } | Self::Again { .. } => true,
            Self::Taken => false,
        }
    }
}

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

/// The way to whoever trains. Once this is dropped nothing more is asked of it, and what it is at is cut
/// short: its actor is gone, and another may have been started.
pub struct Trainer {
    give: Box<dyn Fn(Job) -> bool + Send + Sync>,
    stop: Stop,
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.stop.want();
    }
}

impl Trainer {
    /// Gives jobs through `give`, which says whether the job was taken. It must not block.
    pub fn new(give: impl Fn(Job) -> bool + Send + Sync + 'static) -> Self {
        Self { give: Box::new(give), stop: Stop::default() }
    }

    /// Starts the learner's thread; it waits for the one before it and loads the model first.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(args: &Args, actor: ActorRef<Msg>) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(JOBS_MAX);
        let (config, leave) = (args.config.clone(), args.leave.clone());
        let harm = Harm { poison: args.poison.clone(), torn: args.torn.clone() };
        let checkpoints =
            Checkpoints::new(args.run.checkpoints(), config.learner.checkpoints_kept as usize);
        let (board, given, turn) =
            (args.board.clone(), args.board.worker().clone(), args.board.turn());
        let (thread, stop) = (given.starting(), Stop::default());
        let heard = stop.clone();
        std::thread::Builder::new().name("learner".into()).spawn(move || {
            let work = || {
                thread.enter(Phase::Load as usize);
                let _turn = take_turn(&turn, &heard)?;
                let (config, checkpoints) = (&*config, &checkpoints);
                let desk = Desk { config, checkpoints, thread: &thread, board: &board };
                work(desk, &inbox, &actor, &harm, &heard)
            };
            let reason = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(Ok(()) | Err(TrainError::Learner(LearnerError::Stopped))) => {
                    return thread.stopped();
                }
                Ok(Err(error)) => {
                    leave.say_if_full(&error);
                    if error.is_hopeless() {
                        leave.say(Farewell::Hopeless(error.to_string()));
                    }
                    error.to_string()
                }
                Err(panic) => panic_text(&*panic),
            };
            thread.failed(&reason);
            // An actor that is gone needs no reason.
            let _ = actor.cast(Msg::Died(reason));
        })?;
        let mut trainer = Self::new(move |job| {
            given.sent();
            let is_taken = jobs.try_send(job).is_ok();
            if !is_taken {
                given.unsent();
            }
            is_taken
        });
        trainer.stop = stop;
        Ok(trainer)
    }

    /// Gives a job. A thread that has ended says so itself.
    pub(crate) fn give(&self, job: Job) {
        if !(self.give)(job) {
            tracing::warn!("the learner's thread takes no job; it is ending");
        }
    }
}

/// Waits until the thread before has ended: two models would be in memory, and two threads would write
/// one checkpoint.
fn take_turn<'a>(turn: &'a Mutex<()>, stop: &Stop) -> Result<MutexGuard<'a, ()>, TrainError> {
    let deadline = Instant::now() + TURN_WAIT;
    loop {
        match turn.try_lock() {
            Ok(taken) => return Ok(taken),
            // One that panicked has ended as well.
            Err(TryLockError::Poisoned(left)) => return Ok(left.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        LearnerError::stopped_by(stop)?;
        if Instant::now() >= deadline {
            return Err(TrainError::Taken);
        }
        std::thread::sleep(TURN_LOOK);
    }
}

/// What the thread works with.
#[derive(Clone, Copy)]
struct Desk<'a> {
    config: &'a ClusterConfig,
    checkpoints: &'a Checkpoints,
    thread: &'a WorkerThread,
    board: &'a LearnerBoard,
}

fn work(
    desk: Desk<'_>,
    jobs: &mpsc::Receiver<Job>,
    actor: &ActorRef<Msg>,
    harm: &Harm,
    stop: &Stop,
) -> Result<(), TrainError> {
    let Desk { config, checkpoints, thread, board } = desk;
    let mut learner =
        Learner::load(&config.model.path, &config.model.device, settings::learner(config))?;
    let watching = thread.clone();
    learner.tell_phases(move |part| watching.enter(Phase::from(part) as usize));
    learner.heed(stop.clone());
    let dtype = settings::adapter_dtype(config);
    fits(learner.adapter_bytes(dtype), learner.adapter_bytes(FileDtype::F32))?;
    let mut progress = resume(config, checkpoints, &mut learner)?;
    let mut unchanged = Unchanged::default();
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
                let (before, is_spoilt) = (learner.updates(), harm.poison.take());
                if is_spoilt {
                    learner.spoil_next_update();
                }
                let ahead = |adapter: &Published| {
                    // An actor that is gone is noticed at the end of the step.
                    let _ = actor.cast(Msg::Packed(Box::new(adapter.clone())));
                };
                let batch = (step, trajectories.as_slice());
                let make = || train(desk, stop, &mut learner, &mut progress, batch, ahead);
                let stepped = attempt(board, step, make)?;
                if harm.torn.take() {
                    tear(checkpoints);
                }
                // What is spoilt on purpose says nothing of the policy.
                if !is_spoilt {
                    unchanged.after(learner.updates() > before)?;
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

/// Refuses an adapter that could not be sent, or whose checkpoint could not be read back: a run would find
/// out at its first step, and offer it for ever.
fn fits(sent: u64, kept: u64) -> Result<(), TrainError> {
    let (sent_max, kept_max) =
        (crrl_transport::Options::default().blob_bytes_max, ADAPTER_BYTES_MAX as u64);
    if sent <= sent_max && kept <= kept_max {
        return Ok(());
    }
    Err(TrainError::TooLarge { sent, kept, most: sent_max.min(kept_max) })
}

/// Makes a step, unless too many lives of the actor have begun it and came to no end: an error may pass,
/// and so may a panic, but not for ever.
fn attempt<T>(
    board: &LearnerBoard,
    step: Step,
    make: impl FnOnce() -> Result<T, LearnerError>,
) -> Result<T, TrainError> {
    if board.begun(step) > LIVES_MAX {
        let why = board.worker().report().last_failure.unwrap_or_default();
        return Err(TrainError::Again { step, lives: LIVES_MAX, why });
    }
    let made = make();
    // One that was told to stop has not failed.
    if matches!(made, Ok(_) | Err(LearnerError::Stopped)) {
        board.ended();
    }
    Ok(made?)
}

/// Steps in a row that changed no weight.
#[derive(Debug, Default)]
struct Unchanged(u32);

impl Unchanged {
    /// A step was made.
    fn after(&mut self, has_changed: bool) -> Result<(), TrainError> {
        if has_changed {
            self.0 = 0;
            return Ok(());
        }
        self.0 += 1;
        let (steps, most) = (self.0, UNCHANGED_STEPS_MAX);
        tracing::warn!("step {steps} in a row that changed no weight; after {most} the run ends");
        if steps < most { Ok(()) } else { Err(TrainError::Stuck { steps }) }
    }
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

/// One step. `ahead` gets its adapter before the checkpoint is written. What of the batch cannot be trained
/// on is left out: the coordinator drops whatever is not consumed.
fn train(
    Desk { config, checkpoints, thread, .. }: Desk<'_>,
    stop: &Stop,
    learner: &mut Learner,
    progress: &mut Progress,
    (step, batch): (Step, &[Trajectory]),
    ahead: impl FnOnce(&Published),
) -> Result<Stepped, LearnerError> {
    let began = Instant::now();
    let (batch, left_out) = example::fit(batch, learner.model().vocab_size);
    for (episode, problem) in &left_out {
        tracing::warn!(%step, %episode, problem, "left out of its batch: it cannot be trained on");
    }
    let episodes = episodes(config, &batch, progress.version);
    let report =
        if episodes.is_empty() { Report::default() } else { learner.reinforce(&episodes)? };
    let metrics = report.named();
    progress.step = step.0;
    progress.version = progress.version.next();
    let consumed: Vec<_> = batch.iter().map(|trajectory| trajectory.episode).collect();
    progress.consumed.clone_from(&consumed);
    thread.enter(Phase::Pack as usize);
    // Packed first: values that are not finite must not be in the newest checkpoint either, or the
    // run could never be resumed.
    let adapter = learner.publish(progress.version, settings::adapter_dtype(config))?;
    ahead(&adapter);
    LearnerError::stopped_by(stop)?;
    thread.enter(Phase::Checkpoint as usize);
    checkpoints.save(learner, progress)?;
    metrics::histogram!(crrl_telemetry::names::STEP_TIME).record(began.elapsed());
    Ok(Stepped { step, consumed, metrics, adapter })
}

/// Trajectories with their advantages within their groups. One that the harness failed carries
/// none and is compared with nobody.
fn episodes(
    config: &ClusterConfig,
    trajectories: &[&Trajectory],
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
    use crrl_cluster::Backoff;
    use crrl_model::{Architecture, ModelConfig, RopeScaling};
    use crrl_types::{EpisodeId, Reward};

    use super::*;
    use crate::node::RESTART_WINDOW;

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
        let batch: Vec<&Trajectory> = batch.iter().collect();
        let mut config = ClusterConfig::default();
        config.learner.objective = Objective::DrGrpo;
        let mut advantages: Vec<(u64, f64)> = episodes(&config, &batch, AdapterVersion(0))
            .into_iter()
            .map(|episode| (episode.id.0, episode.advantage))
            .collect();
        advantages.sort_by_key(|(id, _)| *id);
        assert_eq!(advantages, [(1, 0.5), (2, 0.0), (3, -0.5), (4, 0.0), (5, 0.0)]);
    }

    /// A step of a tiny model on `batch`; `ahead` is called before its checkpoint is written.
    fn step(
        folder: &tempfile::TempDir,
        stop: &Stop,
        batch: &[Trajectory],
        ahead: impl FnOnce(),
    ) -> (Result<Stepped, LearnerError>, u64) {
        let model = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: 8,
            hidden_size: 16,
            intermediate_size: 32,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            head_dim: 8,
            max_positions: 64,
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::None,
            tied: true,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            bos: None,
            eos: vec![0],
        };
        let mut config = ClusterConfig::default();
        config.lora.rank = 2;
        let mut learner = Learner::random(&model, settings::learner(&config)).expect("a model");
        let board = LearnerBoard::default();
        let thread = board.worker().starting();
        let checkpoints = Checkpoints::new(folder.path(), 3);
        let (config, checkpoints) = (&config, &checkpoints);
        let desk = Desk { config, checkpoints, thread: &thread, board: &board };
        let mut progress = Progress::default();
        let batch = (Step(1), batch);
        let stepped = train(desk, stop, &mut learner, &mut progress, batch, |_| ahead());
        (stepped, learner.updates())
    }

    #[test]
    fn what_cannot_be_trained_on_is_left_out_and_the_rest_of_its_batch_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let foreign = |episode| Trajectory {
            tokens: vec![1, 8],
            ..trajectory(episode, 7, 1.0, Finish::Done)
        };
        let greedy = Trajectory { temperature: 0.0, ..trajectory(4, 7, 1.0, Finish::Done) };
        let batch = [
            trajectory(1, 7, 1.0, Finish::Done),
            foreign(2),
            trajectory(3, 7, 0.0, Finish::Done),
            greedy.clone(),
        ];
        let consumed = |batch: &[Trajectory]| {
            let (stepped, updates) = step(&folder, &Stop::default(), batch, || ());
            let stepped = stepped.expect("a step");
            assert!(stepped.metrics.iter().any(|(name, _)| name == "loss"), "{stepped:?}");
            let consumed: Vec<u64> = stepped.consumed.into_iter().map(|id| id.0).collect();
            (consumed, updates)
        };
        assert_eq!(consumed(&batch), (vec![1, 3], 1));
        assert_eq!(consumed(&[foreign(2), greedy]), (Vec::new(), 0), "nothing is left");
    }

    #[test]
    fn a_step_whose_actor_is_gone_writes_no_checkpoint() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let batch = [1, 2].map(|id| trajectory(id, 7, id as f64, Finish::Done));
        let stop = Stop::default();
        let (stepped, _) = step(&folder, &stop, &batch, || stop.want());
        assert!(matches!(stepped, Err(LearnerError::Stopped)), "{stepped:?}");
        assert!(!Checkpoints::new(folder.path(), 3).holds_any());
        let stop = Stop::default();
        let mut trainer = Trainer::new(|_| false);
        trainer.stop = stop.clone();
        assert!(!stop.is_wanted());
        drop(trainer);
        assert!(stop.is_wanted(), "its actor is gone");
    }

    #[test]
    fn a_thread_waits_for_the_one_before_it_unless_it_is_told_to_stop() {
        let (turn, stop) = (Mutex::new(()), Stop::default());
        let held = take_turn(&turn, &stop).expect("nobody has it");
        std::thread::scope(|threads| {
            let waits = threads.spawn(|| take_turn(&turn, &Stop::default()).map(drop));
            let gives_up = threads.spawn(|| take_turn(&turn, &stop).map(drop));
            stop.want();
            let ended = gives_up.join().expect("no panic");
            assert!(matches!(ended, Err(TrainError::Learner(LearnerError::Stopped))), "{ended:?}");
            assert!(!waits.is_finished(), "two at once");
            drop(held);
            waits.join().expect("no panic").expect("nobody has it");
        });
    }

    #[test]
    fn a_step_that_fails_in_every_life_of_a_process_ends_the_run_and_is_named() {
        let board = LearnerBoard::default();
        let begin = |step, make: &dyn Fn() -> Result<(), LearnerError>| {
            catch_unwind(AssertUnwindSafe(|| attempt(&board, Step(step), make)))
        };
        let reason = || "the device is lost".to_owned();
        let pass = || -> Result<(), LearnerError> {
            Err(LearnerError::Pass { tokens: 7, reason: reason() })
        };
        // Whoever is told to stop, or makes the step in the end, begins with nothing against it.
        for _ in 0..3 * LIVES_MAX {
            let stopped = begin(5, &|| Err(LearnerError::Stopped)).expect("no panic");
            assert!(!stopped.expect_err("it stopped").is_hopeless());
            begin(5, &|| Ok(())).expect("no panic").expect("a step");
        }
        for life in 0..LIVES_MAX {
            if life % 2 == 0 {
                let error = begin(5, &pass).expect("no panic").expect_err("it failed");
                assert!(!error.is_hopeless(), "a fresh process may mend it: {error}");
            } else {
                begin(5, &|| panic!("in between")).expect_err("it panicked");
            }
        }
        board.worker().starting().failed(&reason());
        let error = begin(5, &|| Ok(())).expect("no panic").expect_err("for ever");
        let text = error.to_string();
        assert!(error.is_hopeless() && text.contains("step 5 was begun 4 times"), "{text}");
        assert!(text.contains("the device is lost"), "{text}");
        begin(6, &|| Ok(())).expect("no panic").expect("another step");
    }

    #[test]
    fn a_thread_that_hangs_is_waited_for_more_often_than_a_window_allows() {
        let cluster = ClusterConfig::default().cluster;
        let ms = Duration::from_millis;
        let backoff = Backoff { min: ms(cluster.backoff_min_ms), max: ms(cluster.backoff_max_ms) };
        let took: Duration =
            (1..=RESTARTS_MAX).map(|failures| TURN_WAIT + backoff.wait(failures, 0.0)).sum();
        assert!(took < RESTART_WINDOW, "no process is ever replaced: {took:?}");
    }

    #[test]
    fn a_policy_that_changes_no_more_ends_the_run_and_a_spoilt_batch_does_not() {
        let mut unchanged = Unchanged::default();
        for _ in 0..2 {
            for _ in 1..UNCHANGED_STEPS_MAX {
                unchanged.after(false).expect("not yet");
            }
            unchanged.after(true).expect("it learns");
        }
        for _ in 1..UNCHANGED_STEPS_MAX {
            unchanged.after(false).expect("not yet");
        }
        let error = unchanged.after(false).expect_err("it learns nothing any more");
        assert!(error.is_hopeless() && error.to_string().contains("10 steps in a row"), "{error}");
    }

    #[test]
    fn an_adapter_that_could_not_be_sent_or_read_back_is_refused_with_what_to_set() {
        let most = 1 << 30;
        fits(most, most).expect("as large as may be");
        for (sent, kept) in [(most + 1, most + 1), (most / 2 + 1, most + 2)] {
            let error = fits(sent, kept).expect_err("too large");
            assert!(error.is_hopeless());
            let text = error.to_string();
            assert!(text.contains(&format!("{sent} bytes")), "{text}");
            for part in ["1073741824", "lora.rank", "learner.adapter_dtype"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}
