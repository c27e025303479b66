//! The time of day. Whoever needs it asks here, so that it can be wrong on purpose.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::faults::MACHINE;

/// Now, as this node's clock says.
#[must_use]
pub fn now() -> SystemTime {
    skewed(SystemTime::now(), MACHINE.skew_s())
}

/// Milliseconds since the Unix epoch, as this node's clock says.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn skewed(now: SystemTime, by_s: i64) -> SystemTime {
    let by = Duration::from_secs(by_s.unsigned_abs());
    // A time that cannot be written is no time to be off by.
    if by_s < 0 { now.checked_sub(by) } else { now.checked_add(by) }.unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_was_said_and_never_panics() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(skewed(now, 60), now + Duration::from_secs(60));
        assert_eq!(skewed(now, -60), now - Duration::from_secs(60));
        assert_eq!(skewed(now, i64::MAX), now);
    }
}
