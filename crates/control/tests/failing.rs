//! Runs in which something goes wrong again and again: they end and say why, and do not go on for ever;
//! and nodes that are lost, and what that is held against.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crrl_control::coordinator::{Assign, Effect, EpisodeResult, Input, Loss};
use crrl_control::ledger::Outcome;
use crrl_control::plan::{Phase, Plan, StalePolicy, Train};
use crrl_control::wire::{BatchRequest, Held, Serving, Wire};
use crrl_control::{Coordinator, Record};
use crrl_types::{AdapterVersion, Digest, EpisodeId, NodeName, Sampling, Step, TaskId};

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

fn serving() -> Serving {
    Serving { version: AdapterVersion(0), digest: Digest::default() }
}

fn held(assign: &Assign) -> Held {
    Held { episode: assign.episode, attempt: assign.attempt }
}

/// What comes of an attempt in which so many tokens were generated.
fn result(assign: &Assign, generated: u32) -> EpisodeResult {
    let some = generated > 0;
    let oldest = some.then_some(AdapterVersion(0));
    EpisodeResult {
        held: held(assign),
        task: assign.task.clone(),
        group: assign.group,
        temperature: Sampling::default().temperature,
        outcome: Outcome { reward: 0.0, success: false, oldest, generated },
        adapters: some.then(serving).into_iter().collect(),
        refused: None,
    }
}

/// Why a run ends every attempt of which comes to this, if it does.
fn end_of(becomes: impl Fn(&Assign) -> Input) -> String {
    let train = train(2, 1);
    let mut plan = Plan::new(1, vec![train]);
    plan.limits.attempts_max = 2;
    plan.limits.failed_groups_max = 3;
    let mut coordinator = Coordinator::new(plan, vec![vec!["t".into()]]).expect("a good plan");
    let node = NodeName::from("rollout-0");
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    let mut inputs = VecDeque::from([
        Input::BatchWanted { from: "learner".into(), request },
        Input::Join {
            from: node,
            incarnation: 1,
            capacity: 4,
            holding: Vec::new(),
            serving: Some(serving()),
        },
    ]);
    let mut taken = 0;
    while let Some(input) = inputs.pop_front() {
        taken += 1;
        assert!(taken < INPUTS_MAX, "it goes on for ever: {:?}", coordinator.status());
        for effect in coordinator.handle(input, Duration::from_millis(taken as u64)).expect("sound")
        {
            match effect {
                Effect::Assign(assign) => inputs.push_back(becomes(&assign)),
                Effect::Over { error } => return error.expect("not a good end"),
                _ => {}
            }
        }
        coordinator.check().expect("sound");
    }
    panic!("it waits: {:?}", coordinator.status());
}

#[test]
fn a_run_whose_attempts_all_fail_ends_with_the_last_reason() {
    let error = end_of(|assign| Input::Failed {
        from: assign.to.clone(),
        held: held(assign),
        reason: "its repository is gone".into(),
    });
    assert!(error.contains("3 groups"), "{error}");
    assert!(error.contains("t: its repository is gone"), "{error}");
}

#[test]
fn a_run_in_which_nothing_is_ever_generated_ends_and_says_so() {
    let error =
        end_of(|assign| Input::Finished { from: assign.to.clone(), result: result(assign, 0) });
    assert!(error.contains("3 groups"), "{error}");
    assert!(error.contains("t: nothing was generated within agent.time_max_s"), "{error}");
}

#[test]
fn a_result_of_another_attempt_than_was_given_is_refused_and_its_node_named() {
    let end = |spoil: &dyn Fn(&mut EpisodeResult)| {
        end_of(|assign| {
            let mut result = result(assign, 5);
            spoil(&mut result);
            Input::Finished { from: assign.to.clone(), result }
        })
    };
    for (error, wrong) in [
        (end(&|result| result.task = "other".into()), "it is at task other instead of t"),
        (end(&|result| result.group.0 += 7), "it is of group"),
        (end(&|result| result.temperature = 0.0), "at temperature 0 instead of 1"),
        (end(&|result| result.temperature = f32::NAN), "at temperature NaN instead of 1"),
    ] {
        assert!(error.contains("t: rollout-0 sent another attempt"), "{error}");
        assert!(error.contains(wrong), "{error}");
    }
}

