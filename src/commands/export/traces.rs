//! A run's traces, to a file and to a collector.

use std::fs::File;
use std::io::{BufReader, Write};

use anyhow::Context as _;
use crrl_actors::traces::{Lines, Traces};
use crrl_cluster::RunDir;
use crrl_telemetry::otlp::{Collector, PostError, Span, Told, request};

use crate::commands::failure::{Coded, UNREACHABLE, say};
use crate::meter::{Meter, Quiet};

/// Spans of one request: some hundred kilobytes.
const SPANS_MAX: usize = 1_000;

/// Where traces go.
struct Out<'a> {
    file: Option<Box<dyn Write>>,
    collector: Option<&'a Collector>,
    runtime: tokio::runtime::Runtime,
    /// Not sent yet.
    spans: Vec<Span>,
    traces: u64,
    sent: u64,
    left_out: u64,
}

/// Reads the history from its beginning and hands everything on.
pub(super) fn export(
    run: &RunDir,
    file: Option<Box<dyn Write>>,
    collector: Option<&Collector>,
    quiet: Quiet,
) -> anyhow::Result<()> {
    let path = run.events();
    let history = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = history.metadata().map_or(0, |file| file.len());
    let mut lines = Lines::new(BufReader::new(history));
    let read = || format!("cannot read {}", path.display());
    let Some(first) = lines.next_line().with_context(read)?.map(<[u8]>::to_vec) else {
        return Err(Coded::usage(format!("{} is empty: nothing has happened yet", path.display())));
    };
    let meter = Meter::start(quiet, "exporting traces", "KiB of history", bytes >> 10);
    let count = meter.count();
    let mut traces = Traces::open(run, &first)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (spans, sent, left_out) = (Vec::new(), 0, 0);
    let mut out = Out { file, collector, runtime, spans, traces: 0, sent, left_out };
    let mut done = first.len();
    let told = traces.line(&first);
    out.take(&traces, told)?;
    while let Some(line) = lines.next_line().with_context(read)? {
        done += line.len();
        let told = traces.line(line);
        out.take(&traces, told)?;
        count.at(done as u64 >> 10);
    }
    let rest = traces.rest();
    out.take(&traces, rest)?;
    out.flush(&traces)?;
    if let Some(file) = &mut out.file {
        file.flush().context("the traces cannot be written")?;
    }
    drop(meter);
    if !quiet.quiet {
        let (traces, spans) = (out.traces, out.sent);
        let to = collector.map(|collector| format!(" to {collector}")).unwrap_or_default();
        say(&format!("{traces} traces, {spans} spans{to}"));
    }
    if out.left_out > 0 {
        say(&format!("the collector left {} spans out", out.left_out));
    }
    Ok(())
}

impl Out<'_> {
    fn take(&mut self, traces: &Traces, told: Vec<Told>) -> anyhow::Result<()> {
        for one in told {
            self.spans.extend(traces.spans(&one)?);
            self.traces += 1;
            if self.spans.len() >= SPANS_MAX {
                self.flush(traces)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, traces: &Traces) -> anyhow::Result<()> {
        if self.spans.is_empty() {
            return Ok(());
        }
        let spans = std::mem::take(&mut self.spans);
        self.sent += spans.len() as u64;
        let request = request(traces.facts(), &spans);
        if let Some(file) = &mut self.file {
            writeln!(file, "{request}").context("the traces cannot be written")?;
        }
        if let Some(collector) = self.collector {
            let posted = self.runtime.block_on(collector.post(&request));
            self.left_out += posted.map_err(|error| self.failed(&error, spans.len()))?;
        }
        Ok(())
    }

    fn failed(&self, error: &PostError, spans: usize) -> anyhow::Error {
        let before = self.sent - spans as u64;
        let message = match before {
            0 => error.to_string(),
            _ => format!("{error}; {before} spans were taken before, and may be sent again"),
        };
        let code = if error.may_pass() { UNREACHABLE } else { 1 };
        Coded { code, message }.into()
    }
}
