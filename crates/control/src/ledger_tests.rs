use proptest::prelude::*;

use super::*;

fn outcome() -> Outcome {
    Outcome { reward: 0.5, success: false, oldest: Some(AdapterVersion(1)), generated: 3 }
}

fn transition() -> impl Strategy<Value = Transition> {
    prop_oneof![
        Just(Transition::Lease { node: "a".into(), deadline: Duration::ZERO }),
        (1..4_u32).prop_map(|attempt| Transition::Resume { attempt, deadline: Duration::ZERO }),
        (1..4_u32).prop_map(|attempt| Transition::Release { attempt }),
        Just(Transition::Finish(outcome())),
        Just(Transition::Measure),
        Just(Transition::Batch(Step(1))),
        Just(Transition::Commit),
        Just(Transition::RollBack),
        Just(Transition::Drop("d".into())),
        Just(Transition::Fail("f".into())),
        Just(Transition::Quarantine("q".into())),
    ]
}

proptest! {
    #[test]
    fn any_history_adds_up_and_ends_once(
        history in proptest::collection::vec((0..6_u64, transition()), 0..200)
    ) {
        let mut ledger = Ledger::default();
        let mut ended = BTreeMap::new();
        for i in 0..6 {
            ledger.create((0, i, GroupId(i)), &"t".into(), 0, i % 2 == 0);
        }
        for (episode, transition) in history {
            let before = ledger.get(EpisodeId(episode)).cloned();
            match ledger.apply(EpisodeId(episode), transition.clone()) {
                Ok(entry) => {
                    let rollback = transition == Transition::RollBack;
                    prop_assert!(!ended.contains_key(&episode) || rollback);
                    if entry.state.is_terminal() {
                        ended.insert(episode, entry.state.name());
                    } else {
                        ended.remove(&episode);
                    }
                    prop_assert!(entry.state.outcome().is_none() || entry.attempt > 0);
                }
                Err(_) => prop_assert_eq!(before.as_ref(), ledger.get(EpisodeId(episode))),
            }
            if let Err(broken) = ledger.check() {
                prop_assert!(false, "{broken}");
            }
        }
        prop_assert_eq!(ledger.totals().terminal(), ended.len() as u64);
    }
}

#[test]
fn an_evaluation_is_never_trained_on() {
    let mut ledger = Ledger::default();
    ledger.create((0, 0, GroupId(0)), &"t".into(), 0, true);
    let id = EpisodeId(0);
    let lease = Transition::Lease { node: "a".into(), deadline: Duration::ZERO };
    ledger.apply(id, lease).expect("queued");
    ledger.apply(id, Transition::Finish(outcome())).expect("leased");
    assert!(ledger.apply(id, Transition::Batch(Step(1))).is_err());
    ledger.apply(id, Transition::Measure).expect("finished");
    assert_eq!(ledger.apply(id, Transition::Measure), Err(LedgerError::Unknown(id)));
}
