//! Dialling, accepting and greeting peers.
//!
//! The dialler opens the control connection, sends a hello, gets a welcome (or a reason), then opens
//! the bulk connection with the token of the welcome. A name belongs to whoever has it: another node that
//! comes with it is refused for as long as the first one answers, whichever of them is in a later life. Of
//! several that come for the name of one that does not, the first to have both its connections gets it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crrl_control::rights::is_tool;
use crrl_transport::{
    Arrival, Connection, Handshake, Purpose, QuicStream, Revocations, decode, encode_as,
    random_bytes, read_frame, why, write_frame,
};
use crrl_types::{HostPort, NodeName};
use quinn::{RecvStream, SendStream};
use ractor_cluster::NodeServerMessage;
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::admission;
use crate::bulk;
use crate::crowd::{Crowd, Place, Turn, Verdict};
use crate::inbox;
use crate::mesh::{PeerInfo, roles_of};
use crate::operator;
use crate::peer::{Peer, Shared, Token, lock};
use crate::restart::Backoff;
use crate::session::SessionState;
use crate::weights::serve::serve;

/// Longest greeting.
const GREETING_BYTES_MAX: usize = 4096;
/// Peers that were welcomed and whose bulk connection is waited for.
const AWAITED_MAX: usize = 1024;
/// Deadline of everything between a connection and a ready session.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is said to a tool, or to whoever fetches, whose certificate counts no more.
const REVOKED: &str = "the certificate was revoked";
/// How a refusal by the peer begins.
const REFUSED: &str = "refused: ";
/// Time between two looks at whose certificate was revoked.
const REVOKED_EVERY: Duration = Duration::from_secs(1);
/// Time between two looks at whether it has.
const ANSWER_LOOK: Duration = Duration::from_millis(10);

/// Makes labels unique in the process.
static LABELS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u8,
    pub(crate) name: NodeName,
    pub(crate) incarnation: u64,
    /// What the acceptor is to show with its packets.
    pub(crate) token: Token,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Welcome {
        incarnation: u64,
        /// What the dialler is to show with its packets, and with its bulk connection.
        token: Token,
    },
    Refused(String),
}

/// Starts accepting and dialling.
pub(crate) fn start(shared: &Arc<Shared>) {
    if shared.options.listen.or(shared.options.relay).is_some() {
        tokio::spawn(accept_all(Arc::clone(shared)));
    }
    tokio::spawn(cut_revoked(Arc::clone(shared)));
    for (name, at) in shared.options.dial.clone() {
        tokio::spawn(dial_forever(Arc::clone(shared), name, at));
    }
}

/// The next stream a peer opens; `None` once it has left, or is cut off because its certificate was
/// revoked. A tool that only looks on opens no further one: closing ends those that are open.
pub(crate) async fn next_stream(
    connection: &Connection,
    revocations: &Revocations,
) -> Option<(SendStream, RecvStream)> {
    let stream = tokio::select! {
        stream = connection.quic.accept_bi() => stream.ok()?,
        () = revocations.until_revoked(connection.fingerprint) => {
            connection.close(REVOKED);
            return None;
        }
    };
    if revocations.contains(connection.fingerprint) {
        connection.close(REVOKED);
        return None;
    }
    Some(stream)
}

/// Lets go of peers whose certificates were revoked after they had been let in.
async fn cut_revoked(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(REVOKED_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = shared.stopped() => return,
        }
        for peer in shared.peers() {
            if shared.endpoint.revocations().contains(peer.control.fingerprint) {
                shared.remove(&peer, "its certificate was revoked");
            }
        }
    }
}

