//! The binary as a user meets it: exit codes, where messages go, and what bad input is told.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crrl_cluster::RunDir;
use crrl_cluster::host::prepare::prepare;
use crrl_types::NodeName;

fn crrl(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crrl"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("CRRL_LOG")
        .output()
        .expect("the binary was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must fail; gives its exit code and what it said.
fn refused(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = crrl(dir, arguments);
    let said = text(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} succeeded: {}", text(&output.stdout));
    assert!(!said.contains("panicked"), "{arguments:?} panicked: {said}");
    (output.status.code().expect("not a signal"), said)
}

fn shipped_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pytree")
}

#[test]
fn a_misspelt_option_is_named_with_line_column_and_neighbour() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("cluster.toml"), "[run]\nstepz = 3\n").expect("writes");
    let (code, said) = refused(dir.path(), &["train", "-f", "cluster.toml"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("cluster.toml:2:1: unknown key `stepz`; did you mean `steps`?"),
        "{said}"
    );
}

#[test]
fn a_missing_configuration_says_how_to_get_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (code, said) = refused(dir.path(), &["train"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("cluster.toml") && said.contains("crrl config init"), "{said}");
    assert!(crrl(dir.path(), &["config", "init"]).status.success());
    let shown = crrl(dir.path(), &["config", "show", "--set", "run.steps=7"]);
    assert!(text(&shown.stdout).contains("steps = 7"), "{}", text(&shown.stdout));
    let again = crrl(dir.path(), &["config", "init"]);
    assert!(again.status.success(), "it is as it would be written: {}", text(&again.stderr));
    assert!(text(&again.stderr).contains("already there"), "{}", text(&again.stderr));
    std::fs::write(dir.path().join("cluster.toml"), "[run]\nsteps = 3\n").expect("writes");
    let (code, said) = refused(dir.path(), &["config", "init"]);
    assert_eq!(code, 2, "what somebody wrote is never overwritten: {said}");
}

#[test]
fn training_without_tasks_or_model_names_what_is_missing() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("cluster.toml"), "").expect("writes");
    let (code, said) = refused(dir.path(), &["train"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("tasks.train"), "{said}");
    let (code, said) = refused(dir.path(), &["train", "--set", "tasks.train=t.jsonl"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("model.path names no model"), "{said}");
    let set = ["train", "--set", "tasks.train=t.jsonl", "--set", "model.path=nowhere"];
    let (_, said) = refused(dir.path(), &set);
    assert!(said.contains("nowhere"), "{said}");
}

#[test]
fn an_architecture_that_is_not_supported_is_named_with_those_that_are() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = r#"{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}"#;
    std::fs::write(dir.path().join("config.json"), config).expect("writes");
    let (_, said) = refused(dir.path(), &["model", "check", "."]);
    assert!(said.contains("Mamba"), "{said}");
    for family in ["Llama", "Qwen2", "Qwen3"] {
        assert!(said.contains(family), "{family} is not listed: {said}");
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_how_to_get_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (code, said) = refused(dir.path(), &["model", "check", ".", "--device", "cuda"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--features cuda"), "{said}");
}

#[test]
fn the_help_lists_every_kind_of_bug() {
    let help = crrl(Path::new("."), &["tasks", "mutate", "--help"]);
    let help = text(&help.stdout);
    let listed: Vec<&str> = help.split([' ', ',', '.', '\n']).collect();
    for kind in crrl_tasks::operators::ALL.map(crrl_tasks::mutate::kind_name) {
        assert!(listed.contains(&kind.as_str()), "{kind}: {help}");
    }
}

#[test]
fn a_flag_that_does_nothing_with_a_task_file_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("tasks.jsonl"), "").expect("writes");
    for flag in [["--kinds", "flag"], ["--lines-max", "9"], ["--careless", "0.1"]] {
        let sft = ["sft", "tasks.jsonl", "--out", "out", "--from-scratch", flag[0], flag[1]];
        let (code, said) = refused(dir.path(), &sft);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(flag[0]) && said.contains("task file"), "{said}");
    }
}

