//! The plan of a run: what is evaluated and what is trained, in order. It is written to
//! `RUN/plan.json` by whoever starts the run and carried out by the coordinator.
//!
//! ```json
//! {"format": 1, "seed": 7, "phases": [
//!   {"kind": "evaluate", "label": "before", "tasks": "held-out.jsonl", "samples": 2},
//!   {"kind": "train", "tasks": "train.jsonl", "steps": 40, "group_size": 8, "groups_per_step": 8},
//!   {"kind": "evaluate", "label": "after", "tasks": "held-out.jsonl", "samples": 2}]}
//! ```
//!
//! This module parses and checks text; it never opens a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crrl_types::{OnLoss, Sampling, Staleness, Stragglers, TaskId};
use serde::{Deserialize, Serialize};

/// Name of the plan's file in a run's folder.
pub const PLAN_FILE: &str = "plan.json";

/// The format this build reads and writes.
pub const PLAN_FORMAT: u32 = 1;

/// Phases one plan may have: a plan is something a person looks over.
pub const PHASES_MAX: usize = 256;

/// What a run does, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_FORMAT`].
    pub format: u32,
    /// Seed of task order and of every episode's sampling.
    #[serde(default)]
    pub seed: u64,
    /// How patient the coordinator is.
    #[serde(default)]
    pub limits: Limits,
    /// Carried out one after the other.
    pub phases: Vec<Phase>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Phase {
    /// Measure the policy as it stands; nothing is trained on.
    Evaluate(Evaluate),
    /// Optimizer steps.
    Train(Train),
}

/// Measures the policy as it stands at the start of the phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Names the result in `results.json`; unique in the plan.
    pub label: String,
    /// JSONL task file; a relative path is relative to the run's folder.
    pub tasks: PathBuf,
    /// The first so many tasks of the file only; 0 takes all.
    #[serde(default)]
    pub tasks_max: u32,
    /// Attempts at each task. Attempt `i` at a task has the same seed in every evaluation of the
    /// plan, so that two evaluations are compared in pairs.
    #[serde(default = "one")]
    pub samples: u32,
    /// How tokens are drawn; the seed is replaced by the episode's own.
    #[serde(default)]
    pub sampling: Sampling,
}

/// What happens to a group some of whose episodes have become too stale to be trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StalePolicy {
    /// The stale episodes are dropped; the rest of the group is trained on if two are left.
    #[default]
    TrainRest,
    /// The stale episodes are dropped and as many new attempts made, once; then as `TrainRest`.
    Refill,
}

/// Optimizer steps on groups of attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// JSONL task file; a relative path is relative to the run's folder.
    pub tasks: PathBuf,
    /// Optimizer steps of this phase. Steps are numbered through all train phases of a plan.
    pub steps: u64,
    /// Attempts at one task (G).
    #[serde(default = "eight")]
    pub group_size: u32,
    /// Groups of one optimizer step.
    #[serde(default = "eight")]
    pub groups_per_step: u32,
    /// How tokens are drawn; the seed is replaced by the episode's own.
    #[serde(default)]
    pub sampling: Sampling,
    /// How many versions old the oldest token of an episode may be when its batch is made up.
    /// Also bounds how far rollouts run ahead: `(staleness_max + 1) * groups_per_step` groups.
    #[serde(default = "two")]
    pub staleness_max: u64,
    /// What happens to a group with stale episodes.
    #[serde(default)]
    pub stale: StalePolicy,
    /// Roll out for a step only after the adapter of the step before is active on every node.
    #[serde(default)]
    pub sync: bool,
    /// Leave out groups whose attempts all earned the same: they carry no signal.
    #[serde(default = "yes")]
    pub skip_equal_groups: bool,
    /// How old what is trained on may be.
    #[serde(default)]
    pub staleness: Staleness,
    /// What is done about the slowest attempts.
    #[serde(default)]
    pub stragglers: Stragglers,
}

impl Train {
    /// Versions the oldest token of an episode may lag when its batch is made up; `None` bounds
    /// nothing.
    #[must_use]
    pub fn staleness_bound(&self) -> Option<u64> {
        match self.staleness {
            Staleness::Strict => Some(0),
            Staleness::Bounded => Some(self.staleness_max),
            Staleness::Corrected => None,
        }
    }

