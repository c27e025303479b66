//! A run under way, as the coordinator's actor holds it: what is decided, and the tokens and tasks that
//! decisions are about.

use std::collections::BTreeMap;
use std::sync::Arc;

use crrl_cluster::RunDir;
use crrl_control::Coordinator as Machine;
use crrl_control::coordinator::Assign;
use crrl_control::plan::Plan;
use crrl_control::wire::Assignment;
use crrl_store::{Reader, Writer};
use crrl_types::{EpisodeId, Sampling, Trajectory};
use ractor::ActorProcessingErr;
use serde_json::{Value, json};

use crate::coordinator::Words;
use crate::curves::Curves;
use crate::journals::Journals;
use crate::run_files::Copying;
use crate::task_file::TaskFile;

/// A run under way.
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) plan: Plan,
    pub(crate) tasks: Vec<Arc<TaskFile>>,
    /// Tokens of results that are not yet in a batch.
    pub(crate) trajectories: BTreeMap<EpisodeId, Trajectory>,
    pub(crate) journals: Journals,
    pub(crate) curves: Curves,
    pub(crate) writer: Writer<Words>,
    /// None where no copies of the ledger are kept, or no thread was to be had for them.
    pub(crate) copier: Option<Copying>,
}

impl Run {
    /// What is shown of it to whoever asks: counts and names.
    pub(crate) fn snapshot(&self) -> Value {
        let status = self.machine.status();
        let capacity: u32 = status.nodes.iter().filter(|n| n.up).map(|n| n.capacity).sum();
        let nodes: Vec<Value> = status
            .nodes
            .iter()
            .map(|node| {
                json!({
                    "node": node.name,
                    "up": node.up,
                    "leases": node.leases,
                    "credit": node.capacity.saturating_sub(node.leases),
                    "capacity": node.capacity,
                    "version": node.version,
                    "proven": node.proven,
                })
            })
            .collect();
        json!({
            "phase": format!("{} of {}, {}", status.phase, status.phases, status.label),
            "step": status.step,
            "steps": status.steps,
            "version": status.version,
            "waiting": status.waiting,
            "queued": status.queued,
            "leased": status.leased,
            "capacity": capacity,
            "groups_open": status.groups_open,
            "groups_ready": status.groups_ready,
            "batches_out": status.batches_out,
            "trajectories_at_hand": self.trajectories.len(),
            "quarantined": status.quarantined,
            "evaluated": status.evaluated,
            "totals": status.totals,
            "error": status.error,
            "nodes": nodes,
        })
    }

    /// What a node is told of an episode; none where its task is in no file any more.
    pub(crate) fn assignment(&self, assign: Assign) -> Option<Assignment> {
        let Assign { episode, attempt, group, phase, task, seed, evaluation, past, .. } = assign;
        let of_plan = self.plan.phases.get(phase as usize)?;
        Some(Assignment {
            episode,
            attempt,
            group,
            task_json: self.tasks.get(phase as usize)?.lines.get(&task)?.clone(),
            sampling: Sampling { seed, ..of_plan.sampling().clone() },
            lease_ms: self.plan.limits.lease_ms,
            evaluation,
            past: self.journals.past(episode, past),
        })
    }

    /// The trajectories of a batch: at hand, or from the store after a restart.
    pub(crate) fn batch(
        &self,
        episodes: &[EpisodeId],
        run: &RunDir,
    ) -> Result<Vec<Trajectory>, ActorProcessingErr> {
        let mut reader = None;
        episodes
            .iter()
            .map(|id| {
                if let Some(trajectory) = self.trajectories.get(id) {
                    return Ok(trajectory.clone());
                }
                let reader = match &reader {
                    Some(reader) => reader,
                    None => &*reader.insert(Reader::open(&run.store())?),
                };
                let found = reader.trajectory(*id)?;
                Ok(found.ok_or_else(|| format!("the run store has no trajectory {id}"))?)
            })
            .collect()
    }
}
