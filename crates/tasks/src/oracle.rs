//! The shortest honest solution of a task: read the function in one call, replace the broken line
//! in one call, say so. Every answer is what the real tool gives.
//!
//! The call that reads is one `grep -A` with a fixed count: numbers that vary with the task are
//! what a small policy gets wrong. The text to replace is one line without its indentation where
//! that occurs once, because everything copied is something to miscopy.

use crrl_rl::diff;
use crrl_types::{Base, Origin, Task, ToolCall};
use rand::Rng;
use rand::seq::IndexedRandom as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::grep::grep;
use crate::local_diff::{common_prefix, common_suffix};

/// How the oracle works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OracleOptions {
    /// Lines shown behind the `def` line. A bug further down is not shown, and has no trace.
    pub after: usize,
    /// Whether lines come with their numbers (`grep -n`): two to four tokens a line.
    pub numbers: bool,
    /// Characters of output the agent is shown; a function whose output is longer has no trace.
    pub output_chars_max: usize,
    /// What `apply_patch` answers when the text was replaced.
    pub patched: String,
    /// Closing words; one of them is drawn.
    pub words: Vec<String>,
}

impl Default for OracleOptions {
    fn default() -> Self {
        Self {
            after: 16,
            numbers: false,
            output_chars_max: 800,
            patched: "ok".to_owned(),
            words: vec!["Fixed.".to_owned()],
        }
    }
}

/// One call and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct OracleTurn {
    /// The call: `shell {cmd}` or `apply_patch {path, old, new}`.
    pub call: ToolCall,
    /// The answer, uncut, with its final line break.
    pub output: String,
}

/// A solution.
#[derive(Debug, Clone, PartialEq)]
pub struct Oracle {
    /// The calls, in order.
    pub turns: Vec<OracleTurn>,
    /// What it says at the end.
    pub words: String,
}

/// The bug of one file, as the planner needs it.
pub(crate) struct Repair<'a> {
    pub(crate) path: &'a str,
    pub(crate) base: &'a str,
    pub(crate) fixed: &'a str,
    /// The function's own name.
    pub(crate) function: &'a str,
}

/// The solution of a task with one injected bug whose statement names file and function.
///
/// `None` where there is none of this form: a task of another origin, a statement that does not
/// say where to look, a function name that occurs twice, a bug outside what is shown.
#[must_use]
pub fn oracle(task: &Task, rng: &mut impl Rng, options: &OracleOptions) -> Option<Oracle> {
    let Origin::Mutated { path, function, .. } = &task.origin else { return None };
    let name = function.rsplit('.').next()?;
    if !task.problem_statement.contains(path) || !task.problem_statement.contains(name) {
        return None;
    }
    let Base::Files { files } = &task.base else { return None };
    let base = files.get(path)?;
    let patch = diff::parse(&task.patch).ok()?;
    let [file] = patch.files.as_slice() else { return None };
    let fixed = diff::apply(base, file).ok()?;
    plan(&Repair { path, base, fixed: &fixed, function: name }, rng, options)
}

pub(crate) fn plan(
    repair: &Repair<'_>,
    rng: &mut impl Rng,
    options: &OracleOptions,
) -> Option<Oracle> {
    let Repair { path, base, function, .. } = *repair;
    if !is_plain(path) || !is_plain(function) || base.contains('\0') {
        return None; // a shell or grep would read it otherwise
    }
    let text = format!("def {function}(");
    let mut hits = base.match_indices(&text);
    let (hit, _) = hits.next()?;
    if hits.next().is_some() {
        return None;
    }
    // What is shown: from the line of the hit, `after` lines on.
    let shown_start = line_start(base, hit);
    let shown_end = lines_on(base, shown_start, options.after + 1);
    let output = grep_window(base, &text, shown_start, shown_end, options);
    if output.trim_end().chars().count() > options.output_chars_max {
        return None;
    }
    let edit = Edit::between(repair)?;
    let (old, new) = edit.texts(repair, shown_start..shown_end)?;
    let flag = if options.numbers { "-n " } else { "" };
    let command = format!("grep {flag}-A {} \"{text}\" {path}", options.after);
    let call = |name: &str, arguments| ToolCall { name: name.to_owned(), arguments };
    let turns = vec![
        OracleTurn { call: call("shell", json!({"cmd": command})), output },
        OracleTurn {
            call: call("apply_patch", json!({"path": path, "old": old, "new": new})),
            output: format!("{}\n", options.patched),
        },
    ];
    Some(Oracle { turns, words: options.words.choose(rng).cloned().unwrap_or_default() })
}

