//! `crrl train`: a run on the cluster of a cluster.toml.

use std::process::ExitCode;
use std::time::Instant;

use super::config::Source;
use super::failure::Coded;
use crate::display::table::Summary;
use crate::run::{Outcome, Run, absolute, phases};

/// Arguments of `crrl train`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Continue the run in `run.dir`.
    #[arg(long)]
    resume: bool,
    /// Also evaluate this many held-out tasks taking the most likely token each time.
    #[arg(long, default_value_t = 0, value_name = "TASKS")]
    greedy: u32,
    /// Print the resolved configuration and start nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Show no progress.
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.source.load()?;
    config.model.path = absolute(&config.model.path);
    if args.dry_run {
        print!("{}", toml::to_string(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    if config.tasks.train.as_os_str().is_empty() {
        return Err(Coded::usage(format!(
            "{}: tasks.train names no task file; `crrl tasks mutate PATH` or `crrl tasks mine \
             REPO` makes one",
            args.source.file.display()
        )));
    }
    crrl_model::ModelDir::open(&config.model.path)?;
    for file in std::iter::once(&config.tasks.train).chain(&config.tasks.held_out) {
        crrl_tasks::TaskSet::load(file)?;
    }
    let phases = phases(&config, args.greedy);
    let mut plan = crrl_control::plan::Plan::new(config.run.seed, phases);
    plan.limits.lease_ms = (config.rollout.lease_s * 1e3) as u64;
    let run = Run { title: "crrl train".into(), dir: absolute(&config.run.dir), config, plan };
    run.prepare(args.resume)?;
    let started = Instant::now();
    match run.carry_out(args.quiet)? {
        Outcome::Interrupted => {
            eprintln!(
                "stopped; nothing is lost. To continue: crrl train -f {} --resume",
                args.source.file.display()
            );
            Ok(ExitCode::from(130))
        }
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
            eprintln!("\nwritten to {}", run.dir.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
