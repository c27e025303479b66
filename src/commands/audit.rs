//! `crrl audit RUN`: whether a run kept its promises, from what it left behind.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use crrl_actors::evidence;
use crrl_cluster::RunDir;
use crrl_control::audit::{Finding, Verdict};

use super::failure::Coded;
use crate::meter::{Meter, Quiet};
use crate::run::absolute;

/// Exit code of a run that broke a promise.
const BROKEN: u8 = 1;

/// Judges a run by its ledger, history, checkpoints and adapters: every episode accounted for and
/// ended once (I1), none in two optimizer steps (I2), adapter versions only going up (I4), every
/// generated token under an adapter that was published (I5), a checkpoint that loads (I6), nothing
/// staler than the bound trained on (I7), nothing published or kept that is not finite (I13).
/// I6 is not judged where the learner is on another machine or in a container: its checkpoints are
/// there. Changes nothing; works on a run under way. Exit code 0 if every invariant held that could be
/// judged, 1 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run.
    run: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

/// Gathers, judges and prints.
///
/// # Errors
/// The folder is not a run's, or cannot be read.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let run = RunDir::new(absolute(&args.run));
    if !run.path().is_dir() {
        return Err(Coded::usage(format!("{} is not a folder", run.path().display())));
    }
    let meter = Meter::start(args.quiet, "auditing", "rows", 0);
    let count = meter.count();
    let verdict = evidence::judge_watched(&run, &|done, total| {
        count.of(total);
        count.at(done);
    })
    .map_err(|error| Coded::usage(format!("{}: {error}", run.path().display())))?;
    drop(meter);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&verdict)?)?;
    } else {
        print(&mut out, &verdict)?;
    }
    Ok(ExitCode::from(if verdict.ok { 0 } else { BROKEN }))
}

/// Prints a verdict, for people.
pub(super) fn print(out: &mut impl std::io::Write, verdict: &Verdict) -> std::io::Result<()> {
    for finding in &verdict.findings {
        let Finding { invariant, says, held, judged, looked_at, violations, told } = finding;
        let word = match (held, judged) {
            (false, _) => "BROKEN",
            (true, true) => "held",
            (true, false) => "not judged",
        };
        let name = format!("{invariant:?}");
        writeln!(out, "{word:<7} {name:<4} {says}")?;
        writeln!(out, "             {looked_at}")?;
        for violation in told {
            writeln!(out, "           - {} [{}]", violation.what, violation.evidence)?;
        }
        let more = violations.saturating_sub(told.len() as u64);
        if more > 0 {
            writeln!(out, "           - and {more} more")?;
        }
    }
    for note in &verdict.notes {
        writeln!(out, "note    {note}")?;
    }
    let broken = verdict.findings.iter().filter(|finding| !finding.held).count();
    let is_all_judged = verdict.findings.iter().all(|finding| finding.judged);
    match broken {
        0 if is_all_judged => writeln!(out, "every invariant held"),
        0 => writeln!(out, "every invariant that could be judged held"),
        1 => writeln!(out, "one invariant was broken"),
        more => writeln!(out, "{more} invariants were broken"),
    }
}
