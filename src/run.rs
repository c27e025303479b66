//! A run from the outside: prepare its folder, bring its cluster up, watch it, read what came of
//! it. Shared by `quickstart` and `train`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use crrl_cluster::changes::{Difference, differences, named};
use crrl_cluster::host::{self, Alone};
use crrl_cluster::remote::About;
use crrl_cluster::{OperatorClient, RunDir, Snapshot};
use crrl_config::{ClusterConfig, Role};
use crrl_control::plan::{Evaluate, PLAN_FILE, Phase, Plan, Train};
use crrl_control::results::{RESULTS_FILE, Results};
use crrl_store::Environment;
use crrl_store::error::LAST_GOOD;
use crrl_types::Sampling;

use crate::colour;
use crate::commands::failure::{Coded, describe, host_error, say};
use crate::display::lines::Lines;
use crate::display::screen::Screen;
use crate::display::table::{AFTER, BEFORE, GREEDY};
use crate::display::{NodeLine, Progress};
use crate::interrupt::Interrupt;
use crate::meter::{Meter, Quiet};

/// Time between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A cluster that answers nothing for this long is reported as gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A run that is about to be carried out.
pub(crate) struct Run {
    pub(crate) title: String,
    pub(crate) dir: PathBuf,
    pub(crate) config: ClusterConfig,
    pub(crate) plan: Plan,
    /// The command that continues it.
    pub(crate) resume: String,
}

/// How the watching ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every phase ended.
    Complete(Results),
    /// The person asked to stop; the run can be resumed.
    Interrupted,
}

/// The plan of a training run, the same whichever command starts or continues it.
pub(crate) fn plan_of(config: &ClusterConfig, greedy_tasks: u32) -> Plan {
    let mut plan = Plan::new(config.run.seed, phases(config, greedy_tasks));
    plan.limits.lease_ms = (config.rollout.lease_s * 1e3) as u64;
    plan.limits.on_loss = config.rollout.on_loss;
    plan.limits.kills_max = config.rollout.quarantine_after;
    plan
}

