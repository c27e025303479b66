//! The actor of the coordinator: carries out what [`crrl_control::Coordinator`] decides. Records
//! become durable first; only then are the messages that follow them sent.
//!
//! Restart row: permanent. It fails when the store fails or an invariant is broken; a new one goes
//! on from the store. On a full disk it says that its node is to leave: starting again would not
//! help. Without a `plan.json` it waits for one and remembers who is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crrl_cluster::{CastError, Inbound, Mesh, MeshEvent, RunDir, StatusBoard};
use crrl_config::sections::TelemetrySection;
use crrl_control::Coordinator as Machine;
use crrl_control::coordinator::{Effect, Input, Record, Status};
use crrl_control::plan::{PLAN_FILE, Plan};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_control::wire::{Held, NodeRole, Wire};
use crrl_machine::clock;
use crrl_store::{EventLog, Op, Options, Reader, StoreError, Writer, settled};
use crrl_telemetry::names;
use crrl_types::{Event, EventKind, JournalEntry, NodeName, Timing, Trajectory};
use metrics::{counter, gauge, histogram};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorMessage;
use serde_json::{Value, json};

use crate::curves::Curves;
use crate::journals::Journals;
use crate::leave::{Farewell, Leave};
use crate::ledger_rows;
use crate::run_files::{copier, guard, keep, read_results};
use crate::run_under_way::Run;
use crate::showcase::Showcase;
use crate::task_file::TaskFile;

/// Time between two looks at deadlines, the board and the plan's file.
const TICK: Duration = Duration::from_millis(200);
/// The machine's invariants are checked at every tick, unless that would take more than one part in so
/// many of the time: it looks at all there is.
const CHECK_SHARE: u32 = 100;
/// The history is brought to the disk this often; the ledger with every commit.
const HISTORY_SYNC: Duration = Duration::from_secs(1);
/// A rollout node that is there and has not joined is asked to this often.
const JOIN_RETRY: Duration = Duration::from_secs(2);
/// Messages kept for peers that have too much unhandled. Past it they are left to their lease.
const LATER_MAX: usize = 4096;
/// Messages kept from before there is a plan.
const EARLY_MAX: usize = 1024;

/// Sends a message to a peer, or says why it cannot. Must not block.
pub type Post = Arc<dyn Fn(&NodeName, Wire) -> Result<(), CastError> + Send + Sync>;

/// The way out through a mesh.
#[must_use]
pub fn post(mesh: Mesh) -> Post {
    Arc::new(move |to, wire| mesh.cast(to, wire))
}

/// Whether a message is for this actor.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(
        wire,
        Wire::Join { .. }
            | Wire::Credit { .. }
            | Wire::Finished { .. }
            | Wire::Failed { .. }
            | Wire::Turns { .. }
            | Wire::Timed { .. }
            | Wire::BatchWanted(_)
            | Wire::Committed { .. }
            | Wire::Activated { .. }
            | Wire::Published { .. }
            | Wire::Release { .. }
            | Wire::Stop { .. }
    )
}

/// What the actor is started with.
pub struct Args {
    /// Name of this node.
    pub name: NodeName,
    /// The folder of the run: plan, store, history and results.
    pub run: RunDir,
    /// What people's tools are shown.
    pub board: StatusBoard,
    /// The way out.
    pub post: Post,
    /// What is written for other people's tools.
    pub telemetry: TelemetrySection,
    /// How the store is written.
    pub store: Options,
    /// Rollout nodes that load the run's own model: what they serve as no adapter is believed first.
    pub own: BTreeSet<NodeName>,
    /// Told once the run is over, and everything about it durable; or that it cannot go on.
    pub leave: Leave,
}

/// What it is told.
#[derive(Debug, RactorMessage)]
pub enum Msg {
    /// From a peer whose role allows it.
    Inbound(Box<Inbound>),
    /// A peer came or went.
    Peer(MeshEvent),
    /// Something is durable: now it may be said.
    Durable(Box<Words>),
    /// The store or a file of the run failed.
    StoreFailed(StoreError),
    /// From whoever drives the run on this node.
    Control(RunControl),
    /// Time has passed.
    Tick,
}

