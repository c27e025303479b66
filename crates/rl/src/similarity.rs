//! How alike two patches are.
//!
//! Compared is what a patch changes, file by file: its added and removed lines with their sign, in
//! order. Context, positions, headers and the order of files count for nothing. The similarities
//! of files both patches change are summed and divided by the larger number of files (thesis,
//! eq. 3.1), so that a file left out and a file too many both cost:
//!
//! ```text
//! S(P, G) = sum over f in F_P and F_G of s(P_f, G_f) / max(|F_P|, |F_G|)
//! ```
//!
//! Exactness is another question, asked of results and not of texts: two patches are exact where
//! they leave the same file contents.

mod exact;

use std::collections::BTreeMap;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::diff::{FilePatch, ParseError, Patch, parse};
use crate::gestalt;

pub use exact::{same_result, same_result_on};

/// Bytes a patch may have over [`TIMES_GOLD_MAX`] times the gold patch's. Comparing is quadratic at
/// worst, and a patch that far over earns nothing anyway.
pub const BYTES_OVER_MAX: usize = 64 * 1024;
/// See [`BYTES_OVER_MAX`].
pub const TIMES_GOLD_MAX: usize = 8;

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Similarity {
    /// By lines: 2 M / T over the longest common sequence of lines, in 0..=1.
    pub line: f64,
    /// By characters, as Python's difflib, in 0..=1; `None` where it was not asked for.
    pub gestalt: Option<f64>,
    /// Files both change, by the larger number of files.
    pub file_match: f64,
    /// Whether both leave the same contents.
    pub exact: bool,
    /// The files, each with its share.
    pub files: Vec<FileSimilarity>,
    /// Why nothing was compared; `None` where it was.
    pub nothing: Option<Nothing>,
}

/// One file of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSimilarity {
    /// Its path.
    pub path: String,
    /// By lines; 0 where only one patch changes it.
    pub line: f64,
    /// By characters.
    pub gestalt: Option<f64>,
}

/// Why a patch earns nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Nothing {
    /// It changes no file.
    #[error("the patch is empty")]
    Empty,
    /// It is no patch.
    #[error("not a patch: {0}")]
    Unparsable(ParseError),
    /// It is far larger than the gold patch.
    #[error("the patch has {bytes} bytes; {max} are compared at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound for this gold patch.
        max: usize,
    },
}

/// Compares a patch with the gold patch. A bad patch is compared to nothing and scores 0; with
/// `gestalt` the slower measure by characters is computed too.
///
/// # Errors
/// When the gold patch itself cannot be read.
pub fn compare(gold: &str, patch: &str, gestalt: bool) -> Result<Similarity, ParseError> {
    let nothing = |reason| Similarity {
        gestalt: gestalt.then_some(0.0),
        nothing: Some(reason),
        ..Similarity::default()
    };
    let gold_patch = parse(gold)?;
    if gold_patch.files.is_empty() {
        return Err(ParseError { line: 1, reason: "it changes no file".to_owned() });
    }
    let max = gold.len().saturating_mul(TIMES_GOLD_MAX).saturating_add(BYTES_OVER_MAX);
    if patch.len() > max {
        return Ok(nothing(Nothing::TooLarge { bytes: patch.len(), max }));
    }
    Ok(match parse(patch) {
        Err(error) => nothing(Nothing::Unparsable(error)),
        Ok(patch) if patch.files.is_empty() => nothing(Nothing::Empty),
        Ok(patch) => compare_patches(&gold_patch, &patch, gestalt),
    })
}

/// Compares two patches that have been read; neither is empty.
#[must_use]
pub fn compare_patches(gold: &Patch, patch: &Patch, gestalt: bool) -> Similarity {
    let (gold_files, files) = (by_path(gold), by_path(patch));
    let larger = gold_files.len().max(files.len()).max(1) as f64;
    let exact = same_result(gold, patch);
    let mut paths: Vec<&str> = gold_files.keys().chain(files.keys()).copied().collect();
    paths.sort_unstable();
    paths.dedup();
    let mut both = 0;
    let compared: Vec<FileSimilarity> = paths
        .into_iter()
        .map(|path| {
            let pair = gold_files.get(path).zip(files.get(path));
            both += usize::from(pair.is_some());
            let measure = |by: fn(&[String], &[String]) -> f64| match pair {
                Some(_) if exact => 1.0,
                Some((gold, file)) => by(&changes(gold), &changes(file)),
                None => 0.0,
            };
            FileSimilarity {
                path: path.to_owned(),
                line: measure(line_ratio),
                gestalt: gestalt.then(|| measure(gestalt_ratio)),
            }
        })
        .collect();
    Similarity {
        line: compared.iter().map(|file| file.line).sum::<f64>() / larger,
        gestalt: gestalt
            .then(|| compared.iter().filter_map(|file| file.gestalt).sum::<f64>() / larger),
        file_match: both as f64 / larger,
        exact,
        files: compared,
        nothing: None,
    }
}

fn by_path(patch: &Patch) -> BTreeMap<&str, Vec<&FilePatch>> {
    let mut files: BTreeMap<&str, Vec<&FilePatch>> = BTreeMap::new();
    for file in &patch.files {
        files.entry(file.path()).or_default().push(file);
    }
    files
}

/// What is compared of a file: one text a changed line. A change without lines (a rename, a mode)
/// is told by its own, so that it is not taken for the same as any other.
fn changes(files: &[&FilePatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for file in files {
        if let Some((old, new)) = &file.mode_change {
            lines.push(format!("mode {old} {new}"));
        }
        if let (Some(old), Some(new)) = (&file.old_path, &file.new_path)
            && old != new
        {
            lines.push(format!("{} {old}", if file.copied { "copy" } else { "rename" }));
        }
        lines.extend(file.binary.clone());
        lines.extend(file.changes().map(|(sign, text)| format!("{sign}{text}")));
    }
    lines
}

/// 2 M / T over a shortest edit script of lines (Myers, through `similar`).
fn line_ratio(gold: &[String], patch: &[String]) -> f64 {
    let total = gold.len() + patch.len();
    if total == 0 {
        return 1.0;
    }
    let same: usize = capture_diff_slices(Algorithm::Myers, gold, patch)
        .iter()
        .map(|op| if let DiffOp::Equal { len, .. } = op { *len } else { 0 })
        .sum();
    2.0 * same as f64 / total as f64
}

fn gestalt_ratio(gold: &[String], patch: &[String]) -> f64 {
    gestalt::ratio(&gold.join("\n"), &patch.join("\n"))
}

#[cfg(test)]
mod tests;