/// Grep's output for a text known to occur in one line only, without a walk over the file.
fn grep_window(
    base: &str,
    text: &str,
    start: usize,
    end: usize,
    options: &OracleOptions,
) -> String {
    if options.numbers {
        return grep(base, text, options.after, true);
    }
    grep(&base[start..end], text, options.after, false)
}

/// A word no shell and no grep reads as anything but itself.
fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with('-')
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Byte after the `count` lines that begin at `from`.
fn lines_on(text: &str, from: usize, count: usize) -> usize {
    let mut ends = text[from..].match_indices('\n').map(|(at, _)| from + at + 1);
    ends.nth(count.saturating_sub(1)).unwrap_or(text.len())
}

/// The lines that differ: whole lines of base and of the fixed text, by byte.
struct Edit {
    start: usize,
    base_end: usize,
    fixed_end: usize,
}

impl Edit {
    /// `None` where nothing differs.
    fn between(repair: &Repair<'_>) -> Option<Self> {
        let (base, fixed) = (repair.base.as_bytes(), repair.fixed.as_bytes());
        if base == fixed {
            return None;
        }
        let same = common_prefix(base, fixed);
        let start = base[..same].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let most = (base.len() - start).min(fixed.len() - start);
        let tail = common_suffix(base, fixed).min(most);
        let (mut base_end, mut fixed_end) = (base.len() - tail, fixed.len() - tail);
        let at_line = |text: &[u8], end: usize| end == start || text[end - 1] == b'\n';
        while !(at_line(base, base_end) && at_line(fixed, fixed_end)) {
            // The rest is the same on both sides, line breaks included.
            let rest = &base[base_end..];
            let step = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            base_end += step;
            fixed_end += step;
            if base_end == base.len() {
                break;
            }
        }
        let mut edit = Self { start, base_end, fixed_end };
        if edit.base_end == edit.start || edit.fixed_end == edit.start {
            // Lines only come or only go: the line behind them anchors the change.
            let next = lines_on(repair.base, edit.base_end, 1) - edit.base_end;
            if next == 0 {
                return None;
            }
            edit.base_end += next;
            edit.fixed_end += next;
        }
        Some(edit)
    }

    /// `old` and `new` of the shortest replacement that occurs once and lies within what is shown.
    fn texts(
        &self,
        repair: &Repair<'_>,
        shown: std::ops::Range<usize>,
    ) -> Option<(String, String)> {
        let Repair { base, fixed, .. } = *repair;
        let before = |at: usize| if at == 0 { 0 } else { line_start(base, at - 1) };
        let after = |at: usize| lines_on(base, at, 1) - at;
        let (above, below) = (before(self.start), after(self.base_end));
        for (start, grow) in [(self.start, 0), (above, 0), (self.start, below), (above, below)] {
            if start < shown.start || self.base_end + grow > shown.end {
                continue;
            }
            let old = &base[start..self.base_end + grow];
            let new = &fixed[start..self.fixed_end + grow];
            let (old, new) = trim_end(old, new);
            for (old, new) in [trim_indent(old, new), (old, new)] {
                let mut places = base.match_indices(old);
                let first = places.next().map(|(at, _)| at);
                let once = places.next().is_none();
                if let Some(at) = first
                    && once
                    && !old.trim().is_empty()
                    && old != new
                    && is_repair(repair, at, old, new)
                {
                    return Some((old.to_owned(), new.to_owned()));
                }
            }
        }
        None
    }
}

fn is_repair(repair: &Repair<'_>, at: usize, old: &str, new: &str) -> bool {
    let Repair { base, fixed, .. } = *repair;
    fixed.len() + old.len() == base.len() + new.len()
        && fixed.starts_with(&base[..at])
        && fixed[at..].starts_with(new)
        && fixed[at + new.len()..] == base[at + old.len()..]
}

/// Both without their last line break.
fn trim_end<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    for end in ["\r\n", "\n"] {
        if let (Some(old), Some(new)) = (old.strip_suffix(end), new.strip_suffix(end)) {
            return (old, new);
        }
    }
    (old, new)
}

/// Both without the indentation of their first line, where that is the same.
fn trim_indent<'a>(old: &'a str, new: &'a str) -> (&'a str, &'a str) {
    let indent = old.len() - old.trim_start_matches([' ', '\t']).len();
    let bare = new.strip_prefix(&old[..indent]).filter(|bare| !bare.starts_with([' ', '\t']));
    bare.map_or((old, new), |new| (&old[indent..], new))
}
