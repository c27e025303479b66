//! What has to be done to bring a run's processes to a configuration: a pure function of what is
//! wanted and what is seen.
//!
//! Rollout nodes may come and go while the others run. Anything else wants the cluster taken down
//! first.

use crrl_config::{ClusterConfig, Node, Role};
use crrl_types::Digest;
use serde::Serialize;

use crate::host::HostState;

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
        if same(before) != same(wanted) {
            obstacle = Some("another configuration is running".to_owned());
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
        (true, _) if obstacle.is_some() && runs(&node.name) => Action::Restart,
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
    changes.extend(gone.map(|node| change(node, Action::Stop)));
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
        assert!(changes.obstacle.is_some());
        assert!(changes.nodes.iter().all(|node| node.action == Action::Restart));
        let mut other = config(2);
        other.node[1].threads = 7;
        let changes = plan(&other, &running(&config(2)));
        assert!(changes.obstacle.is_some_and(|why| why.contains("learner")));
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
