//! Durations, sizes and rates, as short as they can be read.

use crrl_types::Gpu;

/// A duration: `0 ms`, `940 ms`, `4.2 s`, `3m07s`, `2h05m`, `3d04h`.
#[must_use]
pub fn age(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms} ms"),
        1..=9 => format!("{s}.{} s", ms % 1000 / 100),
        10..=59 => format!("{s} s"),
        60..=3599 => format!("{}m{:02}s", s / 60, s % 60),
        3600..=86_399 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A duration of which less than a moment is nothing: `-` below 1 ms.
#[must_use]
pub fn wait(ms: u64) -> String {
    if ms == 0 { "-".to_owned() } else { age(ms) }
}

/// A number a second: `0`, `0.25`, `3.4`, `120`, `45.6k`.
#[must_use]
pub fn rate(per_s: f64) -> String {
    match per_s.abs() {
        v if !v.is_finite() => "-".to_owned(),
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{per_s:.2}"),
        v if v < 10.0 => format!("{per_s:.1}"),
        _ => count(per_s),
    }
}

/// How fast something becomes more or fewer, a second: `0`, `+3.4`, `-120`.
#[must_use]
pub fn growth(per_s: f64) -> String {
    if per_s > 0.0 { format!("+{}", rate(per_s)) } else { rate(per_s) }
}

/// Two quantiles of a round trip, given in milliseconds: `0.31/4.2 ms`, `120/1340 ms`; `-` where they are
/// not known.
#[must_use]
pub fn round_trip(p50_ms: Option<f64>, p99_ms: Option<f64>) -> String {
    let short = |ms: f64| match ms {
        v if v < 1.0 => format!("{v:.2}"),
        v if v < 10.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    };
    match (p50_ms, p99_ms) {
        (Some(p50), Some(p99)) => format!("{}/{} ms", short(p50), short(p99)),
        _ => "-".to_owned(),
    }
}

/// How far a clock is ahead, milliseconds: `0 ms`, `+940 ms`, `-4.2 s`.
#[must_use]
pub fn skew(ms: f64) -> String {
    let whole = ms.round();
    let sign = match whole {
        v if v > 0.0 => "+",
        v if v < 0.0 => "-",
        _ => "",
    };
    format!("{sign}{}", age(whole.abs() as u64))
}

/// A GPU: `0: 93% 40/80 GiB H100 80GB HBM3`; what it does not measure is `-`.
#[must_use]
pub fn gpu(gpu: &Gpu) -> String {
    let gib = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".to_owned(), |v| format!("{:.0}", v as f64 / f64::from(1 << 30)))
    };
    let busy = gpu.busy_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"));
    let name = gpu.name.strip_prefix("NVIDIA ").unwrap_or(&gpu.name);
    let (index, used, all) = (gpu.index, gib(gpu.used_bytes), gib(gpu.memory_bytes));
    format!("{index}: {busy} {used}/{all} GiB {name}")
}

/// All GPUs of a node, the first whole: `0: 93% 40/80 GiB H100 (+7)`; `-` where there are none.
#[must_use]
pub fn gpus(all: &[Gpu]) -> String {
    match all {
        [] => "-".to_owned(),
        [one] => gpu(one),
        [first, rest @ ..] => format!("{} (+{})", gpu(first), rest.len()),
    }
}

/// A large number: `950`, `12.3k`, `4.5M`.
#[must_use]
pub fn count(value: f64) -> String {
    match value.abs() {
        v if v < 10_000.0 => format!("{value:.0}"),
        v if v < 1e6 => format!("{:.1}k", value / 1e3),
        v if v < 1e9 => format!("{:.1}M", value / 1e6),
        _ => format!("{:.1}G", value / 1e9),
    }
}

/// A whole number with its thousands apart: `1,240`.
#[must_use]
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Memory: `512 MiB`, `1.4 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        0.0 => "-".to_owned(),
        v if v < 10.0 => format!("{v:.1} MiB"),
        v if v < 1000.0 => format!("{v:.0} MiB"),
        v => format!("{:.1} GiB", v / 1024.0),
    }
}

/// A number of a curve, in four digits or so.
#[must_use]
pub fn figure(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "-".to_owned(),
        0.0 => "0".to_owned(),
        v if v < 1e-3 => format!("{value:.1e}"),
        v if v < 10.0 => format!("{value:.3}"),
        v if v < 1000.0 => format!("{value:.1}"),
        _ => count(value),
    }
}

/// Time of day in UTC: `14:03:07`.
#[must_use]
pub fn clock(at_ms: u64) -> String {
    let s = at_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s % 3600 / 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_does_not_measure_is_absent_and_not_zero() {
        let full = Gpu {
            index: 0,
            name: "NVIDIA H100 80GB HBM3".into(),
            used_bytes: Some(41_234 << 20),
            memory_bytes: Some(81_559 << 20),
            busy_percent: Some(93),
        };
        let named = Gpu { index: 1, name: "NVIDIA L4".into(), ..Gpu::default() };
        assert_eq!(gpu(&full), "0: 93% 40/80 GiB H100 80GB HBM3");
        assert_eq!(gpu(&named), "1: - -/- GiB L4");
        assert_eq!(gpus(&[]), "-");
        assert_eq!(gpus(&[named, full]), "1: - -/- GiB L4 (+1)");
    }

    #[test]
    fn short_and_never_wider_than_their_column() {
        for (ms, text) in [
            (0, "0 ms"),
            (940, "940 ms"),
            (4250, "4.2 s"),
            (59_999, "59 s"),
            (187_000, "3m07s"),
            (7_500_000, "2h05m"),
            (273_600_000, "3d04h"),
        ] {
            assert_eq!(age(ms), text);
            assert!(age(ms).len() <= 6);
        }
        assert_eq!([rate(0.0), rate(0.25), rate(45_600.0)], ["0", "0.25", "45.6k"]);
        assert_eq!([7, 100, 1_240, 1_234_567].map(grouped), ["7", "100", "1,240", "1,234,567"]);
        assert_eq!([bytes(0), bytes(512 << 20), bytes(1500 << 20)], ["-", "512 MiB", "1.5 GiB"]);
        assert_eq!(clock(86_400_000 + 3_723_000), "01:02:03");
        assert_eq!([growth(3.4), growth(-120.0), growth(0.0)], ["+3.4", "-120", "0"]);
        assert_eq!(round_trip(Some(0.312), Some(4.16)), "0.31/4.2 ms");
        assert_eq!(round_trip(Some(119.8), Some(1_340.0)), "120/1340 ms");
        assert_eq!(round_trip(None, None), "-");
        let skews = [0.4, 940.2, -4_250.0, 30_000.0].map(skew);
        assert_eq!(skews, ["0 ms", "+940 ms", "-4.2 s", "+30 s"]);
        assert_eq!([figure(0.00012), figure(f64::NAN), figure(12.34)], ["1.2e-4", "-", "12.3"]);
    }
}
