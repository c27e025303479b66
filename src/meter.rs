//! How far a command is, for people: a line that is drawn over on a terminal, a line now and then
//! elsewhere, nothing for a command that is done within two seconds.
//!
//! Whoever works only counts; a thread of the meter's own looks and draws, so that one that hangs is
//! seen to. Everything goes to stderr.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::colour;

/// A command that takes no longer shows nothing.
const SHOW_AFTER: Duration = Duration::from_secs(2);
/// Time between two looks on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(125);
/// Time between two lines where nothing overwrites them.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Show no progress.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Quiet {
    /// Show no progress.
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// What is counted. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Count(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    done: AtomicU64,
    /// 0 while it is not known.
    total: AtomicU64,
    /// What was done before this began.
    from: AtomicU64,
    tail: Mutex<String>,
}

impl Count {
    /// So much is done.
    pub(crate) fn at(&self, done: u64) {
        self.0.done.store(done, Ordering::Relaxed);
    }

    /// One more is done.
    pub(crate) fn one(&self) {
        self.0.done.fetch_add(1, Ordering::Relaxed);
    }

    /// So much is to be done in all.
    pub(crate) fn of(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// So much was done before: it says nothing about the pace.
    pub(crate) fn from(&self, done: u64) {
        self.0.from.store(done, Ordering::Relaxed);
        self.at(done);
    }

    /// What else there is to say, at the end of the line.
    pub(crate) fn say(&self, tail: impl Into<String>) {
        *lock(&self.0.tail) = tail.into();
    }

    fn read(&self) -> Read {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let Counted { done, total, from, tail } = &*self.0;
        Read { done: of(done), total: of(total), from: of(from), tail: lock(tail).clone() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Read {
    done: u64,
    total: u64,
    from: u64,
    tail: String,
}

/// Shows a count until it is dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    count: Count,
    bar: ProgressBar,
    quiet: bool,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where and when a meter shows.
struct Way {
    terminal: bool,
    after: Duration,
    every: Duration,
    lines: Box<dyn Write + Send>,
}

impl Meter {
    /// Shows how far something is: what is done, and in what it is counted. `unit` is empty where
    /// nothing is counted, `total` 0 where it is not known.
    pub(crate) fn start(quiet: Quiet, doing: &'static str, unit: &'static str, total: u64) -> Self {
        let terminal = colour::draws_on_stderr();
        let every = if terminal { DRAW_EVERY } else { LINE_EVERY };
        let lines = Box::new(std::io::stderr());
        Self::begin(
            quiet.quiet,
            doing,
            unit,
            total,
            Way { terminal, after: SHOW_AFTER, every, lines },
        )
    }

    fn begin(quiet: bool, doing: &'static str, unit: &'static str, total: u64, way: Way) -> Self {
        let count = Count(Arc::default());
        count.of(total);
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let mut meter = Self { count, bar, quiet, stop: None, thread: None };
        if !quiet {
            let (stop, stopped) = channel();
            let shown = Shown { doing, unit, began: Instant::now(), count: meter.count() };
            let bar = meter.bar.clone();
            let draw = move || shown.until(&stopped, &bar, way);
            // Without a thread nothing is shown, and everything else goes on.
            meter.thread = std::thread::Builder::new().name("meter".into()).spawn(draw).ok();
            meter.stop = Some(stop);
        }
        meter
    }

    /// What to count in.
    pub(crate) fn count(&self) -> Count {
        self.count.clone()
    }

    /// A line that stays.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.warn(line);
        }
    }

    /// A line that stays, whoever wants quiet.
    pub(crate) fn warn(&self, line: &str) {
        self.bar.suspend(|| crate::commands::failure::say(line));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to give back; a panic of its own has been printed.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

struct Shown {
    doing: &'static str,
    unit: &'static str,
    began: Instant,
    count: Count,
}

impl Shown {
    fn until(&self, stopped: &std::sync::mpsc::Receiver<()>, bar: &ProgressBar, mut way: Way) {
        let mut wait = way.after;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let read = self.count.read();
            let text = text(&read, self.unit, self.began.elapsed());
            if way.terminal {
                if wait == way.after {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                draw(bar, self.doing, &read, text);
            } else if writeln!(way.lines, "{}: {text}", self.doing).is_err() {
                return;
            }
            wait = way.every;
        }
    }
}

fn draw(bar: &ProgressBar, doing: &'static str, read: &Read, text: String) {
    let known = read.total > 0;
    if bar.length().is_some() != known || bar.prefix().is_empty() {
        bar.set_style(style(known, colour::on_stderr()));
    }
    if known {
        bar.set_length(read.total);
        bar.set_position(read.done.min(read.total));
    }
    bar.set_prefix(doing);
    bar.set_message(text);
    bar.tick();
}

fn style(known: bool, colour: bool) -> ProgressStyle {
    let template = match (known, colour) {
        (true, true) => "{spinner:.cyan} {prefix} {bar:16.cyan/black.bright} {wide_msg}",
        (true, false) => "{spinner} {prefix} {bar:16} {wide_msg}",
        (false, true) => "{spinner:.cyan} {prefix} {wide_msg}",
        (false, false) => "{spinner} {prefix} {wide_msg}",
    };
    let style = ProgressStyle::with_template(template).expect("a template of our own");
    style.progress_chars("━╸╌")
}

/// A count as people read it.
fn text(read: &Read, unit: &str, elapsed: Duration) -> String {
    let Read { done, total, from, tail } = read;
    let mut parts = Vec::new();
    let made = done.saturating_sub(*from);
    if *total > 0 {
        parts.push(format!("{done}/{total} {unit}"));
    } else if *done > 0 {
        parts.push(format!("{done} {unit}"));
    }
    if made > 0 {
        parts.push(rate(made as f64 / elapsed.as_secs_f64().max(1e-9)));
    }
    if *total > *done && made > 0 {
        let left = elapsed.mul_f64((total - done) as f64 / made as f64);
        parts.push(format!("{} left", clock(left)));
    } else {
        parts.push(clock(elapsed));
    }
    if !tail.is_empty() {
        parts.push(tail.clone());
    }
    parts.join("  ")
}

fn rate(per_second: f64) -> String {
    match per_second {
        ..0.1 => format!("{:.1}/min", per_second * 60.0),
        ..10.0 => format!("{per_second:.1}/s"),
        _ => format!("{per_second:.0}/s"),
    }
}

/// `42 s`, `1 min 05 s`, `2 h 03 min`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_says_its_pace_and_what_is_left_by_it() {
        let read = |done, total, from| Read { done, total, from, tail: String::new() };
        let after = Duration::from_secs(20);
        assert_eq!(text(&read(0, 0, 0), "", after), "20 s");
        assert_eq!(text(&read(50, 200, 0), "tasks", after), "50/200 tasks  2.5/s  1 min 00 s left");
        assert_eq!(text(&read(50, 0, 0), "tasks", after), "50 tasks  2.5/s  20 s");
        assert_eq!(text(&read(0, 200, 0), "tasks", after), "0/200 tasks  20 s");
        // What was there before a resume says nothing about the pace.
        assert_eq!(text(&read(90, 100, 80), "steps", after), "90/100 steps  0.5/s  20 s left");
        assert_eq!(text(&read(100, 100, 80), "steps", after), "100/100 steps  1.0/s  20 s");
        let tail = Read { tail: "loss 0.5".into(), ..read(1, 2, 0) };
        assert_eq!(text(&tail, "steps", after), "1/2 steps  3.0/min  20 s left  loss 0.5");
        assert_eq!(clock(Duration::from_secs(7_385)), "2 h 03 min");
    }

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(lock(&self.0).clone()).expect("text")
        }

        fn way(&self, after: Duration) -> Way {
            let (every, lines) = (Duration::from_millis(1), Box::new(self.clone()));
            Way { terminal: false, after, every, lines }
        }
    }

    #[test]
    fn lines_come_where_there_is_no_terminal_and_end_with_the_meter() {
        let paper = Paper::default();
        let meter = Meter::begin(false, "verifying", "tasks", 8, paper.way(Duration::ZERO));
        meter.count().at(3);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !paper.text().contains("verifying: 3/8 tasks") {
            assert!(Instant::now() < deadline, "{}", paper.text());
            std::thread::yield_now();
        }
        drop(meter);
        let said = paper.text();
        assert!(said.ends_with('\n') && !said.contains(['\r', '\x1b']), "{said:?}");
    }

    #[test]
    fn what_is_done_soon_or_quiet_shows_nothing() {
        for (quiet, after) in [(false, Duration::from_secs(600)), (true, Duration::ZERO)] {
            let paper = Paper::default();
            let meter = Meter::begin(quiet, "verifying", "tasks", 8, paper.way(after));
            meter.count().one();
            drop(meter);
            assert_eq!(paper.text(), "");
        }
    }
}
