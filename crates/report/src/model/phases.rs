//! The plan, a line a phase.

use crrl_control::plan::Phase as Planned;
use serde::Serialize;

use crate::facts::Facts;

/// One phase of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Phase {
    /// What it is called.
    pub label: String,
    /// Name of its task file.
    pub tasks: String,
    /// How much of what, in words.
    pub extent: String,
    /// Sampling temperature.
    pub temperature: f32,
}

pub(crate) fn of(facts: &Facts) -> Vec<Phase> {
    let phase = |phase: &Planned| Phase {
        label: match phase {
            Planned::Evaluate(evaluate) => format!("evaluate “{}”", evaluate.label),
            Planned::Train(_) => "train".to_owned(),
        },
        tasks: phase
            .tasks()
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        extent: match phase {
            Planned::Evaluate(evaluate) => {
                let first = match evaluate.tasks_max {
                    0 => String::new(),
                    n => format!(", the first {n} tasks"),
                };
                format!("attempts at each task: {}{first}", evaluate.samples)
            }
            Planned::Train(train) => format!(
                "{} steps of {} groups of {}, staleness up to {}{}",
                train.steps,
                train.groups_per_step,
                train.group_size,
                train.staleness_max,
                if train.sync { ", in turns" } else { "" }
            ),
        },
        temperature: phase.sampling().temperature,
    };
    facts.plan.phases.iter().map(phase).collect()
}
