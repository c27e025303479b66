//! A rollout node that is played: it speaks the protocol of `actors/rollout.rs` over a real mesh, and
//! its episodes are a few made-up tokens that take a while.
//!
//! Honest: it never holds more than it has room for, draws tokens under the adapter it serves and says
//! which, keeps a result until it is acknowledged, and takes an adapter only if its bytes are what the
//! manifest says. It loses everything when it is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crrl_actors::courier::Courier;
use crrl_actors::rollout::takes;
use crrl_cluster::{Inbound, Mesh, MeshEvent, MeshOptions, Router, RunDir, StatusBoard};
use crrl_control::wire::{Assignment, Held, NodeRole, Serving, Wire};
use crrl_sim::Rng;
use crrl_transport::NetThread;
use crrl_types::{
    AdapterManifest, AdapterVersion, Digest, EpisodeId, Finish, NodeName, Reward, Task, TokenSpan,
    Trajectory,
};
use crrl_weights::{Offer, Report, Source};
use rand::{Rng as _, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::truth::Truth;

/// Episodes at once.
pub(crate) const CAPACITY: u32 = 4;
const TICK: Duration = Duration::from_millis(500);
const RESEND_AFTER: Duration = Duration::from_secs(3);
const ADAPTER_RETRY: Duration = Duration::from_secs(5);
/// Tokens drawn under each adapter an episode sees.
const TOKENS: u32 = 4;
/// Long enough that a result does not fit a control frame.
const LONG_DIFF: usize = 300_000;

/// How an episode goes.
#[derive(Debug, Clone)]
pub(crate) struct Manners {
    /// How long it takes, at most.
    pub(crate) takes_max: Duration,
    /// Share that fails.
    pub(crate) failing: f64,
    /// Share whose result is worth nothing: a reward or a log-probability that is no number.
    pub(crate) broken: f64,
    /// Share whose result is long.
    pub(crate) long: f64,
    /// A task that kills the node that works on it.
    pub(crate) poison: Option<String>,
}

/// Why a node left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    /// It was told to.
    Stopped,
    /// Its task killed it.
    Killed,
}

struct Running {
    assignment: Assignment,
    task: Task,
    /// What its tokens were drawn under, in order.
    drawn: Vec<Serving>,
    ends: Instant,
}

struct Unacked {
    attempt: u32,
    message: Wire,
    sent: Instant,
}

/// An adapter on its way into service.
struct Incoming {
    serving: Serving,
    /// Whether it may be served.
    published: bool,
    /// When it can be served; none while it is fetched.
    ready: Option<Instant>,
    fetching: AbortHandle,
}

/// A fetch that has ended.
struct Arrival {
    serving: Serving,
    report: Report,
    result: Result<(), String>,
}

struct Rollout {
    mesh: Mesh,
    manners: Manners,
    truth: Truth,
    rng: Rng,
    serving: Serving,
    running: BTreeMap<EpisodeId, Running>,
    unacked: BTreeMap<EpisodeId, Unacked>,
    adapter_asked: Option<Instant>,
    courier: Courier,
    /// An adapter that is on its way.
    incoming: Option<Incoming>,
    arrivals: mpsc::UnboundedSender<Arrival>,
    draining: bool,
}

/// What no adapter is served as.
pub(crate) fn no_adapter() -> Serving {
    Serving { version: AdapterVersion(0), digest: Digest::of(b"no adapter") }
}

/// Runs the node until it is told to leave or killed by a task.
pub(crate) async fn run(
    net: NetThread,
    dir: &Path,
    name: &NodeName,
    seed: u64,
    manners: Manners,
    truth: Truth,
) -> Result<Left, String> {
    let options = MeshOptions::for_node(&RunDir::new(dir), name).map_err(|e| e.to_string())?;
    let options = MeshOptions { net: Some(net), ..options };
    let router = Router::new();
    let (sender, mut inbox) = mpsc::unbounded_channel();
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    let wanted = |wire: &Wire| takes(wire) || matches!(wire, Wire::Stop { .. });
    router.register_fn("rollout", wanted, move |inbound| {
        sender.send(inbound).map_err(|error| error.to_string())
    });
    let mesh = Mesh::start(options, router, StatusBoard::new())
        .await
        .map_err(|error| error.to_string())?;
    let mut events = mesh.events();
    let mut tick = tokio::time::interval(TICK);
    let mut node = Rollout {
        mesh: mesh.clone(),
        manners,
        truth,
        rng: Rng::seed_from_u64(seed),
        serving: no_adapter(),
        running: BTreeMap::new(),
        unacked: BTreeMap::new(),
        adapter_asked: None,
        courier: Courier::of(&mesh),
        incoming: None,
        arrivals,
        draining: false,
    };
    for peer in mesh.peers() {
        node.peer_up(&peer.roles);
    }
    loop {
        let next = node.next_end();
        tokio::select! {
            Some(inbound) = inbox.recv() => match node.inbound(inbound) {
                None => {}
                Some(Left::Killed) => return Ok(Left::Killed),
                Some(Left::Stopped) => {
                    mesh.stop("leaving").await;
                    return Ok(Left::Stopped);
                }
            },
            event = events.recv() => if let Ok(MeshEvent::PeerUp { roles, .. }) = event {
                node.peer_up(&roles);
            },
            Some(arrival) = arrived.recv() => node.arrived(arrival),
            _ = tick.tick() => node.tick(),
            () = tokio::time::sleep_until(next.into()) => node.time(),
        }
    }
}

