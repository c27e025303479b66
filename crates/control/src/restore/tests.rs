use std::time::Duration;

use crrl_types::{Event, GroupId, NodeName, Sampling};

use super::entered::SKIPPED;
use super::*;
use crate::coordinator::{Coordinator, Effect, Input};
use crate::ledger::{Lease, Leases};
use crate::plan::{Evaluate, StalePolicy, Train};
use crate::results::Evaluation;
use crate::wire::BatchRequest;

fn plan() -> Plan {
    let before = Phase::Evaluate(Evaluate {
        label: "before".into(),
        tasks: "held-out".into(),
        tasks_max: 0,
        samples: 1,
        sampling: Sampling::default(),
    });
    let train = Phase::Train(Train {
        tasks: "train".into(),
        steps: 6,
        group_size: 2,
        groups_per_step: 1,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: false,
        staleness: Default::default(),
        stragglers: Default::default(),
    });
    Plan::new(1, vec![before, train])
}

fn tasks() -> Vec<Vec<TaskId>> {
    vec![vec!["h0".into(), "h1".into()], vec!["t0".into(), "t1".into(), "t2".into()]]
}

fn outcome(oldest: u64) -> Outcome {
    Outcome { reward: 0.5, success: false, oldest: Some(AdapterVersion(oldest)), generated: 9 }
}

fn entry(id: u64, state: State) -> Entry {
    Entry {
        episode: EpisodeId(id),
        group: GroupId(id / 2),
        task: format!("t{}", id / 2 % 3).into(),
        phase: 1,
        ordinal: id / 2,
        sample: (id % 2) as u32,
        evaluation: false,
        attempt: u32::from(!matches!(state, State::Queued)),
        node: (!matches!(state, State::Queued)).then(|| "rollout-0".into()),
        state,
    }
}

fn leased() -> State {
    let node: NodeName = "rollout-0".into();
    State::Leased(Leases::one(Lease { node, attempt: 1, deadline: Duration::ZERO }))
}

fn batch(step: u64, episodes: &[u64]) -> BatchRow {
    BatchRow {
        step: Step(step),
        phase: 1,
        version: AdapterVersion(step - 1),
        committed: true,
        episodes: episodes.iter().copied().map(EpisodeId).collect(),
    }
}

/// Step 1 is committed; 2 came back, 3 is under way, 4 and 5 wait.
fn copy() -> Recovered {
    Recovered {
        phase: 1,
        entries: vec![
            entry(0, State::Trained(Step(1), outcome(0))),
            entry(1, State::Trained(Step(1), outcome(0))),
            entry(2, State::Finished(outcome(1))),
            entry(3, leased()),
            entry(4, State::Queued),
            entry(5, State::Queued),
        ],
        batches: vec![batch(1, &[0, 1])],
        next_episode: EpisodeId(6),
        next_group: GroupId(3),
        ordinals: BTreeMap::from([(1, 3)]),
        ..Recovered::default()
    }
}

fn handed(id: u64, attempt: u32) -> EventKind {
    let (group, task) = (GroupId(id / 2), format!("t{}", id / 2 % 3).into());
    EventKind::Dispatched { episode: EpisodeId(id), group, task, to: "rollout-0".into(), attempt }
}

fn back(id: u64) -> EventKind {
    EventKind::Finished { episode: EpisodeId(id), reward: 1.0, success: true }
}

fn trained(id: u64, step: u64) -> EventKind {
    EventKind::Trained { episode: EpisodeId(id), step: Step(step) }
}

fn stepped(step: u64) -> EventKind {
    EventKind::Stepped { step: Step(step), version: AdapterVersion(step) }
}

/// Since the copy, 2 and 3 went into step 2; 4 came back, 5 was handed out twice; 7 came back, and 6,
/// beside it, was never handed out.
fn since() -> Vec<EventKind> {
    let mut events = vec![trained(0, 1), trained(1, 1), stepped(1), handed(2, 1), back(2)];
    events.extend([handed(3, 1), back(3), trained(2, 2), trained(3, 2), stepped(2)]);
    events.extend([handed(4, 1), back(4), handed(5, 1), handed(5, 2), handed(7, 1), back(7)]);
    events
}

