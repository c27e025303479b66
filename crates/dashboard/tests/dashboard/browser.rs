//! The page in a real browser: clicks, filters, keys, an episode under way, two widths. `drive.py` does it
//! and says what it saw; it needs Python and Chromium, and the test says so where they are missing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crrl_cluster::StatusBoard;
use crrl_types::{Gpu, RoundTrip, Vitals};

use crate::skips::skipped;
use crate::under_way::{self, Script};
use crate::{coordinator, serve, world};

/// Whether a program is there and runs.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// The learner tells what it measures; no other node does.
fn measure(board: &StatusBoard) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
    let gpu = Gpu {
        index: 0,
        name: "NVIDIA H100 80GB HBM3".into(),
        used_bytes: Some(41_234 << 20),
        memory_bytes: Some(81_559 << 20),
        busy_percent: Some(93),
    };
    let vitals = Vitals {
        build: "0.1.0".into(),
        cpu_percent: Some(388.0),
        gpus: vec![gpu],
        round_trip: Some(RoundTrip { p50_us: 310, p99_us: 4_160, samples: 120 }),
    };
    let sent_us = u64::try_from(now.as_micros()).expect("before the year 500,000");
    board.vitals(&"learner".into(), sent_us, 0, vitals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_used_with_mouse_and_keyboard() {
    let browser =
        ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|b| is_there(b));
    let Some(browser) = browser.filter(|_| is_there("python3")) else {
        return skipped("no chromium or no python3 (packages of these names)");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hostile = "<img src=x onerror=\"window.hacked=1\">\u{202e}desrever\u{200b}\u{1b}[31m";
    let over = folder.path().join("over");
    world::World { text: hostile.into(), ..world::World::default() }.write(&over);
    world::World { steps: 9, ..world::World::default() }.write(&folder.path().join("up"));
    let up = coordinator::prepared(&folder.path().join("up"));
    under_way::configure(&up.config_path());
    let mut script = Script::open(&up.store(), hostile);
    script.begins();
    script.writes(1, "I look at the queue.", Some("cat queue.py"));
    // The page asks for what happens next in the episode with a file: 1, 2, 3.
    let asks = folder.path().join("asks");
    std::fs::create_dir(&asks).expect("writable");
    let (mesh, board) = coordinator::start(&up).await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let asked = asks.clone();
    let putting = tokio::spawn(async move {
        let mut second = tokio::time::interval(Duration::from_millis(500));
        let mut done = 0;
        for s in 150.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            board.update(|board| *board = under_way::board(s));
            measure(&board);
            while asked.join((done + 1).to_string()).exists() {
                done += 1;
                match done {
                    1 => script.answers(1, "class Queue:"),
                    2 => script.writes(1, "That is the bug.", None),
                    _ => script.ends(),
                }
            }
            second.tick().await;
        }
    });
    let served = serve(&[over, up.path().to_owned()]).await.expect("two runs");
    let drive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/drive.py");
    let address = served.address.clone();
    let used = move || {
        let mut command = Command::new("python3");
        command.arg(drive).arg(address).arg(asks).env("BROWSER_PROGRAM", browser).output()
    };
    let out = tokio::task::spawn_blocking(used).await.expect("a thread").expect("python3");
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
