//! The page in a real browser: clicks, filters, keys, two widths. `drive.py` does it and says what it
//! saw; it needs Python and Chromium, and the test says so where they are missing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::{coordinator, scene, serve, world};

/// Whether a program is there and runs.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_used_with_mouse_and_keyboard() {
    let browser =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|b| is_there(b));
    let Some(browser) = browser.filter(|_| is_there("python3")) else {
        eprintln!("skipped: the page was not opened, there is no chromium or no python3 here");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hostile = "<img src=x onerror=\"window.hacked=1\">\u{202e}desrever\u{200b}\u{1b}[31m";
    let over = folder.path().join("over");
    world::World { text: hostile.into(), ..world::World::default() }.write(&over);
    world::World { steps: 9, ..world::World::default() }.write(&folder.path().join("up"));
    let up = coordinator::prepared(&folder.path().join("up"));
    let (mesh, board) = coordinator::start(&up).await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let putting = tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_millis(500));
        for s in 150.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            board.update(|board| *board = scene::frame(s).snapshot);
            second.tick().await;
        }
    });
    let served = serve(&[over, up.path().to_owned()]).await.expect("two runs");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/drive.py");
    let address = served.address.clone();
    let drive = move || {
        let mut command = Command::new("python3");
        command.arg(script).arg(address).env("BROWSER_PROGRAM", browser).output()
    };
    let out = tokio::task::spawn_blocking(drive).await.expect("a thread").expect("python3");
    stop.store(true, Ordering::Relaxed);
    putting.await.expect("it ends");
    mesh.stop("the test is over").await;
    assert!(
        out.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}
