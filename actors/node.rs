//! One node: joins the mesh, starts the actors of its roles under one supervisor, reports what it
//! does, and leaves when it is told to or its supervisor gives up.
//!
//! The coordinator tells the others that a run is over, and leaves last; a signal tells any node. A
//! node that is told to leave for a restart tells nobody: the others wait for it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crrl_cluster::router::kind;
use crrl_cluster::{
    Backoff, ChildSpec, Inbound, Intensity, Letter, Mesh, MeshError, MeshEvent, MeshOptions, Probe,
    Probes, Router, RunDir, StatusBoard, Strategy, Supervisor, SupervisorArgs, SupervisorMsg,
    Worker,
};
use crrl_config::{ClusterConfig, Node, Role};
use crrl_control::wire::Wire;
use crrl_sandbox::LocalBackend;
use crrl_telemetry::otlp::Collector;
use crrl_transport::NetThread;
use crrl_types::NodeName;
use ractor::{Actor, ActorCell, ActorRef};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::chaos::Chaos;
use crate::chat_codec::ModelCodec;
use crate::coordinator::{self, Coordinator};
use crate::courier::Courier;
use crate::duty::{Duty, Roster};
use crate::engine::EngineHandle;
use crate::gpus::Gpus;
use crate::learner::{self, LearnerActor, LearnerBoard};
use crate::leave::{Farewell, LEAVING, LEAVING_FOR_A_RESTART, Leave};
use crate::log_level::LogLevel;
use crate::orders::{self, Orders};
use crate::parameter_server::{self, ParameterServer};
use crate::repair::Repairer;
use crate::report::{Reporter, Sources};
use crate::rollout::{self, Rollout};
use crate::sandboxes::Sandboxes;
use crate::settings;
use crate::trace_sender::TraceSender;
use crate::trainer::{StartTrainer, Trainer};

/// Longest cause a node gives for leaving.
const REASON_CHARS_MAX: usize = 300;

