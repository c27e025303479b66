//! Numbers, as people read them.

use time::OffsetDateTime;
use time::macros::format_description;

/// A count, its thousands apart.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    if digits.len() <= 4 {
        return digits;
    }
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A value in a table: about four digits, never more than are there.
#[must_use]
pub fn value(v: f64) -> String {
    let size = v.abs();
    let text = match size {
        _ if !v.is_finite() => "–".to_owned(),
        0.0 => "0".to_owned(),
        s if s < 1e-3 => format!("{v:.2e}"),
        s if s < 100.0 => format!("{v:.3}"),
        s if s < 10_000.0 => format!("{v:.1}"),
        s => count(s.round() as u64),
    };
    let text = if v < 0.0 && size >= 10_000.0 { format!("-{text}") } else { text };
    text.replace('-', "−")
}

/// A value with three decimals.
#[must_use]
pub fn fixed(v: f64) -> String {
    format!("{v:.3}").replace('-', "−")
}

/// A difference with three decimals and its sign.
#[must_use]
pub fn signed(v: f64) -> String {
    format!("{v:+.3}").replace('-', "−")
}

/// A probability of a test: never said to be 0.
#[must_use]
pub fn p(p: f64) -> String {
    if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") }
}

/// A probability of a test, in a sentence.
#[must_use]
pub fn p_is(probability: f64) -> String {
    let text = p(probability);
    if text.starts_with('<') { format!("p {text}") } else { format!("p = {text}") }
}

/// A share in per cent.
#[must_use]
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { "–".to_owned() }
}

/// A length of time: `5 min 36 s`, `2 h 05 min`, `0.8 s`, `7 ms`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 if ms < 100 => format!("{ms} ms"),
        0..10 => format!("{}.{} s", s, ms % 1_000 / 100),
        10..60 => format!("{s} s"),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {:02} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A moment on an axis that begins with the run.
#[must_use]
pub fn moment(s: f64) -> String {
    let whole = s.max(0.0).round() as u64;
    match whole {
        0 => "0".to_owned(),
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3_600 == 0 => format!("{} h", s / 3_600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A moment of the history, in UTC.
#[must_use]
pub fn utc(ms: u64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    i64::try_from(ms / 1_000)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "at an unknown time".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_their_thousands_apart() {
        assert_eq!(count(9_999), "9999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(10_000), "10,000");
    }

    #[test]
    fn values_keep_what_they_say() {
        for (v, text) in [
            (0.0, "0"),
            (0.25, "0.250"),
            (-0.25, "−0.250"),
            (2.0e-5, "2.00e−5"),
            (1_234.56, "1234.6"),
            (-25_000.0, "−25,000"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(value(v), text);
        }
        assert_eq!((signed(0.0954), signed(-0.1)), ("+0.095".to_owned(), "−0.100".to_owned()));
        assert_eq!((p(0.0), p(0.0312)), ("< 0.0001".to_owned(), "0.0312".to_owned()));
        assert_eq!((p_is(0.0), p_is(0.5)), ("p < 0.0001".to_owned(), "p = 0.5000".to_owned()));
    }

    #[test]
    fn times_are_told_in_the_unit_that_fits() {
        for (ms, text) in [
            (7, "7 ms"),
            (840, "0.8 s"),
            (42_000, "42 s"),
            (336_159, "5 min 36 s"),
            (7_500_000, "2 h 05 min"),
            (90_000_000, "1 d 01 h"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!((moment(90.0), moment(7_200.0)), ("90 s".to_owned(), "2 h".to_owned()));
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(u64::MAX), "at an unknown time");
    }
}