/// A coordinator under a plan of groups of so many attempts at six tasks, and a learner that waits.
fn six_tasks(group_size: u32) -> Driven {
    let tasks = (0..6).map(|at| format!("task-{at}").as_str().into()).collect();
    let plan = Plan::new(1, vec![train(group_size, 2)]);
    let coordinator = Coordinator::new(plan, vec![tasks]).expect("a good plan");
    let mut driven = Driven { coordinator, released: Vec::new() };
    let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
    driven.say(Input::BatchWanted { from: "learner".into(), request }, 0);
    driven
}

struct Driven {
    coordinator: Coordinator,
    /// Tasks that were let out of quarantine.
    released: Vec<TaskId>,
}

impl Driven {
    /// Says something at a time in milliseconds; what is handed out then.
    fn say(&mut self, input: Input, ms: u64) -> Vec<Assign> {
        let effects = self.coordinator.handle(input, Duration::from_millis(ms)).expect("sound");
        self.coordinator.check().expect("sound");
        let mut given = Vec::new();
        for effect in effects {
            match effect {
                Effect::Assign(assign) => given.push(assign),
                Effect::Record(Record::Released(task)) => self.released.push(task),
                _ => {}
            }
        }
        given
    }

    fn join(&mut self, name: &str, incarnation: u64, capacity: u32, ms: u64) -> Vec<Assign> {
        let (from, holding, serving) = (name.into(), Vec::new(), Some(serving()));
        self.say(Input::Join { from, incarnation, capacity, holding, serving }, ms)
    }

    fn lose(&mut self, name: &str, loss: Loss, ms: u64) -> Vec<Assign> {
        self.say(Input::NodeDown { node: name.into(), reason: "gone".into(), loss }, ms)
    }

    fn quarantined(&self) -> u32 {
        self.coordinator.status().quarantined
    }

    /// Three nodes of which each is at one attempt at the same task.
    fn three_at_one_task(&mut self) -> Vec<Assign> {
        let given: Vec<Assign> =
            ["a", "b", "c"].iter().flat_map(|name| self.join(name, 1, 1, 1)).collect();
        assert_eq!(given.len(), 3);
        assert!(given.iter().all(|assign| assign.task == given[0].task), "{given:?}");
        given
    }
}

#[test]
fn what_nodes_worked_on_that_were_cut_off_together_is_handed_to_none_of_them() {
    let mut driven = six_tasks(2);
    let lost: BTreeSet<EpisodeId> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| driven.join(name, 1, 2, 1))
        .map(|assign| assign.episode)
        .collect();
    assert_eq!(lost.len(), 6);
    // The one that stays has room for all, and nothing else is left to hand out.
    driven.join("stays", 1, 64, 2);
    for (name, ms) in [("a", 1000), ("b", 1200), ("c", 1400)] {
        assert!(driven.lose(name, Loss::Unplanned, ms).is_empty(), "{name} is one of several");
    }
    let due = driven.coordinator.next_deadline();
    assert!(due.is_some_and(|at| at <= Duration::from_millis(1800)), "{due:?}");
    assert!(driven.say(Input::Timer, 1600).is_empty(), "too early");
    let given = driven.say(Input::Timer, 1800);
    assert_eq!(given.iter().map(|assign| assign.episode).collect::<BTreeSet<_>>(), lost);
    assert!(given.iter().all(|a| a.to.as_str() == "stays" && a.attempt == 2), "{given:?}");
}

#[test]
fn what_one_node_worked_on_that_was_lost_alone_is_handed_out_within_a_second() {
    let mut driven = six_tasks(2);
    assert_eq!(driven.join("a", 1, 2, 1).len(), 2);
    driven.join("stays", 1, 64, 2);
    driven.lose("a", Loss::Unplanned, 1000);
    let due = driven.coordinator.next_deadline().expect("it waits for something");
    // The actor looks five times a second.
    assert!(due <= Duration::from_millis(1800), "{due:?}");
    assert_eq!(driven.say(Input::Timer, due.as_millis() as u64).len(), 2);
}

#[test]
fn a_task_is_let_out_when_a_node_it_was_held_against_was_only_out_of_reach() {
    let mut driven = six_tasks(3);
    let task = driven.three_at_one_task()[0].task.clone();
    for (name, ms) in [("a", 1000), ("b", 1100), ("c", 1200)] {
        driven.lose(name, Loss::Unplanned, ms);
    }
    assert_eq!(driven.quarantined(), 1);
    driven.join("a", 2, 1, 5000);
    assert_eq!((driven.quarantined(), driven.released.len()), (1, 0), "that was another life");
    driven.join("b", 1, 1, 5001);
    assert_eq!((driven.quarantined(), &driven.released[..]), (0, &[task][..]));
    assert_eq!(driven.coordinator.status().error, None);
}

