//! Tasks made of a small tree, end to end: made, saved, read, laid out, verified, solved.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use crrl_tasks::{
    Augment, Corpus, CorpusOptions, MutateError, MutateOptions, OracleOptions, SourceOptions,
    SourceTree, SplitOptions, TaskSet, materialize, mutate, oracle, verify,
};
use crrl_types::{Base, BugKind, Origin, Split, Task};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const EVERYTHING: &str = r#"import functools


class Store:
    """Rows."""

    @functools.lru_cache
    def find(self, key, default, limit=10):
        """Looks a row up."""
        if key is None:
            return default
        total = 0
        for index in range(1, limit):
            row = self.rows[index - 1]
            if not row.ready and index <= limit:
                continue
            if row.key == key or key in row.aliases:
                total += max(row.size, index) * 2
                return self.wrap(row, total, strict=True)
        return default

    async def drain(self, queue):
        def inner(item):
            if item.done:
                return None
            return item.left - item.right

        while queue:
            item = await queue.pop()
            if item == queue.last:
                break
            inner(item)
"#;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, text) in files {
        let at = folder.path().join(path);
        std::fs::create_dir_all(at.parent().expect("a parent")).expect("a folder");
        std::fs::write(at, text).expect("a file");
    }
    folder
}

fn all_of(per_function: usize) -> MutateOptions {
    let source = SourceOptions { lines_min: 2, lines_max: 40, ..SourceOptions::default() };
    MutateOptions { source, per_function, ..MutateOptions::default() }
}

