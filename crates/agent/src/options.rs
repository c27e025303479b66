//! Limits of an episode.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much the scaffold says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// Complete instructions, tool schemas in the prompt. For a model that was never trained here.
    #[default]
    Full,
    /// One line of instructions, short observations and no tool schemas. For a small policy that
    /// learnt the tools from traces and has a few hundred tokens of context.
    Brief,
}

/// Limits of an episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// How much the scaffold says.
    pub style: Style,
    /// Tool calls, malformed ones included.
    pub calls_max: u32,
    /// Tokens of the whole transcript, prompt and tool output included. Never more than the
    /// model's context.
    pub tokens_max: u32,
    /// Tokens one turn may generate.
    pub turn_tokens_max: u32,
    /// Wall time of the episode. Kept by the caller, which sends `Input::DeadlinePassed`.
    pub time_max: Duration,
    /// Characters of a tool's output the policy is shown.
    pub output_chars_max: usize,
    /// Times the policy is nudged when it stops without having changed anything.
    pub nudges_max: u32,
    /// The policy is warned when this share of its calls or tokens is left; 0 never warns.
    pub warn_share: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            style: Style::Full,
            calls_max: 30,
            tokens_max: 10_240,
            turn_tokens_max: 2_048,
            time_max: Duration::from_secs(60),
            output_chars_max: 2_000,
            nudges_max: 1,
            warn_share: 0.2,
        }
    }
}

/// An option with a value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent option {name}: {reason}")]
pub struct InvalidOptions {
    /// The option.
    pub name: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl Options {
    /// Limits that suit a policy of a few hundred tokens of context.
    #[must_use]
    pub fn brief(tokens_max: u32) -> Self {
        Self {
            style: Style::Brief,
            calls_max: 8,
            tokens_max,
            turn_tokens_max: tokens_max / 2,
            output_chars_max: 800,
            ..Self::default()
        }
    }

    /// Checks the options against each other.
    ///
    /// # Errors
    /// Names the first option that cannot be.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        let refuse = |name, reason: &str| Err(InvalidOptions { name, reason: reason.to_owned() });
        if self.calls_max == 0 {
            return refuse(
                "calls_max",
                "an agent without a call can change nothing; give 1 or more",
            );
        }
        if self.turn_tokens_max == 0 {
            return refuse("turn_tokens_max", "a turn needs at least one token");
        }
        if self.tokens_max < 64 {
            return refuse("tokens_max", "no prompt fits under 64 tokens");
        }
        if self.output_chars_max < 16 {
            return refuse("output_chars_max", "tools would answer nothing; give 16 or more");
        }
        if !(0.0..1.0).contains(&self.warn_share) {
            return refuse("warn_share", "a share is at least 0 and under 1");
        }
        if self.time_max.is_zero() {
            return refuse("time_max", "an episode needs time");
        }
        Ok(())
    }
}
