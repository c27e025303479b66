//! `crrl train`: a run on the cluster of a cluster.toml.

use std::process::ExitCode;
use std::time::Instant;

use super::config::Source;
use super::failure::{INTERRUPTED, quoted};
use crate::display::table::Summary;
use crate::ledger::Ledger;
use crate::meter::Quiet;
use crate::requirements;
use crate::run::{Outcome, Run, plan_of, spell_out};

/// Arguments of `crrl train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Continue the run in `run.dir`.
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    ledger: Ledger,
    /// Also evaluate this many held-out tasks taking the most likely token each time.
    #[arg(long, default_value_t = 0, value_name = "TASKS")]
    greedy: u32,
    /// Print the resolved configuration and start nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.source.load()?;
    spell_out(&mut config);
    if args.dry_run {
        print!("{}", toml::to_string(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    let plan = plan_of(&config, args.greedy);
    let (title, dir) = ("crrl train".into(), config.run.dir.clone());
    let run = Run { title, dir, config, plan, resume: resume(args) };
    requirements::check(&run, args.quiet)?;
    let alone = run.alone()?;
    run.prepare(args.resume, &alone)?;
    args.ledger.choose(&run, args.quiet, &alone)?;
    run.forget_error(&alone)?;
    let started = Instant::now();
    match run.carry_out(alone, args.quiet)? {
        Outcome::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
        Outcome::Complete(results) => {
            let wall_s = started.elapsed().as_secs_f64();
            let summary = Summary::of(&results, run.config.run.seed, wall_s);
            match (&summary, args.json) {
                (Some(summary), true) => println!("{}", serde_json::to_string_pretty(summary)?),
                (Some(summary), false) => print!("{}", summary.text()),
                (None, true) => println!("{}", serde_json::to_string_pretty(&results)?),
                (None, false) => {
                    for training in &results.trainings {
                        println!(
                            "{} steps on {} episodes, adapter v{}",
                            training.steps, training.trained, training.version
                        );
                    }
                }
            }
            if !args.quiet.quiet {
                eprintln!("\nwritten to {}", run.dir.display());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The command that continues this run.
fn resume(args: &Args) -> String {
    let mut command = format!("crrl train -f {}", quoted(&args.source.file.display().to_string()));
    for set in &args.source.set {
        command += &format!(" --set {}", quoted(set));
    }
    if args.greedy > 0 {
        command += &format!(" --greedy {}", args.greedy);
    }
    command + " --resume"
}
