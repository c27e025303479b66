//! Patches, line by line: numbers of both sides, what changed within a line, and which changed lines
//! another patch has too. Pure.

use std::collections::HashMap;

use serde::Serialize;

/// Lines of a patch that are shown; the rest is counted.
pub const LINES_MAX: usize = 2_000;
/// Characters of a line that are shown; the rest is counted.
pub const LINE_CHARS_MAX: usize = 1_000;

/// What a line of a patch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Names a file.
    File,
    /// Says something of a file: mode, index, rename.
    About,
    /// Begins a hunk.
    Hunk,
    /// Is on both sides.
    Same,
    /// Was taken away.
    Removed,
    /// Was put in.
    Added,
}

/// A line of a patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is.
    pub kind: Kind,
    /// Its text, without its sign.
    pub text: String,
    /// Characters past the bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub cut: usize,
    /// Number on the old side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<u64>,
    /// Number on the new side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<u64>,
    /// From which UTF-16 unit of the text to which it differs from the line it stands against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<(usize, usize)>,
    /// Whether the patch it is compared with changes the same line in the same way.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Patch {
    /// Its lines, at most [`LINES_MAX`].
    pub lines: Vec<Line>,
    /// Lines past the bound.
    pub left_out: usize,
    /// Lines put in.
    pub added: usize,
    /// Lines taken away.
    pub removed: usize,
    /// Of both, those the other patch has too.
    pub shared: usize,
    /// Bytes of its text.
    pub bytes: usize,
}

/// Reads a patch, compared with another.
#[must_use]
pub fn read(text: &str, other: &str) -> Patch {
    let mut patch = parse(text);
    let mut theirs: HashMap<(String, Kind, String), usize> = HashMap::new();
    for key in changes(&parse(other).lines) {
        *theirs.entry(key).or_default() += 1;
    }
    let shared: Vec<bool> = changes(&patch.lines)
        .map(|key| match theirs.get_mut(&key) {
            Some(left @ 1..) => {
                *left -= 1;
                true
            }
            _ => false,
        })
        .collect();
    let changed = patch.lines.iter_mut().filter(|line| is_change(line.kind));
    for (line, shared) in changed.zip(shared) {
        line.shared = shared;
        patch.shared += usize::from(shared);
    }
    mark(&mut patch.lines);
    patch
}

fn is_change(kind: Kind) -> bool {
    matches!(kind, Kind::Added | Kind::Removed)
}

/// Changed lines: the file, what became of the line, its text without blanks at its end.
fn changes(lines: &[Line]) -> impl Iterator<Item = (String, Kind, String)> {
    let mut file = String::new();
    lines.iter().filter_map(move |line| {
        if line.kind == Kind::File {
            file.clone_from(&line.text);
        }
        is_change(line.kind).then(|| (file.clone(), line.kind, line.text.trim_end().to_owned()))
    })
}

fn parse(text: &str) -> Patch {
    let mut patch = Patch { bytes: text.len(), ..Patch::default() };
    // Lines of the hunk that are still to come, by side: they tell a changed `-- x` from a header.
    let (mut old_left, mut new_left) = (0_u64, 0_u64);
    let (mut old, mut new) = (0_u64, 0_u64);
    for line in text.lines() {
        let in_hunk = old_left > 0 || new_left > 0;
        let kind = match line.as_bytes().first() {
            Some(b'+') if in_hunk => Kind::Added,
            Some(b'-') if in_hunk => Kind::Removed,
            Some(b'\\') => Kind::About,
            _ if in_hunk => Kind::Same,
            Some(b'@') => Kind::Hunk,
            _ if line.starts_with("diff --git ") => Kind::File,
            _ => Kind::About,
        };
        let is_body = matches!(kind, Kind::Added | Kind::Removed | Kind::Same);
        let numbers = match kind {
            Kind::Hunk => {
                ((old, old_left), (new, new_left)) = hunk(line).unwrap_or_default();
                (None, None)
            }
            Kind::Added => (None, Some(new)),
            Kind::Removed => (Some(old), None),
            Kind::Same => (Some(old), Some(new)),
            Kind::File | Kind::About => (None, None),
        };
        if is_body && kind != Kind::Added {
            (old, old_left) = (old.saturating_add(1), old_left.saturating_sub(1));
        }
        if is_body && kind != Kind::Removed {
            (new, new_left) = (new.saturating_add(1), new_left.saturating_sub(1));
        }
        patch.added += usize::from(kind == Kind::Added);
        patch.removed += usize::from(kind == Kind::Removed);
        // What only repeats the name of the file, or names contents by hashes, says nothing.
        let is_repeated = kind == Kind::About
            && ["--- ", "+++ ", "index "].iter().any(|word| line.starts_with(word));
        if is_repeated && patch.lines.iter().any(|line| line.kind == Kind::File) {
            continue;
        }
        if patch.lines.len() == LINES_MAX {
            patch.left_out += 1;
            continue;
        }
        let shown = match kind {
            Kind::File => file_name(line),
            Kind::Added | Kind::Removed => &line[1..],
            Kind::Same => line.strip_prefix(' ').unwrap_or(line),
            _ => line,
        };
        let (text, cut) = bounded(shown);
        let (old, new) = numbers;
        patch.lines.push(Line { kind, text, cut, old, new, mark: None, shared: false });
    }
    patch
}

