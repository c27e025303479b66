//! The diff of two texts that differ in one short stretch, without a walk over their thousands of
//! equal lines.

use std::fmt::Write as _;

use crrl_rl::diff;

/// Lines of context in a patch.
const CONTEXT: usize = 3;
/// Bytes compared at once.
const CHUNK: usize = 256;

/// Bytes both begin with.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.chunks_exact(CHUNK).zip(b.chunks_exact(CHUNK));
    let start = chunks.take_while(|(a, b)| a == b).count() * CHUNK;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

/// Bytes both end with.
pub(crate) fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let chunks = a.rchunks_exact(CHUNK).zip(b.rchunks_exact(CHUNK));
    let end = chunks.take_while(|(a, b)| a == b).count() * CHUNK;
    let rest = |text: &[u8]| text.len() - end;
    let (a, b) = (&a[..rest(a)], &b[..rest(b)]);
    end + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// The same as [`diff::write`] with three lines of context.
pub(crate) fn write(path: &str, old: &str, new: &str) -> String {
    let (a, b) = (old.as_bytes(), new.as_bytes());
    let prefix = common_prefix(a, b);
    let suffix = common_suffix(a, b).min(a.len().min(b.len()) - prefix);
    // One line more than the context: equal lines beside the edit may be taken for part of it.
    let mut start = prefix;
    for _ in 0..CONTEXT + 2 {
        start = a[..start].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    }
    let start = if start == 0 { 0 } else { start + 1 };
    let behind = &a[a.len() - suffix..];
    let mut newlines = behind.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let behind = newlines.nth(CONTEXT + 2).map_or(0, |(at, _)| behind.len() - at - 1);
    let local = diff::write(
        path,
        Some(&old[start..a.len() - behind]),
        Some(&new[start..b.len() - behind]),
        CONTEXT,
    );
    let before = a[..start].iter().filter(|byte| **byte == b'\n').count();
    if before == 0 {
        return local;
    }
    let mut shifted = String::with_capacity(local.len() + 16);
    for line in local.split_inclusive('\n') {
        match line.strip_prefix("@@ -").and_then(|ranges| shift(ranges, before)) {
            Some(header) => shifted.push_str(&header),
            None => shifted.push_str(line),
        }
    }
    shifted
}

/// `3,7 +3,6 @@\n` with `by` added to both starts.
fn shift(ranges: &str, by: usize) -> Option<String> {
    let (old, rest) = ranges.split_once(" +")?;
    let (new, end) = rest.split_once(' ')?;
    let mut header = "@@ -".to_owned();
    for (range, mark) in [(old, " +"), (new, " ")] {
        let (start, len) = range.split_once(',').map_or((range, None), |(s, l)| (s, Some(l)));
        let _ = write!(header, "{}", start.parse::<usize>().ok()? + by);
        if let Some(len) = len {
            let _ = write!(header, ",{len}");
        }
        header.push_str(mark);
    }
    header.push_str(end);
    Some(header)
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_local_diff_leads_from_one_text_to_the_other() {
        for seed in 0..500 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let lines: Vec<String> = (0..rng.random_range(1..80))
                .map(|_| format!("é{}", rng.random_range(0..4)))
                .collect();
            let mut changed = lines.clone();
            let at = rng.random_range(0..changed.len());
            match rng.random_range(0..3) {
                0 => changed[at] = "new".to_owned(),
                1 => changed.insert(at, "new\nnewer".to_owned()),
                _ => drop(changed.remove(at)),
            }
            let end = if rng.random_bool(0.5) { "\n" } else { "" };
            let (old, new) = (lines.join("\n") + end, changed.join("\n") + end);
            if old == new {
                continue;
            }
            let text = write("a.py", &old, &new);
            let patch = diff::parse(&text).expect("a patch");
            let placed = &patch.files[0].hunks[0];
            let there: Vec<&str> = old.lines().skip(placed.old_at()).collect();
            let first = placed.old_lines().next().map(|line| line.text.as_str());
            assert!(first.is_none() || first == there.first().copied(), "seed {seed}\n{text}");
            let got = diff::apply(&old, &patch.files[0]);
            assert_eq!(got.as_deref(), Ok(new.as_str()), "seed {seed}\n{text}");
        }
    }
}
