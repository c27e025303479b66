//! The audit names what is wrong: a sound run is spoiled in one way after the other.

#[allow(dead_code, reason = "the simulation uses the rest")]
mod world;

use crrl_control::audit::{CheckpointFact, CheckpointFacts, Facts, Invariant, Verdict, audit};
use crrl_control::ledger::State;
use crrl_control::plan::{Evaluate, Phase, Plan, StalePolicy, Train};
use crrl_control::restore::Restored;
use crrl_types::{AdapterVersion, Digest, EpisodeId, EventKind, Sampling, Step};
use world::{Faults, World};

fn sound() -> Facts {
    let train = Phase::Train(Train {
        tasks: "train".into(),
        steps: 4,
        group_size: 2,
        groups_per_step: 2,
        sampling: Sampling::default(),
        staleness_max: 2,
        stale: StalePolicy::TrainRest,
        sync: false,
        skip_equal_groups: false,
        staleness: Default::default(),
        stragglers: Default::default(),
    });
    let after = Phase::Evaluate(Evaluate {
        label: "after".into(),
        tasks: "held-out".into(),
        tasks_max: 0,
        samples: 1,
        sampling: Sampling::default(),
    });
    let plan = Plan::new(1, vec![train, after]);
    let mut world = World::new(1, plan, 5, Faults::default());
    world.run_until_over(20_000);
    let facts = world.facts();
    let verdict = audit(&facts);
    assert!(verdict.ok, "{verdict:#?}");
    assert!(verdict.notes.is_empty(), "{:?}", verdict.notes);
    facts
}

fn checkpoints(facts: &mut Facts) -> &mut Vec<CheckpointFact> {
    match &mut facts.setting.checkpoints {
        CheckpointFacts::Here(checkpoints) => checkpoints,
        CheckpointFacts::Elsewhere(node) => panic!("they are with {node}"),
    }
}

/// Exactly this invariant is broken, and what is told of it has these words.
#[track_caller]
fn broken(verdict: &Verdict, invariant: Invariant, words: &str) {
    let bad: Vec<Invariant> =
        verdict.findings.iter().filter(|f| !f.held).map(|f| f.invariant).collect();
    assert_eq!(bad, [invariant], "{verdict:#?}");
    assert!(!verdict.ok);
    let told = &verdict.of(invariant).expect("judged").told;
    assert!(told.iter().any(|v| v.what.contains(words)), "{words:?} is not told: {told:#?}");
}

fn spoil(what: impl FnOnce(&mut Facts)) -> Verdict {
    let mut facts = sound();
    what(&mut facts);
    audit(&facts)
}

fn trained(facts: &Facts) -> EpisodeId {
    let trained = |e: &&crrl_control::ledger::Entry| matches!(e.state, State::Trained(..));
    facts.entries.iter().find(trained).expect("some were").episode
}

fn measured(facts: &Facts) -> EpisodeId {
    let measured = |e: &&crrl_control::ledger::Entry| matches!(e.state, State::Measured(_));
    facts.entries.iter().find(measured).expect("some were").episode
}

#[test]
fn an_episode_that_is_gone_from_the_ledger() {
    let verdict = spoil(|facts| {
        let gone = measured(facts);
        facts.entries.retain(|entry| entry.episode != gone);
        facts.transcripts.retain(|transcript| transcript.episode != gone);
    });
    broken(&verdict, Invariant::I1, "is missing");
}

#[test]
fn an_episode_left_over_in_a_run_that_is_over() {
    let verdict = spoil(|facts| {
        let id = measured(facts);
        facts.entries[id.0 as usize].state = State::Queued;
        let of =
            |kind: &EventKind| matches!(kind, EventKind::Dropped { episode, .. } if *episode == id);
        facts.history.retain(|line| !line.event.as_ref().is_ok_and(|event| of(&event.kind)));
    });
    broken(&verdict, Invariant::I1, "the run is over and episode");
}

#[test]
fn an_episode_that_ends_twice_by_the_history() {
    let verdict = spoil(|facts| {
        let ends = |line: &&crrl_control::audit::Line| {
            line.event.as_ref().is_ok_and(|e| matches!(e.kind, EventKind::Trained { .. }))
        };
        let mut again = facts.history.iter().find(ends).expect("some were trained on").clone();
        again.number = 99_999;
        facts.history.push(again);
    });
    broken(&verdict, Invariant::I1, "after it had been trained on");
}

#[test]
fn a_step_made_again_after_the_news_of_the_fall_back_was_lost() {
    let mut facts = sound();
    let of_first = |line: &&crrl_control::audit::Line| {
        let first =
            |kind: &EventKind| matches!(kind, EventKind::Trained { step, .. } if step.0 == 1);
        line.event.as_ref().is_ok_and(|event| first(&event.kind))
    };
    let again: Vec<_> = facts.history.iter().filter(of_first).cloned().collect();
    let mut started = again[0].clone();
    started.event.as_mut().expect("read").kind = EventKind::Started;
    started.number = facts.history.len() as u64 + 1;
    facts.history.push(started);
    facts.history.extend(again);
    let verdict = audit(&facts);
    assert!(verdict.ok, "{verdict:#?}");
}

