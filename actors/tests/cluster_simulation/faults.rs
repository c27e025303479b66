//! What goes wrong, drawn from the seed, and when it ends.

use std::time::Duration;

use crrl_sim::Rng;
use crrl_sim::disk::Crash;
use rand::Rng as _;

/// Kinds of faults. A seed has a few of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    PowerFailure,
    CrashInWrite,
    Pause,
    Isolate,
    OneWay,
    Loss,
    Delay,
    Twice,
    Flip,
    Cut,
    Panic,
    FullDisk,
    DamagedCheckpoint,
    DamagedAdapter,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Kill,
        Self::PowerFailure,
        Self::CrashInWrite,
        Self::Pause,
        Self::Isolate,
        Self::OneWay,
        Self::Loss,
        Self::Delay,
        Self::Twice,
        Self::Flip,
        Self::Cut,
        Self::Panic,
        Self::FullDisk,
        Self::DamagedCheckpoint,
        Self::DamagedAdapter,
    ];

    /// Whether rollout nodes are lost by it for which no task is to blame.
    pub(crate) fn kills_at_random(self) -> bool {
        !matches!(
            self,
            Self::Twice
                | Self::Flip
                | Self::Cut
                | Self::Panic
                | Self::DamagedCheckpoint
                | Self::DamagedAdapter
        )
    }
}

/// One fault. Nodes are named by their numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The node stops, and starts again after a while.
    Crash(usize, Crash),
    /// The node stops in the middle of one of its next writes.
    CrashInWrite(usize, u64, Crash),
    /// The node's processes stand still.
    Pause(usize, Duration),
    /// Nothing reaches or leaves it.
    Isolate(usize, Duration),
    /// Nothing from the first reaches the second.
    OneWay(usize, usize, Duration),
    /// Packets meet something, around one node or everywhere.
    Packets(Packets, Option<usize>, Duration),
    /// The coordinator's actor panics.
    Panic,
    /// Nothing more fits its disk.
    FullDisk(usize, Duration),
    /// The learner stops, and its newest checkpoint is damaged.
    DamagedCheckpoint,
    /// Adapters that the node sends are damaged.
    DamagedAdapter(usize, Duration),
}

/// What a share of packets meets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Packets {
    Lost(f64),
    Late(f64, Duration),
    Twice(f64),
    Flipped(f64),
    Cut(f64),
}

/// Who there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) nodes: usize,
    /// The node with the parameter server: the coordinator's own or the one after it.
    pub(crate) server: usize,
    pub(crate) learner: usize,
}

fn between(rng: &mut Rng, least_ms: u64, most_ms: u64) -> Duration {
    // Most faults are short; a few outlast every timeout.
    let share: f64 = rng.random::<f64>().powi(2);
    let ms = least_ms as f64 + share * (most_ms - least_ms) as f64;
    Duration::from_millis(ms as u64)
}

/// A fault of one of the kinds.
pub(crate) fn draw(rng: &mut Rng, kinds: &[Kind], cast: Cast) -> Fault {
    let kind = kinds[rng.random_range(0..kinds.len())];
    let node = rng.random_range(0..cast.nodes);
    let other = (node + rng.random_range(1..cast.nodes)) % cast.nodes;
    let around = rng.random::<bool>().then_some(node);
    let for_a_while = between(rng, 200, 14_000);
    let share = rng.random_range(0.02..0.5);
    match kind {
        Kind::Kill => Fault::Crash(node, Crash::Kill),
        Kind::PowerFailure => Fault::Crash(node, Crash::Power),
        Kind::CrashInWrite => {
            // Rollout nodes write next to nothing.
            let node = rng.random_range(0..=cast.learner);
            let crash = if rng.random() { Crash::Kill } else { Crash::Power };
            Fault::CrashInWrite(node, rng.random_range(0..60), crash)
        }
        Kind::Pause => Fault::Pause(node, for_a_while),
        Kind::Isolate => Fault::Isolate(node, for_a_while),
        Kind::OneWay => Fault::OneWay(node, other, for_a_while),
        Kind::Loss => Fault::Packets(Packets::Lost(share), around, for_a_while),
        Kind::Delay => {
            let most = between(rng, 5, 3_000);
            Fault::Packets(Packets::Late(share, most), around, for_a_while)
        }
        Kind::Twice => Fault::Packets(Packets::Twice(share), around, for_a_while),
        Kind::Flip => Fault::Packets(Packets::Flipped(share / 4.0), around, for_a_while),
        Kind::Cut => Fault::Packets(Packets::Cut(share / 4.0), around, for_a_while),
        Kind::Panic => Fault::Panic,
        Kind::FullDisk => Fault::FullDisk(rng.random_range(0..=cast.learner), for_a_while),
        Kind::DamagedCheckpoint => Fault::DamagedCheckpoint,
        Kind::DamagedAdapter => {
            let node = if rng.random() { cast.server } else { cast.learner };
            Fault::DamagedAdapter(node, for_a_while)
        }
    }
}
