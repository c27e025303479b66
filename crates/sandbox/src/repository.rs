//! The repository of one commit that an agent gets, and git with no configuration but ours.
//!
//! Made straight from an image by two short git processes: one packs the commit, one writes the
//! index. No remote, tag, reflog, hook or unreachable object, and the same bytes every time.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::image::{self, Kind};
use crate::template::{TemplateError, at, name};

/// What `git init` would write, with nothing in it that depends on the machine.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n";
/// The only branch.
const HEAD: &str = "ref: refs/heads/main\n";
/// Who made the commit, and when.
const BY: &str = "base <base@localhost> 946684800 +0000";

/// Makes the repository of an image's files in the new folder `git`.
pub(crate) fn make(image: &[u8], git: &Path) -> Result<(), TemplateError> {
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/tags"] {
        let folder = git.join(folder);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
    }
    for (file, text) in [("HEAD", HEAD), ("config", CONFIG)] {
        let file = git.join(file);
        fs::write(&file, text).map_err(at(&file))?;
    }
    let pack = ["-c", "fastimport.unpackLimit=0", "-c", "core.logAllRefUpdates=false"];
    let pack = [&pack[..], &["fast-import", "--quiet", "--done"]].concat();
    run(git, &pack, &commit(image)?)?;
    run(git, &["read-tree", "main"], b"")
}

/// The commit in the format of `git fast-import`.
fn commit(image: &[u8]) -> Result<Vec<u8>, TemplateError> {
    let mut stream = Vec::with_capacity(image.len() + 1024);
    stream.extend_from_slice(b"commit refs/heads/main\n");
    stream.extend_from_slice(format!("author {BY}\ncommitter {BY}\ndata 5\nbase\n\n").as_bytes());
    for entry in image::entries(image).map_err(|error| name(&error.to_string()))? {
        let mode = match entry.kind {
            Kind::Folder => continue,
            Kind::File => "100644",
            Kind::Executable => "100755",
            Kind::Link => "120000",
        };
        let path = quoted(entry.path);
        let size = entry.content.len();
        stream.extend_from_slice(format!("M {mode} inline {path}\ndata {size}\n").as_bytes());
        stream.extend_from_slice(entry.content);
        stream.push(b'\n');
    }
    stream.extend_from_slice(b"done\n");
    Ok(stream)
}

/// A path as fast-import reads it whatever is in it.
fn quoted(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 2);
    out.push('"');
    for c in path.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_ascii_control() => out.push_str(&format!("\\{:03o}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn run(git: &Path, command: &[&str], input: &[u8]) -> Result<(), TemplateError> {
    let fail = |reason: String| TemplateError::Git { command: command.join(" "), reason };
    let failed = |error: io::Error| fail(error.to_string());
    let mut program = clean_git(git);
    program.env("GIT_DIR", git).args(command);
    program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = program.spawn().map_err(failed)?;
    let mut stdin = child.stdin.take().ok_or_else(|| fail("no input".to_owned()))?;
    // Git that ends early says why on the other side.
    let wrote = stdin.write_all(input);
    drop(stdin);
    let done = child.wait_with_output().map_err(failed)?;
    if !done.status.success() {
        return Err(fail(String::from_utf8_lossy(&done.stderr).trim().to_owned()));
    }
    wrote.map_err(failed)
}

/// Git with no configuration but ours.
pub(crate) fn clean_git(folder: &Path) -> Command {
    let mut git = Command::new(program());
    git.current_dir(folder)
        .env_clear()
        .env("PATH", search_path())
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["-c", "core.attributesFile=/dev/null", "-c", "core.hooksPath=/dev/null"])
        .args(["-c", "core.fsmonitor=false", "-c", "core.quotePath=true"])
        .stdin(Stdio::null());
    git
}

fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into())
}

/// Git's full path, looked up once: a program that is searched for in a changed `PATH` cannot be
/// spawned without copying this process's page tables, which takes longer than git does.
fn program() -> &'static Path {
    static GIT: OnceLock<PathBuf> = OnceLock::new();
    GIT.get_or_init(|| {
        let path = search_path();
        let mut places = std::env::split_paths(&path).map(|folder| folder.join("git"));
        places.find(|file| file.is_file()).unwrap_or_else(|| "git".into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(git: &Path, args: &[&str]) -> String {
        let done = clean_git(git).env("GIT_DIR", git).args(args).output().expect("git runs");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    #[test]
    fn one_commit_holds_every_file_whatever_its_name_and_nothing_else_is_there() {
        let mut image = Vec::new();
        let odd = "od\"d näme.py";
        for (kind, path, content) in [
            (Kind::Folder, "a", b"".as_slice()),
            (Kind::File, "a/x.py", b"x = 1\n"),
            (Kind::Executable, "run.sh", b"#!/bin/sh\n"),
            (Kind::Link, "link", b"a/x.py"),
            (Kind::File, odd, b"\0bytes\xff"),
        ] {
            image::push(&mut image, kind, path, content).expect("the path is plain");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        make(&image, &one).expect("made");
        make(&image, &two).expect("made");
        assert_eq!(git(&one, &["rev-list", "--all", "--count"]), "1\n");
        let listed = git(&one, &["ls-tree", "-r", "-z", "main"]);
        let listed: Vec<(&str, &str)> = listed
            .split_terminator('\0')
            .filter_map(|line| Some((line.split_once(' ')?.0, line.split_once('\t')?.1)))
            .collect();
        let expected =
            [("100644", "a/x.py"), ("120000", "link"), ("100644", odd), ("100755", "run.sh")];
        assert_eq!(listed, expected);
        assert_eq!(git(&one, &["cat-file", "blob", "main:a/x.py"]), "x = 1\n");
        git(&one, &["fsck", "--full", "--strict"]);
        assert_eq!(git(&one, &["ls-files"]).lines().count(), 4, "the index is written");
        assert_eq!(git(&one, &["rev-parse", "main"]), git(&two, &["rev-parse", "main"]));
        assert!(!one.join("logs").exists() && !one.join("hooks").exists());
    }
}
