use super::*;
use crate::diff::write;

fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "{got} for {expected}");
}

fn score(gold: &str, patch: &str) -> Similarity {
    compare(gold, patch, true).expect("a good gold patch")
}

const BASE: &str =
    "def f(x):\n    if x is None:\n        return 0\n    y = x\n    y = x\n    return y\n";

/// A patch of BASE under each path.
fn patch_of(paths: &[&str], old: &str, new: &str, context: usize) -> String {
    let after = BASE.replace(old, new);
    paths.iter().map(|path| write(path, Some(BASE), Some(&after), context)).collect()
}

#[test]
fn a_patch_is_itself() {
    let gold = patch_of(&["m.py"], "is None", "is not None", 3);
    let score = score(&gold, &gold);
    assert!(score.exact);
    assert_eq!((score.line, score.gestalt, score.file_match), (1.0, Some(1.0), 1.0));
}

#[test]
fn context_and_headers_do_not_count() {
    let gold = patch_of(&["m.py"], "is None", "is not None", 3);
    for context in [0, 1, 9] {
        let other = patch_of(&["m.py"], "is None", "is not None", context);
        let plain = other.split_once('\n').expect("a header line").1;
        let score = score(&gold, plain);
        assert!(score.exact, "context {context}");
        assert_eq!((score.line, score.gestalt), (1.0, Some(1.0)));
    }
}

#[test]
fn the_same_lines_elsewhere_are_alike_but_not_exact() {
    let gold = patch_of(&["m.py"], "is None", "is not None", 3);
    let elsewhere = gold.replace("@@ -1,", "@@ -41,").replace("+1,", "+41,");
    let score = score(&gold, &elsewhere);
    assert_eq!((score.line, score.gestalt, score.exact), (1.0, Some(1.0), false));
}

#[test]
fn a_repeated_line_may_be_removed_at_either_place() {
    let first = "--- a/m.py\n+++ b/m.py\n@@ -4 +3,0 @@\n-    y = x\n";
    let second = "--- a/m.py\n+++ b/m.py\n@@ -4,2 +4 @@\n     y = x\n-    y = x\n";
    assert!(score(first, second).exact);
    let other = "--- a/m.py\n+++ b/m.py\n@@ -3,2 +3 @@\n-        return 0\n     y = x\n";
    assert!(!score(first, other).exact);
    let base = [("m.py".to_owned(), BASE.to_owned())].into();
    let read = |text| parse(text).expect("a patch");
    assert_eq!(same_result_on(&base, &read(first), &read(second)), Ok(true));
    assert_eq!(same_result_on(&base, &read(first), &read(other)), Ok(false));
}

#[test]
fn line_similarity_counts_common_lines() {
    let gold = patch_of(&["m.py"], "is None", "is not None", 3);
    let half = patch_of(&["m.py"], "is None", "== 0", 3);
    // One of two lines, the removed one, is common.
    let score = score(&gold, &half);
    near(score.line, 0.5);
    assert!(!score.exact);
    let text = |line: &str| format!("-    if x is None:\n+    if x {line}:");
    near(score.gestalt.expect("asked for"), gestalt::ratio(&text("is not None"), &text("== 0")));
}

#[test]
fn the_larger_file_count_divides() {
    let change = |paths: &[&str]| patch_of(paths, "is None", "is not None", 3);
    for (gold, patch, expected) in [
        (&["a", "b"][..], &["a"][..], 0.5),
        (&["a"], &["a", "b", "c", "d"], 0.25),
        (&["a", "b"], &["b", "c"], 0.5),
        (&["a"], &["b"], 0.0),
        (&["a", "b"], &["b", "a"], 1.0),
    ] {
        let score = score(&change(gold), &change(patch));
        near(score.line, expected);
        near(score.gestalt.expect("asked for"), expected);
        near(score.file_match, expected);
        assert_eq!(score.exact, expected == 1.0);
    }
}

#[test]
fn bad_patches_score_nothing_and_say_why() {
    let gold = patch_of(&["m.py"], "is None", "is not None", 3);
    for (patch, why) in [
        (String::new(), "empty"),
        (" \n".to_owned(), "empty"),
        ("I changed nothing.".to_owned(), "not a patch"),
        (gold.trim_end().rsplit_once('\n').expect("lines").0.to_owned(), "not a patch"),
        ("x".repeat(1 << 20), "bytes"),
    ] {
        let score = score(&gold, &patch);
        assert_eq!((score.line, score.gestalt, score.file_match), (0.0, Some(0.0), 0.0));
        assert!(!score.exact);
        let said = score.nothing.expect("a reason").to_string();
        assert!(said.contains(why), "{said}");
    }
    assert!(compare("", &gold, false).is_err() && compare("no", &gold, false).is_err());
}

#[test]
fn a_rename_is_not_any_other_change() {
    let rename = "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n";
    let copy = rename.replace("rename ", "copy ");
    assert!(score(rename, rename).exact);
    let score = score(rename, &copy);
    assert!(!score.exact && score.line == 0.0);
}

#[test]
fn a_final_line_break_is_a_difference() {
    let gold = write("m", Some("a\n"), Some("b\n"), 3);
    let other = write("m", Some("a\n"), Some("b"), 3);
    assert!(!score(&gold, &other).exact);
}