fn bug(task: &Task) -> (BugKind, String) {
    match &task.origin {
        Origin::Mutated { bug, function, .. } => (*bug, function.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_operator_breaks_a_function_and_the_gold_patch_repairs_it() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let made = mutate(root.path(), &all_of(200)).expect("tasks");
    let kinds: BTreeSet<BugKind> = made.tasks.iter().map(|task| bug(task).0).collect();
    let missing: Vec<_> =
        crrl_tasks::operators::ALL.into_iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(missing, []);
    for task in &made.tasks {
        assert_eq!(verify(task).failed, None, "{}", task.instance_id);
        assert!(task.problem_statement.contains("lib/store.py"), "{}", task.problem_statement);
    }
    let functions: BTreeSet<String> = made.tasks.iter().map(|task| bug(task).1).collect();
    for name in ["Store.find", "Store.drain", "Store.drain.inner"] {
        assert!(functions.contains(name), "{name} not in {functions:?}");
    }
}

#[test]
fn git_applies_the_gold_patch_of_odd_files_too() {
    let tabs = "def pick(a, b):\n\tif a is None:\n\t\treturn b\n\treturn a - b\n";
    let windows = "def pick(a, b):\r\n    if not a:\r\n        return b\r\n    return a - b";
    let root = tree(&[("tabs.py", tabs), ("windows.py", windows)]);
    let made = mutate(root.path(), &all_of(50)).expect("tasks");
    assert!(made.tasks.len() > 8, "{}", made.tasks.len());
    for task in &made.tasks {
        assert_eq!(verify(task).failed, None, "{}", task.instance_id);
        let dest = tempfile::tempdir().expect("a temporary folder");
        materialize(task, dest.path()).expect("laid out");
        std::fs::write(dest.path().join("gold.patch"), &task.patch).expect("written");
        let run = Command::new("git")
            .args(["apply", "--whitespace=nowarn", "gold.patch"])
            .current_dir(dest.path())
            .env("GIT_DIR", "/nonexistent")
            .output()
            .expect("git runs");
        assert!(run.status.success(), "{}: {run:?}\n{}", task.instance_id, task.patch);
        let path = if bug(task).1 == "pick" && task.patch.contains("tabs.py") {
            ("tabs.py", tabs)
        } else {
            ("windows.py", windows)
        };
        let fixed = std::fs::read_to_string(dest.path().join(path.0)).expect("text");
        assert_eq!(fixed, path.1, "{}", task.instance_id);
    }
}

#[test]
fn the_same_seed_gives_the_same_tasks_and_a_file_is_on_one_side() {
    let files: Vec<(String, String)> = (0..40)
        .map(|i| {
            let text =
                format!("def f{i}(a, b):\n    if a == {i}:\n        return b\n    return a\n");
            (format!("m{i}.py"), text)
        })
        .collect();
    let files: Vec<(&str, &str)> =
        files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let root = tree(&files);
    let options = all_of(3);
    let first = mutate(root.path(), &options).expect("tasks").tasks;
    assert_eq!(first, mutate(root.path(), &options).expect("tasks").tasks);
    let other = MutateOptions { seed: 1, ..options };
    assert_ne!(first, mutate(root.path(), &other).expect("tasks").tasks);
    let mut sides: BTreeMap<String, Split> = BTreeMap::new();
    for task in &first {
        let Base::Files { files } = &task.base else { panic!("{:?}", task.base) };
        let path = files.keys().next().expect("a file").clone();
        assert_eq!(*sides.entry(path).or_insert(task.split), task.split);
    }
    let used: BTreeSet<String> = sides.values().map(|side| format!("{side:?}")).collect();
    assert_eq!(used.len(), 3, "{sides:?}");
}

#[test]
fn copies_of_a_file_and_of_a_function_do_not_leak_into_the_held_out_side() {
    let whole = "def same(a, b):\n    if a == b:\n        return a\n    return b\n";
    let copies: Vec<String> = (0..20).map(|i| format!("copy{i}.py")).collect();
    let files: Vec<(&str, &str)> = copies.iter().map(|path| (path.as_str(), whole)).collect();
    let made = mutate(tree(&files).path(), &all_of(1)).expect("tasks");
    let sides: BTreeSet<String> =
        made.tasks.iter().map(|task| format!("{:?}", task.split)).collect();
    assert_eq!(sides.len(), 1, "equal files are on {sides:?}");

    let texts: Vec<String> = (0..20).map(|i| format!("X = {i}\n\n\n{whole}")).collect();
    let files: Vec<(&str, &str)> =
        copies.iter().zip(&texts).map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let made = mutate(tree(&files).path(), &all_of(1)).expect("tasks");
    assert!(made.skipped.leaked > 0);
    assert!(made.tasks.iter().all(|task| task.split != Split::HeldOut));
}

#[test]
fn bad_input_is_named() {
    let missing = mutate(Path::new("/no/such/tree"), &MutateOptions::default());
    assert!(missing.expect_err("taken").to_string().contains("/no/such/tree: no such file"));

    let root = tree(&[("broken.py", "def f(:\n"), ("a.txt", "x")]);
    std::fs::write(root.path().join("latin.py"), b"x = '\xe9'\n").expect("written");
    let error = mutate(root.path(), &MutateOptions::default()).expect_err("taken").to_string();
    assert!(error.contains("1 not UTF-8") && error.contains("1 unparsable"), "{error}");

    let root = tree(&[("plain.py", "def f():\n    pass\n    pass\n    pass\n")]);
    let error = mutate(root.path(), &MutateOptions::default()).expect_err("taken");
    assert!(matches!(error, MutateError::NoSite { functions: 1, .. }), "{error}");
}

#[test]
fn task_files_read_back_and_a_broken_line_is_named() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let set = TaskSet::from(mutate(root.path(), &all_of(3)).expect("tasks").tasks);
    let file = root.path().join("tasks.jsonl");
    set.save(&file).expect("saved");
    assert_eq!(TaskSet::load(&file).expect("read"), set);

    let text = std::fs::read_to_string(&file).expect("text");
    std::fs::write(&file, format!("{text}\n{{\"instance_id\": 3}}\n")).expect("written");
    let error = TaskSet::load(&file).expect_err("taken").to_string();
    let line = text.lines().count() + 2;
    assert!(error.contains(&format!("tasks.jsonl:{line}: not a task")), "{error}");
    std::fs::write(&file, format!("{text}{text}")).expect("written");
    assert!(TaskSet::load(&file).expect_err("taken").to_string().contains("is also on line 1"));
    std::fs::write(&file, "\n").expect("written");
    assert!(TaskSet::load(&file).expect_err("taken").to_string().contains("holds no task"));
}

#[test]
fn verify_names_what_is_wrong() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let task = mutate(root.path(), &all_of(1)).expect("tasks").tasks.remove(0);
    let reason = |task: &Task| format!("{:?}", verify(task).failed.expect("passed"));
    let mut other = task.clone();
    other.patch = other.patch.replace("\n ", "\n  ");
    assert!(reason(&other).contains("Patch") && reason(&other).contains("fits nowhere"));
    let mut other = task.clone();
    other.base = Base::Commit;
    assert!(reason(&other).contains("no repository on this machine"), "{}", reason(&other));
    let mut other = task.clone();
    other.base = Base::Files { files: BTreeMap::from([("../x".to_owned(), String::new())]) };
    assert!(reason(&other).contains("does not stay in the tree"), "{}", reason(&other));
    let mut other = task;
    let Base::Files { files } = &mut other.base else { panic!("files") };
    files.values_mut().for_each(|text| text.push_str("# more\n"));
    assert!(reason(&other).contains("is not the file the bug was put into"), "{}", reason(&other));
}

