//! Brings a cluster up, or a running one to its configuration.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use crrl_cluster::host::{self, Alone, Up};
use crrl_cluster::run_dir::write_atomic;
use crrl_cluster::{RunDir, changes::Changes};
use crrl_config::ClusterConfig;
use crrl_control::plan::{PLAN_FILE, Plan};

use super::status::{Line, Seen};
use super::{How, LOOK_EVERY, UNHEALTHY, plan, run_dir};
use crate::commands::failure::{Coded, FAILED, PARTIAL, describe, host_error};
use crate::meter::{Meter, Quiet};
use crate::requirements;
use crate::run::{Run, given_up, plan_again, plan_of, results_of, spell_out};

/// What was done, in the word `--json` has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Did {
    /// The cluster was not up.
    Started,
    /// It was up, and nodes came, went or were started again.
    Changed,
    /// All was as it should be.
    Nothing,
    /// The run is over: there is nothing left to start nodes for.
    Complete,
}

pub(super) fn run(
    mut config: ClusterConfig,
    id: Option<&str>,
    how: How,
) -> anyhow::Result<ExitCode> {
    spell_out(&mut config);
    let run = run_dir(&config);
    // What is planned is what is done: nobody changes it in between.
    let alone = host::alone(&run).map_err(host_error)?;
    let mut changes = plan::of(&run, &config)?;
    if let Some(id) = id
        && id != changes.id
    {
        return Err(Coded::usage(format!(
            "plan {id} is stale: what is wanted or what runs has changed since; it would be {} now \
             (crrl cluster plan)",
            changes.id
        )));
    }
    let did = match host::host_pid(&run)? {
        None => start(&run, config, &alone, how.quiet)?,
        Some(pid) => apply(&run, &config, &changes, pid, &alone)?,
    };
    if did == Did::Complete {
        changes.nodes.clear();
    }
    drop(alone);
    finish(&run, did, &changes, how)
}

fn start(run: &RunDir, config: ClusterConfig, alone: &Alone, quiet: Quiet) -> anyhow::Result<Did> {
    let (planned, is_held) = planned(run, config)?;
    if is_complete(run)? {
        say_complete(run);
        return Ok(Did::Complete);
    }
    requirements::check(&planned, quiet)?;
    planned.prepare(is_held, alone)?;
    planned.forget_error(alone)?;
    Ok(match host::up(run, alone).map_err(host_error)? {
        Up::Already { pid } => {
            eprintln!("already up (host pid {pid})");
            Did::Nothing
        }
        Up::Started { pid } => {
            eprintln!("started (host pid {pid})");
            Did::Started
        }
    })
}

/// The run as it would be started, and whether its folder holds one to go on with.
///
/// # Errors
/// It was begun with another plan, or its own cannot be read.
pub(super) fn planned(run: &RunDir, config: ClusterConfig) -> anyhow::Result<(Run, bool)> {
    let plan_path = run.path().join(PLAN_FILE);
    let held = std::fs::read_to_string(&plan_path).ok();
    let plan = match &held {
        Some(text) => {
            let held = Plan::parse(text)
                .with_context(|| format!("{} cannot be resumed", plan_path.display()))?;
            plan_again(&held, plan::held(run).as_ref(), &config)
        }
        None => plan_of(&config, 0),
    };
    let dir = config.run.dir.clone();
    let title = "cluster up".to_owned();
    let resume = format!("crrl cluster up -f {}", run.config_path().display());
    let planned = Run { title, dir, config, plan, resume };
    planned.fits(held.is_some())?;
    Ok((planned, held.is_some()))
}

pub(super) fn say_complete(run: &RunDir) {
    let path = run.path().display();
    eprintln!("the run in {path} is complete, nothing is started; crrl report {path}");
}

/// Whether every phase of the run has ended.
pub(super) fn is_complete(run: &RunDir) -> anyhow::Result<bool> {
    Ok(results_of(run.path())?.is_some_and(|results| results.complete))
}

/// Starts and stops nodes of a cluster that is up.
pub(super) fn apply(
    run: &RunDir,
    config: &ClusterConfig,
    changes: &Changes,
    pid: u32,
    alone: &Alone,
) -> anyhow::Result<Did> {
    if let Some(obstacle) = &changes.obstacle {
        return Err(Coded::usage(format!(
            "{} is up (host pid {pid}) with another configuration ({obstacle}); take it down first: \
             crrl cluster down --run {}",
            run.path().display(),
            run.path().display()
        )));
    }
    if changes.is_empty() {
        eprintln!("already up (host pid {pid})");
        return Ok(Did::Nothing);
    }
    plan::print(&mut std::io::stderr(), changes)?;
    let text = toml::to_string(config).context("the configuration cannot be written")?;
    write_atomic(&run.config_path(), text.as_bytes())?;
    if host::adjust(run, alone).map_err(host_error)? {
        return Ok(Did::Changed);
    }
    Err(anyhow::anyhow!("the cluster ended meanwhile; start it: crrl cluster up"))
}

