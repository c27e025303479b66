//! What is done about attempts that are old, slow or lost.

use serde::{Deserialize, Serialize};

/// How old what is trained on may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Staleness {
    /// Every token was drawn under the adapter that is trained: nothing is rolled out ahead.
    Strict,
    /// The oldest token lags by no more than the bound; what is older is dropped.
    #[default]
    Bounded,
    /// Rollouts run ahead no further than the bound, and what has become older all the same is
    /// trained on with its truncated importance weights.
    Corrected,
}

/// What becomes of the attempts a group was trained on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Late {
    /// They are stopped and dropped.
    #[default]
    Drop,
    /// They go on, and are compared with each other in a later step.
    Carry,
}

/// What becomes of an episode whose node is lost in the middle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// Another node goes on from the last turn that is on disk. One that was gone on with and did
    /// not get any further begins anew.
    #[default]
    Resume,
    /// Another node begins anew.
    Restart,
}

/// What is done about the slowest attempts of a train phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stragglers {
    /// While the learner waits for groups, one is trained on as soon as this many of its attempts
    /// are back; 0 waits for all.
    pub group_min: u32,
    /// What becomes of the others.
    pub late: Late,
    /// An attempt that takes this many times the median of the last ones is handed to a second node
    /// that has nothing better to do; the first result counts. 0 never does that.
    pub duplicate_after: f64,
}

impl Default for Stragglers {
    fn default() -> Self {
        Self { group_min: 0, late: Late::Drop, duplicate_after: 0.0 }
    }
}
