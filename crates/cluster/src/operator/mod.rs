//! Status, orders, traces and shutdown, for people's tools.
//!
//! A tool dials the coordinator with a certificate whose role says what it may do
//! ([`crrl_control::rights`]). Each request is one stream: a JSON frame there, a JSON frame back. Where
//! what is looked at follows, it comes in pieces of the board ([`crate::picture`]): whole at first, then
//! what changed, never more than [`VIEW_BYTES_PER_S`]; a trace comes in JSON frames.
//!
//! - `client`: the tool's end
//! - `orders`: what changes a run; each is written down ([`crate::order_log`])
//! - `traces`: messages as they come, until there was enough
//! - `snapshots`: what an actor has published of its state
//! - `desk`: what is under way to nodes

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crrl_control::rights::{Right, is_tool};
use crrl_control::wire::{NodeRole, Wire};
use crrl_transport::{Connection, read_frame, write_frame};
use crrl_types::actor::SnapshotAnswer;
use crrl_types::fault::Injection;
use crrl_types::{NodeName, Order, OrderAnswer, Target, TaskId, TraceRequest, Traced};
use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::join::next_stream;
use crate::mesh::{ROLES, role_text, roles_of};
use crate::peer::Shared;
use crate::picture::{Cursor, Form};

mod client;
pub(crate) mod desk;
mod orders;
mod snapshots;
mod traces;

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

/// What a tool asks. What is timed says how old things are (since protocol version 4); what is full also what
/// the board knows of the run, which coordinators of earlier builds of that version do not.
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
    Snapshot { target: Target },
    StatusTimed,
    SubscribeTimed,
    StatusFull,
    SubscribeFull,
}

impl Request {
    /// What the board is sent in, where it is asked for.
    fn form(&self) -> Form {
        match self {
            Self::StatusFull | Self::SubscribeFull => Form::Full,
            Self::StatusTimed | Self::SubscribeTimed => Form::Timed,
            _ => Form::Plain,
        }
    }

    fn is_look(&self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::Subscribe
                | Self::StatusTimed
                | Self::SubscribeTimed
                | Self::StatusFull
                | Self::SubscribeFull
        )
    }
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
    /// An actor's snapshot, or why there is none.
    Snapshot(SnapshotAnswer),
}

/// A frame of a trace.
pub(crate) fn read_traced(frame: &[u8]) -> Result<Traced, String> {
    serde_json::from_slice(frame).map_err(|error| error.to_string())
}

/// Who is at the other end, by the certificate.
#[derive(Debug, Clone)]
struct Who {
    name: NodeName,
    roles: Vec<NodeRole>,
}

impl Who {
    fn may(&self, right: Right) -> bool {
        right.is_of_any(&self.roles)
    }

    fn denied(&self, right: Right) -> String {
        let has: Vec<&str> = self.roles.iter().map(|role| role_text(*role)).collect();
        let gives = ROLES.into_iter().filter(|role| right.is_of(*role)).map(role_text);
        format!(
            "the certificate of {} is for {}, and this takes {}; `crrl tls issue NAME --role ROLE` \
             makes one",
            self.name,
            has.join(" and "),
            gives.collect::<Vec<_>>().join(" or ")
        )
    }
}

/// Answers the tool at the other end of a connection until it leaves.
pub(crate) async fn serve(shared: &Arc<Shared>, connection: &Connection) {
    let roles = roles_of(&connection.peer.roles);
    if !roles.iter().copied().any(is_tool) {
        return connection.close("the certificate is no viewer's, operator's or chaos tool's");
    }
    if !shared.roles.contains(&NodeRole::Coordinator) {
        return connection.close("this node is not the coordinator");
    }
    connection.quic.set_send_window(UNREAD_BYTES_MAX);
    let revocations = shared.endpoint.revocations();
    while let Some((send, recv)) = next_stream(connection, revocations).await {
        let shared = Arc::clone(shared);
        let who = Who { name: connection.peer.name.clone(), roles: roles.clone() };
        // QUIC bounds the streams a tool may have open.
        tokio::spawn(async move {
            if let Err(error) = answer(&shared, who, send, recv).await {
                tracing::debug!(error, "an operator's request ended early");
            }
        });
    }
}

