//! What `up` would do.

use std::io::Write as _;
use std::process::ExitCode;

use crrl_cluster::changes::{Action, Change, Changes, Observed, plan};
use crrl_cluster::{RunDir, host};
use crrl_config::{ClusterConfig, Role};

use super::{run_dir, up};
use crate::run::spell_out;

/// Exit code of a plan that has changes.
const CHANGES: u8 = 3;

pub(super) fn run(config: &ClusterConfig, json: bool) -> anyhow::Result<ExitCode> {
    let run = run_dir(config);
    let mut changes = of(&run, config)?;
    if host::host_pid(&run)?.is_none() {
        let mut config = config.clone();
        make_absolute(&mut config, &run);
        // What `up` refuses is refused here.
        up::planned(&run, config)?;
        if up::is_complete(&run)? {
            up::say_complete(&run);
            changes.nodes.clear();
        }
    }
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({
            "run": run.path(),
            "id": changes.id,
            "changes": !changes.is_empty(),
            "obstacle": changes.obstacle,
            "nodes": json_of(&changes),
        });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "run folder  {}", run.path().display())?;
        writeln!(out, "plan        {}", changes.id)?;
        print(&mut out, &changes)?;
    }
    Ok(ExitCode::from(if changes.is_empty() { 0 } else { CHANGES }))
}

/// What is done about each node.
pub(super) fn json_of(changes: &Changes) -> serde_json::Value {
    let one = |change: &Change| {
        let Change { name, roles, threads, host, device, gpu, memory_mib, action } = change;
        let role = role_names(roles);
        serde_json::json!({
            "name": name, "role": role, "threads": threads, "host": host, "device": device,
            "gpu": gpu, "memory_mib": memory_mib, "action": action,
        })
    };
    changes.nodes.iter().map(one).collect()
}

/// One line for each node.
pub(super) fn print(out: &mut impl std::io::Write, changes: &Changes) -> std::io::Result<()> {
    for Change { name, roles, threads, host, device, gpu, memory_mib, action } in &changes.nodes {
        let threads = if *threads == 0 { "all".into() } else { threads.to_string() };
        let mut rest = if device == "cpu" { String::new() } else { format!(" {device}") };
        rest += &gpu.map(|gpu| format!(" gpu {gpu}")).unwrap_or_default();
        if *memory_mib > 0 {
            rest += &format!(" memory {memory_mib} MiB");
        }
        rest += &host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        let word = match action {
            Action::Keep => "keep",
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Blocked => "blocked",
        };
        writeln!(out, "{word:<8} {name:<16} {:<28} threads {threads}{rest}", role_names(roles))?;
    }
    if let Some(obstacle) = &changes.obstacle {
        writeln!(out, "not while the cluster is up ({obstacle}): take it down first")?;
    }
    Ok(())
}

/// The plan for a run and a configuration.
pub(super) fn of(run: &RunDir, config: &ClusterConfig) -> anyhow::Result<Changes> {
    let mut wanted = config.clone();
    make_absolute(&mut wanted, run);
    let held = held(run);
    // A host that has only just begun has not written anything down yet.
    let host = host::host_pid(run)?.map(|_| host::state(run).unwrap_or_default());
    // What is left of a run that is not up is no obstacle.
    let held = held.filter(|_| host.is_some());
    Ok(plan(&wanted, &Observed { held, host }))
}

/// The configuration in the run's folder.
pub(super) fn held(run: &RunDir) -> Option<ClusterConfig> {
    let mut held = run.config().ok()?;
    make_absolute(&mut held, run);
    Some(held)
}

/// Two configurations are compared with their paths spelled out.
fn make_absolute(config: &mut ClusterConfig, run: &RunDir) {
    spell_out(config);
    run.path().clone_into(&mut config.run.dir);
}

fn role_names(roles: &[Role]) -> String {
    let name = |role: &Role| match role {
        Role::Coordinator => "coordinator",
        Role::ParameterServer => "parameter-server",
        Role::Learner => "learner",
        Role::Rollout => "rollout",
    };
    roles.iter().map(name).collect::<Vec<_>>().join(",")
}
