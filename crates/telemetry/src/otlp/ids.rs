//! Trace and span ids. They come from the run and from what they name, so that the same run
//! exported twice, or live and afterwards, is the same to whoever collects it.

use std::fmt;

use crrl_types::{Digest, EpisodeId, Step};

/// What tells this run from every other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunId(Digest);

/// Sixteen bytes, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// Eight bytes, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

impl RunId {
    /// From the plan of a run and the first line of its history: neither is ever written again.
    #[must_use]
    pub fn of(plan: &[u8], first_line: &[u8]) -> Self {
        let parts = [Digest::of(plan), Digest::of(first_line)];
        Self(Digest::of(&[parts[0].0, parts[1].0].concat()))
    }

    fn derived<const N: usize>(&self, what: &str) -> [u8; N] {
        let digest = Digest::of(&[&self.0.0[..], what.as_bytes()].concat());
        let mut id = [0; N];
        id.copy_from_slice(&digest.0[..N]);
        // All zero means that there is none.
        id[N - 1] |= u8::from(id.iter().all(|byte| *byte == 0));
        id
    }

    /// The trace of an episode, all its attempts.
    #[must_use]
    pub fn episode(&self, episode: EpisodeId) -> TraceId {
        TraceId(self.derived(&format!("episode {episode}")))
    }

    /// The trace of an optimizer step.
    #[must_use]
    pub fn step(&self, step: Step) -> TraceId {
        TraceId(self.derived(&format!("step {step}")))
    }

    /// A span of a trace, by its path in it; an empty path is the root.
    #[must_use]
    pub fn span(&self, trace: TraceId, path: &str) -> SpanId {
        SpanId(self.derived(&format!("{trace} {path}")))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
