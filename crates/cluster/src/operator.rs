//! Status and shutdown, for people's tools.
//!
//! A tool with the operator's certificate dials the coordinator. Each request is one stream: a JSON
//! frame there, a JSON frame back. Where what is looked at follows, it comes in pieces of the board
//! ([`crate::picture`]): whole at first, then what changed, never more than [`VIEW_BYTES_PER_S`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{
    Connection, Credentials, DecodeError, Endpoint, NetThread, Options, Purpose, decode, encode,
    read_frame, write_frame,
};
use crrl_types::fault::Injection;
use crrl_types::{NodeName, TaskId};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::board::Snapshot;
use crate::mesh::roles_of;
use crate::peer::Shared;
use crate::picture::{Cursor, Picture, Piece};
use crate::router::{Inbound, Receipt, Routed, Router};
use crate::run_dir::{OPERATOR, RunDir};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 4096;
/// Longest reply.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Viewers that may be attached at once.
pub const VIEWERS_MAX: usize = 4;
/// What the changes of the board may cost one viewer, bytes a second. About 3,000 actors fit; of more,
/// each is shown anew less often than once a second.
pub const VIEW_BYTES_PER_S: usize = 256 << 10;
/// Time between two pieces of the board.
const PIECE_EVERY: Duration = Duration::from_millis(200);
/// A piece of the changes.
const PIECE_BYTES_MAX: usize = VIEW_BYTES_PER_S / 5;
/// A piece of the whole.
const WHOLE_PIECE_BYTES_MAX: usize = 1 << 20;
/// What is kept for a tool that does not read. Past it nothing more is written for it.
const UNREAD_BYTES_MAX: u64 = 512 << 10;
/// A coordinator that says nothing for this long is hung.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    Subscribe,
    Stop { reason: String },
    Release { task: TaskId },
    Inject { node: NodeName, injection: Injection },
    Drain { node: NodeName },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// Pieces of the board follow.
    Board,
    Stopping,
    Released,
    Injected,
    Draining,
    Refused(String),
}

/// Why a tool could not talk to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The run folder has no certificate or address to dial with.
    #[error("{0}; is this the folder of a run that `crrl cluster up` has started?")]
    NotARun(String),
    /// Nobody answers.
    #[error("the coordinator cannot be reached: {0}")]
    Unreachable(String),
    /// It answered, and not with what was asked for.
    #[error("the coordinator refused: {0}")]
    Refused(String),
}

/// Answers the tool at the other end of a connection until it leaves.
pub(crate) async fn serve(shared: &Arc<Shared>, connection: &Connection) {
    let roles = roles_of(&connection.peer.roles);
    let tool = |role: &NodeRole| matches!(role, NodeRole::Operator | NodeRole::Chaos);
    if !roles.iter().any(tool) {
        return connection.close("the certificate is not an operator's");
    }
    if !shared.roles.contains(&NodeRole::Coordinator) {
        return connection.close("this node is not the coordinator");
    }
    connection.quic.set_send_window(UNREAD_BYTES_MAX);
    while let Ok((send, recv)) = connection.quic.accept_bi().await {
        if shared.endpoint.revocations().contains(connection.fingerprint) {
            return connection.close("the certificate was revoked");
        }
        let shared = Arc::clone(shared);
        let (name, roles) = (connection.peer.name.clone(), roles.clone());
        // QUIC bounds the streams a tool may have open.
        tokio::spawn(async move {
            if let Err(error) = answer(&shared, name, &roles, send, recv).await {
                tracing::debug!(error, "an operator's request ended early");
            }
        });
    }
}

