//! The handle a node reaches its peers by.
//!
//! A message of at most 256 KiB goes through the peer's inbox actor, by `ractor_cluster` over the
//! control connection; a larger one, and every adapter and batch, goes as a blob over the bulk
//! connection. What a peer has not handled yet is bounded: past that, casting is an error.
//!
//! Casting to a peer that died a moment ago may still succeed: whatever matters carries an id, is
//! acknowledged by its receiver once durable, and is sent again until then.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use crrl_config::Role;
use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{
    AuthorityError, BindError, BlobError, Credentials, CredentialsError, Endpoint, Faults,
    NetThread, Validity,
};
use crrl_types::{AdapterManifest, HostPort, NodeName};
use ractor::{ActorRef, Message};
use tokio::sync::broadcast;

use crate::board::StatusBoard;
use crate::join;
use crate::operator;
use crate::peer::Shared;
use crate::probe::Probes;
use crate::renewal;
use crate::router::Router;
use crate::run_dir::{RunDir, RunDirError};
use crate::weights::{Weights, fetch};

/// How a node joins the mesh.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// Name of this node; its certificate must say the same.
    pub name: NodeName,
    /// Which life of the node this is; grows with every start.
    pub incarnation: u64,
    /// Folder of the authority's and this node's certificates.
    pub tls: PathBuf,
    /// Where to accept peers; `None` only dials.
    pub listen: Option<SocketAddr>,
    /// Where to give chunks of adapters to others, for a node that accepts no peers; `None` gives
    /// none.
    pub relay: Option<SocketAddr>,
    /// Peers this node dials, and dials again whenever they are lost. The name of a host is looked up
    /// again at every dial.
    pub dial: Vec<(NodeName, HostPort)>,
    /// QUIC.
    pub transport: crrl_transport::Options,
    /// Time between two signs of life of the application. Default 1 s.
    pub heartbeat: Duration,
    /// Silence of the application after which a peer counts as hung. Default 5 s.
    pub heartbeat_timeout: Duration,
    /// How long a connected node may take to show that it still answers when another comes with its name;
    /// some round trips are added, and it is 5 s at most. After that it is taken for dead, and the other let
    /// in: shorter, and a machine that is busy loses its name to whoever was invited by it twice; longer, and
    /// a node that was killed waits for longer when it is back. Default 500 ms; a node of a run gives at
    /// least a quarter of `cluster.idle_timeout_ms`.
    pub answers_within: Duration,
    /// Silence after which a source of an adapter's chunks is left for the next. The last one is waited for
    /// for 10 s, or for so long if that is longer. Default 1 s.
    pub source_patience: Duration,
    /// Wait before dialling again; doubles up to `redial_max`. Default 100 ms.
    pub redial_min: Duration,
    /// Longest wait before dialling again. Default 2 s.
    pub redial_max: Duration,
    /// Bytes of control messages one peer may have unhandled. Default 4 MiB.
    pub unhandled_bytes_max: u64,
    /// Blobs waiting for one peer. Default 32.
    pub blobs_queued_max: usize,
    /// Where this node signs certificates: those that peers renew, and those of whoever comes with a
    /// token. The coordinator's run folder; nobody else signs.
    pub signs: Option<RunDir>,
    /// How long a certificate that is renewed is valid. Default 7 days.
    pub certificate: Validity,
    /// The thread QUIC runs on. Default: one of the mesh's own.
    pub net: Option<NetThread>,
    /// Where the mesh's own actors are seen, beside the node's.
    pub probes: Probes,
}

/// A node that cannot join.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The run folder.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The configuration of the run.
    #[error(transparent)]
    Config(#[from] crrl_config::ConfigError),
    /// The configuration has no such node, or its certificate is another's.
    #[error("{0}")]
    Node(String),
    /// The node's certificate is of no use any more.
    #[error(
        "the certificate of {0} has expired: nobody lets it in. `crrl cluster up` gives nodes of \
         its machine another; a guest needs another token (crrl cluster invite {0} --token)"
    )]
    Expired(NodeName),
    /// A thread or an actor could not be started.
    #[error("cannot start the mesh: {0}")]
    Start(String),
}

/// A message that was not sent.
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    /// The peer is not connected right now.
    #[error("{0} is not connected")]
    NotConnected(NodeName),
    /// The peer has too much unhandled; try again later.
    #[error("{0} has too much unhandled")]
    Congested(NodeName),
    /// The peer is of the build before and does not know this message.
    #[error("{0} speaks an older protocol, which has no such message")]
    TooOld(NodeName),
    /// The message cannot be written.
    #[error("{0}")]
    Encode(String),
    /// No actor of this node takes a message it sent to itself.
    #[error("no actor of this node takes the message")]
    Unrouted,
}

