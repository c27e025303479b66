//! Scripted traces take the same token path as sampled episodes.

mod support;

use std::sync::Arc;

use crrl_agent::{
    Action, ChatCodec, Episode, Input, Options, Sampled, ScriptedTurn, Stop, SupervisedError,
    ToolOutcome, supervised,
};
use crrl_types::{AdapterVersion, Digest};
use proptest::prelude::*;
use serde_json::json;
use support::{END, ToyCodec};

fn codec() -> Arc<dyn ChatCodec> {
    Arc::new(ToyCodec::default())
}

fn answer(output: &str, ok: bool) -> ToolOutcome {
    ToolOutcome { output: output.to_owned(), ok, wall_ms: 0 }
}

fn repair() -> Vec<ScriptedTurn> {
    vec![
        ScriptedTurn::call("shell", json!({"cmd": "cat m.py"}), answer("x = ab\n", true)),
        ScriptedTurn::call(
            "apply_patch",
            json!({"path": "m.py", "old": "x = ab", "new": "x = b"}),
            answer("done", true),
        ),
        ScriptedTurn::words("Repaired."),
    ]
}

#[test]
fn the_mask_covers_what_the_policy_says_and_nothing_else() {
    let got = supervised(&codec(), &Options::brief(2_000), "It breaks.", &repair()).expect("fits");
    assert_eq!(got.tokens.len(), got.mask.len());
    let pick = |wanted: bool| -> Vec<u32> {
        got.tokens.iter().zip(&got.mask).filter(|(_, m)| **m == wanted).map(|(t, _)| *t).collect()
    };
    let said: String = repair().iter().map(|turn| turn.text() + "<|im_end|>").collect();
    assert_eq!(codec().decode(&pick(true)), said);
    let shown = codec().decode(&pick(false));
    assert!(shown.contains("x = ab") && !shown.contains("apply_patch"), "{shown}");
}

#[test]
fn a_mistake_is_shown_and_not_learnt() {
    let mut turns = repair();
    let wrong = json!({"path": "m.py", "old": "y"});
    let mut mistake = ScriptedTurn::call("apply_patch", wrong, ToolOutcome::default());
    mistake.learn = false;
    turns.insert(1, mistake);
    let got = supervised(&codec(), &Options::brief(2_000), "It breaks.", &turns).expect("fits");
    let whole = codec().decode(&got.tokens);
    assert!(whole.contains("error: `new` is missing"), "{whole}");
    let learnt: Vec<u32> =
        got.tokens.iter().zip(&got.mask).filter(|(_, m)| **m).map(|(t, _)| *t).collect();
    let said: String = repair().iter().map(|turn| turn.text() + "<|im_end|>").collect();
    assert_eq!(codec().decode(&learnt), said);
}

#[test]
fn scripts_that_no_episode_follows_are_refused() {
    let render = |turns: &[ScriptedTurn], tokens_max| {
        supervised(&codec(), &Options::brief(tokens_max), "It breaks.", turns).expect_err("taken")
    };
    assert!(matches!(render(&repair(), 300), SupervisedError::TooLong { .. }));
    assert!(render(&repair()[..2], 2_000).to_string().contains("ends with a call"));
    let early = [ScriptedTurn::words("Done."), ScriptedTurn::words("Done again.")];
    assert!(render(&early, 2_000).to_string().contains("turns are left"));
    let hidden = [ScriptedTurn::words(repair()[0].text())];
    assert!(render(&hidden, 2_000).to_string().contains("more calls than it has"));
}

proptest! {
    /// The assistant's tokens fed through an episode by a driver of its own give the same tokens
    /// and the same mask.
    #[test]
    fn an_episode_that_draws_the_same_tokens_has_the_same_transcript(
        calls in prop::collection::vec((0usize..4, "[ab\"\\\\\n é<>|]{1,20}", ".{0,40}", any::<bool>()), 0..6),
        say in "[ab ]{0,10}", issue in ".{1,60}",
    ) {
        let mut turns: Vec<ScriptedTurn> = calls.into_iter().map(|(kind, text, output, ok)| {
            let outcome = answer(&output, ok);
            match kind {
                0 => ScriptedTurn::call("shell", json!({"cmd": format!("cat {text}")}), outcome),
                1 => ScriptedTurn::call("shell", json!({"cmd": "sudo x"}), outcome),
                2 => ScriptedTurn::call("apply_patch", json!({"path": "m"}), outcome),
                _ => ScriptedTurn::call(
                    "apply_patch", json!({"path": "m", "old": text, "new": format!("{text}!")}), outcome),
            }
        }).collect();
        turns.push(ScriptedTurn::words(format!("{say}.")));
        let options = Options::brief(20_000);
        let script = supervised(&codec(), &options, &issue, &turns)
            .map_err(|e| TestCaseError::fail(e.to_string()))?;

        // The turns as runs of the mask: what a sampler would have drawn.
        let mut runs: Vec<Vec<u32>> = Vec::new();
        let mut before = false;
        for (id, learnt) in script.tokens.iter().zip(&script.mask) {
            if *learnt && !before { runs.push(Vec::new()); }
            if *learnt { runs.last_mut().expect("pushed").push(*id); }
            before = *learnt;
        }
        prop_assert_eq!(runs.len(), turns.len());
        let mut episode = Episode::new(codec(), options, &issue).expect("good options");
        let mut action = episode.step(Input::Start);
        let mut drawn = runs.into_iter();
        let mut turn = 0;
        let record = loop {
            action = match action {
                Action::Generate { .. } => {
                    let ids = drawn.next().expect("as many turns as the script");
                    prop_assert_eq!(ids.last(), Some(&END));
                    turn += 1;
                    let token = |id| Sampled {
                        id, logprob: -1.0, version: AdapterVersion(3), digest: Digest::default(),
                    };
                    let tokens = ids.into_iter().map(token).collect();
                    episode.step(Input::Generated { tokens, stop: Stop::EndOfTurn })
                }
                Action::Call(_) => {
                    episode.step(Input::ToolResult(turns[turn - 1].calls[0].outcome.clone()))
                }
                Action::CollectDiff => episode.step(Input::Diff("d".to_owned())),
                Action::Finish(record) => break record,
            };
        };
        prop_assert_eq!(record.tokens, script.tokens);
        prop_assert_eq!(record.generated, script.mask);
    }
}
