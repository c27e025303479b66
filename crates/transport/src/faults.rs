//! Faults of the network, injected under QUIC while a node runs.
//!
//! Without any, a packet costs one look at a flag. What a fault does is drawn from its seed, and
//! each ends by itself at its own time.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crrl_types::fault::{Direction, Fault, FaultSeen, Injection};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::runtime::Handle;

/// Packets that may be late at once; more are lost.
const LATE_MAX: usize = 4096;
/// Faults that are over and still told of.
const SEEN_MAX: usize = 16;

/// The faults of one node. Cloning gives another handle to the same.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    any: AtomicBool,
    list: Mutex<List>,
    late: AtomicUsize,
}

#[derive(Debug, Default)]
struct List {
    active: Vec<Active>,
    over: VecDeque<FaultSeen>,
}

#[derive(Debug)]
struct Active {
    injection: Injection,
    until: Instant,
    rng: ChaCha8Rng,
    fired: u64,
}

impl List {
    fn expire(&mut self, now: Instant) {
        let (active, over) =
            std::mem::take(&mut self.active).into_iter().partition(|a| a.until > now);
        self.active = active;
        for Active { injection, fired, .. } in over {
            self.over.push_back(FaultSeen {
                id: injection.id,
                fault: injection.fault,
                fired,
                active: false,
            });
            while self.over.len() > SEEN_MAX {
                self.over.pop_front();
            }
        }
    }
}

/// What becomes of one packet that leaves.
#[derive(Debug, Default, PartialEq)]
struct Fate {
    lost: bool,
    twice: bool,
    delay: Option<Duration>,
    damaged: Option<Vec<u8>>,
}

impl Faults {
    /// A fault begins. Those that are not of the network do nothing here.
    pub fn begin(&self, injection: Injection) {
        let until = Instant::now() + Duration::from_millis(injection.duration_ms);
        let rng = ChaCha8Rng::seed_from_u64(injection.seed);
        let mut list = self.list();
        list.expire(Instant::now());
        list.active.push(Active { injection, until, rng, fired: 0 });
        self.0.any.store(true, Ordering::Release);
    }

    /// Ends the fault of this number before its time; whether there was one.
    pub fn lift(&self, id: u64) -> bool {
        let now = Instant::now();
        let mut list = self.list();
        let mut found = false;
        for active in list.active.iter_mut().filter(|a| a.injection.id == id && a.until > now) {
            active.until = now;
            found = true;
        }
        list.expire(now);
        self.0.any.store(!list.active.is_empty(), Ordering::Release);
        found
    }

    /// What is known of every fault, the last few that are over included.
    #[must_use]
    pub fn seen(&self) -> Vec<FaultSeen> {
        let mut list = self.list();
        list.expire(Instant::now());
        self.0.any.store(!list.active.is_empty(), Ordering::Release);
        let active = list.active.iter().map(|a| FaultSeen {
            id: a.injection.id,
            fault: a.injection.fault,
            fired: a.fired,
            active: true,
        });
        list.over.iter().copied().chain(active).collect()
    }

