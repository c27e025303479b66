//! How far a node's clock is from the coordinator's, judged by when messages left and when they came.
//! Pure: both times are passed in.

use std::collections::VecDeque;

/// Messages that are judged by: so many seconds at one a second.
const KEPT_MAX: usize = 8;

/// What the last messages of a node took, each measured by two clocks. The one that came through fastest
/// waited least on its way, so it says most.
#[derive(Debug, Default)]
pub(crate) struct ClockOffset {
    /// Microseconds, by the two clocks: less than 0 where the node's is ahead.
    took_us: VecDeque<i64>,
}

impl ClockOffset {
    /// A message left at `sent_us` by the node's clock and came at `came_us` by ours, both in
    /// microseconds since the Unix epoch.
    pub(crate) fn take(&mut self, sent_us: u64, came_us: u64) {
        let signed = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        self.took_us.push_back(signed(came_us).saturating_sub(signed(sent_us)));
        while self.took_us.len() > KEPT_MAX {
            self.took_us.pop_front();
        }
    }

    /// How far the node's clock is ahead of ours, microseconds, if a message takes half of
    /// `round_trip_us`; right to about that half. None before the first message.
    pub(crate) fn us(&self, round_trip_us: u64) -> Option<i64> {
        let fastest = self.took_us.iter().min()?;
        let travels = i64::try_from(round_trip_us / 2).unwrap_or(i64::MAX);
        Some(travels.saturating_sub(*fastest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_700_000_000_000_000;

    #[test]
    fn an_offset_is_told_from_the_message_that_came_through_fastest() {
        let mut offset = ClockOffset::default();
        assert_eq!(offset.us(4_000), None);
        // The node is 30 s ahead; a message travels for 2 ms and waits for a while more.
        for (n, waits_us) in [900_000, 40_000, 300, 70_000].into_iter().enumerate() {
            let ours = NOW_US + n as u64 * 1_000_000;
            offset.take(ours + 30_000_000, ours + 2_000 + waits_us);
        }
        assert_eq!(offset.us(4_000), Some(30_000_000 - 300));
    }

    #[test]
    fn a_clock_that_is_put_right_is_seen_to_be_within_so_many_messages() {
        let mut offset = ClockOffset::default();
        offset.take(NOW_US + 60_000_000, NOW_US);
        assert_eq!(offset.us(0), Some(60_000_000));
        for n in 0..KEPT_MAX as u64 {
            offset.take(NOW_US + n, NOW_US + n + 500);
        }
        assert_eq!((offset.us(1_000), offset.took_us.len()), (Some(0), KEPT_MAX));
        offset.take(u64::MAX, 0);
        assert!(offset.us(u64::MAX).is_some(), "whatever a node says");
    }
}
