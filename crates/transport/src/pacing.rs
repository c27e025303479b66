//! How fast blobs may be sent: a token bucket, with time passed in.

use std::time::Duration;

/// Bytes that may leave at once after a pause.
const BURST_BYTES: f64 = 1024.0 * 1024.0;

/// A token bucket.
#[derive(Debug, Clone)]
pub struct Pacing {
    bytes_per_s: f64,
    tokens: f64,
    last: Duration,
}

impl Pacing {
    /// A full bucket; `now` is time since any fixed moment.
    #[must_use]
    pub fn new(bytes_per_s: u64, now: Duration) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1) as f64, tokens: BURST_BYTES, last: now }
    }

    /// Takes `bytes` out of the bucket and says how long to wait before sending them. The bucket
    /// may go into debt, so that a chunk larger than the burst passes too.
    pub fn take(&mut self, bytes: usize, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        self.tokens = (self.tokens + elapsed.as_secs_f64() * self.bytes_per_s).min(BURST_BYTES)
            - bytes as f64;
        Duration::from_secs_f64((-self.tokens).max(0.0) / self.bytes_per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_transfer_keeps_to_its_rate() {
        let rate = 10 << 20;
        let mut now = Duration::ZERO;
        let mut pacing = Pacing::new(rate, now);
        for _ in 0..1000 {
            now += pacing.take(64 << 10, now);
        }
        let bytes_per_s = (1000.0 * 65536.0 - BURST_BYTES) / now.as_secs_f64();
        assert!((bytes_per_s / rate as f64 - 1.0).abs() < 0.01, "{bytes_per_s}");
    }

    #[test]
    fn a_short_one_does_not_wait() {
        assert_eq!(Pacing::new(1, Duration::ZERO).take(1000, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_pause_fills_the_bucket_once() {
        let mut pacing = Pacing::new(1 << 20, Duration::ZERO);
        let later = Duration::from_secs(100);
        assert_eq!(pacing.take(1 << 20, later), Duration::ZERO);
        assert!(pacing.take(1 << 20, later) > Duration::from_millis(900));
    }
}