async fn dial_forever(shared: Arc<Shared>, name: NodeName, at: HostPort) {
    let backoff = Backoff { min: shared.options.redial_min, max: shared.options.redial_max };
    let mut rng = StdRng::from_seed(random_bytes().unwrap_or_default());
    let mut failures = 0;
    let mut last = String::new();
    while !shared.is_stopping() {
        let ended = tokio::select! {
            ended = dial(&shared, &name, &at) => ended,
            () = shared.stopped() => return,
        };
        match ended {
            Ok(_) => (failures, last) = (0, String::new()),
            Err(error) => {
                failures += 1;
                shared.missed(&name, &error);
                // The same failure over and over is one line.
                if error != last {
                    tracing::info!(peer = %name, address = %at, error, "not connected; trying on");
                    last = error;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait(failures, rng.random())) => {}
            () = shared.stopped() => return,
        }
    }
}

/// One connection, from dialling to its end. The reason it ended, or why it did not come about.
async fn dial(shared: &Arc<Shared>, name: &NodeName, at: &HostPort) -> Result<String, String> {
    let dialling = shared.endpoint.dial_host(name, at, Purpose::Control);
    let (control, address) = dialling.await.map_err(text)?;
    if at.socket_addr().is_none() {
        tracing::info!(peer = %name, host = %at, %address, "found by its name");
    }
    let greeted = within(greet(shared, name, address, &control)).await;
    match greeted {
        Ok((peer, stream)) => attend(shared, peer, stream, false).await,
        Err(error) => {
            // TLS tells a dialler only after its own handshake that its certificate is refused.
            let error = match control.quic.close_reason() {
                Some(reason) if !error.starts_with(REFUSED) => why(&reason),
                _ => error,
            };
            control.close(&error);
            Err(error)
        }
    }
}

async fn greet(
    shared: &Arc<Shared>,
    name: &NodeName,
    address: SocketAddr,
    control: &Connection,
) -> Result<(Arc<Peer>, (SendStream, RecvStream)), String> {
    let (mut send, mut recv) = control.quic.open_bi().await.map_err(text)?;
    let token: Token = random_bytes().map_err(text)?;
    let protocol = control.protocol;
    let hello = Hello {
        protocol,
        name: shared.options.name.clone(),
        incarnation: shared.options.incarnation,
        token,
    };
    say(&mut send, protocol, &hello).await?;
    let (incarnation, their_token) = match hear(&mut recv).await? {
        Answer::Welcome { incarnation, token } => (incarnation, token),
        Answer::Refused(reason) => return Err(format!("{REFUSED}{reason}")),
    };
    let bulk = shared.endpoint.dial(name, address, Purpose::Bulk).await.map_err(text)?;
    let (mut bulk_send, mut bulk_recv) = bulk.quic.open_bi().await.map_err(text)?;
    say(&mut bulk_send, protocol, &their_token).await?;
    if let Answer::Refused(reason) = hear(&mut bulk_recv).await? {
        return Err(format!("{REFUSED}{reason}"));
    }
    let info = PeerInfo { name: name.clone(), roles: roles_of(&control.peer.roles), incarnation };
    let peer = Peer::new(info, control.clone(), bulk, token, their_token, &shared.options);
    admit(shared, &peer, shared.holder(name).as_ref())?;
    Ok((peer, (send, recv)))
}

/// Gives a peer its name, if nobody has it but one that is `dead`.
fn admit(shared: &Shared, peer: &Arc<Peer>, dead: Option<&Arc<Peer>>) -> Result<(), String> {
    shared.admit(peer, dead).map_err(|held| {
        let reason = name_is_taken(&held, peer.info.incarnation);
        peer.end(&reason);
        reason
    })
}

async fn accept_all(shared: Arc<Shared>) {
    let crowd = Crowd::default();
    loop {
        let handshake = tokio::select! {
            handshake = shared.endpoint.accept() => handshake,
            () = shared.stopped() => return,
        };
        let Some(handshake) = handshake else { return };
        let turn = match crowd.judge(handshake.remote_address(), handshake.is_proven()) {
            Verdict::Waits(turn) => turn,
            Verdict::Prove => {
                handshake.ask_proof();
                continue;
            }
            Verdict::Refuse => {
                handshake.refuse();
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = accept(&shared, handshake, turn).await {
                tracing::info!(error, "a connection was not taken");
            }
        });
    }
}

async fn accept(shared: &Arc<Shared>, handshake: Handshake, turn: Turn) -> Result<(), String> {
    let patience = shared.endpoint.options().handshake_timeout;
    let Ok(mut place) = tokio::time::timeout(patience, turn.comes()).await else {
        // Whoever dialled has given up as well. Not a line in the log for each of a flood.
        tracing::debug!(from = %handshake.remote_address(), "too many came from there at once");
        return Ok(());
    };
    let connection = match handshake.arrive().await.map_err(text)? {
        Arrival::Member(connection) => connection,
        Arrival::Stranger(stranger) => {
            drop(place);
            return admission::serve(shared, &stranger).await;
        }
    };
    place.certified();
    if shared.options.listen.is_none() && connection.purpose != Purpose::Weights {
        let reason = "this node passes adapters on and takes no peers";
        connection.close(reason);
        return Err(format!("{}: {reason}", connection.peer.name));
    }
    match connection.purpose {
        Purpose::Weights => {
            drop(place);
            let stopped = shared.stopped();
            tokio::select! {
                () = serve(&shared.weights, &connection) => {}
                () = stopped => connection.close("leaving"),
            }
            Ok(())
        }
        Purpose::Control => {
            let greeted = within(welcome(shared, &connection, place)).await;
            match greeted {
                Ok((peer, stream)) => attend(shared, peer, stream, true).await.map(drop),
                Err(error) => {
                    connection.close(&error);
                    Err(error)
                }
            }
        }
        Purpose::Bulk => within(take_bulk(shared, connection)).await,
        Purpose::Operator => {
            drop(place);
            operator::serve(shared, &connection).await;
            Ok(())
        }
    }
}

async fn welcome(
    shared: &Arc<Shared>,
    control: &Connection,
    place: Place,
) -> Result<(Arc<Peer>, (SendStream, RecvStream)), String> {
    let (mut send, mut recv) = control.quic.accept_bi().await.map_err(text)?;
    let hello: Hello = hear(&mut recv).await?;
    if let Err(reason) = judge(shared, control, &hello) {
        return Err(refuse(&mut send, control, &reason).await);
    }
    let token: Token = random_bytes().map_err(text)?;
    let (hand_over, bulk) = oneshot::channel();
    let _awaited = Awaited::new(shared, token, control.peer.name.clone(), hand_over);
    // The bulk connection needs one itself: were all of them held here, none would come.
    drop(place);
    let held = shared.holder(&control.peer.name);
    if let Some(held) = &held
        && answers(held, shared.options.answers_within).await
    {
        let reason = name_is_taken(held, hello.incarnation);
        return Err(refuse(&mut send, control, &reason).await);
    }
    let incarnation = shared.options.incarnation;
    say(&mut send, control.protocol, &Answer::Welcome { incarnation, token }).await?;
    let bulk = bulk.await.map_err(|_| "its bulk connection did not come".to_owned())?;
    let roles = roles_of(&control.peer.roles);
    let info = PeerInfo { name: hello.name, roles, incarnation: hello.incarnation };
    let peer = Peer::new(info, control.clone(), bulk, token, hello.token, &shared.options);
    // Somebody else may have come for the same name since it was looked at.
    admit(shared, &peer, held.as_ref())?;
    Ok((peer, (send, recv)))
}

/// Tells a peer why it is not taken; gives what is to be said of it here.
async fn refuse(send: &mut SendStream, control: &Connection, reason: &str) -> String {
    let answer = Answer::Refused(reason.to_owned());
    if let Err(error) = say(send, control.protocol, &answer).await {
        return error;
    }
    let _ = send.finish();
    // Wait until the peer has read it; closing at once would take it back.
    let _ = tokio::time::timeout(Duration::from_secs(1), send.stopped()).await;
    format!("{} was refused: {reason}", control.peer.name)
}

/// Whether a connected peer still answers: its QUIC acknowledges something from now on, soon.
async fn answers(peer: &Peer, soon: Duration) -> bool {
    let quic = &peer.control.quic;
    let acknowledged = || quic.stats().frame_rx.acks;
    let before = acknowledged();
    // Whatever is sent is acknowledged.
    let _ = peer.pulse();
    let answering = async {
        while acknowledged() == before {
            tokio::time::sleep(ANSWER_LOOK).await;
        }
    };
    // Whoever has come waits for it and has to be greeted afterwards.
    let patience = (soon + 4 * quic.rtt()).min(READY_TIMEOUT / 2);
    tokio::select! {
        // A last word is acknowledged as well: whoever has left does not live.
        biased;
        _ = quic.closed() => false,
        answered = tokio::time::timeout(patience, answering) => {
            answered.is_ok() && quic.close_reason().is_none()
        }
    }
}

/// What is said to another that comes with the name of a peer, in this `life` of it.
fn name_is_taken(held: &Peer, life: u64) -> String {
    let name = &held.info.name;
    let address = held.control.quic.remote_address();
    format!(
        "another {name} is connected, from {} port {} in its life {} (this is life {life}), and no two \
         nodes may have one name: end one of them, or invite this one under another name (crrl cluster \
         invite)",
        address.ip().to_canonical(),
        address.port(),
        held.info.incarnation
    )
}

fn judge(shared: &Shared, control: &Connection, hello: &Hello) -> Result<(), String> {
    let proven = &control.peer.name;
    if hello.protocol != control.protocol {
        let (says, spoken) = (hello.protocol, control.protocol);
        return Err(format!("it says protocol {says} on a connection that speaks {spoken}"));
    }
    if hello.name != *proven {
        return Err(format!("it calls itself {}, its certificate says {proven}", hello.name));
    }
    if *proven == shared.options.name {
        return Err(format!("this node is {proven} itself"));
    }
    let roles = roles_of(&control.peer.roles);
    if roles.is_empty() || roles.iter().copied().any(is_tool) {
        return Err(format!("a node needs a node's role, its certificate says {roles:?}"));
    }
    if lock(&shared.awaited).len() >= AWAITED_MAX {
        return Err("too many nodes are joining at once; try again".into());
    }
    Ok(())
}

/// A bulk connection that is waited for; forgotten when dropped.
struct Awaited<'a>(&'a Shared, Token);

