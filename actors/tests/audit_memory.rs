//! An audit of a long run does not hold the run: its memory follows the number of episodes, not what
//! they generated. Alone in its file: the peak is the process's, and the run is made by another.

#[allow(dead_code, reason = "the benchmark uses the rest")]
#[path = "../../benches/scale/made_run.rs"]
mod made_run;
#[allow(dead_code, reason = "the benchmark uses the rest")]
#[path = "../../benches/scale/made_work.rs"]
mod made_work;

use std::path::Path;
use std::process::Command;

use crrl_actors::evidence;
use crrl_cluster::RunDir;

/// Names the folder in which the process that makes the run makes it.
const CHILD: &str = "CRRL_AUDIT_TEST_CHILD";
const EPISODES: u64 = 20_000;
const TOKENS: usize = 400;
/// Marks and log-probabilities alone, held at once, would be 40 MB.
const GROWTH_MAX_KIB: u64 = 16 * 1024;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// Not a test of its own: what the process that makes the run does.
#[test]
fn child_makes_the_run() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    made_run::make(Path::new(&folder), EPISODES, TOKENS).expect("there is room");
}

#[test]
fn an_audit_of_a_long_run_does_not_hold_the_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let made = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_makes_the_run", "--nocapture"])
        .env(CHILD, folder.path())
        .status()
        .expect("this test runs");
    assert!(made.success(), "{made}");
    let run = RunDir::new(folder.path());
    let before = peak_kib();
    let verdict = evidence::judge(&run).expect("a run");
    let grew = peak_kib() - before;
    assert!(verdict.ok, "{verdict:#?}");
    let told = &verdict.findings[0].looked_at;
    assert!(told.starts_with("20000 episodes (20000 measured); 20000 of them in 60000"), "{told}");
    assert!(grew < GROWTH_MAX_KIB, "it took {grew} KiB");
}
