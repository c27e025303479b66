//! The actor of a rollout node: takes episodes, rolls each out in a task of its own, sends the
//! results and keeps them until they are acknowledged. Adapters are its [`Intake`]'s.
//!
//! Restart row: permanent. It stops with an error when the engine is gone, and again until its supervisor
//! gives up: the process ends, its host starts engine and actor anew with a device nothing is left on, and
//! the coordinator hands the lost episodes out again. A failed or panicking episode is reported as failed
//! and hurts nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crrl_cluster::{Inbound, Mesh, MeshEvent};
use crrl_control::wire::{Assignment, Held, NodeRole, Serving, Wire};
use crrl_telemetry::names;
use crrl_types::{EpisodeId, JournalEntry, Task, Timing, Trajectory};
use crrl_weights::Report;
use metrics::counter;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinError};

use crate::courier::Courier;
use crate::duty::{Duty, Roster};
use crate::engine::{EngineGone, Verified, panic_text};
use crate::intake::Intake;
use crate::repair::{Attempt, RepairError, Repairer};
use crate::stopwatch::Stopwatch;

/// Time between two looks at what has to be sent again.
const TICK: Duration = Duration::from_millis(500);
/// A result that is not acknowledged by then is sent again.
const RESEND_AFTER: Duration = Duration::from_secs(3);
/// Results that wait for an acknowledgement at most, for each episode of capacity. Beyond it
/// assignments are left to their lease: nobody hears us.
const UNACKED_PER_PLACE_MAX: usize = 4;
/// A draining node still takes what may have been on its way to it.
const DRAIN_OVERLAP: Duration = Duration::from_secs(1);
/// What was on its way when the node began to rest is given back after this long: longer than the
/// coordinator takes for the way.
const REJOIN_AFTER: Duration = Duration::from_secs(3);
/// Part of the lease that is left for sending the result.
const SEND_SHARE: f64 = 0.1;

/// Sends a message to whichever peer has a role. Must not block; a peer that is away misses it.
pub type Outbox = Arc<dyn Fn(NodeRole, Wire) + Send + Sync>;

/// The way out through a mesh. What cannot be sent is sent again later by whoever needs it to
/// arrive, so a failure is only noted.
#[must_use]
pub fn outbox(mesh: Mesh) -> Outbox {
    Arc::new(move |role, wire| {
        let Some(peer) = mesh.of_role(role) else {
            return tracing::debug!(?role, "not sent: no such peer is connected");
        };
        if let Err(error) = mesh.cast(&peer, wire) {
            tracing::debug!(%error, "not sent");
        }
    })
}

/// Whether a message is for this actor.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(
        wire,
        Wire::JoinWanted
            | Wire::Assign(_)
            | Wire::Cancel { .. }
            | Wire::Ack { .. }
            | Wire::AdapterOffer { .. }
            | Wire::Published { .. }
    )
}

/// What the actor is started with.
pub struct Args {
    /// Rolls episodes out.
    pub repairer: Repairer,
    /// Episodes at once.
    pub capacity: u32,
    /// What the node does about work.
    pub roster: Roster,
    /// Which life of the node this is.
    pub incarnation: u64,
    /// The way out.
    pub outbox: Outbox,
    /// The way of adapters.
    pub courier: Courier,
}

/// What it is told.
#[derive(Debug, RactorMessage)]
pub enum Msg {
    /// From a peer whose role allows it.
    Inbound(Box<Inbound>),
    /// A peer came or went.
    Peer(MeshEvent),
    /// An episode's task has ended.
    Ended {
        /// The lease it was under.
        held: Held,
        /// What came of it; `None` where it was cancelled.
        outcome: Option<Result<Box<Trajectory>, String>>,
        /// When it did what.
        timing: Box<Timing>,
    },
    /// Something has happened in an episode under way.
    Turn {
        /// The lease it is under.
        held: Held,
        /// What.
        entries: Vec<JournalEntry>,
    },
    /// An adapter was fetched and verified, or was not.
    Arrived {
        /// Which.
        serving: Serving,
        /// What came from whom.
        report: Report,
        /// Ready for the engine.
        result: Result<Verified, String>,
    },
    /// The engine took an adapter, or did not.
    Activated(Serving, Result<Serving, String>),
    /// The node does something else about work.
    Duty(Duty),
    /// The engine's thread has ended.
    EngineGone(EngineGone),
    /// Time has passed.
    Tick,
}

/// The rollout actor.
pub struct Rollout;

/// An episode under way.
struct Running {
    attempt: u32,
    #[expect(dead_code, reason = "the episode ends with it: an actor that is killed says nothing")]
    work: Work,
    /// What has happened in it. The coordinator may have missed some: it is told all of it anew
    /// when it is back.
    journal: Vec<JournalEntry>,
}