/// Name of the supervisor of a node's actors.
const ROOT: &str = "node";
/// Restarts of one node's actors within [`RESTART_WINDOW`]; past it the process ends, and the
/// host decides.
pub(crate) const RESTARTS_MAX: u32 = 3;
/// The window restarts are counted in.
pub(crate) const RESTART_WINDOW: Duration = Duration::from_secs(30);
/// How long the coordinator waits for the others to leave before it does.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long actors may take to stop; those that do not in time are ended with the process.
const ACTORS_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Certificates, port, or the run folder.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The configuration in the run folder.
    #[error(transparent)]
    Config(#[from] crrl_config::ConfigError),
    /// The configuration has no such node.
    #[error("{file} has no node {name}", file = .file.display())]
    Unknown {
        /// The configuration.
        file: PathBuf,
        /// The node.
        name: NodeName,
    },
    /// The model.
    #[error("{0}")]
    Model(String),
    /// Sandboxes cannot be had.
    #[error("{0}")]
    Sandbox(String),
    /// An actor did not start.
    #[error("actors of this node did not start: {0}")]
    Actors(String),
    /// The actors failed too often.
    #[error("actors of this node failed too often: {0}")]
    GaveUp(String),
    /// Starting again would not help.
    #[error("{0}")]
    Hopeless(String),
    /// Signals or threads.
    #[error("the system refused {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

/// What a node stands on. A simulation gives it other ground than this machine's.
#[derive(Clone)]
pub struct Ground {
    /// The thread QUIC runs on; none takes one of its own.
    pub net: Option<NetThread>,
    /// How the run store is written.
    pub store: crrl_store::Options,
    /// Who trains.
    pub trainer: StartTrainer,
    /// How much is written to the log; none where that cannot be changed.
    pub log: Option<LogLevel>,
}

impl Default for Ground {
    fn default() -> Self {
        let trainer: StartTrainer = Arc::new(Trainer::start);
        Self { net: None, store: Default::default(), trainer, log: None }
    }
}

/// Runs node `name` of the run in `dir` until it is told to stop.
///
/// # Errors
/// [`NodeError`], when it cannot start or gives up.
pub async fn run(dir: &Path, name: &NodeName) -> Result<(), NodeError> {
    run_on(Ground::default(), dir, name).await
}

/// As [`run`], on other ground.
///
/// # Errors
/// [`NodeError`], when it cannot start or gives up.
pub async fn run_on(ground: Ground, dir: &Path, name: &NodeName) -> Result<(), NodeError> {
    let run = RunDir::new(dir);
    let mut config = run.config()?;
    let node = config
        .nodes()
        .into_iter()
        .find(|node| node.name == name.as_str())
        .ok_or_else(|| NodeError::Unknown { file: run.config_path(), name: name.clone() })?;
    config.model.device = config.device_of(&node).to_owned();
    let nth = config.nodes().iter().position(|node| node.name == name.as_str());
    if let Some(address) = nth.and_then(|nth| config.telemetry.prometheus_of(nth)) {
        crrl_telemetry::prometheus::serve(address)
            .map_err(|e| NodeError::Hopeless(e.to_string()))?;
        tracing::info!(%address, "metrics are served");
    }
    crrl_machine::disk::wait_for_room(Duration::from_secs_f64(config.cluster.disk_wait_s));
    let traces = trace_sender(&node, &config, &run)?;
    let (net, probes) = (ground.net.clone(), Probes::default());
    let options = MeshOptions { net, probes: probes.clone(), ..MeshOptions::for_node(&run, name)? };
    let signalled = signalled()?;
    let (router, leave) = (router(&node.roles), Leave::default());
    if !node.roles.contains(&Role::Coordinator) {
        let leave = leave.clone();
        router.register_fn(
            "node",
            |wire| matches!(wire, Wire::Stop { .. }),
            move |inbound| {
                if let Wire::Stop { reason } = inbound.wire {
                    leave.say(Farewell::Done(reason));
                }
                Ok(())
            },
        );
    }
    let roster = Roster::default();
    let drains = roster.clone();
    router.register_fn(
        "drain",
        |wire| matches!(wire, Wire::Drain),
        move |_| {
            drains.set(Duty::Drains);
            Ok(())
        },
    );
    let board = StatusBoard::new();
    let mesh = Mesh::start(options, router, board.clone()).await?;
    let chaos = Chaos::of(&mesh, probes.hang());
    chaos
        .heed_host(&run, name)
        .map_err(|source| NodeError::System { what: "a signal handler", source })?;
    let takes_faults = chaos.clone();
    mesh.router().register_fn(
        "chaos",
        |wire| matches!(wire, Wire::Inject(_) | Wire::Lift { .. }),
        move |inbound| {
            takes_faults.inbound(&inbound);
            Ok(())
        },
    );
    let supervisor = Arc::default();
    let orders = Orders::of(orders::Node {
        mesh: mesh.clone(),
        probes: probes.clone(),
        roster: roster.clone(),
        leave: leave.clone(),
        log: ground.log.clone(),
        supervisor: Arc::clone(&supervisor),
        traces: Mutex::default(),
    });
    let takes_orders = orders.taker();
    mesh.router().register_fn("orders", orders::takes, move |inbound| {
        takes_orders(inbound);
        Ok(())
    });
    let parts = Parts {
        run,
        config,
        node,
        mesh: mesh.clone(),
        ground,
        board,
        chaos,
        probes,
        leave: leave.clone(),
        gave_up: Arc::default(),
        supervisor,
        roster,
    };
    let mut comes_back = false;
    let outcome = tokio::select! {
        told = signalled => {
            tracing::info!(?told, "told to leave by a signal");
            comes_back = told == Told::Restart;
            Ok(())
        }
        farewell = leave.said() => last_words(farewell),
        () = mesh.expired() => Err(MeshError::Expired(name.clone()).into()),
        // An actor that ends in hopelessness has said so before.
        error = work(&parts) => leave.heard().map_or(Err(error), last_words),
    };
    parts.stop_actors().await;
    if parts.node.roles.contains(&Role::Coordinator) {
        match &outcome {
            // The others wait for it.
            Ok(()) if comes_back => {}
            Ok(()) => dismiss(&mesh, "the run is over").await,
            Err(NodeError::Hopeless(reason)) => dismiss(&mesh, reason).await,
            // It will be started again; the others wait for it.
            Err(_) => {}
        }
    }
    if let Some(traces) = traces {
        traces.finish(outcome.is_ok() && !comes_back).await;
    }
    // It becomes the cause in the history of whoever misses this node.
    let reason = match &outcome {
        Ok(()) if comes_back => LEAVING_FOR_A_RESTART.to_owned(),
        Ok(()) => LEAVING.to_owned(),
        Err(error) => format!("{LEAVING}: {error}").chars().take(REASON_CHARS_MAX).collect(),
    };
    mesh.stop(&reason).await;
    outcome
}

/// Sends traces, if this node has the history and the configuration names a collector.
fn trace_sender(
    node: &Node,
    config: &ClusterConfig,
    run: &RunDir,
) -> Result<Option<TraceSender>, NodeError> {
    if config.telemetry.otlp.is_empty() || !node.roles.contains(&Role::Coordinator) {
        return Ok(None);
    }
    let hopeless =
        |error: &dyn std::fmt::Display| NodeError::Hopeless(format!("telemetry.otlp: {error}"));
    let collector: Collector = config.telemetry.otlp.parse().map_err(|error| hopeless(&error))?;
    tracing::info!(%collector, "traces are sent");
    let sender = TraceSender::start(run.clone(), collector).map_err(|error| hopeless(&error))?;
    Ok(Some(sender))
}

fn last_words(farewell: Farewell) -> Result<(), NodeError> {
    match farewell {
        Farewell::Done(reason) => {
            tracing::info!(reason, "leaving");
            Ok(())
        }
        Farewell::Hopeless(reason) => Err(NodeError::Hopeless(reason)),
    }
}

/// Starts the actors and their reports. Resolves only if they cannot be started or give up.
async fn work(parts: &Parts) -> NodeError {
    match start(parts).await {
        Ok((actors, reporter)) => {
            let ended = actors.await;
            reporter.stop();
            let why = parts.gave_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
            NodeError::GaveUp(match ended {
                Ok(()) => why,
                Err(panic) => panic.to_string(),
            })
        }
        Err(error) => error,
    }
}

/// Where messages for the actors of these roles wait until the actors are there.
fn router(roles: &[Role]) -> Router {
    let router = Router::new();
    for role in roles {
        match role {
            Role::Coordinator => router.expect("coordinator", coordinator::takes),
            Role::ParameterServer => router.expect("parameter-server", parameter_server::takes),
            Role::Learner => router.expect("learner", learner::takes),
            Role::Rollout => router.expect("rollout", rollout::takes),
        }
    }
    router
}

/// Tells every peer that the run is over, and waits for them to leave.
async fn dismiss(mesh: &Mesh, reason: &str) {
    let mut events = mesh.events();
    for peer in mesh.peers() {
        // One that is lost leaves no one to tell.
        let _ = mesh.cast(&peer.name, Wire::Stop { reason: reason.to_owned() });
    }
    let gone = async { while !mesh.peers().is_empty() && events.recv().await.is_ok() {} };
    if tokio::time::timeout(LAST_TIMEOUT, gone).await.is_err() {
        tracing::info!("not every node has left; the host ends those that stay");
    }
}

/// What every child is started from.
struct Parts {
    run: RunDir,
    config: ClusterConfig,
    node: Node,
    mesh: Mesh,
    ground: Ground,
    board: StatusBoard,
    chaos: Chaos,
    probes: Probes,
    leave: Leave,
    /// Why the supervisor gave up.
    gave_up: Arc<Mutex<String>>,
    /// What it does about work.
    roster: Roster,
    /// Once it was started.
    supervisor: Arc<Mutex<Option<ActorRef<SupervisorMsg>>>>,
}

impl Parts {
    async fn stop_actors(&self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor {
            // Children stop with their supervisor.
            let _ = supervisor.stop_and_wait(None, Some(ACTORS_TIMEOUT)).await;
        }
    }
}

/// What a signal asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// To leave for good: SIGTERM, SIGINT.
    Stop,
    /// To leave and be started again: [`crrl_cluster::host::RESTART_SIGNAL`].
    Restart,
}

