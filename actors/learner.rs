//! The actor of the learner: asks for batches, has them trained on by a thread of its own, and
//! publishes what came of it. The adapter goes to the parameter server as a draft while its
//! checkpoint is written. A step is committed in this order: checkpoint on disk, adapter published
//! by the parameter server, coordinator told.
//!
//! Restart row: permanent. A new one loads the newest checkpoint that is whole and asks for the
//! step after it; the coordinator sends the very same batch again where that step was lost. What would fail
//! again however often it is started ends the run with its reason.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crrl_cluster::{Inbound, MeshEvent, RunDir, Worker};
use crrl_config::ClusterConfig;
use crrl_control::wire::{BatchRequest, NodeRole, StepMetrics, Wire};
use crrl_learner::publish::Published;
use crrl_types::{AdapterVersion, Digest, EpisodeId, Step, Trajectory};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use serde_json::{Value, json};

use crate::chaos::Poison;
use crate::leave::Leave;
use crate::rollout::Outbox;
use crate::trainer::{self, Job, StartTrainer, Trainer};

/// Time between two looks at what has not been answered.
const TICK: Duration = Duration::from_millis(250);
/// A request or an offer that is not answered by then is sent again.
const RETRY: Duration = Duration::from_secs(2);

/// Whether a message is for this actor.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(wire, Wire::Batch { .. } | Wire::Published { .. } | Wire::AdapterRefused { .. })
}

/// What the actor is started with.
pub struct Args {
    /// The folder of the run.
    pub run: RunDir,
    /// Its configuration.
    pub config: Arc<ClusterConfig>,
    /// The way out.
    pub outbox: Outbox,
    /// Where it says what it does.
    pub board: LearnerBoard,
    /// Updates that are to be spoilt on purpose.
    pub poison: Poison,
    /// Checkpoints that are to be torn on purpose.
    pub torn: Poison,
    /// Told where its disk is full, or where starting again would not help.
    pub leave: Leave,
    /// Who trains.
    pub trainer: StartTrainer,
}

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// From a peer whose role allows it.
    Inbound(Box<Inbound>),
    /// A peer came or went.
    Peer(MeshEvent),
    /// The thread is ready: its last durable step, and its adapter where there is one to publish.
    Ready {
        /// Last durable step.
        step: Step,
        /// Version of its adapter.
        version: AdapterVersion,
        /// Its adapter; `None` at version 0.
        adapter: Option<Box<Published>>,
    },
    /// A step was computed; its checkpoint is being written.
    Packed(Box<Published>),
    /// A step is durable.
    Stepped(Box<Stepped>),
    /// The thread packed the adapter under another version.
    Republished(Box<Published>),
    /// The thread has ended, and why.
    Died(String),
    /// Time has passed.
    Tick,
}

impl ractor::Message for Msg {}

/// A durable optimizer step.
#[derive(Debug)]
pub struct Stepped {
    /// The step.
    pub step: Step,
    /// The episodes it consumed.
    pub consumed: Vec<EpisodeId>,
    /// Numbers of it.
    pub metrics: StepMetrics,
    /// The adapter after it.
    pub adapter: Published,
}

/// What the learner is doing, for reports.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whether the model is loaded.
    pub ready: bool,
    /// Version it trains.
    pub version: AdapterVersion,
    /// Digest of that.
    pub digest: Digest,
    /// Tokens trained on per second, in the last step.
    pub tokens_per_s: f32,
    /// In a few words.
    pub doing: String,
}

/// Where the learner and its thread say what they do. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LearnerBoard {
    seen: Arc<Mutex<Seen>>,
    worker: Worker,
    /// Held by the thread that trains, so that there is one however often the actor is started.
    turn: Arc<Mutex<()>>,
    /// The step that was begun last and has not ended, and how often in a row.
    begun: Arc<Mutex<(Step, u32)>>,
}

impl Default for LearnerBoard {
    fn default() -> Self {
        let worker = Worker::new("trainer", "TrainerThread", "learner", &trainer::PHASES);
        Self { seen: Arc::default(), worker, turn: Arc::default(), begun: Arc::default() }
    }
}

