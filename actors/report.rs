//! What a node says of itself, once a second, to the coordinator: from when it has joined on, also while
//! its model is loaded and its actors are started, so that one that hangs there is seen hanging.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crrl_cluster::{Mesh, Probes};
use crrl_control::wire::{NodeReport, NodeRole, NodeState, Wire};
use crrl_telemetry::vitals::Gauges;
use crrl_types::{AdapterVersion, Digest};
use tokio::task::AbortHandle;

use crate::chaos::Chaos;
use crate::duty::{Duty, Roster};
use crate::gpus::Gpus;
use crate::learner::LearnerBoard;
use crate::repair::Repairer;
use crate::vitals::Meter;

/// Time between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// Where the numbers of a report come from, by role.
#[derive(Default)]
pub struct Sources {
    /// The engine and its episodes, once the model is loaded.
    pub rollout: Arc<OnceLock<Repairer>>,
    /// What the learner last said.
    pub learner: Option<LearnerBoard>,
    /// What goes wrong on purpose.
    pub chaos: Chaos,
    /// What the actors are doing.
    pub probes: Probes,
    /// What the node does about work.
    pub roster: Roster,
    /// GPUs its tensors may live on.
    pub gpus: Option<Gpus>,
    /// Whether all of its actors were started.
    pub started: Arc<AtomicBool>,
}

/// Reports until it is stopped or dropped.
pub struct Reporter(AbortHandle);

impl Reporter {
    /// Begins to report.
    #[must_use]
    pub fn start(mesh: Mesh, mut sources: Sources) -> Self {
        let mut meter = Meter::new(sources.gpus.take(), Instant::now());
        let mut gauges = Gauges::default();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let report = report(&mesh, &sources);
                crrl_telemetry::nodes::publish(&report);
                let given = mesh.weights().depot().given();
                crrl_telemetry::nodes::publish_given(
                    given.fetches,
                    given.full_bytes,
                    given.delta_bytes,
                );
                let coordinator = mesh.of_role(NodeRole::Coordinator);
                let round_trip = coordinator.as_ref().and_then(|name| mesh.round_trip(name));
                let vitals = meter.measure(&report.activity, round_trip, Instant::now());
                if let Wire::Vitals { vitals, .. } = &vitals {
                    gauges.vitals(vitals);
                }
                if mesh.roles().contains(&NodeRole::Coordinator) {
                    gauges.clocks(mesh.board().clocks());
                }
                let Some(coordinator) = coordinator else { continue };
                for told in [Wire::Report(report), vitals] {
                    if let Err(error) = mesh.cast(&coordinator, told) {
                        tracing::debug!(%error, "a report was not sent");
                    }
                }
            }
        });
        Self(task.abort_handle())
    }

    /// Ends the reports.
    pub fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn report(mesh: &Mesh, sources: &Sources) -> NodeReport {
    let mut report = NodeReport {
        node: mesh.name().clone(),
        roles: mesh.roles().to_vec(),
        pid: std::process::id(),
        incarnation: mesh.incarnation(),
        state: NodeState::Ready,
        adapter_version: AdapterVersion(0),
        adapter_digest: Digest::default(),
        tokens_per_s: 0.0,
        episodes: 0,
        rss_bytes: resident_bytes(),
        activity: String::new(),
        faults: sources.chaos.seen(),
        actors: sources.probes.report(),
        live: Vec::new(),
    };
    if mesh.roles().contains(&NodeRole::Coordinator) {
        let progress = mesh.board().headline();
        report.adapter_version = AdapterVersion(progress.adapter_version);
        report.episodes = u32::try_from(progress.episodes.in_flight).unwrap_or(u32::MAX);
        report.activity = format!(
            "{} episodes out, {} back, {} trained on",
            progress.episodes.in_flight, progress.episodes.finished, progress.episodes.trained
        );
    }
    if mesh.roles().contains(&NodeRole::Rollout) {
        report.activity = "loading the model".to_owned();
    }
    if let Some(repairer) = sources.rollout.get() {
        let status = repairer.engine().status();
        report.adapter_version = status.serving.version;
        report.adapter_digest = status.serving.digest;
        report.tokens_per_s = status.tokens_per_s;
        report.episodes = u32::try_from(repairer.live().snapshot().len()).unwrap_or(u32::MAX);
        report.activity = repairer.live().line();
        report.live = repairer.live().report(status.serving.version);
    }
    if let Some(board) = &sources.learner {
        let seen = board.seen();
        report.adapter_version = seen.version;
        report.adapter_digest = seen.digest;
        report.tokens_per_s = seen.tokens_per_s;
        report.activity = seen.doing;
        if !seen.ready {
            report.state = NodeState::Starting;
        }
    }
    if !sources.started.load(Ordering::Acquire) {
        report.state = NodeState::Starting;
    }
    match sources.roster.now() {
        Duty::Works => {}
        Duty::Drains => report.state = NodeState::Draining,
        Duty::Rests => report.state = NodeState::Suspended,
    }
    if let Some((peer, why)) = mesh.unreached().first() {
        report.activity = format!("cannot reach {peer}: {why}");
    }
    if let Some(path) = crrl_machine::disk::waiting() {
        report.activity = format!("no space left: waiting for room for {}", path.display());
    }
    report
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
