//! Brings a cluster up, or a running one to its configuration.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crrl_cluster::host::{self, Alone, Up};
use crrl_cluster::remote::Phase;
use crrl_cluster::run_dir::write_atomic;
use crrl_cluster::{RunDir, changes::Changes};
use crrl_config::ClusterConfig;
use crrl_control::plan::{Limits, PLAN_FILE, PLAN_FORMAT, Plan};

use super::status::{Line, lines};
use super::{LOOK_EVERY, UNHEALTHY, plan, run_dir};
use crate::commands::failure::{Coded, host_error};
use crate::meter::{Meter, Quiet};
use crate::run::{Run, absolute, phases};

pub(super) fn run(
    mut config: ClusterConfig,
    id: Option<&str>,
    wait: Duration,
    quiet: Quiet,
) -> anyhow::Result<ExitCode> {
    // The same paths must mean the same files in every process, whatever folder it is started in.
    config.run.dir = absolute(&config.run.dir);
    config.model.path = absolute(&config.model.path);
    config.model.adapter = config.model.adapter.as_deref().map(absolute);
    let run = run_dir(&config);
    // What is planned is what is done: nobody changes it in between.
    let alone = host::alone(&run).map_err(host_error)?;
    let changes = plan::of(&run, &config)?;
    if let Some(id) = id
        && id != changes.id
    {
        return Err(Coded::usage(format!(
            "plan {id} is stale: what is wanted or what runs has changed since; it would be {} now \
             (crrl cluster plan)",
            changes.id
        )));
    }
    match host::host_pid(&run)? {
        None => start(&run, config, &alone)?,
        Some(pid) => apply(&run, &config, &changes, pid, &alone)?,
    }
    drop(alone);
    if wait.is_zero() { Ok(ExitCode::SUCCESS) } else { until_ready(&run, wait, quiet) }
}

fn start(run: &RunDir, config: ClusterConfig, alone: &Alone) -> anyhow::Result<()> {
    let plan_path = run.path().join(PLAN_FILE);
    let held = std::fs::read_to_string(&plan_path).ok();
    let plan = match &held {
        Some(text) => Plan::parse(text)
            .with_context(|| format!("{} cannot be resumed", plan_path.display()))?,
        None => Plan {
            format: PLAN_FORMAT,
            seed: config.run.seed,
            limits: Limits::default(),
            phases: phases(&config, 0),
        },
    };
    let dir = config.run.dir.clone();
    let title = "cluster up".to_owned();
    let resume = format!("crrl cluster up -f {}", run.config_path().display());
    Run { title, dir, config, plan, resume }.prepare(held.is_some(), alone)?;
    match host::up_alone(run, alone).map_err(host_error)? {
        Up::Already { pid } => eprintln!("already up (host pid {pid})"),
        Up::Started { pid } => eprintln!("started (host pid {pid})"),
    }
    Ok(())
}

/// Starts and stops nodes of a cluster that is up.
pub(super) fn apply(
    run: &RunDir,
    config: &ClusterConfig,
    changes: &Changes,
    pid: u32,
    alone: &Alone,
) -> anyhow::Result<()> {
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
        return Ok(());
    }
    plan::print(&mut std::io::stderr(), changes)?;
    let text = toml::to_string(config).context("the configuration cannot be written")?;
    write_atomic(&run.config_path(), text.as_bytes())?;
    if host::adjust(run, alone).map_err(host_error)? {
        return Ok(());
    }
    Err(anyhow::anyhow!("the cluster ended meanwhile; start it: crrl cluster up"))
}

/// Where a node is on its way: its state, and for one on another machine how far it has come there and
/// what went wrong last.
fn standing(line: &Line) -> String {
    let Some(phase) = line.phase.as_ref().filter(|_| line.state != "ready") else {
        return line.state.clone();
    };
    let Phase { host, what, last_error, .. } = phase;
    let error = last_error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
    format!("{} on {host}: {what}{error}", line.state)
}

/// Waits until every node that was started here is ready. One line whenever a node comes a step
/// further.
pub(super) fn until_ready(run: &RunDir, wait: Duration, quiet: Quiet) -> anyhow::Result<ExitCode> {
    let meter = Meter::start(quiet, "waiting for nodes", "ready", 0);
    let count = meter.count();
    let deadline = Instant::now() + wait;
    let started = Instant::now();
    let mut said = BTreeMap::new();
    loop {
        let lines = lines(run)?;
        for line in &lines {
            let now = standing(line);
            if said.insert(line.name.clone(), now.clone()).as_ref() != Some(&now) {
                let seconds = started.elapsed().as_secs();
                meter.note(&format!("{:<16} {seconds:>4} s  {now}", line.name));
            }
            if line.state == "given-up" {
                anyhow::bail!(
                    "{} failed too often: {}\n  its log: {}",
                    line.name,
                    line.last_exit.as_deref().unwrap_or("no reason known"),
                    run.log(&line.name).display()
                );
            }
        }
        let own = || lines.iter().filter(|line| !line.guest);
        count.of(own().count() as u64);
        count.at(own().filter(|line| line.state == "ready").count() as u64);
        if own().all(|line| line.state == "ready") {
            return Ok(ExitCode::SUCCESS);
        }
        if host::host_pid(run)?.is_none() {
            let path = run.path().display();
            meter.warn(&format!("every node has ended; crrl cluster status --run {path}"));
            return Ok(ExitCode::from(UNHEALTHY));
        }
        if Instant::now() > deadline {
            anyhow::bail!(
                "not every node was ready after {} s; they go on starting: crrl cluster status \
                 --run {}",
                wait.as_secs(),
                run.path().display()
            );
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
