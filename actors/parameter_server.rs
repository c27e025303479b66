//! The actor of the parameter server: carries out what
//! [`crrl_control::parameter_server::ParameterServer`] decides. Engines fetch the bytes from the
//! node's depot, or from each other.
//!
//! Restart row: permanent. A new one reads the newest adapter from disk; engines say what they
//! have and the learner offers again what it was not told of. Where the newest is damaged on the disk, the
//! learner is asked for it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_cluster::{Depot, Inbound, Mesh, MeshEvent, RunDir, aside};
use crrl_control::parameter_server::{Effect, Found, Input, Options, ParameterServer as Machine};
use crrl_control::wire::{NodeRole, Serving, Wire};
use crrl_telemetry::names;
use crrl_types::{AdapterManifest, AdapterVersion, NodeName};
use crrl_weights::{DeltaCost, Offer, Report, Source};
use metrics::{counter, histogram};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;
use serde_json::{Value, json};

use crate::adapter_shelf::{AdapterShelf, ShelfError, inspect};
use crate::coordinator::Post;
use crate::delta_maker;
use crate::leave::Leave;
use crate::news::{News, Wants};

/// Time between two looks at deadlines.
const TICK: Duration = Duration::from_millis(100);
/// Time between two times the learner is asked for an adapter that is damaged on the disk.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Adapters between two measurements of what a delta costs.
const MEASURE_EVERY: u64 = 16;

/// The nodes of a role right now, through a mesh.
#[must_use]
pub fn find(mesh: Mesh) -> Find {
    Arc::new(move |role| mesh.of_role(role))
}

/// Finds the node of a role, if it can be reached.
pub type Find = Arc<dyn Fn(NodeRole) -> Option<NodeName> + Send + Sync>;

/// The machines of nodes, through a mesh.
#[must_use]
pub fn host(mesh: Mesh) -> Host {
    Arc::new(move |name| mesh.host_of(name))
}

/// Finds the machine a node is on, as this one sees it.
pub type Host = Arc<dyn Fn(&NodeName) -> Option<IpAddr> + Send + Sync>;

/// Whether a message is for this actor.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(
        wire,
        Wire::Adapter { .. }
            | Wire::AdapterDraft { .. }
            | Wire::AdapterKept { .. }
            | Wire::AdapterWanted { .. }
            | Wire::AdapterArrived { .. }
            | Wire::Activated { .. }
            | Wire::RelayAt { .. }
    )
}

/// What the actor is started with.
pub struct Args {
    /// The folder of the run.
    pub run: RunDir,
    /// How patient it is.
    pub options: Options,
    /// The way out for messages.
    pub post: Post,
    /// Who is the learner, and who the coordinator.
    pub find: Find,
    /// Where nodes are.
    pub host: Host,
    /// Where engines fetch from.
    pub depot: Depot,
    /// Told where its disk is full.
    pub leave: Leave,
}

/// What it is told.
#[derive(Debug, RactorMessage)]
pub enum Msg {
    /// From a peer whose role allows it.
    Inbound(Box<Inbound>),
    /// A peer came or went.
    Peer(MeshEvent),
    /// An offered adapter was looked at.
    Inspected(Box<Inspected>),
    /// An adapter is on disk beside the newest.
    Persisted(Serving, Result<(), ShelfError>),
    /// What a delta between two adapters cost.
    Measured(DeltaCost),
    /// Time has passed.
    Tick,
}

/// What the bytes of an offered adapter are.
#[derive(Debug)]
pub struct Inspected {
    from: NodeName,
    kept: bool,
    found: Found,
    copy: Copy,
}

/// An adapter and its bytes.
#[derive(Debug, Clone)]
struct Copy {
    offer: Arc<Offer>,
    bytes: Bytes,
    /// Where the offer has one.
    delta: Bytes,
}

impl Copy {
    fn serving(&self) -> Serving {
        let AdapterManifest { version, digest, .. } = self.offer.manifest;
        Serving { version, digest }
    }

    fn stock(&self, depot: &Depot) {
        if let Some(delta) = &self.offer.delta {
            depot.put_delta(&delta.payload, &self.delta);
        }
        depot.put(&self.offer.whole, &self.bytes);
    }
}

/// The parameter server's actor.
pub struct ParameterServer;