async fn answer(
    shared: &Arc<Shared>,
    who: Who,
    mut send: SendStream,
    mut recv: RecvStream,
) -> Result<(), String> {
    let request = tokio::time::timeout(REPLY_TIMEOUT, read_frame(&mut recv, REQUEST_BYTES_MAX))
        .await
        .map_err(|_| "no request came".to_owned())?
        .map_err(|error| error.to_string())?;
    let request = serde_json::from_slice::<Request>(&request);
    let form = request.as_ref().map_or(Form::Plain, Request::form);
    match request {
        Ok(request) if request.is_look() && !who.may(Right::Watch) => {
            write_reply(&mut send, &Reply::Refused(who.denied(Right::Watch))).await?;
        }
        Ok(Request::Status | Request::StatusTimed | Request::StatusFull) => {
            write_reply(&mut send, &Reply::Board).await?;
            whole(shared, &mut send, &mut Cursor::default(), form).await?;
        }
        Ok(Request::Subscribe | Request::SubscribeTimed | Request::SubscribeFull) => {
            match shared.viewers.try_acquire() {
                Ok(_place) => {
                    write_reply(&mut send, &Reply::Board).await?;
                    view(shared, &who.name, &mut send, form).await?;
                }
                Err(_) => {
                    let says = format!(
                        "{VIEWERS_MAX} viewers watch this run already; end one of them and try again"
                    );
                    write_reply(&mut send, &Reply::Refused(says)).await?;
                }
            }
        }
        Ok(Request::Trace(request)) => traces::serve(shared, &who, request, &mut send).await?,
        Ok(Request::Snapshot { target }) => {
            let answer = snapshots::ask(shared, &who, target).await;
            write_reply(&mut send, &Reply::Snapshot(answer)).await?;
        }
        Ok(request) => {
            let reply = orders::reply(shared, &who, request).await;
            write_reply(&mut send, &reply).await?;
        }
        Err(error) => write_reply(&mut send, &Reply::Refused(error.to_string())).await?,
    }
    let _ = send.finish();
    Ok(())
}

/// Takes what nodes answer to orders, traces and questions, and what they say of themselves, if this is the
/// coordinator: an actor of it that hangs, its own included, keeps nobody from seeing that.
pub(crate) fn hear(shared: &Arc<Shared>) {
    if !shared.roles.contains(&NodeRole::Coordinator) {
        return;
    }
    let router = shared.router.clone();
    // The router is the mesh's own.
    let shared = Arc::downgrade(shared);
    let takes = |wire: &Wire| {
        matches!(
            wire,
            Wire::Ordered { .. }
                | Wire::Traced { .. }
                | Wire::Snapshot { .. }
                | Wire::Report(_)
                | Wire::Vitals { .. }
        )
    };
    router.register_fn("desk", takes, move |inbound| {
        let Some(shared) = shared.upgrade() else { return Err("leaving".into()) };
        match inbound.wire {
            Wire::Report(report) if report.node == inbound.from => shared.board.report(report),
            Wire::Report(_) => return Err("a report of another node".into()),
            Wire::Vitals { sent_us, activity_ms, vitals } => {
                shared.board.vitals(&inbound.from, sent_us, activity_ms, vitals);
            }
            Wire::Ordered { id, answer } => shared.desk.answered(&inbound.from, id, answer),
            Wire::Snapshot { id, answer } => shared.desk.shown(&inbound.from, id, *answer),
            Wire::Traced { id, traced } => {
                let is_last = matches!(traced, Traced::End(_));
                if !shared.desk.traced(&inbound.from, id, traced) && !is_last {
                    // Not from within the router.
                    tokio::spawn(async move { shared.cast(&inbound.from, Wire::TraceOff { id }) });
                }
            }
            _ => {}
        }
        Ok(())
    });
}

/// Sends the board as it is, at once.
async fn whole(
    shared: &Shared,
    send: &mut SendStream,
    cursor: &mut Cursor,
    form: Form,
) -> Result<(), String> {
    loop {
        let piece = cursor.next(&shared.board, WHOLE_PIECE_BYTES_MAX, 0, Instant::now());
        let piece = piece.map_err(text)?;
        write(send, &piece.encoded(form).map_err(text)?).await?;
        if piece.is_last() {
            return Ok(());
        }
    }
}

/// Sends the board, and then what changes on it, until the viewer leaves. One that does not read
/// misses pieces; one that has not read for [`REPLY_TIMEOUT`] is let go of.
async fn view(
    shared: &Shared,
    from: &NodeName,
    send: &mut SendStream,
    form: Form,
) -> Result<(), String> {
    let mut cursor = Cursor::default();
    whole(shared, send, &mut cursor, form).await?;
    let (mut skipped, mut skipped_ever) = (0, 0);
    loop {
        tokio::select! {
            () = tokio::time::sleep(PIECE_EVERY) => {}
            _ = send.stopped() => break,
            () = shared.stopped() => break,
        }
        let began = Instant::now();
        let piece = cursor.next(&shared.board, PIECE_BYTES_MAX, skipped, began).map_err(text)?;
        let piece = piece.encoded(form).map_err(text)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_build_does_not_know_is_refused_in_the_words_a_newer_tool_looks_for() {
        let refused = serde_json::from_slice::<Request>(b"\"status_of_tomorrow\"");
        let says = refused.expect_err("no build knows it").to_string();
        assert!(says.starts_with(client::UNKNOWN), "{says}");
        let text = serde_json::to_string(&Request::StatusTimed).expect("plain data has a text");
        assert_eq!(text, "\"status_timed\"");
    }
}
