//! The actor of the parameter server: carries out what
//! [`crrl_control::parameter_server::ParameterServer`] decides.
//!
//! Restart row: permanent. A new one reads the newest adapter from disk; engines say what they
//! have and the learner offers again what it was not told of.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crrl_cluster::{Inbound, Mesh, MeshEvent, RunDir};
use crrl_control::parameter_server::{Effect, Found, Input, Options, ParameterServer as Machine};
use crrl_control::wire::{NodeRole, Serving, Wire};
use crrl_types::{AdapterManifest, Digest, NodeName};
use futures::future::BoxFuture;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use ractor_cluster::RactorMessage;

use crate::adapter_shelf::{AdapterShelf, ShelfError, inspect};
use crate::coordinator::Post;
use crate::leave::Leave;

/// Time between two looks at deadlines.
const TICK: Duration = Duration::from_millis(100);
/// A delivery that has not ended by then has failed.
const DELIVERY_MAX: Duration = Duration::from_secs(60);

/// Versions that are kept for a coordinator that cannot be reached.
const UNTOLD_MAX: usize = 64;

/// Brings an adapter to an engine and returns once the engine has handled it.
pub type Deliver = Arc<
    dyn Fn(NodeName, AdapterManifest, Bytes) -> BoxFuture<'static, Result<(), String>>
        + Send
        + Sync,
>;

/// Delivery through a mesh: a blob on the bulk connection.
#[must_use]
pub fn deliver(mesh: Mesh) -> Deliver {
    Arc::new(move |to, manifest, bytes| {
        let mesh = mesh.clone();
        Box::pin(async move {
            let wire = Wire::Adapter { manifest, payload: bytes.to_vec() };
            mesh.deliver(&to, wire).await.map_err(|error| error.to_string())
        })
    })
}

/// The nodes of a role right now, through a mesh.
#[must_use]
pub fn find(mesh: Mesh) -> Find {
    Arc::new(move |role| mesh.of_role(role))
}

/// Finds the node of a role, if it can be reached.
pub type Find = Arc<dyn Fn(NodeRole) -> Option<NodeName> + Send + Sync>;

/// Whether a message is for this actor.
#[must_use]
pub fn takes(wire: &Wire) -> bool {
    matches!(wire, Wire::Adapter { .. } | Wire::AdapterWanted { .. } | Wire::Activated { .. })
}

/// What the actor is started with.
pub struct Args {
    /// The folder of the run.
    pub run: RunDir,
    /// How patient it is.
    pub options: Options,
    /// The way out for small messages.
    pub post: Post,
    /// The way out for adapters.
    pub deliver: Deliver,
    /// Who is the learner, and who the coordinator.
    pub find: Find,
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
    /// An offered adapter was looked at and is on disk beside the newest.
    Inspected {
        /// The learner.
        from: NodeName,
        /// What it says.
        manifest: Box<AdapterManifest>,
        /// The bytes.
        payload: Bytes,
        /// What they are.
        found: Result<Found, ShelfError>,
    },
    /// A delivery has ended.
    Delivered(Input),
    /// Time has passed.
    Tick,
}

/// The parameter server's actor.
pub struct ParameterServer;

