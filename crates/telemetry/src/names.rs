//! Every metric: name, kind, unit, labels, meaning; and the numbers of a step. `docs/METRICS.md` holds these very
//! tables.

use crrl_types::step_metric::{STEP_METRICS, StepMetric};
use metrics::{describe_counter, describe_gauge, describe_histogram};

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

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A bare number.
    Bare,
    /// Of a time.
    Seconds,
    /// Of memory, or of what is sent.
    Bytes,
    /// From 0 to 1.
    Share,
    /// CPU cores.
    Cores,
    /// Of a rate.
    TokensPerSecond,
    /// Each of its names has its own.
    ByName,
    /// Things that are counted, in a word.
    Count(&'static str),
}

impl Unit {
    /// In a word; empty for a bare number.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Share => "share",
            Self::Cores => "cores",
            Self::TokensPerSecond => "tokens/s",
            Self::ByName => "by name",
            Self::Count(things) => things,
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Its labels, in words; empty without.
    pub labels: &'static str,
    /// What it tells.
    pub tells: &'static str,
}

macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:ident, $unit:ident $(($counted:literal))?, $labels:literal, $tells:literal;)*) => {
        $(#[doc = $tells] pub const $constant: &str = $name;)*

        /// All of them, sorted by who counts.
        pub const TABLE: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, unit: Unit::$unit $(($counted))?, labels: $labels, tells: $tells,
        }),*];
    };
}

metrics_table! {
    // Every node.
    RESIDENT = "crrl_resident_memory_bytes", Gauge, Bytes, "", "Resident memory of the process";
    INCARNATION = "crrl_node_incarnation", Gauge, Bare, "", "Which life of the node this is";
    ADAPTER = "crrl_adapter_version", Gauge, Bare, "", "Adapter the node serves, published last or trains";
    TOKEN_RATE = "crrl_tokens_per_second", Gauge, TokensPerSecond, "", "Tokens sampled or trained on, over the last few seconds";
    EPISODES_NOW = "crrl_episodes_in_flight", Gauge, Count("episodes"), "", "Episodes under way in the node (coordinator: handed out)";
    MAILBOX = "crrl_actor_mailbox_messages", Gauge, Count("messages"), "actor", "Messages that wait for an actor";
    MAILBOX_AGE = "crrl_actor_mailbox_age_seconds", Gauge, Seconds, "actor", "How long the oldest of them has waited";
    HANDLED = "crrl_actor_messages_total", Counter, Count("messages"), "actor", "Messages an actor has handled";
    BUSY = "crrl_actor_busy_seconds", Gauge, Seconds, "actor", "Time an actor has spent handling messages, since the node started";
    HANDLING = "crrl_actor_handling_seconds", Gauge, Seconds, "actor", "How long it has been at its present message; 0 between two";
    RESTARTS = "crrl_actor_restarts_total", Counter, Count("restarts"), "actor", "How often an actor was started again";
    FAULTS = "crrl_faults_active", Gauge, Count("faults"), "", "Faults injected into the node and not over";
    ADAPTER_BYTES = "crrl_adapter_sent_bytes_total", Counter, Bytes, "kind", "Bytes of adapters the node gave to others: full, or delta";
    FETCHES = "crrl_adapter_fetches_total", Counter, Count("requests"), "", "Requests for an adapter's chunks that the node answered, as server or relay";
    CPU = "crrl_node_cpu_ratio", Gauge, Cores, "", "CPU time of the process over the last second: 2.5 is two cores and a half; sandboxes not counted";
    GPU_BUSY = "crrl_gpu_busy_ratio", Gauge, Share, "gpu", "Share of the last moments in which something ran on a GPU the node can see";
    GPU_USED = "crrl_gpu_used_bytes", Gauge, Bytes, "gpu", "Memory of that GPU in use, by whoever";
    GPU_MEMORY = "crrl_gpu_memory_bytes", Gauge, Bytes, "gpu", "Memory of that GPU";
    ROUND_TRIP = "crrl_node_round_trip_seconds", Gauge, Seconds, "quantile", "To the coordinator and back: 0.5 and 0.99 of the last two minutes";
    // Coordinator.
    CLOCK = "crrl_node_clock_skew_seconds", Gauge, Seconds, "node", "How far a node's clock is ahead of the coordinator's; less than 0 where it is behind";
    EVENTS = "crrl_run_events_total", Counter, Count("lines"), "event", "Lines of the run's history, by what happened";
    REWARD = "crrl_episode_reward", Histogram, Bare, "", "Total reward of attempts as they come back";
    STEP = "crrl_step", Gauge, Count("steps"), "", "Optimizer steps committed";
    TRACES = "crrl_traces_total", Counter, Count("traces"), "end", "Traces of episodes and steps: sent to the collector, or dropped";
    STEP_METRIC = "crrl_step_metric", Gauge, ByName, "name", "Numbers of the last optimizer step, the learner's and the coordinator's";
    // Parameter server.
    PUBLISHED = "crrl_adapters_published_total", Counter, Count("adapters"), "", "Adapters published";
    REFUSED = "crrl_adapters_refused_total", Counter, Count("adapters"), "", "Adapters of the learner that were not taken";
    OFFERS = "crrl_adapter_offers_total", Counter, Count("offers"), "from", "Offers to engines: to fetch from the server, or from a relay";
    FETCHES_FAILED = "crrl_adapter_fetches_failed_total", Counter, Count("fetches"), "", "Fetches that engines say have failed";
    ACTIVATED_TIME = "crrl_adapter_all_activated_seconds", Histogram, Seconds, "", "From an adapter's publication until every engine there serves it";
    // Rollout nodes.
    EPISODES = "crrl_episodes_total", Counter, Count("episodes"), "end", "Episodes that ended in the node: finished or failed";
    EPISODE_TIME = "crrl_episode_seconds", Histogram, Seconds, "", "Wall time of an episode, from its sandbox to its reward";
    TURNS = "crrl_episode_turns", Histogram, Count("turns"), "", "Turns of an episode";
    TOKENS = "crrl_generated_tokens_total", Counter, Count("tokens"), "", "Tokens sampled in episodes";
    TOOL_CALLS = "crrl_tool_calls_total", Counter, Count("calls"), "tool, ok", "Tool calls made";
    TOOL_TIME = "crrl_tool_seconds", Histogram, Seconds, "tool", "Wall time of a tool call";
    PLACES_TIME = "crrl_episode_wait_seconds", Histogram, Seconds, "", "Wait of an episode for its sandbox and its place in the engine";
    ACTIVATIONS = "crrl_adapter_activations_total", Counter, Count("adapters"), "ok", "Adapters the engine took, or refused";
    ACTIVATION_TIME = "crrl_adapter_activation_seconds", Histogram, Seconds, "", "From an adapter's offer to its being served";
    // Learner.
    STEP_TIME = "crrl_step_seconds", Histogram, Seconds, "", "Wall time of an optimizer step, its checkpoint included";
}