/// The phases of a training run with an evaluation on each side.
fn phases(config: &ClusterConfig, greedy_tasks: u32) -> Vec<Phase> {
    let sampling = Sampling {
        temperature: config.rollout.temperature,
        top_p: config.rollout.top_p,
        top_k: config.rollout.top_k,
        max_tokens: config.agent.turn_tokens_max,
        ..Sampling::default()
    };
    let evaluate = |label: &str, greedy: bool| {
        let tasks = config.tasks.held_out.clone()?;
        let temperature = if greedy { 0.0 } else { sampling.temperature };
        Some(Phase::Evaluate(Evaluate {
            label: label.to_owned(),
            tasks: absolute(&tasks),
            tasks_max: if greedy { greedy_tasks } else { 0 },
            samples: if greedy { 1 } else { config.tasks.held_out_samples },
            sampling: Sampling { temperature, ..sampling.clone() },
        }))
    };
    let greedy = |label| if greedy_tasks > 0 { evaluate(label, true) } else { None };
    let train = Phase::Train(Train {
        tasks: absolute(&config.tasks.train),
        steps: config.run.steps,
        group_size: config.rollout.group_size,
        groups_per_step: config.rollout.groups_per_step,
        sampling: sampling.clone(),
        staleness_max: config.rollout.staleness_max,
        stale: crrl_control::plan::StalePolicy::default(),
        sync: config.run.sync,
        skip_equal_groups: config.rollout.skip_equal_groups,
        staleness: config.rollout.staleness,
        stragglers: config.rollout.stragglers(),
    });
    [
        evaluate(BEFORE, false),
        greedy(GREEDY[0]),
        Some(train),
        evaluate(AFTER, false),
        greedy(GREEDY[1]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Tasks that a plan also evaluates greedily, as `plan_of` was told; 0 if it does not.
pub(crate) fn greedy_tasks(plan: &Plan) -> u32 {
    let greedy = plan.phases.iter().find_map(|phase| match phase {
        Phase::Evaluate(evaluate) if evaluate.label == GREEDY[0] => Some(evaluate.tasks_max),
        _ => None,
    });
    greedy.unwrap_or(0)
}

/// The plan that a run goes on with: the one it has, as long as the configuration asks for the same as when
/// the run was started; else the one it asks for now. `before` is the configuration of the run's folder.
pub(crate) fn plan_again(held: &Plan, before: Option<&ClusterConfig>, now: &ClusterConfig) -> Plan {
    let greedy = greedy_tasks(held);
    let wanted = plan_of(now, greedy);
    match before {
        Some(before) if plan_of(before, greedy) == wanted => held.clone(),
        _ => wanted,
    }
}

/// Options that two configurations do not agree on and that a plan is made from.
fn planned_otherwise(before: &ClusterConfig, now: &ClusterConfig) -> Vec<Difference> {
    let plan = plan_of(before, 0);
    let is_planned = |difference: &Difference| {
        difference.applied(before).is_some_and(|config| plan_of(&config, 0) != plan)
    };
    differences(before, now).into_iter().filter(is_planned).collect()
}

/// What the run of a folder has found so far; `None` before the first phase ended.
pub(crate) fn results_of(dir: &Path) -> anyhow::Result<Option<Results>> {
    let path = dir.join(RESULTS_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Spells every path of this machine out: the same must mean the same file in every process, whatever
/// folder it is started in.
pub(crate) fn spell_out(config: &mut ClusterConfig) {
    let ClusterConfig { run, model, tasks, .. } = config;
    for path in [&mut run.dir, &mut model.path, &mut tasks.train] {
        *path = absolute(path);
    }
    for path in [&mut model.adapter, &mut tasks.held_out] {
        *path = path.as_deref().map(absolute);
    }
}

/// The path from the root, so that it means the same in every process.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Run {
    /// Keeps others from bringing this run up, or changing its folder for that, as long as it is held.
    pub(crate) fn alone(&self) -> anyhow::Result<Alone> {
        host::alone(&RunDir::new(&self.dir)).map_err(host_error)
    }

    /// Whether the run's folder may be written into. With `resume` it must hold the same plan, or one of
    /// which nothing was begun; without, it must hold none.
    pub(crate) fn fits(&self, resume: bool) -> anyhow::Result<()> {
        let plan_path = self.dir.join(PLAN_FILE);
        let held = std::fs::read_to_string(&plan_path).ok();
        match (held, resume) {
            (Some(_), false) => {
                return Err(Coded::usage(format!(
                    "{} already holds a run: --resume continues it, --set run.dir=OTHER starts \
                     another",
                    self.dir.display()
                )));
            }
            (None, true) => {
                return Err(Coded::usage(format!(
                    "{} holds no run to resume; leave --resume out to start one",
                    self.dir.display()
                )));
            }
            (Some(text), true) => {
                let held = Plan::parse(&text)
                    .with_context(|| format!("{} cannot be resumed", plan_path.display()))?;
                if held != self.plan && self.has_begun() {
                    return Err(self.was_planned_otherwise(&held));
                }
            }
            (None, false) => {}
        }
        Ok(())
    }

    /// Whether a coordinator has begun with it.
    pub(crate) fn has_begun(&self) -> bool {
        let folder = RunDir::new(&self.dir);
        folder.events().exists() || folder.store().exists()
    }

    /// Tells which options the run was started with otherwise.
    fn was_planned_otherwise(&self, held: &Plan) -> anyhow::Error {
        let before = RunDir::new(&self.dir).config().map(|mut before| {
            spell_out(&mut before);
            before
        });
        let options = before.map(|before| planned_otherwise(&before, &self.config));
        let mut what = named(&options.unwrap_or_default());
        let (then, now) = (greedy_tasks(held), greedy_tasks(&self.plan));
        if what.is_empty() && then != now {
            what = format!("--greedy is {then} in the run and {now} now");
        }
        if !what.is_empty() {
            what = format!(" ({what})");
        }
        Coded::usage(format!(
            "the configuration no longer says what {} was started with{what}; put it back, or start \
             another run with --set run.dir=OTHER",
            self.dir.display()
        ))
    }

    /// Writes configuration and plan into the run's folder, if [`Run::fits`] has nothing against it.
    /// `_alone` keeps others from doing so meanwhile.
    pub(crate) fn prepare(&self, resume: bool, _alone: &Alone) -> anyhow::Result<()> {
        self.fits(resume)?;
        let plan_path = self.dir.join(PLAN_FILE);
        let text = toml::to_string(&self.config).context("the configuration cannot be written")?;
        crrl_cluster::run_dir::write_atomic(&self.dir.join("cluster.toml"), text.as_bytes())?;
        crrl_cluster::run_dir::write_atomic(&plan_path, self.plan.to_json().as_bytes())?;
        environment(&self.config).append(&self.dir)?;
        Ok(())
    }

    /// Why the last life of the run ended is no longer true. To be called once the ledger is chosen:
    /// results that are damaged are made again with it. `_alone` as for [`Run::prepare`].
    pub(crate) fn forget_error(&self, _alone: &Alone) -> anyhow::Result<()> {
        if let Some(results) = self.results()?
            && results.error.is_some()
        {
            let results = Results { error: None, ..results };
            let text = serde_json::to_vec_pretty(&results)?;
            crrl_cluster::run_dir::write_atomic(&self.dir.join(RESULTS_FILE), &text)?;
        }
        Ok(())
    }

    /// Brings the cluster up, shows it until the plan is carried out, and takes it down. The
    /// cluster goes away with this process, however it ends.
    pub(crate) fn carry_out(&self, alone: Alone, quiet: Quiet) -> anyhow::Result<Outcome> {
        if let Some(results) = self.results()?.filter(|results| results.complete) {
            return Ok(Outcome::Complete(results));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut interrupt = {
            let _inside = runtime.enter();
            Interrupt::listen().context("signals cannot be listened to")?
        };
        let run_dir = RunDir::new(&self.dir);
        let starting = Meter::start(quiet, "starting the cluster", "", 0);
        let (_, tie) = host::up_tied(&run_dir, &alone).map_err(host_error)?;
        drop(alone);
        drop(starting);
        let outcome = runtime.block_on(async {
            tokio::select! {
                () = interrupt.said() => Ok(Outcome::Interrupted),
                outcome = self.watch(&run_dir, quiet.quiet) => outcome,
            }
        });
        let leaving = Meter::start(quiet, "taking the cluster down", "", 0);
        let down = host::down(&run_dir);
        drop(leaving);
        drop(tie);
        match outcome {
            Ok(Outcome::Interrupted) => {
                say(&format!("stopped; nothing is lost. To continue:\n  {}", self.resume));
                down.map_err(host_error)?;
                Ok(Outcome::Interrupted)
            }
            Ok(outcome) => {
                down.map_err(host_error)?;
                Ok(outcome)
            }
            Err(error) => {
                let said = describe(&error);
                // Nodes say in words alone that it is the ledger.
                Err(if said.contains(LAST_GOOD) {
                    anyhow::anyhow!(
                        "{said}\n  to continue from its last good copy: {} {LAST_GOOD}",
                        self.resume
                    )
                } else {
                    anyhow::anyhow!("{said}\n  once that is mended, to continue: {}", self.resume)
                })
            }
        }
    }

    async fn watch(&self, run_dir: &RunDir, quiet: bool) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut client: Option<OperatorClient> = None;
        let mut heard = Instant::now();
        let mut progress = Progress {
            title: self.title.clone(),
            run_dir: self.dir.display().to_string(),
            steps: self.plan.steps(),
            phase: "starting".into(),
            ..Progress::default()
        };
        let mut view = View::open(quiet)?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // Before the results are read: a host that ends leaves them behind.
            let host_runs = host::host_pid(run_dir)?.is_some();
            if let Some(results) = self.results()?
                && (results.complete || results.error.is_some())
            {
                drop(view);
                return match results.error {
                    None => Ok(Outcome::Complete(results)),
                    Some(reason) => Err(anyhow::anyhow!("the run ended early: {reason}")),
                };
            }
            if client.is_none() {
                client = OperatorClient::connect(run_dir).await.ok();
            }
            let snapshot = match &client {
                Some(connected) => connected.status().await.ok(),
                None => None,
            };
            match snapshot {
                Some(snapshot) => {
                    heard = Instant::now();
                    fold(&mut progress, &snapshot, &self.config, run_dir);
                }
                None => client = None,
            }
            progress.notice = notice(run_dir, host_runs, heard)?;
            progress.elapsed = started.elapsed();
            if view.show(&progress)? {
                return Ok(Outcome::Interrupted);
            }
        }
    }

    /// What the run has found so far; `None` before the first phase ended.
    pub(crate) fn results(&self) -> anyhow::Result<Option<Results>> {
        results_of(&self.dir)
    }
}

/// What the run is started on, for its report.
fn environment(config: &ClusterConfig) -> Environment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let gpu = config.nodes().iter().any(|n| n.is_local() && config.device_of(n) == "cuda");
    let about = About::this(gpu, None).ok();
    let (digest, gpu) = about.map(|about| (about.digest, about.gpu)).unwrap_or_default();
    let program = digest.chars().take(12).collect();
    let gpu = gpu.map(|gpu| gpu.unwrap_or_else(|why| why));
    Environment::here(at_ms, env!("CARGO_PKG_VERSION"), program, gpu)
}

/// What became of a node that is not started again.
pub(crate) fn given_up(restarts: u32) -> String {
    match restarts {
        0 => "cannot go on".to_owned(),
        1 => "was given up after 1 restart".to_owned(),
        restarts => format!("was given up after {restarts} restarts"),
    }
}

/// What a person should know about a cluster that does not answer; an error where it is over.
fn notice(run_dir: &RunDir, host_runs: bool, heard: Instant) -> anyhow::Result<String> {
    // A full disk may leave the file torn; then nothing is known.
    let nodes = host::state(run_dir).map(|state| state.nodes).unwrap_or_default();
    if let Some(node) = nodes.iter().find(|node| node.given_up) {
        anyhow::bail!(
            "node {} {}: {}\n  its log: {}",
            node.name,
            given_up(node.restarts),
            node.last_exit.as_deref().unwrap_or("no reason known"),
            run_dir.log(node.name.as_str()).display()
        );
    }
    if !host_runs {
        anyhow::bail!(
            "every process of the run has ended, and none has said why; their logs: {}",
            run_dir.logs().display()
        );
    }
    let silent = heard.elapsed();
    if silent > SILENCE_MAX {
        anyhow::bail!(
            "the coordinator has not answered for {} s; its log: {}",
            silent.as_secs(),
            run_dir.log("coordinator").display()
        );
    }
    Ok(if silent > Duration::from_secs(3) {
        format!("no answer from the coordinator for {} s", silent.as_secs())
    } else {
        String::new()
    })
}

/// The screen, plain lines, or nothing.
enum View {
    Screen(Box<Screen>),
    Lines(Lines),
    Quiet,
}

impl View {
    fn open(quiet: bool) -> anyhow::Result<Self> {
        Ok(if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() && std::io::stdin().is_terminal() {
            Self::Screen(Box::new(Screen::open(colour::on_stderr())?))
        } else {
            Self::Lines(Lines::new())
        })
    }

    fn show(&mut self, progress: &Progress) -> std::io::Result<bool> {
        match self {
            Self::Screen(screen) => screen.show(progress),
            Self::Lines(lines) => {
                lines.show(progress);
                Ok(false)
            }
            Self::Quiet => Ok(false),
        }
    }
}

fn fold(progress: &mut Progress, snapshot: &Snapshot, config: &ClusterConfig, run_dir: &RunDir) {
    let seen = &snapshot.progress;
    let (phase, counts) = split_phase(&seen.phase);
    progress.phase = phase;
    if seen.phase.starts_with("train") && progress.training_since.is_none() {
        progress.training_since = Some(progress.elapsed);
    }
    progress.step = seen.step;
    progress.steps = seen.steps;
    progress.episodes = counts.unwrap_or((seen.episodes.finished, 0));
    progress.reward = Progress::curve(seen.history.iter().map(|p| (p.step, p.reward, p.attempts)));
    progress.success =
        Progress::curve(seen.history.iter().map(|p| (p.step, p.success, p.attempts)));
    progress.metrics.clone_from(&seen.metrics);
    let lines: Vec<String> = seen.lines.iter().cloned().collect();
    progress.set_episode(&lines);
    let restarts = host::state(run_dir).map(|state| state.nodes).unwrap_or_default();
    progress.nodes = config
        .nodes()
        .into_iter()
        .map(|node| {
            let report = snapshot.nodes.iter().find(|r| r.node.as_str() == node.name);
            let host = restarts.iter().find(|h| h.name.as_str() == node.name);
            NodeLine {
                role: node.roles.iter().map(role_name).collect::<Vec<_>>().join("+"),
                state: report
                    .map_or("starting".into(), |r| format!("{:?}", r.state).to_lowercase()),
                adapter_version: report.map_or(0, |r| r.adapter_version.0),
                tokens_per_s: report.map_or(0.0, |r| f64::from(r.tokens_per_s)),
                activity: report.map_or(String::new(), |r| r.activity.clone()),
                restarts: host.map_or(0, |h| h.restarts),
                name: node.name,
            }
        })
        .collect();
}

/// `evaluating before (3/300)` is a phase and how far it is.
fn split_phase(text: &str) -> (String, Option<(u64, u64)>) {
    let counted = || {
        let (phase, rest) = text.strip_suffix(')')?.rsplit_once(" (")?;
        let (done, all) = rest.split_once('/')?;
        Some((phase.to_owned(), (done.parse().ok()?, all.parse().ok()?)))
    };
    counted().map_or_else(|| (text.to_owned(), None), |(phase, counts)| (phase, Some(counts)))
}

fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Coordinator => "coordinator",
        Role::ParameterServer => "params",
        Role::Learner => "learner",
        Role::Rollout => "rollout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_as_patient_as_the_configuration_says() {
        let mut config = ClusterConfig::default();
        let usual = plan_of(&config, 0);
        assert_eq!(usual.limits, crrl_control::plan::Limits::default());
        config.run.seed = 7;
        config.rollout.lease_s = 30.5;
        config.rollout.on_loss = crrl_types::OnLoss::Restart;
        config.rollout.quarantine_after = 9;
        let Plan { seed, limits, .. } = plan_of(&config, 0);
        let said = (seed, limits.lease_ms, limits.on_loss, limits.kills_max);
        assert_eq!(said, (7, 30_500, crrl_types::OnLoss::Restart, 9));
    }

    #[test]
    fn a_run_goes_on_with_its_plan_as_long_as_the_configuration_asks_for_it() {
        let mut before = ClusterConfig::default();
        before.tasks.held_out = Some("/held-out.jsonl".into());
        // With what only a command line says, as `train --greedy` and the quickstart do.
        let held = plan_of(&before, 5);
        let mut now = before.clone();
        now.learner.learning_rate = 0.5;
        assert_eq!(plan_again(&held, Some(&before), &now), held);
        // A plan that somebody wrote stays as well.
        let mut own = held.clone();
        own.limits.attempts_max = 9;
        assert_eq!(plan_again(&own, Some(&before), &now), own);
        now.run.steps += 1;
        now.rollout.temperature = 0.5;
        let again = plan_again(&own, Some(&before), &now);
        assert_eq!(again, plan_of(&now, 5));
        let keys: Vec<String> =
            planned_otherwise(&before, &now).into_iter().map(|option| option.key).collect();
        assert_eq!(keys, ["run.steps", "rollout.temperature"], "learner.* is not planned");
    }

    /// A run with this configuration in a folder that holds `held` as its plan.
    fn of(folder: &Path, before: &ClusterConfig, held: &Plan, config: ClusterConfig) -> Run {
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).expect("writable");
        };
        write(PLAN_FILE, held.to_json());
        write("cluster.toml", toml::to_string(before).expect("plain data"));
        let plan = plan_again(held, Some(before), &config);
        let (title, resume) = (String::new(), String::new());
        Run { title, dir: folder.to_owned(), config, plan, resume }
    }

    #[test]
    fn what_a_run_was_started_with_is_named_once_it_has_begun() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut before = ClusterConfig::default();
        before.tasks.train = "/tasks.jsonl".into();
        spell_out(&mut before);
        let held = plan_of(&before, 0);
        let mut now = before.clone();
        now.run.steps = 7;
        let run = of(folder.path(), &before, &held, now);
        // Nothing of it was begun: it simply takes the new plan.
        run.fits(true).expect("nothing is lost");
        std::fs::write(RunDir::new(folder.path()).events(), "").expect("writable");
        let refused = run.fits(true).expect_err("it has begun").to_string();
        let steps = format!("(run.steps is {} in the run and 7 now)", before.run.steps);
        assert!(refused.contains(&steps) && refused.contains("put it back"), "{refused}");
        let same = Run { config: before.clone(), plan: held.clone(), ..run };
        same.fits(true).expect("it says the same");
        assert!(same.fits(false).is_err(), "the folder holds a run");
        let greedy = Run { plan: plan_of(&held_out(&before), 3), ..same };
        let refused = greedy.fits(true).expect_err("another plan").to_string();
        assert!(refused.contains("--greedy is 0 in the run and 3 now"), "{refused}");
    }

    fn held_out(config: &ClusterConfig) -> ClusterConfig {
        let mut config = config.clone();
        config.tasks.held_out = Some("/held-out.jsonl".into());
        config
    }

    #[test]
    fn a_phase_with_a_count_is_taken_apart() {
        assert_eq!(
            split_phase("evaluating before, greedy (3/300)"),
            ("evaluating before, greedy".to_owned(), Some((3, 300)))
        );
        assert_eq!(split_phase("training"), ("training".to_owned(), None));
    }
}
