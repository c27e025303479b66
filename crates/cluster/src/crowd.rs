//! Who is on the way in and has shown no certificate yet: bounded in all and for each address, so that
//! whoever floods from one keeps waiting nobody but those behind that one.
//!
//! An address can be made up. Whoever has not shown that it receives what is sent to its own has a part of
//! the places with all such; when that is full it is asked to show it first, which costs it one round trip
//! and this node nothing (RFC 9000, section 8.1.2). Whoever has shown it waits in line with others of its
//! address, and with no one else. A certificate ends all of that: members are bounded by the places alone.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::peer::lock;

/// Connections that are being greeted at once, each from its handshake on.
const GREETED_AT_ONCE: usize = 64;
/// Those of them whose address may be made up.
const UNPROVEN_AT_ONCE: usize = GREETED_AT_ONCE / 4;
/// Those of them that come from one address, that it is theirs being proven, and have shown no certificate
/// yet. With [`UNPROVEN_AT_ONCE`] it is half of all, and room for 32 nodes of one machine at once.
const SHARE: usize = GREETED_AT_ONCE / 4;
/// Handshakes of one address that are under way or wait for it; more are refused and dial again. An eighth of
/// what the transport keeps of all addresses together: it takes eight that are proven to fill that.
const LINE_MAX: usize = 128;
/// The part of an IPv6 address that tells machines' owners apart: each has 64 bits to choose from.
const NETWORK: u128 = !0 << 64;

/// Where somebody comes from, as far as it tells one from another.
pub(crate) fn origin(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK)),
        four => four,
    }
}

/// Shares of something, as large for one origin as for another. Those of origins that have nothing of it are
/// forgotten.
#[derive(Debug)]
pub(crate) struct Shares {
    each: usize,
    of: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Shares {
    pub(crate) fn of_each(each: usize) -> Self {
        Self { each, of: Mutex::default() }
    }

    /// The share of an origin.
    pub(crate) fn of(&self, origin: IpAddr) -> Arc<Semaphore> {
        let mut of = lock(&self.of);
        if let Some(share) = of.get(&origin).and_then(Weak::upgrade) {
            return share;
        }
        of.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(self.each));
        of.insert(origin, Arc::downgrade(&share));
        share
    }
}

/// Handshakes that have come in.
#[derive(Debug)]
pub(crate) struct Crowd {
    places: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    lines: Shares,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(GREETED_AT_ONCE)),
            unproven: Arc::new(Semaphore::new(UNPROVEN_AT_ONCE)),
            lines: Shares::of_each(SHARE),
        }
    }
}

/// What becomes of a handshake.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on when its turn comes.
    Waits(Turn),
    /// Whoever it is from has to show that its address is its own.
    Prove,
    /// Too many wait at its address.
    Refuse,
}

impl Crowd {
    /// Judges a handshake by where it comes from, and whether that is proven.
    pub(crate) fn judge(&self, from: SocketAddr, is_proven: bool) -> Verdict {
        let line = if is_proven {
            let line = self.lines.of(origin(from));
            // Each that has its place or waits for it holds the line, and so does this.
            if Arc::strong_count(&line) > LINE_MAX {
                return Verdict::Refuse;
            }
            Line::Waits(line)
        } else {
            match Arc::clone(&self.unproven).try_acquire_owned() {
                Ok(share) => Line::Passed(share),
                Err(_) => return Verdict::Prove,
            }
        };
        Verdict::Waits(Turn { line, places: Arc::clone(&self.places) })
    }
}

#[derive(Debug)]
enum Line {
    Waits(Arc<Semaphore>),
    Passed(OwnedSemaphorePermit),
}

/// A handshake's turn, which is to come.
#[derive(Debug)]
pub(crate) struct Turn {
    line: Line,
    places: Arc<Semaphore>,
}