impl LearnerBoard {
    /// A copy of what it said last.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The thread that trains, to be watched.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// What the thread that trains holds until it ends.
    pub(crate) fn turn(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.turn)
    }

    /// A step is begun: how often in a row it was, in this life of the actor and those before, and came to
    /// no end.
    pub(crate) fn begun(&self, step: Step) -> u32 {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let times = if begun.0 == step { begun.1.saturating_add(1) } else { 1 };
        *begun = (step, times);
        times
    }

    /// The step that was begun last is done, or was given up because somebody wanted that.
    pub(crate) fn ended(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = (Step(0), 0);
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The learner's actor.
pub struct LearnerActor;

/// Where it stands between two batches.
enum Stage {
    /// The model is being loaded.
    Loading,
    /// Waits for the batch of the step after the last.
    Wanting { asked: Option<Instant> },
    /// The thread trains.
    Training,
    /// Waits for the parameter server to take an adapter; then `told` goes to the coordinator.
    Publishing { adapter: Box<Published>, told: Option<Box<Wire>>, offered: Option<Instant> },
}

/// What it knows.
pub struct State {
    args: Args,
    trainer: Trainer,
    stage: Stage,
    step: Step,
    version: AdapterVersion,
    /// What the parameter server was given while its checkpoint was written.
    draft: Option<(AdapterVersion, Digest)>,
    /// What the parameter server took last: offered again if it finds it damaged on its disk.
    kept: Option<Box<Published>>,
}

impl Actor for LearnerActor {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        args.board.say(|seen| "loading the model".clone_into(&mut seen.doing));
        let trainer = (args.trainer)(&args, myself.clone())?;
        myself.send_interval(TICK, || Msg::Tick);
        let (step, version) = (Step(0), AdapterVersion(0));
        let (stage, draft, kept) = (Stage::Loading, None, None);
        Ok(State { args, trainer, stage, step, version, draft, kept })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Inbound(inbound) => state.inbound(*inbound),
            Msg::Peer(MeshEvent::PeerUp { .. }) => state.again(),
            Msg::Peer(MeshEvent::PeerDown { .. }) => {}
            Msg::Ready { step, version, adapter } => state.ready(step, version, adapter),
            Msg::Packed(adapter) => state.packed(*adapter),
            Msg::Stepped(stepped) => state.stepped(*stepped),
            Msg::Republished(adapter) => state.republished(adapter),
            Msg::Died(reason) => return Err(reason.into()),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }
}

