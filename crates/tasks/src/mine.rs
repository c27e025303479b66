//! Tasks from the bug-fix commits of a git history: the parent commit is the base, the message the
//! issue, the source diff the gold patch, the test diff is kept apart. Any language.

use std::collections::BTreeMap;
use std::path::Path;

use crrl_rl::diff;
use crrl_types::{Base, Difficulty, Origin, Split, Task, TaskId};

pub use crate::git::GitError;
use crate::git::Repository;
use crate::split::{InvalidSplit, SplitOptions};

/// Which commits become tasks.
#[derive(Debug, Clone)]
pub struct MineOptions {
    /// Where to begin: a branch, tag or commit.
    pub from: String,
    /// Commits looked at, newest first.
    pub commits_max: usize,
    /// Tasks made at most.
    pub tasks_max: usize,
    /// Extensions of source files, without the dot; empty takes any text file that is no
    /// documentation.
    pub extensions: Vec<String>,
    /// Source files a fix may change.
    pub files_max: usize,
    /// Source lines a fix may add or remove.
    pub lines_max: usize,
    /// How repositories are put on sides.
    pub split: SplitOptions,
}

impl Default for MineOptions {
    fn default() -> Self {
        Self {
            from: "HEAD".to_owned(),
            commits_max: 10_000,
            tasks_max: 500,
            extensions: ["py"].map(str::to_owned).to_vec(),
            files_max: 3,
            lines_max: 60,
            split: SplitOptions::default(),
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Mined {
    /// The tasks, newest fix first.
    pub tasks: Vec<Task>,
    /// Commits looked at.
    pub commits: usize,
    /// Of those, commits whose message speaks of a bug.
    pub fixes: usize,
    /// Fixes left out: no source file, too many files or lines, a rename or binary change.
    pub unfit: usize,
}

/// No tasks can be made.
#[derive(Debug, thiserror::Error)]
pub enum MineError {
    /// There is no such folder.
    #[error("{0}: no such folder")]
    Missing(String),
    /// Git does not give the history.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The split's shares make no split.
    #[error(transparent)]
    Split(#[from] InvalidSplit),
    /// `from` cannot be a revision.
    #[error("{0:?} is no revision to begin at")]
    From(String),
    /// No commit fits.
    #[error(
        "{repo}: no task in {commits} commits ({fixes} speak of a fix, {unfit} of those do not fit the limits); look at more commits, other extensions or larger fixes"
    )]
    Nothing {
        /// The repository.
        repo: String,
        /// Commits looked at.
        commits: usize,
        /// Commits that speak of a fix.
        fixes: usize,
        /// Fixes that do not fit.
        unfit: usize,
    },
}

/// Makes tasks from a repository's history.
///
/// # Errors
/// When `repo` is no repository, or no commit of it fits.
pub fn mine(repo: &Path, options: &MineOptions) -> Result<Mined, MineError> {
    mine_watched(repo, options, &|_, _| ())
}

/// The same; `told` hears how many commits were looked at, and of how many.
///
/// # Errors
/// As [`mine`].
pub fn mine_watched(
    repo: &Path,
    options: &MineOptions,
    told: &dyn Fn(usize, usize),
) -> Result<Mined, MineError> {
    options.split.validate()?;
    if !repo.is_dir() {
        return Err(MineError::Missing(repo.display().to_string()));
    }
    let folder = repo.canonicalize().unwrap_or_else(|_| repo.to_owned());
    let repository = Repository::open(&folder)?;
    if options.from.starts_with('-') || options.from.is_empty() {
        return Err(MineError::From(options.from.clone()));
    }
    let count = format!("--max-count={}", options.commits_max);
    let log = repository.text(&[
        "log",
        "--no-merges",
        &count,
        "--format=%H%x1f%P%x1f%B%x00",
        &options.from,
        "--",
    ])?;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("repository");
    let side = options.split.side(name);
    let all = log.matches('\0').count();
    let mut mined = Mined::default();
    for record in log.split('\0').map(str::trim_start).filter(|record| !record.is_empty()) {
        let mut fields = record.splitn(3, '\x1f');
        let (Some(fix), Some(parents), Some(message)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        told(mined.commits, all);
        mined.commits += 1;
        let [parent] = parents.split(' ').collect::<Vec<_>>()[..] else { continue };
        if parent.is_empty() || !speaks_of_a_fix(message) {
            continue;
        }
        mined.fixes += 1;
        match task(&repository, name, parent, fix, message, side, options)? {
            Some(task) => mined.tasks.push(task),
            None => mined.unfit += 1,
        }
        if mined.tasks.len() == options.tasks_max {
            break;
        }
    }
    if mined.tasks.is_empty() {
        let Mined { commits, fixes, unfit, .. } = mined;
        let repo = folder.display().to_string();
        return Err(MineError::Nothing { repo, commits, fixes, unfit });
    }
    Ok(mined)
}

/// Whether a commit's message says that it repairs something.
fn speaks_of_a_fix(message: &str) -> bool {
    const WORDS: &[&str] = &[
        "fix",
        "fixes",
        "fixed",
        "fixing",
        "bugfix",
        "hotfix",
        "bug",
        "bugs",
        "issue",
        "issues",
        "regression",
        "crash",
        "crashes",
        "repair",
        "repairs",
        "wrong",
        "incorrect",
        "broken",
    ];
    const NOT: &[&str] =
        &["typo", "typos", "whitespace", "lint", "docs", "docstring", "changelog", "merge"];
    let subject = message.lines().next().unwrap_or_default().to_lowercase();
    let has = |text: &str, words: &[&str]| {
        text.split(|c: char| !c.is_alphanumeric()).any(|word| words.contains(&word))
    };
    if has(&subject, NOT) || subject.starts_with("revert") {
        return false;
    }
    let closes = message.to_lowercase().lines().any(|line| {
        let line = line.trim_start();
        ["fixes #", "closes #", "resolves #", "fixes:", "bug:", "issue:"]
            .iter()
            .any(|mark| line.starts_with(mark))
    });
    has(&subject, WORDS) || closes
}

fn task(
    repository: &Repository,
    name: &str,
    parent: &str,
    fix: &str,
    message: &str,
    split: Split,
    options: &MineOptions,
) -> Result<Option<Task>, MineError> {
    let text = repository.run(
        &[
            "diff-tree",
            "-p",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--no-renames",
            "--full-index",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            parent,
            fix,
            "--",
        ],
        b"",
    )?;
    let Ok(text) = String::from_utf8(text) else { return Ok(None) };
    let (mut patch, mut test_patch, mut scope) = (String::new(), String::new(), 0);
    let mut difficulty = Difficulty::default();
    for section in sections(&text) {
        let Ok(parsed) = diff::parse(section) else { return Ok(None) };
        let [file] = parsed.files.as_slice() else { return Ok(None) };
        let path = file.path();
        if is_test(path) {
            test_patch.push_str(section);
            continue;
        }
        if !is_source(path, &options.extensions) {
            continue; // documentation and the like: neither patch nor test
        }
        if file.binary.is_some() || file.hunks.is_empty() {
            return Ok(None);
        }
        patch.push_str(section);
        difficulty.files += 1;
        difficulty.hunks += u32::try_from(file.hunks.len()).unwrap_or(u32::MAX);
        difficulty.changed_lines += u32::try_from(file.changes().count()).unwrap_or(u32::MAX);
        if let Some(old) = &file.old_path
            && let Some(content) = repository.blob(parent, old)?
        {
            scope += content.iter().filter(|b| **b == b'\n').count();
        }
    }
    let fits = (1..=options.files_max).contains(&(difficulty.files as usize))
        && difficulty.changed_lines as usize <= options.lines_max;
    if !fits {
        return Ok(None);
    }
    difficulty.scope_lines = u32::try_from(scope).unwrap_or(u32::MAX);
    Ok(Some(Task {
        instance_id: TaskId(format!("{name}-{}", &fix[..12.min(fix.len())])),
        repo: repository.root().display().to_string(),
        base_commit: parent.to_owned(),
        problem_statement: issue(message),
        patch,
        test_patch,
        base: Base::Commit,
        origin: Origin::Mined { fix_commit: fix.to_owned() },
        difficulty,
        split,
        extra: BTreeMap::new(),
    }))
}

/// The message without the trailers that name people and machines.
fn issue(message: &str) -> String {
    const TRAILERS: &[&str] =
        &["signed-off-by:", "co-authored-by:", "reviewed-by:", "acked-by:", "change-id:", "cc:"];
    let lines = message.lines().filter(|line| {
        let line = line.trim().to_lowercase();
        !TRAILERS.iter().any(|trailer| line.starts_with(trailer))
    });
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// A diff cut at its `diff --git` lines.
fn sections(text: &str) -> Vec<&str> {
    let mark = "diff --git ";
    let mut starts: Vec<usize> =
        text.match_indices("\ndiff --git ").map(|(at, _)| at + 1).collect();
    if text.starts_with(mark) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

fn is_source(path: &str, extensions: &[String]) -> bool {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    if extensions.is_empty() {
        return !matches!(extension, "" | "md" | "rst" | "txt" | "lock" | "png" | "svg" | "po");
    }
    extensions.iter().any(|wanted| wanted == extension)
}

/// Whether a path looks like a test, by the customs of several languages.
fn is_test(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default().to_lowercase();
    let stem = file.split('.').next().unwrap_or_default();
    let folder =
        ["test", "tests", "testing", "__tests__", "spec", "specs", "testdata", "idle_test"];
    parts.iter().any(|part| folder.contains(&part.to_lowercase().as_str()))
        || stem.starts_with("test_")
        || stem.ends_with("_test")
        || stem.ends_with("_tests")
        || matches!(stem, "tests" | "test" | "conftest")
        || file.contains(".test.")
        || file.contains(".spec.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_speak_of_a_fix_are_told_from_others() {
        for good in ["Fix crash on empty input", "parser: wrong offset", "Tidy\n\nFixes #12"] {
            assert!(speaks_of_a_fix(good), "{good}");
        }
        for bad in
            ["Add a prefix option", "Fix typo in README", "Revert \"Fix x\"", "Debugging aid"]
        {
            assert!(!speaks_of_a_fix(bad), "{bad}");
        }
    }

    #[test]
    fn tests_are_told_from_sources() {
        for test in ["tests/a.py", "pkg/test_x.py", "a/b_test.go", "src/x.spec.ts", "conftest.py"] {
            assert!(is_test(test), "{test}");
        }
        for source in ["src/contest.py", "latest/a.py", "testament.rs"] {
            assert!(!is_test(source), "{source}");
        }
    }

    #[test]
    fn trailers_stay_out_of_the_issue() {
        assert_eq!(issue("Fix x\n\nWhy.\n\nSigned-off-by: A <a@b>\n"), "Fix x\n\nWhy.");
    }
}
