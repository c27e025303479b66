//! What is shown and what is not: `node:rollout waiting>100 !idle`.
//!
//! Terms are separated by blanks and must all hold. `!` in front turns one around. `field:pattern`
//! looks at one field, `field>number` compares one (`ms`, `s`, `m` and `h` may follow), anything else
//! is a regular expression that has to match somewhere in the row.

use regex::{Regex, RegexBuilder};

/// Characters of a filter; more is not typed by hand.
pub const CHARS_MAX: usize = 200;
/// Compiled size of one regular expression, bytes: what a typo may cost.
const REGEX_BYTES_MAX: usize = 1 << 18;

/// Something that can be filtered. Fields are named once for the whole kind.
pub trait Fields {
    /// Names of its fields of text.
    const TEXTS: &'static [&'static str];
    /// Names of its fields of numbers.
    const NUMBERS: &'static [&'static str];
    /// Other words for fields, as they may be typed, each with the field it is.
    const OTHER_WORDS: &'static [(&'static str, &'static str)] = &[];

    /// A field of [`Self::TEXTS`].
    fn text(&self, field: &str) -> String;
    /// A field of [`Self::NUMBERS`]; `None` where it is not known.
    fn number(&self, field: &str) -> Option<f64>;
    /// Whether it is shown whatever the filter says.
    fn is_pinned(&self) -> bool {
        false
    }
}

/// Why a filter cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No such field.
    #[error("there is no field {field:?} here; there are {known}")]
    UnknownField {
        /// What was typed.
        field: String,
        /// What there is.
        known: String,
    },
    /// Not a number.
    #[error("{0:?} is not a number (a unit may follow: ms, s, m, h)")]
    NotANumber(String),
    /// Not a regular expression.
    #[error("{0:?} is not a regular expression")]
    NotARegex(String),
    /// Longer than anybody types.
    #[error("a filter has at most {CHARS_MAX} characters")]
    TooLong,
}

/// A filter. The default lets everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
struct Term {
    negated: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Anywhere(Regex),
    Field(&'static str, Regex),
    Number(&'static str, Comparison, f64),
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Less,
    Equal,
    More,
}

impl Filter {
    /// Reads a filter for rows of one kind.
    ///
    /// # Errors
    /// [`FilterError`], which says what there is instead.
    pub fn parse<T: Fields>(text: &str) -> Result<Self, FilterError> {
        if text.chars().count() > CHARS_MAX {
            return Err(FilterError::TooLong);
        }
        let terms = text.split_whitespace().map(term::<T>).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), terms })
    }

    /// As it was typed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a row is shown.
    #[must_use]
    pub fn shows<T: Fields>(&self, row: &T) -> bool {
        row.is_pinned() || self.terms.iter().all(|term| term.holds(row))
    }
}

impl Term {
    fn holds<T: Fields>(&self, row: &T) -> bool {
        let found = match &self.test {
            Test::Anywhere(regex) => T::TEXTS.iter().any(|name| regex.is_match(&row.text(name))),
            Test::Field(name, regex) => regex.is_match(&row.text(name)),
            Test::Number(name, how, bound) => row.number(name).is_some_and(|value| match how {
                Comparison::Less => value < *bound,
                Comparison::Equal => (value - bound).abs() < f64::EPSILON * bound.abs().max(1.0),
                Comparison::More => value > *bound,
            }),
        };
        found != self.negated
    }
}

fn term<T: Fields>(word: &str) -> Result<Term, FilterError> {
    let (negated, word) = match word.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
    let operator = word.find([':', '>', '<', '=']).filter(|at| is_name(&word[..*at]));
    let Some(at) = operator else {
        return Ok(Term { negated, test: Test::Anywhere(pattern(word)?) });
    };
    let (typed, value) = (&word[..at], &word[at + 1..]);
    let other = T::OTHER_WORDS.iter().find(|(other, _)| *other == typed);
    let name = other.map_or(typed, |(_, field)| *field);
    let known = |names: &'static [&'static str]| {
        names.iter().copied().find(|known| *known == name).ok_or_else(|| {
            FilterError::UnknownField { field: typed.to_owned(), known: names.join(", ") }
        })
    };
    let test = match &word[at..=at] {
        ":" => Test::Field(known(T::TEXTS)?, pattern(value)?),
        "<" => Test::Number(known(T::NUMBERS)?, Comparison::Less, number(value)?),
        ">" => Test::Number(known(T::NUMBERS)?, Comparison::More, number(value)?),
        _ => Test::Number(known(T::NUMBERS)?, Comparison::Equal, number(value)?),
    };
    Ok(Term { negated, test })
}

fn pattern(text: &str) -> Result<Regex, FilterError> {
    RegexBuilder::new(text)
        .case_insensitive(true)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| FilterError::NotARegex(text.to_owned()))
}

/// A number; durations come out in milliseconds.
fn number(text: &str) -> Result<f64, FilterError> {
    let units = [("ms", 1.0), ("s", 1e3), ("m", 6e4), ("h", 3.6e6)];
    let (digits, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))
        .unwrap_or((text, 1.0));
    let value: f64 = digits.parse().map_err(|_| FilterError::NotANumber(text.to_owned()))?;
    Ok(value * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, f64, bool);

    impl Fields for Row {
        const TEXTS: &'static [&'static str] = &["node", "name"];
        const NUMBERS: &'static [&'static str] = &["waiting"];
        const OTHER_WORDS: &'static [(&'static str, &'static str)] = &[("mbox", "waiting")];

        fn text(&self, field: &str) -> String {
            let (node, name) = self.0.split_once('/').expect("node/name");
            if field == "node" { node } else { name }.to_owned()
        }

        fn number(&self, _: &str) -> Option<f64> {
            (self.1 >= 0.0).then_some(self.1)
        }

        fn is_pinned(&self) -> bool {
            self.2
        }
    }

    fn shows(filter: &str, row: &Row) -> bool {
        Filter::parse::<Row>(filter).expect(filter).shows(row)
    }

    #[test]
    fn terms_must_all_hold() {
        let row = Row("rollout-0/engine", 1500.0, false);
        for filter in [
            "",
            "engine",
            "ENG",
            "node:rollout-.$",
            "waiting>100",
            "waiting>1.4s",
            "!learner",
            "waiting=1500",
            "mbox>100 !mbox>1501",
            "node:roll waiting<2s !name:inbox",
            "roll.*0",
        ] {
            assert!(shows(filter, &row), "{filter}");
        }
        for filter in ["inbox", "!engine", "name:rollout", "waiting<100", "engine waiting>2s"] {
            assert!(!shows(filter, &row), "{filter}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_more_than_anything() {
        let row = Row("a/b", -1.0, false);
        assert!(!shows("waiting>0", &row) && !shows("waiting<1", &row));
    }

    #[test]
    fn a_failed_one_is_always_shown() {
        assert!(shows("nothing-like-it", &Row("a/b", 0.0, true)));
    }

    #[test]
    fn mistakes_are_named() {
        let says = |text: &str| Filter::parse::<Row>(text).expect_err(text).to_string();
        assert!(says("inbox>3").contains("waiting"), "{}", says("inbox>3"));
        assert!(says("mbox:3").contains("no field \"mbox\""), "{}", says("mbox:3"));
        assert!(says("type:x").contains("node, name"));
        assert!(says("waiting>many").contains("not a number"));
        assert!(says("a(").contains("not a regular expression"));
        assert!(says(&"x".repeat(999)).contains("at most"));
        assert!(says("a{1000}{1000}{1000}").contains("not a regular"));
    }
}
