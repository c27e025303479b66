//! The coordinator with its mesh, and workers over QUIC on loopback; a tenth of them is killed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crrl_actors::coordinator::{Msg, Post, takes};
use crrl_cluster::{Mesh, MeshEvent, MeshOptions, Router, RunDir, StatusBoard};
use crrl_control::wire::Wire;
use crrl_transport::Authority;
use crrl_types::{EpisodeId, NodeName};
use ractor::ActorRef;
use serde_json::json;

use crate::made_work::{GROUP_SIZE, worker};
use crate::worker::Manner;
use crate::{harness, learner, usage};

/// Workers that are not all there after so long never will be.
const CONNECT_MAX: Duration = Duration::from_secs(300);
/// Work that was not handed out again after so long is lost.
const AGAIN_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workers.
    #[arg(long, default_value_t = 1000)]
    workers: usize,
    /// Processes they are in; one of them is killed.
    #[arg(long, default_value_t = 10)]
    processes: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// Where the run folder is made; a disk, not a RAM disk.
    #[arg(long, default_value = "target/scale")]
    folder: PathBuf,
    #[command(flatten)]
    manner: Manner,
}

/// What goes out and comes in, as far as it is measured.
#[derive(Default)]
struct Seen {
    /// Episodes that are out, and where.
    leases: HashMap<EpisodeId, NodeName>,
    /// Those whose worker was killed, and who that was.
    lost: BTreeMap<EpisodeId, NodeName>,
    /// When such were handed out again.
    again: Vec<(NodeName, Instant)>,
    results: u64,
}

/// Processes that end with the benchmark, however it ends.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have been killed already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.folder)?;
    let folder = tempfile::tempdir_in(&args.folder)?;
    let groups = (args.workers as u32 * args.manner.capacity / GROUP_SIZE / 4).clamp(4, 256);
    let run = harness::run_dir(folder.path(), groups)?;
    certify(&run, args.workers)?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (mesh, board, actor) = start(&run, &seen).await?;
    let mut events = mesh.events();
    let downs = Arc::new(Mutex::new(BTreeMap::new()));
    tokio::spawn({
        let downs = Arc::clone(&downs);
        async move {
            while let Ok(event) = events.recv().await {
                if let MeshEvent::PeerDown { name, .. } = event {
                    let mut downs = downs.lock().expect("nothing panics under it");
                    downs.entry(name).or_insert_with(Instant::now);
                }
            }
        }
    });

    let before_kib = usage::resident_kib("self");
    let (began, cpu) = (Instant::now(), usage::cpu());
    let mut processes = spawn(args, &run, mesh.local_addr()?)?;
    while mesh.peers().len() < args.workers {
        let there = mesh.peers().len();
        anyhow::ensure!(began.elapsed() < CONNECT_MAX, "only {there} workers came");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (connect_s, connect_cpu) = (began.elapsed(), usage::cpu().saturating_sub(cpu));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let workers = args.workers as f64;
    let memory_kib = usage::resident_kib("self").saturating_sub(before_kib) as f64 / workers;
    let theirs: u64 =
        processes.0.iter().map(|child| usage::resident_kib(&child.id().to_string())).sum();

    let names = ["net-", "store", "tokio"];
    let threads = || names.map(usage::cpu_of_threads);
    let counts = || {
        let results = seen.lock().expect("nothing panics under it").results;
        (results, reports_of(&board))
    };
    let (began, cpu, of_threads, (results, reports)) =
        (Instant::now(), usage::cpu(), threads(), counts());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let took = began.elapsed().as_secs_f64();
    let cores = usage::cpu().saturating_sub(cpu).as_secs_f64() / took;
    let shares: Vec<f64> = threads()
        .into_iter()
        .zip(of_threads)
        .map(|(now, then)| now.saturating_sub(then).as_secs_f64() / took)
        .collect();
    let (results, reports) = (counts().0 - results, counts().1.saturating_sub(reports));
    let messages = results + reports;

    let killed = kill(args, &mut processes, &seen, &downs).await?;
    println!(
        "{}",
        json!({
            "bench": "network", "workers": args.workers, "capacity": args.manner.capacity,
            "think_ms": args.manner.think_ms, "tokens": args.manner.tokens,
            "reported_actors": args.manner.actors,
            "connect_s": connect_s.as_secs_f64(),
            "connect_cpu_ms_per_worker": connect_cpu.as_secs_f64() * 1e3 / workers,
            "memory_kib_per_worker": memory_kib,
            "memory_kib_per_simulated_worker": theirs as f64 / workers,
            "results_per_s": results as f64 / took, "reports_per_s": reports as f64 / took,
            "cores": cores,
            "cores_quic": shares[0], "cores_store": shares[1], "cores_actors": shares[2],
            "cpu_us_per_message": cores * took * 1e6 / messages.max(1) as f64,
            "killed": killed,
        })
    );
    drop(processes);
    mesh.stop("measured").await;
    // It may have ended by itself; then there is nothing to wait for.
    let _ = actor.stop_and_wait(None, None).await;
    Ok(())
}

fn certify(run: &RunDir, workers: usize) -> anyhow::Result<()> {
    let authority = Authority::open_or_create(&run.tls())?;
    authority.issue(&"coordinator".into(), &["coordinator".to_owned()])?;
    for at in 0..workers {
        authority.issue(&worker(at), &["rollout".to_owned()])?;
    }
    Ok(())
}