    /// Versions rollouts may run ahead of the learner.
    #[must_use]
    pub fn run_ahead(&self) -> u64 {
        match self.staleness {
            Staleness::Strict => 0,
            Staleness::Bounded | Staleness::Corrected => self.staleness_max,
        }
    }
}

/// How patient the coordinator is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A lease ends after this many milliseconds; the episode is then handed to another node.
    pub lease_ms: u64,
    /// Leases one episode gets before it has failed.
    pub attempts_max: u32,
    /// A task whose episodes were on this many nodes when they died is quarantined.
    pub kills_max: u32,
    /// Groups in a row that may be skipped because all attempts earned the same, in optimizer
    /// steps' worth of groups. Past it the run ends with an error: it would never step.
    pub equal_steps_max: u32,
    /// Groups in a row none of whose attempts could be rolled out. Past it the run ends with an
    /// error: it would never step.
    pub failed_groups_max: u32,
    /// What becomes of an episode whose node is lost in the middle of it.
    pub on_loss: OnLoss,
    /// A batch that was not committed is sent again after this many milliseconds, if asked for.
    pub batch_resend_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease_ms: 120_000,
            attempts_max: 5,
            kills_max: 3,
            equal_steps_max: 50,
            failed_groups_max: 32,
            on_loss: OnLoss::Resume,
            batch_resend_ms: 5_000,
        }
    }
}

fn one() -> u32 {
    1
}
fn two() -> u64 {
    2
}
fn eight() -> u32 {
    8
}
fn yes() -> bool {
    true
}

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The text is no plan.
    #[error("not a plan: {0}")]
    Syntax(#[from] serde_json::Error),
    /// Written by another version of this program.
    #[error("plan format {found} is not {PLAN_FORMAT}: start a new run with this build")]
    Format {
        /// The format found.
        found: u32,
    },
    /// A value that makes no sense.
    #[error("phase {phase}: {what}")]
    Value {
        /// 1-based number of the phase; 0 for the plan itself.
        phase: usize,
        /// What is wrong and what it must be.
        what: String,
    },
}

impl Plan {
    /// A plan of these phases with default limits.
    #[must_use]
    pub fn new(seed: u64, phases: Vec<Phase>) -> Self {
        Self { format: PLAN_FORMAT, seed, limits: Limits::default(), phases }
    }

    /// Reads a plan and checks it.
    ///
    /// # Errors
    /// [`PlanError`] names the phase and the value.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let plan: Self = serde_json::from_str(text)?;
        plan.validate()?;
        Ok(plan)
    }

    /// The plan as pretty JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has string keys only")
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`PlanError`] names the phase and the value.
    pub fn validate(&self) -> Result<(), PlanError> {
        if self.format != PLAN_FORMAT {
            return Err(PlanError::Format { found: self.format });
        }
        let refuse = |phase: usize, what: String| Err(PlanError::Value { phase, what });
        if self.phases.is_empty() || self.phases.len() > PHASES_MAX {
            return refuse(0, format!("a plan has 1 to {PHASES_MAX} phases"));
        }
        let limits = &self.limits;
        for (name, value) in [
            ("lease_ms", limits.lease_ms),
            ("attempts_max", limits.attempts_max.into()),
            ("kills_max", limits.kills_max.into()),
            ("equal_steps_max", limits.equal_steps_max.into()),
            ("failed_groups_max", limits.failed_groups_max.into()),
            ("batch_resend_ms", limits.batch_resend_ms),
        ] {
            if value == 0 {
                return refuse(0, format!("limits.{name} must be at least 1"));
            }
        }
        let mut labels = BTreeSet::new();
        for (phase, number) in self.phases.iter().zip(1..) {
            let counts: &[(&str, u64)] = match phase {
                Phase::Evaluate(evaluate) => {
                    if evaluate.label.is_empty() || !labels.insert(evaluate.label.as_str()) {
                        return refuse(
                            number,
                            format!("label {:?} must be unique and not empty", evaluate.label),
                        );
                    }
                    &[("samples", evaluate.samples.into())]
                }
                Phase::Train(train) => {
                    if train.group_size < 2 {
                        return refuse(
                            number,
                            "group_size must be at least 2: attempts are compared".into(),
                        );
                    }
                    let Stragglers { group_min, duplicate_after, .. } = train.stragglers;
                    if group_min == 1 || group_min > train.group_size {
                        return refuse(
                            number,
                            "stragglers.group_min must be 0 or from 2 to group_size".into(),
                        );
                    }
                    if !(duplicate_after == 0.0
                        || duplicate_after.is_finite() && duplicate_after >= 1.0)
                    {
                        return refuse(
                            number,
                            "stragglers.duplicate_after must be 0 or at least 1".into(),
                        );
                    }
                    &[("steps", train.steps), ("groups_per_step", train.groups_per_step.into())]
                }
            };
            for (name, value) in counts {
                if *value == 0 {
                    return refuse(number, format!("{name} must be at least 1"));
                }
            }
            let sampling = phase.sampling();
            if !(sampling.temperature.is_finite() && sampling.temperature >= 0.0) {
                return refuse(number, "sampling.temperature must be 0 or more".into());
            }
            if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
                return refuse(number, "sampling.top_p must be in (0, 1]".into());
            }
        }
        Ok(())
    }

    /// Number of the last optimizer step before a phase (0-based index).
    #[must_use]
    pub fn steps_before(&self, phase: usize) -> u64 {
        self.phases
            .iter()
            .take(phase)
            .map(|phase| if let Phase::Train(train) = phase { train.steps } else { 0 })
            .sum()
    }

    /// Optimizer steps of the whole plan.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps_before(self.phases.len())
    }
}