async fn answer(
    shared: &Shared,
    from: NodeName,
    roles: &[NodeRole],
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), String> {
    let request = tokio::time::timeout(REPLY_TIMEOUT, read_frame(&mut recv, REQUEST_BYTES_MAX))
        .await
        .map_err(|_| "no request came".to_owned())?
        .map_err(|error| error.to_string())?;
    match serde_json::from_slice(&request) {
        Ok(Request::Status) => {
            write_reply(&mut send, &Reply::Board).await?;
            whole(shared, &mut send, &mut Cursor::default()).await?;
        }
        Ok(Request::Subscribe) => match shared.viewers.try_acquire() {
            Ok(_place) => {
                write_reply(&mut send, &Reply::Board).await?;
                view(shared, &from, &mut send).await?;
            }
            Err(_) => {
                let says = format!(
                    "{VIEWERS_MAX} viewers watch this run already; end one of them and try again"
                );
                write_reply(&mut send, &Reply::Refused(says)).await?;
            }
        },
        Ok(Request::Stop { reason }) => {
            let wire = Wire::Stop { reason };
            let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
            let reply = match shared.router.route(inbound) {
                Routed::Delivered(_) | Routed::Held => Reply::Stopping,
                Routed::Refused => Reply::Refused(denied(roles)),
                Routed::Unrouted => {
                    Reply::Refused("the coordinator is not ready to stop yet".into())
                }
            };
            write_reply(&mut send, &reply).await?;
        }
        Ok(Request::Release { task }) => {
            let wire = Wire::Release { task };
            let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
            let reply = match shared.router.route(inbound) {
                Routed::Delivered(_) | Routed::Held => Reply::Released,
                Routed::Refused => Reply::Refused(denied(roles)),
                Routed::Unrouted => Reply::Refused("the coordinator is not ready yet".into()),
            };
            write_reply(&mut send, &reply).await?;
        }
        Ok(Request::Inject { node, injection }) => {
            let wire = Wire::Inject(injection);
            let reply = if !Router::allows(&wire, roles) {
                Reply::Refused(denied(roles))
            } else {
                tracing::warn!(by = %from, to = %node, ?injection, "a fault is injected");
                inject(shared, from, roles, &node, wire)
            };
            write_reply(&mut send, &reply).await?;
        }
        Ok(Request::Drain { node }) => {
            let reply = match shared.peer(&node) {
                _ if !Router::allows(&Wire::Drain, roles) => Reply::Refused(denied(roles)),
                None => Reply::Refused(format!("{node} is not connected")),
                Some(peer) => match peer.cast(Wire::Drain) {
                    Ok(()) => Reply::Draining,
                    Err(error) => Reply::Refused(error.to_string()),
                },
            };
            tracing::info!(by = %from, %node, ?reply, "a node is to take no more work");
            write_reply(&mut send, &reply).await?;
        }
        Err(error) => write_reply(&mut send, &Reply::Refused(error.to_string())).await?,
    }
    let _ = send.finish();
    Ok(())
}

fn denied(roles: &[NodeRole]) -> String {
    format!("a certificate for {roles:?} does not allow it")
}

fn inject(
    shared: &Shared,
    from: NodeName,
    roles: &[NodeRole],
    node: &NodeName,
    wire: Wire,
) -> Reply {
    if *node == shared.options.name {
        let inbound = Inbound { from, roles: roles.to_vec(), wire, receipt: Receipt::none() };
        return match shared.router.route(inbound) {
            Routed::Delivered(_) | Routed::Held => Reply::Injected,
            Routed::Refused | Routed::Unrouted => {
                Reply::Refused("this node takes no faults".into())
            }
        };
    }
    match shared.peer(node).map(|peer| peer.cast(wire)) {
        Some(Ok(())) => Reply::Injected,
        Some(Err(error)) => Reply::Refused(error.to_string()),
        None => Reply::Refused(format!("{node} is not connected")),
    }
}

/// Sends the board as it is, at once.
async fn whole(shared: &Shared, send: &mut SendStream, cursor: &mut Cursor) -> Result<(), String> {
    loop {
        let piece = cursor.next(&shared.board, WHOLE_PIECE_BYTES_MAX, 0).map_err(text)?;
        write(send, &encode(&piece).map_err(text)?).await?;
        if piece.is_last() {
            return Ok(());
        }
    }
}

