//! Consistent renaming: every name of a function and of its file gets a new one of the same style,
//! so that a policy learns to copy names and not to know them.

use std::collections::{BTreeSet, HashMap, HashSet};

use rand::Rng;
use rand::seq::IndexedRandom as _;

use crate::operators;

/// Words that keep their meaning for a reader, and therefore their name.
const KEPT: &[&str] = &[
    "False",
    "None",
    "True",
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
    "match",
    "case",
    "self",
    "cls",
    "len",
    "range",
    "print",
    "str",
    "int",
    "float",
    "bool",
    "list",
    "dict",
    "set",
    "tuple",
    "bytes",
    "object",
    "type",
    "isinstance",
    "issubclass",
    "hasattr",
    "getattr",
    "setattr",
    "super",
    "open",
    "iter",
    "next",
    "zip",
    "map",
    "filter",
    "enumerate",
    "sorted",
    "reversed",
    "repr",
    "hash",
    "id",
    "ord",
    "chr",
    "abs",
    "round",
    "sum",
    "min",
    "max",
    "any",
    "all",
    "Exception",
    "ValueError",
    "TypeError",
    "KeyError",
    "IndexError",
    "OSError",
    "AttributeError",
    "RuntimeError",
    "NotImplementedError",
    "StopIteration",
    "ImportError",
    "property",
    "staticmethod",
    "classmethod",
    "r",
    "b",
    "u",
    "f",
    "rb",
    "br",
    "fr",
    "rf",
    "_",
    "join",
    "format",
    "replace",
    "strip",
    "write",
    "close",
    "group",
    "count",
    "update",
    "sort",
];

/// Most words of the pool that come from real names.
const POOL_MAX: usize = 4000;

/// What new names are made of.
#[derive(Debug, Default)]
pub(crate) struct Words {
    real: Vec<String>,
}

impl Words {
    /// Parts of the names in some texts.
    pub(crate) fn of<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut parts = BTreeSet::new();
        for text in texts {
            for word in words(text).map(|(at, len)| &text[at..at + len]) {
                for part in word.split('_') {
                    let plain = part.bytes().all(|b| b.is_ascii_lowercase());
                    if plain && (3..=9).contains(&part.len()) && !KEPT.contains(&part) {
                        parts.insert(part.to_owned());
                    }
                }
            }
            if parts.len() >= POOL_MAX {
                break;
            }
        }
        Self { real: parts.into_iter().collect() }
    }

    /// One lowercase word: half of them real, half made up.
    fn word(&self, rng: &mut impl Rng) -> String {
        match self.real.choose(rng) {
            Some(word) if rng.random_bool(0.5) => word.clone(),
            _ => made_up(rng),
        }
    }

    /// A new name in the style of `name`: underscores, parts and capitals stay where they are.
    fn like(&self, name: &str, rng: &mut impl Rng) -> String {
        let body = name.trim_matches('_');
        let lead = name.len() - name.trim_start_matches('_').len();
        let trail = name.len() - lead - body.len();
        let mut out = "_".repeat(lead);
        if body.len() <= 2 {
            // `i`, `x`, `fp`: as short again.
            for _ in 0..body.len().max(1) {
                out.push(char::from(b'a' + rng.random_range(0..26)));
            }
        } else {
            let upper = body.bytes().all(|b| !b.is_ascii_lowercase());
            let camel = !upper && body.starts_with(|c: char| c.is_ascii_uppercase());
            let parts = if camel {
                body.bytes().filter(u8::is_ascii_uppercase).count()
            } else {
                body.split('_').count()
            };
            for part in 0..parts.clamp(1, 3) {
                let word = self.word(rng);
                match (upper, camel) {
                    (true, _) => {
                        if part > 0 {
                            out.push('_');
                        }
                        out.push_str(&word.to_ascii_uppercase());
                    }
                    (false, true) => {
                        out.push_str(&word[..1].to_ascii_uppercase());
                        out.push_str(&word[1..]);
                    }
                    (false, false) => {
                        if part > 0 {
                            out.push('_');
                        }
                        out.push_str(&word);
                    }
                }
            }
        }
        out.push_str(&"_".repeat(trail));
        out
    }

    /// A path of a Python file, as deep as `path` up to three parts.
    pub(crate) fn path(&self, path: &str, rng: &mut impl Rng) -> String {
        let depth = path.split('/').count().clamp(1, 3);
        let mut parts: Vec<String> = (0..depth).map(|_| self.word(rng)).collect();
        if rng.random_bool(0.25) {
            let last = parts.pop().unwrap_or_default();
            parts.push(format!("{last}_{}", self.word(rng)));
        }
        format!("{}.py", parts.join("/"))
    }
}