/// Reports that have reached the board, by what the newest of each worker counts: one a second.
fn reports_of(board: &StatusBoard) -> u64 {
    let nodes = board.snapshot().nodes;
    nodes.iter().filter_map(|node| node.actors.first()).map(|actor| actor.up_ms / 1000).sum()
}

async fn start(
    run: &RunDir,
    seen: &Arc<Mutex<Seen>>,
) -> anyhow::Result<(Mesh, StatusBoard, ActorRef<Msg>)> {
    let mut options = MeshOptions::new("coordinator".into(), 1, run.tls());
    options.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let (router, board) = (Router::new(), StatusBoard::new());
    let mesh = Mesh::start(options, router.clone(), board.clone()).await?;
    let (to_learner, batches) = std::sync::mpsc::channel();
    let to_learner = Mutex::new(to_learner);
    let post: Post = {
        let (mesh, seen) = (mesh.clone(), Arc::clone(seen));
        Arc::new(move |to, wire| {
            if to.as_str() == learner::NAME {
                let to_learner = to_learner.lock().expect("nothing panics under it");
                // At the end nobody listens any more.
                let _ = to_learner.send(wire);
                return Ok(());
            }
            if let Wire::Assign(assignment) = &wire {
                let mut seen = seen.lock().expect("nothing panics under it");
                if let Some(lost) = seen.lost.remove(&assignment.episode) {
                    seen.again.push((lost, Instant::now()));
                }
                seen.leases.insert(assignment.episode, to.clone());
            }
            mesh.cast(to, wire)
        })
    };
    let actor = harness::coordinator(run, board.clone(), post, None).await?;
    router.register_fn("coordinator", takes, {
        let (actor, seen) = (actor.clone(), Arc::clone(seen));
        move |inbound| {
            let mut seen = seen.lock().expect("nothing panics under it");
            if let Wire::Finished { trajectory, .. } = &inbound.wire {
                seen.leases.remove(&trajectory.episode);
                seen.results += 1;
            }
            drop(seen);
            actor.cast(Msg::Inbound(Box::new(inbound))).map_err(|error| error.to_string())
        }
    });
    mesh.watch(&actor, Msg::Peer);
    learner::begin(&actor)?;
    std::thread::spawn({
        let actor = actor.clone();
        move || {
            while let Ok(wire) = batches.recv() {
                if learner::take(&actor, &wire).is_err() {
                    return;
                }
            }
        }
    });
    Ok((mesh, board, actor))
}

fn spawn(args: &Args, run: &RunDir, address: SocketAddr) -> anyhow::Result<Processes> {
    let mut processes = Processes(Vec::new());
    let each = args.workers.div_ceil(args.processes);
    for first in (0..args.workers).step_by(each) {
        let count = each.min(args.workers - first);
        let mut child = Command::new(std::env::current_exe()?)
            .arg("workers")
            .arg("--tls")
            .arg(run.tls())
            .args(["--address", &address.to_string()])
            .args(["--first", &first.to_string(), "--count", &count.to_string()])
            .args(args.manner.arguments())
            .stdout(Stdio::piped())
            .spawn()
            .context("workers cannot be started")?;
        let said = child.stdout.take().context("its output is piped")?;
        processes.0.push(child);
        // It says one line; whoever looks at the mesh needs no more than that.
        std::thread::spawn(move || BufReader::new(said).lines().count());
    }
    Ok(processes)
}

/// Kills the first process. How long it took to be noticed, and until its work was out again.
async fn kill(
    args: &Args,
    processes: &mut Processes,
    seen: &Mutex<Seen>,
    downs: &Mutex<BTreeMap<NodeName, Instant>>,
) -> anyhow::Result<serde_json::Value> {
    let lost_workers = args.workers.div_ceil(args.processes);
    let names: BTreeSet<NodeName> = (0..lost_workers).map(worker).collect();
    let child = processes.0.first_mut().context("there is one")?;
    child.kill()?;
    let killed = Instant::now();
    let episodes = {
        let mut seen = seen.lock().expect("nothing panics under it");
        let out = seen.leases.iter().filter(|(_, at)| names.contains(*at));
        seen.lost = out.map(|(episode, at)| (*episode, at.clone())).collect();
        seen.lost.len()
    };
    while killed.elapsed() < AGAIN_MAX {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let all_noticed = downs.lock().expect("nothing panics under it").len() >= lost_workers;
        if all_noticed && seen.lock().expect("nothing panics under it").lost.is_empty() {
            break;
        }
    }
    let downs = downs.lock().expect("nothing panics under it").clone();
    let seen = seen.lock().expect("nothing panics under it");
    let s = |at: &Instant, since: Instant| at.saturating_duration_since(since).as_secs_f64();
    let mut noticed: Vec<f64> = downs.values().map(|at| s(at, killed)).collect();
    let mut after: Vec<f64> =
        seen.again.iter().filter_map(|(name, at)| Some(s(at, *downs.get(name)?))).collect();
    Ok(json!({
        "workers": lost_workers, "noticed": noticed.len(),
        "noticed_s_p50": usage::quantile(&mut noticed, 0.5),
        "noticed_s_p99": usage::quantile(&mut noticed, 0.99),
        "noticed_s_max": usage::quantile(&mut noticed, 1.0),
        "episodes": episodes, "again": seen.again.len(), "never": seen.lost.len(),
        "again_after_noticed_s_p50": usage::quantile(&mut after, 0.5),
        "again_after_noticed_s_p99": usage::quantile(&mut after, 0.99),
        "again_after_noticed_s_max": usage::quantile(&mut after, 1.0),
    }))
}