#[test]
fn mutated_tasks_verify_and_a_damaged_one_does_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let tree = shipped_tree();
    let tree = tree.to_str().expect("a path in UTF-8");
    let made = crrl(dir.path(), &["tasks", "mutate", tree, "-o", "tasks.jsonl"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let verified = crrl(dir.path(), &["tasks", "verify", "tasks.jsonl"]);
    assert!(verified.status.success(), "{}", text(&verified.stderr));

    let path = dir.path().join("tasks.jsonl");
    let tasks = std::fs::read_to_string(&path).expect("was written");
    let first = tasks.lines().next().expect("has a task");
    std::fs::write(&path, first.replace("\\n-  ", "\\n-zzz  ")).expect("writes");
    let (code, said) = refused(dir.path(), &["tasks", "verify", "tasks.jsonl"]);
    assert_eq!(code, 1, "{said}");

    std::fs::write(&path, format!("{first}\n{{broken\n")).expect("writes");
    let (_, said) = refused(dir.path(), &["tasks", "list", "tasks.jsonl"]);
    assert!(said.contains("tasks.jsonl:2"), "{said}");
}

#[test]
fn a_patch_is_scored_component_by_component() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let gold = "--- a/m.py\n+++ b/m.py\n@@ -1,2 +1,2 @@\n def f():\n-    return 1\n+    return 2\n";
    std::fs::write(dir.path().join("gold.diff"), gold).expect("writes");
    std::fs::write(dir.path().join("empty.diff"), "").expect("writes");
    let score = |patch: &str| -> serde_json::Value {
        let output = crrl(dir.path(), &["reward", "gold.diff", patch, "--json", "--quiet"]);
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    };
    let exact = score("gold.diff");
    for component in ["line", "gestalt", "file_match", "exact", "total"] {
        assert_eq!(exact[component], 1.0, "{component} of the gold patch itself");
    }
    assert_eq!(score("empty.diff")["total"], 0.0);
}

#[test]
fn a_cluster_that_is_not_there_is_unreachable() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("cluster.toml"), "").expect("writes");
    let status = crrl(dir.path(), &["cluster", "status"]);
    assert!(!status.status.success(), "{}", text(&status.stdout));
    assert!(!text(&status.stderr).contains("panicked"), "{}", text(&status.stderr));
}

/// Makes a run of which the coordinator hears what it is asked, as long as this is held, and never answers.
fn deaf_coordinator(folder: &Path) -> UdpSocket {
    let run = RunDir::new(folder);
    let (dir, learner) = (folder.display(), "[learner]\nmicro_batch_tokens = 20000\n");
    std::fs::write(run.config_path(), format!("[run]\ndir = \"{dir}\"\n{learner}"))
        .expect("writes");
    prepare(&run, &run.config().expect("it was just written")).expect("can be prepared");
    let addresses = run.dialled().expect("was prepared");
    let at = addresses.get(&NodeName::from("coordinator")).expect("it listens somewhere");
    UdpSocket::bind(at.socket_addr().expect("an address")).expect("nobody listens there")
}

#[test]
fn a_command_that_waits_for_a_cluster_says_what_for() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let _deaf = deaf_coordinator(dir.path());
    let commands: [(&[&str], &str); 7] = [
        (&["inspect", "nodes", "--json"], "asking the cluster: "),
        (&["inspect", "actors"], "asking the cluster: "),
        (&["inspect", "actor", "rollout-0/engine"], "asking the cluster: "),
        (&["inspect", "do", "drain", "rollout-0", "--yes"], "waiting for the answer: "),
        (&["inspect", "record", "a.rec"], "recording: "),
        (&["adapters", "follow", ".", "-o", "out", "--once"], "waiting for an adapter: "),
        (&["inspect", "nodes", "--quiet"], ""),
    ];
    std::thread::scope(|scope| {
        for (command, says) in commands {
            let dir = dir.path();
            scope.spawn(move || {
                let output = crrl(dir, command);
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(6), "{command:?}: {said}");
                assert!(output.stdout.is_empty(), "{command:?}: {}", text(&output.stdout));
                assert!(said.contains(says), "{command:?}: {said}");
                assert!(!says.is_empty() || !said.contains("asking"), "{command:?}: {said}");
            });
        }
    });
}