    /// The bytes of an adapter as they are to be sent: damaged while that fault lasts.
    #[must_use]
    pub fn adapter(&self, bytes: bytes::Bytes) -> bytes::Bytes {
        let mut damaged = None;
        self.each(|active, fault| {
            if fault == Fault::CorruptAdapter && !bytes.is_empty() {
                let mut copy = bytes.to_vec();
                let at = active.rng.random_range(0..copy.len());
                copy[at] ^= 1;
                active.fired += 1;
                damaged = Some(copy);
            }
        });
        damaged.map_or(bytes, bytes::Bytes::from)
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// Looks at every fault that goes on.
    fn each(&self, mut look: impl FnMut(&mut Active, Fault)) {
        if !self.any() {
            return;
        }
        let mut list = self.list();
        list.expire(Instant::now());
        self.0.any.store(!list.active.is_empty(), Ordering::Release);
        for active in &mut list.active {
            let fault = active.injection.fault;
            look(active, fault);
        }
    }

    fn leaving(&self, packet: &[u8]) -> Fate {
        let mut fate = Fate::default();
        self.each(|active, fault| {
            let hit = match fault {
                Fault::Drop { direction: Direction::Out | Direction::Both, share }
                | Fault::Duplicate { share }
                | Fault::Corrupt { share }
                | Fault::Truncate { share } => active.rng.random_bool(share.clamp(0.0, 1.0)),
                Fault::Delay { .. } => true,
                _ => false,
            };
            if !hit || packet.is_empty() {
                return;
            }
            active.fired += 1;
            match fault {
                Fault::Drop { .. } => fate.lost = true,
                Fault::Duplicate { .. } => fate.twice = true,
                Fault::Delay { ms, jitter_ms } => {
                    let ms = ms.saturating_add(active.rng.random_range(0..=jitter_ms));
                    let so_far = fate.delay.unwrap_or_default();
                    fate.delay = Some(so_far + Duration::from_millis(ms.into()));
                }
                Fault::Corrupt { .. } => {
                    let damaged = fate.damaged.get_or_insert_with(|| packet.to_vec());
                    let at = active.rng.random_range(0..damaged.len());
                    damaged[at] ^= 1 << active.rng.random_range(0..8);
                }
                Fault::Truncate { .. } => {
                    let damaged = fate.damaged.get_or_insert_with(|| packet.to_vec());
                    damaged.truncate(active.rng.random_range(1..=damaged.len()));
                }
                _ => {}
            }
        });
        fate
    }

    fn arriving_is_lost(&self) -> bool {
        let mut lost = false;
        self.each(|active, fault| {
            if let Fault::Drop { direction: Direction::In | Direction::Both, share } = fault
                && active.rng.random_bool(share.clamp(0.0, 1.0))
            {
                active.fired += 1;
                lost = true;
            }
        });
        lost
    }
}

/// A socket whose packets meet the node's faults.
#[derive(Debug)]
pub(crate) struct FaultySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    faults: Faults,
    handle: Handle,
}

impl FaultySocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, faults: Faults, handle: Handle) -> Arc<Self> {
        Arc::new(Self { inner, faults, handle })
    }

    fn send_one(&self, packet: &Transmit<'_>) -> io::Result<()> {
        let Fate { lost, twice, delay, damaged } = self.faults.leaving(packet.contents);
        if lost {
            return Ok(());
        }
        let contents = damaged.as_deref().unwrap_or(packet.contents);
        for _ in 0..1 + u8::from(twice) {
            match delay {
                None => self.inner.try_send(&Transmit { contents, ..copy(packet) })?,
                Some(delay) => self.send_late(packet, contents.to_vec(), delay),
            }
        }
        Ok(())
    }

    fn send_late(&self, packet: &Transmit<'_>, contents: Vec<u8>, delay: Duration) {
        let late = Arc::clone(&self.faults.0);
        if late.late.fetch_add(1, Ordering::AcqRel) >= LATE_MAX {
            late.late.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let (inner, destination) = (Arc::clone(&self.inner), packet.destination);
        let (ecn, src_ip) = (packet.ecn, packet.src_ip);
        self.handle.spawn(async move {
            tokio::time::sleep(delay).await;
            late.late.fetch_sub(1, Ordering::AcqRel);
            let packet =
                Transmit { destination, ecn, contents: &contents, segment_size: None, src_ip };
            // A socket that is full loses it, as a network would.
            let _ = inner.try_send(&packet);
        });
    }
}

