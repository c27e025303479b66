//! The chunks a node holds: of the adapter it serves, of the one before (a delta's base), and of
//! those it is fetching.
//!
//! What an interrupted transfer has brought stays here, and the next begins where it ended. A chunk
//! whose hash is wrong does not come in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use crrl_types::Digest;
use crrl_weights::{Offer, Payload};
use tokio::sync::watch;

use crate::peer::lock;

/// Payloads held at once: an adapter and its difference, of two versions. The one that was not
/// touched for longest goes first.
const PAYLOADS_MAX: usize = 4;

/// The chunks of one node. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Depot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Least recently touched first.
    items: Mutex<VecDeque<Item>>,
    /// Counts what has come in.
    changed: watch::Sender<u64>,
    announced: watch::Sender<Option<Arc<Offer>>>,
    given: [AtomicU64; 3],
}

/// What a node has given to others since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Given {
    /// Requests for chunks that were answered with chunks.
    pub fetches: u64,
    /// Bytes of whole adapters.
    pub full_bytes: u64,
    /// Bytes of differences between two.
    pub delta_bytes: u64,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            items: Mutex::default(),
            changed: watch::Sender::new(0),
            announced: watch::Sender::new(None),
            given: Default::default(),
        }
    }
}

#[derive(Debug)]
struct Item {
    payload: Payload,
    /// Which chunks are in `parts`.
    held: Vec<bool>,
    /// All bytes in their places, those of missing chunks zero; empty before the first and once
    /// `whole` is there.
    parts: Vec<u8>,
    whole: Option<Bytes>,
    /// Whether it is a difference.
    delta: bool,
}

impl Item {
    fn new(payload: &Payload) -> Self {
        let held = vec![false; payload.count()];
        let whole = held.is_empty().then(Bytes::new);
        Self { payload: payload.clone(), held, parts: Vec::new(), whole, delta: false }
    }

    fn missing(&self) -> Vec<usize> {
        let held = self.held.iter().enumerate();
        held.filter(|(_, held)| !**held).map(|(index, _)| index).collect()
    }

    fn put(&mut self, bytes: &Bytes) {
        self.held.fill(true);
        self.parts = Vec::new();
        self.whole = Some(bytes.clone());
    }

    fn add(&mut self, index: usize, chunk: &[u8]) {
        if self.held.get(index) != Some(&false) {
            return;
        }
        if self.parts.is_empty() {
            // The system gives the room page by page as it is written to.
            self.parts = vec![0; usize::try_from(self.payload.bytes).unwrap_or(usize::MAX)];
        }
        self.parts[self.payload.range(index)].copy_from_slice(chunk);
        self.held[index] = true;
        if self.held.iter().all(|held| *held) {
            self.whole = Some(std::mem::take(&mut self.parts).into());
        }
    }

    /// A copy as long as the rest is on its way: the bytes have to stay in one piece.
    fn chunk(&self, index: usize) -> Option<Bytes> {
        let range = self.payload.range(index);
        match &self.whole {
            Some(whole) => (!range.is_empty()).then(|| whole.slice(range)),
            None => self.held.get(index)?.then(|| Bytes::copy_from_slice(&self.parts[range])),
        }
    }
}

impl Depot {
    /// Takes a whole payload in.
    pub fn put(&self, payload: &Payload, bytes: &Bytes) {
        if bytes.len() as u64 == payload.bytes {
            self.touch(payload, |item| item.put(bytes));
        }
    }

    /// As [`Self::put`], of the difference between two adapters.
    pub fn put_delta(&self, payload: &Payload, bytes: &Bytes) {
        if bytes.len() as u64 == payload.bytes {
            self.touch(payload, |item| {
                item.delta = true;
                item.put(bytes);
            });
        }
    }

    /// As [`Self::expect`], of the difference between two adapters.
    pub fn expect_delta(&self, payload: &Payload) {
        self.touch(payload, |item| item.delta = true);
    }

    /// What was given to others.
    #[must_use]
    pub fn given(&self) -> Given {
        let [fetches, full_bytes, delta_bytes] =
            self.0.given.each_ref().map(|count| count.load(Ordering::Relaxed));
        Given { fetches, full_bytes, delta_bytes }
    }

