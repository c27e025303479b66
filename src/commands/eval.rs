//! `crrl eval`: a policy on a task file, in this process, without a cluster.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use crrl_actors::repair::{Attempt, Repairer};
use crrl_actors::{node, settings};
use crrl_control::plan::episode_seed;
use crrl_eval::TaskOutcomes;
use crrl_tasks::TaskSet;
use crrl_types::{AdapterVersion, EpisodeId, GroupId, NodeName, Sampling, Trajectory};
use futures::StreamExt as _;

use super::config::Source;
use crate::meter::{Meter, Quiet};
use crate::requirements::{Problem, model_is_named};
use crate::run::absolute;

/// Resamples of the bootstrap.
const RESAMPLES: u32 = 10_000;

/// Arguments of `crrl eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// Model folder; without it, the configuration's.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// PEFT adapter folder.
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// Task file; without it, the configuration's held-out file.
    #[arg(long, value_name = "FILE")]
    tasks: Option<PathBuf>,
    /// Attempts at each task.
    #[arg(long, default_value_t = 1)]
    samples: u32,
    /// The first so many tasks only.
    #[arg(long, value_name = "N")]
    tasks_max: Option<usize>,
    /// Take the most likely token each time instead of sampling.
    #[arg(long)]
    greedy: bool,
    /// Write every trajectory here, JSONL.
    #[arg(long, value_name = "FILE")]
    trajectories: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    quiet: Quiet,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut config = args.source.load()?;
    config.model.path = absolute(args.model.as_ref().unwrap_or(&config.model.path));
    model_is_named(&config.model.path).map_err(Problem::refusal)?;
    let file = args
        .tasks
        .clone()
        .or_else(|| config.tasks.held_out.clone())
        .context("no task file: give --tasks, or tasks.held_out in the configuration")?;
    let mut set = TaskSet::load(&file)?;
    set.tasks.truncate(args.tasks_max.unwrap_or(usize::MAX));
    let sampling = Sampling {
        temperature: if args.greedy { 0.0 } else { config.rollout.temperature },
        top_p: config.rollout.top_p,
        top_k: config.rollout.top_k,
        max_tokens: config.agent.turn_tokens_max,
        ..Sampling::default()
    };
    settings::set_threads(std::thread::available_parallelism().map_or(1, usize::from))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let started = Instant::now();
    let trajectories = runtime.block_on(async {
        let cache = tempfile::tempdir().context("no temporary folder for sandbox templates")?;
        let name = NodeName::from("eval");
        let loading = Meter::start(args.quiet, "loading the model", "", 0);
        let repairer = node::local_repairer(&config, cache.path(), name).await?;
        drop(loading);
        if let Some(dir) = args.adapter.as_ref().or(config.model.adapter.as_ref()) {
            activate(&repairer, dir).await?;
        }
        roll_out(args, &config, &repairer, set, &sampling).await
    })?;
    report(args, &trajectories, started.elapsed().as_secs_f64())
}

async fn activate(repairer: &Repairer, dir: &std::path::Path) -> anyhow::Result<()> {
    let weights = crrl_model::peft::load(dir)?;
    let bytes = weights.to_bytes(crrl_model::FileDtype::F32);
    let base = repairer.engine().base_digest();
    let manifest = weights.manifest(&bytes, crrl_model::FileDtype::F32, AdapterVersion(1), base);
    repairer.engine().activate(manifest, bytes).await?;
    Ok(())
}

async fn roll_out(
    args: &Args,
    config: &crrl_config::ClusterConfig,
    repairer: &Repairer,
    set: TaskSet,
    sampling: &Sampling,
) -> anyhow::Result<Vec<Trajectory>> {
    let total = set.tasks.len() * args.samples as usize;
    let attempts = set.tasks.into_iter().enumerate().flat_map(|(group, task)| {
        let task = Arc::new(task);
        (0..args.samples).map(move |sample| (group as u64, sample, Arc::clone(&task)))
    });
    let mut running = futures::stream::iter(attempts.enumerate().map(|(index, attempt)| {
        let (group, sample, task) = attempt;
        let seed = episode_seed(config.run.seed, &task.instance_id, sample, 0);
        let attempt = Attempt {
            episode: EpisodeId(index as u64),
            group: GroupId(group),
            task: Arc::unwrap_or_clone(task),
            sampling: Sampling { seed, ..sampling.clone() },
            time_max: None,
        };
        let repairer = repairer.clone();
        async move { repairer.repair(attempt).await }
    }))
    .buffer_unordered(config.rollout.concurrency as usize);
    let mut done = Vec::with_capacity(total);
    let mut failed = 0_usize;
    let meter = Meter::start(args.quiet, "rolling out", "episodes", total as u64);
    let count = meter.count();
    let mut solved = 0_usize;
    while let Some(outcome) = running.next().await {
        match outcome {
            Ok(trajectory) => {
                solved += usize::from(trajectory.reward.success);
                done.push(trajectory);
                let share = 100.0 * solved as f64 / done.len() as f64;
                count.say(format!("{share:.1} % repaired"));
            }
            Err(error) => {
                failed += 1;
                meter.warn(&format!("crrl eval: an episode could not be rolled out: {error}"));
                anyhow::ensure!(
                    failed < 20,
                    "{failed} episodes could not be rolled out; giving up"
                );
            }
        }
        count.at((done.len() + failed) as u64);
    }
    done.sort_by_key(|trajectory| trajectory.episode);
    Ok(done)
}

fn report(args: &Args, trajectories: &[Trajectory], wall_s: f64) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.trajectories {
        let refuse = || format!("cannot write {}", path.display());
        let mut file = std::io::BufWriter::new(std::fs::File::create(path).with_context(refuse)?);
        for trajectory in trajectories {
            writeln!(file, "{}", serde_json::to_string(trajectory)?).with_context(refuse)?;
        }
        file.flush().with_context(refuse)?;
    }
    let mut outcomes = TaskOutcomes::default();
    for trajectory in trajectories {
        outcomes.add(&trajectory.task, &trajectory.reward);
    }
    let measured = outcomes.measured().context("no episode was rolled out")?;
    let rewards: Vec<f64> = outcomes.paired_rewards(&outcomes).iter().map(|p| p.0).collect();
    let interval =
        crrl_eval::mean_bootstrap(&rewards, RESAMPLES, 0).context("rewards are not finite")?;
    let tokens: usize = trajectories.iter().map(Trajectory::generated_len).sum();
    if args.json {
        let value = serde_json::json!({
            "reward": measured.reward,
            "reward_ci95": [interval.low, interval.high],
            "success": measured.success,
            "success_any": measured.success_any,
            "n": measured.n,
            "attempts": measured.attempts,
            "generated_tokens": tokens,
            "wall_s": wall_s,
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        println!(
            "reward {:.3} [{:.3}, {:.3}]   repaired {:.1} %   any of {}: {:.1} %   {} tasks, {:.0} s, {:.0} tokens/s",
            measured.reward,
            interval.low,
            interval.high,
            100.0 * measured.success,
            args.samples,
            100.0 * measured.success_any,
            measured.n,
            wall_s,
            tokens as f64 / wall_s,
        );
    }
    Ok(ExitCode::SUCCESS)
}
