//! A run in which nothing can be rolled out: it ends and says why, and does not go on for ever.

use std::collections::VecDeque;
use std::time::Duration;

use crrl_control::Coordinator;
use crrl_control::coordinator::{Effect, Input};
use crrl_control::plan::{Phase, Plan, StalePolicy, Train};
use crrl_control::wire::{BatchRequest, Held, Serving};
use crrl_types::{AdapterVersion, Digest, NodeName, Sampling, Step};

/// Inputs until the run must have ended.
const INPUTS_MAX: usize = 1000;

#[test]
fn a_run_whose_attempts_all_fail_ends_with_the_last_reason() {
    let train = Phase::Train(Train {
        tasks: "train".into(),
        steps: 3,
        group_size: 2,
        groups_per_step: 1,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: true,
        staleness: Default::default(),
        stragglers: Default::default(),
    });
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