fn copy<'a>(packet: &Transmit<'a>) -> Transmit<'a> {
    Transmit {
        destination: packet.destination,
        ecn: packet.ecn,
        contents: packet.contents,
        segment_size: None,
        src_ip: packet.src_ip,
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.faults.any() {
            return self.inner.try_send(transmit);
        }
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(size) {
            // A socket that is full in the middle gets the first ones again: duplicates.
            self.send_one(&Transmit { contents, ..copy(transmit) })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let arrived = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            if !self.faults.any() {
                return Poll::Ready(Ok(arrived));
            }
            // What the system hands over in one piece is lost in one piece.
            let mut kept = 0;
            for at in 0..arrived {
                if self.faults.arriving_is_lost() {
                    continue;
                }
                if kept != at {
                    let (to, from) = bufs.split_at_mut(at);
                    let len = meta[at].len;
                    to[kept][..len].copy_from_slice(&from[0][..len]);
                    meta[kept] = meta[at];
                }
                kept += 1;
            }
            if kept > 0 {
                return Poll::Ready(Ok(kept));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        if self.faults.any() { 1 } else { self.inner.max_transmit_segments() }
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injection(fault: Fault, duration_ms: u64) -> Injection {
        Injection { id: 7, fault, duration_ms, seed: 3 }
    }

    #[test]
    fn a_share_of_packets_meets_its_fate_and_is_counted() {
        let faults = Faults::default();
        let fault = Fault::Drop { direction: Direction::Out, share: 0.25 };
        faults.begin(injection(fault, 60_000));
        let lost = (0..4000).filter(|_| faults.leaving(b"packet").lost).count();
        assert!((850..1150).contains(&lost), "{lost} of 4000");
        assert!(!faults.arriving_is_lost());
        let seen = FaultSeen { id: 7, fault, fired: lost as u64, active: true };
        assert_eq!(faults.seen(), [seen]);
    }

    #[test]
    fn the_same_seed_draws_the_same_fates() {
        let fates = || {
            let faults = Faults::default();
            faults.begin(injection(Fault::Corrupt { share: 0.5 }, 60_000));
            faults.begin(injection(Fault::Duplicate { share: 0.3 }, 60_000));
            (0..100).map(|_| faults.leaving(b"a packet of some bytes")).collect::<Vec<_>>()
        };
        assert_eq!(fates(), fates());
        assert!(fates().iter().any(|fate| fate.damaged.is_some() && fate.twice));
    }

    #[test]
    fn a_fault_ends_by_itself_and_leaves_its_count() {
        let faults = Faults::default();
        let fault = Fault::Drop { direction: Direction::Both, share: 1.0 };
        faults.begin(injection(fault, 0));
        assert!(!faults.leaving(b"packet").lost);
        assert!(!faults.any());
        assert_eq!(faults.seen(), [FaultSeen { id: 7, fault, fired: 0, active: false }]);
    }

    #[test]
    fn a_fault_that_is_lifted_is_over_and_the_others_go_on() {
        let faults = Faults::default();
        let fault = Fault::Drop { direction: Direction::Both, share: 1.0 };
        faults.begin(injection(fault, 60_000));
        let twice = Fault::Duplicate { share: 1.0 };
        faults.begin(Injection { id: 8, ..injection(twice, 60_000) });
        assert!(faults.leaving(b"packet").lost);
        assert!(!faults.lift(9), "nobody has begun it");
        assert!(faults.lift(7));
        assert!(!faults.lift(7), "it is over");
        let fate = faults.leaving(b"packet");
        assert!(!fate.lost && fate.twice && !faults.arriving_is_lost());
        let over = FaultSeen { id: 7, fault, fired: 1, active: false };
        let left = FaultSeen { id: 8, fault: twice, fired: 2, active: true };
        assert_eq!(faults.seen(), [over, left]);
        assert!(faults.lift(8));
        assert!(!faults.any(), "packets cost a look at a flag again");
    }

    #[test]
    fn a_damaged_adapter_is_another_one() {
        let faults = Faults::default();
        let bytes = bytes::Bytes::from_static(b"the bytes of an adapter");
        assert_eq!(faults.adapter(bytes.clone()), bytes);
        faults.begin(injection(Fault::CorruptAdapter, 60_000));
        assert_ne!(faults.adapter(bytes.clone()), bytes);
    }
}