#[test]
fn a_history_that_says_other_than_the_ledger() {
    let verdict = spoil(|facts| {
        let id = measured(facts);
        facts.entries[id.0 as usize].state = State::Failed("no".into());
    });
    broken(&verdict, Invariant::I1, "by the history and is failed in the ledger");
}

#[test]
fn an_episode_in_two_steps() {
    let verdict = spoil(|facts| {
        let id = facts.setting.batches[0].episodes[0];
        facts.setting.batches[1].episodes.push(id);
    });
    broken(&verdict, Invariant::I2, "is in the batches of steps 1 and 2");
}

#[test]
fn a_step_made_from_what_was_not_in_its_batch() {
    let verdict = spoil(|facts| {
        let id = measured(facts);
        let held = checkpoints(facts)[0].holds.as_mut().expect("loads");
        held.consumed.push(id);
    });
    broken(&verdict, Invariant::I2, "whose batch does not name it");
}

#[test]
fn a_node_that_goes_back_to_an_older_adapter() {
    let verdict = spoil(|facts| {
        let newest = facts.setting.published.last().copied().expect("some were");
        let old = facts.setting.published[0];
        let peer: crrl_types::NodeName = "rollout-0".into();
        for (number, serving) in [(90_000, newest), (90_001, old)] {
            let (version, digest) = (serving.version, serving.digest);
            let kind = EventKind::Activated { peer: peer.clone(), version, digest };
            let event = crrl_types::Event { at_ms: 0, node: "coordinator".into(), kind };
            facts.history.push(crrl_control::audit::Line { number, event: Ok(event) });
        }
    });
    broken(&verdict, Invariant::I4, "rollout-0 went back");
}

#[test]
fn a_node_that_counts_its_lives_anew_begins_with_no_adapter() {
    let verdict = spoil(|facts| {
        let newest = facts.setting.published.last().copied().expect("some were");
        let old = facts.setting.published[0];
        let peer: crrl_types::NodeName = "rollout-0".into();
        let mut number = 90_000;
        for (incarnation, serving) in [(90, newest), (1, old)] {
            let (version, digest) = (serving.version, serving.digest);
            for kind in [
                EventKind::NodeUp { peer: peer.clone(), incarnation },
                EventKind::Activated { peer: peer.clone(), version, digest },
            ] {
                let event = crrl_types::Event { at_ms: 0, node: "coordinator".into(), kind };
                facts.history.push(crrl_control::audit::Line { number, event: Ok(event) });
                number += 1;
            }
        }
    });
    assert!(verdict.ok, "{verdict:#?}");
}

#[test]
fn a_token_without_an_adapter_and_one_of_an_unknown_digest() {
    let id = |facts: &Facts| trained(facts);
    let verdict = spoil(|facts| {
        let id = id(facts);
        let of = facts.transcripts.iter_mut().find(|t| t.episode == id).expect("kept");
        of.spans[0].end -= 1;
    });
    broken(&verdict, Invariant::I5, "generated token 4 carries no adapter");
    let verdict = spoil(|facts| {
        let id = id(facts);
        let of = facts.transcripts.iter_mut().find(|t| t.episode == id).expect("kept");
        of.spans[0].digest = Digest::of(b"another");
    });
    broken(&verdict, Invariant::I5, "which was published as");
}

#[test]
fn tokens_that_are_gone() {
    let verdict = spoil(|facts| {
        let id = trained(facts);
        facts.transcripts.retain(|transcript| transcript.episode != id);
    });
    broken(&verdict, Invariant::I5, "its tokens are not there");
}

#[test]
fn tokens_that_were_lost_with_a_damaged_ledger_are_told_of_and_no_others_are_excused() {
    let lost = |facts: &mut Facts, episode: EpisodeId| {
        facts.setting.restored.push(Restored {
            copy: Step(0),
            step: Step(1),
            lost: vec![(episode, episode)],
            lost_trained: 1,
            ..Restored::default()
        });
    };
    let verdict = spoil(|facts| {
        let gone = trained(facts);
        facts.transcripts.retain(|transcript| transcript.episode != gone);
        lost(facts, gone);
    });
    assert!(verdict.ok, "{verdict:#?}");
    let told = |note: &String| note.contains("the records of 1 episodes were lost");
    assert!(verdict.notes.iter().any(told), "{:?}", verdict.notes);
    let verdict = spoil(|facts| {
        let gone = trained(facts);
        facts.transcripts.retain(|transcript| transcript.episode != gone);
        lost(facts, measured(facts));
    });
    broken(&verdict, Invariant::I5, "its tokens are not there");
}

