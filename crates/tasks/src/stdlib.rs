//! Where this machine keeps Python's standard library.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time the interpreter has to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Folder of the standard library's sources, from the first of `python3` and `python` that
/// answers; `None` where there is neither, or the sources are not installed.
///
/// The interpreter runs isolated (`-I -S`): no file of the user's is read or run.
#[must_use]
pub fn find_stdlib() -> Option<PathBuf> {
    ["python3", "python"].into_iter().find_map(ask)
}

fn ask(program: &str) -> Option<PathBuf> {
    let mut child = Command::new(program)
        .args(["-I", "-S", "-c", "import sysconfig;print(sysconfig.get_path('stdlib'))"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(POLL),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut answer = String::new();
    child.stdout.take()?.take(4096).read_to_string(&mut answer).ok()?;
    let path = PathBuf::from(answer.trim());
    // A machine may have the interpreter without the sources.
    (status.success() && path.join("textwrap.py").is_file()).then_some(path)
}
