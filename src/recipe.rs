//! The quickstart's recipe: which policy, which tasks, which options. What this
//! setting came to, with its spread, is in docs/QUICKSTART.md; single options were not compared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use crrl_actors::settings;
use crrl_config::{
    AgentSection, ClusterConfig, LearnerSection, LoraSection, ModelSection, Objective,
    RolloutSection, RunSection, SandboxSection, Schedule, TasksSection,
};
use crrl_rl::reward::RewardOptions;
use crrl_sandbox::{LocalBackend, Unavailable};
use crrl_tasks::TaskSet;
use crrl_types::{Split, Task};

use crate::commands::failure::{Coded, say};

/// Optimizer steps.
pub(crate) const STEPS: u64 = 30;
/// Held-out tasks that are also measured greedily.
pub(crate) const GREEDY_TASKS: u32 = 200;
/// Tasks to train on at most.
const TRAIN_TASKS: usize = 2_000;
/// Held-out tasks at most.
const HELD_OUT_TASKS: usize = 300;
/// Attempts at each held-out task.
const HELD_OUT_SAMPLES: u32 = 2;
/// Tokens of an episode: the policy's context.
const TOKENS_MAX: u32 = 512;

/// What the quickstart needs beforehand.
pub(crate) fn preflight() -> anyhow::Result<()> {
    for (program, why) in [
        ("git", "every episode works in a git repository"),
        ("bash", "the agent's shell"),
        ("grep", "how the policy reads code"),
    ] {
        let found =
            Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        if !found {
            return Err(Coded::preflight(format!(
                "{program} is not on the PATH ({why}); install it with the system's package manager"
            )));
        }
    }
    Ok(())
}

/// Opens a sandbox and closes it: where none can be had, that is better said now than by every node once
/// tasks are made.
pub(crate) fn probe_sandbox(section: &SandboxSection) -> anyhow::Result<()> {
    match LocalBackend::new(settings::sandbox(section)) {
        Ok(backend) => {
            if !backend.isolated() {
                say("NO ISOLATION: what the policy types runs as you, on your files and network");
            }
            Ok(())
        }
        Err(error @ Unavailable::Layer { .. }) => Err(Coded::preflight(format!(
            "{error}\n  what a sandbox needs is in docs/SANDBOX.md; --run-without-isolation goes on without"
        ))),
        Err(error) => Err(Coded::preflight(error.to_string())),
    }
}

/// The shipped policy: `CRRL_SMALL_POLICY`, or models/small here, or in the source tree this
/// binary was built from.
pub(crate) fn find_model() -> anyhow::Result<PathBuf> {
    let candidates = [
        std::env::var_os("CRRL_SMALL_POLICY").map(PathBuf::from),
        Some(PathBuf::from("models/small")),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/small")),
    ];
    for candidate in candidates.iter().flatten() {
        if candidate.join("config.json").is_file() {
            return Ok(crate::run::absolute(candidate));
        }
    }
    Err(Coded::preflight(
        "there is no policy in models/small: scripts/train-small-policy.sh makes one from nothing \
         (about twenty minutes on two cores), and CRRL_SMALL_POLICY names one that lies elsewhere",
    ))
}

/// The tree tasks are made from, and what to call it.
pub(crate) fn find_source(given: Option<&Path>) -> anyhow::Result<(PathBuf, String)> {
    if let Some(given) = given {
        return Ok((given.to_owned(), given.display().to_string()));
    }
    if let Some(stdlib) = crrl_tasks::find_stdlib() {
        let name = format!("Python's standard library ({})", stdlib.display());
        return Ok((stdlib, name));
    }
    for root in [Path::new("."), Path::new(env!("CARGO_MANIFEST_DIR"))] {
        let shipped = root.join("examples/pytree");
        if shipped.is_dir() {
            return Ok((shipped, "the tree that ships with the project (no Python found)".into()));
        }
    }
    Err(Coded::preflight(
        "no Python standard library and no examples/pytree: name a Python source tree with --source",
    ))
}

/// Writes `train.jsonl` and `held-out.jsonl` into the run's folder; gives their sizes.
pub(crate) fn make_tasks(source: &Path, config: &ClusterConfig) -> anyhow::Result<(usize, usize)> {
    let seed = config.run.seed;
    let side = |split: Split, max: usize| -> anyhow::Result<TaskSet> {
        let options = crrl_tasks::small_policy::tasks(split, seed, max);
        let made = crrl_tasks::mutate(source, &options)?;
        Ok(TaskSet { tasks: made.tasks })
    };
    let train = side(Split::Train, TRAIN_TASKS).context("no tasks to train on")?;
    let held_out = side(Split::HeldOut, HELD_OUT_TASKS).context("no held-out tasks")?;
    no_leak(&train.tasks, &held_out.tasks)?;
    std::fs::create_dir_all(&config.run.dir)
        .with_context(|| format!("cannot make the run folder {}", config.run.dir.display()))?;
    train.save(&config.tasks.train)?;
    let path = config.tasks.held_out.as_ref().context("the recipe names a held-out file")?;
    held_out.save(path)?;
    Ok((train.tasks.len(), held_out.tasks.len()))
}

/// A file on both sides would make the measurement worthless; checked, not assumed.
fn no_leak(train: &[Task], held_out: &[Task]) -> anyhow::Result<()> {
    let files = |tasks: &[Task]| -> BTreeMap<String, String> {
        let file = |task: &Task| match &task.origin {
            crrl_types::Origin::Mutated { path, .. } => {
                Some((path.clone(), task.instance_id.0.clone()))
            }
            _ => None,
        };
        tasks.iter().filter_map(file).collect()
    };
    let train = files(train);
    for (path, task) in files(held_out) {
        anyhow::ensure!(
            !train.contains_key(&path),
            "{path} is on both sides of the split (task {task}); this is a fault of crrl's"
        );
    }
    Ok(())
}

/// Every option of the quickstart.
pub(crate) fn config(dir: &Path, model: &Path, seed: u64, steps: u64) -> ClusterConfig {
    ClusterConfig {
        run: RunSection { dir: dir.to_owned(), steps, seed, ..RunSection::default() },
        model: ModelSection { path: model.to_owned(), ..ModelSection::default() },
        tasks: TasksSection {
            train: dir.join("train.jsonl"),
            held_out: Some(dir.join("held-out.jsonl")),
            held_out_samples: HELD_OUT_SAMPLES,
        },
        agent: AgentSection {
            prompt: "brief".into(),
            calls_max: 4,
            tokens_max: TOKENS_MAX,
            turn_tokens_max: 160,
            time_max_s: 30.0,
            output_chars_max: 800,
            nudges_max: 0,
        },
        rollout: RolloutSection {
            group_size: 8,
            groups_per_step: 16,
            concurrency: 48,
            lease_s: 60.0,
            ..RolloutSection::default()
        },
        learner: LearnerSection {
            objective: Objective::Dapo,
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            warmup_steps: 2,
            micro_batch_tokens: 8_192,
            ..LearnerSection::default()
        },
        lora: LoraSection { rank: 16, alpha: 32.0, ..LoraSection::default() },
        // An edit that finds its text is a step on the way: without it most groups of the first
        // steps would earn nothing at all and teach nothing.
        reward: RewardOptions { edit: 0.2, ..RewardOptions::default() },
        ..ClusterConfig::default()
    }
}
