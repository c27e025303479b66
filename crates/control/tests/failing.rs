//! A run in which nothing can be rolled out: it ends and says why, and does not go on for ever.

use std::collections::VecDeque;
use std::time::Duration;

use crrl_control::Coordinator;
use crrl_control::coordinator::{Effect, Input};
use crrl_control::plan::{Phase, Plan, StalePolicy, Train};
use crrl_control::wire::{BatchRequest, Held, Serving, Wire};
use crrl_types::{AdapterVersion, Digest, NodeName, Sampling, Step};

/// Inputs until the run must have ended.
const INPUTS_MAX: usize = 1000;

/// Groups of so many attempts, so many a step.
fn train(group_size: u32, groups_per_step: u32) -> Phase {
    Phase::Train(Train {
        tasks: "train".into(),
        steps: 1000,
        group_size,
        groups_per_step,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: true,
        staleness: Default::default(),
        stragglers: Default::default(),
    })
}

#[test]
fn a_run_whose_attempts_all_fail_ends_with_the_last_reason() {
    let train = train(2, 1);
    let mut plan = Plan::new(1, vec![train]);
    plan.limits.attempts_max = 2;
    plan.limits.failed_groups_max = 3;
    let mut coordinator = Coordinator::new(plan, vec![vec!["t".into()]]).expect("a good plan");
    let node = NodeName::from("rollout-0");
    let serving = Serving { version: AdapterVersion(0), digest: Digest::default() };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    let mut inputs = VecDeque::from([
        Input::BatchWanted { from: "learner".into(), request },
        Input::Join {
            from: node.clone(),
            incarnation: 1,
            capacity: 4,
            holding: Vec::new(),
            serving: Some(serving),
        },
    ]);
    let mut taken = 0;
    while let Some(input) = inputs.pop_front() {
        taken += 1;
        assert!(taken < INPUTS_MAX, "it goes on for ever: {:?}", coordinator.status());
        for effect in coordinator.handle(input, Duration::from_millis(taken as u64)).expect("sound")
        {
            match effect {
                Effect::Assign(assign) => inputs.push_back(Input::Failed {
                    from: node.clone(),
                    held: Held { episode: assign.episode, attempt: assign.attempt },
                    reason: "its repository is gone".into(),
                }),
                Effect::Over { error } => {
                    let error = error.expect("not a good end");
                    assert!(error.contains("3 groups"), "{error}");
                    assert!(error.contains("t: its repository is gone"), "{error}");
                    return;
                }
                _ => {}
            }
        }
        coordinator.check().expect("sound");
    }
    panic!("it waits: {:?}", coordinator.status());
}

/// Nodes, and how many of them are lost together.
const NODES: usize = 60;
const LOST: usize = 40;

#[test]
fn no_task_is_blamed_for_a_rack_that_loses_its_power() {
    let train = train(8, 64);
    let tasks = (0..6).map(|at| format!("task-{at}").as_str().into()).collect();
    let mut coordinator =
        Coordinator::new(Plan::new(1, vec![train]), vec![tasks]).expect("a good plan");
    let serving = Serving { version: AdapterVersion(0), digest: Digest::default() };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    let node = |at: usize| NodeName::from(format!("rollout-{at:02}").as_str());
    let mut at = |input, ms| {
        let effects = coordinator.handle(input, Duration::from_millis(ms)).expect("sound");
        coordinator.check().expect("sound");
        let out = |effect: &&Effect| matches!(effect, Effect::Assign(_));
        (effects.iter().filter(out).count(), coordinator.status().quarantined)
    };
    at(Input::BatchWanted { from: "learner".into(), request }, 0);
    for number in 0..NODES {
        let (holding, serving) = (Vec::new(), Some(serving));
        at(Input::Join { from: node(number), incarnation: 1, capacity: 4, holding, serving }, 1);
    }
    // Two neighbours share each group: one by one they would soon be three of one task.
    let lose = |number| Input::NodeDown { node: node(number), reason: "gone".into() };
    let quarantined: Vec<u32> = (0..LOST).map(|number| at(lose(number), 100).1).collect();
    assert!(quarantined.iter().any(|tasks| *tasks > 0), "nothing was blamed at first");
    assert_eq!(quarantined.last(), Some(&0), "{quarantined:?}");
    // Those that are left go on.
    let (holding, serving) = (Vec::new(), Some(serving));
    let (given, _) =
        at(Input::Join { from: node(0), incarnation: 2, capacity: 4, holding, serving }, 200);
    assert_eq!(given, 4);
}

#[test]
fn what_was_handed_to_an_actor_that_is_no_more_is_handed_out_again() {
    let plan = Plan::new(1, vec![train(2, 2)]);
    let mut coordinator = Coordinator::new(plan, vec![vec!["t".into()]]).expect("a good plan");
    let mut at = |input, ms| {
        let effects = coordinator.handle(input, Duration::from_millis(ms)).expect("sound");
        coordinator.check().expect("sound");
        let next = coordinator.next_deadline().map(|at| at.as_millis());
        let asked =
            effects.iter().any(|effect| matches!(effect, Effect::Send(_, Wire::JoinWanted)));
        let given = effects.iter().filter(|effect| matches!(effect, Effect::Assign(_))).count();
        (given, asked, next)
    };
    let join = || Input::Join {
        from: "rollout-0".into(),
        incarnation: 1,
        capacity: 4,
        holding: Vec::new(),
        serving: Some(Serving { version: AdapterVersion(0), digest: Digest::default() }),
    };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    at(Input::BatchWanted { from: "learner".into(), request }, 0);
    assert_eq!(at(join(), 1).0, 4);
    // Its actor is started again with the four unread: they may as well be under way to the new one.
    assert_eq!(at(join(), 500), (0, false, Some(2500)));
    assert!(!at(Input::Timer, 2499).1, "too early");
    assert!(at(Input::Timer, 2500).1, "nobody asks");
    let (given, asked, next) = at(join(), 2510);
    assert_eq!((given, asked), (4, false), "they are not under way any longer");
    assert!(next.is_some_and(|at| at > 10_000), "an answer is not doubted: {next:?}");
}

#[test]
fn a_node_that_counts_its_lives_anew_gets_work_once_its_later_life_is_lost() {
    let plan = Plan::new(1, vec![train(2, 2)]);
    let mut coordinator = Coordinator::new(plan, vec![vec!["t".into()]]).expect("a good plan");
    let mut at = |input, ms| -> Vec<Held> {
        let effects = coordinator.handle(input, Duration::from_millis(ms)).expect("sound");
        coordinator.check().expect("sound");
        let given = effects.into_iter().filter_map(|effect| match effect {
            Effect::Assign(assign) => {
                Some(Held { episode: assign.episode, attempt: assign.attempt })
            }
            _ => None,
        });
        given.collect()
    };
    let join = |incarnation| Input::Join {
        from: "rollout-0".into(),
        incarnation,
        capacity: 4,
        holding: Vec::new(),
        serving: Some(Serving { version: AdapterVersion(0), digest: Digest::default() }),
    };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    at(Input::BatchWanted { from: "learner".into(), request }, 0);
    let before = at(join(3), 1);
    assert_eq!(before.len(), 4);
    assert!(at(join(1), 5000).is_empty(), "a word of an earlier life, under way for long");
    at(Input::NodeDown { node: "rollout-0".into(), reason: "gone".into() }, 6000);
    let after = at(join(1), 6001);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|held| !before.contains(held)), "{before:?}: {after:?}");
}
