//! Many seeds, each in a process of its own: what the product keeps for a whole process starts anew
//! with each, and one that hangs is ended.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks at whether a process has ended.
const LOOK: Duration = Duration::from_millis(2);

/// One that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Which.
    pub name: String,
    /// Whether all was well.
    pub ok: bool,
    /// What it printed.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs commands, `at_once` of them at a time; one that takes longer than `time_max` is ended and
/// has failed. They are returned in their order.
///
/// # Errors
/// A process or a file that cannot be had.
pub fn run(
    commands: Vec<(String, Command)>,
    at_once: usize,
    time_max: Duration,
    folder: &Path,
) -> io::Result<Vec<Ended>> {
    let count = commands.len();
    let waiting = Mutex::new(commands.into_iter().enumerate());
    let ended: Mutex<Vec<(usize, io::Result<Ended>)>> = Mutex::default();
    let files = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, count.max(1)) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("nobody panics with it").next();
                    let Some((index, (name, command))) = next else { return };
                    let file = files.fetch_add(1, Ordering::Relaxed);
                    let said = folder.join(format!("said-{file}"));
                    let one = run_one(name, command, time_max, &said);
                    ended.lock().expect("nobody panics with it").push((index, one));
                }
            });
        }
    });
    let mut ended = ended.into_inner().expect("nobody panics with it");
    ended.sort_by_key(|(index, _)| *index);
    ended.into_iter().map(|(_, ended)| ended).collect()
}

fn run_one(
    name: String,
    mut command: Command,
    time_max: Duration,
    said: &PathBuf,
) -> io::Result<Ended> {
    let file = File::create(said)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let began = Instant::now();
    let mut child = command.spawn()?;
    let mut late = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > time_max && !late {
            late = true;
            child.kill()?;
        }
        std::thread::sleep(LOOK);
    };
    let mut text = String::from_utf8_lossy(&fs::read(said)?).into_owned();
    fs::remove_file(said)?;
    if late {
        text.push_str(&format!("\nit took longer than {} s and was ended\n", time_max.as_secs()));
    }
    Ok(Ended { name, ok: status.success() && !late, said: text, took: began.elapsed() })
}