impl<'a> Awaited<'a> {
    fn new(
        shared: &'a Shared,
        token: Token,
        name: NodeName,
        hand_over: oneshot::Sender<Connection>,
    ) -> Self {
        lock(&shared.awaited).insert(token, (name, hand_over));
        Self(shared, token)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        lock(&self.0.awaited).remove(&self.1);
    }
}

async fn take_bulk(shared: &Shared, bulk: Connection) -> Result<(), String> {
    let (mut send, mut recv) = bulk.quic.accept_bi().await.map_err(text)?;
    let token: Token = hear(&mut recv).await?;
    let protocol = bulk.protocol;
    let awaited = lock(&shared.awaited).remove(&token);
    match awaited.filter(|(name, _)| *name == bulk.peer.name) {
        Some((_, hand_over)) => {
            let incarnation = shared.options.incarnation;
            say(&mut send, protocol, &Answer::Welcome { incarnation, token }).await?;
            let _ = send.finish();
            hand_over.send(bulk).map_err(|_| "its control connection is gone".to_owned())
        }
        None => {
            let reason = "no control connection waits for it".to_owned();
            say(&mut send, protocol, &Answer::Refused(reason.clone())).await?;
            Err(reason)
        }
    }
}

/// Runs a peer that was greeted and admitted until it is lost. The reason it was.
async fn attend(
    shared: &Arc<Shared>,
    peer: Arc<Peer>,
    (send, recv): (SendStream, RecvStream),
    is_server: bool,
) -> Result<String, String> {
    let label = format!("{}#{}", peer.info.name, LABELS.fetch_add(1, Ordering::Relaxed));
    let mut session = shared.follow(&label);
    let stream = Box::new(QuicStream { label, send, recv });
    let opened = shared
        .sessions
        .cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server })
        .map_err(text);
    let ready = match opened {
        Ok(()) => until_ready(&peer, &mut session).await,
        Err(error) => Err(error),
    };
    if let Err(reason) = ready {
        shared.remove(&peer, &reason);
        return Err(reason);
    }
    if !shared.install(&peer) {
        return Err(peer.ended().await);
    }
    for _ in 0..shared.endpoint.options().blobs_at_once.max(1) {
        tokio::spawn(bulk::send_to(Arc::clone(shared), Arc::clone(&peer)));
    }
    tokio::spawn(bulk::receive_from(Arc::clone(shared), Arc::clone(&peer)));
    let reason = until_lost(shared, &peer, &mut session).await;
    shared.remove(&peer, &reason);
    Ok(reason)
}

