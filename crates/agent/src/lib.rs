//! The agent's scaffold as a pure state machine: `Episode::step(Input) -> Action`.
//!
//! - [`episode`]: the machine; it decides, the caller carries out
//! - [`protocol`]: what goes in ([`Input`]) and what comes out ([`Action`])
//! - [`record`]: the transcript in tokens, and what an episode leaves behind
//! - [`codec`]: the chat template and tokenizer the machine speaks through
//! - [`tool_call`]: reading `<tool_call>` blocks out of whatever the policy wrote
//! - [`tools`]: the two tools and their arguments
//! - [`command`]: the short list of commands that are not worth running
//! - [`observation`]: what the policy is shown: cut, defused, with warnings
//! - [`prompt`]: the scaffold's own words
//! - [`options`]: limits of an episode
//! - [`mod@supervised`]: a scripted trace through exactly the same token path, for fine-tuning
//!
//! Invariants: a sampled id is never turned into text and back; text is appended to the transcript
//! only as the chat template's suffix; nothing the policy writes is an error of ours.
//!
//! This crate never does I/O, never reads a clock and never draws a random number.

pub mod codec;
pub mod command;
pub mod episode;
pub mod observation;
pub mod options;
pub mod prompt;
pub mod protocol;
pub mod record;
pub mod supervised;
pub mod tool_call;
pub mod tools;

pub use codec::{ChatCodec, RenderError};
pub use episode::Episode;
pub use options::{InvalidOptions, Options, Style};
pub use protocol::{Action, Input, Invocation, Sampled, Stop, ToolOutcome};
pub use record::{Conduct, EpisodeRecord};
pub use supervised::{ScriptedCall, ScriptedTurn, Supervised, SupervisedError, supervised};
