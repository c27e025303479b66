//! What happened, line by line, and its digest: two runs of one seed have the same.
//!
//! Keeps the last lines only. Where a person wants to read all, they go to standard error as well.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::os;

/// Lines that are kept.
const KEPT: usize = 4000;

/// The record. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub struct Record(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    hasher: blake3::Hasher,
    lines: u64,
    kept: VecDeque<String>,
    /// Whether everything is printed.
    aloud: bool,
    /// Packets too.
    packets: bool,
    /// Whose step it is.
    at: String,
    /// What is no part of the simulation, and is left out: the folder it happens to be in.
    hidden: String,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({} lines)", self.lock().lines)
    }
}

impl Record {
    /// An empty record; `aloud` prints every line, `packets` those of packets as well.
    #[must_use]
    pub fn new(aloud: bool, packets: bool) -> Self {
        let record = Self::default();
        (record.lock().aloud, record.lock().packets) = (aloud, packets);
        record
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a text out of every line from now on.
    pub fn hide(&self, text: &str) {
        text.clone_into(&mut self.lock().hidden);
    }

    /// Whose step it is.
    #[must_use]
    pub fn machine(&self) -> String {
        self.lock().at.clone()
    }

    /// Whose step it is from now on.
    pub fn at(&self, machine: &str) {
        machine.clone_into(&mut self.lock().at);
    }

    /// Something happened.
    pub fn note(&self, line: &str) {
        let mut lines = self.lock();
        let mut line = format!("{:11.6} {:<12} {line}", os::now().as_secs_f64(), lines.at);
        if !lines.hidden.is_empty() {
            line = line.replace(&lines.hidden, "~");
        }
        lines.put(line.as_bytes());
        if lines.aloud {
            say(&line);
        }
        lines.kept.push_back(line);
        if lines.kept.len() > KEPT {
            lines.kept.pop_front();
        }
    }

    /// A packet was sent.
    pub(crate) fn sent(&self, number: u64, from: SocketAddr, to: SocketAddr, bytes: usize) {
        let line = format!("{} {number} {from} {to} {bytes}", os::now().as_nanos());
        self.small(&line);
    }

    /// Something became of a packet.
    pub(crate) fn packet(&self, number: u64, what: &str) {
        self.small(&format!("{} {number} {what}", os::now().as_nanos()));
    }

    fn small(&self, line: &str) {
        let mut lines = self.lock();
        lines.put(line.as_bytes());
        if lines.packets {
            say(line);
        }
    }

    /// Digest of everything so far, packets included, and of how many lines.
    #[must_use]
    pub fn digest(&self) -> String {
        let lines = self.lock();
        format!("{} of {} lines", &lines.hasher.finalize().to_hex()[..16], lines.lines)
    }

    /// The last lines.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lock();
        lines.kept.iter().skip(lines.kept.len().saturating_sub(count)).cloned().collect()
    }
}

impl Lines {
    fn put(&mut self, line: &[u8]) {
        self.hasher.update(line);
        self.hasher.update(b"\n");
        self.lines += 1;
    }
}

#[expect(clippy::print_stderr, reason = "asked for by whoever reads")]
fn say(line: &str) {
    eprintln!("{line}");
}

/// Hears what a program logs. `heard` sees level, message and fields of every event.
pub struct Listener<F> {
    record: Record,
    heard: F,
}

impl<F> Listener<F> {
    /// Notes every event of level info and above, and hands it to `heard`.
    pub fn new(record: Record, heard: F) -> Self {
        Self { record, heard }
    }
}

impl<S: Subscriber, F: Fn(Level, &str) + 'static> Layer<S> for Listener<F> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return;
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.record.note(&format!("{level} {}{}", event.metadata().target(), text.0));
        (self.heard)(level, &text.0);
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