async fn until_ready(
    peer: &Peer,
    session: &mut watch::Receiver<SessionState>,
) -> Result<(), String> {
    let ready = session.wait_for(|state| *state != SessionState::Opening);
    let state = tokio::select! {
        state = tokio::time::timeout(READY_TIMEOUT, ready) => match state {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) => SessionState::Ended,
            Err(_) => return Err("its session was not ready in time".into()),
        },
        error = peer.control.quic.closed() => return Err(why(&error)),
    };
    let SessionState::Ready { node_id } = state else {
        return Err("its session ended before it was ready".into());
    };
    let inbox = inbox::of_peer(&peer.info, node_id).ok_or("it has no inbox")?;
    peer.set_inbox(inbox);
    peer.heard(0);
    Ok(())
}

/// Sends signs of life and watches for the peer's.
async fn until_lost(
    shared: &Shared,
    peer: &Peer,
    session: &mut watch::Receiver<SessionState>,
) -> String {
    let mut beat = tokio::time::interval(shared.options.heartbeat);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = beat.tick() => {
                let silent = peer.silent_for();
                if silent > shared.options.heartbeat_timeout {
                    return format!("its application was silent for {} ms", silent.as_millis());
                }
                if peer.pulse().is_err() {
                    return "its inbox is gone".into();
                }
            }
            () = peer.report.notified() => {
                let _ = peer.pulse();
            }
            error = peer.control.quic.closed() => return why(&error),
            error = peer.bulk.quic.closed() => return why(&error),
            () = over(session) => {
                // The stream breaks a moment before the connection says why.
                let closed = peer.control.quic.closed();
                return match tokio::time::timeout(Duration::from_millis(200), closed).await {
                    Ok(error) => why(&error),
                    Err(_) => "its session ended".into(),
                };
            }
            reason = peer.ended() => return reason,
        }
    }
}

async fn over(session: &mut watch::Receiver<SessionState>) {
    let _ = session.wait_for(|state| *state == SessionState::Ended).await;
}

async fn within<T>(greeting: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(READY_TIMEOUT, greeting)
        .await
        .unwrap_or_else(|_| Err("the greeting took too long".into()))
}

async fn say<T: Serialize>(send: &mut SendStream, protocol: u8, what: &T) -> Result<(), String> {
    write_frame(send, &encode_as(protocol, what).map_err(text)?).await.map_err(text)
}

async fn hear<T: serde::de::DeserializeOwned>(recv: &mut RecvStream) -> Result<T, String> {
    decode(&read_frame(recv, GREETING_BYTES_MAX).await.map_err(text)?).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
