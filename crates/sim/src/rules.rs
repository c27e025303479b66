//! What becomes of a packet. A rule looks at one packet and says so; of several rules each adds its
//! word, and the rules do not know of each other.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng as _;

use crate::Rng;

/// A packet under way.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Where it was sent.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing out of the ordinary.
    Pass,
    /// It is lost.
    Lose,
    /// It comes later by this much; others may come before it.
    Delay(Duration),
    /// It comes once more, later by this much.
    Twice(Duration),
    /// One bit of it is another.
    Flip {
        /// Which bit, from the first of the first byte.
        bit: usize,
    },
    /// Only this many bytes of it come.
    Cut {
        /// How many.
        bytes: usize,
    },
}

/// A rule.
pub type Rule = Box<dyn FnMut(&Packet<'_>, &mut Rng) -> Verdict + Send>;

/// A share of packets meets a fate.
fn share(
    share: f64,
    mut fate: impl FnMut(&Packet<'_>, &mut Rng) -> Verdict + Send + 'static,
) -> Rule {
    Box::new(
        move |packet, rng| {
            if rng.random_bool(share) { fate(packet, rng) } else { Verdict::Pass }
        },
    )
}

/// A share of packets is lost.
#[must_use]
pub fn lose(part: f64) -> Rule {
    share(part, |_, _| Verdict::Lose)
}

/// A share of packets comes late, by up to `most`: past others, they are reordered.
#[must_use]
pub fn delay(part: f64, most: Duration) -> Rule {
    share(part, move |_, rng| Verdict::Delay(most.mul_f64(rng.random())))
}

/// A share of packets comes twice.
#[must_use]
pub fn twice(part: f64, most: Duration) -> Rule {
    share(part, move |_, rng| Verdict::Twice(most.mul_f64(rng.random())))
}

/// A share of packets has a flipped bit.
#[must_use]
pub fn flip(part: f64) -> Rule {
    share(part, |packet, rng| Verdict::Flip {
        bit: rng.random_range(0..packet.bytes.len().max(1) * 8),
    })
}

/// A share of packets is cut short.
#[must_use]
pub fn cut(part: f64) -> Rule {
    share(part, |packet, rng| Verdict::Cut { bytes: rng.random_range(0..=packet.bytes.len()) })
}

/// Packets longer than this are lost, as those are that must not be fragmented.
#[must_use]
pub fn mtu(bytes: usize) -> Rule {
    Box::new(
        move |packet, _| if packet.bytes.len() > bytes { Verdict::Lose } else { Verdict::Pass },
    )
}

/// Nothing from the one machine reaches the other; the way back is open.
#[must_use]
pub fn one_way(from: IpAddr, to: IpAddr) -> Rule {
    Box::new(move |packet, _| {
        let cut_off = packet.from.ip() == from && packet.to.ip() == to;
        if cut_off { Verdict::Lose } else { Verdict::Pass }
    })
}

/// The machine is cut off: nothing leaves it and nothing reaches it.
#[must_use]
pub fn isolate(machine: IpAddr) -> Rule {
    Box::new(move |packet, _| {
        let concerned = packet.from.ip() == machine || packet.to.ip() == machine;
        if concerned { Verdict::Lose } else { Verdict::Pass }
    })
}

/// A rule for packets to or from one machine only.
#[must_use]
pub fn around(machine: IpAddr, mut rule: Rule) -> Rule {
    Box::new(move |packet, rng| {
        let concerned = packet.from.ip() == machine || packet.to.ip() == machine;
        if concerned { rule(packet, rng) } else { Verdict::Pass }
    })
}
