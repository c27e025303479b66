//! What viewers cost a coordinator that handles messages and knows many actors.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crrl_cluster::host::prepare;
use crrl_cluster::{Mesh, MeshOptions, OperatorClient, OperatorError, Router, RunDir, StatusBoard};
use serde_json::json;

use crate::actor::{Load, Window};
use crate::made_work::{report, worker};
use crate::{harness, usage};

/// A configuration of the coordinator's run folder.
const CONFIG: &str = "[run]\ndir = \"RUN\"\n[learner]\nmicro_batch_tokens = 20000\n";

/// Past the idle timeout.
const SETTLED_AFTER: Duration = Duration::from_secs(4);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Nodes on the board.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Actors of each; each node reports once a second.
    #[arg(long, default_value_t = 10)]
    actors: usize,
    /// Viewers.
    #[arg(long, default_value_t = 1)]
    viewers: usize,
    /// Turns of without and with them.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Seconds of each.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// No results, only reports: what a viewer takes stands out from what the load takes.
    #[arg(long)]
    quiet: bool,
    /// Where the run folder is made.
    #[arg(long, default_value = "target/scale")]
    folder: PathBuf,
    /// Be a viewer of this run instead, and say every second what came: what this starts.
    #[arg(long, hide = true)]
    watch: Option<PathBuf>,
    /// Take one look and then do not read any more.
    #[arg(long, hide = true)]
    stalled: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.watch {
        Some(folder) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(watch(folder, args.stalled))
        }
        None => tokio::runtime::Runtime::new()?.block_on(measure(args)),
    }
}

/// A process that looks on.
struct Viewer(Child);

impl Viewer {
    fn start(run: &RunDir, stalled: bool) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("viewers").arg("--watch").arg(run.path()).stdout(Stdio::piped());
        if stalled {
            command.arg("--stalled");
        }
        let mut child = command.spawn().context("a viewer cannot be started")?;
        let said = child.stdout.take().context("its output is piped")?;
        let mut said = BufReader::new(said).lines();
        anyhow::ensure!(said.next().is_some(), "a viewer was not let in");
        let viewer = Self(child);
        std::thread::spawn(move || said.for_each(drop));
        Ok(viewer)
    }

    fn resident_kib(&self) -> u64 {
        usage::resident_kib(&self.0.id().to_string())
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // It may have left by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn watch(folder: &Path, stalled: bool) -> anyhow::Result<()> {
    let client = OperatorClient::connect(&RunDir::new(folder)).await?;
    let mut looks = client.subscribe().await?;
    looks.next().await?;
    println!("attached");
    std::io::stdout().flush()?;
    if stalled {
        std::future::pending::<()>().await;
    }
    loop {
        looks.next().await?;
    }
}

