//! When an attempt did what, as the node that rolled it out measured it.

use serde::{Deserialize, Serialize};

use crate::id::AdapterVersion;

/// Pieces of work one attempt tells of at most; what comes later is counted and left out.
pub const WORKS_MAX: usize = 512;
/// Characters of a tool's name that are kept.
pub const TOOL_CHARS_MAX: usize = 64;

/// One attempt, piece by piece.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timing {
    /// Milliseconds since the Unix epoch at its beginning, on the node's clock.
    pub began_ms: u64,
    /// Microseconds from its beginning to its end.
    pub took_us: u64,
    /// What was done, in the order it ended.
    pub works: Vec<TimedWork>,
    /// Pieces that were left out.
    pub left_out: u32,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimedWork {
    /// Microseconds from the attempt's beginning to the piece's.
    pub from_us: u64,
    /// Microseconds it took.
    pub took_us: u64,
    /// The policy's turn it belongs to, from 1; 0 before the first.
    pub turn: u32,
    /// What it was.
    pub work: Work,
}

/// What takes time in an episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Waiting for a sandbox and a place in the engine.
    Places,
    /// Doing once more what another node had done.
    Replay {
        /// Entries of its journal.
        entries: u32,
    },
    /// The policy generated.
    Generate {
        /// Tokens before it.
        context: u32,
        /// Tokens drawn.
        tokens: u32,
        /// Adapter of the last of them.
        version: AdapterVersion,
    },
    /// A tool ran.
    Call {
        /// Its name.
        tool: String,
        /// Whether it did what it was meant to.
        ok: bool,
    },
    /// The diff was asked for.
    Diff,
    /// The reward was computed.
    Reward,
}

impl Timing {
    /// Adds a piece, while there is room.
    pub fn add(&mut self, mut work: TimedWork) {
        if self.works.len() >= WORKS_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        shorten(&mut work);
        self.works.push(work);
    }

    /// What another program says it measured, within the bounds.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let excess = self.works.len().saturating_sub(WORKS_MAX);
        self.left_out = self.left_out.saturating_add(u32::try_from(excess).unwrap_or(u32::MAX));
        self.works.truncate(WORKS_MAX);
        self.works.iter_mut().for_each(shorten);
        self
    }
}

fn shorten(work: &mut TimedWork) {
    if let Work::Call { tool, .. } = &mut work.work
        && let Some((end, _)) = tool.char_indices().nth(TOOL_CHARS_MAX)
    {
        tool.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_says_he_measured_is_held_to_the_bounds() {
        let call = Work::Call { tool: "é".repeat(1000), ok: true };
        let work = TimedWork { from_us: 1, took_us: 2, turn: 1, work: call };
        let told = Timing { works: vec![work.clone(); WORKS_MAX + 7], ..Timing::default() };
        let kept = told.bounded();
        assert_eq!((kept.works.len(), kept.left_out), (WORKS_MAX, 7));
        let mut own = Timing::default();
        (0..WORKS_MAX + 7).for_each(|_| own.add(work.clone()));
        assert_eq!(own, kept);
        let Work::Call { tool, .. } = &own.works[0].work else { unreachable!("a call") };
        assert_eq!(tool.chars().count(), TOOL_CHARS_MAX);
    }
}