/// A message whose delivery was awaited and did not come about.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// It was not even sent.
    #[error(transparent)]
    Cast(#[from] CastError),
    /// It was sent and not handled.
    #[error("{to}: {source}")]
    Blob {
        /// To whom.
        to: NodeName,
        /// Why.
        source: BlobError,
    },
}

/// What happens to peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// A peer can be reached from now on.
    PeerUp {
        /// Who.
        name: NodeName,
        /// Its roles, by its certificate.
        roles: Vec<NodeRole>,
        /// Which life of the peer this is.
        incarnation: u64,
    },
    /// A peer was lost. Whatever it had not acknowledged may be lost too.
    PeerDown {
        /// Who.
        name: NodeName,
        /// Why, in a few words.
        reason: String,
    },
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who.
    pub name: NodeName,
    /// Its roles, by its certificate.
    pub roles: Vec<NodeRole>,
    /// Which life of the peer this is.
    pub incarnation: u64,
}

impl MeshOptions {
    /// Default timeouts for a node that neither listens nor dials yet.
    #[must_use]
    pub fn new(name: NodeName, incarnation: u64, tls: PathBuf) -> Self {
        Self {
            name,
            incarnation,
            tls,
            listen: None,
            relay: None,
            dial: Vec::new(),
            transport: crrl_transport::Options::default(),
            heartbeat: Duration::from_secs(1),
            heartbeat_timeout: Duration::from_secs(5),
            answers_within: Duration::from_millis(500),
            source_patience: fetch::PATIENCE,
            redial_min: Duration::from_millis(100),
            redial_max: Duration::from_secs(2),
            unhandled_bytes_max: 4 << 20,
            blobs_queued_max: 32,
            signs: None,
            certificate: Validity::hours(crrl_config::CERTIFICATE_HOURS),
            net: None,
            probes: Probes::default(),
        }
    }

    /// Options of a node of a run, from the run folder. Starts the node's next life.
    ///
    /// # Errors
    /// [`MeshError`]: the folder was not prepared (`crrl cluster up` does), or has no such node.
    pub fn for_node(run: &RunDir, name: &NodeName) -> Result<Self, MeshError> {
        let config = run.config()?;
        let nodes = config.nodes();
        let this = nodes.iter().find(|node| node.name == name.as_str()).ok_or_else(|| {
            MeshError::Node(format!("{} has no node {name}", run.config_path().display()))
        })?;
        let addresses = run.addresses()?;
        let mut options = Self::new(name.clone(), run.next_life(name)?, run.tls());
        options.listen = match addresses.get(name) {
            None => None,
            Some(HostPort::Ip(address)) => Some(*address),
            Some(HostPort::Name { host, .. }) => {
                return Err(MeshError::Node(format!(
                    "{} says that {name} listens at the host name {host}: a node listens at an IP \
                     address; `crrl cluster up` writes the file anew",
                    run.addresses_path().display()
                )));
            }
        };
        let dialled_at = run.dialled()?;
        // Dial direction is fixed: everyone dials the coordinator; everyone but the coordinator
        // dials a parameter server that stands apart; the coordinator dials nobody.
        if !this.roles.contains(&Role::Coordinator) {
            let dialled = |other: &&crrl_config::Node| {
                let server = other.roles.contains(&Role::ParameterServer);
                other.name != this.name && (other.roles.contains(&Role::Coordinator) || server)
            };
            for other in nodes.iter().filter(dialled) {
                let other = NodeName::from(other.name.as_str());
                let address = dialled_at.get(&other).ok_or_else(|| {
                    MeshError::Node(format!(
                        "{} does not say where {other} listens; `crrl cluster up` writes it",
                        run.addresses_path().display()
                    ))
                })?;
                options.dial.push((other, address.clone()));
            }
        }
        if this.roles.contains(&Role::Coordinator) {
            options.signs = Some(run.clone());
            options.transport.strangers = true;
        }
        let cluster = &config.cluster;
        if this.roles.contains(&Role::Rollout) && options.listen.is_none() {
            let relay = this.relay.as_ref().unwrap_or(&cluster.relay);
            options.relay = relay_address(relay, &options.dial)?;
        }
        options.transport.bulk_bytes_per_s = cluster.bulk_mib_per_s.saturating_mul(1 << 20);
        options.certificate = Validity::hours(cluster.certificate_hours);
        options.transport.keep_alive = Duration::from_millis(cluster.keep_alive_ms);
        options.transport.idle_timeout = Duration::from_millis(cluster.idle_timeout_ms);
        options.answers_within = options.answers_within.max(options.transport.idle_timeout / 4);
        options.heartbeat_timeout = Duration::from_millis(cluster.heartbeat_timeout_ms);
        options.heartbeat = options.heartbeat.min(options.heartbeat_timeout / 4);
        Ok(options)
    }
}

