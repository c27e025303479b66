//! Faults that are injected on purpose into a running cluster, and what is known of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something that goes wrong in one node.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Fault {
    /// The process is killed (SIGKILL).
    Kill,
    /// The process stands still (SIGSTOP) and goes on afterwards.
    Pause,
    /// This share of its packets is lost; 1 cuts it off.
    Drop {
        /// Which packets.
        direction: Direction,
        /// 0 to 1.
        share: f64,
    },
    /// Its packets leave late.
    Delay {
        /// By so much, in milliseconds.
        ms: u32,
        /// And up to so much more; past a packet's own pace this reorders them.
        jitter_ms: u32,
    },
    /// This share of its packets leaves twice.
    Duplicate {
        /// 0 to 1.
        share: f64,
    },
    /// A bit of this share of its packets is flipped as they leave.
    Corrupt {
        /// 0 to 1.
        share: f64,
    },
    /// This share of its packets is cut short as they leave.
    Truncate {
        /// 0 to 1.
        share: f64,
    },
    /// A bit of every adapter it sends is flipped.
    CorruptAdapter,
    /// A value of the learner's next gradients is not a number.
    NotFinite,
    /// Everything it brings to its disk takes longer.
    SlowDisk {
        /// By so much a write, in milliseconds.
        ms: u32,
    },
    /// Nothing more fits on its disk.
    FullDisk,
    /// The learner's next checkpoint is cut short after it was written, and the process killed: what a
    /// machine that loses power may leave.
    TornWrite,
    /// Its wall clock is wrong.
    ClockSkew {
        /// By so many seconds; back where negative.
        s: i32,
    },
    /// The next episode runs something in its sandbox that is meant to do harm.
    Bomb(Bomb),
    /// Its actors take no message.
    Hang,
    /// Tool calls of its episodes take longer, some much longer than others: as where commands build
    /// and test.
    SlowTools {
        /// By so much a call in the mean, in milliseconds; exponentially distributed.
        ms: u32,
    },
}

/// What is meant to do harm from inside a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bomb {
    /// Processes that start processes.
    Fork,
    /// Memory without end, in one process and in many.
    Memory,
    /// Output without end.
    Output,
    /// Files until nothing more fits.
    Disk,
    /// Ways out to the network.
    Egress,
}

impl Fault {
    /// Whether it can be ended before its time. What happens once is over by then.
    #[must_use]
    pub fn can_be_lifted(self) -> bool {
        !matches!(self, Self::Kill | Self::NotFinite | Self::TornWrite | Self::Bomb(_))
    }

    /// Whether its node may hear nothing from other nodes while it lasts: a process that stands still
    /// reads nothing, and one whose packets are lost, late or damaged, whichever way, may not keep a
    /// connection.
    #[must_use]
    pub fn may_deafen(self) -> bool {
        matches!(
            self,
            Self::Pause
                | Self::Drop { .. }
                | Self::Delay { .. }
                | Self::Corrupt { .. }
                | Self::Truncate { .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("killed"),
            Self::Pause => f.write_str("stands still"),
            Self::Drop { direction, share } => {
                let which = match direction {
                    Direction::In => "it gets",
                    Direction::Out => "it sends",
                    Direction::Both => "both ways",
                };
                write!(f, "{:.0} % of packets {which} lost", 100.0 * share)
            }
            Self::Delay { ms, jitter_ms: 0 } => write!(f, "packets {ms} ms late"),
            Self::Delay { ms, jitter_ms } => {
                write!(f, "packets {ms} to {} ms late", ms.saturating_add(*jitter_ms))
            }
            Self::Duplicate { share } => write!(f, "{:.0} % of packets twice", 100.0 * share),
            Self::Corrupt { share } => {
                write!(f, "{:.0} % of packets with a flipped bit", 100.0 * share)
            }
            Self::Truncate { share } => write!(f, "{:.0} % of packets cut short", 100.0 * share),
            Self::CorruptAdapter => f.write_str("adapters with a flipped bit"),
            Self::NotFinite => f.write_str("a gradient that is no number"),
            Self::SlowDisk { ms } => write!(f, "writes {ms} ms late"),
            Self::FullDisk => f.write_str("the disk is full"),
            Self::TornWrite => f.write_str("a torn checkpoint"),
            Self::ClockSkew { s } => write!(f, "the clock is {s} s off"),
            Self::Bomb(bomb) => f.write_str(match bomb {
                Bomb::Fork => "a fork bomb in a sandbox",
                Bomb::Memory => "a memory bomb in a sandbox",
                Bomb::Output => "endless output in a sandbox",
                Bomb::Disk => "a full disk in a sandbox",
                Bomb::Egress => "a way out is sought from a sandbox",
            }),
            Self::Hang => f.write_str("actors take no message"),
            Self::SlowTools { ms } => write!(f, "tool calls {ms} ms late in the mean"),
        }
    }
}

/// Packets of a node, as it sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Those it gets.
    In,
    /// Those it sends.
    Out,
    /// All.
    Both,
}