    pub(crate) fn answers(&self) {
        self.0.given[0].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gave(&self, digest: Digest, bytes: u64) {
        let items = lock(&self.0.items);
        let delta = items.iter().any(|item| item.payload.digest == digest && item.delta);
        self.0.given[if delta { 2 } else { 1 }].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes room for a payload whose chunks are about to come; those held already stay.
    pub fn expect(&self, payload: &Payload) {
        self.touch(payload, |_| {});
    }

    /// Takes one chunk in, if it is what the payload says of it.
    #[must_use]
    pub fn add(&self, payload: &Payload, index: usize, chunk: &[u8]) -> bool {
        let fits = chunk.len() == payload.range(index).len() && payload.fits(index, chunk);
        if fits {
            self.touch(payload, |item| item.add(index, chunk));
        }
        fits
    }

    /// Lets a payload go.
    pub fn forget(&self, digest: Digest) {
        lock(&self.0.items).retain(|item| item.payload.digest != digest);
    }

    /// Chunks that are not here, ascending; all of them if the payload is not known.
    #[must_use]
    pub fn missing(&self, payload: &Payload) -> Vec<usize> {
        let items = lock(&self.0.items);
        items
            .iter()
            .find(|item| item.payload == *payload)
            .map_or_else(|| (0..payload.count()).collect(), Item::missing)
    }

    /// The bytes of a payload that is here whole.
    #[must_use]
    pub fn whole(&self, digest: Digest) -> Option<Bytes> {
        let items = lock(&self.0.items);
        items.iter().find(|item| item.payload.digest == digest)?.whole.clone()
    }

    /// Tells whoever follows what is published now.
    pub fn announce(&self, offer: Offer) {
        self.0.announced.send_replace(Some(Arc::new(offer)));
    }

    pub(crate) fn announced(&self) -> watch::Receiver<Option<Arc<Offer>>> {
        self.0.announced.subscribe()
    }

    /// How many chunks a payload has, once it is known here.
    pub(crate) async fn known(&self, digest: Digest, within: Duration) -> Option<usize> {
        self.wait(within, |items| {
            items.iter().find(|item| item.payload.digest == digest).map(|i| i.payload.count())
        })
        .await
    }

    /// A chunk, once it is here.
    pub(crate) async fn chunk(&self, digest: Digest, at: usize, within: Duration) -> Option<Bytes> {
        self.wait(within, |items| {
            items.iter().find(|item| item.payload.digest == digest)?.chunk(at)
        })
        .await
    }

    async fn wait<T>(
        &self,
        within: Duration,
        look: impl Fn(&VecDeque<Item>) -> Option<T>,
    ) -> Option<T> {
        let mut changed = self.0.changed.subscribe();
        let found = async {
            loop {
                if let Some(found) = look(&lock(&self.0.items)) {
                    return Some(found);
                }
                changed.changed().await.ok()?;
            }
        };
        tokio::time::timeout(within, found).await.ok().flatten()
    }

    fn touch(&self, payload: &Payload, change: impl FnOnce(&mut Item)) {
        let mut items = lock(&self.0.items);
        let at = items.iter().position(|item| item.payload.digest == payload.digest);
        // The same digest in other chunks is another description: what was held does not fit it.
        let held = at.and_then(|at| items.remove(at)).filter(|item| item.payload == *payload);
        let mut item = held.unwrap_or_else(|| Item::new(payload));
        change(&mut item);
        items.push_back(item);
        while items.len() > PAYLOADS_MAX {
            items.pop_front();
        }
        drop(items);
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u8) -> Bytes {
        (0..600_000u32).map(|n| (n % 251) as u8 ^ seed).collect::<Vec<u8>>().into()
    }

    #[test]
    fn what_came_stays_and_only_the_rest_is_missing() {
        let (depot, bytes) = (Depot::default(), bytes(0));
        let payload = Payload::of(&bytes);
        assert_eq!(depot.missing(&payload), [0, 1, 2]);
        assert!(depot.add(&payload, 1, &bytes.slice(payload.range(1))));
        assert!(!depot.add(&payload, 0, &bytes.slice(payload.range(1))), "another chunk");
        depot.expect(&payload);
        assert_eq!(depot.missing(&payload), [0, 2]);
        assert_eq!(depot.whole(payload.digest), None);
        for index in [0, 2] {
            assert!(depot.add(&payload, index, &bytes.slice(payload.range(index))));
        }
        assert_eq!(depot.whole(payload.digest), Some(bytes));
    }

    #[test]
    fn it_holds_only_so_many_and_lets_the_oldest_go() {
        let depot = Depot::default();
        let payloads: Vec<Payload> = (0..=PAYLOADS_MAX as u8)
            .map(|seed| {
                let payload = Payload::of(&bytes(seed));
                depot.put(&payload, &bytes(seed));
                // The first is in use all the time.
                depot.expect(&Payload::of(&bytes(0)));
                payload
            })
            .collect();
        assert!(depot.whole(payloads[0].digest).is_some(), "in use");
        assert!(depot.whole(payloads[1].digest).is_none(), "the oldest");
    }

    #[tokio::test]
    async fn a_chunk_is_waited_for() {
        let (depot, bytes) = (Depot::default(), bytes(0));
        let payload = Payload::of(&bytes);
        let soon = Duration::from_millis(1);
        assert_eq!(depot.chunk(payload.digest, 0, soon).await, None);
        let waiting = depot.chunk(payload.digest, 0, Duration::from_secs(20));
        let adding = async { depot.add(&payload, 0, &bytes.slice(payload.range(0))) };
        let (chunk, _) = tokio::join!(waiting, adding);
        assert_eq!(chunk, Some(bytes.slice(payload.range(0))));
    }
}