/// Resolves at the first signal that asks something of a node.
fn signalled() -> Result<impl Future<Output = Told>, NodeError> {
    let listen = |kind| {
        signal(kind).map_err(|source| NodeError::System { what: "a signal handler", source })
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut restart = listen(SignalKind::user_defined1())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Told::Stop,
            _ = interrupt.recv() => Told::Stop,
            _ = restart.recv() => Told::Restart,
        }
    })
}

/// Starts the node's reports, and then the supervisor with a child for each role.
async fn start(parts: &Parts) -> Result<(JoinHandle<()>, Reporter), NodeError> {
    let (chaos, probes) = (parts.chaos.clone(), parts.probes.clone());
    let roster = parts.roster.clone();
    let mut sources = Sources { chaos, probes, roster, ..Sources::default() };
    let has_tensors = |role: &Role| matches!(role, Role::Learner | Role::Rollout);
    if parts.config.model.device == "cuda" && parts.node.roles.iter().any(has_tensors) {
        sources.gpus = Some(Gpus::watch());
    }
    // What is reported of before it is there: a model that is never loaded is seen to be.
    let (rollout_there, started) = (Arc::clone(&sources.rollout), Arc::clone(&sources.started));
    let board = LearnerBoard::default();
    if parts.node.roles.contains(&Role::Learner) {
        parts.probes.add(Arc::new(board.worker().clone()));
        sources.learner = Some(board.clone());
    }
    let engine = EngineHandle::thread();
    if parts.node.roles.contains(&Role::Rollout) {
        parts.probes.add(Arc::new(engine.clone()));
    }
    let reporter = Reporter::start(parts.mesh.clone(), sources);
    let mut children = Vec::new();
    for role in &parts.node.roles {
        children.push(match role {
            Role::Coordinator => coordinator(parts),
            Role::ParameterServer => parameter_server(parts),
            Role::Learner => learner(parts, board.clone()),
            Role::Rollout => {
                let repairer = repairer(parts, engine.clone()).await?;
                parts.probes.add(Arc::new(repairer.sandboxes().clone()));
                // A node has one engine.
                let _ = rollout_there.set(repairer.clone());
                rollout(parts, repairer)
            }
        });
    }
    let gave_up = Arc::clone(&parts.gave_up);
    let supervision = SupervisorArgs {
        children,
        strategy: Strategy::OneForOne,
        intensity: Intensity { restarts_max: RESTARTS_MAX, window: RESTART_WINDOW },
        backoff: Backoff {
            min: Duration::from_millis(parts.config.cluster.backoff_min_ms),
            max: Duration::from_millis(parts.config.cluster.backoff_max_ms),
        },
        seed: parts.config.run.seed,
        gave_up: Arc::new(move |why| {
            why.clone_into(&mut gave_up.lock().unwrap_or_else(PoisonError::into_inner));
        }),
    };
    let root = Probe::new(Supervisor, parts.probes.starting(ROOT, "Supervisor", None));
    let (supervisor, actors) = Actor::spawn(None, root, supervision)
        .await
        .map_err(|error| NodeError::Actors(error.to_string()))?;
    *parts.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(supervisor);
    started.store(true, Ordering::Release);
    Ok((actors, reporter))
}

