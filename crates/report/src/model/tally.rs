//! Names counted along an axis: the most frequent are told apart, the rest is one part.

use std::collections::BTreeMap;

use serde::Serialize;

use super::curve::Unit;

/// What the rest is called.
pub const REST: &str = "other";

/// One plot of parts on top of each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stack {
    /// Unique on the page.
    pub id: String,
    /// What is shown.
    pub title: String,
    /// What the x axis counts.
    pub x_name: String,
    /// What the values are.
    pub unit: Unit,
    /// How to read it.
    pub about: String,
    /// Of the parts, from the bottom up.
    pub names: Vec<String>,
    /// In the order of the axis.
    pub bars: Vec<Bar>,
    /// Whether neighbours are joined to areas.
    pub areas: bool,
}

/// The parts of one stretch of the axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bar {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// One a name; empty where nothing was counted.
    pub parts: Vec<f64>,
}

impl Bar {
    /// The middle of the steps it stands for: those above `from` up to `to`.
    #[must_use]
    pub fn middle_step(&self) -> f64 {
        f64::midpoint(self.from + 1.0, self.to)
    }
}

/// Counts of names in a fixed number of stretches.
#[derive(Debug, Clone)]
pub struct Tally {
    stretches: Vec<BTreeMap<String, f64>>,
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(stretches: usize) -> Self {
        Self { stretches: vec![BTreeMap::new(); stretches] }
    }

    /// Counts a name.
    pub fn add(&mut self, stretch: usize, name: &str, n: f64) {
        if let Some(counts) = self.stretches.get_mut(stretch) {
            match counts.get_mut(name) {
                Some(count) => *count += n,
                None => drop(counts.insert(name.to_owned(), n)),
            }
        }
    }

    /// The most frequent names, at most so many; those of one frequency by name.
    #[must_use]
    pub fn names(&self, most: usize) -> Vec<String> {
        let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, n) in self.stretches.iter().flatten() {
            *totals.entry(name).or_default() += n;
        }
        let mut totals: Vec<_> = totals.into_iter().filter(|(_, n)| *n > 0.0).collect();
        totals.sort_by(|a, b| b.1.total_cmp(&a.1));
        totals.into_iter().take(most).map(|(name, _)| name.to_owned()).collect()
    }

    /// Parts of every stretch in the order of these names, and what is left; divided by `by`.
    /// Empty where there is nothing to divide by.
    #[must_use]
    pub fn parts(&self, names: &[String], by: &[f64]) -> Vec<Vec<f64>> {
        let parts = |(counts, by): (&BTreeMap<String, f64>, &f64)| {
            if *by <= 0.0 {
                return Vec::new();
            }
            let mut parts: Vec<f64> =
                names.iter().map(|name| counts.get(name).copied().unwrap_or(0.0) / by).collect();
            let all: f64 = counts.values().sum::<f64>() / by;
            let rest = all - parts.iter().sum::<f64>();
            parts.push(if rest > 1e-9 { rest } else { 0.0 });
            parts
        };
        self.stretches.iter().zip(by).map(parts).collect()
    }

    /// What was counted in each stretch.
    #[must_use]
    pub fn totals(&self) -> Vec<f64> {
        self.stretches.iter().map(|counts| counts.values().sum()).collect()
    }
}

/// Takes the last part, the rest, off where there is none of it.
pub(crate) fn drop_empty_rest(names: &mut Vec<String>, bars: &mut [Bar]) {
    let rest = |bar: &Bar| bar.parts.last().copied().unwrap_or(0.0);
    if bars.iter().all(|bar| rest(bar) <= 0.0) {
        for bar in bars {
            bar.parts.pop();
        }
    } else {
        names.push(REST.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_are_told_apart_and_the_rest_is_one_part() {
        let mut tally = Tally::new(2);
        for (stretch, name, n) in [
            (0, "grep", 3.0),
            (0, "sed", 1.0),
            (1, "grep", 1.0),
            (1, "cat", 2.0),
            (1, "ls", 1.0),
            (9, "x", 9.0),
        ] {
            tally.add(stretch, name, n);
        }
        let names = tally.names(2);
        assert_eq!(names, ["grep", "cat"]);
        let parts = tally.parts(&names, &tally.totals());
        assert_eq!(parts, [vec![0.75, 0.0, 0.25], vec![0.25, 0.5, 0.25]]);
    }

    #[test]
    fn an_empty_stretch_has_no_parts_and_no_rest_is_no_name() {
        let mut tally = Tally::new(2);
        tally.add(0, "grep", 1.0);
        let mut names = tally.names(5);
        let parts = tally.parts(&names, &tally.totals());
        let mut bars: Vec<Bar> =
            parts.into_iter().map(|parts| Bar { from: 0.0, to: 1.0, parts }).collect();
        drop_empty_rest(&mut names, &mut bars);
        assert_eq!(
            (names, bars[0].parts.len(), bars[1].parts.len()),
            (vec!["grep".to_owned()], 1, 0)
        );
    }
}
