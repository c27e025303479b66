//! Every metric: name, kind, unit, labels, meaning. `docs/METRICS.md` holds this very table.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// As it is now.
    Gauge,
    /// A distribution: quantiles, sum and count.
    Histogram,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its unit; none for a bare number.
    pub unit: Option<Unit>,
    /// Its labels, in words; empty without.
    pub labels: &'static str,
    /// What it tells.
    pub tells: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:expr, $labels:literal, $tells:literal;)*) => {
        $(#[doc = $tells] pub const $constant: &str = $name;)*

        /// All of them, sorted by who counts.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, unit: $unit, labels: $labels, tells: $tells,
        }),*];
    };
}

metrics_table! {
    // Every node.
    RESIDENT = "crrl_resident_memory_bytes", Gauge, Some(Unit::Bytes), "", "Resident memory of the process";
    INCARNATION = "crrl_node_incarnation", Gauge, None, "", "Which life of the node this is";
    ADAPTER = "crrl_adapter_version", Gauge, None, "", "Adapter the node serves, published last or trains";
    TOKEN_RATE = "crrl_tokens_per_second", Gauge, None, "", "Tokens sampled or trained on, over the last few seconds";
    EPISODES_NOW = "crrl_episodes_in_flight", Gauge, None, "", "Episodes under way in the node (coordinator: handed out)";
    MAILBOX = "crrl_actor_mailbox_messages", Gauge, None, "actor", "Messages that wait for an actor";
    MAILBOX_AGE = "crrl_actor_mailbox_age_seconds", Gauge, Some(Unit::Seconds), "actor", "How long the oldest of them has waited";
    HANDLED = "crrl_actor_messages_total", Counter, None, "actor", "Messages an actor has handled";
    BUSY = "crrl_actor_busy_seconds", Gauge, Some(Unit::Seconds), "actor", "Time an actor has spent handling messages, since the node started";
    HANDLING = "crrl_actor_handling_seconds", Gauge, Some(Unit::Seconds), "actor", "How long it has been at its present message; 0 between two";
    RESTARTS = "crrl_actor_restarts_total", Counter, None, "actor", "How often an actor was started again";
    FAULTS = "crrl_faults_active", Gauge, None, "", "Faults injected into the node and not over";
    ADAPTER_BYTES = "crrl_adapter_sent_bytes_total", Counter, Some(Unit::Bytes), "kind", "Bytes of adapters the node gave to others: full, or delta";
    FETCHES = "crrl_adapter_fetches_total", Counter, None, "", "Requests for an adapter's chunks that the node answered, as server or relay";
    // Coordinator.
    EVENTS = "crrl_run_events_total", Counter, None, "event", "Lines of the run's history, by what happened";
    REWARD = "crrl_episode_reward", Histogram, None, "", "Total reward of attempts as they come back";
    STEP = "crrl_step", Gauge, None, "", "Optimizer steps committed";
    TRACES = "crrl_traces_total", Counter, None, "end", "Traces of episodes and steps: sent to the collector, or dropped";
    STEP_METRIC = "crrl_step_metric", Gauge, None, "name", "Numbers of the last optimizer step, the learner's and the coordinator's";
    // Parameter server.
    PUBLISHED = "crrl_adapters_published_total", Counter, None, "", "Adapters published";
    REFUSED = "crrl_adapters_refused_total", Counter, None, "", "Adapters of the learner that were not taken";
    OFFERS = "crrl_adapter_offers_total", Counter, None, "from", "Offers to engines: to fetch from the server, or from a relay";
    FETCHES_FAILED = "crrl_adapter_fetches_failed_total", Counter, None, "", "Fetches that engines say have failed";
    ACTIVATED_TIME = "crrl_adapter_all_activated_seconds", Histogram, Some(Unit::Seconds), "", "From an adapter's publication until every engine there serves it";
    // Rollout nodes.
    EPISODES = "crrl_episodes_total", Counter, None, "end", "Episodes that ended in the node: finished or failed";
    EPISODE_TIME = "crrl_episode_seconds", Histogram, Some(Unit::Seconds), "", "Wall time of an episode, from its sandbox to its reward";
    TURNS = "crrl_episode_turns", Histogram, None, "", "Turns of an episode";
    TOKENS = "crrl_generated_tokens_total", Counter, None, "", "Tokens sampled in episodes";
    TOOL_CALLS = "crrl_tool_calls_total", Counter, None, "tool, ok", "Tool calls made";
    TOOL_TIME = "crrl_tool_seconds", Histogram, Some(Unit::Seconds), "tool", "Wall time of a tool call";
    PLACES_TIME = "crrl_episode_wait_seconds", Histogram, Some(Unit::Seconds), "", "Wait of an episode for its sandbox and its place in the engine";
    ACTIVATIONS = "crrl_adapter_activations_total", Counter, None, "ok", "Adapters the engine took, or refused";
    ACTIVATION_TIME = "crrl_adapter_activation_seconds", Histogram, Some(Unit::Seconds), "", "From an adapter's offer to its being served";
    // Learner.
    STEP_TIME = "crrl_step_seconds", Histogram, Some(Unit::Seconds), "", "Wall time of an optimizer step, its checkpoint included";
}

/// Tells whatever exports metrics what each of them means.
pub fn describe() {
    for Metric { name, kind, unit, tells, .. } in TABLE {
        let unit = unit.unwrap_or(Unit::Count);
        match kind {
            Kind::Counter => describe_counter!(*name, unit, *tells),
            Kind::Gauge => describe_gauge!(*name, unit, *tells),
            Kind::Histogram => describe_histogram!(*name, unit, *tells),
        }
    }
}

/// The table in Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| metric | kind | labels | tells |\n|---|---|---|---|\n");
    for Metric { name, kind, labels, tells, .. } in TABLE {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "summary",
        };
        text += &format!("| `{name}` | {kind} | {labels} | {tells} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
        let text = std::fs::read_to_string(path).expect("docs/METRICS.md");
        assert!(text.contains(&markdown()), "docs/METRICS.md should hold:\n{}", markdown());
    }

    #[test]
    fn names_say_their_unit_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for Metric { name, kind, unit, .. } in TABLE {
            assert!(seen.insert(*name), "{name} twice");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            match unit {
                Some(Unit::Seconds) => assert!(name.contains("_seconds"), "{name}"),
                Some(Unit::Bytes) => assert!(name.contains("_bytes"), "{name}"),
                _ => {}
            }
        }
    }
}