#[test]
fn numbers_that_were_left_out_when_the_ledger_was_restored_are_not_missing_and_others_are() {
    let leave_out = |facts: &mut Facts, is_told: bool| {
        let last = facts.entries.iter().max_by_key(|entry| entry.episode).expect("some").clone();
        let episode = EpisodeId(last.episode.0 + 5_000);
        let numbers = (last.episode.next(), EpisodeId(episode.0 - 1));
        let state = State::Dropped("it stands for others".into());
        facts.entries.push(crrl_control::ledger::Entry { episode, state, ..last });
        let skipped = if is_told { vec![numbers] } else { Vec::new() };
        facts.setting.restored.push(Restored { skipped, ..Restored::default() });
    };
    let verdict = spoil(|facts| leave_out(facts, true));
    assert!(verdict.ok, "{verdict:#?}");
    let told = |note: &String| note.contains("their numbers may have been given out before");
    assert!(verdict.notes.iter().any(told), "{:?}", verdict.notes);
    broken(&spoil(|facts| leave_out(facts, false)), Invariant::I1, "are missing");
}

#[test]
fn of_a_step_only_its_checkpoint_knows_nothing_may_count_again() {
    let forget = |facts: &mut Facts| {
        let held = checkpoints(facts)[0].holds.as_ref().expect("loads").clone();
        let mut batches = facts.setting.batches.iter_mut();
        let batch = batches.find(|batch| batch.step == held.step).expect("its batch");
        let gone = std::mem::take(&mut batch.episodes);
        for entry in facts.entries.iter_mut().filter(|entry| gone.contains(&entry.episode)) {
            entry.state = State::Dropped("nobody knows".into());
        }
        for line in &mut facts.history {
            if let Ok(event) = &mut line.event
                && let EventKind::Trained { episode, .. } = event.kind
                && gone.contains(&episode)
            {
                event.kind = EventKind::Dropped { episode, reason: "nobody knows".into() };
            }
        }
        facts.setting.restored.push(Restored { open: Some(Step(0)), ..Restored::default() });
    };
    let verdict = spoil(forget);
    assert!(verdict.ok, "{verdict:#?}");
    let told = |note: &String| note.contains("the learner, whose checkpoints were elsewhere");
    assert!(verdict.notes.iter().any(told), "{:?}", verdict.notes);
    let verdict = spoil(|facts| {
        forget(facts);
        let again = trained(facts);
        let held = checkpoints(facts)[0].holds.as_mut().expect("loads");
        held.consumed.push(again);
    });
    broken(&verdict, Invariant::I2, "whose batch does not name it");
}

#[test]
fn checkpoints_that_do_not_load() {
    let damage = |facts: &mut Facts| {
        checkpoints(facts)[0].holds = Err("moments.safetensors is torn".into());
    };
    broken(&spoil(damage), Invariant::I6, "no checkpoint loads");
    // With an older one left, nothing is lost: the batches are there to make the steps again.
    let verdict = spoil(|facts| {
        let mut older = checkpoints(facts)[0].clone();
        let held = older.holds.as_mut().expect("loads");
        held.step.0 -= 1;
        held.consumed.clear();
        damage(facts);
        checkpoints(facts).insert(0, older);
    });
    assert!(verdict.ok, "{verdict:#?}");
    assert!(verdict.notes.iter().any(|note| note.contains("would go on from step")));
}

#[test]
fn a_checkpoint_that_is_older_than_what_was_committed() {
    let verdict = spoil(|facts| {
        let held = checkpoints(facts)[0].holds.as_mut().expect("loads");
        held.step.0 -= 1;
        held.consumed.clear();
    });
    broken(&verdict, Invariant::I6, "the newest checkpoint is of");
}

#[test]
fn checkpoints_that_are_with_the_learners_node_are_not_judged_and_hold_nothing_against_the_run() {
    let verdict = spoil(|facts| {
        facts.setting.checkpoints = CheckpointFacts::Elsewhere("trainer".into());
    });
    assert!(verdict.ok, "{verdict:#?}");
    let found = verdict.of(Invariant::I6).expect("told");
    assert_eq!((found.held, found.judged, found.violations), (true, false, 0));
    assert_eq!(found.looked_at, "the checkpoints are with trainer");
    let note = "the checkpoints are with trainer: I2 and I13 are judged without them";
    assert!(verdict.notes.iter().any(|told| told == note), "{:?}", verdict.notes);
    let judged = verdict.findings.iter().filter(|finding| finding.judged).count();
    assert_eq!(judged, Invariant::ALL.len() - 1, "{verdict:#?}");
    // A folder that is here and empty is another matter.
    broken(&spoil(|facts| checkpoints(facts).clear()), Invariant::I6, "no checkpoint loads");
}

#[test]
fn a_batch_of_stale_tokens() {
    let verdict = spoil(|facts| {
        let batch = facts.setting.batches.last_mut().expect("some");
        batch.version = AdapterVersion(batch.version.0 + 7);
    });
    broken(&verdict, Invariant::I7, "2 versions are allowed");
}

#[test]
fn values_that_are_not_finite() {
    let verdict =
        spoil(|facts| checkpoints(facts)[0].holds.as_mut().expect("loads").finite = false);
    broken(&verdict, Invariant::I13, "not finite");
    let verdict = spoil(|facts| facts.transcripts[0].finite = false);
    broken(&verdict, Invariant::I13, "log-probability");
}