/// A fault, for how long, and under which number it is told of. It ends by itself, whatever becomes
/// of whoever injected it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Injection {
    /// Chosen by whoever injects it.
    pub id: u64,
    /// What.
    pub fault: Fault,
    /// For how long.
    pub duration_ms: u64,
    /// What its chances are drawn from.
    pub seed: u64,
}

impl Injection {
    /// What a tool asks for to end this fault before its time: the same, for no time at all. `None` where
    /// it cannot be ended.
    #[must_use]
    pub fn lifted(self) -> Option<Self> {
        self.fault.can_be_lifted().then_some(Self { duration_ms: 0, ..self })
    }

    /// Whether it ends the fault of its number, and begins none.
    #[must_use]
    pub fn lifts(&self) -> bool {
        self.duration_ms == 0 && self.fault.can_be_lifted()
    }

    /// Reads what an injection is in words: what goes on, and for how long.
    #[must_use]
    pub fn lasting(words: &str) -> Option<(&str, u64)> {
        let (what, ms) = words.strip_suffix(MS)?.rsplit_once(FOR)?;
        Some((what, ms.parse().ok()?))
    }

    /// Reads which fault was lifted, in words.
    #[must_use]
    pub fn lifted_of(words: &str) -> Option<&str> {
        words.strip_suffix(LIFTED)
    }
}

const FOR: &str = " for ";
const MS: &str = " ms";
const LIFTED: &str = ": lifted";

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, duration_ms, .. } = self;
        if self.lifts() {
            write!(f, "{fault}{LIFTED}")
        } else {
            write!(f, "{fault}{FOR}{duration_ms}{MS}")
        }
    }
}

/// What a node says of a fault it was given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct FaultSeen {
    /// [`Injection::id`].
    pub id: u64,
    /// What it is.
    pub fault: Fault,
    /// How often it did something: packets, adapters, updates, pauses.
    pub fired: u64,
    /// Whether it goes on.
    pub active: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_can_be_lifted_and_nothing_else_happens_twice() {
        let of = |fault| Injection { id: 7, fault, duration_ms: 60_000, seed: 1 };
        for fault in [Fault::SlowTools { ms: 5 }, Fault::Pause, Fault::Hang] {
            let lasting = of(fault);
            assert!(!lasting.lifts(), "{fault}");
            let lifted = lasting.lifted().expect("goes on for a time");
            assert!(lifted.lifts(), "{fault}");
            assert_eq!((lifted.id, lifted.fault), (lasting.id, lasting.fault));
        }
        for fault in [Fault::Kill, Fault::NotFinite, Fault::TornWrite, Fault::Bomb(Bomb::Fork)] {
            assert_eq!(of(fault).lifted(), None, "{fault}");
            assert!(!Injection { duration_ms: 0, ..of(fault) }.lifts(), "{fault}");
        }
    }
}