/// Sends the board, and then what changes on it, until the viewer leaves. One that does not read
/// misses pieces; one that has not read for [`REPLY_TIMEOUT`] is let go of.
async fn view(shared: &Shared, from: &NodeName, send: &mut SendStream) -> Result<(), String> {
    let mut cursor = Cursor::default();
    whole(shared, send, &mut cursor).await?;
    let (mut skipped, mut skipped_ever) = (0, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PIECE_EVERY) => {}
            _ = send.stopped() => break,
            () = shared.stopped() => break,
        }
        let began = Instant::now();
        let piece = cursor.next(&shared.board, PIECE_BYTES_MAX, skipped).map_err(text)?;
        let piece = encode(&piece).map_err(text)?;
        let written = write(send, &piece).await;
        shared.viewer_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        skipped = began.elapsed().div_duration_f64(PIECE_EVERY) as u64;
        skipped_ever += skipped;
        if let Err(error) = written {
            tracing::info!(viewer = %from, skipped = skipped_ever, error, "a viewer is let go of");
            return Err(error);
        }
    }
    tracing::debug!(viewer = %from, skipped = skipped_ever, "a viewer has left");
    Ok(())
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn write_reply(send: &mut SendStream, reply: &Reply) -> Result<(), String> {
    write(send, &serde_json::to_vec(reply).map_err(text)?).await
}

async fn write(send: &mut SendStream, frame: &[u8]) -> Result<(), String> {
    tokio::time::timeout(REPLY_TIMEOUT, write_frame(send, frame))
        .await
        .map_err(|_| "the operator does not read".to_owned())?
        .map_err(|error| error.to_string())
}

/// A tool's connection to the coordinator of a run.
#[derive(Debug)]
pub struct OperatorClient {
    connection: Connection,
    endpoint: Endpoint,
}

