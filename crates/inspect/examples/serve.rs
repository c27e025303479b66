//! A coordinator of a made-up cluster that `crrl inspect --run DIR` can attach to.
//!
//!     cargo run -p crrl-inspect --example serve DIR
//!
//! Ends with Ctrl-C. DIR is made; an `events.jsonl` and a `run.sqlite` that lie in it are shown.

#[path = "../tests/inspect/coordinator.rs"]
mod coordinator;
#[path = "../tests/inspect/scene.rs"]
mod scene;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder: PathBuf = std::env::args_os().nth(1).ok_or("which folder?")?.into();
    let run = coordinator::prepared(&std::path::absolute(folder)?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let (mesh, board) = coordinator::start(&run).await;
        let mut events =
            std::fs::OpenOptions::new().create(true).append(true).open(run.events())?;
        let mut second = tokio::time::interval(Duration::from_secs(1));
        for s in 190.. {
            tokio::select! {
                _ = second.tick() => {}
                _ = tokio::signal::ctrl_c() => break,
            }
            board.update(|board| *board = scene::frame(s).snapshot);
            for mut event in scene::events(s) {
                event.at_ms = crrl_inspect::feed::now_ms();
                writeln!(events, "{}", serde_json::to_string(&event)?)?;
            }
        }
        mesh.stop("Ctrl-C").await;
        Ok(())
    })
}
