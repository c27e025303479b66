//! What has to be done to bring a run's processes to a configuration: a pure function of what is
//! wanted and what is seen.
//!
//! Rollout nodes may come and go while the others run. Anything else wants the cluster taken down
//! first.

use std::fmt;

use crrl_config::{ClusterConfig, Node, Role};
use crrl_types::Digest;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::host::HostState;

/// Options that are named where two configurations differ; of more, only their number is told.
const NAMED_MAX: usize = 3;

/// What was found on this machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The configuration in the run's folder.
    pub held: Option<ClusterConfig>,
    /// What the host wrote down, if one is running.
    pub host: Option<HostState>,
}

/// What is done about one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It runs, as it should.
    Keep,
    /// It is started.
    Start,
    /// It is told to leave; what it works on is handed to others.
    Stop,
    /// It runs under another configuration, which it cannot change while it does.
    Restart,
    /// Nothing, as long as the cluster is up: what is wanted takes more than rollout nodes that come and go.
    Blocked,
}

/// One node of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<Role>,
    /// Threads of its tensor work; 0 takes one for each core.
    pub threads: usize,
    /// The machine it is started on over ssh; none is this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Where its tensors live.
    pub device: String,
    /// The GPU it sees; all of them if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// Private memory it may take, in MiB; 0 sets no bound.
    pub memory_mib: u64,
    /// What is done about it.
    pub action: Action,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Stands for what is wanted and what was seen: the same as long as neither changes.
    pub id: String,
    /// Every node, wanted ones first.
    pub nodes: Vec<Change>,
    /// Why it cannot be carried out while the cluster is up.
    pub obstacle: Option<String>,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.iter().all(|node| node.action == Action::Keep)
    }
}

/// One option that two configurations do not agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `section.key`.
    pub key: String,
    /// What the run has; null where it has none.
    pub before: Value,
    /// What is wanted now; null for none.
    pub after: Value,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, before, after } = self;
        write!(f, "{key} is {} in the run and {} now", text(before), text(after))
    }
}

/// A value as a file has it.
fn text(value: &Value) -> String {
    match (value, value.as_f64()) {
        (Value::Null, _) => "not set".to_owned(),
        // One of half the width has digits behind those that somebody wrote.
        (Value::Number(number), Some(float)) if number.is_f64() => {
            let narrow = float as f32;
            if f64::from(narrow) == float { format!("{narrow:?}") } else { format!("{float:?}") }
        }
        _ => value.to_string(),
    }
}

impl Difference {
    /// A configuration with this one option as it is wanted now; none if it has no such option.
    #[must_use]
    pub fn applied(&self, config: &ClusterConfig) -> Option<ClusterConfig> {
        let mut value = serde_json::to_value(config).ok()?;
        let place = value.pointer_mut(&format!("/{}", self.key.replace('.', "/")))?;
        *place = self.after.clone();
        serde_json::from_value(value).ok()
    }
}

/// Every option that two configurations do not agree on, in the order of the file. All `[[node]]` are one
/// option.
#[must_use]
pub fn differences(before: &ClusterConfig, after: &ClusterConfig) -> Vec<Difference> {
    let value = |config: &ClusterConfig| serde_json::to_value(config).unwrap_or_default();
    let mut found = Vec::new();
    compare("", &value(before), &value(after), &mut found);
    found
}

fn compare(key: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if before == after {
        return;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        let (before, after) = (before.clone(), after.clone());
        found.push(Difference { key: key.to_owned(), before, after });
        return;
    };
    let of = |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or_default();
    for name in new.keys().chain(old.keys().filter(|name| !new.contains_key(*name))) {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        compare(&inner, &of(old, name), &of(new, name), found);
    }
}

/// The first few of them in words, and how many more there are.
#[must_use]
pub fn named(differences: &[Difference]) -> String {
    let mut parts: Vec<String> =
        differences.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = differences.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join(", ")
}