#[test]
fn what_the_oracle_shows_is_what_grep_prints_and_its_repair_is_the_fix() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let made = mutate(root.path(), &all_of(200)).expect("tasks");
    let mut solved = 0;
    for numbers in [false, true] {
        let options = OracleOptions { numbers, ..OracleOptions::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for task in &made.tasks {
            let Some(found) = oracle(task, &mut rng, &options) else { continue };
            solved += 1;
            follow(task, &found.turns);
        }
    }
    assert!(solved > 40, "{solved}");
}

#[test]
fn traces_depend_on_seed_and_number_only_and_hold_when_followed() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let source = SourceOptions {
        split: SplitOptions { sft: 1.0, train: 0.0, held_out: 0.0, seed: 0 },
        side: Some(Split::Sft),
        lines_min: 2,
        lines_max: 17,
        ..SourceOptions::default()
    };
    let augment = Augment { renamed: 0.7, names: 0.9, copying: 0.4, ..Augment::default() };
    let options = CorpusOptions { source, augment, ..CorpusOptions::default() };
    let corpus = Corpus::load(root.path(), options).expect("a corpus");
    let traces: Vec<_> = corpus.stream(7).take(300).collect();
    assert_eq!(traces.len(), 300);
    assert_eq!(corpus.stream(7).get(40).as_ref(), Some(&traces[40]));
    assert_eq!(corpus.stream(7).from_index(40).next().as_ref(), Some(&traces[40]));
    assert_ne!(corpus.stream(8).next().as_ref(), Some(&traces[0]));
    for (index, trace) in traces.iter().enumerate() {
        assert_eq!(verify(&trace.task).failed, None, "seed 7, trace {index}");
        if index < 60 {
            follow(&trace.task, &trace.turns);
        }
    }
}

/// Carries a trace out with the real tools.
fn follow(task: &Task, turns: &[crrl_tasks::OracleTurn]) {
    let dest = tempfile::tempdir().expect("a temporary folder");
    materialize(task, dest.path()).expect("laid out");
    let command = turns[0].call.arguments["cmd"].as_str().expect("text");
    let run = Command::new("sh")
        .args(["-c", command])
        .current_dir(dest.path())
        .env("LC_ALL", "C")
        .output()
        .expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&run.stdout), turns[0].output, "{command}");
    let text = |key: &str| turns[1].call.arguments[key].as_str().expect("text").to_owned();
    let at = dest.path().join(text("path"));
    let before = std::fs::read_to_string(&at).expect("text");
    assert_eq!(before.matches(&text("old")).count(), 1, "{}", text("old"));
    let patch = crrl_rl::diff::parse(&task.patch).expect("a patch");
    let fixed = crrl_rl::diff::apply(&before, &patch.files[0]).expect("applies");
    assert_eq!(before.replacen(&text("old"), &text("new"), 1), fixed, "{}", task.instance_id);
}

#[test]
fn a_side_on_which_no_file_is_is_told_of_with_what_there_is() {
    let root = tree(&[("lib/store.py", EVERYTHING)]);
    let split = SplitOptions { sft: 1.0, train: 0.0, held_out: 0.0, seed: 0 };
    let source = SourceOptions { split, side: Some(Split::HeldOut), ..SourceOptions::default() };
    let told =
        SourceTree::load(root.path(), &source).expect_err("it is on another side").to_string();
    assert!(told.contains("of its 1 Python files none is on the side held-out"), "{told}");
    assert!(told.contains("--split-seed"), "{told}");
}
