//! The coordinator among crashes, lost, doubled and late messages: nothing is lost, nothing is
//! trained on twice, and once the faults stop the plan is carried out.

mod world;

use crrl_control::plan::{Evaluate, Limits, Phase, Plan, StalePolicy, Train};
use crrl_types::{Late, OnLoss, Sampling, Staleness, Stragglers};
use world::{Faults, World};

fn evaluate(label: &str) -> Phase {
    Phase::Evaluate(Evaluate {
        label: label.into(),
        tasks: "held-out".into(),
        tasks_max: 0,
        samples: 2,
        sampling: Sampling::default(),
    })
}

fn train(steps: u64, sync: bool, stale: StalePolicy, stragglers: Stragglers) -> Train {
    Train {
        tasks: "train".into(),
        steps,
        group_size: 4,
        groups_per_step: 3,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale,
        sync,
        skip_equal_groups: true,
        staleness: Staleness::Bounded,
        stragglers,
    }
}

/// How old what is trained on may be: most runs bound it.
fn staleness(seed: u64) -> Staleness {
    match seed % 8 {
        3 => Staleness::Strict,
        6 => Staleness::Corrected,
        _ => Staleness::Bounded,
    }
}

fn plan(seed: u64, steps: u64) -> Plan {
    let stale = if seed.is_multiple_of(2) { StalePolicy::TrainRest } else { StalePolicy::Refill };
    let late = if seed.is_multiple_of(4) { Late::Drop } else { Late::Carry };
    let stragglers = Stragglers {
        group_min: if seed % 5 < 2 { 3 } else { 0 },
        late,
        duplicate_after: if seed % 7 < 3 { 1.5 } else { 0.0 },
    };
    let train = train(steps, seed.is_multiple_of(3), stale, stragglers);
    let train = Phase::Train(Train { staleness: staleness(seed), ..train });
    let mut plan = Plan::new(seed, vec![evaluate("before"), train, evaluate("after")]);
    plan.limits.lease_ms = 3_000;
    plan.limits.attempts_max = 50;
    plan.limits.on_loss = if seed % 6 == 5 { OnLoss::Restart } else { OnLoss::Resume };
    // Nodes die by chance here: no task is to blame.
    plan.limits.kills_max = 1_000;
    plan
}

const CALM: Faults = Faults { loss: 0.0, crash: 0.0, poison: None, leave: 0.0, stall: 0.0 };
const STORM: Faults = Faults { loss: 0.05, crash: 0.02, ..CALM };

fn all_accounted_for(world: &World) {
    let (seed, totals) = (world.seed, world.coordinator.status().totals);
    assert_eq!(totals.created, totals.terminal(), "seed {seed}: {totals:?}");
    for entry in world.disk.episodes.values() {
        assert!(entry.state.is_terminal(), "seed {seed}: left over: {entry:?}");
    }
    world.agrees_with_learner();
    if !world.has_fallen_back() {
        world.audit();
    }
    for evaluation in &world.disk.results.evaluations {
        assert_eq!(evaluation.attempts().count(), 2 * 10, "seed {seed}: {}", evaluation.label);
    }
    assert_eq!(world.disk.results.evaluations.len(), 2, "seed {seed}");
    assert!(world.disk.results.complete, "seed {seed}");
}

#[test]
fn a_plan_is_carried_out() {
    for seed in 0..6 {
        let mut world = World::new(seed, plan(seed, 6), 10, CALM);
        world.run_until_over(20_000);
        assert_eq!(world.over, Some(None), "seed {seed}");
        all_accounted_for(&world);
        let trained = &world.disk.results.trainings[0];
        assert_eq!(trained.steps, 6);
        assert!(trained.trained >= 6 * 3 * 2, "seed {seed}: {trained:?}");
        assert_eq!(trained.failed, 0, "seed {seed}: {trained:?}");
    }
}

