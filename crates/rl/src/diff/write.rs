//! Writing the unified diff of two texts.
//!
//! Counts lines itself: the hunk headers of `similar` 2.7 are wrong for some insertions at the end.

use std::fmt::Write as _;

use similar::{Algorithm, ChangeTag, TextDiff};

use super::{Line, LineKind};

/// The diff of one file in git's format, with `context` lines around changes; empty where nothing
/// differs. `None` is a file that does not exist on that side.
#[must_use]
pub fn write(path: &str, old: Option<&str>, new: Option<&str>, context: usize) -> String {
    if old == new {
        return String::new();
    }
    let mut out = format!("diff --git a/{path} b/{path}\n");
    match (old, new) {
        (None, _) => out.push_str("new file mode 100644\n"),
        (_, None) => out.push_str("deleted file mode 100644\n"),
        _ => {}
    }
    let lines = lines(old.unwrap_or_default(), new.unwrap_or_default());
    if lines.is_empty() {
        return out; // an empty file comes or goes
    }
    // Git marks the end of a path with spaces.
    let end = if path.contains(' ') { "\t" } else { "" };
    let side = |there: bool, prefix: &str| {
        if there { format!("{prefix}/{path}{end}") } else { "/dev/null".to_owned() }
    };
    let _ = writeln!(out, "--- {}\n+++ {}", side(old.is_some(), "a"), side(new.is_some(), "b"));
    let changed: Vec<usize> =
        (0..lines.len()).filter(|i| lines[*i].kind != LineKind::Context).collect();
    let mut from = 0;
    while from < changed.len() {
        // Changes whose contexts touch share a hunk.
        let mut to = from;
        while to + 1 < changed.len() && changed[to + 1] - changed[to] <= 2 * context + 1 {
            to += 1;
        }
        let first = changed[from].saturating_sub(context);
        let last = (changed[to] + context).min(lines.len() - 1);
        hunk(&mut out, &lines, first, last);
        from = to + 1;
    }
    out
}

fn hunk(out: &mut String, lines: &[Line], first: usize, last: usize) {
    let count = |lines: &[Line], not| lines.iter().filter(|line| line.kind != not).count();
    let range = |not| {
        let (before, len) = (count(&lines[..first], not), count(&lines[first..=last], not));
        let start = if len == 0 { before } else { before + 1 };
        if len == 1 { start.to_string() } else { format!("{start},{len}") }
    };
    let _ = writeln!(out, "@@ -{} +{} @@", range(LineKind::Added), range(LineKind::Removed));
    for line in &lines[first..=last] {
        let sign = match line.kind {
            LineKind::Context => ' ',
            LineKind::Removed => '-',
            LineKind::Added => '+',
        };
        let _ = writeln!(out, "{sign}{}", line.text);
        if !line.ended {
            out.push_str("\\ No newline at end of file\n");
        }
    }
}

/// Every line of both texts, removed ones before added ones within a change.
fn lines(old: &str, new: &str) -> Vec<Line> {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).diff_slices(&old, &new);
    let mut lines: Vec<Line> = diff
        .iter_all_changes()
        .map(|change| {
            let text = change.value();
            let kind = match change.tag() {
                ChangeTag::Equal => LineKind::Context,
                ChangeTag::Delete => LineKind::Removed,
                ChangeTag::Insert => LineKind::Added,
            };
            let bare = text.strip_suffix('\n');
            Line { kind, text: bare.unwrap_or(text).to_owned(), ended: bare.is_some() }
        })
        .collect();
    for run in
        lines.chunk_by_mut(|a, b| (a.kind == LineKind::Context) == (b.kind == LineKind::Context))
    {
        run.sort_by_key(|line| line.kind == LineKind::Added);
    }
    lines
}