/// An episode's task; it ends when this is dropped.
struct Work(AbortHandle);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is done about work.
enum Stance {
    /// It is taken.
    Open,
    /// None is taken. What was on its way is done, until `overlap` is over.
    Drains { overlap: Option<Instant> },
    /// None is taken or done.
    Rests,
}

/// A result that waits for its acknowledgement.
struct Unacked {
    attempt: u32,
    message: Wire,
    sent: Instant,
}

/// What it knows.
pub struct State {
    args: Args,
    running: BTreeMap<EpisodeId, Running>,
    unacked: BTreeMap<EpisodeId, Unacked>,
    intake: Intake,
    stance: Stance,
    /// When the coordinator is told again what is held: what was on its way to a node that rests is
    /// then given to others.
    rejoin: Option<Instant>,
}

impl Actor for Rollout {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        let engine = args.repairer.engine().clone();
        let watcher = myself.clone();
        tokio::spawn(async move {
            let gone = engine.gone().await;
            // An actor that has stopped needs no news.
            let _ = watcher.cast(Msg::EngineGone(gone));
        });
        let (mut changes, listener) = (args.roster.changes(), myself.clone());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let duty = *changes.borrow_and_update();
                if listener.cast(Msg::Duty(duty)).is_err() {
                    return;
                }
            }
        });
        myself.send_interval(TICK, || Msg::Tick);
        Ok(State::new(args))
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Inbound(inbound) => state.inbound(*inbound, &myself),
            Msg::Peer(MeshEvent::PeerUp { roles, .. }) => state.peer_up(&roles),
            // Whatever a lost peer has not acknowledged is sent again once it is back.
            Msg::Peer(MeshEvent::PeerDown { .. }) => {}
            Msg::Ended { held, outcome, timing } => state.ended(held, outcome, *timing),
            Msg::Turn { held, entries } => state.turn(held, entries),
            Msg::Arrived { serving, report, result } => {
                state.intake.arrived(serving, report, result, &myself);
            }
            Msg::Activated(serving, result) => state.intake.activated(serving, result),
            Msg::Duty(duty) => state.duty(duty),
            Msg::EngineGone(gone) => return Err(Box::new(gone)),
            Msg::Tick => state.tick(),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.running.clear();
        state.intake.leave();
        Ok(())
    }
}

impl State {
    fn new(args: Args) -> Self {
        // Nothing is on its way to an actor that has just been started.
        let stance = match args.roster.now() {
            Duty::Works => Stance::Open,
            Duty::Drains => Stance::Drains { overlap: None },
            Duty::Rests => Stance::Rests,
        };
        Self {
            intake: Intake::new(
                args.courier.clone(),
                args.repairer.engine().clone(),
                Arc::clone(&args.outbox),
            ),
            args,
            running: BTreeMap::new(),
            unacked: BTreeMap::new(),
            stance,
            rejoin: None,
        }
    }

