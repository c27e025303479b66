//! The agent's work: commands, replacements, the diff.

mod support;

use std::time::{Duration, Instant};

use crrl_sandbox::{Limits, LocalBackend, Options, PatchOutcome};
use support::{backend, open, open_with, options, says, skipped, template};

#[tokio::test]
async fn a_repair_is_made_and_comes_back_as_a_diff() {
    let Some(mut sandbox) = open().await else { return };
    let seen = sandbox.exec("cat src/calc.py | head -2").await.expect("runs");
    assert!(seen.ok, "{seen:?}");
    assert_eq!(seen.output, "def add(a, b):\n    return a - b\n");
    let applied = sandbox.apply_patch("src/calc.py", "a - b", "a + b").await.expect("lives");
    assert!(applied.ok, "{applied:?}");
    let diff = sandbox.diff().await.expect("a diff");
    assert!(diff.starts_with("diff --git a/src/calc.py b/src/calc.py\n"), "{diff}");
    assert!(diff.contains("\n-    return a - b\n+    return a + b\n"), "{diff}");
    sandbox.close().await;
}

#[tokio::test]
async fn every_kind_of_change_is_in_the_diff_and_nothing_else_is() {
    let Some(mut sandbox) = open().await else { return };
    assert_eq!(sandbox.diff().await.expect("a diff"), "");
    let cmd = "rm gone.txt; echo new | tee new.txt; chmod +x README.md; \
               mkdir -p __pycache__ && touch __pycache__/x.pyc; ln -s /etc/passwd link; mkfifo pipe";
    says(&mut sandbox, cmd).await;
    let diff = sandbox.diff().await.expect("a diff");
    for part in [
        "deleted file mode 100644",
        "--- a/gone.txt\n+++ /dev/null",
        "--- /dev/null\n+++ b/new.txt",
        "old mode 100644\nnew mode 100755",
        "new file mode 120000",
        "+/etc/passwd\n",
    ] {
        assert!(diff.contains(part), "no {part:?} in\n{diff}");
    }
    assert!(!diff.contains("pycache") && !diff.contains("root:"), "{diff}");
    let export = sandbox.export().await.expect("an export");
    assert_eq!(export.skipped, ["pipe"]);
    sandbox.close().await;
}

#[tokio::test]
async fn replacements_say_what_was_wrong() {
    let Some(mut sandbox) = open().await else { return };
    says(&mut sandbox, "ln -s /etc out; mkfifo pipe; mkdir ../repo-evil").await;
    for (path, old, outcome) in [
        ("none.py", "a", PatchOutcome::NotFound),
        ("src/calc.py", "nowhere", PatchOutcome::NoMatch),
        ("src/calc.py", "return a", PatchOutcome::ManyMatches(2)),
        ("../etc/passwd", "agent", PatchOutcome::Outside),
        ("/etc/passwd", "agent", PatchOutcome::Outside),
        ("out/passwd", "agent", PatchOutcome::Outside),
        ("../repo-evil/x", "a", PatchOutcome::Outside),
        (".git/config", "bare", PatchOutcome::Outside),
        ("src", "a", PatchOutcome::Outside),
        ("pipe", "a", PatchOutcome::Outside),
    ] {
        let applied = sandbox.apply_patch(path, old, "x").await.expect("lives");
        assert_eq!(applied.outcome, outcome, "{path}");
        assert!(!applied.ok);
    }
    sandbox.close().await;
}

#[tokio::test]
async fn the_repository_has_one_commit_and_no_past() {
    let Some(mut sandbox) = open().await else { return };
    assert_eq!(says(&mut sandbox, "git log --oneline | wc -l").await.trim(), "1");
    assert_eq!(says(&mut sandbox, "git status --porcelain").await, "");
    assert_eq!(
        says(&mut sandbox, "git remote; git tag; git reflog; git fsck --unreachable").await,
        ""
    );
    says(&mut sandbox, "sed -i s/repository/place/ README.md").await;
    assert!(says(&mut sandbox, "git diff").await.contains("+a place"));
    sandbox.close().await;
}

#[tokio::test]
async fn the_agents_git_has_no_say_in_the_diff() {
    let Some(mut sandbox) = open().await else { return };
    let cmd = "git config diff.external /bin/true; git config core.fsmonitor /bin/false; \
               printf '* -diff\\n' | tee .gitattributes; \
               sed -i 's/a - b/a + b/' src/calc.py; git add -A; git -c user.name=x -c user.email=x \
               commit -qm done; rm -rf .git";
    says(&mut sandbox, cmd).await;
    let diff = sandbox.diff().await.expect("a diff");
    assert!(diff.contains("+    return a + b"), "{diff}");
    sandbox.close().await;
}