/// The plan. Both configurations must have their paths spelled out.
#[must_use]
pub fn plan(wanted: &ClusterConfig, observed: &Observed) -> Changes {
    let own = |config: &ClusterConfig| -> Vec<Node> {
        config.nodes().into_iter().filter(|node| !node.external).collect()
    };
    let nodes = own(wanted);
    let held = observed.held.as_ref().map(own).unwrap_or_default();
    let runs = |name: &str| {
        let of = |host: &HostState| host.nodes.iter().any(|n| n.name == name && n.pid.is_some());
        observed.host.as_ref().is_some_and(of)
    };
    let up = observed.host.is_some();
    let mut obstacle = None;
    if let (true, Some(before)) = (up, &observed.held) {
        let same = |config: &ClusterConfig| ClusterConfig { node: Vec::new(), ..config.clone() };
        let (before, wanted) = (same(before), same(wanted));
        if before != wanted {
            obstacle = Some(named(&differences(&before, &wanted)));
        }
        // Nodes that somebody else starts are no concern of this machine's host.
        let gone = held.iter().filter(|node| !nodes.contains(node));
        let new = nodes.iter().filter(|node| !held.contains(node));
        if let Some(node) = gone.chain(new).find(|node| node.roles != [Role::Rollout]) {
            obstacle.get_or_insert_with(|| {
                format!("{} is not a rollout node: only those come and go", node.name)
            });
        }
    }
    let action = |node: &Node| match (up, held.contains(node)) {
        _ if obstacle.is_some() => Action::Blocked,
        (true, false) if runs(&node.name) => Action::Restart,
        (true, _) if runs(&node.name) => Action::Keep,
        _ => Action::Start,
    };
    let change = |node: &Node, action| Change {
        name: node.name.clone(),
        roles: node.roles.clone(),
        threads: node.threads,
        host: node.host.clone(),
        device: wanted.device_of(node).to_owned(),
        gpu: node.gpu,
        memory_mib: node.memory_mib,
        action,
    };
    let mut changes: Vec<Change> = nodes.iter().map(|node| change(node, action(node))).collect();
    let wanted_too = |node: &&Node| nodes.iter().any(|other| other.name == node.name);
    let gone = held.iter().filter(|node| runs(&node.name) && !wanted_too(node));
    let goes = if obstacle.is_some() { Action::Blocked } else { Action::Stop };
    changes.extend(gone.map(|node| change(node, goes)));
    Changes { id: id(wanted, &changes), nodes: changes, obstacle }
}