/// How an actor's message is made of what a peer sent.
type FromPeer<M> = fn(Box<Inbound>) -> M;
/// How it is made of a peer that came or went.
type OfPeer<M> = fn(MeshEvent) -> M;
/// What an actor shows of its state.
type Shows<A> = fn(&<A as Actor>::State) -> serde_json::Value;

/// A child that hears from peers and of them, and is watched.
fn child<A>(
    parts: &Parts,
    name: &'static str,
    actor: fn() -> A,
    args: impl Fn() -> A::Arguments + Send + Sync + 'static,
    takes: fn(&Wire) -> bool,
    (inbound, peer): (FromPeer<A::Msg>, OfPeer<A::Msg>),
    shows: Shows<A>,
) -> ChildSpec
where
    A: Actor,
    A::Msg: std::fmt::Debug,
{
    let (mesh, probes, args) = (parts.mesh.clone(), parts.probes.clone(), Arc::new(args));
    let kind = std::any::type_name::<A>().rsplit("::").next().unwrap_or_default();
    ChildSpec::new(name, move |supervisor: ActorCell| {
        let (mesh, args) = (mesh.clone(), Arc::clone(&args));
        let watched = probes.starting(name, kind, Some(ROOT));
        async move {
            let probe = Probe::new(actor(), watched.clone()).with_snapshot(shows);
            let (actor, _) = Actor::spawn_linked(None, probe, args(), supervisor).await?;
            let cell = actor.get_cell();
            let (by_peers, by_mesh) = (watched.clone(), watched);
            let to = actor.clone();
            mesh.router().register_fn(name, takes, move |message| {
                by_peers.pass(&to, message, letter, |message| inbound(Box::new(message)))
            });
            mesh.watch_fn(move |event| by_mesh.pass(&actor, event, news, peer).is_ok());
            Ok(cell)
        }
    })
}