#[tokio::test]
async fn files_are_written_and_read_inside() {
    let Some(mut sandbox) = open().await else { return };
    sandbox.write_file("a/b/c.txt", b"text").await.expect("written");
    assert_eq!(sandbox.read_file("a/b/c.txt", 100).await.expect("read"), b"text");
    assert!(sandbox.read_file("a/b/c.txt", 3).await.is_err());
    assert!(sandbox.read_file("../etc/passwd", 100).await.is_err());
    assert!(sandbox.write_file("../x", b"").await.is_err());
    sandbox.close().await;
}

#[tokio::test]
async fn a_command_ends_when_its_time_is_up_and_the_sandbox_goes_on() {
    let limits = Limits { command_time_max: Duration::from_secs(2), ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    let ran = sandbox.exec("echo before; sleep 60").await.expect("lives");
    assert!(ran.timed_out && !ran.ok, "{ran:?}");
    assert_eq!(ran.output, "before\n[killed after 2 s]");
    assert_eq!(says(&mut sandbox, "echo on").await, "on\n");
    sandbox.close().await;
}

#[tokio::test]
async fn an_abandoned_command_does_not_hold_up_the_next() {
    // Its own time is not up before the test's is.
    let limits = Limits { command_time_max: Duration::from_secs(300), ..Limits::default() };
    let Some(mut sandbox) = open_with(limits).await else { return };
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, sandbox.exec("sleep 300")).await.is_err());
    let started = Instant::now();
    assert_eq!(says(&mut sandbox, "echo on").await, "on\n");
    assert!(started.elapsed() < Duration::from_secs(30));
    sandbox.close().await;
}

#[tokio::test]
async fn the_shell_is_restricted() {
    let Some(mut sandbox) = open().await else { return };
    assert!(says(&mut sandbox, "cd /tmp").await.contains("restricted"));
    assert!(says(&mut sandbox, "echo x > y").await.contains("restricted"));
    let ran = sandbox.exec("exit 3").await.expect("lives");
    assert_eq!((ran.status, ran.ok), (3, false));
    sandbox.close().await;
}

#[tokio::test]
async fn sixteen_at_once_do_not_see_each_other() {
    let Some(backend) = backend(Limits::default()) else { return };
    let template = template();
    let run = |n: usize| {
        let (backend, template) = (backend.clone(), template.clone());
        tokio::spawn(async move {
            let mut sandbox = backend.open(&template).await.expect("opens");
            says(&mut sandbox, &format!("echo {n} | tee mine.txt /tmp/{n}")).await;
            let seen = says(&mut sandbox, "cat mine.txt; ls /tmp").await;
            assert_eq!(seen, format!("{n}\n{n}\n"));
            sandbox.close().await;
        })
    };
    let running: Vec<_> = (0..16).map(run).collect();
    for one in running {
        one.await.expect("worked");
    }
}

#[tokio::test]
async fn a_wrong_launcher_is_named() {
    let wrong = Options { launcher: Some("/bin/true".into()), ..options(Limits::default()) };
    let error = LocalBackend::new(wrong).expect_err("no launcher").to_string();
    assert!(error.contains("/bin/true") && error.contains("without a word"), "{error}");
}

/// Not a test by itself: runs where no further user namespace can be had.
#[tokio::test]
#[ignore = "started by the test below"]
async fn where_there_are_no_walls() {
    let strict = options(Limits::default());
    let error = LocalBackend::new(strict.clone()).expect_err("no walls").to_string();
    assert!(error.contains("user namespace"), "{error}");
    assert!(error.contains("sysctl") && error.contains("run_without_isolation"), "{error}");
    let loose = Options { run_without_isolation: true, ..strict };
    let backend = LocalBackend::new(loose).expect("asked for");
    assert!(!backend.isolated());
    let mut sandbox = backend.open(&template()).await.expect("opens");
    let folder = says(&mut sandbox, "pwd").await.trim().to_owned();
    assert!(sandbox.apply_patch("src/calc.py", "a - b", "a + b").await.expect("lives").ok);
    assert!(sandbox.diff().await.expect("a diff").contains("+    return a + b"));
    let left = says(&mut sandbox, "env setsid sleep 100 & echo $!").await;
    sandbox.close().await;
    assert!(!std::path::Path::new(&folder).exists(), "{folder}");
    assert!(!std::path::Path::new("/proc").join(left.trim()).exists(), "{left}");
    println!("NO WALLS, AS ASKED");
}

#[test]
fn without_walls_there_is_a_refusal_unless_it_is_asked_for() {
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec \"$0\" where_there_are_no_walls --exact --ignored --nocapture";
    let program = std::env::current_exe().expect("a path");
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script]).arg(program);
    let Ok(done) = command.output() else {
        return skipped("no unshare program (package util-linux)");
    };
    let said = String::from_utf8_lossy(&done.stdout);
    if backend(Limits::default()).is_some() {
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(said.contains("NO WALLS, AS ASKED"), "{said}\n{errors}");
    }
}