fn told(copy: &Recovered, events: &[EventKind]) -> Told {
    let mut told = Told::after(copy);
    for kind in events {
        told.take(&Event { at_ms: 0, node: "coordinator".into(), kind: kind.clone() });
    }
    told
}

fn held(steps: &[(u64, &[u64])]) -> Checkpoints {
    let held = |(step, ids): &(u64, &[u64])| {
        let consumed = ids.iter().copied().map(EpisodeId).collect();
        (Step(*step), StepHeld { version: AdapterVersion(*step), consumed })
    };
    Checkpoints::Here(steps.iter().map(held).collect())
}

fn restored(events: &[EventKind], checkpoints: &Checkpoints) -> Restoration {
    let copy = copy();
    restore(&plan(), &tasks(), &copy, &told(&copy, events), None, checkpoints)
}

fn state(done: &Restoration, id: u64) -> Option<(State, u32)> {
    done.records.iter().find_map(|record| match record {
        Record::Episode(entry) if entry.episode == EpisodeId(id) => {
            Some((entry.state.clone(), entry.attempt))
        }
        _ => None,
    })
}

fn lost() -> State {
    State::Dropped(LOST.to_owned())
}

fn dropped(id: u64) -> EventKind {
    EventKind::Dropped { episode: EpisodeId(id), reason: LOST.to_owned() }
}

fn skipped(id: u64) -> EventKind {
    EventKind::Dropped { episode: EpisodeId(id), reason: SKIPPED.to_owned() }
}

#[test]
fn what_was_trained_on_since_the_copy_counts_and_is_not_handed_out_again() {
    let done = restored(&since(), &held(&[(1, &[0, 1]), (2, &[2, 3])]));
    // Its tokens are in the copy.
    assert_eq!(state(&done, 2), Some((State::Trained(Step(2), outcome(1)), 1)));
    let told = Outcome { reward: 1.0, success: true, oldest: None, generated: 0 };
    assert_eq!(state(&done, 3), Some((State::Trained(Step(2), told), 1)));
    assert_eq!(state(&done, 4), Some((lost(), 1)));
    assert_eq!(state(&done, 5), Some((State::Queued, 2)), "under way, and nothing is lost of it");
    assert_eq!(state(&done, 6), Some((lost(), 0)), "its number is not given out again");
    assert_eq!(state(&done, 7), Some((lost(), 1)));
    assert!(done.records.contains(&Record::Batch(batch(2, &[2, 3]))), "{:#?}", done.records);
    let steps = done.records.iter().filter(|r| matches!(r, Record::Step { .. })).count();
    assert_eq!(steps, 1);
    let range = |first, last| (EpisodeId(first), EpisodeId(last));
    assert_eq!(done.restored.lost, [range(3, 4), range(6, 7)]);
    assert_eq!((done.restored.lost_trained, done.restored.lost_count()), (1, 4));
    assert_eq!(done.restored.sealed(), Step(2));
    let is_lost: Vec<u64> = (0..9).filter(|id| done.restored.is_lost(EpisodeId(*id))).collect();
    assert_eq!(is_lost, [3, 4, 6, 7]);
    // The history is told what it does not know, and nothing twice.
    let first = EventKind::Restored { copy: Step(1), step: Step(2), lost: 4 };
    assert_eq!(done.events, [first, dropped(4), dropped(6), dropped(7), skipped(8 + 4096)]);
    // Nobody knows of 8, and a node may hold it: the next number is none that can have been given out.
    let stands_for_others = (State::Dropped(SKIPPED.to_owned()), 0);
    assert_eq!(state(&done, 8 + 4096), Some(stands_for_others));
    assert_eq!(done.restored.skipped, [range(8, 8 + 4095)]);
    assert!(done.restored.skips(EpisodeId(8), EpisodeId(8 + 4095)));
    assert!(!done.restored.skips(EpisodeId(7), EpisodeId(8)));
}

