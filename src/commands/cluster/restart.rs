//! Nodes restarted one after the other, each with the program that is there now.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crrl_cluster::{OperatorClient, RunDir, host};
use crrl_config::{Node, Role};

use super::status::{Line, lines};
use super::{How, LOOK_EVERY};
use crate::commands::failure::{Coded, UNREACHABLE, describe, host_error, quoted};
use crate::commands::place::not_up;
use crate::meter::Meter;

/// A node that reports no episode for this long has none: what it finished was acknowledged.
const EMPTY_FOR: Duration = Duration::from_millis(1500);
/// The host has written down by then that it has begun.
const SEEN_AFTER: Duration = Duration::from_secs(1);

/// What was done with a node, in the word `--json` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Did {
    /// It finished what it had first.
    Drained,
    /// It did not finish in time: others were handed what was left.
    HandedOver,
    /// There was nothing it could have finished.
    Restarted,
}

impl Did {
    fn words(self) -> &'static str {
        match self {
            Self::Drained => "drained and restarted",
            Self::HandedOver => "restarted; what it had not finished is handed to others",
            Self::Restarted => "restarted",
        }
    }
}

pub(super) fn run(
    run: &RunDir,
    names: &[String],
    drain: Duration,
    how: How,
) -> anyhow::Result<ExitCode> {
    if host::host_pid(run)?.is_none() {
        return Err(Coded { code: UNREACHABLE, message: not_up(run) }.into());
    }
    let order = order(run.config()?.nodes(), names).map_err(Coded::usage)?;
    let meter = Meter::start(how.quiet, "restarting", "nodes", order.len() as u64);
    let count = meter.count();
    let (mut restarted, mut trouble) = (Vec::new(), None);
    for (at, node) in order.iter().enumerate() {
        count.at(at as u64);
        count.say(node.name.as_str());
        let started = Instant::now();
        let did = match one(run, node, drain, how.wait) {
            Ok(did) => did,
            Err(error) => {
                trouble = Some(error);
                break;
            }
        };
        let took = started.elapsed();
        meter.note(&format!("{:<16} {:>4} s  {}", node.name, took.as_secs(), did.words()));
        restarted.push(serde_json::json!({
            "name": node.name, "did": did, "seconds": took.as_secs_f64(),
        }));
    }
    drop(meter);
    let left: Vec<&str> = order[restarted.len()..].iter().map(|node| node.name.as_str()).collect();
    if how.json {
        let value = serde_json::json!({
            "run": run.path(),
            "restarted": restarted,
            "left": left,
            "error": trouble.as_ref().map(describe),
        });
        writeln!(std::io::stdout(), "{value}")?;
    }
    let Some(error) = trouble else { return Ok(ExitCode::SUCCESS) };
    let (run, left) = (quoted(&run.path().display().to_string()), left.join(" "));
    Err(anyhow::anyhow!(
        "{error}\n  once that is mended, to go on: crrl cluster restart --rolling --run {run} {left}"
    ))
}

/// The nodes, in the order in which the fewest have to wait: those that roll out, the learner, those
/// that everybody talks to.
fn order(nodes: Vec<Node>, names: &[String]) -> Result<Vec<Node>, String> {
    let own: Vec<Node> = nodes.into_iter().filter(|node| !node.external).collect();
    if let Some(wrong) = names.iter().find(|name| !own.iter().any(|node| node.name == **name)) {
        let known: Vec<&str> = own.iter().map(|node| node.name.as_str()).collect();
        return Err(format!("no node {wrong:?} is started here; there are {}", known.join(", ")));
    }
    let wanted = |node: &Node| names.is_empty() || names.contains(&node.name);
    let mut chosen: Vec<Node> = own.into_iter().filter(wanted).collect();
    let ranks = [Role::Coordinator, Role::ParameterServer, Role::Learner];
    let waiting = |node: &Node| ranks.len() - first_of(&ranks, node);
    chosen.sort_by_key(waiting);
    Ok(chosen)
}

