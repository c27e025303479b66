//! The numbers of an optimizer step: name, unit, meaning. These names are the tags in TensorBoard, the fields of
//! the JSON lines and of the CSV, and the label of `crrl_step_metric`. `docs/METRICS.md` holds this very table.

/// One number of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepMetric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, in a word; empty for a bare number.
    pub unit: &'static str,
    /// What it tells.
    pub tells: &'static str,
}

const fn of(name: &'static str, unit: &'static str, tells: &'static str) -> StepMetric {
    StepMetric { name, unit, tells }
}

/// All of them: first what the coordinator has of its ledger, then what the learner measures.
pub const STEP_METRICS: &[StepMetric] = &[
    of("reward_mean", "", "Mean reward of the batch's episodes"),
    of("success_rate", "share", "Of the batch's episodes, those that repaired their task"),
    of(
        "attempt_reward_mean",
        "",
        "Mean reward of all attempts whose groups came back since the step before",
    ),
    of("attempt_success_rate", "share", "Of all these attempts, those that repaired their task"),
    of(
        "attempts",
        "attempts",
        "Attempts whose groups came back since the step before, trained on or not",
    ),
    of(
        "generated_tokens_mean",
        "tokens",
        "Tokens the policy wrote in an episode of the batch, mean",
    ),
    of(
        "staleness_mean",
        "versions",
        "How far an episode's oldest token was behind when its batch was made up, mean",
    ),
    of("staleness_max", "versions", "The same, largest"),
    of("episodes", "episodes", "Episodes of the batch"),
    of("equal_groups", "groups", "Groups left out since the step before: all rewards were equal"),
    of("stale_episodes", "episodes", "Episodes left out since the step before: too old"),
    of(
        "episodes_resumed",
        "episodes",
        "Episodes that another node went on with since the step before",
    ),
    of(
        "episodes_restarted",
        "episodes",
        "Episodes that another node began anew since the step before",
    ),
    of(
        "episodes_duplicated",
        "episodes",
        "Slow episodes that were handed to a second node since the step before",
    ),
    of(
        "groups_cut",
        "groups",
        "Groups that went on without their slowest attempts since the step before",
    ),
    of("learner_waited_s", "seconds", "How long the learner waited for the batch"),
    of(
        "loss",
        "",
        "The objective, summed over the step's updates; a level says little, a jump does",
    ),
    of("entropy", "nats", "Entropy of the next-token distribution, mean over the tokens read"),
    of("grad_norm", "", "Norm of the last update's gradient before it is clipped"),
    of("learning_rate", "", "Learning rate of the last update"),
    of("skipped_updates", "updates", "Updates left out: loss or gradient was not finite"),
    of("tokens", "tokens", "Tokens passed forward and backward, those not trained on included"),
    of("tokens_per_s", "tokens/s", "The same a second, over the time the learner worked"),
    of("score_s", "seconds", "Time to read the proximal and the reference policy"),
    of("pass_s", "seconds", "Time of the forward and backward passes"),
    of("update_s", "seconds", "Time of the optimizer, and of bringing weights to the device"),
    of("active_tokens", "tokens", "Generated tokens the objective was computed on"),
    of("clip_low", "share", "Of these tokens, those whose gradient the lower clip took"),
    of("clip_high", "share", "The same of the upper clip"),
    of("clip_idle", "0 or 1", "Whether clipping could not fire: every update saw a fresh batch"),
    of("ratio_mean", "", "Ratio of the policy to the proximal one, mean over tokens"),
    of("ratio_max", "", "The same, largest"),
    of(
        "importance_mean",
        "",
        "Weight that makes up for the sampler's distance from the learner, mean over tokens",
    ),
    of("importance_bounded", "share", "Of these tokens, those where that weight was bounded"),
    of(
        "gap_mean",
        "nats",
        "Distance between the sampler's log-probability and the learner's, mean over tokens",
    ),
    of("gap_max", "nats", "The same, largest"),
    of(
        "kl_k1",
        "nats",
        "KL divergence to the reference policy, estimator k1; 0 where no reference is read",
    ),
    of("kl_k2", "nats", "The same, estimator k2"),
    of("kl_k3", "nats", "The same, estimator k3"),
    of("reward_std", "", "Standard deviation of the rewards of the batch"),
];

/// The one of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static StepMetric> {
    STEP_METRICS.iter().find(|metric| metric.name == name)
}
