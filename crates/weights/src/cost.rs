//! What was measured of links and deltas, and whether a delta pays.

use std::time::Duration;

use crate::report::Report;

/// Weight of the newest measurement against all earlier ones.
const NEWEST: f64 = 0.3;
/// Legs of fewer bytes measure the wait for a reply and not the link.
const LEG_BYTES_MIN: u64 = 256 * 1024;
/// A delta must promise to save this share of the time: estimates are never that good.
const SAVED_MIN: f64 = 0.1;

/// How fast one node sends, over all its receivers together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Link {
    bytes_per_s: Option<f64>,
}

impl Link {
    /// What transfers have shown so far; `None` before the first.
    #[must_use]
    pub fn bytes_per_s(&self) -> Option<f64> {
        self.bytes_per_s
    }

    /// Takes a transfer in. `sharing(node)` is how many fetched from that node at once.
    pub fn learn(&mut self, report: &Report, sharing: impl Fn(&crrl_types::NodeName) -> usize) {
        for leg in report.legs.iter().filter(|leg| leg.bytes >= LEG_BYTES_MIN && leg.micros > 0) {
            let share = sharing(&leg.from).max(1) as f64;
            let rate = leg.bytes as f64 / Duration::from_micros(leg.micros).as_secs_f64() * share;
            let before = self.bytes_per_s.unwrap_or(rate);
            self.bytes_per_s = Some(before + NEWEST * (rate - before));
        }
    }
}

/// What a delta costs, measured on a real pair of adapters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DeltaCost {
    /// Its bytes by those of the adapter.
    pub ratio: f64,
    /// Adapter bytes a second it is made at.
    pub encode_bytes_per_s: f64,
    /// Adapter bytes a second it is applied at.
    pub decode_bytes_per_s: f64,
}

impl DeltaCost {
    /// Whether an adapter of `bytes` is there sooner as a delta, where the sender's link carries
    /// `copies` of it at once.
    #[must_use]
    pub fn pays(&self, bytes: u64, copies: usize, link: Link) -> bool {
        let Some(link) = link.bytes_per_s else { return false };
        let bytes = bytes as f64;
        let whole = bytes * copies.max(1) as f64 / link;
        let delta =
            bytes / self.encode_bytes_per_s + whole * self.ratio + bytes / self.decode_bytes_per_s;
        delta < whole * (1.0 - SAVED_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Leg;

    const MB: f64 = 1e6;
    const COST: DeltaCost =
        DeltaCost { ratio: 0.5, encode_bytes_per_s: 400.0 * MB, decode_bytes_per_s: 800.0 * MB };

    fn link(bytes_per_s: f64) -> Link {
        Link { bytes_per_s: Some(bytes_per_s) }
    }

    #[test]
    fn a_delta_pays_on_a_slow_link_and_not_on_a_fast_one() {
        assert!(COST.pays(10_000_000, 1, link(12.5 * MB)), "100 Mbit/s");
        assert!(!COST.pays(10_000_000, 1, link(1000.0 * MB)), "loopback");
        assert!(!COST.pays(10_000_000, 1, Link::default()), "nothing was measured");
        // Two copies share the link: what is saved is saved twice.
        let between = link(130.0 * MB);
        assert!(!COST.pays(10_000_000, 1, between) && COST.pays(10_000_000, 2, between));
    }

    #[test]
    fn a_link_is_what_its_receivers_got_together() {
        let mut link = Link::default();
        let leg = |bytes, micros| Leg { from: "server".into(), bytes, micros };
        let report = Report { legs: vec![leg(10_000_000, 100_000)], blamed: Vec::new() };
        link.learn(&report, |_| 2);
        assert_eq!(link.bytes_per_s(), Some(200.0 * MB));
        let small = Report { legs: vec![leg(1000, 1_000_000)], blamed: Vec::new() };
        link.learn(&small, |_| 2);
        assert_eq!(link.bytes_per_s(), Some(200.0 * MB), "a small one tells nothing");
    }
}
