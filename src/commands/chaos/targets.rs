//! Which nodes a fault may go to: those that are up, as the coordinator sees them, whoever started them.

use crrl_cluster::host::NodeProcess;
use crrl_cluster::mesh::{role_of, role_text};
use crrl_config::faults::Target;
use crrl_control::wire::{NodeReport, NodeRole, NodeState};
use crrl_types::NodeName;

/// A node that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) name: NodeName,
    pub(super) roles: Vec<NodeRole>,
}

/// Nodes that are up and meant, by name. One that was drained or suspended has to be named itself: it would
/// not be seen at work again.
pub(super) fn fitting(reports: &[NodeReport], target: &Target) -> Vec<Live> {
    let fits = |report: &&NodeReport| match target {
        Target::Role(role) => {
            let works = matches!(report.state, NodeState::Starting | NodeState::Ready);
            works && report.roles.contains(&role_of(*role))
        }
        Target::Node(name) => is_up(report) && report.node.as_str() == name,
    };
    let live =
        |report: &NodeReport| Live { name: report.node.clone(), roles: report.roles.clone() };
    let mut fitting: Vec<Live> = reports.iter().filter(fits).map(live).collect();
    // So that a seed draws the same ones.
    fitting.sort_by(|a, b| a.name.cmp(&b.name));
    fitting
}

/// Whether a node that is meant is not up yet although its host keeps it up.
pub(super) fn is_awaited(
    processes: &[NodeProcess],
    reports: &[NodeReport],
    target: &Target,
) -> bool {
    let meant = |process: &&NodeProcess| match target {
        Target::Role(role) => process.roles.iter().any(|text| text == role_text(role_of(*role))),
        Target::Node(name) => process.name == *name,
    };
    let kept_up = |process: &&NodeProcess| !process.retired && !process.given_up;
    let absent = |process: &NodeProcess| {
        !reports.iter().any(|report| report.node.as_str() == process.name && is_up(report))
    };
    processes.iter().filter(meant).filter(kept_up).any(absent)
}

/// Whether a node was not lost, and has not left.
pub(super) fn is_up(report: &NodeReport) -> bool {
    report.state != NodeState::Stopped
}

#[cfg(test)]
mod tests {
    use crrl_config::Role;
    use crrl_types::{AdapterVersion, Digest};

    use super::*;

    fn report(name: &str, role: NodeRole, state: NodeState) -> NodeReport {
        NodeReport {
            node: name.into(),
            roles: vec![role],
            pid: 1,
            incarnation: 1,
            state,
            adapter_version: AdapterVersion(0),
            adapter_digest: Digest::default(),
            tokens_per_s: 0.0,
            episodes: 0,
            rss_bytes: 0,
            activity: String::new(),
            faults: Vec::new(),
            actors: Vec::new(),
            live: Vec::new(),
        }
    }

    fn process(name: &str, role: &str) -> NodeProcess {
        NodeProcess {
            name: name.into(),
            roles: vec![role.into()],
            host: None,
            pid: Some(1),
            started_ms: None,
            restarts: 0,
            given_up: false,
            retired: false,
            last_exit: None,
        }
    }

    fn names(live: &[Live]) -> Vec<&str> {
        live.iter().map(|live| live.name.as_str()).collect()
    }

    #[test]
    fn whoever_is_up_is_reached_whoever_started_it() {
        use NodeRole::{Coordinator, Rollout};
        use NodeState::{Draining, Ready, Starting, Stopped, Suspended};
        let reports = [
            report("rollout-1", Rollout, Ready),
            report("guest", Rollout, Ready),
            report("rollout-0", Rollout, Stopped),
            report("rollout-2", Rollout, Draining),
            report("rollout-3", Rollout, Suspended),
            report("rollout-4", Rollout, Starting),
            report("coordinator", Coordinator, Ready),
        ];
        let role = Target::Role(Role::Rollout);
        assert_eq!(names(&fitting(&reports, &role)), ["guest", "rollout-1", "rollout-4"]);
        let named = |name: &str| fitting(&reports, &Target::Node(name.into()));
        assert_eq!(named("guest")[0].roles, [Rollout]);
        assert_eq!(names(&named("rollout-2")), ["rollout-2"]);
        assert!(named("rollout-0").is_empty() && named("nobody").is_empty());
    }

    #[test]
    fn only_who_is_kept_up_is_waited_for() {
        let reports = [
            report("rollout-0", NodeRole::Rollout, NodeState::Ready),
            report("rollout-1", NodeRole::Rollout, NodeState::Stopped),
        ];
        let role = Target::Role(Role::Rollout);
        let awaited = |processes: &[NodeProcess]| is_awaited(processes, &reports, &role);
        assert!(!awaited(&[process("rollout-0", "rollout"), process("learner", "learner")]));
        assert!(awaited(&[process("rollout-1", "rollout")]));
        assert!(awaited(&[process("rollout-2", "rollout")]));
        let retired = NodeProcess { retired: true, ..process("rollout-1", "rollout") };
        let given_up = NodeProcess { given_up: true, ..process("rollout-1", "rollout") };
        assert!(!awaited(&[retired, given_up]));
        let named = Target::Node("rollout-1".into());
        assert!(is_awaited(&[process("rollout-1", "rollout")], &reports, &named));
        assert!(!is_awaited(&[process("rollout-0", "rollout")], &reports, &named));
    }
}
