//! The canonical diff: our git, with a clean configuration, of our pristine base against the files
//! that came back. Never runs git on, or reads, the agent's repository.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::image::Kind;
use crate::repository::clean_git;
use crate::sandbox::Export;
use crate::template::Template;

/// There is no diff.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// A file could not be read or written.
    #[error("diff: {0}")]
    Io(#[from] io::Error),
    /// Git failed.
    #[error("git diff: {0}")]
    Git(String),
    /// Too much was changed.
    #[error("the diff is larger than {0} bytes")]
    TooLarge(usize),
    /// A file is so deep in folders, or a link leads so far, that it cannot be laid out here.
    #[error("a path has too many bytes")]
    LongPath,
}

impl DiffError {
    /// Whether the policy's changes are what cannot be compared.
    pub(crate) fn is_too_much(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::LongPath)
    }
}

/// The diff of what came back, blocking.
pub(crate) fn canonical(
    template: &Template,
    export: &Export,
    bytes_max: usize,
) -> Result<String, DiffError> {
    if export.files.is_empty() && export.deleted.is_empty() {
        return Ok(String::new());
    }
    // Only the files that differ, on both sides: a diff of the rest is empty.
    let scratch = tempfile::Builder::new().prefix("crrl-diff-").tempdir()?;
    let (a, b) = (scratch.path().join("a"), scratch.path().join("b"));
    fs::create_dir(&a)?;
    fs::create_dir(&b)?;
    let mut sides = (Vec::new(), Vec::new());
    for path in export.files.keys().chain(&export.deleted) {
        if let Some((kind, content)) = template.base(path)? {
            sides.0.push((path.as_str(), kind, content));
        }
    }
    for (path, (kind, content)) in &export.files {
        sides.1.push((path.as_str(), *kind, content.clone()));
    }
    put(&a, &sides.0)?;
    put(&b, &sides.1).map_err(|error| match error.raw_os_error() {
        Some(libc::ENAMETOOLONG) => DiffError::LongPath,
        _ => DiffError::Io(error),
    })?;
    git_diff(scratch.path(), bytes_max)
}

/// Files first, links last: nothing is ever written through a link.
fn put(side: &Path, files: &[(&str, Kind, Vec<u8>)]) -> io::Result<()> {
    for (path, kind, content) in files.iter().filter(|file| file.1 != Kind::Link) {
        let to = side.join(path);
        fs::create_dir_all(to.parent().unwrap_or(side))?;
        fs::write(&to, content)?;
        let mode = if *kind == Kind::Executable { 0o755 } else { 0o644 };
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    }
    let mut links: Vec<_> = files.iter().filter(|file| file.1 == Kind::Link).collect();
    // Folders of every link before any link.
    for (path, _, _) in &links {
        fs::create_dir_all(side.join(path).parent().unwrap_or(side))?;
    }
    links.sort_by(|x, y| y.0.cmp(x.0));
    for (path, _, target) in links {
        std::os::unix::fs::symlink(OsStr::from_bytes(target), side.join(path))?;
    }
    Ok(())
}

fn git_diff(folder: &Path, bytes_max: usize) -> Result<String, DiffError> {
    let mut git = clean_git(folder);
    git.env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap_or(folder))
        .env("GIT_DIR", "/nonexistent")
        .args(["diff", "--no-index", "--no-prefix", "--no-renames", "--no-ext-diff"])
        .args(["--no-textconv", "--no-color", "--unified=3", "--diff-algorithm=myers"])
        .args(["--full-index", "--", "a", "b"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = git.spawn()?;
    let mut out = Vec::new();
    let taken = child.stdout.take();
    let stdout = taken.ok_or_else(|| DiffError::Git("no output".to_owned()))?;
    stdout.take(bytes_max as u64 + 1).read_to_end(&mut out)?;
    if out.len() > bytes_max {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
        child.wait()?;
        return Err(DiffError::TooLarge(bytes_max));
    }
    let done = child.wait_with_output()?;
    // 1 says that there are differences.
    if !matches!(done.status.code(), Some(0 | 1)) {
        return Err(DiffError::Git(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    Ok(with_both_sides(&String::from_utf8_lossy(&out)))
}

/// Outside a repository git names the one side of a new or deleted file twice (`a/x a/x`) where
/// it says `a/x b/x` inside one. Lines of content never start this way: they are indented by one.
fn with_both_sides(diff: &str) -> String {
    const HEADER: &str = "diff --git ";
    let mut out = String::with_capacity(diff.len());
    for line in diff.split_inclusive('\n') {
        let names = line.strip_prefix(HEADER).and_then(|rest| {
            let (one, two) = rest.trim_end_matches('\n').split_at_checked(rest.len() / 2 - 1)?;
            (Some(one) == two.strip_prefix(' ')).then_some(one)
        });
        match names {
            Some(name) => {
                let quote = if name.starts_with('"') { "\"" } else { "" };
                let path = &name[quote.len() + 2..];
                out.push_str(&format!("{HEADER}{quote}a/{path} {quote}b/{path}\n"));
            }
            None => out.push_str(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::with_both_sides;

    #[test]
    fn headers_of_new_and_deleted_files_name_both_sides() {
        let git =
            "diff --git a/x y a/x y\n-diff --git a/x a/x\ndiff --git \"b/\\303\" \"b/\\303\"\n";
        let ours =
            "diff --git a/x y b/x y\n-diff --git a/x a/x\ndiff --git \"a/\\303\" \"b/\\303\"\n";
        assert_eq!(with_both_sides(git), ours);
        assert_eq!(with_both_sides(ours), ours);
    }
}
