//! `crrl report RUN...`: what a run came to, as one HTML file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crrl_report::{COMPARISON_FILE, REPORT_FILE, RUNS_MAX, Report};

use super::failure::Coded;
use crate::meter::{Meter, Quiet};
use crate::run::absolute;

/// Writes one HTML file that needs nothing else (no script, no network) and prints its path:
/// before and after, curves by optimizer step, what episodes did, the best and the worst of them,
/// faults, configuration. Several runs are drawn over each other and compared with the first.
/// Changes nothing in a run; works on one under way.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Write here; without it, report.html in the run's folder (comparison.html in the first one's
    /// where there are several).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the numbers behind the report as one JSON object; the page is written with -o only.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

/// Reads, draws and writes.
///
/// # Errors
/// A folder is not a run's, or cannot be read; the page cannot be written.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.runs.len() > RUNS_MAX {
        return Err(Coded::usage(format!(
            "{} runs: one report compares {RUNS_MAX} at most",
            args.runs.len()
        )));
    }
    let mut facts = Vec::with_capacity(args.runs.len());
    let meter = Meter::start(args.quiet, "reading", "transcripts", 0);
    let count = meter.count();
    for run in &args.runs {
        let read = crrl_report::read_watched(&absolute(run), &|done, total| {
            count.of(total as u64);
            count.at(done as u64);
        });
        facts.push(read.map_err(|error| Coded::usage(error.to_string()))?);
    }
    let report = Report::of(&facts);
    drop(meter);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    }
    let file = match (&args.output, args.json) {
        (Some(file), _) => absolute(file),
        (None, true) => return Ok(ExitCode::SUCCESS),
        (None, false) => default_file(&args.runs),
    };
    crrl_report::write(&file, &report.html()).map_err(|error| Coded::usage(error.to_string()))?;
    if !args.json {
        writeln!(out, "{}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn default_file(runs: &[PathBuf]) -> PathBuf {
    let first = runs.first().map_or(Path::new("."), PathBuf::as_path);
    absolute(first).join(if runs.len() == 1 { REPORT_FILE } else { COMPARISON_FILE })
}
