//! `crrl train`: a run on the cluster of a cluster.toml.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crrl_types::Base;

use super::config::Source;
use super::failure::{Coded, INTERRUPTED, quoted};
use crate::display::table::Summary;
use crate::ledger::Ledger;
use crate::meter::{Count, Meter, Quiet};
use crate::run::{Outcome, Run, absolute, plan_of};

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
    crrl_model::ModelDir::open(&config.model.path).map_err(|error| {
        Coded::usage(format!(
            "{error}\n  model.path names it: a Hugging Face folder with config.json, \
             *.safetensors and tokenizer.json"
        ))
    })?;
    let checking = Meter::start(args.quiet, "checking tasks", "tasks", 0);
    for file in std::iter::once(&config.tasks.train).chain(&config.tasks.held_out) {
        check_tasks(file, &checking.count())?;
    }
    drop(checking);
    let plan = plan_of(&config, args.greedy);
    let (title, dir) = ("crrl train".into(), absolute(&config.run.dir));
    let run = Run { title, dir, config, plan, resume: resume(args) };
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

/// A task whose patch does not apply earns nothing whatever the policy does: better said before
/// anything is trained. Neither repositories nor whole trees are read for it.
fn check_tasks(file: &Path, count: &Count) -> anyhow::Result<()> {
    for task in crrl_tasks::TaskSet::load(file)?.tasks {
        count.one();
        let at_hand = match &task.base {
            Base::Files { .. } => true,
            Base::Tree { include, .. } => !include.is_empty(),
            Base::Commit => false,
        };
        if at_hand && let Err(reason) = crrl_tasks::patch_applies(&task) {
            return Err(Coded::usage(format!(
                "{}: task {}: {reason}\n  `crrl tasks verify {0}` checks every task",
                file.display(),
                task.instance_id
            )));
        }
    }
    Ok(())
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
