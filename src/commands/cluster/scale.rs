//! More or fewer rollout nodes while the others run.

use std::process::ExitCode;
use std::time::Duration;

use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Node, Role};

use super::{plan, up};
use crate::commands::failure::{Coded, UNREACHABLE, host_error};
use crate::meter::Quiet;

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

pub(super) fn run(
    run: &RunDir,
    wanted: usize,
    wait: Duration,
    quiet: Quiet,
) -> anyhow::Result<ExitCode> {
    let Some(pid) = host::host_pid(run)? else {
        let message = format!("no cluster is up in {}", run.path().display());
        return Err(Coded { code: UNREACHABLE, message }.into());
    };
    let alone = host::alone(run).map_err(host_error)?;
    let config = scaled(run.config()?, wanted);
    let changes = plan::of(run, &config)?;
    up::apply(run, &config, &changes, pid, &alone)?;
    drop(alone);
    if !changes.is_empty() {
        eprintln!(
            "{} says so now; your own cluster.toml does not, and `up` would go by it",
            run.config_path().display()
        );
    }
    if wait.is_zero() { Ok(ExitCode::SUCCESS) } else { up::until_ready(run, wait, quiet) }
}

/// The configuration with so many rollout nodes started here. Those with the highest numbers go
/// first; a new one is like the last, its GPU included.
fn scaled(config: ClusterConfig, wanted: usize) -> ClusterConfig {
    let mut nodes = config.nodes();
    let scaled = |node: &Node| node.roles == [Role::Rollout] && node.is_local();
    let like = nodes.iter().rev().find(|node| scaled(node)).cloned();
    while nodes.iter().filter(|node| scaled(node)).count() > wanted {
        if let Some(last) = nodes.iter().rposition(scaled) {
            nodes.remove(last);
        }
    }
    while nodes.iter().filter(|node| scaled(node)).count() < wanted {
        let taken = |name: &str| nodes.iter().any(|node| node.name == name);
        let free = (0..).map(|number| format!("rollout-{number}")).find(|name| !taken(name));
        let name = free.unwrap_or_default();
        let first = || Node { roles: vec![Role::Rollout], threads: 1, ..Node::default() };
        // A port is one node's.
        nodes.push(Node { name, relay: None, ..like.clone().unwrap_or_else(first) });
    }
    ClusterConfig { node: nodes, ..config }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(config: &ClusterConfig) -> Vec<String> {
        config.nodes().into_iter().map(|node| node.name).collect()
    }

    #[test]
    fn nodes_come_with_free_names_and_go_from_the_last() {
        let four = scaled(ClusterConfig::default(), 4);
        assert_eq!(names(&four)[2..], ["rollout-0", "rollout-1", "rollout-2", "rollout-3"]);
        let one = scaled(four.clone(), 1);
        assert_eq!(names(&one)[2..], ["rollout-0"]);
        assert_eq!(scaled(one, 4), four);
    }

    #[test]
    fn what_is_not_a_number_of_rollout_nodes_is_refused() {
        assert_eq!(wanted("rollout=3"), Ok(3));
        for text in ["rollout", "rollout=0", "rollout=x", "learner=2"] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }
}
