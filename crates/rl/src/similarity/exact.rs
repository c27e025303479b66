//! Whether two patches leave the same contents.

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::{ApplyError, FilePatch, LineKind, Patch, apply_all};

/// Whether two patches against the same base leave the same contents, told from the patches alone.
///
/// Every line a patch changes is in it, so that what both say of the base together is enough: a
/// change that one writes a line higher than the other (a repeated line) is still the same.
/// Patches that disagree about the base are never the same.
#[must_use]
pub fn same_result(gold: &Patch, patch: &Patch) -> bool {
    fn keyed(patch: &Patch) -> BTreeMap<&str, &FilePatch> {
        patch.files.iter().map(|file| (file.path(), file)).collect()
    }
    let (gold_files, files) = (keyed(gold), keyed(patch));
    let repeated = gold_files.len() != gold.files.len() || files.len() != patch.files.len();
    if repeated {
        // A path twice in a patch: only the very same patch is known to do the same.
        return gold == patch;
    }
    gold_files.len() == files.len()
        && gold_files
            .iter()
            .all(|(path, gold)| files.get(path).is_some_and(|file| same_file(gold, file)))
}

/// The same, told from the base's contents (path to content); those of the files either patch
/// touches will do.
///
/// # Errors
/// When one of the patches does not apply.
pub fn same_result_on(
    base: &BTreeMap<String, String>,
    gold: &Patch,
    patch: &Patch,
) -> Result<bool, ApplyError> {
    let modes = |patch: &Patch| -> BTreeSet<(String, Option<(String, String)>)> {
        let changed = patch.files.iter().filter(|file| file.mode_change.is_some());
        changed.map(|file| (file.path().to_owned(), file.mode_change.clone())).collect()
    };
    Ok(apply_all(base, gold)? == apply_all(base, patch)? && modes(gold) == modes(patch))
}

fn same_file(gold: &FilePatch, file: &FilePatch) -> bool {
    let alike = gold.old_path == file.old_path
        && gold.new_path == file.new_path
        && gold.copied == file.copied
        && gold.mode_change == file.mode_change
        && gold.binary == file.binary;
    if !alike {
        return false;
    }
    let (gold, file) = (Edits::of(gold), Edits::of(file));
    let mut known = gold.known.clone();
    for (at, line) in &file.known {
        if known.insert(*at, *line).is_some_and(|before| before != *line) {
            return false;
        }
    }
    let points: BTreeSet<usize> =
        known.keys().chain(gold.added.keys()).chain(file.added.keys()).copied().collect();
    gold.result(&known, &points) == file.result(&known, &points)
}

/// A line and whether a line break ends it.
type Text<'a> = (&'a str, bool);

/// What a patch does to a file, by 0-based line of the base.
struct Edits<'a> {
    known: BTreeMap<usize, Text<'a>>,
    removed: BTreeSet<usize>,
    /// Lines put before a line of the base.
    added: BTreeMap<usize, Vec<Text<'a>>>,
}

/// A piece of the result as far as it is known.
#[derive(PartialEq)]
enum Piece<'a> {
    Line(Text<'a>),
    /// Lines of the base that neither patch shows, from this one on.
    Untouched(usize),
}

impl<'a> Edits<'a> {
    fn of(file: &'a FilePatch) -> Self {
        let mut edits =
            Self { known: BTreeMap::new(), removed: BTreeSet::new(), added: BTreeMap::new() };
        for hunk in &file.hunks {
            let mut at = hunk.old_at();
            for line in &hunk.lines {
                let text = (line.text.as_str(), line.ended);
                if line.kind == LineKind::Added {
                    edits.added.entry(at).or_default().push(text);
                    continue;
                }
                edits.known.insert(at, text);
                if line.kind == LineKind::Removed {
                    edits.removed.insert(at);
                }
                at += 1;
            }
        }
        edits
    }

    fn result(
        &self,
        known: &BTreeMap<usize, Text<'a>>,
        points: &BTreeSet<usize>,
    ) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut next = 0;
        for at in points {
            if *at > next {
                pieces.push(Piece::Untouched(next));
            }
            pieces.extend(self.added.get(at).into_iter().flatten().copied().map(Piece::Line));
            next = *at;
            if let Some(line) = known.get(at) {
                next += 1;
                if !self.removed.contains(at) {
                    pieces.push(Piece::Line(*line));
                }
            }
        }
        pieces.push(Piece::Untouched(next));
        pieces
    }
}
