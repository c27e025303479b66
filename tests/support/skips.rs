//! Tests that cannot run where they are: that is said, and written down for whoever asks for it.

use std::io::Write as _;

/// Says that the test at hand cannot run here and why: what is missing, and how to get it.
///
/// It is a line more in the file that `CRRL_TESTS_SKIPPED` names, since nobody sees what a test that
/// passes prints. Under `CRRL_TESTS_MUST_RUN=1` the test fails.
#[track_caller]
pub(crate) fn skipped(why: &str) {
    // What another program said may be several lines.
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let must_run = std::env::var("CRRL_TESTS_MUST_RUN").is_ok_and(|value| value == "1");
    assert!(!must_run, "under CRRL_TESTS_MUST_RUN=1 no test may be skipped: {why}");
    eprintln!("SKIPPED: {why}");
    let Some(path) = std::env::var_os("CRRL_TESTS_SKIPPED").filter(|path| !path.is_empty()) else {
        return;
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // In one write: other tests append as well.
    let line = format!("{} {test}: {why}\n", env!("CARGO_PKG_NAME"));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("CRRL_TESTS_SKIPPED names {path:?}: {error}"));
}
