//! What had come of blobs whose connection broke: the next attempt goes on from there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crrl_types::Digest;

/// Blobs kept in part at most. A learner sends one adapter at a time, a coordinator one batch.
const PARTIALS_MAX: usize = 2;
/// A part nobody has gone on with for this long is let go: by then its sender sends something newer.
const KEPT_FOR: Duration = Duration::from_secs(120);

/// Parts of blobs, by the hash of the whole. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Partials(Arc<Mutex<VecDeque<(Instant, Partial)>>>);

/// The first bytes of a blob.
#[derive(Debug)]
pub(crate) struct Partial {
    /// What the sender says the whole hashes to.
    pub(crate) digest: Digest,
    /// Bytes of the whole.
    pub(crate) length: usize,
    /// Those that have come.
    pub(crate) body: BytesMut,
    /// What they hash to.
    pub(crate) hasher: blake3::Hasher,
}

impl Partial {
    pub(crate) fn new(digest: Digest, length: usize) -> Self {
        // Grown as bytes arrive: a claimed length allocates nothing.
        Self { digest, length, body: BytesMut::new(), hasher: blake3::Hasher::new() }
    }
}

impl Partials {
    /// Takes what there is of a blob, or begins with nothing.
    pub(crate) fn take(&self, digest: Digest, length: usize, now: Instant) -> Partial {
        let mut kept = self.fresh(now);
        let is_it = |(_, part): &(Instant, Partial)| part.digest == digest && part.length == length;
        let found = kept.iter().position(is_it).and_then(|at| kept.remove(at));
        found.map_or_else(|| Partial::new(digest, length), |(_, part)| part)
    }

    /// Keeps what has come of a blob, unless more of it is kept already.
    pub(crate) fn keep(&self, part: Partial, now: Instant) {
        let mut kept = self.fresh(now);
        let longer = |(_, other): &(Instant, Partial)| {
            other.digest == part.digest && other.body.len() >= part.body.len()
        };
        if part.body.is_empty() || kept.iter().any(longer) {
            return;
        }
        kept.retain(|(_, other)| other.digest != part.digest);
        while kept.len() >= PARTIALS_MAX {
            kept.pop_front();
        }
        kept.push_back((now, part));
    }

    /// Lets a blob go that has come whole.
    pub(crate) fn forget(&self, digest: Digest) {
        self.fresh(Instant::now()).retain(|(_, part)| part.digest != digest);
    }

    /// Lets what is kept now go when its time is over, should nobody look by then.
    pub(crate) fn let_go_in_time(&self) {
        let kept = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            if let Some(kept) = kept.upgrade() {
                drop(Self(kept).fresh(Instant::now()));
            }
        });
    }

    fn fresh(&self, now: Instant) -> std::sync::MutexGuard<'_, VecDeque<(Instant, Partial)>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(since, _)| now.saturating_duration_since(*since) < KEPT_FOR);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(seed: u8, bytes: usize) -> Partial {
        let mut part = Partial::new(Digest::of(&[seed]), 100);
        part.body.extend_from_slice(&vec![seed; bytes]);
        part
    }

    #[test]
    fn a_part_is_gone_on_with_once_and_only_of_the_same_blob() {
        let (partials, now) = (Partials::default(), Instant::now());
        partials.keep(part(1, 40), now);
        assert_eq!(partials.take(Digest::of(&[2]), 100, now).body.len(), 0);
        assert_eq!(partials.take(Digest::of(&[1]), 99, now).body.len(), 0, "another length");
        assert_eq!(partials.take(Digest::of(&[1]), 100, now).body.len(), 40);
        assert_eq!(partials.take(Digest::of(&[1]), 100, now).body.len(), 0);
    }

    #[test]
    fn few_are_kept_and_none_for_ever() {
        let (partials, now) = (Partials::default(), Instant::now());
        for seed in 0..3 {
            partials.keep(part(seed, 10), now);
        }
        assert_eq!(partials.take(Digest::of(&[0]), 100, now).body.len(), 0, "the oldest");
        assert_eq!(partials.take(Digest::of(&[1]), 100, now).body.len(), 10);
        assert_eq!(partials.take(Digest::of(&[2]), 100, now + KEPT_FOR).body.len(), 0);
    }

    #[test]
    fn the_longer_part_stays_and_an_empty_one_pushes_nothing_out() {
        let (partials, now) = (Partials::default(), Instant::now());
        partials.keep(part(1, 40), now);
        partials.keep(part(1, 10), now);
        for seed in 2..5 {
            partials.keep(part(seed, 0), now);
        }
        assert_eq!(partials.take(Digest::of(&[1]), 100, now).body.len(), 40);
        partials.keep(part(1, 40), now);
        partials.forget(Digest::of(&[1]));
        assert_eq!(partials.take(Digest::of(&[1]), 100, now).body.len(), 0);
    }
}
