//! `crrl export RUN`: a run's curves and traces for other people's tools.

mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use crrl_cluster::RunDir;
use crrl_store::{Reader, StepRow};
use crrl_telemetry::otlp::Collector;
use crrl_telemetry::{EventFile, Lines};
use crrl_types::{Event, EventKind, Step};

use super::failure::Coded;
use crate::meter::{Count, Meter, Quiet};
use crate::run::absolute;

/// Writes a run's curves, one point for each optimizer step, as TensorBoard event files, JSON lines or
/// CSV; and its traces, one for each episode and step, for OpenTelemetry. Reads what the run keeps:
/// it may be over, or go on.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    run: PathBuf,
    /// Write an event file into this folder; `tensorboard --logdir DIR` shows it.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["jsonl", "csv", "otlp", "otlp_endpoint"])]
    tensorboard: Option<PathBuf>,
    /// Write an object a line; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Write a table whose first column is the step; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write traces as OTLP/JSON, a request a line, as the collector's otlpjsonfile receiver reads
    /// them; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    otlp: Option<PathBuf>,
    /// Post traces to a collector at this address (OTLP over HTTP), as http://localhost:4318.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<Collector>,
    #[command(flatten)]
    quiet: Quiet,
}

/// Reads and writes.
///
/// # Errors
/// The folder is not a run's, or something cannot be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let run = RunDir::new(absolute(&args.run));
    if !run.store().is_file() {
        return Err(Coded::usage(format!("{} holds no run", run.path().display())));
    }
    if args.tensorboard.is_some() || args.jsonl.is_some() || args.csv.is_some() {
        curves(args, &run)?;
    }
    if args.otlp.is_some() || args.otlp_endpoint.is_some() {
        let file = args.otlp.as_deref().map(output).transpose()?;
        traces::export(&run, file, args.otlp_endpoint.as_ref(), args.quiet)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn curves(args: &Args, run: &RunDir) -> anyhow::Result<()> {
    let meter = Meter::start(args.quiet, "exporting curves", "points", 0);
    let count = meter.count();
    let steps = Reader::open(&run.store())?.steps()?;
    let times = times(run);
    let files = [&args.tensorboard, &args.jsonl, &args.csv].into_iter().flatten().count();
    count.of((files * steps.len()) as u64);
    if let Some(folder) = &args.tensorboard {
        let began = times.values().next().map_or(0, |at_ms| at_ms / 1000);
        let mut file = EventFile::create(folder, began)
            .with_context(|| format!("cannot write into {}", folder.display()))?;
        for StepRow { step, metrics, .. } in &steps {
            let at_ms = times.get(step).copied().unwrap_or_default();
            file.scalars(step.0, at_ms as f64 / 1e3, metrics)?;
            count.one();
        }
        file.flush()?;
        meter.note(&format!("{}: {} steps", file.path().display(), steps.len()));
    }
    if let Some(path) = &args.jsonl {
        let mut lines = Lines::new(output(path)?);
        for StepRow { step, metrics, .. } in &steps {
            lines.step(step.0, times.get(step).copied(), metrics)?;
            count.one();
        }
        lines.finish()?;
    }
    if let Some(path) = &args.csv {
        table(output(path)?, &steps, &count)?;
    }
    Ok(())
}

/// When each step was committed, the last time.
fn times(run: &RunDir) -> BTreeMap<Step, u64> {
    let history = std::fs::read_to_string(run.events()).unwrap_or_default();
    let events = history.lines().filter_map(|line| serde_json::from_str::<Event>(line).ok());
    events
        .filter_map(|event| match event.kind {
            EventKind::Stepped { step, .. } => Some((step, event.at_ms)),
            _ => None,
        })
        .collect()
}

fn output(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdout().lock()));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Names are ours and hold neither commas nor quotes.
fn table(mut out: impl Write, steps: &[StepRow], count: &Count) -> std::io::Result<()> {
    let names: BTreeSet<&String> =
        steps.iter().flat_map(|row| row.metrics.iter().map(|(name, _)| name)).collect();
    write!(out, "step")?;
    for name in &names {
        write!(out, ",{name}")?;
    }
    writeln!(out)?;
    for row in steps {
        let values: BTreeMap<&String, f64> = row.metrics.iter().map(|(n, v)| (n, *v)).collect();
        write!(out, "{}", row.step.0)?;
        for name in &names {
            match values.get(name) {
                Some(value) => write!(out, ",{value}")?,
                None => write!(out, ",")?,
            }
        }
        writeln!(out)?;
        count.one();
    }
    out.flush()
}
