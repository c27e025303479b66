//! The one actor of a node that peers can reach.
//!
//! Every serializable actor is advertised to every peer, so there is exactly one. Which peer a
//! packet is from is decided by its token, which only that peer's verified connection has seen.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use crrl_control::wire::Wire;
use crrl_transport::decode;
use crrl_types::NodeName;
use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, pg};
use ractor_cluster::RactorClusterMessage;

use crate::mesh::PeerInfo;
use crate::peer::{Packet, Peer, Shared};
use crate::probe::Probe;
use crate::router::{Inbound, Receipt};

/// Scope of the process groups inboxes are found by.
const SCOPE: &str = "crrl";

/// What peers may send.
#[derive(Debug, RactorClusterMessage)]
pub enum InboxMsg {
    /// An encoded packet.
    Frame(Vec<u8>),
}

/// Restarts: never; when it ends the node falls silent and its peers drop it.
struct Inbox;

struct State {
    shared: Weak<Shared>,
    foreign: u64,
}

/// Starts the inbox of a node on the calling runtime.
pub(crate) async fn spawn(shared: &Arc<Shared>) -> Result<ActorRef<InboxMsg>, SpawnErr> {
    let watched = shared.options.probes.carrying("inbox", "Inbox");
    // What it is given says nothing before it is decoded.
    let probe = Probe::naming(Inbox, watched, |_| Cow::Borrowed("Frame"));
    let (actor, _) = Actor::spawn(None, probe, Arc::downgrade(shared)).await?;
    pg::join_scoped(
        SCOPE.into(),
        group(&shared.options.name, shared.options.incarnation),
        vec![actor.get_cell()],
    );
    Ok(actor)
}

/// The inbox of the peer whose session has this id. It is taken out of its group: each session that
/// opens walks through all groups there are.
pub(crate) fn of_peer(peer: &PeerInfo, node_id: u64) -> Option<ActorRef<InboxMsg>> {
    let is_of_session = |cell: &ActorCell| matches!(cell.get_id(), ActorId::Remote { node_id: id, .. } if id == node_id);
    let group = group(&peer.name, peer.incarnation);
    let found = pg::get_scoped_members(&SCOPE.into(), &group).into_iter().find(is_of_session)?;
    pg::leave_scoped(SCOPE.into(), group, vec![found.clone()]);
    Some(ActorRef::from(found))
}

/// A life has a group of its own, so that nothing of an earlier one is ever found.
fn group(name: &NodeName, incarnation: u64) -> String {
    format!("inbox/{name}/{incarnation}")
}

impl Actor for Inbox {
    type Msg = InboxMsg;
    type State = State;
    type Arguments = Weak<Shared>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        shared: Weak<Shared>,
    ) -> Result<State, ActorProcessingErr> {
        Ok(State { shared, foreign: 0 })
    }

    async fn handle(
        &self,
        _: ActorRef<Self::Msg>,
        InboxMsg::Frame(bytes): InboxMsg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(shared) = state.shared.upgrade() else { return Ok(()) };
        match decode::<Packet<Wire>>(&bytes) {
            Ok(packet) => match shared.by_token(&packet.token) {
                Some(peer) => receive(&shared, &peer, packet, bytes.len() as u64),
                // Packets of a connection that has just ended are normal; they are not counted.
                None => tracing::debug!("a packet of no present peer was dropped"),
            },
            Err(error) => {
                state.foreign += 1;
                if state.foreign.is_power_of_two() {
                    tracing::warn!(%error, so_far = state.foreign, "a packet was dropped");
                }
            }
        }
        Ok(())
    }
}

fn receive(shared: &Shared, peer: &Arc<Peer>, packet: Packet<Wire>, len: u64) {
    peer.heard(packet.handled);
    if let Some(wire) = packet.message {
        let owed = Arc::clone(peer);
        shared.router.route(Inbound {
            from: peer.info.name.clone(),
            roles: peer.info.roles.clone(),
            wire,
            receipt: Receipt::new(move |_| owed.handled(len)),
        });
    }
}