/// `diff --git a/x b/x` as `x`.
fn file_name(line: &str) -> &str {
    line.rsplit_once(" b/").map_or(line, |(_, name)| name)
}

fn bounded(text: &str) -> (String, usize) {
    match text.char_indices().nth(LINE_CHARS_MAX) {
        None => (text.to_owned(), 0),
        Some((end, _)) => (text[..end].to_owned(), text[end..].chars().count()),
    }
}

/// First line and number of lines, of either side: `@@ -10,5 +10,6 @@`.
fn hunk(line: &str) -> Option<((u64, u64), (u64, u64))> {
    let mut words = line.split_whitespace().skip(1);
    let mut side = |sign: char| {
        let range = words.next()?.strip_prefix(sign)?;
        let (first, n) = range.split_once(',').unwrap_or((range, "1"));
        Some((first.parse().ok()?, n.parse().ok()?))
    };
    Some((side('-')?, side('+')?))
}

/// Where as many lines were put in as were taken away right before, each stands against the other:
/// what is between their common beginning and end is marked.
fn mark(lines: &mut [Line]) {
    let mut at = 0;
    while at < lines.len() {
        let run = |from: usize, kind: Kind| {
            lines[from..].iter().take_while(|line| line.kind == kind).count()
        };
        let removed = run(at, Kind::Removed);
        let added = run(at + removed, Kind::Added);
        if removed > 0 && removed == added {
            for line in at..at + removed {
                let (old, new) = (&lines[line].text, &lines[line + removed].text);
                if let Some((of_old, of_new)) = between(old, new) {
                    lines[line].mark = Some(of_old);
                    lines[line + removed].mark = Some(of_new);
                }
            }
        }
        at += (removed + added).max(1);
    }
}

type Span = (usize, usize);

/// What differs of two lines; nothing where they have too little in common for that to help.
fn between(old: &str, new: &str) -> Option<(Span, Span)> {
    let (a, b): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&a[head..], &b[head..]);
    let tail = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let common: usize =
        a[..head].iter().chain(&a[a.len() - tail..]).filter(|c| !c.is_whitespace()).count();
    if common * 3 < a.len().max(b.len()) {
        return None;
    }
    let units = |chars: &[char]| chars.iter().map(|c| c.len_utf16()).sum::<usize>();
    let span = |chars: &[char]| (units(&chars[..head]), units(&chars[..chars.len() - tail]));
    Some((span(&a), span(&b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "diff --git a/q.py b/q.py\nindex 1..2 100644\n--- a/q.py\n+++ b/q.py\n\
        @@ -10,4 +10,4 @@ class Q:\n def pop(self):\n-    if size <= limit:\n+    if size < limit:\n \
             raise Empty\n--- a note\n+++ b note\n";

    #[test]
    fn lines_have_numbers_and_signs_of_both_sides() {
        let patch = read(PATCH, "");
        let kinds: Vec<Kind> = patch.lines.iter().map(|line| line.kind).collect();
        use Kind::{Added, File, Hunk, Removed, Same};
        assert_eq!(kinds, [File, Hunk, Same, Removed, Added, Same, Removed, Added]);
        assert_eq!(patch.lines[0].text, "q.py");
        let last = &patch.lines[6..];
        assert_eq!((last[0].text.as_str(), last[0].old), ("-- a note", Some(13)), "in a hunk");
        assert_eq!((last[1].text.as_str(), last[1].new), ("++ b note", Some(13)));
        assert_eq!((patch.added, patch.removed, patch.shared), (2, 2, 0));
    }

    #[test]
    fn what_differs_within_a_line_is_marked_in_utf16() {
        let patch = read(&PATCH.replace("size", "sïz😀"), "");
        let (old, new) = (&patch.lines[3], &patch.lines[4]);
        assert_eq!((old.mark, new.mark), (Some((14, 15)), Some((14, 14))));
        let units: Vec<u16> = old.text.encode_utf16().collect();
        assert_eq!(String::from_utf16_lossy(&units[14..15]), "=");
        assert_eq!(between("    return x", "    raise Empty(y)"), None, "two different lines");
    }

    #[test]
    fn lines_the_reference_has_too_are_told_once_each() {
        let same = read(PATCH, PATCH);
        assert_eq!(same.shared, 4);
        let twice = PATCH
            .replace("+    if size < limit:\n", "+    if size < limit:\n+    if size < limit:\n");
        let twice = read(&twice.replace("+10,4", "+10,5"), PATCH);
        assert_eq!(twice.lines.iter().filter(|line| line.shared).count(), 4);
        assert_eq!(read(PATCH, &PATCH.replace("q.py", "other.py")).shared, 0, "another file");
    }

    #[test]
    fn rubbish_is_bounded_and_no_patch_is_no_crash() {
        let rubbish = format!("@@ -9,99999999999999999999 +1 @@\n{}", "+x\n".repeat(5_000));
        for text in ["", "\n\n", "@@", "@@ -1,2", "\u{202e}", rubbish.as_str()] {
            let patch = read(text, text);
            assert!(patch.lines.len() <= LINES_MAX);
        }
        let long = format!("diff --git a/x b/x\n@@ -1 +1 @@\n-a\n+{}\n", "é".repeat(10_000_000));
        let line = read(&long, "").lines.pop().expect("a line");
        assert_eq!((line.text.chars().count(), line.cut), (LINE_CHARS_MAX, 9_999_000));
    }
}