/// What it knows.
pub struct State {
    args: Args,
    started: Instant,
    machine: Machine,
    shelf: AdapterShelf,
    newest: Option<Copy>,
    /// When the learner was asked for the newest, whose bytes are damaged.
    asked: Option<Instant>,
    /// Taken and not published yet.
    draft: Option<Copy>,
    /// What the coordinator and the learner are told of.
    news: News,
    delta_cost: Option<DeltaCost>,
    published: u64,
    /// When the newest was published, until every engine serves it.
    spreading: Option<Instant>,
}

impl Actor for ParameterServer {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Msg>,
        args: Args,
    ) -> Result<State, ActorProcessingErr> {
        myself.send_interval(TICK, || Msg::Tick);
        let shelf = AdapterShelf::new(args.run.path());
        let newest = match shelf.newest() {
            Ok(newest) => newest,
            Err(error @ ShelfError::Damaged { .. }) => {
                tracing::error!(%error);
                None
            }
            Err(error) => return Err(error.into()),
        };
        let newest = newest.map(|(manifest, bytes)| {
            let offer = Arc::new(Offer::whole(manifest, &bytes));
            Copy { offer, bytes: bytes.into(), delta: Bytes::new() }
        });
        if let Some(newest) = &newest {
            newest.stock(&args.depot);
            args.depot.announce((*newest.offer).clone());
        }
        // Of damaged bytes the version still counts: the next must be greater.
        let manifest = newest
            .as_ref()
            .map(|newest| newest.offer.manifest.clone())
            .or_else(|| shelf.manifest());
        let recent = shelf.recent();
        let machine = Machine::new(args.options, manifest);
        Ok(State {
            news: News::new(recent),
            machine,
            args,
            started: Instant::now(),
            shelf,
            newest,
            asked: None,
            draft: None,
            delta_cost: None,
            published: 0,
            spreading: None,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Inbound(inbound) => state.inbound(*inbound, &myself),
            Msg::Peer(event) => state.peer(event, &myself),
            Msg::Inspected(inspected) => state.inspected(*inspected, &myself),
            Msg::Persisted(serving, result) => {
                result.inspect_err(|error| state.args.leave.say_if_full(error))?;
                state.input(Input::Persisted(serving), &myself)
            }
            Msg::Measured(cost) => {
                let percent = cost.ratio * 100.0;
                tracing::info!(?cost, "a delta is {percent:.0} % of an adapter");
                state.delta_cost = Some(cost);
                Ok(())
            }
            Msg::Tick => state.tick(&myself),
        }
    }
}

impl State {
    /// What it shows of itself to whoever asks: counts, versions and ages.
    #[must_use]
    pub fn snapshot(&self) -> Value {
        let copy = |copy: &Copy| {
            let manifest = &copy.offer.manifest;
            json!({
                "version": manifest.version,
                "digest": manifest.digest,
                "bytes": manifest.bytes,
                "delta_bytes": copy.offer.delta.as_ref().map(|_| copy.delta.len()),
            })
        };
        let ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        json!({
            "newest": self.newest.as_ref().map(copy),
            "draft": self.draft.as_ref().map(copy),
            "published": self.published,
            "engines": self.machine.engines(),
            "engines_behind": self.machine.behind(),
            "spreading_ms": self.spreading.map(ms),
            "copies_at_once": self.machine.copies(),
            "delta_ratio": self.delta_cost.map(|cost| cost.ratio),
        })
    }

    fn inbound(
        &mut self,
        inbound: Inbound,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let Inbound { from, wire, receipt, .. } = inbound;
        let input = match wire {
            Wire::Adapter { manifest, payload } => {
                self.inspect(from, manifest, payload.into(), true, myself);
                receipt.accept();
                return Ok(());
            }
            Wire::AdapterDraft { manifest, payload } => {
                self.inspect(from, manifest, payload.into(), false, myself);
                receipt.accept();
                return Ok(());
            }
            Wire::AdapterKept { version, digest } => Input::Kept(Serving { version, digest }),
            Wire::AdapterWanted { have } => Input::Wanted { from, have },
            Wire::AdapterArrived { version, digest, report, error } => {
                if error.is_some() {
                    counter!(names::FETCHES_FAILED).increment(1);
                }
                Input::Arrived { from, serving: Serving { version, digest }, report, error }
            }
            Wire::Activated { version, digest } => {
                Input::Activated { from, serving: Serving { version, digest } }
            }
            Wire::RelayAt { port } => Input::RelayAt { from, port },
            _ => return Ok(()),
        };
        self.input(input, myself)
    }

