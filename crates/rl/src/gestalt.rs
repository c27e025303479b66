//! Ratcliff-Obershelp similarity of two texts, character by character.
//!
//! Equal to `difflib.SequenceMatcher(None, a, b).ratio()` of Python's standard library, its
//! "autojunk" rule included: in a `b` of 200 characters or more, those that make up over one
//! percent of it begin no match. The measure is not symmetric.

use std::collections::HashMap;

/// Comparisons after which the search is given up, about ten seconds' worth: what is left then counts
/// as unmatched. No patch a person would read comes near; one made to waste time does.
const COMPARISONS_MAX: u64 = 5_000_000_000;

/// From this many characters on, frequent ones begin no match.
const AUTOJUNK_FROM: usize = 200;

/// 2 M / T: twice the characters in matching blocks by the characters of both. Two empty texts are
/// equal: 1.
#[must_use]
pub fn ratio(a: &str, b: &str) -> f64 {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let total = a.len() + b.len();
    if total == 0 {
        return 1.0;
    }
    2.0 * Matcher::new(&a, &b).matched() as f64 / total as f64
}

/// Where the characters of `b` stand, and room for the search.
struct Matcher<'a> {
    a: &'a [char],
    b: &'a [char],
    /// For each character of `a`, the entry of `places` it has; `NOWHERE` for one `b` lacks.
    entry: Vec<u32>,
    /// Positions in `b`, rising; empty for a character too frequent to begin a match.
    places: Vec<Vec<u32>>,
    /// Length of the match that ends at (row, column): of the row before and of this one, each
    /// with the row it was written in, so that nothing has to be cleared.
    runs: [Vec<(u32, u32)>; 2],
    row: u32,
    comparisons: u64,
}

const NOWHERE: u32 = u32::MAX;

impl<'a> Matcher<'a> {
    fn new(a: &'a [char], b: &'a [char]) -> Self {
        let mut index: HashMap<char, u32> = HashMap::new();
        let mut places: Vec<Vec<u32>> = Vec::new();
        for (j, c) in b.iter().enumerate() {
            let next = places.len() as u32;
            let at = *index.entry(*c).or_insert(next);
            if at == next {
                places.push(Vec::new());
            }
            places[at as usize].push(j as u32);
        }
        if b.len() >= AUTOJUNK_FROM {
            let frequent = b.len() / 100 + 1;
            for list in &mut places {
                if list.len() > frequent {
                    list.clear();
                }
            }
        }
        let entry = a.iter().map(|c| index.get(c).copied().unwrap_or(NOWHERE)).collect();
        let empty = vec![(0, 0); b.len()];
        Self { a, b, entry, places, runs: [empty.clone(), empty], row: 0, comparisons: 0 }
    }

    /// Characters in matching blocks: the longest one, then left and right of it.
    fn matched(&mut self) -> usize {
        let mut left = vec![(0, self.a.len(), 0, self.b.len())];
        let mut matched = 0;
        while let Some((a_from, a_to, b_from, b_to)) = left.pop() {
            // Row numbers end there too; a text of that many rows is no patch either.
            let rows = u64::from(self.row) + (a_to - a_from) as u64 + 2;
            if self.comparisons > COMPARISONS_MAX || rows >= u64::from(u32::MAX) {
                break;
            }
            let (i, j, size) = self.longest(a_from, a_to, b_from, b_to);
            if size == 0 {
                continue;
            }
            matched += size;
            if a_from < i && b_from < j {
                left.push((a_from, i, b_from, j));
            }
            if i + size < a_to && j + size < b_to {
                left.push((i + size, a_to, j + size, b_to));
            }
        }
        matched
    }

    /// The longest block within the bounds; of several the one that begins first in `a`, then in
    /// `b`. Grown at both ends over characters that could not begin it.
    fn longest(
        &mut self,
        a_from: usize,
        a_to: usize,
        b_from: usize,
        b_to: usize,
    ) -> (usize, usize, usize) {
        let (mut best_i, mut best_j, mut best) = (a_from, b_from, 0);
        // Rows are numbered through all searches; one is left out so that the last row of a search
        // is not taken for the row before the next one's first.
        self.row += 2;
        for i in a_from..a_to {
            self.row += 1;
            if self.entry[i] == NOWHERE {
                continue;
            }
            let list = &self.places[self.entry[i] as usize];
            let first = list.partition_point(|j| (*j as usize) < b_from);
            self.comparisons += 1 + (list.len() - first) as u64;
            let [even, odd] = &mut self.runs;
            let (before, now) =
                if self.row.is_multiple_of(2) { (&*odd, even) } else { (&*even, odd) };
            for j in list[first..].iter().map(|j| *j as usize).take_while(|j| *j < b_to) {
                let run = match j.checked_sub(1).map(|j| before[j]) {
                    Some((row, run)) if j > b_from && row == self.row - 1 => run + 1,
                    _ => 1,
                };
                now[j] = (self.row, run);
                if run as usize > best {
                    best = run as usize;
                    (best_i, best_j) = (i + 1 - best, j + 1 - best);
                }
            }
        }
        while best_i > a_from && best_j > b_from && self.a[best_i - 1] == self.b[best_j - 1] {
            (best_i, best_j, best) = (best_i - 1, best_j - 1, best + 1);
        }
        while best_i + best < a_to
            && best_j + best < b_to
            && self.a[best_i + best] == self.b[best_j + best]
        {
            best += 1;
        }
        (best_i, best_j, best)
    }
}

#[cfg(test)]
mod tests {
    use super::ratio;

    #[test]
    fn known_ratios() {
        for (a, b, expected) in [
            ("", "", 1.0),
            ("abc", "", 0.0),
            ("abcd", "bcde", 0.75),
            ("private Thread", "private volatile Thread", 28.0 / 37.0),
            ("tide", "diet", 0.25),
            ("diet", "tide", 0.5),
        ] {
            assert!((ratio(a, b) - expected).abs() < 1e-12, "{a:?} {b:?}: {}", ratio(a, b));
        }
    }

    #[test]
    fn frequent_characters_begin_no_match_in_a_long_text() {
        let b = "a".repeat(200);
        assert_eq!(ratio("xaaaa", &b), 0.0);
        assert_eq!(ratio("xaaaa", &b[..199]), 2.0 * 4.0 / 204.0);
        assert_eq!(ratio(&format!("xa{}", "a".repeat(9)), &format!("x{b}")), 2.0 * 11.0 / 212.0);
    }
}
