//! A scripted trace (an oracle's, say) rendered through the episode itself, so that fine-tuning
//! sees exactly the tokens, and trains on exactly the mask, that sampling will.

use std::collections::VecDeque;
use std::sync::Arc;

use crrl_types::{AdapterVersion, Digest, ToolCall};
use serde_json::Value;

use crate::codec::{ChatCodec, RenderError};
use crate::episode::Episode;
use crate::options::{InvalidOptions, Options};
use crate::protocol::{Action, Input, Sampled, Stop, ToolOutcome};
use crate::{command, tool_call, tools};

/// A tool call of a script and what the tool answered when it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptedCall {
    /// The call. One that is malformed gets the scaffold's own answer and needs no outcome.
    pub call: ToolCall,
    /// The answer.
    pub outcome: ToolOutcome,
}

/// A turn of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct ScriptedTurn {
    /// Words before the calls; may be empty where there are calls.
    pub say: String,
    /// Calls, in order. The last turn of a script has none.
    pub calls: Vec<ScriptedCall>,
    /// Whether the turn is to be learnt. False for a mistake the script goes on to repair.
    pub learn: bool,
}

/// A training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// The transcript. `[len]`
    pub tokens: Vec<u32>,
    /// Whether a token is trained on. `[len]`
    pub mask: Vec<bool>,
}

/// A script that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum SupervisedError {
    /// The options make no sense.
    #[error(transparent)]
    Options(#[from] InvalidOptions),
    /// The chat template refused the conversation.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The template ends a turn with nothing the policy could learn to end it with.
    #[error("the chat template ends a turn with no end-of-turn token")]
    NoEndOfTurn,
    /// The script takes more tokens than an episode may.
    #[error("turn {turn} of the script does not fit the token limits")]
    TooLong {
        /// 0-based turn.
        turn: usize,
    },
    /// The episode took another course than the script.
    #[error("turn {turn} of the script: {reason}")]
    Diverged {
        /// 0-based turn.
        turn: usize,
        /// What differed.
        reason: String,
    },
}

impl ScriptedTurn {
    /// A turn of words only, which ends an episode.
    #[must_use]
    pub fn words(say: impl Into<String>) -> Self {
        Self { say: say.into(), calls: Vec::new(), learn: true }
    }

    /// A turn of one call.
    #[must_use]
    pub fn call(name: &str, arguments: Value, outcome: ToolOutcome) -> Self {
        let call = ToolCall { name: name.to_owned(), arguments };
        Self { say: String::new(), calls: vec![ScriptedCall { call, outcome }], learn: true }
    }

    /// The turn as the policy is to write it.
    #[must_use]
    pub fn text(&self) -> String {
        let calls = self.calls.iter().map(|scripted| match &scripted.call.arguments {
            Value::Object(arguments) => tool_call::write(&scripted.call.name, arguments),
            other => format!("<tool_call>\n{other}\n</tool_call>"),
        });
        let say = (!self.say.is_empty()).then(|| self.say.clone());
        say.into_iter().chain(calls).collect::<Vec<_>>().join("\n")
    }

    /// Answers of the calls that reach a tool.
    fn outcomes(&self) -> VecDeque<ToolOutcome> {
        let runs = |call: &ToolCall| match &call.arguments {
            Value::Object(arguments) => match tools::invocation(&call.name, arguments) {
                Ok(crate::Invocation::Shell { cmd }) => command::refusal(&cmd).is_none(),
                Ok(crate::Invocation::ApplyPatch { .. }) => true,
                Err(_) => false,
            },
            _ => false,
        };
        self.calls.iter().filter(|c| runs(&c.call)).map(|c| c.outcome.clone()).collect()
    }
}

/// Renders a script to tokens and mask. The end-of-turn token of every learnt turn is learnt too.
///
/// # Errors
/// When the script does not fit the limits, or does not end the way an episode ends.
pub fn supervised(
    codec: &Arc<dyn ChatCodec>,
    options: &Options,
    issue: &str,
    turns: &[ScriptedTurn],
) -> Result<Supervised, SupervisedError> {
    let mut episode = Episode::new(Arc::clone(codec), options.clone(), issue)?;
    let end = episode.end_of_turn()?.ok_or(SupervisedError::NoEndOfTurn)?;
    let mut script = turns.iter().enumerate();
    let (mut turn, mut outcomes) = (0, VecDeque::new());
    let mut learn = Vec::new();
    let mut input = Input::Start;
    loop {
        input = match episode.step(input) {
            Action::Generate { max_tokens, .. } => {
                let Some((index, scripted)) = script.next() else {
                    let reason = "it ends with a call; end it with a turn of words".to_owned();
                    return Err(SupervisedError::Diverged { turn, reason });
                };
                turn = index;
                outcomes = scripted.outcomes();
                let mut ids = codec.encode(&scripted.text());
                ids.push(end);
                if ids.len() > max_tokens as usize {
                    return Err(SupervisedError::TooLong { turn });
                }
                learn.resize(learn.len() + ids.len(), scripted.learn);
                Input::Generated {
                    tokens: ids.into_iter().map(scripted_token).collect(),
                    stop: Stop::EndOfTurn,
                }
            }
            Action::Call(_) => match outcomes.pop_front() {
                Some(outcome) => Input::ToolResult(outcome),
                None => {
                    let reason = "its text reads as more calls than it has".to_owned();
                    return Err(SupervisedError::Diverged { turn, reason });
                }
            },
            Action::CollectDiff => Input::Diff("changed".to_owned()),
            Action::Finish(record) => {
                return match (record.finish, script.next()) {
                    (crrl_types::Finish::Done, None) => {
                        let mut learn = learn.into_iter();
                        let mask =
                            record.generated.iter().map(|g| *g && learn.next() == Some(true));
                        Ok(Supervised { mask: mask.collect(), tokens: record.tokens })
                    }
                    (crrl_types::Finish::TokenLimit, _) => Err(SupervisedError::TooLong { turn }),
                    (crrl_types::Finish::Failed, _) => {
                        Err(SupervisedError::Diverged { turn, reason: record.failure })
                    }
                    (finish, left) => {
                        let left = if left.is_some() { ", and turns are left" } else { "" };
                        let reason = format!("the episode ends there ({finish:?}){left}");
                        Err(SupervisedError::Diverged { turn, reason })
                    }
                };
            }
        };
    }
}

/// A scripted token stands for one drawn with certainty from the base model.
fn scripted_token(id: u32) -> Sampled {
    Sampled { id, logprob: 0.0, version: AdapterVersion(0), digest: Digest::default() }
}
