//! What changes a run: orders to nodes and actors, faults, the end of the run. Each is written down,
//! allowed or refused, before it is carried out.

use std::sync::Arc;
use std::time::Duration;

use crrl_control::rights::Right;
use crrl_control::wire::Wire;
use crrl_types::deed::FAULT;
use crrl_types::{Action, NodeName, Order, OrderAnswer, Outcome, Target};
use tokio::sync::oneshot;

use super::{ORDER_TIMEOUT, Reply, Request, Who};
use crate::aside;
use crate::host::{self, HostError};
use crate::mesh::{CastError, role_text};
use crate::order_log::Asked;
use crate::peer::{Peer, Shared};
use crate::router::{Inbound, Receipt, Routed};

/// Time between two refusals, so that nobody fills the log with them.
const REFUSE_EVERY: Duration = Duration::from_millis(250);
/// What ends this process is done a moment after it was answered.
const ANSWER_FIRST: Duration = Duration::from_millis(200);
/// Names that are told where another is not known.
const NAMES_MAX: usize = 20;

/// Carries a request out that changes something.
pub(super) async fn reply(shared: &Arc<Shared>, who: &Who, request: Request) -> Reply {
    let by_tool = |wire: Wire| Inbound {
        from: who.name.clone(),
        roles: who.roles.clone(),
        wire,
        receipt: Receipt::none(),
    };
    let (answer, done) = match request {
        Request::Order(order) => return Reply::Answer(give(shared, who, order).await),
        Request::Drain { node } => {
            let order = Order { target: Target::node(node), action: Action::Drain };
            (give(shared, who, order).await, Reply::Draining)
        }
        Request::Stop { reason } => {
            let asked = asked(who, "stop-run", "the run".into(), reason.clone());
            let work = async { to_coordinator(shared, by_tool(Wire::Stop { reason })) };
            // A run can be ended on a full disk.
            (noted(shared, who, Right::Control, (asked, false), work).await, Reply::Stopping)
        }
        Request::Release { task } => {
            let asked = asked(who, "release", task.to_string(), String::new());
            let work = async { to_coordinator(shared, by_tool(Wire::Release { task })) };
            (noted(shared, who, Right::Control, (asked, true), work).await, Reply::Released)
        }
        Request::Inject { node, injection } => {
            let wire = if injection.lifts() {
                Wire::Lift { id: injection.id }
            } else {
                Wire::Inject(injection)
            };
            let asked = asked(who, FAULT, node.to_string(), injection.to_string());
            let work = async { inject(shared, by_tool(wire), &node) };
            // A fault can be lifted on a full disk: it may be the fault.
            let must_be_noted = !injection.lifts();
            (noted(shared, who, Right::Fault, (asked, must_be_noted), work).await, Reply::Injected)
        }
        Request::Status
        | Request::Subscribe
        | Request::StatusTimed
        | Request::SubscribeTimed
        | Request::StatusFull
        | Request::SubscribeFull
        | Request::Trace(_)
        | Request::Snapshot { .. } => {
            return Reply::Refused("nothing to carry out".into());
        }
    };
    if answer.outcome.is_done() { done } else { Reply::Refused(answer.says) }
}

fn asked(who: &Who, operation: &'static str, target: String, detail: String) -> Asked {
    let roles = who.roles.iter().map(|role| role_text(*role).to_owned()).collect();
    Asked { who: who.name.clone(), roles, operation, target, detail }
}

async fn give(shared: &Arc<Shared>, who: &Who, order: Order) -> OrderAnswer {
    let detail = match &order.action {
        Action::Log { filter, for_ms: Some(ms) } => format!("{filter:?} for {ms} ms"),
        Action::Log { filter, for_ms: None } => format!("{filter:?}"),
        _ => String::new(),
    };
    let asked = asked(who, order.action.word(), order.target.to_string(), detail);
    let work = carry_out(shared, &who.name, order);
    noted(shared, who, Right::Control, (asked, true), work).await
}