/// What is told of a message to whoever traces it: never what is in it.
fn letter(inbound: &Inbound) -> Letter {
    Letter { message: kind(&inbound.wire), from: Some(inbound.from.clone()) }
}

fn news(event: &MeshEvent) -> Letter {
    let (MeshEvent::PeerUp { name, .. } | MeshEvent::PeerDown { name, .. }) = event;
    Letter { message: kind(event), from: Some(name.clone()) }
}

fn coordinator(parts: &Parts) -> ChildSpec {
    let (mesh, run) = (parts.mesh.clone(), parts.run.clone());
    let (board, leave) = (parts.board.clone(), parts.leave.clone());
    let telemetry = parts.config.telemetry.clone();
    let copies_kept = parts.config.run.ledger_copies as usize;
    let own = own_rollouts(&parts.config);
    let store = crrl_store::Options { copies_kept, ..parts.ground.store.clone() };
    let args = move || coordinator::Args {
        name: mesh.name().clone(),
        run: run.clone(),
        board: board.clone(),
        post: coordinator::post(mesh.clone()),
        telemetry: telemetry.clone(),
        store: store.clone(),
        own: own.clone(),
        leave: leave.clone(),
    };
    let messages = (coordinator::Msg::Inbound as fn(_) -> _, coordinator::Msg::Peer as fn(_) -> _);
    let (takes, shows) = (coordinator::takes, coordinator::State::snapshot);
    child(parts, "coordinator", || Coordinator, args, takes, messages, shows)
}

/// Rollout nodes of the run's own: their word on the base model is taken before a guest's.
fn own_rollouts(config: &ClusterConfig) -> BTreeSet<NodeName> {
    let rolls_out = |node: &Node| !node.external && node.roles.contains(&Role::Rollout);
    let nodes = config.nodes().into_iter().filter(rolls_out);
    nodes.map(|node| node.name.as_str().into()).collect()
}

fn parameter_server(parts: &Parts) -> ChildSpec {
    let (mesh, run, leave) = (parts.mesh.clone(), parts.run.clone(), parts.leave.clone());
    let args = move || parameter_server::Args {
        run: run.clone(),
        options: Default::default(),
        post: coordinator::post(mesh.clone()),
        find: parameter_server::find(mesh.clone()),
        host: parameter_server::host(mesh.clone()),
        depot: mesh.weights().depot().clone(),
        leave: leave.clone(),
    };
    let messages =
        (parameter_server::Msg::Inbound as fn(_) -> _, parameter_server::Msg::Peer as fn(_) -> _);
    let (takes, shows) = (parameter_server::takes, parameter_server::State::snapshot);
    child(parts, "parameter-server", || ParameterServer, args, takes, messages, shows)
}

