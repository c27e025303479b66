//! The coordinator's actor with its store on disk: every worker answers at once, so what is measured
//! is how fast the coordinator can be.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crrl_actors::coordinator::{Msg, Post};
use crrl_cluster::{Probes, StatusBoard};
use crrl_control::wire::{NodeRole, Wire};
use crrl_types::{EpisodeId, NodeName};
use ractor::ActorRef;
use serde_json::json;

use crate::made_work::{report, serving, task_of, trajectory, worker};
use crate::{harness, learner, usage};

/// Groups of one optimizer step.
const GROUPS_PER_STEP: u32 = 32;
/// A coordinator that says nothing for so long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workers, one run after the other.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,3000,10000")]
    workers: Vec<usize>,
    /// Episodes each works on at once.
    #[arg(long, default_value_t = 4)]
    capacity: u32,
    /// Tokens of a transcript.
    #[arg(long, default_value_t = 1000)]
    tokens: usize,
    /// Seconds to measure, after as many for warming up.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Reports a second from each worker.
    #[arg(long, default_value_t = 0.0)]
    reports: f64,
    /// Turns of with and without a probe, in place of one run; the rest is as given.
    #[arg(long, default_value_t = 0)]
    probe_turns: usize,
    /// Where run folders are made; a disk, not a RAM disk.
    #[arg(long, default_value = "target/scale")]
    folder: std::path::PathBuf,
}

/// A coordinator under load.
pub(crate) struct Load {
    actor: ActorRef<Msg>,
    board: StatusBoard,
    posted: Receiver<(NodeName, Wire)>,
    tokens: usize,
    reports_every: Option<Duration>,
    reported: Instant,
    workers: usize,
    /// When each result was sent, until it is acknowledged.
    sent: BTreeMap<EpisodeId, Instant>,
    beat: u64,
}

/// What came of a window of time.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(crate) results: u64,
    pub(crate) messages: u64,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    /// From a result's sending to its acknowledgement, milliseconds.
    pub(crate) acks_ms: Vec<f64>,
}

impl Load {
    /// Starts a coordinator and lets workers join.
    pub(crate) async fn start(
        run: &crrl_cluster::RunDir,
        board: StatusBoard,
        probes: Option<&Probes>,
        (workers, capacity, tokens, reports): (usize, u32, usize, f64),
    ) -> anyhow::Result<Self> {
        let (post, posted) = channel();
        let post = std::sync::Mutex::new(post);
        let post: Post = std::sync::Arc::new(move |to, wire| {
            let post = post.lock().expect("nothing panics under it");
            // At the end nobody listens any more.
            let _ = post.send((to.clone(), wire));
            Ok(())
        });
        let actor = harness::coordinator(run, board.clone(), post, probes).await?;
        learner::begin(&actor)?;
        for at in 0..workers {
            let (holding, serving) = (Vec::new(), Some(serving(0)));
            let join = Wire::Join { incarnation: 1, capacity, holding, serving };
            harness::say(&actor, &worker(at), NodeRole::Rollout, join)?;
        }
        let reports_every =
            (reports > 0.0).then(|| Duration::from_secs_f64(1.0 / (reports * workers as f64)));
        Ok(Self {
            actor,
            board,
            posted,
            tokens,
            reports_every,
            reported: Instant::now(),
            workers,
            sent: BTreeMap::new(),
            beat: 0,
        })
    }

    /// Answers everything at once, for so long.
    pub(crate) fn run(&mut self, time: Duration) -> anyhow::Result<Window> {
        let (began, cpu) = (Instant::now(), usage::cpu());
        let mut window = Window::default();
        while began.elapsed() < time {
            self.report(&mut window)?;
            let (to, wire) = self.posted.recv_timeout(SILENCE_MAX).context("it is stuck")?;
            match wire {
                Wire::Assign(assignment) => {
                    let attempt = assignment.attempt;
                    let ids = (assignment.episode, assignment.group);
                    let mut trajectory = Box::new(trajectory(ids, &to, self.tokens));
                    trajectory.task = task_of(&assignment.task_json);
                    self.sent.insert(assignment.episode, Instant::now());
                    let finished = Wire::Finished { attempt, trajectory };
                    harness::say(&self.actor, &to, NodeRole::Rollout, finished)?;
                    window.messages += 1;
                }
                Wire::Ack { episode, .. } => {
                    window.results += 1;
                    if let Some(sent) = self.sent.remove(&episode) {
                        window.acks_ms.push(sent.elapsed().as_secs_f64() * 1e3);
                    }
                }
                wire => learner::take(&self.actor, &wire)?,
            }
        }
        window.took = began.elapsed();
        window.cpu = usage::cpu().saturating_sub(cpu);
        Ok(window)
    }