/// The mesh, as one node sees it. Cloning gives another handle.
#[derive(Clone)]
pub struct Mesh(Arc<Shared>);

impl Mesh {
    /// Joins: opens the socket, accepts, dials, and goes on doing so until [`Mesh::stop`]. Messages
    /// go to `router`; people's tools are shown `board` if this node is the coordinator. Runs on
    /// the calling runtime, QUIC on a thread of its own.
    ///
    /// # Errors
    /// [`MeshError`]: certificates, port, threads.
    pub async fn start(
        options: MeshOptions,
        router: Router,
        board: StatusBoard,
    ) -> Result<Self, MeshError> {
        let credentials = Credentials::load(&options.tls, &options.name)?;
        if credentials.identity.name != options.name {
            return Err(MeshError::Node(format!(
                "the certificate {}.pem belongs to {}",
                options.name, credentials.identity.name
            )));
        }
        if credentials.valid_until_s < renewal::now_s() {
            return Err(MeshError::Expired(options.name));
        }
        let net = match &options.net {
            Some(net) => net.clone(),
            None => NetThread::start(options.name.as_str())
                .map_err(|error| MeshError::Start(error.to_string()))?,
        };
        let endpoint = Endpoint::bind(
            &net,
            &credentials,
            options.listen.or(options.relay),
            options.transport.clone(),
        )?;
        let roles = roles_of(&credentials.identity.roles);
        let valid_until_s = credentials.valid_until_s;
        let shared = Shared::start(options, roles, endpoint, router, board).await?;
        renewal::start(&shared, valid_until_s);
        operator::hear(&shared);
        join::start(&shared);
        Ok(Self(shared))
    }

    /// Name of this node.
    #[must_use]
    pub fn name(&self) -> &NodeName {
        &self.0.options.name
    }

    /// Roles of this node, by its certificate.
    #[must_use]
    pub fn roles(&self) -> &[NodeRole] {
        &self.0.roles
    }