impl Rollout {
    fn send(&self, role: NodeRole, wire: Wire) {
        if let Some(peer) = self.mesh.of_role(role) {
            // Whoever needs it to arrive says it again.
            let _ = self.mesh.cast(&peer, wire);
        }
    }

    fn peer_up(&mut self, roles: &[NodeRole]) {
        if roles.contains(&NodeRole::Coordinator) {
            self.join();
        }
        if roles.contains(&NodeRole::ParameterServer) {
            self.ask_for_adapter();
        }
    }

    fn join(&mut self) {
        let running = self.running.iter().map(|(id, r)| (*id, r.assignment.attempt));
        let unacked = self.unacked.iter().map(|(id, u)| (*id, u.attempt));
        let holding =
            running.chain(unacked).map(|(episode, attempt)| Held { episode, attempt }).collect();
        let capacity = if self.draining { 0 } else { CAPACITY };
        let (incarnation, serving) = (self.mesh.incarnation(), Some(self.serving));
        self.send(NodeRole::Coordinator, Wire::Join { incarnation, capacity, holding, serving });
        self.resend(Duration::ZERO);
    }

    fn resend(&mut self, older_than: Duration) {
        let due: Vec<Wire> = self
            .unacked
            .values_mut()
            .filter(|unacked| unacked.sent.elapsed() >= older_than)
            .map(|unacked| {
                unacked.sent = Instant::now();
                unacked.message.clone()
            })
            .collect();
        for wire in due {
            self.send(NodeRole::Coordinator, wire);
        }
    }

    fn ask_for_adapter(&mut self) {
        self.adapter_asked = Some(Instant::now());
        let have = self.serving.version;
        self.send(NodeRole::ParameterServer, Wire::AdapterWanted { have });
    }

    fn inbound(&mut self, inbound: Inbound) -> Option<Left> {
        let Inbound { from, wire, .. } = inbound;
        match wire {
            Wire::JoinWanted => self.join(),
            Wire::Assign(assignment) => return self.assign(*assignment),
            Wire::Cancel { episode, attempt, .. } => {
                self.settled(episode, attempt);
                let held = self.running.get(&episode).map(|r| r.assignment.attempt);
                if held.is_some_and(|held| held <= attempt) {
                    self.running.remove(&episode);
                }
            }
            Wire::Ack { episode, attempt } => self.settled(episode, attempt),
            Wire::AdapterOffer { offer, source, published } => {
                self.offered(offer, source, published, from);
            }
            Wire::Published { version, digest } => {
                let serving = Serving { version, digest };
                if let Some(incoming) = self.incoming.as_mut().filter(|i| i.serving == serving) {
                    incoming.published = true;
                }
            }
            Wire::Drain => self.draining = true,
            Wire::Stop { .. } => return Some(Left::Stopped),
            _ => {}
        }
        None
    }

    fn assign(&mut self, assignment: Assignment) -> Option<Left> {
        let Assignment { episode, attempt, .. } = assignment;
        let task: Task = serde_json::from_str(&assignment.task_json).expect("a line of the file");
        if self.manners.poison.as_deref() == Some(task.instance_id.as_str()) {
            return Some(Left::Killed);
        }
        let held = self.running.get(&episode).map(|r| r.assignment.attempt);
        let unacked = self.unacked.get(&episode).map(|u| u.attempt);
        if self.draining || held.max(unacked).is_some_and(|held| held >= attempt) {
            return None;
        }
        self.running.remove(&episode);
        self.unacked.remove(&episode);
        if self.running.len() >= CAPACITY as usize {
            let reason = "no room".to_owned();
            self.report(episode, attempt, Wire::Failed { episode, attempt, reason });
            return None;
        }
        let ends = Instant::now() + self.manners.takes_max.mul_f64(self.rng.random());
        let drawn = vec![self.serving];
        self.running.insert(episode, Running { assignment, task, drawn, ends });
        None
    }

    fn settled(&mut self, episode: EpisodeId, attempt: u32) {
        if self.unacked.get(&episode).is_some_and(|unacked| unacked.attempt <= attempt) {
            self.unacked.remove(&episode);
        }
    }

    fn offered(
        &mut self,
        offer: Box<Offer>,
        source: Option<Source>,
        published: bool,
        from: NodeName,
    ) {
        let AdapterManifest { version, digest, bytes, .. } = offer.manifest;
        let serving = Serving { version, digest };
        if self.serving == serving {
            return self.say_serving();
        }
        if let Some(incoming) = self.incoming.as_mut().filter(|i| i.serving == serving) {
            incoming.published |= published;
            return;
        }
        if let Some(other) = self.incoming.take() {
            other.fetching.abort();
        }
        let (courier, arrivals) = (self.courier.clone(), self.arrivals.clone());
        let fetching = tokio::spawn(async move {
            let (report, fetched) = (courier.fetch)(offer, source, from).await;
            let result = fetched.and_then(|fetched| {
                if Digest::of(&fetched) == digest && fetched.len() as u64 == bytes {
                    return Ok(());
                }
                Err("the bytes are not what the manifest says".to_owned())
            });
            // A node that has left needs none.
            let _ = arrivals.send(Arrival { serving, report, result });
        });
        let fetching = fetching.abort_handle();
        self.incoming = Some(Incoming { serving, published, ready: None, fetching });
    }

