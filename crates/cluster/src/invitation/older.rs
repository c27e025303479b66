//! A run's configuration on its way to a node whose build may be an older one.
//!
//! A build refuses keys it does not know. So what only others go by stays behind, and a key that the oldest
//! build taking part does not know travels where it is not at its default and nowhere else: a node that
//! has to go by it must know it. One that does not says which build it needs.

use crrl_config::{ClusterConfig, Node, Role};
use crrl_transport::Protocols;
use toml::{Table, Value};

/// Keys of a configuration, by section.
type Keys = [(&'static str, &'static [&'static str])];

/// The keys of the oldest build that takes part, which speaks protocol 3. What is added to the
/// configuration is not added here.
#[rustfmt::skip]
const KNOWN: &Keys = &[
    ("run", &["dir", "steps", "seed", "sync"]),
    ("model", &["path", "adapter", "device"]),
    ("tasks", &["train", "held_out", "held_out_samples"]),
    ("agent", &["prompt", "calls_max", "tokens_max", "turn_tokens_max", "time_max_s",
        "output_chars_max", "nudges_max"]),
    ("sandbox", &["command_time_max_s", "cpu_time_max_s", "memory_mib", "processes_max", "file_mib",
        "disk_mib", "output_kib", "run_without_isolation"]),
    ("reward", &["line", "gestalt", "file_match", "exact", "edit", "malformed", "overlong"]),
    ("rollout", &["group_size", "groups_per_step", "temperature", "top_p", "top_k", "concurrency",
        "staleness", "staleness_max", "lease_s", "skip_equal_groups", "on_loss", "group_min", "late",
        "duplicate_after"]),
    ("engine", &["prefill_tokens_max", "prefixes_max", "on_swap", "kv_mib_max"]),
    ("learner", &["objective", "learning_rate", "warmup_steps", "schedule", "beta1", "beta2",
        "weight_decay", "grad_norm_max", "clip_low", "clip_high", "kl_beta", "importance_cap", "epochs",
        "minibatches", "micro_batch_tokens", "checkpoint_activations", "checkpoints_kept"]),
    ("lora", &["rank", "alpha", "targets"]),
    ("cluster", &["listen", "keep_alive_ms", "idle_timeout_ms", "heartbeat_timeout_ms", "restarts_max",
        "restart_window_s", "backoff_min_ms", "backoff_max_ms", "relay", "bulk_mib_per_s",
        "disk_wait_s", "certificate_hours", "address", "ssh_config"]),
    ("telemetry", &["prometheus", "tensorboard", "jsonl", "otlp"]),
    ("node", &["name", "roles", "threads", "external", "host", "dir", "model", "binary"]),
];
/// Keys that such a build does not know and only the coordinator goes by.
const COORDINATOR: &Keys = &[("rollout", &["quarantine_after"]), ("run", &["ledger_copies"])];

/// How the first line of a configuration on its way begins; for older builds a comment.
const WRITTEN_BY: &str = "# written by ";

fn holds(keys: &Keys, section: &str, key: &str) -> bool {
    keys.iter().any(|(held, keys)| *held == section && keys.contains(&key))
}

/// What this build is called.
fn this_build() -> String {
    format!("crrl {}, protocol {}", env!("CARGO_PKG_VERSION"), Protocols::default())
}

/// The configuration as a guest is sent it.
pub(super) fn written(config: &ClusterConfig, guest: &Node) -> Result<String, toml::ser::Error> {
    let table = without_news(&as_guest_sees(config, guest), guest, KNOWN)?;
    Ok(format!("{WRITTEN_BY}{}\n{}", this_build(), toml::to_string(&table)?))
}

/// What is said of the guest in its `[[node]]` stands where every build looks for it. GPU and memory are
/// for whoever starts it, and the address that others dial for whoever invites them: it may be a host
/// name, which the build before refuses.
fn as_guest_sees(config: &ClusterConfig, guest: &Node) -> ClusterConfig {
    let mut seen = config.clone();
    seen.cluster.address = String::new();
    seen.model.device = config.device_of(guest).to_owned();
    if let Some(relay) = &guest.relay {
        seen.cluster.relay.clone_from(relay);
    }
    for node in &mut seen.node {
        (node.device, node.gpu, node.memory_mib, node.relay) = (None, None, 0, None);
    }
    seen
}

/// Leaves out keys that are not `known`, as far as the guest can do without them.
fn without_news(
    config: &ClusterConfig,
    guest: &Node,
    known: &Keys,
) -> Result<Table, toml::ser::Error> {
    let mut table = Table::try_from(config)?;
    let usual = Table::try_from(ClusterConfig::default())?;
    let usual_node = Table::try_from(Node::default())?;
    let learns = guest.roles.contains(&Role::Learner);
    for (section, value) in &mut table {
        match value {
            Value::Table(keys) => {
                let usual = usual.get(section).and_then(Value::as_table);
                let is_others =
                    |key: &str| holds(COORDINATOR, section, key) || section == "learner" && !learns;
                keys.retain(|key, value| {
                    let is_usual = usual.and_then(|usual| usual.get(key)) == Some(&*value);
                    holds(known, section, key) || !is_usual && !is_others(key)
                });
            }
            Value::Array(nodes) => {
                for node in nodes.iter_mut().filter_map(Value::as_table_mut) {
                    let is_guest =
                        node.get("name").and_then(Value::as_str) == Some(guest.name.as_str());
                    node.retain(|key, value| {
                        let is_usual = usual_node.get(key) == Some(&*value);
                        holds(known, section, key) || !is_usual && is_guest
                    });
                }
            }
            _ => {}
        }
    }
    table.retain(|_, value| value.as_table().is_none_or(|keys| !keys.is_empty()));
    Ok(table)
}

/// Reads what a guest was sent.
///
/// # Errors
/// What of it this build does not know, and what to do.
pub(super) fn read(text: &str) -> Result<ClusterConfig, String> {
    toml::from_str(text).map_err(|error| unreadable(text, &error))
}

fn unreadable(text: &str, error: &toml::de::Error) -> String {
    let first = text.lines().next().unwrap_or_default();
    let theirs = first.strip_prefix(WRITTEN_BY).unwrap_or("another build");
    let key = error.message().strip_prefix("unknown field `");
    let Some(key) = key.and_then(|rest| rest.split('`').next()) else {
        return format!(
            "the configuration in the invitation cannot be read: {error}; use the same build on both \
             machines (here {}, there {theirs})",
            this_build()
        );
    };
    let offset = error.span().map_or(0, |span| span.start);
    let (before, after) = text.split_at_checked(offset).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    let is_header = line.starts_with('[') || line.is_empty() && after.starts_with('[');
    let section = before.lines().rev().find(|line| line.starts_with('[') && line.ends_with(']'));
    let section = section.filter(|_| !is_header).map(|section| format!(" of {section}"));
    format!(
        "this node's build is older than the cluster's: the run's configuration has the key \
         {key:?}{}, which it does not know. It is {}, the cluster's is {theirs}: install the cluster's \
         build on this machine and start the node again",
        section.unwrap_or_default(),
        this_build()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes that say everything the build before does not know.
    fn setting() -> (ClusterConfig, Node) {
        let mut config =
            ClusterConfig { node: ClusterConfig::default_nodes(), ..ClusterConfig::default() };
        config.cluster.address = "trainer.lan".into();
        let host = &mut config.node[3];
        (host.device, host.gpu, host.memory_mib) = (Some("cuda".into()), Some(1), 4096);
        let guest = Node {
            name: "gpu-box".into(),
            roles: vec![Role::Rollout],
            external: true,
            device: Some("cuda".into()),
            relay: Some("10.0.0.7:7420".into()),
            ..Node::default()
        };
        config.node.push(guest.clone());
        (config, guest)
    }

    #[test]
    fn the_list_is_that_of_the_oldest_build_that_takes_part() {
        assert_eq!(crrl_transport::codec::OLDEST, 3, "list the keys of the build that is now");
    }

    #[test]
    fn a_guest_of_the_build_before_is_sent_nothing_it_does_not_know() {
        let (config, guest) = setting();
        let text = written(&config, &guest).expect("plain");
        let table: Table = text.parse().expect("its own text");
        for (section, value) in &table {
            let one = value.as_table().into_iter();
            let many = value.as_array().into_iter().flatten().filter_map(Value::as_table);
            for key in one.chain(many).flat_map(Table::keys) {
                assert!(holds(KNOWN, section, key), "{section}.{key}\n{text}");
            }
        }
        // All the same it does what was said of it.
        let read = read(&text).expect("its own text");
        assert_eq!(read.cluster.address, "", "the build before takes no host name there");
        let seen = read.node.iter().find(|node| node.name == guest.name).expect("is there");
        assert_eq!(read.device_of(seen), "cuda");
        assert_eq!(seen.relay.as_ref().unwrap_or(&read.cluster.relay), "10.0.0.7:7420");
        let names = |config: &ClusterConfig| -> Vec<String> {
            config.node.iter().map(|node| node.name.clone()).collect()
        };
        assert_eq!(names(&read), names(&config));
    }

    #[test]
    fn a_key_that_is_news_travels_where_the_guest_has_to_go_by_it() {
        let (mut config, guest) = setting();
        let news = ["telemetry", "learner"];
        let known: Vec<_> = KNOWN.iter().copied().filter(|(s, _)| !news.contains(s)).collect();
        config.telemetry.jsonl = true;
        config.learner.epochs = 7;
        config.rollout.quarantine_after = 9;
        let table = without_news(&config, &guest, &known).expect("plain");
        let telemetry: Vec<_> = table["telemetry"].as_table().expect("a section").keys().collect();
        assert_eq!(telemetry, ["jsonl"], "all others are at their defaults");
        assert!(!table.contains_key("learner"), "it does not learn");
        assert!(table["rollout"].get("quarantine_after").is_none(), "the coordinator's alone");
        let learner = Node { roles: vec![Role::Learner], ..guest };
        let table = without_news(&config, &learner, &known).expect("plain");
        assert_eq!(table["learner"]["epochs"].as_integer(), Some(7));
    }

    #[test]
    fn a_build_that_does_not_know_a_key_says_which_and_what_to_install() {
        let (config, guest) = setting();
        let text = written(&config, &guest).expect("plain");
        let text = text.replace(&this_build(), "crrl 9.1.0, protocol 12 and 11");
        let said = |text: &str| read(text).expect_err("has another key");
        let inside = said(&text.replace("[cluster]\n", "[cluster]\nwarp = 9\n"));
        for part in ["older", "\"warp\" of [cluster]", "crrl 9.1.0, protocol 12", "install"] {
            assert!(inside.contains(part), "{part}: {inside}");
        }
        assert!(inside.contains(&this_build()), "{inside}");
        let section = said(&format!("{text}\n[warp]\nfactor = 9\n"));
        assert!(section.contains("the key \"warp\", which"), "{section}");
        let wrong = said(&text.replace("steps = ", "steps = \"many\" # "));
        assert!(wrong.contains("use the same build") && !wrong.contains("older"), "{wrong}");
    }
}