    /// Which life of this node this is.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.0.options.incarnation
    }

    /// Where it listens, with the port the system picked.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// What goes wrong on purpose in this node's network.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.0.endpoint.faults()
    }

    /// The router messages go to.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    /// The board people's tools are shown.
    #[must_use]
    pub fn board(&self) -> &StatusBoard {
        &self.0.board
    }

    /// Bytes of the board that were sent to viewers so far.
    #[must_use]
    pub fn viewer_bytes(&self) -> u64 {
        self.0.viewer_bytes.load(Ordering::Relaxed)
    }

    /// Sends a message and does not wait. To this node itself it is routed at once.
    ///
    /// # Errors
    /// [`CastError`].
    pub fn cast(&self, to: &NodeName, wire: Wire) -> Result<(), CastError> {
        self.0.cast(to, wire)
    }

    /// Sends a message as a blob, whatever its size, and waits until its receiver has handled it.
    ///
    /// # Errors
    /// [`DeliverError`]; the receiver may have handled it all the same if the connection broke.
    pub async fn deliver(&self, to: &NodeName, wire: Wire) -> Result<(), DeliverError> {
        if to == self.name() {
            return Ok(self.0.to_self(wire)?);
        }
        let peer = self.0.peer(to).ok_or_else(|| CastError::NotConnected(to.clone()))?;
        peer.deliver(wire).await
    }

    /// As [`Mesh::cast`] of [`Wire::Adapter`], without a copy of the bytes for every peer. Of
    /// several adapters waiting for one peer only the newest is sent.
    ///
    /// # Errors
    /// [`CastError`].
    pub fn cast_adapter(
        &self,
        to: &NodeName,
        manifest: &AdapterManifest,
        payload: &Bytes,
    ) -> Result<(), CastError> {
        if to == self.name() {
            let manifest = manifest.clone();
            return self.0.to_self(Wire::Adapter { manifest, payload: payload.to_vec() });
        }
        let peer = self.0.peer(to).ok_or_else(|| CastError::NotConnected(to.clone()))?;
        peer.cast_adapter(manifest.clone(), payload.clone())
    }

    /// Adapters between nodes: what this one holds, and how it fetches.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.0.weights
    }

    /// Whether this node gives chunks of adapters to others, and at which port.
    #[must_use]
    pub fn relay_port(&self) -> Option<u16> {
        self.0.options.relay.or(self.0.options.listen)?;
        self.local_addr().ok().map(|address| address.port())
    }

    /// The machine a connected peer is on, as this node sees it.
    #[must_use]
    pub fn host_of(&self, name: &NodeName) -> Option<IpAddr> {
        if name == self.name() {
            return self.local_addr().ok().map(|address| address.ip());
        }
        self.0.peer(name).map(|peer| peer.control.quic.remote_address().ip())
    }

    /// How long a packet takes to a connected peer and back, as the transport estimates it.
    #[must_use]
    pub fn round_trip(&self, name: &NodeName) -> Option<Duration> {
        self.0.peer(name).map(|peer| peer.control.quic.rtt())
    }

    /// Where this node dials another. One whose host has a name is where it is connected right now.
    #[must_use]
    pub fn dialled(&self, name: &NodeName) -> Option<SocketAddr> {
        let (_, at) = self.0.options.dial.iter().find(|(peer, _)| peer == name)?;
        let connected = || Some(self.0.peer(name)?.control.quic.remote_address());
        at.socket_addr().or_else(connected)
    }

    /// Peers this node dials and has not reached since, with what went wrong last; by name.
    #[must_use]
    pub fn unreached(&self) -> Vec<(NodeName, String)> {
        self.0.unreached()
    }

    /// Every connected peer, by name.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.0.peer_infos()
    }

    /// The node of a role: this one if it has it, else a connected peer.
    #[must_use]
    pub fn of_role(&self, role: NodeRole) -> Option<NodeName> {
        if self.roles().contains(&role) {
            return Some(self.name().clone());
        }
        self.peers().into_iter().find(|peer| peer.roles.contains(&role)).map(|peer| peer.name)
    }

    /// Peers coming and going from now on. A receiver that lags too far loses the oldest events
    /// and is told so.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<MeshEvent> {
        self.0.events.subscribe()
    }

    /// Casts every event to `actor`, beginning with a [`MeshEvent::PeerUp`] for each peer that is
    /// connected already, until the actor ends.
    pub fn watch<M: Message>(
        &self,
        actor: &ActorRef<M>,
        wrap: impl Fn(MeshEvent) -> M + Send + Sync + 'static,
    ) {
        let actor = actor.clone();
        self.watch_fn(move |event| actor.cast(wrap(event)).is_ok());
    }

    /// As [`Mesh::watch`], with a function for the actor, which says whether it is to hear of more. It must
    /// not block.
    pub fn watch_fn(&self, tell: impl Fn(MeshEvent) -> bool + Send + Sync + 'static) {
        self.0.watch(Box::new(tell));
    }

    /// Resolves once this node's certificate has expired while the coordinator was away: nobody lets
    /// it in any more.
    pub async fn expired(&self) {
        self.0.renewal.expired().await;
    }

    /// Leaves: peers are told, every connection is closed. At most about a second.
    pub async fn stop(&self, reason: &str) {
        self.0.stop(reason).await;
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh").field("name", self.name()).field("peers", &self.peers()).finish()
    }
}

/// Where a rollout node gives chunks to others. Without a word on it, on loopback if everyone it
/// dials is on this machine: what listens elsewhere is for people to say.
fn relay_address(
    relay: &str,
    dial: &[(NodeName, HostPort)],
) -> Result<Option<SocketAddr>, MeshError> {
    match relay {
        "off" => Ok(None),
        "auto" => {
            let here = dial.iter().all(|(_, at)| at.is_loopback());
            Ok(here.then_some(SocketAddr::from(([127, 0, 0, 1], 0))))
        }
        address => address
            .parse()
            .map(Some)
            .map_err(|_| MeshError::Node(format!("relay is {address:?}, no address"))),
    }
}

/// Every role a certificate may give.
pub const ROLES: [NodeRole; 7] = [
    NodeRole::Coordinator,
    NodeRole::ParameterServer,
    NodeRole::Learner,
    NodeRole::Rollout,
    NodeRole::Viewer,
    NodeRole::Operator,
    NodeRole::Chaos,
];

/// How a role is written in a certificate.
#[must_use]
pub fn role_text(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Coordinator => "coordinator",
        NodeRole::ParameterServer => "parameter-server",
        NodeRole::Learner => "learner",
        NodeRole::Rollout => "rollout",
        NodeRole::Operator => "operator",
        NodeRole::Chaos => "chaos",
        NodeRole::Viewer => "viewer",
    }
}

/// The roles a certificate names; unknown ones give no rights.
#[must_use]
pub fn roles_of(texts: &[String]) -> Vec<NodeRole> {
    ROLES.into_iter().filter(|role| texts.iter().any(|text| text == role_text(*role))).collect()
}

/// The configuration's word for a role, as the wire's.
#[must_use]
pub fn role_of(role: Role) -> NodeRole {
    match role {
        Role::Coordinator => NodeRole::Coordinator,
        Role::ParameterServer => NodeRole::ParameterServer,
        Role::Learner => NodeRole::Learner,
        Role::Rollout => NodeRole::Rollout,
    }
}