/// What whoever drives a run on this node may ask.
#[derive(Debug)]
pub enum RunControl {
    /// How the run stands; `None` while there is no plan.
    Status(RpcReplyPort<Option<Status>>),
    /// End the run now; it can be resumed.
    Abort {
        /// Why.
        reason: String,
    },
}

/// What may be said once the changes before it are durable.
#[derive(Debug, Default)]
pub struct Words {
    posts: Vec<(NodeName, Wire)>,
    pub(crate) events: Vec<Event>,
    pub(crate) results: Option<Box<Results>>,
    over: Option<Option<String>>,
    /// The ledger is worth a copy.
    copy: bool,
}

/// The coordinator's actor.
pub struct Coordinator;

/// What it knows.
pub struct State {
    args: Args,
    started: Instant,
    run: Option<Run>,
    /// What came before there was a plan, the newest of each kind from each peer.
    early: Vec<Input>,
    /// For peers that have too much unhandled.
    later: VecDeque<(NodeName, Wire)>,
    /// Rollout nodes that can be reached, and when each was last asked to join.
    rollouts: BTreeMap<NodeName, Instant>,
    /// When the machine's invariants are checked next.
    check_at: Instant,
}

/// What came with a message and is kept if the coordinator wants it.
enum Attached {
    Nothing,
    Trajectory(Box<Trajectory>),
    Turns(Vec<JournalEntry>),
}

impl Actor for Coordinator {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_interval(TICK, || Msg::Tick);
        let mut state = State {
            args,
            started: Instant::now(),
            run: None,
            early: Vec::new(),
            later: VecDeque::new(),
            rollouts: BTreeMap::new(),
            check_at: Instant::now(),
        };
        state.show().phase("starting");
        state.begin(&myself)?;
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let done: Result<(), ActorProcessingErr> = match message {
            Msg::Inbound(inbound) => state.inbound(*inbound),
            Msg::Peer(MeshEvent::PeerUp { name, roles, .. }) => {
                if roles.contains(&NodeRole::Rollout) {
                    state.ask_to_join(name);
                }
                Ok(())
            }
            Msg::Peer(MeshEvent::PeerDown { name, reason }) => {
                state.rollouts.remove(&name);
                state.args.board.lost(&name, &reason);
                state.early.retain(|input| input.sender() != Some(&name));
                let loss = crate::leave::loss(&reason);
                state.input(Input::NodeDown { node: name, reason, loss }, Attached::Nothing)
            }
            Msg::Durable(words) => {
                state.say(*words);
                Ok(())
            }
            Msg::StoreFailed(error) => {
                state.show().phase(&format!("failed: {error}"));
                Err(Box::new(error))
            }
            Msg::Control(RunControl::Status(reply)) => {
                // Whoever asked may have gone away.
                let _ = reply.send(state.run.as_ref().map(|run| run.machine.status()));
                Ok(())
            }
            Msg::Control(RunControl::Abort { reason }) => {
                state.input(Input::Abort { reason }, Attached::Nothing)
            }
            Msg::Tick => state.tick(&myself),
        };
        if done.is_err() {
            state.run = None;
        }
        done
    }

    /// Before the supervisor hears of the end: the next life reads what this one has written last.
    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        state.run = None;
        Ok(())
    }
}

