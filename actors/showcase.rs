//! What the coordinator puts on the board that people's tools are shown.

use crrl_cluster::StatusBoard;
use crrl_cluster::board::{EpisodeCounts, RewardPoint};
use crrl_control::coordinator::{Status, Waiting};
use crrl_control::plan::{Phase, Plan};
use crrl_store::{Reader, StoreError};
use crrl_types::{Step, Trajectory};

/// The board, and how a run is written on it.
pub(crate) struct Showcase<'a>(pub(crate) &'a StatusBoard);

impl Showcase<'_> {
    /// What the run is doing, in a few words.
    pub(crate) fn phase(&self, phase: &str) {
        self.0.progress(|p| p.phase = phase.to_owned());
    }

    /// A step was committed.
    pub(crate) fn step(&self, step: Step, metrics: &[(String, f64)]) {
        self.0.progress(|p| {
            if let Some(point) = point(step, metrics) {
                p.history.retain(|held| held.step < step.0);
                p.push_point(point);
                p.metrics = metrics.to_vec();
            }
        });
    }

    /// The steps of earlier lives.
    pub(crate) fn fill(&self, reader: &Reader) -> Result<(), StoreError> {
        let steps = reader.steps()?;
        self.0.progress(|p| {
            p.history.clear();
            for point in steps.iter().filter_map(|row| point(row.step, &row.metrics)) {
                p.push_point(point);
            }
        });
        Ok(())
    }

    /// An attempt came back.
    pub(crate) fn episode(&self, trajectory: &Trajectory) {
        self.0.came_back(&line(trajectory));
    }

    /// How the run stands.
    pub(crate) fn status(&self, status: &Status, plan: &Plan) {
        let phase = match (plan.phases.get(status.phase as usize - 1), &status.error) {
            (_, Some(error)) => format!("failed: {error}"),
            (None, _) => "done".to_owned(),
            (Some(Phase::Evaluate(evaluate)), _) => {
                let (done, all) = status.evaluated.unwrap_or_default();
                format!("evaluating {} ({done}/{all})", evaluate.label)
            }
            (Some(Phase::Train(_)), _) => "training".to_owned(),
        };
        let waiting = match status.waiting {
            Waiting::Learner => ", waiting for the learner".to_owned(),
            Waiting::Nodes => ", waiting for a rollout node".to_owned(),
            Waiting::Adapter { version } => format!(", waiting for adapter {version}"),
            _ => String::new(),
        };
        let totals = status.totals;
        let finished = totals.trained + totals.measured + totals.dropped;
        let counts = EpisodeCounts {
            dispatched: totals.created.saturating_sub(u64::from(status.queued)),
            in_flight: status.leased.into(),
            finished,
            trained: totals.trained,
            dropped: totals.dropped,
            failed: totals.failed + totals.quarantined,
        };
        self.0.progress(|p| {
            p.phase = phase + &waiting;
            p.step = status.step.0;
            p.steps = status.steps;
            p.adapter_version = status.version.0;
            p.episodes = counts;
        });
    }
}

fn point(step: Step, metrics: &[(String, f64)]) -> Option<RewardPoint> {
    let value = |name: &str| metrics.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    let (reward, success) = (value("attempt_reward_mean")?, value("attempt_success_rate")?);
    // A run of before this was counted weighs every step alike.
    let attempts = value("attempts").map_or(1, |attempts| attempts as u64);
    Some(RewardPoint { step: step.0, reward, success, attempts })
}

fn line(trajectory: &Trajectory) -> String {
    let solved = if trajectory.reward.success { " solved" } else { "" };
    let calls: Vec<&str> = trajectory
        .turns
        .iter()
        .flat_map(|turn| &turn.tools)
        .map(|tool| if tool.name.is_empty() { "?" } else { tool.name.as_str() })
        .take(8)
        .collect();
    format!(
        "{} {} reward {:.2}{solved} · {}",
        trajectory.node,
        trajectory.task,
        trajectory.reward.total,
        calls.join(" ")
    )
}