#[test]
fn a_learner_elsewhere_is_where_the_history_says() {
    let (here, elsewhere) = (held(&[(2, &[2, 3])]), Checkpoints::Elsewhere);
    let (here, there) = (restored(&since(), &here), restored(&since(), &elsewhere));
    assert_eq!(there.records, here.records);
    assert_eq!((here.restored.open, there.restored.open), (None, Some(Step(2))));
    assert_eq!(Restored { open: None, ..there.restored }, here.restored);
}

#[test]
fn numbers_that_a_history_that_is_behind_may_not_tell_of_are_not_given_out_again() {
    let copy = copy();
    let last = |events: &[EventKind], unread: u64, checkpoints: &Checkpoints| {
        let mut told = told(&copy, events);
        told.unread = unread;
        let done = restore(&plan(), &tasks(), &copy, &told, None, checkpoints);
        let episode = |record: &Record| match record {
            Record::Episode(entry) => Some((entry.episode, entry.group)),
            _ => None,
        };
        done.records.iter().filter_map(episode).max().expect("one at least")
    };
    let here = held(&[(1, &[0, 1])]);
    // It may miss its last second.
    assert_eq!(last(&[stepped(1)], 0, &here), (EpisodeId(6 + 4096), GroupId(3 + 4096)));
    // It has a line nobody can read, or misses steps.
    assert_eq!(last(&[stepped(1)], 1, &here).0, EpisodeId(6 + (1 << 20)));
    let ahead = held(&[(2, &[2, 3]), (3, &[4, 5])]);
    assert_eq!(last(&[stepped(1)], 0, &ahead).0, EpisodeId(6 + (1 << 20)));
    // A copy from before an earlier restoration, which left numbers out as well.
    let far = 1 << 21;
    assert_eq!(last(&[stepped(1), handed(far, 1)], 0, &here).0, EpisodeId(far + 1 + 4096));
}

#[test]
fn numbers_left_out_before_are_neither_lost_nor_episodes() {
    let far = 1 << 21;
    let done = restored(&[stepped(1), handed(far, 1), back(far)], &held(&[(1, &[0, 1])]));
    let range = |first, last| (EpisodeId(first), EpisodeId(last));
    assert_eq!(done.restored.lost, [range(far, far)]);
    assert_eq!(done.restored.skipped[0], range(6, far - 1));
    assert_eq!(state(&done, 6), None);
}

#[test]
fn what_a_restoration_has_told_is_not_told_again_if_it_must_be_repeated() {
    let checkpoints = held(&[(1, &[0, 1])]);
    let first = restored(&since(), &checkpoints);
    let events: Vec<EventKind> = since().into_iter().chain(first.events.clone()).collect();
    let second = restored(&events, &checkpoints);
    assert_eq!((&first.undone[..], &second.undone[..]), (&[Step(2)][..], &[Step(2)][..]));
    assert_eq!(second.restored.lost, first.restored.lost);
    // Numbers are left out behind those that were before.
    let at = (8 + 4096) + 1 + 4096;
    assert_eq!(second.events, [skipped(at)]);
    // Once the run has gone on it is over.
    let events: Vec<EventKind> = events.into_iter().chain([EventKind::Started]).collect();
    assert!(restored(&events, &checkpoints).undone.is_empty());
}

#[test]
fn a_step_only_its_checkpoint_knows_of_is_told_to_the_history() {
    let mut events = since();
    events.retain(|kind| match kind {
        EventKind::Trained { step, .. } | EventKind::Stepped { step, .. } => *step != Step(2),
        _ => true,
    });
    let done = restored(&events, &held(&[(2, &[2, 3])]));
    assert!(matches!(state(&done, 3), Some((State::Trained(Step(2), _), 1))));
    for kind in [trained(2, 2), trained(3, 2), stepped(2)] {
        assert!(done.events.contains(&kind), "{kind:?}: {:#?}", done.events);
    }
}