#[test]
fn no_task_is_held_against_a_node_that_leaves_as_it_is_told_to() {
    let mut driven = six_tasks(3);
    driven.three_at_one_task();
    driven.join("stays", 1, 64, 2);
    for (name, ms) in [("a", 1000), ("b", 1100), ("c", 1200)] {
        assert_eq!(driven.lose(name, Loss::Planned, ms).len(), 1, "nothing is waited for");
    }
    assert_eq!(driven.quarantined(), 0);
}

#[test]
fn a_task_that_has_a_result_since_killed_nobody_before() {
    let mut driven = six_tasks(3);
    let given = driven.three_at_one_task();
    driven.lose("a", Loss::Unplanned, 1000);
    driven.lose("b", Loss::Unplanned, 1100);
    assert!(driven.say(Input::Timer, 1900).is_empty(), "the one that is left is full");
    let (from, result) = ("c".into(), result(&given[2], 5));
    let next = driven.say(Input::Finished { from, result }, 2000);
    assert!(next.iter().all(|assign| assign.task == given[0].task), "{next:?}");
    assert_eq!(next.len(), 1);
    driven.lose("c", Loss::Unplanned, 3000);
    assert_eq!(driven.quarantined(), 0);
}

/// What a run ends with whose learner is lost so often with its first batch at hand, if it ends.
fn learner_lost(times: usize, loss: Loss) -> Option<String> {
    let mut driven = six_tasks(2);
    let mut ms = 1;
    let mut given: VecDeque<Assign> = driven.join("a", 1, 64, ms).into();
    let mut reward = 0.0;
    while let Some(assign) = given.pop_front() {
        (ms, reward) = (ms + 1, 1.0 - reward);
        let mut result = result(&assign, 5);
        result.outcome.reward = reward;
        given.extend(driven.say(Input::Finished { from: assign.to, result }, ms));
    }
    assert_eq!(driven.coordinator.status().batches_out, 1);
    for _ in 0..times {
        ms += 1000;
        driven.lose("learner", loss, ms);
        let request = BatchRequest { step: Step(1), version: AdapterVersion(0) };
        driven.say(Input::BatchWanted { from: "learner".into(), request }, ms + 1);
    }
    driven.coordinator.status().error
}

#[test]
fn a_run_whose_learner_is_lost_with_the_same_batch_again_and_again_ends_and_names_it() {
    assert_eq!(learner_lost(9, Loss::Unplanned), None);
    assert_eq!(learner_lost(30, Loss::Planned), None, "it was told to");
    let error = learner_lost(10, Loss::Unplanned).expect("it goes on for ever");
    assert!(error.contains("10 times with the batch of step 1"), "{error}");
    assert!(error.contains("episodes 0, 1"), "{error}");
}

#[test]
fn the_runs_own_nodes_say_what_the_base_model_is_and_not_a_guest() {
    let guests = Serving { version: AdapterVersion(0), digest: Digest::of(b"another base") };
    let join = |from: &str, serving| Input::Join {
        from: from.into(),
        incarnation: 1,
        capacity: 1,
        holding: Vec::new(),
        serving: Some(serving),
    };
    let begin = || {
        let mut driven = six_tasks(2);
        driven.coordinator.believe_first(BTreeSet::from(["own".into()]), Duration::ZERO);
        assert!(driven.say(join("guest", guests), 1).is_empty(), "nobody knows what it serves");
        driven
    };
    let mut driven = begin();
    let given = driven.say(join("own", serving()), 2);
    assert!(given.len() == 1 && given[0].to.as_str() == "own", "{given:?}");
    let nodes = driven.coordinator.status().nodes;
    let unproven = nodes.iter().filter(|node| !node.proven).map(|node| node.name.as_str());
    assert_eq!(unproven.collect::<Vec<_>>(), ["guest"]);
    // Where none of them ever comes, guests carry the run.
    let mut driven = begin();
    let due = driven.coordinator.next_deadline().expect("it waits for something");
    let given = driven.say(Input::Timer, due.as_millis() as u64);
    assert!(given.len() == 1 && given[0].to.as_str() == "guest", "{given:?}");
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
    let lose = |number| Input::NodeDown {
        node: node(number),
        reason: "gone".into(),
        loss: Loss::Unplanned,
    };
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
    let (node, loss) = ("rollout-0".into(), Loss::Unplanned);
    at(Input::NodeDown { node, reason: "gone".into(), loss }, 6000);
    let after = at(join(1), 6001);
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|held| !before.contains(held)), "{before:?}: {after:?}");
}
