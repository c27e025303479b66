//! Prompts of closed sequences, kept so that a later sequence need not compute them again.
//!
//! Bookkeeping only: it says which slot of the key-value store holds which tokens under which
//! adapter; copying is the runner's work. An entry is found under the digest it was computed
//! under and no other, so a swapped adapter never meets stale keys and values.

use crrl_model::SlotId;
use crrl_types::Digest;

/// A prompt and the slot that holds its keys and values.
#[derive(Debug)]
struct Kept {
    slot: SlotId,
    digest: Digest,
    tokens: Vec<u32>,
    /// Reading of the use counter when it was last of use.
    used: u64,
}

/// At most `max` prompts; the least recently used one goes first.
#[derive(Debug)]
pub(crate) struct Prefixes {
    kept: Vec<Kept>,
    max: usize,
    uses: u64,
}

impl Prefixes {
    pub(crate) fn new(max: usize) -> Self {
        Self { kept: Vec::new(), max, uses: 0 }
    }

    /// Keeps a prompt; returns a slot that is free now (its own, where nothing is kept).
    pub(crate) fn keep(&mut self, slot: SlotId, digest: Digest, tokens: &[u32]) -> Option<SlotId> {
        self.uses += 1;
        let longer = self
            .kept
            .iter_mut()
            .find(|kept| kept.digest == digest && kept.tokens.starts_with(tokens));
        if let Some(kept) = longer {
            kept.used = self.uses;
            return Some(slot);
        }
        if self.max == 0 {
            return Some(slot);
        }
        let shorter = self
            .kept
            .iter()
            .position(|kept| kept.digest == digest && tokens.starts_with(&kept.tokens));
        let freed = match shorter {
            Some(at) => Some(self.kept.swap_remove(at).slot),
            None if self.kept.len() == self.max => self.evict(),
            None => None,
        };
        self.kept.push(Kept { slot, digest, tokens: tokens.to_vec(), used: self.uses });
        freed
    }

    /// The slot that shares the longest prefix with `tokens` under this adapter, and its length.
    pub(crate) fn longest(&mut self, digest: Digest, tokens: &[u32]) -> Option<(SlotId, usize)> {
        self.uses += 1;
        let best = self
            .kept
            .iter_mut()
            .filter(|kept| kept.digest == digest)
            .map(|kept| (shared(&kept.tokens, tokens), kept))
            .max_by_key(|(len, _)| *len)
            .filter(|(len, _)| *len > 0);
        best.map(|(len, kept)| {
            kept.used = self.uses;
            (kept.slot, len)
        })
    }

    /// Forgets everything computed under another adapter; returns the freed slots.
    pub(crate) fn retain_only(&mut self, digest: Digest) -> Vec<SlotId> {
        self.kept.extract_if(.., |kept| kept.digest != digest).map(|kept| kept.slot).collect()
    }

    fn evict(&mut self) -> Option<SlotId> {
        let oldest = (0..self.kept.len()).min_by_key(|at| self.kept[*at].used)?;
        Some(self.kept.swap_remove(oldest).slot)
    }
}

/// How many tokens two sequences have in common from the start.
pub(crate) fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn the_longest_shared_prefix_is_found_under_its_own_adapter_only() {
        let mut prefixes = Prefixes::new(4);
        assert_eq!(prefixes.keep(SlotId(1), digest("a"), &[1, 2, 3]), None);
        assert_eq!(prefixes.keep(SlotId(2), digest("a"), &[1, 2, 9, 9]), None);
        assert_eq!(prefixes.longest(digest("a"), &[1, 2, 9, 4]), Some((SlotId(2), 3)));
        assert_eq!(prefixes.longest(digest("a"), &[7]), None);
        assert_eq!(prefixes.longest(digest("b"), &[1, 2, 9, 4]), None);
        assert_eq!(prefixes.retain_only(digest("b")), vec![SlotId(1), SlotId(2)]);
        assert_eq!(prefixes.longest(digest("a"), &[1, 2, 9, 4]), None);
    }

    #[test]
    fn a_group_of_equal_prompts_takes_one_place() {
        let mut prefixes = Prefixes::new(2);
        assert_eq!(prefixes.keep(SlotId(1), digest("a"), &[1, 2, 3]), None);
        assert_eq!(prefixes.keep(SlotId(2), digest("a"), &[1, 2, 3]), Some(SlotId(2)));
        assert_eq!(
            prefixes.keep(SlotId(3), digest("a"), &[1, 2, 3, 4]),
            Some(SlotId(1)),
            "the longer one stays"
        );
        assert_eq!(prefixes.keep(SlotId(4), digest("a"), &[8]), None);
    }

    #[test]
    fn the_least_recently_used_prompt_goes_first() {
        let mut prefixes = Prefixes::new(2);
        prefixes.keep(SlotId(1), digest("a"), &[1]);
        prefixes.keep(SlotId(2), digest("a"), &[2]);
        prefixes.longest(digest("a"), &[1]);
        assert_eq!(prefixes.keep(SlotId(3), digest("a"), &[3]), Some(SlotId(2)));
        assert_eq!(Prefixes::new(0).keep(SlotId(9), digest("a"), &[1]), Some(SlotId(9)));
    }
}