#[test]
fn of_a_step_nobody_knows_nothing_that_may_have_gone_into_it_is_trained_on() {
    let copy = copy();
    let mut told = told(&copy, &[]);
    told.unread = 40;
    let checkpoints = held(&[(3, &[8, 9])]);
    let done = restore(&plan(), &tasks(), &copy, &told, None, &checkpoints);
    assert_eq!(done.restored.unknown, [Step(2)]);
    // Those that waited or were under way when the copy was made most of all.
    for (id, attempt) in [(2, 1), (3, 1), (4, 0), (5, 0)] {
        let unsure = (State::Dropped(UNSURE.to_owned()), attempt);
        assert_eq!(state(&done, id), Some(unsure), "episode {id}");
    }
    assert!(matches!(state(&done, 9), Some((State::Trained(Step(3), _), 0))));
    // Steps stay without a gap.
    let unknown = BatchRow { version: AdapterVersion(0), ..batch(2, &[]) };
    assert!(done.records.contains(&Record::Batch(unknown)), "{:#?}", done.records);
    assert_eq!(state(&done, 7), Some((lost(), 0)));
}

#[test]
fn steps_without_a_checkpoint_are_made_anew() {
    let done = restored(&since(), &held(&[(1, &[0, 1])]));
    assert_eq!((done.restored.step, &done.undone[..]), (Step(1), &[Step(2)][..]));
    assert_eq!(done.events[1], EventKind::RolledBack { step: Step(2) });
    assert_eq!(state(&done, 2), None, "it is as the copy has it, and may be trained on");
    assert_eq!(state(&done, 3), Some((lost(), 1)));
    assert!(done.events.contains(&dropped(3)), "{:#?}", done.events);
    assert!(!done.records.iter().any(|record| matches!(record, Record::Batch(_))));
    assert_eq!(done.restored.sealed(), Step(0));
}

#[test]
fn a_batch_that_is_to_be_sent_again_keeps_its_episodes_whatever_phase_it_is_of() {
    let mut phases = plan().phases;
    let Phase::Train(train) = &mut phases[1] else { panic!("it trains") };
    train.steps = 2;
    let (measures, trains) = (phases[0].clone(), phases[1].clone());
    let plan = Plan::new(1, vec![measures.clone(), trains.clone(), measures, trains]);
    let tasks: Vec<_> = [tasks(), tasks()].concat();
    // The learner fell back to step 1: the batches of steps 2 and 3, of two phases, wait for it.
    let later = |id| Entry { phase: 3, ..entry(id, State::Batched(Step(3), outcome(1))) };
    let entries = vec![
        entry(0, State::Trained(Step(1), outcome(0))),
        entry(1, State::Trained(Step(1), outcome(0))),
        entry(2, State::Batched(Step(2), outcome(1))),
        entry(3, State::Batched(Step(2), outcome(1))),
        later(4),
        later(5),
    ];
    let open = |step, phase, ids: &[u64]| BatchRow { committed: false, phase, ..batch(step, ids) };
    let batches = vec![batch(1, &[0, 1]), open(2, 1, &[2, 3]), open(3, 3, &[4, 5])];
    let copy = Recovered { entries, batches, ..copy() };
    let events = [
        stepped(1),
        stepped(2),
        stepped(3),
        EventKind::RolledBack { step: Step(3) },
        EventKind::RolledBack { step: Step(2) },
    ];
    let told = told(&copy, &events);
    let done = restore(&plan, &tasks, &copy, &told, None, &held(&[(1, &[0, 1])]));
    for id in 2..=5 {
        assert_eq!(state(&done, id), None, "episode {id} is as the copy has it");
    }
    let rebuilt = done.records.iter().any(|record| matches!(record, Record::Batch(_)));
    assert!(!rebuilt && done.undone.is_empty(), "{done:#?}");
}