fn made_up(rng: &mut impl Rng) -> String {
    const HEADS: &[&str] = &[
        "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z",
        "br", "cl", "dr", "fl", "gr", "pl", "qu", "sc", "sh", "sp", "st", "tr", "ch", "th",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "oo"];
    const TAILS: &[&str] = &["", "", "n", "r", "s", "t", "l", "m", "x", "ck", "nd", "rt", "ng"];
    let mut word = String::new();
    for _ in 0..rng.random_range(1..=3) {
        for part in [HEADS, VOWELS, TAILS] {
            word.push_str(part.choose(rng).expect("the lists are not empty"));
        }
    }
    word
}

/// Start and length of every word: a run of ASCII letters, digits and underscores.
fn words(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        at += bytes[at..].iter().position(is_word)?;
        let len = bytes[at..].iter().take_while(|b| is_word(b)).count();
        at += len;
        Some((at - len, len))
    })
}

/// Old name to new name.
pub(crate) type Names = HashMap<String, String>;

/// Draws new names for a share of the names of `text`. None of them is in use in `taken`.
pub(crate) fn names(
    text: &str,
    taken: &HashSet<String>,
    share: f64,
    words_of: &Words,
    rng: &mut impl Rng,
) -> Names {
    let mut map = Names::new();
    let mut used: HashSet<String> = HashSet::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for (at, len) in words(text) {
        let word = &text[at..at + len];
        let fixed = word.as_bytes()[0].is_ascii_digit()
            || word.starts_with("__")
            || word.bytes().all(|b| b == b'_')
            || KEPT.contains(&word)
            || operators::is_paired(word);
        if fixed || !seen.insert(word) || !rng.random_bool(share) {
            continue;
        }
        // A few draws find a free name, or the old one stays.
        for _ in 0..8 {
            let new = words_of.like(word, rng);
            if !taken.contains(&new) && !KEPT.contains(&new.as_str()) && used.insert(new.clone()) {
                map.insert(word.to_owned(), new);
                break;
            }
        }
    }
    map
}

/// The text with the new names. What follows a backslash is an escape and stays.
pub(crate) fn rename(text: &str, names: &Names) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    let mut done = 0;
    for (at, len) in words(text) {
        let escaped = at > 0 && text.as_bytes()[at - 1] == b'\\';
        if let Some(new) = names.get(&text[at..at + len])
            && !escaped
        {
            out.push_str(&text[done..at]);
            out.push_str(new);
            done = at + len;
        }
    }
    out.push_str(&text[done..]);
    out
}

/// Every word of a text.
pub(crate) fn vocabulary(text: &str) -> HashSet<String> {
    words(text).map(|(at, len)| text[at..at + len].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn new_names_keep_the_style_and_the_sense() {
        let text = "def load_user(self, _db, maxSize):\n    return MAX_ROWS if len(_db) > maxSize else _db.append(\"\\n\")\n";
        for seed in 0..200 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let map = names(text, &vocabulary(text), 1.0, &Words::default(), &mut rng);
            assert!(map.contains_key("load_user") && map["load_user"].contains('_'), "{map:?}");
            assert!(map["_db"].starts_with('_'), "seed {seed}: {map:?}");
            assert!(map["MAX_ROWS"].bytes().all(|b| !b.is_ascii_lowercase()), "{map:?}");
            for kept in ["def", "self", "len", "append", "return"] {
                assert!(!map.contains_key(kept), "seed {seed}: {kept} got a new name");
            }
            let renamed = rename(text, &map);
            assert!(renamed.contains("\\n") && !renamed.contains("load_user"), "{renamed}");
            let new: HashSet<&String> = map.values().collect();
            assert_eq!(new.len(), map.len(), "seed {seed}: two names became one");
        }
    }
}
