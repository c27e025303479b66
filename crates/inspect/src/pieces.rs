//! Tokens as text: what a policy generated, token by token, with the log-probability it was drawn
//! under and the adapter that drew it. Only read off; nothing is encoded again.

use std::path::Path;

use crrl_types::{Sampled, Trajectory};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

/// Largest tokenizer that is loaded, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Tokens of one turn that are told; a turn of more is cut, and says so.
const TOKENS_MAX: usize = 4_096;
/// Tokens that may share one character; after so many they are shown as they are.
const SHARE_MAX: usize = 8;

/// A token that was generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// Its number in the vocabulary.
    pub id: u32,
    /// Its text; empty where a character is not complete yet, which the next one then holds.
    pub text: String,
    /// Natural logarithm of the probability it was drawn with; `None` where that was not finite.
    pub logprob: Option<f32>,
    /// Version of the adapter that drew it.
    pub version: Option<u64>,
}

/// What was generated in one turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pieces {
    /// Token by token, at most [`TOKENS_MAX`].
    pub pieces: Vec<Piece>,
    /// Tokens past the bound.
    pub left_out: usize,
    /// Why there is no text, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Places of the tokens of each turn in a trajectory; `None` where turns and tokens do not add up.
fn places(trajectory: &Trajectory) -> Option<Vec<Vec<usize>>> {
    let flags = trajectory.generated.iter().enumerate();
    let mut generated = flags.filter(|(_, is)| **is).map(|(at, _)| at);
    let turns: Vec<Vec<usize>> = trajectory
        .turns
        .iter()
        .map(|turn| generated.by_ref().take(turn.tokens as usize).collect())
        .collect();
    let fits =
        turns.iter().zip(&trajectory.turns).all(|(at, turn)| at.len() == turn.tokens as usize);
    (fits && generated.next().is_none()).then_some(turns)
}

/// Mean log-probability of each turn's tokens; `None` where turns and tokens do not add up.
#[must_use]
pub fn means(trajectory: &Trajectory) -> Option<Vec<f32>> {
    let mean = |places: Vec<usize>| {
        let known = places.iter().filter_map(|at| trajectory.logprobs.get(*at));
        known.sum::<f32>() / places.len().max(1) as f32
    };
    Some(places(trajectory)?.into_iter().map(mean).collect())
}

/// The tokens of one turn, 0-based.
#[must_use]
pub fn of_turn(
    trajectory: &Trajectory,
    turn: usize,
    tokenizer: Result<&Tokenizer, &str>,
) -> Option<Pieces> {
    let places = places(trajectory)?.into_iter().nth(turn)?;
    let version = |at: usize| {
        let mut spans = trajectory.adapters.iter();
        spans.find(|s| (s.start as usize..s.end as usize).contains(&at)).map(|s| s.version.0)
    };
    let drawn = places.iter().map(|&at| Drawn {
        id: trajectory.tokens.get(at).copied().unwrap_or(0),
        logprob: trajectory.logprobs.get(at).copied(),
        version: version(at),
    });
    Some(told(drawn, tokenizer))
}

/// The tokens of a turn as the engine stamped them.
#[must_use]
pub fn of_sampled(tokens: &[Sampled], tokenizer: Result<&Tokenizer, &str>) -> Pieces {
    let drawn = tokens.iter().map(|token| Drawn {
        id: token.id,
        logprob: Some(token.logprob),
        version: Some(token.version.0),
    });
    told(drawn, tokenizer)
}

/// A token before it has a text.
struct Drawn {
    id: u32,
    logprob: Option<f32>,
    version: Option<u64>,
}

fn told(
    drawn: impl ExactSizeIterator<Item = Drawn>,
    tokenizer: Result<&Tokenizer, &str>,
) -> Pieces {
    let left_out = drawn.len().saturating_sub(TOKENS_MAX);
    let mut waiting: Vec<u32> = Vec::new();
    let pieces = drawn.take(TOKENS_MAX).map(|Drawn { id, logprob, version }| {
        let text = tokenizer.map_or_else(
            |_| String::new(),
            |tokenizer| {
                waiting.push(id);
                let text = tokenizer.decode(&waiting, false).unwrap_or_default();
                if text.ends_with('\u{fffd}') && waiting.len() < SHARE_MAX {
                    return String::new();
                }
                waiting.clear();
                text
            },
        );
        Piece { id, text, logprob: logprob.filter(|logprob| logprob.is_finite()), version }
    });
    Pieces { pieces: pieces.collect(), left_out, note: tokenizer.err().map(str::to_owned) }
}

/// The tokenizer of a model's folder.
///
/// # Errors
/// In words: it is not there, or is none.
pub fn tokenizer(model: &Path) -> Result<Tokenizer, String> {
    let path = model.join("tokenizer.json");
    let refuse = |error: &dyn std::fmt::Display| {
        format!("tokens have no text here: {} cannot be read: {error}", path.display())
    };
    let bytes = std::fs::metadata(&path).map_err(|error| refuse(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(refuse(&format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Tokenizer::from_file(&path).map_err(|error| refuse(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crrl_types::{AdapterVersion, Digest, EpisodeId, Finish, GroupId, Reward, TokenSpan, Turn};

    fn trajectory() -> Trajectory {
        let turn = |tokens| Turn { text: String::new(), tokens, tools: Vec::new() };
        let span = |start, end, version| TokenSpan {
            start,
            end,
            version: AdapterVersion(version),
            digest: Digest::default(),
        };
        Trajectory {
            episode: EpisodeId(1),
            group: GroupId(1),
            task: "t".into(),
            node: "rollout-0".into(),
            tokens: (0..6).collect(),
            generated: vec![false, true, true, false, true, false],
            logprobs: vec![0.0, -1.0, -3.0, 0.0, f32::NAN, 0.0],
            adapters: vec![span(0, 2, 3), span(2, 6, 4)],
            turns: vec![turn(2), turn(1)],
            finish: Finish::Done,
            diff: String::new(),
            reward: Reward::default(),
            temperature: 1.0,
            wall_ms: 1,
        }
    }

    #[test]
    fn a_turn_has_the_tokens_that_were_generated_in_it() {
        let trajectory = trajectory();
        assert_eq!(means(&trajectory).expect("they add up")[0], -2.0);
        let first = of_turn(&trajectory, 0, Err("no tokenizer")).expect("a turn");
        let told: Vec<_> = first.pieces.iter().map(|p| (p.id, p.logprob, p.version)).collect();
        assert_eq!(told, [(1, Some(-1.0), Some(3)), (2, Some(-3.0), Some(4))]);
        assert_eq!(first.note.as_deref(), Some("no tokenizer"));
        let second = of_turn(&trajectory, 1, Err("")).expect("a turn");
        assert_eq!(second.pieces[0].logprob, None, "not a number is no number");
        assert_eq!(of_turn(&trajectory, 2, Err("")), None);
    }

    #[test]
    fn turns_that_do_not_add_up_say_nothing() {
        let mut trajectory = trajectory();
        trajectory.turns[0].tokens = u32::MAX;
        assert_eq!((means(&trajectory), of_turn(&trajectory, 0, Err(""))), (None, None));
    }
}
