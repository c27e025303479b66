//! What episodes and steps leave behind in the run store.

use crrl_inspect::pieces::{Piece, Pieces};
use crrl_inspect::state::transcript::Left;
use crrl_store::{EpisodeRow, StepRow};
use crrl_types::reward::Component;
use crrl_types::{
    AdapterVersion, Digest, EpisodeId, Finish, GroupId, Reward, Step, TokenSpan, ToolRecord,
    Trajectory, Turn,
};

/// An episode that is over.
pub(crate) fn over(id: u64) -> EpisodeRow {
    EpisodeRow {
        episode: EpisodeId(id),
        group: GroupId(1),
        task: "json-decoder-negation-13".into(),
        phase: 0,
        ordinal: 1,
        sample: 0,
        evaluation: false,
        attempt: 1,
        node: Some("rollout-1".into()),
        state: "trained".into(),
        reason: None,
        reward: Some(0.875),
        success: Some(true),
        oldest: Some(AdapterVersion(12)),
        generated: Some(5),
        step: Some(Step(13)),
    }
}

/// The numbers of a step.
pub(crate) fn step(at: u64) -> StepRow {
    let names = ["loss", "kl_k3", "entropy", "clip_high", "grad_norm", "tokens_per_s", "gap_mean"];
    let metrics = names.iter().map(|name| ((*name).to_owned(), (at as f64).sin())).collect();
    StepRow { step: Step(at), version: AdapterVersion(at), metrics }
}

/// What episode 7 left behind: a hostile text, ten megabytes of output, two turns.
pub(crate) fn trajectory() -> Trajectory {
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2Jwho\u{202e}ami\u{200b}";
    Trajectory {
        episode: EpisodeId(7),
        group: GroupId(1),
        task: "json-decoder-negation-13".into(),
        node: "rollout-1".into(),
        tokens: vec![1; 9],
        generated: vec![false, false, true, true, true, false, false, true, true],
        logprobs: vec![0.0, 0.0, -0.5, -0.25, -0.75, 0.0, 0.0, -1.0, -2.0],
        adapters: vec![TokenSpan {
            start: 2,
            end: 9,
            version: AdapterVersion(12),
            digest: Digest::default(),
        }],
        turns: vec![
            Turn {
                text: format!("I look at {hostile}"),
                tokens: 3,
                tools: vec![ToolRecord {
                    name: "shell".into(),
                    arguments: "{\"command\":\"cat decoder.py\"}".into(),
                    output: "x".repeat(10 << 20),
                    ok: true,
                    wall_ms: 41,
                }],
            },
            Turn { text: "done".into(), tokens: 2, tools: Vec::new() },
        ],
        finish: Finish::Done,
        diff: "@@ -1 +1 @@\n-if not end:\n+if end:\n".into(),
        reward: Reward {
            total: 0.875,
            success: true,
            components: vec![Component { name: "line".into(), value: 0.75, weight: 0.5 }],
        },
        temperature: 1.0,
        wall_ms: 4_200,
    }
}

/// The same as the viewer has it, with a text for each token.
pub(crate) fn left() -> Left {
    let trajectory = trajectory();
    let piece = |text: &str, logprob: f32, version: u64| Piece {
        id: 1,
        text: text.into(),
        logprob: Some(logprob),
        version: Some(version),
    };
    let turn = |pieces: Vec<Piece>| Some(Pieces { pieces, left_out: 0, note: None });
    Left {
        tokens: vec![
            turn(vec![
                piece("I look", -0.5, 12),
                piece(" at \u{1b}]0;owned\u{7}\u{1b}[2Jwho", -0.25, 12),
                piece("\u{202e}ami\u{200b}", -6.0, 13),
            ]),
            turn(vec![piece("do", -1.0, 13), piece("ne", -2.0, 13)]),
        ],
        advantage: Some(1.25),
        scored: 8,
        trained_at: Some(14),
        is_final: true,
        trajectory,
    }
}