/// A short name of what is wanted and what was seen to be needed for it.
fn id(wanted: &ClusterConfig, changes: &[Change]) -> String {
    let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let bytes = format!(
        "{}\n{}",
        text(serde_json::to_string(wanted)),
        text(serde_json::to_string(changes))
    );
    let digest = Digest::of(bytes.as_bytes());
    digest.short().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::NodeProcess;
    use crate::run_dir::RunDir;

    fn config(rollouts: usize) -> ClusterConfig {
        let mut node = ClusterConfig::default_nodes();
        node.truncate(2);
        node.extend((0..rollouts).map(|i| Node {
            name: format!("rollout-{i}"),
            roles: vec![Role::Rollout],
            threads: 1,
            ..Node::default()
        }));
        ClusterConfig { node, ..ClusterConfig::default() }
    }

    fn running(config: &ClusterConfig) -> Observed {
        let process = |node: &Node| NodeProcess {
            name: node.name.clone(),
            roles: Vec::new(),
            host: None,
            pid: Some(1),
            started_ms: None,
            restarts: 0,
            given_up: false,
            retired: false,
            last_exit: None,
        };
        let host = HostState {
            host_pid: 1,
            started: true,
            stopping: false,
            nodes: config.nodes().iter().map(process).collect(),
        };
        Observed { held: Some(config.clone()), host: Some(host) }
    }

    fn actions(changes: &Changes) -> Vec<(&str, Action)> {
        changes.nodes.iter().map(|node| (node.name.as_str(), node.action)).collect()
    }

    #[test]
    fn nothing_runs_and_everything_is_started() {
        let changes = plan(&config(1), &Observed::default());
        let wanted = ["coordinator", "learner", "rollout-0"].map(|name| (name, Action::Start));
        assert_eq!(actions(&changes), wanted);
        assert!(!changes.is_empty() && changes.obstacle.is_none());
    }

    #[test]
    fn everything_runs_and_nothing_is_done() {
        let changes = plan(&config(2), &running(&config(2)));
        assert!(changes.is_empty(), "{changes:?}");
        assert_eq!(changes, plan(&config(2), &running(&config(2))), "the same again");
    }

    #[test]
    fn a_run_that_an_earlier_build_began_is_no_other_than_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        let wanted = config(2);
        let mut before = wanted.clone();
        before.tasks.held_out_samples = 0;
        let text = toml::to_string(&before).expect("plain data");
        std::fs::write(run.config_path(), text).expect("writable");
        let held = Some(run.config().expect("is understood"));
        let changes = plan(&wanted, &Observed { held, ..running(&wanted) });
        assert_eq!(changes.obstacle, None);
        assert!(changes.is_empty(), "{changes:?}");
    }

    #[test]
    fn rollout_nodes_come_and_go() {
        let changes = plan(&config(3), &running(&config(1)));
        assert_eq!(changes.obstacle, None);
        assert_eq!(
            actions(&changes)[2..],
            [
                ("rollout-0", Action::Keep),
                ("rollout-1", Action::Start),
                ("rollout-2", Action::Start)
            ]
        );
        let changes = plan(&config(1), &running(&config(2)));
        assert_eq!(changes.obstacle, None);
        assert_eq!(actions(&changes)[3], ("rollout-1", Action::Stop));
    }

    #[test]
    fn the_others_stay_and_so_does_the_rest_of_the_configuration() {
        let mut other = config(2);
        other.rollout.temperature = 0.7;
        let changes = plan(&other, &running(&config(2)));
        let obstacle = "rollout.temperature is 1.0 in the run and 0.7 now";
        assert_eq!(changes.obstacle.as_deref(), Some(obstacle));
        assert!(changes.nodes.iter().all(|node| node.action == Action::Blocked));
        // Nothing comes or goes either.
        other.node.remove(3);
        let changes = plan(&other, &running(&config(2)));
        assert_eq!(actions(&changes)[3], ("rollout-1", Action::Blocked));
        let mut other = config(2);
        other.node[1].threads = 7;
        let changes = plan(&other, &running(&config(2)));
        assert!(changes.nodes.iter().all(|node| node.action == Action::Blocked));
        assert!(changes.obstacle.is_some_and(|why| why.contains("learner")));
    }

    #[test]
    fn the_first_options_that_differ_are_named_with_both_values() {
        let before = config(2);
        assert!(differences(&before, &before).is_empty());
        let mut after = before.clone();
        after.run.steps = 7;
        after.model.adapter = Some("warm".into());
        after.rollout.group_size = 3;
        after.learner.warmup_steps = 9;
        let found = differences(&before, &after);
        let keys: Vec<&str> = found.iter().map(|difference| difference.key.as_str()).collect();
        let wanted = ["run.steps", "model.adapter", "rollout.group_size", "learner.warmup_steps"];
        assert_eq!(keys, wanted);
        let text = named(&found);
        let steps = before.run.steps;
        assert!(
            text.starts_with(&format!("run.steps is {steps} in the run and 7 now, ")),
            "{text}"
        );
        assert!(text.contains("model.adapter is not set in the run and \"warm\" now"), "{text}");
        assert!(text.ends_with(", 1 more") && !text.contains("warmup_steps"), "{text}");
        // One by one they make of one configuration the other.
        let mut made = before.clone();
        for difference in &found {
            made = difference.applied(&made).expect("an option of every configuration");
        }
        assert_eq!(made, after);
    }

    #[test]
    fn an_id_goes_with_what_is_wanted_and_what_was_seen() {
        let observed = running(&config(2));
        let before = plan(&config(3), &observed).id;
        assert_ne!(before, plan(&config(4), &observed).id);
        let mut died = observed.clone();
        died.host.as_mut().expect("is there").nodes[2].pid = None;
        assert_ne!(before, plan(&config(3), &died).id);
        assert_eq!(before, plan(&config(3), &observed).id);
    }
}
