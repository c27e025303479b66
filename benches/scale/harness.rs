//! The coordinator's actor on a run folder of its own, with a way out that the benchmark holds.

use std::path::Path;

use anyhow::Context as _;
use crrl_actors::coordinator::{Args, Coordinator, Msg, Post, State};
use crrl_actors::leave::Leave;
use crrl_cluster::{Inbound, Probe, Probes, Receipt, RunDir, StatusBoard};
use crrl_control::plan::PLAN_FILE;
use crrl_control::wire::{NodeRole, Wire};
use crrl_store::Options;
use crrl_types::NodeName;
use ractor::{Actor, ActorRef};

use crate::made_work::{plan, task_lines};

/// A run folder with a plan and its tasks.
pub(crate) fn run_dir(folder: &Path, groups_per_step: u32) -> anyhow::Result<RunDir> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    std::fs::write(folder.join("tasks.jsonl"), task_lines())?;
    std::fs::write(folder.join(PLAN_FILE), plan(groups_per_step).to_json())?;
    Ok(RunDir::new(folder))
}

/// Starts the actor, with a probe around it if asked for.
pub(crate) async fn coordinator(
    run: &RunDir,
    board: StatusBoard,
    post: Post,
    probes: Option<&Probes>,
) -> anyhow::Result<ActorRef<Msg>> {
    let name = "coordinator".into();
    let (store, leave) = (Options::default(), Leave::default());
    let (run, own, telemetry) = (run.clone(), Default::default(), Default::default());
    let args = Args { name, run, board, post, store, own, leave, telemetry };
    let (actor, _) = match probes {
        None => Actor::spawn(None, Coordinator, args).await?,
        Some(probes) => {
            let watched = probes.starting("coordinator", "Coordinator", None);
            let probe = Probe::new(Coordinator, watched).with_snapshot(State::snapshot);
            Actor::spawn(None, probe, args).await?
        }
    };
    Ok(actor)
}

/// Puts a message into its inbox.
pub(crate) fn say(
    actor: &ActorRef<Msg>,
    from: &NodeName,
    role: NodeRole,
    wire: Wire,
) -> anyhow::Result<()> {
    let (from, roles) = (from.clone(), vec![role]);
    let inbound = Inbound { from, roles, wire, receipt: Receipt::none() };
    actor
        .cast(Msg::Inbound(Box::new(inbound)))
        .map_err(|_| anyhow::anyhow!("the coordinator has ended"))
}
