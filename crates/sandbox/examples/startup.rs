//! How long a sandbox takes to open, a small command to run, a diff to be taken and the end to
//! come. `cargo run --release -p crrl-sandbox --example startup` after `cargo build --release -p
//! crrl-sandbox`.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crrl_sandbox::{LocalBackend, Options, Template};

const ROUNDS: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let program = std::env::current_exe()?;
    let beside = program.parent().and_then(|examples| examples.parent()).map(PathBuf::from);
    let launcher = beside.unwrap_or_default().join("crrl-sandbox-launch");
    let backend = LocalBackend::new(Options { launcher: Some(launcher), ..Options::default() })?;
    let folder = tempfile::tempdir()?;
    for n in 0..20 {
        std::fs::write(folder.path().join(format!("m{n}.py")), "x = 1\n".repeat(200))?;
    }
    let cache = tempfile::tempdir()?;
    let template = Arc::new(Template::prepare(folder.path(), cache.path())?);
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut sandbox = backend.open(&template).await?;
        times[0].push(started.elapsed());
        let started = Instant::now();
        sandbox.exec("head -1 m0.py").await?;
        times[1].push(started.elapsed());
        sandbox.write_file("m0.py", b"x = 2\n").await?;
        let started = Instant::now();
        sandbox.diff().await?;
        times[2].push(started.elapsed());
        let started = Instant::now();
        sandbox.close().await;
        times[3].push(started.elapsed());
    }
    for (name, times) in ["open", "exec", "diff", "close"].iter().zip(&mut times) {
        times.sort_unstable();
        let at = |share: usize| times[ROUNDS * share / 100].as_secs_f64() * 1e3;
        println!("{name:6} p50 {:6.2} ms   p99 {:6.2} ms", at(50), at(99));
    }
    Ok(())
}
