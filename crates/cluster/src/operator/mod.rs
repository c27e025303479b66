//! Status and shutdown, for people's tools.
//!
//! A tool with the operator's certificate dials the coordinator. Each request is one stream: a JSON
//! frame there, a JSON frame back. Where what is looked at follows, it comes in pieces of the board
//! ([`crate::picture`]): whole at first, then what changed, never more than [`VIEW_BYTES_PER_S`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{Connection, encode, read_frame, write_frame};
use crrl_types::fault::Injection;
use crrl_types::{NodeName, Order, OrderAnswer, Outcome, TaskId, TraceRequest, Traced};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::mesh::roles_of;
use crate::peer::Shared;
use crate::picture::Cursor;
use crate::router::{Inbound, Receipt, Routed, Router};

mod client;

pub use client::{OperatorClient, OperatorError, Subscription, Trace};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 4096;
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
/// How long an order may take: a supervisor waits for an actor that is to stop, and then kills it.
const ORDER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Status,
    Subscribe,
    Stop { reason: String },
    Release { task: TaskId },
    Inject { node: NodeName, injection: Injection },
    Drain { node: NodeName },
    Order(Order),
    Trace(TraceRequest),
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
    /// What became of an order or a trace; where it was done, [`Traced`] follow a trace's.
    Answer(OrderAnswer),
}

/// A frame of a trace.
pub(crate) fn read_traced(frame: &[u8]) -> Result<Traced, String> {
    serde_json::from_slice(frame).map_err(|error| error.to_string())
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
        Ok(Request::Order(_) | Request::Trace(_)) => {
            let answer = OrderAnswer::new(Outcome::Unsupported, "not in this build");
            write_reply(&mut send, &Reply::Answer(answer)).await?;
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