/// What it knows.
pub struct State {
    args: Args,
    started: Instant,
    machine: Machine,
    shelf: AdapterShelf,
    /// Bytes of the newest adapter.
    newest: Bytes,
    /// Bytes that were offered and not yet decided on.
    offered: BTreeMap<Digest, Bytes>,
    /// What the coordinator and the learner were told was published.
    told: BTreeMap<NodeName, Serving>,
    /// What was published and the coordinator was not told of yet, oldest first: it refuses tokens of an
    /// adapter it has not heard of.
    untold: VecDeque<Serving>,
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
        let (manifest, bytes) = match shelf.newest() {
            Ok(newest) => newest.unzip(),
            Err(error @ ShelfError::Damaged { .. }) => {
                tracing::error!(%error);
                // Its version still counts: the next must be greater.
                (shelf.manifest(), None)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(State {
            machine: Machine::new(args.options, manifest),
            args,
            started: Instant::now(),
            shelf,
            newest: bytes.unwrap_or_default().into(),
            offered: BTreeMap::new(),
            told: BTreeMap::new(),
            untold: VecDeque::new(),
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
            Msg::Inspected { from, manifest, payload, found } => {
                let found = found.inspect_err(|error| state.args.leave.say_if_full(error))?;
                state.mend(&manifest, &payload, found)?;
                state.offered.insert(found.digest, payload);
                let input = Input::Offered { from, manifest, found };
                let done = state.input(input, &myself);
                state.offered.clear();
                done
            }
            Msg::Delivered(input) => state.input(input, &myself),
            Msg::Tick => state.tick(&myself),
        }
    }
}

impl State {
    fn inbound(
        &mut self,
        inbound: Inbound,
        myself: &ActorRef<Msg>,
    ) -> Result<(), ActorProcessingErr> {
        let Inbound { from, roles, wire, receipt } = inbound;
        match wire {
            Wire::Adapter { manifest, payload } if roles.contains(&NodeRole::Learner) => {
                self.inspect(from, manifest, payload.into(), myself);
                receipt.accept();
                Ok(())
            }
            // Our own, routed back to us where one node has several roles.
            Wire::Adapter { .. } => Ok(()),
            Wire::AdapterWanted { have } => self.input(Input::Wanted { from, have }, myself),
            Wire::Activated { version, digest } => {
                let serving = Serving { version, digest };
                self.input(Input::Activated { from, serving }, myself)
            }
            _ => Ok(()),
        }
    }

    /// Looks at every value of the adapter and brings it to the disk, off the actor.
    fn inspect(
        &self,
        from: NodeName,
        manifest: AdapterManifest,
        payload: Bytes,
        myself: &ActorRef<Msg>,
    ) {
        let (shelf, myself) = (self.shelf.clone(), myself.clone());
        let known = self.machine.serving();
        tokio::task::spawn_blocking(move || {
            let found = inspect(&payload);
            // What was published before is on disk already.
            let again = known.is_some_and(|known| known.version == manifest.version);
            let found = if again || !found.finite {
                Ok(found)
            } else {
                shelf.put(manifest.version, &payload).map(|()| found)
            };
            let manifest = Box::new(manifest);
            // An actor that has stopped is offered the adapter again.
            let _ = myself.cast(Msg::Inspected { from, manifest, payload, found });
        });
    }

    /// The newest adapter, whose bytes were found damaged on the disk, is offered again.
    fn mend(
        &mut self,
        manifest: &AdapterManifest,
        payload: &Bytes,
        found: Found,
    ) -> Result<(), ShelfError> {
        let Serving { version, digest } = self.machine.serving().unwrap_or_default();
        let is_it = (manifest.version, found.digest) == (version, digest);
        if self.newest.is_empty() && is_it && self.machine.newest().is_some() {
            tracing::info!(%version, "the newest adapter is whole again");
            self.shelf.put(version, payload)?;
            self.shelf.publish(manifest)?;
            self.newest = payload.clone();
        }
        Ok(())
    }

    fn peer(&mut self, event: MeshEvent, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        match event {
            MeshEvent::PeerUp { name, roles, .. } if roles.contains(&NodeRole::Rollout) => {
                self.input(Input::EngineUp(name), myself)
            }
            MeshEvent::PeerUp { .. } => Ok(()),
            MeshEvent::PeerDown { name, .. } => {
                self.told.remove(&name);
                self.input(Input::Down(name), myself)
            }
        }
    }

    fn input(&mut self, input: Input, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        for effect in self.machine.handle(input, self.started.elapsed()) {
            match effect {
                Effect::Persist(manifest) => {
                    let published = self.shelf.publish(&manifest);
                    published.inspect_err(|error| self.args.leave.say_if_full(error))?;
                    self.newest = self.offered.remove(&manifest.digest).unwrap_or_default();
                }
                Effect::Announce(serving) => {
                    self.told.clear();
                    self.untold.push_back(serving);
                    if self.untold.len() > UNTOLD_MAX {
                        self.untold.pop_front();
                    }
                    self.tell();
                }
                Effect::Send(to, wire) => self.post(&to, wire),
                Effect::Deliver(to, version) => {
                    let Some(manifest) = self.machine.newest() else { continue };
                    let sending = if self.newest.is_empty() {
                        let why = "its bytes are damaged here; the learner has to publish again";
                        Box::pin(async move { Err(why.to_owned()) })
                    } else {
                        (self.args.deliver)(to.clone(), manifest.clone(), self.newest.clone())
                    };
                    let myself = myself.clone();
                    tokio::spawn(async move {
                        let result = tokio::time::timeout(DELIVERY_MAX, sending).await;
                        let result = result.unwrap_or_else(|_| Err("it took too long".to_owned()));
                        // An actor that has stopped starts its deliveries anew.
                        let _ =
                            myself.cast(Msg::Delivered(Input::Delivered { to, version, result }));
                    });
                }
                Effect::Warn(text) => tracing::warn!("{text}"),
            }
        }
        Ok(())
    }

    fn post(&self, to: &NodeName, wire: Wire) {
        if let Err(error) = (self.args.post)(to, wire) {
            // The learner offers again, and is refused again.
            tracing::debug!(%to, %error, "not sent");
        }
    }

    /// Tells the coordinator and the learner what is published, until it could be sent.
    fn tell(&mut self) {
        let Some(serving) = self.machine.serving() else { return };
        if let Some(to) = (self.args.find)(NodeRole::Coordinator) {
            while let Some(Serving { version, digest }) = self.untold.front().copied() {
                if (self.args.post)(&to, Wire::Published { version, digest }).is_err() {
                    break;
                }
                self.untold.pop_front();
                if version == serving.version {
                    self.told.insert(to.clone(), serving);
                }
            }
        }
        for role in [NodeRole::Coordinator, NodeRole::Learner] {
            let Some(to) = (self.args.find)(role) else { continue };
            if self.told.get(&to) == Some(&serving) {
                continue;
            }
            let Serving { version, digest } = serving;
            if (self.args.post)(&to, Wire::Published { version, digest }).is_ok() {
                self.told.insert(to, serving);
            }
        }
    }

    fn tick(&mut self, myself: &ActorRef<Msg>) -> Result<(), ActorProcessingErr> {
        self.tell();
        let now = self.started.elapsed();
        if self.machine.next_deadline().is_some_and(|at| at <= now) {
            self.input(Input::Timer, myself)?;
        }
        Ok(())
    }
}