/// Does what the certificate allows, and writes down what was asked and what came of it. What must be
/// noted is not done where it cannot be.
async fn noted(
    shared: &Shared,
    who: &Who,
    right: Right,
    (asked, must_be_noted): (Asked, bool),
    work: impl Future<Output = OrderAnswer>,
) -> OrderAnswer {
    let desk = &shared.desk;
    if !who.may(right) {
        let answer = OrderAnswer::new(Outcome::Denied, who.denied(right));
        let _turn = desk.refusals.lock().await;
        note(shared, None, &asked, &answer).await;
        tokio::time::sleep(REFUSE_EVERY).await;
        return answer;
    }
    let Ok(_place) = desk.orders.try_acquire() else {
        let says = "too many orders are being carried out; try again in a moment";
        let answer = OrderAnswer::new(Outcome::Busy, says);
        note(shared, None, &asked, &answer).await;
        return answer;
    };
    let id = match desk.log.asked(&asked).await {
        Ok(id) => Some(id),
        Err(error) if must_be_noted => {
            let says = format!(
                "it was not done, because it cannot be written to {}: {error}",
                shared.run().orders().display()
            );
            return OrderAnswer::new(Outcome::Busy, says);
        }
        Err(_) => None,
    };
    let answer = work.await;
    note(shared, id, &asked, &answer).await;
    answer
}

async fn note(shared: &Shared, id: Option<u64>, asked: &Asked, answer: &OrderAnswer) {
    let Asked { who, operation, target, detail, .. } = asked;
    let (outcome, says) = (answer.outcome.word(), &answer.says);
    tracing::warn!(by = %who, operation, target, detail, outcome, says, "an order");
    if let Err(error) = shared.desk.log.answered(id, asked, answer).await {
        tracing::error!(%error, "the outcome of an order was not written down");
    }
}

fn to_coordinator(shared: &Shared, inbound: Inbound) -> OrderAnswer {
    match shared.router.route(inbound) {
        Routed::Delivered(_) | Routed::Held => OrderAnswer::new(Outcome::Done, ""),
        Routed::Refused => OrderAnswer::new(Outcome::Denied, "the certificate does not allow it"),
        Routed::Unrouted => OrderAnswer::new(Outcome::Busy, "the coordinator is not ready yet"),
    }
}

fn inject(shared: &Shared, inbound: Inbound, node: &NodeName) -> OrderAnswer {
    if *node == shared.options.name {
        return to_coordinator(shared, inbound);
    }
    match shared.peer(node).map(|peer| peer.cast(inbound.wire)) {
        Some(Ok(())) => OrderAnswer::new(Outcome::Done, ""),
        Some(Err(error)) => OrderAnswer::new(Outcome::Busy, error.to_string()),
        None => absent(shared, node),
    }
}

async fn carry_out(shared: &Arc<Shared>, by: &NodeName, order: Order) -> OrderAnswer {
    let node = order.target.node.clone();
    let is_here = node == shared.options.name;
    match (&order.target.actor, &order.action) {
        (None, Action::Restart) => return restart(shared, &node).await,
        (None, Action::Stop) if is_here => {
            let says = "the run ends with its coordinator; `crrl cluster down` ends the run";
            return OrderAnswer::new(Outcome::Unsupported, says);
        }
        _ => {}
    }
    let action = order.action.clone();
    let by = by.clone();
    let cast = send(shared, &node, |id| Wire::Order { id, by, order }).await;
    match cast {
        Err(CastError::TooOld(_)) if action == Action::Drain => drain_old(shared, &node),
        Err(error) => undelivered(shared, &node, &error),
        Ok(answer) => answer,
    }
}

/// Sends something to a node under a number and waits for its answer.
async fn send(
    shared: &Shared,
    node: &NodeName,
    wire: impl FnOnce(u64) -> Wire,
) -> Result<OrderAnswer, CastError> {
    let (number, answer) = shared.desk.expect(node);
    let peer = shared.peer(node);
    cast(shared, peer.as_deref(), node, wire(number.id))?;
    Ok(answered(peer.as_deref(), node, ORDER_TIMEOUT, answer).await.unwrap_or_else(|says| {
        OrderAnswer::new(Outcome::Busy, format!("{says}; it may have done it, or do it yet"))
    }))
}

