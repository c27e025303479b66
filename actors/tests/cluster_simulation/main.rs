//! The whole cluster, simulated: transport, sessions, coordinator, ledger, learner's actor, parameter
//! server and supervision are the product's own; network, disks, time and randomness follow from a
//! seed. Things go wrong at random, invariants are checked all along, then everything is healed and
//! the plan must be carried out.
//!
//!     CRRL_SEED=17 cargo test --release -p crrl-actors --test cluster_simulation
//!
//! runs one seed and prints what happens; `CRRL_SEEDS=1000` runs more than the 200 of every day;
//! `CRRL_PACKETS=1` prints packets too. See docs/FAULTS.md.

#![expect(clippy::print_stdout, reason = "a test program of its own prints what it found")]

mod checks;
mod faults;
mod rollout;
mod setting;
mod trainer;
mod truth;
#[path = "../../../tests/support/wanted.rs"]
mod wanted;
mod world;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crrl_sim::record::Listener;
use crrl_sim::{Record, batch, os};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::checks::{Ear, INJECTED};
use crate::truth::Truth;
use crate::world::World;

/// Seeds that once found something, one a line, each with what it was.
const FOUND: &str = include_str!("seeds.txt");
/// Seeds of every day.
const SEEDS: u64 = 200;
/// Processes at once: two, as the machines of CI have cores.
const AT_ONCE: usize = 2;
/// Wall time of one seed, which takes a second or two.
const SEED_TIME_MAX: Duration = Duration::from_secs(120);
/// Wall time of the seeds of every day, on two cores.
const ALL_TIME_MAX: Duration = Duration::from_secs(300);
/// Seeds that are run twice, to see that the same happens.
const TWICE: u64 = 5;
/// Lines printed of a seed that failed.
const LAST_LINES: usize = 60;
/// Tells the program to run one seed: it is its own child.
const CHILD: &str = "--one-seed";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CHILD) {
        let seed = arguments.get(at + 1).and_then(|seed| seed.parse().ok()).expect("a seed");
        let folder = arguments.get(at + 2).map(Path::new).expect("a folder");
        return one(seed, false, folder);
    }
    // As other test programs do: `cargo test NAME` is about tests of that name.
    let wanted = wanted::wanted(arguments.iter().skip(1).cloned());
    let is_wanted = wanted.is_none_or(|name| "cluster_simulation".contains(&name));
    if !is_wanted || arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    match std::env::var("CRRL_SEED") {
        Ok(seed) => {
            let folder = scratch();
            one(seed.parse().expect("CRRL_SEED is a number"), true, folder.path())
        }
        Err(_) => all(),
    }
}

/// Where a seed's files go: memory, where the system has such a folder.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("crrl-sim").tempdir_in(folder).expect("a temporary folder")
}

fn one(seed: u64, aloud: bool, folder: &Path) -> ExitCode {
    let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
    let began = Instant::now();
    let record = Record::new(aloud, aloud && std::env::var_os("CRRL_PACKETS").is_some());
    record.hide(&folder.path().to_string_lossy());
    let truth = Truth::default();
    listen(&record, &truth);
    // In a thread of its own, so that what is simulated begins and ends with it.
    let seeded = {
        let (record, folder, truth) = (record.clone(), folder.path().to_owned(), truth.clone());
        std::thread::Builder::new()
            .name("world".into())
            .spawn(move || simulate(seed, &folder, record, truth))
    };
    let outcome = seeded.expect("a thread").join().unwrap_or_else(|_| Err("it panicked".into()));
    match outcome {
        Ok(summary) => {
            println!("seed {seed}: {summary}, digest {}", record.digest());
            if aloud {
                println!("{:.2} s", began.elapsed().as_secs_f64());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            if !aloud {
                record.last(LAST_LINES).iter().for_each(|line| println!("{line}"));
            }
            println!("seed {seed} failed: {why}");
            println!(
                "to see it again: CRRL_SEED={seed} cargo test --release -p crrl-actors --test cluster_simulation"
            );
            ExitCode::FAILURE
        }
    }
}

fn simulate(seed: u64, folder: &Path, record: Record, truth: Truth) -> Result<String, String> {
    os::enter(seed);
    let mut world = World::new(seed, folder, record, truth);
    world.run()?;
    Ok(format!(
        "{:.0} s simulated, {} faults, {} lives, {} packets, {} audits",
        os::now().as_secs_f64(),
        world.faults,
        world.lives(),
        world.packets(),
        world.audits
    ))
}

/// What is logged goes to the record, and what panics without having been told to is a violation.
fn listen(record: &Record, truth: &Truth) {
    let ear = Arc::new(Ear::new(record.clone(), truth.clone()));
    let listener = Listener::new(record.clone(), move |level, said: &str| ear.hear(level, said));
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(listener);
    tracing::subscriber::set_global_default(subscriber).expect("the first and only one");
    let (record, truth) = (record.clone(), truth.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string();
        record.note(&format!("panic: {text}"));
        if !text.contains(INJECTED) {
            truth.violation(format!("a panic: {text}"));
        }
    }));
}

fn all() -> ExitCode {
    let count = std::env::var("CRRL_SEEDS").map_or(SEEDS, |n| n.parse().expect("a number"));
    let found: Vec<u64> =
        FOUND.lines().filter_map(|line| line.split('#').next()?.trim().parse().ok()).collect();
    let program = std::env::current_exe().expect("this program");
    let folder = scratch();
    let command = |seed: u64| {
        let mut command = Command::new(&program);
        command.args([CHILD, &seed.to_string()]).arg(folder.path());
        (format!("seed {seed}"), command)
    };
    let seeds: Vec<u64> =
        found.iter().copied().chain((0..count).filter(|s| !found.contains(s))).collect();
    let again: Vec<u64> = seeds.iter().copied().take(TWICE as usize).collect();
    let commands = seeds.iter().chain(&again).map(|seed| command(*seed)).collect();
    let began = Instant::now();
    let ended = batch::run(commands, AT_ONCE, SEED_TIME_MAX, folder.path()).expect("processes");
    let took = began.elapsed();
    let failed: Vec<_> = ended.iter().filter(|ended| !ended.ok).collect();
    failed.iter().for_each(|ended| println!("{}", ended.said));
    let mut ok = failed.is_empty();
    for (index, again) in ended[seeds.len()..].iter().enumerate() {
        if again.said != ended[index].said {
            println!("{} is not the same twice:\n{}{}", again.name, ended[index].said, again.said);
            ok = false;
        }
    }
    let slowest = ended.iter().max_by_key(|ended| ended.took).expect("at least one");
    println!(
        "{} of {} seeds failed; {:.0} s, the slowest {} with {:.1} s; {} run twice",
        failed.len(),
        seeds.len(),
        took.as_secs_f64(),
        slowest.name,
        slowest.took.as_secs_f64(),
        again.len()
    );
    if count <= SEEDS && took > ALL_TIME_MAX {
        println!("that is longer than {} s", ALL_TIME_MAX.as_secs());
        ok = false;
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