impl Turn {
    /// Resolves when it has come.
    pub(crate) async fn comes(self) -> Place {
        let share = match self.line {
            Line::Waits(line) => line.acquire_owned().await.expect("nobody closes it"),
            Line::Passed(share) => share,
        };
        let place = self.places.acquire_owned().await.expect("nobody closes it");
        Place { share: Some(share), _place: place }
    }
}

/// The place of a connection that is being greeted; free when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    share: Option<OwnedSemaphorePermit>,
    _place: OwnedSemaphorePermit,
}

impl Place {
    /// Whoever has it has shown a certificate: the share of its address is for others.
    pub(crate) fn certified(&mut self) {
        self.share = None;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// The place of a handshake whose turn is now; none where it has to wait.
    fn now(verdict: Verdict) -> Option<Place> {
        match verdict {
            Verdict::Waits(turn) => turn.comes().now_or_never(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flood_from_one_address_leaves_half_of_the_places_to_others() {
        let crowd = Crowd::default();
        let (flood, other) = (at("10.0.0.66:1"), at("10.0.0.5:7411"));
        let mut held = Vec::new();
        while let Verdict::Waits(turn) = crowd.judge(flood, false) {
            held.push(turn.comes().now_or_never().expect("there is room"));
        }
        let mut waiting = Vec::new();
        while let Verdict::Waits(turn) = crowd.judge(flood, true) {
            let mut turn = Box::pin(turn.comes());
            match turn.as_mut().now_or_never() {
                Some(place) => held.push(place),
                None => waiting.push(turn),
            }
            assert!(waiting.len() <= LINE_MAX, "there is no bound");
        }
        assert_eq!(held.len(), GREETED_AT_ONCE / 2);
        // Another is asked once for its address, and has its place then, whatever waits there.
        assert!(matches!(crowd.judge(other, false), Verdict::Prove));
        let mut others = Vec::new();
        for n in 0..SHARE {
            others.push(now(crowd.judge(other, true)).unwrap_or_else(|| panic!("{n} had to wait")));
        }
        // One that is done makes room for the next of its line.
        drop(held.pop());
        assert!(waiting.remove(0).now_or_never().is_some());
    }

    #[test]
    fn as_many_nodes_of_one_machine_as_32_have_their_places_at_once() {
        let crowd = Crowd::default();
        let machine = at("10.0.0.5:7411");
        let mut held = Vec::new();
        for n in 0..32 {
            // As the accepting side sees it: whoever is asked for a proof comes again with it.
            let verdict = match crowd.judge(machine, false) {
                Verdict::Prove => crowd.judge(machine, true),
                other => other,
            };
            held.push(now(verdict).unwrap_or_else(|| panic!("{n} had to wait")));
        }
        // With certificates they count for the machine no more.
        held.iter_mut().for_each(Place::certified);
        assert!(now(crowd.judge(machine, false)).is_some());
        assert!(now(crowd.judge(machine, true)).is_some());
    }

    #[test]
    fn an_address_is_one_origin_however_it_is_written_and_a_network_of_version_6_is_one() {
        assert_eq!(origin(at("10.0.0.5:1")), origin(at("[::ffff:10.0.0.5]:2")));
        assert_eq!(origin(at("[2001:db8:0:7::1]:1")), origin(at("[2001:db8:0:7:ffff::9]:1")));
        assert_ne!(origin(at("[2001:db8:0:7::1]:1")), origin(at("[2001:db8:0:8::1]:1")));
        assert_ne!(origin(at("10.0.0.5:1")), origin(at("10.0.0.6:1")));
    }

    #[test]
    fn origins_that_hold_nothing_are_forgotten() {
        let shares = Shares::of_each(1);
        let kept = shares.of(origin(at("10.0.0.1:1")));
        for n in 2..200 {
            drop(shares.of(origin(at(&format!("10.0.0.{n}:1")))));
        }
        assert!(lock(&shares.of).len() <= 2);
        assert!(Arc::ptr_eq(&kept, &shares.of(origin(at("10.0.0.1:9")))));
    }
}
