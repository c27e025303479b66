//! One `ractor_cluster` session for each peer, over QUIC.
//!
//! Stands where the stock node server would: that one insists on a TCP listener, and of two
//! connections of one name keeps the one with the smaller random number, so that a node that was
//! restarted is a coin flip. Here [`crate::join`] says whose the name is, before a session opens.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crrl_types::NodeName;
use ractor::{
    Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent, pg,
    registry,
};
use ractor_cluster::node::{NodeConnectionMode, SessionCheckReply};
use ractor_cluster::{ClusterBidiStream, NetworkStream, NodeServerMessage, NodeSession};
use tokio::sync::watch;

use crate::peer::lock;
use crate::probe::{Probe, Watched};

/// Largest frame of the control stream; senders keep under 256 KiB.
const FRAME_BYTES_MAX: u64 = 4 << 20;
/// ractor asks both sides for a shared word. Certificates have decided already who may connect.
const COOKIE: &str = "verified by certificate";
/// Version of ractor's own protocol.
const RACTOR_PROTOCOL: u32 = 1;

/// Unique in the process, since a session's actors are found by it.
static NODE_IDS: AtomicU64 = AtomicU64::new(1);

/// Where a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionState {
    /// Greeting, exchanging groups.
    Opening,
    /// The peer's actors are known here under this id.
    Ready {
        /// ractor's id of the peer.
        node_id: u64,
    },
    /// Over.
    Ended,
}

/// States of sessions, by label. A label is taken out when its session has ended.
pub(crate) type States = Arc<Mutex<HashMap<String, watch::Sender<SessionState>>>>;

/// Starts the actor that owns the sessions.
pub(crate) async fn spawn(
    name: NodeName,
    states: States,
    watched: Watched,
) -> Result<ActorRef<NodeServerMessage>, SpawnErr> {
    let probe = Probe::naming(Sessions { name, states }, watched, name_of);
    let (actor, _) = Actor::spawn(None, probe, ()).await?;
    Ok(actor)
}

/// What a message is called; ractor's cannot be printed.
fn name_of(message: &NodeServerMessage) -> Cow<'static, str> {
    Cow::Borrowed(match message {
        NodeServerMessage::ConnectionOpened { .. } => "ConnectionOpened",
        NodeServerMessage::ConnectionOpenedExternal { .. } => "ConnectionOpenedExternal",
        NodeServerMessage::ConnectionAuthenticated(_) => "ConnectionAuthenticated",
        NodeServerMessage::ConnectionReady(_) => "ConnectionReady",
        NodeServerMessage::CheckSession { .. } => "CheckSession",
        NodeServerMessage::UpdateSession { .. } => "UpdateSession",
        NodeServerMessage::GetSessions(_) => "GetSessions",
        NodeServerMessage::SubscribeToEvents { .. } => "SubscribeToEvents",
        NodeServerMessage::UnsubscribeToEvents(_) => "UnsubscribeToEvents",
        NodeServerMessage::PortChanged { .. } => "PortChanged",
    })
}

/// Restarts: never; when it ends the node has to. Its sessions end with it.
struct Sessions {
    name: NodeName,
    states: States,
}

#[derive(Default)]
struct Open {
    sessions: HashMap<ActorId, Session>,
}

struct Session {
    label: String,
    node_id: u64,
    actor: ActorCell,
}

impl Actor for Sessions {
    type Msg = NodeServerMessage;
    type State = Open;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Self::Msg>, (): ()) -> Result<Open, ActorProcessingErr> {
        Ok(Open::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Open,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeServerMessage::ConnectionOpenedExternal { stream, is_server } => {
                self.open(&myself, stream, is_server, state).await;
            }
            NodeServerMessage::ConnectionReady(id) => self.ready(id, state),
            NodeServerMessage::UpdateSession { actor_id, name } => {
                check_name(actor_id, &name.name, state);
            }
            NodeServerMessage::CheckSession { reply, .. } => {
                let _ = reply.send(SessionCheckReply::NoOtherConnection);
            }
            NodeServerMessage::GetSessions(reply) => {
                let _ = reply.send(HashMap::new());
            }
            NodeServerMessage::ConnectionAuthenticated(_)
            | NodeServerMessage::ConnectionOpened { .. }
            | NodeServerMessage::SubscribeToEvents { .. }
            | NodeServerMessage::UnsubscribeToEvents(_)
            | NodeServerMessage::PortChanged { .. } => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Open,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(actor, error) => {
                tracing::warn!(%error, "a session failed");
                self.ended(actor.get_id(), state);
            }
            SupervisionEvent::ActorTerminated(actor, _, _) => self.ended(actor.get_id(), state),
            _ => {}
        }
        Ok(())
    }
}

