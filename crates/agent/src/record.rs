//! The transcript in tokens, and what an episode leaves behind.

use crrl_types::{Finish, TokenSpan, Turn};

use crate::protocol::Sampled;

/// How the policy behaved, in counts; rewards may be shaped with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conduct {
    /// Calls, malformed and refused ones included.
    pub calls: u32,
    /// Calls that could not be read or had wrong arguments.
    pub malformed: u32,
    /// Calls that were read but not run: commands on the refusal list, calls past the limit.
    pub refused: u32,
    /// `apply_patch` calls that were run.
    pub edits: u32,
    /// Of those, the ones that replaced their text.
    pub edits_ok: u32,
    /// Nudges it was given.
    pub nudges: u32,
}

impl Conduct {
    /// Share of `apply_patch` calls that found their text; 0 where none was made.
    #[must_use]
    pub fn edit_share(&self) -> f64 {
        f64::from(self.edits_ok) / f64::from(self.edits.max(1))
    }

    /// Share of calls that were malformed; 0 where none was made.
    #[must_use]
    pub fn malformed_share(&self) -> f64 {
        f64::from(self.malformed) / f64::from(self.calls.max(1))
    }
}

/// A finished episode. The first three have one entry a token.
#[derive(Debug, Clone, PartialEq)]
pub struct EpisodeRecord {
    /// Every token, prompt first. `[len]`
    pub tokens: Vec<u32>,
    /// The loss mask: whether the policy generated the token. `[len]`
    pub generated: Vec<bool>,
    /// Log-probability under the sampler; 0.0 where not generated. `[len]`
    pub logprobs: Vec<f32>,
    /// Which adapter drew which tokens; covers the generated tokens only, in order.
    pub adapters: Vec<TokenSpan>,
    /// The turns, as text.
    pub turns: Vec<Turn>,
    /// How it ended.
    pub finish: Finish,
    /// Why, where `finish` is `Failed`; empty otherwise.
    pub failure: String,
    /// Diff of what the agent changed; where that is too much to be compared, a line that says so.
    pub diff: String,
    /// How it behaved.
    pub conduct: Conduct,
}

impl EpisodeRecord {
    /// Number of tokens the policy generated.
    #[must_use]
    pub fn generated_len(&self) -> usize {
        self.generated.iter().filter(|g| **g).count()
    }
}

/// The tokens of an episode under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transcript {
    pub(crate) tokens: Vec<u32>,
    pub(crate) generated: Vec<bool>,
    pub(crate) logprobs: Vec<f32>,
    pub(crate) adapters: Vec<TokenSpan>,
}

impl Transcript {
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.tokens.len()).expect("bounded by tokens_max, a u32")
    }

    /// Tokens the scaffold wrote.
    pub(crate) fn append(&mut self, ids: &[u32]) {
        self.tokens.extend_from_slice(ids);
        self.generated.resize(self.tokens.len(), false);
        self.logprobs.resize(self.tokens.len(), 0.0);
    }

    /// Tokens the policy drew.
    pub(crate) fn record(&mut self, sampled: &[Sampled]) {
        for token in sampled {
            let at = self.len();
            match self.adapters.last_mut() {
                Some(span)
                    if span.end == at
                        && span.version == token.version
                        && span.digest == token.digest =>
                {
                    span.end += 1;
                }
                _ => self.adapters.push(TokenSpan {
                    start: at,
                    end: at + 1,
                    version: token.version,
                    digest: token.digest,
                }),
            }
            self.tokens.push(token.id);
            self.generated.push(true);
            self.logprobs.push(token.logprob);
        }
    }
}