fn learner(parts: &Parts, board: LearnerBoard) -> ChildSpec {
    let (mesh, run) = (parts.mesh.clone(), parts.run.clone());
    let (config, chaos) = (Arc::new(parts.config.clone()), parts.chaos.clone());
    let (leave, trainer) = (parts.leave.clone(), Arc::clone(&parts.ground.trainer));
    let args = move || learner::Args {
        run: run.clone(),
        config: Arc::clone(&config),
        outbox: rollout::outbox(mesh.clone()),
        board: board.clone(),
        poison: chaos.poison(),
        torn: chaos.torn(),
        leave: leave.clone(),
        trainer: Arc::clone(&trainer),
    };
    let messages = (learner::Msg::Inbound as fn(_) -> _, learner::Msg::Peer as fn(_) -> _);
    let (takes, shows) = (learner::takes, learner::State::snapshot);
    child(parts, "learner", || LearnerActor, args, takes, messages, shows)
}

async fn repairer(parts: &Parts, engine: Worker) -> Result<Repairer, NodeError> {
    let name = parts.mesh.name().clone();
    let cache = parts.run.path().join("templates").join(name.as_str());
    let repairer = repairer_on(engine, &parts.config, &cache, name).await?;
    // Where there are no walls a bomb would hit the machine.
    let walls = !parts.config.sandbox.run_without_isolation;
    let repairer = repairer.with_slow_tools(parts.chaos.slow_tools());
    Ok(if walls { repairer.with_bombs(parts.chaos.bombs()) } else { repairer })
}

/// An engine, sandboxes and a scaffold, as a configuration says.
///
/// # Errors
/// When the model cannot be loaded or sandboxes cannot be had.
pub async fn local_repairer(
    config: &ClusterConfig,
    cache: &Path,
    name: NodeName,
) -> Result<Repairer, NodeError> {
    repairer_on(EngineHandle::thread(), config, cache, name).await
}

/// As [`local_repairer`], with an engine whose thread is watched already.
async fn repairer_on(
    thread: Worker,
    config: &ClusterConfig,
    cache: &Path,
    name: NodeName,
) -> Result<Repairer, NodeError> {
    let model = &config.model.path;
    let refuse = |error: &dyn std::fmt::Display| NodeError::Model(error.to_string());
    let codec = ModelCodec::open(model).map_err(|error| refuse(&error))?;
    let engine = EngineHandle::start_watched(thread, model.clone(), settings::engine(config))
        .await
        .map_err(|error| refuse(&error))?;
    let backend = LocalBackend::new(settings::sandbox(&config.sandbox))
        .map_err(|error| NodeError::Sandbox(error.to_string()))?;
    let sandboxes = Sandboxes::new(backend, settings::pool(config, cache));
    let agent = settings::agent(&config.agent);
    Repairer::new(engine, sandboxes, codec, agent, config.reward, name)
        .map_err(|error| refuse(&error))
}

fn rollout(parts: &Parts, repairer: Repairer) -> ChildSpec {
    let (mesh, capacity) = (parts.mesh.clone(), parts.config.rollout.concurrency);
    let roster = parts.roster.clone();
    let args = move || rollout::Args {
        repairer: repairer.clone(),
        capacity,
        roster: roster.clone(),
        incarnation: mesh.incarnation(),
        outbox: rollout::outbox(mesh.clone()),
        courier: Courier::of(&mesh),
    };
    let messages = (rollout::Msg::Inbound as fn(_) -> _, rollout::Msg::Peer as fn(_) -> _);
    let (takes, shows) = (rollout::takes, rollout::State::snapshot);
    child(parts, "rollout", || Rollout, args, takes, messages, shows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollout_nodes_of_a_configuration_that_names_none_are_the_default_ones() {
        let mut config = ClusterConfig::default();
        let both = BTreeSet::from(["rollout-0", "rollout-1"].map(NodeName::from));
        assert_eq!(own_rollouts(&config), both);
        config.node = ClusterConfig::default_nodes();
        for node in &mut config.node {
            node.external = node.name == "rollout-1";
        }
        assert_eq!(own_rollouts(&config), BTreeSet::from(["rollout-0".into()]));
    }
}
