//! Whether a task holds what it promises: the base can be had, the gold patch applies, and what
//! comes out is the fix.

use std::collections::BTreeMap;
use std::path::Path;

use crrl_rl::diff::{self, Patch};
use crrl_types::{Digest, Origin, Task, TaskId};
use serde::Serialize;

use crate::base::base_files;
use crate::git::Repository;
use crate::mutate::FIX_DIGEST;
use crate::source;

/// What is checked, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The fields say something.
    Fields,
    /// The base can be had.
    Base,
    /// The gold patch is a patch and applies to it.
    Patch,
    /// Base and patch together are the fix.
    Fix,
    /// The test patch applies.
    TestPatch,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The task.
    pub task: TaskId,
    /// The first check that failed, and why; `None` where the task is good.
    pub failed: Option<(Check, String)>,
}

impl Verdict {
    /// Whether the task is good.
    #[must_use]
    pub fn good(&self) -> bool {
        self.failed.is_none()
    }
}

/// Checks one task.
#[must_use]
pub fn verify(task: &Task) -> Verdict {
    Verdict { task: task.instance_id.clone(), failed: check(task).err() }
}

/// Whether the gold patch is a patch and applies to the base: the part of [`verify`] that a run
/// cannot do without.
///
/// # Errors
/// Why not.
pub fn patch_applies(task: &Task) -> Result<(), String> {
    let base = base_files(task).map_err(|error| error.to_string())?;
    applied(task, &base).map(drop)
}

type Texts = BTreeMap<String, String>;

/// The files of the gold patch without it, and with it.
fn applied(
    task: &Task,
    base: &BTreeMap<String, Vec<u8>>,
) -> Result<(Texts, BTreeMap<String, Option<String>>), String> {
    let refused = |error: &dyn std::fmt::Display| format!("its patch does not apply: {error}");
    let gold = diff::parse(&task.patch).map_err(|error| refused(&error))?;
    let before = texts(base, &gold).map_err(|error| refused(&error))?;
    let after = diff::apply_all(&before, &gold).map_err(|error| refused(&error))?;
    if after.is_empty() { Err("its patch changes nothing".to_owned()) } else { Ok((before, after)) }
}

fn check(task: &Task) -> Result<(), (Check, String)> {
    for (name, text) in [("problem_statement", &task.problem_statement), ("patch", &task.patch)] {
        if text.trim().is_empty() {
            return Err((Check::Fields, format!("`{name}` is empty")));
        }
    }
    let base = base_files(task).map_err(|error| (Check::Base, error.to_string()))?;
    let (before, after) = applied(task, &base).map_err(|reason| (Check::Patch, reason))?;
    is_fix(task, &before, &after).map_err(|reason| (Check::Fix, reason))?;
    if !task.test_patch.is_empty() {
        let tests = |error: String| (Check::TestPatch, error);
        let parsed = diff::parse(&task.test_patch).map_err(|error| tests(error.to_string()))?;
        let before = texts(&base, &parsed).map_err(tests)?;
        diff::apply_all(&before, &parsed).map_err(|error| tests(error.to_string()))?;
    }
    Ok(())
}

/// The files a patch touches, as text.
fn texts(base: &BTreeMap<String, Vec<u8>>, patch: &Patch) -> Result<Texts, String> {
    let mut texts = BTreeMap::new();
    for file in patch.files.iter().filter(|file| file.binary.is_none()) {
        for path in file.old_path.iter().chain(&file.new_path) {
            if let Some(content) = base.get(path) {
                let text = std::str::from_utf8(content)
                    .map_err(|_| format!("{path}: the base is not UTF-8 text"))?;
                texts.insert(path.clone(), text.to_owned());
            }
        }
    }
    Ok(texts)
}

fn is_fix(
    task: &Task,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, Option<String>>,
) -> Result<(), String> {
    match &task.origin {
        Origin::Imported => Ok(()), // nothing to compare with
        Origin::Mined { fix_commit } => {
            let repository =
                Repository::open(Path::new(&task.repo)).map_err(|error| error.to_string())?;
            if !fix_commit.bytes().all(|b| b.is_ascii_hexdigit()) || fix_commit.is_empty() {
                return Err(format!("{fix_commit:?} is no commit"));
            }
            for (path, content) in after {
                let there = repository.blob(fix_commit, path).map_err(|error| error.to_string())?;
                if there.as_deref() != content.as_ref().map(String::as_bytes) {
                    return Err(format!("{path} is not what commit {fix_commit} has"));
                }
            }
            Ok(())
        }
        Origin::Mutated { path, line, .. } => {
            let (Some(broken), Some(Some(fixed))) = (before.get(path), after.get(path)) else {
                return Err(format!("the patch does not change {path}"));
            };
            let digest = task.extra.get(FIX_DIGEST).and_then(|value| value.as_str());
            if digest.is_some_and(|digest| digest != Digest::of(fixed.as_bytes()).to_string()) {
                return Err(format!("{path} repaired is not the file the bug was put into"));
            }
            let same = broken.lines().zip(fixed.lines()).take_while(|(a, b)| a == b).count();
            if same + 1 != *line as usize {
                return Err(format!(
                    "{path} differs from line {} on, the task says line {line}",
                    same + 1
                ));
            }
            let mut parser = source::parser();
            for (text, what) in [(broken, "with the bug"), (fixed, "repaired")] {
                // A file known by its digest was parsed when the task was made.
                let known = what == "repaired" && digest.is_some();
                if !known && path.ends_with(".py") && source::parse(&mut parser, text).is_none() {
                    return Err(format!("{path} {what} is not valid Python"));
                }
            }
            Ok(())
        }
    }
}