    /// Looks at every value of the adapter and cuts it into chunks, off the actor.
    fn inspect(
        &self,
        from: NodeName,
        manifest: AdapterManifest,
        bytes: Bytes,
        kept: bool,
        myself: &ActorRef<Msg>,
    ) {
        let (link, copies) = (self.machine.link(), self.machine.copies());
        let pays = self.delta_cost.is_some_and(|cost| cost.pays(manifest.bytes, copies, link));
        let base = self.newest.as_ref().filter(|_| pays).map(|newest| newest.bytes.clone());
        let myself = myself.clone();
        tokio::spawn(aside(move || {
            let found = inspect(&bytes);
            let mut offer = Offer::whole(manifest, &bytes);
            let made = base.and_then(|base| delta_maker::make(&base, &bytes, &offer.manifest));
            let (description, delta) = made.unzip();
            offer.delta = description;
            let delta = delta.unwrap_or_default();
            let copy = Copy { offer: Arc::new(offer), bytes, delta };
            // An actor that has stopped is offered the adapter again.
            let inspected = Inspected { from, kept, found, copy };
            let _ = myself.cast(Msg::Inspected(Box::new(inspected)));
        }));
    }

    fn inspected(
        &mut self,
        Inspected { from, kept, found, copy }: Inspected,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        self.mend(&copy, found)?;
        let manifest = Box::new(copy.offer.manifest.clone());
        let before = self.draft.replace(copy);
        let out = self
            .machine
            .handle(Input::Offered { from, manifest, found, kept }, self.started.elapsed());
        let taken = out.iter().any(|effect| matches!(effect, Effect::Persist(_)));
        if !taken {
            self.draft = before;
        }
        self.carry_out(out, myself)
    }

    /// The newest adapter, whose bytes were found damaged on the disk, is offered again.
    fn mend(&mut self, copy: &Copy, found: Found) -> Result<(), ShelfError> {
        let manifest = &copy.offer.manifest;
        let Serving { version, digest } = self.machine.serving().unwrap_or_default();
        let is_it = (manifest.version, found.digest) == (version, digest);
        if self.newest.is_none() && is_it && self.machine.newest().is_some() {
            tracing::info!(%version, "the newest adapter is whole again");
            self.shelf.put(manifest, &copy.bytes)?;
            self.shelf.publish(manifest, self.news.recent())?;
            copy.stock(&self.args.depot);
            self.args.depot.announce((*copy.offer).clone());
            self.newest = Some(copy.clone());
        }
        Ok(())
    }

    fn peer(&mut self, event: MeshEvent, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        match event {
            MeshEvent::PeerUp { name, roles, .. } if roles.contains(&NodeRole::Rollout) => {
                let host = (self.args.host)(&name);
                self.input(Input::EngineUp { name, host }, myself)
            }
            MeshEvent::PeerUp { .. } => Ok(()),
            MeshEvent::PeerDown { name, .. } => {
                self.news.forget(&name);
                self.input(Input::Down(name), myself)
            }
        }
    }

    fn input(&mut self, input: Input, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        let out = self.machine.handle(input, self.started.elapsed());
        self.carry_out(out, myself)
    }

    fn carry_out(
        &mut self,
        out: Vec<Effect>,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let mut unsent = Vec::new();
        for effect in out {
            match effect {
                Effect::Persist(manifest) => self.persist(*manifest, myself),
                Effect::Publish(manifest) => self.publish(&manifest, myself)?,
                Effect::Announce(serving) => {
                    self.news.add(serving);
                    self.tell();
                }
                Effect::Send(to, wire) => {
                    if let Wire::AdapterRefused { .. } = wire {
                        counter!(names::REFUSED).increment(1);
                    }
                    self.post(&to, wire);
                }
                Effect::Offer { to, serving, source, published } => {
                    let from = if source.is_some() { "relay" } else { "server" };
                    counter!(names::OFFERS, "from" => from).increment(1);
                    if let Err(error) = self.offer(&to, serving, source, published) {
                        let (from, report, error) = (to, Report::default(), Some(error));
                        unsent.push(Input::Arrived { from, serving, report, error });
                    }
                }
                Effect::Warn(text) => tracing::warn!("{text}"),
            }
        }
        self.spread();
        // Each waits for its backoff then, so this goes one level deep.
        unsent.into_iter().try_for_each(|input| self.input(input, myself))
    }