/// Tells whatever exports metrics what each of them means.
pub fn describe() {
    for Metric { name, kind, unit, tells, .. } in TABLE {
        let unit = match unit {
            Unit::Seconds => metrics::Unit::Seconds,
            Unit::Bytes => metrics::Unit::Bytes,
            _ => metrics::Unit::Count,
        };
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
    let mut text =
        String::from("| metric | kind | unit | labels | tells |\n|---|---|---|---|---|\n");
    for Metric { name, kind, unit, labels, tells } in TABLE {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "summary",
        };
        let unit = unit.word();
        text += &format!("| `{name}` | {kind} | {unit} | {labels} | {tells} |\n");
    }
    text
}

/// The numbers of a step in Markdown.
#[must_use]
pub fn step_markdown() -> String {
    let mut text = String::from("| name | unit | tells |\n|---|---|---|\n");
    for StepMetric { name, unit, tells } in STEP_METRICS {
        text += &format!("| `{name}` | {unit} | {tells} |\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_tables_are_these() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/METRICS.md");
        let text = std::fs::read_to_string(path).expect("docs/METRICS.md");
        for table in [markdown(), step_markdown()] {
            assert!(text.contains(&table), "docs/METRICS.md should hold:\n{table}");
        }
    }

    #[test]
    fn names_say_their_unit_and_are_unique() {
        let mut seen = std::collections::BTreeSet::new();
        for Metric { name, kind, unit, .. } in TABLE {
            assert!(seen.insert(*name), "{name} twice");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            match unit {
                Unit::Seconds => assert!(name.contains("_seconds"), "{name}"),
                Unit::Bytes => assert!(name.contains("_bytes"), "{name}"),
                Unit::Share | Unit::Cores => assert!(name.ends_with("_ratio"), "{name}"),
                _ => {}
            }
        }
        for StepMetric { name, unit, .. } in STEP_METRICS {
            assert!(seen.insert(*name), "{name} twice");
            let is_time = name.ends_with("_s") && !name.ends_with("_per_s");
            assert_eq!(*unit == "seconds", is_time, "{name}");
        }
    }
}
