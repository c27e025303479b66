//! More or fewer rollout nodes while the others run.

use std::process::ExitCode;

use crrl_cluster::remote::is_container;
use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Node, Role};

use super::{How, plan, up};
use crate::commands::failure::{Coded, UNREACHABLE, host_error, quoted};
use crate::commands::place::not_up;

/// Most rollout nodes on one machine.
const NODES_MAX: usize = 256;

/// Reads `rollout=N`.
pub(super) fn wanted(text: &str) -> Result<usize, String> {
    let count = match text.split_once('=') {
        Some(("rollout", count)) => count,
        Some((role, _)) => return Err(format!("only rollout nodes are scaled, not {role:?}")),
        None => return Err("write it as rollout=N".to_owned()),
    };
    match count.parse() {
        Ok(count @ 1..=NODES_MAX) => Ok(count),
        _ => Err(format!("{count:?} is not a number from 1 to {NODES_MAX}")),
    }
}

pub(super) fn run(run: &RunDir, wanted: usize, how: How) -> anyhow::Result<ExitCode> {
    let Some(pid) = host::host_pid(run)? else {
        return Err(Coded { code: UNREACHABLE, message: not_up(run) }.into());
    };
    let alone = host::alone(run).map_err(host_error)?;
    let held = run.config()?;
    let elsewhere = elsewhere(&held.nodes());
    let config = scaled(held, wanted).map_err(|elsewhere| {
        Coded::usage(format!(
            "no rollout node of {} is on this machine ({elsewhere}), and scale chooses no machines: \
             add or remove their [[node]], each with its host, in your cluster.toml, then: crrl \
             cluster up -f cluster.toml",
            run.config_path().display()
        ))
    })?;
    let changes = plan::of(run, &config)?;
    let did = up::apply(run, &config, &changes, pid, &alone)?;
    drop(alone);
    if did == up::Did::Changed {
        eprintln!(
            "{} says so now; your own cluster.toml does not, and `up` would go by it",
            run.config_path().display()
        );
    }
    if !elsewhere.is_empty() {
        eprintln!(
            "not counted, as they are not of this machine: {elsewhere}; for more or fewer of those \
             change their [[node]] in your cluster.toml, then: crrl cluster up -f cluster.toml"
        );
    }
    up::finish(run, did, &changes, how)
}

fn is_rollout(node: &Node) -> bool {
    node.roles == [Role::Rollout]
}

/// Whether a node is started on this machine, as a process or in a container: there can be more.
fn is_scaled(node: &Node) -> bool {
    is_rollout(node) && (node.is_local() || (!node.external && is_container(node)))
}

/// Rollout nodes that `scale` has no say in, and where they are; empty if there are none.
fn elsewhere(nodes: &[Node]) -> String {
    let others = nodes.iter().filter(|node| is_rollout(node) && !is_scaled(node));
    let named = others.map(|node| match &node.host {
        Some(host) => format!("{} on {}", node.name, quoted(host)),
        None => format!("{} by invitation", node.name),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The configuration with so many rollout nodes started here. Those with the highest numbers go
/// first; a new one is like the last, its GPU or its image included.
///
/// # Errors
/// Every rollout node is elsewhere: those.
fn scaled(config: ClusterConfig, wanted: usize) -> Result<ClusterConfig, String> {
    let mut nodes = config.nodes();
    let like = nodes.iter().rev().find(|node| is_scaled(node)).cloned();
    let elsewhere = elsewhere(&nodes);
    if like.is_none() && !elsewhere.is_empty() {
        return Err(elsewhere);
    }
    while nodes.iter().filter(|node| is_scaled(node)).count() > wanted {
        if let Some(last) = nodes.iter().rposition(is_scaled) {
            nodes.remove(last);
        }
    }
    while nodes.iter().filter(|node| is_scaled(node)).count() < wanted {
        let taken = |name: &str| nodes.iter().any(|node| node.name == name);
        let free = (0..).map(|number| format!("rollout-{number}")).find(|name| !taken(name));
        let name = free.unwrap_or_default();
        let first = || Node { roles: vec![Role::Rollout], threads: 1, ..Node::default() };
        // A port is one node's.
        nodes.push(Node { name, relay: None, ..like.clone().unwrap_or_else(first) });
    }
    Ok(ClusterConfig { node: nodes, ..config })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &ClusterConfig) -> Vec<String> {
        config.nodes().into_iter().map(|node| node.name).collect()
    }

    fn of(config: &ClusterConfig, wanted: usize) -> ClusterConfig {
        scaled(config.clone(), wanted).expect("there are some here")
    }

    #[test]
    fn nodes_come_with_free_names_and_go_from_the_last() {
        let four = of(&ClusterConfig::default(), 4);
        assert_eq!(names(&four)[2..], ["rollout-0", "rollout-1", "rollout-2", "rollout-3"]);
        let one = of(&four, 1);
        assert_eq!(names(&one)[2..], ["rollout-0"]);
        assert_eq!(of(&one, 4), four);
    }

    #[test]
    fn containers_of_this_machine_count_and_machines_elsewhere_are_left_alone() {
        let mut config = of(&ClusterConfig::default(), 2);
        config.node[2].host = Some("me@box".into());
        config.node[3].host = Some("docker://debian".into());
        assert_eq!(elsewhere(&config.node), "rollout-0 on me@box");
        let three = of(&config, 3);
        assert_eq!(names(&three)[3..], ["rollout-1", "rollout-2", "rollout-3"]);
        assert!(three.node[4..].iter().all(|node| node.host == config.node[3].host));
        assert_eq!(of(&three, 1), config);
        // Nobody can be invited, and no machine be found, by a number.
        config.node[3].host = None;
        config.node[3].external = true;
        let refused = scaled(config, 3).expect_err("all are elsewhere");
        assert_eq!(refused, "rollout-0 on me@box, rollout-1 by invitation");
    }

    #[test]
    fn what_is_not_a_number_of_rollout_nodes_is_refused() {
        assert_eq!(wanted("rollout=3"), Ok(3));
        for text in ["rollout", "rollout=0", "rollout=x", "learner=2"] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }
}