    fn report(&mut self, window: &mut Window) -> anyhow::Result<()> {
        let Some(every) = self.reports_every else { return Ok(()) };
        while self.reported.elapsed() >= every {
            self.reported += every;
            self.beat += 1;
            let name = worker(self.beat as usize % self.workers);
            let report = report(&name, self.beat / self.workers as u64, 5, 4);
            // Past the actor, as in a mesh.
            self.board.report(report);
            window.messages += 1;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) {
        // It may have ended by itself; then there is nothing to wait for.
        let _ = self.actor.stop_and_wait(None, None).await;
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    for workers in &args.workers {
        if args.probe_turns > 0 {
            runtime.block_on(probe(args, *workers))?;
        } else {
            runtime.block_on(measure(args, *workers))?;
        }
    }
    Ok(())
}

async fn measure(args: &Args, workers: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    let folder = tempfile::tempdir_in(&args.folder)?;
    let run = harness::run_dir(folder.path(), GROUPS_PER_STEP)?;
    let shape = (workers, args.capacity, args.tokens, args.reports);
    let before_kib = usage::resident_kib("self");
    let mut load = Load::start(&run, StatusBoard::new(), None, shape).await?;
    let time = Duration::from_secs(args.seconds);
    tokio::task::block_in_place(|| load.run(time))?;
    let store = || std::fs::metadata(run.store()).map_or(0, |file| file.len());
    let (store_before, store_cpu) = (store(), usage::cpu_of_threads("store"));
    let mut window = tokio::task::block_in_place(|| load.run(time))?;
    let store_cpu = usage::cpu_of_threads("store").saturating_sub(store_cpu);
    let (took, results) = (window.took.as_secs_f64(), window.results as f64);
    println!(
        "{}",
        json!({
            "bench": "actor", "workers": workers, "capacity": args.capacity,
            "tokens": args.tokens, "reports_per_s": args.reports * workers as f64,
            "results_per_s": (results / took).round(),
            "messages_per_s": (window.messages as f64 / took).round(),
            "ack_ms_p50": usage::quantile(&mut window.acks_ms, 0.5),
            "ack_ms_p99": usage::quantile(&mut window.acks_ms, 0.99),
            // With what plays the workers.
            "cpu_us_per_result": window.cpu.as_secs_f64() * 1e6 / results,
            "store_cpu_us_per_result": store_cpu.as_secs_f64() * 1e6 / results,
            "cores": window.cpu.as_secs_f64() / took,
            "store_bytes_per_result": store().saturating_sub(store_before) as f64 / results,
            "memory_mib": usage::resident_kib("self").saturating_sub(before_kib) as f64 / 1024.0,
        })
    );
    load.stop().await;
    Ok(())
}

/// The same load in turns with and without a probe around the coordinator.
async fn probe(args: &Args, workers: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    let shape = (workers, args.capacity, args.tokens, args.reports);
    let mut us: [Vec<f64>; 2] = Default::default();
    for turn in 0..args.probe_turns {
        // The one that is first in one turn is second in the next.
        for with in [turn % 2, 1 - turn % 2] {
            let folder = tempfile::tempdir_in(&args.folder)?;
            let run = harness::run_dir(folder.path(), GROUPS_PER_STEP)?;
            let probes = Probes::default();
            let probes = (with == 1).then_some(&probes);
            let mut load = Load::start(&run, StatusBoard::new(), probes, shape).await?;
            let time = Duration::from_secs(args.seconds);
            tokio::task::block_in_place(|| load.run(time / 2))?;
            let window = tokio::task::block_in_place(|| load.run(time))?;
            us[with].push(window.cpu.as_secs_f64() * 1e6 / window.results.max(1) as f64);
            load.stop().await;
        }
    }
    let [mut without, mut with] = us;
    let (without, with) = (usage::quantile(&mut without, 0.5), usage::quantile(&mut with, 0.5));
    println!(
        "{}",
        json!({
            "bench": "probe", "workers": workers, "turns": args.probe_turns,
            "cpu_us_per_result_without": without, "cpu_us_per_result_with": with,
            "costs_percent": 100.0 * (with - without) / without,
        })
    );
    Ok(())
}