fn first_of(ranks: &[Role], node: &Node) -> usize {
    ranks.iter().position(|role| node.roles.contains(role)).unwrap_or(ranks.len())
}

fn line(run: &RunDir, name: &str) -> anyhow::Result<Line> {
    let found = lines(run)?.into_iter().find(|line| line.name == name);
    found.ok_or_else(|| anyhow::anyhow!("{name} is no longer there"))
}

/// Restarts one node, and what came of it.
fn one(run: &RunDir, node: &Node, drain: Duration, wait: Duration) -> anyhow::Result<Did> {
    let before = line(run, &node.name)?;
    let mut did = Did::Restarted;
    if node.roles.contains(&Role::Rollout) && before.state == "ready" {
        did = if drained(run, node, drain)? { Did::Drained } else { Did::HandedOver };
    }
    if !host::restart(run, &node.name).map_err(host_error)? {
        anyhow::bail!("the cluster has ended");
    }
    let asked = Instant::now();
    let late = asked + wait;
    loop {
        let now = line(run, &node.name)?;
        let another = now.pid.is_some() && now.pid != before.pid;
        let later = now.incarnation.is_none_or(|life| Some(life) > before.incarnation);
        if another && later && now.state == "ready" {
            break;
        }
        // One that was given up before is so for a moment still.
        let given_up = now.state == "given-up" && asked.elapsed() > SEEN_AFTER;
        if given_up || host::host_pid(run)?.is_none() {
            anyhow::bail!(
                "{} did not come back: {}\n  its log: {}",
                node.name,
                now.last_exit.as_deref().unwrap_or("no reason known"),
                run.log(&node.name).display()
            );
        }
        if Instant::now() > late {
            anyhow::bail!(
                "{} was not ready again after {} s ({}); its log: {}",
                node.name,
                wait.as_secs(),
                now.state,
                run.log(&node.name).display()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
    all_back(run, late, wait)?;
    Ok(did)
}

/// After the coordinator the others have to find it again.
fn all_back(run: &RunDir, late: Instant, wait: Duration) -> anyhow::Result<()> {
    loop {
        // One that is given up was so before.
        let away = |line: &&Line| !line.guest && line.state != "ready" && line.state != "given-up";
        let lines = lines(run)?;
        let Some(Line { name, state, .. }) = lines.iter().find(away) else { return Ok(()) };
        if Instant::now() > late {
            anyhow::bail!("{name} was not back after {} s ({state})", wait.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Asks a node to take no more work and waits until it has none; whether it came so far in time.
fn drained(run: &RunDir, node: &Node, patience: Duration) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = OperatorClient::connect(run).await?;
        let asked = client.drain(&node.name.as_str().into()).await;
        client.close().await;
        asked
    })?;
    let late = Instant::now() + patience;
    let mut empty_since: Option<Instant> = None;
    while Instant::now() < late {
        let now = line(run, &node.name)?;
        if now.state == "draining" && now.episodes == 0 {
            if empty_since.get_or_insert_with(Instant::now).elapsed() >= EMPTY_FOR {
                return Ok(true);
            }
        } else {
            empty_since = None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use crrl_config::ClusterConfig;

    use super::*;

    #[test]
    fn who_everybody_talks_to_comes_last_and_a_stranger_is_named() {
        let order = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let order = order(ClusterConfig::default_nodes(), &names)?;
            Ok::<_, String>(order.into_iter().map(|node| node.name).collect::<Vec<_>>())
        };
        let all = ["rollout-0", "rollout-1", "learner", "coordinator"].map(String::from);
        assert_eq!(order(&[]), Ok(all.to_vec()));
        let two = ["rollout-1", "learner"].map(String::from);
        assert_eq!(order(&["learner", "rollout-1"]), Ok(two.to_vec()));
        assert!(order(&["rollout-7"]).expect_err("is none").contains("rollout-7"));
    }
}