/// How a wait for nodes ended: what was seen last, and what kept them from being ready.
struct Waited {
    seen: Seen,
    trouble: Option<anyhow::Error>,
}

/// Waits for the nodes, and tells what was done and what became of them.
pub(super) fn finish(
    run: &RunDir,
    did: Did,
    changes: &Changes,
    how: How,
) -> anyhow::Result<ExitCode> {
    if how.wait.is_zero() || did == Did::Complete {
        if how.json {
            let (seen, error) = at_once(run, did);
            tell(run, did, changes, &seen, error)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Waited { seen, trouble } = until_ready(run, how)?;
    if how.json {
        tell(run, did, changes, &seen, trouble.as_ref().map(describe))?;
    }
    match trouble {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

/// Every node as far as it can be told without waiting for any, or why it cannot: what was done is done all
/// the same.
fn at_once(run: &RunDir, did: Did) -> (Seen, Option<String>) {
    // Who has just been started answers nobody yet.
    let seen = if did == Did::Started { Seen::unasked(run) } else { Seen::now(run) };
    seen.map_or_else(|error| (Seen::default(), Some(describe(&error))), |seen| (seen, None))
}

/// Prints what was done as JSON, with every node as it was seen last.
fn tell(
    run: &RunDir,
    did: Did,
    changes: &Changes,
    seen: &Seen,
    error: Option<String>,
) -> anyhow::Result<()> {
    let mut value = seen.json(run);
    value["plan"] = changes.id.as_str().into();
    value["did"] = serde_json::to_value(did)?;
    value["changes"] = plan::json_of(changes);
    value["error"] = error.into();
    writeln!(std::io::stdout(), "{value}")?;
    Ok(())
}

/// Waits until every node that was started here is ready. One line whenever a node comes a step
/// further.
fn until_ready(run: &RunDir, how: How) -> anyhow::Result<Waited> {
    let meter = Meter::start(how.quiet, "waiting for nodes", "ready", 0);
    let count = meter.count();
    let started = Instant::now();
    let deadline = started + how.wait;
    let path = run.path().display();
    let mut said = BTreeMap::new();
    loop {
        let seen = Seen::now(run)?;
        for line in &seen.lines {
            let now = line.standing();
            if said.insert(line.name.clone(), now.clone()).as_ref() != Some(&now) {
                let seconds = started.elapsed().as_secs();
                meter.note(&format!("{:<16} {seconds:>4} s  {now}", line.name));
            }
        }
        let own = || seen.lines.iter().filter(|line| !line.guest);
        count.of(own().count() as u64);
        count.at(own().filter(|line| line.is_ready()).count() as u64);
        let late = Instant::now() > deadline;
        // The others come up whatever became of one of them, as long as there is a host.
        let settled = own().all(|line| line.is_ready() || line.is_given_up());
        let is_over = settled || late || seen.host_pid.is_none();
        let lost = own().find(|line| line.is_given_up()).filter(|_| is_over);
        let trouble = if let Some(line) = lost {
            without(run, line, seen.host_pid.is_some() && own().any(Line::is_ready))
        } else if seen.ready {
            return Ok(Waited { seen, trouble: None });
        } else if seen.host_pid.is_none() {
            if is_complete(run)? {
                return Ok(Waited { seen, trouble: None });
            }
            let message = format!("every node has ended; crrl cluster status --run {path}");
            anyhow::Error::from(Coded { code: UNHEALTHY, message })
        } else if late {
            anyhow::anyhow!(
                "not every node was ready after {} s; they go on starting: crrl cluster status \
                 --run {path}",
                how.wait.as_secs()
            )
        } else {
            std::thread::sleep(LOOK_EVERY);
            continue;
        };
        return Ok(Waited { seen, trouble: Some(trouble) });
    }
}

/// Tells of a node that was given up. `others` of them are ready: it was done in part.
fn without(run: &RunDir, line: &Line, others: bool) -> anyhow::Error {
    let message = format!(
        "{} {}: {}\n  its log: {}",
        line.name,
        given_up(line.restarts),
        line.last_exit.as_deref().unwrap_or("no reason known"),
        run.log(&line.name).display()
    );
    let code = if others { PARTIAL } else { FAILED };
    Coded { code, message }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_without_waiting_is_no_failure_where_nothing_can_be_seen_of_it() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        // No folder: nobody can look whether a host is running.
        let run = RunDir::new(file.path().join("run"));
        for did in [Did::Started, Did::Changed, Did::Nothing] {
            let (seen, error) = at_once(&run, did);
            assert!(seen.lines.is_empty() && error.is_some(), "{did:?}: {error:?}");
        }
        let changes = Changes { id: "none".into(), nodes: Vec::new(), obstacle: None };
        let quiet = Quiet { quiet: true };
        let how = How { wait: std::time::Duration::ZERO, quiet, json: false };
        finish(&run, Did::Started, &changes, how).expect("it was not asked for");
    }
}
