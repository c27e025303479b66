//! One sequence: its tokens, how many of them have keys and values, and the generation under way.

use crrl_model::SlotId;
use crrl_types::{Digest, Sampling};
pub use crrl_types::{Sampled, Stop};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::stop_text::StopTexts;
use crate::vocabulary::Vocabulary;

/// Name of an open sequence; never used again after it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqId(pub(crate) u64);

/// The generation under way.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) sampling: Sampling,
    rng: ChaCha8Rng,
    stop: StopTexts,
    drawn: u32,
}

impl Generation {
    /// `position` is the index of the first token it will draw. It selects the random stream, so
    /// that two turns of a sequence under one seed do not repeat each other's draws.
    pub(crate) fn new(sampling: Sampling, position: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(position as u64);
        let stop = StopTexts::new(sampling.stop.clone());
        Self { sampling, rng, stop, drawn: 0 }
    }

    /// The random number of the next draw, in `0.0..1.0`. One a token: what else is in the batch
    /// cannot shift it.
    pub(crate) fn uniform(&mut self) -> f64 {
        self.rng.random()
    }

    /// Takes a drawn token; says why it was the last, if it was. `full`: the context has no room
    /// for another.
    pub(crate) fn take(&mut self, id: u32, vocabulary: &Vocabulary, full: bool) -> Option<Stop> {
        self.drawn += 1;
        if vocabulary.is_end(id) {
            Some(Stop::EndOfTurn)
        } else if self.stop.push(id, vocabulary) {
            Some(Stop::Text)
        } else if full || self.drawn >= self.sampling.max_tokens {
            Some(Stop::Length)
        } else {
            None
        }
    }
}

/// An open sequence.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SeqId,
    pub(crate) slot: SlotId,
    /// Everything: prompt, generated and appended tokens.
    pub(crate) tokens: Vec<u32>,
    /// How many of `tokens` have keys and values in the slot.
    pub(crate) computed: usize,
    /// Adapter the first `pure` tokens' keys and values were computed under.
    pub(crate) digest: Digest,
    /// Length of the prefix computed under `digest` alone.
    pub(crate) pure: usize,
    /// Length of the first submission.
    pub(crate) prompt: usize,
    /// The generation under way; between turns there is none.
    pub(crate) generation: Option<Generation>,
}

impl Sequence {
    pub(crate) fn new(id: SeqId, slot: SlotId) -> Self {
        Self {
            id,
            slot,
            tokens: Vec::new(),
            computed: 0,
            digest: Digest::default(),
            pure: 0,
            prompt: 0,
            generation: None,
        }
    }

    /// Tokens whose keys and values are missing.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Notes that `count` more tokens were computed under `digest`.
    pub(crate) fn advance(&mut self, count: usize, digest: Digest) {
        if self.computed == 0 {
            self.digest = digest;
            self.pure = 0;
        }
        if self.pure == self.computed && self.digest == digest {
            self.pure += count;
        }
        self.computed += count;
    }

    /// How many of the first tokens may serve another sequence under `digest`.
    pub(crate) fn pure_under(&self, digest: Digest) -> usize {
        if self.digest == digest { self.pure } else { 0 }
    }

    /// Forgets the keys and values.
    pub(crate) fn reset(&mut self) {
        self.computed = 0;
        self.pure = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_computed_under_two_adapters_is_pure_up_to_the_swap() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let mut sequence = Sequence::new(SeqId(1), SlotId(0));
        sequence.tokens = vec![0; 10];
        sequence.advance(4, old);
        sequence.advance(2, new);
        sequence.advance(1, old);
        assert_eq!(sequence.computed, 7);
        assert_eq!(sequence.pure_under(old), 4);
        assert_eq!(sequence.pure_under(new), 0);
        sequence.reset();
        sequence.advance(7, new);
        assert_eq!(sequence.pure_under(new), 7);
        assert_eq!(sequence.pure_under(old), 0);
    }

    #[test]
    fn two_turns_under_one_seed_draw_different_numbers() {
        let mut first = Generation::new(Sampling::default(), 10);
        let mut again = Generation::new(Sampling::default(), 10);
        let mut later = Generation::new(Sampling::default(), 20);
        let number = first.uniform();
        assert_eq!(number, again.uniform());
        assert_ne!(number, later.uniform());
    }
}
