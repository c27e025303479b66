//! Traces whose only work is copying: a random edit on a random line, and a statement that says
//! what the line should be. The policy finds the line that differs, copies it into `old` and the
//! statement's line into `new`; no operator's pattern helps it.

use crrl_types::BugKind;
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use super::{Dressed, Trace};
use crate::function::Site;
use crate::oracle::{OracleOptions, Repair, plan};

/// Characters of a line that is worth copying.
const LINE_MIN: usize = 6;
/// The statement repeats the line: a long one would fill the context.
const LINE_MAX: usize = 56;

/// A random edit of one token, as a site of `text`, and the (unedited) line it is in.
pub(super) fn site(text: &str, rng: &mut ChaCha8Rng) -> Option<(Site, String)> {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let fits = (LINE_MIN..=LINE_MAX).contains(&bare.len());
        if at > 0 && fits && bare.is_ascii() && !bare.starts_with('#') {
            lines.push((at, line));
        }
        at += line.len();
    }
    let (start, line) = *lines.choose(rng)?;
    let tokens = tokens(line);
    let token = tokens.choose(rng)?.clone();
    let here = &line[token.clone()];
    let others: Vec<&str> = self::tokens(text)
        .into_iter()
        .map(|range| &text[range])
        .filter(|other| *other != here && is_word(other) == is_word(here))
        .collect();
    let replacement = match rng.random_range(0..4) {
        // Dropped where something else stays on the line.
        0 if tokens.len() > 2 => String::new(),
        1 => format!("{here} {here}"),
        _ => (*others.choose(rng)?).to_owned(),
    };
    let site = Site {
        kind: BugKind::Constant, // unused: the trace names no kind
        start: start + token.start,
        end: start + token.end,
        replacement,
    };
    Some((site, line.trim().to_owned()))
}

/// Ranges of words and of single signs.
fn tokens(line: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = line.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = bytes[at..].iter().take_while(|b| word(**b)).count();
        if len > 0 {
            found.push(at..at + len);
            at += len;
        } else {
            if bytes[at].is_ascii_punctuation() {
                found.push(at..at + 1);
            }
            at += 1;
        }
    }
    found
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
}

/// The trace. The line is read back from the renamed file.
pub(super) fn trace(
    dressed: &Dressed,
    original: &str,
    rng: &mut ChaCha8Rng,
    options: &OracleOptions,
) -> Option<Trace> {
    let Dressed { source, function, site, broken } = dressed;
    let start = source.text[..site.start].rfind('\n').map_or(0, |at| at + 1);
    let line = source.text[start..].lines().next()?.trim();
    if line.is_empty() || line.len() > LINE_MAX + original.len() || line.contains('`') {
        return None;
    }
    let (name, path) = (&function.name, &source.path);
    let statement = match rng.random_range(0..3) {
        0 => format!("`{name}` in {path} should have the line `{line}`."),
        1 => format!("One line of `{name}` in {path} should be `{line}`."),
        _ => format!("`{name}` in {path} lost its line `{line}`."),
    };
    let repair = Repair { path, base: broken, fixed: &source.text, function: name };
    let oracle = plan(&repair, rng, options)?;
    Some(Trace { task: dressed.task(statement), turns: oracle.turns, words: oracle.words })
}