    fn arrived(&mut self, Arrival { serving, report, result }: Arrival) {
        let Some(incoming) = self.incoming.as_mut().filter(|i| i.serving == serving) else {
            return;
        };
        let takes = Duration::from_millis(self.rng.random_range(1..300));
        incoming.ready = Some(Instant::now() + takes);
        let Serving { version, digest } = serving;
        let error = result.err();
        if error.is_some() {
            self.incoming = None;
            self.adapter_asked.get_or_insert_with(Instant::now);
        }
        let arrived = Wire::AdapterArrived { version, digest, report, error };
        self.send(NodeRole::ParameterServer, arrived);
    }

    fn say_serving(&mut self) {
        let Serving { version, digest } = self.serving;
        for role in [NodeRole::ParameterServer, NodeRole::Coordinator] {
            self.send(role, Wire::Activated { version, digest });
        }
    }

    fn next_end(&self) -> Instant {
        let far = Instant::now() + TICK;
        let ends = self.running.values().map(|running| running.ends);
        let due = self.incoming.iter().filter(|incoming| incoming.published);
        let activates = due.filter_map(|incoming| incoming.ready);
        ends.chain(activates).min().unwrap_or(far).min(far)
    }

    /// Ends what has come to its end.
    fn time(&mut self) {
        let now = Instant::now();
        let due = |i: &mut Incoming| i.published && i.ready.is_some_and(|at| at <= now);
        if let Some(Incoming { serving, .. }) = self.incoming.take_if(due) {
            self.serving = serving;
            self.adapter_asked = None;
            for running in self.running.values_mut() {
                running.drawn.push(serving);
            }
            self.say_serving();
        }
        let ended: Vec<EpisodeId> =
            self.running.iter().filter(|(_, r)| r.ends <= now).map(|(id, _)| *id).collect();
        for episode in ended {
            let Some(running) = self.running.remove(&episode) else { continue };
            let attempt = running.assignment.attempt;
            let message = if self.rng.random_bool(self.manners.failing) {
                Wire::Failed { episode, attempt, reason: "it went wrong".to_owned() }
            } else {
                let trajectory = Box::new(self.trajectory(&running));
                Wire::Finished { attempt, trajectory }
            };
            self.report(episode, attempt, message);
        }
    }

    fn report(&mut self, episode: EpisodeId, attempt: u32, message: Wire) {
        self.send(NodeRole::Coordinator, message.clone());
        self.unacked.insert(episode, Unacked { attempt, message, sent: Instant::now() });
    }

    fn tick(&mut self) {
        self.resend(RESEND_AFTER);
        let asked_long_ago = self.adapter_asked.is_some_and(|at| at.elapsed() >= ADAPTER_RETRY);
        if asked_long_ago && self.incoming.is_none() {
            self.ask_for_adapter();
        }
    }

    /// Two tokens that say which lease in which life it was, and some that were drawn.
    fn trajectory(&mut self, running: &Running) -> Trajectory {
        let Assignment { episode, group, attempt, .. } = running.assignment;
        let life = u32::try_from(self.mesh.incarnation()).expect("few lives");
        let mut tokens = vec![attempt, life];
        let (mut generated, mut logprobs) = (vec![false; 2], vec![0.0; 2]);
        let mut adapters = Vec::new();
        for Serving { version, digest } in running.drawn.iter().copied() {
            let start = tokens.len() as u32;
            for _ in 0..TOKENS {
                tokens.push(self.rng.random_range(0..1000));
                generated.push(true);
                logprobs.push(-self.rng.random::<f32>());
            }
            adapters.push(TokenSpan { start, end: tokens.len() as u32, version, digest });
        }
        let mut total = f64::from(self.rng.random_range(0..5_u8)) / 4.0;
        if self.rng.random_bool(self.manners.broken) {
            match self.rng.random_range(0..3) {
                0 => total = f64::NAN,
                1 => logprobs[2] = f32::INFINITY,
                _ => drop(logprobs.pop()),
            }
        }
        let long = self.rng.random_bool(self.manners.long);
        let diff = if long { "+".repeat(LONG_DIFF) } else { String::new() };
        self.truth.produced(self.mesh.name(), episode, attempt, &tokens);
        Trajectory {
            episode,
            group,
            task: running.task.instance_id.clone(),
            node: self.mesh.name().clone(),
            tokens,
            generated,
            logprobs,
            adapters,
            turns: Vec::new(),
            finish: Finish::Done,
            diff,
            reward: Reward { total, success: total > 0.7, components: Vec::new() },
            temperature: 1.0,
            wall_ms: 1,
        }
    }
}
