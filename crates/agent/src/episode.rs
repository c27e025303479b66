//! The episode: one attempt at one task, as a state machine.
//!
//! Owns the transcript and every decision of the scaffold. Never generates, runs or times
//! anything itself: it says what is to be done and is told what came of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crrl_types::{Finish, Message, Role, ToolRecord, Turn};

use crate::codec::{ChatCodec, RenderError};
use crate::command;
use crate::observation;
use crate::options::{InvalidOptions, Options, Style};
use crate::prompt;
use crate::protocol::{Action, Input, Invocation, Sampled, Stop, ToolOutcome};
use crate::record::{Conduct, EpisodeRecord, Transcript};
use crate::tool_call::{self, Parsed};
use crate::tools;

/// A turn with less room than this could not hold a tool call; the episode ends instead.
pub const TURN_TOKENS_MIN: u32 = 16;

/// One attempt at one task.
pub struct Episode {
    codec: Arc<dyn ChatCodec>,
    options: Options,
    opening: [Message; 2],
    transcript: Transcript,
    turns: Vec<Turn>,
    conduct: Conduct,
    phase: Phase,
    /// No nudge any more: time or tokens are up.
    closing: bool,
}

enum Phase {
    New,
    Generating,
    /// A call is out; more of the same turn may wait.
    Calling {
        running: Running,
        waiting: VecDeque<Parsed>,
        answers: Vec<Message>,
    },
    Collecting(Finish),
    Over,
}

/// The call that is out.
struct Running {
    name: String,
    arguments: String,
    edit: bool,
}

impl Episode {
    /// An episode that has not begun. `issue` is the task's problem statement.
    ///
    /// # Errors
    /// When the options make no sense.
    pub fn new(
        codec: Arc<dyn ChatCodec>,
        options: Options,
        issue: &str,
    ) -> Result<Self, InvalidOptions> {
        options.validate()?;
        let issue = observation::defuse(issue, codec.special_texts());
        let opening = [
            Message::new(Role::System, prompt::system(options.style)),
            Message::new(Role::User, prompt::user(&options, &issue)),
        ];
        Ok(Self {
            codec,
            options,
            opening,
            transcript: Transcript::default(),
            turns: Vec::new(),
            conduct: Conduct::default(),
            phase: Phase::New,
            closing: false,
        })
    }

