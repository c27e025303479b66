//! What a ledger keeps of having been restored.

use crrl_types::{EpisodeId, Step};
use serde::{Deserialize, Serialize};

/// That a ledger was restored; kept in the ledger for good.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restored {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Name of the damaged file beside the ledger; empty where there was none.
    pub aside: String,
    /// The last step that was committed in the copy.
    pub copy: Step,
    /// The last step that is committed in the restored ledger.
    pub step: Step,
    /// Episodes whose tokens or results are lost, as ranges: the first and the last of each.
    pub lost: Vec<(EpisodeId, EpisodeId)>,
    /// How many of those were trained on.
    pub lost_trained: u64,
    /// Steps of which not every episode is known.
    pub unknown: Vec<Step>,
    /// Numbers of episodes that are left out, as ranges: they may have been given out, and nothing says
    /// to what.
    pub skipped: Vec<(EpisodeId, EpisodeId)>,
    /// The last step the restored ledger had a batch of, where the learner may have made more: its
    /// checkpoints were elsewhere.
    pub open: Option<Step>,
}

impl Restored {
    /// Whether the record of an episode was lost.
    #[must_use]
    pub fn is_lost(&self, episode: EpisodeId) -> bool {
        let after = self.lost.partition_point(|(first, _)| *first <= episode);
        after.checked_sub(1).is_some_and(|at| episode <= self.lost[at].1)
    }

    /// Whether none of these numbers, the first to the last, is an episode's.
    #[must_use]
    pub fn skips(&self, first: EpisodeId, last: EpisodeId) -> bool {
        self.skipped.iter().any(|(from, to)| *from <= first && last <= *to)
    }

    /// How many records were lost.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost.iter().map(|(first, last)| last.0 - first.0 + 1).sum()
    }

    /// The last step that cannot be made again, because the tokens that went into it are lost.
    #[must_use]
    pub fn sealed(&self) -> Step {
        if self.step > self.copy { self.step } else { Step(0) }
    }

    /// The lost episodes, for people.
    #[must_use]
    pub fn lost_text(&self) -> String {
        text(&self.lost)
    }

    /// The numbers that are left out, for people.
    #[must_use]
    pub fn skipped_text(&self) -> String {
        text(&self.skipped)
    }
}

fn text(ranges: &[(EpisodeId, EpisodeId)]) -> String {
    let range = |(first, last): &(EpisodeId, EpisodeId)| match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(", ")
}