impl State {
    /// What it shows of itself to whoever asks: counts, versions and ages.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        let ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let stage = match &self.stage {
            Stage::Loading => json!({ "name": "loading the model" }),
            Stage::Wanting { asked } => {
                json!({ "name": "waiting for a batch", "asked_ms_ago": asked.map(ms) })
            }
            Stage::Training => json!({ "name": "training" }),
            Stage::Publishing { adapter, told, offered } => json!({
                "name": "publishing",
                "version": adapter.manifest.version,
                "digest": adapter.manifest.digest,
                "bytes": adapter.manifest.bytes,
                "of_a_step": told.is_some(),
                "offered_ms_ago": offered.map(ms),
            }),
        };
        let seen = self.args.board.seen();
        json!({
            "stage": stage,
            "step": self.step,
            "version": self.version,
            "draft": self.draft.map(|(version, _)| version),
            "doing": seen.doing,
            "tokens_per_s": seen.tokens_per_s,
        })
    }

    fn send(&self, role: NodeRole, wire: Wire) {
        (self.args.outbox)(role, wire);
    }

    fn inbound(&mut self, inbound: Inbound) {
        let Inbound { wire, receipt, .. } = inbound;
        match wire {
            Wire::Batch { step, trajectories } => {
                receipt.accept();
                self.batch(step, trajectories);
            }
            Wire::Published { version, digest } => self.published(version, digest),
            Wire::AdapterRefused { version, newest, reason } => {
                self.refused(version, newest, &reason);
            }
            other => tracing::warn!(?other, "a message that is not for the learner"),
        }
    }

    fn ready(&mut self, step: Step, version: AdapterVersion, adapter: Option<Box<Published>>) {
        tracing::info!(%step, %version, "the model is loaded");
        (self.step, self.version) = (step, version);
        let digest = adapter.as_ref().map_or(Digest::default(), |adapter| adapter.manifest.digest);
        self.args.board.say(|seen| {
            (seen.ready, seen.version, seen.digest) = (true, version, digest);
            "waiting for a batch".clone_into(&mut seen.doing);
        });
        self.stage = match adapter {
            Some(adapter) => Stage::Publishing { adapter, told: None, offered: None },
            None => Stage::Wanting { asked: None },
        };
        self.tick();
    }

    /// A batch: handed to the thread if it is the one that was asked for.
    fn batch(&mut self, step: Step, trajectories: Vec<Trajectory>) {
        if step != self.step.next() || !matches!(self.stage, Stage::Wanting { .. }) {
            return tracing::debug!(%step, "a batch that was not asked for (any more)");
        }
        let count = trajectories.len();
        self.args.board.say(|seen| seen.doing = format!("step {step}: {count} episodes"));
        self.stage = Stage::Training;
        self.trainer.give(Job::Train { step, version: self.version, trajectories });
    }

    /// The adapter of the step is there: it goes ahead of its checkpoint.
    fn packed(&mut self, Published { manifest, bytes }: Published) {
        self.draft = Some((manifest.version, manifest.digest));
        tracing::info!(version = %manifest.version, bytes = manifest.bytes, "packed");
        self.send(NodeRole::ParameterServer, Wire::AdapterDraft { manifest, payload: bytes });
    }

    fn stepped(&mut self, stepped: Stepped) {
        let Stepped { step, consumed, metrics, adapter } = stepped;
        let version = adapter.manifest.version;
        let digest = adapter.manifest.digest;
        let rate = metrics.iter().find(|(name, _)| name == "tokens_per_s").map_or(0.0, |m| m.1);
        self.args.board.say(|seen| {
            (seen.version, seen.digest) = (version, digest);
            #[expect(clippy::cast_possible_truncation, reason = "a rate for people")]
            let rate = rate as f32;
            seen.tokens_per_s = rate;
            seen.doing = format!("step {step} done, publishing v{version}");
        });
        self.step = step;
        tracing::info!(%version, "the checkpoint is on disk");
        let told = Wire::Committed { step, version, consumed, metrics };
        // Sent whole after a while if the draft was lost.
        let offered = (self.draft.take() == Some((version, digest))).then(Instant::now);
        if offered.is_some() {
            self.send(NodeRole::ParameterServer, Wire::AdapterKept { version, digest });
        }
        self.stage =
            Stage::Publishing { adapter: Box::new(adapter), told: Some(Box::new(told)), offered };
        self.tick();
    }

    /// The parameter server has taken an adapter, or says what is newest. Of the same version it may be
    /// another: the one before `learner.adapter_dtype` was changed.
    fn published(&mut self, newest: AdapterVersion, digest: Digest) {
        match &self.stage {
            Stage::Publishing { adapter, .. }
                if (adapter.manifest.version, adapter.manifest.digest) == (newest, digest) =>
            {
                self.version = newest;
                let stage = std::mem::replace(&mut self.stage, Stage::Wanting { asked: None });
                if let Stage::Publishing { adapter, told, .. } = stage {
                    self.kept = Some(adapter);
                    if let Some(told) = told {
                        self.send(NodeRole::Coordinator, *told);
                    }
                }
                self.args.board.say(|seen| "waiting for a batch".clone_into(&mut seen.doing));
                self.tick();
            }
            Stage::Publishing { adapter, .. } if adapter.manifest.version <= newest => {
                self.trainer.give(Job::Republish { version: newest.next() });
            }
            _ => {}
        }
    }

    /// The parameter server has a newer one (this learner fell back to an older checkpoint), the bytes were
    /// damaged on the way, or what it took once is damaged on its disk.
    fn refused(&mut self, version: AdapterVersion, newest: AdapterVersion, reason: &str) {
        tracing::warn!(%version, %newest, reason, "the adapter was refused");
        if let Some(Published { manifest, bytes }) = self.kept.as_deref()
            && manifest.version == version
            && newest < version
            && !matches!(self.stage, Stage::Publishing { .. })
        {
            let wire = Wire::Adapter { manifest: manifest.clone(), payload: bytes.clone() };
            return self.send(NodeRole::ParameterServer, wire);
        }
        if self.draft.is_some_and(|(draft, _)| draft == version) {
            // Offered whole, and as a newer version, once its checkpoint is on disk.
            self.draft = None;
        }
        if let Stage::Publishing { adapter, offered, .. } = &mut self.stage
            && adapter.manifest.version == version
        {
            if newest >= version {
                self.trainer.give(Job::Republish { version: newest.next() });
            } else {
                // Sent again after a while.
                *offered = Some(Instant::now());
            }
        }
    }

    fn republished(&mut self, fresh: Box<Published>) {
        if let Stage::Publishing { adapter, told, offered } = &mut self.stage {
            if let Some(Wire::Committed { version, .. }) = told.as_deref_mut() {
                *version = fresh.manifest.version;
            }
            *adapter = fresh;
            *offered = None;
        }
        self.tick();
    }

    /// A peer is (back) here: whatever was asked of it is asked again at once.
    fn again(&mut self) {
        match &mut self.stage {
            Stage::Wanting { asked } => *asked = None,
            Stage::Publishing { offered, .. } => *offered = None,
            Stage::Loading | Stage::Training => {}
        }
        self.tick();
    }

    /// Sends what is due.
    fn tick(&mut self) {
        let due = |since: &Option<Instant>| since.is_none_or(|since| since.elapsed() >= RETRY);
        let (role, wire) = match &mut self.stage {
            Stage::Wanting { asked } if due(asked) => {
                *asked = Some(Instant::now());
                let request = BatchRequest { step: self.step.next(), version: self.version };
                (NodeRole::Coordinator, Wire::BatchWanted(request))
            }
            Stage::Publishing { adapter, offered, .. } if due(offered) => {
                *offered = Some(Instant::now());
                let Published { manifest, bytes } = (**adapter).clone();
                (NodeRole::ParameterServer, Wire::Adapter { manifest, payload: bytes })
            }
            _ => return,
        };
        self.send(role, wire);
    }
}
