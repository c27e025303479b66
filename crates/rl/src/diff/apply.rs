//! Applying a patch to file contents, in memory.

use std::collections::BTreeMap;

use super::{FilePatch, Hunk, Line, Patch};

/// A patch that does not fit the contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A hunk's old lines are nowhere in the file.
    #[error("{path}: hunk {hunk} fits nowhere")]
    NoPlace {
        /// The file.
        path: String,
        /// 1-based hunk.
        hunk: usize,
    },
    /// A file to change is not there.
    #[error("{path}: no such file")]
    Missing {
        /// The file.
        path: String,
    },
    /// A file to create is there already.
    #[error("{path}: the file exists already")]
    Exists {
        /// The file.
        path: String,
    },
    /// Binary changes are not applied.
    #[error("{path}: a binary change")]
    Binary {
        /// The file.
        path: String,
    },
}

/// Applies one file's hunks to its contents (empty for a file to create).
///
/// A hunk whose position is off is moved to the nearest place its old lines occur, after the hunk
/// before it, as `git apply` does.
///
/// # Errors
/// When a hunk fits nowhere, or the change is binary.
pub fn apply(base: &str, file: &FilePatch) -> Result<String, ApplyError> {
    let path = || file.path().to_owned();
    if file.binary.is_some() {
        return Err(ApplyError::Binary { path: path() });
    }
    let lines: Vec<&str> = base.split_inclusive('\n').collect();
    let mut out = String::with_capacity(base.len() + 256);
    let (mut at, mut shift) = (0_usize, 0_isize);
    for (index, hunk) in file.hunks.iter().enumerate() {
        let expected = hunk.old_at().saturating_add_signed(shift);
        let place = place(&lines, hunk, at, expected)
            .ok_or_else(|| ApplyError::NoPlace { path: path(), hunk: index + 1 })?;
        shift = place as isize - hunk.old_at() as isize;
        out.extend(lines[at..place].iter().copied());
        for line in hunk.new_lines() {
            out.push_str(&line.text);
            if line.ended {
                out.push('\n');
            }
        }
        at = place + hunk.old_len;
    }
    out.extend(lines[at..].iter().copied());
    Ok(out)
}

/// Applies a whole patch to a tree: path to content. Returns the files it leaves changed; `None` is
/// a file it removes.
///
/// # Errors
/// When a file is missing or in the way, or a hunk fits nowhere.
pub fn apply_all(
    base: &BTreeMap<String, String>,
    patch: &Patch,
) -> Result<BTreeMap<String, Option<String>>, ApplyError> {
    let mut changed: BTreeMap<String, Option<String>> = BTreeMap::new();
    for file in &patch.files {
        let content = match &file.old_path {
            None => String::new(),
            // Git's own diffs name each file's state before the whole patch.
            Some(old) => {
                base.get(old).cloned().ok_or_else(|| ApplyError::Missing { path: old.clone() })?
            }
        };
        let after = apply(&content, file)?;
        let created = file.old_path != file.new_path;
        if let Some(old) = &file.old_path
            && created
            && !file.copied
        {
            changed.entry(old.clone()).or_insert(None);
        }
        if let Some(new) = &file.new_path {
            if created && base.contains_key(new) && !changed.contains_key(new) {
                return Err(ApplyError::Exists { path: new.clone() });
            }
            changed.insert(new.clone(), Some(after));
        }
    }
    changed.retain(|path, content| content.as_ref() != base.get(path));
    Ok(changed)
}

/// The line the hunk's old lines begin at: nearest to `expected`, not before `from`.
fn place(lines: &[&str], hunk: &Hunk, from: usize, expected: usize) -> Option<usize> {
    let old: Vec<&Line> = hunk.old_lines().collect();
    let last = lines.len().checked_sub(old.len())?;
    let fits = |at: usize| {
        at >= from
            && at <= last
            && old.iter().zip(&lines[at..]).all(|(line, have)| same(line, have))
    };
    if old.is_empty() {
        // Nothing to look for: only the stated place will do.
        return (expected >= from && expected <= lines.len()).then_some(expected);
    }
    // A hunk for a longer file is looked for from the end.
    let expected = expected.min(last);
    (0..=lines.len()).find_map(|distance| {
        let before = expected.checked_sub(distance).filter(|at| fits(*at));
        before.or_else(|| Some(expected.saturating_add(distance)).filter(|at| fits(*at)))
    })
}

fn same(line: &Line, have: &str) -> bool {
    match have.strip_suffix('\n') {
        Some(text) => line.ended && line.text == text,
        None => !line.ended && line.text == have,
    }
}
