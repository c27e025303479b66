//! Tasks mined from a small history made here.

use std::path::Path;
use std::process::Command;

use crrl_tasks::{MineError, MineOptions, base_files, mine, verify};
use crrl_types::Origin;

fn git(folder: &Path, args: &[&str]) {
    let run = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgSign=false"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(run.status.success(), "{args:?}: {run:?}");
}

fn commit(folder: &Path, message: &str, files: &[(&str, &str)]) {
    for (path, text) in files {
        let at = folder.join(path);
        std::fs::create_dir_all(at.parent().expect("a parent")).expect("a folder");
        std::fs::write(at, text).expect("a file");
    }
    git(folder, &["add", "-A"]);
    git(folder, &["commit", "-q", "-m", message]);
}

fn history() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    git(root, &["init", "-q"]);
    commit(root, "Begin", &[("src/a.go", "func A() int {\n\treturn 1\n}\n"), ("b.py", "x = 1\n")]);
    commit(root, "Add a line", &[("b.py", "x = 1\ny = 2\n")]);
    commit(
        root,
        "Fix A: it returned one\n\nFixes #4\n\nSigned-off-by: T <t@example.org>",
        &[
            ("src/a.go", "func A() int {\n\treturn 2\n}\n"),
            ("src/a_test.go", "func TestA() {}\n"),
            ("CHANGELOG.md", "- A\n"),
        ],
    );
    commit(root, "Fix typo in b", &[("b.py", "x = 1\ny = 3\n")]);
    // The configuration of the repository must not change what we read.
    git(root, &["config", "diff.noprefix", "true"]);
    git(root, &["config", "diff.external", "false"]);
    folder
}

#[test]
fn a_fix_of_any_language_becomes_a_task_that_verifies() {
    let folder = history();
    let options = MineOptions { extensions: vec!["go".to_owned()], ..MineOptions::default() };
    let mined = mine(folder.path(), &options).expect("tasks");
    assert_eq!((mined.tasks.len(), mined.fixes), (1, 1));
    let task = &mined.tasks[0];
    assert_eq!(task.problem_statement, "Fix A: it returned one\n\nFixes #4");
    assert!(task.patch.contains("-\treturn 1\n+\treturn 2") && !task.patch.contains("TestA"));
    assert!(task.test_patch.contains("src/a_test.go") && !task.patch.contains("CHANGELOG"));
    let base = base_files(task).expect("the base");
    assert_eq!(base["src/a.go"], b"func A() int {\n\treturn 1\n}\n");
    assert!(!base.contains_key("src/a_test.go"));
    assert_eq!(verify(task).failed, None);

    let mut other = task.clone();
    other.patch = other.patch.replace("+\treturn 2", "+\treturn 3");
    let failed = format!("{:?}", verify(&other).failed.expect("passed"));
    assert!(failed.contains("Fix") && failed.contains("is not what commit"), "{failed}");
    let mut other = task.clone();
    other.base_commit = "0".repeat(40);
    assert!(format!("{:?}", verify(&other).failed.expect("passed")).contains("Base"));
    let Origin::Mined { fix_commit } = &task.origin else { panic!("{:?}", task.origin) };
    assert_eq!(fix_commit.len(), 40);
}

#[test]
fn bad_input_is_named() {
    let empty = tempfile::tempdir().expect("a temporary folder");
    let error = mine(empty.path(), &MineOptions::default()).expect_err("taken").to_string();
    assert!(error.contains("not a git repository"), "{error}");
    let error = mine(Path::new("/no/such"), &MineOptions::default()).expect_err("taken");
    assert!(matches!(error, MineError::Missing(_)), "{error}");
    let folder = history();
    let none = MineOptions { extensions: vec!["rb".to_owned()], ..MineOptions::default() };
    let error = mine(folder.path(), &none).expect_err("taken").to_string();
    assert!(error.contains("no task in 4 commits (1 speak of a fix, 1 of those"), "{error}");
    let from = MineOptions { from: "no-such-branch".to_owned(), ..MineOptions::default() };
    let error = mine(folder.path(), &from).expect_err("taken").to_string();
    assert!(error.contains("no-such-branch"), "{error}");
}