#[test]
fn a_step_whose_batch_is_in_the_copy_is_not_said_to_be_made_of_other_episodes() {
    let mut copy = copy();
    for id in [2, 3] {
        copy.entries[id] = entry(id as u64, State::Batched(Step(2), outcome(1)));
    }
    copy.batches.push(BatchRow { committed: false, ..batch(2, &[2, 3]) });
    let mut events = since();
    events.extend([trained(4, 3), stepped(3)]);
    let told = told(&copy, &events);
    let done = restore(&plan(), &tasks(), &copy, &told, None, &held(&[(1, &[0, 1])]));
    // Of both the history is told that they are not made; only one is made of other episodes.
    for step in [2, 3] {
        let undone = EventKind::RolledBack { step: Step(step) };
        assert!(done.events.contains(&undone), "step {step}: {:#?}", done.events);
    }
    assert_eq!(done.undone, [Step(3)]);
    assert_eq!((state(&done, 2), state(&done, 3)), (None, None));
}

#[test]
fn a_run_is_in_the_phase_its_results_and_steps_say() {
    let copy = Recovered { phase: 0, batches: Vec::new(), entries: Vec::new(), ..copy() };
    let before = Evaluation {
        label: "before".into(),
        version: AdapterVersion(0),
        digest: Default::default(),
        wall_ms: 1,
        tasks: Vec::new(),
    };
    let results = Results { evaluations: vec![before], ..Results::default() };
    let none = told(&copy, &[]);
    let restore = |results: Option<&Results>, checkpoints: &Checkpoints| {
        restore(&plan(), &tasks(), &copy, &none, results, checkpoints)
    };
    let done = restore(Some(&results), &held(&[]));
    assert!(done.records.contains(&Record::Phase(1)), "{:#?}", done.records);
    assert_eq!(done.results.evaluations.len(), 1);
    // Whatever the results say, a step is made in its phase.
    let done = restore(None, &held(&[(1, &[6, 7])]));
    assert!(done.records.contains(&Record::Phase(1)), "{:#?}", done.records);
    // An evaluation that was under way begins anew, with numbers never used.
    let done = restore(None, &held(&[]));
    assert!(
        done.records.contains(&Record::Pinned(None, EpisodeId(6 + 4096 + 1))),
        "{:#?}",
        done.records
    );
}

#[test]
fn attempts_of_an_evaluation_under_way_are_left_out() {
    let open = Entry { phase: 0, evaluation: true, task: "h1".into(), ..entry(2, leased()) };
    let copy = Recovered { phase: 0, entries: vec![open], batches: Vec::new(), ..copy() };
    let told = told(&copy, &[]);
    let done = restore(&plan(), &tasks(), &copy, &told, None, &held(&[]));
    assert_eq!(state(&done, 2), Some((State::Dropped(MEASURED_ANEW.to_owned()), 1)));
}

#[test]
fn tasks_that_were_quarantined_or_let_out_since_stay_so() {
    let quarantined = BTreeMap::from([(TaskId::from("t0"), "killed 3".to_owned())]);
    let copy = Recovered { quarantined, ..copy() };
    let events = [
        EventKind::Released { task: "t0".into() },
        EventKind::Quarantined { task: "t1".into(), reason: "killed 4".into() },
    ];
    let told = told(&copy, &events);
    let done = restore(&plan(), &tasks(), &copy, &told, None, &held(&[(1, &[0, 1])]));
    for record in
        [Record::Released("t0".into()), Record::Quarantined("t1".into(), "killed 4".into())]
    {
        assert!(done.records.contains(&record), "{record:?}: {:#?}", done.records);
    }
}