#[test]
fn storms_lose_nothing_and_train_nothing_twice() {
    let (mut crashes, mut resumed, mut duplicated) = (0, 0, 0);
    for seed in 0..40 {
        println!("seed {seed}");
        let mut world = World::new(seed, plan(seed, 25), 10, STORM);
        for step in 0..4_000 {
            if world.over.is_some() {
                break;
            }
            world.step();
            if step % 500 == 0 && !world.has_fallen_back() {
                world.audit();
            }
        }
        world.faults = CALM;
        world.run_until_over(60_000);
        assert_eq!(world.over, Some(None), "seed {seed}");
        all_accounted_for(&world);
        crashes += world.crashes;
        resumed += world.resumed;
        duplicated += world.duplicated;
        if seed % 6 == 5 {
            assert_eq!(world.resumed, 0, "seed {seed}");
        }
    }
    assert!(resumed > 100, "only {resumed} episodes were gone on with");
    assert!(duplicated > 20, "only {duplicated} episodes were handed to a second node");
    assert!(crashes > 20, "the coordinator crashed only {crashes} times");
}

#[test]
fn nodes_that_leave_or_stand_still_together_cost_no_task_and_no_attempt() {
    let (mut leaves, mut stalls) = (0, 0);
    for seed in 0..20 {
        println!("seed {seed}");
        let shipped = Limits::default();
        let mut plan = plan(seed, 12);
        plan.limits.attempts_max = shipped.attempts_max;
        plan.limits.kills_max = shipped.kills_max;
        // A second node for a slow attempt is a lease of its own: there are five.
        for phase in &mut plan.phases {
            if let Phase::Train(train) = phase {
                train.stragglers.duplicate_after = 0.0;
            }
        }
        let faults = Faults { leave: 0.002, stall: 0.002, ..CALM };
        let mut world = World::new(seed, plan, 10, faults);
        world.run_until_over(60_000);
        assert_eq!(world.over, Some(None), "seed {seed}");
        all_accounted_for(&world);
        let status = world.coordinator.status();
        assert_eq!((status.quarantined, status.totals.failed), (0, 0), "seed {seed}: {status:#?}");
        leaves += world.leaves;
        stalls += world.stalls;
    }
    assert!(leaves > 20 && stalls > 10, "{leaves} leaves, {stalls} stalls");
}

#[test]
fn a_task_that_is_released_is_handed_out_again() {
    for seed in 0..5 {
        println!("seed {seed}");
        let mut plan = plan(seed, 400);
        plan.limits.kills_max = 2;
        plan.phases.remove(0);
        let mut world = World::new(seed, plan, 10, Faults { poison: Some(4), ..CALM });
        while world.coordinator.status().quarantined == 0 {
            world.step();
        }
        for _ in 0..200 {
            world.step();
        }
        let before = world.leases_on("task-4");
        world.release_all();
        assert_eq!(world.coordinator.status().quarantined, 0, "seed {seed}");
        for _ in 0..4_000 {
            world.step();
        }
        assert!(world.leases_on("task-4") > before, "seed {seed}: never handed out again");
        assert_eq!(world.coordinator.status().quarantined, 0, "seed {seed}");
        world.audit();
    }
}

#[test]
fn a_task_that_kills_nodes_is_quarantined() {
    for seed in 0..10 {
        println!("seed {seed}");
        let mut plan = plan(seed, 4);
        plan.limits.kills_max = 3;
        plan.phases.remove(0);
        let mut world = World::new(seed, plan, 10, Faults { poison: Some(4), ..CALM });
        world.run_until_over(40_000);
        assert_eq!(world.over, Some(None), "seed {seed}");
        assert!(world.coordinator.status().quarantined >= 1, "seed {seed}");
        let evaluation = &world.disk.results.evaluations[0];
        let task = &evaluation.tasks[4];
        assert!(task.attempts.iter().all(Option::is_none), "seed {seed}: {task:?}");
    }
}