/// Sends over the connection whose loss is waited for, or to this node itself.
pub(super) fn cast(
    shared: &Shared,
    peer: Option<&Peer>,
    node: &NodeName,
    wire: Wire,
) -> Result<(), CastError> {
    match peer {
        Some(peer) => peer.cast(wire),
        None => shared.cast(node, wire),
    }
}

/// What a node answers that was asked over its connection of then; or, in words, why it does not.
pub(super) async fn answered<T>(
    peer: Option<&Peer>,
    node: &NodeName,
    within: Duration,
    answer: oneshot::Receiver<T>,
) -> Result<T, String> {
    let lost = async {
        match peer {
            Some(peer) => peer.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = tokio::time::timeout(within, answer) => match answer {
            Ok(Ok(answer)) => Ok(answer),
            _ => Err(format!("{node} has not answered for {} s", within.as_secs())),
        },
        why = lost => Err(format!("{node} was lost before it answered: {why}")),
    }
}

/// A node of the build before knows no orders; it knows this one by another name.
fn drain_old(shared: &Shared, node: &NodeName) -> OrderAnswer {
    match shared.cast(node, Wire::Drain) {
        Ok(()) => OrderAnswer::new(Outcome::Done, format!("{node} takes no more work")),
        Err(error) => undelivered(shared, node, &error),
    }
}

/// Why a node was not even asked.
pub(super) fn undelivered(shared: &Shared, node: &NodeName, error: &CastError) -> OrderAnswer {
    match error {
        CastError::NotConnected(_) => absent(shared, node),
        CastError::Congested(_) => OrderAnswer::new(Outcome::Busy, error.to_string()),
        CastError::TooOld(_) | CastError::Encode(_) | CastError::Unrouted => {
            OrderAnswer::new(Outcome::Unsupported, error.to_string())
        }
    }
}

fn absent(shared: &Shared, node: &NodeName) -> OrderAnswer {
    let mut names = vec![shared.options.name.to_string()];
    names.extend(shared.peer_infos().into_iter().map(|peer| peer.name.to_string()));
    names.truncate(NAMES_MAX);
    let says = format!("no node {node} is connected; there are {}", names.join(", "));
    OrderAnswer::new(Outcome::Absent, says)
}

/// A node cannot start itself again: the host that watches it does.
async fn restart(shared: &Arc<Shared>, node: &NodeName) -> OrderAnswer {
    let run = shared.run();
    let unsupported = |says: String| OrderAnswer::new(Outcome::Unsupported, says);
    let known = host::state(&run).ok().and_then(|state| {
        state.nodes.into_iter().find(|held| held.name == node.as_str() && !held.retired)
    });
    let is_there = *node == shared.options.name || shared.peer(node).is_some();
    match (host::host_pid(&run), known) {
        (Ok(Some(_)), Some(_)) => {}
        (_, _) if is_there => {
            return unsupported(format!(
                "no host on the coordinator's machine watches {node}: whoever started it has to \
                 start it again"
            ));
        }
        _ => return absent(shared, node),
    }
    let says = format!("{node} leaves and is started again by its host");
    if *node == shared.options.name {
        let node = node.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_FIRST).await;
            let _ = aside(move || host::restart(&run, node.as_str())).await;
        });
        return OrderAnswer::new(Outcome::Done, says);
    }
    let name = node.clone();
    let asking = aside(move || host::restart(&run, name.as_str()));
    match tokio::time::timeout(ORDER_TIMEOUT, asking).await {
        Ok(Some(Ok(true))) => OrderAnswer::new(Outcome::Done, says),
        Ok(Some(Ok(false))) => unsupported("the host has ended".into()),
        Ok(Some(Err(error @ HostError::Deaf { .. }))) => {
            OrderAnswer::new(Outcome::Busy, error.to_string())
        }
        Ok(Some(Err(error))) => unsupported(error.to_string()),
        Ok(None) | Err(_) => OrderAnswer::new(Outcome::Busy, "the host has not answered"),
    }
}