impl State {
    /// What it shows of itself to whoever asks: counts and names.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        let unsent = self.later.len();
        match &self.run {
            Some(run) => json!({ "unsent": unsent, "run": run.snapshot() }),
            None => json!({ "unsent": unsent, "run": null, "early": self.early.len() }),
        }
    }

    fn show(&self) -> Showcase<'_> {
        Showcase(&self.args.board)
    }

    fn event(&self, kind: EventKind) -> Event {
        Event { at_ms: clock::unix_ms(), node: self.args.name.clone(), kind }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// As [`State::start_run`]; what is damaged stays so however often it is read, and is said at once.
    fn begin(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let begun = self.start_run(myself);
        if let Err(error) = &begun
            && !may_pass(error.downcast_ref())
        {
            self.show().phase(&format!("failed: {error}"));
            self.args.leave.say(Farewell::Hopeless(error.to_string()));
        }
        begun
    }

    /// Starts or goes on with the run, if there is a plan.
    fn start_run(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let folder = self.args.run.path();
        let path = folder.join(PLAN_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        let plan = Plan::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let tasks = TaskFile::of_plan(&plan, folder)?;
        let ids = plan.phases.iter().zip(&tasks).map(|(phase, file)| file.ids_of(phase)).collect();
        settled(&self.args.run.store(), &self.args.store)?;
        let mut history = EventLog::open(&self.args.run.events(), HISTORY_SYNC)?;
        let results_path = folder.join(RESULTS_FILE);
        let results = read_results(&results_path)?;
        guard(&self.args.run)?;
        let (actor, leave) = (myself.clone(), self.args.leave.clone());
        let writer = Writer::start(&self.args.run.store(), self.args.store.clone(), move |said| {
            let message = match said.and_then(|words| keep(words, &mut history, &results_path)) {
                Ok(words) => Msg::Durable(Box::new(words)),
                Err(error) => {
                    // At once: the actor may find the store closed before it reads why.
                    leave_if_full(&leave, &error);
                    Msg::StoreFailed(error)
                }
            };
            // An actor that has stopped says nothing more.
            let _ = actor.cast(message);
        })?;
        let reader = Reader::open(&self.args.run.store())?;
        let journals = Journals::recovered(reader.journals()?);
        let recovered = ledger_rows::recover(&reader, results, &journals)?;
        self.show().fill(&reader)?;
        let mut machine = Machine::recover(plan.clone(), ids, recovered, self.now())?;
        machine.believe_first(self.args.own.clone(), self.now());
        // An error of the life before is no longer true.
        let results = Some(Box::new(machine.results().clone()));
        let started = self.event(EventKind::Started);
        writer.submit(Vec::new(), Words { results, events: vec![started], ..Words::default() })?;
        let trajectories = BTreeMap::new();
        let curves = Curves::begin(&self.args.telemetry, &self.args.run);
        let copier = copier(&self.args.run, &self.args.store, &self.args.leave);
        self.run =
            Some(Run { machine, plan, tasks, trajectories, journals, curves, writer, copier });
        for input in std::mem::take(&mut self.early) {
            self.input(input, Attached::Nothing)?;
        }
        self.input(Input::Timer, Attached::Nothing)?;
        self.leave_if_over("the run is over");
        Ok(())
    }

    /// A run that is over says so when it ends. One that was over before, or that nobody ever
    /// planned, has nothing to say first.
    fn leave_if_over(&self, reason: &str) {
        if self.run.as_ref().is_none_or(|run| run.machine.is_over()) {
            self.args.leave.say(Farewell::Done(reason.to_owned()));
        }
    }

    fn inbound(&mut self, inbound: Inbound) -> Result<(), ActorProcessingErr> {
        let Inbound { from, wire, receipt: _receipt, .. } = inbound;
        match wire {
            Wire::Stop { reason } => self.stop(reason),
            Wire::Timed { episode, attempt, timing } => {
                self.timed(from, Held { episode, attempt }, timing)
            }
            Wire::Finished { attempt, trajectory } => {
                let message = Wire::Finished { attempt, trajectory };
                let input = Input::from_wire(&from, &message);
                let Wire::Finished { trajectory, .. } = message else { return Ok(()) };
                match input {
                    Some(input) => self.input(input, Attached::Trajectory(trajectory)),
                    None => Ok(()),
                }
            }
            wire => match Input::from_wire(&from, &wire) {
                Some(input) => {
                    let turns = if let Wire::Turns { entries, .. } = wire {
                        Attached::Turns(entries)
                    } else {
                        Attached::Nothing
                    };
                    self.input(input, turns)
                }
                None => Ok(()),
            },
        }
    }

    fn input(&mut self, input: Input, attached: Attached) -> Result<(), ActorProcessingErr> {
        let now = self.now();
        let Some(run) = &mut self.run else {
            self.remember(input);
            return Ok(());
        };
        let effects = run.machine.handle(input, now).map_err(|broken| {
            tracing::error!(%broken, "stopping before harm is done");
            broken.to_string()
        })?;
        self.carry_out(effects, attached)
    }

    /// Keeps what an attempt measured, of leases there were; nothing follows from it.
    fn timed(
        &mut self,
        node: NodeName,
        Held { episode, attempt }: Held,
        timing: Timing,
    ) -> Result<(), ActorProcessingErr> {
        let Some(run) = &self.run else { return Ok(()) };
        if run.machine.has_leased(episode, attempt) {
            let op = Op::Timed { episode, attempt, node, timing: timing.bounded() };
            run.writer.submit(vec![op], Words::default())?;
        }
        Ok(())
    }

    /// Keeps what says who is there; anything else is said again by its sender.
    fn remember(&mut self, input: Input) {
        let says_who_is_there = matches!(
            input,
            Input::Join { .. }
                | Input::Credit { .. }
                | Input::Activated { .. }
                | Input::BatchWanted { .. }
                | Input::Published { .. }
        );
        if !says_who_is_there {
            return;
        }
        if let Some(from) = input.sender() {
            let kind = std::mem::discriminant(&input);
            self.early
                .retain(|held| held.sender() != Some(from) || std::mem::discriminant(held) != kind);
        }
        if self.early.len() < EARLY_MAX {
            self.early.push(input);
        }
    }

    fn carry_out(
        &mut self,
        effects: Vec<Effect>,
        mut attached: Attached,
    ) -> Result<(), ActorProcessingErr> {
        let mut ops: Vec<Op> = Vec::new();
        let mut words = Words::default();
        for effect in effects {
            let Some(run) = &mut self.run else { return Ok(()) };
            match effect {
                Effect::Record(record) => {
                    words.copy |= matches!(record, Record::Step { .. } | Record::Phase(_));
                    if let Record::Step { step, metrics, .. } = &record {
                        Showcase(&self.args.board).step(*step, metrics);
                        run.curves.step(*step, metrics);
                        gauge!(names::STEP).set(step.0 as f64);
                        for (name, value) in metrics {
                            gauge!(names::STEP_METRIC, "name" => name.clone()).set(*value);
                        }
                    }
                    ops.push(ledger_rows::op(record));
                }
                Effect::Keep(episode) => {
                    if let Attached::Trajectory(trajectory) =
                        std::mem::replace(&mut attached, Attached::Nothing)
                    {
                        Showcase(&self.args.board).episode(&trajectory);
                        histogram!(names::REWARD).record(trajectory.reward.total);
                        ops.push(Op::Trajectory(trajectory.clone()));
                        run.trajectories.insert(episode, *trajectory);
                    }
                }
                Effect::Forget(episode) => drop(run.trajectories.remove(&episode)),
                Effect::KeepTurns { episode, attempt, first, skip } => {
                    if let Attached::Turns(entries) = &mut attached {
                        let new = entries.split_off(entries.len().min(skip as usize));
                        ops.push(run.journals.keep(episode, attempt, first, new));
                    }
                }
                Effect::ForgetTurns(episode) => ops.push(run.journals.forget(episode)),
                Effect::Send(to, wire) => words.posts.push((to, wire)),
                Effect::Assign(assign) => {
                    let to = assign.to.clone();
                    if let Some(assignment) = run.assignment(assign) {
                        words.posts.push((to, Wire::Assign(Box::new(assignment))));
                    }
                }
                Effect::SendBatch { to, step, episodes } => {
                    let trajectories = run.batch(&episodes, &self.args.run)?;
                    words.posts.push((to, Wire::Batch { step, trajectories }));
                }
                Effect::Event(kind) => {
                    counter!(names::EVENTS, "event" => kind.name()).increment(1);
                    words.events.push(self.event(kind));
                }
                Effect::Results(results) => {
                    ops.push(ledger_rows::results(&results));
                    words.results = Some(results);
                }
                Effect::Over { error } => words.over = Some(error),
            }
        }
        let Some(run) = &self.run else { return Ok(()) };
        run.writer.submit(ops, words)?;
        Ok(())
    }

    /// Everything before these words is durable.
    fn say(&mut self, words: Words) {
        for (to, wire) in words.posts {
            self.post(to, wire);
        }
        // One that is begun as everything ends would only hold that up.
        if words.copy
            && words.over.is_none()
            && let Some(copier) = self.run.as_ref().and_then(|run| run.copier.as_ref())
        {
            copier.wish();
        }
        if let Some(error) = words.over {
            match &error {
                None => tracing::info!("the run is over"),
                Some(error) => tracing::error!(error, "the run ended early"),
            }
            let reason = error.clone().unwrap_or_else(|| "the run is over".to_owned());
            self.args.leave.say(Farewell::Done(reason));
            let phase = error.map_or("done".to_owned(), |error| format!("failed: {error}"));
            self.show().phase(&phase);
        }
    }

    fn post(&mut self, to: NodeName, wire: Wire) {
        let again = wire.clone();
        match (self.args.post)(&to, wire) {
            Ok(()) => {}
            Err(CastError::Congested(_)) if self.later.len() < LATER_MAX => {
                self.later.push_back((to, again));
            }
            // Its leases are taken back when it is reported lost; it asks again when it is back.
            Err(error) => tracing::debug!(%to, %error, "not sent"),
        }
    }

    /// A node may have said that it is there before this actor was, or before the news that its
    /// last connection was lost: what it says is asked for until it is known.
    fn ask_to_join(&mut self, name: NodeName) {
        self.post(name.clone(), Wire::JoinWanted);
        self.rollouts.insert(name, Instant::now());
    }

    fn ask_absent_to_join(&mut self) {
        let Some(run) = &self.run else { return };
        let up = |name: &NodeName| run.machine.is_up(name);
        let absent: Vec<NodeName> = self
            .rollouts
            .iter()
            .filter(|(name, asked)| asked.elapsed() >= JOIN_RETRY && !up(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in absent {
            self.ask_to_join(name);
        }
    }

    /// An operator ends the run.
    fn stop(&mut self, reason: String) -> Result<(), ActorProcessingErr> {
        let over = self.run.as_ref().is_none_or(|run| run.machine.is_over());
        if over {
            self.leave_if_over(&reason);
            return Ok(());
        }
        self.input(Input::Abort { reason }, Attached::Nothing)
    }

    fn tick(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        for (to, wire) in std::mem::take(&mut self.later) {
            self.post(to, wire);
        }
        if self.run.is_none() {
            self.begin(myself)?;
        }
        self.ask_absent_to_join();
        let Some(run) = &self.run else { return Ok(()) };
        let began = Instant::now();
        if began >= self.check_at {
            run.machine.check().map_err(|broken| broken.to_string())?;
            self.check_at = Instant::now() + began.elapsed() * CHECK_SHARE;
        }
        if run.machine.next_deadline().is_some_and(|at| at <= self.now()) {
            self.input(Input::Timer, Attached::Nothing)?;
        }
        if let Some(run) = &self.run {
            self.show().status(&run.machine.status(), &run.plan);
        }
        Ok(())
    }
}

/// Whether an error of a start may be gone at the next: the life before still holds the store.
fn may_pass(error: Option<&StoreError>) -> bool {
    matches!(
        error,
        Some(StoreError::Busy { .. } | StoreError::Open { .. } | StoreError::Other { .. })
    )
}

/// Nothing but a person helps against a full disk.
fn leave_if_full(leave: &Leave, error: &StoreError) {
    if let StoreError::Full { .. } = error {
        leave.say(Farewell::Hopeless(error.to_string()));
    }
}
