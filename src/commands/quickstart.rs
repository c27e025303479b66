//! `crrl quickstart`: the main job on the embedded default. A local cluster trains the shipped
//! policy on bugs put into real Python code, measured before and after on source files that no
//! training of any kind has seen.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use crrl_cluster::{RunDir, host};
use crrl_config::ClusterConfig;

use super::failure::{Coded, INTERRUPTED, host_error, quoted};
use crate::display::table::Summary;
use crate::ledger::Ledger;
use crate::meter::{Meter, Quiet};
use crate::recipe;
use crate::run::{Outcome, Run, absolute, plan_of};

/// Arguments of `crrl quickstart`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seed of tasks, their order and sampling.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Optimizer steps.
    #[arg(long, default_value_t = recipe::STEPS, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Source tree to make tasks from; without it, Python's standard library, or the tree that
    /// ships with the project.
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder of the run; without it, a new one under runs/.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Continue an interrupted quickstart in --run-dir.
    #[arg(long, requires = "run_dir")]
    resume: bool,
    /// Where no sandbox can be had, let what the policy types run as you, on your files and your
    /// network; --resume goes on so.
    #[arg(long)]
    run_without_isolation: bool,
    #[command(flatten)]
    ledger: Ledger,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    recipe::preflight()?;
    let model = recipe::find_model()?;
    let dir = absolute(&args.run_dir.clone().unwrap_or_else(|| new_dir(args.seed)));
    let mut config = recipe::config(&dir, &model, args.seed, args.steps);
    config.sandbox.run_without_isolation =
        args.run_without_isolation || args.resume && went_without_isolation(&RunDir::new(&dir));
    recipe::probe_sandbox(&config.sandbox)?;
    // Before the tasks are written: another one may be at it in this folder.
    let alone = host::alone(&RunDir::new(&dir)).map_err(host_error)?;
    if !args.resume {
        make_tasks(args, &dir, &config)?;
    }
    let plan = plan_of(&config, recipe::GREEDY_TASKS);
    let resume = format!(
        "crrl quickstart --resume --run-dir {} --seed {} --steps {}",
        quoted(&dir.display().to_string()),
        args.seed,
        args.steps
    );
    let run = Run { title: "crrl quickstart".into(), dir: dir.clone(), config, plan, resume };
    run.prepare(args.resume, &alone)?;
    args.ledger.choose(&run, args.quiet, &alone)?;
    run.forget_error(&alone)?;
    match run.carry_out(alone, args.quiet)? {
        Outcome::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
        Outcome::Complete(results) => {
            let summary = Summary::of(&results, args.seed, started.elapsed().as_secs_f64())
                .context("the run measured nothing; its results.json says what happened")?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&summary)?);
            } else {
                println!("\n{}", summary.text());
                print!("{}", next(&dir, &model, summary.steps));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether the run in this folder was begun with `--run-without-isolation`.
fn went_without_isolation(run: &RunDir) -> bool {
    run.config().is_ok_and(|held| held.sandbox.run_without_isolation)
}

fn new_dir(seed: u64) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    PathBuf::from(format!("runs/quickstart-{seed}-{now}"))
}

fn make_tasks(args: &Args, dir: &Path, config: &ClusterConfig) -> anyhow::Result<()> {
    if dir.join(crrl_control::plan::PLAN_FILE).exists() {
        return Err(Coded::usage(format!(
            "{} already holds a run: --resume continues it, another --run-dir starts another",
            dir.display()
        )));
    }
    let (source, what) = recipe::find_source(args.source.as_deref())?;
    let making = Meter::start(args.quiet, "making tasks", "", 0);
    let counts = recipe::make_tasks(&source, config)?;
    drop(making);
    if !args.quiet.quiet {
        eprintln!(
            "tasks    {} to train on, {} held out (other files), from {what}\npolicy   {}\nrun      {}",
            counts.0,
            counts.1,
            config.model.path.display(),
            dir.display()
        );
    }
    Ok(())
}

/// What to type next. The recipe makes one optimizer update a step, and checkpoints count both.
fn next(dir: &Path, model: &Path, steps: u64) -> String {
    let adapter = dir.join(format!("checkpoints/step-{steps:08}-{steps:08}/adapter"));
    format!(
        "  everything is in {dir}: ledger run.sqlite, history events.jsonl, checkpoints/, logs/\n\n\
         what next\n  \
         crrl report {dir}\n  \
         crrl audit {dir}\n  \
         crrl tasks mine PATH/TO/REPO -o mined.jsonl      tasks from the bug fixes of a git history\n  \
         crrl config init && crrl train -f cluster.toml   your model, your tasks, every option\n  \
         crrl eval -f {config} --model {model} --adapter {adapter} --tasks {held_out}\n",
        dir = dir.display(),
        model = model.display(),
        config = dir.join("cluster.toml").display(),
        adapter = adapter.display(),
        held_out = dir.join("held-out.jsonl").display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_went_without_isolation_goes_on_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::new(folder.path());
        assert!(!went_without_isolation(&run), "there is no run");
        for wanted in [true, false] {
            let mut config = recipe::config(folder.path(), Path::new("models/small"), 0, 1);
            config.sandbox.run_without_isolation = wanted;
            let text = toml::to_string(&config).expect("plain data");
            std::fs::write(run.config_path(), text).expect("writable");
            assert_eq!(went_without_isolation(&run), wanted);
        }
    }
}
