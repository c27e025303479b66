use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::{apply, apply_all, write};
use super::*;

fn good(text: &str) -> Patch {
    parse(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
}

fn bad(text: &str) -> String {
    parse(text).expect_err("was taken").to_string()
}

const CHANGE: &str = "\
diff --git a/m.py b/m.py
index 1..2 100644
--- a/m.py
+++ b/m.py
@@ -1,3 +1,3 @@ def f():
 a
-b
+c
 d
";

#[test]
fn a_change_of_one_line() {
    let patch = good(CHANGE);
    assert_eq!(patch.files.len(), 1);
    let file = &patch.files[0];
    assert_eq!((file.path(), file.hunks.len()), ("m.py", 1));
    assert_eq!(file.changes().collect::<Vec<_>>(), [('-', "b"), ('+', "c")]);
    assert_eq!(apply("a\nb\nd\ne\n", file).expect("fits"), "a\nc\nd\ne\n");
}

#[test]
fn what_is_around_a_patch_is_skipped() {
    let mailed = format!(
        "From 1234\nSubject: [PATCH] x\n\n- a list\n---\n m.py | 2 +-\n\n{CHANGE}-- \n2.40.1\n\n"
    );
    assert_eq!(good(&mailed), good(CHANGE));
    assert_eq!(good("").files, []);
}

#[test]
fn plain_diffs_with_time_stamps() {
    let patch =
        good("--- m.py\t2024-01-01 10:00:00\n+++ m.py\t2024-01-02\n@@ -1 +1,2 @@\n a\n+b\n");
    assert_eq!(patch.files[0].path(), "m.py");
}

#[test]
fn renames_copies_modes_creations_and_deletions() {
    let patch = good(
        "diff --git a/old name.py b/new name.py\nsimilarity index 90%\nrename from old name.py\n\
         rename to new name.py\n--- a/old name.py\t\n+++ b/new name.py\t\n@@ -1 +1 @@\n-a\n+b\n\
         diff --git a/x b/y\nsimilarity index 100%\ncopy from x\ncopy to y\n\
         diff --git a/run me.sh b/run me.sh\nold mode 100644\nnew mode 100755\n\
         diff --git a/e b/e\nnew file mode 100644\nindex 000..e69\n\
         diff --git a/n b/n\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+x\n\
         diff --git a/g b/g\ndeleted file mode 100644\nindex 1..0\n--- a/g\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n",
    );
    let sides: Vec<_> = patch
        .files
        .iter()
        .map(|f| (f.old_path.as_deref(), f.new_path.as_deref(), f.copied))
        .collect();
    assert_eq!(
        sides,
        [
            (Some("old name.py"), Some("new name.py"), false),
            (Some("x"), Some("y"), true),
            (Some("run me.sh"), Some("run me.sh"), false),
            (None, Some("e"), false),
            (None, Some("n"), false),
            (Some("g"), None, false),
        ]
    );
    assert_eq!(patch.files[2].mode_change, Some(("100644".to_owned(), "100755".to_owned())));

    let base = [("old name.py", "a\n"), ("x", "1\n"), ("run me.sh", "r\n"), ("g", "x\n")];
    let base: BTreeMap<_, _> = base.map(|(p, c)| (p.to_owned(), c.to_owned())).into();
    let changed = apply_all(&base, &patch).expect("fits");
    let text = |path: &str| changed.get(path).map(Option::as_deref);
    assert_eq!(text("old name.py"), Some(None));
    assert_eq!(text("new name.py"), Some(Some("b\n")));
    assert_eq!(text("y"), Some(Some("1\n")));
    assert_eq!(text("e"), Some(Some("")));
    assert_eq!(text("n"), Some(Some("x\n")));
    assert_eq!(text("g"), Some(None));
    assert_eq!(text("x"), None);
}

#[test]
fn quoted_paths() {
    let patch = good(
        "diff --git \"a/\\303\\251 \\\"q\\\".py\" \"b/\\303\\251 \\\"q\\\".py\"\n\
         --- \"a/\\303\\251 \\\"q\\\".py\"\n+++ \"b/\\303\\251 \\\"q\\\".py\"\n@@ -1 +1 @@\n-a\n+b\n\
         diff --git \"a/t\\tb\" \"b/t\\tb\"\nold mode 100644\nnew mode 100755\n",
    );
    assert_eq!(patch.files[0].path(), "é \"q\".py");
    assert_eq!(patch.files[1].path(), "t\tb");
    assert!(bad("--- \"a/x\n+++ \"b/x\n@@ -1 +1 @@\n-a\n+b\n").contains("closing quote"));
}

#[test]
fn files_without_a_final_line_break() {
    let patch =
        good("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n");
    assert_eq!(apply("a\nb", &patch.files[0]).expect("fits"), "a\nb\n");
    let patch = good("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-b\n+c\n\\ No newline at end of file\n");
    assert_eq!(apply("b\n", &patch.files[0]).expect("fits"), "c");
}

#[test]
fn carriage_returns_belong_to_the_line() {
    let patch = good("--- a/f\r\n+++ b/f\r\n@@ -1,2 +1,2 @@\r\n \r\n-b\r\n+c\r\n");
    assert_eq!(patch.files[0].path(), "f");
    assert_eq!(apply("\r\nb\r\n", &patch.files[0]).expect("fits"), "\r\nc\r\n");
}

#[test]
fn lines_that_look_like_headers_are_lines_within_a_hunk() {
    let patch = good("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n--- x\n-y\n+++ x\n+diff --git a/x b/x\n");
    assert_eq!(patch.files.len(), 1);
    assert_eq!(apply("-- x\ny\n", &patch.files[0]).expect("fits"), "++ x\ndiff --git a/x b/x\n");
}

#[test]
fn a_binary_change_is_kept_unread() {
    let text = "diff --git a/i.png b/i.png\nindex 1..2\nBinary files a/i.png and b/i.png differ\n";
    let patch = good(&format!("{text}{CHANGE}"));
    assert_eq!(patch.files.len(), 2);
    assert!(patch.files[0].binary.is_some() && patch.files[0].path() == "i.png");
    assert!(apply("", &patch.files[0]).is_err());
}

#[test]
fn what_is_no_patch_is_refused_with_line_and_reason() {
    assert!(bad("I fixed the bug.").contains("no file header"));
    assert!(bad("@@ -1 +1 @@\n-a\n+b\n").contains("without a file header"));
    assert!(
        bad("--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n").contains("line 7: the hunk ends")
    );
    assert!(bad("--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n+c\n").contains("outside of a hunk"));
    assert!(bad("--- a/f\n+++ b/f\n@@ -1,2 +1 @@\n-a\n+b\n+c\n-d\n").contains("more lines"));
    assert!(bad("--- a/f\n+++ b/f\n@@ -x +1 @@\n").contains("@@ -1,2"));
    assert!(bad("--- a/f\n+++ b/f\n").contains("without a hunk"));
    assert!(
        bad("--- a/../../etc/passwd\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n").contains("leaves the tree")
    );
    assert!(bad("--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n").contains("both sides"));
}

#[test]
fn a_hunk_moves_to_where_its_lines_are() {
    let patch = good("--- a/f\n+++ b/f\n@@ -10,2 +10,2 @@\n x\n-b\n+c\n");
    assert_eq!(apply("1\n2\nx\nb\n", &patch.files[0]).expect("found"), "1\n2\nx\nc\n");
    let error = apply("1\n2\nx\n", &patch.files[0]).expect_err("nowhere").to_string();
    assert_eq!(error, "f: hunk 1 fits nowhere");
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(pieces in prop::collection::vec(prop::sample::select(vec![
        "diff --git a/f b/f\n", "--- a/f\n", "+++ b/f\n", "@@ -1 +1 @@\n", "@@ -1,2 +1,2 @@\n", "-a\n",
        "+b\n", " c\n", "\\ No\n", "\n", "\r\n", "é\n", "rename from x\n", "rename to \"y\n", "\"",
        "diff --git \"a/\\303\n", "GIT binary patch\n", "@@ -0,0 +999999999,1 @@\n", "new mode 1\n",
    ]), 0..30), base in "([ab]\n?){0,6}") {
        if let Ok(patch) = parse(&pieces.concat()) {
            for file in &patch.files {
                let _ = apply(&base, file);
            }
        }
    }

    #[test]
    fn a_written_diff_reads_back_and_applies(
        old in prop::collection::vec("[abc]{0,2}", 0..20), new in prop::collection::vec("[abc]{0,2}", 0..20),
        ended in any::<(bool, bool)>(), context in 0usize..4) {
        let text = |lines: &[String], ended: bool| {
            let text = lines.join("\n");
            if ended && !lines.is_empty() { text + "\n" } else { text }
        };
        let (old, new) = (text(&old, ended.0), text(&new, ended.1));
        prop_assume!(old != new);
        let diff = write("a b/f", Some(&old), Some(&new), context);
        let patch = parse(&diff).map_err(|e| TestCaseError::fail(format!("{e}\n{diff}")))?;
        prop_assert_eq!(patch.files[0].path(), "a b/f");
        let got = apply(&old, &patch.files[0]);
        prop_assert_eq!(got.map_err(|e| TestCaseError::fail(format!("{e}\n{diff}")))?, new);
    }
}

/// Git itself takes what we write and writes what we read.
#[test]
fn git_agrees() {
    let dir = tempfile::tempdir().expect("a folder");
    let old: String = (1..40).map(|n| format!("line {n}\n")).collect();
    let new =
        old.replace("line 3\n", "three\n").replace("line 20\n", "").replace("line 39\n", "39");
    let path = "sub dir/é.py";
    let file = dir.path().join(path);
    std::fs::create_dir_all(file.parent().expect("has one")).expect("made");
    let git = |args: &[&str]| {
        let out = std::process::Command::new("git")
            .args(args)
            .current_dir(dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .expect("git runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    git(&["init", "-q"]);
    std::fs::write(&file, &old).expect("written");
    git(&["add", "."]);
    std::fs::write(&file, &new).expect("written");
    let theirs = git(&["diff"]);
    assert!(theirs.contains("\\303\\251"), "git quotes the path");
    let patch = good(&theirs);
    assert_eq!((patch.files[0].path(), patch.files[0].hunks.len()), (path, 3));
    assert_eq!(apply(&old, &patch.files[0]).expect("fits"), new);

    let ours = write(path, Some(&old), Some(&new), 3);
    assert_eq!(good(&ours).files[0].hunks.len(), 3);
    std::fs::write(&file, &old).expect("written");
    std::fs::write(dir.path().join("ours.patch"), &ours).expect("written");
    git(&["apply", "--check", "ours.patch"]);
    git(&["apply", "ours.patch"]);
    assert_eq!(std::fs::read_to_string(&file).expect("read"), new);
}
