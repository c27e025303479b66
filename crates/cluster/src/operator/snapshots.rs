//! What an actor has published of its state, for whoever asks: a node's reports hold none of it.

use std::sync::Arc;

use crrl_control::rights::Right;
use crrl_control::wire::Wire;
use crrl_types::actor::{SNAPSHOT_BYTES_MAX, SnapshotAnswer};
use crrl_types::{Outcome, Target};

use super::{REPLY_TIMEOUT, Who, orders};
use crate::peer::Shared;

/// Asks the actor's node.
pub(super) async fn ask(shared: &Arc<Shared>, who: &Who, target: Target) -> SnapshotAnswer {
    if !who.may(Right::Watch) {
        return SnapshotAnswer::none(Outcome::Denied, who.denied(Right::Watch));
    }
    let Target { node, actor } = target;
    let Some(actor) = actor else {
        let says = format!("{node} is a node, and an actor has a snapshot: write {node}/ACTOR");
        return SnapshotAnswer::none(Outcome::Unsupported, says);
    };
    let Ok(_place) = shared.desk.snapshots.try_acquire() else {
        let says = "too many snapshots are being asked for; try again in a moment";
        return SnapshotAnswer::none(Outcome::Busy, says);
    };
    let (number, answer) = shared.desk.expect_snapshot(&node);
    let peer = shared.peer(&node);
    let wanted = Wire::SnapshotWanted { id: number.id, actor };
    if let Err(error) = orders::cast(shared, peer.as_deref(), &node, wanted) {
        let answer = orders::undelivered(shared, &node, &error);
        return SnapshotAnswer { answer, snapshot: None };
    }
    match orders::answered(peer.as_deref(), &node, REPLY_TIMEOUT, answer).await {
        Ok(answer) if is_bounded(&answer) => answer,
        Ok(_) => {
            let says = format!("{node} sent more than {SNAPSHOT_BYTES_MAX} bytes, or none at all");
            SnapshotAnswer::none(Outcome::Unsupported, says)
        }
        Err(says) => SnapshotAnswer::none(Outcome::Busy, says),
    }
}

/// What nodes keep to, whoever made them.
fn is_bounded(answer: &SnapshotAnswer) -> bool {
    match &answer.snapshot {
        Some(snapshot) => {
            answer.answer.outcome.is_done() && snapshot.json.len() <= SNAPSHOT_BYTES_MAX
        }
        None => !answer.answer.outcome.is_done(),
    }
}