/// Keeps the board of many nodes moving, as they would.
fn fill(board: &StatusBoard, args: &Args) {
    let (board, nodes, actors) = (board.clone(), args.nodes, args.actors);
    std::thread::spawn(move || {
        let began = Instant::now();
        for beat in 0_u64.. {
            for at in 0..nodes {
                board.report(report(&worker(at), beat, actors, 1));
                let due = Duration::from_secs_f64(beat as f64 + at as f64 / nodes as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
    });
}

/// A window in which nothing but reports is handled.
fn look_on(time: Duration) -> Window {
    let (began, cpu) = (Instant::now(), usage::cpu());
    std::thread::sleep(time);
    Window { took: began.elapsed(), cpu: usage::cpu().saturating_sub(cpu), ..Window::default() }
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    let folder = tempfile::tempdir_in(std::path::absolute(&args.folder)?)?;
    let run = harness::run_dir(folder.path(), 32)?;
    std::fs::write(run.config_path(), CONFIG.replace("RUN", &run.path().display().to_string()))?;
    prepare::prepare(&run, &run.config()?)?;
    let board = StatusBoard::new();
    let options = MeshOptions::for_node(&run, &"coordinator".into())?;
    let mesh = Mesh::start(options, Router::new(), board.clone()).await?;
    fill(&board, args);
    let mut load = Load::start(&run, board, None, (100, 4, 1000, 0.0)).await?;
    let time = Duration::from_secs(args.seconds);
    let mut work = |time| {
        tokio::task::block_in_place(|| if args.quiet { Ok(look_on(time)) } else { load.run(time) })
    };
    work(time)?;

    let mut us: [Vec<f64>; 2] = Default::default();
    let mut busy_ms: [Vec<f64>; 2] = Default::default();
    let mut per_s: [Vec<f64>; 2] = Default::default();
    let mut resident: [Vec<f64>; 2] = Default::default();
    let (mut bytes_per_s, mut theirs_kib) = (Vec::new(), Vec::new());
    for turn in 0..args.turns {
        // The one that is first in one turn is second in the next.
        for with in [turn % 2, 1 - turn % 2] {
            let viewers: Vec<Viewer> = (0..with * args.viewers)
                .map(|_| Viewer::start(&run, false))
                .collect::<anyhow::Result<_>>()?;
            // The first picture comes at once, and viewers that were killed are sent to until they are
            // missed; what is measured is what comes after both.
            work(SETTLED_AFTER)?;
            let sent = mesh.viewer_bytes();
            let Window { results, took, cpu, .. } = work(time)?;
            us[with].push(cpu.as_secs_f64() * 1e6 / results.max(1) as f64);
            busy_ms[with].push(cpu.as_secs_f64() * 1e3 / took.as_secs_f64());
            per_s[with].push(results as f64 / took.as_secs_f64());
            resident[with].push(usage::resident_kib("self") as f64);
            if with == 1 {
                let sent = (mesh.viewer_bytes() - sent) as f64;
                bytes_per_s.push(sent / took.as_secs_f64() / args.viewers.max(1) as f64);
            }
            theirs_kib.extend(viewers.iter().map(|viewer| viewer.resident_kib() as f64));
        }
    }
    let median = |values: &mut [f64]| usage::quantile(values, 0.5);
    let [mut idle, mut looked_at] = busy_ms;
    let (idle, looked_at) = (median(&mut idle), median(&mut looked_at));
    let bytes_per_s = median(&mut bytes_per_s);
    if args.quiet {
        println!(
            "{}",
            json!({
                "bench": "viewers", "quiet": true, "viewers": args.viewers,
                "actors": args.nodes * args.actors, "turns": args.turns,
                "cpu_ms_per_s_without": idle, "cpu_ms_per_s_with": looked_at,
                "cpu_ms_per_s_per_viewer": (looked_at - idle) / args.viewers.max(1) as f64,
                "bytes_per_s_per_viewer": bytes_per_s,
            })
        );
        mesh.stop("measured").await;
        load.stop().await;
        return Ok(());
    }
    let [mut without, mut with] = us;
    let (without, with) = (median(&mut without), median(&mut with));
    let [mut slow, mut fast] = per_s;
    println!(
        "{}",
        json!({
            "bench": "viewers", "viewers": args.viewers, "actors": args.nodes * args.actors,
            "turns": args.turns,
            "cpu_us_per_result_without": without, "cpu_us_per_result_with": with,
            "costs_percent": 100.0 * (with - without) / without,
            "results_per_s_without": median(&mut slow), "results_per_s_with": median(&mut fast),
            "cpu_ms_per_s_without": idle, "cpu_ms_per_s_with": looked_at,
            "bytes_per_s_per_viewer": bytes_per_s,
            "memory_kib_per_viewer": (median(&mut resident[1].clone())
                - median(&mut resident[0].clone())) / args.viewers.max(1) as f64,
            "viewer_process_kib": median(&mut theirs_kib),
        })
    );
    let refused = crowd(&run).await?;
    let stalled = stall(&run, args.turns, &mut work)?;
    println!("{}", json!({ "bench": "viewers", "fifth": refused, "stalled": stalled }));
    mesh.stop("measured").await;
    load.stop().await;
    Ok(())
}

/// Four are let in; what the fifth is told.
async fn crowd(run: &RunDir) -> anyhow::Result<String> {
    let four: Vec<Viewer> =
        (0..4).map(|_| Viewer::start(run, false)).collect::<anyhow::Result<_>>()?;
    let client = OperatorClient::connect(run).await?;
    let told = match client.subscribe().await {
        Err(OperatorError::Refused(told)) => told,
        Err(error) => return Err(error.into()),
        Ok(_) => anyhow::bail!("a fifth viewer was let in"),
    };
    drop(four);
    client.close().await;
    Ok(told)
}

/// A viewer that is attached and never reads: the load goes on, and memory stays. With and without it
/// take turns, each long enough for it to be let go of.
fn stall(
    run: &RunDir,
    turns: usize,
    work: &mut impl FnMut(Duration) -> anyhow::Result<Window>,
) -> anyhow::Result<serde_json::Value> {
    let time = Duration::from_secs(10);
    let mut per_s: [Vec<f64>; 2] = Default::default();
    let mut grew_kib: [Vec<f64>; 2] = Default::default();
    for turn in 0..turns {
        // The one that is first in one turn is second in the next.
        for with in [turn % 2, 1 - turn % 2] {
            let before_kib = usage::resident_kib("self") as f64;
            let viewer = (with == 1).then(|| Viewer::start(run, true)).transpose()?;
            let Window { results, took, .. } = work(time)?;
            per_s[with].push(results as f64 / took.as_secs_f64());
            grew_kib[with].push(usage::resident_kib("self") as f64 - before_kib);
            drop(viewer);
        }
    }
    let median = |values: &mut [f64]| usage::quantile(values, 0.5);
    let [mut without, mut with] = per_s;
    let [mut grew_without, mut grew_with] = grew_kib;
    Ok(json!({
        "turns": turns,
        "results_per_s_without": median(&mut without), "results_per_s_with": median(&mut with),
        "grew_kib_without": median(&mut grew_without), "grew_kib_with": median(&mut grew_with),
    }))
}
