//! What a node says of itself once a second, as metrics.

use crrl_control::wire::NodeReport;
use crrl_types::actor::ActorReport;
use metrics::{counter, gauge};

use crate::names;

/// Sets every metric that a report tells.
#[expect(clippy::cast_precision_loss, reason = "metrics are f64 everywhere")]
pub fn publish(report: &NodeReport) {
    gauge!(names::RESIDENT).set(report.rss_bytes as f64);
    gauge!(names::INCARNATION).set(report.incarnation as f64);
    gauge!(names::ADAPTER).set(report.adapter_version.0 as f64);
    gauge!(names::TOKEN_RATE).set(f64::from(report.tokens_per_s));
    gauge!(names::EPISODES_NOW).set(f64::from(report.episodes));
    let active = report.faults.iter().filter(|fault| fault.active).count();
    gauge!(names::FAULTS).set(active as f64);
    for actor in &report.actors {
        publish_actor(actor);
    }
}

/// Sets what the node has given to others of adapters: requests answered, bytes of whole adapters, bytes
/// of differences.
pub fn publish_given(fetches: u64, full_bytes: u64, delta_bytes: u64) {
    counter!(names::FETCHES).absolute(fetches);
    counter!(names::ADAPTER_BYTES, "kind" => "full").absolute(full_bytes);
    counter!(names::ADAPTER_BYTES, "kind" => "delta").absolute(delta_bytes);
}

#[expect(clippy::cast_precision_loss, reason = "metrics are f64 everywhere")]
fn publish_actor(actor: &ActorReport) {
    let name = || actor.name.clone();
    gauge!(names::MAILBOX, "actor" => name()).set(f64::from(actor.waiting));
    gauge!(names::MAILBOX_AGE, "actor" => name()).set(actor.oldest_ms as f64 / 1e3);
    counter!(names::HANDLED, "actor" => name()).absolute(actor.handled);
    gauge!(names::BUSY, "actor" => name()).set(actor.busy_ms as f64 / 1e3);
    counter!(names::RESTARTS, "actor" => name()).absolute(u64::from(actor.restarts));
    let at = actor.handling.as_ref().map_or(0, |(_, ms)| *ms);
    gauge!(names::HANDLING, "actor" => name()).set(at as f64 / 1e3);
}