    /// What it shows of itself to whoever asks: counts, names and ages.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        let stance = match self.stance {
            Stance::Open => "takes work",
            Stance::Drains { .. } => "drains",
            Stance::Rests => "rests",
        };
        let in_flight: Vec<Value> = self
            .running
            .iter()
            .map(|(episode, running)| {
                let entries = running.journal.len();
                json!({ "episode": episode, "attempt": running.attempt, "entries": entries })
            })
            .collect();
        let unacked: Vec<Value> = self
            .unacked
            .iter()
            .map(|(episode, unacked)| {
                let sent_ms = u64::try_from(unacked.sent.elapsed().as_millis()).unwrap_or(u64::MAX);
                json!({ "episode": episode, "attempt": unacked.attempt, "sent_ms_ago": sent_ms })
            })
            .collect();
        let running = u32::try_from(self.running.len()).unwrap_or(u32::MAX);
        json!({
            "stance": stance,
            "capacity": self.args.capacity,
            "credit": self.room().saturating_sub(running),
            "episodes": self.running.len(),
            "results_unacknowledged": self.unacked.len(),
            "adapter": self.intake.snapshot(),
            "in_flight": in_flight,
            "unacknowledged": unacked,
        })
    }

    fn send(&self, role: NodeRole, message: Wire) {
        (self.args.outbox)(role, message);
    }

    fn inbound(&mut self, inbound: Inbound, myself: &ActorRef<Msg>) {
        let Inbound { from, wire, .. } = inbound;
        match wire {
            Wire::JoinWanted => self.join(),
            Wire::Assign(assignment) => self.assign(*assignment, myself),
            Wire::Cancel { episode, attempt, reason } => self.cancel(episode, attempt, &reason),
            Wire::Ack { episode, attempt } => self.settled(episode, attempt),
            Wire::AdapterOffer { offer, source, published } => {
                self.intake.offered(offer, source, published, from, myself);
            }
            Wire::Published { version, digest } => {
                self.intake.published(Serving { version, digest }, myself);
            }
            other => tracing::warn!(?other, "a message that is not for a rollout node"),
        }
    }

    /// The node does something else about work from now on.
    fn duty(&mut self, duty: Duty) {
        tracing::info!(?duty, running = self.running.len(), "what is done about work");
        match duty {
            Duty::Works => {
                self.stance = Stance::Open;
                self.send(NodeRole::Coordinator, Wire::Credit { episodes: self.args.capacity });
            }
            Duty::Drains => {
                self.stance = Stance::Drains { overlap: Some(Instant::now() + DRAIN_OVERLAP) };
                self.send(NodeRole::Coordinator, Wire::Credit { episodes: 0 });
            }
            Duty::Rests => {
                self.stance = Stance::Rests;
                self.running.clear();
                self.join();
                self.rejoin = Some(Instant::now() + REJOIN_AFTER);
            }
        }
    }

    /// Room for so many episodes.
    fn room(&self) -> u32 {
        match self.stance {
            Stance::Open => self.args.capacity,
            Stance::Drains { .. } | Stance::Rests => 0,
        }
    }

    /// A peer of these roles can be reached (again).
    fn peer_up(&mut self, roles: &[NodeRole]) {
        if roles.contains(&NodeRole::Coordinator) {
            self.join();
        }
        if roles.contains(&NodeRole::ParameterServer) {
            self.intake.ask();
        }
    }

    fn join(&mut self) {
        let join = Wire::Join {
            incarnation: self.args.incarnation,
            capacity: self.room(),
            holding: self.holding(),
            serving: self.intake.serving(),
        };
        self.send(NodeRole::Coordinator, join);
        // Whatever was sent while it was away is lost.
        for unacked in self.unacked.values_mut() {
            unacked.sent = Instant::now();
            (self.args.outbox)(NodeRole::Coordinator, unacked.message.clone());
        }
        for (episode, running) in &self.running {
            self.tell(*episode, running, 0);
        }
    }

    /// Something has happened in an episode.
    fn turn(&mut self, held: Held, entries: Vec<JournalEntry>) {
        let Held { episode, attempt } = held;
        let Some(running) = self.running.get_mut(&episode).filter(|r| r.attempt == attempt) else {
            return;
        };
        let first = running.journal.len();
        running.journal.extend(entries);
        self.tell(episode, &self.running[&episode], first);
    }

    /// Tells the coordinator what has happened in an episode since entry `first`.
    fn tell(&self, episode: EpisodeId, running: &Running, first: usize) {
        let entries = running.journal[first..].to_vec();
        if entries.is_empty() {
            return;
        }
        let (attempt, first) = (running.attempt, u32::try_from(first).unwrap_or(u32::MAX));
        self.send(NodeRole::Coordinator, Wire::Turns { episode, attempt, first, entries });
    }

    /// Everything the coordinator may believe to be with us.
    fn holding(&self) -> Vec<Held> {
        let running = self.running.iter().map(|(episode, r)| (*episode, r.attempt));
        let unacked = self.unacked.iter().map(|(episode, u)| (*episode, u.attempt));
        running.chain(unacked).map(|(episode, attempt)| Held { episode, attempt }).collect()
    }

    fn assign(&mut self, assignment: Assignment, myself: &ActorRef<Msg>) {
        let Assignment { episode, attempt, .. } = assignment;
        let places = self.args.capacity as usize;
        let is_closed = match self.stance {
            Stance::Open => false,
            // What was handed out before the coordinator heard of it is still done.
            Stance::Drains { overlap } => overlap.is_none_or(|until| Instant::now() >= until),
            Stance::Rests => true,
        };
        if is_closed || self.unacked.len() >= places * UNACKED_PER_PLACE_MAX {
            tracing::warn!(%episode, "assignment left to its lease: no room");
            return;
        }
        match self.running.get(&episode) {
            // Sent twice.
            Some(running) if running.attempt >= attempt => return,
            // A new lease on what we still work on: the old one's result would be refused.
            Some(_) => drop(self.running.remove(&episode)),
            None => {}
        }
        if self.unacked.get(&episode).is_some_and(|unacked| unacked.attempt >= attempt) {
            return;
        }
        self.unacked.remove(&episode);
        if self.running.len() >= places {
            let reason = format!("the node has {places} places and all are taken");
            self.report(Held { episode, attempt }, Err(reason));
            return;
        }
        let held = Held { episode, attempt };
        let journal = assignment.past.clone();
        let work = start(held, assignment, self.args.repairer.clone(), myself.clone());
        tracing::debug!(%episode, attempt, "an episode begins");
        self.running.insert(episode, Running { attempt, work, journal });
    }

    /// A lease is of no use to anybody any more. A later one on the same episode goes on.
    fn cancel(&mut self, episode: EpisodeId, attempt: u32, reason: &str) {
        self.settled(episode, attempt);
        if self.running.get(&episode).is_some_and(|running| running.attempt <= attempt)
            && let Some(running) = self.running.remove(&episode)
        {
            tracing::info!(%episode, attempt, reason, "cancelled");
            drop(running);
        }
    }

    /// The result of a lease need not be sent again.
    fn settled(&mut self, episode: EpisodeId, attempt: u32) {
        if self.unacked.get(&episode).is_some_and(|unacked| unacked.attempt <= attempt) {
            self.unacked.remove(&episode);
        }
    }

    fn ended(
        &mut self,
        held: Held,
        outcome: Option<Result<Box<Trajectory>, String>>,
        timing: Timing,
    ) {
        // A later lease may have taken its place.
        if self.running.get(&held.episode).is_none_or(|running| running.attempt != held.attempt) {
            return;
        }
        self.running.remove(&held.episode);
        if let Some(outcome) = outcome {
            let Held { episode, attempt } = held;
            self.send(NodeRole::Coordinator, Wire::Timed { episode, attempt, timing });
            self.report(held, outcome);
        }
    }

    /// Sends a result and keeps it until it is acknowledged.
    fn report(&mut self, held: Held, outcome: Result<Box<Trajectory>, String>) {
        let Held { episode, attempt } = held;
        let message = match outcome {
            Ok(trajectory) => {
                counter!(names::EPISODES, "end" => "finished").increment(1);
                Wire::Finished { attempt, trajectory }
            }
            Err(reason) => {
                counter!(names::EPISODES, "end" => "failed").increment(1);
                tracing::warn!(%episode, reason, "episode failed");
                Wire::Failed { episode, attempt, reason }
            }
        };
        self.send(NodeRole::Coordinator, message.clone());
        self.unacked.insert(episode, Unacked { attempt, message, sent: Instant::now() });
    }

    fn tick(&mut self) {
        if self.rejoin.take_if(|at| *at <= Instant::now()).is_some() {
            self.join();
        }
        let Self { unacked, args, .. } = self;
        for waiting in unacked.values_mut().filter(|u| u.sent.elapsed() >= RESEND_AFTER) {
            waiting.sent = Instant::now();
            (args.outbox)(NodeRole::Coordinator, waiting.message.clone());
        }
        self.intake.tick();
    }
}

