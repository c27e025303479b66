//! Which episodes are shown in full, and what of them.

use std::collections::BTreeSet;

use crrl_control::plan::Phase;
use crrl_types::{EpisodeId, Trajectory, Turn};
use serde::Serialize;

use crate::facts::{EpisodeFact, Facts};

/// Episodes that are shown on each side.
pub const EACH_MAX: usize = 4;

/// Which end an episode is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Highest reward.
    Best,
    /// Lowest reward of those that changed something.
    Worst,
}

/// An episode that is shown, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub episode: EpisodeId,
    /// Why.
    pub side: Side,
}

/// An episode, as it is shown.
#[derive(Debug, Clone, Serialize)]
pub struct Pick {
    /// Why it is shown.
    pub side: Side,
    /// Which it is.
    pub episode: u64,
    /// Its task.
    pub task: String,
    /// The phase it was in, and its optimizer step.
    pub phase: String,
    /// What it earned.
    pub reward: f64,
    /// The parts of that: name, value, weight.
    pub components: Vec<(String, f64, f64)>,
    /// Whether the task counts as solved.
    pub success: bool,
    /// How it ended.
    pub finish: String,
    /// Tokens generated.
    pub generated: usize,
    /// Wall time.
    pub wall_ms: u64,
    /// Adapters its tokens were drawn under, the oldest and the newest.
    pub versions: Option<(u64, u64)>,
    /// What the agent was told, where the task's file is there.
    #[serde(skip)]
    pub statement: Option<String>,
    /// The patch nobody showed it.
    #[serde(skip)]
    pub gold: Option<String>,
    /// What it changed.
    #[serde(skip)]
    pub diff: String,
    /// What it said and did.
    #[serde(skip)]
    pub turns: Vec<Turn>,
}

/// Chooses the episodes to show: on each side one a task, of equal ones the later, which a later
/// policy made. The worst are sought among those that changed something: what did nothing has
/// nothing to show. No episode is on both sides.
#[must_use]
pub fn choose(episodes: &[EpisodeFact]) -> Vec<Choice> {
    let mut done: Vec<(f64, &EpisodeFact)> = episodes
        .iter()
        .filter_map(|episode| {
            Some((episode.reward.filter(|_| episode.conduct.is_some())?, episode))
        })
        .collect();
    let later = |a: &EpisodeFact, b: &EpisodeFact| b.id.cmp(&a.id);
    done.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| later(a.1, b.1)));
    let mut seen = BTreeSet::new();
    let mut choices = Vec::new();
    let best = done.iter().filter(|(reward, _)| *reward > 0.0);
    for (_, episode) in best.filter(|(_, episode)| seen.insert(&episode.task)).take(EACH_MAX) {
        choices.push(Choice { episode: episode.id, side: Side::Best });
    }
    done.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| later(a.1, b.1)));
    let changed = done.iter().filter(|(_, e)| e.conduct.as_ref().is_some_and(|c| c.changed));
    let mut seen = BTreeSet::new();
    let mut worst = 0;
    for (_, episode) in changed.filter(|(_, episode)| !episode.success.unwrap_or(false)) {
        let chosen = choices.iter().any(|choice| choice.episode == episode.id);
        if worst < EACH_MAX && !chosen && seen.insert(&episode.task) {
            choices.push(Choice { episode: episode.id, side: Side::Worst });
            worst += 1;
        }
    }
    choices
}

impl Pick {
    pub(crate) fn of(facts: &Facts, shown: &(Choice, Trajectory)) -> Self {
        let (choice, trajectory) = shown;
        let row = facts.episodes.iter().find(|episode| episode.id == choice.episode);
        let phase = row.and_then(|row| facts.plan.phases.get(row.phase as usize));
        let step = row.and_then(|row| {
            let returned = facts.history.returned.get(&row.id).map(|returned| returned.step);
            row.step.map(|step| step.0).or(returned)
        });
        let phase = match (phase, step) {
            (Some(Phase::Evaluate(evaluate)), _) => format!("evaluation {:?}", evaluate.label),
            (_, Some(step)) => format!("training, step {step}"),
            _ => "training".to_owned(),
        };
        let task = facts.tasks.get(&trajectory.task);
        let newest = trajectory.adapters.iter().map(|span| span.version.0).max();
        let finish = match trajectory.finish {
            crrl_types::Finish::Done => "done",
            crrl_types::Finish::CallLimit => "out of calls",
            crrl_types::Finish::TokenLimit => "out of tokens",
            crrl_types::Finish::TimeLimit => "out of time",
            crrl_types::Finish::Failed => "harness failed",
        };
        Self {
            side: choice.side,
            episode: choice.episode.0,
            task: trajectory.task.0.clone(),
            phase,
            reward: trajectory.reward.total,
            components: trajectory
                .reward
                .components
                .iter()
                .map(|part| (part.name.clone(), part.value, part.weight))
                .collect(),
            success: trajectory.reward.success,
            finish: finish.to_owned(),
            generated: trajectory.generated_len(),
            wall_ms: trajectory.wall_ms,
            versions: trajectory.oldest_version().map(|version| version.0).zip(newest),
            statement: task.map(|task| task.statement.clone()),
            gold: task.map(|task| task.patch.clone()),
            diff: trajectory.diff.clone(),
            turns: trajectory.turns.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crrl_types::{Finish, GroupId};

    use super::*;
    use crate::facts::Conduct;

    fn episode(id: u64, task: &str, reward: f64, changed: bool) -> EpisodeFact {
        let (tools, programs) = (BTreeMap::new(), BTreeMap::new());
        EpisodeFact {
            id: EpisodeId(id),
            group: GroupId(0),
            task: task.into(),
            phase: 0,
            evaluation: false,
            state: "trained".into(),
            reward: Some(reward),
            success: Some(reward >= 1.0),
            generated: Some(9),
            step: None,
            conduct: Some(Conduct { finish: Finish::Done, changed, tools, programs }),
            spent: None,
        }
    }

    fn ids(choices: &[Choice], side: Side) -> Vec<u64> {
        choices.iter().filter(|choice| choice.side == side).map(|choice| choice.episode.0).collect()
    }

    #[test]
    fn one_a_task_and_the_later_of_equals() {
        let episodes = [
            episode(1, "a", 1.0, true),
            episode(2, "a", 1.0, true),
            episode(3, "b", 0.5, true),
            episode(4, "c", 0.0, true),
            episode(5, "d", 0.0, false),
        ];
        let choices = choose(&episodes);
        assert_eq!(ids(&choices, Side::Best), [2, 3]);
        assert_eq!(ids(&choices, Side::Worst), [4], "not what changed nothing, nor what is shown");
    }

    #[test]
    fn bounded_and_never_both() {
        let episodes: Vec<_> =
            (0..99).map(|id| episode(id, &format!("t{id}"), id as f64 / 200.0, true)).collect();
        let choices = choose(&episodes);
        let (best, worst) = (ids(&choices, Side::Best), ids(&choices, Side::Worst));
        assert_eq!((best.len(), worst.len()), (EACH_MAX, EACH_MAX));
        assert!(best.iter().all(|id| !worst.contains(id)));
        let all_zero: Vec<_> = (0..9).map(|id| episode(id, "t", 0.0, false)).collect();
        assert!(choose(&all_zero).is_empty(), "none earned anything, none changed anything");
        assert!(choose(&[]).is_empty());
    }
}