#[test]
fn a_step_whose_tokens_are_lost_is_never_made_again() {
    let entries = vec![
        entry(0, State::Trained(Step(1), outcome(0))),
        entry(1, State::Trained(Step(1), outcome(0))),
        entry(2, State::Trained(Step(2), outcome(1))),
        entry(3, State::Trained(Step(2), outcome(1))),
    ];
    let batches = vec![batch(1, &[0, 1]), batch(2, &[2, 3])];
    let totals = crate::ledger::Totals { created: 4, trained: 4, ..Default::default() };
    let from = Recovered { entries, batches, totals, sealed: Step(2), ..copy() };
    let from = Recovered { next_episode: EpisodeId(4), next_group: GroupId(2), ..from };
    let asks = |step: u64| {
        let recovered = Coordinator::recover(plan(), tasks(), from.clone(), Duration::ZERO);
        let mut machine = recovered.expect("plan and ledger belong together");
        let request = BatchRequest { step: Step(step), version: AdapterVersion(step - 1) };
        let wanted = Input::BatchWanted { from: "learner".into(), request };
        let effects = machine.handle(wanted, Duration::ZERO).expect("no invariant is broken");
        machine.check().expect("no invariant is broken");
        effects.into_iter().find_map(|effect| match effect {
            Effect::Over { error } => error,
            _ => None,
        })
    };
    assert_eq!(asks(3), None);
    let error = asks(2).expect("the run ends");
    assert!(error.contains("before step 2") && error.contains("damaged ledger"), "{error}");
}

#[test]
fn a_learner_elsewhere_that_went_on_is_believed_and_nothing_it_may_have_had_is_trained_on() {
    let totals = crate::ledger::Totals { created: 6, trained: 2, ..Default::default() };
    let from = Recovered { totals, open: Some(Step(1)), ..copy() };
    let start = |from: &Recovered| {
        let recovered = Coordinator::recover(plan(), tasks(), from.clone(), Duration::ZERO);
        recovered.expect("plan and ledger belong together")
    };
    let ask = |machine: &mut Coordinator, step: u64| {
        let request = BatchRequest { step: Step(step), version: AdapterVersion(step - 1) };
        let wanted = Input::BatchWanted { from: "learner".into(), request };
        let effects = machine.handle(wanted, Duration::ZERO).expect("no invariant is broken");
        machine.check().expect("no invariant is broken");
        effects
    };
    let error = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Over { error } => error.clone(),
            _ => None,
        })
    };
    let mut machine = start(&from);
    let effects = ask(&mut machine, 3);
    assert_eq!(error(&effects), None);
    let made = Record::Batch(BatchRow { version: AdapterVersion(0), ..batch(2, &[]) });
    assert!(effects.contains(&Effect::Record(made.clone())), "{effects:#?}");
    for id in 2..=5 {
        let reason = UNSURE.to_owned();
        let left_out = EventKind::Dropped { episode: EpisodeId(id), reason };
        assert!(effects.contains(&Effect::Event(left_out)), "episode {id}: {effects:#?}");
    }
    // It cannot be made again, neither now nor by a coordinator that is started later.
    let told = error(&ask(&mut machine, 2)).expect("the run ends");
    assert!(told.contains("steps up to 2 cannot be made again"), "{told}");
    let Record::Batch(row) = made else { panic!("it is a batch") };
    let batches = vec![batch(1, &[0, 1]), row];
    let later = Recovered { batches, ..from.clone() };
    let told = error(&ask(&mut start(&later), 2)).expect("the run ends");
    assert!(told.contains("steps up to 2 cannot be made again"), "{told}");
    // The ledger knows every batch it has sent since: what is missing then was never its own.
    let told = error(&ask(&mut start(&later), 4)).expect("the run ends");
    assert!(told.contains("do not belong together"), "{told}");
    let closed = Recovered { open: None, ..from.clone() };
    for (from, step) in [(&closed, 3), (&from, 66), (&from, 8)] {
        let told = error(&ask(&mut start(from), step)).expect("the run ends");
        assert!(told.contains("do not belong together"), "step {step}: {told}");
    }
}
