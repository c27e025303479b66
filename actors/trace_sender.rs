//! Sends a run's traces to a collector while it runs, from a thread of its own.
//!
//! It reads the history as it grows, so nobody waits for it: a collector that is away costs traces,
//! which are counted, and nothing else. What ended before this life of the coordinator is not sent;
//! `crrl export --otlp-endpoint` sends all of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crrl_cluster::RunDir;
use crrl_store::StoreError;
use crrl_telemetry::names;
use crrl_telemetry::otlp::{Collector, Span, Told, request};
use crrl_types::{Event, EventKind};
use metrics::counter;
use tokio::sync::watch;

use crate::traces::{Lines, Traces};

/// Traces that wait at most; past it the oldest are dropped.
pub const WAITING_MAX: usize = 4096;
/// Traces of one request.
const BATCH_MAX: usize = 64;
/// Time between two looks at the history.
const LOOK: Duration = Duration::from_millis(500);
/// Wait after a request that failed; doubles.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// The last requests may take this long when the node leaves.
const LAST: Duration = Duration::from_secs(5);

/// What is to be done at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    GoOn,
    /// Send what waits and end; what goes on is told too if the run is over.
    End {
        over: bool,
    },
}

/// The thread that sends.
#[derive(Debug)]
pub struct TraceSender {
    order: watch::Sender<Order>,
    thread: JoinHandle<()>,
}

impl TraceSender {
    /// Begins to send the traces of a run.
    ///
    /// # Errors
    /// The system has no thread.
    pub fn start(run: RunDir, collector: Collector) -> std::io::Result<Self> {
        let (order, orders) = watch::channel(Order::GoOn);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || runtime.block_on(Sending::new(run, collector, orders).run());
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(work)?;
        Ok(Self { order, thread })
    }

    /// Sends what waits, for some seconds at most, and ends.
    pub async fn finish(self, over: bool) {
        self.order.send_replace(Order::End { over });
        let deadline = Instant::now() + LAST;
        while !self.thread.is_finished() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The open history of a run.
struct Source {
    lines: Lines<BufReader<File>>,
    traces: Traces,
}

struct Sending {
    run: RunDir,
    collector: Collector,
    orders: watch::Receiver<Order>,
    source: Option<Source>,
    waiting: VecDeque<Told>,
    retry_at: Option<Instant>,
    backoff: Duration,
}

impl Sending {
    fn new(run: RunDir, collector: Collector, orders: watch::Receiver<Order>) -> Self {
        let (waiting, source, retry_at) = (VecDeque::new(), None, None);
        Self { run, collector, orders, source, waiting, retry_at, backoff: BACKOFF[0] }
    }

    async fn run(mut self) {
        loop {
            let order = *self.orders.borrow();
            self.look();
            if let (Order::End { over: true }, Some(source)) = (order, &mut self.source) {
                let rest = source.traces.rest();
                self.wait(rest);
            }
            let mut goes = true;
            while goes && !self.waiting.is_empty() {
                goes = self.send(order != Order::GoOn).await;
            }
            if order != Order::GoOn {
                return drop_all(self.waiting.len());
            }
            // An error means that the node is gone without a word.
            let next = tokio::time::timeout(LOOK, self.orders.changed()).await;
            if matches!(next, Ok(Err(_))) {
                return;
            }
        }
    }

    /// Takes in what the history has got since the last look.
    fn look(&mut self) {
        if self.source.is_none() {
            match open(&self.run) {
                Ok(Some((source, told))) => {
                    self.source = Some(source);
                    self.wait(told);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error, "no traces yet"),
            }
        }
        let Some(source) = &mut self.source else { return };
        let mut told = Vec::new();
        loop {
            match source.lines.next_line() {
                Ok(Some(line)) => told.extend(source.traces.line(line)),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the history cannot be read for traces");
                    break;
                }
            }
        }
        self.wait(told);
    }

    fn wait(&mut self, told: Vec<Told>) {
        self.waiting.extend(told);
        let excess = self.waiting.len().saturating_sub(WAITING_MAX);
        self.waiting.drain(..excess);
        drop_all(excess);
    }

    /// Sends a few. Whether the next can be sent at once.
    async fn send(&mut self, at_once: bool) -> bool {
        if !at_once && self.retry_at.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let Some(source) = &self.source else { return false };
        let count = self.waiting.len().min(BATCH_MAX);
        let spans = spans(&source.traces, self.waiting.range(..count));
        let sent = match spans {
            Ok(spans) => self.collector.post(&request(source.traces.facts(), &spans)).await,
            Err(error) => {
                tracing::warn!(%error, "traces are dropped");
                self.waiting.drain(..count);
                drop_all(count);
                return true;
            }
        };
        match sent {
            Ok(left_out) => {
                if left_out > 0 {
                    tracing::warn!(left_out, collector = %self.collector, "spans were refused");
                }
                if self.retry_at.take().is_some() {
                    tracing::info!(collector = %self.collector, "traces are taken again");
                }
                self.backoff = BACKOFF[0];
                self.waiting.drain(..count);
                counter!(names::TRACES, "end" => "sent").increment(count as u64);
                true
            }
            Err(error) if error.may_pass() => {
                if self.retry_at.is_none() {
                    tracing::warn!(%error, "traces wait");
                }
                self.retry_at = Some(Instant::now() + self.backoff);
                self.backoff = (self.backoff * 2).min(BACKOFF[1]);
                false
            }
            Err(error) => {
                tracing::warn!(%error, "traces are dropped");
                self.waiting.drain(..count);
                drop_all(count);
                true
            }
        }
    }
}

fn drop_all(count: usize) {
    if count > 0 {
        counter!(names::TRACES, "end" => "dropped").increment(count as u64);
    }
}

fn spans<'a>(
    traces: &Traces,
    told: impl Iterator<Item = &'a Told>,
) -> Result<Vec<Span>, StoreError> {
    let mut spans = Vec::new();
    for one in told {
        spans.extend(traces.spans(one)?);
    }
    Ok(spans)
}

/// Opens the history once it has begun, and gives what this life of the coordinator has told.
fn open(run: &RunDir) -> Result<Option<(Source, Vec<Told>)>, String> {
    let Ok(file) = File::open(run.events()) else { return Ok(None) };
    let mut lines = Lines::new(BufReader::new(file));
    let Some(first) = lines.next_line().map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let mut traces = Traces::open(run, first).map_err(|error| error.to_string())?;
    let mut told = traces.line(first);
    while let Some(line) = lines.next_line().map_err(|error| error.to_string())? {
        if let Ok(Event { kind: EventKind::Started, .. }) = serde_json::from_slice(line) {
            told.clear();
        }
        told.extend(traces.line(line));
        // What is too much for the queue need not be gathered.
        let excess = told.len().saturating_sub(WAITING_MAX);
        drop(told.drain(..excess));
        drop_all(excess);
    }
    Ok(Some((Source { lines, traces }, told)))
}
