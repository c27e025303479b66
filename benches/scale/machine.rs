//! The coordinator's decisions alone: what a message costs as workers grow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crrl_control::coordinator::{Assign, EpisodeResult, Loss};
use crrl_control::ledger::Outcome;
use crrl_control::wire::{BatchRequest, Held};
use crrl_control::{Coordinator, Effect, Input};
use crrl_types::{AdapterVersion, EpisodeId, Step};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::made_work::{GROUP_SIZE, TASKS, plan, reward, serving, task, worker};
use crate::usage;

/// Groups of one optimizer step.
const GROUPS_PER_STEP: u32 = 64;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workers, one run after the other.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,3000,10000")]
    workers: Vec<usize>,
    /// Episodes each works on at once.
    #[arg(long, default_value_t = 4)]
    capacity: u32,
    /// Results to measure over.
    #[arg(long, default_value_t = 200_000)]
    results: u64,
}

/// What was lost is not held back for longer.
const HELD_BACK: Duration = Duration::from_secs(1);

/// The machine, its clock, and the leases that are out.
struct World {
    machine: Coordinator,
    now: Duration,
    leases: Vec<Assign>,
    messages: u64,
    effects: u64,
}

impl World {
    fn handle(&mut self, input: Input) -> anyhow::Result<()> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.messages += 1;
            self.now += Duration::from_micros(20);
            let effects = self
                .machine
                .handle(input, self.now)
                .map_err(|broken| anyhow::anyhow!("{broken}"))?;
            self.effects += effects.len() as u64;
            for effect in effects {
                match effect {
                    Effect::Assign(assign) => self.leases.push(assign),
                    Effect::SendBatch { step, episodes, .. } => {
                        inputs.extend(trained(step, episodes));
                    }
                    Effect::Over { error } => anyhow::bail!("the run ended: {error:?}"),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The learner makes its step at once and asks for the next.
fn trained(step: Step, consumed: Vec<EpisodeId>) -> [Input; 3] {
    let version = AdapterVersion(step.0);
    let request = BatchRequest { step: step.next(), version };
    [
        Input::Published { serving: serving(step.0) },
        Input::Committed { step, version, consumed, metrics: vec![("loss".to_owned(), 0.5)] },
        Input::BatchWanted { from: "learner".into(), request },
    ]
}

fn result(assign: Assign) -> EpisodeResult {
    let Assign { episode, attempt, task, group, .. } = assign;
    let held = Held { episode, attempt };
    let (oldest, generated) = (Some(AdapterVersion(0)), 500);
    let outcome = Outcome {
        reward: reward(episode),
        success: episode.0.is_multiple_of(3),
        oldest,
        generated,
    };
    let (adapters, refused, temperature) = (vec![serving(0)], None, 1.0);
    EpisodeResult { held, task, group, temperature, outcome, adapters, refused }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    for workers in &args.workers {
        measure(args, *workers)?;
    }
    Ok(())
}

fn measure(args: &Args, workers: usize) -> anyhow::Result<()> {
    let before_kib = usage::resident_kib("self");
    let machine = Coordinator::new(plan(GROUPS_PER_STEP), vec![(0..TASKS).map(task).collect()])?;
    let now = Duration::ZERO;
    let mut world = World { machine, now, leases: Vec::new(), messages: 0, effects: 0 };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    world.handle(Input::BatchWanted { from: "learner".into(), request })?;
    let joining = Instant::now();
    for at in 0..workers {
        world.handle(Input::Join {
            from: worker(at),
            incarnation: 1,
            capacity: args.capacity,
            holding: Vec::new(),
            serving: Some(serving(0)),
        })?;
    }
    let join_ns = joining.elapsed().as_nanos() as f64 / workers as f64;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // Until batches are being forgotten, memory grows: that is not what is measured.
    let warm_up = 80 * u64::from(GROUPS_PER_STEP * GROUP_SIZE);
    let mut handle = |world: &mut World, results: u64| -> anyhow::Result<()> {
        for _ in 0..results {
            anyhow::ensure!(!world.leases.is_empty(), "nobody has work");
            let at = rng.random_range(0..world.leases.len());
            let assign = world.leases.swap_remove(at);
            let (from, result) = (assign.to.clone(), result(assign));
            world.handle(Input::Finished { from, result })?;
        }
        Ok(())
    };
    handle(&mut world, warm_up)?;
    (world.messages, world.effects) = (0, 0);
    // CPU time: whoever else uses the machine does not count.
    let began = usage::cpu();
    handle(&mut world, args.results)?;
    let took = usage::cpu().saturating_sub(began);
    let (messages, effects) = (world.messages, world.effects);
    let resident_kib = usage::resident_kib("self").saturating_sub(before_kib);
    let timed = |what: &dyn Fn()| {
        let began = Instant::now();
        what();
        began.elapsed().as_secs_f64() * 1e3
    };
    let check_ms = timed(&|| world.machine.check().expect("no invariant is broken"));
    let status_ms = timed(&|| drop(world.machine.status()));
    // A tenth is lost at once; its work goes to the others as they have room.
    let lost = workers / 10;
    let began = Instant::now();
    for at in 0..lost {
        world.handle(Input::NodeDown {
            node: worker(at),
            reason: "killed".into(),
            loss: Loss::Unplanned,
        })?;
    }
    world.now += HELD_BACK;
    world.handle(Input::Timer)?;
    let lost_us = began.elapsed().as_secs_f64() * 1e6 / lost.max(1) as f64;
    println!(
        "{}",
        json!({
            "bench": "machine", "workers": workers, "capacity": args.capacity,
            "leases": workers as u64 * u64::from(args.capacity),
            "messages": messages, "effects_per_message": effects as f64 / messages as f64,
            "messages_per_s": (messages as f64 / took.as_secs_f64()).round(),
            "ns_per_message": (took.as_nanos() as f64 / messages as f64).round(),
            "ns_per_join": join_ns.round(), "us_per_lost_worker": lost_us,
            "check_ms": check_ms, "status_ms": status_ms,
            "memory_kib_per_worker": resident_kib as f64 / workers as f64,
        })
    );
    Ok(())
}
