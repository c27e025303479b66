//! Changes that are more than is read back, and what else the policy may do to its working copy: all of it
//! is answered, and none of it fails the sandbox.

mod support;

use crrl_sandbox::{Limits, PatchOutcome, Sandbox, SandboxError};
use support::{open, open_with, says};

/// Why there is no diff.
async fn too_much(sandbox: &mut Sandbox) -> String {
    match sandbox.diff().await {
        Err(error @ SandboxError::TooMuch(_)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_over_a_limit_is_said_to_be_too_much() {
    let usual = Limits::default;
    let one_file = || Limits { export_files_max: 1, ..usual() };
    // Sixteen folders with names of 250 bytes fit into a path, and not below another folder.
    let deep = "n=$(printf 'n%.0s' $(seq 250)); p=$(printf \"$n/%.0s\" $(seq 16)); mkdir -p $p; \
                touch $p$(printf 'f%.0s' $(seq 70))";
    for (limits, cmd, why) in [
        (usual(), "mkdir -p $(printf 'd/%.0s' $(seq 70))", "folders more than 64 deep"),
        (usual(), "truncate -s 5M new", "new is larger than 4194304 bytes"),
        (usual(), "touch $(seq 300)", "more than 256 files were changed"),
        (usual(), "truncate -s 3M one two", "more than 4194304 bytes were changed"),
        (one_file(), "rm gone.txt README.md", "2 files were deleted; at most 1 may be"),
        (
            Limits { diff_bytes: 100, ..usual() },
            "seq 1000 | tee new",
            "the diff is larger than 100 bytes",
        ),
        (usual(), deep, "a path has too many bytes"),
    ] {
        let Some(mut sandbox) = open_with(limits).await else { return };
        says(&mut sandbox, cmd).await;
        assert_eq!(too_much(&mut sandbox).await, format!("too much was changed: {why}"));
        // It goes on, and less is a diff again.
        says(&mut sandbox, "rm -rf d n* one two [0-9]*; git checkout -q .").await;
        assert_eq!(sandbox.diff().await.expect("a diff"), "", "{cmd}");
        sandbox.close().await;
    }
}

#[tokio::test]
async fn a_working_copy_that_was_shut_is_opened_for_what_comes_next() {
    let Some(mut sandbox) = open().await else { return };
    says(&mut sandbox, "chmod 000 .").await;
    assert_eq!(says(&mut sandbox, "echo on").await, "on\n");
    says(&mut sandbox, "chmod 000 .").await;
    let applied = sandbox.apply_patch("src/calc.py", "a - b", "a + b").await.expect("lives");
    assert!(applied.ok, "{applied:?}");
    says(&mut sandbox, "chmod 000 .").await;
    let diff = sandbox.diff().await.expect("a diff");
    assert!(diff.contains("+    return a + b") && !diff.contains("deleted"), "{diff}");
    sandbox.close().await;
}

#[tokio::test]
async fn a_replacement_that_is_not_allowed_or_has_no_room_is_answered() {
    let Some(mut sandbox) = open_with(Limits { disk_bytes: 4 << 20, ..Limits::default() }).await
    else {
        return;
    };
    says(&mut sandbox, "chmod 000 src/calc.py").await;
    let applied = sandbox.apply_patch("src/calc.py", "a - b", "a + b").await.expect("lives");
    assert_eq!((applied.outcome, applied.ok), (PatchOutcome::NotAllowed, false));
    says(&mut sandbox, "chmod 644 src/calc.py; head -c 8M /dev/zero | tee /tmp/full | wc -c").await;
    let long = "x".repeat(64 << 10);
    let applied = sandbox.apply_patch("src/calc.py", "a - b", &long).await.expect("lives");
    assert_eq!((applied.outcome, applied.ok), (PatchOutcome::NoRoom, false));
    assert_eq!(sandbox.diff().await.expect("a diff"), "", "the file is as it was");
    sandbox.close().await;
}

#[tokio::test]
async fn a_command_that_cannot_be_started_is_a_result() {
    let Some(mut sandbox) = open().await else { return };
    // The second is longer than the kernel takes, the third than is sent.
    let (long, longer) = ("x".repeat(128 << 10), "x".repeat(2 << 20));
    for cmd in ["echo a\0b", long.as_str(), longer.as_str()] {
        let ran = sandbox.exec(cmd).await.expect("lives");
        assert_eq!((ran.status, ran.ok), (126, false), "{} bytes: {}", cmd.len(), ran.output);
    }
    let applied = sandbox.apply_patch("src/calc.py", "a - b", &longer).await.expect("lives");
    assert_eq!(applied.outcome, PatchOutcome::TooLarge);
    assert_eq!(says(&mut sandbox, "echo on").await, "on\n");
    sandbox.close().await;
}

#[tokio::test]
async fn what_is_skipped_is_told_of_however_much_it_is() {
    let Some(mut sandbox) = open().await else { return };
    // Folders that can be listed and not entered.
    says(&mut sandbox, "mkdir d; ln -s x d/link; touch d/file; chmod 444 d").await;
    let export = sandbox.export().await.expect("an export");
    assert_eq!(export.skipped, ["d/file", "d/link"]);
    // Names that are no plain text and far longer when they are printed.
    let cmd = "chmod 755 d; n=$(printf 'n%.0s' $(seq 250)); p=$(printf \"$n/%.0s\" $(seq 15)); \
               mkdir -p $p; c=$(printf '\\003%.0s' $(seq 240)); \
               touch $(printf \"$p%s$c\\n\" $(seq 256))";
    says(&mut sandbox, cmd).await;
    let export = sandbox.export().await.expect("an export");
    assert_eq!(export.skipped.len(), 256);
    sandbox.close().await;
}
