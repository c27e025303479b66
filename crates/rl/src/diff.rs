//! Unified diffs: reading what git and plain `diff -u` write, applying and writing them.
//!
//! Reads renames, copies, new and deleted files, mode changes, quoted paths, files without a final
//! line break and binary changes. Strict where it counts: a hunk that does not hold the lines its
//! header announces is an error, because such a patch applies nowhere.

mod apply;
mod parse;
mod path;
mod write;

pub use apply::{ApplyError, apply, apply_all};
pub use parse::parse;
pub use write::write;

/// A patch: the files it changes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Patch {
    /// Files.
    pub files: Vec<FilePatch>,
}

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FilePatch {
    /// Path before; `None` for a file the patch creates.
    pub old_path: Option<String>,
    /// Path after; `None` for a file the patch deletes.
    pub new_path: Option<String>,
    /// Whether the file is a copy and the one at `old_path` stays.
    pub copied: bool,
    /// Mode before and after, where the patch changes it.
    pub mode_change: Option<(String, String)>,
    /// Hunks, in order.
    pub hunks: Vec<Hunk>,
    /// The lines of a binary change, unread.
    pub binary: Option<String>,
}

impl FilePatch {
    /// The path the file is known by: the new one, or the old one of a deleted file.
    #[must_use]
    pub fn path(&self) -> &str {
        self.new_path.as_deref().or(self.old_path.as_deref()).unwrap_or_default()
    }

    /// Added and removed lines with their sign, in order; neither context nor positions.
    pub fn changes(&self) -> impl Iterator<Item = (char, &str)> {
        self.hunks.iter().flat_map(|hunk| &hunk.lines).filter_map(|line| match line.kind {
            LineKind::Context => None,
            LineKind::Removed => Some(('-', line.text.as_str())),
            LineKind::Added => Some(('+', line.text.as_str())),
        })
    }
}

/// A stretch of changed lines with its context.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hunk {
    /// 1-based first line before; where `old_len` is 0, the line after which it stands.
    pub old_start: usize,
    /// Lines before.
    pub old_len: usize,
    /// 1-based first line after.
    pub new_start: usize,
    /// Lines after.
    pub new_len: usize,
    /// Its lines.
    pub lines: Vec<Line>,
}

impl Hunk {
    /// 0-based line of the old file the hunk begins at.
    #[must_use]
    pub fn old_at(&self) -> usize {
        if self.old_len == 0 { self.old_start } else { self.old_start.saturating_sub(1) }
    }

    /// Lines of the old file, each with its line break if it has one.
    pub fn old_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.kind != LineKind::Added)
    }

    /// Lines of the new file.
    pub fn new_lines(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.kind != LineKind::Removed)
    }
}

/// One line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// What happens to it.
    pub kind: LineKind,
    /// Its text, without the line break.
    pub text: String,
    /// Whether a line break follows it; false only for the last line of a file without one.
    pub ended: bool,
}

/// What happens to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineKind {
    /// Stays.
    Context,
    /// Goes.
    Removed,
    /// Comes.
    Added,
}

/// A text that is no patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("patch, line {line}: {reason}")]
pub struct ParseError {
    /// 1-based line of the text.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}
