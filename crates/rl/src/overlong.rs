//! Soft penalty for running to the token limit (DAPO, Yu et al. 2025, eq. 13).

/// 0 up to `max - cache` tokens, falling linearly to -1 at `max`, -1 beyond.
#[must_use]
pub fn penalty(tokens: u32, max: u32, cache: u32) -> f64 {
    let free = max.saturating_sub(cache);
    if tokens <= free {
        0.0
    } else if tokens >= max {
        -1.0
    } else {
        -f64::from(tokens - free) / f64::from(max - free)
    }
}

#[cfg(test)]
mod tests {
    use super::penalty;

    #[test]
    fn it_falls_in_the_last_stretch_only() {
        for (tokens, expected) in [(0, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (120, -1.0)] {
            assert_eq!(penalty(tokens, 100, 20), expected, "{tokens} tokens");
        }
        assert_eq!(penalty(100, 100, 0), 0.0, "no cache, no penalty before the limit is passed");
        assert_eq!(penalty(101, 100, 0), -1.0);
    }
}