    fn persist(&self, manifest: AdapterManifest, myself: &ActorRef<Msg>) {
        let Some(draft) = self.draft.clone() else { return };
        draft.stock(&self.args.depot);
        let (shelf, myself) = (self.shelf.clone(), myself.clone());
        tokio::spawn(aside(move || {
            let put = shelf.put(&manifest, &draft.bytes);
            // An actor that has stopped is offered the adapter again.
            let _ = myself.cast(Msg::Persisted(draft.serving(), put));
        }));
    }

    fn publish(
        &mut self,
        manifest: &AdapterManifest,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let published = self.shelf.publish(manifest, self.news.recent());
        published.inspect_err(|error| self.args.leave.say_if_full(error))?;
        tracing::info!(version = %manifest.version, "published");
        counter!(names::PUBLISHED).increment(1);
        self.spreading = (self.machine.engines() > 0).then(Instant::now);
        let before = self.newest.take();
        self.newest = self.draft.take();
        let Some(newest) = &self.newest else { return Ok(()) };
        self.args.depot.announce((*newest.offer).clone());
        let Some(before) = before else { return Ok(()) };
        if self.published.is_multiple_of(MEASURE_EVERY) {
            let (newest, myself) = (newest.clone(), myself.clone());
            tokio::spawn(aside(move || {
                let (base, manifest) = (&before.bytes, &newest.offer.manifest);
                if let Some(cost) = delta_maker::measure(base, &newest.bytes, manifest) {
                    // An actor that has stopped measures again.
                    let _ = myself.cast(Msg::Measured(cost));
                }
            }));
        }
        self.published += 1;
        Ok(())
    }

    /// Measures how long it took until every engine serves the newest. One that is followed by another
    /// before that is not measured.
    fn spread(&mut self) {
        let everywhere = self.machine.engines() > 0 && self.machine.behind() == 0;
        if let Some(since) = self.spreading.take_if(|_| everywhere) {
            histogram!(names::ACTIVATED_TIME).record(since.elapsed());
        }
    }

    fn offer(
        &self,
        to: &NodeName,
        serving: Serving,
        source: Option<Source>,
        published: bool,
    ) -> Result<(), String> {
        let copies = [&self.draft, &self.newest].into_iter().flatten();
        let Some(copy) = copies.into_iter().find(|copy| copy.serving() == serving) else {
            return Err("its bytes are not at hand".to_owned());
        };
        let offer = Box::new((*copy.offer).clone());
        let wire = Wire::AdapterOffer { offer, source, published };
        (self.args.post)(to, wire).map_err(|error| error.to_string())
    }

    fn post(&self, to: &NodeName, wire: Wire) {
        if let Err(error) = (self.args.post)(to, wire) {
            // The learner offers again, and is refused again; an engine asks again.
            tracing::debug!(%to, %error, "not sent");
        }
    }

    /// Tells the coordinator and the learner what is published, until it could be sent.
    fn tell(&mut self) {
        let now = self.started.elapsed();
        for (role, wants) in
            [(NodeRole::Coordinator, Wants::All), (NodeRole::Learner, Wants::Newest)]
        {
            let Some(to) = (self.args.find)(role) else { continue };
            let post = &self.args.post;
            self.news.tell(&to, wants, now, |Serving { version, digest }| {
                post(&to, Wire::Published { version, digest }).is_ok()
            });
        }
    }

    /// Asks the learner for the newest adapter where its bytes are damaged: it keeps what was taken of it,
    /// and would else offer it again only in its next life. It may not hear the first time.
    fn ask_for_newest(&mut self) {
        let missing = self.machine.newest().filter(|_| self.newest.is_none());
        let Some(version) = missing.map(|manifest| manifest.version) else { return };
        if self.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return;
        }
        let Some(learner) = (self.args.find)(NodeRole::Learner) else { return };
        self.asked = Some(Instant::now());
        let newest = AdapterVersion(version.0.saturating_sub(1));
        let reason =
            "its bytes on the parameter server's disk are damaged: send it again".to_owned();
        self.post(&learner, Wire::AdapterRefused { version, newest, reason });
    }

    fn tick(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        self.tell();
        self.ask_for_newest();
        let now = self.started.elapsed();
        if self.machine.next_deadline().is_some_and(|at| at <= now) {
            self.input(Input::Timer, myself)?;
        }
        Ok(())
    }
}