    /// The transcript so far. `[len]`
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.transcript.tokens
    }

    /// The turns so far.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Takes what happened and says what is to be done next.
    ///
    /// An input that does not answer the last action is a fault of the caller's; the episode then
    /// ends as `Failed`, which keeps its tokens out of training.
    pub fn step(&mut self, input: Input) -> Action {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        match (phase, input) {
            (_, Input::Broken(reason)) => self.fail(reason),
            (Phase::New, Input::Start) => self.start(),
            (Phase::Generating, Input::Generated { tokens, stop }) => self.turn(&tokens, stop),
            (Phase::Calling { running, waiting, answers }, Input::ToolResult(outcome)) => {
                self.answered(&running, &outcome, waiting, answers)
            }
            (Phase::Collecting(finish), Input::Diff(diff)) => self.collected(finish, diff),
            // No nudge: it did change something. The line is no diff, and is scored as none.
            (Phase::Collecting(finish), Input::TooMuch(why)) => {
                self.finish(finish, why, String::new())
            }
            (Phase::Over, Input::DeadlinePassed) => self.fail("the episode is over".to_owned()),
            (Phase::Collecting(finish), Input::DeadlinePassed) => {
                self.closing = true;
                self.collect(finish)
            }
            (_, Input::DeadlinePassed) => self.collect(Finish::TimeLimit),
            (_, input) => self.fail(format!("unexpected input: {}", input_name(&input))),
        }
    }

    /// The id the chat template ends an assistant's turn with, if it is one id.
    ///
    /// # Errors
    /// When the chat template refuses the conversation.
    pub fn end_of_turn(&self) -> Result<Option<u32>, RenderError> {
        let suffix = self.suffix(&[], false)?;
        Ok(self.codec.encode(&suffix).first().copied().filter(|id| self.codec.is_end(*id)))
    }

    fn start(&mut self) -> Action {
        let prompt = match self.codec.render(&self.opening, &self.tool_schemas(), true) {
            Ok(text) => self.codec.encode(&text),
            Err(error) => return self.fail(error.to_string()),
        };
        let room = self.options.tokens_max as usize;
        if prompt.len() + TURN_TOKENS_MIN as usize > room {
            return self.fail(format!(
                "the prompt takes {} tokens and there is room for {room}, the lesser of tokens_max and \
                 the model's context: raise that one, take the brief prompt, or drop the task",
                prompt.len()
            ));
        }
        self.generate(prompt)
    }

    /// One turn of the policy's.
    fn turn(&mut self, tokens: &[Sampled], stop: Stop) -> Action {
        self.transcript.record(tokens);
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        let spoken = match ids.split_last() {
            Some((last, rest)) if self.codec.is_end(*last) => rest,
            _ => &ids[..],
        };
        let text = self.codec.decode(spoken);
        let calls: VecDeque<Parsed> = tool_call::parse(&text).into();
        let tokens = u32::try_from(ids.len()).unwrap_or(u32::MAX);
        self.turns.push(Turn { text, tokens, tools: Vec::new() });
        if !calls.is_empty() {
            return self.next_call(calls, Vec::new());
        }
        let full = self.transcript.len() + TURN_TOKENS_MIN > self.options.tokens_max;
        let finish = if stop == Stop::Length && full { Finish::TokenLimit } else { Finish::Done };
        self.collect(finish)
    }

    /// Works through the calls of a turn until one has to be carried out or none is left.
    fn next_call(&mut self, mut waiting: VecDeque<Parsed>, mut answers: Vec<Message>) -> Action {
        while let Some(parsed) = waiting.pop_front() {
            if self.conduct.calls >= self.options.calls_max {
                self.conduct.refused += 1;
                let (name, arguments) = name_and_arguments(&parsed);
                self.answer(&mut answers, name, arguments, "not run: no calls left", false, 0);
                continue;
            }
            self.conduct.calls += 1;
            let (name, arguments) = name_and_arguments(&parsed);
            let checked = match &parsed {
                Parsed::Call { name, arguments } => tools::invocation(name, arguments),
                Parsed::Malformed(why) => Err(why.clone()),
            };
            match checked {
                Err(why) => {
                    self.conduct.malformed += 1;
                    let said = prompt::malformed(self.options.style, &why);
                    self.answer(&mut answers, name, arguments, &said, false, 0);
                }
                Ok(invocation) => {
                    if let Invocation::Shell { cmd } = &invocation
                        && let Some(why) = command::refusal(cmd)
                    {
                        self.conduct.refused += 1;
                        self.answer(
                            &mut answers,
                            name,
                            arguments,
                            &format!("refused: {why}"),
                            false,
                            0,
                        );
                        continue;
                    }
                    let edit = matches!(invocation, Invocation::ApplyPatch { .. });
                    self.conduct.edits += u32::from(edit);
                    let running = Running { name, arguments, edit };
                    self.phase = Phase::Calling { running, waiting, answers };
                    return Action::Call(invocation);
                }
            }
        }
        self.reply(answers)
    }

    fn answered(
        &mut self,
        running: &Running,
        outcome: &ToolOutcome,
        waiting: VecDeque<Parsed>,
        mut answers: Vec<Message>,
    ) -> Action {
        self.conduct.edits_ok += u32::from(running.edit && outcome.ok);
        let (name, arguments) = (running.name.clone(), running.arguments.clone());
        self.answer(&mut answers, name, arguments, &outcome.output, outcome.ok, outcome.wall_ms);
        self.next_call(waiting, answers)
    }

    /// Writes down what a call came to, as the policy is shown it.
    fn answer(
        &mut self,
        answers: &mut Vec<Message>,
        name: String,
        arguments: String,
        output: &str,
        ok: bool,
        wall_ms: u64,
    ) {
        let cut = observation::cut(output.trim_end(), self.options.output_chars_max);
        let mut shown = observation::defuse(&cut, self.codec.special_texts());
        if shown.is_empty() {
            shown = if ok { "(no output)".to_owned() } else { "(failed, no output)".to_owned() };
        }
        answers.push(Message::new(Role::Tool, shown.clone()));
        if let Some(turn) = self.turns.last_mut() {
            turn.tools.push(ToolRecord { name, arguments, output: shown, ok, wall_ms });
        }
    }

    /// Hands the tools' answers to the policy, or ends the episode where a limit is reached.
    fn reply(&mut self, mut answers: Vec<Message>) -> Action {
        let calls_left = self.options.calls_max - self.conduct.calls;
        if calls_left == 0 {
            return self.collect(Finish::CallLimit);
        }
        let tokens_left = self.options.tokens_max.saturating_sub(self.transcript.len());
        if let Some(warning) = observation::warning(&self.options, calls_left, tokens_left)
            && let Some(last) = answers.last_mut()
        {
            last.content.push('\n');
            last.content.push_str(&warning);
        }
        self.continue_with(&answers, Finish::TokenLimit)
    }

    /// Appends messages after the policy's turn and lets it go on; `otherwise` is how the episode
    /// ends where they do not fit.
    fn continue_with(&mut self, messages: &[Message], otherwise: Finish) -> Action {
        let suffix = match self.suffix(messages, true) {
            Ok(text) => text,
            Err(error) => return self.fail(error.to_string()),
        };
        let mut ids = self.codec.encode(&suffix);
        // The policy may have ended its turn itself; the template's end is then already there.
        let last = self.transcript.tokens.last();
        if self.codec.is_end(last.copied().unwrap_or(u32::MAX)) && ids.first() == last {
            ids.remove(0);
        }
        let needed = self.transcript.tokens.len() + ids.len() + TURN_TOKENS_MIN as usize;
        if needed > self.options.tokens_max as usize {
            self.closing = true;
            return self.collect(otherwise);
        }
        self.generate(ids)
    }

    fn generate(&mut self, append: Vec<u32>) -> Action {
        self.transcript.append(&append);
        let room = self.options.tokens_max - self.transcript.len();
        self.phase = Phase::Generating;
        Action::Generate { append, max_tokens: room.min(self.options.turn_tokens_max) }
    }

    fn collect(&mut self, finish: Finish) -> Action {
        self.phase = Phase::Collecting(finish);
        Action::CollectDiff
    }

    fn collected(&mut self, finish: Finish, diff: String) -> Action {
        let nudge = finish == Finish::Done
            && diff.trim().is_empty()
            && !self.closing
            && self.conduct.nudges < self.options.nudges_max;
        if nudge {
            self.conduct.nudges += 1;
            let nudge = Message::new(Role::User, prompt::nudge(self.options.style));
            return self.continue_with(&[nudge], Finish::Done);
        }
        self.finish(finish, diff, String::new())
    }

    fn fail(&mut self, reason: String) -> Action {
        self.finish(Finish::Failed, String::new(), reason)
    }

    fn finish(&mut self, finish: Finish, diff: String, failure: String) -> Action {
        self.phase = Phase::Over;
        let Transcript { tokens, generated, logprobs, adapters } =
            std::mem::take(&mut self.transcript);
        Action::Finish(Box::new(EpisodeRecord {
            tokens,
            generated,
            logprobs,
            adapters,
            turns: std::mem::take(&mut self.turns),
            finish,
            failure,
            diff,
            conduct: self.conduct,
        }))
    }

    /// What the chat template writes after an assistant's turn when `messages` follow it.
    fn suffix(&self, messages: &[Message], generate: bool) -> Result<String, RenderError> {
        // A stand-in for the turn marks where the suffix begins; no message may hold it.
        let taken = |mark: &str| {
            self.opening.iter().chain(messages).any(|message| message.content.contains(mark))
        };
        let mark = (0..=messages.len() + self.opening.len())
            .map(|n| format!("the-assistant-turn-{n}."))
            .find(|mark| !taken(mark))
            .unwrap_or_else(|| "the-assistant-turn-of-this-conversation.".to_owned());
        let mut all = self.opening.to_vec();
        all.push(Message::new(Role::Assistant, mark.clone()));
        all.extend_from_slice(messages);
        let text = self.codec.render(&all, &self.tool_schemas(), generate)?;
        match text.rfind(&mark) {
            Some(at) => Ok(text[at + mark.len()..].to_owned()),
            None => Err(RenderError("it does not write the assistant's turn".to_owned())),
        }
    }

    fn tool_schemas(&self) -> Vec<serde_json::Value> {
        match self.options.style {
            Style::Full => tools::schemas(),
            Style::Brief => Vec::new(),
        }
    }
}

fn name_and_arguments(parsed: &Parsed) -> (String, String) {
    match parsed {
        Parsed::Call { name, arguments } => {
            (name.clone(), serde_json::Value::Object(arguments.clone()).to_string())
        }
        Parsed::Malformed(_) => (String::new(), String::new()),
    }
}

fn input_name(input: &Input) -> &'static str {
    match input {
        Input::Start => "Start",
        Input::Generated { .. } => "Generated",
        Input::ToolResult(_) => "ToolResult",
        Input::Diff(_) => "Diff",
        Input::TooMuch(_) => "TooMuch",
        Input::DeadlinePassed => "DeadlinePassed",
        Input::Broken(_) => "Broken",
    }
}