impl OperatorClient {
    /// Dials the coordinator of a run with the operator's certificate of its folder.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect(run: &RunDir) -> Result<Self, OperatorError> {
        Self::connect_as(run, OPERATOR).await
    }

    /// Dials the coordinator of a run with this certificate of its folder.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect_as(run: &RunDir, who: &str) -> Result<Self, OperatorError> {
        let net =
            NetThread::start(who).map_err(|error| OperatorError::Unreachable(error.to_string()))?;
        Self::connect_over(&net, run, who).await
    }

    /// As [`OperatorClient::connect_as`], with QUIC on a thread that is there already.
    ///
    /// # Errors
    /// [`OperatorError`], within a few seconds.
    pub async fn connect_over(
        net: &NetThread,
        run: &RunDir,
        who: &str,
    ) -> Result<Self, OperatorError> {
        let not_a_run = |error: &dyn std::fmt::Display| OperatorError::NotARun(error.to_string());
        let config = run.config().map_err(|e| not_a_run(&e))?;
        let nodes = config.nodes();
        let coordinator = nodes
            .iter()
            .find(|node| node.roles.contains(&crrl_config::Role::Coordinator))
            .ok_or_else(|| not_a_run(&"no node is the coordinator"))?;
        let name = NodeName::from(coordinator.name.as_str());
        let addresses = run.dialled().map_err(|e| not_a_run(&e))?;
        let address = *addresses
            .get(&name)
            .ok_or_else(|| not_a_run(&format!("nobody knows where {name} listens")))?;
        let credentials = Credentials::load(&run.tls(), &who.into()).map_err(|e| not_a_run(&e))?;
        let unreachable =
            |error: &dyn std::fmt::Display| OperatorError::Unreachable(error.to_string());
        let endpoint = Endpoint::bind(net, &credentials, None, Options::default())
            .map_err(|e| unreachable(&e))?;
        let connection =
            endpoint.dial(&name, address, Purpose::Operator).await.map_err(|e| unreachable(&e))?;
        Ok(Self { connection, endpoint })
    }

    /// What the run looks like right now.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn status(&self) -> Result<Snapshot, OperatorError> {
        let mut recv = self.request(&Request::Status).await?;
        expect_board(&mut recv).await?;
        let mut picture = Picture::default();
        read_whole(&mut recv, &mut picture).await?;
        Ok(picture.snapshot())
    }

    /// What the run looks like, about five times a second. At most [`VIEWERS_MAX`] may ask for that.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn subscribe(&self) -> Result<Subscription, OperatorError> {
        let mut recv = self.request(&Request::Subscribe).await?;
        expect_board(&mut recv).await?;
        let mut picture = Picture::default();
        read_whole(&mut recv, &mut picture).await?;
        Ok(Subscription { recv, picture, is_fresh: true })
    }

    /// Asks the coordinator to end the run. It answers at once; nodes leave in their own time.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn stop(&self, reason: &str) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Stop { reason: reason.to_owned() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Stopping => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Lets a task out of quarantine.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn release(&self, task: &TaskId) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Release { task: task.clone() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Released => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Asks a rollout node to finish what it has and to take no more, until it is restarted.
    ///
    /// # Errors
    /// [`OperatorError`]: the node is not connected.
    pub async fn drain(&self, node: &NodeName) -> Result<(), OperatorError> {
        let mut recv = self.request(&Request::Drain { node: node.clone() }).await?;
        match read_reply(&mut recv).await? {
            Reply::Draining => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Makes something go wrong in a node. Needs a certificate with the chaos role.
    ///
    /// # Errors
    /// [`OperatorError`]: not allowed, or the node is not connected.
    pub async fn inject(&self, node: &NodeName, injection: Injection) -> Result<(), OperatorError> {
        let request = Request::Inject { node: node.clone(), injection };
        let mut recv = self.request(&request).await?;
        match read_reply(&mut recv).await? {
            Reply::Injected => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Leaves.
    pub async fn close(self) {
        self.endpoint.close("done").await;
    }

    async fn request(&self, request: &Request) -> Result<RecvStream, OperatorError> {
        let unreachable =
            |error: &dyn std::fmt::Display| OperatorError::Unreachable(error.to_string());
        let json = serde_json::to_vec(request).map_err(|e| unreachable(&e))?;
        let (mut send, recv) = self.connection.quic.open_bi().await.map_err(|e| unreachable(&e))?;
        write_frame(&mut send, &json).await.map_err(|e| unreachable(&e))?;
        let _ = send.finish();
        Ok(recv)
    }
}

/// Snapshots as they come.
#[derive(Debug)]
pub struct Subscription {
    recv: RecvStream,
    picture: Picture,
    /// Whether what is there was not handed out yet.
    is_fresh: bool,
}

impl Subscription {
    /// The next one.
    ///
    /// # Errors
    /// The coordinator has left, or hangs.
    pub async fn next(&mut self) -> Result<Snapshot, OperatorError> {
        if !std::mem::take(&mut self.is_fresh) {
            read_piece(&mut self.recv, &mut self.picture).await?;
        }
        Ok(self.picture.snapshot())
    }

    /// Pieces that were due while this was not read: the coordinator did not send them.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.picture.skipped
    }
}

async fn expect_board(recv: &mut RecvStream) -> Result<(), OperatorError> {
    match read_reply(recv).await? {
        Reply::Board => Ok(()),
        other => Err(unexpected(other)),
    }
}

async fn read_whole(recv: &mut RecvStream, picture: &mut Picture) -> Result<(), OperatorError> {
    while !read_piece(recv, picture).await? {}
    Ok(())
}

/// Adds a piece; whether it was the last for now.
async fn read_piece(recv: &mut RecvStream, picture: &mut Picture) -> Result<bool, OperatorError> {
    let refused = |error: DecodeError| OperatorError::Refused(error.to_string());
    let piece: Piece = decode(&read(recv).await?).map_err(refused)?;
    let is_last = piece.is_last();
    picture.add(piece).map_err(refused)?;
    Ok(is_last)
}

async fn read_reply(recv: &mut RecvStream) -> Result<Reply, OperatorError> {
    let frame = read(recv).await?;
    serde_json::from_slice(&frame).map_err(|error| OperatorError::Refused(error.to_string()))
}

async fn read(recv: &mut RecvStream) -> Result<Vec<u8>, OperatorError> {
    tokio::time::timeout(REPLY_TIMEOUT, read_frame(recv, REPLY_BYTES_MAX))
        .await
        .map_err(|_| OperatorError::Unreachable("it did not answer in time".into()))?
        .map_err(|error| OperatorError::Unreachable(error.to_string()))
}

fn unexpected(reply: Reply) -> OperatorError {
    OperatorError::Refused(match reply {
        Reply::Refused(reason) => reason,
        other => format!("it answered {other:?}"),
    })
}