impl Sessions {
    async fn open(
        &self,
        myself: &ActorRef<NodeServerMessage>,
        stream: Box<dyn ClusterBidiStream>,
        is_server: bool,
        state: &mut Open,
    ) {
        let label = stream.peer_label().unwrap_or_default();
        let (reader, writer) = stream.split();
        let stream = NetworkStream::External {
            peer_label: Some(label.clone()),
            local_label: None,
            reader,
            writer,
        };
        let node_id = NODE_IDS.fetch_add(1, Ordering::Relaxed);
        // ractor's name message is not exported by name; its type is read off the constructor.
        let mut name = fifth_argument(NodeSession::new);
        name.name = format!("{}@crrl", self.name);
        name.connection_string = format!("quic:{}", self.name);
        let mut flags = default_inside(&name.flags);
        flags.version = RACTOR_PROTOCOL;
        name.flags = Some(flags);
        let session = NodeSession::new(
            node_id,
            is_server,
            COOKIE.into(),
            myself.clone(),
            name,
            NodeConnectionMode::Isolated,
        )
        .with_max_inbound_frame_size(FRAME_BYTES_MAX);
        match Actor::spawn_linked(None, session, stream, myself.get_cell()).await {
            Ok((actor, _)) => {
                let session = Session { label, node_id, actor: actor.get_cell() };
                state.sessions.insert(actor.get_id(), session);
            }
            Err(error) => {
                tracing::warn!(%error, "a session could not be started");
                self.set(&label, SessionState::Ended);
            }
        }
    }

    fn ready(&self, id: ActorId, state: &Open) {
        if let Some(session) = state.sessions.get(&id) {
            unhook(id);
            self.set(&session.label, SessionState::Ready { node_id: session.node_id });
        }
    }

    fn ended(&self, id: ActorId, state: &mut Open) {
        if let Some(session) = state.sessions.remove(&id) {
            self.set(&session.label, SessionState::Ended);
        }
    }

    fn set(&self, label: &str, new: SessionState) {
        let mut states = lock(&self.states);
        let ended = new == SessionState::Ended;
        if let Some(sender) = states.get(label) {
            sender.send_replace(new);
        }
        if ended {
            states.remove(label);
        }
    }
}

/// A session tells its peer of every actor and group that comes and goes in this process, and so is
/// told of each by ractor: with many peers that is every session for every peer that joins or leaves.
/// A node has one actor its peers can reach, they were told of it before the session was ready, and
/// it stays as long as the node does: nothing is left to tell.
fn unhook(id: ActorId) {
    registry::pid_registry::demonitor(id);
    pg::demonitor(pg::ALL_GROUPS_NOTIFICATION.to_owned(), id);
    pg::demonitor_scope(pg::ALL_SCOPES_NOTIFICATION.to_owned(), id);
}

/// The name inside the session must be the certificate's, which the label begins with.
fn check_name(id: ActorId, said: &str, state: &Open) {
    if let Some(session) = state.sessions.get(&id) {
        let proven = session.label.split('#').next().unwrap_or_default();
        if said.split('@').next() != Some(proven) {
            tracing::warn!(said, proven, "a session under another name than its certificate's");
            session.actor.stop(Some("foreign name".into()));
        }
    }
}

fn fifth_argument<A, B, C, D, E: Default, F, R>(_: fn(A, B, C, D, E, F) -> R) -> E {
    E::default()
}

fn default_inside<T: Default>(_: &Option<T>) -> T {
    T::default()
}
