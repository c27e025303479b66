//! What goes into an episode and what comes out of it.
//!
//! The caller answers every [`Action`] with the [`Input`] named beside it, or with
//! [`Input::DeadlinePassed`] at any time before [`Action::Finish`].

use crrl_types::JournalEntry;
pub use crrl_types::{Sampled, Stop};

use crate::record::EpisodeRecord;

/// What a tool answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolOutcome {
    /// Its output, uncut.
    pub output: String,
    /// Whether it did what it was meant to (exit status 0; the text replaced).
    pub ok: bool,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
}

/// A tool call to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run a command line in the sandbox's shell, in the repository's root.
    Shell {
        /// The command line.
        cmd: String,
    },
    /// Replace text in a file of the repository. `old` must occur exactly once, literally; a file
    /// that does not exist is created where `old` is empty.
    ApplyPatch {
        /// Path relative to the repository's root.
        path: String,
        /// Text to replace.
        old: String,
        /// Text to put in its place.
        new: String,
    },
}

impl Invocation {
    /// The tool's name.
    #[must_use]
    pub fn tool(&self) -> &'static str {
        match self {
            Self::Shell { .. } => "shell",
            Self::ApplyPatch { .. } => "apply_patch",
        }
    }
}

/// What the caller reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Begin.
    Start,
    /// Answers [`Action::Generate`].
    Generated {
        /// Tokens in the order they were drawn, the end-of-turn id included.
        tokens: Vec<Sampled>,
        /// Why it stopped.
        stop: Stop,
    },
    /// Answers [`Action::Call`].
    ToolResult(ToolOutcome),
    /// Answers [`Action::CollectDiff`]: our git's diff against our pristine base, empty where
    /// nothing was changed.
    Diff(String),
    /// Answers [`Action::CollectDiff`] where the policy changed more than is compared: why, in a
    /// line. Ends the episode, which stands and earns nothing by its change.
    TooMuch(String),
    /// The episode's time is up. What was under way is abandoned and must not be reported.
    DeadlinePassed,
    /// Something of ours failed (engine, sandbox); the episode ends and is not trained on.
    Broken(String),
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Append these ids to the sequence and sample from there.
    Generate {
        /// Ids to append after everything already in the sequence.
        append: Vec<u32>,
        /// Tokens to draw at most; at least 1.
        max_tokens: u32,
    },
    /// Carry a tool call out.
    Call(Invocation),
    /// Compute the diff of what the agent changed.
    CollectDiff,
    /// The episode is over.
    Finish(Box<EpisodeRecord>),
}

impl Input {
    /// As it goes into the episode's journal; `None` where it ends the episode.
    #[must_use]
    pub fn journal_entry(&self) -> Option<JournalEntry> {
        Some(match self {
            Self::Generated { tokens, stop } => {
                JournalEntry::Generated { tokens: tokens.clone(), stop: *stop }
            }
            Self::ToolResult(ToolOutcome { output, ok, wall_ms }) => {
                JournalEntry::Tool { output: output.clone(), ok: *ok, wall_ms: *wall_ms }
            }
            Self::Diff(diff) => JournalEntry::Diff(diff.clone()),
            Self::Start | Self::TooMuch(_) | Self::DeadlinePassed | Self::Broken(_) => return None,
        })
    }
}

impl From<JournalEntry> for Input {
    fn from(entry: JournalEntry) -> Self {
        match entry {
            JournalEntry::Generated { tokens, stop } => Self::Generated { tokens, stop },
            JournalEntry::Tool { output, ok, wall_ms } => {
                Self::ToolResult(ToolOutcome { output, ok, wall_ms })
            }
            JournalEntry::Diff(diff) => Self::Diff(diff),
        }
    }
}
