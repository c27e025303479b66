//! What a recording keeps beside frames: the run's history, its curves, its episodes. Plain data, cut
//! where a text is long.

use std::iter::{repeat_n, zip};

use crrl_store::{EpisodeRow, StepRow};
use crrl_types::{Event, Trajectory};
use serde::{Deserialize, Serialize};

use crate::pieces::Pieces;
use crate::state::transcript::{Entry, Left};

/// Bytes that are kept of one text: what the policy wrote in a turn, arguments, an output, a change.
pub const TEXT_BYTES_MAX: usize = 32 << 10;

/// One line beside the frames. `at_ms` is when it was seen, milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kept {
    /// What was written to the run's history.
    Events {
        /// When.
        at_ms: u64,
        /// Oldest first.
        events: Vec<Event>,
    },
    /// Numbers of optimizer steps.
    Steps {
        /// When.
        at_ms: u64,
        /// Oldest first; one that was kept before takes that one's place.
        steps: Vec<StepRow>,
    },
    /// Episodes that are over, as the ledger has them.
    Over {
        /// When.
        at_ms: u64,
        /// Whether these are all that are shown, and not only those that changed.
        is_all: bool,
        /// In any order.
        rows: Vec<EpisodeRow>,
    },
    /// What has happened in an episode under way.
    Journal {
        /// When.
        at_ms: u64,
        /// The episode.
        episode: u64,
        /// The lease that wrote it.
        attempt: u32,
        /// Number of the first entry.
        first: u32,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// What an episode left behind.
    Left {
        /// When.
        at_ms: u64,
        /// The episode.
        episode: u64,
        /// That.
        left: Box<Transcript>,
    },
}

/// What an episode left behind, as it is kept: JSON has no number that is none, and a list of truth values
/// is long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// Without the two lists below.
    trajectory: Trajectory,
    /// Lengths of the stretches of tokens: not generated, generated, not generated, and so on.
    stretches: Vec<u32>,
    /// Of the tokens that were generated; none where that is no finite number.
    logprobs: Vec<Option<f32>>,
    tokens: Vec<Option<Pieces>>,
    advantage: Option<f64>,
    scored: usize,
    trained_at: Option<u64>,
    /// Whether the three above stay as they are; a recording of a build that does not tell says it again where
    /// they changed.
    #[serde(default = "settled")]
    is_final: bool,
}

fn settled() -> bool {
    true
}

impl Transcript {
    /// For keeping; long texts are cut.
    #[must_use]
    pub fn of(left: Left) -> Self {
        let Left { mut trajectory, tokens, advantage, scored, trained_at, is_final } = left;
        let generated = std::mem::take(&mut trajectory.generated);
        let logprobs = std::mem::take(&mut trajectory.logprobs);
        let mut stretches = Vec::new();
        for stretch in generated.chunk_by(|a, b| a == b) {
            if stretches.is_empty() && stretch[0] {
                stretches.push(0);
            }
            stretches.push(u32::try_from(stretch.len()).unwrap_or(u32::MAX));
        }
        let known = zip(logprobs, generated).filter(|(_, is_generated)| *is_generated);
        let logprobs = known.map(|(logprob, _)| Some(logprob).filter(|p| p.is_finite())).collect();
        for turn in &mut trajectory.turns {
            cut(&mut turn.text);
            for tool in &mut turn.tools {
                cut(&mut tool.arguments);
                cut(&mut tool.output);
            }
        }
        cut(&mut trajectory.diff);
        Self { trajectory, stretches, logprobs, tokens, advantage, scored, trained_at, is_final }
    }

    /// For showing.
    #[must_use]
    pub fn restore(self) -> Left {
        let Self {
            mut trajectory,
            stretches,
            logprobs,
            tokens,
            advantage,
            scored,
            trained_at,
            is_final,
        } = self;
        let turns = [false, true].into_iter().cycle();
        let flags = zip(turns, stretches).flat_map(|(is, len)| repeat_n(is, len as usize));
        // Whatever a file claims: there are no more than there are tokens.
        trajectory.generated = flags.take(trajectory.tokens.len()).collect();
        let mut known = logprobs.into_iter();
        let logprob = |is_generated: &bool| match is_generated {
            true => known.next().flatten().unwrap_or(f32::NAN),
            false => 0.0,
        };
        trajectory.logprobs = trajectory.generated.iter().map(logprob).collect();
        Left { trajectory, tokens, advantage, scored, trained_at, is_final }
    }
}

/// An entry of a journal for keeping; long texts are cut.
#[must_use]
pub fn entry(mut entry: Entry) -> Entry {
    match &mut entry {
        Entry::Wrote { text, .. } => cut(text),
        Entry::Answered { output, .. } => cut(output),
        Entry::Changed(diff) => cut(diff),
    }
    entry
}

fn cut(text: &mut String) {
    if text.len() <= TEXT_BYTES_MAX {
        return;
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let says = format!("\n… {} more bytes are not in the recording", text.len() - end);
    text.truncate(end);
    text.push_str(&says);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_says_so() {
        let mut text = "é".repeat(TEXT_BYTES_MAX);
        text.insert(0, 'x');
        cut(&mut text);
        assert!(text.len() < TEXT_BYTES_MAX + 100);
        assert!(text.ends_with("é\n… 32770 more bytes are not in the recording"), "{text:.60}");
        let mut short = "é".repeat(TEXT_BYTES_MAX / 2);
        cut(&mut short);
        assert_eq!(short.len(), TEXT_BYTES_MAX);
    }
}
