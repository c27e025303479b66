//! Messages as they come to an actor, for whoever traces it, until there was enough of them. A trace
//! dies with its stream; its node is told, and ends it by itself where it is not.

use std::sync::Arc;
use std::time::Duration;

use crrl_control::rights::Right;
use crrl_control::trace::TraceFilter;
use crrl_control::wire::Wire;
use crrl_types::{NodeName, OrderAnswer, Outcome, TraceEnd, TraceRequest, TraceStop, Traced};
use quinn::SendStream;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep_until};

use super::{REPLY_TIMEOUT, Reply, Who, orders, text, write, write_reply};
use crate::mesh::MeshEvent;
use crate::peer::Shared;

/// How much longer than its time a trace may go on whose node has fallen silent.
const GRACE: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    shared: &Arc<Shared>,
    who: &Who,
    request: TraceRequest,
    send: &mut SendStream,
) -> Result<(), String> {
    let refuse = |outcome, says: String| Reply::Answer(OrderAnswer::new(outcome, says));
    if !who.may(Right::Trace) {
        return write_reply(send, &refuse(Outcome::Denied, who.denied(Right::Trace))).await;
    }
    if let Err(says) = TraceFilter::parse(&request.filter) {
        return write_reply(send, &refuse(Outcome::Unsupported, says)).await;
    }
    let Ok(_place) = shared.desk.traces.try_acquire() else {
        let says = "too many traces go on; end one of them and try again".to_owned();
        return write_reply(send, &refuse(Outcome::Busy, says)).await;
    };
    let (request, is_cut) = request.bounded();
    let node = request.target.node.clone();
    // Before the node is asked: a node that is lost in between is seen to be.
    let events = shared.events.subscribe();
    let (number, answer) = shared.desk.expect(&node);
    let seen = number.traces(&node);
    let peer = shared.peer(&node);
    let ttl = Duration::from_millis(request.ttl_ms);
    let says = format!(
        "{} is traced: at most {} events, {} a second, for {} s",
        request.target,
        request.max_count,
        request.max_rate,
        ttl.as_secs_f64()
    );
    let wanted = Wire::Trace { id: number.id, request };
    if let Err(error) = orders::cast(shared, peer.as_deref(), &node, wanted) {
        let answer = orders::undelivered(shared, &node, &error);
        return write_reply(send, &Reply::Answer(answer)).await;
    }
    let answer = match orders::answered(peer.as_deref(), &node, REPLY_TIMEOUT, answer).await {
        Ok(answer) if answer.outcome.is_done() && is_cut => {
            OrderAnswer::new(Outcome::Truncated, format!("{says}; more was asked for"))
        }
        Ok(answer) if answer.outcome.is_done() => OrderAnswer::new(Outcome::Done, says),
        Ok(answer) => answer,
        Err(why) => OrderAnswer::new(Outcome::Busy, why),
    };
    let is_begun = answer.outcome.is_done();
    let mut session =
        Session { node: node.clone(), seen, events, over_at: Instant::now() + ttl + GRACE };
    let shown = match write_reply(send, &Reply::Answer(answer)).await {
        Ok(()) if is_begun => session.show(shared, send).await,
        other => other.map(|()| true),
    };
    // The node has ended it only where it said so.
    if !matches!(shown, Ok(true)) || !is_begun {
        let _ = shared.cast(&node, Wire::TraceOff { id: number.id });
    }
    shown.map(drop)
}

struct Session {
    node: NodeName,
    seen: tokio::sync::mpsc::Receiver<Traced>,
    events: broadcast::Receiver<MeshEvent>,
    over_at: Instant,
}

impl Session {
    /// Sends what is seen until the trace is over; whether its node said so.
    async fn show(&mut self, shared: &Shared, send: &mut SendStream) -> Result<bool, String> {
        let mut events = 0;
        let why = loop {
            let seen = tokio::select! {
                seen = self.seen.recv() => seen,
                event = self.events.recv() => match event {
                    Ok(MeshEvent::PeerDown { name, .. }) if name == self.node => {
                        break TraceStop::Gone;
                    }
                    _ => continue,
                },
                () = sleep_until(self.over_at) => break TraceStop::Time,
                _ = send.stopped() => return Ok(false),
                () = shared.stopped() => break TraceStop::Gone,
            };
            // What did not fit was not kept.
            let Some(seen) = seen else { break TraceStop::Unread };
            if let Traced::Events(more) = &seen {
                events += more.len() as u64;
            }
            write(send, &serde_json::to_vec(&seen).map_err(text)?).await?;
            if matches!(seen, Traced::End(_)) {
                return Ok(true);
            }
        };
        let end = Traced::End(TraceEnd { why, events });
        write(send, &serde_json::to_vec(&end).map_err(text)?).await?;
        Ok(false)
    }
}