/// Starts an episode in a task of its own, and another that reports its end however it ends.
fn start(held: Held, assignment: Assignment, repairer: Repairer, myself: ActorRef<Msg>) -> Work {
    let teller = myself.clone();
    let turns = move |entries| {
        // An actor that has stopped tells nobody.
        let _ = teller.cast(Msg::Turn { held, entries });
    };
    let watch = Stopwatch::start();
    let work = tokio::spawn(run(assignment, repairer, turns, watch.clone()));
    let held_by = Work(work.abort_handle());
    tokio::spawn(async move {
        let outcome = match work.await {
            Ok(Ok(trajectory)) => Some(Ok(Box::new(trajectory))),
            Ok(Err(reason)) => Some(Err(reason)),
            Err(ended) if ended.is_cancelled() => None,
            Err(ended) => Some(Err(panicked(ended))),
        };
        let timing = Box::new(watch.read());
        // An actor that has stopped needs no result: its episodes are handed out again.
        let _ = myself.cast(Msg::Ended { held, outcome, timing });
    });
    held_by
}

fn panicked(ended: JoinError) -> String {
    match ended.try_into_panic() {
        Ok(panic) => format!("the episode panicked: {}", panic_text(panic.as_ref())),
        Err(ended) => ended.to_string(),
    }
}

async fn run(
    assignment: Assignment,
    repairer: Repairer,
    turns: impl Fn(Vec<JournalEntry>) + Send,
    watch: Stopwatch,
) -> Result<Trajectory, String> {
    let Assignment { episode, group, task_json, sampling, lease_ms, past, .. } = assignment;
    let task: Task = serde_json::from_str(&task_json)
        .map_err(|error| format!("the task cannot be read: {error}"))?;
    let lease = Duration::from_millis(lease_ms);
    let time_max = Some(lease.mul_f64(1.0 - SEND_SHARE));
    let attempt = Attempt { episode, group, task, sampling, time_max };
    match tokio::time::timeout(lease, repairer.go_on(attempt, past, turns, &watch)).await {
        Ok(result) => result.map_err(|error: RepairError| error.to_string()),
        Err(_) => Err(format!("it outlived its lease of {lease:?}")),
    }
}