impl Phase {
    /// The task file, as written.
    #[must_use]
    pub fn tasks(&self) -> &Path {
        match self {
            Self::Evaluate(evaluate) => &evaluate.tasks,
            Self::Train(train) => &train.tasks,
        }
    }

    /// How tokens are drawn.
    #[must_use]
    pub fn sampling(&self) -> &Sampling {
        match self {
            Self::Evaluate(evaluate) => &evaluate.sampling,
            Self::Train(train) => &train.sampling,
        }
    }

    /// A few words for people.
    #[must_use]
    pub fn label(&self) -> &str {
        match self {
            Self::Evaluate(evaluate) => &evaluate.label,
            Self::Train(_) => "train",
        }
    }
}

/// Seed of one attempt: a function of the plan's seed, the task, which attempt it is, and the
/// salt (0 in evaluations, so that two of them are paired; the group's number in training).
#[must_use]
pub fn episode_seed(plan_seed: u64, task: &TaskId, sample: u32, salt: u64) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("crrl episode seed v1");
    hasher.update(&plan_seed.to_le_bytes());
    hasher.update(&salt.to_le_bytes());
    hasher.update(&sample.to_le_bytes());
    hasher.update(task.as_str().as_bytes());
    let mut seed = [0; 8];
    hasher.finalize_xof().fill(&mut seed);
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(phases: &str) -> Result<Plan, PlanError> {
        Plan::parse(&format!(r#"{{"format": 1, "phases": [{phases}]}}"#))
    }

    #[test]
    fn a_plan_reads_back_what_it_wrote() {
        let plan = plan(
            r#"{"kind": "evaluate", "label": "before", "tasks": "h.jsonl"},
               {"kind": "train", "tasks": "t.jsonl", "steps": 3}"#,
        )
        .expect("valid");
        assert_eq!(Plan::parse(&plan.to_json()).expect("own text"), plan);
        assert_eq!((plan.steps_before(1), plan.steps()), (0, 3));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let train = r#"{"kind": "train", "tasks": "t", "steps": 3"#;
        for (phases, word) in [
            (format!("{train}, \"group_size\": 1}}"), "group_size"),
            (format!("{train}, \"groups_per_step\": 0}}"), "groups_per_step"),
            (format!("{train}, \"stepz\": 0}}"), "stepz"),
            (String::new(), "phases"),
            (r#"{"kind": "evaluate", "label": "", "tasks": "t"}"#.into(), "label"),
        ] {
            let error = plan(&phases).expect_err(&phases).to_string();
            assert!(error.contains(word), "{error}");
        }
        let error = Plan::parse(r#"{"format": 9, "phases": []}"#).expect_err("newer").to_string();
        assert!(error.contains("format 9"), "{error}");
    }

    #[test]
    fn attempts_have_their_own_seeds_and_keep_them() {
        let seed = |sample, salt| episode_seed(7, &"a".into(), sample, salt);
        assert_eq!(seed(0, 0), seed(0, 0));
        assert_ne!(seed(0, 0), seed(1, 0));
        assert_ne!(seed(0, 0), seed(0, 1));
    }
}
